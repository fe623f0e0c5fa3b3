"""A short visit to a room: go in unseen, say something, hear what became of it, leave.

    async with visit(settings, timeout) as client:
        await confirmed(client, await client.send_poke("bob-1"))

Nobody sees the visitor: it is in nobody's roster, so it changes nothing of what others see of a user who is
online elsewhere, and does not bring one online who is not. (The Jarvis JSON protocol has no way in unseen.
There the user is online for the time of the visit; status and activity stay as they are.)
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve

from presence_adapters.asyncio import ConnectError, PresenceClient
from presence_adapters.cli.exits import Failure, Unreachable, WrongUsage
from presence_adapters.cli.wording import describe, printable
from presence_proto import CommandFailed, Connected, Disconnected, Error, InviteSent, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from presence_adapters.asyncio import EventsDropped
    from presence_adapters.settings import Settings
    from presence_proto import PresenceEvent

T = TypeVar("T")

GOODBYE = 1.0
"""Seconds that a visitor waits for the server to say goodbye, at most."""

PAUSE = 0.02
"""Seconds between two looks at whether the server has answered."""


def run(main: Coroutine[None, None, T]) -> T:
    """Run it in a loop of its own.

    What makes no sense to the client, such as an empty text, is a `Failure` of the command line. So is a
    server that lets us in no more.
    """
    try:
        return asyncio.run(main)
    except ConnectError as exc:
        raise Unreachable(printable(exc.reason)) from None
    except LocalProtocolError as exc:
        raise WrongUsage(printable(str(exc))) from None


def client_of(settings: Settings, **changes: Any) -> PresenceClient:
    """A client as the settings have it. `changes` are fields of its config."""
    return PresenceClient(
        settings.identity(),
        evolve(settings.config, **changes),
        ssl_context=settings.ssl_context(),
        proxy=settings.proxy,
        access_token=settings.token_provider,
    )


@asynccontextmanager
async def visit(settings: Settings, timeout: float) -> AsyncIterator[PresenceClient]:
    """A client that is in the room, unseen. `timeout`: seconds for everything.

    Raises `Failure` when there is no way in, or when the time is up.
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
            why = f": {printable(losses[0].reason)}" if losses[:-1] else ""  # the last one is our goodbye
            raise Failure(f"the server did not confirm it within {timeout:g} s{why}") from None


async def entered(client: PresenceClient, timeout: float) -> None:
    """Wait until the client is in the room, for `timeout` seconds at most.

    Raises `Unreachable` when it does not get in.
    """
    reason = "it does not answer"
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
        raise Unreachable(f"no way into the room within {timeout:g} s: {printable(reason)}") from None
    raise Unreachable(f"no way into the room: {printable(reason)}")


async def confirmed(client: PresenceClient, command_id: int) -> InviteSent | None:
    """Wait until the server has taken what a command said, and leave. Returns the receipt, if there is one.

    Raises `Failure` when the server refuses, or will never know.
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
    """Leave, so that the events have an end, and return those that were not read yet."""
    await client.disconnect()
    rest: list[PresenceEvent | EventsDropped] = []
    with suppress(ConnectError):  # after the last one, if the server has refused us for good
        async for event in client:
            rest.append(event)
    return rest
