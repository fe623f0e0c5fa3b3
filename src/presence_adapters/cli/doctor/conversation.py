"""A client core on one stream that is open already. When that ends, it is over: nothing connects again."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

from presence_adapters.connecting import why_lost
from presence_proto import (
    CloseTransport,
    OpenTransport,
    PresenceClient,
    RealtimeClient,
    SendData,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_adapters.cli.doctor.probes import Stream
    from presence_proto import ConnId

Core = TypeVar("Core", RealtimeClient, PresenceClient)

LARGEST_HEAD = 64 * 1024
"""Bytes of the answer to the upgrade that are kept."""

GOODBYE = 1.0
"""Seconds that the server has for its part of the closing handshake."""


class Conversation(Generic[Core]):
    """`heard`: what has happened and nobody has looked at. `first_bytes`: how the server's answer begins.

    `ended`: the server, or the client for what the server has done, has ended it.
    """

    def __init__(self, core: Core, stream: Stream) -> None:
        self.core: Core = core
        self.heard: deque[object] = deque()  # events
        self.first_bytes = b""
        self.ended = False
        self._reader, self._writer = stream
        self._loop = asyncio.get_running_loop()
        self._conn: ConnId  # once it has begun

    def now(self) -> float:
        """The clock of the core."""
        return self._loop.time()

    def begin(self) -> None:
        """Connect, on the stream that is there."""
        self.core.connect(now=self.now())
        self._drain()
        self.core.transport_opened(self._conn, now=self.now())
        self._drain()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Go on until something holds. Whether it came to hold in time, before the end."""
        self._drain()  # of a command
        deadline = self.now() + seconds
        while not condition():
            if self.ended or self.now() >= deadline:
                return False
            await self._step(deadline)
        return True

    async def close(self) -> None:
        """Say goodbye, if there is still somebody to hear it."""
        with suppress(OSError):
            self.core.disconnect(now=self.now())
            await self.until(lambda: self.core.is_closed, GOODBYE)
        self._writer.transport.abort()

    async def _step(self, deadline: float) -> None:
        due = self.core.next_deadline()
        wake = deadline if due is None else min(due, deadline)
        try:
            async with asyncio.timeout_at(wake):
                data = await self._reader.read(65536)
        except TimeoutError:
            self.core.tick(now=self.now())
        except OSError as exc:
            self._end(why_lost(exc))
        else:
            if len(self.first_bytes) < LARGEST_HEAD:
                self.first_bytes += data
            if data:
                self.core.receive_data(self._conn, data, now=self.now())
            else:
                self._end("eof")
        self._drain()

    def _end(self, reason: str) -> None:
        self.ended = True
        self.core.transport_closed(self._conn, now=self.now(), reason=reason)

    def _drain(self) -> None:
        while outputs := self.core.drain():
            for output in outputs:
                match output:
                    case OpenTransport():
                        self._conn = output.conn
                    case SendData():
                        self._writer.write(output.data)
                    case CloseTransport():
                        self.ended = True
                    case _:
                        self.heard.append(output)
