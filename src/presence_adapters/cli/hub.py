"""`presence hub` and its options. What it does is in `serve` and `control`."""

from __future__ import annotations

import asyncio
import errno
import ssl
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from attrs import fields_dict

from presence_adapters.cli.serve import control, described, greeting, serve
from presence_adapters.connecting import os_error_words
from presence_adapters.settings.files import read_secret
from presence_proto import ConfigError, HubConfig

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS = ["debug", "info", "warning", "error"]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_LIMITS: list[tuple[str, type[int] | type[float], str, str]] = [
    ("max_connections", int, "N", "Clients at once; more are refused with HTTP 429."),
    (
        "max_connections_per_address",
        int,
        "N",
        "Of them, from one IP address, or one /64 of IPv6. All clients behind a proxy have one address.",
    ),
    ("max_channels", int, "N", "Channels of one client."),
    ("max_message_size", int, "BYTES", "Of one message; a larger one closes its connection."),
    ("max_meta_size", int, "BYTES", "Of what one client tracks in one channel, and its key."),
    ("max_topic_size", int, "BYTES", "Of all that is tracked in one channel."),
    ("max_connection_size", int, "BYTES", "Of all that one client tracks, and of its channels' names."),
    ("max_total_size", int, "BYTES", "Of all that clients track, and of their channels' names."),
    (
        "presence_limit",
        int,
        "N",
        "Presence updates in 30 s; one more closes the channel. Supabase has 5.",
    ),
    ("message_rate", int, "N", "Messages a second of one client, as an average of 10 s. Supabase has 100."),
    ("join_rate", int, "N", "Joins a second of one client, as an average of 10 s. Supabase has 100."),
    ("delivery_rate", int, "N", "Messages a second that go out for those of one client, likewise."),
    ("join_delay", float, "SECONDS", "Take so long for a join, one at a time for each client."),
    ("refusal_delay", float, "SECONDS", "Take longer for a join that is refused. Supabase takes 5."),
    ("handshake_refusal_delay", float, "SECONDS", "Answer a wrong API key so late. Supabase does after 2."),
    ("presence_window", float, "SECONDS", "Tell comings and goings of so long in one message."),
]
"""The fields of `HubConfig` that are options of the same name."""

DEFAULTS: dict[str, int | float] = {
    "max_connections_per_address": 1000,
}
"""What the command has instead of the defaults of `HubConfig`, which are for tests: strangers may come."""


RATES: dict[str, int | float] = {
    "presence_limit": 5,
    "message_rate": 100,
    "join_rate": 100,
    "delivery_rate": 10_000,
}
"""More of those, but not with `--control`: a test may be faster than any client should be."""

STRICT: dict[str, Any] = {
    "handshake_refusal_delay": 2.0,
    "max_message_size": 5_000_000,
    "presence_limit": 5,
    "refusal_delay": 5.0,
    "shutdown_like": "supabase",
}
"""What `--strict` sets: Supabase's own limits and delays, as measured."""


def _limits(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, kind, unit, text in reversed(_LIMITS):
        own = fields_dict(HubConfig)[name].default
        default = (DEFAULTS | RATES).get(name, own)
        shown = f"{default:g}" if kind is float else default
        text += " 0 is no limit." if own is None else ""
        flag = f"--{name.replace('_', '-')}"
        command = click.option(flag, type=kind, metavar=unit, help=f"{text}  [default: {shown}]")(command)
    return command


@click.command(epilog=f"\b\nThe commands of --control, and their arguments:\n{described()}")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all.")
@click.option(
    "--port",
    default=4000,
    show_default=True,
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="0 takes a free one.",
)
@click.option(
    "--protocol",
    type=click.Choice(["both", "phoenix", "jarvis"], case_sensitive=False),
    help="The protocols: Phoenix and Supabase, the older JSON protocol of Jarvis, or both.  [default: both]",
)
@click.option("--api-key-file", type=FILE, help="A file with the key that clients need. Without it none is.")
@click.option(
    "--allow-origin",
    "allowed_origins",
    multiple=True,
    metavar="ORIGIN",
    help="The origin of web pages that may connect besides those of this host, such as https://example.com. "
    "May be given several times.",
)
@click.option("--tls-cert", type=FILE, help="PEM file. Turns TLS on.")
@click.option("--tls-key", type=FILE, help="PEM file.")
@_limits
@click.option(
    "--strict",
    is_flag=True,
    help="Be as strict and slow as Supabase where the default is not: presence limit, refusals, sizes, stop.",
)
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
    protocol: Literal["both", "phoenix", "jarvis"] | None,
    api_key_file: Path | None,
    allowed_origins: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    log_level: str | None,
    controlled: bool,
    record: Path | None,
    strict: bool,
    **limits: Any,
) -> None:
    """Run a hub: a server for presence clients, and for Phoenix and Supabase ones.

    It prints its URLs, and a client to paste. Ctrl-C or SIGTERM stop it in an orderly way: clients are told
    to come back (close code 1012). Exit status 0 then, and 1 when it cannot listen.

    With --control it says where it listens in one line of JSON: url, socket_url, jarvis_url, port, and the
    api_key that it demands. Then it does what stdin says, and answers each line with one:

    \b
      {"do": "refuse_handshakes", "count": 2}    {"ok": true}
      {"do": "online", "topic": "realtime:x"}    {"ok": true, "result": {…}}
      {"do": "juggle"}                           {"ok": false, "error": "…"}

    The end of stdin, or a signal, stops it at once, as if it was killed.
    """
    if not host:
        raise click.UsageError("--host is empty: 0.0.0.0 is all addresses, 127.0.0.1 this machine alone")
    if tls_key is not None and tls_cert is None:
        raise click.UsageError("--tls-key needs --tls-cert")
    if controlled and record is not None:
        raise click.UsageError("--record does not go with --control: faults cannot be recorded")
    if controlled and api_key_file is not None:
        raise click.UsageError("--api-key-file does not go with --control, which makes a key of its own")
    try:
        defaults = (DEFAULTS if controlled else DEFAULTS | RATES) | (STRICT if strict else {})
        given: dict[str, Any] = defaults | {
            name: value for name, value in limits.items() if value is not None
        }
        for name, value in given.items():
            if value == 0 and fields_dict(HubConfig)[name].default is None:
                given[name] = None
        config = HubConfig(
            protocol=protocol or "both",
            api_keys=_keys(api_key_file),
            allowed_origins=allowed_origins,
            **given,
        )
        context = _context(tls_cert, tls_key)
        if controlled:
            control(host, port, context, log_level or "warning", config)
        else:
            asked = protocol is not None
            greet = partial(
                greeting, config, certificate=tls_cert, api_key_file=api_key_file, shows_jarvis=asked
            )
            asyncio.run(serve(config, host, port, context, log_level or "info", record, greet))
    except ConfigError as exc:
        raise click.ClickException(str(exc)) from None
    except BrokenPipeError:
        raise  # nobody reads what it says: that is no matter of listening, and click knows what to do
    except (OSError, UnicodeError) as exc:
        raise click.ClickException(f"cannot listen on {host}:{port}: {_in_words(exc)}") from None


def _keys(path: Path | None) -> set[str] | None:
    if path is None:
        return None
    key, warnings = read_secret(path)
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    return {key}


def _context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as exc:  # ssl.SSLError is one
        raise click.ClickException(f"cannot use {certificate} and its key: {os_error_words(exc)}") from None
    return context


def _in_words(exc: OSError | UnicodeError) -> str:
    if isinstance(exc, UnicodeError):
        return "this is not a valid host name"
    if exc.errno == errno.EADDRINUSE:
        return "it is in use, choose another with --port"
    return os_error_words(exc)
