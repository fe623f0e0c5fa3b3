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

from presence_proto.endpoint import ConnId
from presence_proto.presence import PresenceChange
from presence_proto.secrets import HIDDEN


class _Event(Struct, frozen=True, gc=False):  # what it holds is JSON, which has no cycles to collect
    pass


class _Answer(_Event, frozen=True):
    """A server's answer. `response` is the server's, unchanged.

    A refusal may quote our credentials, so its repr leaves the response out; what the server says in it for
    people is in the `reason`, if there is one.
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


class JoinFailed(_Answer, frozen=True):
    """A join was refused, or there was no answer within `join_timeout`.

    - `refused`: the server has said no. `reason` has its words, without our credentials. `response` is its
      answer, unchanged, or `None` when it ended the channel instead of answering.
    - Not `refused`: the answer is late, and still counts when it comes (`ChannelJoined`, or another
      `JoinFailed`).
    - `passing`: the same join may be accepted soon. The server is starting or overloaded, or the join is
      tried once more with a fresh access token.
    - `final`: the channel has stopped asking. A new access token, another `join` of the topic or the next
      connect makes it ask again.

    It is tried again in `retry_in` seconds, when that is not `None`, until `leave`.
    """

    topic: str
    reason: str
    response: Any
    retry_in: float | None
    refused: bool = False
    passing: bool = False
    final: bool = False


class ChannelEnd(StrEnum):
    """How a joined channel ended."""

    CLOSED = "closed"  #: The server closed it in order (`phx_close`).
    CRASHED = "crashed"  #: Its process on the server crashed (`phx_error`).
    FORGOTTEN = "forgotten"  #: The server does not know it: it answered a push with `unmatched topic`.
    CONNECTION_LOST = "connection_lost"


class ChannelDown(_Event, frozen=True):
    """A joined channel ended although nobody left it; `end` says how.

    It will be joined again in `retry_in` seconds. When that is `None`: after the next connect, or, if the
    server closed it and the config says `rejoin_after_close=False`, never; `ChannelLeft` follows then.
    """

    topic: str
    reason: str
    retry_in: float | None
    end: ChannelEnd = ChannelEnd.CONNECTION_LOST


class ChannelLeft(_Event, frozen=True):
    """The channel is left, as asked or because of `rejoin_after_close=False`. The client has forgotten it."""

    topic: str


class PushReplied(_Answer, frozen=True):
    """The reply to a push: `status` is the server's, most often `"ok"` or `"error"`.

    Both are as the server sent them. The repr leaves the response of a refusal out: it may quote credentials.
    """

    push_id: int
    topic: str
    status: str
    response: Any


class PushFailed(_Event, frozen=True):
    """No reply will come for a push: it timed out, expired before the join, its channel crashed or was left
    before it was sent, or the connection ended.

    After a `phx_close` the reply may still come: another process of the server may have the push.
    """

    push_id: int
    topic: str
    reason: str


class TrackFailed(_Answer, frozen=True):
    """The server refused our presence payload, or did not answer. It is tracked again at the next join.

    Not reported when the channel ended before the answer.
    """

    topic: str
    reason: str
    response: Any = None


class PresenceSynced(_Event, frozen=True):
    """The server's whole presence of a topic arrived; `changes` is what differs from what we held.

    `forgotten`: after a rejoin, the state continues none of the metas that we held. Most likely the server
    was restarted and has forgotten everybody, and those who left will join again within seconds.
    """

    topic: str
    changes: tuple[PresenceChange, ...]
    forgotten: bool = False


class PresenceDiffed(_Event, frozen=True):
    """A diff changed the presence of a topic."""

    topic: str
    changes: tuple[PresenceChange, ...]


class PresenceMissing(_Event, frozen=True):
    """The server did not tell the presence of a topic within `state_timeout`. `reason` says what to do.

    On Supabase after two joins; on plain Phoenix when presence diffs have come without a state.
    """

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
