"""A plain Phoenix channel: a room in which members relay any event to each other, with presence by a rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from presence_proto.errors import LocalProtocolError
from presence_proto.hub.allowance import NoRoomError
from presence_proto.hub.member import JoinRefusedError, PhoenixMember, ask, authorize, join_request
from presence_proto.hub.rates import TOO_FAST
from presence_proto.hub.topic import Meta, SharedMessage, is_reserved, said
from presence_proto.json_text import encode_payload

if TYPE_CHECKING:
    from presence_proto.hub.member import ChannelSocket
    from presence_proto.serializer import Message


class PlainMember(PhoenixMember):
    """A member by `HubConfig.presence_rule`. It changes its meta with `track` and `untrack`."""

    TOO_MANY = "too many channels joined"
    TOO_MANY_JOINS = "too many joins per second"

    __slots__ = ("_key", "_meta")

    def __init__(self, session: ChannelSocket, message: Message) -> None:
        """Raises `JoinRefusedError`."""
        super().__init__(session, message)
        if not isinstance(message.payload, Mapping):
            raise JoinRefusedError("join crashed", " (the payload is not an object)")
        config = session.topics.config
        # The presence rule comes first: it knows the key, and `authorize` is asked about that.
        answer = ask(config.presence_rule, self.name, message.payload)
        key, self._meta = _presence(answer, config.message_nesting)
        # Phoenix gives the connection's token to `connect/3`. The hub has one rule, and asks it at the join.
        token = message.payload.get("access_token", session.token)
        allowed = authorize(config.authorize, join_request(self.name, token, key))
        self._key = None if key is None else allowed
        if self._key is not None:
            self._check_room(self._key)

    @property
    def key(self) -> str | None:
        """The presence key that the rule gave, if any."""
        return self._key

    def response(self, message: Message) -> Mapping[str, Any]:
        """Nothing but ok."""
        return {}

    def welcome(self, message: Message) -> None:
        """The presence as it is without us; then we come."""
        self.push("presence_state", self._topic.state())
        if self._key is not None:
            self._topic.track(self, self._key, self._meta, self._session.allowance)
            self._meta = {}

    def receive(self, message: Message) -> None:
        """Change our meta, or relay."""
        match message.event:
            case "track":
                self._track(message)
            case "untrack":
                self._topic.untrack(self)
                self.reply(message, "ok", {})
            case event if is_reserved(event):
                self.reply(message, "error", {"reason": "reserved event"})
            case event:
                self._relay(message, said(self.name, event, message.payload))

    def _relay(self, message: Message, shared: SharedMessage) -> None:
        if self._session.rates.allow_delivery(self._topic, shared.size):
            self._topic.broadcast(shared, speaker=self._key, skip=self)
            self.reply(message, "ok", {})
        else:
            self.reply(message, "error", {"reason": TOO_FAST})

    def _check_room(self, key: str) -> None:
        """Raises `JoinRefusedError` when there is no room for the channel with its meta.

        After the join it would be too late: the client is told that it has joined before it is present.
        """
        session = self._session
        freed = session.freed_by(self.name) - self.size
        try:
            session.topics.check(self.name, key, self._meta, session.allowance, freed=freed)
        except NoRoomError as exc:
            raise JoinRefusedError(str(exc)) from None

    def _track(self, message: Message) -> None:
        if self._key is None:
            self.reply(message, "error", {"reason": "no presence"})
        elif not isinstance(message.payload, Mapping):
            self.reply(message, "error", {"reason": "payload is not an object"})
        else:
            fresh = self._topic.tracked(self) is None
            try:
                tracked = self._topic.track(self, self._key, message.payload, self._session.allowance)
            except NoRoomError as exc:
                self.reply(message, "error", {"reason": str(exc)})
                return
            self.reply(message, "ok", {"ref": tracked.ref} | ({"fresh": True} if fresh else {}))


def _presence(answer: tuple[str, Meta] | None, levels: int) -> tuple[str | None, Meta]:
    """The key and meta from the rule, checked: a wrong one must not come to light after the join.

    `levels`: how deeply the meta may nest.
    """
    if answer is None:
        return None, {}
    try:
        key, meta = answer
        if not isinstance(key, str):
            raise TypeError("the key is no string")
        encode_payload({key: dict(meta)}, levels + 1)
    except (LocalProtocolError, TypeError, ValueError) as exc:
        raise JoinRefusedError("join crashed", " (the presence rule's answer is no key and meta)") from exc
    return key, meta
