"""One channel as the client sees it: its lives on the server, its presence, its pushes.

A life begins with a `phx_join`. The ref of that join is the `join_ref` of everything said in that life, and
what carries another one is an echo of an earlier life. `channel_state.py` has the states and their moves.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import msgspec
from attrs import define, field

from presence_proto import events
from presence_proto.config import ChannelConfig
from presence_proto.errors import RemoteProtocolError
from presence_proto.events import ChannelEnd, PresenceDiffed
from presence_proto.json_text import encode, encode_payload
from presence_proto.phoenix_socket import ChannelTimer
from presence_proto.presence import diff_size
from presence_proto.refusals import Refusals, words_of
from presence_proto.serializer import UserBroadcast
from presence_proto.timers import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from presence_proto.events import Broadcast
    from presence_proto.phoenix_socket import PhoenixSocket, Push
    from presence_proto.serializer import Message


# ---------------------------------------------------------------------------------------------- channel state
# The states of a channel, and every move between them.
#
# A channel is *wanted* from `join` to `leave`, whatever happens to the connection. In between it lives
# several lives on the server, one for each `phx_join`. While it is WAITING there is no connection, or a
# rejoin waits for its delay. One that is CLOSED the client has forgotten.


class ChannelState(Enum):
    """Where a channel is."""

    WAITING = auto()  #: Wanted, but no join is under way.
    JOINING = auto()  #: `phx_join` was sent.
    JOINED = auto()  #: The server said ok.
    LEAVING = auto()  #: `phx_leave` was sent.
    CLOSED = auto()  #: Left, or never joined.


class ChannelInput(Enum):
    """What moves a channel from one state to another."""

    JOIN_SENT = auto()
    JOIN_OK = auto()
    DOWN = auto()  # join refused, phx_error, phx_close, or the connection was lost
    LEAVE_SENT = auto()
    LEFT = auto()  # the leave was answered, or there is nobody to ask


TRANSITIONS: Mapping[tuple[ChannelState, ChannelInput], ChannelState] = {
    (ChannelState.WAITING, ChannelInput.JOIN_SENT): ChannelState.JOINING,
    (ChannelState.WAITING, ChannelInput.LEFT): ChannelState.CLOSED,
    (
        ChannelState.JOINING,
        ChannelInput.JOIN_SENT,
    ): ChannelState.JOINING,  # the server never answered the last
    (ChannelState.JOINING, ChannelInput.JOIN_OK): ChannelState.JOINED,
    (ChannelState.JOINING, ChannelInput.DOWN): ChannelState.WAITING,
    (ChannelState.JOINING, ChannelInput.LEAVE_SENT): ChannelState.LEAVING,
    (ChannelState.JOINED, ChannelInput.JOIN_SENT): ChannelState.JOINING,  # to ask for a lost presence_state
    (ChannelState.JOINED, ChannelInput.DOWN): ChannelState.WAITING,
    (ChannelState.JOINED, ChannelInput.LEAVE_SENT): ChannelState.LEAVING,
    (ChannelState.LEAVING, ChannelInput.LEFT): ChannelState.CLOSED,
}
"""Every legal move. A pair that is not here cannot happen."""


# ------------------------------------------------------------------------------------------------------ track
# Our own presence payload in a channel: latest wins, and never more calls than the server allows.


class Tracker:
    """What we want to be tracked as, what the server was last told, and the budget of calls.

    Supabase closes a channel that makes more than 5 track or untrack calls in 30 s, unchanged payloads
    included. So calls are coalesced: only the latest wish is sent, when the budget allows, and never what was
    sent last.
    """

    __slots__ = ("_calls", "_limit", "_sent", "_wanted", "_window")

    def __init__(self, limit: int | None, window: float) -> None:
        self._limit = limit
        self._window = window  # seconds
        self._calls: list[float] = []  # when the last calls were made, at most `limit` of them
        self._wanted: msgspec.Raw | None = None
        self._sent: msgspec.Raw | None = None

    def want(self, payload: msgspec.Raw | None) -> None:
        """Be tracked as `payload`, or not at all."""
        self._wanted = payload

    def start_over(self) -> None:
        """The channel has a new life on the server, which knows nothing of us and has counted nothing."""
        self._sent = None
        self._calls.clear()

    def due(self, now: float) -> float | None:
        """When the next call may be made: `now` or later; `None` when there is nothing to say."""
        if self._wanted == self._sent:
            return None
        if self._limit is None or len(self._calls) < self._limit:
            return now
        return max(now, self._calls[0] + self._window)

    def call(self, now: float) -> msgspec.Raw | None:
        """Make the call that is due: returns the payload to track, or `None` to untrack."""
        if self._limit is not None:
            if len(self._calls) == self._limit:
                del self._calls[0]
            self._calls.append(now)
        self._sent = self._wanted
        return self._sent


# ---------------------------------------------------------------------------------------------- replay filter
# Which replayed broadcasts of a Supabase channel are new to the application.


KEPT = 100
"""Ids. A replay has 25 broadcasts at most, but not always in the order in which they came at first."""

LONGEST_ID = 100
"""Characters. Supabase has UUIDs; what is longer is not remembered."""


class ReplayFilter:
    """Between a channel and its `emit`: what a replay after a rejoin repeats does not pass.

    Supabase gives an id to each broadcast that it stores, and replays the newest of them. The time of a
    broadcast it does not tell. So the client asks for the same ones after a rejoin as at first, and passes
    over those that it has seen: what is left is what came after the last one, as far as `limit` reaches.
    """

    __slots__ = ("_emit", "_ids")

    def __init__(self, emit: Callable[[Broadcast], object]) -> None:
        self._emit = emit
        self._ids: dict[str, None] = {}  # oldest first

    def __call__(self, broadcast: Broadcast) -> None:
        """Emit the broadcast if it is new."""
        if self.is_new(broadcast.meta):
            self._emit(broadcast)

    def is_new(self, meta: Mapping[str, Any]) -> bool:
        """Whether to tell the application of a broadcast with this meta. It is remembered."""
        seen = meta.get("id")
        if not isinstance(seen, str) or len(seen) > LONGEST_ID:
            return True
        # A live one is never dropped: its sender may have made up the id.
        repeated = seen in self._ids and meta.get("replayed") is True
        self._ids.pop(seen, None)
        self._ids[seen] = None
        if len(self._ids) > KEPT:
            del self._ids[next(iter(self._ids))]
        return not repeated


# ---------------------------------------------------------------------------------------------------- channel


@define
class ChannelJoin:
    """One life of a channel on the server."""

    join_ref: str
    token: str | None = field(repr=False)  # the access token that the server knows
    leave_ref: str | None = None
    synced: bool = False
    diffs: list[Any] | None = None  # those that wait for the state; None before the join's reply
    diff_bytes: int = 0  # of all of them
    complaint: str = ""  # of the server's last `system` message: the reason of the phx_close behind it


class Channel:
    """A wanted channel. `params` is a Supabase config, or the encoded payload of a plain Phoenix join.

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
        self._asked_again = False  # joined once more because the presence_state did not come
        self._is_held = False  # joins when an earlier join of the topic is answered
        renews_token = config.asks_for_token and isinstance(params, ChannelConfig)
        self._refusals = Refusals(config.max_final_refusals, renews_token=renews_token)
        self.is_parked = False  # WAITING, and does not join by itself on this connection

    # ---------------------------------------------------------------- getters

    @property
    def is_synced(self) -> bool:
        """Whether the presence is the server's of now, and not stale or not there yet."""
        return self._current is not None and self._current.synced

    @property
    def queued(self) -> int:
        """How many pushes wait for the join."""
        return len(self._queue)

    # ---------------------------------------------------------------- what the application wants

    def join(self, now: float) -> None:
        """Send `phx_join`: a new life begins. An earlier join of the topic is waited for first."""
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
        """Leave the channel: at once when there is nobody to ask, else when the server has answered."""
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
        """The channel is left."""
        self._cancel_timers()
        if self._current is not None:
            self._socket.channel_ended(self._current.join_ref, "the channel was left", crashed=False)
        self._move(ChannelInput.LEFT)
        self._socket.emit(events.ChannelLeft(self.topic))

    def push(self, push: Push) -> None:
        """Send a push now, or keep it until the channel is joined."""
        if self.state is ChannelState.JOINED and self._current is not None:
            self._socket.send_push(push, self._current.join_ref)
        else:
            self._queue.append(push)

    def track(self, payload: msgspec.Raw | None, now: float) -> None:
        """Be tracked as `payload`, or not at all."""
        self._tracker.want(payload)
        self._track(now)

    def refresh_token(self, now: float) -> None:
        """Use the access token in force if the server knows another: tell it, or join after a refusal."""
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
        """The application wants the channel to ask again."""
        self._refusals.forget()

    # ---------------------------------------------------------------- what happens

    def connection_lost(self, reason: str, *, retry: bool) -> None:
        """The connection ended. The channel is joined again with the next one."""
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
        """The reply to the topic's join came that was unanswered, of this life or an earlier one."""
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
        """The join has no answer yet. It is waited for."""
        if self.state is ChannelState.JOINING or self._is_held:
            reason = f"no reply within {self._socket.config.join_timeout:g} s"
            self._socket.emit(events.JoinFailed(self.topic, reason, None, retry_in))

    def join_was_lost(self, now: float) -> None:
        """The server will not answer the topic's join, of this life or an earlier one. Join again."""
        if self._is_held or self.state is ChannelState.JOINING:
            self.join(now)

    def replied(self, ref: object) -> None:
        """A reply came that neither a push nor a join waits for."""
        if ref is not None and self._current is not None and ref == self._current.leave_ref:
            self.left()

    def unmatched(self, join_ref: str, now: float) -> None:
        """The server does not know the topic that a push with this join_ref went to."""
        if (
            self.state is ChannelState.JOINED
            and self._current is not None
            and self._current.join_ref == join_ref
        ):
            self._down("the server has forgotten the channel", ChannelEnd.FORGOTTEN, now)

    def hears_presence(self, message: Message) -> bool:
        """Whether a `presence_state` or `presence_diff` is of this life, and not of an earlier one."""
        current = self._current
        if current is None or current.diffs is None:
            return False
        return message.join_ref in (None, current.join_ref)

    def receive(self, message: Message, now: float) -> None:
        """Anything but a reply came for the topic. Raises `RemoteProtocolError` when it is malformed."""
        current = self._current
        if current is None or (message.join_ref is not None and message.join_ref != current.join_ref):
            return  # an echo of an earlier life; V1 servers send no join_ref
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
        """A timer of this channel fired."""
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
        """If the push waits here for the join, it has waited for too long."""
        for push in self._queue:
            if push.push_id == push_id:
                self._queue.remove(push)
                self._socket.fail(push, "not joined in time")
                return True
        return False

    # ---------------------------------------------------------------- moves

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
            reason = "the server has subscribed to other postgres_changes than the join asked for"
            socket.emit(events.ProtocolViolation(reason, self.topic))
        self.refresh_token(now)
        self._tracker.start_over()
        self._track(now)
        while self._queue:
            socket.send_push(self._queue.pop(0), current.join_ref)

    def _join_refused(self, reason: str, response: Any, now: float, *, end: ChannelEnd | None = None) -> None:
        """The server answered the join with anything but ok; `end`: not even with a reply."""
        socket, current = self._socket, self._current
        assert current is not None
        passing = self._refusals.add(reason, current.token) and end is None
        retry_in = None
        self._die()
        if isinstance(self.params, ChannelConfig) and self._refusals.had_other_token(socket.token):
            self._refusals.token_changed()  # that was about a token which has been replaced meanwhile
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
        """`phx_close` or `phx_error`: the server ended this life."""
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
            return  # before the join's reply: of an earlier life
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
        """A diff came before the state."""
        if current.diffs is None:
            # Before the join's reply: of an earlier life, or of before the state that is still to come. The
            # state covers it, and applied after the state it could bring back somebody who has left since.
            return
        self.presence.check_nesting(payload)
        current.diffs.append(payload)
        if len(current.diffs) == 1 and not isinstance(self.params, ChannelConfig):
            # Plain Phoenix has presence where the application sends it: only diffs say that a state is due.
            self._socket.timers.set((ChannelTimer.STATE, self.topic), now + self._socket.config.state_timeout)
        current.diff_bytes += diff_size(payload)
        config, fault = self._socket.config, ""
        if len(current.diffs) > config.max_pending_diffs:
            fault = "more diffs before the presence state than max_pending_diffs"
        elif current.diff_bytes > config.max_pending_bytes:
            fault = "more bytes of diffs before the presence state than max_pending_bytes"
        while len(current.diffs) > config.max_pending_diffs or current.diff_bytes > config.max_pending_bytes:
            # The oldest is the one that the state, still to come, covers most likely.
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
        # Plain Phoenix has no message of its own for this: events `track` and `untrack` are our convention.
        if not isinstance(self.params, ChannelConfig):
            return ("untrack", {}) if payload is None else ("track", payload)
        if payload is None:
            return "presence", {"type": "presence", "event": "untrack"}
        message = {"type": "presence", "event": "track", "payload": payload}
        return "presence", msgspec.Raw(encode(message))

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
