"""One transport of the hub: its WebSocket, where it is in its life, and the way out for its bytes."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from presence_proto.endpoint import Outbox
from presence_proto.websocket.protocol import server_frame

if TYPE_CHECKING:
    from presence_proto.endpoint import ConnId
    from presence_proto.events import HubEvent
    from presence_proto.hub.topic import EncodedMessage, TimerName
    from presence_proto.serializer import EncodedFrame
    from presence_proto.timers import Clock, Timers
    from presence_proto.websocket import BinaryMessage, TextMessage, WebSocket


ABNORMAL = 1006
"""What the end of a stream without a close frame is called (RFC 6455 §7.1.5)."""


class Phase(Enum):
    """Where a transport is in its life. It goes down this list only, and may skip."""

    HANDSHAKE = auto()  # waiting for the upgrade request
    OPEN = auto()
    ENDING = auto()  # the session is over; the stream ends without a close frame
    CLOSING = auto()  # our close frame is sent; the session is over
    GONE = auto()  # the hub has forgotten it


class Session(Protocol):
    """What is said on one open connection, in whatever protocol."""

    def crash(self) -> bool:
        """Tell the client that each of its channels has crashed, if the protocol has a way to do so."""

    @property
    def deadline(self) -> float:
        """When the client has been silent for too long, if it stays so."""

    def on_idle(self) -> int:
        """The client has been silent for too long. Returns the close code for it."""

    def receive(self, frame: TextMessage | BinaryMessage) -> None:
        """Handle one message from the client. Raises `PresenceError` when the connection cannot go on."""

    def stop(self, topic: str, reason: str, *, crashed: bool) -> None:
        """The hub ends the membership of a topic, if there is one: say so to the client, and leave it."""

    def end(self, reason: str) -> None:
        """The connection is over, or will be: leave every topic, without a word to the client."""


class Peer:
    """What the hub knows of one transport. Small: there are many of them, and most are idle."""

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
        self.address = address  # where it is, if the driver says so
        self.websocket = websocket
        self.outbox = outbox
        self._timers = timers
        self._clock = clock
        self.deflate_bits: int | None = None  # of the WebSocket, at hand: it is asked for with each message
        self.phase = Phase.HANDSHAKE
        self.session: Session | None = None  # while OPEN
        self.chance_after: float | None = None  # the `last_seen` after which it had its second chance
        self.last_seen = clock.now  # when bytes last came
        self.farewell: tuple[int, str] | None = None  # the close code and reason that we have sent
        self.is_served = True  # what comes is handled: not during a slow join, nor when it is gone
        self.lost: str | None = None  # why the transport is gone, while what came before is handled

    def accept(self, subprotocol: str | None) -> None:
        """Let the client in."""
        self.websocket.accept(subprotocol=subprotocol)
        self.flush()
        self.deflate_bits = self.websocket.deflate_bits
        self.phase = Phase.OPEN

    def send(self, frame: EncodedFrame) -> None:
        """Send a message. Only a session does, and it ends before the WebSocket closes."""
        data = server_frame(frame.data, text=frame.text, deflate_bits=self.deflate_bits)
        self.outbox.send(self.conn, data)

    def send_shared(self, form: EncodedMessage) -> None:
        """Send a message that others get, too."""
        self.outbox.send(self.conn, form.frame(self.deflate_bits))

    def lose(self, reason: str) -> None:
        """The transport is gone. What is sent goes nowhere from now on."""
        self.lost = reason
        self.outbox = Outbox()  # which nobody drains

    def end_session(self, reason: str) -> None:
        """The client is not listened to any more, and leaves its topics."""
        session, self.session = self.session, None
        if session is not None:
            session.end(reason)

    def close(self, code: int, reason: str, why: str, *, timeout: float) -> None:
        """Start the closing handshake, which may take `timeout` seconds.

        `reason` is for the client, `why` for the hub's user.
        """
        self.phase, self.is_served = Phase.CLOSING, True
        self.farewell = code, why
        self.end_session(why)
        self.websocket.close(code, reason)
        self.flush()
        self._timers.set(self.conn, self._clock.now + timeout)

    def end(self, why: str, *, timeout: float) -> None:
        """End the session. The stream ends `timeout` seconds later, without a close frame."""
        self.phase, self.is_served = Phase.ENDING, True
        self.farewell = ABNORMAL, why
        self.end_session(why)
        self._timers.set(self.conn, self._clock.now + timeout)

    def flush(self) -> None:
        """Pass on what the WebSocket wants to be written."""
        self.outbox.send(self.conn, self.websocket.data_to_send())
