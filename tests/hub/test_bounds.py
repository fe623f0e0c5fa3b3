"""How much the hub keeps for its clients: one meta, a topic, a connection, and all together."""

from __future__ import annotations

from typing import Any

import pytest

from hub_client import PHOENIX, SUPABASE, Client, World, joined, supabase_join
from jarvis_client import ROOM as JARVIS_ROOM
from jarvis_client import jarvis, people, supabase
from presence_proto.events import TopicLeft
from presence_proto.hub.authorization import Allow
from presence_proto.hub.channels import CHANNEL_COST
from presence_proto.hub.config import HubConfig
from presence_proto.hub.topic import LARGE_DIFF, META_COST

ROOM = "realtime:room"
PLAIN = "room:x"
OK = {"status": "ok", "response": {}}


def meta(size: int) -> dict[str, str]:
    """A meta of so many bytes as JSON."""
    return {"n": "x" * (size - 8)}


def at_once(**limits: Any) -> World:
    return World(HubConfig(presence_window=0, **limits))


def member(world: World, key: str, topic: str = ROOM) -> Client:
    client = world.connect(SUPABASE)
    client.join(topic, supabase_join(key))
    client.take()
    return client


def track(client: Client, meta: dict[str, Any], topic: str = ROOM, ref: str = "2") -> Any:
    """What a Supabase client hears of its track, in short."""
    client.say("1", ref, topic, "presence", {"type": "presence", "event": "track", "payload": meta})
    told = [message for message in client.take() if message[3] != "presence_diff"]
    if [message[3] for message in told] == ["system", "phx_close"]:
        return told[0][4]["message"]
    [reply] = told
    return reply[4]


def online(world: World, topic: str = ROOM) -> list[str]:
    return list(world.hub.online(topic))


# ------------------------------------------------------------------------------------------ one meta


@pytest.mark.parametrize("key", ["a", "\u00e4\u00f6", '"\n'])
def test_a_meta_has_a_size_and_its_key_counts(key: str) -> None:
    world = at_once(max_meta_size=1000)
    room = 1000 - {"a": 1, "\u00e4\u00f6": 4, '"\n': 4}[key]
    client = member(world, key)
    assert track(client, meta(room)) == OK
    assert track(client, {"phx_ref": "not counted", "n": "y" * (room - 8)}) == OK
    assert track(client, meta(room + 1)) == "Track message size exceeded"
    assert online(world) == []
    assert world.take_events()[-1] == TopicLeft(client.conn, ROOM, "Track message size exceeded")


def test_a_plain_track_of_too_much_is_an_error_and_the_meta_stays() -> None:
    world = at_once(max_meta_size=1000)
    [client] = joined(world, PHOENIX)
    client.say("1", "2", PLAIN, "track", meta(998))
    client.take()
    client.say("1", "3", PLAIN, "track", meta(999))
    [[_, _, _, _, reply]] = client.take()
    reason = "a meta and its key have at most 1000 bytes, not 1001"
    assert reply == {"status": "error", "response": {"reason": reason}}
    [(kept,)] = world.hub.online(PLAIN).values()
    assert kept["n"] == meta(998)["n"]


def test_a_plain_join_with_too_much_is_refused_and_the_earlier_life_ends() -> None:
    world = at_once(max_meta_size=1000)
    client = world.connect()
    join = {"user_id": "a"}
    assert client.join(PLAIN, join | meta(999))[0][4]["status"] == "ok"
    refusal = client.join(PLAIN, join | meta(1000), ref="2")[0][4]
    reason = "a meta and its key have at most 1000 bytes, not 1001"
    assert refusal == {"status": "error", "response": {"reason": reason}}
    assert world.hub.topics == ()


def test_the_default_lets_64_kib_in() -> None:
    world = at_once()
    client = member(world, "a")
    assert track(client, meta(64 * 1024 - 1)) == OK
    assert track(client, meta(64 * 1024)) == "Track message size exceeded"


# ------------------------------------------------------------------------------------------ sums


def test_a_topic_holds_so_much_and_nobody_loses_anything() -> None:
    one = 1001 + META_COST
    world = at_once(max_topic_size=3 * one)
    members = [member(world, key) for key in "abcd"]
    for client in members[:3]:
        assert track(client, meta(1000)) == OK
    words = f"Track refused: this topic is full, at {3 * one} bytes"
    assert track(members[3], meta(10)) == words
    assert online(world) == ["a", "b", "c"]
    # Who is in may change, and who goes makes room.
    assert track(members[0], {"n": "y" * 992}, ref="3") == OK
    late = member(world, "e")
    members[1].drop()
    assert track(late, meta(1000)) == OK
    assert track(member(world, "f", "realtime:other"), meta(1000), "realtime:other") == OK


def test_untracking_makes_room() -> None:
    world = at_once(max_topic_size=1001 + META_COST)
    ann, bob = member(world, "a"), member(world, "b")
    assert track(ann, meta(1000)) == OK
    ann.say("1", "3", ROOM, "presence", {"type": "presence", "event": "untrack"})
    assert track(bob, meta(1000)) == OK


@pytest.mark.parametrize("target", [PHOENIX, SUPABASE])
def test_a_connection_has_so_much_kept(target: str) -> None:
    room = 10 * (CHANNEL_COST + 100 + META_COST + 1010)
    world = at_once(max_connection_size=room)
    client = world.connect(target)
    kept = 0
    for number in range(20):
        topic = f"realtime:{number}" if target == SUPABASE else f"room:{number}"
        answer = client.join(topic, supabase_join("a") | {"user_id": "a"})[0][4]
        if answer["status"] != "ok":
            assert answer["response"] == {"reason": f"this connection is full, at {room} bytes"}
            continue
        if target == SUPABASE:
            kept += track(client, meta(1000), topic) == OK
        else:
            client.say("1", "2", topic, "track", meta(1000))
            kept += client.take()[0][4]["status"] == "ok"
    assert kept == 10
    assert track(member(world, "b"), meta(1000)) == OK


def test_leaving_gives_everything_back() -> None:
    world = at_once(max_connection_size=3000, max_total_size=3000)
    client = world.connect(SUPABASE)
    for number in range(50):
        client.join(ROOM, supabase_join("a"), ref=str(number))
        client.say(str(number), "9", ROOM, "presence", {"event": "track", "payload": meta(1000)})
        assert client.take()[-2][4] == OK
        client.say(str(number), "x", ROOM, "phx_leave", {})
        client.take()
    client.drop()
    assert track(member(world, "b"), meta(1000)) == OK


@pytest.mark.parametrize("target", [PHOENIX, SUPABASE])
def test_joining_again_needs_no_room_for_two(target: str) -> None:
    topic = ROOM if target == SUPABASE else PLAIN
    world = at_once(max_connection_size=2000, max_topic_size=2000, max_total_size=2000)
    client = world.connect(target)
    for ref in "123":
        join = supabase_join("a") | {"user_id": "a"} | (meta(1000) if target == PHOENIX else {})
        assert client.join(topic, join, ref=ref)[0][4]["status"] == "ok"
        if target == SUPABASE:
            client.say(ref, "9", topic, "presence", {"event": "track", "payload": meta(1000)})
            client.take()
        assert online(world, topic) == ["a"]


def test_names_of_channels_count() -> None:
    world = at_once(max_connection_size=100_000, max_total_size=150_000)
    client = world.connect(SUPABASE)
    topics = [f"realtime:{number}{'x' * 30_000}" for number in range(5)]
    answers = [client.join(topic, supabase_join("a"))[0][4]["status"] for topic in topics]
    assert answers == ["ok", "ok", "ok", "error", "error"]
    other = world.connect(SUPABASE)
    key = other.join("realtime:a", supabase_join("k" * 70_000))[0][4]
    assert key["response"] == {"reason": "this hub is full, at 150000 bytes"}
    client.drop()
    assert other.join("realtime:a", supabase_join("k" * 70_000))[0][4]["status"] == "ok"
    ref = "r" * 70_000
    other.say(ref, ref, "realtime:b", "phx_join", supabase_join("k"))
    assert other.take()[-1][4]["status"] == "error"


def test_a_plain_join_has_room_for_both_its_names_and_its_meta() -> None:
    """Else the meta would be refused when the join is answered already."""
    for room in range(1000, 2500, 7):
        world = at_once(max_connection_size=room)
        client = world.connect()
        answer = client.join(PLAIN, {"user_id": "a"} | meta(1000))[0][4]["status"]
        assert client.closed is None
        assert online(world, PLAIN) == (["a"] if answer == "ok" else [])


def test_all_connections_together_have_so_much_kept() -> None:
    room = 3 * (CHANNEL_COST + 30 + META_COST + 1010)
    world = at_once(max_total_size=room)
    members = [member(world, key, f"realtime:{key}") for key in "abcd"]
    told = [track(client, meta(1000), f"realtime:{key}") for key, client in zip("abcd", members, strict=True)]
    # The channel that is closed makes room for the last one's meta.
    assert told == [OK, OK, f"Track refused: this hub is full, at {room} bytes", OK]
    assert online(world, "realtime:a") == ["a"]


# ------------------------------------------------------------------------------------------ diffs


def test_a_large_diff_goes_out_in_parts_one_in_each_window() -> None:
    world = World(HubConfig(presence_window=1.0))
    observer, *members = [member(world, str(number)) for number in range(13)]
    world.advance(1.0)
    for client in members:
        track(client, {"n": 1})
    world.advance(1.0)
    [[_, _, _, _, first]] = observer.take()
    assert len(first["joins"]) == 12
    for client in members:
        track(client, meta(50_000))
    seen: dict[str, Any] = {}
    while world.hub.waiting:
        world.advance(1.0)
        [[_, _, _, event, diff]] = observer.take()
        assert event == "presence_diff"
        assert len(str(diff)) < LARGE_DIFF
        # An update is one: nobody is away in between, or there twice.
        assert diff["joins"].keys() == diff["leaves"].keys()
        assert not diff["joins"].keys() & seen.keys()
        seen |= diff["joins"]
    assert list(seen) == [str(number) for number in range(1, 13)]
    world.advance(10.0)
    assert observer.take() == []


def test_a_key_with_much_presence_is_told_in_one() -> None:
    world = World(HubConfig(presence_window=1.0))
    observer, *members = [member(world, "same") for _ in range(7)]
    late = member(world, "late")
    for client in [*members, late]:
        track(client, meta(60_000))
    observer.take()
    world.advance(1.0)
    assert [list(message[4]["joins"]) for message in observer.take()] == [["same"]]
    world.advance(1.0)
    assert [list(message[4]["joins"]) for message in observer.take()] == [["late"]]


def test_one_key_with_much_presence_leaves_nothing_to_wait() -> None:
    world = World(HubConfig(presence_window=1.0))
    observer, *members = [member(world, "same") for _ in range(7)]
    for client in members:
        track(client, meta(60_000))
    observer.take()
    world.advance(1.0)
    [[_, _, _, _, diff]] = observer.take()
    assert len(diff["joins"]["same"]["metas"]) == 6
    assert not world.hub.waiting


def test_who_waits_for_a_later_part_is_not_heard_before_it() -> None:
    world = World(HubConfig(presence_window=1.0))
    observer, *members = [member(world, str(number)) for number in range(8)]
    for client in members:
        track(client, meta(60_000))
    world.advance(1.0)
    assert len(observer.take()) == 1
    for client in (members[0], members[-1]):  # one who was told, and one who was not
        client.say("1", "5", ROOM, "broadcast", {"type": "broadcast", "event": "e", "payload": {}})
    assert [message[3] for message in observer.take()] == ["broadcast", "presence_diff", "broadcast"]
    world.advance(10.0)
    assert observer.take() == []


def test_what_came_and_went_within_the_window_does_not_make_a_diff_large() -> None:
    world = World(HubConfig(presence_window=1.0))
    observer, client, other = member(world, "o"), member(world, "c"), member(world, "d")
    for number in range(10):
        track(client, {"n": str(number) * 60_000})
    track(other, {"n": 1})
    assert observer.take() == []
    world.advance(1.0)
    [[_, _, _, _, diff]] = observer.take()
    assert list(diff["joins"]) == ["c", "d"]
    assert world.hub.waiting == ()


# ------------------------------------------------------------------------------------------ Jarvis


@pytest.mark.parametrize(
    ("kind", "field", "size"),
    [
        ("connect", "user_id", 256),
        ("connect", "display_name", 256),
        ("poke", "target_user_id", 256),
        ("activity_update", "activity", 1024),
        ("game_invite", "game", 1024),
        ("game_invite", "code", 1024),
    ],
)
@pytest.mark.parametrize("letter", ["x", "\u00e4"])
def test_names_and_texts_are_bounded_in_bytes(kind: str, field: str, size: int, letter: str) -> None:
    world = at_once()
    needed = {
        "connect": {"user_id": "ann", "display_name": "Ann"},
        "poke": {},
        "activity_update": {"status": "online"},
        "game_invite": {"game": "Snake"},
    }[kind]
    client = jarvis(world, None if kind == "connect" else "ann")
    client.take()
    count = size // len(letter.encode())
    [error] = client.tell(kind, **needed | {field: letter * (count + 1)})
    assert error == {"type": "error", "message": f"{field} has more than {size} bytes"}
    if kind == "connect":
        assert online(world, JARVIS_ROOM) == []
    told = client.tell(kind, **needed | {field: letter * count})
    assert "error" not in [message["type"] for message in told]


def test_the_limits_of_names_and_texts_are_in_the_config() -> None:
    world = at_once(max_name_size=3, max_text_size=5)
    ann = jarvis(world, "ann", "Ann")
    assert ann.take()[0]["type"] == "welcome"
    assert jarvis(world, "anna", "Ann").take()[0]["message"] == "user_id has more than 3 bytes"
    [error] = ann.tell("activity_update", status="online", activity="Snakes")
    assert error["message"] == "activity has more than 5 bytes"


def test_metadata_is_bounded_as_metas_are() -> None:
    world = at_once(max_meta_size=1000)
    ann, bob = people(world, "ann", "bob")
    [error] = ann.tell("activity_update", status="idle", metadata={"n": "x" * 1000})
    assert error["message"].startswith("a meta and its key have at most 1000 bytes, not ")
    assert bob.take() == []
    assert world.hub.online(JARVIS_ROOM)["ann"][0]["status"] == "online"


def test_a_full_topic_lets_no_new_user_in_and_those_inside_stay() -> None:
    world = at_once(max_topic_size=3 * 400)
    ann, *_ = people(world, "ann", "bob", "cid")
    late = jarvis(world, "dan")
    assert late.take() == [{"type": "error", "message": "this topic is full, at 1200 bytes"}]
    assert online(world, JARVIS_ROOM) == ["ann", "bob", "cid"]
    assert ann.take() == []
    ann.tell("disconnect")
    assert late.tell("connect", user_id="dan")[0]["type"] == "welcome"


def test_the_first_user_for_whom_there_is_no_room_leaves_nothing_behind() -> None:
    world = at_once(max_topic_size=100)
    assert jarvis(world, "ann").take()[0]["type"] == "error"
    assert world.hub.topics == ()


def test_a_user_who_changes_the_name_stays_when_there_is_no_room_for_it() -> None:
    world = at_once(max_meta_size=110)
    [ann] = people(world, "ann")
    [error] = ann.tell("connect", user_id="ann", display_name="x" * 200)
    assert error["type"] == "error"
    assert world.hub.online(JARVIS_ROOM)["ann"][0]["display_name"] == "Ann"


def test_absent_users_are_bounded_in_bytes() -> None:
    world = at_once(max_topic_size=100_000)
    users = people(world, *[f"u{number}" for number in range(30)])
    for user in users:
        user.tell("activity_update", status="online", metadata={"n": "x" * 2000})
        user.drop()
    # A quarter of the topic, so that the absent cannot keep others out.
    assert len(online(world, JARVIS_ROOM)) == 100_000 // 4 // 2400
    world.advance(10.0)
    assert online(world, JARVIS_ROOM) == []
    assert world.hub.topics == ()


def test_users_who_came_back_are_not_absent() -> None:
    world = at_once(max_topic_size=10_000)
    for _ in range(10):
        ann = jarvis(world, "ann")
        ann.tell("activity_update", status="online", metadata={"n": "x" * 1000})
        ann.drop()
        assert online(world, JARVIS_ROOM) == ["ann"]


@pytest.mark.parametrize("field", ["activity", "display_name"])
def test_the_roster_keeps_no_long_claim(field: str) -> None:
    world = at_once(max_name_size=10, max_text_size=10)
    [ann] = people(world, "ann")
    sue = supabase(world, "sue")
    ann.take()
    for size in (11, 10):
        claim = {"user_id": "sue", "display_name": "Sue", "status": "idle", "activity": None}
        payload = {"event": "activity_update", "payload": claim | {field: "x" * size}}
        sue.say("1", "3", JARVIS_ROOM, "broadcast", {"type": "broadcast", **payload})
        assert [message["type"] for message in ann.take()] == ["activity_changed"] * (size == 10)


def test_a_key_that_was_asked_for_in_vain_counts() -> None:
    world = at_once(max_connection_size=50_000, authorize=lambda request: Allow(key="you"))
    client = world.connect(SUPABASE)
    key = "k" * 30_000
    assert client.join("realtime:a", supabase_join(key))[0][4]["status"] == "ok"
    assert client.join("realtime:b", supabase_join(key))[0][4]["status"] == "error"
    assert client.join("realtime:b", supabase_join("you"))[0][4]["status"] == "ok"
