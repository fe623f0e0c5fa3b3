"""Against the sans-I/O half of the `websockets` package, which shares no code with ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from examples import times
from presence_proto.config import Address
from presence_proto.websocket import (
    BinaryMessage,
    Closed,
    HandshakeRefused,
    HandshakeRequest,
    Opened,
    PingReceived,
    PongReceived,
    State,
    TextMessage,
    WebSocket,
    WebSocketEvent,
)
from websocket_bytes import feed

if TYPE_CHECKING:
    from websockets.protocol import Protocol
    from websockets.typing import Subprotocol

URL = "ws://hub.test/socket/websocket?vsn=2.0.0"
ADDRESS = Address("hub.test", 80, False, "/socket/websocket?vsn=2.0.0")
LIMIT = 100_000

CLIENT_OFFERS = [
    None,
    ClientPerMessageDeflateFactory(),
    ClientPerMessageDeflateFactory(client_max_window_bits=None),
    ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=10),
    ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
]
SERVER_ANSWERS = [
    None,
    ServerPerMessageDeflateFactory(),
    ServerPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9),
    ServerPerMessageDeflateFactory(server_no_context_takeover=True),
    ServerPerMessageDeflateFactory(client_no_context_takeover=True),
]


class Peer:
    """A `websockets` protocol, its fragments joined. It heard `messages` and was sent `pongs`."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.messages: list[str | bytes] = []
        self.pongs: list[bytes] = []
        self.handshake: Request | Response | None = None
        self._parts: list[bytes] = []
        self._text = False

    def receive(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Frame):
                self._heard(event)
            else:
                assert isinstance(event, Request | Response)
                self.handshake = event

    def _heard(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG:
            self.pongs.append(bytes(frame.data))
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._parts, self._text = [], frame.opcode is Opcode.TEXT
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._parts.append(bytes(frame.data))
            if frame.fin:
                data = b"".join(self._parts)
                self.messages.append(data.decode() if self._text else data)

    def take(self) -> bytes:
        # An empty piece stands for the end of the stream.
        return b"".join(self.protocol.data_to_send())

    def close_heard(self) -> tuple[int | None, str | None]:
        """Code and reason of our close frame, which it tells when the transport is gone."""
        self.protocol.receive_eof()
        return self.protocol.close_code, self.protocol.close_reason


def carry(ours: WebSocket, peer: Peer) -> list[WebSocketEvent]:
    """Carry bytes both ways until both are silent. Returns our events."""
    found: list[WebSocketEvent] = []
    while True:
        there, back = ours.data_to_send(), peer.take()
        if there:
            peer.receive(there)
        found += feed(ours, back)
        if not there and not back:
            return found


def our_client(answer: ServerPerMessageDeflateFactory | None, *, deflate: bool) -> tuple[WebSocket, Peer]:
    client = WebSocket.client(ADDRESS, deflate=deflate, max_message_size=LIMIT)
    server = ServerProtocol(extensions=None if answer is None else [answer])
    peer = Peer(server)
    peer.receive(client.data_to_send())
    assert isinstance(peer.handshake, Request)
    server.send_response(server.accept(peer.handshake))
    return client, peer


def our_server(offer: ClientPerMessageDeflateFactory | None, *, deflate: bool) -> tuple[WebSocket, Peer]:
    server = WebSocket.server(deflate=deflate, max_message_size=LIMIT)
    client = ClientProtocol(parse_uri(URL), extensions=None if offer is None else [offer])
    client.send_request(client.connect())
    return server, Peer(client)


TEXTS = st.one_of(st.text(max_size=30), st.integers(0, 30_000).map(lambda size: ("straße " * size)[:size]))
MESSAGES = st.lists(st.one_of(TEXTS, st.binary(max_size=500)), max_size=6)


def talk(ours: WebSocket, peer: Peer, messages: list[str | bytes], pieces: int) -> None:
    """Both say `messages`, the peer in fragments with a ping between them; then we close."""
    expected: list[WebSocketEvent] = []
    for message in messages:
        if isinstance(message, str):
            ours.send_text(message)
            expected += [PingReceived(b"?")] * (pieces > 1) + [TextMessage(message)]
            data, send = message.encode(), peer.protocol.send_text
        else:
            ours.send_binary(message)
            expected += [PingReceived(b"?")] * (pieces > 1) + [BinaryMessage(message)]
            data, send = message, peer.protocol.send_binary
        if pieces == 1:
            send(data)
        else:
            send(data[:5], fin=False)
            peer.protocol.send_ping(b"?")
            for start in range(1, pieces - 1):
                peer.protocol.send_continuation(data[start * 5 : start * 5 + 5], fin=False)
            peer.protocol.send_continuation(data[(pieces - 1) * 5 :], fin=True)
    ours.ping(b"!")
    assert carry(ours, peer) == [*expected, PongReceived(b"!")]
    assert peer.messages == messages
    ours.close(4001, "genug")
    assert carry(ours, peer) == [Closed(4001, "genug", clean=True)]
    assert peer.close_heard() == (4001, "genug")


@times(0.6)
@given(st.sampled_from(SERVER_ANSWERS), st.booleans(), MESSAGES, st.integers(1, 4))
def test_our_client_and_their_server(
    answer: ServerPerMessageDeflateFactory | None, deflate: bool, messages: list[str | bytes], pieces: int
) -> None:
    client, peer = our_client(answer, deflate=deflate)
    assert carry(client, peer) == [Opened(None, deflate and answer is not None)]
    talk(client, peer, messages, pieces)


@times(0.6)
@given(st.sampled_from(CLIENT_OFFERS), st.booleans(), MESSAGES, st.integers(1, 4))
def test_our_server_and_their_client(
    offer: ClientPerMessageDeflateFactory | None, deflate: bool, messages: list[str | bytes], pieces: int
) -> None:
    server, peer = our_server(offer, deflate=deflate)
    (request,) = carry(server, peer)
    assert isinstance(request, HandshakeRequest)
    assert request.target == "/socket/websocket?vsn=2.0.0"
    assert server.uses_deflate is (deflate and offer is not None)
    assert isinstance(peer.handshake, Response)
    assert peer.handshake.status_code == 101
    talk(server, peer, messages, pieces)


@pytest.mark.parametrize("deflate", [False, True])
def test_they_close(deflate: bool) -> None:
    for ours, peer in (
        our_client(SERVER_ANSWERS[1], deflate=deflate),
        our_server(CLIENT_OFFERS[1], deflate=deflate),
    ):
        carry(ours, peer)
        peer.protocol.send_close(1012, "restart")
        assert carry(ours, peer) == [Closed(1012, "restart", clean=True)]
        assert ours.state is State.CLOSED
        assert peer.close_heard() == (1012, "")


def test_what_we_close_with_reaches_them() -> None:
    client, peer = our_client(SERVER_ANSWERS[1], deflate=True)
    carry(client, peer)
    peer.protocol.send_binary(bytes(LIMIT + 1))
    found = carry(client, peer)
    assert found == [Closed(1009, f"a message of more than {LIMIT} bytes", clean=False)]
    assert peer.close_heard() == (1009, f"a message of more than {LIMIT} bytes")


def test_their_refusal() -> None:
    client = WebSocket.client(ADDRESS, max_message_size=LIMIT)
    server = ServerProtocol()
    peer = Peer(server)
    peer.receive(client.data_to_send())
    server.send_response(server.reject(503, "überlastet\n"))
    (refused,) = feed(client, peer.take())
    assert isinstance(refused, HandshakeRefused)
    assert refused.status == 503
    assert refused.body.decode() == "überlastet\n"


def test_our_refusal() -> None:
    server = WebSocket.server(max_message_size=LIMIT)
    client = ClientProtocol(parse_uri(URL))
    client.send_request(client.connect())
    peer = Peer(client)
    server.receive_data(peer.take())
    assert isinstance(server.next_event(), HandshakeRequest)
    server.reject(403, body=b"no")
    peer.receive(server.data_to_send())
    assert isinstance(peer.handshake, Response)
    assert (peer.handshake.status_code, peer.handshake.body) == (403, b"no")


def test_a_subprotocol() -> None:
    offered: list[Subprotocol] = ["chat", "phoenix"]  # type: ignore[list-item]  # a NewType of str
    client = ClientProtocol(parse_uri(URL), subprotocols=offered)
    client.send_request(client.connect())
    peer, ours = Peer(client), WebSocket.server(max_message_size=LIMIT)
    ours.receive_data(peer.take())
    request = ours.next_event()
    assert isinstance(request, HandshakeRequest)
    assert request.subprotocols == ("chat", "phoenix")
    ours.accept(subprotocol="phoenix")
    peer.receive(ours.data_to_send())
    assert client.subprotocol == "phoenix"

    server = ServerProtocol(subprotocols=offered[1:])
    ours = WebSocket.client(ADDRESS, subprotocols=["chat", "phoenix"], max_message_size=LIMIT)
    peer = Peer(server)
    peer.receive(ours.data_to_send())
    assert isinstance(peer.handshake, Request)
    server.send_response(server.accept(peer.handshake))
    assert feed(ours, peer.take()) == [Opened("phoenix", False)]
