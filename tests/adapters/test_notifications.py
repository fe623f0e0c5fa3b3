"""What a callback gets of each event, and clients from plain keywords."""

from __future__ import annotations

import json
import logging
from typing import Any, get_args

import pytest

from presence_adapters.event_queue import EventsDropped
from presence_adapters.notifications import EVENT_TYPES, logged, notification, who_and_where
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
    UserStatus,
)

URL = "ws://127.0.0.1:4000"
BOB = OnlineUser("bob", "Bob", UserStatus.IN_GAME, "Snake", "2026-01-01T00:00:00Z", {"team": "red"})
BOB_FIELDS = {
    "user_id": "bob",
    "display_name": "Bob",
    "status": "in_game",
    "activity": "Snake",
    "online_at": "2026-01-01T00:00:00Z",
    "team": "red",
}

SHAPES: list[tuple[Any, str, dict[str, Any]]] = [
    (
        Connected(1, (BOB,), resumed=True),
        "connected",
        {"online_count": 1, "users": [BOB_FIELDS], "resumed": True},
    ),
    (Disconnected("eof", 1.5), "disconnected", {"reason": "eof", "retry_in": 1.5}),
    (UserOnline(BOB), "user_online", BOB_FIELDS),
    (UserOffline(BOB), "user_offline", BOB_FIELDS),
    (
        ActivityChanged(BOB, OnlineUser("bob", "Bob", UserStatus.AWAY, "Lunch")),
        "activity_changed",
        {**BOB_FIELDS, "previous_status": "away", "previous_activity": "Lunch"},
    ),
    (
        GameInvite("bob", "Bob", "Snake", None, {"level": 3}),
        "game_invite",
        {"user_id": "bob", "display_name": "Bob", "game": "Snake", "code": None, "level": 3},
    ),
    (Poked("bob", "Bob"), "poke", {"user_id": "bob", "display_name": "Bob"}),
    (
        ChatMessage("bob", "Bob", "lobby", "hello", "12:00", "m1", {"channel": "ours wins"}),
        "chat_message",
        {
            "user_id": "bob",
            "display_name": "Bob",
            "channel": "lobby",
            "content": "hello",
            "timestamp": "12:00",
            "reply_to": "m1",
        },
    ),
    (Error("no", fatal=True), "error", {"message": "no", "fatal": True, "server_text": None}),
    (
        CommandFailed(7, "send_poke", "expired"),
        "command_failed",
        {"command_id": 7, "command": "send_poke", "reason": "expired"},
    ),
    (InviteSent(8, ("Bob",)), "invite_sent", {"command_id": 8, "sent_to": ["Bob"]}),
    (EventsDropped(3), "events_dropped", {"count": 3}),
]


@pytest.mark.parametrize(("event", "event_type", "data"), SHAPES, ids=[shape[1] for shape in SHAPES])
def test_the_shape_of_a_notification(event: Any, event_type: str, data: dict[str, Any]) -> None:
    told_type, told = notification(event)
    assert told_type == event_type
    assert told == data
    assert json.loads(json.dumps(told)) == data
    assert all(type(value) is not UserStatus for value in told.values())


def test_every_event_has_a_type_of_its_own() -> None:
    assert set(EVENT_TYPES) == {*get_args(PresenceEvent), EventsDropped}
    assert {shape[1] for shape in SHAPES} == set(EVENT_TYPES.values())
    assert len(set(EVENT_TYPES.values())) == len(EVENT_TYPES)


def test_the_data_is_the_callbacks_own() -> None:
    notification(UserOnline(BOB))[1].clear()
    assert notification(UserOnline(BOB))[1] == BOB_FIELDS


def test_what_a_callback_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), logged("poke"):
        raise ZeroDivisionError("a bug of theirs")
    assert [record.getMessage() for record in caplog.records] == ["on_notification failed for 'poke'"]
    assert "a bug of theirs" in caplog.text


def test_an_interrupt_is_not_a_bug_of_the_callback() -> None:
    with pytest.raises(KeyboardInterrupt), logged("poke"):
        raise KeyboardInterrupt


def test_a_client_from_an_identity_and_a_config() -> None:
    identity, config = Identity("alice", "Alice"), PresenceConfig(server_url=URL)
    assert who_and_where(identity, config, {}) == (identity, config)


def test_a_client_from_plain_keywords() -> None:
    settings = {"user_id": "alice-123", "display_name": "alice", "server_url": URL, "reconnect_delay": 2.0}
    assert who_and_where(None, None, settings) == (
        Identity("alice-123", "alice"),
        PresenceConfig(server_url=URL, reconnect_delay=2.0),
    )
    identity, _ = who_and_where(None, None, {**settings, "access_token": "token-1"})
    assert identity.access_token == "token-1"


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ((None, None), {}),
        ((None, None), {"user_id": "a", "server_url": URL}),
        ((Identity("a", "A"), None), {"server_url": URL}),
        ((None, PresenceConfig(server_url=URL)), {"user_id": "a", "display_name": "A"}),
        ((Identity("a", "A"), PresenceConfig(server_url=URL)), {"reconnect_delay": 2.0}),
    ],
)
def test_a_mixture_of_both_is_refused(given: tuple[Any, Any], settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="an Identity and a PresenceConfig, or user_id"):
        who_and_where(*given, settings)


def test_an_unknown_keyword_is_refused_without_its_value() -> None:
    settings = {"user_id": "a", "display_name": "A", "server_url": URL, "apikey": "secret-key"}
    with pytest.raises(TypeError, match="apikey") as caught:
        who_and_where(None, None, settings)
    assert "secret-key" not in str(caught.value)
