"""The client on the Jarvis JSON protocol: every message of it, in both directions, well-formed and not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from jarvis_rig import BO, CY, DOING_NOTHING, HELLO, ME, JarvisRig, user
from presence_proto.config import Identity
from presence_proto.errors import LocalProtocolError
from presence_proto.events import (
    ActivityChanged,
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
