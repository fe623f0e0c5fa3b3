"""`Channel`: one channel of a client, with its joins, its presence and its queued pushes.

The ref of a `phx_join` is the `join_ref` of all later messages of that join. A message with another
`join_ref` belongs to an earlier join of the topic, and is ignored.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from attrs import define, field

from presence_proto import events
from presence_proto.config import ChannelConfig
from presence_proto.errors import RemoteProtocolError
from presence_proto.events import ChannelEnd, PresenceDiffed
from presence_proto.join_refusals import Refusals, words_of
from presence_proto.json_text import encode_payload
from presence_proto.phoenix_socket import ChannelTimer
from presence_proto.presence import diff_size
from presence_proto.serializer import SupabasePush, UserBroadcast
from presence_proto.timers import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import msgspec

    from presence_proto.events import Broadcast
    from presence_proto.phoenix_socket import PhoenixSocket, Push
    from presence_proto.serializer import Message


# ---------------------------------------------------------------------------------------------- channel state
# The states of a channel, and all transitions between these states.
#
# A channel is *wanted* from `join` to `leave`, whatever happens to the connection. The client may send
# several `phx_join` messages for a wanted channel, for example one per connection. A channel is WAITING while
# there is no connection, or until the next join is due. The client forgets a CLOSED channel.


class ChannelState(Enum):
    """The state of a channel."""

    WAITING = auto()  #: No join is under way: the next join waits for a connection or a delay.
    JOINING = auto()  #: `phx_join` was sent.
    JOINED = auto()  #: The server accepted the join.
    LEAVING = auto()  #: `phx_leave` was sent.
    CLOSED = auto()  #: The channel was left, or was never joined.


class ChannelInput(Enum):
    """The cause of a state transition."""

    JOIN_SENT = auto()
    JOIN_OK = auto()
    DOWN = auto()  # join refused, phx_error, phx_close, or the connection was lost
    LEAVE_SENT = auto()
    LEFT = auto()  # the server answered the leave, or no answer is needed


TRANSITIONS: Mapping[tuple[ChannelState, ChannelInput], ChannelState] = {
    (ChannelState.WAITING, ChannelInput.JOIN_SENT): ChannelState.JOINING,
    (ChannelState.WAITING, ChannelInput.LEFT): ChannelState.CLOSED,
    (ChannelState.JOINING, ChannelInput.JOIN_SENT): ChannelState.JOINING,  # the last join was not answered
    (ChannelState.JOINING, ChannelInput.JOIN_OK): ChannelState.JOINED,
    (ChannelState.JOINING, ChannelInput.DOWN): ChannelState.WAITING,
    (ChannelState.JOINING, ChannelInput.LEAVE_SENT): ChannelState.LEAVING,
    (ChannelState.JOINED, ChannelInput.JOIN_SENT): ChannelState.JOINING,  # to request a lost presence_state
    (ChannelState.JOINED, ChannelInput.DOWN): ChannelState.WAITING,
    (ChannelState.JOINED, ChannelInput.LEAVE_SENT): ChannelState.LEAVING,
    (ChannelState.LEAVING, ChannelInput.LEFT): ChannelState.CLOSED,
}
"""All legal transitions. Any other pair of state and input is a bug."""


# ------------------------------------------------------------------------------------------------------ track
# The client's own presence payload in a channel, which the client sends within the server's rate limit.


class Tracker:
    """The wanted and the last sent presence payload of a client in a channel, and the limit on track calls.

    Supabase closes a channel that makes more than 5 track or untrack calls in 30 s. Calls with an unchanged
    payload count, too. Therefore, the tracker merges calls: as soon as the limit allows a call, the client
    sends the latest payload, unless the latest payload equals the last sent payload.
    """

    __slots__ = ("_calls", "_limit", "_sent", "_wanted", "_window")

    def __init__(self, limit: int | None, window: float) -> None:
        self._limit = limit
        self._window = window  # seconds
        self._calls: list[float] = []  # times of the latest calls; the list has at most `limit`
        self._wanted: msgspec.Raw | None = None
        self._sent: msgspec.Raw | None = None

    def want(self, payload: msgspec.Raw | None) -> None:
        """Set the payload to track. `None` means untrack."""
        self._wanted = payload

    def start_over(self) -> None:
        """Reset for a new join: the server has no payload of a new join, and has counted no calls."""
        self._sent = None
        self._calls.clear()

    def due(self, now: float) -> float | None:
        """Return the time of the next call, `now` or later. `None` means that no call is needed."""
        if self._wanted == self._sent:
            return None
        if self._limit is None or len(self._calls) < self._limit:
            return now
        return max(now, self._calls[0] + self._window)

    def call(self, now: float) -> msgspec.Raw | None:
        """Count a due track or untrack call. Returns the payload to track, or `None` to untrack."""
        if self._limit is not None:
            if len(self._calls) == self._limit:
                del self._calls[0]
            self._calls.append(now)
        self._sent = self._wanted
        return self._sent


# ---------------------------------------------------------------------------------------------- replay filter
# Drops replayed broadcasts of a Supabase channel that the application already has.


KEPT = 100
"""The maximum number of broadcast ids that the filter remembers. A replay has at most 25 broadcasts, but not
always in their original order."""

LONGEST_ID = 100
"""The maximum length of a broadcast id that the filter remembers, in characters. Supabase's ids are UUIDs."""


class ReplayFilter:
    """A filter that drops the broadcasts that a replay after a rejoin repeats, and emits all others.

    Supabase sends the id of each stored broadcast, but not the time. Therefore, a client cannot request only
    the newer broadcasts: after each rejoin, the client repeats its first request and drops the broadcasts
    that it already has. A replay has only the newest broadcasts, at most `BroadcastReplay.limit`. Therefore,
    the client may miss older broadcasts.
    """

    __slots__ = ("_emit", "_ids")

    def __init__(self, emit: Callable[[Broadcast], object]) -> None:
        self._emit = emit
        self._ids: dict[str, None] = {}  # oldest first

    def __call__(self, broadcast: Broadcast) -> None:
        """Emit a broadcast that is new to the application."""
        if self.is_new(broadcast.meta):
            self._emit(broadcast)

    def is_new(self, meta: Mapping[str, Any]) -> bool:
        """Whether a broadcast is new to the application. The filter remembers the broadcast's id."""
        seen = meta.get("id")
        if not isinstance(seen, str) or len(seen) > LONGEST_ID:
            return True
        # Drop only replayed broadcasts: the sender of any other broadcast may have invented the id.
        repeated = seen in self._ids and meta.get("replayed") is True
        self._ids.pop(seen, None)
        self._ids[seen] = None
        if len(self._ids) > KEPT:
            del self._ids[next(iter(self._ids))]
        return not repeated


# ---------------------------------------------------------------------------------------------------- channel


@define
class ChannelJoin:
    """One join of a channel, from `phx_join` until the channel is left or ends."""

    join_ref: str
    token: str | None = field(repr=False)  # the access token that the server last received
    leave_ref: str | None = None
    synced: bool = False
    diffs: list[Any] | None = None  # early diffs, until the state arrives; None before the join's reply
    diff_bytes: int = 0  # size of `diffs` in bytes
    complaint: str = ""  # text of the last `system` error: the reason for a phx_close that follows


class Channel:
    """A channel of a client. The attribute `params` is a Supabase config, or an encoded join payload.

    The constructor raises `LocalProtocolError` for a topic or params that cannot be sent.
    """

    __slots__ = (
        "_asked_again",
        "_backoff",
        "_current",
        "_emit_broadcast",
        "_ever_joined",
        "_is_held",
        "_payload",
        "_queue",
        "_refusals",
        "_socket",
        "_tracker",
        "_was_synced",
        "is_parked",
        "params",
        "presence",
        "state",
        "topic",
    )

    def __init__(self, topic: str, params: ChannelConfig | Mapping[str, Any], socket: PhoenixSocket) -> None:
        self.topic = topic
        self.params: ChannelConfig | msgspec.Raw
        if isinstance(params, ChannelConfig):
            self._payload = encode_payload(params.join_config(), socket.config.payload_nesting)
            self.params = params
            self._tracker = Tracker(params.track_limit, params.track_window)
            replays = params.broadcast_replay is not None
        else:
            self._payload = self.params = encode_payload(dict(params), socket.config.payload_nesting)
            self._tracker = Tracker(None, 0.0)
            replays = False
        socket.check(topic, "phx_join", self._payload)
        config = socket.config
        self.state = ChannelState.WAITING
        self.presence = socket.new_presence()
        self._socket = socket
        self._emit_broadcast = ReplayFilter(socket.emit) if replays else socket.emit
        self._current: ChannelJoin | None = None
        self._queue: list[Push] = []  # pushes that wait for the join
        self._backoff = Backoff(
            config.reconnect_delay, config.max_reconnect_delay, jitter=config.jitter, rng=socket.rng
        )
        self._ever_joined = False
        self._was_synced = False
        self._asked_again = False  # whether the channel joined again because no presence_state arrived
        self._is_held = False  # whether the join waits for the reply to an earlier join of the topic
        renews_token = config.asks_for_token and isinstance(params, ChannelConfig)
        self._refusals = Refusals(config.max_final_refusals, renews_token=renews_token)
        self.is_parked = False  # whether the channel is WAITING without a join timer

    # ---------------------------------------------------------------- getters

    @property
    def is_synced(self) -> bool:
        """Whether the presence matches the server's current state, and is not stale or missing."""
        return self._current is not None and self._current.synced

    @property
    def queued(self) -> int:
        """The number of pushes that wait for the join."""
        return len(self._queue)

    # ---------------------------------------------------------------- commands

    def join(self, now: float) -> None:
        """Send `phx_join` now, or after the reply to an earlier join of the topic."""
        socket = self._socket
        self._is_held = self.topic in socket.joins
        if self._is_held:
            return
        self.is_parked = False
        self._move(ChannelInput.JOIN_SENT)
        self._cancel_timers()
        ref = socket.next_ref()
        self._current = ChannelJoin(ref, socket.token)
        payload: Any = self._payload
        if isinstance(self.params, ChannelConfig):
            payload = {"config": payload} | ({} if socket.token is None else {"access_token": socket.token})
        socket.send(ref, self.topic, "phx_join", payload, ref=ref)
        socket.joins.sent(self.topic, ref, now)

    def leave(self, now: float) -> None:
        """Leave the channel: at once in the state WAITING, otherwise after the server's reply or a
        timeout."""
        self._fail_queue("the channel was left")
        if self.state is ChannelState.WAITING:
            self.left()
        else:
            assert self._current is not None
            self._move(ChannelInput.LEAVE_SENT)
            self._cancel_timers()
            self._socket.timers.set((ChannelTimer.LEAVE, self.topic), now + self._socket.config.push_timeout)
            self._current.leave_ref = self._send("phx_leave", {})

    def left(self) -> None:
        """End the channel: set the state to CLOSED, and report `ChannelLeft`."""
        self._cancel_timers()
        if self._current is not None:
            self._socket.channel_ended(self._current.join_ref, "the channel was left", crashed=False)
        self._move(ChannelInput.LEFT)
        self._socket.emit(events.ChannelLeft(self.topic))

    def push(self, push: Push) -> None:
        """Send a push now, or keep the push until the channel is joined."""
        if self.state is ChannelState.JOINED and self._current is not None:
            self._socket.send_push(push, self._current.join_ref)
        else:
            self._queue.append(push)

    def track(self, payload: msgspec.Raw | None, now: float) -> None:
        """Track `payload`. A `payload` of `None` means untrack."""
        self._tracker.want(payload)
        self._track(now)

    def refresh_token(self, now: float) -> None:
        """Send a changed access token, or join again if the server refused a join with another token."""
        socket, current = self._socket, self._current
        if not isinstance(self.params, ChannelConfig):
            return
        if self.state is ChannelState.JOINED:
            assert current is not None
            if socket.token not in (None, current.token):
                current.token = socket.token
                self._send("access_token", {"access_token": socket.token})
        elif self._refusals.had_other_token(socket.token):
            self._refusals.token_changed()
            if self.state is ChannelState.WAITING and socket.is_open:
                self.join(now)

    def forget_refusals(self) -> None:
        """Forget earlier refusals, because the application wants the channel to join again."""
        self._refusals.forget()

    # ---------------------------------------------------------------- messages, timers, losses

    def connection_lost(self, reason: str, *, retry: bool) -> None:
        """Handle the end of the connection. If `retry` is false, queued pushes fail with `reason`."""
        if not retry:
            self._fail_queue(reason)
        if self.state is ChannelState.LEAVING:
            self.left()
        elif self.state is not ChannelState.WAITING:
            was_joined = self.state is ChannelState.JOINED
            self._die()
            if was_joined:
                self._socket.emit(events.ChannelDown(self.topic, reason, None, ChannelEnd.CONNECTION_LOST))
        else:
            self._is_held = False
            self._cancel_timers()

    def join_answered(self, ref: str, status: str, response: Any, now: float) -> None:
        """Handle the reply to the topic's unanswered join, which is the current join or an earlier join."""
        current = self._current
        if self._is_held:
            self.join(now)
        elif current is not None and ref == current.join_ref and self.state is ChannelState.JOINING:
            if status == "ok":
                self._joined(current, response, now)
            else:
                reason = self._socket.quote(words_of(response), f"the server said {status}")
                self._join_refused(reason, response, now)

    def join_is_late(self, retry_in: float) -> None:
        """Report that the join has no reply yet. The channel continues to wait for the reply."""
        if self.state is ChannelState.JOINING or self._is_held:
            reason = f"no reply within {self._socket.config.join_timeout:g} s"
            self._socket.emit(events.JoinFailed(self.topic, reason, None, retry_in))

    def join_was_lost(self, now: float) -> None:
        """Join again, because the topic's unanswered join, current or earlier, will get no reply."""
        if self._is_held or self.state is ChannelState.JOINING:
            self.join(now)

    def replied(self, ref: object) -> None:
        """Handle a reply that belongs neither to a push nor to a join."""
        if ref is not None and self._current is not None and ref == self._current.leave_ref:
            self.left()

    def unmatched(self, join_ref: str, now: float) -> None:
        """Handle the reply "unmatched topic" to a push with this join_ref: the server has no such channel."""
        if (
            self.state is ChannelState.JOINED
            and self._current is not None
            and self._current.join_ref == join_ref
        ):
            self._down("the server has forgotten the channel", ChannelEnd.FORGOTTEN, now)

    def hears_presence(self, message: Message) -> bool:
        """Whether a `presence_state` or `presence_diff` belongs to the current join."""
        current = self._current
        return (
            current is not None and current.diffs is not None and message.join_ref in (None, current.join_ref)
        )

    def receive(self, message: Message, now: float) -> None:
        """Handle any message except a reply. Raises `RemoteProtocolError` for a malformed message."""
        current = self._current
        if current is None or (message.join_ref is not None and message.join_ref != current.join_ref):
            return  # the message belongs to an earlier join; V1 servers send no join_ref
        event, payload = message.event, message.payload
        if event == "presence_diff":
            if not current.synced:
                self._early_diff(current, payload, now)
            else:
                changes: Any = self.presence.apply_diff(payload)
                if changes:
                    self._socket.emit(PresenceDiffed(self.topic, changes))
        elif event == "presence_state":
            self._presence_state(current, payload)
        elif event in ("phx_close", "phx_error"):
            if message.ref is None or message.ref == current.join_ref:
                self._ended(current, event, payload, now)
        elif event == "broadcast" and isinstance(self.params, ChannelConfig):
            self._broadcast(payload)
        elif event == "system" and isinstance(self.params, ChannelConfig):
            self._system(current, payload)
        else:
            self._socket.emit(events.ChannelMessage(self.topic, event, payload))

    def expired(self, slot: ChannelTimer, now: float) -> None:
        """Handle a due timer of this channel."""
        if slot is ChannelTimer.TRACK:
            self._track(now)
        elif slot is ChannelTimer.STABLE:
            self._backoff.reset()
            self._socket.reset_backoff()
        elif slot is ChannelTimer.STATE:
            self._state_missing(now)
        else:
            assert slot is ChannelTimer.LEAVE
            self.left()

    def push_expired(self, push_id: int) -> bool:
        """Fail an expired push that waits for this channel's join. Returns `False` if no such push exists."""
        for push in self._queue:
            if push.push_id == push_id:
                self._queue.remove(push)
                self._socket.fail(push, "not joined in time")
                return True
        return False

    # ---------------------------------------------------------------- transitions

    def _move(self, event: ChannelInput) -> None:
        following = TRANSITIONS.get((self.state, event))
        assert following is not None, f"{event} in {self.state}"
        self.state = following

    def _joined(self, current: ChannelJoin, response: Any, now: float) -> None:
        socket = self._socket
        self._move(ChannelInput.JOIN_OK)
        current.diffs = []
        rejoined, self._ever_joined = self._ever_joined, True
        self._refusals.forget()
        socket.timers.set((ChannelTimer.STABLE, self.topic), now + socket.config.stable_after)
        if isinstance(self.params, ChannelConfig) and self.params.presence:
            socket.timers.set((ChannelTimer.STATE, self.topic), now + socket.config.state_timeout)
        socket.emit(events.ChannelJoined(self.topic, response, rejoined))
        if isinstance(self.params, ChannelConfig) and not self.params.is_confirmed_by(response):
            reason = "the server's postgres_changes differ from those of the join"
            socket.emit(events.ProtocolViolation(reason, self.topic))
        self.refresh_token(now)
        self._tracker.start_over()
        self._track(now)
        while self._queue:
            socket.send_push(self._queue.pop(0), current.join_ref)

    def _join_refused(self, reason: str, response: Any, now: float, *, end: ChannelEnd | None = None) -> None:
        """Handle a refused join. `end` is how the server ended the channel instead of a reply."""
        socket, current = self._socket, self._current
        assert current is not None
        passing = self._refusals.add(reason, current.token) and end is None
        retry_in = None
        self._die()
        if isinstance(self.params, ChannelConfig) and self._refusals.had_other_token(socket.token):
            self._refusals.token_changed()  # the refused token has been replaced meanwhile
            passing, retry_in = True, 0.0
            socket.timers.set((ChannelTimer.REJOIN, self.topic), now)
        elif self._refusals.are_final or self._stays_away_after(end):
            self.is_parked = True
        else:
            retry_in = self._rejoin_later(now)
        final = self.is_parked
        socket.emit(events.JoinFailed(self.topic, reason, response, retry_in, True, passing, final))

    def _stays_away_after(self, end: ChannelEnd | None) -> bool:
        return end is ChannelEnd.CLOSED and not self._socket.config.rejoin_after_close

    def _ended(self, current: ChannelJoin, event: str, payload: Any, now: float) -> None:
        """Handle `phx_close` or `phx_error`: the server ended the join."""
        self._socket.joins.answered(self.topic, current.join_ref, now)
        if self.state is ChannelState.LEAVING:
            self.left()
            return
        end = ChannelEnd.CLOSED if event == "phx_close" else ChannelEnd.CRASHED
        default = "the server closed the channel" if end is ChannelEnd.CLOSED else "the channel crashed"
        reason = self._socket.quote(words_of(payload), current.complaint, default)
        if self.state is ChannelState.JOINING:
            self._join_refused(reason, None, now, end=end)
        else:
            self._down(reason, end, now)

    def _down(self, reason: str, end: ChannelEnd, now: float) -> None:
        assert self._current is not None
        crashed = end is ChannelEnd.CRASHED
        self._socket.channel_ended(
            self._current.join_ref, "the channel crashed before the reply", crashed=crashed
        )
        self._die()
        stays_away = self._stays_away_after(end)
        retry_in = None if stays_away else self._rejoin_later(now)
        self._socket.emit(events.ChannelDown(self.topic, reason, retry_in, end))
        if stays_away:
            self._fail_queue(reason)
            self.left()

    def _die(self) -> None:
        self._cancel_timers()
        self._current = None
        self._move(ChannelInput.DOWN)

    def _rejoin_later(self, now: float) -> float:
        delay = self._backoff.next()
        self._socket.timers.set((ChannelTimer.REJOIN, self.topic), now + delay)
        return delay

    def _cancel_timers(self) -> None:
        for slot in (
            ChannelTimer.LEAVE,
            ChannelTimer.STATE,
            ChannelTimer.REJOIN,
            ChannelTimer.STABLE,
            ChannelTimer.TRACK,
        ):
            self._socket.timers.cancel((slot, self.topic))

    def _fail_queue(self, reason: str) -> None:
        while self._queue:
            self._socket.fail(self._queue.pop(0), reason)

    def _send(self, event: str, payload: Any) -> str:
        assert self._current is not None
        return self._socket.send(self._current.join_ref, self.topic, event, payload)

    # ---------------------------------------------------------------- presence

    def _presence_state(self, current: ChannelJoin, payload: Any) -> None:
        if current.diffs is None:
            return  # before the join's reply, a state is of an earlier join
        before = len(self.presence)
        changes = self.presence.apply_state(payload)
        forgotten = (
            self._was_synced and not current.synced and self.presence.nothing_continues(before, changes)
        )
        current.synced, self._was_synced, self._asked_again = True, True, False
        self._socket.timers.cancel((ChannelTimer.STATE, self.topic))
        self._socket.emit(events.PresenceSynced(self.topic, changes, forgotten))
        waiting, current.diffs, current.diff_bytes = current.diffs, [], 0
        for diff in waiting:
            try:
                changed: Any = self.presence.apply_diff(diff)
            except RemoteProtocolError as exc:
                self._socket.violated(exc, self.topic)
            else:
                if changed:
                    self._socket.emit(PresenceDiffed(self.topic, changed))

    def _early_diff(self, current: ChannelJoin, payload: Any, now: float) -> None:
        """Handle a presence diff that arrives before the presence state."""
        if current.diffs is None:
            # A diff before the join's reply belongs to an earlier join, or is included in the state that
            # follows. If the channel applied such a diff after that state, users who have left could
            # reappear.
            return
        self.presence.check_nesting(payload)
        current.diffs.append(payload)
        if len(current.diffs) == 1 and not isinstance(self.params, ChannelConfig):
            # Presence is optional on plain Phoenix: only a diff shows that a state must follow.
            self._socket.timers.set((ChannelTimer.STATE, self.topic), now + self._socket.config.state_timeout)
        current.diff_bytes += diff_size(payload)
        config, fault = self._socket.config, ""
        if len(current.diffs) > config.max_pending_diffs:
            fault = "too many presence diffs before the presence state (max_pending_diffs)"
        elif current.diff_bytes > config.max_pending_bytes:
            fault = "too many bytes of presence diffs before the presence state (max_pending_bytes)"
        while len(current.diffs) > config.max_pending_diffs or current.diff_bytes > config.max_pending_bytes:
            # Drop the oldest diff: the state that follows most likely includes the diff.
            current.diff_bytes -= diff_size(current.diffs.pop(0))
        if fault:
            raise RemoteProtocolError(fault)

    def _state_missing(self, now: float) -> None:
        assert self._current is not None
        if not isinstance(self.params, ChannelConfig):
            waiting = len(self._current.diffs or ())
            reason = (
                f"no presence_state came, and {waiting} presence diffs wait for it: on the server, push "
                '"presence_state" with Presence.list(socket) after the join'
            )
        elif not self._asked_again:
            self._asked_again = True
            self.join(now)
            return
        else:
            reason = "no presence_state came: presence may be disabled on the server, or for this channel"
        self._socket.emit(events.PresenceMissing(self.topic, reason))

    def _track(self, now: float) -> None:
        socket, timer = self._socket, (ChannelTimer.TRACK, self.topic)
        due = self._tracker.due(now) if self.state is ChannelState.JOINED else None
        if due is None:
            socket.timers.cancel(timer)
        elif due > now:
            socket.timers.set(timer, due)
        else:
            event, payload = self._track_message(self._tracker.call(now))
            expires = now + socket.config.push_timeout
            self.push(socket.new_push(self.topic, event, payload, expires, is_track=True))

    def _track_message(self, payload: msgspec.Raw | None) -> tuple[str, Any]:
        # Phoenix defines no message to track. The events `track` and `untrack` are this library's convention.
        if not isinstance(self.params, ChannelConfig):
            return ("untrack", {}) if payload is None else ("track", payload)
        if payload is None:
            return "presence", {"type": "presence", "event": "untrack"}
        return "presence", SupabasePush("presence", "track", payload)

    # ---------------------------------------------------------------- Supabase messages

    def _broadcast(self, payload: Any) -> None:
        if isinstance(payload, UserBroadcast):
            broadcast = events.Broadcast(self.topic, payload.event, payload.payload, payload.metadata)
        elif isinstance(payload, dict) and isinstance(payload.get("event"), str):
            meta = payload.get("meta")
            meta = meta if isinstance(meta, dict) else {}
            broadcast = events.Broadcast(self.topic, payload["event"], payload.get("payload"), meta)
        else:
            raise RemoteProtocolError("a broadcast must be an object with a string event")
        self._emit_broadcast(broadcast)

    def _system(self, current: ChannelJoin, payload: Any) -> None:
        if not isinstance(payload, dict):
            raise RemoteProtocolError("a system message must be an object")
        extension, status, message = (
            value if isinstance(value := payload.get(name), str) else ""
            for name in ("extension", "status", "message")
        )
        if status == "error":
            current.complaint = message
        self._socket.emit(events.SystemMessage(self.topic, extension, status, message, payload))
