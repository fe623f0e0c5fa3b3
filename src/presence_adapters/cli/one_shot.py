"""`presence online`, `poke`, `invite` and `chat`: short visits that say what came of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from presence_adapters.cli.json_lines import print_json
from presence_adapters.cli.people import as_json, as_table, find_user, seen_users
from presence_adapters.cli.visit import confirmed, visit
from presence_adapters.cli.wording import printable

if TYPE_CHECKING:
    from presence_adapters.settings import Settings

ENDLESS = 10_000
"""Columns of what is no terminal: nothing is cut off there."""

NARROWEST = 80
"""Columns that have room for everything. A narrower terminal wraps the lines, and no column is lost."""


async def online(settings: Settings, timeout: float, *, as_lines: bool) -> None:
    """Print who is online."""
    from rich.console import Console

    async with visit(settings, timeout) as client:
        users = seen_users(client)
        if as_lines:
            for user in users:
                print_json(as_json(user, client))
        elif users:
            console = Console()
            console.width = max(console.width, NARROWEST) if console.is_terminal else ENDLESS
            console.print(as_table(users, client))
        else:
            click.echo("The room is empty.")


async def poke(settings: Settings, who: str, timeout: float, *, as_lines: bool) -> None:
    """Poke one user."""
    async with visit(settings, timeout) as client:
        user = find_user(who, seen_users(client))
        await confirmed(client, await client.send_poke(user.user_id))
    if as_lines:
        print_json({"user_id": user.user_id, "display_name": user.display_name})
    else:
        click.echo(f"Poked {printable(user.display_name)}.")


async def invite(settings: Settings, game: str, code: str | None, timeout: float, *, as_lines: bool) -> None:
    """Invite everybody to a game."""
    async with visit(settings, timeout) as client:
        ours = client.identity.user_id
        there = [user.display_name for user in seen_users(client) if user.user_id != ours]
        receipt = await confirmed(client, await client.send_invite(game, code))
    names = there if receipt is None else list(receipt.sent_to)
    if as_lines:
        print_json({"game": game, "code": code, "sent_to": names})
    else:
        whom = ", ".join(map(printable, names)) or "nobody: the room is empty"
        click.echo(f"Invited to {printable(game)}: {whom}.")


async def chat(settings: Settings, channel: str, text: str, timeout: float, *, as_lines: bool) -> None:
    """Say something in a chat channel."""
    async with visit(settings, timeout) as client:
        await confirmed(client, await client.send_chat(channel, text))
    if as_lines:
        print_json({"channel": channel, "content": text})
    else:
        click.echo(f"Said in {printable(channel)}.")
