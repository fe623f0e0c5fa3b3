"""The commands and their options."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from pathlib import Path

import click

from presence_adapters.cli.demo import demo_room
from presence_adapters.cli.serve import serve

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


@app.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=4000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option(
    "--tls-cert", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="PEM file. Turns TLS on."
)
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="PEM file.")
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(LEVELS, case_sensitive=False)
)
def hub(host: str, port: int, tls_cert: Path | None, tls_key: Path | None, log_level: str) -> None:
    """Run a hub: a server for presence clients, and for Phoenix and Supabase ones.

    Ctrl-C or SIGTERM stop it in an orderly way: clients are told to come back (close code 1012). Exit status
    0 then, and 1 when it cannot listen.
    """
    if tls_key is not None and tls_cert is None:
        raise click.UsageError("--tls-key needs --tls-cert")
    context = None
    if tls_cert is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(tls_cert, tls_key)
        except OSError as exc:  # ssl.SSLError is one
            raise click.ClickException(f"cannot use {tls_cert} and its key: {exc}") from None
    try:
        asyncio.run(serve(host, port, context, log_level))
    except (OSError, UnicodeError) as exc:
        raise click.ClickException(f"cannot listen on {host}:{port}: {_in_words(exc)}") from None


def _in_words(exc: OSError | UnicodeError) -> str:
    if isinstance(exc, UnicodeError):
        return "this is not a valid host name"
    if exc.errno == errno.EADDRINUSE:
        return "it is in use, choose another with --port"
    # The text of an OSError repeats the address. Name look-ups have negative numbers, unknown to strerror.
    if exc.errno is not None and exc.errno > 0:
        return os.strerror(exc.errno).lower()
    return str(exc.strerror or exc)
