"""The room of the Jarvis presence system on Supabase Realtime: one channel, its presence and payloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Raw

from presence_proto import events, payloads
from presence_proto.config import ChannelConfig
from presence_proto.errors import RemoteProtocolError
from presence_proto.events import PresenceDiffed
from presence_proto.json_text import encode
from presence_proto.phoenix_socket import OuterClient
from presence_proto.realtime import RealtimeClient
from presence_proto.refusals import words_of
from presence_proto.room import (
    ActivityReported,
    Delivered,
    Lost,
    RoomEvent,
    Said,
    Synced,
    Trouble,
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
    """A `Room` that is a Supabase channel. `rng` is for the jitter of the backoff.

    `roster` keeps the presence: what a diff changed there goes to the outbox, and is not told.
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
        self._refusal: str | None = None  # why the server does not want us any more
        self._is_leaving = False  # because of that
        self._activities: set[int] = set()  # pushes that are on their way, and whose loss is none

    # ---------------------------------------------------------------- getters

    @property
    def is_closed(self) -> bool:
        """Whether it is at rest."""
        return self._realtime.is_closed

    @property
    def server_count(self) -> int | None:
        """A Phoenix server does not count."""
        return None

    @property
    def latency(self) -> float | None:
        """That of the connection."""
        return self._realtime.latency

    # ---------------------------------------------------------------- commands

    def connect(self, own: OnlineUser, *, now: float) -> None:
        """Enter the room."""
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
        """Leave the room for good."""
        self._realtime.disconnect(now=now)
        self._leave_if_refused(now)

    def show(self, own: OnlineUser, *, now: float) -> int | None:
        """Be shown as `own`: a broadcast to those who are in the room, and a track for the others."""
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
        if self._refusal is not None:
            self._leave_if_refused(now)
        return message_id

    def say(self, event: str, payload: dict[str, Any], *, now: float) -> int:
        """Send a broadcast."""
        message_id = self._say(event, payload, now)
        if self._refusal is not None:
            self._leave_if_refused(now)
        return message_id

    def set_access_token(self, token: str | None, *, expires_in: float | None, now: float) -> None:
        """Use another access token: in the channel at once, in the next join and the next URL."""
        self._realtime.set_access_token(token, expires_in=expires_in, now=now)
        self._leave_if_refused(now)

    def access_token_failed(self, reason: str, *, now: float) -> None:
        """There is no access token now."""
        self._realtime.access_token_failed(reason, now=now)
        self._leave_if_refused(now)

    def _say(self, event: str, payload: dict[str, Any], now: float) -> int:
        timeout = self._config.command_timeout
        # Our own payloads are JSON: they need no walk. It takes a third of the time of an activity.
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

    # ---------------------------------------------------------------- facts

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """The byte stream is there."""
        self._realtime.transport_opened(conn, now=now)
        self._leave_if_refused(now)

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Bytes came in."""
        self._realtime.receive_data(conn, data, now=now)
        if self._refusal is not None:
            self._leave_if_refused(now)

    def transport_closed(self, conn: ConnId, *, now: float, reason: str) -> None:
        """The byte stream ended, or could not be opened."""
        self._realtime.transport_closed(conn, now=now, reason=reason)
        self._leave_if_refused(now)

    def tick(self, *, now: float) -> None:
        """Time passed."""
        self._realtime.tick(now=now)
        self._leave_if_refused(now)

    def _leave_if_refused(self, now: float) -> None:
        if self._refusal is not None and not self._is_leaving:
            self._is_leaving = True
            self._realtime.disconnect(now=now)

    # ---------------------------------------------------------------- outputs

    def _emitted(self, event: events.RealtimeEvent) -> None:
        """The client has an event."""
        if type(event) is PresenceDiffed:  # nearly all that comes
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
                yield Delivered(event.push_id)  # the track tells it, now or after the next join
            case events.PushFailed():
                yield Undelivered(event.push_id, event.reason)
            case events.SocketDisconnected() if self._refusal is not None:
                if event.retry_in is None:
                    yield Lost(self._refusal, None, fatal=True)
            case events.AccessTokenFailed() if self._realtime.is_connected:
                yield Trouble(event.reason)
            case events.AccessTokenFailed():
                yield Lost(event.reason, event.retry_in)
            case events.SocketDisconnected():
                yield Lost(event.reason, event.retry_in, event.fatal)
            case events.ChannelDown(end=events.ChannelEnd.CONNECTION_LOST):
                pass  # SocketDisconnected has told it
            case events.ChannelDown(retry_in=None):  # rejoin_after_close=False
                self._refusal = event.reason
            case events.ChannelDown():
                yield Lost(event.reason, event.retry_in)
            case events.JoinFailed(final=True):
                self._refusal = f"the server refused us: {event.reason}"
            case events.JoinFailed():
                if event.refused:
                    yield Trouble(f"the server refused us: {event.reason}")
                yield Lost(event.reason, event.retry_in)
            case events.PresenceMissing() | events.ProtocolViolation():
                yield Trouble(event.reason)
            case events.TrackFailed():
                yield Trouble(f"the server did not take our presence: {event.reason}")
            case _:
                pass  # the steps to a connection, of which Synced is the last; messages that are not ours

    def _reason(self, refusal: events.PushReplied) -> str:
        """Why, in the server's words."""
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
                    yield Said(payloads.game_invite(payload))
                case "chat_message":
                    yield Said(payloads.chat_message(payload))
                case "poke":
                    target, poked = payloads.poke(payload)
                    if target == self._user_id:
                        yield Said(poked)
                case _:
                    pass  # somebody else's
        except RemoteProtocolError as exc:
            yield Trouble(str(exc))
