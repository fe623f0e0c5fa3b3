"""The parts of the law tests that all clients share: scripts of `play`, stale facts, and hash seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from attrs import frozen
from hypothesis import strategies as st

from presence_proto.endpoint import ConnId
from presence_proto.errors import LocalProtocolError
from presence_proto.realtime_client import RealtimeClient
from presence_proto.testing import InMemoryPair
from presence_proto.testing.server_script import Call, ScriptContext

TESTS = Path(__file__).parent.parent

vsns = st.sampled_from(["1.0.0", "2.0.0"])
seconds = st.sampled_from([0.0, 0.5, 1.0, 4.0, 7.0, 10.0, 31.0, 100.0])


def json_values(*, max_size: int = 5, max_leaves: int = 6) -> st.SearchStrategy[Any]:
    """JSON of all types, with integers that no double can hold."""
    text = st.text(max_size=max_size)
    return st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-5, 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
        max_leaves=max_leaves,
    )


@frozen(repr=False)
class Command(Call):
    """A call of the application, which is legal, or raises and changes nothing."""

    def happen(self, context: ScriptContext) -> None:
        before = snapshot(context.server)
        try:
            super().happen(context)
        except LocalProtocolError:
            assert snapshot(context.server) == before
            raise


def snapshot(pair: InMemoryPair) -> Any:
    client = pair.client
    states = (
        {topic: client.state_of(topic) for topic in client.channels}
        if isinstance(client, RealtimeClient)
        else client.pending_commands
    )
    deadline = client.next_deadline()
    return client.is_closed, client.is_connected, states, deadline, len(pair.frames), len(pair.events)


def calls(method: str, *args: st.SearchStrategy[Any], **kwargs: st.SearchStrategy[Any]) -> Any:
    return st.builds(Command, st.just(method), st.tuples(*args), st.fixed_dictionaries(kwargs))


@frozen
class Ghosts:
    """A step with facts about connections that ended or never were, and with no data."""

    data: bytes

    def happen(self, context: ScriptContext) -> None:
        ghosts(context.server, self.data)


def ghosts(pair: InMemoryPair, data: bytes) -> None:
    """Law 4 and 5: facts about any connection but the last one have no effect, and neither has no data."""
    client, last = pair.client, len(pair.opens)
    before = len(pair.events), client.next_deadline()
    for conn in {ConnId(0), ConnId(last - 1), ConnId(last + 1)}:
        pair.do(client.transport_opened, conn)
        pair.do(client.receive_data, conn, data)
        pair.do(client.transport_closed, conn)
    if pair.conn is not None and pair.server is not None:
        pair.do(client.transport_opened, pair.conn)
        pair.do(client.receive_data, pair.conn, b"")
    assert (len(pair.events), client.next_deadline()) == before


def printed(program: str) -> str:
    """What a program prints, which is the same for every hash seed (law 10)."""
    path = os.pathsep.join([str(TESTS), *sys.path])
    (only,) = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "31337")
    }
    return only
