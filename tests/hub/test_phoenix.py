"""What one Phoenix connection may say, and what it is answered."""

from __future__ import annotations

from typing import Any

import pytest

from hub_client import PHOENIX, PHOENIX_V1, World, supabase_join
from presence_proto.events import ClientDisconnected, JoinRefused, TopicJoined, TopicLeft
from presence_proto.hub.config import HubConfig

UNMATCHED = {"status": "error", "response": {"reason": "unmatched topic"}}
OK = {"status": "ok", "response": {}}


def test_heartbeats_echo_the_ref_and_no_join_ref() -> None:
    client = World().connect()
    for ref in ("7", None, 8):
        client.say("any", ref, "phoenix", "heartbeat", {"x": 1})
        assert client.take() == [[None, ref, "phoenix", "phx_reply", OK]]


def test_the_topic_phoenix_is_the_socket_itself() -> None:
    client = World().connect()
    client.say("1", "1", "phoenix", "phx_join", {})
    client.say(None, "2", "phoenix", "foo", {})
    client.say("3", "3", "phoenix", "phx_leave", {})
    assert client.take() == [
        [None, "1", "phoenix", "phx_reply", UNMATCHED],
        [None, "2", "phoenix", "phx_reply", UNMATCHED],
        [None, "3", "phoenix", "phx_reply", OK],
    ]


def test_a_topic_that_was_not_joined() -> None:
    client = World().connect()
    client.say("1", "1", "room:x", "ping", {})
    client.say(None, "2", "room:x", "phx_leave", {})
    client.say("3", "3", "room:x", "phx_leave", {})
    assert client.take() == [
        [None, "1", "room:x", "phx_reply", UNMATCHED],
        [None, "2", "room:x", "phx_reply", OK],
        ["3", "3", "room:x", "phx_reply", OK],
    ]


@pytest.mark.parametrize("join_ref", ["1", None, 77])
def test_leave(join_ref: str | int | None) -> None:
    world = World()
    client = world.connect()
    client.say(join_ref, "1", "room:x", "phx_join", {"user_id": "u"})
    client.take()
    client.say(join_ref, "2", "room:x", "phx_leave", {})
    assert client.take() == [
        [join_ref or "1", "2", "room:x", "phx_reply", OK],
        [join_ref, join_ref, "room:x", "phx_close", {}],
    ]
    assert world.hub.topics == ()
    assert world.take_events()[1:] == [
        TopicJoined(client.conn, "room:x", "u"),
        TopicLeft(client.conn, "room:x", "left"),
    ]


def test_a_join_without_join_ref() -> None:
    # Phoenix answers the join with null, and says everything else with the join's ref.
    client = World().connect()
    client.say(None, "1", "room:x", "phx_join", {})
    client.say(None, "2", "room:x", "hello", {})
    client.say("1", "3", "room:x", "hello", {})
    client.say("2", "4", "room:x", "hello", {})
    assert client.take() == [
        [None, "1", "room:x", "phx_reply", OK],
        ["1", None, "room:x", "presence_state", {}],
        ["1", "2", "room:x", "phx_reply", OK],
        ["1", "3", "room:x", "phx_reply", OK],
    ]


def test_stale_join_refs_get_no_answer() -> None:
    world = World()
    client = world.connect()
    client.join("room:x", {"user_id": "u"})
    client.join("room:x", {"user_id": "u"}, ref="2")
    for event in ("hello", "track", "phx_leave"):
        client.say("1", "9", "room:x", event, {})
    assert client.take() == []
    assert world.hub.topics == ("room:x",)
    client.say("2", "10", "room:x", "hello", {})
    assert client.take() == [["2", "10", "room:x", "phx_reply", OK]]


def test_a_string_ref_is_not_its_number() -> None:
    client = World().connect()
    client.say(77, 77, "room:x", "phx_join", {})
    client.take()
    client.say("77", 78, "room:x", "hello", {})
    assert client.take() == []
    client.say(77, 78, "room:x", "hello", {})
    assert client.take() == [[77, 78, "room:x", "phx_reply", OK]]


def test_a_duplicate_join_begins_a_new_life() -> None:
    world = World()
    other, client = world.connect(), world.connect()
    other.join("room:x", {"user_id": "other"})
    client.join("room:x", {"user_id": "u", "dev": 1})
    other.take()
    old = world.hub.online("room:x")["u"][0]
    messages = client.join("room:x", {"user_id": "u", "dev": 2}, ref="2")
    new = world.hub.online("room:x")["u"][0]
    state = {"other": {"metas": list(world.hub.online("room:x")["other"])}}
    diff = {"joins": {"u": {"metas": [new]}}, "leaves": {"u": {"metas": [old]}}}
    assert messages == [
        ["2", "2", "room:x", "phx_reply", OK],
        ["1", "1", "room:x", "phx_close", {}],
        ["2", None, "room:x", "presence_state", state],
        [None, None, "room:x", "presence_diff", diff],
    ]
    assert other.take() == [[None, None, "room:x", "presence_diff", diff]]
    assert world.take_events()[-2:] == [
        TopicLeft(client.conn, "room:x", "joined again"),
        TopicJoined(client.conn, "room:x", "u"),
    ]


def test_a_duplicate_join_that_is_refused_ends_the_old_life_too() -> None:
    world = World(HubConfig(authorize=lambda topic, token: None if token == "good" else "unauthorized"))
    client = world.connect()
    client.join("room:x", {"access_token": "good"})
    assert client.join("room:x", {}, ref="2") == [
        ["2", "2", "room:x", "phx_reply", {"status": "error", "response": {"reason": "unauthorized"}}],
        ["1", "1", "room:x", "phx_close", {}],
    ]
    assert world.hub.topics == ()
    assert world.take_events()[-2:] == [
        JoinRefused(client.conn, "room:x", "unauthorized"),
        TopicLeft(client.conn, "room:x", "joined again, and refused"),
    ]


def test_too_many_channels() -> None:
    world = World(HubConfig(max_channels=2))
    client = world.connect()
    for number in ("1", "2"):
        client.join("room:" + number, {}, ref=number)
    assert client.join("room:3", {}, ref="3") == [
        [
            "3",
            "3",
            "room:3",
            "phx_reply",
            {"status": "error", "response": {"reason": "too many channels joined"}},
        ]
    ]
    assert client.join("room:2", {}, ref="4")[0][4] == OK  # a duplicate join adds none
    client.say("1", "5", "room:1", "phx_leave", {})
    client.take()
    assert client.join("room:3", {}, ref="6")[0][4] == OK
    assert World(HubConfig(max_channels=2)).connect().join("room:1", {})[0][4] == OK


@pytest.mark.parametrize("payload", [[1, 2], None, "text", 5])
def test_a_join_payload_that_is_no_object(payload: Any) -> None:
    world = World()
    client = world.connect()
    crashed = {"status": "error", "response": {"reason": "join crashed"}}
    assert client.join("room:y", payload) == [["1", "1", "room:y", "phx_reply", crashed]]
    reason = "join crashed (the payload is not an object)"
    assert world.take_events()[-1] == JoinRefused(client.conn, "room:y", reason)
    assert world.hub.topics == ()


def test_one_connection_in_both_kinds_of_channels() -> None:
    world = World()
    client = world.connect()
    client.join("room:a", {"user_id": "u"}, ref="1")
    client.join("realtime:a", supabase_join("u"), ref="2")
    assert world.hub.topics == ("room:a", "realtime:a")
    client.drop()
    assert world.hub.topics == ()
    assert world.take_events()[-3:] == [
        TopicLeft(client.conn, "room:a", "eof"),
        TopicLeft(client.conn, "realtime:a", "eof"),
        ClientDisconnected(client.conn, "eof", 1006),
    ]


@pytest.mark.parametrize(
    ("target", "frame"),
    [
        (PHOENIX, ""),
        (PHOENIX, "{not json"),
        (PHOENIX, '{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"9"}'),
        (PHOENIX, '["1","2","room:x"]'),
        (PHOENIX, '["1",true,"room:x","e",{}]'),
        (PHOENIX, "[" * 5000),
        (PHOENIX, b""),
        (PHOENIX, b"\xff\x01\x02"),
        (PHOENIX, b"\x00\x01\x01\x06"),
        (PHOENIX, b"\x04\x01\x01\x00\x00ab"),
        (PHOENIX_V1, '[null,"9","phoenix","heartbeat",{}]'),
        (PHOENIX_V1, b"\x00\x00\x00\x00\x00"),
    ],
)
def test_malformed_messages_close_1011(target: str, frame: str | bytes) -> None:
    world = World()
    client, other = world.connect(target), world.connect()
    client.join("room:x", {"user_id": "u"})
    other.join("room:x", {})
    if isinstance(frame, str):
        client.text(frame)
    else:
        client.binary(frame)
    assert client.closed is not None
    assert (client.closed.code, client.closed.reason) == (1011, "malformed message")
    (left,) = other.take()
    assert list(left[4]["leaves"]) == ["u"]
    event = world.take_events()[-1]
    assert isinstance(event, ClientDisconnected)
    assert event.code == 1011
    assert event.reason.startswith("malformed message: ")
    assert world.hub.connections == (other.conn,)


@pytest.mark.parametrize("max_nesting", [20, 100])
def test_what_nests_too_deeply_is_malformed(max_nesting: int) -> None:
    # What comes in may have five levels less than what goes out: presence wraps what is tracked.
    for depth, is_fine in ((max_nesting - 6, True), (max_nesting - 5, False), (980, False), (100_000, False)):
        world = World(HubConfig(max_nesting=max_nesting))
        client, other = world.connect(), world.connect()
        for each in (client, other):
            each.join("room:x", {})
        client.text('["1","2","room:x","e",' + "[" * depth + "]" * depth + "]")
        assert other.closed is None
        if is_fine:
            assert client.closed is None
            assert [message[3] for message in other.take()] == ["e"]
        else:
            assert client.closed is not None
            assert client.closed.code == 1011
            assert other.take() == []


def test_more_elements_than_five_are_ignored() -> None:
    client = World().connect()
    client.text('["1","1","phoenix","heartbeat",{},"extra"]')
    assert client.take() == [[None, "1", "phoenix", "phx_reply", OK]]


def test_nothing_is_read_after_a_malformed_message() -> None:
    world = World()
    client = world.connect()
    bad = b"\x81\x82\0\0\0\0{]"
    join = client.bytes_of("1", "1", "room:x", "phx_join", {"user_id": "u"})
    world.receive(client.conn, bad + join)
    assert client.closed is not None
    assert world.hub.topics == ()
    assert client.take() == []
