"""The golden sessions, converted to recordings and replayed."""

from __future__ import annotations

import pytest

import golden_files
from golden_recordings import Session
from presence_proto import SocketConnected, replay

RAW = golden_files.names(golden_files.RAW)
OTHERWISE = {
    "c_join_refused_v1": "the recorded client says at once what ours says when it is joined",
    "c_join_refused_v2": "the recorded client says at once what ours says when it is joined",
    "d_crash_v1": "the recorded client says at once what ours says when it is joined",
    "d_crash_v2": "the recorded client says at once what ours says when it is joined",
    "k_dupjoin_v1": "the recorded client joins a joined topic again",
    "k_dupjoin_v2": "the recorded client joins a joined topic again",
    "q_nojoinref_v1": "the recorded client joins a joined topic again, and without join_refs",
    "q_nojoinref_v2": "the recorded client joins a joined topic again, and without join_refs",
}
"""Sessions in which our client says something else than the recorded one, so that it is not answered."""


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
        if topic in session.client.channels:
            held = {key: {"metas": list(metas)} for key, metas in session.client.presence(topic).items()}
            assert held == state, topic


def test_what_is_otherwise_is_recorded() -> None:
    assert set(OTHERWISE) <= set(RAW)
