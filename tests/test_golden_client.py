"""The recordings through the whole `RealtimeClient`: it says what the recorded client said, hears what it
heard, and holds the presence that phoenix.js held.

The recorded client numbered its messages itself, so the client under test is set to the recorded ref before
each command. Whatever it would send by its own clock (heartbeats, rejoins) is left to the recording: only its
joins follow the recorded ones, by letting the time of its rejoin come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import frozen

import golden_expectations
import golden_files
from golden_habits import habits
from presence_proto.channel import ChannelState
from presence_proto.config import RealtimeConfig
from presence_proto.endpoint import OpenTransport, SendData
from presence_proto.errors import RemoteProtocolError
from presence_proto.events import PresenceDiffed, PresenceSynced, SocketDisconnected
from presence_proto.realtime_client import RealtimeClient
from presence_proto.serializer import Message, serializer_for
from presence_proto.websocket import BinaryMessage, HandshakeRequest, TextMessage, WebSocket, handshake
from presence_proto.websocket.frames import server_frame

NAMES = [name for name in golden_expectations.names() if not habits(name).again]
"""Without recorded clients that join a joined topic again, which ours never does."""
RAW_NAMES = [name for name in golden_files.names(golden_files.RAW) if name in NAMES]


@frozen
class Said:
    """The recorded client sent this message."""

    message: Message


@frozen
class Heard:
    """The recorded server sent these bytes. `line`: which line of the messages, if it is known."""

    data: bytes
    line: int | None = None


def vsn_of(name: str) -> Any:
    return golden_expectations.vsn_of(name)


def decoded(name: str, frame: TextMessage | BinaryMessage) -> Iterator[Said]:
    try:
        yield Said(serializer_for(vsn_of(name), server=True).decode(frame))
    except RemoteProtocolError:
        pass  # the recorded client was malformed on purpose; ours cannot be


def steps_of_messages(name: str) -> Iterator[Said | Heard]:
    for line in golden_files.msgs(name):
        if line.kind not in ("text", "binary"):
            continue
        text = isinstance(line.data, str)
        if line.dir == "in":
            data = line.data.encode() if isinstance(line.data, str) else line.data
            yield Heard(server_frame(data, text=text), line.number)
        else:
            yield from decoded(
                name, TextMessage(line.data) if isinstance(line.data, str) else BinaryMessage(line.data)
            )


def steps_of_bytes(name: str) -> Iterator[Said | Heard]:
    peer = WebSocket.server(deflate=True, max_message_size=1 << 24)
    for line in golden_files.raw(name):
        if line.dir == "in":
            if line.data:
                yield Heard(line.data)
            continue
        peer.receive_data(line.data)
        while (event := peer.next_event()) is not None:
            if isinstance(event, HandshakeRequest):
                peer.accept()
            elif isinstance(event, (TextMessage, BinaryMessage)):
                yield from decoded(name, event)


class Replay:
    """The client under test in the place of the recorded one."""

    def __init__(self, name: str) -> None:
        self.now = 0.0
        self.client = RealtimeClient(
            RealtimeConfig(
                server_url="ws://recorded",
                vsn=vsn_of(name),
                heartbeat_interval=1e6,
                stable_after=1e6,
                max_channels=200,
                subprotocols=golden_files.subprotocols(name),
            )
        )
        self.events: list[Any] = []
        self.client.connect(now=self.now)
        (output,) = (one for one in self.client.drain() if isinstance(one, OpenTransport))
        self.conn = output.conn
        self.client.transport_opened(self.conn, now=self.now)
        (request,) = (one for one in self.client.drain() if isinstance(one, SendData))
        self.request = request.data

    def accept_upgrade(self) -> None:
        """Where there is no recorded answer to the upgrade."""
        peer = WebSocket.server(max_message_size=1 << 24)
        peer.receive_data(self.request)
        request = peer.next_event()
        assert isinstance(request, HandshakeRequest)
        peer.accept(subprotocol="phoenix" if "phoenix" in request.subprotocols else None)
        self.hear(peer.data_to_send())

    def hear(self, data: bytes) -> None:
        self.client.receive_data(self.conn, data, now=self.now)
        for output in self.client.drain():
            if not isinstance(output, SendData):
                self.events.append(output)

    def say(self, message: Message) -> None:
        client, topic = self.client, message.topic
        assert isinstance(message.ref, str)
        client._socket._refs = int(message.ref) - 1  # the recorded numbering
        state = client.state_of(topic)
        if message.event == "phx_join":
            if state is ChannelState.WAITING:
                while client.state_of(topic) is ChannelState.WAITING:
                    deadline = client.next_deadline()
                    assert deadline is not None
                    self.now = deadline
                    client._socket._refs = int(message.ref) - 1
                    client.tick(now=self.now)
            else:
                client.join(topic, message.payload if isinstance(message.payload, dict) else {}, now=self.now)
        elif state not in (ChannelState.JOINING, ChannelState.JOINED):
            return  # to a channel that is not there: our client would not
        elif message.event == "phx_leave":
            client.leave(topic, now=self.now)
        else:
            client.push(topic, message.event, message.payload, timeout=1e6, now=self.now)
        self.hear(b"")

    def presence(self, topic: str) -> dict[str, Any]:
        if topic not in self.client.channels:
            return {}
        return {key: {"metas": list(metas)} for key, metas in self.client.presence(topic).items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_presence_after_every_line_is_that_of_phoenix_js(name: str) -> None:
    expected = {(entry.line, entry.topic): entry for entry in golden_expectations.expected(name)}
    replay = Replay(name)
    replay.accept_upgrade()
    compared = 0
    for step in steps_of_messages(name):
        if isinstance(step, Said):
            replay.say(step.message)
            continue
        replay.hear(step.data)
        for (line, topic), entry in expected.items():
            if line == step.line and topic in replay.client.channels:
                assert replay.presence(topic) == entry.state, f"line {line}"
                assert replay.client.is_synced(topic) is not entry.pending
                compared += 1
    assert compared == len(expected)


def whole(chunks: list[bytes]) -> list[bytes]:
    return [b"".join(chunks)]


def single_bytes(chunks: list[bytes]) -> list[bytes]:
    return [bytes([byte]) for chunk in chunks for byte in chunk]


@pytest.mark.parametrize("chunking", [list, whole, pytest.param(single_bytes, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", RAW_NAMES)
def test_the_recorded_bytes_give_the_same_in_any_chunking(
    name: str, chunking: Callable[[list[bytes]], list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = golden_files.raw(name)[0].data
    key = next(row for row in request.split(b"\r\n") if row.lower().startswith(b"sec-websocket-key:"))
    monkeypatch.setattr(handshake, "generate_nonce", lambda: key.partition(b":")[2].strip())
    replay = Replay(name)
    chunks: list[bytes] = []

    def hear() -> None:
        for chunk in chunking(chunks):
            replay.hear(chunk)
        chunks.clear()

    for step in steps_of_bytes(name):
        if isinstance(step, Heard):
            chunks.append(step.data)
        else:
            hear()
            replay.say(step.message)
    hear()

    by_message = Replay(name)
    by_message.accept_upgrade()
    for step in steps_of_messages(name):
        by_message.say(step.message) if isinstance(step, Said) else by_message.hear(step.data)

    # How the connection ended is in the bytes only.
    events = [event for event in replay.events if not isinstance(event, SocketDisconnected)]
    assert events[: len(by_message.events)] == by_message.events
    assert any(isinstance(event, (PresenceSynced, PresenceDiffed)) for event in events) or not any(
        isinstance(event, (PresenceSynced, PresenceDiffed)) for event in by_message.events
    )
    for topic in by_message.client.channels:
        assert replay.presence(topic) == by_message.presence(topic)


def test_few_recordings_are_left_out() -> None:
    left_out = set(golden_expectations.names()) - set(NAMES)
    assert {name for name in left_out if not name.startswith(golden_files.SUPABASE)} == {
        "k_dupjoin_v1",
        "k_dupjoin_v2",
        "q_nojoinref_v1",
        "q_nojoinref_v2",
    }
    assert "supabase/s_dupjoin_v2" in left_out
