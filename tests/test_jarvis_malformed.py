"""What a Jarvis server may say that makes no sense, and what it says is wrong with us."""

from __future__ import annotations

import sys

import pytest

from jarvis_rig import BO, ME, JarvisRig, user
from presence_proto.events import ActivityChanged, Connected, Error, Poked


@pytest.fixture
def rig() -> JarvisRig:
    """In the room with Bo, and all that is told so far is taken."""
    rig = JarvisRig()
    rig.enter(user("bo"))
    rig.received.clear()
    return rig


MALFORMED = [
    ("{", "a Jarvis message is malformed: Input data was truncated"),
    ("", "a Jarvis message is malformed: Input data was truncated"),
    ("[]", "a Jarvis message is malformed: Expected `object`, got `array`"),
    ("null", "a Jarvis message is malformed: Expected `object`, got `null`"),
    ("[" * 100_000, "a Jarvis message is malformed: Expected `object`, got `array`"),
    ('{"a":' * 100_000, "a Jarvis message is malformed: nested too deeply"),
    ("{}", "a Jarvis message must have a type, a string"),
    ('{"type":null}', "a Jarvis message must have a type, a string"),
    ('{"type":["welcome"]}', "a Jarvis message must have a type, a string"),
    ('{"type":"welcome"}', "the message welcome must have a list of users"),
    ('{"type":"welcome","users":{}}', "the message welcome must have a list of users"),
    ('{"type":"welcome","users":[7]}', "a user of the message welcome must be an object, not int"),
    ('{"type":"welcome","users":[{}]}', "a user of the message welcome must have a non-empty string user_id"),
    ('{"type":"user_online"}', "the message user_online must have a non-empty string user_id"),
    (
        '{"type":"user_online","user_id":"a","display_name":1}',
        "display_name of the message user_online must be a string",
    ),
    ('{"type":"activity_changed"}', "the message activity_changed must have a non-empty string user_id"),
    ('{"type":"user_offline","user_id":[]}', "the message user_offline must have a non-empty string user_id"),
    ('{"type":"game_invite","user_id":"a"}', "a game_invite broadcast must have a non-empty string game"),
    ('{"type":"poke"}', "the message poke must have a non-empty string user_id"),
    ('{"type":"error"}', "the message error must have a non-empty string message"),
    ('{"type":"error","message":{}}', "the message error must have a non-empty string message"),
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
            Error("a user of the message welcome must have a non-empty string user_id")
        ]
        assert not rig.client.is_connected
        assert rig.client.online_users == (ME,)
        assert rig.welcome(user("bo")) == [Connected(2, (ME, BO), False)]

    def test_a_binary_message(self, rig: JarvisRig) -> None:
        rig.say_binary(b'{"type":"poke","user_id":"bo"}')
        assert rig.take() == [Error("a Jarvis message must be text")]

    def test_what_is_nested_as_deeply_as_can_be_read(self, rig: JarvisRig) -> None:
        """It is no exception wherever the interpreter draws the line: in the reading or in a comparison."""
        for depth in range(1, sys.getrecursionlimit(), 7):
            nested = "[" * depth + "]" * depth
            deep = f'{{"type":"activity_changed","user_id":"bo","display_name":"Bo","x":{nested}}}'
            for _ in range(2):
                events = rig.tell_text(deep)
                assert [type(event) for event in events] in ([], [ActivityChanged], [Error])

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
        assert rig.tell("error", message="Invalid JSON") == [Error("the server says: Invalid JSON")]
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
        [error] = rig.tell("error", message="no s3cr3t-key s3cr3t-token s3cr3t-sig s3cr3t-new here")
        assert error.message == "the server says: no … … … … here"
