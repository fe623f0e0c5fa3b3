"""`PresenceClient`: a room of users. Who is online, what they do, invites, pokes, chat. No I/O.

It stands on a `Room`, which a protocol makes: a Supabase channel, or the Jarvis JSON protocol. What is heard
of the room becomes the events of `PresenceEvent`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import evolve
from msgspec.structs import replace

from presence_proto import events
from presence_proto.endpoint import (
    AccessTokenNeeded,
    CloseTransport,
    ConnId,
    OpenTransport,
    Outbox,
    SansIO,
    SendData,
)
from presence_proto.errors import LocalProtocolError
from presence_proto.events import OnlineUser, UserStatus
from presence_proto.jarvis_room import JarvisRoom
from presence_proto.phoenix_room import PhoenixRoom
from presence_proto.restart_grace import RestartGrace
from presence_proto.room import (
    ActivityReported,
    Delivered,
    Lost,
    Room,
    RoomEvent,
    Said,
    Synced,
    Trouble,
    Undelivered,
)
from presence_proto.roster import Roster
from presence_proto.timers import Clock
from presence_proto.validators import is_unicode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from presence_proto.config import Identity, PresenceConfig

PresenceOutput: TypeAlias = (
    OpenTransport | SendData | CloseTransport | AccessTokenNeeded | events.PresenceEvent
)


class PresenceClient(SansIO):
    """One user in the presence room. An endpoint in the sense of the driver contract.

    `online_at` is what others see as the time since when we are online, by convention ISO 8601 in UTC; the
    core has no wall clock. `rng` is for the jitter of the backoff and the nonce of the upgrade. Commands
    raise `LocalProtocolError` before anything changes when they are not legal; those that tell the room
    something return an id, and `CommandFailed` carries it if the command comes to nothing.
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
        self._visible = config.visible
        if online_at is not None:
            _required("online_at", online_at)
        config = evolve(config, access_token=identity.access_token or config.access_token)
        self._own = OnlineUser(identity.user_id, identity.display_name, UserStatus.ONLINE, None, online_at)
        self._roster = Roster(
            self._own,
            max_keys=config.max_roster,
            max_metas=config.max_metas,
            max_nesting=config.max_nesting,
        )
        self._grace = RestartGrace(config)
        self._clock = Clock()
        self._outbox: Outbox[AccessTokenNeeded | events.PresenceEvent] = Outbox()
        self._room: Room = (
            JarvisRoom(config, self._clock, self._outbox, self._tell, rng=rng)
            if config.speaks_jarvis
            else PhoenixRoom(config, self._roster, self._clock, self._outbox, self._tell, rng=rng)
        )
        self._held: list[RoomEvent] | None = None  # while a command is under way that has no id yet
        self._connected = False
        self._was_connected = False
        self._command_ids = 0
        self._commands: dict[int, tuple[int, str]] = {}  # message id of the room -> command id and name

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
        """Everybody in the room, ourselves first. If `is_stale`: as the room was when it was last seen."""
        return self._roster.users()

    @property
    def online_count(self) -> int:
        """How many different users are in the room, ourselves and stale ones included."""
        return len(self._roster)

    @property
    def is_connected(self) -> bool:
        """Whether we are in the room and see it."""
        return self._connected

    @property
    def is_stale(self) -> bool:
        """Whether the roster may be out of date: before the first `Connected`, and after a `Disconnected`."""
        return not self._connected

    def is_user_stale(self, user_id: str) -> bool:
        """Whether what is shown of the user may be out of date.

        Of all users while `is_stale`. Otherwise of those whom a restarted server has not seen again, until
        they return, or go offline when the grace is over (see `PresenceConfig.restart_grace`). No event tells
        that a user who looks the same is back. `False` for a user who is not in the roster.
        """
        if self._connected:
            return self._roster.is_stale(user_id)
        return self._roster.get(user_id) is not None

    @property
    def bytes_received(self) -> int:
        """Bytes that were received so far. Of messages that came compressed it is their inflated size."""
        return self._outbox.bytes_received

    @property
    def is_closed(self) -> bool:
        """Whether the client is at rest: not connected, and not trying to be."""
        return self._room.is_closed

    @property
    def server_count(self) -> int | None:
        """How many users there are, as the server last said. Jarvis servers do; on Phoenix it is `None`."""
        return self._room.server_count

    @property
    def latency(self) -> float | None:
        """How long the latest heartbeat took there and back, in seconds; `None` before there was one."""
        return self._room.latency

    @property
    def pending_commands(self) -> frozenset[int]:
        """The ids of the commands that the server has neither acknowledged nor refused yet."""
        return frozenset(command_id for command_id, _ in self._commands.values())

    def user(self, user_id: str) -> OnlineUser | None:
        """The user with this id as others see them, or `None` when they are not in the room."""
        return self._roster.get(user_id)

    def device_count(self, user_id: str) -> int:
        """With how many devices a user is online.

        0 for a user who is not, for ourselves until others see us, and for a user whom a restarted server has
        not seen again.
        The Jarvis JSON protocol does not tell: there it is 1 for all others.
        """
        return self._roster.device_count(user_id)

    # ---------------------------------------------------------------- commands

    def connect(self, *, now: float) -> None:
        """Enter the room, and stay in it until `disconnect`."""
        self._clock.advance(now)
        self._room.connect(self._own, now=now)
        self._settle()

    def disconnect(self, *, now: float) -> None:
        """Leave the room and close the connection. `Disconnected` follows, with no retry."""
        now = self._clock.advance(now)
        self._room.disconnect(now=now)
        self._settle()
        self._grace.left(now)  # what still comes is not read

    def update_activity(self, status: UserStatus | str, activity: str | None = None, *, now: float) -> int:
        """Be seen with this status and activity.

        Both are kept, and told again after every reconnect: the command fails only if the server refuses it.
        """
        try:
            status = UserStatus(status)
        except ValueError:
            legal = ", ".join(UserStatus)
            raise LocalProtocolError(f"status must be one of {legal}, not {status!r}") from None
        if not self._visible:
            raise LocalProtocolError("update_activity: nobody sees us (visible is False)")
        if activity is not None and not is_unicode(activity):
            raise LocalProtocolError(f"activity must be a string or None, not {activity!r}")
        self._catch_up(now)
        if (status, activity) == (self._own.status, self._own.activity):
            return self._command("update_activity", lambda: None)
        self._own = replace(self._own, status=status, activity=activity)
        self._roster.set_own(self._own)
        return self._command("update_activity", lambda: self._room.show(self._own, now=now))

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
        """Say something in a chat channel of the room. `timestamp` is text, by convention ISO 8601 in UTC."""
        payload: dict[str, Any] = {
            "channel": _required("channel", channel),
            "content": _required("content", content),
            "timestamp": None if timestamp is None else _required("timestamp", timestamp),
        }
        if reply_to is not None:
            payload["reply_to"] = _required("reply_to", reply_to)
        return self._send("send_chat", "chat_message", payload, now)

    def set_access_token(self, token: str | None, *, expires_in: float | None = None, now: float) -> None:
        """Use another access token: in the channel at once, in the next join and the next URL.

        It is the answer to `AccessTokenNeeded`, too. `expires_in`: seconds that it is good for, if that is
        known; with `asks_for_token` another one is asked for before they are over.
        """
        self._clock.advance(now)
        self._room.set_access_token(token, expires_in=expires_in, now=now)
        self._settle()

    def access_token_failed(self, reason: str, *, now: float) -> None:
        """Say that there is no access token now, in answer to `AccessTokenNeeded`. It is asked for again.

        `reason` is for people: `Disconnected`, or `Error` while we are connected, has it. When no answer is
        awaited, this does nothing.
        """
        self._clock.advance(now)
        self._room.access_token_failed(reason, now=now)
        self._settle()

    # ---------------------------------------------------------------- facts

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """The byte stream that `OpenTransport` asked for is there."""
        self._clock.advance(now)
        self._room.transport_opened(conn, now=now)
        self._settle()

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Bytes came in."""
        self._room.receive_data(conn, data, now=now)  # which advances our clock
        if self._clock.now >= self._grace.deadline:
            self._settle()

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """The byte stream ended, or could not be opened; `reason` is for people."""
        self._clock.advance(now)
        self._room.transport_closed(conn, now=now, reason=reason)
        self._settle()

    def tick(self, *, now: float) -> None:
        """Time passed. An early or repeated tick does nothing."""
        self._clock.advance(now)
        self._room.tick(now=now)
        self._settle()

    # ---------------------------------------------------------------- outputs

    def drain(self) -> Sequence[PresenceOutput]:
        """All outputs since the last drain, oldest first; empty when there are none."""
        return self._outbox.drain()

    def next_deadline(self) -> float | None:
        """When `tick` is due, on the clock of `now`; `None`: there is nothing to wait for."""
        deadline, grace = self._room.next_deadline(), self._grace.deadline
        if grace == inf:
            return deadline
        return grace if deadline is None else min(deadline, grace)

    # ---------------------------------------------------------------- sending

    def _catch_up(self, now: float) -> None:
        """Handle what is due before a command. Raises `LocalProtocolError` when `now` is not legal."""
        now = self._clock.advance(now)
        deadline = self.next_deadline()
        if deadline is not None and deadline <= now:
            self.tick(now=now)

    def _send(self, command: str, event: str, payload: dict[str, Any], now: float) -> int:
        self._catch_up(now)
        if self._room.is_closed:
            raise LocalProtocolError(f"{command}: not connected, call connect first")
        own = {"user_id": self._own.user_id, "display_name": self._own.display_name}
        return self._command(command, lambda: self._room.say(event, {**own, **payload}, now=now))

    def _command(self, name: str, tell: Callable[[], int | None]) -> int:
        """Tell the room. What it says of the message before we know its id waits until we do."""
        held = self._held = []
        try:
            message_id = tell()
        finally:
            self._held = None
        self._command_ids += 1
        if message_id is not None:
            self._commands[message_id] = (self._command_ids, name)
        for event in held:
            self._happened(event)
        self._settle()
        return self._command_ids

    # ---------------------------------------------------------------- what is heard of the room

    def _settle(self) -> None:
        """All was told: see whether missing users go."""
        now = self._clock.now
        if now >= self._grace.deadline and self._grace.expire(now):
            self._outbox.emit_all(self._roster.drop_stale())

    def _tell(self, event: RoomEvent) -> None:
        """Something is heard of the room."""
        if self._held is None:
            self._happened(event)
        else:
            self._held.append(event)

    def _happened(self, event: RoomEvent) -> None:
        emit = self._outbox.emit
        match event:
            case Synced():
                self._synced(event)
            case events.PresenceDiffed():
                self._outbox.emit_all(self._roster.apply(event.changes))
            case ActivityReported():
                if self._connected:  # a stale roster waits for the state
                    self._outbox.emit_all(self._roster.claim(event.claim))
            case Said():
                emit(event.event)
            case Delivered():
                command_id, _ = self._commands.pop(event.message_id)
                if event.sent_to is not None:
                    emit(events.InviteSent(command_id, event.sent_to))
            case Undelivered():
                command_id, command = self._commands.pop(event.message_id)
                emit(events.CommandFailed(command_id, command, event.reason))
            case Lost():
                self._connected = False
                self._grace.lost(self._clock.now)
                emit(events.Disconnected(event.reason, event.retry_in))
                if event.fatal:
                    emit(events.Error(event.reason, fatal=True))
            case _:
                assert isinstance(event, Trouble)
                emit(events.Error(event.message))

    def _synced(self, synced: Synced) -> None:
        keep = synced.forgotten and self._grace.applies
        happened = self._roster.sync(synced.changes, keep=keep)
        if not self._connected:
            self._grace.returned(self._clock.now)
            if keep and self._roster.has_stale:
                self._grace.start(self._clock.now)
            resumed, self._was_connected, self._connected = self._was_connected, True, True
            self._outbox.put(events.Connected(len(self._roster), self._roster.users(), resumed))
            if not resumed:
                return  # everybody is in Connected
        self._outbox.emit_all(happened)


def _required(name: str, value: Any) -> str:
    if not is_unicode(value) or not value:
        raise LocalProtocolError(f"{name} must be a non-empty string, not {value!r}")
    return str(value)
