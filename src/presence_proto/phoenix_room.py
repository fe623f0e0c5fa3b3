"""The room of the Jarvis presence system on Supabase Realtime: one channel, its presence and broadcasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto import broadcasts, events
from presence_proto.config import ChannelConfig
from presence_proto.errors import RemoteProtocolError
from presence_proto.events import PresenceDiffed
from presence_proto.outputs import AccessTokenNeeded, CloseTransport, OpenTransport, SendData
from presence_proto.realtime import RealtimeClient
from presence_proto.room import (
    Claimed,
    Delivered,
    Lost,
    RoomEvent,
    RoomOutput,
    Said,
    Synced,
    Trouble,
    Undelivered,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from presence_proto.config import PresenceConfig
    from presence_proto.events import OnlineUser
    from presence_proto.outputs import ConnId

_PASSED_ON = (PresenceDiffed, SendData, OpenTransport, CloseTransport, AccessTokenNeeded)  # as they are


class PhoenixRoom:
    """A `Room` that is a Supabase channel. `rng` is for the jitter of the backoff."""

    def __init__(self, config: PresenceConfig, *, rng: Random | None = None) -> None:
        self._config = config
        self._topic = f"realtime:{config.channel}"
        self._realtime = RealtimeClient(config, rng=rng)
        self._user_id = ""
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
        self._realtime.join(self._topic, channel, now=now)
        if self._config.visible:
            self._track(own, now)

    def disconnect(self, *, now: float) -> None:
        """Leave the room for good."""
        self._realtime.disconnect(now=now)

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
        return message_id

    def say(self, event: str, payload: dict[str, Any], *, now: float) -> int:
        """Send a broadcast."""
        return self._say(event, payload, now)

    def set_access_token(self, token: str | None, *, expires_in: float | None, now: float) -> None:
        """Use another access token: in the channel at once, in the next join and the next URL."""
        self._realtime.set_access_token(token, expires_in=expires_in, now=now)

    def access_token_failed(self, reason: str, *, now: float) -> None:
        """There is no access token now."""
        self._realtime.access_token_failed(reason, now=now)

    def _say(self, event: str, payload: dict[str, Any], now: float) -> int:
        timeout = self._config.command_timeout
        return self._realtime.broadcast(self._topic, event, payload, timeout=timeout, now=now)

    def _track(self, own: OnlineUser, now: float) -> None:
        payload = {
            "user_id": own.user_id,
            "display_name": own.display_name,
            "status": own.status,
            "activity": own.activity,
        }
        if own.online_at is not None:
            payload["online_at"] = own.online_at
        self._realtime.track(self._topic, payload, now=now)

    # ---------------------------------------------------------------- facts

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """The byte stream is there."""
        self._realtime.transport_opened(conn, now=now)

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Bytes came in."""
        self._realtime.receive_data(conn, data, now=now)

    def transport_closed(self, conn: ConnId, *, now: float, reason: str) -> None:
        """The byte stream ended, or could not be opened."""
        self._realtime.transport_closed(conn, now=now, reason=reason)

    def tick(self, *, now: float) -> None:
        """Time passed."""
        self._realtime.tick(now=now)

    # ---------------------------------------------------------------- outputs

    def drain(self) -> Iterator[RoomOutput]:
        """All outputs that there are."""
        for output in self._realtime.drain():
            if isinstance(output, _PASSED_ON):
                yield output
            else:
                yield from self._happened(output)

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        return self._realtime.next_deadline()

    def _happened(self, event: events.RealtimeEvent) -> Iterator[RoomEvent]:
        match event:
            case events.PresenceSynced():
                yield Synced(event.changes)
            case events.Broadcast():
                yield from self._heard(event)
            case events.PushReplied():
                self._activities.discard(event.push_id)
                if event.status == "ok":
                    yield Delivered(event.push_id)
                else:
                    yield Undelivered(event.push_id, self._refusal(event))
            case events.PushFailed() if event.push_id in self._activities:
                self._activities.remove(event.push_id)
                yield Delivered(event.push_id)  # the track tells it, now or after the next join
            case events.PushFailed():
                yield Undelivered(event.push_id, event.reason)
            case events.AccessTokenFailed() if self._realtime.is_connected:
                yield Trouble(event.reason)
            case events.AccessTokenFailed():
                yield Lost(event.reason, event.retry_in)
            case events.SocketDisconnected():
                yield Lost(event.reason, event.retry_in, event.fatal)
            case events.ChannelDown(retry_in=float()):  # None: the connection is lost, which was told already
                yield Lost(event.reason, event.retry_in)
            case events.JoinFailed():
                if event.response is not None:
                    yield Trouble(f"the server refused us: {event.reason}")
                yield Lost(event.reason, event.retry_in)
            case events.PresenceMissing() | events.ProtocolViolation():
                yield Trouble(event.reason)
            case events.TrackFailed():
                yield Trouble(f"the server did not take our presence: {event.reason}")
            case _:
                pass  # the steps to a connection, of which Synced is the last; messages that are not ours

    def _refusal(self, refusal: events.PushReplied) -> str:
        """Why, in the server's words: Supabase says it in a string, Phoenix in an object."""
        response = refusal.response
        reason = response.get("reason") if isinstance(response, dict) else response
        words = f"the server said {refusal.status}" + (f": {reason}" if isinstance(reason, str) else "")
        return self._realtime.redacted(words)[:200]

    def _heard(self, broadcast: events.Broadcast) -> Iterator[RoomEvent]:
        payload = broadcast.payload
        try:
            match broadcast.event:
                case "activity_update":
                    claim = broadcasts.activity_update(payload)
                    if claim is not None:
                        yield Claimed(claim)
                case "game_invite":
                    yield Said(broadcasts.game_invite(payload))
                case "chat_message":
                    yield Said(broadcasts.chat_message(payload))
                case "poke":
                    target, poked = broadcasts.poke(payload)
                    if target == self._user_id:
                        yield Said(poked)
                case _:
                    pass  # somebody else's
        except RemoteProtocolError as exc:
            yield Trouble(str(exc))
