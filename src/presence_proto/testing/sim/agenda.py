"""Virtual time: what happens when. It passes from one thing to the next, and never waits."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Scheduler:
    """Things to do, in the order of their times; of one time, in the order in which they were put down.

    `now` is seconds since the world began.
    """

    __slots__ = ("_heap", "_serial", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._serial = 0

    def at(self, when: float, action: Callable[..., Any], *args: Any) -> None:
        """Do `action(*args)` at `when`; at once, in its turn, if that is over."""
        self._serial += 1
        heappush(self._heap, (when, self._serial, action, args))

    def after(self, seconds: float, action: Callable[..., Any], *args: Any) -> None:
        """Do `action(*args)` in so many seconds."""
        self.at(self.now + seconds, action, *args)

    def run(self, until: float, done: Callable[[], bool] | None = None) -> bool:
        """Do all that is due by `until`. Stops early, and returns true, as soon as `done()` says so."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            when, _, action, args = heappop(heap)
            if when > self.now:
                self.now = when
            action(*args)
            if done is not None and done():
                return True
        self.now = until
        return False
