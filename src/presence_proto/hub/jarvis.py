"""Server side of the Jarvis JSON protocol, version 1: one JSON object per WebSocket text frame.

A `JarvisSession` is one connection. `JarvisUsers` holds the users and their roster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen

from presence_proto import payloads
from presence_proto.errors import PresenceError, RemoteProtocolError
from presence_proto.events import JoinRefused, TopicJoined, TopicLeft, UserStatus
from presence_proto.hub.channels import JoinRefusedError, authorize, join_request
from presence_proto.hub.limits import TOO_FAST, Allowance, NoRoomError
from presence_proto.hub.topic import (
    JARVIS_TOPIC,
    Diff,
    EncodedMessage,
    Grace,
    Meta,
    SharedMessage,
    Topic,
    Tracked,
    broadcast_in,
    said,
    same_payload,
)
from presence_proto.json_text import SMALL_TEXT, check_elements, decode_object, encode_payload
from presence_proto.payloads import Fields
from presence_proto.roster import user_from_meta
from presence_proto.serializer import EncodedFrame
from presence_proto.websocket import BinaryMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from presence_proto.endpoint import ConnId
    from presence_proto.hub.peer import Peer
    from presence_proto.hub.topic import TimerName, Topics
    from presence_proto.timers import Timers
    from presence_proto.websocket import TextMessage


# ------------------------------------------------------------------------------------------------ jarvis room
# The users of the Jarvis JSON protocol, and the messages that these users receive.
#
# The users share the topic `JARVIS_TOPIC` with the Supabase clients of the Jarvis system. All messages in the
# topic have Supabase's form. A user is one member of the topic with one meta, even with several connections.
# `JarvisUsers`, the room, is the users' listener: the room receives the topic's messages, encodes each in
# Jarvis' form once, and sends it to the users.
#
# All users share one roster, which each user receives without their own entry. The roster follows the
# presence of the topic and shows the newest meta of each key. The room does not send changes that are not
# visible in the roster. An activity broadcast changes the roster at once. A later track of the same activity
# causes no second message.


ABSENT_SHARE = 4
"""Divisor of `max_topic_size`. The quotient is the limit in bytes for the metas of all absent users."""


MAX_NAMES = 100
"""Maximum number of names in the reply to an invite. The field `more` counts the other receivers."""


@frozen
class ClientRun:
    """The id of one run of a client program, and the number of a connection in this run.

    `run_id` is empty when the client sends no `run_id`.
    """

    run_id: str
    connection: int


class JarvisConnection(Protocol):
    """The interface that `JarvisUsers` requires of a user's connection."""

    run: ClientRun

    @property
    def conn(self) -> ConnId:
        """The id of the user's connection."""

    def send_shared(self, form: EncodedMessage) -> None:
        """Send a message that is shared with other connections."""

    def stop(self, topic: str, reason: str, *, crashed: bool) -> None:
        """End the user's membership in `topic` on the hub's behalf."""

    def supersede(self) -> None:
        """Close this connection, because the same client run has a later connection."""


class JarvisUser:
    """A user and its connections: one member of the topic. `JarvisUsers` is the listener for all users."""

    __slots__ = ("_room", "absent_size", "had_second_chance", "sessions", "user_id")

    def __init__(self, room: JarvisUsers, user_id: str) -> None:
        self._room = room
        self.user_id = user_id
        self.sessions: list[JarvisConnection] = []  # empty while the user is absent
        self.absent_size = 0  # bytes counted for the meta while the user is absent
        self.had_second_chance = False  # whether the offline grace was extended once

    def stop(self, reason: str, *, crashed: bool) -> None:
        """End the membership on the hub's behalf: close all connections and take the user offline at once."""
        if not self.sessions:
            self._room.forget(self)
        for session in tuple(self.sessions):
            session.stop(JARVIS_TOPIC, reason, crashed=crashed)


@frozen
class _Shown:
    """The roster entry of a user, and the ref of the meta in this entry."""

    ref: str
    fields: Mapping[str, Any]
    encoded: bytes  # `fields` as JSON

    @property
    def name(self) -> str:
        name: str = self.fields["display_name"]
        return name


class JarvisUsers:
    """The room: all Jarvis users and their roster. The room is a listener of the topic while it has users."""

    __slots__ = ("_absent", "_shown", "_timers", "_topics", "_users")

    def __init__(self, topics: Topics, timers: Timers[TimerName]) -> None:
        self._topics = topics
        self._timers = timers
        self._users: dict[str, JarvisUser] = {}
        self._shown: dict[str, _Shown] = {}  # the roster, by user id
        # Limits the metas of absent users: without a connection, no connection's limit applies to these
        # metas.
        self._absent = Allowance("the grace", topics.config.max_topic_size // ABSENT_SHARE)

    def sessions(self, user_id: str) -> tuple[JarvisConnection, ...]:
        """Return the connections of a user, oldest first; `()` for an unknown or absent user."""
        user = self._users.get(user_id)
        return () if user is None else tuple(user.sessions)

    # -- connect and disconnect

    def enter(self, session: JarvisConnection, user_id: str, display_name: str) -> JarvisUser:
        """Add a connection to its user after a `connect` message.

        A known user, even an absent user, keeps the previous meta; only `display_name` may change. When the
        topic is full, the method raises `NoRoomError` and changes nothing.
        """
        user = self._users.get(user_id)
        if user is None:
            user = self._new_user(user_id, display_name)
        elif display_name != self._meta(user)["display_name"]:
            self.topic.track(user, user_id, {**self._meta(user), "display_name": display_name})
        self._is_back(user)
        if session not in user.sessions:
            user.sessions.append(session)
            self._topics.emit(TopicJoined(session.conn, JARVIS_TOPIC, user_id))
        return user

    def leave(self, user: JarvisUser, session: JarvisConnection, reason: str, *, for_good: bool) -> None:
        """Remove a connection from its user.

        A user without connections goes offline: at once if `for_good`, otherwise after `offline_grace`.
        """
        user.sessions.remove(session)
        self._topics.emit(TopicLeft(session.conn, JARVIS_TOPIC, reason))
        if user.sessions:
            return
        config = self._topics.config
        # Absent users have no connection, so the limits on connections do not apply. Limit their number here.
        if for_good or not config.offline_grace or len(self._users) > config.max_connections:
            self.forget(user)
            return
        size = self._tracked(user).charge
        try:
            self._absent.check(size)
        except NoRoomError:
            self.forget(user)
            return
        user.absent_size = size
        self._absent.held += size
        user.had_second_chance = False
        self._timers.set(Grace(user.user_id), self._topics.clock.now + config.offline_grace)

    def grace_ended(self, user_id: str, *, second_chance: float) -> None:
        """Take an absent user offline when the timer of the offline grace fires, or extend the grace once.

        `second_chance` is the duration of the extension in seconds: the user may have reconnected, but the
        hub may not have read the socket yet. With 0 the grace is not extended.
        """
        user = self._users[user_id]
        if second_chance and not user.had_second_chance:
            user.had_second_chance = True
            again = min(second_chance, self._topics.config.offline_grace)
            self._timers.set(Grace(user_id), self._topics.clock.now + again)
        else:
            self.forget(user)

    def forget(self, user: JarvisUser) -> None:
        """Take a user without connections offline."""
        self._is_back(user)
        del self._users[user.user_id]
        if not self._users:
            self.topic.remove_listener(self)
            self._shown.clear()
        self._topics.leave(JARVIS_TOPIC, user)

    def clear(self) -> None:
        """Take all users offline when the hub stops. All connections must be closed before this call."""
        for user in tuple(self._users.values()):
            self.forget(user)

    def _is_back(self, user: JarvisUser) -> None:
        """Stop the offline grace of a user, if the grace is running."""
        self._timers.cancel(Grace(user.user_id))
        self._absent.held -= user.absent_size
        user.absent_size = 0

    def _new_user(self, user_id: str, display_name: str) -> JarvisUser:
        stamp = self._stamp()
        meta = {
            "user_id": user_id,
            "display_name": display_name,
            "status": UserStatus.ONLINE.value,
            "activity": None,
            **({} if stamp is None else {"online_at": stamp}),
        }
        self._topics.check(JARVIS_TOPIC, user_id, meta)
        user = JarvisUser(self, user_id)
        topic = self._topics.enter(JARVIS_TOPIC, user)
        if not self._users:
            topic.add_listener(self)
            topic.reveal()
            for key in topic.online():
                self._look(key)
        self._users[user_id] = user
        topic.track(user, user_id, meta)
        return user

    @property
    def topic(self) -> Topic:
        """The topic of the Jarvis users, available while there are users."""
        return self._topics.by_name[JARVIS_TOPIC]

    # -- requests of users

    def welcome(self, user: JarvisUser) -> EncodedFrame:
        """Return the `welcome` message for a user, with the roster without the user's own entry.

        The message is concatenated from encoded entries, because few entries change between two such
        messages.
        """
        users = b",".join([shown.encoded for key, shown in self._shown.items() if key != user.user_id])
        your_id = bytes(encode_payload(user.user_id))
        return EncodedFrame(b'{"type":"welcome","your_id":' + your_id + b',"users":[' + users + b"]}", True)

    def online_count(self, user: JarvisUser) -> int:
        """Return the number of different users online, including `user`."""
        return len(self._shown) + (user.user_id not in self._shown)

    def update(self, user: JarvisUser, status: UserStatus, activity: str | None, metadata: Any) -> None:
        """Change the status and the activity of a user, and report the change to all other users.

        Raises `LocalProtocolError` when the metadata cannot be encoded, and `NoRoomError` when the metadata
        is too large.
        """
        more = {"status": status.value, "activity": activity}
        if metadata is not None:
            more["metadata"] = metadata
        meta = self._meta(user)
        payload = {name: value for name, value in meta.items() if name != "metadata"} | more
        if same_payload(meta, payload):
            return
        shared = self._said(user, "activity_update", more)
        self.topic.track(user, user.user_id, payload)
        self.topic.broadcast(shared, speaker=user.user_id)

    def invite(self, user: JarvisUser, game: str, code: str | None) -> tuple[list[str], int]:
        """Invite all other users to a game.

        Return the names of at most `MAX_NAMES` receivers, and the total number of receivers.
        """
        payload = {"game": game} if code is None else {"game": game, "code": code}
        self.topic.broadcast(self._said(user, "game_invite", payload), speaker=user.user_id)
        away = [one.user_id for one in self._users.values() if not one.sessions]
        deaf = {user.user_id, *(key for key in away if self.topic.count(key) == 1)}
        return self._names(deaf), self.topic.count() - len(deaf)

    def _names(self, deaf: set[str]) -> list[str]:
        """Return the display names of the first `MAX_NAMES` present users whose ids are not in `deaf`."""
        names: dict[str, str] = {}
        for tracked in self.topic.presences():
            if tracked.key not in names and tracked.key not in deaf:
                shown = self._shown.get(tracked.key)
                # Decode a meta only for the few users not in the roster yet: decoding takes ten times as
                # long.
                name = user_from_meta(tracked.key, tracked.meta).display_name if shown is None else shown.name
                names[tracked.key] = name
                if len(names) == MAX_NAMES:
                    break
        return list(names.values())

    def poke(self, user: JarvisUser, target: str) -> None:
        """Send a poke from `user` to the user `target`, who may be absent."""
        self.topic.broadcast(self._said(user, "poke", {"target_user_id": target}), speaker=user.user_id)

    def _said(self, user: JarvisUser, event: str, fields: Mapping[str, Any]) -> SharedMessage:
        """Return a broadcast sent by the user, with `user_id` and `display_name` from the user's meta."""
        payload = {"user_id": user.user_id, "display_name": self._meta(user)["display_name"], **fields}
        return said(JARVIS_TOPIC, "broadcast", {"type": "broadcast", "event": event, "payload": payload})

    def _meta(self, user: JarvisUser) -> Meta:
        return self._tracked(user).meta

    def _tracked(self, user: JarvisUser) -> Tracked:
        tracked = self.topic.tracked(user)
        assert tracked is not None  # every user in `_users` has a meta
        return tracked

    # -- as a listener of the topic

    def on_diff(self, diff: Diff) -> None:
        """Update the roster after a presence change, and send the users all visible changes."""
        joined = dict.fromkeys(tracked.key for tracked in diff.joins)
        for key in joined:
            self._look(key)
        for key in dict.fromkeys(tracked.key for tracked in diff.leaves):
            if key not in joined:
                self._look(key, anew=True)

    def on_broadcast(self, shared: SharedMessage, speaker: str | None) -> None:
        """Send a broadcast to the users, if the Jarvis protocol has a message for the broadcast's event.

        The `user_id` of a broadcast must be the sender's presence key. Otherwise the broadcast is dropped.
        Only the hub itself may send a broadcast with any `user_id`.
        """
        event, payload = broadcast_in(shared.content)
        if speaker is not None and payload.get("user_id") != speaker:
            return
        try:
            match event:
                case "activity_update":
                    self._claimed(payloads.activity_update(payload))
                case "game_invite":
                    invite = payloads.game_invite(payload)
                    name = self._name(invite.user_id, invite.display_name)
                    fields = {"game": invite.game, "code": invite.code}
                    self._tell("game_invite", invite.user_id, name, fields)
                case "poke":
                    target, poked = payloads.poke(payload)
                    name = self._name(poked.user_id, poked.display_name)
                    self._tell("poke", poked.user_id, name, {}, to=target)
                case _:
                    pass  # the Jarvis protocol has no message for chat and other events
        except RemoteProtocolError:
            pass  # malformed: Jarvis clients do not receive it; Supabase clients receive it unchecked

    # -- the roster

    def _look(self, key: str, *, anew: bool = False) -> None:
        """Update the roster entry of a key from the newest meta of the key, and send the change to the users.

        `anew` replaces the entry even if the newest meta is unchanged. Callers set `anew` when a device has
        left: the device may have sent the pending activity in the entry, and then no track will confirm that
        activity.
        """
        tracked, shown = self.topic.latest(key), self._shown.get(key)
        if tracked is None:
            if shown is not None:
                del self._shown[key]
                self._tell("user_offline", key, shown.name, {})
        elif anew or shown is None or shown.ref != tracked.ref:
            user = user_from_meta(key, tracked.meta)
            self._show(tracked.ref, key, user.display_name, user.status, user.activity)

    def _claimed(self, claim: payloads.PendingActivity | None) -> None:
        """Show in the roster an activity that a broadcast has announced and no track has confirmed yet.

        The roster shows this activity until the user's next track, or until one of the user's metas leaves.
        """
        if claim is None or not self._is_short(claim):
            return
        tracked, shown = self.topic.latest(claim.user_id), self._shown.get(claim.user_id)
        if tracked is not None and shown is not None:
            self.topic.reveal()
            name = claim.display_name or shown.name
            self._show(tracked.ref, claim.user_id, name, claim.status, claim.activity)

    def _is_short(self, claim: payloads.PendingActivity) -> bool:
        """Whether a pending activity is short enough for the roster, whose size no `Allowance` limits."""
        config = self._topics.config
        name, activity = claim.display_name or "", claim.activity or ""
        return len(name.encode()) <= config.max_name_size and len(activity.encode()) <= config.max_text_size

    def _show(self, ref: str, key: str, name: str, status: UserStatus, activity: str | None) -> None:
        fields = {"user_id": key, "display_name": name, "status": status.value, "activity": activity}
        shown = self._shown.get(key)
        self._shown[key] = _Shown(ref, fields, bytes(encode_payload(fields)))
        if shown is None:
            self._tell("user_online", key, name, {})
            # `user_online` has no status or activity, so receivers assume these defaults.
            before: Mapping[str, Any] = {**fields, "status": UserStatus.ONLINE.value, "activity": None}
        else:
            before = shown.fields
        if fields != before:
            self._tell("activity_changed", key, name, {"status": status.value, "activity": activity})

    def _name(self, user_id: str, otherwise: str) -> str:
        shown = self._shown.get(user_id)
        return otherwise if shown is None else shown.name

    def _stamp(self) -> str | None:
        wall_clock = self._topics.config.wall_clock
        return None if wall_clock is None else wall_clock()

    def _tell(
        self, kind: str, user_id: str, name: str, fields: Mapping[str, Any], *, to: str | None = None
    ) -> None:
        """Send a message about a user to the user `to`, or without `to` to all other users."""
        message = {"type": kind, "user_id": user_id, "display_name": name, **fields, "ts": self._stamp()}
        form = EncodedMessage(EncodedFrame(bytes(encode_payload(message)), True))
        for user in self._users.values():
            if user.user_id == to or (to is None and user.user_id != user_id):
                for session in user.sessions:
                    session.send_shared(form)


# ----------------------------------------------------------------------------------------------------- jarvis


MAX_ERRORS = 100
"""Maximum number of consecutive errors. A client with more consecutive errors is disconnected."""

MAX_RUN_ID = 64
"""Maximum length of a `run_id`, in characters."""

_NORMAL, _GOING_AWAY, _PROTOCOL_ERROR, _UNSUPPORTED, _POLICY, _CRASHED = 1000, 1001, 1002, 1003, 1008, 1011
_STATUSES = frozenset(UserStatus)


class JarvisSession:
    """One connection of the Jarvis JSON protocol. After `connect`, the connection belongs to one user.

    The answer to an invalid message is an `error`. An invalid message has no other effect.
    """

    __slots__ = (
        "_errors",
        "_for_good",
        "_heard",
        "_peer",
        "_rates",
        "_room",
        "_size",
        "_token",
        "_topics",
        "_user",
        "run",
    )

    def __init__(self, peer: Peer, topics: Topics, room: JarvisUsers, token: str | None) -> None:
        self._peer = peer
        self._token = token  # from the URL
        self._topics = topics
        self._room = room
        self._user: JarvisUser | None = None
        self._heard = topics.clock.now  # when the last message arrived
        self._errors = 0  # consecutive
        self._rates = topics.rates()
        self._size = 0  # bytes of the current message
        self._for_good = False  # whether the user goes offline without a grace
        self.run = ClientRun("", 0)
        """The client's run, as named in its `connect` message."""

    @property
    def conn(self) -> ConnId:
        """Implement `JarvisConnection.conn`."""
        return self._peer.conn

    # -- calls from the hub

    @property
    def deadline(self) -> float:
        """Time in seconds at which the hub evicts the client if no message arrives until then.

        WebSocket pings do not extend the deadline, because libraries send pings automatically.
        """
        return self._heard + self._topics.config.eviction_timeout

    def on_idle(self) -> int:
        """Evict the user after `eviction_timeout`, without an offline grace. Return the close code."""
        self._for_good = True
        return _PROTOCOL_ERROR

    def receive(self, frame: TextMessage | BinaryMessage) -> None:
        """Handle one message from the client."""
        self._heard = self._topics.clock.now
        if isinstance(frame, BinaryMessage):
            self._close(_UNSUPPORTED, "binary message")
            return
        try:
            if not self._rates.allow_message():
                raise RemoteProtocolError(TOO_FAST)
            self._size = len(frame.data)
            if self._size > SMALL_TEXT:
                check_elements(frame.data, "a message", self._topics.config.max_elements)
            self._on_message(decode_object(frame.data, "a message", self._topics.config.message_nesting))
        except PresenceError as exc:
            self._send({"type": "error", "message": str(exc)})
            self._errors += 1
            if self._errors > MAX_ERRORS:
                self._close(_POLICY, "too many errors")
        else:
            self._errors = 0

    def stop(self, topic: str, reason: str, *, crashed: bool) -> None:
        """Remove the user from the topic on the hub's behalf.

        The Jarvis protocol has no message for a removal, so the connection is closed.
        """
        if topic == JARVIS_TOPIC and self._user is not None:
            self._for_good = True
            self._close(_CRASHED if crashed else _GOING_AWAY, reason)

    def crash(self) -> bool:
        """Return `False`, because the Jarvis protocol has no channels to crash."""
        return False

    def supersede(self) -> None:
        """Implement `JarvisConnection.supersede`. Later messages on this connection are ignored."""
        self._close(_NORMAL, "superseded by a later connection")

    def end(self, reason: str) -> None:
        """Implement `Session.end`."""
        if self._user is not None:
            self._room.leave(self._user, self, reason, for_good=self._for_good)

    # -- messages

    def _on_message(self, message: Mapping[str, Any]) -> None:
        """Handle a message. An invalid or refused message raises `PresenceError` and has no effect."""
        kind, user = message.get("type"), self._user
        if not isinstance(kind, str):
            raise RemoteProtocolError("a message must have a type, a string")
        fields = Fields(kind, message)
        if kind == "connect":
            self._connect(fields)
        elif kind not in _MESSAGES:
            raise RemoteProtocolError(f"there is no message of the type {kind[:40]!r}")
        elif user is None:
            raise RemoteProtocolError(f"{kind} must come after connect")
        elif kind == "ping":
            self._send({"type": "pong", "online_count": self._room.online_count(user)})
        elif kind in _TOLD and not self._rates.allow_delivery(self._room.topic.size, self._size):
            raise RemoteProtocolError(TOO_FAST)
        elif kind == "activity_update":
            self._update(user, fields)
        elif kind == "game_invite":
            self._invite(user, fields)
        elif kind == "poke":
            self._room.poke(user, self._name(fields.required("target_user_id"), "target_user_id"))
        else:
            self._close(_NORMAL, "", "left")

    def _connect(self, fields: Fields) -> None:
        if not self._rates.allow_join():
            raise RemoteProtocolError("too many connects per second")
        user_id, display_name = fields.sender()
        self._name(user_id, "user_id")
        self._name(display_name, "display_name")
        user_id = self._authorized(user_id, fields.optional("access_token") or self._token)
        if self._user is not None and self._user.user_id != user_id:
            raise RemoteProtocolError("connect must not change the user_id: open another connection")
        run = _run(fields)
        others = self._others_of(run, user_id)
        if any(other.run.connection > run.connection for other in others):
            self.supersede()
            return
        user = self._room.enter(self, user_id, display_name)
        self._user, self.run = user, run
        self._peer.send(self._room.welcome(user))
        for other in others:
            other.supersede()

    def _others_of(self, run: ClientRun, user_id: str) -> list[JarvisConnection]:
        """Return the other connections of the same client run."""
        sessions = self._room.sessions(user_id) if run.run_id else ()
        return [one for one in sessions if one is not self and one.run.run_id == run.run_id]

    def _authorized(self, user_id: str, token: str | None) -> str:
        """Return the user id from the `authorize` rule. Raises `RemoteProtocolError` if the rule refuses."""
        request = join_request(JARVIS_TOPIC, token, user_id)
        try:
            return authorize(self._topics.config.authorize, request) or user_id
        except JoinRefusedError as refused:
            self._topics.emit(JoinRefused(self.conn, JARVIS_TOPIC, refused.reason + refused.detail))
            raise RemoteProtocolError(refused.reason) from None

    def _update(self, user: JarvisUser, fields: Fields) -> None:
        status, activity = fields.required("status"), fields.optional("activity")
        if status not in _STATUSES:
            raise RemoteProtocolError(f"status must be one of {', '.join(UserStatus)}, not {status[:40]!r}")
        self._text(activity, "activity")
        self._room.update(user, UserStatus(status), activity, fields.rest.get("metadata"))

    def _invite(self, user: JarvisUser, fields: Fields) -> None:
        game, code = fields.required("game"), fields.optional("code")
        self._text(game, "game")
        self._text(code, "code")
        names, count = self._room.invite(user, game, code)
        more = {"more": count - len(names)} if count > len(names) else {}
        self._send({"type": "invite_sent", "game": game, "code": code, "sent_to": names, **more})

    def _name(self, value: str, field: str) -> str:
        return _short(value, field, self._topics.config.max_name_size)

    def _text(self, value: str | None, field: str) -> None:
        _short(value or "", field, self._topics.config.max_text_size)

    # -- messages to the client

    def send_shared(self, form: EncodedMessage) -> None:
        """Implement `JarvisConnection.send_shared`."""
        self._peer.send_shared(form)

    def _send(self, message: Mapping[str, Any]) -> None:
        self._peer.send(EncodedFrame(bytes(encode_payload(message)), True))

    def _close(self, code: int, reason: str, why: str | None = None) -> None:
        self._peer.close(code, reason, why or reason, timeout=self._topics.config.close_timeout)


def _run(fields: Fields) -> ClientRun:
    """Return the client run in a `connect` message. Raises `RemoteProtocolError` for an invalid run."""
    run_id, connection = fields.optional("run_id") or "", fields.rest.pop("run_connection", 0)
    if len(run_id) > MAX_RUN_ID:
        raise RemoteProtocolError(f"run_id of connect has more than {MAX_RUN_ID} characters")
    if isinstance(connection, bool) or not isinstance(connection, int):
        raise RemoteProtocolError("run_connection of connect must be a whole number")
    return ClientRun(run_id, connection)


def _short(value: str, field: str, limit: int) -> str:
    """Return `value`. Raises `RemoteProtocolError` when `value` has more than `limit` bytes."""
    if len(value.encode()) > limit:
        raise RemoteProtocolError(f"{field} has more than {limit} bytes")
    return value


_TOLD = frozenset({"activity_update", "game_invite", "poke"})  # sent to the whole room
_MESSAGES = frozenset({"ping", "activity_update", "game_invite", "poke", "disconnect"})
