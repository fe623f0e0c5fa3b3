"""Shows tables: in a terminal, and as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column
from rich.table import Table as RichTable

from benchmarks.processes import NODE
from benchmarks.table import Row, Table

PACKAGES = ["presence-proto", "msgspec", "wsproto", "realtime", "websockets"]

INTRO = """\
presence-proto tells Python programs who is online on Phoenix and Supabase Realtime servers. This compares it
with the official clients, and its server with others."""

METHOD = """\
How to read this. Times are CPU time of the contestant's own process, all its threads, system calls included:
how long one waits for a network is not in them. Contestants get the same input and take turns, round by
round, each alone; shown is the median of the rounds. ± is half the distance between the quartiles: half of
the rounds are about that near. "ours is" compares with our first row: 2.00 x means that ours takes half as
much, or does twice as much in the same time. Whoever does its work wrong, such as ending in another roster,
has no number. A "floor" is no library: it is the least that has to be done, and nobody can be much faster.

Mind the bias. All of this runs on one machine, with made-up input. The official clients do more than
presence. Python and JavaScript are compared as they are shipped, and node's times include its compiler and
collector threads. Absolute numbers are this machine's, and vary with what else it does; ratios vary less."""


def load() -> str:
    """How much else goes on: the load average of the last minute."""
    try:
        return f"{os.getloadavg()[0]:.1f}"
    except OSError:
        return "not known"


def machine() -> dict[str, str]:
    """Where this runs, and with what. To be taken before everything else."""
    facts = {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "load before": load(),
        "Python": f"{platform.python_version()} ({platform.python_compiler()})",
        "node": _node_version(),
    }
    return facts | {name: _version(name) for name in PACKAGES} | _npm_versions()


def show(tables: Sequence[Table], facts: dict[str, str], console: Console) -> None:
    """Print everything."""
    _paragraphs(INTRO, console)
    grid = RichTable.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(name, value)
    console.print(grid)
    console.print()
    _paragraphs(METHOD, console)
    for table in tables:
        show_table(table, console)


def show_table(table: Table, console: Console) -> None:
    """Print one table."""
    has_notes = any(row.note for row in table.rows)
    is_measured = any(row.spread for row in table.rows)
    is_compared = any(table.ratio(row) not in (None, 1) for row in table.rows)
    columns = [("", True), (table.unit, True), ("±", is_measured), ("", has_notes), ("ours is", is_compared)]
    shown = RichTable(*(Column(name, justify="right") for name, is_there in columns if is_there))
    shown.columns[0].justify = "left"
    for row in table.rows:
        cells = zip(_cells(table, row), columns, strict=True)
        shown.add_row(*(cell for cell, (_, is_there) in cells if is_there), style="bold" if row.ours else "")
    console.rule(f"[bold]{table.name}", align="left")
    console.print(f"{table.title}\n")
    console.print(shown)
    _paragraphs(" ".join(filter(None, [table.about, table.bias])), console, style="dim")


def _cells(table: Table, row: Row) -> list[str]:
    """Of all columns."""
    ratio = table.ratio(row)
    if row.value is None:
        return [f"{row.name}\n  no number: {row.fault}", "-", "", row.note, ""]
    spread = f"{row.spread:.0%}" if row.spread else ""
    compared = "" if ratio is None or row is table.reference else f"{ratio:.2f} x"
    return [row.name, number(row.value), spread, row.note, compared]


def _paragraphs(text: str, console: Console, style: str = "") -> None:
    """Lines are joined: the terminal knows better where to break them."""
    for paragraph in text.split("\n\n"):
        console.print(" ".join(paragraph.split("\n")) + "\n", style=style, highlight=False, markup=False)


def write_json(tables: Sequence[Table], facts: dict[str, str], path: Path) -> None:
    """Everything, for other programs."""
    report: dict[str, Any] = {"machine": facts, "method": METHOD, "tables": [one.as_dict() for one in tables]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def number(value: float) -> str:
    """As many digits as mean something."""
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else "unknown"


def _node_version() -> str:
    try:
        return subprocess.run(
            ["node", "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not installed"


def _npm_versions() -> dict[str, str]:
    lock = json.loads((NODE / "package-lock.json").read_text("utf-8"))
    wanted = {"phoenix": "phoenix.js", "@supabase/realtime-js": "realtime-js", "ws": "ws"}
    return {shown: lock["packages"][f"node_modules/{name}"]["version"] for name, shown in wanted.items()}
