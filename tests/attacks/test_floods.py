"""No flood of one kind delays or cuts who is honest."""

from __future__ import annotations

import asyncio

import pytest

from attacks.floods import RATES, floods, run

pytestmark = pytest.mark.long

PATIENT = 5.0  # seconds, on any machine; see `python -m attacks.floods` for what it is
MOST = 120_000_000  # bytes of memory of the hub, at any time
KINDS = ["pings", "fragments and pings", "inviter", "broadcaster", "empty arrays", "bombs to a room"]


@pytest.mark.parametrize("kind", KINDS)
def test_honest_clients_are_served_beside_a_flood(kind: str) -> None:
    outcome = asyncio.run(run(floods()[kind], seconds=1.0))
    assert outcome.beside.cut == 0
    assert outcome.beside.round_trips
    assert outcome.beside.percentile(0.99) < PATIENT
    assert outcome.peak < MOST


def test_with_rates_honest_clients_are_not_cut() -> None:
    outcome = asyncio.run(run(floods()["heartbeats"], rates=RATES, seconds=1.0))
    assert outcome.beside.cut == 0
    assert outcome.beside.percentile(0.99) < PATIENT
    assert outcome.peak < MOST
