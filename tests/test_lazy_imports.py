"""`import presence_proto` leaves out what a client does not need, and nobody can tell."""

from __future__ import annotations

import subprocess
import sys

import pytest

import presence_proto
from presence_proto import websocket

LEFT_OUT = ("presence_proto.hub", "presence_proto.recording", "presence_proto.testing")


@pytest.mark.parametrize(
    ("module", "left_out"),
    [("presence_proto", (*LEFT_OUT, "h11", "wsproto")), ("presence_adapters.asyncio", LEFT_OUT)],
)
def test_a_client_imports_neither_hub_nor_recording(module: str, left_out: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*[name for name in sys.modules if name.startswith({left_out})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_hub_is_there_when_it_is_asked_for() -> None:
    code = (
        "import presence_proto; from presence_proto import *; print(Hub.__name__);"
        "from presence_proto.hub import Hub as other; print(presence_proto.Hub is Hub is other)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["Hub", "True"]


def test_all_public_names_are_there_and_listed() -> None:
    assert set(presence_proto.__all__) <= set(dir(presence_proto))
    assert all(hasattr(presence_proto, name) for name in presence_proto.__all__)
    with pytest.raises(AttributeError, match="module 'presence_proto' has no attribute 'Hubb'"):
        presence_proto.Hubb  # noqa: B018


def test_the_websocket_is_there_when_it_is_asked_for() -> None:
    assert set(websocket.__all__) <= set(dir(websocket))
    assert all(hasattr(websocket, name) for name in websocket.__all__)
    with pytest.raises(AttributeError, match=r"module 'presence_proto.websocket' has no attribute 'Socket'"):
        websocket.Socket  # noqa: B018
