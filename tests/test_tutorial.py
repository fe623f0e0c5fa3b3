"""`docs/tutorial.md` runs as it is, with other ports, and shows what it says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from test_docs import ROOT, blocks, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.long

PAGE = ROOT / "docs" / "tutorial.md"
COMMANDS = [line.removeprefix("$ ") for block in blocks(PAGE, "console") for line in block.splitlines()]
SHOWN = blocks(PAGE, "text")
PATIENCE = 20.0  # seconds


class Terminals:
    """Programs that run in a directory, with an environment, and write what they say into files."""

    def __init__(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = str(listener.getsockname()[1])
        self.directory = directory
        self.running: list[subprocess.Popen[bytes]] = []
        self.env = environment(directory)
        # What is installed for this Python comes first: `presence` is to be ours.
        self.env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def start(self, command: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Run a command of the page. Returns it, and the file with what it says."""
        said = self.directory / f"{len(self.running)}.txt"
        words = shlex.split(command.replace("4000", self.port))
        if words == ["presence", "hub"]:
            words += ["--port", self.port]
        with said.open("wb") as output:
            process = subprocess.Popen(
                words,
                cwd=self.directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.running.append(process)
        return process, said

    def run(self, command: str) -> str:
        """Run a command to its end, and return what it says."""
        process, said = self.start(command)
        assert process.wait(PATIENCE) == 0, said.read_text("utf-8")
        return said.read_text("utf-8")

    def wait_for(self, said: Path, what: str, count: int = 1) -> None:
        """Until a program has said each line of `what` so often."""
        lines = [line.strip().replace("4000", self.port) for line in what.splitlines()]
        deadline = time.monotonic() + PATIENCE
        while any((text := said.read_text("utf-8")).count(line) < count for line in lines):
            assert time.monotonic() < deadline, f"{what!r} was not said: {text}"
            time.sleep(0.05)

    def close(self) -> None:
        """End what still runs."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    terminals = Terminals(tmp_path)
    yield terminals
    terminals.close()


def test_the_tutorial(terminals: Terminals) -> None:
    listening, alice_prints, watch_shows, poked, goodbye = SHOWN
    *_, start_hub, export, whoami, watch, run_alice, start_again, online, poke = COMMANDS
    hub, hub_said = terminals.start(start_hub)
    terminals.wait_for(hub_said, listening)
    name, _, value = export.removeprefix("export ").partition("=")
    terminals.env[name] = value.replace("4000", terminals.port)
    assert "Bob" in terminals.run(whoami)
    _, seen = terminals.start(watch)
    terminals.wait_for(seen, "Connected, 1 online")

    (program,) = blocks(PAGE, "python")
    (terminals.directory / "alice.py").write_text(program.replace("4000", terminals.port), "utf-8")
    alice, printed = terminals.start(run_alice)
    terminals.wait_for(printed, alice_prints)
    terminals.wait_for(seen, watch_shows)

    hub.send_signal(signal.SIGINT)
    assert hub.wait(PATIENCE) == 0
    terminals.wait_for(seen, "next attempt in")
    hub, _ = terminals.start(start_again)
    terminals.wait_for(seen, "Connected", 2)
    terminals.wait_for(printed, "Alice is here", 2)

    assert re.search("Alice .*Playing Snake", terminals.run(online))
    assert terminals.run(poke) == poked
    assert alice.wait(PATIENCE) == 0
    assert printed.read_text("utf-8").endswith(goodbye)
    terminals.wait_for(seen, "Alice is gone")


def test_what_is_not_run_is_the_way_to_install() -> None:
    others = COMMANDS[: COMMANDS.index("presence hub")]
    assert others == ["python3 -m venv .venv", ". .venv/bin/activate", "pip install '.[cli]'"]
