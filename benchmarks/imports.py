"""The benchmark of imports: what a process takes to start and end, with a package imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.contest import Result
from benchmarks.plan import Plan
from benchmarks.processes import ROOT
from benchmarks.table import Table, ranked, rows_of

OURS = {
    "presence_proto": ("-c", "import presence_proto"),
    "presence_adapters.asyncio": ("-c", "import presence_adapters.asyncio"),
    "presence --version": ("-m", "presence_adapters", "--version"),
}
PEERS = {
    "realtime (PyPI)": ("-c", "import realtime"),
    "websockets.asyncio.client": ("-c", "import websockets.asyncio.client"),
    "floor: the libraries that presence_proto needs": ("-c", "import attrs, msgspec, wsproto"),
    "floor: Python alone": ("-c", "pass"),
}
ABOUT = "CPU time of a whole process that does nothing else. All modules are compiled before."


def imports(plan: Plan) -> list[Table]:
    """What it takes to import us."""
    results = {name: Result(name, ours=name in OURS) for name in OURS | PEERS}
    for number in range(plan.rounds + 1):
        plan.progress(f"import: round {number} of {plan.rounds}" if number else "import: warming up")
        for name, args in (OURS | PEERS).items():
            result = results[name]
            if result.fault is not None:
                continue
            try:
                cost = cpu(args)
            except RuntimeError as exc:
                result.fault = str(exc)
            else:
                result.rounds += [cost] if number else []
    rows = ranked(rows_of(results.values()))
    return [Table("import", "A process starts, imports, and ends", ABOUT, "ms", rows)]


def cpu(args: Sequence[str]) -> float:
    """The CPU milliseconds of a Python process. Raises `RuntimeError` with its last words when it fails."""
    with subprocess.Popen(
        [sys.executable, *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, encoding="utf-8"
    ) as process:
        assert process.stderr is not None
        words = process.stderr.read().strip().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError((words or ["it has ended without a word"])[-1])
    return (usage.ru_utime + usage.ru_stime) * 1e3
