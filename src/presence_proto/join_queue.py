"""The joins of one connection that the server has not answered, and how long to wait for the answers.

Phoenix runs the joins of one socket one after the other, and handles nothing else of that socket meanwhile,
no heartbeat either. Supabase takes 5 s for each join that it refuses. So the joins that a client has sent
form a queue in the server:

    sent first                                                    sent last
    A (late)      B (its turn, as far as we know)      C      D      heartbeat

- The timeout of a join counts from its turn: from the answer to the join before it, or from when that was
  late. Each answer starts the timeout of the next join anew.
- A late join stays in the queue, and its answer is an answer. Joining again would make the queue longer.
- The answer to a join or to a heartbeat says that the server has passed over all joins sent before it. A
  server that runs joins side by side may still answer those; after `PATIENCE` timeouts they are joined again.
- While a join may block the socket, a missing heartbeat reply says nothing. That ends `PATIENCE` timeouts
  after the last answer: a dead connection looks the same, and has to be found out.
"""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import TYPE_CHECKING

from attrs import define

from presence_proto.channel_timers import ChannelTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_proto.channel_timers import ChannelTimers

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
