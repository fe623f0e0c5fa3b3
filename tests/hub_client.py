"""A hub and its clients in one piece of memory: every byte goes through both, no time passes by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto.config import Address, HubConfig
from presence_proto.hub import Hub
from presence_proto.outputs import CloseTransport, ConnId, OpenTransport, SendData
from presence_proto.serializer import Message, serializer_for
from presence_proto.websocket import (
    BinaryMessage,
    Closed,
    Opened,
    PongReceived,
    Refused,
    State,
    TextMessage,
    WebSocket,
    server_frame,
)

if TYPE_CHECKING:
    from random import Random

    from presence_proto.events import HubEvent

PHOENIX = "/socket/websocket?vsn=2.0.0"
PHOENIX_V1 = "/socket/websocket?vsn=1.0.0"
SUPABASE = "/realtime/v1/websocket?vsn=2.0.0&apikey=secret"
SUPABASE_V1 = "/realtime/v1/websocket?vsn=1.0.0&apikey=secret"

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # the nonce of every handshake


def upgrade(target: str) -> bytes:
    """The request of a client, without the random in it."""
    head = f"GET {target} HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return head.encode() + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"


def masked(data: bytes, *, text: bool = True) -> bytes:
    """A message as a client's frame, masked with zeros."""
    frame = server_frame(data, text=text)
    header = frame[: len(frame) - len(data)]
    return bytes((header[0], header[1] | 0x80)) + header[2:] + b"\0\0\0\0" + data


def supabase_join(
    key: str = "", *, presence: Any = True, ack: Any = False, echo: Any = False, **more: Any
) -> dict[str, Any]:
    """The payload of a join of a Supabase channel, as realtime-js sends it."""
    config = {
        "broadcast": {"ack": ack, "self": echo},
        "presence": {"key": key, "enabled": presence},
        "postgres_changes": more.pop("postgres_changes", []),
        "private": False,
    }
    return {"config": config, **more}


class World:
    """A hub, its clients and a clock. After every step everything has arrived, and law 2 was checked."""

    def __init__(self, config: HubConfig | None = None, *, rng: Random | None = None) -> None:
        self.hub = Hub(config, rng=rng)
        self.now = 100.0
        self.events: list[HubEvent] = []
        self.sent: dict[ConnId, bytes] = {}  # all that the hub wrote
        self.closed: dict[ConnId, CloseTransport] = {}
        self.clients: dict[ConnId, Client] = {}
        self._last = 0

    def open(self) -> ConnId:
        """A transport without anybody behind it."""
        self._last += 1
        conn = ConnId(self._last)
        self.hub.transport_opened(conn, now=self.now)
        self.settle()
        return conn

    def connect(self, target: str = PHOENIX, *, shake_hands: bool = True, **options: Any) -> Client:
        """A client, which has sent its upgrade request unless told not to."""
        conn = self.open()
        client = self.clients[conn] = Client(self, conn, target, **options)
        if shake_hands:
            client.flush()
        return client

    def receive(self, conn: ConnId, data: bytes) -> None:
        """Bytes from a client."""
        self.hub.receive_data(conn, data, now=self.now)
        self.settle()

    def settle(self) -> None:
        """Drain the hub, and bring the bytes to the clients and theirs to the hub, until nothing moves."""
        while (output := self.hub.next_output()) is not None:
            match output:
                case SendData(conn, data):
                    assert conn not in self.closed
                    assert data
                    self.sent[conn] = self.sent.get(conn, b"") + data
                    if conn in self.clients:
                        self.clients[conn].receive(data)
                case CloseTransport(conn):
                    assert conn not in self.closed
                    self.closed[conn] = output
                    if conn in self.clients:
                        self.clients[conn].end()
                case OpenTransport():
                    raise AssertionError("a hub opens nothing")
                case event:
                    self.events.append(event)
        deadline = self.hub.next_deadline()
        assert deadline is None or deadline > self.now
        for client in self.clients.values():
            if client.conn not in self.closed and client.has_bytes:
                client.flush()

    def advance(self, seconds: float) -> None:
        """Let time pass, with a tick at each deadline as a driver does it."""
        target = self.now + seconds
        while (deadline := self.hub.next_deadline()) is not None and deadline <= target:
            self.now = deadline
            self.hub.tick(now=self.now)
            self.settle()
        self.now = target
        self.hub.tick(now=self.now)
        self.settle()

    def take_events(self) -> list[HubEvent]:
        """The events since the last time."""
        events, self.events = self.events, []
        return events


class Client:
    """One client: a WebSocket and a serializer. A `mute` one does not answer to pings and closes."""

    def __init__(
        self, world: World, conn: ConnId, target: str, *, mute: bool = False, **options: Any
    ) -> None:
        self.world = world
        self.conn = conn
        self.mute = mute
        options = {"deflate": False, "max_message_size": 1 << 24, "key": KEY, **options}
        self.websocket = WebSocket.client(Address("hub", 80, False, target), **options)
        vsn = "2.0.0" if "vsn=2.0.0" in target else "1.0.0"
        self.serializer = serializer_for(vsn, server=False)
        self.frames: list[TextMessage | BinaryMessage] = []
        self.inbox: list[Message] = []
        self.pongs: list[bytes] = []
        self.opened: Opened | None = None
        self.refused: Refused | None = None
        self.closed: Closed | None = None
        self._out = b""
        self._ref = 0

    # -- from the hub

    def receive(self, data: bytes) -> None:
        """Bytes from the hub."""
        self.websocket.receive_data(data)
        self._read()

    def end(self) -> None:
        """The hub closed the transport."""
        self.websocket.receive_eof()
        self._read()

    def _read(self) -> None:
        while (event := self.websocket.next_event()) is not None:
            match event:
                case TextMessage() | BinaryMessage():
                    self.frames.append(event)
                    self.inbox.append(self.serializer.decode(event))
                case PongReceived(payload):
                    self.pongs.append(payload)
                case Opened():
                    self.opened = event
                case Refused():
                    self.refused = event
                case Closed():
                    self.closed = event

    def take(self) -> list[list[Any]]:
        """The messages since the last time, each as V2 lays it out."""
        inbox, self.inbox = self.inbox, []
        return [[m.join_ref, m.ref, m.topic, m.event, m.payload] for m in inbox]

    # -- to the hub

    @property
    def has_bytes(self) -> bool:
        """Whether anything waits to be sent to the hub."""
        self._out += self.websocket.data_to_send()
        return bool(self._out) and not self.mute

    def flush(self) -> None:
        """Send the hub what is to be sent."""
        if self.has_bytes:
            data, self._out = self._out, b""
            self.world.receive(self.conn, data)

    def bytes_of(self, *message: Any) -> bytes:
        """The frame of a message, not sent."""
        frame = self.serializer.encode(Message(*message))
        (self.websocket.send_text if frame.text else self.websocket.send_binary)(frame.data)
        return self.websocket.data_to_send()

    def say(self, *message: Any) -> None:
        """Send join_ref, ref, topic, event, payload."""
        assert self.websocket.state is State.OPEN
        self.world.receive(self.conn, self.bytes_of(*message))

    def text(self, data: str) -> None:
        """Send any text."""
        self.websocket.send_text(data)
        self.flush()

    def binary(self, data: bytes) -> None:
        """Send any binary message."""
        self.websocket.send_binary(data)
        self.flush()

    def join(self, topic: str, payload: Any, ref: str = "1") -> list[list[Any]]:
        """Join a topic, and return what came."""
        self.say(ref, ref, topic, "phx_join", payload)
        return self.take()

    def drop(self) -> None:
        """The transport ends without a word."""
        self.world.hub.transport_closed(self.conn, now=self.world.now)
        self.world.closed[self.conn] = CloseTransport(self.conn)  # so that nothing may come any more
        self.world.settle()

    def close(self, code: int = 1000) -> None:
        """A closing handshake."""
        self.websocket.close(code)
        self.flush()


def joined(world: World, *targets: str, topic: str = "room:x") -> list[Client]:
    """Clients, each in the topic, with nothing left to read and no events."""
    clients = [world.connect(target) for target in targets]
    for number, client in enumerate(clients):
        payload = {"user_id": f"u{number}"} | supabase_join(f"u{number}")
        client.join(topic, payload)
    for client in clients:
        client.take()
    world.take_events()
    return clients


def known_refs(messages: list[Any], names: dict[str, str] | None = None) -> Any:
    """Messages with every phx_ref replaced by its number in the order of appearance."""
    names = {} if names is None else names

    def number(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: names.setdefault(item, f"ref{len(names) + 1}")
                if key in ("phx_ref", "phx_ref_prev") or (key == "ref" and len(str(item)) == 16)
                else number(item)
                for key, item in value.items()
            }
        return [number(item) for item in value] if isinstance(value, list) else value

    return number(messages)
