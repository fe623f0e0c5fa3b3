"""Implementation of `presence sim`."""

from __future__ import annotations

import multiprocessing
import re
import signal
import sys
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from presence_adapters.cli.exits import Exit
from presence_proto.testing import SimFaults, SimStats, SimViolation, play_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FAULTS = {"none": SimFaults.NONE, "mixed": SimFaults.MIXED}


def parse_seeds(context: click.Context, parameter: click.Parameter, value: str | None) -> range | None:
    """Return the seeds of `A-B`, B included. Raises `click.BadParameter` for any other text."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,18})-(\d{1,18})", value)  # more digits overflow len(seeds)
    seeds = range(int(match[1]), int(match[2]) + 1) if match else range(0)
    if not seeds:
        raise click.BadParameter(f"{value!r} is not a range such as 0-99", context, parameter)
    return seeds


def simulate(
    seeds: range, minutes: float | None, clients: int | None, faults: str, jobs: int, *, log: bool
) -> None:
    """Run the simulation of each seed, and print a summary. Exits with 1 at the first violation."""
    began, total, done = time.monotonic(), SimStats(), 0
    violation, interrupted = None, False
    try:
        with _plays(seeds, minutes, clients, faults, jobs, log=log) as plays:
            for stats, violation in plays:
                if violation is not None:
                    break
                assert stats is not None
                done += 1
                total.add(stats)
    except KeyboardInterrupt:
        interrupted = True
    seconds = time.monotonic() - began
    if violation is not None:
        click.echo(violation)
    struck = ", ".join(f"{kind} {count}" for kind, count in sorted(total.faults.items())) or "none"
    click.echo(
        f"{done} of {len(seeds)} seeds, {total.client_hours:.1f} client-hours in {seconds:.1f} s "
        f"({total.client_hours / max(seconds, 1e-9):.1f} a second), {total.writes} writes, "
        f"{total.bytes} bytes, {total.events} events; faults: {struck}"
    )
    if violation is not None or interrupted:
        sys.exit(1 if violation is not None else Exit.INTERRUPTED)


Outcome = tuple[SimStats | None, str | None]


@contextmanager
def _plays(
    seeds: range, minutes: float | None, clients: int | None, faults: str, jobs: int, *, log: bool
) -> Iterator[Iterable[Outcome]]:
    """Yield an iterable of the outcomes, one per seed. Without `log`, show a progress bar on stderr."""
    one = partial(_play, minutes=minutes, clients=clients, faults=faults)
    if log:
        yield map(partial(one, log=True), seeds)
    elif jobs > 1:
        with (
            multiprocessing.get_context("spawn").Pool(jobs, _leave_signals_to_the_parent) as pool,
            click.progressbar(pool.imap(one, seeds), length=len(seeds), file=sys.stderr) as bar,
        ):
            yield bar
    elif len(seeds) == 1 and minutes is not None:
        with click.progressbar(length=round(60 * minutes), file=sys.stderr) as bar:
            yield map(partial(one, progress=lambda seconds: bar.update(round(seconds))), seeds)
    else:
        with click.progressbar(map(one, seeds), length=len(seeds), file=sys.stderr) as bar:
            yield bar


def _play(seed: int, *, faults: str, log: bool = False, **options: Any) -> Outcome:
    """Return the statistics of one simulation, or the violation as text, which `Pool` can pickle."""
    try:
        return play_seed(seed, faults=FAULTS[faults], log=click.echo if log else None, **options), None
    except SimViolation as violation:
        return None, str(violation)


def _leave_signals_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
