"""Our `PresenceClient`, with its events at hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from interop.peers import API_KEY
from presence_adapters.asyncio import EventsDropped, PresenceClient
from presence_proto import Identity, PresenceConfig, PresenceEvent

if TYPE_CHECKING:
    from types import TracebackType


class Jarvis:
    """A `PresenceClient` that is in the room while it is entered."""

    def __init__(self, name: str, url: str, *, online_at: str) -> None:
        config = PresenceConfig(
            server_url=url, api_key=API_KEY, track_limit=None, reconnect_delay=0.05, max_reconnect_delay=0.2
        )
        self.client = PresenceClient(Identity(name, name.title()), config, online_at=online_at)
        self._events: asyncio.Queue[PresenceEvent] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.client.__aexit__(kind, error, traceback)
        assert self._reader is not None
        await self._reader  # it ends with the client

    async def next(self) -> PresenceEvent:
        """The next event."""
        async with asyncio.timeout(10):
            return await self._events.get()

    def left_over(self) -> list[PresenceEvent]:
        """The events that nobody has asked for yet."""
        return [self._events.get_nowait() for _ in range(self._events.qsize())]

    async def _read(self) -> None:
        async for event in self.client:
            assert not isinstance(event, EventsDropped)
            self._events.put_nowait(event)
