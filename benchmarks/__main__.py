"""The command: `python -m benchmarks [NAME...]`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from benchmarks.chart import write_chart
from benchmarks.plan import Plan
from benchmarks.processes import NODE
from benchmarks.report import load, machine, show, write_json
from benchmarks.suites import SUITES
from benchmarks.table import Table

LISTED = "\n".join(f"  {name:<12} {(suite.__doc__ or '').splitlines()[0]}" for name, suite in SUITES.items())


@click.command(
    epilog=f"\b\nThe benchmarks:\n{LISTED}", context_settings={"help_option_names": ["-h", "--help"]}
)
@click.argument("names", nargs=-1, type=click.Choice(list(SUITES)))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Rounds that count.")
@click.option("--seed", default=7, show_default=True, help="For the workloads.")
@click.option("--quick", is_flag=True, help="A tenth of everything, for a first look.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write it as JSON."
)
@click.option("--chart", type=click.Path(dir_okay=False, path_type=Path), help="Draw it, as .png or .svg.")
def main(
    names: tuple[str, ...], rounds: int, seed: int, quick: bool, json_path: Path | None, chart: Path | None
) -> None:
    """Measure this project next to the official clients, all in one run. Without NAMES: everything."""
    console, status = Console(), Console(stderr=True)
    _install_node_packages(status)
    facts, start, tables = machine(), time.monotonic(), list[Table]()
    with status.status("starting") as spinner:
        plan = Plan(seed, rounds, 0.1 if quick else 1.0, spinner.update)
        for name in names or SUITES:
            tables.extend(SUITES[name](plan))
    facts |= {"load after": load(), "duration": f"{time.monotonic() - start:.0f} s, {rounds} rounds"}
    show(tables, facts, console)
    if json_path is not None:
        write_json(tables, facts, json_path)
    if chart is not None:
        write_chart(tables, chart)
    if any(row.wrong for table in tables for row in table.rows):
        sys.exit('somebody did its work wrong: see "no number"')


def _install_node_packages(status: Console) -> None:
    """The JavaScript contestants say themselves that they are missing, if this does not work."""
    if (NODE / "node_modules" / ".package-lock.json").exists():
        return
    with status.status("installing the JavaScript clients"):
        try:
            subprocess.run(["npm", "ci"], cwd=NODE, capture_output=True, check=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as exc:
            status.print(f"the JavaScript clients are not there: {exc}")


if __name__ == "__main__":
    main()
