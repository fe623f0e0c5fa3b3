"""The events that the clients and the hub report: frozen classes, and one closed union for each endpoint.

Events are msgspec structs: creation takes a sixth of the time of a frozen attrs class, and `msgspec.structs`
has `replace` and `asdict`. An event is hashable unless the event holds JSON from the server. The hash of an
event ignores `extra` and `meta`, but equality compares `extra` and `meta`. Treat all JSON in events as
read-only.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct, field

from presence_proto.endpoint import ConnId
from presence_proto.presence import PresenceChange
from presence_proto.secrets import HIDDEN


class _Event(Struct, frozen=True, gc=False):  # gc=False: events hold JSON, which has no reference cycles
    pass


class _Answer(_Event, frozen=True):
    """Base of the events that report a server's answer. `response` is the answer as received.

    The repr of a refusal hides the response, because the response may quote the client's credentials. The
    field `reason` of an event is the server's human-readable text.
    """

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        if shown["response"] is not None and shown.get("status") != "ok":
            shown["response"] = _NOT_SHOWN
        return list(shown.items())


class _NotShown:
    def __repr__(self) -> str:
        return HIDDEN


_NOT_SHOWN = _NotShown()


class _EventWithExtra(_Event, frozen=True):
    def __hash__(self) -> int:
        named = [getattr(self, name) for name in self.__struct_fields__ if name not in _EXTRA]
        return tuple(named).__hash__()


_EXTRA = ("extra", "meta")

# -------------------------------------------------------------------------------------------- RealtimeClient


class SocketConnected(_Event, frozen=True):
    """The WebSocket is open. The client now joins its channels."""


class SocketDisconnected(_Event, frozen=True):
    """The connection ended, or could not be opened.

    `code` is the WebSocket close code (1006 for an end of stream without a close frame), or `None` if the
    WebSocket was not open yet. `status` is the HTTP status of a refused upgrade. `retry_in` is the delay
    before the next attempt in seconds. `None` means no further attempt: `disconnect` was called, or the
    refusal is final (`fatal`).
    """

    reason: str
    code: int | None = None
    status: int | None = None
    retry_in: float | None = None
    fatal: bool = False


class ChannelJoined(_Event, frozen=True):
    """The server accepted a join. `rejoined` is true if the channel was joined before."""

    topic: str
    response: Any
    rejoined: bool


class JoinFailed(_Answer, frozen=True):
    """The server refused a join, or did not answer within `join_timeout`.

    - `refused` is true if the server refused the join. `reason` is the server's text, without the client's
      credentials. `response` is the server's unchanged answer, or `None` if the server ended the channel
      instead of answering.
    - If `refused` is false, the answer is late. `ChannelJoined` or another `JoinFailed` follows a late
      answer.
    - `passing` is true if the server may accept the same join soon: the server is starting or overloaded, or
      the client repeats the join with a fresh access token.
    - `final` is true if the channel stops joining. After a new access token, another `join` of the topic or
      the next connect, the channel joins again.

    The client joins again in `retry_in` seconds, unless `retry_in` is `None` or `leave` is called.
    """

    topic: str
    reason: str
    response: Any
    retry_in: float | None
    refused: bool = False
    passing: bool = False
    final: bool = False


class ChannelEnd(StrEnum):
    """The cause of the end of a joined channel."""

    CLOSED = "closed"  #: The server closed the channel normally (`phx_close`).
    CRASHED = "crashed"  #: The channel's process on the server crashed (`phx_error`).
    FORGOTTEN = "forgotten"  #: The server does not know the channel: a push got the reply `unmatched topic`.
    CONNECTION_LOST = "connection_lost"


class ChannelDown(_Event, frozen=True):
    """A joined channel ended although the application did not leave the channel. `end` is the cause.

    The client rejoins in `retry_in` seconds, or after the next connect if `retry_in` is `None`. If the server
    closed the channel and the config has `rejoin_after_close=False`, the client does not rejoin, and
    `ChannelLeft` follows.
    """

    topic: str
    reason: str
    retry_in: float | None
    end: ChannelEnd = ChannelEnd.CONNECTION_LOST


class ChannelLeft(_Event, frozen=True):
    """The client left a channel: on request, or because of `rejoin_after_close=False`."""

    topic: str


class PushReplied(_Answer, frozen=True):
    """The server replied to a push. `status` is usually `"ok"` or `"error"`.

    `status` and `response` are unchanged. The repr hides the response of a refusal, which may quote
    credentials.
    """

    push_id: int
    topic: str
    status: str
    response: Any


class PushFailed(_Event, frozen=True):
    """A push gets no reply. The cause is a timeout, a crash of the channel, or the end of the connection. A
    push that waits for a join also fails if the push expires or the channel is left.

    A `phx_close` does not fail a push. Another process of the server may have the push and may still reply.
    """

    push_id: int
    topic: str
    reason: str


class TrackFailed(_Answer, frozen=True):
    """The server refused a tracked payload, or did not answer. A rejoin tracks the payload again.

    The client does not emit `TrackFailed` if the channel ended before the answer.
    """

    topic: str
    reason: str
    response: Any = None


class PresenceSynced(_Event, frozen=True):
    """A full presence state of a topic arrived. `changes` are the differences from the previous presence.

    `forgotten` is true if the state after a rejoin has no meta that continues a previous meta. The cause is
    probably a restart: the server has lost its presence, and the missing users will probably rejoin within
    seconds.
    """

    topic: str
    changes: tuple[PresenceChange, ...]
    forgotten: bool = False


class PresenceDiffed(_Event, frozen=True):
    """A presence diff from the server changed the presence of a topic."""

    topic: str
    changes: tuple[PresenceChange, ...]


class PresenceMissing(_Event, frozen=True):
    """The server sent no presence state within `state_timeout`. `reason` has the likely cause or a remedy.

    On Supabase, `PresenceMissing` follows two joins without a presence state. On plain Phoenix,
    `PresenceMissing` follows presence diffs without a presence state.
    """

    topic: str
    reason: str


class Broadcast(_EventWithExtra, frozen=True):
    """A Supabase broadcast arrived. `payload` is JSON or `bytes`. The server adds `meta`."""

    topic: str
    event: str
    payload: Any
    meta: Mapping[str, Any] = field(default_factory=dict)


class SystemMessage(_Event, frozen=True):
    """A Supabase `system` message arrived. The server sends status `"error"` before closing a channel."""

    topic: str
    extension: str
    status: str
    message: str
    payload: Any


class ChannelMessage(_Event, frozen=True):
    """A message without a class of its own arrived, such as an application event. `payload` is JSON or
    `bytes`."""

    topic: str
    event: str
    payload: Any


class ProtocolViolation(_Event, frozen=True):
    """The server sent a malformed message, or exceeded a limit of the config. The message was dropped."""

    reason: str
    topic: str | None = None


class AccessTokenFailed(_Event, frozen=True):
    """The application provided no access token. Connects and joins wait for a token. The client repeats the
    request in `retry_in` seconds."""

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
    """The status of a user. The enum values are the strings in messages."""

    ONLINE = "online"
    IDLE = "idle"
    IN_GAME = "in_game"
    IN_SKILL = "in_skill"
    DO_NOT_DISTURB = "do_not_disturb"
    AWAY = "away"


class OnlineUser(_EventWithExtra, frozen=True):
    """The data of one user that other users see.

    `online_at` is the text that the user's client sent, by convention ISO 8601 in UTC. `extra` holds the
    other fields of the presence payload. An unknown status becomes `UserStatus.ONLINE`, and `extra["status"]`
    has the original status.
    """

    user_id: str
    display_name: str
    status: UserStatus = UserStatus.ONLINE
    activity: str | None = None
    online_at: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Connected(_Event, frozen=True):
    """The client is in the room. `users` are all users in the room, this user first. `online_count` is the
    number of users.

    `resumed` is true if the client was in the room before. Events for the net differences follow.
    """

    online_count: int
    users: tuple[OnlineUser, ...]
    resumed: bool


class Disconnected(_Event, frozen=True):
    """The client is disconnected from the room. The roster stays, but may be out of date. The client connects
    again in `retry_in` seconds, unless `retry_in` is `None`."""

    reason: str
    retry_in: float | None


class UserOnline(_Event, frozen=True):
    """A user came online."""

    user: OnlineUser


class UserOffline(_Event, frozen=True):
    """The last device of a user went offline. `user` has the last known data."""

    user: OnlineUser


class ActivityChanged(_Event, frozen=True):
    """The visible data of a user changed."""

    user: OnlineUser
    previous: OnlineUser


class GameInvite(_EventWithExtra, frozen=True):
    """A user invites all users in the room to a game."""

    user_id: str
    display_name: str
    game: str
    code: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Poked(_EventWithExtra, frozen=True):
    """A user pokes this user."""

    user_id: str
    display_name: str
    extra: Mapping[str, Any] = field(default_factory=dict)


class ChatMessage(_EventWithExtra, frozen=True):
    """A user sent a chat message to a chat channel of the room. The sender's client set `timestamp`."""

    user_id: str
    display_name: str
    channel: str
    content: str
    timestamp: str | None = None
    reply_to: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Error(_Event, frozen=True):
    """An error occurred. `fatal` is true if the client has stopped and will not reconnect.

    `server_text` is the text of a Jarvis server's `error` message, without the client's credentials, or
    `None` for all other errors.
    """

    message: str
    fatal: bool = False
    server_text: str | None = None


class CommandFailed(_Event, frozen=True):
    """The server did not receive a command, or refused a command. `command_id` is the id of the command."""

    command_id: int
    command: str
    reason: str


class InviteSent(_Event, frozen=True):
    """A Jarvis server confirmed an invite. `sent_to` are the display names of the receivers."""

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
    """A client finished the WebSocket upgrade. `path` has no query, because a query may hold an API key."""

    conn: ConnId
    path: str


class ClientRefused(_Event, frozen=True):
    """The hub refused a handshake. `status` is the HTTP status."""

    conn: ConnId
    status: int
    reason: str


class ClientDisconnected(_Event, frozen=True):
    """A connection ended. `code` is the close code: 1006 without a close frame, `None` without an upgrade."""

    conn: ConnId
    reason: str
    code: int | None


class TopicJoined(_Event, frozen=True):
    """A client joined a topic. `key` is the client's presence key, or `None` without presence."""

    conn: ConnId
    topic: str
    key: str | None


class TopicLeft(_Event, frozen=True):
    """A client's membership of a topic ended."""

    conn: ConnId
    topic: str
    reason: str


class JoinRefused(_Event, frozen=True):
    """The hub refused a client's join of a topic."""

    conn: ConnId
    topic: str
    reason: str


HubEvent: TypeAlias = (
    ClientConnected | ClientRefused | ClientDisconnected | TopicJoined | TopicLeft | JoinRefused
)
