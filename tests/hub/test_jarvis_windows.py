"""Jarvis users of a hub with a presence window: diffs wait, and nobody is shown what others are not."""

from __future__ import annotations

from attrs import evolve

from hub_client import World
from jarvis_client import (
    CONFIG,
    ROOM,
    SUE,
    broadcasts,
    jarvis,
    people,
    shown,
    supabase,
    tracks,
)

WINDOW = evolve(CONFIG, presence_window=1.0)


def test_in_a_window_all_users_are_shown_the_same() -> None:
    world = World(WINDOW)
    ann = jarvis(world, "ann")
    bob = jarvis(world, "bob")
    supabase(world, "brief").drop()
    for client, user_id in ((ann, "ann"), (bob, "bob")):
        assert client.take() == [{"type": "welcome", "your_id": user_id, "users": []}]
        assert client.tell("ping") == [{"type": "pong", "online_count": 1}]
    world.advance(1)
    assert [(m["type"], m["user_id"]) for m in ann.take()] == [("user_online", "bob")]
    assert [(m["type"], m["user_id"]) for m in bob.take()] == [("user_online", "ann")]
    assert ann.tell("ping") == [{"type": "pong", "online_count": 2}]


def test_in_a_window_activities_do_not_wait() -> None:
    world = World(WINDOW)
    ann, bob = people(world, "ann", "bob")
    sue = supabase(world, "sue")
    world.advance(1)
    bob.take()
    ann.tell("activity_update", status="idle", activity=None)
    broadcasts(sue, "activity_update", **SUE, status="away", activity=None)
    tracks(sue, **SUE, status="away", activity=None)
    assert [(m["user_id"], m["status"]) for m in bob.take()] == [("ann", "idle"), ("sue", "away")]
    world.advance(1)
    assert bob.take() == []


def test_a_track_that_waits_does_not_undo_a_newer_claim() -> None:
    world = World(WINDOW)
    (ann,) = people(world, "ann")
    sue = supabase(world, "sue")
    world.advance(1)
    ann.take()
    tracks(sue, **SUE, status="away", activity=None)
    broadcasts(sue, "activity_update", **SUE, status="idle", activity=None)
    world.advance(1)
    assert shown(ann) == [("activity_changed", "idle", None)]
    tracks(sue, **SUE, status="idle", activity=None)
    world.advance(1)
    assert ann.take() == []


def test_a_claim_of_who_is_not_shown_yet_or_any_more() -> None:
    world = World(WINDOW)
    (ann,) = people(world, "ann")
    sue = supabase(world, "sue")
    claim = {**SUE, "status": "idle", "activity": None}
    broadcasts(sue, "activity_update", **claim)  # its track is in no diff yet, and comes first
    assert shown(ann) == [("user_online", None, None), ("activity_changed", "idle", None)]
    world.advance(1)
    assert ann.take() == []
    sue.say("1", "5", ROOM, "presence", {"event": "untrack"})
    broadcasts(sue, "activity_update", **claim)
    assert ann.take() == []
    world.advance(1)
    assert shown(ann) == [("user_offline", None, None)]


def test_an_invite_names_also_those_who_wait_for_the_window() -> None:
    world = World(WINDOW)
    (ann,) = people(world, "ann")
    supabase(world, "sue")
    assert ann.tell("game_invite", game="g")[-1]["sent_to"] == ["Sue"]


def test_the_first_user_finds_a_window_open() -> None:
    world = World(WINDOW)
    observer, gone = supabase(world, "old", track=False), supabase(world, "gone")
    world.advance(1)
    gone.drop()
    sue = supabase(world, "sue")
    ann = jarvis(world, "ann")
    assert [user["user_id"] for user in ann.take()[0]["users"]] == ["sue"]
    sue.drop()
    world.advance(1)
    assert shown(ann) == [("user_offline", None, None)]
    assert observer.closed is None


def test_a_claim_goes_with_the_device_that_made_it() -> None:
    # Within one window a second device comes, says what it does, and goes: no diff would tell of it.
    world = World(WINDOW)
    (ann,) = people(world, "ann")
    supabase(world, "sue")
    world.advance(1)
    ann.take()
    second = supabase(world, "sue")
    broadcasts(second, "activity_update", **SUE, status="idle", activity=None)
    assert shown(ann) == [("activity_changed", "idle", None)]
    second.drop()
    world.advance(1)
    assert shown(ann) == [("activity_changed", "online", None)]
