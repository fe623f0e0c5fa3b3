"""Everything that the clients and the hub report. Frozen classes, and one closed union for each endpoint.

An event is hashable unless it holds JSON of the server's. Further fields (`extra`) count for equality only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from presence_proto.outputs import ConnId
    from presence_proto.presence import PresenceChange

# -------------------------------------------------------------------------------------------- RealtimeClient


@frozen
class SocketConnected:
    """The WebSocket is open. Channels are being joined."""


@frozen
class SocketDisconnected:
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


@frozen
class ChannelJoined:
    """The server accepted the join. `rejoined`: this channel was joined before."""

    topic: str
    response: Any
    rejoined: bool


@frozen
class JoinFailed:
    """The join was refused (`response` is the server's, without our secrets), or timed out (it is `None`).

    It is tried again in `retry_in` seconds, or after the next connect when that is `None`, until `leave`.
    """

    topic: str
    reason: str
    response: Any
    retry_in: float | None


@frozen
class ChannelDown:
    """A joined channel ended although nobody left it: it crashed, was closed, or the connection was lost.

    It will be joined again in `retry_in` seconds, or after the next connect when that is `None`.
    """

    topic: str
    reason: str
    retry_in: float | None


@frozen
class ChannelLeft:
    """The channel is left, as asked. The client has forgotten it."""

    topic: str


@frozen
class PushReplied:
    """The reply to a push: `status` is the server's, most often `"ok"` or `"error"`.

    Unless it is `"ok"`, our secrets are taken out of both, and a response that is nested too deeply to look
    through is `None`.
    """

    push_id: int
    topic: str
    status: str
    response: Any


@frozen
class PushFailed:
    """No reply will come for a push: it timed out, expired before the join, or its channel ended."""

    push_id: int
    topic: str
    reason: str


@frozen
class TrackFailed:
    """The server refused our presence payload, or did not answer. It is tracked again at the next join."""

    topic: str
    reason: str
    response: Any = None


@frozen
class PresenceSynced:
    """The server's whole presence of a topic arrived; `changes` is what differs from what we held."""

    topic: str
    changes: tuple[PresenceChange, ...]


@frozen
class PresenceDiffed:
    """A diff changed the presence of a topic."""

    topic: str
    changes: tuple[PresenceChange, ...]


@frozen
class PresenceMissing:
    """The server joined us to a topic, twice, and never told its presence. Most likely that is disabled."""

    topic: str
    reason: str


@frozen
class Broadcast:
    """A Supabase broadcast. `payload` is JSON, or `bytes`; `meta` what the server adds."""

    topic: str
    event: str
    payload: Any
    meta: Mapping[str, Any] = field(factory=dict, hash=False)


@frozen
class SystemMessage:
    """A Supabase `system` message; an `"error"` one comes before the server closes the channel."""

    topic: str
    extension: str
    status: str
    message: str
    payload: Any


@frozen
class ChannelMessage:
    """Any other message of a topic: your own events, `postgres_changes`, …. `payload` is JSON, or `bytes`."""

    topic: str
    event: str
    payload: Any


@frozen
class ProtocolViolation:
    """The server sent something malformed, or broke a limit of the config. The message was passed over."""

    reason: str
    topic: str | None = None


RealtimeEvent: TypeAlias = (
    SocketConnected
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


@frozen
class OnlineUser:
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
    extra: Mapping[str, Any] = field(factory=dict, hash=False)


@frozen
class Connected:
    """We are in the room. `users` is everybody in it, ourselves first, and `online_count` how many that is.

    `resumed`: this ends an interruption; events for the net differences follow.
    """

    online_count: int
    users: tuple[OnlineUser, ...]
    resumed: bool


@frozen
class Disconnected:
    """We are out of the room. The roster stays as it was, but stale. `retry_in`: seconds, if we try again."""

    reason: str
    retry_in: float | None


@frozen
class UserOnline:
    """Somebody came online."""

    user: OnlineUser


@frozen
class UserOffline:
    """Somebody's last device went offline. `user` is as last seen."""

    user: OnlineUser


@frozen
class ActivityChanged:
    """What others see of a user changed."""

    user: OnlineUser
    previous: OnlineUser


@frozen
class GameInvite:
    """Somebody invites everybody to a game."""

    user_id: str
    display_name: str
    game: str
    code: str | None = None
    extra: Mapping[str, Any] = field(factory=dict, hash=False)


@frozen
class Poked:
    """Somebody pokes us."""

    user_id: str
    display_name: str
    extra: Mapping[str, Any] = field(factory=dict, hash=False)


@frozen
class ChatMessage:
    """Somebody says something in a chat channel of the room. `timestamp` is text from the sender's client."""

    user_id: str
    display_name: str
    channel: str
    content: str
    timestamp: str | None = None
    reply_to: str | None = None
    extra: Mapping[str, Any] = field(factory=dict, hash=False)


@frozen
class Error:
    """Something went wrong that the application should know. `fatal`: the client has stopped for good."""

    message: str
    fatal: bool = False


@frozen
class CommandFailed:
    """A command did not reach the server, or was refused. `command_id` is what the command returned."""

    command_id: int
    command: str
    reason: str


@frozen
class InviteSent:
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


@frozen
class ClientConnected:
    """A client finished its upgrade. `path` has no query: that may hold a key."""

    conn: ConnId
    path: str


@frozen
class ClientRefused:
    """A handshake was refused."""

    conn: ConnId
    status: int
    reason: str


@frozen
class ClientDisconnected:
    """A connection ended. `code`: the close code, 1006 for a bare end, `None` without an upgrade."""

    conn: ConnId
    reason: str
    code: int | None


@frozen
class TopicJoined:
    """A client joined a topic. `key` is its presence key, if the topic has presence for it."""

    conn: ConnId
    topic: str
    key: str | None


@frozen
class TopicLeft:
    """A client's membership of a topic ended."""

    conn: ConnId
    topic: str
    reason: str


@frozen
class JoinRefused:
    """A client was not let into a topic."""

    conn: ConnId
    topic: str
    reason: str


HubEvent: TypeAlias = (
    ClientConnected | ClientRefused | ClientDisconnected | TopicJoined | TopicLeft | JoinRefused
)
