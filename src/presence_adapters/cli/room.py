"""The commands that go to a room, and their options. What they do lies in modules of its own, which are
imported when they are run: `--help` is quick."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from presence_adapters.cli.options import Duration, settings_options
from presence_proto import UserStatus

if TYPE_CHECKING:
    from presence_adapters.settings.layers import Settings

STATUSES = [str(status) for status in UserStatus]

json_option = click.option("--json", "as_lines", is_flag=True, help="Lines of JSON, for scripts.")
timeout_option = click.option(
    "--timeout",
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    type=Duration(),
    help="Give up after so long.",
)


@click.command()
@click.option(
    "--plain", is_flag=True, help="Lines instead of the live view; also without a terminal, or with --debug."
)
@json_option
@settings_options()
def watch(settings: Settings, plain: bool, as_lines: bool) -> None:
    """Watch the room: who is there and what happens, live.

    You are in the room yourself, and the keys say what you do: status, poke, invite, chat. The line at the
    bottom shows them. q or Ctrl-C ends it.

    Lost connections come back by themselves; until then the room is shown as it last was. Exit status 0, or
    4 when the server does not let us in.
    """
    from presence_adapters.cli.watch import watch_room

    watch_room(settings, plain=plain, as_lines=as_lines)


@click.command()
@json_option
@timeout_option
@settings_options()
def online(settings: Settings, timeout: float, as_lines: bool) -> None:
    """Show who is online, and what they do.

    Nobody sees you look. You are in the list only if you are online elsewhere, as with `presence watch`.
    With --json, one object for each user.
    """
    from presence_adapters.cli import one_shot

    one_shot.run(one_shot.online(settings, timeout, as_lines=as_lines))


@click.command()
@click.argument("status", type=click.Choice(STATUSES, case_sensitive=False), metavar="STATUS")
@click.argument("activity", required=False)
@click.option("--seconds", type=Duration(), help="End by itself after so long.")
@json_option
@timeout_option
@settings_options()
def status(
    settings: Settings,
    status: str,
    activity: str | None,
    seconds: float | None,
    timeout: float,
    as_lines: bool,
) -> None:
    """Be online with a status, and perhaps an activity, until Ctrl-C.

    STATUS is one of: online, idle, in_game, in_skill, do_not_disturb, away.

    A status lasts as long as the connection that it belongs to: so this goes on running, and comes back after
    a lost connection. --timeout is for the first way in. If you are online elsewhere, too, others see what
    you have started last, and the rest again when that ends.
    """
    from presence_adapters.cli.one_shot import hold_status, run

    run(hold_status(settings, UserStatus(status), activity, timeout, seconds, as_lines=as_lines))


@click.command()
@click.argument("user")
@json_option
@timeout_option
@settings_options()
def poke(settings: Settings, user: str, timeout: float, as_lines: bool) -> None:
    """Poke a user.

    USER is an id, or a name that only one user in the room has. Nobody else sees you come or go.
    """
    from presence_adapters.cli import one_shot

    one_shot.run(one_shot.poke(settings, user, timeout, as_lines=as_lines))


@click.command()
@click.argument("game")
@click.option("--code", help="What it takes to join the game.")
@json_option
@timeout_option
@settings_options()
def invite(settings: Settings, game: str, code: str | None, timeout: float, as_lines: bool) -> None:
    """Invite everybody in the room to a game, and say who that is."""
    from presence_adapters.cli import one_shot

    one_shot.run(one_shot.invite(settings, game, code, timeout, as_lines=as_lines))


@click.command()
@click.argument("channel")
@click.argument("text")
@json_option
@timeout_option
@settings_options()
def chat(settings: Settings, channel: str, text: str, timeout: float, as_lines: bool) -> None:
    """Say TEXT in a chat channel of the room, such as lobby."""
    from presence_adapters.cli import one_shot

    one_shot.run(one_shot.chat(settings, channel, text, timeout, as_lines=as_lines))


@click.command()
@click.option("--name", metavar="NEW", help="Choose another name. It stays, and so does the id.")
@json_option
@settings_options(even_if_disabled=True)
def whoami(settings: Settings, name: str | None, as_lines: bool) -> None:
    """Show who you are to others: your name and your id.

    It needs no server. Without an identity, one is made. A name that --name has chosen is seen from the next
    command on; programs that run have the old one.
    """
    from presence_adapters.cli.one_shot import show_identity

    show_identity(settings, name, as_lines=as_lines)
