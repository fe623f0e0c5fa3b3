"""A member of a topic that is a channel of a Phoenix connection: what all such channels have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from msgspec import Raw

from presence_proto.authorization import Allow, JoinRequest
from presence_proto.events import TopicJoined, TopicLeft
from presence_proto.secrets import hide
from presence_proto.serializer import Message, Ref

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from presence_proto.authorization import AuthorizeRule
    from presence_proto.hub.allowance import Allowance
    from presence_proto.hub.rates import Rates
    from presence_proto.hub.topic import Diff, SharedMessage, Topic
    from presence_proto.hub.topics import Topics
    from presence_proto.outputs import ConnId

Answer = TypeVar("Answer")


class JoinRefusedError(Exception):
    """A join is refused. The client is told the `reason`, the hub's user the `detail`, too."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail

    @property
    def is_crash(self) -> bool:
        """Whether a rule failed: the client is not told how, and the hub's user is."""
        return bool(self.detail)


def ask(rule: Callable[..., Answer], *args: Any) -> Answer:
    """Ask a rule of the hub's user. One that fails refuses, as a crash in Phoenix's join does."""
    try:
        return rule(*args)
    except Exception as exc:
        # Only the name of the exception: its text may hold what the client sent, a token for one.
        raise JoinRefusedError("join crashed", f" ({type(exc).__name__} in a rule)") from exc


def authorize(rule: AuthorizeRule | None, request: JoinRequest) -> str | None:
    """The presence key that the client gets. Raises `JoinRefusedError` if it may not join or the rule fails.

    A reason may quote the token: it is left out.
    """
    answer = None if rule is None else ask(rule, request)
    if answer is None:
        return request.key
    if isinstance(answer, Allow):
        return request.key if answer.key is None else answer.key
    if not isinstance(answer, str):
        raise JoinRefusedError("join crashed", f" (the answer of authorize is {answer!r:.100})")
    raise JoinRefusedError(answer if request.token is None else hide(answer, [request.token]))


def join_request(topic: str, token: object, key: str | None) -> JoinRequest:
    """What the rule is asked. `token`: what the client sent for one."""
    return JoinRequest(topic, token if isinstance(token, str) else None, key)


def reply_to(message: Message, join_ref: Ref, status: str, response: Any) -> Message:
    """The reply to a message."""
    payload: Any = {"status": status, "response": response}
    if payload == _PLAIN_OK:
        payload = _ENCODED_OK
    return Message(join_ref, message.ref, message.topic, "phx_reply", payload)


# The reply to heartbeats and to most pushes. Encoding it anew took a sixth of the hub's work for a heartbeat.
_PLAIN_OK = {"status": "ok", "response": {}}
_ENCODED_OK = Raw(b'{"status":"ok","response":{}}')


class ChannelSocket(Protocol):
    """What a channel needs of its connection."""

    topics: Topics
    token: str | None
    allowance: Allowance
    rates: Rates

    @property
    def conn(self) -> ConnId:
        """The connection."""

    @property
    def presence_limit(self) -> int | None:
        """Presence calls of one channel in 30 s."""

    def send(self, message: Message) -> None:
        """Send a message. Raises `LocalProtocolError` when it cannot be encoded."""

    def send_shared(self, shared: SharedMessage) -> None:
        """Send a message that others get, too."""

    def keep(self, size: int) -> None:
        """Count bytes that the hub keeps for this connection; less than 0 are given back."""

    def freed_by(self, topic: str) -> int:
        """Bytes that the end of the channel of a topic frees."""

    def forget(self, channel: PhoenixMember) -> None:
        """A channel has ended."""


CHANNEL_COST = 256  # bytes; what each channel counts besides its names


class PhoenixMember(ABC):
    """One life of one channel of one connection, from its join to its end.

    `join_ref` is as the client gave it. `ref` is what messages of this life carry, the join's own ref when
    there was no join_ref.
    """

    TOO_MANY: ClassVar[str]
    """The reason of a refusal when the connection has joined `max_channels` channels."""

    TOO_MANY_JOINS: ClassVar[str]
    """The reason of a refusal when the connection joins more often than `join_rate` allows."""

    __slots__ = ("_session", "_topic", "join_ref", "name", "ref")

    _topic: Topic  # from enter() on

    def __init__(self, session: ChannelSocket, message: Message) -> None:
        self._session = session
        self.name = message.topic
        self.join_ref = message.join_ref
        self.ref = message.ref if message.join_ref is None else message.join_ref

    # -- what the kinds of channels do each in their own way

    @property
    @abstractmethod
    def key(self) -> str | None:
        """The presence key."""

    @abstractmethod
    def response(self, message: Message) -> Mapping[str, Any]:
        """What the reply to the join `message` says."""

    @abstractmethod
    def welcome(self, message: Message) -> None:
        """Tell a new member what there is, after the reply to its join `message`."""

    @abstractmethod
    def receive(self, message: Message) -> None:
        """Handle a message of the client, other than join and leave."""

    # -- the life

    @property
    def size(self) -> int:
        """Bytes that the channel counts in the allowances of its connection and of the hub: its names."""
        names = (self.name, str(self.join_ref), str(self.ref), self.key or "")
        return CHANNEL_COST + sum(len(name.encode()) for name in names)

    @property
    def charge(self) -> int:
        """Bytes that its meta counts."""
        tracked = self._topic.tracked(self)
        return 0 if tracked is None else tracked.charge

    def enter(self, message: Message) -> None:
        """The join `message` is answered: become a member."""
        self._session.keep(self.size)
        self._topic = self._session.topics.enter(self.name, self)
        self._session.topics.emit(TopicJoined(self.conn, self.name, self.key))
        self.welcome(message)

    def close(self, reason: str) -> None:
        """End in order, and say so. `reason` is for the hub's user."""
        self._session.send(Message(self.join_ref, self.join_ref, self.name, "phx_close", {}))
        self.leave(reason)

    def leave(self, reason: str) -> None:
        """End without a word."""
        self._session.topics.leave(self._topic, self)
        self._session.keep(-self.size)
        self._session.forget(self)
        self._session.topics.emit(TopicLeft(self.conn, self.name, reason))

    # -- talking to the client

    def reply(self, message: Message, status: str, response: Any) -> None:
        """Answer a message."""
        self._session.send(reply_to(message, self.ref, status, response))

    def push(self, event: str, payload: Any) -> None:
        """Say something to this client only."""
        self._session.send(Message(self.ref, None, self.name, event, payload))

    # -- as a Member of a topic

    @property
    def conn(self) -> ConnId:
        """The connection."""
        return self._session.conn

    def on_broadcast(self, shared: SharedMessage, speaker: str | None) -> None:
        """Pass a message on."""
        self._session.send_shared(shared)

    def on_diff(self, diff: Diff) -> None:
        """Pass a change of the presence on."""
        self._session.send_shared(diff.shared)

    def stop(self, reason: str, *, crashed: bool) -> None:
        """The hub ends the channel."""
        if crashed:
            payload = {"reason": "channel_crash"}
            self._session.send(Message(self.join_ref, self.join_ref, self.name, "phx_error", payload))
            self.leave(reason)
        else:
            self.close(reason)
