"""The client side of the Jarvis JSON protocol, version 1: one room, with plain JSON messages on a WebSocket.

    client                                    server
    connect {user_id, display_name} ───────▶
                                     ◀─────── welcome {users}: all other users
    ping, every heartbeat_interval   ───────▶
                                     ◀─────── pong {online_count}
    activity_update, game_invite, poke ─────▶
                                     ◀─────── user_online, user_offline, activity_changed, game_invite, poke,
                                              invite_sent {sent_to}, error {message}
    disconnect                       ───────▶

The protocol has no refs, no chat, no acknowledgements except `invite_sent`, and tokens only in the URL.

The client's `connect` message has two fields that are not part of version 1. `run_id` is random, and is the
same for all connections of one run of the client. `run_connection` is the number of the connection in that
run. Bytes of an old connection may reach the server after the client has reconnected. `run_id` and
`run_connection` tell the server which connection is outdated. Servers ignore unknown fields.
"""

from __future__ import annotations

from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from presence_proto import payloads
from presence_proto.connection import (
    Connection,
    ConnectionState,
    Down,
    HeartbeatDue,
    TokenFailed,
    Up,
)
from presence_proto.errors import LocalProtocolError, RemoteProtocolError
from presence_proto.events import Disconnected, Error, OnlineUser, Poked, PresenceDiffed
from presence_proto.json_text import cut, decode_object, nests_deeper, too_deep
from presence_proto.payloads import Fields
from presence_proto.presence import Meta, PresenceChange
from presence_proto.room import (
    Delivered,
    Synced,
    Undelivered,
)
from presence_proto.timers import Clock, Timers

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from presence_proto.config import PresenceConfig
    from presence_proto.endpoint import ConnId, Outbox
    from presence_proto.room import RoomEvent

VERSION = "1"
NO_TOPIC = ""
"""The topic in events of a Jarvis room: a Jarvis server has one room, without a name."""


class JarvisTimer(Enum):
    """The named timers of a `JarvisRoom`. The name of a waiting message's timer is the message id."""

    WELCOME = auto()
    STABLE = auto()  # reset the backoff, `stable_after` seconds after the welcome message


class JarvisRoom:
    """A `Room` on a Jarvis server.

    The jitter of the backoff, the nonce of the upgrade and the run id come from `rng`. Without `rng`, the
    client has no run id.
    """

    def __init__(
        self,
        config: PresenceConfig,
        clock: Clock,
        outbox: Outbox[Any],
        tell: Callable[[RoomEvent], None],
        *,
        rng: Random | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._tell = tell
        self._connection = Connection(config, outbox, rng=rng)
        self._timers: Timers[JarvisTimer | int] = Timers()
        self._rng = rng
        self._run_id: str | None = None
        self._run_connections = 0  # connections of this run that have sent `connect`
        self._own = OnlineUser("", "")
        self._welcomed = False
        self._was_welcomed = False
        self._metas: dict[str, Meta] = {}  # metas of the other users, by user id
        self._refs = 0
        self._message_ids = 0
        self._waiting: dict[int, dict[str, Any]] = {}  # messages that wait for `welcome`, oldest first
        self._invites: dict[int, tuple[str, str | None]] = {}  # sent invites without a receipt: game and code
        self._server_count: int | None = None

    # ---------------------------------------------------------------- getters

    @property
    def is_closed(self) -> bool:
        """Implements `Room.is_closed`."""
        return self._connection.state is ConnectionState.IDLE

    @property
    def server_count(self) -> int | None:
        """The `online_count` of the last `pong` message, or `None` before the first `pong`."""
        return self._server_count

    @property
    def latency(self) -> float | None:
        """Implements `Room.latency`."""
        return self._connection.latency

    # ---------------------------------------------------------------- commands

    def connect(self, own: OnlineUser, *, now: float) -> None:
        """Implements `Room.connect`."""
        if not self.is_closed:
            raise LocalProtocolError("connect was already called")
        now = self._clock.advance(now)
        self._own = own
        if self._run_id is None and self._rng is not None:
            self._run_id = f"{self._rng.getrandbits(64):016x}"
        self._connection.open(now)
        self._settle(now)

    def disconnect(self, *, now: float) -> None:
        """Send `disconnect` if the connection is open, and close the connection."""
        now = self._clock.advance(now)
        if self._connection.state is ConnectionState.OPEN:
            self._send({"type": "disconnect"})
            self._out("disconnect was called", retry=False)  # the room ignores later data
        self._connection.close(now)
        self._settle(now)

    def show(self, own: OnlineUser, *, now: float) -> int | None:
        """Show the data in `own` as this user. Returns `None`, because `activity_update` gets no reply."""
        now = self._clock.advance(now)
        self._own = own
        self._tell_activity()
        self._settle(now)
        return None

    def say(self, event: str, payload: dict[str, Any], *, now: float) -> int:
        """Send an invite or a poke now, or after the next `welcome` message. Implements `Room.say`."""
        if event == "chat_message":
            raise LocalProtocolError("send_chat: the Jarvis JSON protocol has no chat")
        if len(self._waiting) >= self._config.max_pending_pushes:
            raise LocalProtocolError(f"{len(self._waiting)} messages already wait (max_pending_pushes)")
        now = self._clock.advance(now)
        self._message_ids += 1
        # The server adds the sender's user id and display name.
        rest = {name: value for name, value in payload.items() if name not in ("user_id", "display_name")}
        if event == "game_invite":
            rest.setdefault("code", None)
        self._waiting[self._message_ids] = {"type": event, **rest}
        self._timers.set(self._message_ids, now + self._config.command_timeout)
        self._send_waiting()
        self._settle(now)
        return self._message_ids

    def set_access_token(self, token: str | None, *, expires_in: float | None, now: float) -> None:
        """Use another access token in the next URL.

        `expires_in` is only checked: the token is part of the URL, so an open connection needs no new token.
        """
        self._connection.check_token(token, expires_in)
        now = self._clock.advance(now)
        self._connection.set_token(token, None, now)
        self._settle(now)

    def access_token_failed(self, reason: str, *, now: float) -> None:
        """Implements `Room.access_token_failed`."""
        self._connection.check_reason(reason)
        now = self._clock.advance(now)
        self._connection.token_failed(reason, now)
        self._settle(now)

    # ---------------------------------------------------------------- facts

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """Implements `Endpoint.transport_opened`."""
        now = self._clock.advance(now)
        self._connection.transport_opened(conn)
        self._settle(now)

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Implements `Endpoint.receive_data`."""
        now = self._clock.advance(now)
        self._connection.receive_data(conn, data)
        self._settle(now)

    def transport_closed(self, conn: ConnId, *, now: float, reason: str) -> None:
        """Implements `Endpoint.transport_closed`."""
        now = self._clock.advance(now)
        self._connection.transport_closed(conn, reason, now)
        self._settle(now)

    def tick(self, *, now: float) -> None:
        """Implements `Endpoint.tick`."""
        self._settle(self._clock.advance(now))

    # ---------------------------------------------------------------- outputs

    def next_deadline(self) -> float | None:
        """Implements `Endpoint.next_deadline`."""
        deadline = self._first_deadline()
        return None if deadline == inf else deadline

    # ---------------------------------------------------------------- the connection

    def _first_deadline(self) -> float:
        return min(self._connection.timers.first, self._timers.first)

    def _settle(self, now: float) -> None:
        """Handle received messages before expired timers, so that a received `welcome` beats its timeout."""
        self._pump(now)
        while self._first_deadline() <= now:
            self._connection.tick(now)
            self._pump(now)
            while (timer := self._timers.pop_expired(now)) is not None:
                self._expired(timer, now)

    def _pump(self, now: float) -> None:
        while self._connection.has_more:
            match received := self._connection.read(now):
                case list():
                    for message in received:
                        self._receive(message, now)
                case Up():
                    self._introduce()
                    self._timers.set(JarvisTimer.WELCOME, now + self._config.join_timeout)
                case HeartbeatDue():
                    self._send({"type": "ping"})
                case TokenFailed():
                    self._tell(Disconnected(received.reason, received.retry_in))
                case Down():
                    self._down(received)

    def _down(self, down: Down) -> None:
        self._tell(Disconnected(down.reason, down.retry_in))
        if down.fatal:
            self._tell(Error(down.reason, fatal=True))
        self._out("the connection ended", retry=down.retry_in is not None)

    def _out(self, reason: str, *, retry: bool) -> None:
        """Mark the client as not in the room. Fail sent invites and, without `retry`, waiting messages."""
        self._welcomed = False
        self._timers.cancel(JarvisTimer.WELCOME)
        self._timers.cancel(JarvisTimer.STABLE)
        for message_id in tuple(self._invites):
            self._fail(message_id, f"{reason} before the receipt")
        for message_id in () if retry else tuple(self._waiting):
            self._fail(message_id, reason)

    def _expired(self, timer: JarvisTimer | int, now: float) -> None:
        if timer is JarvisTimer.STABLE:
            self._connection.reset_backoff()
        elif timer is JarvisTimer.WELCOME:
            waited = f"no welcome within {self._config.join_timeout:g} s"
            why = "the server does not let us in, or does not speak Jarvis JSON"
            self._connection.abort(f"{waited}: {why}", now)
            self._pump(now)
        else:
            assert isinstance(timer, int)
            self._fail(timer, "not delivered in time" if timer in self._waiting else "no receipt in time")

    # ---------------------------------------------------------------- sending

    def _send(self, message: dict[str, Any]) -> None:
        self._connection.send(msgspec.json.encode(message), text=True)

    def _send_waiting(self) -> None:
        while self._welcomed and self._waiting:
            message_id = next(iter(self._waiting))
            message = self._waiting.pop(message_id)
            self._send(message)
            if message["type"] == "game_invite":
                self._invites[message_id] = message["game"], message["code"]
            else:
                self._timers.cancel(message_id)
                self._tell(Delivered(message_id))

    def _introduce(self) -> None:
        own = self._own
        hello = {"type": "connect", "user_id": own.user_id, "display_name": own.display_name}
        self._run_connections += 1
        run = {"run_id": self._run_id, "run_connection": self._run_connections}
        self._send({**hello, "version": VERSION, **({} if self._run_id is None else run)})

    def _tell_activity(self) -> None:
        # Servers show every connected user, visible or not. But all connections of a user share one status,
        # which an invisible client must not overwrite.
        if self._welcomed and self._config.visible:
            own = self._own
            self._send({"type": "activity_update", "status": own.status, "activity": own.activity})

    def _fail(self, message_id: int, reason: str) -> None:
        self._timers.cancel(message_id)
        self._waiting.pop(message_id, None)
        self._invites.pop(message_id, None)
        self._tell(Undelivered(message_id, reason))

    # ---------------------------------------------------------------- receiving

    def _receive(self, data: str | bytes, now: float) -> None:
        try:
            if not isinstance(data, str):
                raise RemoteProtocolError("a Jarvis message must be text")
            message = self._decoded(data)
            kind = message.pop("type", None)
            if not isinstance(kind, str):
                raise RemoteProtocolError("a Jarvis message must have a string type")
            self._on_message(kind, message, now)
        except RemoteProtocolError as exc:
            self._tell(Error(str(exc)))

    def _decoded(self, text: str) -> dict[str, Any]:
        """Return the JSON object of a message.

        Raises `RemoteProtocolError` if the text is not an object or nests too deeply. In messages about
        users, values that nest too deeply become `null` instead, so that one user's fields do not hide the
        other users.
        """
        what, levels = "a Jarvis message", self._config.max_nesting
        if not nests_deeper(text, levels):
            return decode_object(text, what, levels)
        fault = too_deep(what, levels)
        try:
            message = decode_object(cut(text, levels), what, levels)
        except RemoteProtocolError:
            raise fault from None
        if message.get("type") not in ("welcome", "user_online", "activity_changed"):
            raise fault
        self._tell(Error(str(fault)))
        return message

    def _on_message(self, kind: str, message: dict[str, Any], now: float) -> None:
        emit, fields = self._tell, Fields(f"the {kind} message", message)
        match kind:
            case "welcome":
                self._on_welcome(message.get("users"), now)
            case "pong":
                self._connection.heartbeat_acked(now)
                count = message.get("online_count")
                self._server_count = count if type(count) is int else None  # not isinstance: a bool is an int
            case "user_online" | "activity_changed" | "user_offline" if not self._welcomed:
                pass  # the `welcome` message will have all users
            case "user_online" | "activity_changed":
                user_id, shown = _user(fields)
                if kind == "user_online" and isinstance(message.get("ts"), str):
                    shown["online_at"] = message["ts"]
                known = user_id in self._metas
                if user_id != self._own.user_id and (known or kind == "user_online"):
                    self._check_size(len(self._metas) + (not known))
                    emit(PresenceDiffed(NO_TOPIC, (self._replace(user_id, shown),)))
            case "user_offline":
                user_id = fields.required("user_id")
                if user_id != self._own.user_id:
                    emit(PresenceDiffed(NO_TOPIC, (self._remove(user_id),)))
            case "game_invite":
                emit(payloads.game_invite(message))
            case "poke":
                emit(Poked(*fields.sender(), fields.rest))
            case "invite_sent":
                self._on_receipt(message)
            case "error":
                words = self._connection.credentials.quote(fields.required("message"))
                emit(Error(f"the server says: {words}", server_text=words))
            case _:
                pass  # a message of a later protocol version

    def _on_welcome(self, users: Any, now: float) -> None:
        if not isinstance(users, list):
            raise RemoteProtocolError("the welcome message must have a list of users")
        present = dict(_user(Fields("a user of the welcome message", user)) for user in users)
        present.pop(self._own.user_id, None)
        self._check_size(len(present))
        changes = [self._remove(user_id) for user_id in tuple(self._metas) if user_id not in present]
        changes += [self._replace(user_id, meta) for user_id, meta in present.items()]
        # A `welcome` message has no refs. Therefore, a user who is missing after a reconnect may have left,
        # or a restarted server may have lost the user.
        forgotten = self._was_welcomed and not self._welcomed
        self._welcomed = self._was_welcomed = True
        self._timers.cancel(JarvisTimer.WELCOME)
        self._timers.set(JarvisTimer.STABLE, now + self._config.stable_after)
        self._tell(Synced(tuple(changes), forgotten))
        # The server may still show the status from before a short absence or a restart of this client.
        self._tell_activity()
        self._send_waiting()

    def _on_receipt(self, receipt: dict[str, Any]) -> None:
        """Handle the receipt for the oldest equal invite. (The invite of the receipt may have timed out.)"""
        invite, sent_to = (receipt.get("game"), receipt.get("code") or None), _names(receipt.get("sent_to"))
        message_id = next((one for one, sent in self._invites.items() if sent == invite), None)
        if message_id is not None:
            del self._invites[message_id]
            self._timers.cancel(message_id)
            self._tell(Delivered(message_id, sent_to))
        if sent_to is None:
            raise RemoteProtocolError("the invite_sent message must have a list of names in sent_to")

    # ---------------------------------------------------------------- users, as presence changes

    def _check_size(self, others: int) -> None:
        if others + 1 > self._config.max_roster:
            raise RemoteProtocolError(f"more than {self._config.max_roster} users (max_roster)")

    def _replace(self, user_id: str, shown: dict[str, Any]) -> PresenceChange:
        """Store the fields of a user as a new meta, with a generated ref: the protocol has no refs."""
        old = self._metas.get(user_id)
        self._refs += 1
        new = self._metas[user_id] = {**(old or {}), **shown, "phx_ref": str(self._refs)}
        if old is None:
            return PresenceChange(user_id, "joined", (new,), ())
        return PresenceChange(user_id, "updated", (new,), (old,))

    def _remove(self, user_id: str) -> PresenceChange:
        """Remove a user. The roster may show users who were missing in the last `welcome` message."""
        meta = self._metas.pop(user_id, None)
        return PresenceChange(user_id, "left", (), () if meta is None else (meta,))


def _user(fields: Fields) -> tuple[str, dict[str, Any]]:
    """Return the user id and the user's fields from a message."""
    user_id, display_name = fields.sender()
    shown = {name: value for name, value in fields.rest.items() if name != "ts"}
    return user_id, {"user_id": user_id, **shown, "display_name": display_name}


def _names(value: Any) -> tuple[str, ...] | None:
    """Return a list of strings as a tuple. Returns `None` unless `value` is a list of strings."""
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return tuple(value) if is_list else None
