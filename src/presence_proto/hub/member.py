"""A member of a topic that is a channel of a Phoenix connection: what all such channels have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from presence_proto.events import TopicJoined, TopicLeft
from presence_proto.serializer import Message, Ref

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from presence_proto.config import AuthorizeRule
    from presence_proto.hub.phoenix import PhoenixSession
    from presence_proto.hub.topic import Diff, Shared, Topic
    from presence_proto.outputs import ConnId

Answer = TypeVar("Answer")

_SECRET_LENGTH = 8
"""Characters. Shorter tokens are a test's: they are no secrets, and their text may stand anywhere."""


class Refused(Exception):  # noqa: N818 - it is an answer to the client, not an error of ours
    """A join is refused. The client is told the `reason`, the hub's user the `detail`, too."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def ask(rule: Callable[..., Answer], *args: Any) -> Answer:
    """Ask a rule of the hub's user. One that fails refuses, as a crash in Phoenix's join does."""
    try:
        return rule(*args)
    except Exception as exc:
        # Only the name of the exception: its text may hold what the client sent, a token for one.
        raise Refused("join crashed", f" ({type(exc).__name__} in a rule)") from exc


def objection(authorize: AuthorizeRule | None, topic: str, token: object) -> str | None:
    """Why the hub's user does not want the client with this token in the topic; `None` when they do.

    Without the token, which their words may quote. Raises `Refused` when the rule fails.
    """
    if authorize is None:
        return None
    secret = token if isinstance(token, str) else None
    reason = ask(authorize, topic, secret)
    return reason.replace(secret, "…") if reason and secret and len(secret) >= _SECRET_LENGTH else reason


def reply_to(message: Message, join_ref: Ref, status: str, response: Any) -> Message:
    """The reply to a message."""
    payload = {"status": status, "response": response}
    return Message(join_ref, message.ref, message.topic, "phx_reply", payload)


class PhoenixMember(ABC):
    """One life of one channel of one connection, from its join to its end.

    `join_ref` is as the client gave it. `ref` is what messages of this life carry, the join's own ref when
    there was no join_ref.
    """

    __slots__ = ("_session", "_topic", "join_ref", "name", "ref")

    _topic: Topic  # from enter() on

    def __init__(self, session: PhoenixSession, message: Message) -> None:
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

    def enter(self, message: Message) -> None:
        """The join `message` is answered: become a member."""
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

    def on_broadcast(self, shared: Shared, speaker: str | None) -> None:
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
