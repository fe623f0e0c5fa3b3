"""Named timers and the clock of the facts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_proto.errors import LocalProtocolError
from presence_proto.timers import MAX_NOW, Clock, Timers

# ---------------------------------------------------------------------------------------------- Clock


def test_the_clock_moves_forward_and_returns_now() -> None:
    clock = Clock()
    assert clock.advance(-5.0) == -5.0
    assert clock.advance(3) == 3
    assert clock.now == 3


def test_going_backwards_is_clamped() -> None:
    clock = Clock()
    clock.advance(10.0)
    assert clock.advance(9.0) == 10.0
    assert clock.now == 10.0


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf, MAX_NOW, -MAX_NOW, 1.7e18, 10**400])
def test_what_cannot_be_seconds_is_refused_and_changes_nothing(now: float) -> None:
    clock = Clock()
    clock.advance(1.0)
    with pytest.raises(LocalProtocolError, match="now must be a finite number of seconds"):
        clock.advance(now)
    assert clock.now == 1.0


@given(st.floats(min_value=-MAX_NOW, max_value=MAX_NOW, exclude_min=True, exclude_max=True))
def test_a_millisecond_from_now_lies_in_the_future(now: float) -> None:
    assert Clock().advance(now) + 0.001 > now


# ---------------------------------------------------------------------------------------------- Timers


def test_nothing_is_set_at_first() -> None:
    timers: Timers[str] = Timers()
    assert timers.next_deadline() is None
    assert timers.pop_expired(math.inf) is None
    assert timers.get("a") is None


def test_timers_fire_in_the_order_of_their_deadlines_and_ties_in_the_order_of_setting() -> None:
    timers: Timers[str] = Timers()
    timers.set("late", 3.0)
    timers.set("second", 1.0)
    timers.set("first", 0.5)
    timers.set("third", 1.0)
    assert timers.next_deadline() == 0.5
    fired = []
    while (name := timers.pop_expired(2.0)) is not None:
        fired.append(name)
    assert fired == ["first", "second", "third"]
    assert timers.next_deadline() == 3.0


def test_a_timer_fires_at_its_deadline_and_once() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)
    assert timers.pop_expired(math.nextafter(1.0, 0.0)) is None
    assert timers.pop_expired(1.0) == "a"
    assert timers.pop_expired(1.0) is None
    assert timers.get("a") is None


@pytest.mark.parametrize("deadline", [0.5, 1.5])
def test_setting_again_replaces_the_deadline(deadline: float) -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)
    timers.set("a", deadline)
    assert timers.get("a") == deadline
    assert timers.next_deadline() == deadline
    assert timers.pop_expired(2.0) == "a"
    assert timers.pop_expired(2.0) is None


def test_a_cancelled_timer_does_not_fire_and_cancelling_nothing_is_no_error() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)
    timers.set("b", 2.0)
    timers.cancel("a")
    timers.cancel("a")
    assert timers.get("a") is None
    assert timers.next_deadline() == 2.0
    assert timers.pop_expired(5.0) == "b"
    assert timers.next_deadline() is None


def test_clear_forgets_everything() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 1.0)
    timers.set("b", 2.0)
    timers.clear()
    assert timers.next_deadline() is None
    assert timers.get("b") is None
    timers.set("a", 3.0)
    assert timers.pop_expired(3.0) == "a"


def test_a_timer_set_over_and_over_costs_no_memory() -> None:
    timers: Timers[str] = Timers()
    timers.set("other", 1e6)
    for second in range(10_000):
        timers.set("heartbeat", float(second))
        assert len(timers._heap) <= 65
    assert len(timers._heap) < 65, "it was made anew now and then"
    assert timers.next_deadline() == 9999.0
    timers.cancel("heartbeat")
    assert timers.next_deadline() == 1e6


@pytest.mark.parametrize("times", range(60, 140))
def test_the_order_survives_however_often_a_timer_was_set(times: int) -> None:
    timers: Timers[int] = Timers()
    for name in range(5, 0, -1):
        timers.set(name, float(name))
    for _ in range(times):
        timers.set(3, 3.0)
    assert [timers.pop_expired(10.0) for _ in range(6)] == [1, 2, 3, 4, 5, None]


_names = st.sampled_from("abcd")
_times = st.integers(0, 20)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), _names, _times),
        st.tuples(st.just("cancel"), _names, st.just(0)),
        st.tuples(st.just("pop"), st.just(""), _times),
        st.tuples(st.just("clear"), st.just(""), st.just(0)),
    ),
    max_size=200,
)


@given(_steps)
def test_timers_are_a_dict_of_deadlines(steps: list[tuple[str, str, int]]) -> None:
    timers: Timers[str] = Timers()
    model: dict[str, int] = {}
    for step, name, at in steps:
        if step == "set":
            timers.set(name, at)
            model.pop(name, None)  # so that the order of the dict is the order of setting
            model[name] = at
        elif step == "cancel":
            timers.cancel(name)
            model.pop(name, None)
        elif step == "clear":
            timers.clear()
            model.clear()
        else:
            due = min((other for other in model if model[other] <= at), key=model.__getitem__, default=None)
            assert timers.pop_expired(at) == due
            model.pop(due or "", None)
        assert timers.next_deadline() == min(model.values(), default=None)
        assert timers.first == min(model.values(), default=math.inf)
        assert all(timers.get(other) == model.get(other) for other in "abcd")
