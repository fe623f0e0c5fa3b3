"""A connection of the Jarvis JSON protocol, version 1, server side: text frames of JSON objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto.broadcasts import Fields
from presence_proto.errors import PresenceError, RemoteProtocolError
from presence_proto.events import JoinRefused, UserStatus
from presence_proto.hub.jarvis_room import TOPIC
from presence_proto.hub.member import Refused, objection
from presence_proto.serializer import EncodedFrame, decode_object, encode_payload
from presence_proto.websocket import BinaryMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from presence_proto.hub.jarvis_room import JarvisRoom, JarvisUser
    from presence_proto.hub.peer import Peer
    from presence_proto.hub.topic import Form
    from presence_proto.hub.topics import Topics
    from presence_proto.outputs import ConnId
    from presence_proto.websocket import TextMessage

MAX_ERRORS = 100
"""Errors in a row. Who makes more of them does not listen."""

_NORMAL, _GOING_AWAY, _UNSUPPORTED, _POLICY, _CRASHED = 1000, 1001, 1003, 1008, 1011
_STATUSES = frozenset(UserStatus)


class JarvisSession:
    """One connection. It is one of a user's from its `connect` on, and stays with that user.

    A message that makes no sense is answered with an `error`, and nothing else happens.
    """

    __slots__ = ("_errors", "_for_good", "_heard", "_peer", "_room", "_token", "_topics", "_user")

    def __init__(self, peer: Peer, topics: Topics, room: JarvisRoom, token: str | None) -> None:
        self._peer = peer
        self._token = token  # of the URL
        self._topics = topics
        self._room = room
        self._user: JarvisUser | None = None
        self._heard = topics.clock.now  # when the last message came
        self._errors = 0  # in a row
        self._for_good = False  # whether the end of this connection asks for no grace

    @property
    def conn(self) -> ConnId:
        """The connection."""
        return self._peer.conn

    # -- facts

    @property
    def deadline(self) -> float:
        """When the client is evicted. Pings of WebSocket do not count: a library sends them by itself."""
        return self._heard + self._topics.config.eviction_timeout

    def receive(self, frame: TextMessage | BinaryMessage) -> None:
        """Handle one message from the client."""
        self._heard = self._topics.clock.now
        if isinstance(frame, BinaryMessage):
            self._close(_UNSUPPORTED, "binary message")
            return
        try:
            self._on_message(decode_object(frame.data, "a message"))
        except PresenceError as exc:
            self._send({"type": "error", "message": str(exc)})
            self._errors += 1
            if self._errors > MAX_ERRORS:
                self._close(_POLICY, "too many errors")
        else:
            self._errors = 0

    def stop(self, topic: str, reason: str, *, crashed: bool) -> None:
        """The hub wants the user out of the topic: Jarvis has no other way than to close the connection."""
        if topic == TOPIC and self._user is not None:
            self._for_good = True
            self._close(_CRASHED if crashed else _GOING_AWAY, reason)

    def end(self, reason: str) -> None:
        """The connection is over, or will be. Who has been silent for too long has had a grace already."""
        if self._user is not None:
            for_good = self._for_good or self._topics.clock.now >= self.deadline
            self._room.leave(self._user, self, reason, for_good=for_good)

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
        elif kind == "activity_update":
            self._update(user, fields)
        elif kind == "game_invite":
            self._invite(user, fields)
        elif kind == "poke":
            self._room.poke(user, fields.required("target_user_id"))
        else:
            self._close(_NORMAL, "", "left")

    def _connect(self, fields: Fields) -> None:
        user_id, display_name = fields.sender()
        if self._user is not None and self._user.user_id != user_id:
            raise RemoteProtocolError("connect must not change the user_id: open another connection")
        try:
            self._ask(fields.optional("access_token") or self._token)
        except Refused as refused:
            self._topics.emit(JoinRefused(self.conn, TOPIC, refused.reason + refused.detail))
            raise RemoteProtocolError(refused.reason) from None
        self._user = self._room.enter(self, user_id, display_name)
        self._peer.send(self._room.welcome(self._user))

    def _ask(self, token: str | None) -> None:
        """Raises `Refused` when the hub's user does not want this client in the topic."""
        reason = objection(self._topics.config.authorize, TOPIC, token)
        if reason is not None:
            raise Refused(reason)

    def _update(self, user: JarvisUser, fields: Fields) -> None:
        status, activity = fields.required("status"), fields.optional("activity")
        if status not in _STATUSES:
            raise RemoteProtocolError(f"status must be one of {', '.join(UserStatus)}, not {status[:40]!r}")
        self._room.update(user, UserStatus(status), activity, fields.rest.get("metadata"))

    def _invite(self, user: JarvisUser, fields: Fields) -> None:
        game, code = fields.required("game"), fields.optional("code")
        names = self._room.invite(user, game, code)
        self._send({"type": "invite_sent", "game": game, "code": code, "sent_to": names})

    # -- talking to the client

    def send_shared(self, form: Form) -> None:
        """Send a message that others get, too."""
        self._peer.send_shared(form)

    def _send(self, message: Mapping[str, Any]) -> None:
        self._peer.send(EncodedFrame(bytes(encode_payload(message)), True))

    def _close(self, code: int, reason: str, why: str | None = None) -> None:
        self._peer.close(code, reason, why or reason, timeout=self._topics.config.close_timeout)


_MESSAGES = frozenset({"ping", "activity_update", "game_invite", "poke", "disconnect"})
