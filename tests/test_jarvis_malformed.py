"""What a Jarvis server may say that makes no sense, and what it says is wrong with us."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jarvis_rig import BO, ME, JarvisRig, user
from presence_proto.events import Connected, Error, Poked


def nesting(value: Any) -> int:
    """The levels of a list of lists; what was cut off does not count."""
    levels = 0
    while isinstance(value, list):
        levels, value = levels + 1, value[0] if value else None
    return levels


@pytest.fixture
def rig() -> JarvisRig:
    """In the room with Bo, and all that is told so far is taken."""
    rig = JarvisRig()
    rig.enter(user("bo"))
    rig.received.clear()
    return rig


DEEP = "is malformed: nested more than 100 levels deep (see max_nesting)"

MALFORMED = [
    ("{", "a Jarvis message is malformed: it ends too early"),
    ("", "a Jarvis message is malformed: it is empty"),
    ("[]", "a Jarvis message is malformed: it must be an object, not an array"),
    ("null", "a Jarvis message is malformed: it must be an object, not null"),
    ("[" * 100_000, f"a Jarvis message {DEEP}"),
    ('{"a":' * 100_000, f"a Jarvis message {DEEP}"),
    ("{}", "a Jarvis message must have a string type"),
    ('{"type":null}', "a Jarvis message must have a string type"),
    ('{"type":["welcome"]}', "a Jarvis message must have a string type"),
    ('{"type":"welcome"}', "the welcome message must have a list of users"),
    ('{"type":"welcome","users":{}}', "the welcome message must have a list of users"),
    ('{"type":"welcome","users":[7]}', "a user of the welcome message must be an object, not int"),
    ('{"type":"welcome","users":[{}]}', "a user of the welcome message must have a non-empty string user_id"),
    ('{"type":"user_online"}', "the user_online message must have a non-empty string user_id"),
    (
        '{"type":"user_online","user_id":"a","display_name":1}',
        "display_name of the user_online message must be a string",
    ),
    ('{"type":"activity_changed"}', "the activity_changed message must have a non-empty string user_id"),
    ('{"type":"user_offline","user_id":[]}', "the user_offline message must have a non-empty string user_id"),
    ('{"type":"game_invite","user_id":"a"}', "a game_invite broadcast must have a non-empty string game"),
    ('{"type":"poke"}', "the poke message must have a non-empty string user_id"),
    ('{"type":"error"}', "the error message must have a non-empty string message"),
    ('{"type":"error","message":{}}', "the error message must have a non-empty string message"),
]


class TestMalformed:
    @pytest.mark.parametrize(("text", "wrong"), MALFORMED)
    def test_it_is_named_and_nothing_else_happens(self, rig: JarvisRig, text: str, wrong: str) -> None:
        assert rig.tell_text(text) == [Error(wrong)]
        assert rig.client.is_connected
        assert rig.client.online_users == (ME, BO)
        assert rig.received == []
        assert rig.tell("poke", user_id="bo", display_name="Bo") == [Poked("bo", "Bo")]

    def test_a_malformed_welcome_lets_nobody_in(self) -> None:
        rig = JarvisRig()
        rig.connect()
        assert rig.tell("welcome", users=[user("bo"), {}]) == [
            Error("a user of the welcome message must have a non-empty string user_id")
        ]
        assert not rig.client.is_connected
        assert rig.client.online_users == (ME,)
        assert rig.welcome(user("bo")) == [Connected(2, (ME, BO), False)]

    def test_a_binary_message(self, rig: JarvisRig) -> None:
        rig.say_binary(b'{"type":"poke","user_id":"bo"}')
        assert rig.take() == [Error("a Jarvis message must be text")]

    def test_users_are_taken_without_what_nests_too_deeply(self, rig: JarvisRig) -> None:
        """The fields of one user must not keep all others out."""
        for kind in ("activity_changed", "user_online"):
            for depth in (99, 100, 980, 100_000):
                text = f'{{"type":"{kind}","user_id":"bo","display_name":"Bo","x":%s}}'
                events = rig.tell_text(text % ("[" * depth + "]" * depth))
                assert [event for event in events if isinstance(event, Error)] == (
                    [] if depth < 100 else [Error(f"a Jarvis message {DEEP}")]
                )
                kept = rig.client.user("bo")
                assert kept is not None
                assert nesting(kept.extra["x"]) == 99
                rig.tell("activity_changed", user_id="bo", display_name="Bo", x=1)
        deep = json.dumps(user("cy"))[:-1] + ',"x":' + "[" * 980 + "]" * 980 + "}"
        rig.tell_text(f'{{"type":"welcome","users":[{json.dumps(user("bo"))},{deep}]}}')
        assert [one.user_id for one in rig.client.online_users] == [ME.user_id, "bo", "cy"]

    @pytest.mark.parametrize("kind", ["poke", "game_invite", "user_offline", "error", "pong"])
    def test_nothing_else_is_taken_that_nests_too_deeply(self, rig: JarvisRig, kind: str) -> None:
        text = f'{{"type":"{kind}","user_id":"bo","game":"g","message":"m","x":%s}}'
        for depth in (100, 980, 100_000):
            events = rig.tell_text(text % ("[" * depth + "]" * depth))
            assert events == [Error(f"a Jarvis message {DEEP}")]
        assert rig.client.online_users == (ME, BO)

    def test_what_is_cut_off_as_well(self, rig: JarvisRig) -> None:
        for text in (
            '{"type":"welcome","users":[' + "[" * 980,
            '{"type":"welcome","users":[' + "[" * 98 + "]",
        ):
            [error] = rig.tell_text(text)
            assert isinstance(error, Error)
            assert rig.client.online_users == (ME, BO)

    @pytest.mark.parametrize("ref", ["1", [], None])
    def test_a_field_with_the_name_of_our_refs_is_nothing_to_us(self, rig: JarvisRig, ref: object) -> None:
        for status in ("away", "idle", "away"):
            [event] = rig.tell("activity_changed", user_id="bo", status=status, phx_ref=ref)
            assert event.user.status == status
        assert len(rig.tell("user_offline", user_id="bo")) == 1
        assert rig.client.online_users == (ME,)

    def test_types_of_a_later_version_are_passed_over(self, rig: JarvisRig) -> None:
        assert rig.tell("chat_message", user_id="bo", content="hi") == []
        assert rig.tell("", x=1) == []
        assert rig.take() == []


class TestServerErrors:
    def test_they_are_told(self, rig: JarvisRig) -> None:
        assert rig.tell("error", message="Invalid JSON") == [
            Error("the server says: Invalid JSON", server_text="Invalid JSON")
        ]
        assert rig.client.is_connected

    def test_they_are_bounded(self, rig: JarvisRig) -> None:
        [error] = rig.tell("error", message="x" * 10_000)
        assert len(error.message) < 250

    def test_our_secrets_are_taken_out(self) -> None:
        rig = JarvisRig(api_key="s3cr3t-key", access_token="s3cr3t-token", params={"sig": "s3cr3t-sig"})
        rig.enter()
        rig.do(rig.client.set_access_token, "s3cr3t-new")
        [error] = rig.tell("error", message="x" * 185 + " s3cr3t-key s3cr3t-token s3cr3t-sig s3cr3t-new")
        assert "s3c" not in error.message
        assert "s3c" not in error.server_text
        [error] = rig.tell("error", message="no s3cr3t-key s3cr3t-token s3cr3t-sig s3cr3t-new here")
        assert error.message == "the server says: no … … … … here"
        assert error.server_text == "no … … … … here"
