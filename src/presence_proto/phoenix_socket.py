"""What all channels of a client share: the way out, the timers, and the replies that are awaited."""

from __future__ import annotations

import math
from enum import Enum, IntEnum, auto
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, frozen
from msgspec import Raw

from presence_proto import events
from presence_proto.connection import ConnectionState
from presence_proto.errors import RemoteProtocolError
from presence_proto.json_text import cut, nests_deeper, too_deep
from presence_proto.presence import PresenceMap
from presence_proto.refusals import words_of
from presence_proto.serializer import Message, Serializer, serializer_for
from presence_proto.timers import Clock, Timers

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from presence_proto.config import RealtimeConfig
    from presence_proto.connection import Connection
    from presence_proto.endpoint import AccessTokenNeeded, Outbox
    from presence_proto.events import RealtimeEvent
    from presence_proto.presence import PresenceStore


# --------------------------------------------------------------------------------------------- channel timers
# The names of the timers that the channels of a client share.


class ChannelTimer(IntEnum):  # whose hash is quicker than that of other enums
    """What a timer is for. A timer is named by its slot and a topic, or by PUSH and the id of a push."""

    JOIN = auto()  # the answer to the join is late, or has been for long
    LEAVE = auto()  # the reply to the leave is due
    STATE = auto()  # the presence_state is due
    REJOIN = auto()  # join again
    STABLE = auto()  # joined for a while: backoffs start over
    TRACK = auto()  # the budget allows the next track
    PUSH = auto()  # the push expires, or its reply is due


ChannelTimers: TypeAlias = Timers[tuple[ChannelTimer, str | int]]


# --------------------------------------------------------------------------------------------- phoenix socket


UNMATCHED = {"reason": "unmatched topic"}
"""Phoenix' error response to a push for a topic that the socket has not joined."""


@frozen
class Push:
    """A message of the application's that waits for its join, or for its reply."""

    push_id: int
    topic: str
    event: str
    payload: Any
    wants_reply: bool
    is_track: bool


@frozen
class OuterClient:
    """What a client inside another one uses of it: its clock and outbox, its ear for events, its presence.

    Events are told at once, in the order of what came: nothing waits in a queue between the two.
    """

    clock: Clock
    outbox: Outbox[Any]
    emit: Callable[[RealtimeEvent], None]
    presence: PresenceStore


class PhoenixSocket:
    """Numbers messages, sends them, and remembers who waits for which reply."""

    __slots__ = (
        "_awaited",
        "_connection",
        "_host",
        "_push_ids",
        "_refs",
        "config",
        "emit",
        "joins",
        "rng",
        "serializer",
        "timers",
        "token",
    )

    def __init__(
        self,
        config: RealtimeConfig,
        connection: Connection,
        outbox: Outbox[AccessTokenNeeded | RealtimeEvent],
        rng: Random | None,
        host: OuterClient | None = None,
    ) -> None:
        self.config = config
        self._host = host
        self.rng = rng
        self.token = config.access_token  # the one in force
        self.timers: ChannelTimers = Timers()
        self.joins = JoinQueue(self.timers, config.join_timeout, connection.excuse_heartbeats_until)
        self._connection = connection
        self.emit = outbox.emit if host is None else host.emit  # report an event
        self.serializer: Serializer = serializer_for(config.vsn, server=False, max_nesting=config.max_nesting)
        # Refs are never reused, also not on the next connection: in V1 they are all that tells replies apart.
        self._refs = 0
        self._push_ids = 0
        # By ref: the push, and the join_ref that it went out with.
        self._awaited: dict[str, tuple[Push, str]] = {}

    @property
    def is_open(self) -> bool:
        """Whether anything can be sent."""
        return self._connection.state is ConnectionState.OPEN

    def new_presence(self) -> PresenceStore:
        """Where a channel keeps its presence."""
        if self._host is not None:
            return self._host.presence
        config = self.config
        return PresenceMap(
            max_keys=config.max_roster, max_metas=config.max_metas, max_nesting=config.max_nesting
        )

    def too_deep(self, text: str) -> tuple[RemoteProtocolError, Message | None] | None:
        """What is wrong with a text that nests too deeply; and the message, with `null` for what lies too
        deep, if it is one. `None` for any other text.
        """
        levels = self.config.max_nesting
        if not nests_deeper(text, levels):
            return None
        try:
            return too_deep("a message", levels), self.serializer.decode_text(cut(text, levels))
        except RemoteProtocolError:
            return too_deep("a message", levels), None

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
        frame = self.serializer.encode(Message(join_ref, ref, topic, event, payload))
        self._connection.send(frame.data, text=frame.text)
        return ref

    def check(self, topic: str, event: str, payload: Any) -> None:
        """Raise `LocalProtocolError` unless this can be sent."""
        self.serializer.encode(Message("0", "0", topic, event, payload))

    def reset_backoff(self) -> None:
        """Things have been well for a while: the reconnect backoff starts over."""
        self._connection.reset_backoff()

    def quote(self, *words: object) -> str:
        """The first of these that is text, for people: bounded, and without secrets, which it may quote."""
        text = next(word for word in words if isinstance(word, str) and word)
        return self._connection.credentials.quote(text)

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
        # JSON is ready to be sent: to encode it once more would take half the time of a heartbeat.
        if not (type(payload) is Raw and event.isascii() and topic.isascii()):
            self.check(topic, event, payload)
        self._push_ids += 1
        self.timers.set((ChannelTimer.PUSH, self._push_ids), expires)
        return Push(self._push_ids, topic, event, payload, wants_reply, is_track)

    def send_push(self, push: Push, join_ref: str) -> None:
        """Send a push in this life of its channel, and await its reply, if it wants one, until it expires."""
        ref = self.send(join_ref, push.topic, push.event, push.payload)
        if push.wants_reply:
            self._awaited[ref] = (push, join_ref)
        else:
            self.timers.cancel((ChannelTimer.PUSH, push.push_id))

    def replied(self, ref: object, status: str, response: Any) -> str | None:
        """A reply came. If a push waits for it, report it and return the join_ref that it went out with."""
        push, join_ref = self._awaited.pop(ref, (None, None)) if isinstance(ref, str) else (None, None)
        if push is None:
            return None
        self.timers.cancel((ChannelTimer.PUSH, push.push_id))
        if not push.is_track:
            self.emit(events.PushReplied(push.push_id, push.topic, status, response))
        elif status != "ok" and response != UNMATCHED:  # the end of the channel is reported instead
            reason = self.quote(words_of(response), f"the server said {status}")
            self.emit(events.TrackFailed(push.topic, reason, response))
        return join_ref

    def fail(self, push: Push, reason: str) -> None:
        """No reply will come for a push."""
        self.timers.cancel((ChannelTimer.PUSH, push.push_id))
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

    def channel_ended(self, join_ref: str, reason: str, *, crashed: bool) -> None:
        """A life of a channel ended. After a crash nobody will answer its pushes: they fail with `reason`.

        A channel that was closed in order may have handed its pushes to other processes, which still reply
        (Phoenix' `socket_ref/1`). Tracks do not wait: they are made again after the rejoin.
        """
        for ref, (push, pushed_in) in [*self._awaited.items()]:
            if pushed_in == join_ref and (crashed or push.is_track):
                del self._awaited[ref]
                self._drop(push, reason)

    def connection_lost(self, reason: str) -> None:
        """Nobody will answer what was sent. `reason` says why the connection ended."""
        self.joins.connection_lost()
        awaited, self._awaited = self._awaited, {}
        for push, _ in awaited.values():
            self._drop(push, f"the connection ended before the reply: {reason}")

    def _drop(self, push: Push, reason: str) -> None:
        if push.is_track:
            self.timers.cancel((ChannelTimer.PUSH, push.push_id))
        else:
            self.fail(push, reason)


# ------------------------------------------------------------------------------------------------- join queue
# The joins of one connection that the server has not answered, and how long to wait for the answers.
#
# Phoenix runs the joins of one socket one after the other, and handles nothing else of that socket meanwhile,
# no heartbeat either. Supabase takes 5 s for each join that it refuses. So the joins that a client has sent
# form a queue in the server:
#
#     sent first                                                    sent last
#     A (late)      B (its turn, as far as we know)      C      D      heartbeat
#
# - The timeout of a join counts from its turn: from the answer to the join before it, or from when that was
#   late. Each answer starts the timeout of the next join anew.
# - A late join stays in the queue, and its answer is an answer. Joining again would make the queue longer.
# - The answer to a join or to a heartbeat says that the server has passed over all joins sent before it. A
#   server that runs joins side by side may still answer those; after `PATIENCE` timeouts they join again.
# - While a join may block the socket, a missing heartbeat reply says nothing. That ends `PATIENCE` timeouts
#   after the last answer: a dead connection looks the same, and has to be found out.


PATIENCE = 3
"""Join timeouts that a join may take, or a server may be silent for, before the client gives up on it."""


class Overdue(Enum):
    """What to do about a join whose timer has fired."""

    LATE = auto()  # report it, and send a heartbeat: its reply would come after the answer to the join
    BLOCKED = auto()  # nothing: the heartbeats will end the connection
    REPEAT = auto()  # join again: the server passed over this one long ago


@define
class _Join:
    number: int  # the ref; refs count up
    is_late: bool = False
    is_passed: bool = False  # the server has answered what was sent later


class JoinQueue:
    """The unanswered joins of one connection, at most one of a topic.

    `timeout` is seconds. `excuse_heartbeats_until` is told until when missing heartbeat replies are no news.
    """

    __slots__ = ("_excuse_heartbeats_until", "_joins", "_moved_at", "_timeout", "_timers")

    def __init__(
        self, timers: ChannelTimers, timeout: float, excuse_heartbeats_until: Callable[[float], None]
    ) -> None:
        self._timers = timers
        self._timeout = timeout
        self._excuse_heartbeats_until = excuse_heartbeats_until
        # By topic, in the order of sending: first those that the server has passed over, if there are any.
        self._joins: dict[str, _Join] = {}
        self._moved_at = -math.inf  # when the server last answered, or the first join was sent

    def __contains__(self, topic: object) -> bool:
        return topic in self._joins

    def __len__(self) -> int:
        return len(self._joins)

    def number_of(self, topic: str) -> int:
        """The ref of the topic's join, as the number that it is."""
        return self._joins[topic].number

    @property
    def longest(self) -> float:
        """Seconds from a join being late to its being given up."""
        return (PATIENCE - 1) * self._timeout

    def sent(self, topic: str, ref: str, now: float) -> None:
        """A join was sent. There must be no other one of the topic."""
        assert topic not in self._joins
        last = next(reversed(self._joins.values()), None)
        if last is None or last.is_passed:
            self._moved_at = now
        self._joins[topic] = _Join(int(ref))
        if last is None or last.is_passed or last.is_late:
            self._timers.set((ChannelTimer.JOIN, topic), now + self._timeout)
        self._be_patient()

    def answered(self, topic: str, ref: object, now: float) -> bool:
        """Something was answered. False: it is not an unanswered join of this topic."""
        join = self._joins.get(topic)
        if join is None or ref != str(join.number):
            return False
        del self._joins[topic]
        self._timers.cancel((ChannelTimer.JOIN, topic))
        self.passed(join.number, now)
        return True

    def passed(self, number: int, now: float) -> None:
        """The server has answered what was sent with this ref: no join before it blocks the socket."""
        self._moved_at = now
        for join in self._joins.values():
            if join.number < number:
                join.is_passed = True
        self._next_turn(now)
        self._be_patient()

    def expired(self, topic: str, now: float) -> Overdue:
        """The timer of a topic's join has fired."""
        join = self._joins[topic]
        if not join.is_late:
            join.is_late = True
            self._timers.set((ChannelTimer.JOIN, topic), now + self.longest)
            self._next_turn(now)
            return Overdue.LATE
        if not join.is_passed:
            return Overdue.BLOCKED
        del self._joins[topic]
        return Overdue.REPEAT

    def connection_lost(self) -> None:
        """Nobody will answer."""
        for topic in self._joins:
            self._timers.cancel((ChannelTimer.JOIN, topic))
        self._joins.clear()
        self._be_patient()

    def _next_turn(self, now: float) -> None:
        for topic, join in self._joins.items():
            timer = (ChannelTimer.JOIN, topic)
            if join.is_passed:
                if self._timers.get(timer) is None:
                    self._timers.set(timer, now + self._timeout)
            elif not join.is_late:
                self._timers.set(timer, now + self._timeout)
                return

    def _be_patient(self) -> None:
        last = next(reversed(self._joins.values()), None)
        blocks = last is not None and not last.is_passed
        self._excuse_heartbeats_until(self._moved_at + PATIENCE * self._timeout if blocks else -math.inf)
