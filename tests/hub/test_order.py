"""Nobody is heard before they are seen: a broadcast takes the diff with its sender along."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from hub_client import PHOENIX, SUPABASE, SUPABASE_V1, Client, World, supabase_join
from jarvis_client import CONFIG, ROOM, broadcasts, jarvis, people, supabase
from presence_proto.hub.config import HubConfig

WINDOW = evolve(CONFIG, presence_window=1.0)
CHANNEL = "realtime:x"


def kinds(client: Client) -> list[str]:
    return [message[3] for message in client.take() if message[3] in ("presence_diff", "broadcast", "cursor")]


def listening(world: World, target: str, topic: str) -> Client:
    """A client without presence, with nothing left to read."""
    client = world.connect(target)
    client.join(topic, supabase_join("listener"))
    client.take()
    return client


def coming(world: World, topic: str = CHANNEL, key: str = "ann") -> Client:
    """A Supabase client that has just tracked."""
    client = world.connect(SUPABASE)
    client.join(topic, supabase_join(key))
    client.say("1", "2", topic, "presence", {"event": "track", "payload": {"user_id": key}})
    return client


def says(client: Client, event: str = "cursor", topic: str = CHANNEL, **payload: Any) -> None:
    client.say("1", "3", topic, "broadcast", {"type": "broadcast", "event": event, "payload": payload})


@pytest.mark.parametrize("target", [SUPABASE, SUPABASE_V1])
def test_on_supabase(target: str) -> None:
    world = World(WINDOW)
    bob = listening(world, target, CHANNEL)
    ann = coming(world)
    assert kinds(bob) == []
    says(ann)
    assert kinds(bob) == ["presence_diff", "broadcast"]
    world.advance(1)
    assert kinds(bob) == []


def test_on_phoenix() -> None:
    world = World(WINDOW)
    bob = world.connect(PHOENIX)
    bob.join("room:x", {"user_id": "bob"})
    world.advance(1)
    bob.take()
    ann = world.connect(PHOENIX)
    ann.join("room:x", {"user_id": "ann"})
    ann.say("1", "2", "room:x", "cursor", {"x": 1})
    assert kinds(bob) == ["presence_diff", "cursor"]


@pytest.mark.parametrize("say", ["poke", "game_invite", "activity_update"])
def test_on_jarvis(say: str) -> None:
    said = {
        "poke": {"target_user_id": "bob"},
        "game_invite": {"game": "Chess"},
        "activity_update": {"status": "in_game"},
    }[say]
    world = World(WINDOW)
    (bob,) = people(world, "bob")
    sue = supabase(world, "sue")
    world.advance(1)
    for client in (bob, sue):
        client.take()
    ann = jarvis(world, "ann")
    ann.tell(say, **said)
    online, *rest = [message["type"] for message in bob.take()]
    assert online == "user_online"
    assert rest == [say.replace("activity_update", "activity_changed")]
    assert kinds(sue)[:2] == ["presence_diff", "broadcast"]
    eve = supabase(world, "eve")
    broadcasts(eve, say, user_id="eve", **said)
    assert next(message["type"] for message in bob.take()) == "user_online"


def test_who_was_seen_before_does_not_end_the_window() -> None:
    world = World(WINDOW)
    bob = listening(world, SUPABASE, CHANNEL)
    ann = coming(world)
    world.advance(1)
    bob.take()
    coming(world, key="cleo")
    ann.say("1", "4", CHANNEL, "presence", {"event": "track", "payload": {"user_id": "ann", "x": 2}})
    says(ann)
    assert kinds(bob) == ["broadcast"]
    world.advance(1)
    assert kinds(bob) == ["presence_diff"]


def test_who_does_not_track_and_the_hub_itself_wait_for_nothing() -> None:
    world = World(WINDOW)
    bob, eve = listening(world, SUPABASE, CHANNEL), listening(world, SUPABASE, CHANNEL)
    coming(world)
    says(eve)
    world.hub.broadcast(CHANNEL, "cursor", {}, now=world.now)
    world.settle()
    assert kinds(bob) == ["broadcast", "broadcast"]


def test_who_has_gone_again_is_forgotten() -> None:
    world = World(WINDOW)
    bob = listening(world, SUPABASE, CHANNEL)
    for number in range(3):
        client = coming(world, key=f"brief {number}")
        client.say("1", "4", CHANNEL, "presence", {"event": "untrack"})
        world.advance(1)
        assert kinds(bob) == []
        says(client)
        assert kinds(bob) == ["broadcast"]


def test_who_leaves_and_comes_back_within_a_window_is_told_before_they_speak() -> None:
    world = World(WINDOW)
    bob = listening(world, SUPABASE, CHANNEL)
    ann = coming(world)
    world.advance(1)
    bob.take()
    ann.say("1", "4", CHANNEL, "presence", {"event": "untrack"})
    ann.say("1", "5", CHANNEL, "presence", {"event": "track", "payload": {}})
    says(ann)
    assert kinds(bob) == ["presence_diff", "broadcast"]


def test_a_join_in_the_same_bytes() -> None:
    world = World(HubConfig())
    bob = listening(world, SUPABASE, ROOM)
    ann = coming(world, ROOM)
    says(ann, "poke", ROOM, user_id="ann", target_user_id="bob")
    assert kinds(bob) == ["presence_diff", "broadcast"]
