"""This project: `RealtimeClient` and `PresenceClient`, from text or from socket bytes.

python -m benchmarks.contestants.ours realtime-text | realtime-bytes | presence-bytes [v1 | deflate]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.contestants.child import MemoryContestant, keyed, serve
from benchmarks.contestants.stream import Stream
from presence_proto import (
    ConnId,
    Identity,
    OpenTransport,
    PresenceClient,
    PresenceConfig,
    RealtimeClient,
    RealtimeConfig,
    SendData,
)
from presence_proto.websocket import HandshakeRequest, TextMessage, WebSocket
from presence_proto.websocket.frames import server_frame

URL = "ws://127.0.0.1/realtime/v1"
LIMIT = 256 * 1024 * 1024
READ = 64 * 1024
"""Characters of text that are taken before the events are: as many as come with one read of a socket."""


class Server:
    """A server in memory: it lets a client in, and answers joins, tracks and heartbeats."""

    def __init__(self, *, deflate: bool = False) -> None:
        self._websocket = WebSocket.server(deflate=deflate, max_message_size=LIMIT)
        self.has_joined = False
        """Whether a join was answered."""
        self.last_ref = ""
        """That of the latest message."""

    def answer(self, data: bytes) -> bytes:
        """What it says to these bytes of the client."""
        self._websocket.receive_data(data)
        replies = b""
        while (event := self._websocket.next_event()) is not None:
            if isinstance(event, HandshakeRequest):
                self._websocket.accept()
            elif isinstance(event, TextMessage):
                replies += self._reply(json.loads(event.data))
        # Replies are not compressed, so that the compressed messages of a `Stream` can follow. Most
        # servers keep their context, and ours says that it does not.
        return self._websocket.data_to_send().replace(b"; server_no_context_takeover", b"") + replies

    def _reply(self, message: Any) -> bytes:
        is_v1 = isinstance(message, dict)
        if is_v1:
            message = [message.get(name) for name in ("join_ref", "ref", "topic", "event", "payload")]
        join_ref, ref, topic, event, _ = message
        self.last_ref = ref
        if event not in ("phx_join", "presence", "heartbeat"):
            return b""
        self.has_joined = self.has_joined or event == "phx_join"
        payload = {"status": "ok", "response": {}}
        reply: Any = [join_ref, ref, topic, "phx_reply", payload]
        if is_v1:
            reply = {"topic": topic, "event": "phx_reply", "ref": ref, "payload": payload}
        return server_frame(json.dumps(reply).encode(), text=True)


class Online:
    """A client that a server in memory lets in. `said`: its answers, one for each write of the client."""

    def __init__(self, client: Any, *, deflate: bool = False) -> None:
        self.client = client
        self.conn = ConnId(0)
        self.said: list[bytes] = []
        self.server = Server(deflate=deflate)
        client.connect(now=0)
        self.settle()

    def settle(self) -> None:
        """Carry bytes between the two until they have nothing to say. Joins are let in."""
        while outputs := self.client.drain():
            for output in outputs:
                if isinstance(output, OpenTransport):
                    self.conn = output.conn
                    self.client.transport_opened(self.conn, now=0)
                elif isinstance(output, SendData):
                    answer = self.server.answer(output.data)
                    self.said.append(answer)
                    self.client.receive_data(self.conn, answer, now=0)

    def take(self, chunks: list[bytes]) -> int:
        """Give the client these bytes, and count the events."""
        client, conn = self.client, self.conn
        events = 0
        for chunk in chunks:
            client.receive_data(conn, chunk, now=0)
            events += drain(client)
        return events


def drain(client: Any) -> int:
    """Take the outputs of a client as drivers do, and count them."""
    count = 0
    while outputs := client.drain():
        count += len(outputs)
    client.next_deadline()
    return count


class Realtime:
    """`RealtimeClient`, with every field of every meta."""

    def __init__(self, *, text: bool, v1: bool = False, deflate: bool = False) -> None:
        self._text, self._deflate = text, deflate
        self._config = RealtimeConfig(
            server_url=URL,
            vsn="1.0.0" if v1 else "2.0.0",
            deflate=deflate,
            max_message_size=LIMIT,
            max_channels=10_000,
        )

    def load(self, texts: list[str], topics: list[str]) -> None:
        self._topics = topics
        self._stream = Stream(deflate=self._deflate)
        self._online = Online(RealtimeClient(self._config), deflate=self._deflate)
        for topic in topics:
            self._online.client.join(topic, now=0)
        self._online.settle()
        self.prepare(texts)
        self.run()

    def prepare(self, texts: list[str]) -> None:
        self._chunks = [] if self._text else self._stream.chunks(texts)
        self._reads: list[list[str]] = []
        size = READ
        for text in texts:
            if size >= READ:
                self._reads.append([])
                size = 0
            self._reads[-1].append(text)
            size += len(text)

    def run(self) -> int:
        online = self._online
        if not self._text:
            return online.take(self._chunks)
        # Where the WebSocket layer hands over.
        client = online.client
        events = 0
        for texts in self._reads:
            for text in texts:
                client._receive(text, 0.0)
            events += drain(client)
        return events

    def roster(self) -> dict[str, list[str]]:
        client = self._online.client
        return {
            keyed(self._topics, topic, key): [meta["phx_ref"] for meta in metas]
            for topic in self._topics
            for key, metas in client.presence(topic).items()
        }


class Presence:
    """`PresenceClient`, from socket bytes to events such as `UserOnline`."""

    def __init__(self, *, deflate: bool = False) -> None:
        self._deflate = deflate

    def load(self, texts: list[str], topics: list[str]) -> None:
        config = PresenceConfig(server_url=URL, max_message_size=LIMIT, deflate=self._deflate)
        self._stream = Stream(deflate=self._deflate)
        self._online = Online(PresenceClient(Identity("me", "Me"), config), deflate=self._deflate)
        self.prepare(texts)
        self.run()

    def prepare(self, texts: list[str]) -> None:
        self._chunks = self._stream.chunks(texts)

    def run(self) -> int:
        return self._online.take(self._chunks)

    def roster(self) -> dict[str, list[str]]:
        return {user.user_id: [] for user in self._online.client.online_users if user.user_id != "me"}


if __name__ == "__main__":
    kind, *options = sys.argv[1:]
    settings = dict.fromkeys(options, True)
    kinds: dict[str, Callable[[], MemoryContestant]] = {
        "realtime-text": lambda: Realtime(text=True, **settings),
        "realtime-bytes": lambda: Realtime(text=False, **settings),
        "presence-bytes": lambda: Presence(**settings),
    }
    serve(kinds[kind]())
