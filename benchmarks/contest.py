"""Runs contestants against each other, interleaved: round by round each has its turn, alone on the machine.

What disturbs one round disturbs all contestants alike, and the median of the rounds leaves it out.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import Factory, define, frozen

from benchmarks.workloads import Workload, write_texts

NODE = Path(__file__).parent / "node"


@frozen
class Entry:
    """A contestant: what it is called in reports, how it is started, the envelope it speaks.

    `bare`: it decodes and nothing else, so it has no roster to compare. `keys_only`: it shows users, and not
    the refs of their devices. `ours`: it is this project. `socket`: it takes the messages from a server.
    """

    name: str
    command: tuple[str, ...]
    vsn: str = "2.0.0"
    bare: bool = False
    keys_only: bool = False
    ours: bool = False
    socket: bool = False

    @property
    def missing(self) -> str | None:
        """What it would need and is not there, or `None`."""
        if shutil.which(self.command[0]) is None:
            return f"{self.command[0]} is not installed"
        return None


def python(name: str, module: str, *args: str, **options: Any) -> Entry:
    """A contestant in Python."""
    return Entry(name, (sys.executable, "-m", f"benchmarks.contestants.{module}", *args), **options)


def node(name: str, script: str, *args: str, **options: Any) -> Entry:
    """A contestant in JavaScript."""
    return Entry(name, ("node", "--expose-gc", str(NODE / script), *args), **options)


@define
class Result:
    """Of one contestant: CPU microseconds for a unit of the workload, one for each round."""

    entry: Entry
    rounds: list[float] = Factory(list)
    events: int = 0
    fault: str | None = None  # why there are no numbers, or why they do not count

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a part of the median."""
        if len(self.rounds) < 3:
            return 0.0
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return (high - low) / 2 / self.median


class Feeder:
    """The process that serves contestants with a `socket`."""

    def __init__(self, path: Path, untimed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.feeder", str(path), str(untimed)],
            stdout=subprocess.PIPE,
            encoding="utf-8",
            cwd=Path(__file__).parent.parent,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Child:
    """A contestant's process."""

    def __init__(self, entry: Entry) -> None:
        self._process = subprocess.Popen(
            entry.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=Path(__file__).parent.parent,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Raises `RuntimeError` with its last words when it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            words = self._process.stderr.read().strip().splitlines() or ["it ended"]
            raise RuntimeError(words[-1])
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def contest(
    workload: Workload, entries: Iterable[Entry], *, rounds: int, progress: Callable[[str], None]
) -> list[Result]:
    """Let them run `rounds` times each, after one to warm up. Checks that all end in the same roster."""
    results = [Result(entry, fault=entry.missing) for entry in entries]
    topics = list(dict.fromkeys(topic for topic, _, _ in workload.messages[: workload.untimed]))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        paths = {}
        for vsn in {result.entry.vsn for result in results}:
            paths[vsn] = Path(folder) / f"{vsn}.txt"
            write_texts(workload.texts(vsn), paths[vsn])
        feeders = {}
        for vsn in {result.entry.vsn for result in results if result.entry.socket}:
            feeder = Feeder(paths[vsn], workload.untimed)
            stack.callback(feeder.close)
            feeders[vsn] = feeder.port
        children = {}
        for result in results:
            if result.fault is None:
                child = children[result.entry.name] = Child(result.entry)
                stack.callback(child.close)
        for number in range(rounds + 1):
            progress(f"{workload.name}: " + (f"round {number} of {rounds}" if number else "warming up"))
            for result in results:
                if result.fault is not None:
                    continue
                child = children[result.entry.name]
                try:
                    child.ask(
                        load=str(paths[result.entry.vsn]),
                        untimed=workload.untimed,
                        topics=topics,
                        port=feeders[result.entry.vsn] if result.entry.socket else None,
                    )
                    answer = child.ask(run=True)
                except RuntimeError as exc:
                    result.fault = str(exc)
                    continue
                if not result.entry.bare and answer["digest"] != _digest(workload, result.entry):
                    result.fault = "it ended in another roster"
                elif number:
                    result.rounds.append(answer["cpu"] / workload.units * 1e6)
                    result.events = answer["events"]
    return results


def _digest(workload: Workload, entry: Entry) -> str:
    return workload.keys_digest if entry.keys_only else workload.digest
