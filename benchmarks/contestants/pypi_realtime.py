"""The official Python client, `realtime` from PyPI, as shipped: its own loop over the messages.

    python -m benchmarks.contestants.pypi_realtime text | bytes

`bytes`: through the WebSocket layer that it uses, `websockets`, without a socket.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import realtime
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from benchmarks.contestants.child import keyed, serve
from benchmarks.workloads import chunks
from presence_proto.websocket import server_frame

URL = "ws://127.0.0.1/realtime/v1"


class Messages:
    """Stands for its WebSocket: it gives these texts, and then ends as one does that was replaced."""

    def __init__(self, client: Any, texts: list[str]) -> None:
        self._client, self._texts = client, texts

    async def __aiter__(self) -> AsyncIterator[str]:
        for text in self._texts:
            yield text
        self._client._ws_connection = None


class Frames(Messages):
    """The same from bytes."""

    def __init__(self, client: Any, texts: list[str]) -> None:
        super().__init__(client, [])
        self._chunks = list(chunks(b"".join(server_frame(text.encode(), text=True) for text in texts)))
        self._protocol = ClientProtocol(parse_uri(URL), max_size=None)
        server = ServerProtocol(max_size=None)
        self._protocol.send_request(self._protocol.connect())
        server.receive_data(b"".join(self._protocol.data_to_send()))
        [request] = server.events_received()
        assert isinstance(request, Request)
        server.send_response(server.accept(request))
        self._protocol.receive_data(b"".join(server.data_to_send()))
        self._protocol.events_received()

    async def __aiter__(self) -> AsyncIterator[str]:
        protocol = self._protocol
        for chunk in self._chunks:
            protocol.receive_data(chunk)
            for frame in protocol.events_received():
                assert frame.opcode is Opcode.TEXT
                yield frame.data.decode()
        self._client._ws_connection = None


class Official:
    """`AsyncRealtimeClient` with a callback for joins, leaves and syncs."""

    def __init__(self, messages: type[Messages]) -> None:
        self._messages = messages
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
        self.prepare(texts)
        self.run()

    def _told(self, *_: Any) -> None:
        self._events += 1

    def prepare(self, texts: list[str]) -> None:
        self._connection = self._messages(self._client, texts)

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
    serve(Official({"text": Messages, "bytes": Frames}[sys.argv[1]]))
