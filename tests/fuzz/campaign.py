"""Run fuzzers side by side, each in a process of its own, and read off their logs what came of it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from attrs import define, field, frozen

from fuzz import seeds, targets

HERE = Path(__file__).parent
REGRESSIONS = HERE / "regressions"
TIMEOUT = 60  # seconds for one input: much, for the machine may be busy, and some are looked at closely
MEMORY = 2048  # MB for one fuzzer
FINDINGS = ("crash-", "timeout-", "oom-")  # how libFuzzer calls the files of inputs that are to blame
PATIENCE = 300  # seconds that a fuzzer may take to read its corpus and to end


@frozen
class Row:
    """What came of one fuzzer. `crashes` are the inputs that it found."""

    target: str
    executions: int
    rate: int  # executions per second
    corpus: int  # inputs
    edges: int
    crashes: tuple[Path, ...]
    reason: str  # why the last of them fails, as far as the log says it
    broken: bool  # it ended as it should not, without an input to blame


@define(eq=False)
class Fuzzer:
    """One fuzzer at work in `folder`: its corpus, its crashes, its log."""

    target: str
    folder: Path
    seconds: int
    seed: int  # 0 is chance
    _interrupted: bool = field(default=False, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _started: float = field(factory=time.time, init=False)

    @property
    def log(self) -> Path:
        """All that it prints."""
        return self.folder / "log"

    def start(self) -> None:
        """Write the seeds, and set it to work."""
        shutil.rmtree(self.folder / "seeds", ignore_errors=True)
        for name in ("corpus", "seeds", "crashes"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for data in targets.load(self.target).inputs():
            (self.folder / "seeds" / hashlib.sha1(data).hexdigest()).write_bytes(data)
        regressions = REGRESSIONS / self.target
        dictionary = HERE / "dictionaries" / f"{self.target}.dict"
        options = {
            "max_total_time": self.seconds,
            "seed": self.seed,
            "max_len": seeds.MAX_SIZE,
            "timeout": TIMEOUT,
            "rss_limit_mb": MEMORY,
            "artifact_prefix": f"{self.folder / 'crashes'}{os.sep}",
            "print_final_stats": 1,
            **({"dict": dictionary} if dictionary.exists() else {}),
        }
        corpora = [self.folder / "corpus", self.folder / "seeds"]
        corpora += [regressions] if regressions.is_dir() else []
        command = [sys.executable, "-m", "fuzz.fuzzer", self.target]
        command += [f"-{name}={value}" for name, value in options.items()] + [str(path) for path in corpora]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        if self.seed:
            environment["PYTHONHASHSEED"] = str(self.seed)
        with self.log.open("wb") as log:
            self._started = time.time()
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def is_over(self) -> bool:
        """Whether it has ended. One that hangs is ended."""
        assert self._process is not None
        if time.time() > self._started + self.seconds + PATIENCE:
            self._process.kill()
        return self._process.poll() is not None

    def interrupt(self) -> None:
        """End it before its time."""
        self._interrupted = True
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def row(self) -> Row:
        """What came of it, once it is over."""
        assert self._process is not None
        crashes = tuple(
            path
            for path in sorted((self.folder / "crashes").iterdir())
            if path.name.startswith(FINDINGS) and path.stat().st_mtime >= self._started - 1
        )
        broken = self._process.returncode != 0 and not crashes and not self._interrupted
        log = self.log.read_text("utf-8", "replace")
        return Row(self.target, *progress(log), crashes, reason(log) if crashes else "", broken)


def reason(log: str) -> str:
    """The traceback of what failed, as a log has it; empty when it was no exception."""
    start = log.rfind("Traceback (most recent call last)")
    return log[start:].partition("\n==")[0].strip() if start >= 0 else ""


def progress(log: str) -> tuple[int, int, int, int]:
    """Executions, executions per second, inputs of the corpus and edges, as a log has them last."""
    numbers = [
        re.findall(rf"^#\d+\s.*?\b{name}: (\d+)", log, re.MULTILINE) for name in ("exec/s", "corp", "cov")
    ]
    executions = re.findall(r"^#(\d+)\s", log, re.MULTILINE)
    rate, corpus, edges = (int(found[-1]) if found else 0 for found in numbers)
    return int(executions[-1]) if executions else 0, rate, corpus, edges


def run(names: list[str], folder: Path, *, seconds: int, jobs: int, seed: int = 0) -> tuple[list[Row], bool]:
    """Run the targets `jobs` at a time. Returns their rows, and whether Ctrl-C came before the end."""
    waiting = [Fuzzer(name, folder / name, seconds, seed) for name in names]
    working: list[Fuzzer] = []
    rows = []
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                working.append(waiting.pop(0))
                working[-1].start()
            for fuzzer in [fuzzer for fuzzer in working if fuzzer.is_over()]:
                working.remove(fuzzer)
                rows.append(fuzzer.row())
            time.sleep(0.1)
    except KeyboardInterrupt:
        for fuzzer in working:
            fuzzer.interrupt()
            rows.append(fuzzer.row())
        return rows, True
    finally:
        for fuzzer in working:
            fuzzer.interrupt()
    return rows, False


def table(rows: list[Row]) -> str:
    """The rows, for a terminal."""
    heads = ("target", "executions", "exec/s", "corpus", "edges", "crashes")
    cells = [
        (row.target, *map(str, (row.executions, row.rate, row.corpus, row.edges, len(row.crashes))))
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (heads, *cells)
    )
