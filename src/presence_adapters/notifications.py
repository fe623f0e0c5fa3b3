"""Callback interface: passes every event as `(event_type, data)`, and creates clients from keywords.

    client = PresenceClient(server_url="wss://…", user_id="alice-123", display_name="alice")
    client.on_notification = handle_notification

This module does not depend on an event loop. The client calls the callback inside `logged`. An
asynchronous client also awaits the result of the callback.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from attrs import fields
from msgspec.structs import asdict

from presence_adapters.event_queue import EventsDropped
from presence_proto import (
    ActivityChanged,
    ChatMessage,
    CommandFailed,
    ConfigError,
    Connected,
    Disconnected,
    Error,
    GameInvite,
    Identity,
    InviteSent,
    OnlineUser,
    Poked,
    PresenceConfig,
    PresenceEvent,
    UserOffline,
    UserOnline,
)

logger = logging.getLogger(__name__)

OnNotification: TypeAlias = Callable[[str, dict[str, Any]], object]
"""Callback for every event. The callback of an asynchronous client may return an awaitable."""

EVENT_TYPES: Mapping[type, str] = {
    Connected: "connected",
    Disconnected: "disconnected",
    UserOnline: "user_online",
    UserOffline: "user_offline",
    ActivityChanged: "activity_changed",
    GameInvite: "game_invite",
    Poked: "poke",
    ChatMessage: "chat_message",
    Error: "error",
    CommandFailed: "command_failed",
    InviteSent: "invite_sent",
    EventsDropped: "events_dropped",
}
"""The event type, a string, for each event class."""

IDENTITY_FIELDS = ("user_id", "display_name", "access_token")


def notification(event: PresenceEvent | EventsDropped) -> tuple[str, dict[str, Any]]:
    """Return the event type and the data of an event. The data is a JSON-serializable dict of fields.

    The fields of a user (`user_id`, `display_name`, `status`, `activity`, `online_at`) are at the top level
    of the dict. Extra fields of the payload are also at the top level, unless a field of the event has the
    same name. For `connected`, the dict has the key `users`, a list with one dict of fields for each user.
    For `activity_changed`, the dict also has `previous_status` and `previous_activity`.
    """
    match event:
        case Connected():
            data = {**_flat(event), "users": [_user(user) for user in event.users]}
        case InviteSent():
            data = {**_flat(event), "sent_to": list(event.sent_to)}
        case UserOnline() | UserOffline():
            data = _user(event.user)
        case ActivityChanged():
            before = {
                "previous_status": str(event.previous.status),
                "previous_activity": event.previous.activity,
            }
            data = {**_user(event.user), **before}
        case _:
            data = _flat(event)
    return EVENT_TYPES[type(event)], data


@contextmanager
def logged(event_type: str) -> Iterator[None]:
    """Log an exception of a callback, so that the exception does not end the client."""
    try:
        yield
    except Exception:
        logger.exception("on_notification failed for %r", event_type)


def who_and_where(
    identity: Identity | None, config: PresenceConfig | None, settings: Mapping[str, Any]
) -> tuple[Identity, PresenceConfig]:
    """Return the given identity and config of a client, or create both from keywords.

    In `settings`, `user_id`, `display_name` and `access_token` (optional) belong to the identity. All other
    keywords, such as `server_url` and `api_key`, belong to the config. Raises `ConfigError` when objects and
    keywords are mixed, or when a required value is missing. Raises `TypeError` for an unknown keyword.
    """
    if identity is not None and config is not None and not settings:
        return identity, config
    if identity is not None or config is not None or not {"user_id", "display_name"} <= set(settings):
        raise ConfigError("give an Identity and a PresenceConfig, or user_id, display_name and server_url")
    ours = {name: settings[name] for name in IDENTITY_FIELDS if name in settings}
    theirs = {name: value for name, value in settings.items() if name not in IDENTITY_FIELDS}
    known = {field.name for field in fields(PresenceConfig)}
    for name in sorted(theirs.keys() - known):
        from difflib import get_close_matches

        close = " or ".join(get_close_matches(name, [*known, *IDENTITY_FIELDS], n=2))
        hint = f": did you mean {close}?" if close else ""
        raise TypeError(f"PresenceClient() got an unexpected keyword argument {name!r}{hint}")
    return Identity(**ours), PresenceConfig(**theirs)


def _flat(instance: Any) -> dict[str, Any]:
    fields = asdict(instance)
    return {**fields.pop("extra", {}), **fields}


def _user(user: OnlineUser) -> dict[str, Any]:
    return {**_flat(user), "status": str(user.status)}
