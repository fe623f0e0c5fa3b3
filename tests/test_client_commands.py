"""The commands of the presence client: what they send, what becomes of them, and which are not legal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from presence_proto.errors import LocalProtocolError
from presence_proto.events import CommandFailed, Connected, Disconnected, UserStatus
from presence_rig import ME, ONLINE_AT, TOPIC, PresenceRig, entry, meta

if TYPE_CHECKING:
    from collections.abc import Callable

SENDER = {"user_id": "me", "display_name": "Me"}


@pytest.fixture(params=["1.0.0", "2.0.0"])
def rig(request: Any) -> PresenceRig:
    return PresenceRig(vsn=request.param)


# ------------------------------------------------------------------------------------ what they send


class TestMessages:
    def test_invite(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.do(rig.client.send_invite, "Chess")
        rig.do(rig.client.send_invite, "Chess", "1234")
        assert rig.broadcasts() == [
            ("game_invite", {**SENDER, "game": "Chess"}),
            ("game_invite", {**SENDER, "game": "Chess", "code": "1234"}),
        ]

    def test_poke(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.do(rig.client.send_poke, "bo")
        assert rig.broadcasts() == [("poke", {**SENDER, "target_user_id": "bo"})]

    def test_chat(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.do(rig.client.send_chat, "lobby", "hi")
        rig.do(rig.client.send_chat, "lobby", "hi", "m1", timestamp="2026-01-01T00:00:00Z")
        chat = {**SENDER, "channel": "lobby", "content": "hi"}
        assert rig.broadcasts() == [
            ("chat_message", {**chat, "timestamp": None}),
            ("chat_message", {**chat, "timestamp": "2026-01-01T00:00:00Z", "reply_to": "m1"}),
        ]

    def test_the_envelope(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.do(rig.client.send_poke, "bo")
        message = rig.last()
        assert (message.topic, message.event, message.join_ref) == (TOPIC, "broadcast", rig.join_ref)
        assert message.payload["type"] == "broadcast"

    def test_others_understand_what_we_send(self, rig: PresenceRig) -> None:
        """What one client broadcasts, another reports."""
        rig.enter()
        rig.do(rig.client.send_poke, "me")
        rig.do(rig.client.send_invite, "Chess", "1234")
        rig.do(rig.client.send_chat, "lobby", "hi", "m1", timestamp="now")
        other = PresenceRig(vsn=rig.vsn)
        other.enter()
        events = [event for told in rig.broadcasts() for event in other.broadcast(*told)]
        assert [type(event).__name__ for event in events] == ["Poked", "GameInvite", "ChatMessage"]
        assert all((event.user_id, event.display_name, event.extra) == ("me", "Me", {}) for event in events)


# ------------------------------------------------------------------------------------ what becomes of them


class TestOutcome:
    def test_ids_grow_and_wait_for_the_acknowledgement(self, rig: PresenceRig) -> None:
        rig.enter()
        first = rig.do(rig.client.send_poke, "bo")
        second = rig.do(rig.client.send_poke, "cy")
        assert second > first
        assert rig.client.pending_commands == {first, second}
        rig.acknowledge()
        assert rig.client.pending_commands == {first}
        assert rig.take() == []

    @pytest.mark.parametrize(
        ("response", "reason"),
        [
            ("payload_size_exceeded", "the server said error: payload_size_exceeded"),
            ({"reason": "no"}, "the server said error: no"),
            ({"reason": ["odd"]}, "the server said error: odd"),
            ({"code": 7}, "the server said error"),
            ({}, "the server said error"),
            ("x" * 1000, "the server said error: " + "x" * 177),
        ],
    )
    def test_refused(self, rig: PresenceRig, response: Any, reason: str) -> None:
        rig.enter()
        command = rig.do(rig.client.send_chat, "lobby", "hi")
        rig.acknowledge("error", response)
        assert rig.take() == [CommandFailed(command, "send_chat", reason)]
        assert rig.client.pending_commands == frozenset()

    def test_an_activity_that_was_answered_leaves_nothing_behind(self, rig: PresenceRig) -> None:
        rig.enter()
        for status in (UserStatus.AWAY, UserStatus.IDLE):
            rig.do(rig.client.update_activity, status)
            rig.acknowledge()
        assert rig.client._room._activities == set()

    def test_not_answered(self, rig: PresenceRig) -> None:
        rig.enter()
        command = rig.do(rig.client.send_invite, "Chess")
        rig.advance(29.9)
        assert rig.take() == []
        rig.advance(0.2)
        assert rig.take() == [CommandFailed(command, "send_invite", "no reply in time")]
        rig.acknowledge()
        assert rig.take() == []
        assert rig.client.pending_commands == frozenset()

    def test_the_connection_is_lost_before_the_answer(self, rig: PresenceRig) -> None:
        rig.enter()
        command = rig.do(rig.client.send_poke, "bo")
        rig.cut()
        reason = "the connection ended before the reply: eof"
        assert rig.take() == [Disconnected("eof", 1.0), CommandFailed(command, "send_poke", reason)]
        rig.come_back()
        assert len(rig.broadcasts()) == 1

    def test_made_offline_they_wait_for_the_room(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.cut()
        first = rig.do(rig.client.send_poke, "bo")
        second = rig.do(rig.client.send_chat, "lobby", "hi")
        assert rig.client.pending_commands == {first, second}
        rig.advance(1.0)
        rig.open()
        assert rig.broadcasts() == []
        rig.let_in()
        assert [event for event, _ in rig.broadcasts()] == ["poke", "chat_message"]
        rig.acknowledge()
        assert rig.client.pending_commands == {first}

    def test_made_before_the_first_connection(self, rig: PresenceRig) -> None:
        rig.do(rig.client.connect)
        rig.do(rig.client.send_poke, "bo")
        rig.open()
        rig.let_in()
        assert [event for event, _ in rig.broadcasts()] == ["poke"]

    def test_offline_for_too_long(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.cut()
        rig.take()
        command = rig.do(rig.client.send_poke, "bo")
        failed = CommandFailed(command, "send_poke", "not joined in time")
        rig.jump(30.0)
        assert failed in rig.take()
        assert rig.client.pending_commands == frozenset()

    def test_the_timeout_is_a_setting_and_counts_from_the_command(self) -> None:
        rig = PresenceRig(command_timeout=3.0)
        rig.do(rig.client.connect)
        command = rig.do(rig.client.send_poke, "bo")
        rig.advance(2.0)
        rig.open()
        rig.let_in()
        rig.advance(1.0)
        assert rig.take() == [CommandFailed(command, "send_poke", "no reply in time")]

    def test_the_channel_is_lost_and_the_connection_stays(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.say(rig.join_ref, rig.join_ref, TOPIC, "phx_error", {})
        command = rig.do(rig.client.send_poke, "bo")
        assert rig.broadcasts() == []
        rig.advance(1.0)
        rig.let_in()
        assert len(rig.broadcasts()) == 1
        assert rig.client.pending_commands == {command}

    def test_disconnect_ends_what_waits(self, rig: PresenceRig) -> None:
        rig.enter()
        sent = rig.do(rig.client.send_poke, "bo")
        rig.cut()
        waiting = rig.do(rig.client.send_poke, "cy")
        rig.take()
        rig.do(rig.client.disconnect)
        assert rig.take() == [
            Disconnected("disconnect was called", None),
            CommandFailed(waiting, "send_poke", "the connection ended"),
        ]
        assert sent != waiting
        assert rig.client.pending_commands == frozenset()

    def test_so_does_a_fatal_refusal(self, rig: PresenceRig) -> None:
        rig.do(rig.client.connect)
        command = rig.do(rig.client.send_poke, "bo")
        rig.refuse(403)
        assert rig.take()[-1] == CommandFailed(command, "send_poke", "the connection ended")

    def test_every_command_has_one_end(self, rig: PresenceRig) -> None:
        rig.enter()
        ids = [rig.do(rig.client.send_poke, "bo") for _ in range(3)]
        rig.reply(rig.sent("broadcast")[0])
        rig.reply(rig.sent("broadcast")[0], "error", "twice")
        rig.cut()
        failed = [event.command_id for event in rig.take() if isinstance(event, CommandFailed)]
        assert failed == ids[1:]


# ------------------------------------------------------------------------------------ legal or not


class TestIllegal:
    @pytest.mark.parametrize(
        "command",
        [
            lambda client, now: client.send_poke("", now=now),
            lambda client, now: client.send_poke(7, now=now),
            lambda client, now: client.send_poke("\ud800", now=now),
            lambda client, now: client.send_invite("", now=now),
            lambda client, now: client.send_invite("Chess", "", now=now),
            lambda client, now: client.send_invite("Chess", 1234, now=now),
            lambda client, now: client.send_chat("", "hi", now=now),
            lambda client, now: client.send_chat("lobby", "", now=now),
            lambda client, now: client.send_chat("lobby", b"hi", now=now),
            lambda client, now: client.send_chat("lobby", "hi", "", now=now),
            lambda client, now: client.send_chat("lobby", "hi", timestamp=7, now=now),
            lambda client, now: client.update_activity("invisible", now=now),
            lambda client, now: client.update_activity(None, now=now),
            lambda client, now: client.update_activity([], now=now),
            lambda client, now: client.update_activity("away", 7, now=now),
            lambda client, now: client.update_activity("away", "\ud800", now=now),
            lambda client, now: client.update_activity("away", now=math.nan),
            lambda client, now: client.update_activity("away", now=math.inf),
            lambda client, now: client.send_poke("bo", now=math.nan),
            lambda client, now: client.connect(now=math.nan),
            lambda client, now: client.connect(now=now),
            lambda client, now: client.disconnect(now=math.nan),
        ],
    )
    @pytest.mark.parametrize("connected", [True, False])
    def test_arguments(
        self, rig: PresenceRig, command: Callable[[Any, float], None], connected: bool
    ) -> None:
        rig.enter({"bo": entry("Bo", meta("b1"))})
        if not connected:
            rig.cut()
        rig.take()
        users, deadline = rig.client.online_users, rig.client.next_deadline()
        with pytest.raises(LocalProtocolError):
            command(rig.client, rig.now)
        assert not rig.client.drain()
        assert rig.client.next_deadline() == deadline
        assert rig.client.online_users == users
        assert (rig.client.status, rig.client.activity) == (UserStatus.ONLINE, None)
        assert rig.client.pending_commands == frozenset()

    @pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf])
    def test_a_time_that_is_none_before_connecting(self, rig: PresenceRig, now: float) -> None:
        with pytest.raises(LocalProtocolError, match="now"):
            rig.client.update_activity("away", now=now)
        with pytest.raises(LocalProtocolError, match="now"):
            rig.client.connect(now=now)
        assert rig.client.status is UserStatus.ONLINE
        assert rig.client.is_closed

    @pytest.mark.parametrize(
        "command",
        [
            lambda client, now: client.send_poke("bo", now=now),
            lambda client, now: client.send_invite("Chess", now=now),
            lambda client, now: client.send_chat("lobby", "hi", now=now),
        ],
    )
    def test_when_not_connecting(self, rig: PresenceRig, command: Callable[[Any, float], None]) -> None:
        def refused() -> None:
            with pytest.raises(LocalProtocolError, match="not connected, call connect first"):
                command(rig.client, rig.now)
            assert not rig.client.drain()

        refused()
        rig.enter()
        rig.do(rig.client.disconnect)
        refused()
        rig.do(rig.client.connect)
        rig.refuse(401)
        refused()

    def test_the_queue_is_bounded(self) -> None:
        rig = PresenceRig(max_pending_pushes=2)
        rig.do(rig.client.connect)
        ids = {rig.do(rig.client.send_poke, "bo") for _ in range(2)}
        with pytest.raises(LocalProtocolError, match="max_pending_pushes"):
            rig.do(rig.client.send_poke, "bo")
        assert rig.client.pending_commands == ids
        rig.open()
        rig.let_in()
        assert len(rig.broadcasts()) == 2
        rig.do(rig.client.send_poke, "bo")
        assert len(rig.broadcasts()) == 3


# ------------------------------------------------------------------------------------ update_activity


class TestUpdateActivity:
    def test_a_broadcast_and_a_track(self, rig: PresenceRig) -> None:
        rig.enter()
        command = rig.do(rig.client.update_activity, UserStatus.IN_GAME, "Snake")
        assert rig.broadcasts() == [("activity_update", {**SENDER, "status": "in_game", "activity": "Snake"})]
        assert rig.tracks()[-1] == {
            **SENDER,
            "status": "in_game",
            "activity": "Snake",
            "online_at": ONLINE_AT,
        }
        assert rig.client.pending_commands == {command}
        rig.acknowledge()
        rig.reply(rig.last("presence"))
        assert rig.client.pending_commands == frozenset()
        assert rig.take() == []

    @pytest.mark.parametrize("status", list(UserStatus))
    def test_every_status_by_name_and_by_value(self, rig: PresenceRig, status: UserStatus) -> None:
        rig.do(rig.client.update_activity, status.value)
        assert rig.client.status is status
        rig.do(rig.client.update_activity, status)
        assert rig.client.status is status

    def test_we_see_it_at_once(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.do(rig.client.update_activity, "in_game", "Snake")
        assert (rig.client.status, rig.client.activity) == (UserStatus.IN_GAME, "Snake")
        assert rig.client.online_users == (replace(ME, status=UserStatus.IN_GAME, activity="Snake"),)

    def test_the_same_again_is_not_told_again(self, rig: PresenceRig) -> None:
        rig.enter()
        first = rig.do(rig.client.update_activity, "in_game", "Snake")
        rig.acknowledge()
        said = len(rig.received)
        second = rig.do(rig.client.update_activity, "in_game", "Snake")
        assert second > first
        assert len(rig.received) == said
        assert rig.client.pending_commands == frozenset()

    def test_the_activity_alone(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.do(rig.client.update_activity, "in_game", "Snake")
        rig.do(rig.client.update_activity, "in_game")
        assert rig.broadcasts()[-1][1]["activity"] is None
        assert rig.tracks()[-1]["activity"] is None

    def test_before_connecting_it_is_kept(self, rig: PresenceRig) -> None:
        rig.do(rig.client.update_activity, "idle")
        idle = replace(ME, status=UserStatus.IDLE)
        assert rig.client.online_users == (idle,)
        assert rig.enter() == [Connected(1, (idle,), False)]
        assert rig.broadcasts() == []
        assert [told["status"] for told in rig.tracks()] == ["idle"]

    def test_offline_it_is_kept_and_no_command_fails(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.cut()
        rig.do(rig.client.update_activity, "in_game", "Snake")
        rig.do(rig.client.update_activity, "idle")
        rig.advance(200.0)
        rig.cut("refused")
        rig.come_back()
        assert [told["status"] for told in rig.tracks()] == ["online", "idle"]
        assert rig.broadcasts() == []
        assert {type(event) for event in rig.events} == {Connected, Disconnected}

    def test_between_the_join_and_the_state_the_track_tells_it(self, rig: PresenceRig) -> None:
        rig.connect()
        rig.accept_join(TOPIC)
        rig.do(rig.client.update_activity, "idle")
        assert rig.broadcasts() == []
        assert [told["status"] for told in rig.tracks()] == ["online", "idle"]

    def test_lost_with_the_connection_it_is_told_by_the_next(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.do(rig.client.update_activity, "idle")
        rig.cut()
        assert rig.take() == [Disconnected("eof", 1.0)]
        assert rig.client.pending_commands == frozenset()
        rig.come_back()
        assert rig.tracks()[-1]["status"] == "idle"

    def test_refused_it_fails(self, rig: PresenceRig) -> None:
        rig.enter()
        command = rig.do(rig.client.update_activity, "idle", "x" * 1000)
        rig.acknowledge("error", "payload_size_exceeded")
        reason = "the server said error: payload_size_exceeded"
        assert rig.take() == [CommandFailed(command, "update_activity", reason)]

    def test_what_is_due_comes_first(self, rig: PresenceRig) -> None:
        """The host slept: the connection is dead, and the update is kept, not sent into it."""
        rig.enter()
        rig.answers_heartbeats = False
        rig.advance(30.0)
        rig.now += 6.0
        rig.do(rig.client.update_activity, "idle")
        assert rig.take() == [Disconnected("no heartbeat reply within 10 s", 1.0)]
        assert rig.broadcasts() == []
        assert rig.client.online_users == (replace(ME, status=UserStatus.IDLE),)


class TestTrackBudget:
    def test_never_more_than_five_in_thirty_seconds(self, rig: PresenceRig) -> None:
        rig.enter()
        times = [rig.now]
        for n in range(100):
            rig.advance(1.0)
            rig.do(rig.client.update_activity, "in_game", str(n))
            times += [rig.now] * (len(rig.tracks()) - len(times))
        rig.advance(60.0)
        assert len(rig.broadcasts()) == 100
        assert rig.tracks()[-1]["activity"] == "99"
        assert len(times) < 25
        assert all(later - earlier >= 33.0 for earlier, later in zip(times, times[5:], strict=False))

    def test_the_latest_wins(self, rig: PresenceRig) -> None:
        rig.enter()
        for n in range(10):
            rig.do(rig.client.update_activity, "in_game", str(n))
        assert [told["activity"] for told in rig.tracks()] == [None, "0", "1", "2", "3"]
        rig.advance(33.0)
        assert [told["activity"] for told in rig.tracks()] == [None, "0", "1", "2", "3", "9"]

    def test_what_was_told_last_is_not_told_again(self, rig: PresenceRig) -> None:
        rig.enter()
        for n in (0, 1, 2, 3, 4, 3):
            rig.do(rig.client.update_activity, "in_game", str(n))
        rig.advance(120.0)
        assert [told["activity"] for told in rig.tracks()] == [None, "0", "1", "2", "3"]

    def test_a_new_life_has_a_new_budget(self, rig: PresenceRig) -> None:
        rig.enter()
        for n in range(10):
            rig.do(rig.client.update_activity, "in_game", str(n))
        rig.cut()
        rig.come_back()
        assert rig.tracks()[-1]["activity"] == "9"

    def test_it_is_a_setting(self) -> None:
        rig = PresenceRig(track_limit=2, track_window=10.0)
        rig.enter()
        for n in range(3):
            rig.do(rig.client.update_activity, "in_game", str(n))
        assert [told["activity"] for told in rig.tracks()] == [None, "0"]
        rig.advance(10.0)
        assert [told["activity"] for told in rig.tracks()] == [None, "0", "2"]

    def test_and_may_be_off(self) -> None:
        rig = PresenceRig(track_limit=None)
        rig.enter()
        for n in range(20):
            rig.do(rig.client.update_activity, "in_game", str(n))
        assert len(rig.tracks()) == 21


# ------------------------------------------------------------------------------------ not being seen


class TestInvisible:
    def test_we_hear_and_speak_but_are_never_tracked(self) -> None:
        rig = PresenceRig(visible=False)
        rig.connect()
        rig.accept_join(TOPIC, {"bo": entry("Bo", meta("1"))})
        (connected,) = rig.take()
        assert isinstance(connected, Connected)
        assert [user.user_id for user in connected.users] == ["me", "bo"]
        rig.do(rig.client.send_poke, "bo")
        assert rig.broadcasts() == [("poke", {**SENDER, "target_user_id": "bo"})]
        assert rig.sent("presence") == []
        assert rig.client.device_count("me") == 0
        assert rig.client.latency is None

    def test_we_have_no_status(self) -> None:
        rig = PresenceRig(visible=False)
        rig.connect()
        with pytest.raises(LocalProtocolError, match=r"this client is invisible"):
            rig.do(rig.client.update_activity, UserStatus.AWAY)
        assert rig.client.status is UserStatus.ONLINE

    def test_another_device_of_ours_is_seen_as_it_is(self) -> None:
        rig = PresenceRig(visible=False)
        rig.connect()
        rig.accept_join(TOPIC, {"me": entry("Me", meta("1", "away", "tea"))})
        assert rig.client.online_users[0].status is UserStatus.AWAY
        assert rig.client.device_count("me") == 1
