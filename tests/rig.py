"""One client under a virtual clock, against a scripted server that speaks in real bytes.

    rig = Rig(RealtimeClient(config))
    rig.connect()                              # command, transport, upgrade
    rig.do(rig.client.join, "room:lobby")      # any command: `now` is the rig's
    rig.accept_join("room:lobby")              # the server says ok
    rig.say(None, None, "room:lobby", "hi", {})
    rig.advance(60)
    assert rig.take() == [...]                 # the events since the last time

After every fact and every command the rig drains the client, and checks what holds for all endpoints:

- draining runs no protocol code: the deadline is the same before and after it, and there is nothing left;
- the deadline is `None` or lies in the future;
- `SendData` is never empty, and two for one connection never stand side by side;
- only the live `ConnId` is ever named, there is one at most, and ids grow.

The server answers pings, the closing handshake and heartbeats by itself.
"""

from __future__ import annotations

from typing import Any

from presence_proto.config import RealtimeConfig
from presence_proto.outputs import CloseTransport, ConnId, OpenTransport, SendData
from presence_proto.realtime import RealtimeClient
from presence_proto.serializer import Message, serializer_for
from presence_proto.websocket import BinaryMessage, HandshakeRequest, State, TextMessage, WebSocket


class Rig:
    """`client` is any client endpoint that speaks Phoenix Channels; `vsn` is what the server speaks."""

    def __init__(
        self,
        client: Any,
        *,
        vsn: str = "2.0.0",
        now: float = 1000.0,
        server_deflate: bool = False,
        chunk: int | None = None,
    ) -> None:
        self.client = client
        self.now = now
        self.events: list[Any] = []  # all of them
        self.opens: list[OpenTransport] = []
        self.closes: list[CloseTransport] = []
        self.requests: list[HandshakeRequest] = []
        self.received: list[Message] = []  # from the client, heartbeats included
        self.frames: list[TextMessage | BinaryMessage] = []  # the same, not decoded
        self.server_events: list[Any] = []  # what else the server's side of the WebSocket reported
        self.conn: ConnId | None = None  # the live one
        self.server: WebSocket | None = None  # the server's side of it, once the transport is open
        self.answers_heartbeats = True  # as long as this is so
        self.silent = False  # the server reads, but what it says does not arrive: it waits in `held`
        self.held = bytearray()
        self._deflate = server_deflate
        self._chunk = chunk  # bytes to the client come in pieces of this size
        self._serializer = serializer_for(vsn, server=True)
        self._taken = 0
        self._last_conn = 0

    # ---------------------------------------------------------------- what happens to the client

    def do(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        """Make a command or report a fact, now, and drain. Returns what the command returns."""
        try:
            return call(*args, now=self.now, **kwargs)
        finally:
            self._drain()
            self._serve()

    def connect(self) -> None:
        """`connect`, and everything up to the open WebSocket."""
        self.do(self.client.connect)
        self.open()

    def join(self, topic: str, params: Any = None, *, state: Any = None, response: Any = None) -> Message:
        """`join`, and everything up to the presence state, if there is one. Returns the join."""
        self.do(self.client.join, topic, params)
        return self.accept_join(topic, state, response)

    def open(self) -> None:
        """The transport that was asked for opens, and the server accepts the upgrade."""
        self.open_transport()
        assert self.server is not None
        self.server.accept()
        self._serve()

    def refuse(self, status: int, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> None:
        """The transport opens, and the server refuses the upgrade."""
        self.open_transport()
        assert self.server is not None
        self.server.reject(status, headers=headers, body=body)
        self._serve()

    def open_transport(self) -> None:
        """The transport opens; the server has read the request and does not answer yet."""
        assert self.conn is not None
        assert self.server is None
        self.server = WebSocket.server(deflate=self._deflate, max_message_size=1 << 24)
        self.do(self.client.transport_opened, self.conn)

    def cut(self, reason: str = "eof") -> None:
        """The stream ends, or could not be opened."""
        conn, self.conn, self.server = self.conn, None, None
        self.held.clear()
        assert conn is not None
        self.do(self.client.transport_closed, conn, reason=reason)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """The server starts the closing handshake."""
        assert self.server is not None
        self.server.close(code, reason)
        self._serve()

    def advance(self, seconds: float) -> None:
        """Let time pass, with a tick at each of the client's deadlines. Early ticks do nothing."""
        end, steps = self.now + seconds, 0
        while (deadline := self.client.next_deadline()) is not None and deadline <= end:
            steps += 1
            assert steps < 10_000, "the client never comes to rest"
            self._idle_tick((self.now + deadline) / 2, deadline)
            self.now = deadline
            self.do(self.client.tick)
        self._idle_tick(end, deadline)

    def jump(self, seconds: float) -> None:
        """Let time pass without a tick, and then tick once: the host slept."""
        self.now += seconds
        self.do(self.client.tick)

    # ---------------------------------------------------------------- what the server says

    def say(self, join_ref: Any, ref: Any, topic: str, event: str, payload: Any) -> None:
        """A message from the server. On V1 its join_ref is not sent."""
        frame = self._serializer.encode(Message(join_ref, ref, topic, event, payload))
        self.say_text(frame.data) if frame.text else self.say_binary(frame.data)

    def reply(self, to: Message, status: str = "ok", response: Any = None) -> None:
        """A reply to a message of the client's."""
        payload = {"status": status, "response": {} if response is None else response}
        self.say(to.join_ref, to.ref, to.topic, "phx_reply", payload)

    def accept_join(self, topic: str, state: Any = None, response: Any = None) -> Message:
        """Say ok to the last join of the topic and, when there is a `state`, tell it. Returns the join."""
        join = self.last("phx_join", topic)
        self.reply(join, "ok", response)
        if state is not None:
            self.say(join.join_ref, None, topic, "presence_state", state)
        return join

    def say_text(self, data: str | bytes) -> None:
        """A text message from the server, well-formed or not."""
        assert self.server is not None
        self.server.send_text(data)
        self._serve()

    def say_binary(self, data: bytes) -> None:
        """A binary message from the server, well-formed or not."""
        assert self.server is not None
        self.server.send_binary(data)
        self._serve()

    def release(self) -> None:
        """What was held back arrives, all at once."""
        self.silent, data, self.held = False, bytes(self.held), bytearray()
        self.deliver(data)

    def deliver(self, data: bytes) -> None:
        """Raw bytes from the server."""
        self._feed(data)
        self._serve()

    # ---------------------------------------------------------------- what the client said

    def take(self) -> list[Any]:
        """The events since the last `take`."""
        events = self.events[self._taken :]
        self._taken = len(self.events)
        return events

    def sent(self, event: str | None = None, topic: str | None = None) -> list[Message]:
        """The client's messages, oldest first; heartbeats only when asked for by event."""
        return [
            message
            for message in self.received
            if (message.event != "heartbeat" if event is None else message.event == event)
            and (topic is None or message.topic == topic)
        ]

    def last(self, event: str | None = None, topic: str | None = None) -> Message:
        """The last of them."""
        return self.sent(event, topic)[-1]

    # ---------------------------------------------------------------- inside

    def _idle_tick(self, now: float, deadline: float | None) -> None:
        self.now = now
        self.client.tick(now=now)
        assert self.client.next_output() is None, "an early tick did something"
        assert self.client.next_deadline() == deadline

    def _drain(self) -> None:
        deadline = self.client.next_deadline()
        previous = None
        while (output := self.client.next_output()) is not None:
            if isinstance(output, SendData):
                assert output.data
                assert output.conn == self.conn
                assert not (isinstance(previous, SendData) and previous.conn == output.conn)
                if self.server is not None:
                    self.server.receive_data(output.data)
            elif isinstance(output, OpenTransport):
                assert self.conn is None
                assert output.conn > self._last_conn
                self.conn = output.conn
                self._last_conn = output.conn
                self.opens.append(output)
            elif isinstance(output, CloseTransport):
                assert output.conn == self.conn
                self._read()
                self.conn = self.server = None
                self.held.clear()
                self.closes.append(output)
            else:
                self.events.append(output)
            previous = output
        assert self.client.next_output() is None
        assert self.client.next_deadline() == deadline, "draining changed the deadline"
        assert deadline is None or deadline > self.now

    def _serve(self) -> None:
        """Let the server read and answer until there is no more to say on either side."""
        while self.server is not None:
            self._read()
            data = self.server.data_to_send()
            if self.silent:
                self.held += data
            if not data or self.silent:
                return
            self._feed(data)

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
                message = self._serializer.decode(event)
                self.frames.append(event)
                self.received.append(message)
                is_heartbeat = message.topic == "phoenix" and message.event == "heartbeat"
                if is_heartbeat and self.answers_heartbeats and self.server.state is State.OPEN:
                    payload = {"status": "ok", "response": {}}
                    reply = Message(None, message.ref, "phoenix", "phx_reply", payload)
                    self.server.send_text(self._serializer.encode(reply).data)
            else:
                self.server_events.append(event)


def realtime(
    *,
    vsn: Any = "2.0.0",
    rng: Any = None,
    server_deflate: bool = False,
    chunk: int | None = None,
    **settings: Any,
) -> Rig:
    """A rig around a `RealtimeClient` that nobody has connected yet. `settings` are its config's."""
    config = RealtimeConfig(**{"server_url": "ws://host.test/socket", "vsn": vsn} | settings)
    return Rig(RealtimeClient(config, rng=rng), vsn=vsn, server_deflate=server_deflate, chunk=chunk)


def online(**settings: Any) -> Rig:
    """The same, connected."""
    rig = realtime(**settings)
    rig.connect()
    rig.take()
    return rig
