"""All benchmarks by name."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.client_suites import CLIENT_SUITES
from benchmarks.commands import commands
from benchmarks.fanout import fan_out
from benchmarks.imports import imports
from benchmarks.memory import memory
from benchmarks.plan import Plan
from benchmarks.storm import storm
from benchmarks.table import Table
from benchmarks.wave import wave

SUITES: dict[str, Callable[[Plan], list[Table]]] = {
    **CLIENT_SUITES,
    "commands": commands,
    "import": imports,
    "fan-out": fan_out,
    "wave": wave,
    "storm": storm,
    "memory": memory,
}
