"""What all channels of a client share: the way out, the timers, and the replies that are awaited."""

from __future__ import annotations

import math
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any

from attrs import frozen

from presence_proto import events
from presence_proto.connection import ConnectionState
from presence_proto.serializer import Message, Serializer, serializer_for
from presence_proto.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from presence_proto.config import RealtimeConfig
    from presence_proto.connection import Connection
    from presence_proto.errors import RemoteProtocolError
    from presence_proto.events import RealtimeEvent
    from presence_proto.outputs import AccessTokenNeeded, Outbox


class Slot(IntEnum):  # whose hash is quicker than that of other enums
    """The timers of the channels. Each is named by its slot and a topic, or by PUSH and the id of a push."""

    REPLY = auto()  # the reply to the join or leave is due
    STATE = auto()  # the presence_state is due
    REJOIN = auto()  # join again
    STABLE = auto()  # joined for a while: backoffs start over
    TRACK = auto()  # the budget allows the next track
    PUSH = auto()  # the push expires, or its reply is due


@frozen
class Push:
    """A message of the application's that waits for its join, or for its reply."""

    push_id: int
    topic: str
    event: str
    payload: Any
    wants_reply: bool
    is_track: bool


class Wire:
    """Numbers messages, sends them, and remembers who waits for which reply."""

    __slots__ = (
        "_awaited",
        "_connection",
        "_joins",
        "_push_ids",
        "_refs",
        "_serializer",
        "config",
        "emit",
        "rng",
        "timers",
        "token",
    )

    def __init__(
        self,
        config: RealtimeConfig,
        connection: Connection,
        outbox: Outbox[AccessTokenNeeded | RealtimeEvent],
        rng: Random | None,
    ) -> None:
        self.config = config
        self.rng = rng
        self.token = config.access_token  # the one in force
        self.timers: Timers[tuple[Slot, str | int]] = Timers()
        self._connection = connection
        self.emit = outbox.emit  # report an event
        self._serializer: Serializer = serializer_for(config.vsn, server=False)
        # Refs are never reused, also not on the next connection: in V1 they are all that tells replies apart.
        self._refs = 0
        self._push_ids = 0
        # By ref: the push, and the join_ref that it went out with.
        self._awaited: dict[str, tuple[Push, str]] = {}
        self._joins: dict[str, float] = {}  # by topic, oldest first: until when its reply is waited for

    @property
    def is_open(self) -> bool:
        """Whether anything can be sent."""
        return self._connection.state is ConnectionState.OPEN

    def violated(self, exc: RemoteProtocolError, topic: str | None = None) -> None:
        """Report that a message was malformed. What was wrong may name a key of the server's."""
        self.emit(events.ProtocolViolation(self.quote(str(exc)), topic))

    def next_ref(self) -> str:
        """A fresh ref."""
        self._refs += 1
        return str(self._refs)

    def send(
        self, join_ref: str | None, topic: str, event: str, payload: Any, *, ref: str | None = None
    ) -> str:
        """Send a message and return its ref."""
        ref = self.next_ref() if ref is None else ref
        frame = self._serializer.encode(Message(join_ref, ref, topic, event, payload))
        self._connection.send(frame.data, text=frame.text)
        return ref

    def check(self, topic: str, event: str, payload: Any) -> None:
        """Raise `LocalProtocolError` unless this can be sent."""
        self._serializer.encode(Message("0", "0", topic, event, payload))

    def join_begins(self, topic: str, now: float) -> None:
        """A join is on its way. Until it is answered the server may answer nothing else, no heartbeat."""
        self._joins[topic] = now + self.config.join_timeout
        self._be_patient()

    def join_ends(self, topic: str) -> None:
        """No join of this topic, if there was one, is waited for any more."""
        if self._joins.pop(topic, None) is not None:
            self._be_patient()

    def _be_patient(self) -> None:
        # All have the same timeout, so the one that began last ends last.
        self._connection.be_patient_until(next(reversed(self._joins.values()), -math.inf))

    def settled(self) -> None:
        """Things have been well for a while: the reconnect backoff starts over."""
        self._connection.settled()

    def quote(self, *words: object) -> str:
        """The first of these that is text, for people: bounded, and without secrets, which it may quote."""
        text = next(word for word in words if isinstance(word, str) and word)
        return self._connection.redacted(text)[:200]

    def redacted(self, words: Any) -> Any:
        """A server's words without our secrets, if it is a string, or JSON that holds strings."""
        try:
            return _mapped(self._connection.redacted, words)
        except RecursionError:  # nested too deeply to look through
            return None

    # ---------------------------------------------------------------- pushes

    def new_push(
        self,
        topic: str,
        event: str,
        payload: Any,
        expires: float,
        *,
        wants_reply: bool = True,
        is_track: bool = False,
    ) -> Push:
        """A push with a fresh id, and a timer that fails it at `expires`.

        Raises `LocalProtocolError` when it cannot be sent: now, not when its turn has come.
        """
        self.check(topic, event, payload)
        self._push_ids += 1
        self.timers.set((Slot.PUSH, self._push_ids), expires)
        return Push(self._push_ids, topic, event, payload, wants_reply, is_track)

    def send_push(self, push: Push, join_ref: str) -> None:
        """Send a push in this life of its channel, and await its reply, if it wants one, until it expires."""
        ref = self.send(join_ref, push.topic, push.event, push.payload)
        if push.wants_reply:
            self._awaited[ref] = (push, join_ref)
        else:
            self.timers.cancel((Slot.PUSH, push.push_id))

    def replied(self, ref: object, status: str, response: Any) -> str | None:
        """A reply came. If a push waits for it, report it and return the join_ref that it went out with."""
        push, join_ref = self._awaited.pop(ref, (None, None)) if isinstance(ref, str) else (None, None)
        if push is None:
            return None
        self.timers.cancel((Slot.PUSH, push.push_id))
        if not push.is_track:
            self.emit(events.PushReplied(push.push_id, push.topic, status, response))
        elif status != "ok":
            self.emit(events.TrackFailed(push.topic, self.quote(f"the server said {status}"), response))
        return join_ref

    def fail(self, push: Push, reason: str) -> None:
        """No reply will come for a push."""
        self.timers.cancel((Slot.PUSH, push.push_id))
        if push.is_track:
            self.emit(events.TrackFailed(push.topic, reason))
        else:
            self.emit(events.PushFailed(push.push_id, push.topic, reason))

    def expired(self, push_id: int) -> bool:
        """A push that was sent got no reply in time. False: it was not sent."""
        for ref, (push, _) in self._awaited.items():
            if push.push_id == push_id:
                del self._awaited[ref]
                self.fail(push, "no reply in time")
                return True
        return False

    def connection_lost(self) -> None:
        """Nobody will answer what was sent."""
        awaited, self._awaited = self._awaited, {}
        for push, _ in awaited.values():
            if push.is_track:
                self.timers.cancel((Slot.PUSH, push.push_id))  # it is made again after the rejoin
            else:
                self.fail(push, "the connection ended before the reply")


def _mapped(change: Callable[[str], str], value: Any) -> Any:
    """`value`, which is JSON, with every string in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(change, item) for item in value]
    if isinstance(value, dict):
        return {change(name): _mapped(change, item) for name, item in value.items()}
    return value
