"""Named timers, with one slot per purpose (like quinn-proto's timer table), the clock and the backoff."""

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
"""The largest legal `now`, in seconds. Larger floats are too coarse: `now + 0.001` may equal `now`."""


class Clock:
    """The monotonic clock of an endpoint, which never runs backwards, and never becomes NaN or infinite."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = -math.inf

    def advance(self, now: float) -> float:
        """Set the time to `now` (seconds), and return the time. An earlier `now` leaves the time unchanged.

        Raises `LocalProtocolError` for NaN, infinity, and values beyond `MAX_NOW`.
        """
        if not -MAX_NOW < now < MAX_NOW:
            raise LocalProtocolError(f"now must be a finite number of seconds up to {MAX_NOW:g}, not {now!r}")
        if now > self.now:
            self.now = now
        return self.now


class _Timer(Struct, order=True):
    """An entry of the heap. Entries are ordered by `deadline` and `serial`; each serial occurs once."""

    deadline: float
    serial: int  # for equal deadlines: timers fire in the order in which they were set
    name: Any
    live: bool = True


class Timers(Generic[Name]):
    """A set of named deadlines in seconds. Setting a timer again replaces the deadline.

    A change takes O(log n) time: an outdated entry stays in the heap until the entry is the first. `first` is
    the earliest deadline in seconds, or infinity without timers. `first` is an attribute for speed: every
    read uses `first`.
    """

    __slots__ = ("_heap", "_live", "_serial", "first")

    def __init__(self) -> None:
        self._live: dict[Name, _Timer] = {}
        self._heap: list[_Timer] = []  # the first entry is never outdated
        self._serial = 0
        self.first = math.inf

    def set(self, name: Name, deadline: float) -> None:
        """Set the timer `name` to expire at `deadline` (seconds)."""
        before = self._live.get(name)
        if before is not None:
            before.live = False
        self._serial += 1
        timer = self._live[name] = _Timer(deadline, self._serial, name)
        heappush(self._heap, timer)
        if before is not None and before.deadline <= self.first:
            self._surface()  # the replaced entry may have been the first
        elif deadline < self.first:
            self.first = deadline
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._live):
            self._heap = list(self._live.values())
            heapify(self._heap)

    def cancel(self, name: Name) -> None:
        """Remove the timer `name`, if the timer is set."""
        timer = self._live.pop(name, None)
        if timer is not None:
            timer.live = False
            if timer.deadline <= self.first:  # the removed entry may have been the first
                self._surface()

    def clear(self) -> None:
        """Remove all timers."""
        self._live.clear()
        self._heap.clear()
        self.first = math.inf

    def get(self, name: Name) -> float | None:
        """Return the deadline of the timer `name`, or `None` if the timer is not set."""
        timer = self._live.get(name)
        return None if timer is None else timer.deadline

    def next_deadline(self) -> float | None:
        """Return the earliest deadline, or `None` without timers."""
        return None if self.first == math.inf else self.first

    def pop_expired(self, now: float) -> Name | None:
        """Remove the earliest timer and return its name if the timer is due at `now`, else return `None`."""
        if self.first > now or not self._heap:
            return None
        name: Name = heappop(self._heap).name
        del self._live[name]
        self._surface()
        return name

    def _surface(self) -> None:
        """Remove outdated entries until the first entry is not outdated."""
        heap = self._heap
        while heap and not heap[0].live:
            heappop(heap)
        self.first = heap[0].deadline if heap else math.inf


# ---------------------------------------------------------------------------------------------------- backoff
# Delays between attempts: `min(base * 2**n, maximum)`. Jitter only shortens a delay.


class Backoff:
    """An exponential backoff, which counts attempts and returns the delay before the next attempt.

    `base` and `maximum` are in seconds. `jitter` (0 to 1) is the largest fraction by which a delay is
    randomly shortened, so that the clients of a lost server do not reconnect at the same time. Without an
    `rng`, the delays have no jitter.
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
        """The number of delays since the last reset."""
        return self._attempts

    def next(self) -> float:
        """Return the next delay in seconds."""
        # Cap the exponent so that the power stays cheap: 2**63 exceeds every realistic maximum.
        delay = float(min(self._base * 2 ** min(self._attempts, 63), self._maximum))
        self._attempts += 1
        if self._rng is not None and self._jitter:
            delay *= 1.0 - self._jitter * self._rng.random()
        return delay

    def reset(self) -> None:
        """Restart with the first delay, for example after a stable connection."""
        self._attempts = 0
