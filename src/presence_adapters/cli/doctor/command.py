"""The command and its options. What it does is imported when it is run."""

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
    help="For each step.",
)
@settings_options(lazily=True)
def doctor(load: Callable[[], Settings], timeout: float, as_lines: bool) -> None:
    """Find out what is wrong between here and the room, and what to do about it.

    It goes all the way, step by step, until one fails: settings, host name, connection, proxy, TLS,
    WebSocket, clocks, api key, channel, presence, heartbeat. Nobody in the room sees it.

    Exit status 0 when all is well. 2: the settings are wrong, 3: presence is switched off, 4: there is no
    way into the channel, 1: there is something wrong in it. No secret is ever shown: what it says can be
    passed on.
    """
    from presence_adapters.cli.doctor.checkup import run

    sys.exit(run(load, timeout, as_lines=as_lines))
