"""`EventQueue`: the bounded queue between a core and the consumer of events, for any event loop."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct

from presence_proto import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

Event = TypeVar("Event")

MAX_QUEUED_BYTES = 64 * 1024 * 1024
"""Maximum bytes (received and decompressed) of all events in a queue. The newest event always stays."""

CHUNK = 64 * 1024
"""Up to `CHUNK` received bytes count towards a later event, so that most calls of `put` are fast."""


class EventsDropped(Struct, frozen=True):
    """`count` events, older than the next event, were dropped because the consumer was slow.

    Read the roster (`online_users`, `presence`) again, because the roster is always up to date.
    """

    count: int


class ReadMeter:
    """Counter of the bytes that a client has received and that do not count towards an event yet.

    The driver and all queues of a client share one meter. The driver adds newly received bytes to `bytes`
    before processing outputs. The queues then count these bytes towards events.
    """

    __slots__ = ("bytes", "seen")

    def __init__(self) -> None:
        self.bytes = 0
        self.seen = 0  # the core's total `bytes_received` when the driver last read it

    def pass_over(self) -> None:
        """Record that no queue stores the last message. Reset the meter if `bytes` is over `CHUNK`."""
        if self.bytes > CHUNK:
            self.bytes = 0


class EventQueue(Generic[Event]):
    """Queue of at most `limit` events with at most `MAX_QUEUED_BYTES` received bytes.

    When the queue is full, the oldest events are dropped, and `get` returns `EventsDropped`. A waiting
    consumer sets `wake`. The queue calls `wake` once, at the next event or at the close.

    When `meter` has more than `CHUNK` bytes, all these bytes count towards the next event. If several queues
    share a meter, the bytes count towards the queue that gets this event. Each byte is counted once, and the
    sum of each queue is exact to about `CHUNK` bytes.
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
        self._heavy: deque[tuple[Event, int]] = deque()  # the events of `_events` with a size, and the size
        self._held = 0  # sum of the bytes in `_heavy`
        self._dropped = 0
        self.closed = False
        self.error: BaseException | None = None  # the argument of `close`
        self.was_told = False  # a consumer has read the queue to the end

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Append an event to the queue."""
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
        """Record that a consumer has read a closed queue to the end. Raises `error`, if any."""
        self.was_told = True
        if self.error is not None:
            raise self.error

    def close(self, error: BaseException | None = None) -> None:
        """Accept no more events. Queued events can still be read, and then `end` raises `error`."""
        if not self.closed:
            self.closed = True
            self.error = error
            self._wake_up()

    def _wake_up(self) -> None:
        wake, self.wake = self.wake, None
        if wake is not None:
            wake()

    def _charge(self, event: Event) -> None:
        """Add the bytes of the meter to the newest event. Drop older events while the sum is too large."""
        weight, self.meter.bytes = self.meter.bytes, 0
        self._heavy.append((event, weight))
        self._held += weight
        while self._held > MAX_QUEUED_BYTES and len(self._events) > 1:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._release(self._events.popleft())
        self._dropped += 1

    def _release(self, event: Event) -> None:
        """Subtract the size of the oldest event, which has been removed."""
        if self._heavy and self._heavy[0][0] is event:
            self._held -= self._heavy.popleft()[1]
