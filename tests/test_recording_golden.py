"""The golden sessions, converted to recordings and replayed."""

from __future__ import annotations

import pytest

import golden_files
from golden_habits import habits
from golden_recordings import Session
from presence_proto import SocketConnected
from presence_proto.recording import replay

RAW = golden_files.names(golden_files.RAW)
OTHERWISE = [name for name in RAW if habits(name).again]
"""Recorded clients that join a joined topic again. Ours does not, so it is not answered."""


@pytest.mark.parametrize("name", RAW)
def test_a_golden_session_replays(name: str) -> None:
    lines: list[str] = []
    session = Session(name, lines.append)
    session.play()
    result = replay(lines)
    assert result.same, result
    assert result.facts >= 2
    if b" 101 " in golden_files.raw(name)[1].data[:13]:
        assert SocketConnected() in session.events


@pytest.mark.parametrize("name", [name for name in RAW if name not in OTHERWISE])
def test_the_presence_is_that_of_phoenix_js(name: str) -> None:
    session = Session(name, lambda line: None)
    session.play()
    last = {entry.topic: entry.state for entry in golden_files.expected(name) if not entry.pending}
    for topic, state in last.items():
        if topic in session.client.channels and topic not in habits(name).miscounted:
            held = {key: {"metas": list(metas)} for key, metas in session.client.presence(topic).items()}
            assert held == state, topic


def test_few_recordings_are_otherwise() -> None:
    assert {name for name in OTHERWISE if not name.startswith(golden_files.SUPABASE)} == {
        "k_dupjoin_v1",
        "k_dupjoin_v2",
        "q_nojoinref_v1",
        "q_nojoinref_v2",
    }
