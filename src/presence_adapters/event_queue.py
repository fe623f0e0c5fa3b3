"""`EventQueue`: the bounded queue between a core and the consumer of its events, for any event loop."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct

from presence_proto import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

Event = TypeVar("Event")

MAX_QUEUED_BYTES = 64 * 1024 * 1024
"""The most bytes, as received and decompressed, of all events in one queue. The newest event always stays."""

CHUNK = 64 * 1024
"""Up to this number of bytes are not charged now, but to a later event. So most calls of `put` are fast."""


class EventsDropped(Struct, frozen=True):
    """A slow consumer has lost `count` events, all older than the next event that it reads.

    Read the roster (`online_users`, `presence`) again: it is always up to date.
    """

    count: int


class ReadMeter:
    """Counter of the bytes that a client has received and not yet charged to an event.

    A client has one meter for its driver and all its queues. Before the driver carries out outputs, it adds
    the newly received bytes to `bytes`. The queues charge them to events.
    """

    __slots__ = ("bytes", "seen")

    def __init__(self) -> None:
        self.bytes = 0
        self.seen = 0  # the core's total `bytes_received` when the driver last read it

    def pass_over(self) -> None:
        """Report that no queue stores the last message. If there are more than `CHUNK` bytes, drop them."""
        if self.bytes > CHUNK:
            self.bytes = 0


class EventQueue(Generic[Event]):
    """Queue of at most `limit` events with at most `MAX_QUEUED_BYTES` received bytes.

    When the queue is full, the oldest events are dropped, and `get` returns `EventsDropped`. A consumer that
    waits sets `wake`. It is called once and removed, at the next event or when the queue is closed.

    When `meter` has more than `CHUNK` bytes, the next event is charged with all of them. If several queues
    share a meter, the queue that gets this event is charged. So each byte is charged once, and the sum of
    each queue is exact to about `CHUNK` bytes.
    """

    __slots__ = (
        "_dropped",
        "_events",
        "_heavy",
        "_held",
        "_limit",
        "closed",
        "error",
        "meter",
        "wake",
        "was_told",
    )

    def __init__(self, limit: int, meter: ReadMeter | None = None) -> None:
        if limit < 1:
            raise ConfigError(f"max_queued_events must be at least 1, not {limit!r}")
        self._limit = limit
        self.wake: Callable[[], object] | None = None
        self.meter = ReadMeter() if meter is None else meter
        self._events: deque[Event] = deque()
        self._heavy: deque[tuple[Event, int]] = deque()  # the charged events of `_events`, with their bytes
        self._held = 0  # sum of the bytes in `_heavy`
        self._dropped = 0
        self.closed = False
        self.error: BaseException | None = None  # the argument of `close`
        self.was_told = False  # a consumer has read to the end

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Add an event."""
        events = self._events
        if len(events) >= self._limit:
            self._drop_oldest()
        events.append(event)
        if self.meter.bytes > CHUNK:
            self._charge(event)
        if self.wake is not None:
            self._wake_up()

    def get(self) -> Event | EventsDropped | None:
        """Return the next event, `EventsDropped` if events were dropped, or `None` if the queue is empty."""
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
        """Whether consumers have read all events and `end` was called."""
        return self.was_told and not self._events and not self._dropped

    def end(self) -> None:
        """Report that a consumer has read a closed queue to the end. Raises `error`, if any."""
        self.was_told = True
        if self.error is not None:
            raise self.error

    def close(self, error: BaseException | None = None) -> None:
        """Accept no more events. Queued events can still be read; after them, `end` raises `error`."""
        if not self.closed:
            self.closed = True
            self.error = error
            self._wake_up()

    def _wake_up(self) -> None:
        wake, self.wake = self.wake, None
        if wake is not None:
            wake()

    def _charge(self, event: Event) -> None:
        """Charge the bytes of the meter to the newest event. Drop older events while the sum is too large."""
        weight, self.meter.bytes = self.meter.bytes, 0
        self._heavy.append((event, weight))
        self._held += weight
        while self._held > MAX_QUEUED_BYTES and len(self._events) > 1:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._release(self._events.popleft())
        self._dropped += 1

    def _release(self, event: Event) -> None:
        """Subtract the bytes of an event that was the oldest and has been removed."""
        if self._heavy and self._heavy[0][0] is event:
            self._held -= self._heavy.popleft()[1]
