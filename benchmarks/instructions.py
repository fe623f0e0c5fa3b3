"""A guard against slow code that does not depend on the machine's mood: instructions, counted by valgrind.

    python -m benchmarks.instructions [--record] [NAME...]

Each path of `hot_paths` runs N times and 2 N times; the difference, divided by N, is what one time takes,
and the start of Python is not in it. An import is a process that does nothing else, with the start and the
end of Python. The counts to compare with are in `instructions.json`, for each minor
version of Python. They hold for one build of Python and of the JSON library: another one needs its own.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import click
from attrs import frozen
from rich.console import Console
from rich.table import Column, Table

from benchmarks.hot_paths import HOT_PATHS
from benchmarks.imports import OURS
from benchmarks.processes import ROOT, python

REFERENCE = Path(__file__).parent / "instructions.json"
TIMEOUT = 300.0
"""Seconds for one run."""

VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
IMPORTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "import": ("A process that imports presence_proto", OURS["presence_proto"]),
    "import-asyncio": (
        "A process that imports presence_adapters.asyncio",
        OURS["presence_adapters.asyncio"],
    ),
    "import-command": ("A process that runs presence --version", OURS["presence --version"]),
}
"""What each process does, in words and as the arguments of Python."""

NAMES = (*HOT_PATHS, *IMPORTS)

COUNTED = re.compile(r"I\s+refs:\s+([\d,]+)")


@frozen
class Count:
    """What one time takes now, and what it took. `before` is `None` when nobody has counted it."""

    name: str
    now: int
    before: int | None

    @property
    def growth(self) -> float:
        """As a part of what it took."""
        return 0.0 if self.before is None else self.now / self.before - 1


def build() -> str:
    """What the counts depend on, besides the code."""
    compiler = platform.python_compiler()
    return (
        f"Python {platform.python_version()} ({compiler}), msgspec {version('msgspec')}, {platform.machine()}"
    )


def minor() -> str:
    """The version of Python that counts are kept for."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def instructions(args: Sequence[str]) -> int:
    """The instructions of a whole Python process. Raises `RuntimeError` when it fails."""
    command = (*VALGRIND, sys.executable, *args)
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=_environment(), timeout=TIMEOUT, check=False
    )
    found = COUNTED.search(done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"{' '.join(args)} has failed:\n{done.stderr}")
    return int(found[1].replace(",", ""))


def count(names: Sequence[str]) -> dict[str, int]:
    """What each takes, once. Raises `RuntimeError` when one fails."""
    jobs: dict[str, list[Sequence[str]]] = {}
    for name in names:
        if name in IMPORTS:
            jobs[name] = [IMPORTS[name][1]]
        else:
            jobs[name] = [hot_path(name, HOT_PATHS[name][1] * factor) for factor in (1, 2)]
    for args in [runs[0] for name, runs in jobs.items() if name in IMPORTS] or [hot_path(names[0], 1)]:
        # The first import compiles, and is not to be counted.
        subprocess.run(
            (sys.executable, *args),
            capture_output=True,
            cwd=ROOT,
            env=_environment(),
            timeout=TIMEOUT,
            check=False,
        )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        totals = {name: list(pool.map(instructions, runs)) for name, runs in jobs.items()}
    return {
        name: total[0] if name in IMPORTS else (total[1] - total[0]) // HOT_PATHS[name][1]
        for name, total in totals.items()
    }


def hot_path(name: str, times: int) -> tuple[str, ...]:
    """The arguments of Python that run it so many times."""
    _, *args = python("hot_paths", name, str(times))
    return tuple(args)


def _environment() -> dict[str, str]:
    """The same for all runs: fixed hashes, and bytecode that the first run writes and the others read."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONHASHSEED": "0"}


# ---------------------------------------------------------------------------------------------- the command


NOT_COMPARABLE = 3  # exit status: the counts that are kept are those of another build


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--record", is_flag=True, help="Keep what is counted now, to compare with later.")
@click.option("--tolerance", default=5.0, show_default=True, help="Percent that a path may grow.")
@click.option(
    "--reference",
    default=REFERENCE,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the counts are kept.",
)
def main(names: tuple[str, ...], record: bool, tolerance: float, reference: Path) -> None:
    """Count the instructions of the hot paths, and fail when one has grown. Without NAMES: all of them."""
    console = Console()
    if shutil.which(VALGRIND[0]) is None:
        sys.exit("valgrind is not installed: nothing is counted")
    kept = json.loads(reference.read_text("utf-8")) if reference.exists() else {}
    known = kept.get(minor(), {"build": "", "counts": {}})
    if not record and not known["counts"]:
        sys.exit(f"no counts are kept for Python {minor()}: make some with --record")
    if known["counts"] and known["build"] != build():
        console.print(f"counted before with {known['build']}\ncounting now with   {build()}")
        if not record:
            print(
                "these cannot be compared: count with the build that was recorded, or use --record",
                file=sys.stderr,
            )
            sys.exit(NOT_COMPARABLE)
        known = {"build": "", "counts": {}}
    names = names or NAMES
    try:
        counted = count(names)
    except RuntimeError as exc:
        sys.exit(str(exc))
    counts = [Count(name, now, known["counts"].get(name)) for name, now in counted.items()]
    _show(counts, console)
    if record:
        kept[minor()] = {"build": build(), "counts": known["counts"] | counted}
        reference.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        console.print(f"kept for Python {minor()}")
        return
    grown = [one for one in counts if one.before and one.now > one.before * (1 + tolerance / 100)]
    unknown = [one.name for one in counts if one.before is None]
    if grown:
        lines = [f"  {one.name}: {one.before:,} before, {one.now:,} now ({one.growth:+.1%})" for one in grown]
        sys.exit("\n".join([f"these have grown by more than {tolerance:g} %:", *lines]))
    if unknown:
        sys.exit(f"no counts are kept for {', '.join(unknown)}: make some with --record")
    console.print(f"nothing has grown by more than {tolerance:g} %")


def _show(counts: Sequence[Count], console: Console) -> None:
    right = [Column(name, justify="right") for name in ("instructions", "before", "change")]
    table = Table("", *right)
    for one in counts:
        before, change = ("-", "-") if one.before is None else (f"{one.before:,}", f"{one.growth:+.1%}")
        table.add_row(_about(one.name), f"{one.now:,}", before, change)
    console.print(table)


def _about(name: str) -> str:
    if name in IMPORTS:
        return f"{name}: {IMPORTS[name][0]}"
    prepare, _ = HOT_PATHS[name]
    return f"{name}: {prepare.__doc__}".removesuffix(".")


if __name__ == "__main__":
    main()
