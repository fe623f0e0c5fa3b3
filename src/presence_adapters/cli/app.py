"""The commands and their options."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from typing import Any

import click

from presence_adapters.cli.demo import demo_room
from presence_adapters.cli.doctor.command import doctor
from presence_adapters.cli.exits import Exit
from presence_adapters.cli.exits import described as exit_statuses
from presence_adapters.cli.hub import hub
from presence_adapters.cli.options import Duration
from presence_adapters.cli.replay import replay_file
from presence_adapters.cli.room import COMMANDS
from presence_adapters.cli.sim import FAULTS, parse_seeds, simulate

EPILOG = f"""\b
Exit status:
{exit_statuses()}

\b
Tab completion, in the start-up file of your shell:
  bash   eval "$(_PRESENCE_COMPLETE=bash_source presence)"
  zsh    eval "$(_PRESENCE_COMPLETE=zsh_source presence)"
  fish   _PRESENCE_COMPLETE=fish_source presence | source
"""


class _Commands(click.Group):
    """Ctrl-C ends them with a status of its own. click would say 1, which means something else."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(Exit.INTERRUPTED)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(package_name="presence-proto", prog_name="presence", message="%(prog)s %(version)s")
def app() -> None:
    """Who is online and what they are doing, on Phoenix Channels and Supabase Realtime."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # whoever started us has closed it
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(null, mode, closefd=False))  # noqa: SIM115  # it stays open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # names have characters that a locale may lack


@app.command()
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


@app.command()
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


@app.command()
@click.argument("file", type=click.Path())
@click.option("--show", is_flag=True, help="Print it in words, and replay nothing.")
def replay(file: str, show: bool) -> None:
    """Do again what a recording says, and tell whether the same comes out: how bugs are reported.

    FILE is what a client or hub has recorded with its option `record`, or - for stdin. Exit status 0 when
    it is the same, 1 when it is not, 2 when FILE is no recording or a damaged one.
    """
    sys.exit(0 if replay_file(file, show=show) else 1)


for command in [*COMMANDS, doctor, hub]:
    app.add_command(command)
