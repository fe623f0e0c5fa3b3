"""The commands that need no server: `demo`, `sim` and `replay`."""

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
@click.option("--seconds", type=Duration(), help="End after this many seconds.")
@click.option("--seed", type=int, help="Random seed. The same seed gives the same actions.")
@click.option(
    "--plain",
    is_flag=True,
    help="Print lines instead of the live view. Without a terminal, or with NO_COLOR, this is the default.",
)
def demo(seconds: float | None, seed: int | None, plain: bool) -> None:
    """Watch a small demo room: a hub, a few simulated users, and a client that shows their actions.

    All connections are real sockets on loopback, on a free port. The demo ends after --seconds or on Ctrl-C,
    with a summary and exit status 0.
    """
    plain = plain or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    asyncio.run(demo_room(seconds, seed, plain=plain))


@click.command()
@click.option("--seed", type=click.IntRange(min=0), help="Run only the simulation of this seed.")
@click.option("--seeds", metavar="A-B", callback=parse_seeds, help="Run seeds A to B. [default: 0-99]")
@click.option("--minutes", type=Duration(), help="Virtual minutes of each simulation. [default: 10-20]")
@click.option("--hours", type=Duration(), help="Virtual hours of each simulation, instead of --minutes.")
@click.option("--clients", type=click.IntRange(min=1), help="Clients in each simulation. [default: 3-6]")
@click.option("--faults", default="mixed", show_default=True, type=click.Choice(list(FAULTS)))
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Number of processes.")
@click.option("--log", is_flag=True, help="Print every step. Cannot be combined with several --jobs.")
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
    """Run simulations: a hub and clients on faulty networks, checked at every step.

    Time is virtual, and the same seed gives the same simulation. The seed chooses every value that no option
    sets. The command prints a summary at the end, and the exit status is 0. After a violation of a protocol
    rule, the command prints a report, and the exit status is 1. Ctrl-C stops the run: the command prints the
    summary so far, and the exit status is 130.
    """
    if seed is not None and seeds is not None:
        raise click.UsageError("give either --seed or --seeds")
    if minutes is not None and hours is not None:
        raise click.UsageError("give either --minutes or --hours")
    if log and jobs > 1:
        raise click.UsageError("--log works with one process only: leave --jobs out")
    if seed is not None:
        seeds = range(seed, seed + 1)
    if hours is not None:
        minutes = 60 * hours
    simulate(seeds or range(100), minutes, clients, faults, jobs, log=log)


@click.command()
@click.argument("file", type=click.Path())
@click.option("--show", is_flag=True, help="Print the recording in words instead of replaying it.")
def replay(file: str, show: bool) -> None:
    """Replay a recording, and check that the output is unchanged. Recordings are for bug reports.

    FILE is a recording that a client or hub has written with its `record` option, or - for stdin. The exit
    status is 0 when the output is unchanged, 1 when the output differs, and 2 when FILE is not a recording or
    is damaged.
    """
    sys.exit(0 if replay_file(file, show=show) else 1)
