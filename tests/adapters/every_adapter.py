"""The same client on each adapter: for what must be the same on all of them."""

from __future__ import annotations

import asyncio
import select
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

import presence_adapters.asyncio
import presence_adapters.trio
from presence_adapters import blocking, stepped
from presence_proto import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_proto import PresenceConfig

IDENTITY = Identity("alice", "Alice")
LONGEST = 8.0  # seconds

Listen: TypeAlias = "Callable[..., list[Any]]"
IsOver: TypeAlias = "Callable[[list[Any]], object]"


def on_asyncio(config: PresenceConfig, is_over: IsOver, **options: Any) -> list[Any]:
    async def main() -> list[Any]:
        events: list[Any] = []
        client = presence_adapters.asyncio.PresenceClient(IDENTITY, config, **options)
        async with asyncio.timeout(LONGEST), client:
            async for event in client:
                events.append(event)
                if is_over(events):
                    break
        return events

    return asyncio.run(main())


def on_trio(config: PresenceConfig, is_over: IsOver, **options: Any) -> list[Any]:
    async def main() -> list[Any]:
        events: list[Any] = []
        client = presence_adapters.trio.PresenceClient(IDENTITY, config, **options)
        with trio.fail_after(LONGEST):
            async with client:
                async for event in client:
                    events.append(event)
                    if is_over(events):
                        break
        return events

    return trio.run(main)


def on_threads(config: PresenceConfig, is_over: IsOver, **options: Any) -> list[Any]:
    events: list[Any] = []
    with blocking.PresenceClient(IDENTITY, config, **options) as client:
        for event in client.events(timeout=LONGEST):
            events.append(event)
            if is_over(events):
                break
        else:
            raise TimeoutError
    return events


def on_select(config: PresenceConfig, is_over: IsOver, **options: Any) -> list[Any]:
    events: list[Any] = []
    client = stepped.PresenceClient(IDENTITY, config, **options)
    client.connect()
    end = time.monotonic() + LONGEST
    wants_more = True
    while True:
        client.step()
        for event in client.events():
            if wants_more:
                events.append(event)
                if is_over(events):
                    wants_more = False
                    client.disconnect()
        if client.is_closed:
            return events
        if time.monotonic() > end:
            client.close()
            raise TimeoutError
        files = [client] if client.fileno() >= 0 else []
        delay = client.next_delay()
        # Only as long as it says itself: what is to wake it, must be in what it says.
        select.select(files, files if client.wants_write else [], [], LONGEST if delay is None else delay)


ON: dict[str, Listen] = {
    "asyncio": on_asyncio,
    "trio": on_trio,
    "blocking": on_threads,
    "stepped": on_select,
}
