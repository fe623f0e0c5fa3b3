"""Presence clients for a hub of the test's own."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from presence_adapters.asyncio import PresenceClient
from presence_adapters.server import HubServer
from presence_proto import Identity, PresenceConfig

E = TypeVar("E")

ROOM = "realtime:jarvis-presence"


def config(server: HubServer, **options: Any) -> PresenceConfig:
    return PresenceConfig(server_url=f"{server.url}/realtime/v1", **{"reconnect_delay": 0.05, **options})


def client(server: HubServer, name: str, *, ssl_context: Any = None, **options: Any) -> PresenceClient:
    return PresenceClient(Identity(name, name.title()), config(server, **options), ssl_context=ssl_context)


async def next_of(one: PresenceClient, kind: type[E]) -> E:
    async with asyncio.timeout(5):
        async for event in one:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"it ended without a {kind.__name__}")


def connects() -> list[Any]:
    """The tasks of clients: all that they ever have is one that connects."""
    return [task for task in asyncio.all_tasks() if task.get_coro().__qualname__ == "Driver._connect"]


async def rest_of(one: PresenceClient) -> list[Any]:
    async with asyncio.timeout(5):
        return [event async for event in one]
