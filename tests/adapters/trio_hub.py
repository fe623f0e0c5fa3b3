"""A hub on trio, in memory: nothing but trio's clock decides when things happen."""

from __future__ import annotations

import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from trio.testing import MockClock, memory_stream_pair

from presence_adapters.trio import PresenceClient, TrioConnection, TrioDriver
from presence_proto import ConnId, Hub, HubConfig, Identity, OpenTransport, PresenceConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import pytest

T = TypeVar("T")
E = TypeVar("E")


def run(main: Callable[[], Awaitable[T]], *, seconds: float = 5000.0) -> T:
    """Run `main` in virtual time; fail when it takes too long of that."""

    async def guarded() -> T:
        with trio.fail_after(seconds):
            return await main()

    return trio.run(guarded, clock=MockClock(autojump_threshold=0))


class MemoryHub(TrioDriver):
    """Every `trio.open_tcp_stream` connects to it, unless it refuses or is lost in the network."""

    def __init__(self, config: HubConfig | None = None) -> None:
        self.hub = Hub(config or HubConfig())
        self.events: list[Any] = []
        self.attempts: list[float] = []  # when somebody connected
        self.refuses = False
        self.is_deaf = False  # connections open, and nobody is there
        self.hangs = False  # as a process that is stopped does
        self._streams: dict[int, Any] = {}  # of those who come, by connection
        self._theirs: dict[int, Any] = {}
        super().__init__(self.hub, self.events.append, lambda error: None)

    async def open_tcp_stream(self, host: str, port: int) -> Any:
        self.attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.refuses:
            raise OSError(errno.ECONNREFUSED, "Connection refused")
        ours, theirs = memory_stream_pair()
        if self.is_deaf:
            return theirs
        conn = ConnId(len(self._streams) + 1)
        self._streams[conn], self._theirs[conn] = ours, theirs
        self._open(OpenTransport(conn, "client", 1, tls=False))
        return theirs

    async def _connect(self, connection: TrioConnection) -> Any:
        await trio.lowlevel.checkpoint()
        return self._streams[connection.wanted.conn]

    def fact(self, fact: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        if not self.hangs:
            super().fact(fact, *args, **kwargs)

    def block_writes(self) -> None:
        """From now on, what clients write goes nowhere, and they wait."""

        async def block() -> None:
            await trio.sleep_forever()

        for theirs in self._theirs.values():
            theirs.send_stream.send_all_hook = block

    def cut(self) -> None:
        """Break all connections."""
        for ours in self._streams.values():
            ours.send_stream.close()
            ours.receive_stream.close()


@asynccontextmanager
async def memory_hub(
    monkeypatch: pytest.MonkeyPatch, config: HubConfig | None = None
) -> AsyncIterator[MemoryHub]:
    hub = MemoryHub(config)
    monkeypatch.setattr(trio, "open_tcp_stream", hub.open_tcp_stream)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


def client(name: str = "alice", **options: Any) -> PresenceClient:
    config = PresenceConfig(server_url="ws://hub.example/realtime/v1", jitter=0.0, **options)
    return PresenceClient(Identity(name, name.title()), config)


async def next_of(one: Any, kind: type[E]) -> E:
    async for event in one:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"it ended without a {kind.__name__}")


async def rest_of(one: Any) -> list[Any]:
    return [event async for event in one]
