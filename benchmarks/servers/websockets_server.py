"""A server with `websockets`.

    python -m benchmarks.servers.websockets_server one-by-one | broadcast [deflate]

`one-by-one`: one awaited `send` after another, as the original Jarvis server does it.
"""

from __future__ import annotations

import asyncio
import sys

from websockets.asyncio.server import Server, ServerConnection, broadcast
from websockets.asyncio.server import serve as listen

from benchmarks.servers.serving import serve


class Peer:
    """All its connections, each read as long as it is there."""

    def __init__(self, server: Server, *, one_by_one: bool) -> None:
        self._server = server
        self._one_by_one = one_by_one
        self._texts: list[str] = []

    @property
    def port(self) -> int:
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    def prepare(self, texts: list[str]) -> None:
        self._texts = texts

    async def say(self, first: int, last: int) -> None:
        connections = self._server.connections
        for text in self._texts[first:last]:
            if self._one_by_one:
                for connection in list(connections):
                    await connection.send(text)
            else:
                broadcast(connections, text)


async def read(connection: ServerConnection) -> None:
    """A client is there."""
    async for _ in connection:
        pass


async def main(way: str, *options: str) -> None:
    """Serve until stdin ends."""
    compression = "deflate" if "deflate" in options else None
    async with listen(
        read, "127.0.0.1", 0, compression=compression, ping_interval=None, backlog=1024
    ) as server:
        await serve(Peer(server, one_by_one=way == "one-by-one"))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
