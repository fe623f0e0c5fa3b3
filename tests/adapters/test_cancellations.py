"""Whoever is cancelled, at whatever point of life, leaves no task, socket or thread behind."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
import trio

import presence_adapters.asyncio
import presence_adapters.trio
from adapters.fakes import Certificates
from adapters.hub_thread import HubThread, hub_thread, nothing_left, until
from adapters.room import ROOM
from presence_proto import Connected, Identity, PresenceConfig, UserStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.long

BATCHES, LIVES = 50, 20
STAGES = ["connecting", "connected", "leaving", "over"]
PASSES = [0, 0, 1, 2, 3, 5, 8, 13]
"""How many passes of the loop later a life ends."""


class Life:
    """One short life, and the stage of it at which it is to end: whatever the load, all stages are hit."""

    def __init__(self, lives: Lives, n: int) -> None:
        self.lives, self.n = lives, n
        self.stage = "connecting"
        self.ended = False
        self._end_at = STAGES[n // 3 % 3]  # every third is over TLS
        self._passes = lives.rng.choice(PASSES)
        self._delay = lives.rng.choice([0, 0, 0.001, 0.004, 0.01]) if self._end_at == "connecting" else 0

    async def live(self) -> None:
        try:
            async with self.lives.client(self.n) as one:
                async for event in one:
                    if isinstance(event, Connected):
                        self.stage = "connected"
                        await one.update_activity(UserStatus.AWAY)
                        await one.send_chat("lobby", "hello")
                        if self._end_at == "leaving":
                            self.stage = "leaving"
                            await one.disconnect()
            self.stage = "over"
        finally:
            self.lives.ends[self.stage] += 1
            self.ended = True

    async def wait(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Until it is to end."""
        await sleep(self._delay)
        while not self.ended and STAGES.index(self.stage) < STAGES.index(self._end_at):
            await sleep(0.001)
        for _ in range(self._passes):
            await sleep(0)


class Lives:
    """What lives have in common, and where they ended."""

    def __init__(
        self, client_type: Any, plain: HubThread, tls: HubThread, certificates: Certificates
    ) -> None:
        self.rng = random.Random(7)
        self.ends = dict.fromkeys(STAGES, 0)
        self._client_type = client_type
        self._hubs = (tls, plain, plain)
        self._context = certificates.client

    def client(self, n: int) -> Any:
        config = PresenceConfig(server_url=self._hubs[n % 3].url, max_reconnect_delay=1)
        return self._client_type(Identity(f"u{n}", "U"), config, ssl_context=self._context)


def check(client_type: Any, run: Callable[[Lives], Awaitable[None]], start: Callable[..., Any]) -> None:
    certificates = Certificates()
    with nothing_left(), hub_thread() as plain, hub_thread(ssl_context=certificates.server) as tls:
        with nothing_left():
            lives = Lives(client_type, plain, tls, certificates)
            start(run, lives)
        for hub in (plain, tls):
            until(lambda hub=hub: not hub.connections)
            assert not hub.online(ROOM)
    assert sum(lives.ends.values()) == BATCHES * LIVES
    assert min(lives.ends[stage] for stage in STAGES[:3]) > 100, lives.ends


def test_1000_cancellations_on_asyncio() -> None:
    async def end(life: Life, task: asyncio.Task[None]) -> None:
        await life.wait(asyncio.sleep)
        task.cancel()
        if life.lives.rng.random() < 0.3:
            await asyncio.sleep(0)
            task.cancel()

    async def run(lives: Lives) -> None:
        for batch in range(BATCHES):
            born = [Life(lives, batch * LIVES + n) for n in range(LIVES)]
            tasks = [asyncio.create_task(life.live()) for life in born]
            await asyncio.sleep(0)  # a task that is cancelled before has no life
            await asyncio.gather(*(end(life, task) for life, task in zip(born, tasks, strict=True)))
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    check(presence_adapters.asyncio.PresenceClient, run, lambda run, lives: asyncio.run(run(lives)))


def test_1000_cancellations_on_trio() -> None:
    async def live(life: Life, scope: trio.CancelScope) -> None:
        with scope:
            await life.live()

    async def end(life: Life, scope: trio.CancelScope) -> None:
        await life.wait(trio.sleep)
        scope.cancel()

    async def run(lives: Lives) -> None:
        before = trio.lowlevel.current_statistics().tasks_living
        for batch in range(BATCHES):
            async with trio.open_nursery() as nursery:
                for n in range(LIVES):
                    life, scope = Life(lives, batch * LIVES + n), trio.CancelScope()
                    nursery.start_soon(live, life, scope)
                    nursery.start_soon(end, life, scope)
            assert trio.lowlevel.current_statistics().tasks_living == before

    check(presence_adapters.trio.PresenceClient, run, lambda run, lives: trio.run(run, lives))
