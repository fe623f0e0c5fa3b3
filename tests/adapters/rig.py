"""A driver with a fake endpoint, and a peer for it to talk to."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from adapters.fakes import CONN, FakeEndpoint, until
from presence_adapters.asyncio import AsyncioDriver
from presence_proto import OpenTransport

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator


class Rig:
    """A driver, its endpoint, and what it reported."""

    def __init__(self, driver_type: type[AsyncioDriver], **options: Any) -> None:
        self.endpoint = FakeEndpoint()
        self.events: list[Any] = []
        self.ends: list[Exception | None] = []
        self.driver: Any = driver_type(self.endpoint, self.events.append, self.ends.append, **options)

    def do(self, *outputs: Any) -> None:
        self.driver.call(self.endpoint.do, *outputs)

    def facts(self, *names: str) -> list[tuple[Any, ...]]:
        return [fact for fact in self.endpoint.facts if not names or fact[0] in names]

    async def fact(self, name: str) -> tuple[Any, ...]:
        await until(lambda: self.facts(name))
        return self.facts(name)[0]


async def started(driver_type: type[AsyncioDriver] = AsyncioDriver, **options: Any) -> Rig:
    rig = Rig(driver_type, **options)
    await rig.driver.start()
    return rig


class Peer:
    """A server: what came in, whether the stream has ended, and its writers."""

    def __init__(self) -> None:
        self.port = 0
        self.received = b""
        self.ends = 0
        self.resets = 0
        self.reads = True
        self.writers: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while not self.reads:
            await asyncio.sleep(0.005)
        try:
            while data := await reader.read(65536):
                self.received += data
            self.ends += 1
        except OSError:
            self.resets += 1


@asynccontextmanager
async def peer(context: ssl.SSLContext | None = None, *, reads: bool = True) -> AsyncIterator[Peer]:
    one = Peer()
    one.reads = reads
    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=context, limit=65536)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        one.reads = True
        server.close()
        for writer in one.writers:
            writer.transport.abort()
        await until(lambda: len(asyncio.all_tasks()) == 1)
        await asyncio.sleep(0)


async def opened(server: Peer, driver_type: type[AsyncioDriver] = AsyncioDriver, **options: Any) -> Rig:
    rig = await started(driver_type, **options)
    rig.do(OpenTransport(CONN, "127.0.0.1", server.port, tls=False))
    await rig.fact("opened")
    await until(lambda: server.writers)
    return rig
