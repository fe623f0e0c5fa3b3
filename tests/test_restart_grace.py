"""A server that was restarted has forgotten everybody: nobody goes offline who comes back in time."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from jarvis_rig import JarvisRig, user
from presence_proto.config import ChannelConfig, PresenceConfig
from presence_proto.events import (
    ActivityChanged,
    Connected,
    Disconnected,
    Error,
    OnlineUser,
    Poked,
    PresenceSynced,
    UserOffline,
    UserOnline,
    UserStatus,
)
from presence_proto.restart_grace import RestartGrace
from presence_proto.testing import ScriptedServer
from presence_rig import BO, CY, ME, TOPIC, URL, PresenceRig, entry, meta
from rig import online

DI = OnlineUser("di", "Di")
ROOM = {"bo": entry("Bo", meta("b1")), "cy": entry("Cy", meta("c1"))}
GRACE = 8.0  # seconds, after an absence of one second: 1 + 2 * 1, and 5 to settle
LONGEST = 45.0  # seconds: the default of restart_grace


def entered(rig: PresenceRig, *, status: str = "online") -> PresenceRig:
    """In the room with Bo and Cy; the server shows us, too."""
    own = meta("m1", status, online_at=ME.online_at)
    rig.enter(ROOM)
    rig.diff({"me": entry("Me", own)})
    return rig


@pytest.fixture(params=["1.0.0", "2.0.0"])
def rig(request: Any) -> PresenceRig:
    return entered(PresenceRig(vsn=request.param))


def restarted(rig: PresenceRig, state: dict[str, Any] | None = None) -> list[Any]:
    """The server is gone, and a second later a new one lets us in. Returns the events since then."""
    rig.cut()
    rig.take()
    return rig.come_back(state)


def stale(rig: PresenceRig | JarvisRig, *users: str) -> list[str]:
    """Which of these users are stale."""
    return [user_id for user_id in users if rig.client.is_user_stale(user_id)]


# ------------------------------------------------------------------------------------ who is missing


class TestRestart:
    def test_nobody_goes_at_once(self, rig: PresenceRig) -> None:
        assert restarted(rig) == [Connected(3, (ME, BO, CY), True)]
        assert rig.client.online_users == (ME, BO, CY)
        assert rig.client.online_count == 3
        assert not rig.client.is_stale
        assert stale(rig, "me", "bo", "cy", "di") == ["bo", "cy"]
        assert [rig.client.device_count(one) for one in ("me", "bo", "cy")] == [0, 0, 0]

    def test_who_comes_back_in_time_was_never_away(self, rig: PresenceRig) -> None:
        restarted(rig)
        rig.advance(GRACE - 1)
        assert rig.diff({"bo": entry("Bo", meta("b7")), "cy": entry("Cy", meta("c7"), meta("c8"))}) == []
        assert not rig.client.is_user_stale("bo")
        assert [rig.client.device_count(one) for one in ("bo", "cy")] == [1, 2]
        rig.advance(100.0)
        assert rig.take() == []
        assert rig.client.online_users == (ME, BO, CY)
        assert rig.diff(None, {"cy": entry("Cy", meta("c7"))}) == []
        assert rig.diff(None, {"cy": entry("Cy", meta("c8"))}) == [UserOffline(CY)]

    def test_who_does_not_goes_when_the_grace_is_over(self, rig: PresenceRig) -> None:
        restarted(rig)
        rig.diff({"cy": entry("Cy", meta("c7"))})
        rig.advance(GRACE - 0.001)
        assert rig.take() == []
        assert rig.client.is_user_stale("bo")
        rig.advance(0.001)
        assert rig.take() == [UserOffline(BO)]
        assert not rig.client.is_user_stale("bo")
        assert rig.client.online_users == (ME, CY)
        assert rig.diff({"bo": entry("Bo", meta("b7"))}) == [UserOnline(BO)]

    def test_one_who_does_something_else_now(self, rig: PresenceRig) -> None:
        restarted(rig)
        away = replace(BO, status=UserStatus.AWAY)
        assert rig.diff({"bo": entry("Bo", meta("b7", "away"))}) == [ActivityChanged(away, BO)]
        assert rig.client.online_users == (ME, away, CY)

    def test_one_who_comes_back_and_leaves(self, rig: PresenceRig) -> None:
        restarted(rig)
        bo = entry("Bo", meta("b7"))
        rig.diff({"bo": bo})
        assert rig.diff(None, {"bo": bo}) == [UserOffline(BO)]
        rig.advance(GRACE)
        assert rig.take() == [UserOffline(CY)]

    def test_those_who_are_back_before_us(self, rig: PresenceRig) -> None:
        idle = replace(BO, status=UserStatus.IDLE)
        state = {"bo": entry("Bo", meta("b7", "idle")), "di": entry("Di", meta("d7"))}
        connected, *rest = restarted(rig, state)
        assert connected == Connected(4, (ME, idle, CY, DI), True)
        assert sorted(rest, key=repr) == [ActivityChanged(idle, BO), UserOnline(DI)]
        assert stale(rig, "bo", "cy", "di") == ["cy"]

    def test_what_was_claimed_stays_until_the_track_says_otherwise(self, rig: PresenceRig) -> None:
        chess = replace(BO, status=UserStatus.IN_GAME, activity="Chess")
        rig.broadcast("activity_update", {"user_id": "bo", "status": "in_game", "activity": "Chess"})
        assert restarted(rig) == [Connected(3, (ME, chess, CY), True)]
        assert rig.diff({"bo": entry("Bo", meta("b7"))}) == [ActivityChanged(BO, chess)]

    def test_broadcasts_of_a_stale_user(self, rig: PresenceRig) -> None:
        """A claim waits for the presence. Other words are heard."""
        restarted(rig)
        assert rig.broadcast("activity_update", {"user_id": "bo", "status": "idle"}) == []
        poke = {"user_id": "bo", "display_name": "Bo", "target_user_id": "me"}
        assert rig.broadcast("poke", poke) == [Poked("bo", "Bo")]
        (changed,) = rig.diff({"bo": entry("Bo", meta("b7", "idle"))})
        assert changed.user.status is UserStatus.IDLE

    def test_the_channel_crashes_and_the_presence_with_it(self, rig: PresenceRig) -> None:
        """Supabase ends each channel with phx_error when it is stopped; another node may take the rejoin."""
        rig.tell("phx_error", {"reason": "channel_crash"})
        rig.advance(1.0)
        assert rig.let_in() == [Connected(3, (ME, BO, CY), True)]
        rig.advance(GRACE)
        assert rig.take() == [UserOffline(BO), UserOffline(CY)]

    def test_a_rejoin_that_nobody_answers_counts_as_time_away(self, rig: PresenceRig) -> None:
        """Supabase again: the rejoin after 1 s is never answered, and the stream ends 5 s after the crash."""
        lost = rig.now
        rig.tell("phx_error", {"reason": "channel_crash"})
        rig.advance(5.0)
        restarted(rig)
        assert rig.now == lost + 6.0
        rig.advance(1.0 + 2 * 6.0 + 5.0 - 0.001)
        assert rig.take() == []
        rig.advance(0.001)
        assert rig.take() == [UserOffline(BO), UserOffline(CY)]

    def test_a_state_that_comes_with_the_second_join_only(self, rig: PresenceRig) -> None:
        rig.cut()
        rig.advance(1.0)
        rig.open()
        rig.accept_join(TOPIC)
        rig.advance(10.0)
        assert len(rig.sent("phx_join")) == 3
        rig.take()
        assert rig.let_in() == [Connected(3, (ME, BO, CY), True)]
        rig.advance(1.0 + 2 * 11.0 + 5.0 - 0.001)
        assert rig.take() == []
        rig.advance(0.001)
        assert rig.take() == [UserOffline(BO), UserOffline(CY)]

    def test_the_longer_we_were_away_the_longer_is_the_grace_up_to_the_longest_delay(
        self, rig: PresenceRig
    ) -> None:
        rig.cut()
        for _ in range(7):
            rig.advance(rig.client.next_deadline() - rig.now)  # type: ignore[operator]  # there is one
            rig.cut("refused")
        rig.come_back()
        rig.take()
        rig.advance(30.0 + 5.0 - 0.001)
        assert rig.take() == []
        rig.advance(0.001)
        assert rig.take() == [UserOffline(BO), UserOffline(CY)]

    def test_it_can_be_bounded(self) -> None:
        rig = entered(PresenceRig(restart_grace=2.5))
        restarted(rig)
        rig.advance(2.499)
        assert rig.take() == []
        rig.advance(0.001)
        assert rig.take() == [UserOffline(BO), UserOffline(CY)]

    def test_it_can_be_off(self) -> None:
        rig = entered(PresenceRig(restart_grace=0))
        assert restarted(rig) == [Connected(1, (ME,), True), UserOffline(BO), UserOffline(CY)]


class TestNoRestart:
    """Whoever is missing goes at once."""

    @pytest.mark.parametrize(
        "goes_on",
        [
            {"cy": entry("Cy", meta("c1"))},
            {"cy": entry("Cy", meta("c7"), meta("c1"))},
            {"cy": entry("Cy", meta("c7", "away", phx_ref_prev="c1"))},
            {"me": entry("Me", meta("m1", online_at=ME.online_at))},  # our own, of the lost connection
        ],
    )
    def test_a_meta_that_goes_on(self, rig: PresenceRig, goes_on: dict[str, Any]) -> None:
        assert UserOffline(BO) in restarted(rig, goes_on)
        assert not rig.client.is_user_stale("bo")

    @pytest.mark.parametrize("previous", ["b0", "c1", ["b1"], None])
    def test_an_update_of_something_else(self, rig: PresenceRig, previous: Any) -> None:
        restarted(rig, {"bo": entry("Bo", meta("b7", phx_ref_prev=previous))})
        assert rig.client.is_user_stale("cy")

    def test_one_of_several_devices(self) -> None:
        rig = PresenceRig()
        rig.enter({"bo": entry("Bo", meta("b1"), meta("b2")), "cy": entry("Cy", meta("c1"))})
        assert restarted(rig, {"bo": entry("Bo", meta("b2"))}) == [
            Connected(2, (ME, BO), True),
            UserOffline(CY),
        ]

    def test_a_channel_that_is_closed_for_its_token(self, rig: PresenceRig) -> None:
        """The server remembers the others: nobody comes or goes, but for who did."""
        rig.tell("system", {"extension": "system", "status": "error", "message": "token expired"})
        rig.tell("phx_close", {})
        rig.advance(1.0)
        assert rig.let_in({"cy": ROOM["cy"]}) == [Connected(2, (ME, CY), True), UserOffline(BO)]

    def test_a_second_state_in_one_life(self, rig: PresenceRig) -> None:
        assert rig.tell("presence_state", {}) == [UserOffline(BO), UserOffline(CY)]

    def test_the_application_left_and_came_again(self, rig: PresenceRig) -> None:
        rig.do(rig.client.disconnect)
        rig.take()
        rig.connect()
        assert rig.let_in() == [Connected(1, (ME,), True), UserOffline(BO), UserOffline(CY)]
        rig.diff(ROOM)
        assert restarted(rig) == [Connected(3, (ME, BO, CY), True)]


# ------------------------------------------------------------------------------------ in the middle of it


class TestDuringTheGrace:
    def test_another_restart(self, rig: PresenceRig) -> None:
        """The time since the first loss counts now: the others may be in their longer delays."""
        lost = rig.now
        restarted(rig, {"cy": entry("Cy", meta("c7"))})
        rig.advance(4.0)
        assert restarted(rig) == [Connected(3, (ME, BO, CY), True)]
        away = rig.now - lost
        assert away > 5.0
        rig.advance(1.0 + 2 * away + 5.0 - 0.001)
        assert rig.take() == []
        rig.advance(0.001)
        assert sorted(rig.take(), key=repr) == [UserOffline(BO), UserOffline(CY)]

    def test_a_restart_of_a_server_that_knew_nobody_yet(self, rig: PresenceRig) -> None:
        restarted(rig)
        rig.advance(GRACE - 0.5)
        assert restarted(rig) == [Connected(3, (ME, BO, CY), True)]
        rig.advance(GRACE)
        assert rig.take() == []
        assert rig.diff({"bo": entry("Bo", meta("b7"))}) == []

    def test_restarts_without_end(self, rig: PresenceRig) -> None:
        """Nobody is kept for more than restart_grace seconds while we are in the room."""
        restarted(rig)
        for _ in range(8):
            rig.advance(5.0)
            assert restarted(rig) == [Connected(3, (ME, BO, CY), True)]
        rig.advance(4.999)
        assert rig.take() == []
        rig.advance(0.001)
        assert rig.take() == [UserOffline(BO), UserOffline(CY)]

    def test_time_without_a_server_is_not_counted(self, rig: PresenceRig) -> None:
        restarted(rig)
        rig.cut()
        for _ in range(9):
            rig.advance(rig.client.next_deadline() - rig.now)  # type: ignore[operator]  # there is one
            rig.cut("refused")
        rig.take()
        assert rig.come_back() == [Connected(3, (ME, BO, CY), True)]
        rig.advance(30.0)
        assert rig.take() == []

    def test_our_own_loss_does_not_start_it_again(self, rig: PresenceRig) -> None:
        back = {"cy": entry("Cy", meta("c7"))}
        restarted(rig, back)
        rig.advance(GRACE - 2)
        assert restarted(rig, back) == [Connected(3, (ME, BO, CY), True)]
        assert rig.client.is_user_stale("bo")
        rig.advance(0.999)
        assert rig.take() == []
        rig.advance(0.001)
        assert rig.take() == [UserOffline(BO)]

    def test_it_ends_while_we_are_away(self, rig: PresenceRig) -> None:
        """Out of the room nobody goes. The next state tells."""
        back = {"cy": entry("Cy", meta("c7"))}
        restarted(rig, back)
        rig.cut()
        rig.take()
        rig.advance(rig.client.next_deadline() - rig.now)  # type: ignore[operator]  # there is one
        rig.open()
        rig.advance(GRACE)
        assert rig.take() == []
        assert rig.let_in(back) == [Connected(3, (ME, BO, CY), True), UserOffline(BO)]
        assert rig.client.online_users == (ME, CY)

    def test_who_comes_back_while_we_are_away(self, rig: PresenceRig) -> None:
        back = {"cy": entry("Cy", meta("c7"))}
        restarted(rig, back)
        assert restarted(rig, {**back, "bo": entry("Bo", meta("b7"))}) == [Connected(3, (ME, BO, CY), True)]
        assert not rig.client.is_user_stale("bo")
        rig.advance(100.0)
        assert rig.take() == []

    def test_while_we_are_away_everybody_is_stale(self, rig: PresenceRig) -> None:
        restarted(rig, {"cy": entry("Cy", meta("c7"))})
        rig.cut()
        assert stale(rig, "me", "bo", "cy", "di") == ["me", "bo", "cy"]

    def test_a_second_state(self, rig: PresenceRig) -> None:
        """It says nothing of those who are missing."""
        restarted(rig, {"cy": entry("Cy", meta("c7"))})
        assert rig.tell("presence_state", {}) == [UserOffline(CY)]
        assert rig.client.is_user_stale("bo")

    def test_the_application_leaves(self, rig: PresenceRig) -> None:
        restarted(rig)
        rig.do(rig.client.disconnect)
        rig.jump(GRACE)
        assert rig.take() == [Disconnected("disconnect was called", None)]
        assert rig.client.next_deadline() is None
        assert rig.client.online_users == (ME, BO, CY)
        rig.connect()
        assert rig.let_in() == [Connected(3, (ME, BO, CY), True), UserOffline(BO), UserOffline(CY)]

    def test_a_goodbye_that_is_not_answered(self, rig: PresenceRig) -> None:
        """What still comes is not read: somebody may have come back."""
        restarted(rig)
        rig.advance(GRACE - 1)
        rig.silent = True
        rig.do(rig.client.disconnect)
        rig.advance(2.0)
        assert rig.take() == []

    def test_a_refusal_for_good(self, rig: PresenceRig) -> None:
        restarted(rig)
        rig.cut()
        rig.advance(rig.client.next_deadline() - rig.now)  # type: ignore[operator]  # there is one
        rig.refuse(403)
        *_, disconnected, error = rig.take()
        assert (type(disconnected), type(error)) == (Disconnected, Error)
        rig.jump(100.0)
        assert rig.take() == []
        assert rig.client.next_deadline() is None


class TestTime:
    def test_the_deadline(self, rig: PresenceRig) -> None:
        restarted(rig)
        rig.advance(GRACE - 1)
        assert rig.client.next_deadline() == rig.now + 1
        rig.do(rig.client.tick)
        assert rig.take() == []

    def test_any_fact_ends_it(self, rig: PresenceRig) -> None:
        restarted(rig)
        rig.now += GRACE
        assert rig.broadcast("cursor", {}) == [UserOffline(BO), UserOffline(CY)]

    def test_what_came_in_counts_first(self, rig: PresenceRig) -> None:
        restarted(rig)
        rig.now += GRACE + 0.5
        assert rig.diff({"bo": entry("Bo", meta("b7"))}) == [UserOffline(CY)]
        assert rig.client.online_users == (ME, BO)

    def test_a_host_that_slept_reads_first(self, rig: PresenceRig) -> None:
        """The tick is first, and the joins lie in the socket."""
        restarted(rig)
        rig.now += 60.0
        rig.do(rig.client.tick)
        assert rig.take() == []
        assert rig.diff({"bo": entry("Bo", meta("b7"))}) == []
        rig.advance(9.999)
        assert rig.take() == []
        rig.advance(0.001)
        assert rig.take() == [UserOffline(CY)]

    def test_a_host_that_is_always_late(self, rig: PresenceRig) -> None:
        """It is asked for patience once."""
        restarted(rig)
        for _ in range(2):
            assert rig.take() == []
            rig.now += 30.0
            rig.do(rig.client.tick)
        assert rig.take() == [UserOffline(BO), UserOffline(CY)]

    def test_a_clock_that_goes_back(self, rig: PresenceRig) -> None:
        """It is clamped: the grace begins at the latest time that we know of."""
        rig.cut()
        rig.advance(1.0)
        rig.open()
        rig.now += 5.0
        rig.do(rig.client.tick)
        rig.now -= 4.0
        rig.let_in()
        rig.now += 4.0
        rig.advance(1.0 + 2 * 6.0 + 5.0 - 0.001)
        assert rig.client.online_count == 3
        rig.advance(0.001)
        assert rig.client.online_count == 1

    def test_several_losses_in_a_row_are_one(self) -> None:
        grace = RestartGrace(PresenceConfig(server_url=URL))
        grace.lost(0.0)  # before the first connection: nothing
        grace.returned(10.0)
        grace.lost(20.0)
        grace.lost(21.0)
        grace.returned(22.0)
        grace.start(22.0)
        assert grace.deadline == 22.0 + 1.0 + 2 * 2.0 + 5.0


# ------------------------------------------------------------------------------------ Jarvis JSON


class TestJarvis:
    """A welcome has no refs: after every reconnect, the missing may be those whom a new server forgot."""

    @pytest.fixture
    def room(self) -> JarvisRig:
        rig = JarvisRig()
        rig.enter(user("bo"), user("cy"))
        rig.cut()
        rig.take()
        return rig

    def test_nobody_goes_at_once(self, room: JarvisRig) -> None:
        me = replace(ME, online_at=None)
        assert room.come_back(user("cy")) == [Connected(3, (me, BO, CY), True)]
        assert stale(room, "me", "bo", "cy") == ["bo"]
        assert [room.client.device_count(one) for one in ("me", "bo", "cy")] == [0, 0, 1]
        room.advance(GRACE - 0.001)
        assert room.take() == []
        room.advance(0.001)
        assert room.take() == [UserOffline(BO)]

    def test_who_comes_back(self, room: JarvisRig) -> None:
        room.come_back()
        sender = {"user_id": "bo", "display_name": "Bo"}
        assert room.tell("activity_changed", **sender, status="away") == []
        assert room.tell("user_online", **sender) == []
        assert not room.client.is_user_stale("bo")
        (changed,) = room.tell("activity_changed", **sender, status="away")
        assert changed == ActivityChanged(replace(BO, status=UserStatus.AWAY), BO)

    def test_who_is_said_to_have_left(self, room: JarvisRig) -> None:
        room.come_back()
        assert room.tell("user_offline", user_id="bo") == [UserOffline(BO)]
        assert room.tell("user_offline", user_id="bo") == []
        assert room.tell("user_offline", user_id="me") == []
        room.advance(GRACE)
        assert room.take() == [UserOffline(CY)]

    def test_a_second_welcome_tells_the_truth(self, room: JarvisRig) -> None:
        room.come_back(user("bo"), user("cy"))
        assert room.welcome(user("bo")) == [UserOffline(CY)]

    def test_it_can_be_off(self) -> None:
        rig = JarvisRig(restart_grace=0)
        rig.enter(user("bo"))
        rig.cut()
        rig.take()
        assert rig.come_back() == [Connected(1, (replace(ME, online_at=None),), True), UserOffline(BO)]


# ------------------------------------------------------------------------------------ the raw channel


@pytest.fixture
def raw() -> ScriptedServer:
    rig = online()
    rig.do(rig.client.join, TOPIC, ChannelConfig())
    rig.accept_join()
    rig.take()
    return rig


def synced(raw: ScriptedServer, state: dict[str, Any]) -> PresenceSynced:
    """The server tells this state."""
    raw.say(raw.last("phx_join").ref, None, TOPIC, "presence_state", state)
    (event,) = raw.take()
    assert isinstance(event, PresenceSynced)
    return event


def crash(raw: ScriptedServer) -> None:
    """The channel crashes, and is joined again."""
    join = raw.last("phx_join").ref
    raw.say(join, join, TOPIC, "phx_error", {})
    raw.advance(1.0)
    raw.accept_join()
    raw.take()


class TestRawChannel:
    """A `RealtimeClient` stays true to the server, and says what it thinks."""

    def test_forgotten(self, raw: ScriptedServer) -> None:
        assert synced(raw, {"bo": entry("Bo", meta("b1"))}).forgotten is False
        crash(raw)
        event = synced(raw, {"cy": entry("Cy", meta("c1"))})
        assert event.forgotten is True
        assert {change.kind for change in event.changes} == {"joined", "left"}
        assert set(raw.client.presence(TOPIC)) == {"cy"}

    def test_not_forgotten(self, raw: ScriptedServer) -> None:
        synced(raw, {"bo": entry("Bo", meta("b1")), "cy": entry("Cy", meta("c1"))})
        crash(raw)
        assert synced(raw, {"bo": entry("Bo", meta("b1"))}).forgotten is False

    def test_an_empty_room(self, raw: ScriptedServer) -> None:
        """Nobody is left of nobody."""
        assert synced(raw, {}).forgotten is False
        crash(raw)
        assert synced(raw, {}).forgotten is True

    def test_a_second_state_is_not_of_another_server(self, raw: ScriptedServer) -> None:
        synced(raw, {"bo": entry("Bo", meta("b1"))})
        assert synced(raw, {}).forgotten is False

    def test_a_state_that_is_resent_with_other_contents(self, raw: ScriptedServer) -> None:
        synced(raw, {"bo": entry("Bo", meta("b1"))})
        crash(raw)
        assert synced(raw, {"bo": {**entry("Bo", meta("b1")), "info": 1}}).forgotten is False
