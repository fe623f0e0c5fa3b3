"""The class `WebSocket` (RFC 6455) for clients and servers, based on `handshake`, `deflate` and `frames`.

    CONNECTING ──Opened / accept()──▶ OPEN ──close()──▶ CLOSING
         │                              │                  │
         └──Refused, Closed, reject()───┴──────Closed──────┴──▶ CLOSED

A `WebSocket` does no I/O: the object turns received bytes into events, and commands into bytes to send. After
each `receive_data` or `receive_eof`, the caller calls `next_event()` until the result is `None`, and then
writes `data_to_send()`. Each call of `next_event` reads no further than one event. Therefore, the answer to
an event does not depend on how the network splits the bytes. No input from the peer raises an exception.
"""

from __future__ import annotations

from binascii import a2b_base64
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeVar

from wsproto import events as wsproto
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_nonce

from presence_proto.errors import LocalProtocolError, RemoteProtocolError
from presence_proto.websocket.deflate import Deflate, MessageLimit
from presence_proto.websocket.events import (
    BinaryMessage,
    Closed,
    HandshakeRefused,
    Opened,
    PingReceived,
    PongReceived,
    TextMessage,
)
from presence_proto.websocket.frames import (
    BINARY,
    MAX_MASKED,
    PONG,
    TEXT,
    FrameReader,
    client_frame,
    header,
    server_frame,
)
from presence_proto.websocket.handshake import ClientHandshake, HandshakeError, ServerHandshake, Upgraded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from presence_proto.config import Address
    from presence_proto.websocket.events import WebSocketEvent

_Last = TypeVar("_Last", HandshakeRefused, Closed)

_ENDLESS = 1 << 62  # the default `patience` of `next_event`, which means no limit


class State(Enum):
    """The state of a `WebSocket`. A closed `WebSocket` cannot be opened again."""

    CONNECTING = auto()
    OPEN = auto()
    CLOSING = auto()  # this side has sent a close frame and waits for the peer's close frame
    CLOSED = auto()


_OPEN = State.OPEN  # in Python 3.11, looking up an enum member takes as long as a function call


def is_sendable(code: int) -> bool:
    """Whether a close frame may carry `code` (RFC 6455 §7.4 and the IANA registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


class WebSocket:
    """One WebSocket connection, from the handshake to the close, created with `client` or `server`."""

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
        self._reader: FrameReader | None = None  # while OPEN and CLOSING; reads the data before wsproto
        self._read: Iterator[wsproto.Event] | None = None  # wsproto's events for the data from `_reader`
        self._limit: MessageLimit | None = None  # while OPEN and CLOSING
        self._added = 0  # `bytes_added` of a closed connection
        # Fragments of the current message. Text is kept as UTF-8, which takes the least memory.
        self._fragments = bytearray()
        self._out: list[bytes] = []
        self._masks = b""  # random masks for the next frames of a client, four bytes each
        self._eof = False
        self._state = State.CONNECTING
        self.has_unread = False
        """Whether there may be received frames that `next_event` has not read yet."""
        self.is_read = False
        """Whether all received data was read. If so, `next_event` returns `None` until more data arrives."""
        self.deflate_bits: int | None = None
        """Compression window of sent messages in bits. The value is `None` if not compressing."""

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
        """Return the client side of a connection. `data_to_send()` returns the upgrade request at once.

        - `headers`: additional headers of the request.
        - `deflate`: whether to offer permessage-deflate.
        - `max_message_size`: the size limit in bytes. A larger message from the server closes the connection.
        - `key`: the nonce of the request in base64, for replays. `None` generates a random nonce.

        Raises `LocalProtocolError` for headers, subprotocols or a target that cannot be sent.
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
        """Return the server side of a connection.

        `deflate` says whether to accept permessage-deflate. A message of more than `max_message_size` bytes
        closes the connection.
        """
        return cls(ServerHandshake(deflate=deflate, max_message_size=max_message_size))

    # ------------------------------------------------------------------------------------------ getters

    @property
    def state(self) -> State:
        """The current state. Received data changes the state only when `next_event` reads that data."""
        return self._state

    @property
    def uses_deflate(self) -> bool:
        """Whether permessage-deflate is in use. The value is `False` in the state CLOSED."""
        return self.deflate_bits is not None

    @property
    def bytes_added(self) -> int:
        """Total number of bytes by which inflation has enlarged the received messages."""
        return self._added if self._limit is None else self._limit.added

    # ------------------------------------------------------------------------------------------ input

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Buffer received bytes. The method ignores empty data, and data after the end of the stream."""
        if not data or self._eof:
            return
        if self._reader is not None:
            self.has_unread, self.is_read = True, False
            self._reader.receive(bytes(data))
        elif self._handshake is not None:
            self._handshake.receive_data(data)

    def receive_eof(self) -> None:
        """Report the end of the stream. `next_event` still reads all data received before the end."""
        self._eof, self.is_read = True, False
        if self._reader is not None:
            self._reader.receive_eof()

    # ------------------------------------------------------------------------------------------ events

    def next_event(self, patience: int = _ENDLESS) -> WebSocketEvent | None:
        """Return the next event, or `None` until more data arrives.

        `HandshakeRefused` or `Closed` is the last event. `patience` is the maximum number of frame pieces
        that one call passes to wsproto, because a message of many fragments takes long to read. At that
        limit, the call also returns `None`, but `has_unread` is true.
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
        """Return the next plain messages, in a tenth of the time of `next_event`. Text messages are `str`.

        The list ends before the first frame that this fast path cannot read. `next_event` reads that frame.
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
                # Take only one event: wsproto continues to parse when the next event is taken.
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
        if self._state is State.OPEN:  # not CLOSING: no frame may follow a close frame
            server = self._server
            pong = header(PONG, len(payload)) + payload if server else self._client_frame(PONG, payload)
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
                if self._state is State.OPEN:  # not CLOSING: no frame may follow a close frame
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
        # wsproto reports a parse error as a `CloseConnection`, too, but without a change of its state.
        return self._broken(event.code)

    def _broken(self, code: int) -> Closed:
        """End the connection after a protocol error of the peer."""
        # Do not use wsproto's reason: that text depends on wsproto's release, and on how the bytes were
        # split.
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
        self.has_unread = True  # `_reader` may have frames that arrived together with the handshake
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
        """Remove and return all bytes that must be written now, or `b""` if no bytes are waiting."""
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    # ------------------------------------------------------------------------------------------ commands

    def accept(self, *, subprotocol: str | None = None, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Accept a `HandshakeRequest`. After this call, messages may be sent at once.

        `subprotocol` is a subprotocol that the client offered, or `None`. Values of `headers` may be Latin-1.
        Raises `LocalProtocolError` for an illegal answer, or when no request is waiting for an answer.
        """
        response, upgraded = self._asked().accept(subprotocol, headers)
        self._out.append(response)
        self._open(upgraded)

    def reject(self, status: int, *, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> None:
        """Refuse a `HandshakeRequest` with an HTTP response of status 300 to 599, without a further event.

        Raises `LocalProtocolError` for an illegal answer, or when no request is waiting for an answer.
        """
        self._out.append(self._asked().reject(status, headers, body))
        self._state = State.CLOSED
        self._handshake = None

    def _asked(self) -> ServerHandshake:
        if not isinstance(self._handshake, ServerHandshake):
            raise LocalProtocolError("there is no request to answer")
        return self._handshake

    def send_text(self, data: str | bytes) -> None:
        """Send a text message, which is a string or UTF-8 bytes.

        Raises `LocalProtocolError` for invalid Unicode, and if the state is not OPEN.
        """
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
        """Send a binary message. Raises `LocalProtocolError` if the state is not OPEN."""
        connection = self._opened()
        ready = self._ready(data, text=False)
        self._out.append(connection.send(wsproto.BytesMessage(data)) if ready is None else ready)

    def _ready(self, payload: bytes, *, text: bool) -> bytes | None:
        """Return the frame of a message, or `None` if wsproto must build the frame or builds it faster."""
        if self._server:
            return server_frame(payload, text=text, deflate_bits=self.deflate_bits)
        if self.deflate_bits is not None or len(payload) > MAX_MASKED:
            return None
        return self._client_frame(TEXT if text else BINARY, payload)

    def _client_frame(self, first: int, data: bytes) -> bytes:
        if not self._masks:
            # 16 random bytes make four masks. wsproto generates these bytes, like the nonce of the handshake.
            self._masks = a2b_base64(generate_nonce())
        mask, self._masks = self._masks[:4], self._masks[4:]
        return client_frame(first, data, mask)

    def ping(self, payload: bytes = b"") -> None:
        """Send a ping. Raises `LocalProtocolError` for more than 125 bytes, or if the state is not OPEN."""
        connection = self._opened()
        if len(payload) > 125:
            raise LocalProtocolError("a ping carries at most 125 bytes")
        self._out.append(connection.send(wsproto.Ping(payload)))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Start the closing handshake. When the peer's close frame arrives, `Closed` is the last event.

        The caller must limit the wait for `Closed`. `reason` is cut to 123 bytes. While CONNECTING, nothing
        is sent, and `Closed` is the next event. In the states CLOSING and CLOSED, the call does nothing.
        Raises `LocalProtocolError` for a code that must not be sent, or for a reason that is not valid
        Unicode.
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
