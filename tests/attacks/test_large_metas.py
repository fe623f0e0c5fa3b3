"""Large metas lock nobody out, and make nobody slow."""

from __future__ import annotations

import asyncio

import pytest

from attacks.large_metas import LARGE, large_state, retracks

pytestmark = pytest.mark.long

MIB = 1024 * 1024


@pytest.mark.parametrize("jarvis", [False, True])
def test_a_state_larger_than_the_write_buffer_reaches_who_reads(jarvis: bool) -> None:
    limits = {"max_meta_size": MIB, "max_connection_size": 2 * MIB}
    outcome = asyncio.run(large_state(1_040_000, limits, jarvis=jarvis))
    print(outcome)
    assert (outcome.members, outcome.let_in) == (12, 5)
    assert outcome.state > 12 * 1_040_000


@pytest.mark.parametrize("jarvis", [False, True])
def test_metas_of_the_largest_size_lock_nobody_out(jarvis: bool) -> None:
    outcome = asyncio.run(large_state(LARGE, jarvis=jarvis))
    print(outcome)
    assert (outcome.members, outcome.let_in) == (12, 5)
    assert 12 * LARGE < outcome.state < 13 * LARGE


def test_metas_that_are_too_large_are_not_kept() -> None:
    outcome = asyncio.run(large_state(1_040_000))
    print(outcome)
    assert (outcome.members, outcome.let_in) == (12, 5)
    assert outcome.state < 1000


def test_many_who_track_large_metas_in_one_moment_cut_nobody_off() -> None:
    outcome = asyncio.run(retracks(LARGE))
    print(outcome)
    assert outcome.during.cut == outcome.during.unanswered == 0
    assert outcome.during.percentile(0.99) < outcome.before.percentile(0.99) + 0.5
    assert outcome.peak < 128 * MIB
