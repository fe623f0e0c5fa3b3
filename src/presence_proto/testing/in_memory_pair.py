"""One client and one server in one piece of memory: all bytes go through both, no time passes by itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from presence_proto.endpoint import CloseTransport, ConnId, OpenTransport, SendData
from presence_proto.errors import LocalProtocolError
from presence_proto.testing.contract import Contract, require
from presence_proto.websocket import BinaryMessage, HandshakeRequest, State, TextMessage, WebSocket

MAX_MESSAGE_SIZE = 1 << 24
RESTLESS = 10_000
"""A client that ticks this often in one `advance` never comes to rest."""


class InMemoryPair(ABC):
    """A client under a virtual clock, and the server's side of its WebSocket. What is said, subclasses know.

    After every fact and every command the client is drained, and its `Contract` checked: `ContractError` is
    raised for what no client may do. `LocalProtocolError` is raised for what cannot be done now, such as
    speaking on a closed connection. `now` is in seconds. With `deflate` the server compresses when the client
    offers it, with `chunk` its bytes come to the client in pieces of that size.
    """

    def __init__(
        self, client: Any, *, now: float = 1000.0, deflate: bool = False, chunk: int | None = None
    ) -> None:
        self.client = client
        self.now = now
        self.events: list[Any] = []  # all of them
        self.opens: list[OpenTransport] = []
        self.closes: list[CloseTransport] = []
        self.requests: list[HandshakeRequest] = []
        self.frames: list[TextMessage | BinaryMessage] = []  # the messages of the client, not decoded
        self.server_events: list[Any] = []  # what else the server's side of the WebSocket reported
        self.conn: ConnId | None = None  # the live one
        self.server: WebSocket | None = None  # the server's side of it, once the transport is open
        self.answers_heartbeats = True  # as long as this is so
        self.silent = False  # the server reads, but what it says does not arrive: it waits in `held`
        self.held = bytearray()
        self._contract = Contract(client)
        self._deflate = deflate
        self._chunk = chunk
        self._taken = 0

    @property
    def is_open(self) -> bool:
        """Whether the server can speak: the WebSocket is open, and not closing."""
        return self.server is not None and self.server.state is State.OPEN

    # ---------------------------------------------------------------- what happens to the client

    def do(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        """Make a command or report a fact, now, and drain. Returns what the command returns."""
        try:
            return call(*args, now=self.now, **kwargs)
        finally:
            self._drain()
            self.exchange()

    def connect(self) -> None:
        """`connect`, and everything up to the open WebSocket."""
        self.do(self.client.connect)
        self.open()

    def open(self) -> None:
        """The transport that was asked for opens, and the server accepts the upgrade."""
        self.open_transport()
        self._websocket().accept()
        self.exchange()

    def refuse(self, status: int, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> None:
        """The transport opens, and the server refuses the upgrade."""
        self.open_transport()
        self._websocket().reject(status, headers=headers, body=body)
        self.exchange()

    def open_transport(self) -> None:
        """The transport opens; the server has read the request and does not answer yet."""
        if self.conn is None or self.server is not None:
            raise LocalProtocolError("the client has not asked for a transport")
        self.server = WebSocket.server(deflate=self._deflate, max_message_size=MAX_MESSAGE_SIZE)
        self.do(self.client.transport_opened, self.conn)

    def cut(self, reason: str = "eof") -> None:
        """The stream ends, or could not be opened."""
        conn = self.conn
        if conn is None:
            raise LocalProtocolError("there is no transport to cut")
        self._forget()
        self._contract.closed(conn)
        self.do(self.client.transport_closed, conn, reason=reason)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """The server starts the closing handshake."""
        self._websocket().close(code, reason)
        self.exchange()

    def advance(self, seconds: float) -> None:
        """Let time pass, with a tick at each of the client's deadlines. Early ticks do nothing."""
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
        """Let time pass without a tick, and then tick once: the host slept."""
        self.now += seconds
        self.do(self.client.tick)

    # ---------------------------------------------------------------- what the server says

    def say_text(self, data: str | bytes) -> None:
        """A text message from the server, well-formed or not."""
        self._websocket().send_text(data)
        self.exchange()

    def say_binary(self, data: bytes) -> None:
        """A binary message from the server, well-formed or not."""
        self._websocket().send_binary(data)
        self.exchange()

    def ping(self, payload: bytes = b"") -> None:
        """A ping of WebSocket's from the server."""
        self._websocket().ping(payload)
        self.exchange()

    def deliver(self, data: bytes) -> None:
        """Raw bytes from the server."""
        self._feed(data)
        self.exchange()

    def release(self) -> None:
        """What was held back while `silent` arrives, all at once."""
        self.silent, data, self.held = False, bytes(self.held), bytearray()
        self.deliver(data)

    def exchange(self) -> None:
        """Let the server read and answer until there is no more to say on either side."""
        while self.server is not None:
            self._read()
            data = self.server.data_to_send()
            if self.silent:
                self.held += data
            if not data or self.silent:
                return
            self._feed(data)

    # ---------------------------------------------------------------- what the client said

    def take(self) -> list[Any]:
        """The events since the last `take`."""
        events = self.events[self._taken :]
        self._taken = len(self.events)
        return events

    @abstractmethod
    def heard(self, frame: TextMessage | BinaryMessage) -> None:
        """A message of the client's came."""

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
