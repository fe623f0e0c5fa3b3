"""The bounded queue between a core and whoever reads its events. It knows no event loop."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct

from presence_proto import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

Event = TypeVar("Event")


class EventsDropped(Struct, frozen=True):
    """The consumer was too slow: `count` events, all older than the next one, were dropped.

    What they told is not lost for good: the roster (`online_users`, `presence`) is kept up all the time. Read
    it again.
    """

    count: int


class EventQueue(Generic[Event]):
    """Keeps the latest `limit` events for a consumer. When it is full the oldest one goes, and `get` says so.

    `wake` is called whenever there is something new to `get` or the queue was closed; a driver wakes its
    consumer there.
    """

    __slots__ = ("_dropped", "_events", "_limit", "_wake", "closed", "error")

    def __init__(self, limit: int, wake: Callable[[], None]) -> None:
        if limit < 1:
            raise ConfigError(f"max_queued_events must be at least 1, not {limit!r}")
        self._limit = limit
        self._wake = wake
        self._events: deque[Event] = deque()
        self._dropped = 0
        self.closed = False
        self.error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Add an event."""
        if len(self._events) >= self._limit:
            self._events.popleft()
            self._dropped += 1
        self._events.append(event)
        self._wake()

    def get(self) -> Event | EventsDropped | None:
        """The next event, `EventsDropped` in place of those that had to go, or `None` when there is nothing
        now.
        """
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            return EventsDropped(dropped)
        return self._events.popleft() if self._events else None

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more will come. What is queued can still be taken; then `error` is what ended it, if
        anything.
        """
        if not self.closed:
            self.closed = True
            self.error = error
            self._wake()
