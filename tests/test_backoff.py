"""Delays between attempts."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from presence_proto.timers import Backoff


def test_delays_double_up_to_the_maximum() -> None:
    backoff = Backoff(1.0, 30.0)
    assert [backoff.next() for _ in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff.attempts == 8


def test_reset_starts_over() -> None:
    backoff = Backoff(0.5, 30.0)
    assert [backoff.next(), backoff.next()] == [0.5, 1.0]
    backoff.reset()
    assert backoff.attempts == 0
    assert backoff.next() == 0.5


def test_a_base_over_the_maximum_is_the_maximum() -> None:
    assert Backoff(50.0, 30.0).next() == 30.0


def test_thousands_of_attempts_are_no_trouble() -> None:
    backoff = Backoff(1e-3, 1e300)
    delays = [backoff.next() for _ in range(5000)]
    assert delays[-1] == 1e-3 * 2**63


def test_there_is_no_jitter_without_a_random_generator() -> None:
    assert Backoff(1.0, 30.0, jitter=0.5).next() == 1.0
    assert Backoff(1.0, 30.0, rng=Random(1)).next() == 1.0


def test_the_same_seed_gives_the_same_delays() -> None:
    first, second = (Backoff(1.0, 30.0, jitter=0.5, rng=Random(7)) for _ in range(2))
    delays = [first.next() for _ in range(10)]
    assert delays == [second.next() for _ in range(10)]
    assert len(set(delays)) == 10


@given(st.floats(0.001, 1e3), st.floats(0.001, 1e6), st.floats(0.0, 1.0), st.integers(0, 2**32))
def test_jitter_only_ever_shortens_and_by_no_more_than_its_fraction(
    base: float, maximum: float, jitter: float, seed: int
) -> None:
    exact, jittered = Backoff(base, maximum), Backoff(base, maximum, jitter=jitter, rng=Random(seed))
    for _ in range(10):
        delay, shortened = exact.next(), jittered.next()
        assert delay * (1 - jitter) <= shortened <= delay <= maximum
