"""The room of the Jarvis presence system on Supabase Realtime: one channel, its presence and broadcasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto import broadcasts, events
from presence_proto.config import ChannelConfig
from presence_proto.errors import RemoteProtocolError
from presence_proto.outputs import CloseTransport, OpenTransport, Outbox, SendData
from presence_proto.realtime import RealtimeClient
from presence_proto.room import (
    Changed,
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
    from random import Random

    from presence_proto.config import PresenceConfig
    from presence_proto.events import OnlineUser
    from presence_proto.outputs import ConnId


class PhoenixRoom:
    """A `Room` that is a Supabase channel. `rng` is for the jitter of the backoff."""

    def __init__(self, config: PresenceConfig, *, rng: Random | None = None) -> None:
        self._config = config
        self._topic = f"realtime:{config.channel}"
        self._realtime = RealtimeClient(config, rng=rng)
        self._outbox: Outbox[RoomEvent] = Outbox()
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
        self._track(own, now)
        self._translate()

    def disconnect(self, *, now: float) -> None:
        """Leave the room for good."""
        self._realtime.disconnect(now=now)
        self._translate()

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
        self._translate()
        return message_id

    def say(self, event: str, payload: dict[str, Any], *, now: float) -> int:
        """Send a broadcast."""
        message_id = self._say(event, payload, now)
        self._translate()
        return message_id

    def set_access_token(self, token: str | None, *, now: float) -> None:
        """Use another access token: in the channel at once, in the next join and the next URL."""
        self._realtime.set_access_token(token, now=now)
        self._translate()

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
        self._translate()

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Bytes came in."""
        self._realtime.receive_data(conn, data, now=now)
        self._translate()

    def transport_closed(self, conn: ConnId, *, now: float, reason: str) -> None:
        """The byte stream ended, or could not be opened."""
        self._realtime.transport_closed(conn, now=now, reason=reason)
        self._translate()

    def tick(self, *, now: float) -> None:
        """Time passed."""
        self._realtime.tick(now=now)
        self._translate()

    # ---------------------------------------------------------------- outputs

    def next_output(self) -> RoomOutput | None:
        """The next output."""
        return self._outbox.next()

    def next_deadline(self) -> float | None:
        """When `tick` is due."""
        return self._realtime.next_deadline()

    def _translate(self) -> None:
        while (output := self._realtime.next_output()) is not None:
            if isinstance(output, SendData):
                self._outbox.send(output.conn, output.data)
            elif isinstance(output, (OpenTransport, CloseTransport)):
                self._outbox.put(output)
            else:
                self._happened(output)

    def _happened(self, event: events.RealtimeEvent) -> None:
        emit = self._outbox.put
        match event:
            case events.PresenceDiffed():
                emit(Changed(event.changes))
            case events.PresenceSynced():
                emit(Synced(event.changes))
            case events.Broadcast():
                self._heard(event)
            case events.PushReplied():
                self._activities.discard(event.push_id)
                if event.status == "ok":
                    emit(Delivered(event.push_id))
                else:
                    emit(Undelivered(event.push_id, self._refusal(event)))
            case events.PushFailed() if event.push_id in self._activities:
                self._activities.remove(event.push_id)
                emit(Delivered(event.push_id))  # the track tells it, now or after the next join
            case events.PushFailed():
                emit(Undelivered(event.push_id, event.reason))
            case events.SocketDisconnected():
                emit(Lost(event.reason, event.retry_in, event.fatal))
            case events.ChannelDown(retry_in=float()):  # None: the connection is lost, which was told already
                emit(Lost(event.reason, event.retry_in))
            case events.JoinFailed():
                if event.response is not None:
                    emit(Trouble(f"the server refused us: {event.reason}"))
                emit(Lost(event.reason, event.retry_in))
            case events.PresenceMissing() | events.ProtocolViolation():
                emit(Trouble(event.reason))
            case events.TrackFailed():
                emit(Trouble(f"the server did not take our presence: {event.reason}"))
            case _:
                pass  # the steps to a connection, of which Synced is the last; messages that are not ours

    def _refusal(self, refusal: events.PushReplied) -> str:
        """Why, in the server's words: Supabase says it in a string, Phoenix in an object."""
        response = refusal.response
        reason = response.get("reason") if isinstance(response, dict) else response
        words = f"the server said {refusal.status}" + (f": {reason}" if isinstance(reason, str) else "")
        return self._realtime.redacted(words)[:200]

    def _heard(self, broadcast: events.Broadcast) -> None:
        emit, payload = self._outbox.put, broadcast.payload
        try:
            match broadcast.event:
                case "activity_update":
                    claim = broadcasts.activity_update(payload)
                    if claim is not None:
                        emit(Claimed(claim))
                case "game_invite":
                    emit(Said(broadcasts.game_invite(payload)))
                case "chat_message":
                    emit(Said(broadcasts.chat_message(payload)))
                case "poke":
                    target, poked = broadcasts.poke(payload)
                    if target == self._user_id:
                        emit(Said(poked))
                case _:
                    pass  # somebody else's
        except RemoteProtocolError as exc:
            emit(Trouble(str(exc)))
