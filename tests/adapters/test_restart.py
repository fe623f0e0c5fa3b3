"""The server restarts, over real sockets: nobody is told of anybody's leaving who comes back in time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from adapters.fakes import run, until
from adapters.room import client
from presence_adapters.asyncio import PresenceClient
from presence_adapters.server import HubServer
from presence_proto import Connected, Disconnected, Identity, PresenceConfig, UserOffline

NAMES = ("ada", "bob", "cleo", "dan", "eve", "finn", "gina", "hugo", "iris", "jack")
PATIENCE = 100.0  # seconds, for machines that are busy


def member(server: HubServer, name: str, protocol: str, **settings: Any) -> PresenceClient:
    if protocol == "phoenix":
        return client(server, name, **settings)
    config = PresenceConfig(server_url=server.url, protocol="jarvis", reconnect_delay=0.05, **settings)
    return PresenceClient(Identity(name, name.title()), config)


async def follow(one: PresenceClient, told: list[Any]) -> None:
    """Keep the events of a client until its end."""
    async for event in one:
        told.append(event)


def sees_all(one: PresenceClient) -> bool:
    """Whether everybody is in the room, and nobody is only remembered."""
    return one.online_count == len(NAMES) and not any(map(one.is_user_stale, NAMES))


@pytest.mark.long
@pytest.mark.parametrize("end", ["abort", "close"])
@pytest.mark.parametrize("protocol", ["phoenix", "jarvis"])
def test_ten_clients_come_back(protocol: str, end: str) -> None:
    """The hub is killed or stopped, and a new one is up after a second. Each client finds its way back."""

    async def main() -> None:
        first = HubServer()
        await first.start()
        async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
            members = [await stack.enter_async_context(member(first, name, protocol)) for name in NAMES]
            told: list[list[Any]] = [[] for _ in members]
            for one, events in zip(members, told, strict=True):
                group.create_task(follow(one, events))
            await until(lambda: all(map(sees_all, members)), PATIENCE)
            for events in told:
                events.clear()
            await getattr(first, end)()
            await until(lambda: all(one.is_stale for one in members), PATIENCE)
            await asyncio.sleep(1.0)
            async with HubServer(port=first.port):
                await until(lambda: all(map(sees_all, members)), PATIENCE)
                for events in told:
                    came_back, *rest = [one for one in events if not isinstance(one, Disconnected)]
                    assert isinstance(came_back, Connected)
                    assert (came_back.online_count, came_back.resumed) == (len(NAMES), True)
                    assert rest == []

    run(main, seconds=5 * PATIENCE)


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["phoenix", "jarvis"])
def test_one_does_not_come_back(protocol: str) -> None:
    async def main() -> None:
        first = HubServer()
        await first.start()
        told: list[Any] = []
        async with asyncio.TaskGroup() as group, member(first, "ada", protocol, restart_grace=0.3) as ada:
            group.create_task(follow(ada, told))
            async with member(first, "bob", protocol):
                await until(lambda: ada.online_count == 2, PATIENCE)
                await first.abort()
            async with HubServer(port=first.port):
                await until(lambda: ada.online_count == 1, PATIENCE)
                await until(lambda: any(isinstance(one, UserOffline) for one in told), PATIENCE)
        (came_back,) = [one for one in told if isinstance(one, Connected) and one.resumed]
        assert came_back.online_count == 2
        assert [one.user.user_id for one in told if isinstance(one, UserOffline)] == ["bob"]

    run(main, seconds=5 * PATIENCE)
