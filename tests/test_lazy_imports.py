"""`import presence_proto` leaves out what a client does not need, and nobody can tell."""

from __future__ import annotations

import subprocess
import sys

import pytest

import presence_proto

LEFT_OUT = ("presence_proto.hub", "presence_proto.recording", "presence_proto.testing")


@pytest.mark.parametrize("module", ["presence_proto", "presence_adapters.asyncio"])
def test_a_client_imports_neither_hub_nor_recording(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in sys.modules if name.startswith({LEFT_OUT})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_is_left_out_is_there_when_it_is_asked_for() -> None:
    code = (
        "import presence_proto; print(presence_proto.hub.__name__, presence_proto.recording.__name__);"
        "from presence_proto import *; print(Hub.__name__, Recorder.__name__, replay.__name__);"
        "print(presence_proto.Hub is Hub is presence_proto.hub.Hub)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "presence_proto.hub presence_proto.recording",
        "Hub Recorder replay",
        "True",
    ]


def test_a_module_is_imported_by_its_name() -> None:
    for name in ("hub", "recording"):
        assert presence_proto.__getattr__(name) is sys.modules[f"presence_proto.{name}"]


def test_all_public_names_are_there_and_listed() -> None:
    assert set(presence_proto.__all__) <= set(dir(presence_proto))
    assert all(hasattr(presence_proto, name) for name in presence_proto.__all__)
    with pytest.raises(AttributeError, match="module 'presence_proto' has no attribute 'Hubb'"):
        presence_proto.Hubb  # noqa: B018
