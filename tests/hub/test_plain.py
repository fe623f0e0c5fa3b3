"""Plain Phoenix channels: presence by a rule, and everything else relayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hub_client import PHOENIX_V1, Client, World, known_refs
from presence_proto.events import JoinRefused, TopicJoined
from presence_proto.hub.config import HubConfig
from presence_proto.serializer import UserBroadcast

OK = {"status": "ok", "response": {}}


def diff(joins: Any = None, leaves: Any = None, topic: str = "room:x") -> list[Any]:
    def entries(metas: Any) -> dict[str, Any]:
        return {key: {"metas": [meta]} for key, meta in (metas or {}).items()}

    return [None, None, topic, "presence_diff", {"joins": entries(joins), "leaves": entries(leaves)}]


def pair(config: HubConfig | None = None) -> tuple[World, Client, Client]:
    """Alice, and a V1 observer without presence."""
    world = World(config)
    observer, alice = world.connect(PHOENIX_V1), world.connect()
    observer.join("room:x", {})
    alice.join("room:x", {"user_id": "alice", "name": "Alice"})
    observer.take()
    return world, alice, observer


def test_join_the_reply_the_state_without_us_the_diff_with_us() -> None:
    world = World()
    alice, bob = world.connect(), world.connect(PHOENIX_V1)
    assert known_refs(alice.join("room:x", {"user_id": "alice", "name": "Alice"})) == [
        ["1", "1", "room:x", "phx_reply", OK],
        ["1", None, "room:x", "presence_state", {}],
        diff({"alice": {"phx_ref": "ref1", "name": "Alice"}}),
    ]
    messages = bob.join("room:x", {"user_id": "bob"})
    assert known_refs(messages) == [
        [None, "1", "room:x", "phx_reply", OK],
        [
            None,
            None,
            "room:x",
            "presence_state",
            {"alice": {"metas": [{"phx_ref": "ref1", "name": "Alice"}]}},
        ],
        diff({"bob": {"phx_ref": "ref2"}}),
    ]
    assert alice.take() == messages[2:]


def test_track_updates_with_one_diff_that_has_both_sides() -> None:
    _, alice, observer = pair()
    alice.say("1", "2", "room:x", "track", {"status": "away"})
    reply, told = alice.take()
    ref = reply[4]["response"]["ref"]
    assert reply == ["1", "2", "room:x", "phx_reply", {"status": "ok", "response": {"ref": ref}}]
    new, old = told[4]["joins"]["alice"]["metas"][0], told[4]["leaves"]["alice"]["metas"][0]
    assert new == {"phx_ref": ref, "phx_ref_prev": old["phx_ref"], "status": "away"}
    assert old == {"phx_ref": old["phx_ref"], "name": "Alice"}
    assert told == diff({"alice": new}, {"alice": old})
    assert observer.take() == [told]


def test_the_same_payload_again_is_an_update_too() -> None:
    _, alice, observer = pair()
    for ref in ("2", "3"):
        alice.say("1", ref, "room:x", "track", {"status": "away"})
    assert len(observer.take()) == 2


def test_untrack_and_track_afresh() -> None:
    world, alice, observer = pair()
    alice.say("1", "2", "room:x", "untrack", {})
    assert known_refs(alice.take()) == [
        ["1", "2", "room:x", "phx_reply", OK],
        diff(None, {"alice": {"phx_ref": "ref1", "name": "Alice"}}),
    ]
    assert world.hub.online("room:x") == {}
    alice.say("1", "3", "room:x", "untrack", {})
    assert alice.take() == [["1", "3", "room:x", "phx_reply", OK]]
    observer.take()
    alice.say("1", "4", "room:x", "track", {"status": "again"})
    response = {"fresh": True, "ref": "ref1"}
    assert known_refs(alice.take()) == [
        ["1", "4", "room:x", "phx_reply", {"status": "ok", "response": response}],
        diff({"alice": {"phx_ref": "ref1", "status": "again"}}),
    ]


def test_refs_in_a_payload_are_ours_to_give() -> None:
    world, alice, _ = pair()
    alice.say("1", "2", "room:x", "untrack", {})
    alice.say("1", "3", "room:x", "track", {"phx_ref": "stolen", "phx_ref_prev": "stolen", "a": 1})
    (meta,) = world.hub.online("room:x")["alice"]
    assert meta == {"phx_ref": meta["phx_ref"], "a": 1}
    assert meta["phx_ref"] != "stolen"


def test_who_has_no_presence_cannot_track() -> None:
    world, alice, observer = pair()
    observer.say("1", "2", "room:x", "track", {"a": 1})
    observer.say("1", "3", "room:x", "untrack", {})
    assert observer.take() == [
        [None, "2", "room:x", "phx_reply", {"status": "error", "response": {"reason": "no presence"}}],
        [None, "3", "room:x", "phx_reply", OK],
    ]
    assert list(world.hub.online("room:x")) == ["alice"]
    assert alice.take() == []


@pytest.mark.parametrize("payload", ["text", None, [1], b"bytes"])
def test_a_meta_must_be_an_object(payload: Any) -> None:
    _, alice, observer = pair()
    alice.say("1", "2", "room:x", "track", payload)
    response = {"reason": "payload is not an object"}
    assert alice.take() == [["1", "2", "room:x", "phx_reply", {"status": "error", "response": response}]]
    assert observer.take() == []


@pytest.mark.parametrize("payload", [{"text": "hi"}, "text", None, [1, 2.5], 12345678901234567890])
def test_any_other_event_is_relayed(payload: Any) -> None:
    _, alice, observer = pair()
    alice.say("1", "2", "room:x", "shout", payload)
    assert alice.take() == [["1", "2", "room:x", "phx_reply", OK]]
    assert observer.take() == [[None, None, "room:x", "shout", payload]]
    observer.say("1", "2", "room:x", "answer", payload)
    assert observer.take() == [[None, "2", "room:x", "phx_reply", OK]]
    assert alice.take() == [[None, None, "room:x", "answer", payload]]


def test_binary_pushes_reach_v2_only() -> None:
    world, alice, observer = pair()
    bob = world.connect()
    bob.join("room:x", {})
    alice.take()
    alice.binary(bytes([0, 1, 1, 6, 5]) + b"12room:xshout" + b"\x00\xff")
    assert alice.take() == [["1", "2", "room:x", "phx_reply", OK]]
    assert observer.take() == []
    frame = bob.frames[-1]
    assert frame.data == bytes([2, 6, 5]) + b"room:xshout" + b"\x00\xff"
    assert bob.take()[-1] == [None, None, "room:x", "shout", b"\x00\xff"]


def test_a_supabase_binary_broadcast_is_relayed_as_such() -> None:
    world, alice, observer = pair()
    bob = world.connect()
    bob.join("room:x", {})
    bob.take()
    alice.say("1", "2", "room:x", "broadcast", UserBroadcast("cursor", {"x": 3}))
    assert bob.take() == [[None, None, "room:x", "broadcast", UserBroadcast("cursor", {"x": 3})]]
    said = {"type": "broadcast", "event": "cursor", "payload": {"x": 3}}
    assert observer.take() == [[None, None, "room:x", "broadcast", said]]


@pytest.mark.parametrize(
    "event", ["presence_diff", "presence_state", "phx_close", "phx_error", "phx_reply", "phx_anything"]
)
def test_nobody_can_speak_for_the_hub(event: str) -> None:
    _, alice, observer = pair()
    alice.say("1", "2", "room:x", event, {"joins": {}, "leaves": {}})
    response = {"status": "error", "response": {"reason": "reserved event"}}
    assert alice.take() == [["1", "2", "room:x", "phx_reply", response]]
    assert observer.take() == []


def test_several_devices_of_one_key() -> None:
    world = World()
    phone, tablet = world.connect(), world.connect()
    phone.join("room:x", {"user_id": "alice", "device": "phone"})
    tablet.join("room:x", {"user_id": "alice", "device": "tablet"})
    assert [meta["device"] for meta in world.hub.online("room:x")["alice"]] == ["phone", "tablet"]
    phone.say("1", "2", "room:x", "track", {"device": "phone", "status": "away"})
    assert [meta["device"] for meta in world.hub.online("room:x")["alice"]] == ["tablet", "phone"]
    tablet.take()
    phone.drop()
    (left,) = tablet.take()
    assert [meta["status"] for meta in left[4]["leaves"]["alice"]["metas"]] == ["away"]
    third = world.connect()
    state = third.join("room:x", {})[1][4]
    assert [meta["device"] for meta in state["alice"]["metas"]] == ["tablet"]


# ---------------------------------------------------------------------------------------------- rules


def test_the_rule_sees_topic_and_params() -> None:
    asked = []

    def rule(topic: str, params: Any) -> tuple[str, Mapping[str, Any]]:
        asked.append((topic, params))
        return params["who"] + "@" + topic, {"seen": True}

    world = World(HubConfig(presence_rule=rule))
    client = world.connect()
    client.join("room:x", {"who": "ann", "more": [1]})
    assert asked == [("room:x", {"who": "ann", "more": [1]})]
    (meta,) = world.hub.online("room:x")["ann@room:x"]
    assert meta["seen"] is True
    assert world.take_events()[-1] == TopicJoined(client.conn, "room:x", "ann@room:x")


def _fails(topic: str, params: Any) -> Any:
    raise KeyError("secret from the params")


@pytest.mark.parametrize(
    ("rule", "detail"),
    [
        (_fails, "(KeyError in a rule)"),
        (lambda topic, params: "no tuple", "(the presence rule did not return a key and a meta)"),
        (lambda topic, params: (1, {}), "(the presence rule did not return a key and a meta)"),
        (lambda topic, params: ("k", 5), "(the presence rule did not return a key and a meta)"),
        (lambda topic, params: ("k", {"a": object()}), "(the presence rule did not return a key and a meta)"),
        (lambda topic, params: ("\ud800", {}), "(the presence rule did not return a key and a meta)"),
    ],
)
def test_a_rule_that_fails_is_a_crash_in_the_join(rule: Any, detail: str) -> None:
    world = World(HubConfig(presence_rule=rule))
    client = world.connect()
    crashed = {"status": "error", "response": {"reason": "join crashed"}}
    assert client.join("room:x", {}) == [["1", "1", "room:x", "phx_reply", crashed]]
    assert world.take_events()[-1] == JoinRefused(client.conn, "room:x", "join crashed " + detail)
    assert world.hub.topics == ()
    client.say(None, "2", "phoenix", "heartbeat", {})
    assert client.take() == [[None, "2", "phoenix", "phx_reply", OK]]


def test_authorize_is_asked_with_the_token_of_the_params() -> None:
    asked = []

    def authorize(topic: str, token: str | None) -> str | None:
        asked.append((topic, token))
        return None if token else "unauthorized"

    client = World(HubConfig(authorize=authorize)).connect()
    refused = {"status": "error", "response": {"reason": "unauthorized"}}
    assert client.join("room:private", {}) == [["1", "1", "room:private", "phx_reply", refused]]
    assert client.join("room:private", {"access_token": 5})[0][4] == refused
    assert client.join("room:private", {"access_token": "jwt"})[0][4] == OK
    assert asked == [("room:private", None), ("room:private", None), ("room:private", "jwt")]


def test_authorize_is_asked_with_the_token_of_the_connection_when_the_params_have_none() -> None:
    """As `connect/3` of Phoenix gets it: in the URL, or as the `authToken` of phoenix.js, which wins."""
    asked: list[str | None] = []

    def authorize(topic: str, token: str | None) -> str | None:
        asked.append(token)
        return None

    world = World(HubConfig(authorize=authorize))
    bearer = ("phoenix", "base64url.bearer.phx.MTIzNA")
    for target, offered, token in (
        ("/socket/websocket?token=of-the-url", (), "of-the-url"),
        ("/socket/websocket", bearer, "1234"),
        ("/socket/websocket?token=of-the-url", bearer, "1234"),
        ("/socket/websocket?token=of-the-url", ("phoenix", "base64url.bearer.phx.!"), "of-the-url"),
        ("/socket/websocket", bearer[1:], None),  # Phoenix takes it beside its own name only
    ):
        client = world.connect(target + ("&" if "?" in target else "?") + "vsn=2.0.0", subprotocols=offered)
        client.join("room:a", {})
        client.join("room:b", {"access_token": "of-the-join"})
        client.join("room:c", {"access_token": None})
        assert asked == [token, "of-the-join", None]
        asked.clear()


def test_a_supabase_topic_knows_the_token_of_its_join_only() -> None:
    asked: list[str | None] = []

    def authorize(topic: str, token: str | None) -> str | None:
        asked.append(token)
        return None

    client = World(HubConfig(authorize=authorize)).connect(
        "/realtime/v1/websocket?vsn=2.0.0&token=of-the-url"
    )
    client.join("realtime:a", {})
    assert asked == [None]
