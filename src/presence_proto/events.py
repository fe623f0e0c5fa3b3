"""Everything that the clients and the hub report. Frozen classes, and one closed union for each endpoint.

They are msgspec structs: one is made in a sixth of the time of a frozen attrs class, and `msgspec.structs`
has `replace` and `asdict`. An event is hashable unless it holds JSON of the server's. Further fields
(`extra`) count for equality only. They are read-only, as all JSON in events is.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct, field

from presence_proto.outputs import ConnId
from presence_proto.presence import PresenceChange


class _Event(Struct, frozen=True, gc=False):  # what it holds is JSON, which has no cycles to collect
    pass


class _EventWithExtra(_Event, frozen=True):
    def __hash__(self) -> int:
        named = [getattr(self, name) for name in self.__struct_fields__ if name not in _EXTRA]
        return tuple(named).__hash__()


_EXTRA = ("extra", "meta")

# -------------------------------------------------------------------------------------------- RealtimeClient


class SocketConnected(_Event, frozen=True):
    """The WebSocket is open. Channels are being joined."""


class SocketDisconnected(_Event, frozen=True):
    """The connection ended, or could not be made.

    `code` is the WebSocket close code (1006 for a bare end of stream), or `None` when there was no WebSocket
    yet; `status` the HTTP status of a refused upgrade. `retry_in`: seconds until the next attempt; `None`:
    there is none, because `disconnect` was called or because the refusal cannot heal (`fatal`).
    """

    reason: str
    code: int | None = None
    status: int | None = None
    retry_in: float | None = None
    fatal: bool = False


class ChannelJoined(_Event, frozen=True):
    """The server accepted the join. `rejoined`: this channel was joined before."""

    topic: str
    response: Any
    rejoined: bool


class JoinFailed(_Event, frozen=True):
    """The join was refused (`response` is the server's, without our secrets), or timed out (it is `None`).

    It is tried again in `retry_in` seconds, or after the next connect when that is `None`, until `leave`.
    """

    topic: str
    reason: str
    response: Any
    retry_in: float | None


class ChannelDown(_Event, frozen=True):
    """A joined channel ended although nobody left it: it crashed, was closed, or the connection was lost.

    It will be joined again in `retry_in` seconds, or after the next connect when that is `None`.
    """

    topic: str
    reason: str
    retry_in: float | None


class ChannelLeft(_Event, frozen=True):
    """The channel is left, as asked. The client has forgotten it."""

    topic: str


class PushReplied(_Event, frozen=True):
    """The reply to a push: `status` is the server's, most often `"ok"` or `"error"`.

    Unless it is `"ok"`, our secrets are taken out of both, and a response that is nested too deeply to look
    through is `None`.
    """

    push_id: int
    topic: str
    status: str
    response: Any


class PushFailed(_Event, frozen=True):
    """No reply will come for a push: it timed out, expired before the join, or its channel ended."""

    push_id: int
    topic: str
    reason: str


class TrackFailed(_Event, frozen=True):
    """The server refused our presence payload, or did not answer. It is tracked again at the next join."""

    topic: str
    reason: str
    response: Any = None


class PresenceSynced(_Event, frozen=True):
    """The server's whole presence of a topic arrived; `changes` is what differs from what we held."""

    topic: str
    changes: tuple[PresenceChange, ...]


class PresenceDiffed(_Event, frozen=True):
    """A diff changed the presence of a topic."""

    topic: str
    changes: tuple[PresenceChange, ...]


class PresenceMissing(_Event, frozen=True):
    """The server joined us to a topic, twice, and never told its presence. Most likely that is disabled."""

    topic: str
    reason: str


class Broadcast(_EventWithExtra, frozen=True):
    """A Supabase broadcast. `payload` is JSON, or `bytes`; `meta` what the server adds."""

    topic: str
    event: str
    payload: Any
    meta: Mapping[str, Any] = field(default_factory=dict)


class SystemMessage(_Event, frozen=True):
    """A Supabase `system` message; an `"error"` one comes before the server closes the channel."""

    topic: str
    extension: str
    status: str
    message: str
    payload: Any


class ChannelMessage(_Event, frozen=True):
    """Any other message of a topic: your own events, `postgres_changes`, …. `payload` is JSON, or `bytes`."""

    topic: str
    event: str
    payload: Any


class ProtocolViolation(_Event, frozen=True):
    """The server sent something malformed, or broke a limit of the config. The message was passed over."""

    reason: str
    topic: str | None = None


class AccessTokenFailed(_Event, frozen=True):
    """The application has no access token for us. It is asked again in `retry_in` seconds. Connects and joins
    wait for it."""

    reason: str
    retry_in: float


RealtimeEvent: TypeAlias = (
    AccessTokenFailed
    | SocketConnected
    | SocketDisconnected
    | ChannelJoined
    | JoinFailed
    | ChannelDown
    | ChannelLeft
    | PushReplied
    | PushFailed
    | TrackFailed
    | PresenceSynced
    | PresenceDiffed
    | PresenceMissing
    | Broadcast
    | SystemMessage
    | ChannelMessage
    | ProtocolViolation
)

# -------------------------------------------------------------------------------------------- PresenceClient


class UserStatus(StrEnum):
    """What a user is up to. The values are those of the wire."""

    ONLINE = "online"
    IDLE = "idle"
    IN_GAME = "in_game"
    IN_SKILL = "in_skill"
    DO_NOT_DISTURB = "do_not_disturb"
    AWAY = "away"


class OnlineUser(_EventWithExtra, frozen=True):
    """One user as others see them.

    `online_at` is the text that the user's client sent, by convention ISO 8601 in UTC. `extra` holds the
    further fields of the presence payload. A status that we do not know is `UserStatus.ONLINE`, and
    `extra["status"]` has it.
    """

    user_id: str
    display_name: str
    status: UserStatus = UserStatus.ONLINE
    activity: str | None = None
    online_at: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Connected(_Event, frozen=True):
    """We are in the room. `users` is everybody in it, ourselves first, and `online_count` how many that is.

    `resumed`: this ends an interruption; events for the net differences follow.
    """

    online_count: int
    users: tuple[OnlineUser, ...]
    resumed: bool


class Disconnected(_Event, frozen=True):
    """We are out of the room. The roster stays as it was, but stale. `retry_in`: seconds, if we try again."""

    reason: str
    retry_in: float | None


class UserOnline(_Event, frozen=True):
    """Somebody came online."""

    user: OnlineUser


class UserOffline(_Event, frozen=True):
    """Somebody's last device went offline. `user` is as last seen."""

    user: OnlineUser


class ActivityChanged(_Event, frozen=True):
    """What others see of a user changed."""

    user: OnlineUser
    previous: OnlineUser


class GameInvite(_EventWithExtra, frozen=True):
    """Somebody invites everybody to a game."""

    user_id: str
    display_name: str
    game: str
    code: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Poked(_EventWithExtra, frozen=True):
    """Somebody pokes us."""

    user_id: str
    display_name: str
    extra: Mapping[str, Any] = field(default_factory=dict)


class ChatMessage(_EventWithExtra, frozen=True):
    """Somebody says something in a chat channel of the room. `timestamp` is text from the sender's client."""

    user_id: str
    display_name: str
    channel: str
    content: str
    timestamp: str | None = None
    reply_to: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Error(_Event, frozen=True):
    """Something went wrong that the application should know. `fatal`: the client has stopped for good."""

    message: str
    fatal: bool = False


class CommandFailed(_Event, frozen=True):
    """A command did not reach the server, or was refused. `command_id` is what the command returned."""

    command_id: int
    command: str
    reason: str


class InviteSent(_Event, frozen=True):
    """The server's receipt for an invite: the display names of those who got it. Jarvis servers send one."""

    command_id: int
    sent_to: tuple[str, ...]


PresenceEvent: TypeAlias = (
    Connected
    | Disconnected
    | UserOnline
    | UserOffline
    | ActivityChanged
    | GameInvite
    | Poked
    | ChatMessage
    | Error
    | CommandFailed
    | InviteSent
)

# -------------------------------------------------------------------------------------------- Hub


class ClientConnected(_Event, frozen=True):
    """A client finished its upgrade. `path` has no query: that may hold a key."""

    conn: ConnId
    path: str


class ClientRefused(_Event, frozen=True):
    """A handshake was refused."""

    conn: ConnId
    status: int
    reason: str


class ClientDisconnected(_Event, frozen=True):
    """A connection ended. `code`: the close code, 1006 for a bare end, `None` without an upgrade."""

    conn: ConnId
    reason: str
    code: int | None


class TopicJoined(_Event, frozen=True):
    """A client joined a topic. `key` is its presence key, if the topic has presence for it."""

    conn: ConnId
    topic: str
    key: str | None


class TopicLeft(_Event, frozen=True):
    """A client's membership of a topic ended."""

    conn: ConnId
    topic: str
    reason: str


class JoinRefused(_Event, frozen=True):
    """A client was not let into a topic."""

    conn: ConnId
    topic: str
    reason: str


HubEvent: TypeAlias = (
    ClientConnected | ClientRefused | ClientDisconnected | TopicJoined | TopicLeft | JoinRefused
)
