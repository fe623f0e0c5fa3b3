"""WebSocket (RFC 6455): bytes ↔ messages, both roles. `handshake`, `deflate` and `fast_lane` are its parts.

    CONNECTING ──Opened / accept()──▶ OPEN ──close()──▶ CLOSING
         │                              │                  │
         └──Refused, Closed, reject()───┴──────Closed──────┴──▶ CLOSED

A `WebSocket` takes bytes and gives back events and bytes. It reads on only while its events are pulled: after
each `receive_data` or `receive_eof` pull `next_event()` until it is `None`, then write `data_to_send()`. So
what an event is answered with does not depend on what else came in the same read. Nothing that the peer does
raises.
"""

from __future__ import annotations

import struct
from binascii import a2b_base64
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from attrs import frozen
from msgspec import Struct
from wsproto import events as wsproto
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_nonce

from presence_proto.errors import LocalProtocolError, RemoteProtocolError
from presence_proto.websocket.deflate import Deflate, MessageLimit, deflate
from presence_proto.websocket.frames import MAX_MASKED, FrameReader, xor
from presence_proto.websocket.handshake import ClientHandshake, HandshakeError, ServerHandshake, Upgraded
from presence_proto.websocket.handshake import HandshakeRefused as HandshakeRefused
from presence_proto.websocket.handshake import HandshakeRequest as HandshakeRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from presence_proto.config import Address

# ---------------------------------------------------------------------------------------------- events


@frozen
class Opened:
    """The server agreed: messages may flow. `subprotocol` is the one that it chose among ours."""

    subprotocol: str | None
    deflate: bool


class TextMessage(Struct, frozen=True):
    """A whole text message."""

    # A struct, not an attrs class, as the next one: they are made in a quarter of the time.

    data: str

    def __repr__(self) -> str:
        # A message may hold an access token.
        return f"TextMessage(data=<{len(self.data)} characters>)"


class BinaryMessage(Struct, frozen=True):
    """A whole binary message."""

    data: bytes

    def __repr__(self) -> str:
        return f"BinaryMessage(data=<{len(self.data)} bytes>)"


class PingReceived(Struct, frozen=True):
    """A ping. It is answered already, unless we are closing."""

    payload: bytes


class PongReceived(Struct, frozen=True):
    """A pong."""

    payload: bytes


@frozen
class Closed:
    """The end. Write what is to be written, then close the transport.

    `clean`: the peer sent a close frame, which `code` and `reason` are from (1005: it named no code), and the
    closing handshake is done by us. Otherwise `code` is 1006 for a bare end of the stream, or, when the peer
    broke the protocol, the code that we close with (1002, 1007, 1009), and `reason` says what was wrong.
    """

    code: int
    reason: str
    clean: bool


WebSocketEvent: TypeAlias = (
    HandshakeRequest
    | Opened
    | HandshakeRefused
    | TextMessage
    | BinaryMessage
    | PingReceived
    | PongReceived
    | Closed
)
_Last = TypeVar("_Last", HandshakeRefused, Closed)

_ENDLESS = 1 << 62  # looks at fragments: as many as it takes


class State(Enum):
    """Where a `WebSocket` is in its one life."""

    CONNECTING = auto()
    OPEN = auto()
    CLOSING = auto()  # we sent a close frame and wait for the peer's
    CLOSED = auto()


# ---------------------------------------------------------------------------------------------- frames


_TEXT, _BINARY, _PONG = 0x81, 0x82, 0x8A  # the first byte of a frame: FIN, no reserved bits, the opcode


_OPEN = State.OPEN  # Python 3.11 takes as long to look up a member as to call a function


def server_frame(data: bytes, *, text: bool, deflate_bits: int | None = None) -> bytes:
    """One whole message as one unmasked frame, for all connections of a server with these `deflate_bits`.

    Text must be UTF-8.
    """
    first = _TEXT if text else _BINARY
    if deflate_bits is not None:
        first, data = first | 0x40, deflate(data, deflate_bits)
    return _header(first, len(data), 0) + data


def _header(first: int, size: int, mask_bit: int) -> bytes:
    if size < 126:
        return bytes((first, mask_bit | size))
    if size < 1 << 16:
        return struct.pack("!BBH", first, mask_bit | 126, size)
    return struct.pack("!BBQ", first, mask_bit | 127, size)


def is_sendable(code: int) -> bool:
    """Whether a close frame may carry `code` (RFC 6455 §7.4 and the IANA registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


class WebSocket:
    """One connection, from the opening handshake to the close. Make it with `client` or `server`."""

    __slots__ = (
        "_added",
        "_eof",
        "_fragments",
        "_handshake",
        "_limit",
        "_masks",
        "_out",
        "_read",
        "_reader",
        "_server",
        "_state",
        "_wsproto",
        "deflate_bits",
        "has_unread",
        "is_read",
    )

    def __init__(self, handshake: ClientHandshake | ServerHandshake) -> None:
        self._handshake: ClientHandshake | ServerHandshake | None = handshake  # while CONNECTING
        self._server = isinstance(handshake, ServerHandshake)
        self._wsproto: Connection | None = None  # while OPEN and CLOSING
        self._reader: FrameReader | None = None  # with the connection, in front of it
        self._read: Iterator[wsproto.Event] | None = None  # the connection reads what the lane handed over
        self._limit: MessageLimit | None = None  # with the connection
        self._added = 0  # by inflating, once closed
        self._fragments = (
            bytearray()
        )  # of the message under way; text as UTF-8, which many small ones fit in best
        self._out: list[bytes] = []
        self._masks = b""  # for the next frames of a client, four bytes each
        self._eof = False
        self._state = State.CONNECTING
        self.has_unread = False
        """Whether frames may have come that `next_event` has not looked at."""
        self.is_read = False
        """Whether all that came was read, and `next_event` is sure to give `None` until there is more."""
        self.deflate_bits: int | None = None
        """The window of what we send, while permessage-deflate is agreed on and we are not closed."""

    @classmethod
    def client(
        cls,
        address: Address,
        *,
        headers: Iterable[tuple[str, str]] = (),
        subprotocols: Iterable[str] = (),
        deflate: bool = True,
        max_message_size: int,
        key: bytes | None = None,
    ) -> WebSocket:
        """A client. Its request is in `data_to_send()` at once.

        `headers` are sent besides those of the handshake; `deflate` offers permessage-deflate; a message of
        more than `max_message_size` bytes closes the connection; `key` is the request's nonce in base64, for
        replays. Raises `LocalProtocolError` for headers, subprotocols or a target that cannot be sent.
        """
        handshake = ClientHandshake(
            address,
            headers=headers,
            subprotocols=subprotocols,
            deflate=deflate,
            max_message_size=max_message_size,
            key=key,
        )
        websocket = cls(handshake)
        websocket._out.append(handshake.request)
        return websocket

    @classmethod
    def server(cls, *, deflate: bool = False, max_message_size: int) -> WebSocket:
        """The server's side of a connection. `deflate` accepts permessage-deflate when a client offers it."""
        return cls(ServerHandshake(deflate=deflate, max_message_size=max_message_size))

    # ------------------------------------------------------------------------------------------ getters

    @property
    def state(self) -> State:
        """As of the last event that was pulled."""
        return self._state

    @property
    def uses_deflate(self) -> bool:
        """Whether permessage-deflate was agreed on. `False` once closed."""
        return self.deflate_bits is not None

    @property
    def bytes_added(self) -> int:
        """How many bytes inflating has added to what was received: the messages have so many more."""
        return self._added if self._limit is None else self._limit.added

    # ------------------------------------------------------------------------------------------ facts

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take in what the transport read. Empty data does nothing, nor does any after the end."""
        if not data or self._eof:
            return
        if self._reader is not None:
            self.has_unread, self.is_read = True, False
            self._reader.receive(bytes(data))
        elif self._handshake is not None:
            self._handshake.receive_data(data)

    def receive_eof(self) -> None:
        """The stream has ended; what came before is still read."""
        self._eof, self.is_read = True, False
        if self._reader is not None:
            self._reader.receive_eof()

    # ------------------------------------------------------------------------------------------ events

    def next_event(self, patience: int = _ENDLESS) -> WebSocketEvent | None:
        """The next event, or `None` until there is more data. The last is a `HandshakeRefused` or a `Closed`.

        Fragments may go on without an event for long. After `patience` looks at them it is `None`, too, and
        `has_unread` is true.
        """
        event: WebSocketEvent | None = None
        if self._reader is not None:
            event = self._read_frames(self._reader, patience)
        elif self._handshake is not None:
            event = self._read_handshake(self._handshake)
        if event is None and self._eof and self._state is not State.CLOSED:
            event = self._end(Closed(CloseReason.ABNORMAL_CLOSURE.value, "the stream ended", clean=False))
        return event

    def take_messages(self) -> list[str | bytes]:
        """The plain messages that `next_event` would give next, in a tenth of the time. Ask it for the rest.

        Text is `str`. Empty when something else comes first, or nothing.
        """
        reader = self._reader
        if reader is None:
            return []
        messages = reader.take_all()
        self.is_read = reader.is_empty
        return messages

    def _read_handshake(self, handshake: ClientHandshake | ServerHandshake) -> WebSocketEvent | None:
        try:
            if isinstance(handshake, ServerHandshake):
                return handshake.next()
            result = handshake.next(eof=self._eof)
        except HandshakeError as exc:
            self._out.append(exc.response)
            return self._fail(CloseReason.PROTOCOL_ERROR, str(exc))
        except RemoteProtocolError as exc:
            return self._fail(CloseReason.PROTOCOL_ERROR, str(exc))
        if isinstance(result, Upgraded):
            self._open(result)
            return Opened(result.subprotocol, self.uses_deflate)
        return None if result is None else self._end(result)

    def _read_frames(self, reader: FrameReader, patience: int) -> WebSocketEvent | None:
        while True:
            if self._read is not None:
                # wsproto parses while its events are consumed: at most one at a time.
                event = self._read_event(next(self._read, None))
                if event is not None:
                    return event
            elif (message := reader.take()) is not None:
                return TextMessage(message) if isinstance(message, str) else BinaryMessage(message)
            elif reader.broken is not None:
                return self._broken(reader.broken)
            elif (small := reader.take_small()) is not None:
                if isinstance(small, tuple):
                    return self._read_control(*small)
                return TextMessage(small) if isinstance(small, str) else BinaryMessage(small)
            elif patience <= 0:
                return None
            elif data := reader.hand_over():
                patience -= 1
                assert self._wsproto is not None
                self._wsproto.receive_data(data)
                self._read = self._wsproto.events()
            else:
                self.has_unread = False
                return None

    def _read_control(self, is_ping: bool, payload: bytes) -> WebSocketEvent:
        if not is_ping:
            return PongReceived(payload)
        if self._state is State.OPEN:  # nothing may follow our close frame
            server = self._server
            pong = _header(_PONG, len(payload), 0) + payload if server else self._client_frame(_PONG, payload)
            self._out.append(pong)
        return PingReceived(payload)

    def _read_event(self, event: wsproto.Event | None) -> WebSocketEvent | None:
        assert self._wsproto is not None
        match event:
            case None:
                self._read = None
                return None
            case wsproto.TextMessage():
                if event.message_finished and not self._fragments:
                    return TextMessage(event.data)
                self._fragments += event.data.encode()
                return TextMessage(self._take_fragments().decode()) if event.message_finished else None
            case wsproto.BytesMessage():
                if event.message_finished and not self._fragments:
                    return BinaryMessage(bytes(event.data))
                self._fragments += event.data
                return BinaryMessage(self._take_fragments()) if event.message_finished else None
            case wsproto.Ping():
                if self._state is State.OPEN:  # nothing may follow our close frame
                    self._out.append(self._wsproto.send(event.response()))
                return PingReceived(bytes(event.payload))
            case wsproto.Pong():
                return PongReceived(bytes(event.payload))
            case _:
                assert isinstance(event, wsproto.CloseConnection)
                return self._read_close(self._wsproto, event)

    def _take_fragments(self) -> bytes:
        fragments = bytes(self._fragments)
        self._fragments.clear()
        return fragments

    def _read_close(self, connection: Connection, event: wsproto.CloseConnection) -> WebSocketEvent:
        if connection.state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED):
            if connection.state is ConnectionState.REMOTE_CLOSING:
                self._out.append(connection.send(wsproto.CloseConnection(event.code)))
            return self._end(Closed(int(event.code), event.reason or "", clean=True))
        # A parse error looks like a close from the peer, but leaves the state as it was.
        return self._broken(event.code)

    def _broken(self, code: int) -> Closed:
        """The peer broke the protocol.

        The reason is ours, not wsproto's: its words change with its releases and with how the bytes were cut.
        """
        assert self._wsproto is not None
        assert self._limit is not None
        if self._limit.fault:
            reason = self._limit.fault
        elif code == CloseReason.INVALID_FRAME_PAYLOAD_DATA:
            reason = "text that is not UTF-8"
        else:
            reason = "a malformed WebSocket frame"
        if self._state is State.OPEN:
            self._out.append(self._wsproto.send(wsproto.CloseConnection(code, reason)))
        return self._fail(code, reason)

    def _open(self, upgraded: Upgraded) -> None:
        role = ConnectionType.SERVER if self._server else ConnectionType.CLIENT
        self._wsproto = Connection(role, [upgraded.limit])
        limit = self._limit = upgraded.limit
        deflate = limit if isinstance(limit, Deflate) else None
        self._reader = FrameReader(
            upgraded.early_data, masked=self._server, limit=limit.limit, deflate=deflate
        )
        self.deflate_bits = None if deflate is None else deflate.deflate_bits
        self._handshake = None
        self.has_unread = True  # there may be early data
        self._state = State.OPEN

    def _fail(self, code: int, reason: str) -> Closed:
        return self._end(Closed(int(code), reason, clean=False))

    def _end(self, event: _Last) -> _Last:
        self._state, self._added = State.CLOSED, self.bytes_added
        self.has_unread = self.is_read = False
        self._handshake = self._wsproto = self._reader = self._read = self._limit = self.deflate_bits = None
        self._fragments.clear()
        return event

    # ------------------------------------------------------------------------------------------ output

    def data_to_send(self) -> bytes:
        """Take everything that is to be written now; `b""` when there is nothing."""
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    # ------------------------------------------------------------------------------------------ commands

    def accept(self, *, subprotocol: str | None = None, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer a `HandshakeRequest` with the upgrade. Frames may be sent at once.

        `subprotocol` is one of the client's; values of `headers` may be Latin-1. Raises `LocalProtocolError`.
        """
        response, upgraded = self._asked().accept(subprotocol, headers)
        self._out.append(response)
        self._open(upgraded)

    def reject(self, status: int, *, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> None:
        """Answer a `HandshakeRequest` with plain HTTP, status 300 to 599. The end: no event follows.

        Raises `LocalProtocolError`.
        """
        self._out.append(self._asked().reject(status, headers, body))
        self._state = State.CLOSED
        self._handshake = None

    def _asked(self) -> ServerHandshake:
        if not isinstance(self._handshake, ServerHandshake):
            raise LocalProtocolError("there is no request to answer")
        return self._handshake

    def send_text(self, data: str | bytes) -> None:
        """Send a text message, given as a string or as UTF-8. Raises `LocalProtocolError` unless OPEN."""
        connection = self._wsproto
        if connection is None or self._state is not _OPEN:
            connection = self._opened()
        try:
            payload = data.encode() if isinstance(data, str) else bytes(data)
            if not payload.isascii():
                str(payload, "utf-8")
        except UnicodeError:
            raise LocalProtocolError("a text message must be valid Unicode") from None
        ready = self._ready(payload, text=True)
        self._out.append(connection.send(wsproto.TextMessage(payload.decode())) if ready is None else ready)

    def send_binary(self, data: bytes) -> None:
        """Send a binary message. Raises `LocalProtocolError` unless OPEN."""
        connection = self._opened()
        ready = self._ready(data, text=False)
        self._out.append(connection.send(wsproto.BytesMessage(data)) if ready is None else ready)

    def _ready(self, payload: bytes, *, text: bool) -> bytes | None:
        """The frame of a message; `None` when wsproto must, or had better, make it."""
        if self._server:
            return server_frame(payload, text=text, deflate_bits=self.deflate_bits)
        if self.deflate_bits is not None or len(payload) > MAX_MASKED:
            return None
        return self._client_frame(_TEXT if text else _BINARY, payload)

    def _client_frame(self, first: int, data: bytes) -> bytes:
        """One masked frame; `first` is its first byte."""
        if not self._masks:
            # Chance is wsproto's to draw, here as in the handshake. Sixteen bytes are four masks.
            self._masks = a2b_base64(generate_nonce())
        mask, self._masks = self._masks[:4], self._masks[4:]
        return b"".join((_header(first, len(data), 0x80), mask, xor(data, mask)))

    def ping(self, payload: bytes = b"") -> None:
        """Send a ping of at most 125 bytes. Raises `LocalProtocolError` unless OPEN."""
        connection = self._opened()
        if len(payload) > 125:
            raise LocalProtocolError("a ping carries at most 125 bytes")
        self._out.append(connection.send(wsproto.Ping(payload)))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Start the closing handshake; the peer's close frame gives `Closed`. The caller limits the wait for
        it.

        `reason` is cut to 123 bytes. While CONNECTING nothing is sent, and `Closed` is the next event. While
        CLOSING and when CLOSED nothing happens. Raises `LocalProtocolError` for a code that may not be sent.
        """
        if not is_sendable(code):
            raise LocalProtocolError(f"a close frame must not carry the code {code!r}")
        if self._state is State.CONNECTING:
            self._eof = True
        elif self._state is State.OPEN:
            try:
                frame = self._opened().send(wsproto.CloseConnection(code, reason))
            except UnicodeEncodeError:
                raise LocalProtocolError("the reason of a close must be valid Unicode") from None
            self._out.append(frame)
            self._state = State.CLOSING

    def _opened(self) -> Connection:
        if self._wsproto is None or self._state is not State.OPEN:
            raise LocalProtocolError(f"nothing can be sent while {self._state.name}")
        return self._wsproto
