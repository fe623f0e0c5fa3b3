"""A hub and scripted clients that exchange bytes in memory, under a virtual clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto.config import Address
from presence_proto.endpoint import CloseTransport, ConnId, SendData
from presence_proto.serializer import Message, serializer_for
from presence_proto.testing.contract import Contract
from presence_proto.websocket import (
    BinaryMessage,
    Closed,
    HandshakeRefused,
    Opened,
    PongReceived,
    TextMessage,
    WebSocket,
)

if TYPE_CHECKING:
    from presence_proto.events import HubEvent
    from presence_proto.hub import Hub

PHOENIX = "/socket/websocket?vsn=2.0.0"
PHOENIX_V1 = "/socket/websocket?vsn=1.0.0"
SUPABASE = "/realtime/v1/websocket?vsn=2.0.0"
SUPABASE_V1 = "/realtime/v1/websocket?vsn=1.0.0"

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # Sec-WebSocket-Key of all handshakes, from RFC 6455, section 1.3


class ScriptedClients:
    """A hub, its clients and a virtual clock. The test controls the clients.

        clients = ScriptedClients(Hub())
        ann = clients.connect(SUPABASE)
        ann.join("realtime:lobby", {"config": {"presence": {"key": "ann", "enabled": True}}})
        clients.advance(1.0)                             # seconds

    Every method delivers all bytes, and raises `ContractError` when the hub breaks its `Contract`.
    """

    def __init__(self, hub: Hub, *, now: float = 100.0) -> None:
        self.hub = hub
        self.now = now
        self.events: list[HubEvent] = []
        self.sent: dict[ConnId, bytes] = {}  # all bytes from the hub
        self.closed: dict[ConnId, CloseTransport] = {}
        self.clients: dict[ConnId, ScriptedClient] = {}
        self._contract = Contract(hub)
        self._last = 0

    def open(self, address: str | None = None) -> ConnId:
        """Open a transport to the hub without creating a `ScriptedClient`."""
        self._last += 1
        conn = ConnId(self._last)
        self._contract.accepted(conn)
        self.hub.transport_opened(conn, now=self.now, address=address)
        self.settle()
        return conn

    def connect(self, target: str = PHOENIX, *, shake_hands: bool = True, **options: Any) -> ScriptedClient:
        """Connect a `ScriptedClient` with `options`. If `shake_hands`, send its upgrade request."""
        conn = self.open()
        client = self.clients[conn] = ScriptedClient(self, conn, target, **options)
        if shake_hands:
            client.flush()
        return client

    def receive(self, conn: ConnId, data: bytes) -> None:
        """Deliver bytes from a client to the hub."""
        self.hub.receive_data(conn, data, now=self.now)
        self.settle()

    def drop(self, conn: ConnId) -> None:
        """End a transport without a closing handshake."""
        self._contract.closed(conn)
        self.closed[conn] = CloseTransport(conn)
        self.hub.transport_closed(conn, now=self.now)
        self.settle()

    def settle(self) -> None:
        """Drain the hub and deliver bytes in both directions until no bytes are left."""
        self._settle()
        # The hub needs further ticks to process its backlog of received bytes.
        while (deadline := self.hub.next_deadline()) is not None and deadline <= self.now:
            self.hub.tick(now=self.now)
            self._settle()

    def _settle(self) -> None:
        for output in self._contract.drain(self.now):
            match output:
                case SendData(conn, data):
                    self.sent[conn] = self.sent.get(conn, b"") + data
                    if conn in self.clients:
                        self.clients[conn].receive(data)
                case CloseTransport(conn):
                    self.closed[conn] = output
                    if conn in self.clients:
                        self.clients[conn].end()
                case event:
                    self.events.append(event)
        for client in self.clients.values():
            if client.conn not in self.closed and client.has_bytes:
                client.flush()

    def advance(self, seconds: float) -> None:
        """Advance the clock by `seconds`, with a tick at each deadline, as a driver does."""
        target = self.now + seconds
        while (deadline := self.hub.next_deadline()) is not None and deadline <= target:
            self.now = deadline
            self.hub.tick(now=self.now)
            self.settle()
        self.now = target
        self.hub.tick(now=self.now)
        self.settle()

    def take_events(self) -> list[HubEvent]:
        """Return the hub's events since the last `take_events`."""
        events, self.events = self.events, []
        return events


class ScriptedClient:
    """One scripted client: a WebSocket, and the serializer that the `vsn` in `target` selects.

    A `mute` client replies neither to pings nor to close frames. `WebSocket.client` receives `options`.
    """

    def __init__(
        self, world: ScriptedClients, conn: ConnId, target: str, *, mute: bool = False, **options: Any
    ) -> None:
        self.world = world
        self.conn = conn
        self.target = target
        self.mute = mute
        options = {"deflate": False, "max_message_size": 1 << 24, "key": KEY, **options}
        self.websocket = WebSocket.client(Address("hub", 80, False, target), **options)
        vsn = "2.0.0" if "vsn=2.0.0" in target else "1.0.0"
        self.serializer = serializer_for(vsn, server=False)
        self.frames: list[TextMessage | BinaryMessage] = []
        self.inbox: list[Any] = []
        self.pongs: list[bytes] = []
        self.opened: Opened | None = None
        self.refused: HandshakeRefused | None = None
        self.closed: Closed | None = None
        self._out = b""

    # -- from the hub

    def receive(self, data: bytes) -> None:
        """Process bytes from the hub."""
        self.websocket.receive_data(data)
        self._read()

    def end(self) -> None:
        """Process the end of the transport, which the hub has closed."""
        self.websocket.receive_eof()
        self._read()

    def decode(self, frame: TextMessage | BinaryMessage) -> Any:
        """Decode a frame into the message that `inbox` stores."""
        return self.serializer.decode(frame)

    def _read(self) -> None:
        while (event := self.websocket.next_event()) is not None:
            match event:
                case TextMessage() | BinaryMessage():
                    self.frames.append(event)
                    self.inbox.append(self.decode(event))
                case PongReceived(payload):
                    self.pongs.append(payload)
                case Opened():
                    self.opened = event
                case HandshakeRefused():
                    self.refused = event
                case Closed():
                    self.closed = event

    def take(self) -> list[Any]:
        """Return the messages since the last `take`, each as [join_ref, ref, topic, event, payload]."""
        inbox, self.inbox = self.inbox, []
        return [[m.join_ref, m.ref, m.topic, m.event, m.payload] for m in inbox]

    # -- to the hub

    @property
    def has_bytes(self) -> bool:
        """Whether unsent bytes for the hub are waiting. For a `mute` client, the value is always false."""
        self._out += self.websocket.data_to_send()
        return bool(self._out) and not self.mute

    def flush(self) -> None:
        """Send the waiting bytes to the hub."""
        if self.has_bytes:
            data, self._out = self._out, b""
            self.world.receive(self.conn, data)

    def bytes_of(self, *message: Any) -> bytes:
        """Encode a message as a WebSocket frame, and return the frame without sending."""
        frame = self.serializer.encode(Message(*message))
        (self.websocket.send_text if frame.text else self.websocket.send_binary)(frame.data)
        return self.websocket.data_to_send()

    def say(self, *message: Any) -> None:
        """Send join_ref, ref, topic, event and payload. Raise `LocalProtocolError` unless connected."""
        self.world.receive(self.conn, self.bytes_of(*message))

    def text(self, data: str) -> None:
        """Send a text message with arbitrary content."""
        self.websocket.send_text(data)
        self.flush()

    def binary(self, data: bytes) -> None:
        """Send a binary message with arbitrary content."""
        self.websocket.send_binary(data)
        self.flush()

    def join(self, topic: str, payload: Any, ref: str = "1") -> list[Any]:
        """Join a topic, and return the messages received since the last `take`."""
        self.say(ref, ref, topic, "phx_join", payload)
        return self.take()

    def drop(self) -> None:
        """End the transport without a closing handshake."""
        self.world.drop(self.conn)

    def close(self, code: int = 1000) -> None:
        """Start the WebSocket closing handshake."""
        self.websocket.close(code)
        self.flush()


def supabase_join(
    key: str = "", *, presence: Any = True, ack: Any = False, echo: Any = False, **more: Any
) -> dict[str, Any]:
    """Return the join payload of a Supabase channel in the form that realtime-js sends."""
    config = {
        "broadcast": {"ack": ack, "self": echo},
        "presence": {"key": key, "enabled": presence},
        "postgres_changes": more.pop("postgres_changes", []),
        "private": False,
    }
    return {"config": config, **more}
