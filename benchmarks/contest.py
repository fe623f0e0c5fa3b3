"""Runs contestants against each other, interleaved: round by round each has its turn, alone on the machine.

What disturbs one round disturbs all contestants alike, and the median of the rounds leaves it out.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import Factory, define, frozen

from benchmarks import processes
from benchmarks.processes import Child, Command
from benchmarks.workloads import Workload, write_texts

WRONG_ROSTER = "it ended in another roster"


@frozen
class Entry:
    """A contestant: its name in reports, how it is started, the envelope it speaks.

    `bare`: it decodes and nothing else, so it has no roster to compare. `keys_only`: it shows users, and not
    the refs of their devices. `ours`: it is this project. `socket`: it takes the messages from a server.
    """

    name: str
    command: Command
    vsn: str = "2.0.0"
    bare: bool = False
    keys_only: bool = False
    ours: bool = False
    socket: bool = False


def python(name: str, module: str, *args: str, **options: Any) -> Entry:
    """A contestant in Python."""
    return Entry(name, processes.python(f"contestants.{module}", *args), **options)


def node(name: str, script: str, *args: str, **options: Any) -> Entry:
    """A contestant in JavaScript."""
    return Entry(name, processes.node(script, *args), **options)


@define
class Result:
    """Of one contestant: what was measured, one number for each round.

    `fault`: why there are no numbers, or why they do not count. `wrong`: because it did its work wrong.
    """

    name: str
    ours: bool = False
    rounds: list[float] = Factory(list)
    fault: str | None = None
    wrong: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a part of the median."""
        if len(self.rounds) < 3 or not self.median:
            return 0.0
        low, _, high = statistics.quantiles(self.rounds, n=4)
        return (high - low) / 2 / self.median

    def is_wrong(self, why: str) -> None:
        """These numbers do not count."""
        self.fault, self.wrong = why, True


@define
class Turn:
    """One contestant on one workload, ready to run as often as is asked for."""

    entry: Entry
    workload: Workload
    child: Child
    request: dict[str, Any]

    def take(self) -> tuple[float, bool]:
        """CPU microseconds for a unit of the workload, and whether the roster was right in the end."""
        self.child.ask(**self.request)
        answer = self.child.ask(run=True)
        wanted = self.workload.keys_digest if self.entry.keys_only else self.workload.digest
        return answer["cpu"] / self.workload.units * 1e6, self.entry.bare or answer["digest"] == wanted


class Stage:
    """What the contestants of one contest need, until the end of `with`: files with the texts, processes."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._paths: dict[tuple[int, str], Path] = {}
        self._ports: dict[Path, int] = {}

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def turn(self, entry: Entry, workload: Workload) -> Turn:
        """Start a contestant."""
        path = self._path(workload, entry.vsn)
        topics = list(dict.fromkeys(topic for topic, _, _ in workload.messages[: workload.untimed]))
        request = {"load": str(path), "untimed": workload.untimed, "topics": topics}
        if entry.socket:
            request["port"] = self._port(path, workload.untimed)
        return Turn(entry, workload, self._child(entry.command), request)

    def _child(self, command: Command) -> Child:
        child = Child(command)
        self._stack.callback(child.close)
        return child

    def _path(self, workload: Workload, vsn: str) -> Path:
        path = self._paths.get((id(workload), vsn))
        if path is None:
            path = self._paths[id(workload), vsn] = self._folder / f"{len(self._paths)}.txt"
            write_texts(workload.texts(vsn), path)
        return path

    def _port(self, path: Path, untimed: int) -> int:
        if path not in self._ports:
            child = self._child(processes.python("feeder", str(path), str(untimed)))
            self._ports[path] = child.hear()["port"]
        return self._ports[path]


def contest(
    workload: Workload, entries: Iterable[Entry], *, rounds: int, progress: Callable[[str], None]
) -> list[Result]:
    """Let all run `rounds` times each, after one to warm up. Checks that all end in the same roster."""
    pairs = [(entry, workload) for entry in entries]
    return contest_of(pairs, name=workload.name, rounds=rounds, progress=progress)


def contest_of(
    pairs: Iterable[tuple[Entry, Workload]], *, name: str, rounds: int, progress: Callable[[str], None]
) -> list[Result]:
    """The same for contestants that have a workload each."""
    results = []
    with Stage() as stage:
        turns: list[tuple[Turn, Result]] = []
        for entry, workload in pairs:
            result = Result(entry.name, entry.ours, fault=processes.missing(entry.command))
            results.append(result)
            if result.fault is None:
                turns.append((stage.turn(entry, workload), result))
        for number in range(rounds + 1):
            progress(f"{name}: " + (f"round {number} of {rounds}" if number else "warming up"))
            for turn, result in turns:
                if result.fault is None:
                    _take(turn, result, counts=number > 0)
    return results


def _take(turn: Turn, result: Result, *, counts: bool) -> None:
    try:
        cost, is_right = turn.take()
    except RuntimeError as exc:
        result.fault = str(exc)
        return
    if not is_right:
        result.is_wrong(WRONG_ROSTER)
    elif counts:
        result.rounds.append(cost)
