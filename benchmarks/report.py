"""Shows tables: in a terminal, as JSON, as a chart."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column
from rich.table import Table as RichTable

from benchmarks.contest import NODE
from benchmarks.table import Table

PACKAGES = ["presence-proto", "realtime", "websockets", "msgspec", "wsproto"]

METHOD = """\
Times are CPU time of the contestant's own process, all its threads. Contestants take turns, round by round,
each alone; shown is the median of the rounds. ± is half the distance between the quartiles. "times" says how
many times as much ours does in the same time: above 1 ours is faster. All must end in the same roster."""


def machine() -> dict[str, str]:
    """Where this ran, and with what."""
    facts = {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "Python": platform.python_version(),
        "node": _node_version(),
    }
    return facts | {name: version(name) for name in PACKAGES} | _npm_versions()


def show(tables: Sequence[Table], facts: dict[str, str], console: Console) -> None:
    """Print everything."""
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), style="dim")
    console.print(METHOD + "\n")
    for table in tables:
        show_table(table, console)


def show_table(table: Table, console: Console) -> None:
    """Print one table."""
    unit = Column(table.unit, justify="right")
    shown = RichTable(
        "", unit, Column("±", justify="right"), Column("times", justify="right"), title_justify="left"
    )
    shown.title = f"{table.name}: {table.title}"
    for row in table.rows:
        ratio = table.ratio(row)
        if row.value is None or ratio is None:
            shown.add_row(row.name, "-", "", f"not compared: {row.fault}")
        else:
            cells = [row.name, _number(row.value), f"{row.spread:.0%}", "" if ratio == 1 else f"{ratio:.2f}"]
            shown.add_row(*cells, style="bold" if row.ours else "")
    console.print(shown)
    console.print(" ".join(filter(None, [table.about, table.bias])) + "\n", style="dim")


def write_json(tables: Sequence[Table], facts: dict[str, str], path: Path) -> None:
    """Everything, for other programs."""
    report: dict[str, Any] = {"machine": facts, "method": METHOD, "tables": [one.as_dict() for one in tables]}
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def write_chart(tables: Sequence[Table], path: Path) -> None:
    """One row of bars for each table, as a PNG or SVG file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    heights = [max(1, len(table.rows)) for table in tables]
    figure, axes = plt.subplots(
        len(tables),
        1,
        figsize=(9, 0.45 * sum(heights) + 0.9 * len(tables)),
        height_ratios=heights,
        squeeze=False,
    )
    for (axis,), table in zip(axes, tables, strict=True):
        rows = [row for row in reversed(table.rows) if row.value is not None]
        colours = ["#c2410c" if row.ours else "#94a3b8" for row in rows]
        values = [row.value or 0 for row in rows]
        bars = axis.barh([row.name for row in rows], values, color=colours)
        axis.bar_label(bars, labels=[_number(value) for value in values], padding=3, fontsize=8)
        axis.set_title(f"{table.name}: {table.title} ({table.unit})", loc="left", fontsize=9)
        axis.margins(x=0.15)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _number(value: float) -> str:
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


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
