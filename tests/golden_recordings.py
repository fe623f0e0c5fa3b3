"""The golden sessions as recordings that `presence replay` takes.

    python tests/golden_recordings.py a_v2_alice > alice.jsonl
    presence replay alice.jsonl

What the recorded server sent comes to a `RealtimeClient` byte for byte and chunk by chunk, at the times when
it came; only the answer to the upgrade is made to fit the client's own nonce. What the recorded client said,
the client is told to say. It numbers its messages itself: as the recorded one did, as long as it says the
same.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import golden_files
from presence_proto import (
    ChannelState,
    LocalProtocolError,
    OpenTransport,
    RealtimeClient,
    RealtimeConfig,
    RemoteProtocolError,
    SendData,
)
from presence_proto.recording import Recorder
from presence_proto.serializer import Message, serializer_for
from presence_proto.websocket import BinaryMessage, HandshakeRequest, TextMessage, WebSocket

LONG = 1e6  # seconds: what the recording does not show, does not happen


class Session:
    """A client in the place of the recorded one. `client` is as the session left it."""

    def __init__(self, name: str, write: Callable[[str], object]) -> None:
        target = golden_files.raw(name)[0].data.split()[1].decode()
        vsn: Any = "1.0.0" if "vsn=1.0.0" in target else "2.0.0"
        self._recorder = Recorder(write)
        config = RealtimeConfig(
            server_url="ws://recorded" + re.sub("(?<=[?&])vsn=[^&]*&?", "", target),
            vsn=vsn,
            heartbeat_interval=LONG,
            connect_timeout=LONG,
            state_timeout=LONG,
            stable_after=LONG,
            max_channels=200,
            subprotocols=golden_files.subprotocols(name),
        )
        self.client: RealtimeClient = self._recorder.realtime_client(config, rng=Random(1))
        self._name = name
        self._serializer = serializer_for(vsn, server=True)
        self._now = 0.0
        self._request = b""
        self.events: list[Any] = []

    def play(self) -> None:
        """Do everything, and close the recording."""
        self._do(self.client.connect)
        (wanted,) = [output for output in self.events if isinstance(output, OpenTransport)]
        self._conn = wanted.conn
        self._do(self.client.transport_opened, self._conn)
        peer = WebSocket.server(deflate=True, max_message_size=1 << 24)
        is_answer = True
        for line in golden_files.raw(self._name):
            self._now = max(self._now, line.t)
            if line.dir == "out":
                for message in self._said(peer, line.data):
                    self._say(message)
            elif line.kind == "bytes":
                data, is_answer = self._fitting(line.data) if is_answer else line.data, False
                self._do(self.client.receive_data, self._conn, data)
            else:
                self._do(self.client.transport_closed, self._conn, reason=line.kind)
        self._recorder.close()

    def _fitting(self, answer: bytes) -> bytes:
        """The answer to the upgrade, for the client's own nonce."""
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", self._request)
        assert key is not None
        accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        return re.sub(rb"(?i)(sec-websocket-accept: )\S+", rb"\g<1>" + accept, answer, count=1)

    def _said(self, peer: WebSocket, data: bytes) -> Iterator[Message]:
        peer.receive_data(data)
        while (event := peer.next_event()) is not None:
            if isinstance(event, HandshakeRequest):
                peer.accept()
            elif isinstance(event, (TextMessage, BinaryMessage)):
                try:
                    yield self._serializer.decode(event)
                except RemoteProtocolError:
                    pass  # malformed on purpose; our client cannot be

    def _say(self, message: Message) -> None:
        client, topic = self.client, message.topic
        try:
            if message.event == "phx_join":
                self._join(topic, message.payload)
            elif message.event == "phx_leave":
                self._do(client.leave, topic)
            else:
                self._do(client.push, topic, message.event, message.payload, timeout=LONG)
        except LocalProtocolError:
            pass  # to a channel that is not there: our client would not

    def _join(self, topic: str, params: Any) -> None:
        """A channel that is down joins again by itself: let the time for that come."""
        client = self.client
        if client.state_of(topic) is not ChannelState.WAITING:
            self._do(client.join, topic, params)
        while client.state_of(topic) is ChannelState.WAITING and client.is_connected:
            self._now = max(self._now, client.next_deadline() or 0.0)
            self._do(client.tick)

    def _do(self, call: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        try:
            call(*args, now=self._now, **kwargs)
        finally:
            for output in self.client.drain():
                self.events.append(output)
                if isinstance(output, SendData):
                    self._request = self._request or output.data


if __name__ == "__main__":
    Session(sys.argv[1], sys.stdout.write).play()
