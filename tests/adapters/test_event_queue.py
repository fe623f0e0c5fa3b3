from __future__ import annotations

import pytest

from presence_adapters import event_queue
from presence_adapters.event_queue import EventQueue, EventsDropped, ReadMeter
from presence_proto import ConfigError


def make(limit: int) -> tuple[EventQueue[int], list[int]]:
    wakes: list[int] = []
    queue: EventQueue[int] = EventQueue(limit)
    queue.wake = lambda: wakes.append(1)
    return queue, wakes


def drain(queue: EventQueue[int]) -> list[object]:
    return list(iter(queue.get, None))


def test_events_come_out_in_order_and_the_next_one_wakes() -> None:
    queue, wakes = make(10)
    for n in range(3):
        queue.put(n)
    assert len(queue) == 3
    assert len(wakes) == 1
    assert drain(queue) == [0, 1, 2]
    assert len(queue) == 0
    queue.wake = lambda: wakes.append(2)
    queue.put(3)
    assert wakes == [1, 2]


def test_a_full_queue_drops_the_oldest_and_says_so_in_their_place() -> None:
    queue, _ = make(3)
    for n in range(10):
        queue.put(n)
    assert drain(queue) == [EventsDropped(7), 7, 8, 9]


def test_events_dropped_between_two_gets_are_told_by_the_next() -> None:
    queue, _ = make(2)
    for n in range(3):
        queue.put(n)
    assert queue.get() == EventsDropped(1)
    queue.put(3)
    assert queue.get() == EventsDropped(1)
    assert drain(queue) == [2, 3]


def test_closing_keeps_what_is_queued_and_the_first_error() -> None:
    queue, wakes = make(2)
    queue.put(1)
    error = RuntimeError()
    queue.wake = lambda: wakes.append(2)
    queue.close(error)
    queue.close(ValueError())
    assert wakes == [1, 2]
    assert queue.closed
    assert queue.error is error
    assert drain(queue) == [1]


def test_the_limit_must_leave_room_for_something() -> None:
    with pytest.raises(ConfigError, match="max_queued_events must be at least 1, not 0"):
        make(0)


# ---------------------------------------------------------------------------------------------- bytes

KIB = 1024


class Story:
    """A queue that may hold 1 MiB, told of events and of the bytes that came with them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: int = 1000) -> None:
        monkeypatch.setattr(event_queue, "MAX_QUEUED_BYTES", 1024 * KIB)
        self.meter = ReadMeter()
        self.queue: EventQueue[str] = EventQueue(limit, self.meter)

    def put(self, event: str, kib: int) -> None:
        self.meter.bytes += kib * KIB
        self.queue.put(event)

    def rest(self) -> list[object]:
        return list(iter(self.queue.get, None))


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    return Story(monkeypatch)


def test_events_of_too_many_bytes_drop_the_oldest(story: Story) -> None:
    for n in range(10):
        story.put(str(n), 300)
    assert story.rest() == [EventsDropped(7), "7", "8", "9"]


def test_what_fits_exactly_is_kept(story: Story) -> None:
    for n in range(4):
        story.put(str(n), 256)
    assert story.rest() == ["0", "1", "2", "3"]


def test_the_newest_event_is_kept_however_large_it_is(story: Story) -> None:
    story.put("small", 1)
    story.put("large", 5000)
    assert story.rest() == [EventsDropped(1), "large"]
    story.put("alone", 5000)
    story.put("after it", 1)
    assert story.rest() == ["alone", "after it"]


def test_small_events_are_charged_together(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(monkeypatch, limit=1_000_000)
    for n in range(5000):
        story.put(str(n), 1)
        assert len(story.queue) <= 1024 + 65  # what the limit holds, and what is not charged yet
    told, *kept = story.rest()
    assert isinstance(told, EventsDropped)
    assert told.count + len(kept) == 5000
    assert len(kept) >= 1024 - 65
    assert kept[-1] == "4999"


def test_bytes_are_charged_once(story: Story) -> None:
    """One read with many events in it: the first one stands for all of them."""
    story.put("first", 900)
    for n in range(20):
        story.put(str(n), 0)
    story.put("last", 100)
    assert len(story.rest()) == 22
    assert story.meter.bytes == 0


def test_who_keeps_up_never_loses_an_event(story: Story) -> None:
    for n in range(200):
        story.put(f"large {n}", 600)
        story.put(f"small {n}", 0)
        assert story.rest() == [f"large {n}", f"small {n}"]
    for n in range(200):
        story.put(str(n), 400)
        if n:  # always one behind
            assert story.queue.get() == str(n - 1)


def test_both_limits_hold_together(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(monkeypatch, limit=3)
    for n in range(3):
        story.put(f"large {n}", 300)
    for n in range(3):  # these drive the large ones out by their number, and their bytes with them
        story.put(f"small {n}", 0)
    for n in range(3):
        story.put(f"new {n}", 340)
    assert story.rest() == [EventsDropped(6), "new 0", "new 1", "new 2"]


def test_queues_share_a_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(monkeypatch)
    other: EventQueue[str] = EventQueue(1000, story.meter)
    story.put("a", 900)
    other.put("b")
    story.meter.bytes += 900 * KIB
    other.put("c")
    assert list(iter(other.get, None)) == ["b", "c"]
    assert story.rest() == ["a"]


def test_large_messages_without_an_event_are_passed_over() -> None:
    meter = ReadMeter()
    meter.bytes = 1000
    meter.pass_over()
    assert meter.bytes == 1000  # of the events before it, too
    meter.bytes += 100 * KIB
    meter.pass_over()
    assert meter.bytes == 0
