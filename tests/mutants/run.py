"""Runs pytest on one mutant after another, each in a copy of the sources of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import frozen

from mutants.mutant import NOT_THE_MUTANT, ROOT, Mutant

if TYPE_CHECKING:
    from collections.abc import Iterable

TESTS = ROOT / "tests"
NEAR_SECONDS, ALL_SECONDS = 200, 900
"""How long the nearest tests may take, and all the others. A mutant whose tests take longer is killed."""

NOT_OF_THE_CORE = (
    "adapters",
    "fuzz",
    "interop",
    "mutants",
    "test_docs.py",
    "test_embedding_guides.py",
    "test_testing_guide.py",
)
"""They need sockets, node or many seconds, and test the core only by the way."""

_CHANNELS = ("test_channel*.py", "test_phoenix_socket.py", "test_connection*.py", "test_realtime.py")
_JARVIS = ("test_jarvis*.py",)
_CLIENT = ("test_client*.py", *_JARVIS)
_FRAMES = ("test_websocket.py", "test_frames.py", "properties/test_websocket.py")

ALWAYS = "tests/test_errors.py"
"""A small test that runs at the end without a mutant even if no other does."""

NEAREST = {
    "json_text": ("test_json_text.py", "test_serializer_refusals.py", "properties/test_nesting.py"),
    "config": ("test_config.py", "test_channel_config.py"),
    "timers": ("test_timers.py", "test_backoff.py"),
    "channel": ("test_track.py", "test_replay_filter.py", *_CHANNELS),
    "presence_client": _CLIENT,
    "join_refusals": ("test_refusals.py", *_CHANNELS),
    "connection": ("test_connection*.py", "test_refusal.py", "test_token_requests.py", *_JARVIS, *_CHANNELS),
    "endpoint": ("test_endpoint.py", "test_outputs.py", *_CHANNELS, "hub/test_*.py"),
    "jarvis_room": _JARVIS,
    "origins": ("hub/test_origins.py",),
    "phoenix_room": _CLIENT,
    "phoenix_socket": ("test_phoenix_socket.py", "test_join_queue.py", *_CHANNELS),
    "presence": ("test_presence.py", "test_presence_*.py", "test_encoded_presence.py"),
    "realtime_client": ("test_realtime.py", *_CHANNELS),
    "validators": ("test_config.py",),
    "websocket/protocol": _FRAMES,
    "websocket/frames": _FRAMES,
    "websocket/deflate": ("test_deflate.py", *_FRAMES),
    "websocket/handshake": ("test_handshake.py", "test_golden_client.py", "hub/test_handshake.py"),
    "websocket/tunnel": ("test_tunnel.py", "test_socks.py"),
    "hub/admission": ("hub/test_handshake.py", "hub/test_places.py"),
    "hub/channels": ("hub/test_phoenix.py", "hub/test_plain.py", "hub/test_supabase*.py"),
    "hub/limits": ("hub/test_rates.py", "hub/test_turns.py", "hub/test_bounds.py"),
    "hub/peer": ("hub/test_hub.py",),
    "recording/format": ("test_recording*.py",),
    "recording/redaction": ("test_recording*.py",),
}
"""The tests that are nearest to a module, where those that bear its name are not, or not all."""


def nearest(file: str) -> list[str]:
    """The test files that are nearest to a source file of the core, the very nearest first."""
    module = file.removeprefix("presence_proto/").removesuffix(".py")
    folder, _, name = module.rpartition("/")
    patterns = NEAREST.get(module, (f"{folder}/test_{name}*.py".removeprefix("/"),))
    if (TESTS / folder).is_dir():
        patterns = (*patterns, f"{folder}/test_*.py".removeprefix("/"))
    found = [str(path) for pattern in patterns for path in sorted(TESTS.glob(pattern))]
    return list(dict.fromkeys(found))


@frozen
class Verdict:
    """What became of a mutant. `killer`: the test that failed, or what else told; `None`: it survived."""

    mutant: Mutant
    killer: str | None
    seconds: float

    def __str__(self) -> str:
        fate = "SURVIVED" if self.killer is None else f"killed by {self.killer}"
        return f"{self.mutant.name}: {fate} ({self.seconds:.1f} s)"


class Runner:
    """Judges mutants, from any thread, until `stop`."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False

    def judge(self, mutant: Mutant) -> Verdict:
        """Run the tests on a mutant until one fails: first the nearest, then all others.

        Raises `ValueError` when the mutant does not fit the sources.
        """
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
            copy = _copy(folder)
            source = copy / mutant.file
            source.write_text(mutant.apply(source.read_text("utf-8")), "utf-8")
            failed: list[str] = []
            for tests, limit in _plan(mutant):
                failed = failed or self._run(copy, source, ["-x", *tests], limit)
        return Verdict(mutant, failed[0] if failed else None, time.monotonic() - start)

    def control(self, verdicts: Iterable[Verdict]) -> list[str]:
        """Run the tests that have killed on the sources as they are. Returns those that fail there, too."""
        names = {str(verdict.killer).partition("[")[0] for verdict in verdicts}
        tests = [ALWAYS, *sorted(name for name in names if "::" in name)]
        with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
            copy = _copy(folder)
            return self._run(copy, copy / "presence_proto/__init__.py", tests, ALL_SECONDS)

    def stop(self) -> None:
        """End what runs."""
        self._is_stopped = True
        for process in tuple(self._running):
            _kill(process)

    def _run(self, copy: Path, mutated: Path, args: list[str], limit: int) -> list[str]:
        """What failed: tests, or else why pytest did not end well."""
        answer = copy.with_name("answer")
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "mutants.probe", "-p", "no:cacheprovider", *args],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": f"{copy}{os.pathsep}{TESTS}",
                "PYTHONDONTWRITEBYTECODE": "1",
                "MUTANT_COPY": str(copy),
                "MUTANT_FILE": str(mutated),
                "MUTANT_ANSWER": str(answer),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._running.add(process)
        if self._is_stopped:
            _kill(process)
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.communicate()
            return [f"the timeout of {limit} s"]
        finally:
            self._running.discard(process)
        if process.returncode == 0:
            return []
        if answer.exists() and process.returncode != NOT_THE_MUTANT:
            return answer.read_text("utf-8").splitlines()
        if process.returncode in (pytest.ExitCode.TESTS_FAILED, -signal.SIGSEGV):
            return [f"the end of pytest with {process.returncode}"]  # as when nothing can be imported
        raise RuntimeError(output.decode(errors="replace"))


def _copy(folder: str) -> Path:
    copy = Path(folder, "src")
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _plan(mutant: Mutant) -> list[tuple[list[str], int]]:
    """What to run, one after the other, and how many seconds each may take."""
    if mutant.tests:
        return [([str(TESTS / name) for name in mutant.tests], NEAR_SECONDS)]
    near = nearest(mutant.file)
    rest = [f"--ignore={path}" for path in [*near, *(TESTS / name for name in NOT_OF_THE_CORE)]]
    return [(near, NEAR_SECONDS), ([str(TESTS), *rest], ALL_SECONDS)]
