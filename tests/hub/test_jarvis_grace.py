"""Jarvis users who go and come back: devices, graces, and the ends that the hub makes."""

from __future__ import annotations

from typing import Any

import pytest

from hub_client import PHOENIX, World
from jarvis_client import CONFIG, NOON, ROOM, JarvisClient, heard, jarvis, people, supabase
from presence_proto.errors import LocalProtocolError
from presence_proto.events import ClientDisconnected, TopicJoined, TopicLeft
from presence_proto.hub.config import HubConfig

OFFLINE = {"type": "user_offline", "user_id": "ann", "display_name": "Ann", "ts": NOON}


def goes(how: str, client: JarvisClient) -> None:
    match how:
        case "drop":
            client.drop()
        case "disconnect":
            client.tell("disconnect")
        case "close":
            client.close()
        case "protocol error":
            client.world.receive(client.conn, b"\x81\x00")  # not masked
        case "kick":
            client.world.hub.disconnect(client.conn, now=client.world.now)
            client.world.settle()


def by_all_ways(test: Any) -> Any:
    return pytest.mark.parametrize("how", ["drop", "disconnect", "close", "protocol error", "kick"])(test)


# ---------------------------------------------------------------------------------------------- graces


@by_all_ways
def test_who_comes_back_in_time_was_never_away(how: str) -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    observer = supabase(world, "sue")
    ann.tell("activity_update", status="in_game", activity="Snake")
    bob.take()
    observer.take()
    goes(how, ann)
    world.advance(9.9)
    assert list(world.hub.online(ROOM)) == ["ann", "bob", "sue"]
    again = jarvis(world, "ann")
    assert [user["user_id"] for user in again.take()[0]["users"]] == ["bob", "sue"]
    for _ in range(10):
        world.advance(20)
        for client in (again, bob):
            client.tell("ping")
        observer.say(None, "9", "phoenix", "heartbeat", {})
        assert bob.take() == heard(observer) == []
    assert world.hub.online(ROOM)["ann"][0]["activity"] == "Snake"


@by_all_ways
def test_who_does_not_is_offline_once(how: str) -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    goes(how, ann)
    world.advance(10)
    assert bob.take() == [OFFLINE]
    assert list(world.hub.online(ROOM)) == ["bob"]
    world.advance(10)
    bob.tell("ping")
    world.advance(30)
    assert bob.take() == []
    assert jarvis(world, "ann").take()[0]["type"] == "welcome"
    assert bob.take() == [{**OFFLINE, "type": "user_online"}]


def test_a_new_name_is_all_that_is_told_of_a_return() -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    ann.tell("activity_update", status="idle", activity=None, metadata={"a": 1})
    bob.take()
    ann.drop()
    jarvis(world, "ann", "Anna")
    changed = {"user_id": "ann", "display_name": "Anna", "status": "idle", "activity": None, "ts": NOON}
    assert bob.take() == [{"type": "activity_changed", **changed}]
    (meta,) = world.hub.online(ROOM)["ann"]
    assert (meta["display_name"], meta["metadata"], meta["online_at"]) == ("Anna", {"a": 1}, NOON)


def test_the_late_close_of_an_old_socket_evicts_nobody() -> None:
    # The network was cut, the client is back on a new connection, and only then the old one's end is seen.
    world = World(CONFIG)
    old, bob = people(world, "ann", "bob")
    world.advance(50)
    bob.tell("ping")
    new = jarvis(world, "ann")
    old.drop()
    world.advance(30)
    bob.tell("ping")
    world.advance(30)
    assert bob.take() == []
    assert new.tell("ping")[-1] == {"type": "pong", "online_count": 2}


def test_the_late_eviction_of_an_old_socket_evicts_nobody() -> None:
    world = World(CONFIG)
    old, bob = people(world, "ann", "bob")
    world.advance(80)
    new = jarvis(world, "ann")
    bob.tell("ping")
    world.advance(10)
    assert old.closed is not None
    world.advance(20)
    assert bob.take() == []
    assert new.tell("ping")[-1]["online_count"] == 2


def test_each_absence_has_a_grace_of_its_own() -> None:
    # Gone at 0, back at 6, gone at 8: the first timer must not fire at 10, for the second grace ends at 18.
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    ann.drop()
    world.advance(6)
    ann = jarvis(world, "ann")
    world.advance(2)
    ann.drop()
    world.advance(9.9)
    assert bob.take() == []
    assert "ann" in world.hub.online(ROOM)
    world.advance(0.1)
    assert bob.take() == [OFFLINE]


def test_many_returns_leave_one_user_and_one_timer() -> None:
    world = World(CONFIG)
    (bob,) = people(world, "bob")
    for _ in range(20):
        jarvis(world, "ann").drop()
        world.advance(1)
    assert [message["type"] for message in bob.take()] == ["user_online"]
    assert world.hub.next_deadline() == world.now + 9
    world.advance(9)
    assert bob.take() == [OFFLINE]


def test_no_grace_at_all() -> None:
    world = World(HubConfig(offline_grace=0, presence_window=0))
    ann, bob = people(world, "ann", "bob")
    ann.drop()
    assert [message["type"] for message in bob.take()] == ["user_offline"]
    assert list(world.hub.online(ROOM)) == ["bob"]


def test_the_absent_are_bounded() -> None:
    world = World(HubConfig(max_connections=3, presence_window=0))
    bob = jarvis(world, "bob")
    for number in range(10):
        jarvis(world, f"u{number}").drop()
    assert list(world.hub.online(ROOM)) == ["bob", "u0", "u1"]
    world.advance(10)
    assert list(world.hub.online(ROOM)) == ["bob"]
    assert bob.tell("ping")[-1]["online_count"] == 1


def test_the_last_to_go_turns_off_the_light() -> None:
    world = World()
    jarvis(world, "ann").drop()
    assert world.hub.topics == (ROOM,)
    world.advance(10)
    assert world.hub.topics == ()
    assert world.hub.next_deadline() is None


def test_a_poke_of_who_is_away_is_lost_and_an_invite_not_counted() -> None:
    world = World()
    ann, bob = people(world, "ann", "bob")
    ann.drop()
    bob.tell("poke", target_user_id="ann")
    assert bob.tell("game_invite", game="g")[-1]["sent_to"] == []
    assert jarvis(world, "ann").take()[0]["type"] == "welcome"


# ---------------------------------------------------------------------------------------------- devices


def test_the_user_goes_with_the_last_device() -> None:
    world = World(CONFIG)
    laptop, bob = people(world, "ann", "bob")
    phone = jarvis(world, "ann")
    assert bob.take() == []
    laptop.drop()
    world.advance(11)
    assert bob.tell("poke", target_user_id="ann") == []
    assert [message["type"] for message in phone.take()] == ["welcome", "poke"]
    phone.drop()
    world.advance(10)
    assert bob.take() == [OFFLINE]


def test_all_devices_speak_for_the_user() -> None:
    world = World(CONFIG)
    laptop, phone, bob = people(world, "ann", "ann", "bob")
    laptop.tell("activity_update", status="in_game", activity="Snake")
    phone.tell("activity_update", status="away", activity=None)
    assert [message["status"] for message in bob.take()] == ["in_game", "away"]
    assert len(world.hub.online(ROOM)["ann"]) == 1


# -------------------------------------------------------------------------------------- the hub's ends


def test_shutdown() -> None:
    world = World(CONFIG)
    ann, bob, away = people(world, "ann", "bob", "away")
    silent = jarvis(world)
    observer = supabase(world, "sue")
    away.drop()
    for client in (ann, bob):
        client.take()
    world.hub.shutdown(now=world.now)
    assert world.hub.online(ROOM) == {}
    world.settle()
    for client in (ann, bob, silent, observer):
        assert client.closed is not None
        assert client.closed.code == 1012
    assert ann.take() == bob.take() == []
    assert world.hub.is_closed
    assert world.hub.next_deadline() is None
    late = jarvis(world)
    assert late.opened is None


def test_shutdown_with_a_peer_that_does_not_answer() -> None:
    world = World()
    (ann,) = people(world, "ann")
    ann.mute = True
    world.hub.shutdown(now=world.now)
    world.settle()
    assert world.hub.next_deadline() == world.now + 5
    world.advance(5)
    assert world.hub.is_closed


@pytest.mark.parametrize(
    ("crashed", "code", "reason"), [(False, 1001, "maintenance"), (True, 1011, "crashed")]
)
def test_the_end_of_the_channel_is_that_of_the_connection(crashed: bool, code: int, reason: str) -> None:
    world = World(CONFIG)
    ann, tablet, away, silent = *people(world, "ann", "ann", "away"), jarvis(world)
    observer = supabase(world, "sue")
    away.drop()
    world.take_events()
    if crashed:
        world.hub.crash_channel(ROOM, now=world.now)
    else:
        world.hub.close_channel(ROOM, now=world.now, reason=reason)
    assert world.hub.online(ROOM) == {}
    assert world.hub.topics == ()
    world.settle()
    for client in (ann, tablet):
        assert client.closed is not None
        assert (client.closed.code, client.closed.reason) == (code, reason)
    assert set(world.hub.connections) == {observer.conn, silent.conn}
    assert set(world.take_events()) == {
        *(TopicLeft(client.conn, ROOM, reason) for client in (ann, tablet, observer)),
        *(ClientDisconnected(client.conn, reason, code) for client in (ann, tablet)),
    }
    assert jarvis(world, "ann").take()[0]["users"] == []


def test_the_end_of_one_connection_alone() -> None:
    world = World(CONFIG)
    ann, tablet, bob = people(world, "ann", "ann", "bob")
    silent = jarvis(world)
    hub = world.hub
    hub.close_channel("realtime:other", now=world.now, conn=ann.conn)
    hub.close_channel(ROOM, now=world.now, conn=silent.conn)
    hub.close_channel(ROOM, now=world.now, conn=world.open())
    hub.close_channel(ROOM, now=world.now, conn=99)
    world.settle()
    assert len(hub.connections) == 4
    hub.close_channel(ROOM, now=world.now, conn=ann.conn)
    world.settle()
    assert ann.closed is not None
    assert bob.take() == []
    hub.crash_channel(ROOM, now=world.now, conn=tablet.conn)
    world.settle()
    assert bob.take() == [OFFLINE]


def test_a_long_reason_is_cut() -> None:
    world = World()
    (ann,) = people(world, "ann")
    world.hub.close_channel(ROOM, now=world.now, reason="x" * 200)
    world.settle()
    assert ann.closed is not None
    assert ann.closed.reason == "x" * 123


def test_a_reason_must_be_unicode() -> None:
    world = World()
    people(world, "ann")
    with pytest.raises(LocalProtocolError, match="valid Unicode"):
        world.hub.close_channel(ROOM, now=world.now, reason="\ud800")
    assert not world.hub.drain()
    assert list(world.hub.online(ROOM)) == ["ann"]


def test_a_phoenix_connection_that_is_not_in_the_topic_is_left_alone() -> None:
    world = World()
    client = world.connect(PHOENIX)
    world.hub.close_channel(ROOM, now=world.now, conn=client.conn)
    assert not world.hub.drain()


def test_comings_and_goings_are_reported_per_connection() -> None:
    world = World()
    jarvis(world, "bob")
    world.take_events()
    ann = jarvis(world, "ann")
    ann.drop()
    again = jarvis(world, "ann")
    again.close()
    assert [event for event in world.take_events() if isinstance(event, (TopicJoined, TopicLeft))] == [
        TopicJoined(ann.conn, ROOM, "ann"),
        TopicLeft(ann.conn, ROOM, "eof"),
        TopicJoined(again.conn, ROOM, "ann"),
        TopicLeft(again.conn, ROOM, "closed by the client"),
    ]
    world.advance(20)
    assert world.take_events() == []
