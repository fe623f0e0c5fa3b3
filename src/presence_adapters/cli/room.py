"""The commands that join a room, and their options.

Each command imports its implementation only when the command runs, so that `--help` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from presence_adapters.cli.options import Duration, settings_options
from presence_proto import UserStatus

if TYPE_CHECKING:
    from presence_adapters.settings.layers import Settings

STATUSES = [str(status) for status in UserStatus]

json_option = click.option("--json", "as_lines", is_flag=True, help="Print JSON lines, for scripts.")
timeout_option = click.option(
    "--timeout",
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    type=Duration(),
    help="Fail if the server has not answered after this time.",
)


@click.command()
@click.option(
    "--plain",
    is_flag=True,
    help="Print lines instead of the live view. Without a terminal, or with --debug, this is the default.",
)
@json_option
@settings_options()
def watch(settings: Settings, plain: bool, as_lines: bool) -> None:
    """Show the users and events of the room in a live view.

    You are in the room while the command runs. Keys set your status, and send pokes, invites and chat
    messages. The bottom line lists the keys. q or Ctrl-C quits.

    A lost connection is restored automatically. Until then, the view shows the last known state of the room.
    The exit status is 0, or 4 when the server refuses the client.
    """
    from presence_adapters.cli.watch import watch_room

    watch_room(settings, plain=plain, as_lines=as_lines)


@click.command()
@json_option
@timeout_option
@settings_options()
def online(settings: Settings, timeout: float, as_lines: bool) -> None:
    """List the users who are online, with their status and activity.

    On Phoenix and Supabase servers, the command joins the room invisibly: other users do not see you, and the
    list contains you only if you are online with another program, such as `presence watch`. --json prints one
    object for each user.
    """
    from presence_adapters.cli import one_shot

    one_shot.run(one_shot.online(settings, timeout, as_lines=as_lines))


@click.command()
@click.argument("status", type=click.Choice(STATUSES, case_sensitive=False), metavar="STATUS")
@click.argument("activity", required=False)
@click.option("--seconds", type=Duration(), help="End after this many seconds.")
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
    """Stay online with a status, and optionally an activity, until Ctrl-C.

    STATUS is one of: online, idle, in_game, in_skill, do_not_disturb, away.

    A status ends with the connection that set the status. Therefore, the command keeps running, and
    reconnects when the connection is lost. --timeout applies to the first connection only. If you are online
    with another program, too, other users see the status of the program that joined last. When that program
    leaves, other users see the status of the remaining program again.
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

    USER is an id, or a name that only one user in the room has. On Phoenix and Supabase servers, other users
    do not see you join or leave.
    """
    from presence_adapters.cli import one_shot

    one_shot.run(one_shot.poke(settings, user, timeout, as_lines=as_lines))


@click.command()
@click.argument("game")
@click.option("--code", help="Code that the invited users need to join the game.")
@json_option
@timeout_option
@settings_options()
def invite(settings: Settings, game: str, code: str | None, timeout: float, as_lines: bool) -> None:
    """Invite everybody in the room to a game, and print who was invited."""
    from presence_adapters.cli import one_shot

    one_shot.run(one_shot.invite(settings, game, code, timeout, as_lines=as_lines))


@click.command()
@click.argument("channel")
@click.argument("text")
@json_option
@timeout_option
@settings_options()
def chat(settings: Settings, channel: str, text: str, timeout: float, as_lines: bool) -> None:
    """Send TEXT to a chat channel of the room, such as lobby."""
    from presence_adapters.cli import one_shot

    one_shot.run(one_shot.chat(settings, channel, text, timeout, as_lines=as_lines))


@click.command()
@click.option("--name", metavar="NEW", help="Store a new name permanently. Your id does not change.")
@json_option
@settings_options(even_if_disabled=True)
def whoami(settings: Settings, name: str | None, as_lines: bool) -> None:
    """Show the name and the id that other users see.

    The command needs no server. If you have no identity yet, the command creates an identity. Programs that
    are started after --name use the new name; programs that are already running keep the old name.
    """
    from presence_adapters.cli.one_shot import show_identity

    show_identity(settings, name, as_lines=as_lines)
