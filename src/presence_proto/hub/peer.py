"""The state of one transport of the hub: its WebSocket, its phase, and its output."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from presence_proto.endpoint import Outbox
from presence_proto.websocket.frames import server_frame

if TYPE_CHECKING:
    from presence_proto.endpoint import ConnId
    from presence_proto.events import HubEvent
    from presence_proto.hub.topic import EncodedMessage, TimerName
    from presence_proto.serializer import EncodedFrame
    from presence_proto.timers import Clock, Timers
    from presence_proto.websocket import BinaryMessage, TextMessage, WebSocket


ABNORMAL = 1006
"""Close code for a stream that ends without a close frame (RFC 6455 §7.1.5)."""


class Phase(Enum):
    """The phase of a transport. The phase only moves down this list, and may skip entries."""

    HANDSHAKE = auto()  # waiting for the upgrade request
    OPEN = auto()
    ENDING = auto()  # the session has ended; the stream ends without a close frame
    CLOSING = auto()  # the hub has sent its close frame; the session has ended
    GONE = auto()  # the hub has removed the transport


class Session(Protocol):
    """The protocol handler of one open connection."""

    def crash(self) -> bool:
        """Report a crash of each channel to the client. Return whether the protocol can report crashes."""

    @property
    def deadline(self) -> float:
        """Time in seconds at which the client counts as idle if it sends nothing until then."""

    def on_idle(self) -> int:
        """Prepare to close an idle connection. Return the close code for the connection."""

    def receive(self, frame: TextMessage | BinaryMessage) -> None:
        """Handle one message from the client. Raises `PresenceError` when the connection must be closed."""

    def stop(self, topic: str, reason: str, *, crashed: bool) -> None:
        """If the client is a member of `topic`, end the membership and notify the client."""

    def end(self, reason: str) -> None:
        """Leave every topic without a message to the client: the connection has ended or is about to end."""


class Peer:
    """The state of one transport. The state is small, because a hub has many, mostly idle transports."""

    __slots__ = (
        "_clock",
        "_timers",
        "address",
        "chance_after",
        "conn",
        "deflate_bits",
        "farewell",
        "is_served",
        "last_seen",
        "lost",
        "outbox",
        "phase",
        "session",
        "websocket",
    )

    def __init__(
        self,
        conn: ConnId,
        websocket: WebSocket,
        outbox: Outbox[HubEvent],
        timers: Timers[TimerName],
        clock: Clock,
        address: str | None = None,
    ) -> None:
        self.conn = conn
        self.address = address  # the peer's address, if the driver knows it
        self.websocket = websocket
        self.outbox = outbox
        self._timers = timers
        self._clock = clock
        self.deflate_bits: int | None = None  # copied from the WebSocket, for speed
        self.phase = Phase.HANDSHAKE
        self.session: Session | None = None  # while OPEN
        self.chance_after: float | None = None  # `last_seen` when the timeout was extended
        self.last_seen = clock.now  # time of the client's last activity
        self.farewell: tuple[int, str] | None = None  # the hub's close code and reason
        self.is_served = True  # whether received bytes are handled; false during a slow join and once gone
        self.lost: str | None = None  # why the transport is gone, while earlier bytes are still handled

    def accept(self, subprotocol: str | None) -> None:
        """Accept the client's WebSocket handshake."""
        self.websocket.accept(subprotocol=subprotocol)
        self.flush()
        self.deflate_bits = self.websocket.deflate_bits
        self.phase = Phase.OPEN

    def send(self, frame: EncodedFrame) -> None:
        """Send a message. Only a session may call `send`. A session ends before its WebSocket closes."""
        data = server_frame(frame.data, text=frame.text, deflate_bits=self.deflate_bits)
        self.outbox.send(self.conn, data)

    def send_shared(self, form: EncodedMessage) -> None:
        """Send a message that is shared with other connections."""
        self.outbox.send(self.conn, form.frame(self.deflate_bits))

    def lose(self, reason: str) -> None:
        """Record the loss of the transport. Later output is discarded."""
        self.lost = reason
        self.outbox = Outbox()  # a new outbox that nobody drains

    def end_session(self, reason: str) -> None:
        """End the session: the client leaves its topics, and the hub ignores the client's later messages."""
        session, self.session = self.session, None
        if session is not None:
            session.end(reason)

    def close(self, code: int, reason: str, why: str, *, timeout: float) -> None:
        """Start the closing handshake, which may take `timeout` seconds.

        The client receives `reason`, and the hub's user receives `why`.
        """
        self.phase, self.is_served = Phase.CLOSING, True
        self.farewell = code, why
        self.end_session(why)
        self.websocket.close(code, reason)
        self.flush()
        self._timers.set(self.conn, self._clock.now + timeout)

    def end(self, why: str, *, timeout: float) -> None:
        """End the session. The hub ends the stream `timeout` seconds later, without a close frame."""
        self.phase, self.is_served = Phase.ENDING, True
        self.farewell = ABNORMAL, why
        self.end_session(why)
        self._timers.set(self.conn, self._clock.now + timeout)

    def flush(self) -> None:
        """Send the WebSocket's pending bytes."""
        self.outbox.send(self.conn, self.websocket.data_to_send())
