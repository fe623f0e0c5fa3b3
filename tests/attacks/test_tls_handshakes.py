"""Stalled TLS handshakes take no place for ever, and delay nobody."""

from __future__ import annotations

import asyncio

import pytest

from attacks.tls_handshakes import stall

pytestmark = pytest.mark.long


def test_stalled_handshakes_are_bounded_and_keep_nobody_out() -> None:
    outcome = asyncio.run(stall(max_connections=20))
    assert outcome.held <= 20
    assert outcome.beside.cut == 0
    assert outcome.beside.percentile(0.99) <= outcome.alone.percentile(0.99) + 0.25
    assert outcome.newcomer < 5
    assert any("too many TLS handshakes at once" in line for line in outcome.log)
