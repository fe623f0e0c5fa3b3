"""One transport of the hub: its WebSocket, where it is in its life, and the way out for its bytes."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from presence_proto.websocket import server_frame

if TYPE_CHECKING:
    from presence_proto.events import HubEvent
    from presence_proto.hub.ids import TimerName
    from presence_proto.hub.topic import Form
    from presence_proto.outputs import ConnId, Outbox
    from presence_proto.serializer import EncodedFrame
    from presence_proto.timers import Clock, Timers
    from presence_proto.websocket import BinaryMessage, TextMessage, WebSocket


class Phase(Enum):
    """Where a transport is in its life. It goes down this list only, and may skip."""

    HANDSHAKE = auto()  # waiting for the upgrade request
    OPEN = auto()
    CLOSING = auto()  # our close frame is sent; the session is over
    GONE = auto()  # the hub has forgotten it


class Session(Protocol):
    """What is said on one open connection, in whatever protocol."""

    @property
    def deadline(self) -> float:
        """When the client has been silent for too long, if it stays so."""

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
        "_outbox",
        "_timers",
        "conn",
        "deflate_bits",
        "farewell",
        "last_seen",
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
    ) -> None:
        self.conn = conn
        self.websocket = websocket
        self._outbox = outbox
        self._timers = timers
        self._clock = clock
        self.deflate_bits: int | None = None  # of the WebSocket, at hand: it is asked for with each message
        self.phase = Phase.HANDSHAKE
        self.session: Session | None = None  # while OPEN
        self.last_seen = clock.now  # when bytes last came
        self.farewell: tuple[int, str] | None = None  # the close code and reason that we have sent

    def accept(self, subprotocol: str | None) -> None:
        """Let the client in."""
        self.websocket.accept(subprotocol=subprotocol)
        self.flush()
        self.deflate_bits = self.websocket.deflate_bits
        self.phase = Phase.OPEN

    def send(self, frame: EncodedFrame) -> None:
        """Send a message. Only a session does, and it ends before the WebSocket closes."""
        data = server_frame(frame.data, text=frame.text, deflate_bits=self.deflate_bits)
        self._outbox.send(self.conn, data)

    def send_shared(self, form: Form) -> None:
        """Send a message that others get, too."""
        self._outbox.send(self.conn, form.frame(self.deflate_bits))

    def end_session(self, reason: str) -> None:
        """The client is not listened to any more, and leaves its topics."""
        session, self.session = self.session, None
        if session is not None:
            session.end(reason)

    def close(self, code: int, reason: str, why: str, *, timeout: float) -> None:
        """Start the closing handshake, which may take `timeout` seconds.

        `reason` is for the client, `why` for the hub's user.
        """
        self.phase = Phase.CLOSING
        self.farewell = code, why
        self.end_session(why)
        self.websocket.close(code, reason)
        self.flush()
        self._timers.set(self.conn, self._clock.now + timeout)

    def flush(self) -> None:
        """Pass on what the WebSocket wants to be written."""
        self._outbox.send(self.conn, self.websocket.data_to_send())
