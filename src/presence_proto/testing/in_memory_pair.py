"""`InMemoryPair`: a client and a server that exchange bytes in memory, under a virtual clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from presence_proto.endpoint import CloseTransport, ConnId, OpenTransport, SendData
from presence_proto.errors import LocalProtocolError
from presence_proto.testing.contract import Contract, require
from presence_proto.websocket import BinaryMessage, HandshakeRequest, State, TextMessage, WebSocket

MAX_MESSAGE_SIZE = 1 << 24
RESTLESS = 10_000  # maximum number of ticks in one `advance`; a client that needs more ticks never stops


class InMemoryPair(ABC):
    """A client under a virtual clock, and the server side of its WebSocket. Subclasses decode the messages.

    After every call, the client is drained and its `Contract` is checked. A method raises `ContractError`
    when the client breaks the contract, and `LocalProtocolError` when the call is impossible at that moment,
    such as sending on a closed connection. `now` is the initial time in seconds. With `deflate`, the server
    compresses when the client offers compression. With `chunk`, the client receives the server's bytes in
    chunks of at most `chunk` bytes.
    """

    def __init__(
        self, client: Any, *, now: float = 1000.0, deflate: bool = False, chunk: int | None = None
    ) -> None:
        self.client = client
        self.now = now
        self.events: list[Any] = []  # all events of the client
        self.opens: list[OpenTransport] = []
        self.closes: list[CloseTransport] = []
        self.requests: list[HandshakeRequest] = []
        self.frames: list[TextMessage | BinaryMessage] = []  # the client's messages, not decoded
        self.server_events: list[Any] = []  # the other events of the server's WebSocket
        self.conn: ConnId | None = None  # the transport that is open or being opened
        self.server: WebSocket | None = None  # the server side of `conn`, once the transport is open
        self.answers_heartbeats = True  # whether the server replies to heartbeats
        self.silent = False  # whether the server's bytes are held back, in `held`
        self.held = bytearray()
        self._contract = Contract(client)
        self._deflate = deflate
        self._chunk = chunk
        self._taken = 0

    @property
    def is_open(self) -> bool:
        """Whether the server can send: the WebSocket is open and not closing."""
        return self.server is not None and self.server.state is State.OPEN

    # ---------------------------------------------------------------- commands and transport

    def do(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client with `now`, then drain the client. Return the method's result."""
        try:
            return call(*args, now=self.now, **kwargs)
        finally:
            self._drain()
            self.exchange()

    def connect(self) -> None:
        """Call the client's `connect`, and open the WebSocket."""
        self.do(self.client.connect)
        self.open()

    def open(self) -> None:
        """Open the transport that the client requested, and accept the WebSocket upgrade."""
        self.open_transport()
        self._websocket().accept()
        self.exchange()

    def refuse(self, status: int, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Open the transport that the client requested, and refuse the upgrade with an HTTP `status`."""
        self.open_transport()
        self._websocket().reject(status, headers=headers, body=body)
        self.exchange()

    def open_transport(self) -> None:
        """Open the requested transport. The server reads the upgrade request, but does not respond."""
        if self.conn is None or self.server is not None:
            raise LocalProtocolError("the client has not asked for a transport")
        self.server = WebSocket.server(deflate=self._deflate, max_message_size=MAX_MESSAGE_SIZE)
        self.do(self.client.transport_opened, self.conn)

    def cut(self, reason: str = "eof") -> None:
        """End the open transport, or make the pending connection attempt fail."""
        conn = self.conn
        if conn is None:
            raise LocalProtocolError("there is no transport to cut")
        self._forget()
        self._contract.closed(conn)
        self.do(self.client.transport_closed, conn, reason=reason)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Start the closing handshake from the server side."""
        self._websocket().close(code, reason)
        self.exchange()

    def advance(self, seconds: float) -> None:
        """Advance the clock by `seconds`, with a tick at each deadline. Check that early ticks do nothing."""
        end, steps = self.now + seconds, 0
        while (deadline := self.client.next_deadline()) is not None and deadline <= end:
            steps += 1
            require(steps < RESTLESS, "the client comes to rest")
            self.now = (self.now + deadline) / 2
            self._contract.idle_tick(self.now)
            self.now = deadline
            self.do(self.client.tick)
        self.now = end
        self._contract.idle_tick(end)

    def jump(self, seconds: float) -> None:
        """Advance the clock by `seconds`, then tick once, as after a sleep of the host."""
        self.now += seconds
        self.do(self.client.tick)

    # ---------------------------------------------------------------- server to client

    def say_text(self, data: str | bytes) -> None:
        """Send a text message from the server. The message may be malformed."""
        self._websocket().send_text(data)
        self.exchange()

    def say_binary(self, data: bytes) -> None:
        """Send a binary message from the server. The message may be malformed."""
        self._websocket().send_binary(data)
        self.exchange()

    def ping(self, payload: bytes = b"") -> None:
        """Send a WebSocket ping from the server."""
        self._websocket().ping(payload)
        self.exchange()

    def deliver(self, data: bytes) -> None:
        """Deliver raw bytes from the server."""
        self._feed(data)
        self.exchange()

    def release(self) -> None:
        """Set `silent` to false, and deliver all held bytes at once."""
        self.silent, data, self.held = False, bytes(self.held), bytearray()
        self.deliver(data)

    def exchange(self) -> None:
        """Let the server read and reply until neither side has bytes to send."""
        while self.server is not None:
            self._read()
            data = self.server.data_to_send()
            if self.silent:
                self.held += data
            if not data or self.silent:
                return
            self._feed(data)

    # ---------------------------------------------------------------- client to server

    def take(self) -> list[Any]:
        """Return the client's events since the last `take`."""
        events = self.events[self._taken :]
        self._taken = len(self.events)
        return events

    @abstractmethod
    def heard(self, frame: TextMessage | BinaryMessage) -> None:
        """Handle a message from the client."""

    # ---------------------------------------------------------------- inside

    def _websocket(self) -> WebSocket:
        if self.server is None:
            raise LocalProtocolError("there is no open transport")
        return self.server

    def _forget(self) -> None:
        self.conn = self.server = None
        self.held.clear()

    def _drain(self) -> None:
        for output in self._contract.drain(self.now):
            if isinstance(output, SendData):
                self._websocket().receive_data(output.data)
            elif isinstance(output, OpenTransport):
                self.conn = output.conn
                self.opens.append(output)
            elif isinstance(output, CloseTransport):
                self._read()
                self._forget()
                self.closes.append(output)
            else:
                self.events.append(output)

    def _feed(self, data: bytes) -> None:
        step = self._chunk or max(len(data), 1)
        for start in range(0, len(data), step):
            if self.conn is not None:
                self.client.receive_data(self.conn, data[start : start + step], now=self.now)
                self._drain()

    def _read(self) -> None:
        while self.server is not None and (event := self.server.next_event()) is not None:
            if isinstance(event, HandshakeRequest):
                self.requests.append(event)
            elif isinstance(event, (TextMessage, BinaryMessage)):
                self.frames.append(event)
                self.heard(event)
            else:
                self.server_events.append(event)
