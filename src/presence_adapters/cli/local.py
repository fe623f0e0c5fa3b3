"""The commands that need no server: demo, sim, replay."""

from __future__ import annotations

import asyncio
import os
import sys

import click

from presence_adapters.cli.demo import demo_room
from presence_adapters.cli.options import Duration
from presence_adapters.cli.replay import replay_file
from presence_adapters.cli.sim import FAULTS, parse_seeds, simulate


@click.command()
@click.option("--seconds", type=Duration(), help="End by itself after so long.")
@click.option("--seed", type=int, help="The same seed: the same people do the same things.")
@click.option(
    "--plain", is_flag=True, help="Lines instead of the live view; also without a terminal, or with NO_COLOR."
)
def demo(seconds: float | None, seed: int | None, plain: bool) -> None:
    """Watch a small room: a hub, a few residents, and a client that sees them come, act and go.

    Everything is real, on loopback sockets and a free port. Ends with a summary and exit status 0, after
    --seconds or with Ctrl-C.
    """
    plain = plain or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    asyncio.run(demo_room(seconds, seed, plain=plain))


@click.command()
@click.option("--seed", type=click.IntRange(min=0), help="Play the world of this seed.")
@click.option("--seeds", metavar="A-B", callback=parse_seeds, help="Those of all these. [default: 0-99]")
@click.option("--minutes", type=Duration(), help="Virtual, of each. [default: 10-20]")
@click.option("--hours", type=Duration(), help="The same, in hours.")
@click.option("--clients", type=click.IntRange(min=1), help="In each world. [default: 3-6]")
@click.option("--faults", default="mixed", show_default=True, type=click.Choice(list(FAULTS)))
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes.")
@click.option("--log", is_flag=True, help="Show all that happens. For one process.")
def sim(
    seed: int | None,
    seeds: range | None,
    minutes: float | None,
    hours: float | None,
    clients: int | None,
    faults: str,
    jobs: int,
    log: bool,
) -> None:
    """Run simulated worlds: a hub and clients on bad networks, judged at every step.

    Time is virtual, and each world is the same every time. What the options do not say is up to its seed.
    Ends with a summary: exit status 0, or 1 and a report when a law of the protocol was broken. Ctrl-C stops
    it, with the summary so far and exit status 130.
    """
    if seed is not None and seeds is not None:
        raise click.UsageError("give either --seed or --seeds")
    if minutes is not None and hours is not None:
        raise click.UsageError("give either --minutes or --hours")
    if log and jobs > 1:
        raise click.UsageError("--log is for one process: leave --jobs out")
    if seed is not None:
        seeds = range(seed, seed + 1)
    if hours is not None:
        minutes = 60 * hours
    simulate(seeds or range(100), minutes, clients, faults, jobs, log=log)


@click.command()
@click.argument("file", type=click.Path())
@click.option("--show", is_flag=True, help="Print it in words, and replay nothing.")
def replay(file: str, show: bool) -> None:
    """Do again what a recording says, and tell whether the same comes out: how bugs are reported.

    FILE is what a client or hub has recorded with its option `record`, or - for stdin. Exit status 0 when
    it is the same, 1 when it is not, 2 when FILE is no recording or a damaged one.
    """
    sys.exit(0 if replay_file(file, show=show) else 1)
