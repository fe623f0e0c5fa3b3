"""Presence for Python: which users are online, and the activity of each user. The sans-IO core works with any
event loop.

The package has two clients: `PresenceClient` (a room of users with a status) and `RealtimeClient` (any
Phoenix or Supabase channel). `Hub` is the server for both clients. The clients and the hub are `Endpoint`s: a
driver feeds bytes and clock ticks to an endpoint, and carries out the endpoint's outputs. `presence_adapters`
has ready-made drivers.

This module exports the commonly used names. The other public modules are `presence_proto.hub` (the events of
a hub), `.serializer`, `.websocket`, `.recording` (record and replay, for bug reports) and `.testing`. `Hub`
and its settings are imported on first access (PEP 562), because clients need neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from presence_proto.channel import ChannelState
from presence_proto.config import BroadcastReplay, ChannelConfig, Identity, PresenceConfig, RealtimeConfig
from presence_proto.endpoint import (
    AccessTokenNeeded,
    CloseTransport,
    ConnId,
    Endpoint,
    OpenTransport,
    SendData,
)
from presence_proto.errors import (
    ConfigError,
    LocalProtocolError,
    PresenceError,
    ProxyError,
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
    CommandFailed,
    Connected,
    Disconnected,
    Error,
    GameInvite,
    InviteSent,
    JoinFailed,
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
    TrackFailed,
    UserOffline,
    UserOnline,
    UserStatus,
)
from presence_proto.presence import PresenceChange, PresenceMap
from presence_proto.presence_client import PresenceClient, PresenceOutput
from presence_proto.realtime_client import RealtimeClient, RealtimeOutput

if TYPE_CHECKING:
    from presence_proto.hub import Hub
    from presence_proto.hub.authorization import Allow, JoinRequest
    from presence_proto.hub.config import HubConfig

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
    "CloseTransport",
    "CommandFailed",
    "ConfigError",
    "ConnId",
    "Connected",
    "Disconnected",
    "Endpoint",
    "Error",
    "GameInvite",
    "Hub",
    "HubConfig",
    "Identity",
    "InviteSent",
    "JoinFailed",
    "JoinRequest",
    "LocalProtocolError",
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
    "ProxyError",
    "PushFailed",
    "PushReplied",
    "RealtimeClient",
    "RealtimeConfig",
    "RealtimeEvent",
    "RealtimeOutput",
    "RemoteProtocolError",
    "SendData",
    "SocketConnected",
    "SocketDisconnected",
    "SystemMessage",
    "TrackFailed",
    "UserOffline",
    "UserOnline",
    "UserStatus",
]


_LATER = {"Allow": "authorization", "Hub": "hub", "HubConfig": "config", "JoinRequest": "authorization"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f"{__name__}.hub.{_LATER[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
