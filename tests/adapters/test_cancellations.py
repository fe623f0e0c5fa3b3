"""Whoever is cancelled, at whatever point of life, leaves no task, socket or thread behind."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import trio

import presence_adapters.asyncio
import presence_adapters.trio
from adapters.fakes import Certificates
from adapters.hub_thread import HubThread, hub_thread, nothing_left, until
from adapters.room import ROOM
from presence_proto import ChatMessage, Connected, Identity, PresenceConfig, UserStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BATCHES, LIVES = 50, 20
DELAYS = [0, 0.001, 0.004, 0.01, 0.02, 0.05]


class Lives:
    """One batch after the other of short lives, every third over TLS."""

    def __init__(
        self, client_type: Any, plain: HubThread, tls: HubThread, certificates: Certificates
    ) -> None:
        self.rng = random.Random(7)
        self.ends: dict[str, int] = {}  # how many ended where
        self._client_type = client_type
        self._hubs = (tls, plain, plain)
        self._context = certificates.client

    async def live(self, n: int) -> None:
        config = PresenceConfig(server_url=self._hubs[n % 3].url, max_reconnect_delay=1)
        stage = "connecting"
        try:
            async with self._client_type(Identity(f"u{n}", "U"), config, ssl_context=self._context) as one:
                async for event in one:
                    if isinstance(event, Connected):
                        stage = "connected"
                        await one.update_activity(UserStatus.AWAY)
                        await one.send_chat("lobby", "hello")
                    if isinstance(event, ChatMessage):
                        stage = "leaving"
                        await one.disconnect()
            stage = "over"
        finally:
            self.ends[stage] = self.ends.get(stage, 0) + 1


def check(client_type: Any, run: Callable[[Lives], Awaitable[None]], start: Callable[..., Any]) -> None:
    certificates = Certificates()
    with nothing_left(), hub_thread() as plain, hub_thread(ssl_context=certificates.server) as tls:
        with nothing_left():
            lives = Lives(client_type, plain, tls, certificates)
            start(run, lives)
        for hub in (plain, tls):
            until(lambda hub=hub: not hub.hub(lambda core: core.connections))
            assert not hub.hub(lambda core: core.online(ROOM))
    assert sum(lives.ends.values()) == BATCHES * LIVES
    assert min(lives.ends["connecting"], lives.ends["connected"]) > 10, (
        lives.ends
    )  # how many, the load decides


def test_1000_cancellations_on_asyncio() -> None:
    async def run(lives: Lives) -> None:
        for batch in range(BATCHES):
            tasks = [asyncio.create_task(lives.live(batch * LIVES + n)) for n in range(LIVES)]
            await asyncio.sleep(0)  # a task that is cancelled before has no life
            for task in tasks:
                await asyncio.sleep(lives.rng.choice(DELAYS) / 4)
                task.cancel()
                if lives.rng.random() < 0.3:
                    await asyncio.sleep(0)
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    check(presence_adapters.asyncio.PresenceClient, run, lambda run, lives: asyncio.run(run(lives)))


def test_1000_cancellations_on_trio() -> None:
    async def live(lives: Lives, n: int, delay: float) -> None:
        with trio.move_on_after(delay):
            await lives.live(n)

    async def run(lives: Lives) -> None:
        for batch in range(BATCHES):
            async with trio.open_nursery() as nursery:
                for n in range(LIVES):
                    nursery.start_soon(live, lives, batch * LIVES + n, lives.rng.uniform(0, 0.2))
            assert trio.lowlevel.current_statistics().tasks_living == tasks

    async def main(lives: Lives) -> None:
        nonlocal tasks
        tasks = trio.lowlevel.current_statistics().tasks_living
        await run(lives)

    tasks = 0
    check(presence_adapters.trio.PresenceClient, main, lambda run, lives: trio.run(run, lives))
