"""`PresenceClient`: one user in a room of users, with activities, invites, pokes and chat, and without I/O.

The client uses a `Room`, which implements a protocol: Supabase Realtime or the Jarvis JSON protocol. The
client converts the room's events to `PresenceEvent`s.
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
from presence_proto.room import ActivityReported, Delivered, Room, RoomEvent, Synced, Undelivered
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
    """One user in the presence room. `PresenceClient` implements `Endpoint`.

    `online_at` is the time at which this user came online, for other users to see: a text, by convention ISO
    8601 in UTC. The application provides `online_at`, because the core has no wall clock. The jitter of the
    backoff and the nonce of the upgrade come from `rng`. An illegal command raises `LocalProtocolError` and
    changes nothing. A command that sends a message to the room returns an id. If the command fails,
    `CommandFailed` has that id.
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
        self._held: list[RoomEvent] | None = None  # room events, until the current command has an id
        self._connected = False
        self._was_connected = False
        self._command_ids = 0
        self._commands: dict[int, tuple[int, str]] = {}  # message id of the room -> command id and name

    # ---------------------------------------------------------------- getters

    @property
    def identity(self) -> Identity:
        """The identity that was passed to the constructor."""
        return self._identity

    @property
    def status(self) -> UserStatus:
        """This user's status, as last set by `update_activity`."""
        return self._own.status

    @property
    def activity(self) -> str | None:
        """This user's activity, as last set by `update_activity`."""
        return self._own.activity

    @property
    def online_users(self) -> tuple[OnlineUser, ...]:
        """All users in the room, this user first. If `is_stale` is true, the users are the last known."""
        return self._roster.users()

    @property
    def online_count(self) -> int:
        """The number of users in the room, including this user and users for whom `is_user_stale` is true."""
        return len(self._roster)

    @property
    def is_connected(self) -> bool:
        """Whether the client is in the room and knows the users of the room."""
        return self._connected

    @property
    def is_stale(self) -> bool:
        """Whether the roster may be out of date: before the first `Connected`, and after a `Disconnected`."""
        return not self._connected

    def is_user_stale(self, user_id: str) -> bool:
        """Whether the data of a user may be out of date. The result for users outside the room is `False`.

        If `is_stale` is true, the data of all users may be out of date. Otherwise the data of a user may be
        out of date if a restarted server has not reported the user yet. Such a user returns, or goes offline
        after `PresenceConfig.restart_grace`. The return of an unchanged user causes no event.
        """
        if self._connected:
            return self._roster.is_stale(user_id)
        return self._roster.get(user_id) is not None

    @property
    def bytes_received(self) -> int:
        """The number of bytes received so far. Compressed messages count with their inflated size."""
        return self._outbox.bytes_received

    @property
    def is_closed(self) -> bool:
        """Whether the client is neither connected nor trying to connect."""
        return self._room.is_closed

    @property
    def server_count(self) -> int | None:
        """The number of users that a Jarvis server last reported. Always `None` on Phoenix."""
        return self._room.server_count

    @property
    def latency(self) -> float | None:
        """The round-trip time of the latest answered heartbeat in seconds, or `None` without an answer."""
        return self._room.latency

    @property
    def pending_commands(self) -> frozenset[int]:
        """The ids of the commands that the server has neither acknowledged nor refused yet."""
        return frozenset(command_id for command_id, _ in self._commands.values())

    def user(self, user_id: str) -> OnlineUser | None:
        """Return the data of a user that other users see, or `None` if the user is not in the room."""
        return self._roster.get(user_id)

    def device_count(self, user_id: str) -> int:
        """Return the number of devices with which a user is online.

        The number is 0 for an offline user, for a user whom a restarted server has not reported yet, and for
        this user until others see this user. The Jarvis JSON protocol does not report devices: with this
        protocol, the number is 1 for every other user who is online.
        """
        return self._roster.device_count(user_id)

    # ---------------------------------------------------------------- commands

    def connect(self, *, now: float) -> None:
        """Enter the room, and stay in the room until `disconnect`."""
        self._room.connect(self._own, now=now)
        self._settle()

    def disconnect(self, *, now: float) -> None:
        """Leave the room and close the connection. `Disconnected` follows, with no retry."""
        now = self._clock.advance(now)
        self._room.disconnect(now=now)
        self._settle()
        self._grace.left(now)  # the client ignores later data

    def update_activity(self, status: UserStatus | str, activity: str | None = None, *, now: float) -> int:
        """Show this status and activity to the other users.

        The client stores the status and the activity, and sends both again after every reconnect. Therefore,
        the command fails only if the server refuses the update.
        """
        try:
            status = UserStatus(status)
        except ValueError:
            legal = ", ".join(UserStatus)
            raise LocalProtocolError(f"status must be one of {legal}, not {status!r}") from None
        if not self._visible:
            raise LocalProtocolError("update_activity: this client is invisible (visible is False)")
        if activity is not None and not is_unicode(activity):
            raise LocalProtocolError(f"activity must be a string or None, not {activity!r}")
        self._catch_up(now)
        if (status, activity) == (self._own.status, self._own.activity):
            return self._command("update_activity", lambda: None)
        self._own = replace(self._own, status=status, activity=activity)
        self._roster.set_own(self._own)
        return self._command("update_activity", lambda: self._room.show(self._own, now=now))

    def send_invite(self, game: str, code: str | None = None, *, now: float) -> int:
        """Invite all users in the room to a game."""
        payload = {"game": _required("game", game)}
        if code is not None:
            payload["code"] = _required("code", code)
        return self._send("send_invite", "game_invite", payload, now)

    def send_poke(self, target_user_id: str, *, now: float) -> int:
        """Send a poke to one user in the room."""
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
        """Send a message to a chat channel of the room. `timestamp` is by convention ISO 8601 in UTC."""
        payload: dict[str, Any] = {
            "channel": _required("channel", channel),
            "content": _required("content", content),
            "timestamp": None if timestamp is None else _required("timestamp", timestamp),
        }
        if reply_to is not None:
            payload["reply_to"] = _required("reply_to", reply_to)
        return self._send("send_chat", "chat_message", payload, now)

    def set_access_token(self, token: str | None, *, expires_in: float | None = None, now: float) -> None:
        """Use another access token. The call also answers `AccessTokenNeeded`.

        The client sends the token to the joined channel at once, and uses the token in the next join and the
        next URL. `expires_in` is the token's validity in seconds, if known. With `asks_for_token`, the client
        requests another token before this token expires.
        """
        self._room.set_access_token(token, expires_in=expires_in, now=now)
        self._settle()

    def access_token_failed(self, reason: str, *, now: float) -> None:
        """Answer `AccessTokenNeeded` with a failure: no access token is available now.

        The client repeats the request later. An `Error` event, or `Disconnected` if the WebSocket is not
        open, reports the human-readable `reason`. Without an unanswered request, the call does nothing.
        """
        self._room.access_token_failed(reason, now=now)
        self._settle()

    # ---------------------------------------------------------------- driver inputs

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """Implements `Endpoint.transport_opened`."""
        self._clock.advance(now)
        self._room.transport_opened(conn, now=now)
        self._settle()

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Implements `Endpoint.receive_data`."""
        self._room.receive_data(conn, data, now=now)  # also advances the clock
        if self._clock.now >= self._grace.deadline:
            self._settle()

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """Implements `Endpoint.transport_closed`. `reason` is human-readable."""
        self._clock.advance(now)
        self._room.transport_closed(conn, now=now, reason=reason)
        self._settle()

    def tick(self, *, now: float) -> None:
        """Handle due timers. An early or repeated tick does nothing."""
        self._clock.advance(now)
        self._room.tick(now=now)
        self._settle()

    # ---------------------------------------------------------------- outputs

    def drain(self) -> Sequence[PresenceOutput]:
        """Return all outputs since the last drain, oldest first."""
        return self._outbox.drain()

    def next_deadline(self) -> float | None:
        """Return the time when `tick` is due, on the clock of `now`, or `None` if no timer runs."""
        deadline, grace = self._room.next_deadline(), self._grace.deadline
        if grace == inf:
            return deadline
        return grace if deadline is None else min(deadline, grace)

    # ---------------------------------------------------------------- sending

    def _catch_up(self, now: float) -> None:
        """Handle due timers before a command. Raises `LocalProtocolError` if `now` is not legal."""
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
        """Run a command. Room events that occur before the message id is known are handled afterwards."""
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

    # ---------------------------------------------------------------- room events

    def _settle(self) -> None:
        """Remove missing users if the restart grace is over. The removal follows all other events."""
        now = self._clock.now
        if now >= self._grace.deadline and self._grace.expire(now):
            self._outbox.emit_all(self._roster.drop_stale())

    def _tell(self, event: RoomEvent) -> None:
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
                if self._connected:  # while disconnected, wait for the presence state
                    self._outbox.emit_all(self._roster.claim(event.claim))
            case Delivered():
                command_id, _ = self._commands.pop(event.message_id)
                if event.sent_to is not None:
                    emit(events.InviteSent(command_id, event.sent_to))
            case Undelivered():
                command_id, command = self._commands.pop(event.message_id)
                emit(events.CommandFailed(command_id, command, event.reason))
            case events.Disconnected():
                self._connected = False
                self._grace.lost(self._clock.now)
                emit(event)
            case _:
                emit(event)

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
                return  # Connected has all users
        self._outbox.emit_all(happened)


def _required(name: str, value: Any) -> str:
    if not is_unicode(value) or not value:
        raise LocalProtocolError(f"{name} must be a non-empty string, not {value!r}")
    return str(value)
