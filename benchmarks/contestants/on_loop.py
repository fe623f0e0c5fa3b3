"""The clients of `presence_adapters.asyncio`, one frame a read, up to the application's `async for`.

    python -m benchmarks.contestants.on_loop presence | realtime

A transport in memory stands for the socket. So the client and its driver are measured, and not the system
calls of a read.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast

from benchmarks.contestants.child import keyed, serve
from benchmarks.contestants.ours import LIMIT, URL, Server
from benchmarks.contestants.stream import Stream
from presence_adapters.asyncio import (
    READ_SIZE,
    AsyncioConnection,
    AsyncioDriver,
    PresenceClient,
    RealtimeClient,
)
from presence_proto import Identity, OpenTransport, PresenceConfig, RealtimeConfig


class Transport:
    """The transport of one connection, with a `Server` at its end."""

    def __init__(self) -> None:
        self.server = Server()
        self.connection: AsyncioConnection | None = None

    def is_closing(self) -> bool:
        """Never: it is there until the process ends."""
        return False

    def get_extra_info(self, name: str) -> Transport:
        """The transport is also its socket."""
        return self

    def getsockopt(self, level: int, option: int) -> int:
        """There is never an error."""
        return 0

    def write(self, data: bytes) -> None:
        """The answer comes with the next turn of the loop."""
        if answer := self.server.answer(data):
            asyncio.get_running_loop().call_soon(self.read, answer)

    def read(self, data: bytes) -> None:
        """The connection reads this at once, as from one of asyncio's sockets."""
        connection = self.connection
        assert connection is not None
        size = len(data)
        while size > READ_SIZE:  # the state of a large room
            self.read(data[:READ_SIZE])
            data, size = data[READ_SIZE:], size - READ_SIZE
        connection.get_buffer(-1)[:size] = data
        connection.buffer_updated(size)


class MemoryDriver(AsyncioDriver):
    """A driver whose connections have such a `transport`."""

    transport: Transport

    def _open(self, wanted: OpenTransport) -> None:
        connection = self.connections[wanted.conn] = AsyncioConnection(self, wanted.conn)
        self.transport.connection = connection
        transport = cast("asyncio.Transport", self.transport)
        asyncio.get_running_loop().call_soon(connection.connection_made, transport)


class OneAtATime:
    """A client that reads one message at a time; its events are read before the next message comes."""

    def __init__(self, *, presence: bool) -> None:
        self._presence = presence
        self._loop = asyncio.new_event_loop()

    def __del__(self) -> None:
        self._loop.close()

    def load(self, texts: list[str], topics: list[str]) -> None:
        self._loop.run_until_complete(self._enter(topics))
        self.prepare(texts)
        self.run()

    async def _enter(self, topics: list[str]) -> None:
        self._transport = Transport()
        driver = type("", (MemoryDriver,), {"transport": self._transport})
        self._topics = topics
        kind = type("", (PresenceClient if self._presence else RealtimeClient,), {"_driver_type": driver})
        config = (PresenceConfig if self._presence else RealtimeConfig)(
            server_url=URL, max_message_size=LIMIT, deflate=False
        )
        self._client = kind(Identity("me", "Me"), config) if self._presence else kind(config)
        await self._client.__aenter__()
        joining = None if self._presence else asyncio.create_task(self._client.join(topics[0]))
        while not self._transport.server.has_joined:
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # the answer is read
        self._stream: Any = aiter(self._client) if joining is None else await joining

    def prepare(self, texts: list[str]) -> None:
        self._frames = Stream().frames(texts)

    def run(self) -> int:
        return self._loop.run_until_complete(self._run())

    async def _run(self) -> int:
        read, stream, presence = self._transport.read, self._stream, self._presence
        events = 0
        for frame in self._frames:
            read(frame)
            # A PresenceClient has no event for a diff that shows nothing new.
            for _ in range(len(stream) if presence else 1):
                await anext(stream)
                events += 1
        return events

    def roster(self) -> dict[str, list[str]]:
        if self._presence:
            return {user.user_id: [] for user in self._client.online_users if user.user_id != "me"}
        return {
            keyed(self._topics, topic, key): [meta["phx_ref"] for meta in metas]
            for topic in self._topics
            for key, metas in self._stream.presence.items()
        }


if __name__ == "__main__":
    serve(OneAtATime(presence=sys.argv[1] == "presence"))
