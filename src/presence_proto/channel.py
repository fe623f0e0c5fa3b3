"""One channel as the client sees it: its lives on the server, its presence, its pushes.

A life begins with a `phx_join`. The ref of that join is the `join_ref` of everything said in that life, and
what carries another one is an echo of an earlier life. `channel_state.py` has the states and their moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define, field

from presence_proto import events
from presence_proto.backoff import Backoff
from presence_proto.channel_state import TRANSITIONS, ChannelInput, ChannelState
from presence_proto.config import ChannelConfig
from presence_proto.errors import RemoteProtocolError
from presence_proto.events import PresenceDiffed
from presence_proto.presence import PresenceMap
from presence_proto.serializer import UserBroadcast, encode_payload
from presence_proto.track import Tracker
from presence_proto.wire import Slot

if TYPE_CHECKING:
    from collections.abc import Mapping

    import msgspec

    from presence_proto.serializer import Message
    from presence_proto.wire import Push, Wire


@define
class Life:
    """One life of a channel on the server."""

    join_ref: str
    token: str | None = field(repr=False)  # the access token that the server knows
    leave_ref: str | None = None
    synced: bool = False
    diffs: list[Any] | None = None  # those that wait for the state; None before the join's reply
    complaint: str = ""  # of the server's last `system` message: the reason of the phx_close behind it


class Channel:
    """A wanted channel. `params` is a Supabase config, or the encoded payload of a plain Phoenix join.

    The constructor raises `LocalProtocolError` for a topic or params that cannot be sent.
    """

    __slots__ = (
        "_asked_again",
        "_backoff",
        "_ever_joined",
        "_life",
        "_payload",
        "_queue",
        "_tracker",
        "_wire",
        "params",
        "presence",
        "state",
        "topic",
    )

    def __init__(self, topic: str, params: ChannelConfig | Mapping[str, Any], wire: Wire) -> None:
        self.topic = topic
        self.params: ChannelConfig | msgspec.Raw
        if isinstance(params, ChannelConfig):
            self._payload = encode_payload(_supabase(params))
            self.params = params
            self._tracker = Tracker(params.track_limit, params.track_window)
        else:
            self._payload = self.params = encode_payload(dict(params))
            self._tracker = Tracker(None, 0.0)
        wire.check(topic, "phx_join", self._payload)
        config = wire.config
        self.state = ChannelState.WAITING
        self.presence = PresenceMap(max_keys=config.max_roster, max_metas=config.max_metas)
        self._wire = wire
        self._life: Life | None = None
        self._queue: list[Push] = []  # pushes that wait for the join
        self._backoff = Backoff(
            config.reconnect_delay, config.max_reconnect_delay, jitter=config.jitter, rng=wire.rng
        )
        self._ever_joined = False
        self._asked_again = False  # joined once more because the presence_state did not come

    # ---------------------------------------------------------------- getters

    @property
    def is_synced(self) -> bool:
        """Whether the presence is the server's of now, and not stale or not there yet."""
        return self._life is not None and self._life.synced

    @property
    def queued(self) -> int:
        """How many pushes wait for the join."""
        return len(self._queue)

    # ---------------------------------------------------------------- what the application wants

    def join(self, now: float) -> None:
        """Send `phx_join`: a new life begins."""
        wire = self._wire
        self._move(ChannelInput.JOIN_SENT)
        self._cancel_timers()
        ref = wire.next_ref()
        self._life = Life(ref, wire.token)
        payload: Any = self._payload
        if isinstance(self.params, ChannelConfig):
            payload = {"config": payload} | ({} if wire.token is None else {"access_token": wire.token})
        wire.send(ref, self.topic, "phx_join", payload, ref=ref)
        wire.timers.set((Slot.REPLY, self.topic), now + wire.config.join_timeout)
        wire.join_begins(self.topic, now)

    def leave(self, now: float) -> None:
        """Leave the channel: at once when there is nobody to ask, else when the server has answered."""
        self._fail_queue("the channel was left")
        if self.state is ChannelState.WAITING:
            self.left()
        else:
            assert self._life is not None
            self._move(ChannelInput.LEAVE_SENT)
            self._cancel_timers()
            self._wire.timers.set((Slot.REPLY, self.topic), now + self._wire.config.push_timeout)
            self._life.leave_ref = self._send("phx_leave", {})

    def left(self) -> None:
        """The channel is left."""
        self._cancel_timers()
        self._move(ChannelInput.LEFT)
        self._wire.emit(events.ChannelLeft(self.topic))

    def push(self, push: Push) -> None:
        """Send a push now, or keep it until the channel is joined."""
        if self.state is ChannelState.JOINED and self._life is not None:
            self._wire.send_push(push, self._life.join_ref)
        else:
            self._queue.append(push)

    def track(self, payload: msgspec.Raw | None, now: float) -> None:
        """Be tracked as `payload`, or not at all."""
        self._tracker.want(payload)
        self._track(now)

    def refresh_token(self) -> None:
        """Tell the server the access token in force, if it knows another."""
        life, token = self._life, self._wire.token
        if (
            not isinstance(self.params, ChannelConfig)
            or self.state is not ChannelState.JOINED
            or token is None
        ):
            return
        if life is not None and life.token != token:
            life.token = token
            self._send("access_token", {"access_token": token})

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
                self._wire.emit(events.ChannelDown(self.topic, reason, None))
        else:
            self._cancel_timers()

    def replied(self, ref: object, status: str, response: Any, now: float) -> None:
        """A reply came that no push waits for."""
        life = self._life
        if life is None or ref is None:
            return
        if ref == life.join_ref and self.state is ChannelState.JOINING:
            if status == "ok":
                self._joined(life, response, now)
            else:
                reason = response.get("reason") if isinstance(response, dict) else None
                self._join_failed(self._wire.quote(reason, f"the server said {status}"), response, now)
        elif ref == life.leave_ref:
            self.left()

    def unmatched(self, join_ref: str, now: float) -> None:
        """The server does not know the topic that a push with this join_ref went to."""
        if self.state is ChannelState.JOINED and self._life is not None and self._life.join_ref == join_ref:
            self._down("the server has forgotten the channel", now)

    def receive(self, message: Message, now: float) -> None:
        """Anything but a reply came for the topic."""
        life = self._life
        if life is None or (message.join_ref is not None and message.join_ref != life.join_ref):
            return  # an echo of an earlier life; V1 servers send no join_ref
        event, payload = message.event, message.payload
        try:
            if event == "presence_diff":
                if not life.synced:
                    self._early_diff(life, payload)
                elif changes := self.presence.apply_diff(payload):
                    self._wire.emit(PresenceDiffed(self.topic, changes))
            elif event == "presence_state":
                self._presence_state(life, payload)
            elif event in ("phx_close", "phx_error"):
                if message.ref is None or message.ref == life.join_ref:
                    self._ended(life, event, payload, now)
            elif event == "broadcast" and isinstance(self.params, ChannelConfig):
                self._broadcast(payload)
            elif event == "system" and isinstance(self.params, ChannelConfig):
                self._system(life, payload)
            else:
                self._wire.emit(events.ChannelMessage(self.topic, event, payload))
        except RemoteProtocolError as exc:
            self._wire.violated(exc, self.topic)

    def expired(self, slot: Slot, now: float) -> None:
        """A timer of this channel fired."""
        if slot is Slot.TRACK:
            self._track(now)
        elif slot is Slot.STABLE:
            self._backoff.reset()
            self._wire.settled()
        elif slot is Slot.STATE:
            self._state_missing(now)
        elif self.state is ChannelState.LEAVING:
            self.left()
        else:
            # As phoenix.js does: the server may be about to let us in. What we send later comes after this.
            self._send("phx_leave", {})
            self._join_failed(f"no reply within {self._wire.config.join_timeout:g} s", None, now)

    def push_expired(self, push_id: int) -> bool:
        """If the push waits here for the join, it has waited for too long."""
        for push in self._queue:
            if push.push_id == push_id:
                self._queue.remove(push)
                self._wire.fail(push, "not joined in time")
                return True
        return False

    # ---------------------------------------------------------------- moves

    def _move(self, event: ChannelInput) -> None:
        following = TRANSITIONS.get((self.state, event))
        assert following is not None, f"{event} in {self.state}"
        self.state = following

    def _joined(self, life: Life, response: Any, now: float) -> None:
        wire = self._wire
        self._move(ChannelInput.JOIN_OK)
        life.diffs = []
        rejoined, self._ever_joined = self._ever_joined, True
        wire.timers.cancel((Slot.REPLY, self.topic))
        wire.join_ends(self.topic)
        wire.timers.set((Slot.STABLE, self.topic), now + wire.config.stable_after)
        if isinstance(self.params, ChannelConfig) and self.params.presence:
            wire.timers.set((Slot.STATE, self.topic), now + wire.config.state_timeout)
        wire.emit(events.ChannelJoined(self.topic, response, rejoined))
        self.refresh_token()
        self._tracker.start_over()
        self._track(now)
        while self._queue:
            wire.send_push(self._queue.pop(0), life.join_ref)

    def _join_failed(self, reason: str, response: Any, now: float) -> None:
        self._die()
        retry_in = self._rejoin_later(now)
        self._wire.emit(events.JoinFailed(self.topic, reason, response, retry_in))

    def _ended(self, life: Life, event: str, payload: Any, now: float) -> None:
        """`phx_close` or `phx_error`: the server ended this life."""
        if self.state is ChannelState.LEAVING:
            self.left()
            return
        reason = payload.get("reason") if isinstance(payload, dict) else None
        default = "the server closed the channel" if event == "phx_close" else "the channel crashed"
        reason = self._wire.quote(reason, life.complaint, default)
        if self.state is ChannelState.JOINING:
            self._join_failed(reason, None, now)
        else:
            self._down(reason, now)

    def _down(self, reason: str, now: float) -> None:
        self._die()
        self._wire.emit(events.ChannelDown(self.topic, reason, self._rejoin_later(now)))

    def _die(self) -> None:
        self._cancel_timers()
        self._life = None
        self._move(ChannelInput.DOWN)

    def _rejoin_later(self, now: float) -> float:
        delay = self._backoff.next()
        self._wire.timers.set((Slot.REJOIN, self.topic), now + delay)
        return delay

    def _cancel_timers(self) -> None:
        self._wire.join_ends(self.topic)
        for slot in (Slot.REPLY, Slot.STATE, Slot.REJOIN, Slot.STABLE, Slot.TRACK):
            self._wire.timers.cancel((slot, self.topic))

    def _fail_queue(self, reason: str) -> None:
        while self._queue:
            self._wire.fail(self._queue.pop(0), reason)

    def _send(self, event: str, payload: Any) -> str:
        assert self._life is not None
        return self._wire.send(self._life.join_ref, self.topic, event, payload)

    # ---------------------------------------------------------------- presence

    def _presence_state(self, life: Life, payload: Any) -> None:
        if life.diffs is None:
            return  # before the join's reply: of an earlier life
        changes = self.presence.apply_state(payload)
        life.synced, self._asked_again = True, False
        self._wire.timers.cancel((Slot.STATE, self.topic))
        self._wire.emit(events.PresenceSynced(self.topic, changes))
        waiting, life.diffs = life.diffs, []
        for diff in waiting:
            try:
                changes = self.presence.apply_diff(diff)
            except RemoteProtocolError as exc:
                self._wire.violated(exc, self.topic)
            else:
                if changes:
                    self._wire.emit(PresenceDiffed(self.topic, changes))

    def _early_diff(self, life: Life, payload: Any) -> None:
        """A diff came before the state."""
        if life.diffs is None:
            # Before the join's reply: of an earlier life, or of before the state that is still to come. The
            # state covers it, and applied after the state it could bring back somebody who has left since.
            return
        life.diffs.append(payload)
        if len(life.diffs) > self._wire.config.max_pending_diffs:
            # The oldest is the one that the state, still to come, covers most likely.
            del life.diffs[0]
            raise RemoteProtocolError("more diffs before the presence state than max_pending_diffs")

    def _state_missing(self, now: float) -> None:
        if not self._asked_again:
            self._asked_again = True
            self.join(now)
            return
        reason = "no presence_state came: presence may be disabled on the server, or for this channel"
        self._wire.emit(events.PresenceMissing(self.topic, reason))

    def _track(self, now: float) -> None:
        wire, timer = self._wire, (Slot.TRACK, self.topic)
        due = self._tracker.due(now) if self.state is ChannelState.JOINED else None
        if due is None:
            wire.timers.cancel(timer)
        elif due > now:
            wire.timers.set(timer, due)
        else:
            event, payload = self._track_message(self._tracker.call(now))
            expires = now + wire.config.push_timeout
            self.push(wire.new_push(self.topic, event, payload, expires, is_track=True))

    def _track_message(self, payload: msgspec.Raw | None) -> tuple[str, Any]:
        # Plain Phoenix has no message of its own for this: events `track` and `untrack` are our convention.
        if not isinstance(self.params, ChannelConfig):
            return ("untrack", {}) if payload is None else ("track", payload)
        if payload is None:
            return "presence", {"type": "presence", "event": "untrack"}
        return "presence", {"type": "presence", "event": "track", "payload": payload}

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
        self._wire.emit(broadcast)

    def _system(self, life: Life, payload: Any) -> None:
        if not isinstance(payload, dict):
            raise RemoteProtocolError("a system message must be an object")
        extension, status, message = (
            value if isinstance(value := payload.get(name), str) else ""
            for name in ("extension", "status", "message")
        )
        if status == "error":
            life.complaint = message
        self._wire.emit(events.SystemMessage(self.topic, extension, status, message, payload))


def _supabase(config: ChannelConfig) -> dict[str, Any]:
    return {
        "broadcast": {"ack": config.broadcast_ack, "self": config.broadcast_self},
        "presence": {"enabled": config.presence, "key": config.presence_key},
        "postgres_changes": config.postgres_changes,
        "private": config.private,
    }
