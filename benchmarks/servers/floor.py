"""What cannot be beaten by much: a frame is made once, and `transport.write` is called for each client.

    python -m benchmarks.servers.floor

What is said in one moment is joined, and written once.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from hashlib import sha1

from benchmarks.servers.serving import serve
from presence_proto.websocket.frames import server_frame

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Connection(asyncio.Protocol):
    """It lets everybody in, and does not listen."""

    def __init__(self, transports: list[asyncio.Transport]) -> None:
        self._transports = transports
        self._request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._request += data
        if self._request.endswith(b"\r\n\r\n"):
            key = self._request.partition(b"Sec-WebSocket-Key: ")[2].split()[0]
            accept = b64encode(sha1(key + GUID).digest()).decode()
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                + f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
            self._transports.append(self._transport)


class Floor:
    """All its transports."""

    def __init__(self, server: asyncio.Server, transports: list[asyncio.Transport]) -> None:
        self._server = server
        self._transports = transports
        self._frames: list[bytes] = []

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def prepare(self, texts: list[str]) -> None:
        self._frames = [server_frame(text.encode(), text=True) for text in texts]

    async def say(self, first: int, last: int) -> None:
        data = b"".join(self._frames[first:last])
        for transport in self._transports:
            transport.write(data)


async def main() -> None:
    """Serve until stdin ends."""
    transports: list[asyncio.Transport] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(transports), "127.0.0.1", 0, backlog=1024)
    async with server:
        await serve(Floor(server, transports))


if __name__ == "__main__":
    asyncio.run(main())
