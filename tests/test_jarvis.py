"""The client on the Jarvis JSON protocol: every message of it, in both directions, well-formed and not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from jarvis_rig import BO, CY, DOING_NOTHING, HELLO, ME, JarvisRig, user
from presence_proto.config import Identity, PresenceConfig
from presence_proto.errors import LocalProtocolError
from presence_proto.events import (
    ActivityChanged,
    CommandFailed,
    Connected,
    Disconnected,
    Error,
    GameInvite,
    InviteSent,
    OnlineUser,
    Poked,
    UserOffline,
    UserOnline,
    UserStatus,
)
from presence_proto.presence_client import PresenceClient
from presence_proto.websocket import Closed

BO_PLAYS = replace(BO, status=UserStatus.IN_GAME, activity="Chess")


@pytest.fixture
def rig() -> JarvisRig:
    """In the room with Bo, and all that is told so far is taken."""
    rig = JarvisRig()
    rig.enter(user("bo"))
    rig.received.clear()
    return rig


# ---------------------------------------------------------------------------------- the whole story


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("server_deflate", [False, True])
def test_an_evening_in_the_room(chunk: int | None, server_deflate: bool) -> None:
    rig = JarvisRig(chunk=chunk, server_deflate=server_deflate)
    client = rig.client
    assert rig.enter(user("bo", "in_game", "Chess")) == [Connected(2, (ME, BO_PLAYS), False)]
    assert client.is_connected
    assert rig.tell("user_online", user_id="cy", display_name="Cy", ts="noon") == [
        UserOnline(replace(CY, online_at="noon"))
    ]
    assert client.online_count == 3
    told = {"user_id": "bo", "display_name": "Bo", "status": "away", "activity": None, "ts": "one"}
    assert rig.tell("activity_changed", **told) == [
        ActivityChanged(replace(BO, status=UserStatus.AWAY), BO_PLAYS)
    ]
    sender = {"user_id": "bo", "display_name": "Bo", "ts": "two"}
    assert rig.tell("game_invite", **sender, game="Chess", code="1234") == [
        GameInvite("bo", "Bo", "Chess", "1234", {"ts": "two"})
    ]
    assert rig.tell("poke", **sender) == [Poked("bo", "Bo", {"ts": "two"})]

    rig.update(UserStatus.IN_GAME, "Snake")
    invite, poke = rig.invite("Snake", "XY"), rig.poke("cy")
    assert client.pending_commands == {invite}
    assert rig.take() == []
    assert rig.tell("invite_sent", game="Snake", code="XY", sent_to=["Bo", "Cy"]) == [
        InviteSent(invite, ("Bo", "Cy"))
    ]
    assert client.pending_commands == frozenset()
    assert poke > invite

    assert rig.tell("user_offline", user_id="cy", display_name="Cy", ts="three") == [
        UserOffline(replace(CY, online_at="noon"))
    ]
    rig.count = 2
    rig.advance(30.0)
    assert client.server_count == 2

    rig.do(client.disconnect)
    assert rig.take() == [Disconnected("disconnect was called", None)]
    assert client.is_closed
    assert client.next_deadline() is None
    assert rig.said() == [
        HELLO,
        DOING_NOTHING,
        {"type": "activity_update", "status": "in_game", "activity": "Snake"},
        {"type": "game_invite", "game": "Snake", "code": "XY"},
        {"type": "poke", "target_user_id": "cy"},
        {"type": "disconnect"},
    ]
    assert rig.said("ping") == [{"type": "ping"}]
    assert rig.server_events == [Closed(1000, "", True)]


# --------------------------------------------------------------------------------------- connecting


class TestConnecting:
    def test_nobody_is_seen_before_the_welcome(self) -> None:
        rig = JarvisRig()
        rig.connect()
        assert rig.received == [HELLO]
        assert rig.take() == []
        assert not rig.client.is_connected
        assert rig.client.is_stale
        assert rig.client.server_count is None
        assert rig.client.online_users == (ME,)

    def test_news_from_before_the_welcome_are_no_news(self) -> None:
        rig = JarvisRig()
        rig.connect()
        for kind in ("user_online", "activity_changed", "user_offline"):
            assert rig.tell(kind, user_id="bo", display_name="Bo", status="away") == []
        assert rig.client.online_users == (ME,)
        assert rig.welcome(user("bo")) == [Connected(2, (ME, BO), False)]

    def test_the_first_thing_after_the_welcome_is_what_we_do(self) -> None:
        """A server may have kept an earlier activity of ours, from before our program was started again."""
        rig = JarvisRig()
        assert rig.enter() == [Connected(1, (ME,), False)]
        assert rig.received == [HELLO, DOING_NOTHING]

    def test_what_we_do_may_be_said_before_we_connect(self) -> None:
        rig = JarvisRig()
        rig.update(UserStatus.AWAY, "tea")
        rig.connect()
        rig.update(UserStatus.IDLE)
        assert rig.received == [HELLO]
        rig.welcome()
        assert rig.received[1:] == [{"type": "activity_update", "status": "idle", "activity": None}]

    def test_another_name_and_id(self) -> None:
        rig = JarvisRig(identity=Identity("ann-1", 'Ann "A" Ö'))
        rig.connect()
        assert rig.received[0] == {**HELLO, "user_id": "ann-1", "display_name": 'Ann "A" Ö'}

    def test_we_are_never_one_of_the_others(self) -> None:
        rig = JarvisRig()
        assert rig.enter(user("me", "away"), user("bo"), user("bo")) == [Connected(2, (ME, BO), False)]
        us = {"user_id": "me", "display_name": "Me"}
        assert rig.tell("user_online", **us, status="away") == []
        assert rig.tell("activity_changed", **us, status="away", activity="x") == []
        assert rig.client.online_users == (ME, BO)
        assert rig.tell("user_offline", **us) == []
        assert rig.client.online_users == (ME, BO)

    def test_a_second_welcome_is_the_truth_of_now(self, rig: JarvisRig) -> None:
        assert rig.welcome(user("cy")) == [UserOffline(BO), UserOnline(CY)]
        assert rig.client.online_users == (ME, CY)

    def test_connecting_twice_is_refused(self, rig: JarvisRig) -> None:
        with pytest.raises(LocalProtocolError, match="connect was already called"):
            rig.do(rig.client.connect)
        assert rig.take() == []

    def test_after_a_goodbye_one_may_come_again(self, rig: JarvisRig) -> None:
        rig.do(rig.client.disconnect)
        rig.take()
        rig.received.clear()
        assert rig.enter(user("cy")) == [Connected(2, (ME, CY), True), UserOffline(BO), UserOnline(CY)]
        assert rig.received == [HELLO, DOING_NOTHING]

    def test_the_goodbye_before_there_is_a_connection(self) -> None:
        rig = JarvisRig()
        rig.do(rig.client.disconnect)
        assert rig.take() == []
        rig.do(rig.client.connect)
        rig.do(rig.client.disconnect)
        assert rig.take() == [Disconnected("disconnect was called", None)]
        assert rig.client.is_closed
        assert rig.received == []

    def test_the_goodbye_before_the_welcome(self) -> None:
        rig = JarvisRig(join_timeout=1.0, close_timeout=20.0)
        rig.connect()
        rig.silent = True
        rig.do(rig.client.disconnect)
        assert rig.said()[-1] == {"type": "disconnect"}
        rig.advance(19.0)  # nobody waits for the welcome any more
        assert rig.take() == []
        rig.advance(1.0)
        assert rig.take() == [Disconnected("disconnect was called", None)]
        assert rig.client.next_deadline() is None

    def test_a_welcome_that_crosses_the_goodbye(self) -> None:
        rig = JarvisRig()
        rig.connect()
        rig.silent = True
        rig.welcome(user("bo"))
        rig.do(rig.client.disconnect)
        rig.release()
        assert rig.take() == [Disconnected("disconnect was called", None)]
        assert rig.client.online_users == (ME,)


# ------------------------------------------------------------------------------------- who is there


class TestOthers:
    def test_the_same_again_is_no_event(self, rig: JarvisRig) -> None:
        cy = {"user_id": "cy", "display_name": "Cy", "ts": "noon"}
        assert len(rig.tell("user_online", **cy)) == 1
        assert rig.tell("user_online", **cy) == []
        assert rig.tell("user_online", **{**cy, "ts": "later"}) == []
        plays = {**cy, "status": "in_game", "activity": "Chess"}
        assert len(rig.tell("activity_changed", **plays)) == 1
        assert rig.tell("activity_changed", **plays) == []
        assert rig.tell("user_online", **cy) == []
        assert len(rig.tell("user_offline", **cy)) == 1
        assert rig.tell("user_offline", **cy) == []

    def test_who_is_not_there_cannot_change_or_go(self, rig: JarvisRig) -> None:
        assert rig.tell("activity_changed", **user("cy", "away")) == []
        assert rig.tell("user_offline", user_id="cy") == []
        assert rig.client.online_users == (ME, BO)

    def test_who_comes_back_is_new(self, rig: JarvisRig) -> None:
        rig.tell("activity_changed", **user("bo", "away", "tea"))
        rig.tell("user_offline", user_id="bo")
        assert rig.tell("user_online", user_id="bo", display_name="Bo") == [UserOnline(BO)]

    def test_a_new_name(self, rig: JarvisRig) -> None:
        changed = {**user("bo"), "display_name": "Bobby"}
        assert rig.tell("activity_changed", **changed) == [
            ActivityChanged(replace(BO, display_name="Bobby"), BO)
        ]

    def test_a_missing_name_is_the_id(self, rig: JarvisRig) -> None:
        assert rig.tell("user_online", user_id="cy", display_name=None) == [
            UserOnline(OnlineUser("cy", "cy"))
        ]
        assert rig.tell("poke", user_id="cy") == [Poked("cy", "cy")]

    def test_a_status_of_tomorrow(self, rig: JarvisRig) -> None:
        assert rig.tell("activity_changed", **user("bo", "dancing", "tango")) == [
            ActivityChanged(replace(BO, activity="tango", extra={"status": "dancing"}), BO)
        ]

    def test_further_fields_survive(self, rig: JarvisRig) -> None:
        mood: dict[str, Any] = {"mood": {"colour": "red"}}
        assert rig.tell("user_online", **user("cy"), **mood) == [UserOnline(replace(CY, extra=mood))]
        sender = {"user_id": "cy", "display_name": "Cy"}
        assert rig.tell("poke", **sender, **mood) == [Poked("cy", "Cy", mood)]
        assert rig.tell("game_invite", **sender, game="Go", **mood) == [
            GameInvite("cy", "Cy", "Go", None, mood)
        ]
        welcomed = JarvisRig()
        assert welcomed.enter(user("cy", **mood)) == [Connected(2, (ME, replace(CY, extra=mood)), False)]

    def test_fields_that_only_look_like_ours(self, rig: JarvisRig) -> None:
        odd = {"phx_ref": "1", "phx_ref_prev": [], "ts": 7}
        assert rig.tell("user_online", **user("cy"), **odd) == [UserOnline(CY)]
        assert rig.tell("activity_changed", **user("cy", "away"), **odd) == [
            ActivityChanged(replace(CY, status=UserStatus.AWAY), CY)
        ]
        assert rig.tell("user_offline", **user("cy"), **odd) == [
            UserOffline(replace(CY, status=UserStatus.AWAY))
        ]

    def test_the_roster_has_a_limit(self) -> None:
        rig = JarvisRig(max_roster=3)
        rig.enter(user("bo"), user("cy"))
        full = [Error("more than 3 users (max_roster)")]
        assert rig.tell("user_online", **user("di")) == full
        assert rig.tell("activity_changed", **user("cy", "away")) != full
        assert rig.tell("welcome", users=[user("bo"), user("cy"), user("di")]) == full
        assert [user.user_id for user in rig.client.online_users] == ["me", "bo", "cy"]
        assert len(rig.welcome(user("bo"), user("di"))) == 2


def test_messages_are_json_as_others_write_it(rig: JarvisRig) -> None:
    text = json.dumps(
        {"ts": None, "display_name": "Bo\u00f6\n", "user_id": "b\u00f6", "type": "user_online"}, indent=2
    )
    assert rig.tell_text(text) == [UserOnline(OnlineUser("bö", "Boö\n"))]


class TestActivity:
    def test_it_is_told_once(self, rig: JarvisRig) -> None:
        rig.update(UserStatus.ONLINE)
        rig.update(UserStatus.AWAY, "tea")
        rig.update("away", "tea")
        rig.update(UserStatus.ONLINE)
        assert [(told["status"], told["activity"]) for told in rig.received] == [
            ("away", "tea"),
            ("online", None),
        ]
        assert rig.take() == []
        assert rig.client.pending_commands == frozenset()
        assert (rig.client.status, rig.client.activity) == (UserStatus.ONLINE, None)
        assert rig.client.online_users[0] == ME

    def test_our_own_roster_entry_changes_with_it(self, rig: JarvisRig) -> None:
        rig.update(UserStatus.AWAY, "tea")
        assert rig.client.online_users[0] == replace(ME, status=UserStatus.AWAY, activity="tea")


class TestInvites:
    def test_the_code_is_always_there(self, rig: JarvisRig) -> None:
        rig.invite("Chess")
        assert rig.received == [{"type": "game_invite", "game": "Chess", "code": None}]

    @pytest.mark.parametrize("echo", [{"code": None}, {"code": ""}, {}])
    def test_a_receipt_without_a_code(self, rig: JarvisRig, echo: dict[str, Any]) -> None:
        invite = rig.invite("Chess")
        assert rig.tell("invite_sent", game="Chess", **echo, sent_to=[]) == [InviteSent(invite, ())]

    def test_each_has_its_own_receipt(self, rig: JarvisRig) -> None:
        one, two, three = rig.invite("Chess", "1"), rig.invite("Chess", "2"), rig.invite("Chess", "1")
        assert rig.tell("invite_sent", game="Chess", code="2", sent_to=["Bo"]) == [InviteSent(two, ("Bo",))]
        assert rig.tell("invite_sent", game="Chess", code="1", sent_to=["Bo"]) == [InviteSent(one, ("Bo",))]
        assert rig.tell("invite_sent", game="Chess", code="1", sent_to=["Cy"]) == [InviteSent(three, ("Cy",))]
        assert rig.tell("invite_sent", game="Chess", code="1", sent_to=["Cy"]) == []
        assert rig.client.pending_commands == frozenset()

    def test_a_receipt_that_does_not_come(self) -> None:
        rig = JarvisRig(command_timeout=5.0)
        rig.enter()
        invite = rig.invite("Chess")
        rig.advance(4.9)
        assert rig.take() == []
        rig.advance(0.1)
        assert rig.take() == [CommandFailed(invite, "send_invite", "no receipt in time")]
        other = rig.invite("Go")
        assert (
            rig.tell("invite_sent", game="Chess", code=None, sent_to=["Bo"]) == []
        )  # too late, and not Go's
        assert rig.tell("invite_sent", game="Go", code=None, sent_to=["Bo"]) == [InviteSent(other, ("Bo",))]

    @pytest.mark.parametrize("sent_to", [None, "Bo", 3, {"Bo": 1}, ["Bo", 1], [["Bo"]]])
    def test_a_receipt_that_names_nobody(self, rig: JarvisRig, sent_to: Any) -> None:
        invite = rig.invite("Chess")
        wrong = [Error("the invite_sent message must have a list of names in sent_to")]
        assert rig.tell("invite_sent", game="Chess", code=None, sent_to=sent_to) == wrong
        assert invite not in rig.client.pending_commands  # it did arrive
        assert rig.tell("invite_sent", game="Chess", code=None, sent_to=sent_to) == wrong


class TestCommands:
    def test_there_is_no_chat(self, rig: JarvisRig) -> None:
        with pytest.raises(LocalProtocolError, match="send_chat: the Jarvis JSON protocol has no chat"):
            rig.do(rig.client.send_chat, "lobby", "hello")
        assert rig.received == []
        assert rig.client.pending_commands == frozenset()

    def test_without_a_connection_nothing_is_said(self) -> None:
        client = PresenceClient(Identity("me", "Me"), PresenceConfig(server_url="ws://host:8790"))
        with pytest.raises(LocalProtocolError, match="send_invite: not connected, call connect first"):
            client.send_invite("Chess", now=0.0)
        with pytest.raises(LocalProtocolError, match="send_poke: not connected, call connect first"):
            client.send_poke("bo", now=0.0)

    def test_what_is_wrong_with_the_arguments_is_said(self, rig: JarvisRig) -> None:
        for command, arguments in [
            (rig.client.send_invite, ("",)),
            (rig.client.send_invite, ("Chess", "")),
            (rig.client.send_invite, ("\ud800",)),
            (rig.client.send_poke, (None,)),
        ]:
            with pytest.raises(LocalProtocolError, match="must be a non-empty string"):
                rig.do(command, *arguments)
        with pytest.raises(LocalProtocolError, match="status must be one of"):
            rig.update("dancing")
        assert rig.received == []

    def test_after_the_goodbye_nothing_can_be_said(self, rig: JarvisRig) -> None:
        rig.silent = True
        invite = rig.invite("Chess")
        rig.do(rig.client.disconnect)
        gone = CommandFailed(invite, "send_invite", "disconnect was called before the receipt")
        assert rig.take() == [gone]
        rig.update(UserStatus.AWAY)
        poke = rig.poke("bo")
        rig.release()
        assert rig.take() == [
            Disconnected("disconnect was called", None),
            CommandFailed(poke, "send_poke", "the connection ended"),
        ]
        assert rig.received[-1] == {"type": "disconnect"}
        with pytest.raises(LocalProtocolError, match="not connected"):
            rig.poke("bo")

    @pytest.mark.parametrize("now", [float("nan"), float("inf")])
    def test_what_is_no_time_is_refused(self, rig: JarvisRig, now: float) -> None:
        client = rig.client
        for command in (
            client.connect,
            client.disconnect,
            client.tick,
            lambda now: client.send_poke("bo", now=now),
            lambda now: client.update_activity("away", now=now),
            lambda now: client.set_access_token("other", now=now),
        ):
            with pytest.raises(LocalProtocolError):
                command(now=now)
        assert not client.drain()
        assert client.status is UserStatus.ONLINE


class TestPings:
    def test_they_go_out_every_heartbeat_interval(self) -> None:
        rig = JarvisRig(heartbeat_interval=30.0)
        rig.enter()
        rig.advance(29.9)
        assert rig.said("ping") == []
        rig.advance(0.1)
        assert len(rig.said("ping")) == 1
        rig.advance(90.0)
        assert len(rig.said("ping")) == 4
        assert rig.take() == []

    @pytest.mark.parametrize(
        ("says", "count"), [(0, 0), (7, 7), (True, None), ("7", None), (1.5, None), (None, None)]
    )
    def test_the_count_of_the_server(self, rig: JarvisRig, says: Any, count: int | None) -> None:
        rig.count = says
        rig.advance(60.0)
        assert rig.client.server_count == count
        assert rig.client.is_connected  # a pong is a pong
        assert rig.take() == []

    def test_a_pong_without_a_count_makes_the_last_one_void(self, rig: JarvisRig) -> None:
        rig.tell("pong", online_count=3)
        rig.tell("pong")
        assert rig.client.server_count is None

    def test_the_count_is_not_ours(self, rig: JarvisRig) -> None:
        assert rig.tell("pong", online_count=50) == []
        assert rig.client.server_count == 50
        assert rig.client.online_count == 2


def test_who_is_not_to_be_seen_leaves_the_status_as_it_is() -> None:
    rig = JarvisRig(visible=False)
    rig.enter(user("bo"))
    rig.poke("bo")
    assert [message["type"] for message in rig.received] == ["connect", "poke"]
    assert (rig.client.device_count("me"), rig.client.device_count("bo")) == (0, 1)


def nesting(value: Any) -> int:
    """The levels of a list of lists; what was cut off does not count."""
    levels = 0
    while isinstance(value, list):
        levels, value = levels + 1, value[0] if value else None
    return levels


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
        [error] = rig.tell("error", message="no s3cr3t-key s3cr3t-token s3cr3t-sig s3cr3t-new here")
        assert error.message == "the server says: no … … … … here"
        assert error.server_text == "no … … … … here"
