"""The roster on its own: presence changes and claims in, users and events out."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from presence_proto.events import ActivityChanged, OnlineUser, UserOffline, UserOnline, UserStatus
from presence_proto.payloads import PendingActivity
from presence_proto.presence import PresenceMap
from presence_proto.roster import MAX_CLAIMS, Roster, user_from_meta

ME = OnlineUser("me", "Me", UserStatus.ONLINE, None, "2026-01-01T00:00:00Z")
BO = OnlineUser("bo", "Bo")


class Room:
    """A roster behind a presence map, and a server that makes metas."""

    def __init__(self) -> None:
        self.roster = Roster(ME)
        self.presence = PresenceMap()
        self._refs = count(1)

    def meta(self, status: str | None = "online", activity: Any = None, **more: Any) -> dict[str, Any]:
        fields = {"display_name": "Bo", "activity": activity, **more}
        if status is not None:
            fields["status"] = status
        return {"phx_ref": f"ref{next(self._refs)}", **fields}

    def update(self, old: dict[str, Any], *args: Any, **more: Any) -> dict[str, Any]:
        """What `old` becomes when its device tracks again."""
        return {**self.meta(*args, **more), "phx_ref_prev": old["phx_ref"]}

    def state(self, **metas: list[dict[str, Any]]) -> list[Any]:
        return self.roster.sync(self.presence.apply_state(_entries(metas)))

    def diff(self, joins: dict[str, Any] | None = None, leaves: dict[str, Any] | None = None) -> list[Any]:
        diff = {"joins": _entries(joins or {}), "leaves": _entries(leaves or {})}
        return self.roster.apply(self.presence.apply_diff(diff))

    def join(self, key: str, *metas: dict[str, Any]) -> list[Any]:
        return self.diff({key: list(metas)})

    def leave(self, key: str, *metas: dict[str, Any]) -> list[Any]:
        return self.diff(None, {key: list(metas)})

    def track(self, key: str, old: dict[str, Any], new: dict[str, Any]) -> list[Any]:
        """The key on both sides of one diff: an update."""
        return self.diff({key: [new]}, {key: [old]})

    def claim(
        self,
        user_id: str,
        status: UserStatus,
        activity: str | None = None,
        name: str | None = None,
        **extra: Any,
    ) -> list[Any]:
        return self.roster.claim(PendingActivity(user_id, status, activity, name, extra))


def _entries(metas: dict[str, Any]) -> dict[str, Any]:
    return {key: {"metas": list(of_key)} for key, of_key in metas.items()}


@pytest.fixture
def room() -> Room:
    return Room()


# -------------------------------------------------------------------------------------------- one user


class TestUserFromMeta:
    def test_no_two_users_share_what_an_application_could_change(self) -> None:
        one, other = (user_from_meta(user_id, {"phx_ref": "1"}) for user_id in ("ann", "bo"))
        assert one.extra == other.extra == {}
        assert one.extra is not other.extra

    def test_all_fields(self) -> None:
        meta = {
            "phx_ref": "F1",
            "phx_ref_prev": "F0",
            "user_id": "bo",
            "display_name": "Bo",
            "status": "in_game",
            "activity": "Chess",
            "online_at": "2026-01-01T00:00:00Z",
            "level": 3,
            "tags": ["a"],
        }
        assert user_from_meta("bo", meta) == OnlineUser(
            "bo", "Bo", UserStatus.IN_GAME, "Chess", "2026-01-01T00:00:00Z", {"level": 3, "tags": ["a"]}
        )

    def test_nothing_but_a_ref(self) -> None:
        assert user_from_meta("bo", {"phx_ref": "F1"}) == OnlineUser("bo", "bo", UserStatus.ONLINE)

    def test_the_presence_key_is_the_user(self) -> None:
        assert user_from_meta("bo", {"phx_ref": "F1", "user_id": "mallory"}).user_id == "bo"

    @pytest.mark.parametrize("status", list(UserStatus))
    def test_every_status(self, status: UserStatus) -> None:
        user = user_from_meta("bo", {"phx_ref": "F1", "status": str(status.value)})
        assert user.status is status
        assert user.extra == {}

    @pytest.mark.parametrize("status", ["invisible", "", "ONLINE", None, 7, True, ["online"], {"a": 1}])
    def test_an_unknown_status_is_online_and_survives_in_the_extra(self, status: Any) -> None:
        user = user_from_meta("bo", {"phx_ref": "F1", "status": status})
        assert user.status is UserStatus.ONLINE
        assert user.extra == {"status": status}

    @pytest.mark.parametrize("odd", [None, 7, "", [], {}, False])
    def test_odd_values_are_passed_over(self, odd: Any) -> None:
        meta = {"phx_ref": "F1", "display_name": odd, "status": "idle"}
        assert user_from_meta("bo", meta) == OnlineUser("bo", "bo", UserStatus.IDLE)
        if not isinstance(odd, str):
            meta = {"phx_ref": "F1", "display_name": "Bo", "activity": odd, "online_at": odd}
            assert user_from_meta("bo", meta) == BO

    def test_a_status_that_is_nested_beyond_measure(self) -> None:
        user = user_from_meta("bo", {"phx_ref": "F1", "status": _nested(100_000)})
        assert user.status is UserStatus.ONLINE


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


# -------------------------------------------------------------------------------------------- who is there


class TestComingAndGoing:
    def test_the_roster_begins_with_ourselves(self, room: Room) -> None:
        assert room.roster.users() == (ME,)
        assert len(room.roster) == 1
        assert room.roster.get("me") == ME
        assert room.roster.get("bo") is None

    def test_a_user_is_online_from_the_first_meta_to_the_last(self, room: Room) -> None:
        desk, phone = room.meta(), room.meta()
        assert room.join("bo", desk) == [UserOnline(BO)]
        assert room.join("bo", phone) == []
        assert room.leave("bo", desk) == []
        assert room.roster.users() == (ME, BO)
        assert room.leave("bo", phone) == [UserOffline(BO)]
        assert room.roster.users() == (ME,)

    def test_who_goes_offline_is_as_last_seen(self, room: Room) -> None:
        meta = room.meta()
        room.join("bo", meta)
        room.claim("bo", UserStatus.AWAY, "Lunch")
        gone = replace(BO, status=UserStatus.AWAY, activity="Lunch")
        assert room.leave("bo", meta) == [UserOffline(gone)]

    def test_several_users_in_one_diff(self, room: Room) -> None:
        bo, cy = room.meta(), room.meta(display_name="Cy")
        room.join("bo", bo)
        assert room.diff({"cy": [cy]}, {"bo": [bo]}) == [UserOnline(OnlineUser("cy", "Cy")), UserOffline(BO)]

    def test_the_count_is_of_users_not_of_devices(self, room: Room) -> None:
        room.state(bo=[room.meta(), room.meta()], me=[room.meta(), room.meta(), room.meta()])
        assert len(room.roster) == 2

    def test_a_repeated_diff_changes_nothing(self, room: Room) -> None:
        meta, newer = room.meta(), room.meta("idle")
        room.state(bo=[meta])
        assert room.join("bo", meta) == []
        assert room.track("bo", meta, newer) != []
        assert room.track("bo", meta, newer) == []
        assert room.leave("bo", meta) == []
        assert room.leave("cy", meta) == []
        assert room.roster.get("bo") == replace(BO, status=UserStatus.IDLE)

    def test_a_repeated_state_changes_nothing(self, room: Room) -> None:
        meta = room.meta()
        assert room.state(bo=[meta]) == [UserOnline(BO)]
        assert room.state(bo=[meta]) == []


# -------------------------------------------------------------------------------------------- what they do


class TestActivity:
    def test_a_key_on_both_sides_of_a_diff_is_one_change(self, room: Room) -> None:
        old = room.meta()
        room.join("bo", old)
        new = room.update(old, "in_game", "Chess")
        playing = replace(BO, status=UserStatus.IN_GAME, activity="Chess")
        assert room.track("bo", old, new) == [ActivityChanged(playing, BO)]
        assert room.roster.get("bo") == playing

    def test_a_change_that_nobody_sees_is_no_event(self, room: Room) -> None:
        old = room.meta()
        room.join("bo", old)
        assert room.track("bo", old, room.update(old)) == []

    def test_online_at_alone_is_no_change_but_comes_along_with_one(self, room: Room) -> None:
        old = room.meta(online_at="09:00")
        room.join("bo", old)
        newer = room.update(old, online_at="10:00")
        assert room.track("bo", old, newer) == []
        assert room.roster.get("bo") == replace(BO, online_at="09:00")
        newest = room.update(newer, "idle", online_at="11:00")
        idle = replace(BO, status=UserStatus.IDLE, online_at="11:00")
        assert room.track("bo", newer, newest) == [ActivityChanged(idle, replace(BO, online_at="09:00"))]

    @pytest.mark.parametrize(
        ("field", "value", "change"),
        [
            ("display_name", "Bob", {"display_name": "Bob"}),
            ("activity", "Lunch", {"activity": "Lunch"}),
            ("level", 4, {"extra": {"level": 4}}),
            ("status", "invisible", {"extra": {"status": "invisible"}}),
        ],
    )
    def test_whatever_a_user_sees_is_a_change(
        self, room: Room, field: str, value: Any, change: dict[str, Any]
    ) -> None:
        old = room.meta()
        room.join("bo", old)
        new = room.update(old) | {field: value}
        assert room.track("bo", old, new) == [ActivityChanged(replace(BO, **change), BO)]


class TestDevices:
    def test_the_most_recently_joined_device_is_shown(self, room: Room) -> None:
        room.join("bo", room.meta("online", online_at="09:00"))
        happened = room.join("bo", room.meta("in_game", "Chess", online_at="08:00"))
        assert [event.user.activity for event in happened] == ["Chess"]

    def test_when_it_leaves_the_one_before_it_is_shown(self, room: Room) -> None:
        desk = room.meta("online", "Desk", online_at="09:00")
        phone = room.meta("online", "Phone", online_at="10:00")
        tv = room.meta("online", "TV", online_at="11:00")
        for meta in (desk, phone, tv):
            room.join("bo", meta)
        busy = room.update(desk, "online", "Busy", online_at="09:00")
        room.track(
            "bo", desk, busy
        )  # the device that is online for longest, and the most recently joined meta
        assert room.leave("bo", phone) == []
        assert [event.user.activity for event in room.leave("bo", busy)] == ["TV"]

    def test_another_device_leaves(self, room: Room) -> None:
        desk, phone = room.meta("online", "Desk"), room.meta("online", "Phone")
        room.join("bo", desk)
        room.join("bo", phone)
        assert room.leave("bo", desk) == []
        assert room.roster.get("bo") == replace(BO, activity="Phone")

    def test_metas_that_come_at_once_are_ordered_by_online_at(self, room: Room) -> None:
        first, second = (
            room.meta(activity="First", online_at="09:00"),
            room.meta(activity="Second", online_at="10:00"),
        )
        no_time, odd_time = room.meta(activity="No time"), room.meta(activity="Odd time", online_at=7)
        room.state(bo=[second, first, no_time, odd_time])
        seen = [room.roster.users()[1].activity]
        for meta in (second, first, odd_time):
            seen += [event.user.activity for event in room.leave("bo", meta)]
        assert seen == ["Second", "First", "Odd time", "No time"]

    def test_metas_that_come_at_once_without_a_time_keep_their_order(self, room: Room) -> None:
        room.state(bo=[room.meta(activity="A"), room.meta(activity="B")])
        assert room.roster.users()[1].activity == "B"

    def test_two_diffs_may_be_merged_before_the_first_is_looked_at(self, room: Room) -> None:
        """Both came in one read: the presence is ahead of the change."""
        desk, phone = room.meta("online", "Desk"), room.meta("idle", "Phone")
        room.join("bo", desk)
        room.join("bo", phone)
        first = room.presence.apply_diff({"joins": {}, "leaves": _entries({"bo": [phone]})})
        second = room.presence.apply_diff({"joins": {}, "leaves": _entries({"bo": [desk]})})
        happened = [*room.roster.apply(first), *room.roster.apply(second)]
        at_desk, on_phone = (
            replace(BO, activity="Desk"),
            replace(BO, status=UserStatus.IDLE, activity="Phone"),
        )
        assert happened == [ActivityChanged(at_desk, on_phone), UserOffline(at_desk)]


# -------------------------------------------------------------------------------------------- a new state


class TestResync:
    def test_the_net_differences_only(self, room: Room) -> None:
        stays, leaves, works = room.meta(), room.meta(display_name="Cy"), room.meta(display_name="Di")
        room.state(bo=[stays], cy=[leaves], di=[works])
        happened = room.state(
            bo=[room.meta()],  # came back on a new connection: nothing that anybody would see
            di=[room.meta("in_skill", "Cooking", display_name="Di")],
            ed=[room.meta(display_name="Ed")],
        )
        di = OnlineUser("di", "Di")
        assert sorted(happened, key=lambda event: str(event.user.user_id)) == [
            UserOffline(OnlineUser("cy", "Cy")),
            ActivityChanged(replace(di, status=UserStatus.IN_SKILL, activity="Cooking"), di),
            UserOnline(OnlineUser("ed", "Ed")),
        ]

    def test_an_empty_state_leaves_only_us(self, room: Room) -> None:
        room.state(me=[room.meta()], bo=[room.meta()])
        assert room.state() == [UserOffline(BO)]
        assert room.roster.users() == (ME,)

    def test_a_claim_that_the_state_does_not_bear_out_is_void(self, room: Room) -> None:
        meta = room.meta()
        room.state(bo=[meta])
        room.claim("bo", UserStatus.IN_GAME, "Chess")
        playing = replace(BO, status=UserStatus.IN_GAME, activity="Chess")
        assert room.state(bo=[meta]) == [ActivityChanged(BO, playing)]
        assert room.roster.get("bo") == BO

    def test_a_claim_that_the_state_bears_out_is_no_event(self, room: Room) -> None:
        meta = room.meta()
        room.state(bo=[meta])
        room.claim("bo", UserStatus.IDLE)
        assert room.state(bo=[room.update(meta, "idle")]) == []

    def test_a_state_is_newer_than_every_claim(self, room: Room) -> None:
        meta = room.meta()
        room.state(bo=[meta])
        for status in (UserStatus.IN_GAME, UserStatus.IDLE):
            room.claim("bo", status)
        in_game, idle = replace(BO, status=UserStatus.IN_GAME), replace(BO, status=UserStatus.IDLE)
        assert room.state(bo=[room.update(meta, "in_game")]) == [ActivityChanged(in_game, idle)]

    def test_after_a_state_no_track_is_late(self, room: Room) -> None:
        meta = room.meta()
        room.state(bo=[meta])
        for status in (UserStatus.IN_GAME, UserStatus.IDLE):
            room.claim("bo", status)
        room.state(bo=[meta])
        happened = room.track("bo", meta, room.update(meta, "in_game"))
        assert [event.user.status for event in happened] == [UserStatus.IN_GAME]

    def test_somebody_who_claimed_something_is_gone(self, room: Room) -> None:
        room.state(bo=[room.meta()])
        room.claim("bo", UserStatus.IDLE)
        assert room.state() == [UserOffline(replace(BO, status=UserStatus.IDLE))]


# -------------------------------------------------------------------------------------------- claims


class TestClaims:
    def test_a_claim_changes_somebody_who_is_there(self, room: Room) -> None:
        room.join("bo", room.meta())
        playing = replace(BO, status=UserStatus.IN_GAME, activity="Chess")
        assert room.claim("bo", UserStatus.IN_GAME, "Chess") == [ActivityChanged(playing, BO)]
        assert room.roster.get("bo") == playing

    def test_a_claim_adds_nobody(self, room: Room) -> None:
        assert room.claim("cy", UserStatus.IDLE) == []
        assert room.roster.get("cy") is None

    def test_nor_does_it_bring_anybody_back(self, room: Room) -> None:
        meta = room.meta()
        room.join("bo", meta)
        room.leave("bo", meta)
        assert room.claim("bo", UserStatus.IDLE) == []
        assert len(room.roster) == 1

    def test_the_track_that_follows_is_no_second_event(self, room: Room) -> None:
        old = room.meta()
        room.join("bo", old)
        assert len(room.claim("bo", UserStatus.IN_GAME, "Chess")) == 1
        assert room.track("bo", old, room.update(old, "in_game", "Chess")) == []

    def test_nor_is_the_claim_that_follows_its_track(self, room: Room) -> None:
        old = room.meta()
        room.join("bo", old)
        assert len(room.track("bo", old, room.update(old, "in_game", "Chess"))) == 1
        assert room.claim("bo", UserStatus.IN_GAME, "Chess") == []

    def test_late_tracks_of_earlier_claims_do_not_undo_the_last(self, room: Room) -> None:
        metas = [room.meta()]
        room.join("bo", metas[0])
        for activity in ("A", "B", "C"):
            assert len(room.claim("bo", UserStatus.IN_GAME, activity)) == 1
        for activity in ("A", "B", "C"):
            metas.append(room.update(metas[-1], "in_game", activity))
            assert room.track("bo", *metas[-2:]) == []
            assert room.roster.users()[1].activity == "C"
        last = room.update(metas[-1], "in_game", "A")  # said again, and by a track only
        assert [event.user.activity for event in room.track("bo", metas[-1], last)] == ["A"]

    def test_claims_whose_tracks_were_left_out(self, room: Room) -> None:
        """The sender coalesces its tracks: of A, B and C only C comes."""
        old = room.meta()
        room.join("bo", old)
        for activity in ("A", "B", "C"):
            room.claim("bo", UserStatus.IN_GAME, activity)
        new = room.update(old, "in_game", "C")
        assert room.track("bo", old, new) == []
        last = room.update(new, "in_game", "B")
        assert [event.user.activity for event in room.track("bo", new, last)] == ["B"]

    def test_back_and_forth_is_still_one_event_each(self, room: Room) -> None:
        metas = [room.meta()]
        room.join("bo", metas[0])
        for activity in ("A", "B", "A"):
            assert len(room.claim("bo", UserStatus.IN_GAME, activity)) == 1
        for activity in ("A", "B", "A"):
            metas.append(room.update(metas[-1], "in_game", activity))
            assert room.track("bo", *metas[-2:]) == []

    def test_a_track_of_something_else_overrules_a_claim(self, room: Room) -> None:
        old = room.meta()
        room.join("bo", old)
        room.claim("bo", UserStatus.IN_GAME, "A", mood="wild")
        happened = room.track("bo", old, room.update(old, "idle"))
        assert [event.user for event in happened] == [replace(BO, status=UserStatus.IDLE)]

    def test_a_track_is_late_only_once(self, room: Room) -> None:
        metas = [room.meta()]
        room.join("bo", metas[0])
        for activity in ("A", "B"):
            room.claim("bo", UserStatus.IN_GAME, activity)
        metas.append(room.update(metas[0], "in_game", "A"))
        assert room.track("bo", *metas) == []
        again = room.update(metas[1], "in_game", "A")  # without a claim of its own
        assert [event.user.activity for event in room.track("bo", metas[1], again)] == ["A"]

    @pytest.mark.parametrize("first", [True, False])
    def test_a_device_that_leaves_takes_the_claims_with_it(self, room: Room, first: bool) -> None:
        """They may be its own. If they are the other's, its track says so again."""
        devices = room.meta(), room.meta("away")
        for device in devices:
            room.join("bo", device)
        room.claim("bo", UserStatus.IN_GAME, "A")
        leaves, stays = devices if first else devices[::-1]
        assert [event.user.status for event in room.leave("bo", leaves)] == [stays["status"]]
        assert room.roster.users()[1].activity is None
        track = room.track("bo", stays, room.update(stays, "in_game", "A"))
        assert [event.user.activity for event in track] == ["A"]

    def test_what_is_repeated_leaves_the_claims(self, room: Room) -> None:
        old = room.meta()
        room.join("bo", old)
        room.claim("bo", UserStatus.IN_GAME, "A")
        assert room.join("bo", {**old, "more": 1}) == []
        assert room.roster.users()[1].activity == "A"

    def test_another_device_that_says_what_was_claimed_before_is_shown(self, room: Room) -> None:
        """Its meta has no `phx_ref_prev`: it is nobody's late track."""
        room.join("bo", room.meta())
        room.claim("bo", UserStatus.ONLINE, "A")
        room.claim("bo", UserStatus.IN_GAME, "B")
        assert [event.user.activity for event in room.join("bo", room.meta("online", "A"))] == ["A"]

    def test_claims_are_bounded(self, room: Room) -> None:
        old = room.meta()
        room.join("bo", old)
        for n in range(MAX_CLAIMS + 1):
            room.claim("bo", UserStatus.IN_GAME, str(n))
        first = room.update(old, "in_game", "0")  # forgotten: this is news
        assert [event.user.activity for event in room.track("bo", old, first)] == ["0"]

    def test_a_claim_may_change_the_name_or_leave_it(self, room: Room) -> None:
        room.join("bo", room.meta())
        assert room.claim("bo", UserStatus.IDLE)[0].user == replace(BO, status=UserStatus.IDLE)
        assert room.claim("bo", UserStatus.IDLE, None, "Bob")[0].user.display_name == "Bob"

    def test_further_fields_of_the_presence_stay(self, room: Room) -> None:
        room.join("bo", room.meta(level=3))
        assert room.claim("bo", UserStatus.IDLE)[0].user.extra == {"level": 3}

    def test_further_fields_of_the_claim_survive_its_track(self, room: Room) -> None:
        old = room.meta(level=3)
        room.join("bo", old)
        happened = room.claim("bo", UserStatus.IDLE, None, mood="calm", phx_ref="x", online_at="never")
        assert happened[0].user.extra == {"level": 3, "mood": "calm"}
        new = room.update(old, "idle", level=3)
        assert room.track("bo", old, new) == []
        assert room.roster.users()[1].extra == {"level": 3, "mood": "calm"}
        # They belong to that claim and not to the next.
        assert room.claim("bo", UserStatus.AWAY)[0].user.extra == {"level": 3}
        assert room.track("bo", new, room.update(new, "away", level=3)) == []

    def test_the_track_knows_better_than_the_claim(self, room: Room) -> None:
        old = room.meta()
        room.join("bo", old)
        room.claim("bo", UserStatus.IDLE, None, mood="calm")
        happened = room.track("bo", old, room.update(old, "idle", mood="wild"))
        assert [event.user.extra for event in happened] == [{"mood": "wild"}]

    def test_a_claim_of_a_known_status_ends_an_unknown_one(self, room: Room) -> None:
        old = room.meta("invisible")
        room.join("bo", old)
        assert room.claim("bo", UserStatus.IDLE)[0].user == replace(BO, status=UserStatus.IDLE)
        assert room.track("bo", old, room.update(old, "idle")) == []


# -------------------------------------------------------------------------------------------- ourselves


class TestOurselves:
    def test_we_are_never_an_event(self, room: Room) -> None:
        mine, other = room.meta(), room.meta("idle")
        assert room.state(me=[mine]) == []
        assert room.join("me", other) == []
        assert room.track("me", mine, room.update(mine, "away")) == []
        assert room.claim("me", UserStatus.IN_GAME, "Chess") == []
        assert room.state() == []
        assert room.leave("me", other) == []

    def test_we_are_in_the_roster_whatever_the_server_says(self, room: Room) -> None:
        mine = room.meta("idle", "On the phone", display_name="Me on the phone")
        room.state(me=[mine])
        assert room.roster.users()[0].activity == "On the phone"
        room.leave("me", mine)
        assert room.roster.users() == (ME,)

    def test_we_come_first(self, room: Room) -> None:
        mine = room.meta()
        room.state(bo=[room.meta()], me=[mine])
        room.leave("me", mine)
        assert [user.user_id for user in room.roster.users()] == ["me", "bo"]

    def test_what_we_do_is_seen_at_once(self, room: Room) -> None:
        playing = replace(ME, status=UserStatus.IN_GAME, activity="Chess")
        room.roster.set_own(playing)
        assert room.roster.users() == (playing,)

    def test_no_broadcast_knows_better(self, room: Room) -> None:
        room.state(me=[room.meta("idle", display_name="Me")])
        before = room.roster.users()
        assert room.claim("me", UserStatus.AWAY, "Gone", "Nobody") == []
        assert room.roster.users() == before

    def test_and_does_not_wait_for_its_track(self, room: Room) -> None:
        mine = room.meta("online", display_name="Me", online_at=ME.online_at)
        room.state(me=[mine])
        for activity in ("A", "B"):
            room.roster.set_own(replace(ME, activity=activity))
        late = room.update(mine, "online", "A", display_name="Me", online_at=ME.online_at)
        room.track("me", mine, late)
        assert room.roster.users() == (replace(ME, activity="B"),)

    def test_our_own_claim_outlives_a_state(self, room: Room) -> None:
        mine = room.meta("online", display_name="Me", online_at=ME.online_at)
        room.state(me=[mine])
        away = replace(ME, status=UserStatus.AWAY)
        room.roster.set_own(away)
        room.state(me=[mine])  # the server has not noticed yet that the connection was lost
        assert room.roster.users() == (away,)
        room.state()
        assert room.roster.users() == (away,)

    @pytest.mark.parametrize(("told", "shown"), [("08:00", "08:00"), (None, ME.online_at)])
    def test_since_when_is_as_others_see_it(self, room: Room, told: str | None, shown: str) -> None:
        """A client that only looks in shows us as our other device is."""
        phone = room.meta("online", display_name="Me", online_at=told)
        room.state(me=[phone])
        assert room.roster.users() == (replace(ME, online_at=shown),)
        room.leave("me", phone)
        assert room.roster.users() == (ME,)

    def test_our_most_recent_device_is_shown_here_too(self, room: Room) -> None:
        room.state(me=[room.meta("online", display_name="Me")])
        room.join("me", room.meta("in_game", "Chess", display_name="Me"))
        assert room.roster.users()[0].activity == "Chess"

    def test_another_device_of_ours_that_leaves_changes_nothing_of_what_we_do(self, room: Room) -> None:
        here, there = room.meta("online", display_name="Me"), room.meta("away", display_name="Me")
        room.state(me=[here, there])
        room.roster.set_own(replace(ME, status=UserStatus.IN_GAME, activity="Chess"))
        assert room.leave("me", there) == []
        assert room.roster.users()[0].activity == "Chess"
        room.track("me", here, room.update(here, "in_game", "Chess", display_name="Me"))
        assert room.roster.users()[0].activity == "Chess"

    def test_what_our_only_device_tracks_is_shown_and_no_event(self, room: Room) -> None:
        here = room.meta("online", display_name="Me")
        room.state(me=[here])
        assert room.track("me", here, room.update(here, "in_game", "Chess", display_name="Me")) == []
        assert room.roster.users()[0].activity == "Chess"


# -------------------------------------------------------------------------------------------- weather


def test_devices_are_counted() -> None:
    room = Room()
    phone, laptop = room.meta(), room.meta()
    room.join("bo", phone, laptop)
    assert [room.roster.device_count(user_id) for user_id in ("bo", "me", "cy")] == [2, 0, 0]
    room.leave("bo", phone)
    assert repr(room.roster.device_count("bo")) == "1"
