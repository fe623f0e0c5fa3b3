"""Supabase channels: config, presence, broadcasts, tokens, limits."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hub_client import SUPABASE, SUPABASE_V1, Client, World, known_refs, supabase_join
from presence_proto.config import HubConfig
from presence_proto.events import JoinRefused, TopicJoined, TopicLeft
from presence_proto.serializer import UserBroadcast

ROOM = "realtime:room1"
OK = {"status": "ok", "response": {}}
ERROR = {"status": "error", "response": {}}
JOINED = {"status": "ok", "response": {"postgres_changes": []}}


def track(client: Client, ref: str, payload: Any, join_ref: str = "1") -> list[list[Any]]:
    client.say(join_ref, ref, ROOM, "presence", {"type": "presence", "event": "track", "payload": payload})
    return client.take()


def room(*joins: dict[str, Any], config: HubConfig | None = None) -> tuple[World, list[Client]]:
    """A V1 observer, and a V2 client for each join payload."""
    world = World(config)
    observer = world.connect(SUPABASE_V1)
    observer.join(ROOM, supabase_join("observer"))
    clients = [world.connect(SUPABASE) for _ in joins]
    for client, payload in zip(clients, joins, strict=True):
        client.join(ROOM, payload)
    return world, [observer, *clients]


# ---------------------------------------------------------------------------------------------- joins


def test_the_reply_and_then_the_presence() -> None:
    world = World()
    client = world.connect(SUPABASE)
    assert client.join(ROOM, supabase_join("alice")) == [
        ["1", "1", ROOM, "phx_reply", JOINED],
        ["1", None, ROOM, "presence_state", {}],
    ]
    assert world.hub.online(ROOM) == {}
    assert world.take_events()[-1] == TopicJoined(client.conn, ROOM, "alice")


@pytest.mark.parametrize("enabled", [True, "true", "TRUE", "1"])
def test_booleans_may_be_strings(enabled: Any) -> None:
    client = World().connect(SUPABASE)
    join = supabase_join("a", presence=enabled, ack=enabled, echo=enabled)
    assert [message[3] for message in client.join(ROOM, join)] == ["phx_reply", "presence_state"]
    client.say("1", "2", ROOM, "broadcast", {"type": "broadcast", "event": "e", "payload": {}})
    assert [message[3] for message in client.take()] == ["broadcast", "phx_reply"]


@pytest.mark.parametrize("enabled", [False, "false", "0", "no", 1, None, [], {}])
def test_anything_else_is_false(enabled: Any) -> None:
    client = World().connect(SUPABASE)
    join = supabase_join("a", presence=enabled, ack=enabled, echo=enabled)
    assert client.join(ROOM, join) == [["1", "1", ROOM, "phx_reply", JOINED]]
    client.say("1", "2", ROOM, "broadcast", {"type": "broadcast", "event": "e", "payload": {}})
    assert client.take() == []


@pytest.mark.parametrize("payload", [{}, {"config": None}, {"config": {"presence": [], "broadcast": 5}}])
def test_a_config_that_says_nothing_gets_the_defaults(payload: Any) -> None:
    client = World().connect(SUPABASE)
    assert client.join(ROOM, payload) == [["1", "1", ROOM, "phx_reply", JOINED]]


@pytest.mark.parametrize("key", ["", None, 5])
def test_without_a_key_the_hub_makes_one(key: Any) -> None:
    world, (_, first, second) = room(supabase_join(key), supabase_join(key))
    track(first, "2", {"n": 1})
    track(second, "2", {"n": 2})
    keys = list(world.hub.online(ROOM))
    assert len(keys) == 2
    for made in keys:
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made)


def test_a_topic_needs_a_name() -> None:
    world = World()
    client = world.connect(SUPABASE)
    reason = "TopicNameRequired: You must provide a topic name"
    assert client.join("realtime:", supabase_join()) == [
        ["1", "1", "realtime:", "phx_reply", {"status": "error", "response": {"reason": reason}}]
    ]
    assert world.take_events()[-1] == JoinRefused(client.conn, "realtime:", reason)


def test_postgres_changes_get_ids_and_a_confirmation() -> None:
    changes = [
        {"event": "*", "schema": "public", "table": "t"},
        "junk",
        {"event": "INSERT", "schema": "public"},
    ]
    client = World().connect(SUPABASE)
    reply, state, system = client.join(ROOM, supabase_join("a", postgres_changes=changes))
    first, second = reply[4]["response"]["postgres_changes"]
    assert first == {"id": first["id"], "event": "*", "schema": "public", "table": "t"}
    assert second == {"id": second["id"], "event": "INSERT", "schema": "public"}
    assert len({first["id"], second["id"]}) == 2
    assert state[3] == "presence_state"
    said = {
        "channel": "room1",
        "extension": "postgres_changes",
        "message": "Subscribed to PostgreSQL",
        "status": "ok",
    }
    assert system == ["1", None, ROOM, "system", said]
    again = World().connect(SUPABASE).join(ROOM, supabase_join("b", postgres_changes=changes))
    assert again[0] == reply


def test_postgres_changes_that_are_no_list() -> None:
    client = World().connect(SUPABASE)
    assert client.join(ROOM, supabase_join(postgres_changes={"a": 1}))[0] == [
        "1",
        "1",
        ROOM,
        "phx_reply",
        JOINED,
    ]


# ---------------------------------------------------------------------------------------------- presence


def test_track_reply_then_diff() -> None:
    _, (observer, alice) = room(supabase_join("alice"))
    observer.take()
    messages = track(alice, "2", {"user": "alice", "n": 1})
    joins = {"alice": {"metas": [{"phx_ref": "ref1", "user": "alice", "n": 1}]}}
    assert known_refs(messages) == [
        ["1", "2", ROOM, "phx_reply", OK],
        [None, None, ROOM, "presence_diff", {"joins": joins, "leaves": {}}],
    ]
    assert observer.take() == messages[1:]


def test_another_payload_is_an_update_and_the_same_is_nothing() -> None:
    world, (observer, alice) = room(supabase_join("alice"))
    track(alice, "2", {"n": 1, "deep": {"a": [1]}})
    observer.take()
    assert track(alice, "3", {"deep": {"a": [1]}, "n": 1}) == [["1", "3", ROOM, "phx_reply", OK]]
    assert observer.take() == []
    (before,) = world.hub.online(ROOM)["alice"]
    reply, diff = track(alice, "4", {"n": 2})
    assert reply == ["1", "4", ROOM, "phx_reply", OK]
    (after,) = world.hub.online(ROOM)["alice"]
    assert after == {"phx_ref": after["phx_ref"], "phx_ref_prev": before["phx_ref"], "n": 2}
    sides = {"joins": {"alice": {"metas": [after]}}, "leaves": {"alice": {"metas": [before]}}}
    assert diff == [None, None, ROOM, "presence_diff", sides]
    assert observer.take() == [diff]
    assert track(alice, "5", {"n": 2, "phx_ref": "x"}) == [["1", "5", ROOM, "phx_reply", OK]]


def test_true_is_not_one() -> None:
    world, (_, alice) = room(supabase_join("alice"))
    track(alice, "2", {"n": 1})
    track(alice, "3", {"n": True})
    assert world.hub.online(ROOM)["alice"][0]["n"] is True


def test_untrack() -> None:
    world, (observer, alice) = room(supabase_join("alice"))
    track(alice, "2", {"n": 1})
    observer.take()
    alice.say("1", "3", ROOM, "presence", {"event": "untrack"})  # the type is optional
    reply, diff = alice.take()
    assert reply == ["1", "3", ROOM, "phx_reply", OK]
    assert list(diff[4]["leaves"]) == ["alice"]
    assert observer.take() == [diff]
    assert world.hub.online(ROOM) == {}
    alice.say("1", "4", ROOM, "presence", {"event": "untrack"})
    assert alice.take() == [["1", "4", ROOM, "phx_reply", OK]]


def test_the_event_may_be_in_capitals_and_the_payload_missing() -> None:
    world, (_, alice) = room(supabase_join("alice"))
    alice.say("1", "2", ROOM, "presence", {"event": "TRACK"})
    (meta,) = world.hub.online(ROOM)["alice"]
    assert list(meta) == ["phx_ref"]


@pytest.mark.parametrize(
    "call",
    [
        {"type": "presence", "event": "nonsense"},
        {"type": "presence"},
        {"event": 5},
        {"event": "track", "payload": "str"},
        {"event": "track", "payload": None},
        {"event": "track", "payload": [1]},
        "text",
        None,
        b"bytes",
    ],
)
def test_other_calls_are_errors(call: Any) -> None:
    world, (observer, alice) = room(supabase_join("alice"))
    observer.take()
    alice.say("1", "2", ROOM, "presence", call)
    assert alice.take() == [["1", "2", ROOM, "phx_reply", ERROR]]
    assert observer.take() == []
    assert world.hub.online(ROOM) == {}


def test_presence_disabled_no_state_and_no_diff_until_we_track() -> None:
    _, (_, late, other) = room(supabase_join("late", presence=False), supabase_join("other"))
    assert late.take() == []
    track(other, "2", {"n": 1})
    assert late.take() == []
    messages = track(late, "2", {"late": 1})
    assert [message[3] for message in messages] == ["phx_reply", "presence_diff"]
    track(other, "3", {"n": 2})
    assert [message[3] for message in late.take()] == ["presence_diff"]


def test_the_state_holds_who_tracked_and_nobody_else() -> None:
    world, (_, alice, _) = room(supabase_join("alice"), supabase_join("silent"))
    track(alice, "2", {"n": 1})
    carol = world.connect(SUPABASE)
    state = carol.join(ROOM, supabase_join("carol"))[1]
    assert state[4] == {"alice": {"metas": list(world.hub.online(ROOM)["alice"])}}


def test_a_rejoin_forgets_what_was_tracked() -> None:
    world, (observer, alice) = room(supabase_join("alice"))
    track(alice, "2", {"n": 1})
    observer.take()
    messages = alice.join(ROOM, supabase_join("alice"), ref="3")
    assert [message[3] for message in messages] == [
        "phx_reply",
        "phx_close",
        "presence_state",
        "presence_diff",
    ]
    assert messages[2][4] == {}
    assert world.hub.online(ROOM) == {}


# ---------------------------------------------------------------------------------------------- the limit


def test_more_presence_calls_than_the_limit_close_the_channel() -> None:
    config = HubConfig(presence_limit=5, presence_window=0)
    world, (observer, alice) = room(supabase_join("alice"), config=config)
    for ref in "23456":
        assert track(alice, ref, {"n": 1})[0] == ["1", ref, ROOM, "phx_reply", OK]
        world.advance(5.99)
    observer.take()
    said = {
        "channel": "room1",
        "extension": "system",
        "message": "Client presence rate limit exceeded",
        "status": "error",
    }
    assert track(alice, "7", {"n": 2}) == [
        ["1", None, ROOM, "system", said],
        ["1", "1", ROOM, "phx_close", {}],
    ]
    (left,) = observer.take()
    assert list(left[4]["leaves"]) == ["alice"]
    assert world.take_events()[-1] == TopicLeft(alice.conn, ROOM, "Client presence rate limit exceeded")
    unmatched = {"status": "error", "response": {"reason": "unmatched topic"}}
    assert track(alice, "8", {"n": 3}) == [[None, "8", ROOM, "phx_reply", unmatched]]
    assert alice.closed is None
    alice.join(ROOM, supabase_join("alice"), ref="9")
    assert track(alice, "10", {"n": 4}, join_ref="9")[0] == ["9", "10", ROOM, "phx_reply", OK]


def test_calls_of_one_moment_are_counted_each() -> None:
    _, (_, alice) = room(supabase_join("alice"), config=HubConfig(presence_limit=5, presence_window=0))
    for ref in "23456":
        assert track(alice, ref, {"n": 1})[0][3] == "phx_reply"
    assert [message[3] for message in track(alice, "7", {"n": 1})] == ["system", "phx_close"]


def test_the_limit_is_for_any_30_seconds() -> None:
    world, (_, alice) = room(supabase_join("alice"), config=HubConfig(presence_limit=5, presence_window=0))
    for number in range(12):
        assert track(alice, str(number), {"n": number})[0][3] == "phx_reply"
        world.advance(6)


# ---------------------------------------------------------------------------------------------- broadcasts


def test_a_broadcast_goes_to_the_others() -> None:
    _, (observer, alice, bob) = room(supabase_join("alice"), supabase_join("bob"))
    said = {"type": "broadcast", "event": "cursor", "payload": {"x": 1}}
    alice.say("1", "2", ROOM, "broadcast", said)
    assert alice.take() == []
    for each in (observer, bob):
        assert each.take() == [[None, None, ROOM, "broadcast", said]]


def test_self_and_ack_the_broadcast_first() -> None:
    _, (_, alice) = room(supabase_join("alice", ack=True, echo=True))
    said = {"type": "broadcast", "event": "cursor", "payload": {"x": 1}}
    alice.say("1", "2", ROOM, "broadcast", said)
    assert alice.take() == [
        [None, None, ROOM, "broadcast", said],
        ["1", "2", ROOM, "phx_reply", OK],
    ]


def test_kind_3_becomes_kind_4_and_json_for_v1() -> None:
    world, (observer, alice, bob) = room(supabase_join("alice", ack=True, echo=True), supabase_join("bob"))
    plain = world.connect(SUPABASE_V1)
    plain.join(ROOM, supabase_join("v1", presence=False))
    alice.binary(bytes.fromhex("0301020e060001") + b"118" + b"realtime:room1cursor" + b'{"x":3}')
    frame = bytes.fromhex("040e060001") + b'realtime:room1cursor{"x":3}'
    assert bob.frames[-1].data == frame
    assert alice.frames[-2].data == frame
    assert alice.take()[-1] == ["1", "18", ROOM, "phx_reply", OK]
    said = {"type": "broadcast", "event": "cursor", "payload": {"x": 3}}
    assert observer.take() == plain.take() == [[None, None, ROOM, "broadcast", said]]


def test_binary_data_reaches_v2_only() -> None:
    _, (observer, alice, bob) = room(supabase_join("alice"), supabase_join("bob"))
    alice.say("1", "2", ROOM, "broadcast", UserBroadcast("raw", b"\x00\x01\x02", {"k": "v"}))
    assert bob.take() == [[None, None, ROOM, "broadcast", UserBroadcast("raw", b"\x00\x01\x02")]]
    assert observer.take() == []


def test_metadata_of_the_sender_goes_no_further() -> None:
    _, (observer, alice) = room(supabase_join("alice"))
    observer.take()
    alice.say("1", "2", ROOM, "broadcast", UserBroadcast("e", {"x": 1}, {"k": "v"}))
    said = {"type": "broadcast", "event": "e", "payload": {"x": 1}}
    assert observer.take() == [[None, None, ROOM, "broadcast", said]]


def test_v1_sends_to_v2() -> None:
    _, (observer, bob) = room(supabase_join("bob"))
    said = {"type": "broadcast", "event": "e", "payload": {}}
    observer.say("1", "2", ROOM, "broadcast", said)
    assert bob.take() == [[None, None, ROOM, "broadcast", said]]


@pytest.mark.parametrize("event", ["shout", "presence_diff", "system", "track", "phx_close"])
def test_other_events_go_nowhere(event: str) -> None:
    _, (observer, alice) = room(supabase_join("alice", ack=True))
    observer.take()
    alice.say("1", "2", ROOM, event, {})
    assert alice.take() == []
    assert observer.take() == []


# ---------------------------------------------------------------------------------------------- tokens


def authorize(topic: str, token: str | None) -> str | None:
    if token == "bug":
        raise RuntimeError("token " + token)
    if topic == "realtime:private-only":
        return "Unauthorized: You do not have permissions to read from this Channel topic: private-only"
    return "Token has expired 1 seconds ago" if token == "expired" else None


def test_a_join_may_be_refused() -> None:
    client = World(HubConfig(authorize=authorize)).connect(SUPABASE)
    reason = "Unauthorized: You do not have permissions to read from this Channel topic: private-only"
    assert client.join("realtime:private-only", supabase_join("x", access_token="jwt")) == [
        ["1", "1", "realtime:private-only", "phx_reply", {"status": "error", "response": {"reason": reason}}]
    ]


@pytest.mark.parametrize("payload", [{"access_token": "new"}, {"access_token": None}, {}, "text", None])
def test_a_good_token_or_none_gets_no_answer(payload: Any) -> None:
    world, (_, alice) = room(supabase_join("alice"), config=HubConfig(authorize=authorize))
    alice.say("1", "2", ROOM, "access_token", payload)
    assert alice.take() == []
    assert len(world.hub.topics) == 1


def test_without_a_rule_every_token_is_good() -> None:
    _, (_, alice) = room(supabase_join("alice"))
    alice.say("1", "2", ROOM, "access_token", {"access_token": "expired"})
    assert alice.take() == []


def test_a_bad_token_closes_the_channel_and_says_why() -> None:
    world, (_, alice) = room(supabase_join("alice"), config=HubConfig(authorize=authorize))
    alice.say("1", "2", ROOM, "access_token", {"access_token": "expired"})
    said = {
        "channel": "room1",
        "extension": "system",
        "message": "Token has expired 1 seconds ago",
        "status": "error",
    }
    assert alice.take() == [["1", None, ROOM, "system", said], ["1", "1", ROOM, "phx_close", {}]]
    assert world.take_events()[-1] == TopicLeft(alice.conn, ROOM, "Token has expired 1 seconds ago")


def test_a_rule_that_fails_on_a_token_is_a_crash() -> None:
    world, (_, alice) = room(supabase_join("alice"), config=HubConfig(authorize=authorize))
    alice.say("1", "2", ROOM, "access_token", {"access_token": "bug"})
    assert alice.take() == [["1", "1", ROOM, "phx_error", {"reason": "channel_crash"}]]
    assert world.take_events()[-1] == TopicLeft(alice.conn, ROOM, "crashed (RuntimeError in a rule)")


def test_leave() -> None:
    world, (observer, alice) = room(supabase_join("alice"))
    track(alice, "2", {"n": 1})
    observer.take()
    alice.say("1", "3", ROOM, "phx_leave", {})
    assert alice.take() == [["1", "3", ROOM, "phx_reply", OK], ["1", "1", ROOM, "phx_close", {}]]
    (left,) = observer.take()
    assert list(left[4]["leaves"]) == ["alice"]
    assert world.hub.online(ROOM) == {}
