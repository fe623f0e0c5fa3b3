"""The official Python client, `realtime` from PyPI, as shipped: its own loop over the messages.

    python -m benchmarks.contestants.pypi_realtime text | bytes | single | deflate

`bytes`: through the WebSocket layer that it uses, `websockets`, without a socket. `single`: so, and one frame
a read. `deflate`: with permessage-deflate.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import realtime
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from benchmarks.contestants.child import keyed, serve
from benchmarks.contestants.stream import Stream

URL = "ws://127.0.0.1/realtime/v1"


class Messages:
    """Stands for its WebSocket: it gives these texts, and then ends as one does that was replaced."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._texts: list[str] = []

    def prepare(self, texts: list[str]) -> None:
        self._texts = texts

    async def __aiter__(self) -> AsyncIterator[str]:
        for text in self._texts:
            yield text
        self._client._ws_connection = None


class Frames:
    """The same from bytes."""

    def __init__(self, client: Any, *, single: bool = False, deflate: bool = False) -> None:
        self._client = client
        self._single = single
        self._stream = Stream(deflate=deflate)
        self._chunks: list[bytes] = []
        client_extensions = [ClientPerMessageDeflateFactory()] if deflate else None
        server_extensions = [ServerPerMessageDeflateFactory()] if deflate else None
        self._protocol = ClientProtocol(parse_uri(URL), extensions=client_extensions, max_size=None)
        server = ServerProtocol(extensions=server_extensions, max_size=None)
        self._protocol.send_request(self._protocol.connect())
        server.receive_data(b"".join(self._protocol.data_to_send()))
        [request] = server.events_received()
        assert isinstance(request, Request)
        server.send_response(server.accept(request))
        self._protocol.receive_data(b"".join(server.data_to_send()))
        self._protocol.events_received()

    def prepare(self, texts: list[str]) -> None:
        self._chunks = self._stream.frames(texts) if self._single else self._stream.chunks(texts)

    async def __aiter__(self) -> AsyncIterator[str]:
        protocol = self._protocol
        for chunk in self._chunks:
            protocol.receive_data(chunk)
            for frame in protocol.events_received():
                assert isinstance(frame, Frame)
                assert frame.opcode is Opcode.TEXT
                yield bytes(frame.data).decode()
        self._client._ws_connection = None


class Official:
    """`AsyncRealtimeClient` with a callback for joins, leaves and syncs."""

    def __init__(self, connection: Callable[[Any], Messages | Frames]) -> None:
        self._make = connection
        self._loop = asyncio.new_event_loop()

    def load(self, texts: list[str], topics: list[str]) -> None:
        self._topics = topics
        self._client = realtime.AsyncRealtimeClient(URL, token="key")
        self._events = 0
        for topic in topics:
            channel = self._client.channel(topic.removeprefix("realtime:"))
            channel.on_presence_join(self._told)
            channel.on_presence_leave(self._told)
            channel.on_presence_sync(self._told)
        self._connection = self._make(self._client)
        self.prepare(texts)
        self.run()

    def _told(self, *_: Any) -> None:
        self._events += 1

    def prepare(self, texts: list[str]) -> None:
        self._connection.prepare(texts)

    def run(self) -> int:
        self._events = 0
        self._client._ws_connection = self._connection  # type: ignore[assignment]
        self._loop.run_until_complete(self._client._listen())
        return self._events

    def roster(self) -> dict[str, list[str]]:
        return {
            keyed(self._topics, topic, key): [meta["presence_ref"] for meta in metas]
            for topic in self._topics
            for key, metas in self._client.channels[topic].presence.state.items()
        }


if __name__ == "__main__":
    kinds: dict[str, Callable[[Any], Messages | Frames]] = {
        "text": Messages,
        "bytes": Frames,
        "single": partial(Frames, single=True),
        "deflate": partial(Frames, deflate=True),
    }
    serve(Official(kinds[sys.argv[1]]))
