"""`RealtimeClient`: Phoenix or Supabase channels on one connection that reconnects by itself.

After every loss of the connection, the client restores the joined channels, the tracked payloads and the
access token. The client converts messages from the server to events, and malformed messages to
`ProtocolViolation` events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Raw

from presence_proto import events
from presence_proto.channel import Channel, ChannelState
from presence_proto.config import ChannelConfig
from presence_proto.connection import (
    Connection,
    ConnectionState,
    HeartbeatDue,
    TokenFailed,
    Up,
)
from presence_proto.endpoint import AccessTokenNeeded, CloseTransport, OpenTransport, Outbox, SansIO, SendData
from presence_proto.errors import LocalProtocolError, RemoteProtocolError
from presence_proto.json_text import encode_payload
from presence_proto.phoenix_socket import UNMATCHED, ChannelTimer, Overdue, PhoenixSocket
from presence_proto.presence import PresenceMap
from presence_proto.serializer import Message, SupabasePush, UserBroadcast, UserReader
from presence_proto.timers import Clock
from presence_proto.validators import is_number
from presence_proto.websocket import BinaryMessage

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from presence_proto.config import RealtimeConfig
    from presence_proto.connection import Down
    from presence_proto.endpoint import ConnId
    from presence_proto.phoenix_socket import OuterClient

# In Python 3.11, looking up an enum member is as slow as a function call.
_CLOSED = ChannelState.CLOSED
_IDLE = ConnectionState.IDLE
_NOTHING = Raw(b"{}")

RealtimeOutput: TypeAlias = (
    OpenTransport | SendData | CloseTransport | AccessTokenNeeded | events.RealtimeEvent
)


class RealtimeClient(SansIO):
    """A client for Phoenix Channels and Supabase Realtime, which implements `Endpoint`.

    The jitter of the backoff and the nonce of the upgrade come from `rng`. Without `rng`, the backoff has no
    jitter. `host` is the enclosing client, if this client is part of another client. `now` is the time of one
    monotonic clock, in seconds. An illegal command raises `LocalProtocolError` and changes nothing. The
    driver's inputs, such as `receive_data`, never raise because of the peer.
    """

    def __init__(
        self, config: RealtimeConfig, *, rng: Random | None = None, host: OuterClient | None = None
    ) -> None:
        self._config = config
        self._clock = Clock() if host is None else host.clock
        self._outbox: Outbox[AccessTokenNeeded | events.RealtimeEvent] = (
            Outbox() if host is None else host.outbox
        )
        self._connection = Connection(config, self._outbox, rng=rng)
        self._socket = PhoenixSocket(config, self._connection, self._outbox, rng, host)
        self._serializer = self._socket.serializer
        decode = self._serializer.decode_text if host is None else UserReader(self._serializer).decode
        self._decode_text: Callable[[str], Message] = decode
        self._channels: dict[str, Channel] = {}
        self._heartbeats: set[str] = set()  # refs of unanswered heartbeats
        self._joining: dict[str, None] = {}  # topics to join when a fresh token arrives
        self._deadline = inf  # in seconds; the earliest timer after the last call

    # ---------------------------------------------------------------- getters

    @property
    def is_connected(self) -> bool:
        """Whether the WebSocket is open."""
        return self._socket.is_open

    @property
    def bytes_received(self) -> int:
        """The number of bytes received so far. Compressed messages count with their inflated size."""
        return self._outbox.bytes_received

    @property
    def is_closed(self) -> bool:
        """Whether the client is neither connected nor trying to connect."""
        return self._connection.state is _IDLE

    @property
    def channels(self) -> tuple[str, ...]:
        """The topics that the application has joined and not left yet, oldest first."""
        return tuple(self._channels)

    def state_of(self, topic: str) -> ChannelState:
        """Return the state of a channel. The state is CLOSED if the topic is not in `channels`."""
        channel = self._channels.get(topic)
        return ChannelState.CLOSED if channel is None else channel.state

    def presence(self, topic: str) -> PresenceMap:
        """Return a topic's presence. Raises `LocalProtocolError` if the topic is not in `channels`."""
        channel = self._channels.get(topic)
        if channel is None:
            raise LocalProtocolError(f"{topic!r} is not joined")
        presence = channel.presence
        assert isinstance(presence, PresenceMap), (
            "a client inside another client has no presence map of its own"
        )
        return presence

    def is_synced(self, topic: str) -> bool:
        """Whether a topic's presence matches the server's current state, and is not stale or missing."""
        channel = self._channels.get(topic)
        return channel is not None and channel.is_synced

    @property
    def latency(self) -> float | None:
        """The round-trip time of the latest answered heartbeat in seconds, or `None` without an answer."""
        return self._connection.latency

    def redacted(self, text: str) -> str:
        """Return a text from the server without the client's secrets, which the server may quote."""
        return self._connection.credentials.hide(text)

    # ---------------------------------------------------------------- commands

    def connect(self, *, now: float) -> None:
        """Connect, and reconnect after every loss of the connection until `disconnect`."""
        if not self.is_closed:
            raise LocalProtocolError("connect was already called")
        now = self._clock.advance(now)
        self._connection.open(now)
        self._settle(now)

    def disconnect(self, *, now: float) -> None:
        """Close the connection without reconnecting. The next `connect` joins the channels again."""
        now = self._clock.advance(now)
        was_open = self._socket.is_open
        self._connection.close(now)
        if was_open:  # later data is neither sent nor read
            self._lost("disconnect was called", "disconnect was called", retry=False)
        self._settle(now)

    def join(
        self, topic: str, params: Mapping[str, Any] | ChannelConfig | None = None, *, now: float
    ) -> None:
        """Join a topic, and rejoin after every loss of the connection until `leave`.

        `params` is a `ChannelConfig` for Supabase, or the join's payload for plain Phoenix. The default is
        `ChannelConfig()` for a `realtime:` topic, and `{}` for any other topic. Only a `realtime:` topic
        accepts a `ChannelConfig`. A second `join` of a topic has no effect, unless the channel has stopped
        joining (`JoinFailed.final`). A channel that has stopped joins again.
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
                f"{'realtime:' + topic!r}, or pass a mapping if {topic!r} is a plain Phoenix topic"
            )
        channel, old = Channel(topic, params, self._socket), self._channels.get(topic)
        if old is not None and old.state is not ChannelState.LEAVING:
            if old.params != channel.params:
                raise LocalProtocolError(f"{topic!r} is already joined with other params: leave it first")
            now = self._clock.advance(now)
            if old.is_parked:
                old.forget_refusals()
                if self._socket.is_open:
                    self._join(old, now)
            self._settle(now)  # timers may be due now
            return
        if old is None and len(self._channels) >= self._config.max_channels:
            raise LocalProtocolError(
                f"too many channels: the limit is {self._config.max_channels} (max_channels)"
            )
        now = self._clock.advance(now)
        if old is not None:
            old.left()
        self._channels[topic] = channel
        if self._socket.is_open:
            self._join(channel, now)
        self._settle(now)

    def leave(self, topic: str, *, now: float) -> None:
        """Leave a topic. `ChannelLeft` follows at once, or after the server's reply or a timeout."""
        channel = self._channel(topic)
        now = self._clock.advance(now)
        channel.leave(now)
        self._forget_if_left(channel)
        self._settle(now)

    def push(
        self, topic: str, event: str, payload: Any = None, *, timeout: float | None = None, now: float
    ) -> int:
        """Push an event with a JSON payload (default `{}`) or, on V2, with bytes. Returns the id of the push.

        `PushReplied` or `PushFailed` follows. A push to a channel that is not joined yet waits for the join.
        The push fails if no reply arrives within `timeout` seconds (default `push_timeout`) of the call. A
        sent push fails at once if the channel crashes or the connection ends. If the server closes the
        channel normally, the reply may still arrive.
        """
        if not isinstance(event, str) or not event or event.startswith("phx_"):
            raise LocalProtocolError(
                f"event must be a non-empty string without the prefix 'phx_', not {event!r}"
            )
        channel = self._channel(topic)
        encoded = self._encoded({} if payload is None else payload, self._config.payload_nesting)
        return self._push(channel, event, encoded, timeout, wants_reply=True, now=now)

    def broadcast(
        self, topic: str, event: str, payload: Any = None, *, timeout: float | None = None, now: float
    ) -> int:
        """Broadcast an event in a Supabase channel. Returns the id of the push.

        `payload` is JSON (default `{}`) or, on V2, bytes. `PushReplied` or `PushFailed` follows if the
        channel was joined with `broadcast_ack`. Without `broadcast_ack`, an event (`PushFailed`) follows only
        if the broadcast is never sent, for example because the broadcast expires before the join.
        """
        channel = self._channel(topic)
        params = channel.params
        if not isinstance(params, ChannelConfig):
            raise LocalProtocolError(
                f"{topic!r} is a plain Phoenix channel, which has no broadcasts: use push"
            )
        if not isinstance(event, str) or not event:
            raise LocalProtocolError(f"event must be a non-empty string, not {event!r}")
        message: UserBroadcast | SupabasePush
        if isinstance(payload, (bytes, bytearray, memoryview)):
            message = UserBroadcast(event, bytes(payload), {})
        else:
            if type(payload) is not Raw:  # a Raw from an enclosing client needs no check
                payload = encode_payload({} if payload is None else payload, self._config.payload_nesting)
            message = SupabasePush("broadcast", event, payload)
        return self._push(channel, "broadcast", message, timeout, wants_reply=params.broadcast_ack, now=now)

    def track(self, topic: str, payload: Mapping[str, Any] | Raw, *, now: float) -> None:
        """Track `payload` in the presence of a topic, now and after every rejoin.

        To stay within `track_limit`, the client merges calls and sends only the latest payload, unless the
        latest payload equals the last sent payload. `TrackFailed` follows if the server refuses the payload.
        """
        if type(payload) is not Raw and not isinstance(payload, Mapping):
            raise LocalProtocolError(f"the payload must be a mapping, not {type(payload).__name__}")
        channel = self._channel(topic)
        # A Raw is from an enclosing client: an object that is already JSON.
        raw = (
            payload
            if isinstance(payload, Raw)
            else encode_payload(dict(payload), self._config.payload_nesting)
        )
        now = self._clock.advance(now)
        channel.track(raw, now)
        self._settle(now)

    def untrack(self, topic: str, *, now: float) -> None:
        """Remove this client from the presence of a topic."""
        channel = self._channel(topic)
        now = self._clock.advance(now)
        channel.track(None, now)
        self._settle(now)

    def set_access_token(self, token: str | None, *, expires_in: float | None = None, now: float) -> None:
        """Use another access token. The call also answers `AccessTokenNeeded`.

        The client sends the token to joined Supabase channels at once, and uses the token in later joins and
        in the next URL. `expires_in` is the token's validity in seconds, if known. With `asks_for_token`, the
        client requests another token before this token expires.
        """
        self._connection.check_token(token, expires_in)
        now = self._clock.advance(now)
        self._connection.set_token(token, expires_in, now)
        for channel in self._channels.values():
            channel.refresh_token(now)
        joining, self._joining = self._joining, {}
        for topic in joining:
            waiting = self._channels.get(topic)
            if waiting is not None and waiting.state is ChannelState.WAITING:
                waiting.join(now)
        self._settle(now)

    def access_token_failed(self, reason: str, *, now: float) -> None:
        """Answer `AccessTokenNeeded` with a failure: no access token is available now.

        The client repeats the request later. `AccessTokenFailed` reports the human-readable `reason`. Without
        an unanswered request, the call does nothing.
        """
        self._connection.check_reason(reason)
        now = self._clock.advance(now)
        self._connection.token_failed(reason, now)
        self._settle(now)

    # ---------------------------------------------------------------- driver inputs

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """Implements `Endpoint.transport_opened`."""
        now = self._clock.advance(now)
        self._connection.transport_opened(conn)
        self._settle(now)

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Implements `Endpoint.receive_data`."""
        now = self._clock.advance(now)
        self._connection.receive_data(conn, data)
        self._pump(now)
        self._deadline = self._first_deadline()
        if self._deadline <= now:
            self._settle(now)

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """Implements `Endpoint.transport_closed`. `reason` is human-readable."""
        now = self._clock.advance(now)
        self._connection.transport_closed(conn, reason, now)
        self._settle(now)

    def tick(self, *, now: float) -> None:
        """Handle due timers. An early or repeated tick does nothing."""
        self._settle(self._clock.advance(now))

    # ---------------------------------------------------------------- outputs

    def drain(self) -> Sequence[RealtimeOutput]:
        """Return all outputs since the last drain, oldest first."""
        return self._outbox.drain()

    def next_deadline(self) -> float | None:
        """Return the time when `tick` is due, on the clock of `now`, or `None` if no timer runs."""
        return None if self._deadline == inf else self._deadline

    # ---------------------------------------------------------------- internals

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
        payload: Raw | bytes | UserBroadcast | SupabasePush,
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
                f"{channel.queued} pushes already wait for the join of {channel.topic!r} (max_pending_pushes)"
            )
        now = self._clock.advance(now)
        push = self._socket.new_push(channel.topic, event, payload, now + timeout, wants_reply=wants_reply)
        channel.push(push)
        self._settle(now)
        return push.push_id

    def _first_deadline(self) -> float:
        """Return the earliest deadline of all timers in seconds, or infinity if no timer runs."""
        first, second = self._connection.timers.first, self._socket.timers.first
        return second if second < first else first

    def _settle(self, now: float) -> None:
        """Handle received messages before due timers, so that a received reply beats the timeout."""
        if self._connection.has_more:
            self._pump(now)
        while (deadline := self._first_deadline()) <= now:
            self._connection.tick(now)
            self._pump(now)
            while (timer := self._socket.timers.pop_expired(now)) is not None:
                self._expired(*timer, now)
        self._deadline = deadline

    def _pump(self, now: float) -> None:
        connection = self._connection
        while connection.has_more:
            received = connection.read(now)
            if isinstance(received, list):
                for message in received:
                    self._receive(message, now)
            elif isinstance(received, HeartbeatDue):
                self._heartbeats.add(self._socket.send(None, "phoenix", "heartbeat", _NOTHING))
            elif isinstance(received, Up):
                self._up(now)
            elif isinstance(received, TokenFailed):
                self._socket.emit(events.AccessTokenFailed(received.reason, received.retry_in))
            elif received is not None:
                self._down(received)

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

    def _lost(self, reason: str, details: str, *, retry: bool) -> None:
        self._heartbeats.clear()
        self._joining.clear()
        self._socket.timers.cancel((ChannelTimer.STABLE, ""))
        self._socket.connection_lost(details)
        for channel in list(self._channels.values()):
            channel.connection_lost(reason, retry=retry)
            self._forget_if_left(channel)

    def _join(self, channel: Channel, now: float) -> None:
        """Join a channel. With `asks_for_token`, a Supabase channel waits for a fresh token first."""
        if self._config.asks_for_token and isinstance(channel.params, ChannelConfig):
            self._joining[channel.topic] = None
            self._connection.need_token(now)
        else:
            channel.join(now)

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
        """Report a message that nests too deeply. Apply presence without too deeply nested values.

        If the client dropped the whole message, the meta of one user could hide the presence of all others.
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
            self._join_answered(message, channel, "something malformed", None, now)
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
        """Handle the reply to a join. Returns whether the message is the reply to a join."""
        ref = message.ref
        if not isinstance(ref, str) or not self._socket.joins.answered(message.topic, ref, now):
            return False
        if channel is not None:
            channel.join_answered(ref, status, response, now)
        return True

    def _join_is_due(self, topic: str, now: float) -> None:
        """Handle the due join timer of a topic. The client may have left the channel meanwhile."""
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
