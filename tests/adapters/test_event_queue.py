from __future__ import annotations

import pytest

from presence_adapters.event_queue import EventQueue, EventsDropped
from presence_proto import ConfigError


def make(limit: int) -> tuple[EventQueue[int], list[int]]:
    wakes: list[int] = []
    queue: EventQueue[int] = EventQueue(limit, lambda: wakes.append(1))
    return queue, wakes


def drain(queue: EventQueue[int]) -> list[object]:
    return list(iter(queue.get, None))


def test_events_come_out_in_order_and_each_one_wakes() -> None:
    queue, wakes = make(10)
    for n in range(3):
        queue.put(n)
    assert len(wakes) == len(queue) == 3
    assert drain(queue) == [0, 1, 2]
    assert len(queue) == 0


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
    queue.close(error)
    queue.close(ValueError())
    assert len(wakes) == 2
    assert queue.closed
    assert queue.error is error
    assert drain(queue) == [1]


def test_the_limit_must_leave_room_for_something() -> None:
    with pytest.raises(ConfigError, match="max_queued_events must be at least 1, not 0"):
        make(0)
