"""Raw bytes of HTTP upgrades and WebSocket frames, and how to run a `WebSocket` on them."""

from __future__ import annotations

import struct

from presence_proto.config import Address
from presence_proto.testing.strategies import Binary, Close, Frame, Ping, Pong, Text
from presence_proto.testing.strategies.websocket import xor
from presence_proto.websocket import (
    BinaryMessage,
    Closed,
    HandshakeRequest,
    PingReceived,
    PongReceived,
    TextMessage,
    WebSocket,
    WebSocketEvent,
)

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = b"\x01\x02\x03\x04"
ADDRESS = Address("hub.test", 80, False, "/socket/websocket?apikey=secret&vsn=2.0.0")
LIMIT = 1_000_000

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = None
) -> bytes:
    """One frame. `rsv` is the three bits as a number, RSV1 being 4."""
    return Frame(opcode, payload, fin, rsv, mask).data


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """First byte and payload of each frame in `data`, which must be whole ones."""
    found = []
    while data:
        start, size = 2, data[1] & 0x7F
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        mask = bytes(4)
        if data[1] & 0x80:
            mask = data[start : start + 4]
            start += 4
        payload = data[start : start + size]
        assert len(payload) == size
        found.append((data[0], xor(payload, mask)))
        data = data[start + size :]
    return found


def close_frame(code: int, reason: bytes = b"", *, mask: bytes | None = None) -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason, mask=mask)


def http(first_line: str, *headers: tuple[str, str], body: bytes = b"") -> bytes:
    lines = [first_line, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def upgrade_request(
    *extra: tuple[str, str],
    line: str = "GET /socket/websocket?vsn=2.0.0 HTTP/1.1",
    without: str = "",
    **replaced: str,
) -> bytes:
    """A good request, with further headers, or without one, or with others: `upgrade="h2c"`."""
    headers = {
        "host": "hub.test",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": KEY.decode(),
        "sec-websocket-version": "13",
    } | {name.replace("_", "-"): value for name, value in replaced.items()}
    headers.pop(without, None)
    return http(line, *headers.items(), *extra)


def upgrade_response(
    *extra: tuple[str, str],
    line: str = "HTTP/1.1 101 Switching Protocols",
    without: str = "",
    **replaced: str,
) -> bytes:
    """A good answer to a request with `KEY`, changed like `upgrade_request`."""
    headers = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-accept": ACCEPT.decode(),
    } | {name.replace("_", "-"): value for name, value in replaced.items()}
    headers.pop(without, None)
    return http(line, *headers.items(), *extra)


def events(websocket: WebSocket) -> list[WebSocketEvent]:
    """Every event that there is now. A request is accepted at once, as the hub does."""
    found = []
    while (event := websocket.next_event()) is not None:
        found.append(event)
        if isinstance(event, HandshakeRequest):
            websocket.accept()
    return found


def feed(
    websocket: WebSocket, *chunks: bytes | bytearray | memoryview, eof: bool = False
) -> list[WebSocketEvent]:
    """The events of `chunks`, drained after each, and after the end of the stream if that came."""
    found = []
    for chunk in chunks:
        websocket.receive_data(chunk)
        found += events(websocket)
    if eof:
        websocket.receive_eof()
        found += events(websocket)
    return found


def event_of(heard: Text | Binary | Ping | Pong | Close) -> WebSocketEvent:
    """The event for what a drawn stream says."""
    match heard:
        case Text(data):
            return TextMessage(data)
        case Binary(data):
            return BinaryMessage(data)
        case Ping(payload):
            return PingReceived(payload)
        case Pong(payload):
            return PongReceived(payload)
        case Close(code, reason):
            return Closed(code, reason, clean=True)


def single_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def new_client(*, deflate: bool = False, limit: int = LIMIT, subprotocols: tuple[str, ...] = ()) -> WebSocket:
    return WebSocket.client(
        ADDRESS, deflate=deflate, max_message_size=limit, subprotocols=subprotocols, key=KEY
    )


def open_client(*, deflate: bool = False, limit: int = LIMIT) -> WebSocket:
    """A client after the upgrade, its output drained."""
    websocket = new_client(deflate=deflate, limit=limit)
    extra = (("sec-websocket-extensions", "permessage-deflate"),) if deflate else ()
    feed(websocket, upgrade_response(*extra))
    websocket.data_to_send()
    return websocket


def open_server(*, deflate: bool = False, limit: int = LIMIT) -> WebSocket:
    """A server after the upgrade, its output drained."""
    websocket = WebSocket.server(deflate=deflate, max_message_size=limit)
    extra = (("sec-websocket-extensions", "permessage-deflate"),) if deflate else ()
    feed(websocket, upgrade_request(*extra))
    websocket.data_to_send()
    return websocket


def exchange(left: WebSocket, right: WebSocket) -> tuple[list[WebSocketEvent], list[WebSocketEvent]]:
    """Carry bytes between the two until both are silent. Returns the events of each."""
    of_left, of_right = events(left), events(right)
    silent = False
    while not silent:
        to_right, to_left = left.data_to_send(), right.data_to_send()
        of_right += feed(right, to_right)
        of_left += feed(left, to_left)
        silent = not (to_right or to_left)
    return of_left, of_right


def pair(
    *, client_deflate: bool = False, server_deflate: bool = False, limit: int = LIMIT
) -> tuple[WebSocket, WebSocket]:
    """A client and a server, connected."""
    client = WebSocket.client(ADDRESS, deflate=client_deflate, max_message_size=limit)
    server = WebSocket.server(deflate=server_deflate, max_message_size=limit)
    exchange(client, server)
    return client, server
