"""`PresenceClient`: the Jarvis presence system. Who is online, what they do, invites, pokes, chat. Pure, as ever.

It stands on a `RealtimeClient` with one channel, and turns that client's events into the ten of `PresenceEvent`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import evolve

from presence_proto import broadcasts, events
from presence_proto.config import ChannelConfig
from presence_proto.errors import LocalProtocolError, RemoteProtocolError
from presence_proto.events import OnlineUser, UserStatus
from presence_proto.outputs import CloseTransport, OpenTransport, Outbox, SendData
from presence_proto.realtime import RealtimeClient
from presence_proto.roster import Roster

if TYPE_CHECKING:
    from random import Random

    from presence_proto.config import Identity, PresenceConfig
    from presence_proto.outputs import ConnId

PresenceOutput: TypeAlias = OpenTransport | SendData | CloseTransport | events.PresenceEvent


class PresenceClient:
    """One user in the presence room. An endpoint in the sense of the driver contract.

    `online_at` is what others see as the time since when we are online, by convention ISO 8601 in UTC; the core has
    no wall clock. `rng` is for the jitter of the backoff. Commands raise `LocalProtocolError` before anything changes
    when they are not legal; each returns an id, and `CommandFailed` carries it if the command comes to nothing.
    """

    def __init__(
        self,
        identity: Identity,
        config: PresenceConfig,
        *,
        rng: Random | None = None,
        online_at: str | None = None,
    ) -> None:
        self._identity = identity
        self._config = config
        self._topic = f"realtime:{config.channel}"
        token = identity.access_token or config.access_token
        self._realtime = RealtimeClient(evolve(config, access_token=token), rng=rng)
        self._own = OnlineUser(identity.user_id, identity.display_name, UserStatus.ONLINE, None, online_at)
        self._roster = Roster(self._own)
        self._outbox: Outbox[events.PresenceEvent] = Outbox()
        self._connected = False
        self._was_connected = False
        self._command_ids = 0
        self._commands: dict[int, tuple[int, str]] = {}  # push id -> command id and name

    # ---------------------------------------------------------------- getters

    @property
    def identity(self) -> Identity:
        """Who we are."""
        return self._identity

    @property
    def status(self) -> UserStatus:
        """Our status, as last set."""
        return self._own.status

    @property
    def activity(self) -> str | None:
        """Our activity, as last set."""
        return self._own.activity

    @property
    def online_users(self) -> tuple[OnlineUser, ...]:
        """Everybody in the room, ourselves first. What was true when the room was last seen, if `is_stale`."""
        return self._roster.users()

    @property
    def online_count(self) -> int:
        """How many different users are in the room, ourselves included."""
        return len(self._roster)

    @property
    def is_connected(self) -> bool:
        """Whether we are in the room and see it."""
        return self._connected

    @property
    def is_stale(self) -> bool:
        """Whether the roster may be out of date: before the first `Connected`, and from a `Disconnected` to the next."""
        return not self._connected

    @property
    def is_closed(self) -> bool:
        """Whether the client is at rest: not connected, and not trying to be."""
        return self._realtime.is_closed

    @property
    def pending_commands(self) -> frozenset[int]:
        """The ids of the commands that the server has neither acknowledged nor refused yet."""
        return frozenset(command_id for command_id, _ in self._commands.values())

    # ---------------------------------------------------------------- commands

    def connect(self, *, now: float) -> None:
        """Enter the room, and stay in it until `disconnect`."""
        config = self._config
        channel = ChannelConfig(
            broadcast_ack=True,
            presence_key=self._identity.user_id,
            track_limit=config.track_limit,
            track_window=config.track_window,
        )
        self._realtime.connect(now=now)
        self._realtime.join(self._topic, channel, now=now)
        self._track(now)
        self._translate()

    def disconnect(self, *, now: float) -> None:
        """Leave the room and close the connection. `Disconnected` follows, with no retry."""
        self._realtime.disconnect(now=now)
        self._translate()

    def update_activity(self, status: UserStatus | str, activity: str | None = None, *, now: float) -> int:
        """Be seen with this status and activity. Kept, and told again after every reconnect: it cannot be lost."""
        try:
            status = UserStatus(status)
        except ValueError:
            legal = ", ".join(UserStatus)
            raise LocalProtocolError(f"status must be one of {legal}, not {status!r}") from None
        if activity is not None and not isinstance(activity, str):
            raise LocalProtocolError(f"activity must be a string or None, not {activity!r}")
        changed = (status, activity) != (self._own.status, self._own.activity)
        if changed:
            self._own = evolve(self._own, status=status, activity=activity)
            self._roster.set_own(self._own)
        if changed and self._connected:
            # To those who are in the room, faster than the track. The others learn it from the track.
            payload = {"status": status, "activity": activity}
            command_id = self._command("update_activity", "activity_update", payload, now)
        else:
            command_id = self._command_id()
        if self._topic in self._realtime.channels:
            self._track(now)
        self._translate()
        return command_id

    def send_invite(self, game: str, code: str | None = None, *, now: float) -> int:
        """Invite everybody in the room to a game."""
        payload = {"game": _required("game", game)}
        if code is not None:
            payload["code"] = _required("code", code)
        return self._send("send_invite", "game_invite", payload, now)

    def send_poke(self, target_user_id: str, *, now: float) -> int:
        """Poke one user."""
        target = _required("target_user_id", target_user_id)
        return self._send("send_poke", "poke", {"target_user_id": target}, now)

    def send_chat(
        self,
        channel: str,
        content: str,
        reply_to: str | None = None,
        *,
        timestamp: str | None = None,
        now: float,
    ) -> int:
        """Say something in a chat channel of the room. `timestamp` is wall-clock text, by convention ISO 8601."""
        payload: dict[str, Any] = {
            "channel": _required("channel", channel),
            "content": _required("content", content),
            "timestamp": timestamp,
        }
        if reply_to is not None:
            payload["reply_to"] = _required("reply_to", reply_to)
        return self._send("send_chat", "chat_message", payload, now)

    def set_access_token(self, token: str | None, *, now: float) -> None:
        """Use another access token: in the channel at once, in the next join and the next URL."""
        self._realtime.set_access_token(token, now=now)
        self._translate()

    # ---------------------------------------------------------------- facts

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """The byte stream that `OpenTransport` asked for is there."""
        self._realtime.transport_opened(conn, now=now)
        self._translate()

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Bytes came in."""
        self._realtime.receive_data(conn, data, now=now)
        self._translate()

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """The byte stream ended, or could not be opened; `reason` is for people."""
        self._realtime.transport_closed(conn, now=now, reason=reason)
        self._translate()

    def tick(self, *, now: float) -> None:
        """Time passed. An early or repeated tick does nothing."""
        self._realtime.tick(now=now)
        self._translate()

    # ---------------------------------------------------------------- outputs

    def next_output(self) -> PresenceOutput | None:
        """The next output, or `None` when there is none left."""
        return self._outbox.next()

    def next_deadline(self) -> float | None:
        """When `tick` is due, on the clock of `now`; `None`: there is nothing to wait for."""
        return self._realtime.next_deadline()

    # ---------------------------------------------------------------- sending

    def _command_id(self) -> int:
        self._command_ids += 1
        return self._command_ids

    def _send(self, command: str, event: str, payload: dict[str, Any], now: float) -> int:
        if self._topic not in self._realtime.channels or self._realtime.is_closed:
            raise LocalProtocolError(f"{command}: not connected, call connect first")
        command_id = self._command(command, event, payload, now)
        self._translate()
        return command_id

    def _command(self, command: str, event: str, payload: dict[str, Any], now: float) -> int:
        payload = {"user_id": self._own.user_id, "display_name": self._own.display_name, **payload}
        timeout = self._config.command_timeout
        push_id = self._realtime.broadcast(self._topic, event, payload, timeout=timeout, now=now)
        command_id = self._command_id()
        self._commands[push_id] = (command_id, command)
        return command_id

    def _track(self, now: float) -> None:
        own = self._own
        payload = {
            "user_id": own.user_id,
            "display_name": own.display_name,
            "status": own.status,
            "activity": own.activity,
        }
        if own.online_at is not None:
            payload["online_at"] = own.online_at
        self._realtime.track(self._topic, payload, now=now)

    # ---------------------------------------------------------------- the other client's outputs

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
            case events.PresenceSynced() | events.PresenceDiffed():
                self._presence(event)
            case events.Broadcast():
                self._broadcast(event)
            case events.PushReplied():
                command_id, command = self._commands.pop(event.push_id)
                if event.status != "ok":
                    reason = f"the server said {event.status}: {str(event.response)[:200]}"
                    emit(events.CommandFailed(command_id, command, reason))
            case events.PushFailed():
                command_id, command = self._commands.pop(event.push_id)
                emit(events.CommandFailed(command_id, command, event.reason))
            case events.SocketDisconnected():
                self._disconnected(event.reason, event.retry_in)
                if event.fatal:
                    emit(events.Error(event.reason, fatal=True))
            case events.ChannelDown(retry_in=float()):  # None: the connection is lost, which was told already
                self._disconnected(event.reason, event.retry_in)
            case events.JoinFailed():
                if event.response is not None:
                    emit(events.Error(f"the server refused us: {event.reason}"))
                self._disconnected(event.reason, event.retry_in)
            case events.PresenceMissing() | events.ProtocolViolation():
                emit(events.Error(event.reason))
            case events.TrackFailed():
                emit(events.Error(f"the server did not take our presence: {event.reason}"))
            case _:
                pass  # the steps to a connection, of which Connected is the last; messages that are not ours

    def _disconnected(self, reason: str, retry_in: float | None) -> None:
        self._connected = False
        self._outbox.put(events.Disconnected(reason, retry_in))

    def _presence(self, event: events.PresenceSynced | events.PresenceDiffed) -> None:
        happened = self._roster.apply(event.changes, self._realtime.presence(self._topic))
        if isinstance(event, events.PresenceSynced) and not self._connected:
            resumed, self._was_connected, self._connected = self._was_connected, True, True
            self._outbox.put(events.Connected(len(self._roster), self._roster.users(), resumed))
            if not resumed:
                return  # everybody is in Connected
        for one in happened:
            self._outbox.put(one)

    def _broadcast(self, broadcast: events.Broadcast) -> None:
        emit, payload = self._outbox.put, broadcast.payload
        try:
            match broadcast.event:
                case "activity_update":
                    claim = broadcasts.activity_update(payload)
                    if claim is not None:
                        for event in self._roster.claim(*claim):
                            emit(event)
                case "game_invite":
                    emit(broadcasts.game_invite(payload))
                case "chat_message":
                    emit(broadcasts.chat_message(payload))
                case "poke":
                    target, poked = broadcasts.poke(payload)
                    if target == self._own.user_id:
                        emit(poked)
                case _:
                    pass  # somebody else's
        except RemoteProtocolError as exc:
            emit(events.Error(str(exc)))


def _required(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise LocalProtocolError(f"{name} must be a non-empty string, not {value!r}")
    return value
