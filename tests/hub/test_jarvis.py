"""One connection of the Jarvis JSON protocol: what it may say, and what it is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hub_client import World, masked
from jarvis_client import CONFIG, NOON, ONLINE, ROOM, jarvis, people, supabase
from presence_proto.events import ClientConnected, ClientDisconnected, TopicJoined, TopicLeft
from presence_proto.hub.config import HubConfig

# ---------------------------------------------------------------------------------------------- the messages


def test_connect_and_welcome() -> None:
    world = World(CONFIG)
    ann = jarvis(world, "ann", "Ann A.")
    assert ann.take() == [{"type": "welcome", "your_id": "ann", "users": []}]
    bob = jarvis(world, "bob")
    assert bob.take() == [
        {
            "type": "welcome",
            "your_id": "bob",
            "users": [{"user_id": "ann", "display_name": "Ann A.", **ONLINE}],
        }
    ]
    assert ann.take() == [{"type": "user_online", "user_id": "bob", "display_name": "Bob", "ts": NOON}]
    assert world.take_events() == [
        ClientConnected(ann.conn, "/"),
        TopicJoined(ann.conn, ROOM, "ann"),
        ClientConnected(bob.conn, "/"),
        TopicJoined(bob.conn, ROOM, "bob"),
    ]
    ((key, (meta,)), _) = world.hub.online(ROOM).items()
    assert (key, meta) == (
        "ann",
        {"phx_ref": meta["phx_ref"], "user_id": "ann", "display_name": "Ann A.", **ONLINE, "online_at": NOON},
    )


def test_without_a_wall_clock_no_time_is_made_up() -> None:
    world = World()
    ann = jarvis(world, "ann")
    jarvis(world, "bob")
    assert ann.take()[-1] == {"type": "user_online", "user_id": "bob", "display_name": "Bob", "ts": None}
    assert "online_at" not in world.hub.online(ROOM)["ann"][0]


@pytest.mark.parametrize("fields", [{}, {"display_name": None}, {"display_name": ""}])
def test_who_has_no_name_is_called_by_the_id(fields: dict[str, Any]) -> None:
    world = World()
    jarvis(world).tell("connect", user_id="ann", **fields)
    assert world.hub.online(ROOM)["ann"][0]["display_name"] == "ann"


def test_ping_counts_everybody() -> None:
    world = World()
    ann, _, _ = people(world, "ann", "bob", "bob")
    assert ann.tell("ping") == [{"type": "pong", "online_count": 2}]


def test_activities() -> None:
    world = World(CONFIG)
    ann, tablet, bob = people(world, "ann", "ann", "bob")
    assert ann.tell("activity_update", status="in_game", activity="Snake") == []
    changed = {"user_id": "ann", "display_name": "Ann", "status": "in_game", "activity": "Snake", "ts": NOON}
    assert bob.take() == [{"type": "activity_changed", **changed}]
    assert tablet.take() == []
    assert jarvis(world, "cid").take()[0]["users"][0] == {
        "user_id": "ann",
        "display_name": "Ann",
        "status": "in_game",
        "activity": "Snake",
    }
    bob.take()
    ann.tell("activity_update", status="in_game", activity="Snake")
    assert bob.take() == []
    ann.tell("activity_update", status="away")
    assert bob.take() == [{"type": "activity_changed", **changed, "status": "away", "activity": None}]


def test_invites() -> None:
    world = World(CONFIG)
    ann, tablet, bob, cid, phone = people(world, "ann", "ann", "bob", "cid", "cid")
    assert ann.tell("game_invite", game="snake", code="XY") == [
        {"type": "invite_sent", "game": "snake", "code": "XY", "sent_to": ["Bob", "Cid"]}
    ]
    invite = {"type": "game_invite", "user_id": "ann", "display_name": "Ann", "game": "snake", "ts": NOON}
    for other in (bob, cid, phone):
        assert other.take() == [{**invite, "code": "XY"}]
    assert tablet.take() == []
    assert ann.tell("game_invite", game="snake")[0]["code"] is None
    assert bob.take() == [{**invite, "code": None}]


def test_an_invite_that_nobody_hears() -> None:
    (ann,) = people(World(), "ann")
    assert ann.tell("game_invite", game="g", code="")[0]["sent_to"] == []


def test_pokes_reach_their_target_only() -> None:
    world = World(CONFIG)
    ann, bob, phone, cid = people(world, "ann", "bob", "bob", "cid")
    for target in ("bob", "nobody"):
        assert ann.tell("poke", target_user_id=target) == []
    for device in (bob, phone):
        assert device.take() == [{"type": "poke", "user_id": "ann", "display_name": "Ann", "ts": NOON}]
    assert cid.take() == []


def test_the_sender_is_who_connected_whatever_the_message_says() -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    lie = {"user_id": "cid", "display_name": "Cid", "your_id": "cid"}
    ann.tell("activity_update", status="idle", activity=None, **lie)
    ann.tell("game_invite", game="g", code="c", **lie)
    ann.tell("poke", target_user_id="bob", **lie)
    assert [(m["type"], m["user_id"], m["display_name"]) for m in bob.take()] == [
        ("activity_changed", "ann", "Ann"),
        ("game_invite", "ann", "Ann"),
        ("poke", "ann", "Ann"),
    ]
    assert list(world.hub.online(ROOM)) == ["ann", "bob"]


def test_disconnect_closes_the_connection_in_order() -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    ann.tell("disconnect")
    assert ann.closed is not None
    assert (ann.closed.code, ann.closed.clean) == (1000, True)
    assert world.take_events() == [
        TopicLeft(ann.conn, ROOM, "left"),
        ClientDisconnected(ann.conn, "left", 1000),
    ]
    world.advance(9.9)
    assert bob.take() == []
    world.advance(0.1)
    assert bob.take() == [{"type": "user_offline", "user_id": "ann", "display_name": "Ann", "ts": NOON}]


# ---------------------------------------------------------------------------------------------- errors


DEEP = '{"type":"activity_update","status":"idle","metadata":' + "[" * 5000 + "]" * 5000 + "}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "a message is malformed"),
        ("{", "a message is malformed"),
        ('{"type":"ping"} {}', "a message is malformed"),
        ('{"type":"\\ud800"}', "a message is malformed"),
        ("[]", "it must be an object, not an array"),
        ("null", "it must be an object, not null"),
        ('"ping"', "it must be an object, not a string"),
        ('{"a":' + "[" * 100_000, r"more than 50000 elements \(see max_elements\)"),
        (DEEP, "nested more than 95 levels deep"),
        ("{}", "must have a type"),
        ('{"type":1}', "must have a type"),
        ('{"type":"welcome"}', "no message of the type 'welcome'"),
        ('{"type":"' + "x" * 1000 + '"}', "no message of the type '" + "x" * 40 + "'"),
        ('["1","1","room:x","phx_join",{}]', "it must be an object, not an array"),
        ('{"type":"connect"}', "connect must have a non-empty string user_id"),
        ('{"type":"connect","user_id":""}', "connect must have a non-empty string user_id"),
        ('{"type":"connect","user_id":7}', "connect must have a non-empty string user_id"),
        ('{"type":"connect","user_id":"a","display_name":7}', "display_name of connect must be a string"),
        ('{"type":"connect","user_id":"ann","access_token":7}', "access_token of connect must be a string"),
        ('{"type":"connect","user_id":"bob"}', "must not change the user_id"),
        ('{"type":"activity_update"}', "activity_update must have a non-empty string status"),
        (
            '{"type":"activity_update","status":"dead"}',
            "status must be one of online, idle, in_game, .* 'dead'",
        ),
        ('{"type":"activity_update","status":"idle","activity":[]}', "activity of activity_update must be a"),
        ('{"type":"game_invite"}', "game_invite must have a non-empty string game"),
        ('{"type":"game_invite","game":"g","code":1}', "code of game_invite must be a string"),
        ('{"type":"poke"}', "poke must have a non-empty string target_user_id"),
    ],
)
def test_what_makes_no_sense_is_an_error_and_nothing_else(text: str, fault: str) -> None:
    world = World(CONFIG)
    ann, cid = people(world, "ann", "cid")
    before = world.hub.online(ROOM)
    ann.text(text)
    (error,) = ann.take()
    assert error.keys() == {"type", "message"}
    assert error["type"] == "error"
    with pytest.raises(ValueError, match=fault):
        raise ValueError(error["message"])
    assert len(error["message"]) < 200
    assert cid.take() == world.take_events() == []
    assert world.hub.online(ROOM) == before
    assert ann.tell("ping") == [{"type": "pong", "online_count": 2}]


@pytest.mark.parametrize("kind", ["ping", "activity_update", "game_invite", "poke", "disconnect"])
def test_nothing_goes_before_connect(kind: str) -> None:
    world = World()
    client = jarvis(world)
    fields = {"status": "idle", "game": "g", "target_user_id": "t", "user_id": "u"}
    assert client.tell(kind, **fields) == [{"type": "error", "message": f"{kind} must come after connect"}]
    assert client.closed is None
    assert world.hub.topics == ()


def test_metadata_that_can_be_read_can_be_told() -> None:
    # In a message it is one level down, in the diff that tells others of it six.
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    client = supabase(world, "cy")
    for each in (client, ann, bob):
        each.take()
    for depth in (93, 94, 95, 980, 10_000):
        text = '{"type":"activity_update","status":"idle","activity":"%d","metadata":%s}'
        nested = "[" * depth + "]" * depth
        ann.text(text % (depth, nested))
        errors = [message["type"] for message in ann.take()]
        told = [message["type"] for message in bob.take()]
        world.advance(1.0)
        diffs = [message for message in client.take() if message[3] == "presence_diff"]
        if depth <= 94:
            assert (errors, told) == ([], ["activity_changed"])
            assert diffs[0][4]["joins"]["ann"]["metas"][0]["metadata"] == json.loads(nested)
        else:
            assert (errors, told, diffs) == (["error"], [], [])
    assert world.hub.online(ROOM)["ann"][0]["activity"] == "94"
    assert bob.tell("ping")[-1]["type"] == "pong"


def test_a_second_connect() -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    users = [{"user_id": "bob", "display_name": "Bob", **ONLINE}]
    assert ann.tell("connect", user_id="ann", display_name="Ann") == [
        {"type": "welcome", "your_id": "ann", "users": users}
    ]
    assert bob.take() == []
    ann.tell("connect", user_id="ann", display_name="Anna")
    changed = {"user_id": "ann", "display_name": "Anna", **ONLINE, "ts": NOON}
    assert bob.take() == [{"type": "activity_changed", **changed}]
    assert world.take_events() == []
    ann.drop()
    assert [type(event) for event in world.take_events()] == [TopicLeft, ClientDisconnected]


def test_a_flood_of_errors_is_bounded() -> None:
    world = World()
    ann, bob = people(world, "ann", "bob")
    for _ in range(3):  # a word that makes sense makes up for it
        for _ in range(100):
            ann.text("{")
        assert ann.tell("ping")[-1]["type"] == "pong"
    frames = b"".join(masked(b"{") for _ in range(10_000))
    world.receive(ann.conn, frames)
    assert [message["type"] for message in ann.take()] == ["error"] * 101
    assert ann.closed is not None
    assert (ann.closed.code, ann.closed.reason) == (1008, "too many errors")
    assert bob.take() == []


def test_binary_frames_close() -> None:
    world = World()
    ann, bob = people(world, "ann", "bob")
    ann.binary(b'{"type":"ping"}')
    assert ann.take() == []
    assert ann.closed is not None
    assert (ann.closed.code, ann.closed.reason) == (1003, "binary message")
    assert bob.tell("ping") == [{"type": "pong", "online_count": 2}]  # in its grace


def test_messages_that_are_too_large_close() -> None:
    world = World(HubConfig(max_message_size=1000))
    (ann,) = people(world, "ann")
    ann.tell("activity_update", status="idle", activity="x" * 1000)
    assert ann.closed is not None
    assert ann.closed.code == 1009
    assert list(world.hub.online(ROOM)) == ["ann"]
    world.advance(10)
    assert world.hub.online(ROOM) == {}
