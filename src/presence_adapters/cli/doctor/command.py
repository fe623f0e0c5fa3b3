"""The command `presence doctor` and its options. Only a run of the command imports the implementation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from presence_adapters.cli.options import Duration, settings_options
from presence_adapters.cli.room import json_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_adapters.settings.layers import Settings


@click.command()
@json_option
@click.option(
    "--timeout",
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    type=Duration(),
    help="Time limit of each step of the check.",
)
@settings_options(lazily=True)
def doctor(load: Callable[[], Settings], timeout: float, as_lines: bool) -> None:
    """Find out why the room cannot be joined, and how to fix the problem.

    The command checks step by step until one step fails: settings, host name, connection, proxy, TLS,
    WebSocket, clocks, API key, channel, presence, heartbeat. On Phoenix and Supabase servers, other users do
    not see the check.

    The exit status is 0 when no step fails, 1 when the channel can be joined but presence or heartbeats
    fail, 2 when the settings are wrong, 3 when presence is switched off, and 4 when the channel cannot be
    joined. The output contains no secrets, so you can share the output.
    """
    from presence_adapters.cli.doctor.checkup import run

    sys.exit(run(load, timeout, as_lines=as_lines))
