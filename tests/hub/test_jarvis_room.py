"""One room for both protocols: Jarvis users and Supabase clients see, invite and poke each other."""

from __future__ import annotations

from typing import Any

import pytest

from hub_client import SUPABASE, SUPABASE_V1, World
from jarvis_client import (
    CONFIG,
    NOON,
    ONLINE,
    ROOM,
    SUE,
    JarvisClient,
    broadcasts,
    heard,
    jarvis,
    people,
    shown,
    supabase,
    tracks,
)
from presence_proto.hub import jarvis as hub_jarvis
from presence_proto.serializer import UserBroadcast


def kinds(client: JarvisClient) -> list[str]:
    return [message["type"] for message in client.take()]


# -------------------------------------------------------------------------------------- Jarvis to Supabase


@pytest.mark.parametrize("target", [SUPABASE, SUPABASE_V1])
def test_what_supabase_clients_see_of_a_jarvis_user(target: str) -> None:
    world = World(CONFIG)
    sue = supabase(world, "sue", target=target)
    ann = jarvis(world, "ann")
    meta = {"user_id": "ann", "display_name": "Ann", **ONLINE, "online_at": NOON}
    assert heard(sue) == [("joins", {"ann": [meta]})]
    who = {"user_id": "ann", "display_name": "Ann"}

    ann.tell("activity_update", status="in_game", activity="Snake", metadata={"level": 3})
    does = {"status": "in_game", "activity": "Snake", "metadata": {"level": 3}}
    assert heard(sue) == [
        ("activity_update", {**who, **does}),
        ("joins", {"ann": [meta | does]}),
        ("leaves", {"ann": [meta]}),
    ]
    ann.tell("activity_update", status="in_game", activity="Snake", metadata={"level": 3})
    assert heard(sue) == []
    ann.tell("activity_update", status="idle", activity=None)
    assert heard(sue)[:2] == [
        ("activity_update", {**who, "status": "idle", "activity": None}),
        ("joins", {"ann": [meta | {"status": "idle"}]}),
    ]
    assert ann.tell("game_invite", game="snake", code="XY")[-1]["sent_to"] == ["Sue"]
    assert heard(sue) == [("game_invite", {**who, "game": "snake", "code": "XY"})]
    ann.tell("game_invite", game="snake")
    assert heard(sue) == [("game_invite", {**who, "game": "snake"})]
    ann.tell("poke", target_user_id="sue")
    assert heard(sue) == [("poke", {**who, "target_user_id": "sue"})]

    ann.tell("disconnect")
    world.advance(9.9)
    assert heard(sue) == []
    world.advance(0.1)
    assert heard(sue) == [("leaves", {"ann": [meta | {"status": "idle"}]})]


def test_a_supabase_client_that_comes_later_gets_them_in_its_state() -> None:
    world = World(CONFIG)
    people(world, "ann")
    client = world.connect(SUPABASE)
    _, state = client.join(ROOM, {"config": {"presence": {"key": "sue", "enabled": True}}})
    assert state[3] == "presence_state"
    assert [meta["display_name"] for meta in state[4]["ann"]["metas"]] == ["Ann"]


def test_an_invite_is_sent_to_users_and_not_to_connections() -> None:
    world = World(CONFIG)
    ann, _, _, away, _ = people(world, "ann", "ann", "bob", "away", "sue")
    away.drop()
    supabase(world, "sue", display_name="Susan")
    supabase(world, "sue", display_name="Susan")
    supabase(world, "lurker", track=False)
    supabase(world, "ann")
    supabase(world, "nameless", display_name=None)
    assert ann.tell("game_invite", game="g")[-1]["sent_to"] == ["Bob", "Susan", "nameless"]


# -------------------------------------------------------------------------------------- Supabase to Jarvis


def test_what_jarvis_users_see_of_a_supabase_client() -> None:
    world = World(CONFIG)
    (ann,) = people(world, "ann")
    sue = supabase(world, "sue", status="in_game", activity="Chess", further={"field": 1})
    assert ann.take() == [
        {"type": "user_online", **SUE, "ts": NOON},
        {"type": "activity_changed", **SUE, "status": "in_game", "activity": "Chess", "ts": NOON},
    ]
    assert jarvis(world, "bob").take()[0]["users"] == [
        {"user_id": "ann", "display_name": "Ann", **ONLINE},
        {**SUE, "status": "in_game", "activity": "Chess"},
    ]
    ann.take()
    tracks(sue, **SUE, status="idle")
    assert ann.take() == [
        {"type": "activity_changed", **SUE, "status": "idle", "activity": None, "ts": NOON},
    ]
    tracks(sue, **SUE, status="idle", activity=None, online_at="now", further=2)  # nothing that Jarvis shows
    assert ann.take() == []
    broadcasts(sue, "game_invite", **SUE, game="chess", code="C", further=1)
    assert ann.take() == [{"type": "game_invite", **SUE, "game": "chess", "code": "C", "ts": NOON}]
    broadcasts(sue, "game_invite", **SUE, game="chess")
    assert ann.take()[0]["code"] is None
    broadcasts(sue, "chat_message", **SUE, channel="c", content="hello", timestamp="now")
    assert ann.take() == []
    sue.drop()
    assert ann.take() == [{"type": "user_offline", **SUE, "ts": NOON}]


def test_who_was_there_first_is_in_the_welcome() -> None:
    world = World(CONFIG)
    supabase(world, "sue", status="away")
    ann = jarvis(world, "ann")
    assert ann.take() == [
        {"type": "welcome", "your_id": "ann", "users": [{**SUE, "status": "away", "activity": None}]}
    ]
    assert ann.tell("ping") == [{"type": "pong", "online_count": 2}]


def test_pokes_by_a_supabase_client() -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    sue = supabase(world, "sue")
    ann.take()
    bob.take()
    broadcasts(sue, "poke", **SUE, target_user_id="ann")
    broadcasts(sue, "poke", **SUE, target_user_id="nobody")
    assert ann.take() == [{"type": "poke", **SUE, "ts": NOON}]
    assert bob.take() == []


def test_odd_metas_are_shown_as_well_as_can_be() -> None:
    world = World(CONFIG)
    (ann,) = people(world, "ann")
    sue = supabase(world, "sue", display_name=7, status="asleep", activity=["a"])
    assert ann.take() == [{"type": "user_online", "user_id": "sue", "display_name": "sue", "ts": NOON}]
    tracks(sue)
    assert ann.take() == []


def test_of_several_devices_the_latest_is_shown() -> None:
    world = World(CONFIG)
    (ann,) = people(world, "ann")
    first = supabase(world, "sue")
    assert shown(ann) == [("user_online", None, None)]
    second = supabase(world, "sue", status="idle")
    assert shown(ann) == [("activity_changed", "idle", None)]
    third = supabase(world, "sue", status="idle")
    assert shown(ann) == []
    first.drop()
    second.drop()
    assert shown(ann) == []
    first = supabase(world, "sue", status="away")
    assert shown(ann) == [("activity_changed", "away", None)]
    first.drop()
    assert shown(ann) == [("activity_changed", "idle", None)]
    third.drop()
    assert shown(ann) == [("user_offline", None, None)]


def test_one_user_on_both_protocols() -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    device = supabase(world, "ann", status="in_game")
    assert ann.take() == []
    assert shown(bob) == [("activity_changed", "in_game", None)]
    assert ann.tell("ping") == [{"type": "pong", "online_count": 2}]
    broadcasts(device, "game_invite", user_id="ann", game="g")
    assert ann.take() == []
    assert kinds(bob) == ["game_invite"]
    ann.drop()
    world.advance(20)
    assert bob.take() == []
    device.drop()
    assert shown(bob) == [("user_offline", None, None)]


# ---------------------------------------------------------------------------------------------- claims


def test_a_claim_and_its_track_are_one_change() -> None:
    world = World(CONFIG)
    (ann,) = people(world, "ann")
    sue = supabase(world, "sue")
    ann.take()
    does = {"status": "in_skill", "activity": "Cooking"}
    broadcasts(sue, "activity_update", **SUE, **does)
    assert ann.take() == [{"type": "activity_changed", **SUE, **does, "ts": NOON}]
    assert jarvis(world, "bob").take()[0]["users"][1] == {**SUE, **does}
    ann.take()
    tracks(sue, **SUE, **does)
    assert ann.take() == []
    broadcasts(sue, "activity_update", **SUE, **does)
    assert ann.take() == []
    tracks(sue, **SUE, **ONLINE)
    assert shown(ann) == [("activity_changed", "online", None)]
    broadcasts(sue, "activity_update", user_id="sue", display_name="Susan", **ONLINE)
    assert [message["display_name"] for message in ann.take()] == ["Susan"]
    tracks(sue, user_id="sue", display_name="Susan", **ONLINE)
    assert ann.take() == []


def test_a_claim_stands_until_a_device_has_gone() -> None:
    """Which may have made it. If not, the other's track says so again."""
    world = World(CONFIG)
    (ann,) = people(world, "ann")
    other, sue = supabase(world, "sue"), supabase(world, "sue")
    ann.take()
    broadcasts(sue, "activity_update", user_id="sue", status="idle", activity=None)
    assert shown(ann) == [("activity_changed", "idle", None)]
    other.drop()
    assert shown(ann) == [("activity_changed", "online", None)]
    tracks(sue, user_id="sue", status="idle", activity=None)
    assert shown(ann) == [("activity_changed", "idle", None)]
    sue.drop()
    assert shown(ann) == [("user_offline", None, None)]


def test_a_claim_adds_nobody() -> None:
    world = World(CONFIG)
    (ann,) = people(world, "ann")
    sue = supabase(world, "sue", track=False)
    broadcasts(sue, "activity_update", **SUE, status="idle", activity=None)
    assert ann.take() == []
    assert ann.tell("ping") == [{"type": "pong", "online_count": 1}]


def test_who_is_not_present_may_still_invite_and_poke() -> None:
    world = World(CONFIG)
    (ann,) = people(world, "ann")
    sue = supabase(world, "sue", track=False)
    broadcasts(sue, "game_invite", user_id="sue", display_name="Susan", game="g")
    broadcasts(sue, "poke", user_id="sue", target_user_id="ann")
    assert [(m["type"], m["display_name"]) for m in ann.take()] == [("game_invite", "Susan"), ("poke", "sue")]


def test_the_user_id_of_a_broadcast_must_be_the_senders() -> None:
    world = World(CONFIG)
    ann, _ = people(world, "ann", "bob")
    sue = supabase(world, "sue")
    ann.take()
    for lie in ({"user_id": "bob", "display_name": "Bob"}, {"display_name": "Sue"}, {"user_id": ["sue"]}):
        broadcasts(sue, "activity_update", **lie, status="idle", activity=None)
        broadcasts(sue, "game_invite", **lie, game="g")
        broadcasts(sue, "poke", **lie, target_user_id="ann")
    assert ann.take() == []


def test_the_name_of_a_sender_is_the_one_that_is_shown() -> None:
    world = World(CONFIG)
    (ann,) = people(world, "ann")
    sue = supabase(world, "sue")
    ann.take()
    broadcasts(sue, "game_invite", user_id="sue", display_name="The Admin", game="g")
    broadcasts(sue, "poke", user_id="sue", display_name="The Admin", target_user_id="ann")
    assert [message["display_name"] for message in ann.take()] == ["Sue", "Sue"]


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "broadcast",
        [],
        {},
        {"event": "game_invite"},
        {"event": ["poke"], "payload": {"user_id": "sue"}},
        {"event": "game_invite", "payload": [1]},
        {"event": "game_invite", "payload": {"user_id": "sue"}},
        {"event": "game_invite", "payload": {"user_id": "sue", "game": "g", "code": 1}},
        {"event": "poke", "payload": {"user_id": "sue"}},
        {"event": "activity_update", "payload": {"user_id": "sue", "status": "asleep"}},
        {"event": "activity_update", "payload": {"user_id": "sue", "status": "idle", "activity": 1}},
        UserBroadcast("game_invite", b"\x00"),
        UserBroadcast("poke", {"user_id": "sue"}),
    ],
)
def test_malformed_broadcasts_go_no_further(payload: Any) -> None:
    world = World(CONFIG)
    (ann,) = people(world, "ann")
    sue = supabase(world, "sue")
    ann.take()
    sue.say("1", "4", ROOM, "broadcast", payload)
    assert ann.take() == []
    assert sue.closed is None


def test_binary_frames_with_json_in_them_are_understood() -> None:
    world = World(CONFIG)
    (ann,) = people(world, "ann")
    sue = supabase(world, "sue")
    ann.take()
    sue.say("1", "4", ROOM, "broadcast", UserBroadcast("game_invite", {**SUE, "game": "g"}))
    assert kinds(ann) == ["game_invite"]


def test_the_hub_itself_speaks_for_anybody() -> None:
    world = World(CONFIG)
    (ann,) = people(world, "ann")
    say = {"user_id": "system", "display_name": "System", "game": "g"}
    world.hub.broadcast(ROOM, "game_invite", say, now=world.now)
    world.hub.broadcast(ROOM, "game_invite", b"bytes", now=world.now)
    world.hub.broadcast(ROOM, "news", {"text": "no form for it"}, now=world.now)
    world.settle()
    assert ann.take() == [{"type": "game_invite", **say, "code": None, "ts": NOON}]


def test_an_invite_names_a_hundred_and_counts_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    users = people(world, *[f"user{number}" for number in range(130)])
    users[1].drop()  # and is away
    monkeypatch.setattr(hub_jarvis, "user_from_meta", None)  # nobody's meta is decoded for it
    [receipt] = users[0].tell("game_invite", game="snake")
    assert receipt["sent_to"] == [f"User{number}" for number in range(2, 102)]
    assert receipt["more"] == 28
