"""Named timers, one slot per meaning (after quinn-proto's timer table), and the checks on `now`."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from presence_proto.errors import LocalProtocolError

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


class Timers(Generic[Name]):
    """A set of named deadlines in seconds. Setting a name again replaces its deadline.

    O(log n) a change: a heap whose outdated entries are skipped when they surface.
    """

    __slots__ = ("_deadlines", "_heap", "_serial")

    def __init__(self) -> None:
        self._deadlines: dict[Name, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Name]] = []
        self._serial = 0  # breaks ties in the order in which timers were set, and tells outdated entries

    def set(self, name: Name, deadline: float) -> None:
        """Fire `name` at `deadline`."""
        self._serial += 1
        self._deadlines[name] = (deadline, self._serial)
        heappush(self._heap, (deadline, self._serial, name))
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._deadlines):
            self._heap = [(at, serial, name) for name, (at, serial) in self._deadlines.items()]
            heapify(self._heap)

    def cancel(self, name: Name) -> None:
        """Forget `name`; no error when it is not set."""
        self._deadlines.pop(name, None)

    def clear(self) -> None:
        """Forget every timer."""
        self._deadlines.clear()
        self._heap.clear()

    def get(self, name: Name) -> float | None:
        """The deadline of `name`, or `None` when it is not set."""
        entry = self._deadlines.get(name)
        return None if entry is None else entry[0]

    def next_deadline(self) -> float | None:
        """The earliest deadline, or `None` when nothing is set."""
        heap = self._heap
        while heap:
            deadline, serial, name = heap[0]
            if self._deadlines.get(name) == (deadline, serial):
                return deadline
            heappop(heap)
        return None

    def pop_expired(self, now: float) -> Name | None:
        """Remove and return the earliest timer whose deadline is at or before `now`, or `None`."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return None
        name = heappop(self._heap)[2]
        del self._deadlines[name]
        return name
