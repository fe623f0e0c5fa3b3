"""Named timers, one slot per meaning (after quinn-proto's timer table), and the checks on `now`."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

from presence_proto.errors import LocalProtocolError

if TYPE_CHECKING:
    from random import Random


Name = TypeVar("Name")

MAX_NOW = 1e12
"""Seconds. Past it a float cannot tell milliseconds apart, and `now + 0.001` may be `now` again."""


class Clock:
    """The monotonic clock of the facts. It never runs backwards, and it is never NaN or infinite."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = -math.inf

    def advance(self, now: float) -> float:
        """Take in a new `now` (seconds); going backwards is clamped.

        Raises `LocalProtocolError` on NaN, infinity, and what cannot be seconds because it is past `MAX_NOW`.
        """
        if not -MAX_NOW < now < MAX_NOW:
            raise LocalProtocolError(f"now must be a finite number of seconds up to {MAX_NOW:g}, not {now!r}")
        if now > self.now:
            self.now = now
        return self.now


class _Timer(Struct, order=True):
    """An entry of the heap. They are compared by their first two fields, of which no two have the same."""

    deadline: float
    serial: int  # breaks ties in the order in which timers were set
    name: Any
    live: bool = True


class Timers(Generic[Name]):
    """A set of named deadlines in seconds. Setting a name again replaces its deadline.

    O(log n) a change: a heap whose outdated entries are dropped when they surface. `first` is the earliest
    deadline in seconds, infinite when nothing is set: it is asked for with every read, and rarely changes.
    """

    __slots__ = ("_heap", "_live", "_serial", "first")

    def __init__(self) -> None:
        self._live: dict[Name, _Timer] = {}
        self._heap: list[_Timer] = []  # the first of them is live
        self._serial = 0
        self.first = math.inf

    def set(self, name: Name, deadline: float) -> None:
        """Fire `name` at `deadline`."""
        before = self._live.get(name)
        if before is not None:
            before.live = False
        self._serial += 1
        timer = self._live[name] = _Timer(deadline, self._serial, name)
        heappush(self._heap, timer)
        self._surface()
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._live):
            self._heap = list(self._live.values())
            heapify(self._heap)

    def cancel(self, name: Name) -> None:
        """Forget `name`; no error when it is not set."""
        timer = self._live.pop(name, None)
        if timer is not None:
            timer.live = False
            self._surface()

    def clear(self) -> None:
        """Forget every timer."""
        self._live.clear()
        self._heap.clear()
        self.first = math.inf

    def get(self, name: Name) -> float | None:
        """The deadline of `name`, or `None` when it is not set."""
        timer = self._live.get(name)
        return None if timer is None else timer.deadline

    def next_deadline(self) -> float | None:
        """The earliest deadline, or `None` when nothing is set."""
        return None if self.first == math.inf else self.first

    def pop_expired(self, now: float) -> Name | None:
        """Remove and return the earliest timer whose deadline is at or before `now`, or `None`."""
        if self.first > now or not self._heap:
            return None
        name: Name = heappop(self._heap).name
        del self._live[name]
        self._surface()
        return name

    def _surface(self) -> None:
        """Drop outdated entries until the first one is live."""
        heap = self._heap
        while heap and not heap[0].live:
            heappop(heap)
        self.first = heap[0].deadline if heap else math.inf


# ---------------------------------------------------------------------------------------------------- backoff
# Delays between attempts: `min(base * 2**n, maximum)`, with jitter that only ever shortens.


class Backoff:
    """Counts failed attempts and says how long to wait before the next one.

    `base` and `maximum` are seconds. `jitter` is a fraction of the delay (0 to 1): each delay is shortened by
    up to that much, so that a thousand clients of one lost server do not come back in the same instant.
    Without an `rng` there is no jitter, and the delays are exact.
    """

    __slots__ = ("_attempts", "_base", "_jitter", "_maximum", "_rng")

    def __init__(
        self, base: float, maximum: float, *, jitter: float = 0.0, rng: Random | None = None
    ) -> None:
        self._base = base
        self._maximum = maximum
        self._jitter = jitter
        self._rng = rng
        self._attempts = 0

    @property
    def attempts(self) -> int:
        """How many delays were handed out since the last reset."""
        return self._attempts

    def next(self) -> float:
        """The next delay in seconds."""
        # 2**63 is past every sane maximum; the cap keeps the power a cheap one.
        delay = float(min(self._base * 2 ** min(self._attempts, 63), self._maximum))
        self._attempts += 1
        if self._rng is not None and self._jitter:
            delay *= 1.0 - self._jitter * self._rng.random()
        return delay

    def reset(self) -> None:
        """Start over: things have been well for a while."""
        self._attempts = 0
