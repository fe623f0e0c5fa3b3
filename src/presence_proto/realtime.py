"""`RealtimeClient`: many Phoenix or Supabase channels on one connection that heals itself.

What the application asked for is kept, and restored after every loss: the channels it joined, what it is
tracked as in them, its access token. What the server says comes out as events, none of it dropped in
silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import evolve
from msgspec import Raw

from presence_proto import events
from presence_proto.channel import Channel, ChannelState
from presence_proto.config import ChannelConfig
from presence_proto.connection import (
    Connection,
    ConnectionState,
    HeartbeatDue,
    TokenDue,
    TokenRequests,
    Up,
    check_expires_in,
)
from presence_proto.endpoint import AccessTokenNeeded, CloseTransport, OpenTransport, Outbox, SansIO, SendData
from presence_proto.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from presence_proto.json_text import encode, encode_payload
from presence_proto.phoenix_socket import UNMATCHED, ChannelTimer, Overdue, PhoenixSocket
from presence_proto.presence import PresenceMap
from presence_proto.serializer import Message, UserBroadcast, UserReader
from presence_proto.timers import Clock
from presence_proto.validators import is_number
from presence_proto.websocket import BinaryMessage, TextMessage

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from presence_proto.config import RealtimeConfig
    from presence_proto.connection import Down
    from presence_proto.endpoint import ConnId
    from presence_proto.phoenix_socket import OuterClient

# Python 3.11 takes as long to look up a member as to call a function.
_CLOSED = ChannelState.CLOSED
_IDLE = ConnectionState.IDLE

RealtimeOutput: TypeAlias = (
    OpenTransport | SendData | CloseTransport | AccessTokenNeeded | events.RealtimeEvent
)


class RealtimeClient(SansIO):
    """A Phoenix Channels and Supabase Realtime client. An endpoint in the sense of the driver contract.

    `rng` is used for the jitter of the backoff and the nonce of the upgrade; without one there is no jitter.
    `host` is for a client that is part of another one. `now` is seconds of one monotonic clock. A command
    that is not legal raises `LocalProtocolError` before anything changes; a fact never raises, whatever the
    peer does.
    """

    def __init__(
        self, config: RealtimeConfig, *, rng: Random | None = None, host: OuterClient | None = None
    ) -> None:
        self._config = config
        self._clock = Clock() if host is None else host.clock
        self._outbox: Outbox[AccessTokenNeeded | events.RealtimeEvent] = (
            Outbox() if host is None else host.outbox
        )
        self._connection = Connection(
            config, lambda: config.address(self._socket.token), self._outbox, rng=rng
        )
        self._socket = PhoenixSocket(config, self._connection, self._outbox, rng, host)
        self._serializer = self._socket.serializer
        decode = self._serializer.decode_text if host is None else UserReader(self._serializer).decode
        self._decode_text: Callable[[str], Message] = decode
        self._channels: dict[str, Channel] = {}
        self._heartbeats: set[str] = set()  # refs of heartbeats without a reply
        self._tokens = TokenRequests(config, self._outbox, rng)
        self._joining: dict[str, None] = {}  # topics to be joined as soon as there is a fresh token
        self._deadline = inf  # the earliest of all timers, as of the last command or fact; in seconds

    # ---------------------------------------------------------------- getters

    @property
    def is_connected(self) -> bool:
        """Whether the WebSocket is open."""
        return self._socket.is_open

    @property
    def bytes_received(self) -> int:
        """Bytes that were received so far. Of messages that came compressed it is their inflated size."""
        return self._outbox.bytes_received

    @property
    def is_closed(self) -> bool:
        """Whether the client is at rest: not connected, and not trying to be."""
        return self._connection.state is _IDLE

    @property
    def channels(self) -> tuple[str, ...]:
        """The topics that were joined and not left, oldest first."""
        return tuple(self._channels)

    def state_of(self, topic: str) -> ChannelState:
        """Where the channel is; CLOSED when there is none."""
        channel = self._channels.get(topic)
        return ChannelState.CLOSED if channel is None else channel.state

    def presence(self, topic: str) -> PresenceMap:
        """The live presence of a topic. Raises `LocalProtocolError` when it was not joined, or is left."""
        channel = self._channels.get(topic)
        if channel is None:
            raise LocalProtocolError(f"{topic!r} is not joined")
        presence = channel.presence
        assert isinstance(presence, PresenceMap), "the presence of a client inside another is its host's"
        return presence

    def is_synced(self, topic: str) -> bool:
        """Whether the presence of the topic is the server's of now. False: it is stale, or not there yet."""
        channel = self._channels.get(topic)
        return channel is not None and channel.is_synced

    @property
    def latency(self) -> float | None:
        """How long the latest heartbeat took there and back, in seconds; `None` before there was one."""
        return self._connection.latency

    def redacted(self, text: str) -> str:
        """`text` of the server's for people to read: without our secrets, which it may quote."""
        return self._connection.credentials.hide(text)

    # ---------------------------------------------------------------- commands

    def connect(self, *, now: float) -> None:
        """Connect, and stay connected until `disconnect`."""
        if not self.is_closed:
            raise LocalProtocolError("connect was called before")
        now = self._clock.advance(now)
        self._connection.open(now)
        self._settle(now)

    def disconnect(self, *, now: float) -> None:
        """Close the connection for good. The channels stay wanted, and come back with `connect`."""
        now = self._clock.advance(now)
        was_open = self._socket.is_open
        self._connection.close(now)
        if was_open:  # nothing can be sent any more, and what still comes is not read
            self._lost("disconnect was called", "disconnect was called", retry=False)
            self._tokens.stop()
        self._settle(now)

    def join(
        self, topic: str, params: Mapping[str, Any] | ChannelConfig | None = None, *, now: float
    ) -> None:
        """Join a topic, and stay in it until `leave`.

        `params` is a `ChannelConfig` for Supabase, or the join's payload for plain Phoenix; `None` means a
        default `ChannelConfig` for a `realtime:` topic and `{}` for another, which cannot be joined with a
        `ChannelConfig`. Joining a topic again changes nothing, but that a channel which has stopped asking
        (`JoinFailed.final`) asks again.
        """
        if not isinstance(topic, str) or not topic or topic == "phoenix":
            raise LocalProtocolError(f"topic must be a non-empty string other than 'phoenix', not {topic!r}")
        if params is None:
            params = ChannelConfig() if topic.startswith("realtime:") else {}
        if not isinstance(params, (ChannelConfig, Mapping)):
            raise LocalProtocolError(
                f"params must be a mapping or a ChannelConfig, not {type(params).__name__}"
            )
        if isinstance(params, ChannelConfig) and not topic.startswith("realtime:"):
            raise LocalProtocolError(
                f"a ChannelConfig is for Supabase, whose topics begin with 'realtime:': join "
                f"{'realtime:' + topic!r}, or give a mapping if {topic!r} is a plain Phoenix topic"
            )
        channel, old = Channel(topic, params, self._socket), self._channels.get(topic)
        if old is not None and old.state is not ChannelState.LEAVING:
            if old.params != channel.params:
                raise LocalProtocolError(f"{topic!r} is joined with other params: leave it first")
            now = self._clock.advance(now)
            if old.is_parked:
                old.forget_refusals()
                if self._socket.is_open:
                    self._join(old, now)
            self._settle(now)  # what is due may have waited for this
            return
        if old is None and len(self._channels) >= self._config.max_channels:
            raise LocalProtocolError(f"no more than {self._config.max_channels} channels (max_channels)")
        now = self._clock.advance(now)
        if old is not None:
            old.left()
        self._channels[topic] = channel
        if self._socket.is_open:
            self._join(channel, now)
        self._settle(now)

    def leave(self, topic: str, *, now: float) -> None:
        """Leave a topic. `ChannelLeft` follows: at once, or when the server has answered."""
        channel = self._channel(topic)
        now = self._clock.advance(now)
        channel.leave(now)
        self._forget_if_left(channel)
        self._settle(now)

    def push(
        self, topic: str, event: str, payload: Any = None, *, timeout: float | None = None, now: float
    ) -> int:
        """Push an event with a JSON payload (default `{}`) or, on V2, bytes, and return the push's id.

        `PushReplied` or `PushFailed` follows. Before the join, the push waits for it. `timeout` (seconds,
        default `push_timeout`) counts from now. When the channel crashes or the connection ends, the push
        fails at once; when the server closes the channel in order, its reply may still come.
        """
        if not isinstance(event, str) or not event or event.startswith("phx_"):
            raise LocalProtocolError(f"event must be a non-empty string that is not 'phx_…', not {event!r}")
        channel = self._channel(topic)
        encoded = self._encoded({} if payload is None else payload, self._config.payload_nesting)
        return self._push(channel, event, encoded, timeout, wants_reply=True, now=now)

    def broadcast(
        self, topic: str, event: str, payload: Any = None, *, timeout: float | None = None, now: float
    ) -> int:
        """Broadcast an event in a Supabase channel, and return the push's id.

        `payload` is JSON (default `{}`) or, on V2, bytes. `PushReplied` or `PushFailed` follows when the
        channel was joined with `broadcast_ack`; otherwise nothing is heard of it again, unless it expires
        before the join.
        """
        channel = self._channel(topic)
        params = channel.params
        if not isinstance(params, ChannelConfig):
            raise LocalProtocolError(
                f"{topic!r} is a plain Phoenix channel, which has no broadcasts: use push"
            )
        if not isinstance(event, str) or not event:
            raise LocalProtocolError(f"event must be a non-empty string, not {event!r}")
        message: Any
        if isinstance(payload, (bytes, bytearray, memoryview)):
            message = UserBroadcast(event, bytes(payload), {})
        else:
            message = {"type": "broadcast", "event": event, "payload": {} if payload is None else payload}
            if type(payload) is Raw:  # JSON already: there is nothing to check
                message = Raw(encode(message))
            else:
                message = encode_payload(message, self._config.payload_nesting + 1)
        return self._push(channel, "broadcast", message, timeout, wants_reply=params.broadcast_ack, now=now)

    def track(self, topic: str, payload: Mapping[str, Any] | Raw, *, now: float) -> None:
        """Be present in a topic with this payload, now and after every rejoin.

        Calls are coalesced within the channel's budget (`track_limit`), latest wins; what the server was
        told last is not told again. `TrackFailed` follows if the server refuses.
        """
        if type(payload) is not Raw and not isinstance(payload, Mapping):
            raise LocalProtocolError(f"the payload must be a mapping, not {type(payload).__name__}")
        channel = self._channel(topic)
        # Raw: of a client that this one is part of, an object that is JSON already.
        raw = (
            payload
            if isinstance(payload, Raw)
            else encode_payload(dict(payload), self._config.payload_nesting)
        )
        now = self._clock.advance(now)
        channel.track(raw, now)
        self._settle(now)

    def untrack(self, topic: str, *, now: float) -> None:
        """Stop being present in a topic."""
        channel = self._channel(topic)
        now = self._clock.advance(now)
        channel.track(None, now)
        self._settle(now)

    def set_access_token(self, token: str | None, *, expires_in: float | None = None, now: float) -> None:
        """Use another access token: at once in joined Supabase channels, in later joins, in the next URL.

        It is the answer to `AccessTokenNeeded`, too. `expires_in`: seconds that it is good for, if that is
        known; with `asks_for_token` another one is asked for before they are over.
        """
        check_expires_in(expires_in)
        try:
            evolve(self._config, access_token=token)
        except ConfigError as exc:
            raise LocalProtocolError(str(exc)) from None
        now = self._clock.advance(now)
        self._socket.token = token
        self._connection.credentials.add(token)
        for channel in self._channels.values():
            channel.refresh_token(now)
        if self._connection.is_wanted:
            self._tokens.answered(expires_in, now)
            self._go_on(now)
        self._settle(now)

    def access_token_failed(self, reason: str, *, now: float) -> None:
        """Say that there is no access token now, in answer to `AccessTokenNeeded`. It is asked for again.

        `reason` is for people: `AccessTokenFailed` has it. When no answer is awaited, this does nothing.
        """
        if not isinstance(reason, str):
            raise LocalProtocolError(f"reason must be a string, not {type(reason).__name__}")
        now = self._clock.advance(now)
        if self._tokens.is_open:
            self._no_token(reason, now)
        self._settle(now)

    # ---------------------------------------------------------------- facts

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """The byte stream that `OpenTransport` asked for is there."""
        now = self._clock.advance(now)
        self._connection.transport_opened(conn)
        self._settle(now)

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Bytes came in."""
        now = self._clock.advance(now)
        self._connection.receive_data(conn, data)
        self._pump(now)
        self._deadline = self._first_deadline()
        if self._deadline <= now:
            self._settle(now)

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """The byte stream ended, or could not be opened; `reason` is for people."""
        now = self._clock.advance(now)
        self._connection.transport_closed(conn, reason, now)
        self._settle(now)

    def tick(self, *, now: float) -> None:
        """Time passed. An early or repeated tick does nothing."""
        self._settle(self._clock.advance(now))

    # ---------------------------------------------------------------- outputs

    def drain(self) -> Sequence[RealtimeOutput]:
        """All outputs since the last drain, oldest first; empty when there are none."""
        return self._outbox.drain()

    def next_deadline(self) -> float | None:
        """When `tick` is due, on the clock of `now`; `None`: there is nothing to wait for."""
        return None if self._deadline == inf else self._deadline

    # ---------------------------------------------------------------- inside

    def _channel(self, topic: str) -> Channel:
        channel = self._channels.get(topic)
        if channel is None or channel.state is ChannelState.LEAVING:
            raise LocalProtocolError(f"{topic!r} is not joined")
        return channel

    def _encoded(self, payload: Any, levels: int) -> Raw | bytes | UserBroadcast:
        if isinstance(payload, (bytearray, memoryview)):
            return bytes(payload)
        return payload if isinstance(payload, (bytes, UserBroadcast)) else encode_payload(payload, levels)

    def _push(
        self,
        channel: Channel,
        event: str,
        payload: Raw | bytes | UserBroadcast,
        timeout: float | None,
        *,
        wants_reply: bool,
        now: float,
    ) -> int:
        timeout = self._config.push_timeout if timeout is None else timeout
        if not is_number(timeout) or timeout <= 0:
            raise LocalProtocolError(f"timeout must be a positive number of seconds, not {timeout!r}")
        if channel.queued >= self._config.max_pending_pushes:
            raise LocalProtocolError(
                f"{channel.queued} pushes (max_pending_pushes) wait for the join of {channel.topic!r}"
            )
        now = self._clock.advance(now)
        push = self._socket.new_push(channel.topic, event, payload, now + timeout, wants_reply=wants_reply)
        channel.push(push)
        self._settle(now)
        return push.push_id

    def _first_deadline(self) -> float:
        """The earliest deadline of all timers, in seconds; infinite when there is none."""
        first, second = self._connection.timers.first, self._socket.timers.first
        if second < first:
            first = second
        return min(first, self._tokens.timers.first) if self._config.asks_for_token else first

    def _settle(self, now: float) -> None:
        """Handle what came in, then what is due: so a reply that is there beats its timeout."""
        if self._connection.has_more:
            self._pump(now)
        while (deadline := self._first_deadline()) <= now:
            self._connection.tick(now)
            self._pump(now)
            while (timer := self._socket.timers.pop_expired(now)) is not None:
                self._expired(*timer, now)
            if self._tokens.tick(now):
                self._no_token(f"no answer within {self._config.access_token_timeout:g} s", now)
        self._deadline = deadline

    def _pump(self, now: float) -> None:
        connection = self._connection
        while True:
            for message in connection.take_messages():
                self._receive(message, now)
            if not connection.has_more:  # nearly always: whole messages came, and nothing else
                return
            event = connection.next_event(now)
            if event is None:
                return
            if isinstance(event, (TextMessage, BinaryMessage)):
                self._receive(event.data, now)
            elif isinstance(event, HeartbeatDue):
                self._heartbeats.add(self._socket.send(None, "phoenix", "heartbeat", {}))
            elif isinstance(event, Up):
                self._up(now)
            elif isinstance(event, TokenDue):
                self._tokens.need(now)
            else:
                self._down(event)

    def _up(self, now: float) -> None:
        self._socket.emit(events.SocketConnected())
        self._socket.timers.set((ChannelTimer.STABLE, ""), now + self._config.stable_after)
        for channel in self._channels.values():
            channel.join(now)

    def _down(self, down: Down) -> None:
        self._socket.emit(
            events.SocketDisconnected(down.reason, down.code, down.status, down.retry_in, down.fatal)
        )
        self._lost("the connection ended", down.reason, retry=down.retry_in is not None)
        if down.retry_in is None:
            self._tokens.stop()

    def _lost(self, reason: str, details: str, *, retry: bool) -> None:
        self._heartbeats.clear()
        self._joining.clear()
        self._tokens.connection_lost()
        self._socket.timers.cancel((ChannelTimer.STABLE, ""))
        self._socket.connection_lost(details)
        for channel in list(self._channels.values()):
            channel.connection_lost(reason, retry=retry)
            self._forget_if_left(channel)

    def _join(self, channel: Channel, now: float) -> None:
        """Join; where a token is asked for, with a fresh one."""
        if self._config.asks_for_token and isinstance(channel.params, ChannelConfig):
            self._joining[channel.topic] = None
            self._tokens.need(now)
        else:
            channel.join(now)

    def _go_on(self, now: float) -> None:
        """There is an access token: do what has waited for it."""
        if self._connection.awaits_token:
            self._connection.proceed(now)
        joining, self._joining = self._joining, {}
        for topic in joining:
            channel = self._channels.get(topic)
            if channel is not None and channel.state is ChannelState.WAITING:
                channel.join(now)

    def _no_token(self, reason: str, now: float) -> None:
        words = self._socket.quote(f"no access token: {reason}")
        self._socket.emit(events.AccessTokenFailed(words, self._tokens.failed(now)))

    def _receive(self, data: str | bytes, now: float) -> None:
        topic = None
        try:
            if isinstance(data, str):
                message = self._decode_text(data)
            else:
                message = self._serializer.decode(BinaryMessage(data))
            topic = message.topic
            channel = self._channels.get(topic)
            if message.event == "phx_reply":
                self._reply(message, channel, now)
            elif channel is not None:
                channel.receive(message, now)
                if channel.state is _CLOSED:
                    self._forget_if_left(channel)
        except RemoteProtocolError as exc:
            deep = self._socket.too_deep(data) if isinstance(data, str) else None
            if deep is None:
                self._socket.violated(exc, topic)
            else:
                self._too_deep(*deep, now)

    def _too_deep(self, exc: RemoteProtocolError, message: Message | None, now: float) -> None:
        """A message nests too deeply. Presence is taken without what lies too deep: the meta of one user must
        not keep the presence of all others from us.
        """
        topic = None if message is None else message.topic
        if message is None or message.event not in ("presence_state", "presence_diff"):
            self._socket.violated(exc, topic)
            return
        channel = self._channels.get(message.topic)
        if channel is not None and channel.hears_presence(message):
            self._socket.violated(exc, topic)
            try:
                channel.receive(message, now)
            except RemoteProtocolError as other:
                self._socket.violated(other, topic)

    def _reply(self, message: Message, channel: Channel | None, now: float) -> None:
        reply, ref = message.payload, message.ref
        if not isinstance(reply, dict) or not isinstance(reply.get("status"), str):
            self._socket.emit(
                events.ProtocolViolation("a reply must be an object with a string status", message.topic)
            )
            self._join_answered(message, channel, "nothing that is a reply", None, now)
            return
        status, response = reply["status"], reply.get("response")
        if message.topic == "phoenix":
            if ref in self._heartbeats:
                self._heartbeats.clear()
                self._connection.heartbeat_acked(now)
                if self._socket.joins:
                    assert isinstance(ref, str)
                    self._socket.joins.passed(int(ref), now)
            return
        join_ref = self._socket.replied(ref, status, response)
        if join_ref is None:
            if not self._join_answered(message, channel, status, response, now) and channel is not None:
                channel.replied(ref)
                self._forget_if_left(channel)
        elif channel is not None and status == "error" and response == UNMATCHED:
            channel.unmatched(join_ref, now)

    def _join_answered(
        self, message: Message, channel: Channel | None, status: str, response: Any, now: float
    ) -> bool:
        """The answer to a join, if it is one."""
        ref = message.ref
        if not isinstance(ref, str) or not self._socket.joins.answered(message.topic, ref, now):
            return False
        if channel is not None:
            channel.join_answered(ref, status, response, now)
        return True

    def _join_is_due(self, topic: str, now: float) -> None:
        """The timer of a join fired, of a channel or of one that was left meanwhile."""
        joins, channel = self._socket.joins, self._channels.get(topic)
        overdue = joins.expired(topic, now)
        if overdue is Overdue.LATE:
            if not any(int(ref) > joins.number_of(topic) for ref in self._heartbeats):
                self._connection.beat(now)
                self._pump(now)
            if channel is not None:
                channel.join_is_late(joins.longest)
        elif overdue is Overdue.REPEAT and channel is not None:
            channel.join_was_lost(now)

    def _expired(self, slot: ChannelTimer, name: str | int, now: float) -> None:
        if slot is ChannelTimer.PUSH:
            assert isinstance(name, int)
            if not self._socket.expired(name):
                any(channel.push_expired(name) for channel in self._channels.values())
        elif name == "":
            if not self._channels:
                self._socket.reset_backoff()
        elif slot is ChannelTimer.JOIN:
            assert isinstance(name, str)
            self._join_is_due(name, now)
        else:
            assert isinstance(name, str)
            channel = self._channels[name]
            if slot is ChannelTimer.REJOIN:
                self._join(channel, now)
                return
            channel.expired(slot, now)
            self._forget_if_left(channel)

    def _forget_if_left(self, channel: Channel) -> None:
        if channel.state is ChannelState.CLOSED:
            del self._channels[channel.topic]
