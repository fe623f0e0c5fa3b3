"""A connection of the Jarvis JSON protocol, version 1, server side: text frames of JSON objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto.errors import PresenceError, RemoteProtocolError
from presence_proto.events import JoinRefused, UserStatus
from presence_proto.hub.jarvis_room import ClientRun
from presence_proto.hub.member import JoinRefusedError, authorize, join_request
from presence_proto.hub.rates import TOO_FAST
from presence_proto.hub.topics import JARVIS_TOPIC
from presence_proto.json_text import SMALL_TEXT, check_elements, decode_object, encode_payload
from presence_proto.payloads import Fields
from presence_proto.serializer import EncodedFrame
from presence_proto.websocket import BinaryMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from presence_proto.hub.jarvis_room import JarvisConnection, JarvisUser, JarvisUsers
    from presence_proto.hub.peer import Peer
    from presence_proto.hub.topic import EncodedMessage
    from presence_proto.hub.topics import Topics
    from presence_proto.outputs import ConnId
    from presence_proto.websocket import TextMessage

MAX_ERRORS = 100
"""Errors in a row. Who makes more of them does not listen."""

MAX_RUN_ID = 64
"""Characters of a `run_id`."""

_NORMAL, _GOING_AWAY, _PROTOCOL_ERROR, _UNSUPPORTED, _POLICY, _CRASHED = 1000, 1001, 1002, 1003, 1008, 1011
_STATUSES = frozenset(UserStatus)


class JarvisSession:
    """One connection. It is one of a user's from its `connect` on, and stays with that user.

    A message that makes no sense is answered with an `error`, and nothing else happens.
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
        self._token = token  # of the URL
        self._topics = topics
        self._room = room
        self._user: JarvisUser | None = None
        self._heard = topics.clock.now  # when the last message came
        self._errors = 0  # in a row
        self._rates = topics.rates()
        self._size = 0  # bytes of the message that is handled
        self._for_good = False  # whether the end of this connection asks for no grace
        self.run = ClientRun("", 0)
        """The client's run, as its `connect` says."""

    @property
    def conn(self) -> ConnId:
        """The connection."""
        return self._peer.conn

    # -- facts

    @property
    def deadline(self) -> float:
        """When the client is evicted. Pings of WebSocket do not count: a library sends them by itself."""
        return self._heard + self._topics.config.eviction_timeout

    def on_idle(self) -> int:
        """The user is evicted: they have had a grace already. Returns the close code."""
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
        """The hub wants the user out of the topic: Jarvis has no other way than to close the connection."""
        if topic == JARVIS_TOPIC and self._user is not None:
            self._for_good = True
            self._close(_CRASHED if crashed else _GOING_AWAY, reason)

    def crash(self) -> bool:
        """The protocol has no channels."""
        return False

    def supersede(self) -> None:
        """A later connection of the same run of the client is there: what still comes on this one is old."""
        self._close(_NORMAL, "superseded by a later connection")

    def end(self, reason: str) -> None:
        """The connection is over, or will be."""
        if self._user is not None:
            self._room.leave(self._user, self, reason, for_good=self._for_good)

    # -- messages

    def _on_message(self, message: Mapping[str, Any]) -> None:
        """Raises `PresenceError`, and has done nothing then, for what is not to be done."""
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
        elif kind in _TOLD and not self._rates.allow_delivery(self._room.topic, self._size):
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
        """The other connections of the same run of a client."""
        sessions = self._room.sessions(user_id) if run.run_id else ()
        return [one for one in sessions if one is not self and one.run.run_id == run.run_id]

    def _authorized(self, user_id: str, token: str | None) -> str:
        """The user id that the client gets. Raises `RemoteProtocolError` when it may not join."""
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

    # -- talking to the client

    def send_shared(self, form: EncodedMessage) -> None:
        """Send a message that others get, too."""
        self._peer.send_shared(form)

    def _send(self, message: Mapping[str, Any]) -> None:
        self._peer.send(EncodedFrame(bytes(encode_payload(message)), True))

    def _close(self, code: int, reason: str, why: str | None = None) -> None:
        self._peer.close(code, reason, why or reason, timeout=self._topics.config.close_timeout)


def _run(fields: Fields) -> ClientRun:
    """What `connect` says of the client's run. Raises `RemoteProtocolError` when that makes no sense."""
    run_id, connection = fields.optional("run_id") or "", fields.rest.pop("run_connection", 0)
    if len(run_id) > MAX_RUN_ID:
        raise RemoteProtocolError(f"run_id of connect has more than {MAX_RUN_ID} characters")
    if isinstance(connection, bool) or not isinstance(connection, int):
        raise RemoteProtocolError("run_connection of connect must be a whole number")
    return ClientRun(run_id, connection)


def _short(value: str, field: str, limit: int) -> str:
    """The value, if it has so many bytes at most. Raises `RemoteProtocolError`."""
    if len(value.encode()) > limit:
        raise RemoteProtocolError(f"{field} has more than {limit} bytes")
    return value


_TOLD = frozenset({"activity_update", "game_invite", "poke"})  # to the whole room
_MESSAGES = frozenset({"ping", "activity_update", "game_invite", "poke", "disconnect"})
