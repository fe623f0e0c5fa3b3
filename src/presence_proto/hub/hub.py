"""The hub: the transports, handshakes and timers of a server. What is said on them is the sessions'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto.config import HubConfig
from presence_proto.errors import LocalProtocolError, PresenceError
from presence_proto.events import ClientConnected, ClientDisconnected, ClientRefused, HubEvent
from presence_proto.hub.handshake import STOPPING, TOO_MANY, Admission, Refusal, judge
from presence_proto.hub.ids import Grace, TimerName
from presence_proto.hub.jarvis import JarvisSession
from presence_proto.hub.jarvis_room import JarvisRoom
from presence_proto.hub.peer import Peer, Phase, Session
from presence_proto.hub.phoenix import PhoenixSession
from presence_proto.hub.topics import Topics, announcement
from presence_proto.outputs import CloseTransport, ConnId, OpenTransport, Outbox, SendData
from presence_proto.timers import Clock, Timers
from presence_proto.validators import is_unicode
from presence_proto.websocket import BinaryMessage, Closed, HandshakeRequest, TextMessage, WebSocket

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from presence_proto.hub.topic import Meta

GOING_AWAY, PROTOCOL_ERROR, ABNORMAL, INTERNAL_ERROR, SERVICE_RESTART = 1001, 1002, 1006, 1011, 1012


class Hub:
    """A server core for Phoenix and Supabase clients, and for those of the Jarvis JSON protocol. Its driver
    does the I/O.

    The driver names each accepted transport with a `ConnId` that grows, and reports it with
    `transport_opened`. All calls take `now` in seconds of one monotonic clock. With an `rng` the refs and
    made-up presence keys differ from one hub to the next, as clients that outlive a hub need it; without one
    they are the same in every run.
    """

    def __init__(self, config: HubConfig | None = None, *, rng: Random | None = None) -> None:
        self._config = HubConfig() if config is None else config
        self._clock = Clock()
        self._timers: Timers[TimerName] = Timers()
        self._outbox = self._make_outbox()
        self._topics = Topics(self._config, self._clock, self._timers, self._outbox, rng)
        self._jarvis = JarvisRoom(self._topics, self._timers)
        self._peers: dict[ConnId, Peer] = {}
        self._last_conn = -1
        self._admitted = 0  # transports that are past their handshake
        self._stopping = False

    # ---------------------------------------------------------------- getters

    @property
    def connections(self) -> tuple[ConnId, ...]:
        """The connections that are open and not closing, oldest first."""
        return tuple(conn for conn, peer in self._peers.items() if peer.phase is Phase.OPEN)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that have members."""
        return self._topics.names

    @property
    def waiting(self) -> tuple[str, ...]:
        """The topics with changes of the presence that wait for the end of the presence window."""
        return self._topics.waiting

    @property
    def is_closed(self) -> bool:
        """Whether the hub was shut down and the last transport is gone."""
        return self._stopping and not self._peers

    def online(self, topic: str) -> Mapping[str, tuple[Meta, ...]]:
        """Who is present in a topic now: the metas by presence key, the latest last."""
        return self._topics.online(topic)

    # ---------------------------------------------------------------- facts

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """A transport was accepted. Raises `LocalProtocolError` unless `conn` is greater than all before."""
        if conn <= self._last_conn:
            raise LocalProtocolError(f"connection ids only grow: {conn} came after {self._last_conn}")
        self._advance(now)
        self._last_conn = conn
        if self._stopping:
            self._outbox.put(CloseTransport(conn))
        elif len(self._peers) >= 2 * self._config.max_connections:
            # Too many even to tell them so.
            self._outbox.put(ClientRefused(conn, TOO_MANY.status, TOO_MANY.reason))
            self._outbox.put(CloseTransport(conn, abort=True))
        else:
            websocket = WebSocket.server(
                deflate=self._config.deflate, max_message_size=self._config.max_message_size
            )
            self._peers[conn] = Peer(conn, websocket, self._outbox, self._timers, self._clock)
            self._timers.set(conn, self._clock.now + self._config.handshake_timeout)

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Bytes came. Nothing that they hold raises."""
        self._advance(now)
        peer = self._peers.get(conn)
        if peer is None or not data:
            return
        peer.last_seen = self._clock.now
        peer.websocket.receive_data(data)
        while peer.phase is not Phase.GONE and (event := peer.websocket.next_event()) is not None:
            match event:
                case TextMessage() | BinaryMessage():
                    self._on_message(peer, event)
                case HandshakeRequest():
                    self._on_request(peer, event)
                case Closed():
                    self._on_closed(peer, event)
                case _:
                    peer.flush()  # pings are answered, pongs ask for nothing
            self._topics.settle()

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """The transport is gone, for whatever reason."""
        self._advance(now)
        peer = self._peers.get(conn)
        if peer is not None:
            code = None if peer.phase is Phase.HANDSHAKE else ABNORMAL
            self._forget(peer, self._disconnected(peer, reason, code), close=False)
            self._topics.settle()

    def tick(self, *, now: float) -> None:
        """Time has passed."""
        self._advance(now)

    # ---------------------------------------------------------------- commands

    def broadcast(self, topic: str, event: str, payload: Any, *, now: float) -> None:
        """Say something to all members of a topic: a Supabase broadcast, or `event` in a plain topic.

        `payload` is JSON, or bytes for a binary message, which V1 clients do not get. Raises
        `LocalProtocolError` when it cannot be encoded, or when `event` is one that a plain Phoenix topic
        keeps for the hub.
        """
        shared = announcement(topic, event, payload)
        self._advance(now)
        self._topics.broadcast(topic, shared)

    def close_channel(
        self, topic: str, *, now: float, reason: str = "closed by the server", conn: ConnId | None = None
    ) -> None:
        """End a channel in order (`phx_close`), for one connection or all. Supabase tells the reason.

        A Jarvis user in the topic has its connection closed, code 1001, and is offline at once. Raises
        `LocalProtocolError` when the reason is not valid Unicode.
        """
        if not is_unicode(reason):
            raise LocalProtocolError("the reason of a close must be valid Unicode")
        self._advance(now)
        self._stop_members(topic, conn, reason, crashed=False)

    def crash_channel(self, topic: str, *, now: float, conn: ConnId | None = None) -> None:
        """End a channel as a crash does (`phx_error`), of one connection or of all.

        A Jarvis user in the topic has its connection closed, code 1011, and is offline at once.
        """
        self._advance(now)
        self._stop_members(topic, conn, "crashed", crashed=True)

    def disconnect(self, conn: ConnId, code: int = GOING_AWAY, reason: str = "", *, now: float) -> None:
        """Close a connection with a WebSocket close code. Nothing happens when it is closing or gone.

        Raises `LocalProtocolError` when the code is not one to send, or the reason longer than 123 bytes.
        """
        if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
            raise LocalProtocolError(f"{code} is not a close code that can be sent")
        try:
            length = len(reason.encode())
        except UnicodeEncodeError:
            raise LocalProtocolError("the reason of a close must be valid Unicode") from None
        if length > 123:
            raise LocalProtocolError("the reason of a close has at most 123 bytes")
        self._advance(now)
        peer = self._peers.get(conn)
        why = reason or "disconnected by the server"
        if peer is not None and peer.phase is Phase.HANDSHAKE:
            self._forget(peer, self._disconnected(peer, why, None))
        elif peer is not None and peer.phase is Phase.OPEN:
            self._close(peer, code, reason, why)
        self._topics.settle()

    def shutdown(self, *, now: float) -> None:
        """Close every connection with code 1012, refuse what is still in its handshake, and take no new ones.

        The hub `is_closed` when all have gone, after the close timeout at the latest.
        """
        self._advance(now)
        if self._stopping:
            return
        self._stopping = True
        for peer in tuple(self._peers.values()):
            if peer.phase is Phase.OPEN:
                self._close(peer, SERVICE_RESTART, "", STOPPING.reason)
            elif peer.phase is Phase.HANDSHAKE:
                self._timers.set(peer.conn, self._clock.now + self._config.close_timeout)
        self._jarvis.clear()
        self._topics.settle()

    # ---------------------------------------------------------------- outputs

    def next_output(self) -> OpenTransport | SendData | CloseTransport | HubEvent | None:
        """The next thing to do or to know, or `None`. Never an `OpenTransport`."""
        return self._outbox.next()

    def next_deadline(self) -> float | None:
        """When to call `tick`, or `None`."""
        return self._timers.next_deadline()

    # ---------------------------------------------------------------- the life of a transport

    def _on_request(self, peer: Peer, request: HandshakeRequest) -> None:
        answer = self._judge(request)
        if isinstance(answer, Refusal):
            peer.websocket.reject(answer.status, headers=answer.headers, body=answer.body)
            self._forget(peer, ClientRefused(peer.conn, answer.status, answer.reason))
            return
        peer.accept(answer.subprotocol)
        peer.session = self._session(peer, answer)
        self._admitted += 1
        self._timers.set(peer.conn, peer.session.deadline)
        self._outbox.put(ClientConnected(peer.conn, answer.path))

    def _make_outbox(self) -> Outbox[HubEvent]:
        return Outbox()

    def _judge(self, request: HandshakeRequest) -> Admission | Refusal:
        if self._stopping:
            return STOPPING
        answer = judge(request, self._config)
        if self._admitted >= self._config.max_connections and not isinstance(answer, Refusal):
            return TOO_MANY
        return answer

    def _session(self, peer: Peer, admission: Admission) -> Session:
        if admission.serializer is None:
            return JarvisSession(peer, self._topics, self._jarvis, admission.token)
        return PhoenixSession(peer, admission.serializer, self._topics, realtime=admission.realtime)

    def _on_message(self, peer: Peer, frame: TextMessage | BinaryMessage) -> None:
        if peer.session is None:
            return  # we are closing, and do not listen any more
        try:
            peer.session.receive(frame)
        except PresenceError as exc:
            self._close(peer, INTERNAL_ERROR, "malformed message", f"malformed message: {exc}")

    def _on_closed(self, peer: Peer, event: Closed) -> None:
        """The closing handshake is done, or what came was no HTTP or broke the rules of WebSockets."""
        if peer.phase is Phase.HANDSHAKE:
            answer = peer.websocket.data_to_send()
            self._outbox.send(peer.conn, answer)
            status = int(answer.split(maxsplit=2)[1])
            self._forget(peer, ClientRefused(peer.conn, status, event.reason))
        else:
            self._forget(peer, self._disconnected(peer, event.reason or "closed by the client", event.code))

    def _expired(self, peer: Peer) -> None:
        """The timer of a transport has fired."""
        if peer.session is not None:
            # Not set again for every frame: it looks now when the last one came.
            if peer.session.deadline > self._clock.now:
                self._timers.set(peer.conn, peer.session.deadline)
            else:
                self._close(peer, PROTOCOL_ERROR, "idle timeout", "idle timeout")
        else:
            what = "handshake timeout" if peer.phase is Phase.HANDSHAKE else "close timeout"
            self._forget(peer, self._disconnected(peer, what, None), abort=True)

    def _close(self, peer: Peer, code: int, reason: str, why: str) -> None:
        peer.close(code, reason, why, timeout=self._config.close_timeout)

    def _disconnected(self, peer: Peer, reason: str, code: int | None) -> ClientDisconnected:
        """The event for the end of a transport. When the end was ours, so are the code and the reason."""
        if peer.farewell is not None:
            code, reason = peer.farewell
        return ClientDisconnected(peer.conn, reason, code)

    def _forget(
        self,
        peer: Peer,
        event: ClientRefused | ClientDisconnected,
        *,
        abort: bool = False,
        close: bool = True,
    ) -> None:
        """The end of a transport, which is to be closed unless it is already."""
        if peer.phase is not Phase.HANDSHAKE:
            self._admitted -= 1
        peer.phase = Phase.GONE
        peer.end_session(event.reason)
        del self._peers[peer.conn]
        self._timers.cancel(peer.conn)
        if close:
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

    def _advance(self, now: float) -> None:
        """Take in `now`, and do what was due. Raises `LocalProtocolError` when it is no time."""
        self._clock.advance(now)
        while (name := self._timers.pop_expired(self._clock.now)) is not None:
            match name:
                case str():
                    self._topics.window_ended(name)
                case Grace(user_id):
                    self._jarvis.grace_ended(user_id)
                case _:
                    self._expired(self._peers[name])
            self._topics.settle()
