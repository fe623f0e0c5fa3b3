"""`presence status`: be online with a status, for as long as this runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from presence_adapters.cli.exits import Unreachable
from presence_adapters.cli.json_lines import print_event, print_json
from presence_adapters.cli.signals import until_stopped
from presence_adapters.cli.visit import client_of, entered
from presence_adapters.cli.wording import describe, doing, printable
from presence_proto import CommandFailed, Connected, Disconnected, Error

if TYPE_CHECKING:
    from presence_adapters.asyncio import PresenceClient
    from presence_adapters.settings import Settings
    from presence_proto import UserStatus


async def hold_status(
    settings: Settings,
    status: UserStatus,
    activity: str | None,
    timeout: float,
    seconds: float | None,
    *,
    as_lines: bool,
) -> None:
    """Be seen with a status until the time is over or a signal comes; through lost connections, too.

    Raises `Unreachable` when it is not in the room within `timeout`, or when the server lets us in no more.
    """
    activity = activity or None
    words = f"You are {printable(doing(status, activity))}. Ctrl-C ends it."
    async with client_of(settings) as client:
        # Before the join: so others see this status first, and no other.
        await client.update_activity(status, activity)

        async def hold() -> None:
            await entered(client, timeout)
            if as_lines:
                print_json({"user_id": client.identity.user_id, "status": status, "activity": activity})
            else:
                click.echo(words)
            await _tell_losses(client, as_lines=as_lines)

        await until_stopped(hold(), seconds)


async def _tell_losses(client: PresenceClient, *, as_lines: bool) -> None:
    async for event in client:
        match event:
            case Connected() | Disconnected() | Error() | CommandFailed() if as_lines:
                print_event(event)
            case Error(fatal=True):
                raise Unreachable(printable(event.message))
            case Connected() | Disconnected() | Error() | CommandFailed():
                click.echo(describe(event).text)
