"""Draws tables: one row of bars for each contestant.

python -m benchmarks.chart REPORT IMAGE [NAME...]
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.report import number
from benchmarks.table import Row, Table

OURS, OTHERS, FLOOR = "#c2410c", "#94a3b8", "#e2e8f0"
WIDTH = 8.0
"""Inches for one table."""
BAR, HEAD, LINE = 0.3, 0.95, 0.3
"""Inches for a bar, for what stands above and below the bars, and for the legend."""
LEGEND = "Orange: presence-proto. Dark: peers. Light: floors. (2.0 x): our first bar is twice as good."


def write_chart(tables: Sequence[Table], path: Path) -> None:
    """As a PNG or SVG file, in two columns when there are many."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = _columns(tables)
    height = LINE + max(map(_height, columns))
    figure = plt.figure(figsize=(WIDTH * len(columns), height))
    figure.text(0.02 / len(columns), 1 - 0.25 / height, LEGEND, fontsize=9, style="italic")
    for at, column in enumerate(columns):
        top = height - LINE
        for table in column:
            bars = BAR * len(_drawn(table))
            left, width = (at + 0.34) / len(columns), 0.6 / len(columns)
            axis = figure.add_axes((left, (top - HEAD + 0.25 - bars) / height, width, bars / height))
            _draw(table, axis)
            top -= HEAD + bars
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, facecolor="white")
    plt.close(figure)


def _columns(tables: Sequence[Table]) -> list[list[Table]]:
    """About as high as each other, in the order of the tables."""
    drawn = [table for table in tables if _drawn(table)]
    if len(drawn) < 5:
        return [drawn]
    for at in range(1, len(drawn)):
        if _height(drawn[:at]) >= _height(drawn[at:]):
            return [drawn[:at], drawn[at:]]
    return [drawn]


def _height(tables: Sequence[Table]) -> float:
    return sum(HEAD + BAR * len(_drawn(table)) for table in tables)


def _drawn(table: Table) -> list[Row]:
    return [row for row in table.rows if row.value is not None]


def _draw(table: Table, axis: Any) -> None:
    rows = _drawn(table)[::-1]
    values = [row.value or 0.0 for row in rows]
    colours = [OURS if row.ours else FLOOR if "floor" in row.name else OTHERS for row in rows]
    spreads = [(row.value or 0.0) * row.spread for row in rows]
    names = [row.name for row in rows]
    axis.barh(range(len(rows)), values, xerr=spreads, color=colours, height=0.72, ecolor="#475569", capsize=2)
    for at, (value, spread) in enumerate(zip(values, spreads, strict=True)):
        ratio = table.ratio(rows[at])
        shown = number(value) + ("" if ratio is None or rows[at] is table.reference else f"  ({ratio:.1f} x)")
        axis.annotate(
            shown, (value + spread, at), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.set_xlim(0, 1.3 * max(max(values), 1e-9))
    axis.set_xticks([])
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.tick_params(left=False)
    better = "more is better" if table.higher else "less is better"
    title = "\n".join(textwrap.wrap(table.title, 90))
    axis.set_title(f"{title}\n{table.unit}, {better}", loc="left", fontsize=9, x=-0.5)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("image", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("names", nargs=-1)
def main(report: Path, image: Path, names: tuple[str, ...]) -> None:
    """Draw the tables with NAMES, or all, of a REPORT that --json has written into an IMAGE, .png or .svg."""
    tables = [Table.from_dict(table) for table in json.loads(report.read_text("utf-8"))["tables"]]
    known = {table.name: table for table in tables}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"no table {', '.join(unknown)}; there are {', '.join(known)}")
    write_chart([known[name] for name in names] or tables, image)


if __name__ == "__main__":
    main()
