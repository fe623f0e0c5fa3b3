"""Implementation of `presence online`, `poke`, `invite`, `chat`, `status` and `whoami`."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import evolve

from presence_adapters.asyncio import ConnectError, PresenceClient
from presence_adapters.cli.exits import Failure, Unreachable, WrongUsage
from presence_adapters.cli.output import (
    as_json,
    as_table,
    describe,
    doing,
    find_user,
    print_event,
    print_json,
    printable,
    seen_users,
)
from presence_proto import CommandFailed, Connected, Disconnected, Error, InviteSent, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from presence_adapters.asyncio import EventsDropped
    from presence_adapters.settings.layers import Settings
    from presence_proto import PresenceEvent, UserStatus


# ---------------------------------------------------------------------------------------------------- signals
# Signal handlers that shut a command down cleanly on Ctrl-C (SIGINT) and SIGTERM.


@contextmanager
def on_stop_signal(callback: Callable[[], object]) -> Iterator[None]:
    """Call `callback` in the running event loop on the first SIGINT or SIGTERM.

    The first signal also restores the previous handlers, so that a second signal kills the process.
    """
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def stop(number: int, frame: object) -> None:
        restore()
        # Not a direct call, because the signal may interrupt the loop anywhere, or the loop may be asleep.
        loop.call_soon_threadsafe(callback)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


async def until_stopped(main: Coroutine[Any, Any, None], seconds: float | None = None) -> None:
    """Run `main`. Cancel `main` after `seconds`, or on SIGINT or SIGTERM. Raises the exceptions of `main`."""
    stop = asyncio.Event()
    with on_stop_signal(stop.set):
        running, stopping = asyncio.create_task(main), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([running, stopping], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            running.cancel()
            stopping.cancel()
            await asyncio.wait([running, stopping])


# ------------------------------------------------------------------------------------------------------ visit
# A short visit to a room: join invisibly, send a command, wait for the result of the command, leave.
#
#     async with visit(settings, timeout) as client:
#         await confirmed(client, await client.send_poke("bob-1"))
#
# No roster shows the visitor. Other users see no change, even if the user is online with another program.
# The Jarvis JSON protocol is an exception: the protocol has no invisible join, so the user is online during
# the visit. The user's status and activity do not change.


T = TypeVar("T")

GOODBYE = 1.0  # maximum `close_timeout` of a visit, in seconds
PAUSE = 0.02  # seconds between two checks whether the server has replied


def run(main: Coroutine[None, None, T]) -> T:
    """Run `main` in a new event loop.

    Raises `WrongUsage` for a value that the client rejects, such as an empty text, and `Unreachable` when the
    server refuses the client for good.
    """
    try:
        return asyncio.run(main)
    except ConnectError as exc:
        raise Unreachable(printable(exc.reason)) from None
    except LocalProtocolError as exc:
        raise WrongUsage(printable(str(exc))) from None


def client_of(settings: Settings, **changes: Any) -> PresenceClient:
    """Create a client from the settings. `changes` override fields of `settings.config`."""
    return PresenceClient(
        settings.identity(),
        evolve(settings.config, **changes),
        ssl_context=settings.ssl_context(),
        proxy=settings.proxy,
        access_token=settings.token_provider,
    )


@asynccontextmanager
async def visit(settings: Settings, timeout: float) -> AsyncIterator[PresenceClient]:
    """Yield a client that has joined the room invisibly. `timeout` limits join and body together, in seconds.

    Raises `Unreachable` when the client cannot join, and `Failure` when the body exceeds this time.
    """
    config = settings.config
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with client_of(settings, visible=False, close_timeout=min(config.close_timeout, GOODBYE)) as client:
        await entered(client, timeout)
        try:
            async with asyncio.timeout_at(began + timeout):
                yield client
        except TimeoutError:
            losses = [event for event in await _rest(client) if isinstance(event, Disconnected)]
            why = (
                f": {printable(losses[0].reason)}" if losses[:-1] else ""
            )  # the last loss is our own disconnect
            raise Failure(f"the server did not confirm the command within {timeout:g} s{why}") from None


async def entered(client: PresenceClient, timeout: float) -> None:
    """Wait until the client has joined. Raises `Unreachable` if refused, or after `timeout` seconds."""
    reason = "the server does not answer"
    try:
        async with asyncio.timeout(timeout):
            async for event in client:
                match event:
                    case Connected():
                        return
                    case Error(fatal=True):
                        break
                    case Error():
                        reason = event.message
                    case Disconnected() if not reason.startswith("the server refused us"):
                        reason = event.reason
    except TimeoutError:
        raise Unreachable(f"cannot join the room within {timeout:g} s: {printable(reason)}") from None
    raise Unreachable(f"cannot join the room: {printable(reason)}")


async def confirmed(client: PresenceClient, command_id: int) -> InviteSent | None:
    """Wait until the server has acknowledged a command, and disconnect. Return an invite's receipt.

    Raises `Failure` when the server refuses the command, or the command cannot reach the server.
    """
    while command_id in client.pending_commands:
        await asyncio.sleep(PAUSE)
    receipt = None
    for event in await _rest(client):
        match event:
            case CommandFailed(command_id=failed) if failed == command_id:
                raise Failure(describe(event).text)
            case InviteSent():
                receipt = event
    return receipt


async def _rest(client: PresenceClient) -> list[PresenceEvent | EventsDropped]:
    """Disconnect, which ends the stream of events, and return the unread events."""
    await client.disconnect()
    rest: list[PresenceEvent | EventsDropped] = []
    with suppress(ConnectError):  # raised after the last event if the server has refused the client for good
        async for event in client:
            rest.append(event)
    return rest


# --------------------------------------------------------------------------------------------------- one shot


ENDLESS = 10_000  # width, in columns, of output that is not a terminal: no text is cut off

NARROWEST = 80
"""The minimum width of the table, in columns. A narrower terminal wraps the lines, and shows all columns."""


async def online(settings: Settings, timeout: float, *, as_lines: bool) -> None:
    """Print the users who are online, as a table or as lines of JSON."""
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
    """Invite everybody in the room to a game."""
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
    """Send a message to a chat channel."""
    async with visit(settings, timeout) as client:
        await confirmed(client, await client.send_chat(channel, text))
    if as_lines:
        print_json({"channel": channel, "content": text})
    else:
        click.echo(f"Sent to {printable(channel)}.")


# ----------------------------------------------------------------------------------------------------- status
# `presence status`: stay online with a status while the command runs.


async def hold_status(
    settings: Settings,
    status: UserStatus,
    activity: str | None,
    timeout: float,
    seconds: float | None,
    *,
    as_lines: bool,
) -> None:
    """Stay online with a status for `seconds`, or until SIGINT or SIGTERM. Reconnect after lost connections.

    Raises `Unreachable` when the client has not joined within `timeout` seconds, or when the server refuses
    the client for good.
    """
    activity = activity or None
    words = f"You are {printable(doing(status, activity))}. Ctrl-C ends it."
    async with client_of(settings) as client:
        # Set the status before the join, so that other users never see the default status.
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


# ----------------------------------------------------------------------------------------------------- whoami


def show_identity(settings: Settings, name: str | None, *, as_lines: bool) -> None:
    """Print the user's identity. If `name` is given, store `name` as the display name first.

    Raises `ConfigError` for an empty or unprintable name, and `IdentityError` for a bad identity file.
    """
    stored = settings.stored_identity() if name is None else settings.rename(name)
    shown = settings.identity()
    if as_lines:
        print_json(
            {
                "user_id": shown.user_id,
                "display_name": shown.display_name,
                "name_chosen": stored.name_chosen,
                "identity_file": str(settings.identity_path),
            }
        )
        return
    click.echo(f"{printable(shown.display_name)} ({shown.user_id})")
    source = settings.source_of("display_name")
    if source.kind != "default":
        click.echo(
            f"The name comes from {source}; {settings.identity_path} has {printable(stored.display_name)}."
        )
    elif stored.name_chosen:
        click.echo(f"Stored in {settings.identity_path}.")
    else:
        click.echo(f"Stored in {settings.identity_path}. The name is the default one: --name changes it.")
