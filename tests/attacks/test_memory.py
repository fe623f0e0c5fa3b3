"""What clients leave unread, name themselves, or track takes a bounded part of the hub's memory."""

from __future__ import annotations

import asyncio

import pytest

from attacks.memory import MIB, large_names, many_channels, never_read

pytestmark = pytest.mark.long


def test_members_who_never_read_are_cut_off_and_delay_nobody() -> None:
    outcome, left, log = asyncio.run(never_read())
    print(outcome, "left:", left, log[:1])
    assert left == 0
    assert outcome.during.cut == outcome.during.unanswered == 0
    assert outcome.during.percentile(0.99) < outcome.before.percentile(0.99) + 0.5
    # The budget of all write buffers is 256 MiB; what all were told counts once.
    assert outcome.peak < 128 * MIB
    assert all(line.startswith("WARNING ") for line in log)


def test_large_names_are_not_kept() -> None:
    outcome = asyncio.run(large_names(1_000_000))
    print(outcome)
    assert outcome.refused == 60
    assert outcome.kept < 200  # bytes of the next welcome
    assert outcome.peak - outcome.before < 64 * MIB


def test_names_of_the_largest_size_stay_for_the_grace() -> None:
    outcome = asyncio.run(large_names(256))
    assert outcome.refused == 0
    assert outcome.kept > 60 * 256


def test_one_connection_fills_a_bounded_part_of_the_hub() -> None:
    outcome = asyncio.run(many_channels(60_000))
    print(outcome)
    assert (outcome.kept, outcome.refused) == (17, 83)
    assert outcome.peak - outcome.before < 64 * MIB


def test_one_connection_may_be_in_100_channels() -> None:
    outcome = asyncio.run(many_channels(5_000))
    assert (outcome.kept, outcome.refused) == (100, 0)
