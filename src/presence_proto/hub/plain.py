"""A plain Phoenix channel: a room in which members relay any event to each other, with presence by a rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from presence_proto.errors import LocalProtocolError
from presence_proto.hub.member import PhoenixMember, Refused, ask, objection
from presence_proto.hub.topic import Meta, is_reserved, said
from presence_proto.serializer import Message, encode_payload

if TYPE_CHECKING:
    from presence_proto.hub.phoenix import PhoenixSession


class PlainMember(PhoenixMember):
    """A member by `HubConfig.presence_rule`. It changes its meta with `track` and `untrack`."""

    __slots__ = ("_key", "_meta")

    def __init__(self, session: PhoenixSession, message: Message) -> None:
        """Raises `Refused`."""
        super().__init__(session, message)
        config = session.topics.config
        reason = objection(config.authorize, self.name, message.payload.get("access_token"))
        if reason is not None:
            raise Refused(reason)
        self._key, self._meta = _presence(ask(config.presence_rule, self.name, message.payload))

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
            self._topic.track(self, self._key, self._meta)
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
                self._topic.broadcast(said(self.name, event, message.payload), speaker=self._key, skip=self)
                self.reply(message, "ok", {})

    def _track(self, message: Message) -> None:
        if self._key is None:
            self.reply(message, "error", {"reason": "no presence"})
        elif not isinstance(message.payload, Mapping):
            self.reply(message, "error", {"reason": "payload is not an object"})
        else:
            fresh = self._topic.tracked(self) is None
            tracked = self._topic.track(self, self._key, message.payload)
            self.reply(message, "ok", {"ref": tracked.ref} | ({"fresh": True} if fresh else {}))


def _presence(answer: tuple[str, Meta] | None) -> tuple[str | None, Meta]:
    """The key and meta from the rule, checked: a wrong one must not come to light after the join."""
    if answer is None:
        return None, {}
    try:
        key, meta = answer
        if not isinstance(key, str):
            raise TypeError("the key is no string")
        encode_payload({key: dict(meta)})
    except (LocalProtocolError, TypeError, ValueError) as exc:
        raise Refused("join crashed", " (the presence rule's answer is no key and meta)") from exc
    return key, meta
