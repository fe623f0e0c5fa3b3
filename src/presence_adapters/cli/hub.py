"""The command `presence hub` and its options. The module `serve` has the implementation."""

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
from presence_adapters.settings.files import read_secret
from presence_adapters.tls_and_proxies import os_error_words
from presence_proto import ConfigError, HubConfig

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS = ["debug", "info", "warning", "error"]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_LIMITS: list[tuple[str, type[int] | type[float], str, str]] = [
    ("max_connections", int, "N", "Most clients at once. Further clients are refused with HTTP 429."),
    (
        "max_connections_per_address",
        int,
        "N",
        "Most clients at once of one IPv4 address or IPv6 /64. Clients behind a proxy share its address.",
    ),
    ("max_channels", int, "N", "Most channels of one client."),
    (
        "max_message_size",
        int,
        "BYTES",
        "Largest message; a client that sends a larger one is disconnected.",
    ),
    ("max_meta_size", int, "BYTES", "Largest presence payload, together with its presence key."),
    ("max_topic_size", int, "BYTES", "Largest total of all presence payloads in one channel."),
    (
        "max_connection_size",
        int,
        "BYTES",
        "Largest total of one client's presence payloads and channel names.",
    ),
    ("max_total_size", int, "BYTES", "Largest total of all clients' presence payloads and channel names."),
    (
        "presence_limit",
        int,
        "N",
        "Most presence updates of a client in a channel in 30 s; more close the channel. Supabase allows 5.",
    ),
    (
        "message_rate",
        int,
        "N",
        "Most messages per second from one client, averaged over 10 s. Supabase allows 100.",
    ),
    ("join_rate", int, "N", "Most joins per second of one client, averaged over 10 s. Supabase allows 100."),
    (
        "delivery_rate",
        int,
        "N",
        "Most deliveries per second of one client's messages to other clients, averaged over 10 s.",
    ),
    ("join_delay", float, "SECONDS", "Delay of each join. The joins of one client run one after the other."),
    ("refusal_delay", float, "SECONDS", "Additional delay of a refused join. On Supabase: 5."),
    (
        "handshake_refusal_delay",
        float,
        "SECONDS",
        "Delay before a wrong API key is refused. On Supabase: 2.",
    ),
    (
        "presence_window",
        float,
        "SECONDS",
        "Time for which joins and leaves are collected before they are sent together.",
    ),
]
"""The fields of `HubConfig` that are options: name, type, metavar and help text."""

DEFAULTS: dict[str, int | float] = {
    "max_connections_per_address": 1000,
}
"""Defaults that differ from the defaults of `HubConfig`, because clients of the command may be untrusted."""


RATES: dict[str, int | float] = {
    "presence_limit": 5,
    "message_rate": 100,
    "join_rate": 100,
    "delivery_rate": 10_000,
}
"""Default rate limits. `--control` turns these limits off, because a test may send faster than an app."""

STRICT: dict[str, Any] = {
    "handshake_refusal_delay": 2.0,
    "max_message_size": 5_000_000,
    "presence_limit": 5,
    "refusal_delay": 5.0,
    "shutdown_like": "supabase",
}
"""Fields of `HubConfig` that `--strict` sets: limits and delays as measured at Supabase."""


def _limits(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, kind, unit, text in reversed(_LIMITS):
        own = fields_dict(HubConfig)[name].default
        default = (DEFAULTS | RATES).get(name, own)
        shown = f"{default:g}" if kind is float else default
        text += " 0 means no limit." if own is None else ""
        flag = f"--{name.replace('_', '-')}"
        command = click.option(flag, type=kind, metavar=unit, help=f"{text}  [default: {shown}]")(command)
    return command


@click.command(epilog=f"\b\nThe commands of --control, and their arguments:\n{described()}")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. 0.0.0.0: all.",
)
@click.option(
    "--port",
    default=4000,
    show_default=True,
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Port to listen on; 0 chooses a free port.",
)
@click.option(
    "--protocol",
    type=click.Choice(["both", "phoenix", "jarvis"], case_sensitive=False),
    help="phoenix: serve Phoenix and Supabase. jarvis: serve the older Jarvis JSON.  [default: both]",
)
@click.option("--api-key-file", type=FILE, help="File with the key that clients must send. Default: no key.")
@click.option(
    "--allow-origin",
    "allowed_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Origin whose web pages may connect, such as https://example.com. Pages of the hub's own host may "
    "always connect. Repeat the option for several origins.",
)
@click.option("--tls-cert", type=FILE, help="PEM file with the certificate chain. Enables TLS.")
@click.option("--tls-key", type=FILE, help="PEM file with the private key, unless it is in --tls-cert.")
@_limits
@click.option(
    "--strict",
    is_flag=True,
    help="Copy Supabase's limits and delays: presence limit, refusal delays, message size, shutdown.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    help="Lowest level to log on stderr.  [default: info; with --control: warning]",
)
@click.option(
    "--control", "controlled", is_flag=True, help="Run JSON commands from stdin, for tests in any language."
)
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a recording of the hub to this file, for `presence replay`.",
)
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
    """Run a hub: a server for presence, Phoenix and Supabase clients.

    The hub prints its URLs and the code of an example client. Ctrl-C or SIGTERM stops the hub cleanly: the
    hub asks its clients to reconnect (close code 1012), and the exit status is 0. If the hub cannot listen,
    the exit status is 1.

    With --control, the first line on stdout is a JSON object with url, socket_url, jarvis_url, port, and the
    api_key that clients need. The hub then runs commands from stdin, and replies to each with one line:

    \b
      {"do": "refuse_handshakes", "count": 2}    {"ok": true}
      {"do": "online", "topic": "realtime:x"}    {"ok": true, "result": {…}}
      {"do": "juggle"}                           {"ok": false, "error": "…"}

    With --control, the end of stdin or a signal stops the hub at once, like a killed process.
    """
    if not host:
        raise click.UsageError(
            "--host is empty: use 0.0.0.0 for all addresses, 127.0.0.1 for this machine only"
        )
    if tls_key is not None and tls_cert is None:
        raise click.UsageError("--tls-key needs --tls-cert")
    if controlled and record is not None:
        raise click.UsageError("--record cannot be used with --control: faults cannot be recorded")
    if controlled and api_key_file is not None:
        raise click.UsageError("--api-key-file cannot be used with --control, which creates its own key")
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
        raise  # not a listening error: stdout is closed, and click handles this error
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
    except OSError as exc:  # ssl.SSLError is a subclass
        raise click.ClickException(f"cannot use {certificate} and its key: {os_error_words(exc)}") from None
    return context


def _in_words(exc: OSError | UnicodeError) -> str:
    if isinstance(exc, UnicodeError):
        return "this is not a valid host name"
    if exc.errno == errno.EADDRINUSE:
        return "the port is in use, choose another with --port"
    return os_error_words(exc)
