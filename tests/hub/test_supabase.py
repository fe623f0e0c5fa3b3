"""Supabase channels: config, presence, broadcasts, tokens, limits."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hub_client import PHOENIX, SUPABASE, SUPABASE_V1, Client, World, known_refs, supabase_join
from presence_proto.events import JoinRefused, TopicJoined, TopicLeft
from presence_proto.hub.config import HubConfig
from presence_proto.hub.phoenix import OVERTAKING
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


@pytest.mark.parametrize("payload", [{"config": None}, {"config": {}}, {"config": {"presence": None}}])
def test_a_config_that_says_nothing_gets_the_defaults(payload: Any) -> None:
    client = World().connect(SUPABASE)
    assert client.join(ROOM, payload) == [["1", "1", ROOM, "phx_reply", JOINED]]


@pytest.mark.parametrize(
    "payload", [{"config": 5}, {"config": {"broadcast": "x"}}, {"config": {"presence": [], "broadcast": {}}}]
)
def test_a_config_of_other_types_crashes_as_supabases_does(payload: Any) -> None:
    world = World()
    client = world.connect(SUPABASE)
    reason = "UnknownErrorOnChannel: no function clause matching in Access.get/3"
    refused = {"status": "error", "response": {"reason": reason}}
    assert client.join(ROOM, payload) == [["1", "1", ROOM, "phx_reply", refused]]
    assert world.take_events()[-1] == JoinRefused(client.conn, ROOM, reason)
    assert world.hub.topics == ()


@pytest.mark.parametrize(
    ("payload", "shown"),
    [(None, "nil"), ([1], "[1]"), ("text", '"text"'), (b"\0\xff", "<<0, 255>>"), ("x" * 200, '"' + "x" * 99)],
)
@pytest.mark.parametrize("target", [SUPABASE, PHOENIX])
def test_a_join_payload_that_is_not_an_object(target: str, payload: Any, shown: str) -> None:
    client = World().connect(target)
    reason = f"UnknownErrorOnChannel: expected params to be a :map, got: `{shown}`"
    refused = {"status": "error", "response": {"reason": reason}}
    assert client.join(ROOM, payload) == [["1", "1", ROOM, "phx_reply", refused]]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("room1", {"schema": "room1"}),
        ("public:t", {"schema": "public", "table": "t"}),
        ("public:t:id=eq.1:2", {"schema": "public", "table": "t", "filter": "id=eq.1:2"}),
    ],
)
def test_a_join_without_a_config_is_of_an_old_client_and_subscribes_to_a_table(
    name: str, change: dict[str, str]
) -> None:
    reply, system = World().connect(SUPABASE).join(f"realtime:{name}", {})
    (answered,) = reply[4]["response"]["postgres_changes"]
    assert answered == {"id": answered["id"], **change}
    assert (system[3], system[4]["message"]) == ("system", "Subscribed to PostgreSQL")


def test_too_many_channels_in_supabases_words() -> None:
    client = World(HubConfig(max_channels=1)).connect(SUPABASE)
    client.join(ROOM, supabase_join())
    reason = "ChannelRateLimitReached: Too many channels"
    refused = {"status": "error", "response": {"reason": reason}}
    assert client.join("realtime:2", supabase_join(), ref="2") == [
        ["2", "2", "realtime:2", "phx_reply", refused]
    ]


def test_the_replication_is_ready_at_once() -> None:
    join = supabase_join("a")
    join["config"]["broadcast"]["replication_ready"] = True
    reply, system, state = World().connect(SUPABASE).join(ROOM, join)
    assert (reply[3], state[3]) == ("phx_reply", "presence_state")
    said = {
        "channel": "room1",
        "extension": "system",
        "message": "Replication connection established",
        "status": "ok",
    }
    assert system == ["1", None, ROOM, "system", said]


# ---------------------------------------------------------------------------------------------- the mount


def test_other_topics_are_unmatched() -> None:
    world = World()
    client = world.connect(SUPABASE)
    unmatched = {"status": "error", "response": {"reason": "unmatched topic"}}
    assert client.join("room:x", {"user_id": "u"}) == [[None, "1", "room:x", "phx_reply", unmatched]]
    assert world.take_events()[-1] == JoinRefused(client.conn, "room:x", "unmatched topic")
    assert world.connect(PHOENIX).join("room:x", {"user_id": "u"})[0][4]["status"] == "ok"


MALFORMED = ["{nonsense", "", "[1,2]", '{"a":1}', "null", "7", b"\0\1", b"\x09" * 20, b""]


@pytest.mark.parametrize("data", MALFORMED)
def test_malformed_messages_are_passed_over(data: str | bytes) -> None:
    _, (_, alice) = room(supabase_join("alice"))
    alice.binary(data) if isinstance(data, bytes) else alice.text(data)
    assert (alice.take(), alice.closed) == ([], None)
    assert track(alice, "2", {"n": 1})[0] == ["1", "2", ROOM, "phx_reply", OK]


@pytest.mark.parametrize("data", MALFORMED)
def test_on_phoenixs_mount_they_close_the_connection(data: str | bytes) -> None:
    client = World().connect(PHOENIX)
    client.join(ROOM, supabase_join("alice"))
    client.binary(data) if isinstance(data, bytes) else client.text(data)
    assert client.closed is not None
    assert client.closed.code == 1011


def test_pushes_with_a_stale_join_ref_are_taken_and_leaves_are_not() -> None:
    world, (_, alice) = room(supabase_join("alice"))
    alice.join(ROOM, supabase_join("alice"), ref="5")
    assert track(alice, "6", {"n": 1}, join_ref="1")[0] == ["5", "6", ROOM, "phx_reply", OK]
    alice.say("1", "7", ROOM, "phx_leave", {})
    assert alice.take() == []
    assert list(world.hub.online(ROOM)) == ["alice"]


def test_on_phoenixs_mount_stale_pushes_are_dropped() -> None:
    client = World().connect(PHOENIX)
    client.join(ROOM, supabase_join("alice"))
    client.join(ROOM, supabase_join("alice"), ref="5")
    assert track(client, "6", {"n": 1}, join_ref="1") == []
    assert track(client, "7", {"n": 1}, join_ref="5")[0] == ["5", "7", ROOM, "phx_reply", OK]


@pytest.mark.parametrize(("target", "code"), [(SUPABASE, 1000), (PHOENIX, 1002)])
def test_the_close_code_of_an_idle_connection_is_the_web_servers(target: str, code: int) -> None:
    world = World(HubConfig(idle_timeout=60))
    client = world.connect(target)
    world.advance(60)
    assert client.closed is not None
    assert client.closed.code == code


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
        {"event": 5},
        {"event": None},
    ],
)
def test_other_calls_are_errors(call: Any) -> None:
    world, (observer, alice) = room(supabase_join("alice"))
    observer.take()
    alice.say("1", "2", ROOM, "presence", call)
    assert alice.take() == [["1", "2", ROOM, "phx_reply", ERROR]]
    assert observer.take() == []
    assert world.hub.online(ROOM) == {}


@pytest.mark.parametrize("payload", ["str", None, [1], 5, True])
def test_what_is_tracked_must_be_a_map(payload: Any) -> None:
    world, (_, alice) = room(supabase_join("alice"))
    refused = {"status": "error", "response": {"reason": "Presence track payload must be a map"}}
    assert track(alice, "2", payload) == [["1", "2", ROOM, "phx_reply", refused]]
    assert world.hub.online(ROOM) == {}


@pytest.mark.parametrize("call", [{"type": "presence"}, {}, "text", None, [1], b"bytes"])
def test_a_call_without_an_event_is_ok_and_not_counted(call: Any) -> None:
    config = HubConfig(presence_limit=1, presence_window=0)
    _, (_, alice) = room(supabase_join("alice"), config=config)
    for ref in ("2", "3"):
        alice.say("1", ref, ROOM, "presence", call)
        assert alice.take() == [["1", ref, ROOM, "phx_reply", OK]]
    assert track(alice, "4", {"n": 1})[0] == ["1", "4", ROOM, "phx_reply", OK]


def test_without_presence_no_state_comes_and_diffs_come_at_once() -> None:
    _, (_, late, other) = room(supabase_join("late", presence=False), supabase_join("other"))
    assert late.take() == []
    track(other, "2", {"n": 1})
    assert [message[3] for message in late.take()] == ["presence_diff"]
    messages = track(late, "2", {"late": 1})
    assert [message[3] for message in messages] == ["phx_reply", "presence_diff"]


def test_on_a_private_channel_diffs_wait_for_the_first_track() -> None:
    private = supabase_join("late", presence=False)
    private["config"]["private"] = True
    _, (_, late, other) = room(private, supabase_join("other"))
    track(other, "2", {"n": 1})
    assert late.take() == []
    track(late, "2", None)  # refused
    track(other, "4", {"n": 3})
    assert late.take() == []
    messages = track(late, "3", {"late": 1})
    assert [message[3] for message in messages] == ["phx_reply", "presence_diff"]
    track(other, "3", {"n": 2})
    assert [message[3] for message in late.take()] == ["presence_diff"]


def test_a_tracked_payload_has_a_size_limit() -> None:
    config = HubConfig(max_meta_size=1005, presence_window=0)  # with the key
    world, (_, alice) = room(supabase_join("alice"), config=config)
    assert track(alice, "2", {"n": "x" * 992})[0] == ["1", "2", ROOM, "phx_reply", OK]
    system, close = track(alice, "3", {"n": "x" * 993})
    assert (system[3], system[4]["message"]) == ("system", "Track message size exceeded")
    assert close == ["1", "1", ROOM, "phx_close", {}]
    assert world.take_events()[-1] == TopicLeft(alice.conn, ROOM, "Track message size exceeded")


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
    assert [message[3] for message in messages] == ["phx_reply", "phx_close", "presence_state"]
    assert messages[2][4] == {}
    assert world.hub.online(ROOM) == {}
    (diff,) = observer.take()
    assert list(diff[4]["leaves"]) == ["alice"]


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


def test_the_limit_is_for_a_fixed_window_from_its_first_call() -> None:
    world, (_, alice) = room(supabase_join("alice"), config=HubConfig(presence_limit=5, presence_window=0))
    assert track(alice, "0", {"n": 0})[0][3] == "phx_reply"
    world.advance(29)
    for number in range(1, 5):
        assert track(alice, str(number), {"n": number})[0][3] == "phx_reply"
    world.advance(1.1)  # a new window: a sliding one would hold five calls
    for number in range(5, 10):
        assert track(alice, str(number), {"n": number})[0][3] == "phx_reply"
    world.advance(29.9)
    assert track(alice, "10", {"n": 10})[0][3] == "system"


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


def test_the_same_token_and_api_keys_are_not_asked_about() -> None:
    asked: list[str | None] = []

    def rule(topic: str, token: str | None) -> str | None:
        asked.append(token)
        return None

    _, (_, alice) = room(supabase_join("alice", access_token="one"), config=HubConfig(authorize=rule))
    asked.clear()
    for token in ("one", "sb_publishable_x", "two", "two", "one"):
        alice.say("1", "2", ROOM, "access_token", {"access_token": token})
    assert asked == ["two", "one"]


def test_the_older_name_of_a_token() -> None:
    config = HubConfig(authorize=lambda topic, token: f"Unauthorized: {token}")
    reply = World(config).connect(SUPABASE).join(ROOM, supabase_join("a", user_token="old"))
    assert reply[0][4]["response"] == {"reason": "Unauthorized: old"}


def test_the_code_of_a_reason_is_for_joins_only() -> None:
    def rule(topic: str, token: str | None) -> str | None:
        return None if token is None else "InvalidJWTToken: Token has expired: 1 second ago"

    _, (_, alice) = room(supabase_join("alice"), config=HubConfig(authorize=rule))
    alice.say("1", "2", ROOM, "access_token", {"access_token": "old"})
    assert alice.take()[0][4]["message"] == "Token has expired: 1 second ago"
    refused = alice.join(ROOM, supabase_join("alice", access_token="old"), ref="3")
    assert refused[0][4]["response"] == {"reason": "InvalidJWTToken: Token has expired: 1 second ago"}


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
    assert alice.take() == []
    world.advance(OVERTAKING)
    assert alice.take() == [["1", "3", ROOM, "phx_reply", OK], ["1", "1", ROOM, "phx_close", {}]]
    (left,) = observer.take()
    assert list(left[4]["leaves"]) == ["alice"]
    assert world.hub.online(ROOM) == {}


def test_a_join_overtakes_the_leave_of_its_topic() -> None:
    world, (observer, alice) = room(supabase_join("alice"))
    track(alice, "2", {"n": 1})
    for client in (observer, alice):
        client.take()
    alice.say("1", "3", ROOM, "phx_leave", {})
    joined = alice.join(ROOM, supabase_join("alice"), ref="4")
    assert [(message[1], message[3]) for message in joined] == [
        ("4", "phx_reply"),
        ("1", "phx_close"),
        (None, "presence_state"),
    ]
    world.advance(1)
    assert alice.take() == []
    assert [message[3] for message in observer.take()] == ["presence_diff"]
    assert world.hub.online(ROOM) == {}


@pytest.mark.parametrize(
    "message", [("phoenix", "heartbeat"), ("realtime:other", "phx_join"), (ROOM, "nonsense")]
)
def test_what_else_follows_a_leave_comes_after_it(message: tuple[str, str]) -> None:
    world, (_, alice) = room(supabase_join("alice"))
    alice.take()
    alice.say("1", "3", ROOM, "phx_leave", {})
    topic, event = message
    alice.say("4", "4", topic, event, {})
    assert [(message[1], message[3]) for message in alice.take()][:2] == [
        ("3", "phx_reply"),
        ("1", "phx_close"),
    ]
    world.advance(1)
    assert "phx_close" not in [message[3] for message in alice.take()]


@pytest.mark.parametrize("how", ["drop", "close channel", "malformed"])
def test_a_leave_that_waits_and_the_end(how: str) -> None:
    world, (_, alice) = room(supabase_join("alice"))
    alice.take()
    alice.say("1", "3", ROOM, "phx_leave", {})
    if how == "drop":
        alice.drop()
    elif how == "malformed":
        alice.text("[")
    else:
        world.hub.close_channel(ROOM, conn=alice.conn, now=world.now)
        world.settle()
        assert [message[3] for message in alice.take()] == ["system", "phx_close"]
    world.advance(1)
    assert [message[3] for message in alice.take()] == (
        ["phx_reply", "phx_close"] if how == "malformed" else []
    )
    assert world.hub.online(ROOM) == {}


# ---------------------------------------------------------------------------------------------- replay


def replaying(replay: Any, *, private: bool) -> dict[str, Any]:
    join = supabase_join("a")
    join["config"]["broadcast"]["replay"] = replay
    join["config"]["private"] = private
    return join


@pytest.mark.parametrize(
    "replay", [{}, {"since": 5, "limit": 100}, {"since": None}, {"limit": False}, None, "x"]
)
def test_a_private_channel_may_ask_for_a_replay_and_the_hub_has_none(replay: Any) -> None:
    client = World().connect(SUPABASE)
    events = [message[3] for message in client.join(ROOM, replaying(replay, private=True))]
    assert events == ["phx_reply", "presence_state"]


@pytest.mark.parametrize(
    ("replay", "private", "reason"),
    [
        ({"since": 5, "limit": 10}, False, "Replay is not allowed for public channels"),
        (None, False, "Replay is not allowed for public channels"),
        ({"since": "yesterday"}, True, "Replay params are not valid"),
        ({"since": 5.0}, True, "Replay params are not valid"),
        ({"limit": True}, True, "Replay params are not valid"),
        ({"limit": [1]}, True, "Replay params are not valid"),
    ],
)
def test_a_replay_is_refused_as_supabase_refuses_it(replay: Any, private: bool, reason: str) -> None:
    client = World().connect(SUPABASE)
    refusal = {"status": "error", "response": {"reason": f"UnableToReplayMessages: {reason}"}}
    assert client.join(ROOM, replaying(replay, private=private)) == [["1", "1", ROOM, "phx_reply", refusal]]


# ------------------------------------------------------------------------------------------ private channels


def private_join(key: str, *, token: str | None = None, **more: Any) -> dict[str, Any]:
    join = supabase_join(key, **more)
    join["config"]["private"] = True
    return join if token is None else {**join, "access_token": token}


def access(topic: str, token: str | None) -> Any:
    """The token names the right: `read`, `write`, or none for any other."""
    return {"read": "read", "write": "write", "odd": True}.get(token or "")


def private_room(token: str) -> tuple[World, Client, Client]:
    world = World(HubConfig(private_rule=access, presence_window=0))
    observer, client = world.connect(SUPABASE), world.connect(SUPABASE)
    observer.join(ROOM, private_join("observer", token="write"))
    client.join(ROOM, private_join("alice", token=token, ack=True))
    return world, observer, client


def test_a_private_channel_for_who_may_write() -> None:
    _, observer, alice = private_room("write")
    assert track(alice, "2", {"n": 1})[0] == ["1", "2", ROOM, "phx_reply", OK]
    alice.say("1", "3", ROOM, "broadcast", {"type": "broadcast", "event": "e", "payload": {}})
    assert alice.take() == [["1", "3", ROOM, "phx_reply", OK]]
    assert [message[3] for message in observer.take()][-2:] == ["presence_diff", "broadcast"]


def test_a_private_channel_for_who_may_only_read() -> None:
    world, observer, alice = private_room("read")
    observer.take()
    assert track(alice, "2", {"n": 1}) == [["1", "2", ROOM, "phx_reply", ERROR]]
    alice.say("1", "3", ROOM, "broadcast", {"type": "broadcast", "event": "e", "payload": {}})
    assert alice.take() == []
    assert observer.take() == []
    alice.say("1", "4", ROOM, "presence", {"event": "untrack"})
    assert alice.take() == [["1", "4", ROOM, "phx_reply", OK]]
    track(observer, "2", {"n": 1})
    assert [message[3] for message in alice.take()] == ["presence_diff"]
    assert list(world.hub.online(ROOM)) == ["observer"]


NO_PERMISSION = "You do not have permissions to read from this Channel topic: room1"


def test_a_private_channel_for_who_may_do_nothing() -> None:
    world = World(HubConfig(private_rule=access))
    client = world.connect(SUPABASE)
    refused = {"status": "error", "response": {"reason": f"Unauthorized: {NO_PERMISSION}"}}
    assert client.join(ROOM, private_join("a")) == [["1", "1", ROOM, "phx_reply", refused]]
    assert world.take_events()[-1] == JoinRefused(client.conn, ROOM, f"Unauthorized: {NO_PERMISSION}")
    assert client.join(ROOM, supabase_join("a"), ref="2")[0][4] == JOINED, "public: the rule is not asked"


def test_without_a_rule_who_is_in_a_private_channel_may_write() -> None:
    world = World()
    client = world.connect(SUPABASE)
    client.join(ROOM, private_join("a"))
    assert track(client, "2", {"n": 1})[0] == ["1", "2", ROOM, "phx_reply", OK]


def test_a_new_token_changes_what_one_may_do() -> None:
    _, _, alice = private_room("read")
    alice.say("1", "2", ROOM, "access_token", {"access_token": "write"})
    assert track(alice, "3", {"n": 1})[0] == ["1", "3", ROOM, "phx_reply", OK]
    alice.say("1", "4", ROOM, "access_token", {"access_token": "read"})
    assert track(alice, "5", {"n": 2})[-1] == ["1", "5", ROOM, "phx_reply", ERROR]
    alice.say("1", "6", ROOM, "access_token", {"access_token": "none"})
    system, close = alice.take()
    assert (system[4]["message"], close[3]) == (NO_PERMISSION, "phx_close")


def test_a_rule_that_answers_something_else_is_a_crash() -> None:
    world = World(HubConfig(private_rule=access))
    client = world.connect(SUPABASE)
    refused = {"status": "error", "response": {"reason": "join crashed"}}
    assert client.join(ROOM, private_join("a", token="odd")) == [["1", "1", ROOM, "phx_reply", refused]]
    reason = "join crashed (the private rule returned True)"
    assert world.take_events()[-1] == JoinRefused(client.conn, ROOM, reason)


# ------------------------------------------------------------------------------------------ sizes


@pytest.mark.parametrize("ack", [True, False])
@pytest.mark.parametrize("kind", ["text", "binary"])
def test_a_broadcast_has_a_size_limit(kind: str, ack: bool) -> None:
    config = HubConfig(max_payload_size=1000, presence_window=0)
    _, (observer, alice) = room(supabase_join("alice", ack=ack), config=config)
    observer.take()

    def say(ref: str, size: int) -> None:
        payload: Any = {"type": "broadcast", "event": "e", "payload": {"x": "y" * size}}
        alice.say(
            "1",
            ref,
            ROOM,
            "broadcast",
            UserBroadcast("e", {"x": "y" * size}) if kind == "binary" else payload,
        )

    say("2", 800)
    assert alice.take() == ([["1", "2", ROOM, "phx_reply", OK]] if ack else [])
    assert [message[3] for message in observer.take()] == ["broadcast"]
    say("3", 1000)
    exceeded = {"status": "error", "response": "payload_size_exceeded"}
    assert alice.take() == ([["1", "3", ROOM, "phx_reply", exceeded]] if ack else [])
    assert (observer.take(), alice.closed) == ([], None)
