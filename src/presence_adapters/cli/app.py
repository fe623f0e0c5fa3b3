"""The commands and their options."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import sys
from pathlib import Path

import click

from presence_adapters.cli.control import control, described
from presence_adapters.cli.demo import demo_room
from presence_adapters.cli.replay import replay_file
from presence_adapters.cli.serve import serve
from presence_adapters.cli.sim import FAULTS, parse_seeds, simulate
from presence_proto import ConfigError

LEVELS = ["debug", "info", "warning", "error"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="presence-proto", prog_name="presence", message="%(prog)s %(version)s")
def app() -> None:
    """Who is online and what they are doing, on Phoenix Channels and Supabase Realtime."""


@app.command()
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="End by itself after so long.")
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


@app.command(epilog=f"\b\nThe commands of --control, and their arguments:\n{described()}")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=4000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option(
    "--tls-cert", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="PEM file. Turns TLS on."
)
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="PEM file.")
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    help="What to say on stderr.  [default: info; with --control: warning]",
)
@click.option(
    "--control", "controlled", is_flag=True, help="For tests in any language: obey the JSON lines on stdin."
)
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), help="File for `presence replay`.")
def hub(
    host: str,
    port: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    log_level: str | None,
    controlled: bool,
    record: Path | None,
) -> None:
    """Run a hub: a server for presence clients, and for Phoenix and Supabase ones.

    Ctrl-C or SIGTERM stop it in an orderly way: clients are told to come back (close code 1012). Exit status
    0 then, and 1 when it cannot listen.

    With --control it says where it listens in one line of JSON: url, socket_url, jarvis_url, port, and the
    api_key that it demands. Then it does what stdin says, and answers each line with one:

    \b
      {"do": "refuse_handshakes", "count": 2}    {"ok": true}
      {"do": "online", "topic": "realtime:x"}    {"ok": true, "result": {…}}
      {"do": "juggle"}                           {"ok": false, "error": "…"}

    The end of stdin, or a signal, stops it at once, as if it was killed.
    """
    if tls_key is not None and tls_cert is None:
        raise click.UsageError("--tls-key needs --tls-cert")
    if controlled and record is not None:
        raise click.UsageError("--record does not go with --control: faults cannot be recorded")
    context = None
    if tls_cert is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(tls_cert, tls_key)
        except OSError as exc:  # ssl.SSLError is one
            raise click.ClickException(f"cannot use {tls_cert} and its key: {exc}") from None
    try:
        if controlled:
            control(host, port, context, log_level or "warning")
        else:
            asyncio.run(serve(host, port, context, log_level or "info", record))
    except ConfigError as exc:
        raise click.ClickException(str(exc)) from None
    except (OSError, UnicodeError) as exc:
        raise click.ClickException(f"cannot listen on {host}:{port}: {_in_words(exc)}") from None


@app.command()
@click.option("--seed", type=click.IntRange(min=0), help="Play the world of this seed.")
@click.option("--seeds", metavar="A-B", callback=parse_seeds, help="Those of all these. [default: 0-99]")
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="Virtual, of each. [default: 10-20]"
)
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="The same, in hours.")
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
@click.argument("file")
@click.option("--show", is_flag=True, help="Print it in words, and replay nothing.")
def replay(file: str, show: bool) -> None:
    """Do again what a recording says, and tell whether the same comes out: how bugs are reported.

    FILE is what a client or hub has recorded with its option `record`, or - for stdin. Exit status 0 when
    it is the same, 1 when it is not, 2 when FILE is no recording or a damaged one.
    """
    sys.exit(0 if replay_file(file, show=show) else 1)


def _in_words(exc: OSError | UnicodeError) -> str:
    if isinstance(exc, UnicodeError):
        return "this is not a valid host name"
    if exc.errno == errno.EADDRINUSE:
        return "it is in use, choose another with --port"
    # The text of an OSError repeats the address. Name look-ups have negative numbers, unknown to strerror.
    if exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno).lower()
    return str(exc.strerror or exc)
