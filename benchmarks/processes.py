"""The processes that a benchmark runs: each takes a line of JSON on its stdin, and answers with one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NODE = Path(__file__).parent / "node"

ERROR = re.compile(r"[\w.]*Error\b")

Command = tuple[str, ...]


def python(module: str, *args: str) -> Command:
    """How to start a module of the benchmarks."""
    return (sys.executable, "-m", f"benchmarks.{module}", *args)


def node(script: str, *args: str) -> Command:
    """How to start a script of `node/`."""
    return ("node", "--expose-gc", str(NODE / script), *args)


def missing(command: Command) -> str | None:
    """What this command would need and is not there, or `None`."""
    return f"{command[0]} is not installed" if shutil.which(command[0]) is None else None


class Child:
    """One process, until `close`."""

    def __init__(self, command: Command) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=ROOT,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Raises `RuntimeError` with its last words when it has ended."""
        self.tell(**request)
        return self.hear()

    def tell(self, **request: Any) -> None:
        """Ask, and do not wait for the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: who waits for the answer is told

    def hear(self) -> dict[str, Any]:
        """The next answer. Raises `RuntimeError` with its last words when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it at once."""
        self._process.kill()
        try:
            self._process.communicate()
        except BrokenPipeError:
            pass  # with a request that nobody has read

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        lines = self._process.stderr.read().strip().splitlines() or ["it has ended without a word"]
        # Python names the error in its last line, node somewhere above it.
        return next((line for line in reversed(lines) if ERROR.match(line)), lines[-1]).strip()
