"""This project: `RealtimeClient` and `PresenceClient`, from text or from socket bytes.

python -m benchmarks.contestants.ours realtime-text | realtime-bytes | presence-bytes [VSN]
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.contestants.child import keyed, serve
from benchmarks.workloads import chunks
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
from presence_proto.websocket import HandshakeRequest, TextMessage, WebSocket, server_frame

URL = "ws://127.0.0.1/realtime/v1"
LIMIT = 256 * 1024 * 1024


class Online:
    """A client that a server in memory has let in."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.conn = ConnId(0)
        self.server = WebSocket.server(max_message_size=LIMIT)
        client.connect(now=0)
        self.settle()

    def settle(self) -> None:
        """Carry bytes between the two until they have nothing to say. Joins are let in."""
        while (output := self.client.next_output()) is not None:
            if isinstance(output, OpenTransport):
                self.conn = output.conn
                self.client.transport_opened(self.conn, now=0)
            elif isinstance(output, SendData):
                self.server.receive_data(output.data)
                while (event := self.server.next_event()) is not None:
                    if isinstance(event, HandshakeRequest):
                        self.server.accept()
                    elif isinstance(event, TextMessage):
                        self._answer(*json.loads(event.data))
                if answer := self.server.data_to_send():
                    self.client.receive_data(self.conn, answer, now=0)

    def _answer(self, join_ref: Any, ref: Any, topic: str, event: str, payload: Any) -> None:
        if event in ("phx_join", "presence"):
            reply = [join_ref, ref, topic, "phx_reply", {"status": "ok", "response": {}}]
            self.server.send_text(json.dumps(reply))

    def drain(self) -> int:
        """Take the events, and count them."""
        count = 0
        next_output = self.client.next_output
        while next_output() is not None:
            count += 1
        return count


class Realtime:
    """`RealtimeClient`, with every field of every meta."""

    def __init__(self, *, text: bool) -> None:
        self._text = text

    def load(self, texts: list[str], topics: list[str]) -> None:
        config = RealtimeConfig(
            server_url=URL, max_message_size=LIMIT, max_roster=1_000_000, max_channels=10_000, deflate=False
        )
        self._topics = topics
        self._online = Online(RealtimeClient(config))
        for topic in topics:
            self._online.client.join(topic, now=0)
        self._online.settle()
        self.prepare(texts)
        self.run()

    def prepare(self, texts: list[str]) -> None:
        self._texts = texts
        self._chunks = list(chunks(b"".join(server_frame(text.encode(), text=True) for text in texts)))

    def run(self) -> int:
        online = self._online
        client, conn, drain = online.client, online.conn, online.drain
        events = 0
        if self._text:
            # Where the WebSocket layer hands over; the messages of one read are drained together.
            for at in range(0, len(self._texts), 170):
                for text in self._texts[at : at + 170]:
                    client._receive(TextMessage(text), 0.0)
                events += drain()
        else:
            for chunk in self._chunks:
                client.receive_data(conn, chunk, now=0)
                events += drain()
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

    def load(self, texts: list[str], topics: list[str]) -> None:
        config = PresenceConfig(server_url=URL, max_message_size=LIMIT, max_roster=1_000_000, deflate=False)
        self._online = Online(PresenceClient(Identity("me", "Me"), config))
        self.prepare(texts)
        self.run()

    def prepare(self, texts: list[str]) -> None:
        self._chunks = list(chunks(b"".join(server_frame(text.encode(), text=True) for text in texts)))

    def run(self) -> int:
        online = self._online
        client, conn, drain = online.client, online.conn, online.drain
        events = 0
        for chunk in self._chunks:
            client.receive_data(conn, chunk, now=0)
            events += drain()
        return events

    def roster(self) -> dict[str, list[str]]:
        return {user.user_id: [] for user in self._online.client.online_users if user.user_id != "me"}


if __name__ == "__main__":
    kinds = {
        "realtime-text": lambda: Realtime(text=True),
        "realtime-bytes": lambda: Realtime(text=False),
        "presence-bytes": Presence,
    }
    serve(kinds[sys.argv[1]]())
