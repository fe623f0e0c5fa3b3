"""`PhoenixRoom`: a room of the Jarvis presence system on one Supabase Realtime channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Raw

from presence_proto import events, payloads
from presence_proto.config import ChannelConfig
from presence_proto.errors import RemoteProtocolError
from presence_proto.events import PresenceDiffed
from presence_proto.join_refusals import words_of
from presence_proto.json_text import encode
from presence_proto.phoenix_socket import OuterClient
from presence_proto.realtime_client import RealtimeClient
from presence_proto.room import (
    ActivityReported,
    Delivered,
    RoomEvent,
    Synced,
    Undelivered,
)
from presence_proto.secrets import MAX_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from presence_proto.config import PresenceConfig
    from presence_proto.endpoint import ConnId, Outbox
    from presence_proto.events import OnlineUser
    from presence_proto.presence import PresenceStore
    from presence_proto.timers import Clock


class PhoenixRoom:
    """A `Room` on one Supabase channel.

    The jitter of the backoff comes from `rng`. `roster` stores the channel's presence. The room puts the
    roster's events about a presence diff directly into `outbox`, and passes all other events to `tell`.
    """

    def __init__(
        self,
        config: PresenceConfig,
        roster: PresenceStore,
        clock: Clock,
        outbox: Outbox[Any],
        tell: Callable[[RoomEvent], None],
        *,
        rng: Random | None = None,
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._tell = tell
        self._topic = f"realtime:{config.channel}"
        self._realtime = RealtimeClient(
            config, rng=rng, host=OuterClient(clock, outbox, self._emitted, roster)
        )
        self.next_deadline = self._realtime.next_deadline
        self._user_id = ""
        self._refusal: str | None = None  # reason of a final refusal
        self._is_leaving = False  # disconnecting because of `_refusal`
        self._activities: set[int] = set()  # unanswered activity pushes, whose failure is not reported

    # ---------------------------------------------------------------- getters

    @property
    def is_closed(self) -> bool:
        """Implements `Room.is_closed`."""
        return self._realtime.is_closed

    @property
    def server_count(self) -> int | None:
        """Always `None`: a Phoenix server does not report the number of users."""
        return None

    @property
    def latency(self) -> float | None:
        """Implements `Room.latency`."""
        return self._realtime.latency

    # ---------------------------------------------------------------- commands

    def connect(self, own: OnlineUser, *, now: float) -> None:
        """Implements `Room.connect`."""
        self._user_id = own.user_id
        channel = ChannelConfig(
            broadcast_ack=True,
            presence_key=own.user_id,
            track_limit=self._config.track_limit,
            track_window=self._config.track_window,
        )
        self._realtime.connect(now=now)
        self._refusal, self._is_leaving = None, False
        self._realtime.join(self._topic, channel, now=now)
        if self._config.visible:
            self._track(own, now)
        self._leave_if_refused(now)

    def disconnect(self, *, now: float) -> None:
        """Implements `Room.disconnect`."""
        self._realtime.disconnect(now=now)
        self._leave_if_refused(now)

    def show(self, own: OnlineUser, *, now: float) -> int | None:
        """Track `own`, and also broadcast `own` if the presence is synced. Returns the broadcast's id."""
        message_id = None
        if self._realtime.is_synced(self._topic):
            payload = {
                "user_id": own.user_id,
                "display_name": own.display_name,
                "status": own.status,
                "activity": own.activity,
            }
            message_id = self._say("activity_update", payload, now)
            self._activities.add(message_id)
        if self._topic in self._realtime.channels:
            self._track(own, now)
        return message_id

    def say(self, event: str, payload: dict[str, Any], *, now: float) -> int:
        """Broadcast an event in the channel. Implements `Room.say`."""
        return self._say(event, payload, now)

    def set_access_token(self, token: str | None, *, expires_in: float | None, now: float) -> None:
        """Use another access token at once in the channel, and later in the next join and the next URL."""
        self._realtime.set_access_token(token, expires_in=expires_in, now=now)
        self._leave_if_refused(now)

    def access_token_failed(self, reason: str, *, now: float) -> None:
        """Implements `Room.access_token_failed`."""
        self._realtime.access_token_failed(reason, now=now)
        self._leave_if_refused(now)

    def _say(self, event: str, payload: dict[str, Any], now: float) -> int:
        timeout = self._config.command_timeout
        # Encode to Raw: the client's own payloads need no check, which would take a third of the time.
        raw = Raw(encode(payload))
        return self._realtime.broadcast(self._topic, event, raw, timeout=timeout, now=now)

    def _track(self, own: OnlineUser, now: float) -> None:
        payload: dict[str, Any] = {
            "user_id": own.user_id,
            "display_name": own.display_name,
            "status": own.status,
            "activity": own.activity,
        }
        if own.online_at is not None:
            payload["online_at"] = own.online_at
        self._realtime.track(self._topic, Raw(encode(payload)), now=now)

    # ---------------------------------------------------------------- driver inputs

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """Implements `Endpoint.transport_opened`."""
        self._realtime.transport_opened(conn, now=now)
        self._leave_if_refused(now)

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Implements `Endpoint.receive_data`."""
        self._realtime.receive_data(conn, data, now=now)
        if self._refusal is not None:
            self._leave_if_refused(now)

    def transport_closed(self, conn: ConnId, *, now: float, reason: str) -> None:
        """Implements `Endpoint.transport_closed`."""
        self._realtime.transport_closed(conn, now=now, reason=reason)
        self._leave_if_refused(now)

    def tick(self, *, now: float) -> None:
        """Implements `Endpoint.tick`."""
        self._realtime.tick(now=now)
        self._leave_if_refused(now)

    def _leave_if_refused(self, now: float) -> None:
        if self._refusal is not None and not self._is_leaving:
            self._is_leaving = True
            self._realtime.disconnect(now=now)

    # ---------------------------------------------------------------- outputs

    def _emitted(self, event: events.RealtimeEvent) -> None:
        if type(event) is PresenceDiffed:  # by far the most frequent event
            self._outbox.emit_all(event.changes)
        else:
            for happened in self._happened(event):
                self._tell(happened)

    def _happened(self, event: events.RealtimeEvent) -> Iterator[RoomEvent]:
        match event:
            case events.PresenceSynced():
                yield Synced(event.changes, event.forgotten)
            case events.Broadcast():
                yield from self._heard(event)
            case events.PushReplied():
                self._activities.discard(event.push_id)
                if event.status == "ok":
                    yield Delivered(event.push_id)
                else:
                    yield Undelivered(event.push_id, self._reason(event))
            case events.PushFailed() if event.push_id in self._activities:
                self._activities.remove(event.push_id)
                yield Delivered(event.push_id)  # the tracked payload shows the activity
            case events.PushFailed():
                yield Undelivered(event.push_id, event.reason)
            case events.SocketDisconnected() if self._refusal is not None:
                if event.retry_in is None:
                    yield from _lost(self._refusal, None, fatal=True)
            case events.AccessTokenFailed() if self._realtime.is_connected:
                yield events.Error(event.reason)
            case events.AccessTokenFailed():
                yield events.Disconnected(event.reason, event.retry_in)
            case events.SocketDisconnected():
                yield from _lost(event.reason, event.retry_in, fatal=event.fatal)
            case events.ChannelDown(end=events.ChannelEnd.CONNECTION_LOST):
                pass  # SocketDisconnected has reported it
            case events.ChannelDown(retry_in=None):  # rejoin_after_close=False
                self._refusal = event.reason
            case events.ChannelDown():
                yield events.Disconnected(event.reason, event.retry_in)
            case events.JoinFailed(final=True):
                self._refusal = f"the server refused us: {event.reason}"
            case events.JoinFailed():
                if event.refused:
                    yield events.Error(f"the server refused us: {event.reason}")
                yield events.Disconnected(event.reason, event.retry_in)
            case events.PresenceMissing() | events.ProtocolViolation():
                yield events.Error(event.reason)
            case events.TrackFailed():
                yield events.Error(f"the server did not accept our presence: {event.reason}")
            case _:
                pass  # events before PresenceSynced, and messages of other applications

    def _reason(self, refusal: events.PushReplied) -> str:
        reason = words_of(refusal.response)
        words = f"the server said {refusal.status}" + ("" if reason is None else f": {reason}")
        return self._realtime.redacted(words)[:MAX_TEXT]

    def _heard(self, broadcast: events.Broadcast) -> Iterator[RoomEvent]:
        payload = broadcast.payload
        try:
            match broadcast.event:
                case "activity_update":
                    claim = payloads.activity_update(payload)
                    if claim is not None:
                        yield ActivityReported(claim)
                case "game_invite":
                    yield payloads.game_invite(payload)
                case "chat_message":
                    yield payloads.chat_message(payload)
                case "poke":
                    target, poked = payloads.poke(payload)
                    if target == self._user_id:
                        yield poked
                case _:
                    pass  # an event of another application
        except RemoteProtocolError as exc:
            yield events.Error(str(exc))


def _lost(reason: str, retry_in: float | None, *, fatal: bool) -> Iterator[RoomEvent]:
    yield events.Disconnected(reason, retry_in)
    if fatal:
        yield events.Error(reason, fatal=True)
