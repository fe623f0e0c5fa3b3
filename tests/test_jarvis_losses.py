"""Losing a Jarvis server and finding it again: what is told again, what waits, and how long between tries."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from jarvis_rig import BO, CY, DOING_NOTHING, HELLO, ME, JarvisRig, user
from presence_proto.errors import LocalProtocolError
from presence_proto.events import (
    ActivityChanged,
    CommandFailed,
    Connected,
    Disconnected,
    Error,
    InviteSent,
    UserOffline,
    UserOnline,
    UserStatus,
)

NO_WELCOME = "no welcome within 10 s: the server does not let us in, or does not speak Jarvis JSON"


@pytest.fixture
def rig() -> JarvisRig:
    """In the room with Bo, and all that is told so far is taken."""
    rig = JarvisRig()
    rig.enter(user("bo"))
    rig.received.clear()
    return rig


# ------------------------------------------------------------------------------------ coming back


class TestComingBack:
    def test_only_the_net_differences_are_told(self, rig: JarvisRig) -> None:
        rig.welcome(user("bo"), user("cy"), user("di", "away"), user("ed", "idle", "tea"))
        rig.take()
        rig.cut("reset")
        assert rig.take() == [Disconnected("reset", 1.0)]
        assert rig.client.is_stale
        assert rig.client.online_count == 5  # as it was
        rig.next_attempt()
        assert rig.client.is_stale
        connected, *rest = rig.welcome(user("ed", "idle", "tea"), user("fi"), user("bo", "away"), user("di"))
        assert type(connected) is Connected
        assert (connected.resumed, connected.online_count) == (True, 6)
        assert connected.users == rig.client.online_users
        di, away = connected.users[3], replace(BO, status=UserStatus.AWAY)
        assert rest == [
            UserOnline(connected.users[5]),
            ActivityChanged(away, BO),
            ActivityChanged(di, replace(di, status=UserStatus.AWAY)),
        ]
        assert [one.user_id for one in connected.users] == ["me", "bo", "cy", "di", "ed", "fi"]
        assert rig.client.is_user_stale("cy")
        rig.advance(8.0)
        assert rig.take() == [UserOffline(CY)]

    def test_a_stale_roster_waits_for_the_welcome(self, rig: JarvisRig) -> None:
        before = rig.client.online_users
        rig.cut()
        rig.take()
        rig.next_attempt()
        assert rig.tell("user_offline", user_id="bo", display_name="Bo") == []
        assert rig.tell("user_online", user_id="cy", display_name="Cy") == []
        assert rig.client.online_users == before

    def test_nobody_flickers(self, rig: JarvisRig) -> None:
        rig.tell("user_online", user_id="cy", display_name="Cy", ts="noon")
        rig.cut()
        rig.take()
        cy = replace(CY, online_at="noon")  # a welcome does not say since when
        assert rig.come_back(user("bo"), user("cy")) == [Connected(3, (ME, BO, cy), True)]

    def test_who_we_are_and_what_we_do_is_told_again(self, rig: JarvisRig) -> None:
        rig.update(UserStatus.IN_GAME, "Chess")
        rig.cut()
        rig.received.clear()
        rig.come_back()
        playing = {"type": "activity_update", "status": "in_game", "activity": "Chess"}
        assert rig.received == [HELLO, playing]

    def test_so_it_is_when_it_changed_while_we_were_away(self, rig: JarvisRig) -> None:
        rig.cut()
        rig.update(UserStatus.AWAY, "tea")
        rig.update(UserStatus.IN_GAME, "Snake")
        rig.come_back()
        playing = {"type": "activity_update", "status": "in_game", "activity": "Snake"}
        assert rig.received == [HELLO, playing]
        assert rig.take() == []

    def test_also_when_it_changed_to_what_a_newcomer_does(self, rig: JarvisRig) -> None:
        """The server may have kept what we did over our absence."""
        rig.update(UserStatus.IN_GAME, "Chess")
        rig.cut()
        rig.update(UserStatus.ONLINE)
        rig.received.clear()
        rig.come_back()
        assert rig.received == [HELLO, DOING_NOTHING]

    def test_also_when_it_was_told_in_the_last_moment(self, rig: JarvisRig) -> None:
        """What is sent need not have arrived."""
        rig.update(UserStatus.IN_GAME, "Chess")
        rig.update(UserStatus.ONLINE)
        rig.cut()
        rig.received.clear()
        rig.come_back()
        assert rig.received == [HELLO, DOING_NOTHING]

    def test_a_changed_token_is_in_the_next_url(self) -> None:
        rig = JarvisRig(access_token="old", api_key="key")
        rig.enter()
        assert rig.requests[-1].target == "/?apikey=key&token=old"
        rig.do(rig.client.set_access_token, "new")
        assert rig.take() == []
        rig.cut()
        rig.come_back()
        assert rig.requests[-1].target == "/?apikey=key&token=new"
        rig.do(rig.client.set_access_token, None)
        rig.cut()
        rig.come_back()
        assert rig.requests[-1].target == "/?apikey=key"

    @pytest.mark.parametrize("token", ["", 7, b"jwt", "\ud800"])
    def test_a_token_that_is_none_is_refused_at_once(self, rig: JarvisRig, token: Any) -> None:
        with pytest.raises(LocalProtocolError, match="access_token must be"):
            rig.do(rig.client.set_access_token, token)
        rig.cut()
        assert len(rig.come_back()) == 1
        assert rig.requests[-1].target == "/"

    def test_late_facts_of_an_old_connection_are_nothing(self, rig: JarvisRig) -> None:
        old = rig.conn
        rig.cut()
        rig.come_back(user("bo"))
        rig.do(rig.client.receive_data, old, b"\x81\x02{}")
        rig.do(rig.client.transport_closed, old)
        rig.do(rig.client.transport_opened, old)
        assert rig.take() == []
        assert rig.client.is_connected


# ------------------------------------------------------------------------------------ what waits


class TestWaiting:
    def test_what_is_said_offline_is_sent_in_order_with_the_welcome(self, rig: JarvisRig) -> None:
        rig.cut()
        rig.take()
        rig.poke("bo")
        invite = rig.invite("Chess", "1")
        rig.poke("cy")
        rig.next_attempt()
        rig.poke("di")
        assert rig.received == [HELLO]
        assert len(rig.client.pending_commands) == 4
        rig.welcome()
        assert rig.received == [
            HELLO,
            DOING_NOTHING,
            {"type": "poke", "target_user_id": "bo"},
            {"type": "game_invite", "game": "Chess", "code": "1"},
            {"type": "poke", "target_user_id": "cy"},
            {"type": "poke", "target_user_id": "di"},
        ]
        assert rig.client.pending_commands == {invite}
        assert rig.tell("invite_sent", game="Chess", code="1", sent_to=["Bo"]) == [
            InviteSent(invite, ("Bo",))
        ]

    def test_before_the_first_welcome_too(self) -> None:
        rig = JarvisRig()
        rig.do(rig.client.connect)
        rig.poke("bo")
        rig.open()
        rig.welcome()
        assert rig.received == [HELLO, DOING_NOTHING, {"type": "poke", "target_user_id": "bo"}]

    def test_there_is_a_limit(self) -> None:
        rig = JarvisRig(max_pending_pushes=2)
        rig.do(rig.client.connect)
        kept = {rig.poke("bo"), rig.invite("Chess")}
        with pytest.raises(LocalProtocolError, match=r"2 messages already wait \(max_pending_pushes\)"):
            rig.poke("cy")
        assert rig.client.pending_commands == kept
        rig.open()
        rig.welcome()
        for _ in range(10):
            rig.poke("bo")  # in the room nothing waits
        assert len(rig.said("poke")) == 11

    def test_it_does_not_wait_for_ever(self) -> None:
        rig = JarvisRig(command_timeout=5.0)
        rig.do(rig.client.connect)
        invite = rig.invite("Chess")
        rig.advance(1.0)
        poke = rig.poke("bo")
        rig.advance(4.0)
        assert rig.take() == [CommandFailed(invite, "send_invite", "not delivered in time")]
        rig.advance(1.0)
        assert rig.take() == [CommandFailed(poke, "send_poke", "not delivered in time")]
        rig.open()
        rig.welcome()
        assert rig.received == [HELLO, DOING_NOTHING]

    def test_what_is_due_comes_before_what_is_said(self) -> None:
        """A driver that is late must not find the queue full of what has expired long ago."""
        rig = JarvisRig(max_pending_pushes=1, command_timeout=5.0)
        rig.do(rig.client.connect)
        old = rig.poke("bo")
        rig.now += 6.0
        new = rig.poke("cy")
        assert rig.take() == [CommandFailed(old, "send_poke", "not delivered in time")]
        assert rig.client.pending_commands == {new}

    def test_nothing_is_sent_into_a_connection_whose_time_is_up(self, rig: JarvisRig) -> None:
        rig.answers_heartbeats = False
        rig.advance(25.0)
        rig.now += 11.0
        poke = rig.poke("bo")
        assert rig.take() == [Disconnected("no heartbeat reply within 10 s", 1.0)]
        assert rig.client.pending_commands == {poke}
        rig.answers_heartbeats = True
        rig.come_back()
        assert rig.said("poke") == [{"type": "poke", "target_user_id": "bo"}]

    def test_an_invite_whose_receipt_the_loss_took(self, rig: JarvisRig) -> None:
        sent = [rig.invite("Chess"), rig.invite("Go")]
        rig.cut()
        assert rig.take() == [
            Disconnected("eof", 1.0),
            *(CommandFailed(one, "send_invite", "the connection ended before the receipt") for one in sent),
        ]
        rig.come_back()
        assert rig.said("game_invite") == [
            {"type": "game_invite", "game": "Chess", "code": None},
            {"type": "game_invite", "game": "Go", "code": None},
        ]  # once each, and not again
        assert rig.tell("invite_sent", game="Chess", code=None, sent_to=["Bo"]) == []

    def test_when_we_stop_what_waits_fails(self, rig: JarvisRig) -> None:
        rig.cut()
        rig.take()
        commands = [(rig.poke("bo"), "send_poke"), (rig.invite("Chess"), "send_invite")]
        rig.do(rig.client.disconnect)
        assert rig.take() == [
            Disconnected("disconnect was called", None),
            *(CommandFailed(one, command, "the connection ended") for one, command in commands),
        ]
        assert rig.client.next_deadline() is None

    def test_when_the_server_refuses_us_for_good_what_waits_fails(self) -> None:
        rig = JarvisRig()
        rig.do(rig.client.connect)
        poke = rig.poke("bo")
        rig.refuse(401)
        refused = "the server refused the connection: HTTP 401"
        assert rig.take() == [
            Disconnected(refused, None),
            Error(refused, fatal=True),
            CommandFailed(poke, "send_poke", "the connection ended"),
        ]
        assert rig.client.is_closed
        assert rig.client.next_deadline() is None


# ------------------------------------------------------------------------------------ how it ends


class TestLosses:
    def test_the_backoff(self, rig: JarvisRig) -> None:
        rig.cut()
        assert rig.take() == [Disconnected("eof", 1.0)]
        for delay in (2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
            rig.advance(rig.client.next_deadline() - rig.now)  # type: ignore[operator]  # there is one
            rig.cut("refused")
            assert rig.take() == [Disconnected("refused", delay)]

    def test_it_starts_over_only_when_we_were_in_the_room_for_a_while(self, rig: JarvisRig) -> None:
        rig.cut()
        for delay in (2.0, 4.0):
            rig.come_back()
            rig.advance(4.9)
            rig.cut()
            assert rig.take() == [Disconnected("eof", delay)]
        rig.come_back()
        rig.advance(5.0)
        rig.cut()
        assert rig.take() == [Disconnected("eof", 1.0)]

    @pytest.mark.parametrize("code", [1000, 1001, 1012])
    def test_a_clean_close_is_no_reason_to_hurry(self, code: int) -> None:
        """A server that closes each connection politely must not be asked for another at once, every time."""
        rig = JarvisRig()
        rig.enter()
        for delay in (1.0, 2.0, 4.0, 8.0):
            rig.close(code)
            assert rig.take() == [Disconnected(f"the server closed the connection with code {code}", delay)]
            opened = len(rig.opens)
            rig.advance(delay - 0.01)
            assert len(rig.opens) == opened
            rig.come_back()

    def test_the_goodbye_of_the_server_in_its_own_words(self, rig: JarvisRig) -> None:
        rig.close(1002, "evicted")
        assert rig.take() == [Disconnected("the server closed the connection with code 1002: evicted", 1.0)]

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_refusal_that_may_heal_does_not_stop_us(self, status: int) -> None:
        rig = JarvisRig()
        rig.do(rig.client.connect)
        rig.refuse(status, b"busy")
        assert rig.take() == [
            Disconnected(f"the server refused the connection: HTTP {status} busy", 1.0),
        ]
        assert len(rig.come_back()) == 1
        assert rig.client.is_connected

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refusal_that_cannot_heal_does(self, rig: JarvisRig, status: int) -> None:
        rig.cut()
        rig.advance(1.0)
        rig.take()
        rig.refuse(status)
        refused = f"the server refused the connection: HTTP {status}"
        assert rig.take() == [Disconnected(refused, None), Error(refused, fatal=True)]
        rig.advance(1000.0)
        assert rig.client.is_closed

    def test_a_path_that_is_not_found_is_final_only_if_it_never_was(self, rig: JarvisRig) -> None:
        fresh = JarvisRig()
        fresh.do(fresh.client.connect)
        fresh.refuse(404)
        assert fresh.client.is_closed
        rig.cut()
        rig.advance(1.0)
        rig.take()
        rig.refuse(404)
        assert rig.take() == [Disconnected("the server refused the connection: HTTP 404", 2.0)]
        assert len(rig.come_back(user("bo"))) == 1

    def test_a_pong_that_does_not_come(self, rig: JarvisRig) -> None:
        rig.answers_heartbeats = False
        rig.advance(34.9)
        assert rig.take() == []
        rig.advance(0.1)
        assert rig.take() == [Disconnected("no heartbeat reply within 10 s", 1.0)]
        assert rig.closes[-1].abort
        rig.answers_heartbeats = True
        assert rig.come_back(user("bo")) == [Connected(2, (ME, BO), True)]

    def test_a_slow_pong_is_in_time(self, rig: JarvisRig) -> None:
        rig.answers_heartbeats = False
        rig.advance(34.9)
        rig.tell("pong", online_count=2)
        assert rig.client.latency == pytest.approx(9.9)
        rig.advance(24.0)
        assert rig.take() == []
        assert rig.client.is_connected

    def test_after_a_sleep_the_server_is_asked_once(self, rig: JarvisRig) -> None:
        rig.jump(3600.0)
        assert rig.take() == []
        assert len(rig.said("ping")) == 1
        assert rig.client.is_connected


class TestNoWelcome:
    def test_we_try_again(self) -> None:
        rig = JarvisRig()
        rig.connect()
        rig.advance(9.9)
        assert rig.take() == []
        rig.advance(0.1)
        assert rig.take() == [Disconnected(NO_WELCOME, 1.0)]
        assert rig.closes[-1].abort
        rig.next_attempt()
        rig.advance(10.0)
        assert rig.take() == [Disconnected(NO_WELCOME, 2.0)]
        assert rig.come_back() == [Connected(1, (ME,), False)]

    def test_what_the_server_says_against_us_is_told_before(self) -> None:
        rig = JarvisRig()
        rig.connect()
        assert rig.tell("error", message="Not you") == [
            Error("the server says: Not you", server_text="Not you")
        ]
        rig.advance(10.0)
        assert rig.take() == [Disconnected(NO_WELCOME, 1.0)]

    def test_a_welcome_that_is_there_beats_its_timeout(self) -> None:
        rig = JarvisRig()
        rig.connect()
        rig.silent = True
        rig.welcome(user("bo"))
        rig.now += 10.0
        rig.release()
        assert rig.take() == [Connected(2, (ME, BO), False)]

    def test_it_is_not_awaited_in_a_room_or_after_a_loss(self, rig: JarvisRig) -> None:
        rig.advance(20.0)
        assert rig.take() == []
        rig.cut()
        rig.next_attempt()
        rig.cut()
        rig.next_attempt()
        rig.advance(9.0)
        assert rig.take() == []
        assert len(rig.welcome(user("bo"))) == 1


def test_jitter_never_stops_the_clock() -> None:
    """A delay that the jitter has shortened to nothing leads to the next attempt; no deadline is of now."""

    class Shortest(Random):
        def random(self) -> float:
            return 1.0

    rig = JarvisRig(rng=Shortest(), jitter=1.0)
    rig.connect()
    rig.advance(10.0)
    assert rig.take() == [Disconnected(NO_WELCOME, 0.0)]
    assert len(rig.opens) == 2
    rig.open()
    assert rig.welcome() == [Connected(1, (ME,), False)]
