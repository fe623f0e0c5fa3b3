"""The bounded queue between a core and whoever reads its events. It knows no event loop."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct

from presence_proto import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

Event = TypeVar("Event")

MAX_QUEUED_BYTES = 64 * 1024 * 1024
"""Bytes, as received and inflated, that the events of one queue may hold. The newest is kept in any case."""

CHUNK = 64 * 1024
"""Bytes that are charged at once: fewer wait for the next event, which keeps the usual `put` cheap."""


class EventsDropped(Struct, frozen=True):
    """The consumer was too slow: `count` events, all older than the next one, were dropped.

    What they told is not lost for good: the roster (`online_users`, `presence`) is kept up all the time. Read
    it again.
    """

    count: int


class ReadMeter:
    """Counts the bytes that a client has read and not yet charged to an event.

    A client, its driver and all its queues share one: the driver looks at the count of the core before it
    carries out what the core wants, and the queues charge what was added to `bytes`.
    """

    __slots__ = ("bytes", "seen")

    def __init__(self) -> None:
        self.bytes = 0
        self.seen = 0  # the count of the core, which only grows, when the driver looked at it last

    def pass_over(self) -> None:
        """A message was handled that no queue keeps. If it may have been a large one, nobody is charged."""
        if self.bytes > CHUNK:
            self.bytes = 0


class EventQueue(Generic[Event]):
    """Keeps the latest `limit` events for a consumer, of `MAX_QUEUED_BYTES` received bytes at most. When it
    is full the oldest ones go, and `get` says so.

    `wake` is called whenever there is something new to `get` or the queue was closed; a driver wakes its
    consumer there.

    The bytes of `meter` are charged to the next event once there are more than `CHUNK`. Queues that share a
    meter take turns: whichever gets the next event is charged for all that was read. So each byte is charged
    once, and a single queue's share is exact to about `CHUNK`.
    """

    __slots__ = (
        "_dropped",
        "_events",
        "_heavy",
        "_held",
        "_limit",
        "_wake",
        "closed",
        "error",
        "meter",
        "was_told",
    )

    def __init__(self, limit: int, wake: Callable[[], None], meter: ReadMeter | None = None) -> None:
        if limit < 1:
            raise ConfigError(f"max_queued_events must be at least 1, not {limit!r}")
        self._limit = limit
        self._wake = wake
        self.meter = ReadMeter() if meter is None else meter
        self._events: deque[Event] = deque()
        self._heavy: deque[tuple[Event, int]] = deque()  # those of `_events` that were charged, and how much
        self._held = 0  # bytes: the sum of these charges
        self._dropped = 0
        self.closed = False
        self.error: BaseException | None = None  # what it was closed with
        self.was_told = False  # a consumer that the queue is closed

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Add an event."""
        if len(self._events) >= self._limit:
            self._drop_oldest()
        self._events.append(event)
        if self.meter.bytes > CHUNK:
            self._charge(event)
        self._wake()

    def get(self) -> Event | EventsDropped | None:
        """The next event, `EventsDropped` in place of those that had to go, or `None` when there is nothing
        now.
        """
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            return EventsDropped(dropped)
        if not self._events:
            return None
        event = self._events.popleft()
        if self._heavy:
            self._release(event)
        return event

    @property
    def is_finished(self) -> bool:
        """Whether everything was read, and the end, too."""
        return self.was_told and not self._events and not self._dropped

    def end(self) -> None:
        """Called by a consumer that has read everything from a closed queue. Raises `error`, if any."""
        self.was_told = True
        if self.error is not None:
            raise self.error

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more will come. What is queued can still be taken; then `error` is what ended it, if
        anything.
        """
        if not self.closed:
            self.closed = True
            self.error = error
            self._wake()

    def _charge(self, event: Event) -> None:
        """The newest event holds what was read. What is too much now goes, except for this event."""
        weight, self.meter.bytes = self.meter.bytes, 0
        self._heavy.append((event, weight))
        self._held += weight
        while self._held > MAX_QUEUED_BYTES and len(self._events) > 1:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._release(self._events.popleft())
        self._dropped += 1

    def _release(self, event: Event) -> None:
        """The oldest event was taken out: what it was charged is free again."""
        if self._heavy and self._heavy[0][0] is event:
            self._held -= self._heavy.popleft()[1]
