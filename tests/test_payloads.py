"""The broadcasts of the Jarvis presence system: what is in them, what may be missing, and what must not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_proto import payloads
from presence_proto.errors import RemoteProtocolError
from presence_proto.events import ChatMessage, GameInvite, Poked, UserStatus
from presence_proto.payloads import PendingActivity

if TYPE_CHECKING:
    from collections.abc import Callable

ACTIVITY = {"user_id": "bo", "display_name": "Bo", "status": "in_game", "activity": "Chess"}
INVITE = {"user_id": "bo", "display_name": "Bo", "game": "Chess", "code": "1234"}
POKE = {"user_id": "bo", "display_name": "Bo", "target_user_id": "me"}
CHAT = {
    "user_id": "bo",
    "display_name": "Bo",
    "channel": "lobby",
    "content": "hi",
    "timestamp": "2026-01-01T00:00:00Z",
    "reply_to": "m1",
}

PARSERS: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "activity_update": (payloads.activity_update, ACTIVITY),
    "game_invite": (payloads.game_invite, INVITE),
    "poke": (payloads.poke, POKE),
    "chat_message": (payloads.chat_message, CHAT),
}
REQUIRED = [
    ("activity_update", "user_id"),
    ("activity_update", "status"),
    ("game_invite", "user_id"),
    ("game_invite", "game"),
    ("poke", "user_id"),
    ("poke", "target_user_id"),
    ("chat_message", "user_id"),
    ("chat_message", "channel"),
    ("chat_message", "content"),
]
OPTIONAL = [
    ("activity_update", "display_name"),
    ("activity_update", "activity"),
    ("game_invite", "display_name"),
    ("game_invite", "code"),
    ("poke", "display_name"),
    ("chat_message", "display_name"),
    ("chat_message", "timestamp"),
    ("chat_message", "reply_to"),
]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(), items, max_size=3),
    max_leaves=8,
)


def test_whole_payloads() -> None:
    assert payloads.activity_update(ACTIVITY) == PendingActivity("bo", UserStatus.IN_GAME, "Chess", "Bo", {})
    assert payloads.game_invite(INVITE) == GameInvite("bo", "Bo", "Chess", "1234")
    assert payloads.poke(POKE) == ("me", Poked("bo", "Bo"))
    assert payloads.chat_message(CHAT) == ChatMessage("bo", "Bo", "lobby", "hi", "2026-01-01T00:00:00Z", "m1")


def test_only_what_is_required() -> None:
    claim = payloads.activity_update({"user_id": "bo", "status": "idle"})
    assert claim == PendingActivity("bo", UserStatus.IDLE, None, None, {})
    assert payloads.game_invite({"user_id": "bo", "game": "Chess"}) == GameInvite("bo", "bo", "Chess", None)
    assert payloads.poke({"user_id": "bo", "target_user_id": "me"}) == ("me", Poked("bo", "bo"))
    chat = payloads.chat_message({"user_id": "bo", "channel": "lobby", "content": "hi"})
    assert chat == ChatMessage("bo", "bo", "lobby", "hi", None, None)


@pytest.mark.parametrize(("event", "field"), OPTIONAL)
def test_null_is_the_same_as_nothing(event: str, field: str) -> None:
    parse, payload = PARSERS[event]
    without = {name: value for name, value in payload.items() if name != field}
    assert parse({**payload, field: None}) == parse(without)


@pytest.mark.parametrize("event", PARSERS)
def test_further_fields_survive(event: str) -> None:
    parse, payload = PARSERS[event]
    parsed = parse({**payload, "mood": {"is": "fine"}, "n": 1})
    one = parsed[1] if isinstance(parsed, tuple) else parsed
    assert one.extra == {"mood": {"is": "fine"}, "n": 1}


@pytest.mark.parametrize("event", PARSERS)
def test_the_payload_is_left_as_it_is(event: str) -> None:
    parse, payload = PARSERS[event]
    given_payload = dict(payload)
    parse(given_payload)
    assert given_payload == payload


@pytest.mark.parametrize(("event", "field"), REQUIRED)
@pytest.mark.parametrize("odd", [None, "", 7, True, ["x"], {"x": 1}])
def test_a_required_field_is_missing_or_odd(event: str, field: str, odd: Any) -> None:
    parse, payload = PARSERS[event]
    fault = f"^an? {event} broadcast must have a non-empty string {field}$"
    with pytest.raises(RemoteProtocolError, match=fault):
        parse({**payload, field: odd})
    with pytest.raises(RemoteProtocolError, match=fault):
        parse({name: value for name, value in payload.items() if name != field})


@pytest.mark.parametrize(("event", "field"), OPTIONAL)
@pytest.mark.parametrize("odd", [7, False, ["x"], {}])
def test_an_optional_field_is_odd(event: str, field: str, odd: Any) -> None:
    parse, payload = PARSERS[event]
    with pytest.raises(RemoteProtocolError, match=f"^{field} of an? {event} broadcast must be a string$"):
        parse({**payload, field: odd})


@pytest.mark.parametrize("event", PARSERS)
@pytest.mark.parametrize("payload", [None, 7, "text", ["list"], b"bytes"])
def test_no_object(event: str, payload: Any) -> None:
    fault = f"^an? {event} broadcast must be an object, not {type(payload).__name__}$"
    with pytest.raises(RemoteProtocolError, match=fault):
        PARSERS[event][0](payload)


@pytest.mark.parametrize("status", ["invisible", "ONLINE", " "])
def test_a_status_that_we_do_not_know_is_left_to_the_track(status: str) -> None:
    assert payloads.activity_update({**ACTIVITY, "status": status}) is None


@given(
    event=st.sampled_from(sorted(PARSERS)),
    patch=st.dictionaries(st.sampled_from(sorted(ACTIVITY | INVITE | POKE | CHAT)), JSON),
    payload=st.none() | JSON,
)
def test_anything_is_parsed_or_refused(event: str, patch: dict[str, Any], payload: Any) -> None:
    parse, whole = PARSERS[event]
    for value in (payload, {**whole, **patch}, patch):
        try:
            parse(value)
        except RemoteProtocolError as exc:
            assert event in str(exc)  # noqa: PT017
