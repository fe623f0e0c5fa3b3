"""Text output of `presence watch`: one line for each event in the room."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from presence_adapters.cli.exits import Unreachable
from presence_adapters.cli.one_shot import client_of, until_stopped
from presence_adapters.cli.output import news, print_event, printable
from presence_proto import Error

if TYPE_CHECKING:
    from presence_adapters.asyncio import PresenceClient
    from presence_adapters.settings.layers import Settings


async def print_events(settings: Settings, *, as_lines: bool) -> None:
    """Print the events of the room until SIGINT or SIGTERM.

    Raises `Unreachable` when the server refuses the client.
    """
    async with client_of(settings) as client:
        await until_stopped(_print(client, as_lines=as_lines))


async def _print(client: PresenceClient, *, as_lines: bool) -> None:
    async for event in client:
        if as_lines:
            print_event(event)
        if isinstance(event, Error) and event.fatal:
            raise Unreachable(printable(event.message))
        if not as_lines:
            for line in news(event, client.identity.user_id):
                click.echo(f"{datetime.now():%H:%M:%S}  {line.symbol} {line.text}")
