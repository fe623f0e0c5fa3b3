"""What we want to be tracked as, and when the server may be told."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from presence_proto.channel import Tracker

A, B, C = (msgspec.Raw(f'{{"status":"{name}"}}'.encode()) for name in "abc")


def test_there_is_nothing_to_say_before_anything_is_wanted() -> None:
    assert Tracker(5, 30.0).due(0.0) is None


def test_a_wish_is_due_at_once_and_then_no_more() -> None:
    tracker = Tracker(5, 30.0)
    tracker.want(A)
    assert tracker.due(7.0) == 7.0
    assert tracker.call(7.0) == A
    assert tracker.due(7.0) is None


def test_a_payload_equal_to_the_last_one_sent_is_not_sent() -> None:
    tracker = Tracker(5, 30.0)
    tracker.want(A)
    tracker.call(0.0)
    tracker.want(msgspec.Raw(bytes(A)))
    assert tracker.due(1.0) is None
    tracker.want(B)
    tracker.want(A)
    assert tracker.due(1.0) is None, "a change that was undone before it was sent"


def test_the_latest_wish_wins() -> None:
    tracker = Tracker(1, 30.0)
    tracker.want(A)
    tracker.call(0.0)
    tracker.want(B)
    tracker.want(C)
    assert tracker.due(1.0) == 30.0
    assert tracker.call(30.0) == C


def test_untrack_is_said_once_and_only_after_a_track() -> None:
    tracker = Tracker(5, 30.0)
    tracker.want(None)
    assert tracker.due(0.0) is None
    tracker.want(A)
    tracker.call(0.0)
    tracker.want(None)
    assert tracker.due(1.0) == 1.0
    assert tracker.call(1.0) is None
    assert tracker.due(1.0) is None


def test_the_sixth_call_waits_until_the_first_is_thirty_seconds_old() -> None:
    tracker = Tracker(5, 30.0)
    for second in range(5):
        tracker.want((A, B)[second % 2])
        assert tracker.due(float(second)) == second
        tracker.call(float(second))
    tracker.want(B)
    assert tracker.due(5.0) == 30.0
    assert tracker.due(31.0) == 31.0
    tracker.call(31.0)
    tracker.want(C)
    assert tracker.due(31.0) == 31.0, "the second call is thirty seconds old, too"


def test_without_a_limit_every_change_is_due_at_once() -> None:
    tracker = Tracker(None, 30.0)
    for second in range(100):
        tracker.want((A, B)[second % 2])
        assert tracker.due(0.0) == 0.0
        tracker.call(0.0)


def test_in_a_new_life_everything_is_said_again_within_a_fresh_budget() -> None:
    tracker = Tracker(1, 30.0)
    tracker.want(A)
    tracker.call(0.0)
    tracker.start_over()
    assert tracker.due(1.0) == 1.0
    assert tracker.call(1.0) == A
    tracker.want(None)
    tracker.start_over()
    assert tracker.due(2.0) is None, "the server knows nothing that could be untracked"


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.floats(0, 20), st.sampled_from([A, B, C, None])), max_size=60),
)
def test_no_window_ever_holds_more_calls_than_the_limit_and_the_last_wish_is_granted(
    limit: int, wishes: list[tuple[float, msgspec.Raw | None]]
) -> None:
    tracker, now, calls, sent = Tracker(limit, 30.0), 0.0, [], None
    for pause, wish in [*wishes, (1000.0, wishes[-1][1] if wishes else None)]:
        end = now + pause
        while (due := tracker.due(now)) is not None and due <= end:
            now = due
            sent = tracker.call(now)
            calls.append(now)
        now = end
        tracker.want(wish)
    assert all(later >= earlier + 30.0 for earlier, later in zip(calls, calls[limit:], strict=False))
    assert sent == (wishes[-1][1] if wishes else None)
