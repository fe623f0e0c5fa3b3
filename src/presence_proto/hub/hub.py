"""The hub handles the transports, handshakes and timers of a server. Sessions handle the messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto.endpoint import CloseTransport, ConnId, OpenTransport, Outbox, SansIO, SendData
from presence_proto.errors import LocalProtocolError, PresenceError
from presence_proto.events import ClientConnected, ClientDisconnected, ClientRefused, HubEvent
from presence_proto.hub import limits
from presence_proto.hub.admission import STOPPING, Admission, Places, Refusal, judge
from presence_proto.hub.config import HubConfig
from presence_proto.hub.jarvis import JarvisSession, JarvisUsers
from presence_proto.hub.peer import ABNORMAL, Peer, Phase, Session
from presence_proto.hub.phoenix import PhoenixSession
from presence_proto.hub.topic import Grace, Leave, SlowJoin, TimerName, Topics, announcement
from presence_proto.timers import Clock, Timers
from presence_proto.validators import is_unicode
from presence_proto.websocket import BinaryMessage, Closed, HandshakeRequest, TextMessage, WebSocket
from presence_proto.websocket.protocol import is_sendable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from presence_proto.hub.topic import Meta

UNAUTHORIZED = 401  # HTTP status without a valid API key, the only status that can be delayed
PROGRESS = 512
"""Minimum number of bytes in one read that count as client activity without a complete frame."""

LATE = 0.5  # seconds; after a tick that is later than this, the hub may have unread data in its sockets
SECOND_CHANCE = 5.0
"""Maximum extension of a client's timeout, in seconds.

The hub may have been suspended, or busy with other clients. In that case, unread data of a seemingly silent
client may be in its socket. The hub therefore reads for this additional time before it ends the connection.
"""

GOING_AWAY, INTERNAL_ERROR, SERVICE_RESTART = 1001, 1011, 1012


class Hub(SansIO):
    """A sans-IO server core for Phoenix, Supabase and Jarvis JSON clients. A driver does the I/O.

    The driver gives each accepted transport a `ConnId` greater than all previous ones, and reports the
    transport with `transport_opened`. All calls take `now` in seconds of one monotonic clock. With an `rng`,
    the refs and generated presence keys differ between hubs, as required by clients that outlive a hub.
    Without an `rng`, refs and generated presence keys are the same in every run.

    Connections are served in turns of bounded work (see `limits.py`). While received bytes of any connection
    wait for a turn, `next_deadline` returns the current time. `wants_data` tells the driver whether to read
    from a connection.
    """

    _adapters = "presence_adapters.server.HubServer and presence_adapters.server.HubThread run it"

    def __init__(self, config: HubConfig | None = None, *, rng: Random | None = None) -> None:
        self._config = HubConfig() if config is None else config
        self._clock = Clock()
        self._timers: Timers[TimerName] = Timers()
        self._outbox: Outbox[HubEvent] = Outbox()
        self._topics = Topics(self._config, self._clock, self._timers, self._outbox, rng)
        self._jarvis = JarvisUsers(self._topics, self._timers)
        self._peers: dict[ConnId, Peer] = {}
        self._last_conn = -1
        self._places = Places(self._config)
        limits = self._config.idle_timeout, self._config.eviction_timeout, self._config.handshake_timeout
        self._second_chance = min(SECOND_CHANCE, *limits)
        self._stopping = False
        self._refused: dict[ConnId, Refusal] = {}  # delayed refusals of handshakes
        self._backlog: dict[ConnId, Peer] = {}  # connections that wait for a turn, in their order

    # ---------------------------------------------------------------- getters

    @property
    def connections(self) -> tuple[ConnId, ...]:
        """The open connections, oldest first. Connections in their closing handshake are not included."""
        return tuple(
            conn for conn, peer in self._peers.items() if peer.phase is Phase.OPEN and peer.lost is None
        )

    @property
    def topics(self) -> tuple[str, ...]:
        """The names of the topics that have members."""
        return self._topics.names

    @property
    def waiting(self) -> tuple[str, ...]:
        """The names of the topics with presence changes that wait for the end of the presence window."""
        return self._topics.waiting

    @property
    def is_closed(self) -> bool:
        """Whether the hub was shut down and has no transports left."""
        return self._stopping and not self._peers

    def online(self, topic: str) -> Mapping[str, tuple[Meta, ...]]:
        """Return the current metas of a topic by presence key, newest last."""
        return self._topics.online(topic)

    @property
    def has_backlog(self) -> bool:
        """Whether received bytes wait for a turn. If so, a `tick` is due and handles a part of the bytes."""
        return bool(self._backlog)

    def wants_data(self, conn: ConnId) -> bool:
        """Whether the driver should read from a connection.

        The result is `False` while received bytes of the connection wait for a turn or for a slow join. TCP
        then slows the client down. If the driver passes bytes nevertheless, the hub keeps the bytes.
        """
        peer = self._peers.get(conn)
        return peer is None or (peer.is_served and conn not in self._backlog)

    # ---------------------------------------------------------------- facts

    def transport_opened(self, conn: ConnId, *, now: float, address: str | None = None) -> None:
        """Report an accepted transport. Raises `LocalProtocolError` unless `conn` is larger than all before.

        `address` is the peer's address, such as its IP address, for `HubConfig.max_connections_per_address`.
        """
        if conn <= self._last_conn:
            raise LocalProtocolError(f"connection ids must increase: {conn} came after {self._last_conn}")
        self._advance(now)
        self._last_conn = conn
        if self._stopping:
            self._outbox.put(CloseTransport(conn))
            return
        refusal = self._places.open(address)
        if refusal is not None:
            # Abort without an HTTP answer: the number of transports is too large even for refusals.
            self._outbox.put(ClientRefused(conn, refusal.status, refusal.reason))
            self._outbox.put(CloseTransport(conn, abort=True))
            return
        websocket = WebSocket.server(
            deflate=self._config.deflate, max_message_size=self._config.max_message_size
        )
        self._peers[conn] = Peer(conn, websocket, self._outbox, self._timers, self._clock, address)
        self._timers.set(conn, self._clock.now + self._config.handshake_timeout)

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Report received bytes, and handle one turn of the messages in these bytes.

        The content of `data` never causes an exception.
        """
        self._clock.advance(now)
        peer = self._peers.get(conn)
        if peer is not None and data:
            self._receive(peer, data)
        self._advance(now)  # timers come last: the received bytes may extend the timers

    def _receive(self, peer: Peer, data: bytes | bytearray | memoryview) -> None:
        if len(data) >= PROGRESS:
            peer.last_seen = self._clock.now
        peer.websocket.receive_data(data)
        self._turn(peer)

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """Report a closed or lost transport. The hub first handles the waiting bytes of the transport."""
        self._advance(now)
        peer = self._peers.get(conn)
        if peer is None:
            return
        peer.lose(reason)
        if conn not in self._backlog:
            self._on_lost(peer, reason)
            self._topics.settle()

    def tick(self, *, now: float) -> None:
        """Report that time has passed. Waiting connections take turns up to the work limit of a tick."""
        self._clock.advance(now)
        end = self._topics.work + limits.TICK
        while self._backlog and self._topics.work < end:
            self._turn(self._backlog.pop(next(iter(self._backlog))))
        self._advance(now, ticks=True)

    # ---------------------------------------------------------------- commands

    def broadcast(self, topic: str, event: str, payload: Any, *, now: float) -> None:
        """Send a message to all members of a topic. A Supabase topic receives a broadcast named `event`.

        `payload` is a JSON value, or bytes for a binary message. V1 clients do not receive binary messages.
        Raises `LocalProtocolError` when the payload cannot be encoded, or when the topic is plain and only
        the hub may send `event`.
        """
        shared = announcement(topic, event, payload, self._config.message_nesting)
        self._advance(now)
        self._topics.broadcast(topic, shared)

    def close_channel(
        self, topic: str, *, now: float, reason: str = "closed by the server", conn: ConnId | None = None
    ) -> None:
        """Close the channel of `topic` with `phx_close`, for the connection `conn` or for all connections.

        Supabase channels first send the reason in a `system` message.

        A Jarvis user in the topic goes offline at once, and the hub closes the user's connections with code
        1001. Raises `LocalProtocolError` when the reason is not valid Unicode.
        """
        if not is_unicode(reason):
            raise LocalProtocolError("the reason of a close must be valid Unicode")
        self._advance(now)
        self._stop_members(topic, conn, reason, crashed=False)

    def crash_channel(self, topic: str, *, now: float, conn: ConnId | None = None) -> None:
        """End the channel of `topic` with `phx_error`, like a crash, for the connection `conn` or for all.

        A Jarvis user in the topic goes offline at once, and the hub closes the user's connections with code
        1011.
        """
        self._advance(now)
        self._stop_members(topic, conn, "crashed", crashed=True)

    def disconnect(self, conn: ConnId, code: int = GOING_AWAY, reason: str = "", *, now: float) -> None:
        """Close a connection with a WebSocket close code. Does nothing for a closing or closed connection.

        Raises `LocalProtocolError` when a close frame must not carry the code, or when the reason has more
        than 123 bytes or is not valid Unicode.
        """
        if not is_sendable(code):
            raise LocalProtocolError(f"{code} is not a close code that can be sent")
        try:
            length = len(reason.encode())
        except UnicodeEncodeError:
            raise LocalProtocolError("the reason of a close must be valid Unicode") from None
        if length > 123:
            raise LocalProtocolError("the reason of a close must have at most 123 bytes")
        self._advance(now)
        peer = self._peers.get(conn)
        why = reason or "disconnected by the server"
        if peer is not None and peer.phase is Phase.HANDSHAKE:
            self._forget(peer, self._disconnected(peer, why, None))
        elif peer is not None and peer.phase is Phase.OPEN:
            self._close(peer, code, reason, why)
        self._topics.settle()

    def shutdown(self, *, now: float) -> None:
        """Close every connection with code 1012, refuse pending handshakes, and refuse new transports.

        With `HubConfig.shutdown_like="supabase"`, clients on Supabase's path receive `phx_error` for each
        channel instead of a close frame. The connections of these clients end after the close timeout.

        `is_closed` is true when all transports are gone, after the close timeout at the latest.
        """
        self._advance(now)
        if self._stopping:
            return
        self._stopping = True
        for peer in tuple(self._peers.values()):
            if peer.phase is Phase.OPEN:
                self._shut_down(peer)
            elif peer.phase is Phase.HANDSHAKE:
                self._timers.set(peer.conn, self._clock.now + self._config.close_timeout)
        self._jarvis.clear()
        self._topics.settle()

    def _shut_down(self, peer: Peer) -> None:
        assert peer.session is not None  # an open peer has a session
        if self._config.shutdown_like == "supabase" and peer.session.crash():
            peer.end(STOPPING.reason, timeout=self._config.close_timeout)
        else:
            self._close(peer, SERVICE_RESTART, "", STOPPING.reason)

    # ---------------------------------------------------------------- outputs

    def drain(self) -> Sequence[OpenTransport | SendData | CloseTransport | HubEvent]:
        """Return all outputs since the last drain, oldest first. A hub never emits `OpenTransport`."""
        return self._outbox.drain()

    def next_deadline(self) -> float | None:
        """Return the time of the next `tick`, or `None`.

        While received bytes wait for a turn, the result is the current time.
        """
        return self._clock.now if self._backlog else self._timers.next_deadline()

    # ---------------------------------------------------------------- turns

    def _turn(self, peer: Peer) -> None:
        """Handle received bytes of a connection, up to the work limit of a turn. The remaining bytes wait."""
        topics, websocket = self._topics, peer.websocket
        end = topics.work + limits.TURN
        while peer.is_served and (event := websocket.next_event(limits.LOOKS)) is not None:
            peer.last_seen = self._clock.now
            match event:
                case TextMessage() | BinaryMessage():
                    topics.work += len(event.data) >> limits.BYTES_SHIFT
                    self._on_message(peer, event)
                case HandshakeRequest():
                    self._on_request(peer, event)
                case Closed():
                    self._on_closed(peer, event)
                case _:
                    peer.flush()  # sends the pong that answers a ping; a pong needs no answer
            topics.settle()
            topics.work += limits.MESSAGE
            if topics.work >= end:
                break
        if peer.is_served and websocket.has_unread:
            topics.work = max(topics.work, end)  # fragments are work, too
            self._backlog[peer.conn] = peer
            return
        self._backlog.pop(peer.conn, None)
        if peer.lost is not None and peer.phase is not Phase.GONE:
            self._on_lost(peer, peer.lost)
            topics.settle()

    # ---------------------------------------------------------------- from handshake to end

    def _on_request(self, peer: Peer, request: HandshakeRequest) -> None:
        answer = self._judge(request, peer)
        if isinstance(answer, Refusal):
            delay = self._config.handshake_refusal_delay
            if answer.status == UNAUTHORIZED and delay and not self._stopping:
                self._refused[peer.conn] = answer
                self._timers.set(peer.conn, self._clock.now + delay)
            else:
                self._refuse(peer, answer)
            return
        peer.accept(answer.subprotocol)
        peer.session = self._session(peer, answer)
        self._timers.set(peer.conn, peer.session.deadline)
        self._outbox.put(ClientConnected(peer.conn, answer.path))

    def _refuse(self, peer: Peer, answer: Refusal) -> None:
        peer.websocket.reject(answer.status, headers=answer.headers, body=answer.body)
        self._forget(peer, ClientRefused(peer.conn, answer.status, answer.reason))

    def _judge(self, request: HandshakeRequest, peer: Peer) -> Admission | Refusal:
        if self._stopping:
            return STOPPING
        answer = judge(request, self._config)
        if isinstance(answer, Refusal):
            return answer
        return self._places.admit(peer.address) or answer

    def _session(self, peer: Peer, admission: Admission) -> Session:
        if admission.serializer is None:
            return JarvisSession(peer, self._topics, self._jarvis, admission.token)
        return PhoenixSession(peer, self._topics, admission, admission.serializer)

    def _on_message(self, peer: Peer, frame: TextMessage | BinaryMessage) -> None:
        if peer.session is None:
            return  # the hub is closing this connection and ignores its messages
        try:
            peer.session.receive(frame)
        except PresenceError as exc:
            self._on_malformed(peer, exc)

    def _on_malformed(self, peer: Peer, exc: PresenceError) -> None:
        self._close(peer, INTERNAL_ERROR, "malformed message", f"malformed message: {exc}")

    def _join_delay_ended(self, peer: Peer) -> None:
        assert isinstance(peer.session, PhoenixSession)
        try:
            peer.session.join_delay_ended()
        except PresenceError as exc:
            self._on_malformed(peer, exc)
        self._serve_on(peer)

    def _leave_ended(self, peer: Peer) -> None:
        assert isinstance(peer.session, PhoenixSession)
        peer.session.leave_ended()

    def _serve_on(self, peer: Peer) -> None:
        """Queue a connection with unread bytes for a turn, after a slow join or the start of a close."""
        if peer.is_served and peer.websocket.has_unread:
            self._backlog[peer.conn] = peer

    def _on_closed(self, peer: Peer, event: Closed) -> None:
        """Handle the end of a WebSocket.

        The closing handshake is done, or the client sent malformed HTTP or violated the WebSocket protocol.
        """
        if peer.phase is Phase.HANDSHAKE:
            answer = peer.websocket.data_to_send()
            self._outbox.send(peer.conn, answer)
            status = int(answer.split(maxsplit=2)[1])
            self._forget(peer, ClientRefused(peer.conn, status, event.reason))
        else:
            self._forget(peer, self._disconnected(peer, event.reason or "closed by the client", event.code))

    def _expired(self, peer: Peer, *, in_time: bool) -> None:
        """Handle the timer of a transport.

        `in_time` says whether the hub was reading the sockets until the timer was due.
        """
        if peer.session is not None and peer.session.deadline > self._clock.now:
            # The timer is not reset for every frame; the hub checks the last frame's time here instead.
            self._timers.set(peer.conn, peer.session.deadline)
        elif peer.session is not None and not self.wants_data(peer.conn):
            self._timers.set(peer.conn, self._clock.now + 1.0)  # not idle: some of its bytes are unread
        elif (refusal := self._refused.get(peer.conn)) is not None:
            self._refuse(peer, refusal)
        elif not in_time and self._may_have_more(peer):
            peer.chance_after = peer.last_seen
            self._timers.set(peer.conn, self._clock.now + self._second_chance)
        elif peer.session is not None:
            self._close(peer, peer.session.on_idle(), "idle timeout", "idle timeout")
        else:
            what = "handshake timeout" if peer.phase is Phase.HANDSHAKE else "close timeout"
            abort = peer.phase is not Phase.ENDING
            self._forget(peer, self._disconnected(peer, what, None), abort=abort)

    def _close(self, peer: Peer, code: int, reason: str, why: str) -> None:
        peer.close(code, reason, why, timeout=self._config.close_timeout)
        self._serve_on(peer)

    def _on_lost(self, peer: Peer, reason: str) -> None:
        code = None if peer.phase is Phase.HANDSHAKE else ABNORMAL
        self._forget(peer, self._disconnected(peer, reason, code))

    def _disconnected(self, peer: Peer, reason: str, code: int | None) -> ClientDisconnected:
        """Return the event for the end of a transport.

        If the hub closed the transport, the event has the hub's own close code and reason.
        """
        if peer.farewell is not None:
            code, reason = peer.farewell
        return ClientDisconnected(peer.conn, reason, code)

    def _forget(
        self,
        peer: Peer,
        event: ClientRefused | ClientDisconnected,
        *,
        abort: bool = False,
    ) -> None:
        """Remove a transport, and close the transport unless it is already lost."""
        self._places.leave(peer.address, admitted=peer.phase is not Phase.HANDSHAKE)
        peer.phase, peer.is_served = Phase.GONE, False
        self._backlog.pop(peer.conn, None)
        peer.end_session(event.reason)
        del self._peers[peer.conn]
        self._refused.pop(peer.conn, None)
        self._timers.cancel(peer.conn)
        if peer.lost is None:
            peer.flush()
            self._outbox.put(CloseTransport(peer.conn, abort))
        self._outbox.put(event)

    def _stop_members(self, topic: str, conn: ConnId | None, reason: str, *, crashed: bool) -> None:
        if conn is None:
            for member in self._topics.members(topic):
                member.stop(reason, crashed=crashed)
        elif (peer := self._peers.get(conn)) is not None and peer.session is not None:
            peer.session.stop(topic, reason, crashed=crashed)
        self._topics.settle()

    def _may_have_more(self, peer: Peer) -> bool:
        """Whether a silent peer may have unread data. Each silence extends the timeout only once."""
        is_listened_to = peer.phase in (Phase.HANDSHAKE, Phase.OPEN) and not self._stopping
        return is_listened_to and peer.chance_after != peer.last_seen

    def _advance(self, now: float, *, ticks: bool = False) -> None:
        """Set the clock to `now` and run the timers that are due.

        Raises `LocalProtocolError` for an invalid time.

        `ticks` says whether the caller is `tick`. Only a tick that is not late shows that the driver has read
        the other sockets before.
        """
        self._clock.advance(now)
        now = self._clock.now
        while (due := self._timers.next_deadline()) is not None:
            name = self._timers.pop_expired(now)
            if name is None:
                return
            in_time = ticks and now - due <= LATE
            match name:
                case str():
                    self._topics.window_ended(name)
                case Grace(user_id):
                    self._jarvis.grace_ended(user_id, second_chance=0 if in_time else self._second_chance)
                case SlowJoin(conn):
                    self._join_delay_ended(self._peers[conn])
                case Leave(conn):
                    self._leave_ended(self._peers[conn])
                case _:
                    self._expired(self._peers[name], in_time=in_time)
            self._topics.settle()
