"""Examples of strategies: many, or the shortest of a kind."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import HealthCheck, Phase, find, given, settings

from presence_proto.testing import strategies as ps

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

T = TypeVar("T")


def times(factor: float, **others: Any) -> settings:
    """Settings with so many times the examples of the profile, and `others`."""
    return settings(max_examples=max(2, round(factor * settings().max_examples)), **others)


def sample(strategy: SearchStrategy[T], examples: int) -> list[T]:
    """About so many examples, the same on every run."""
    found = []

    @settings(max_examples=examples, database=None, phases=[Phase.generate])
    @given(strategy)
    def collect(example: T) -> None:
        found.append(example)

    collect()
    return found


def minimal(strategy: SearchStrategy[T], condition: Callable[[T], bool], *, max_examples: int = 500) -> T:
    """What Hypothesis shrinks an example with `condition` to, as a failing test would show it.

    Its repr evaluates to the same again.
    """
    limits = settings(
        max_examples=max_examples,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    example = find(strategy, condition, settings=limits, random=Random(1))
    assert eval(repr(example), vars(ps)) == example
    return example
