"""Parsers for the broadcasts of the Jarvis presence system, which convert a payload to an event.

The parsers check every field, because other clients send the payloads. A missing field or a wrong type raises
a `RemoteProtocolError` that names the field. The event keeps unknown fields in `extra`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from presence_proto.errors import RemoteProtocolError
from presence_proto.events import ChatMessage, GameInvite, Poked, UserStatus

NAMED_EVENTS = frozenset({"activity_update", "game_invite", "poke", "chat_message"})
"""The broadcasts of the Jarvis presence system. Each broadcast has the sender's `user_id`."""


class PendingActivity(Struct, frozen=True):
    """An activity that a user has broadcast. The activity is pending until a presence update confirms it."""

    user_id: str
    status: UserStatus
    activity: str | None
    display_name: str | None
    extra: Mapping[str, Any]


class Fields:
    """Reader of a payload's fields. `rest` has the unread fields. `what` names the payload in error texts."""

    def __init__(self, what: str, payload: Any) -> None:
        if not isinstance(payload, dict):
            raise RemoteProtocolError(f"{what} must be an object, not {type(payload).__name__}")
        self._what = what
        self.rest: dict[str, Any] = dict(payload)

    def required(self, name: str) -> str:
        value = self.rest.pop(name, None)
        if not isinstance(value, str) or not value:
            raise RemoteProtocolError(f"{self._what} must have a non-empty string {name}")
        return value

    def optional(self, name: str) -> str | None:
        value = self.rest.pop(name, None)
        if value is not None and not isinstance(value, str):
            raise RemoteProtocolError(f"{name} of {self._what} must be a string")
        return value

    def sender(self) -> tuple[str, str]:
        user_id = self.required("user_id")
        return user_id, self.optional("display_name") or user_id


def activity_update(payload: Any) -> PendingActivity | None:
    """Parse an `activity_update`. Returns `None` for an unknown status, which the presence update will
    show."""
    fields = Fields("an activity_update broadcast", payload)
    user_id, display_name = fields.required("user_id"), fields.optional("display_name")
    status, activity = fields.required("status"), fields.optional("activity")
    try:
        return PendingActivity(user_id, UserStatus(status), activity, display_name, fields.rest)
    except ValueError:
        return None


def game_invite(payload: Any) -> GameInvite:
    """Parse a `game_invite` broadcast."""
    fields = Fields("a game_invite broadcast", payload)
    return GameInvite(*fields.sender(), fields.required("game"), fields.optional("code"), fields.rest)


def poke(payload: Any) -> tuple[str, Poked]:
    """Parse a `poke` broadcast. Returns the user id of the target, and the poke."""
    fields = Fields("a poke broadcast", payload)
    target = fields.required("target_user_id")
    return target, Poked(*fields.sender(), fields.rest)


def chat_message(payload: Any) -> ChatMessage:
    """Parse a `chat_message` broadcast, a message in a chat channel of the room."""
    fields = Fields("a chat_message broadcast", payload)
    user_id, display_name = fields.sender()
    channel, content = fields.required("channel"), fields.required("content")
    timestamp, reply_to = fields.optional("timestamp"), fields.optional("reply_to")
    return ChatMessage(user_id, display_name, channel, content, timestamp, reply_to, fields.rest)
