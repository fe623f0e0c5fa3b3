"""Presence for Python: who is online and what they are doing. A sans-IO core for any event loop.

The two clients are `PresenceClient` (a room of users with a status) and `RealtimeClient` (any Phoenix or
Supabase channel), `Hub` is the server of both. Each is an `Endpoint`: a driver feeds it bytes and clock
ticks, and carries out its outputs. Ready-made drivers live in `presence_adapters`.

The hub and the recordings are imported when they are first asked for (PEP 562): a client needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from presence_proto.authorization import Allow, JoinRequest
from presence_proto.channel_config import BroadcastReplay, ChannelConfig
from presence_proto.channel_state import ChannelState
from presence_proto.client import PresenceClient, PresenceOutput
from presence_proto.config import (
    HubConfig,
    Identity,
    PresenceConfig,
    RealtimeConfig,
    join_params_are_the_meta,
)
from presence_proto.endpoint import Endpoint
from presence_proto.errors import (
    ConfigError,
    LocalProtocolError,
    PresenceError,
    ProxyError,
    RecordingError,
    RemoteProtocolError,
)
from presence_proto.events import (
    AccessTokenFailed,
    ActivityChanged,
    Broadcast,
    ChannelDown,
    ChannelEnd,
    ChannelJoined,
    ChannelLeft,
    ChannelMessage,
    ChatMessage,
    ClientConnected,
    ClientDisconnected,
    ClientRefused,
    CommandFailed,
    Connected,
    Disconnected,
    Error,
    GameInvite,
    HubEvent,
    InviteSent,
    JoinFailed,
    JoinRefused,
    OnlineUser,
    Poked,
    PresenceDiffed,
    PresenceEvent,
    PresenceMissing,
    PresenceSynced,
    ProtocolViolation,
    PushFailed,
    PushReplied,
    RealtimeEvent,
    SocketConnected,
    SocketDisconnected,
    SystemMessage,
    TopicJoined,
    TopicLeft,
    TrackFailed,
    UserOffline,
    UserOnline,
    UserStatus,
)
from presence_proto.outputs import AccessTokenNeeded, CloseTransport, ConnId, OpenTransport, SendData
from presence_proto.presence import Meta, PresenceChange, PresenceMap
from presence_proto.realtime import RealtimeClient, RealtimeOutput
from presence_proto.serializer import Message, UserBroadcast, V1Serializer, V2Serializer, serializer_for
from presence_proto.tunnel import Proxy, ProxyTunnel
from presence_proto.websocket import WebSocket

if TYPE_CHECKING:
    from presence_proto.hub import Hub
    from presence_proto.recording.recorder import Recorder
    from presence_proto.recording.replay import Difference, ReplayResult, replay
    from presence_proto.recording.show import Narrator, show_recording

__all__ = [
    "AccessTokenFailed",
    "AccessTokenNeeded",
    "ActivityChanged",
    "Allow",
    "Broadcast",
    "BroadcastReplay",
    "ChannelConfig",
    "ChannelDown",
    "ChannelEnd",
    "ChannelJoined",
    "ChannelLeft",
    "ChannelMessage",
    "ChannelState",
    "ChatMessage",
    "ClientConnected",
    "ClientDisconnected",
    "ClientRefused",
    "CloseTransport",
    "CommandFailed",
    "ConfigError",
    "ConnId",
    "Connected",
    "Difference",
    "Disconnected",
    "Endpoint",
    "Error",
    "GameInvite",
    "Hub",
    "HubConfig",
    "HubEvent",
    "Identity",
    "InviteSent",
    "JoinFailed",
    "JoinRefused",
    "JoinRequest",
    "LocalProtocolError",
    "Message",
    "Meta",
    "Narrator",
    "OnlineUser",
    "OpenTransport",
    "Poked",
    "PresenceChange",
    "PresenceClient",
    "PresenceConfig",
    "PresenceDiffed",
    "PresenceError",
    "PresenceEvent",
    "PresenceMap",
    "PresenceMissing",
    "PresenceOutput",
    "PresenceSynced",
    "ProtocolViolation",
    "Proxy",
    "ProxyError",
    "ProxyTunnel",
    "PushFailed",
    "PushReplied",
    "RealtimeClient",
    "RealtimeConfig",
    "RealtimeEvent",
    "RealtimeOutput",
    "Recorder",
    "RecordingError",
    "RemoteProtocolError",
    "ReplayResult",
    "SendData",
    "SocketConnected",
    "SocketDisconnected",
    "SystemMessage",
    "TopicJoined",
    "TopicLeft",
    "TrackFailed",
    "UserBroadcast",
    "UserOffline",
    "UserOnline",
    "UserStatus",
    "V1Serializer",
    "V2Serializer",
    "WebSocket",
    "join_params_are_the_meta",
    "replay",
    "serializer_for",
    "show_recording",
]

_LATER = {
    "Difference": "recording",
    "Hub": "hub",
    "Narrator": "recording",
    "Recorder": "recording",
    "ReplayResult": "recording",
    "replay": "recording",
    "show_recording": "recording",
}
"""The public names that are imported when they are asked for, and where they are."""


def __getattr__(name: str) -> Any:
    if name in ("hub", "recording"):
        return import_module(f"{__name__}.{name}")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
