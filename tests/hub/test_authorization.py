"""Who is who: with `authorize` nobody is present, or speaks, as somebody else, in whatever protocol."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hub_client import PHOENIX, SUPABASE, Client, World, supabase_join
from jarvis_client import ROOM, broadcasts, heard, jarvis, tracks
from presence_proto.events import JoinRefused, TopicJoined, TopicLeft
from presence_proto.hub.authorization import Allow, JoinRequest
from presence_proto.hub.channels import JoinRefusedError, authorize, join_request
from presence_proto.hub.config import HubConfig

OWNERS = {"token of ann": "ann", "token of bob": "bob", "token of eve": "eve", "second token of ann": "ann"}
NOT_YOURS = "Unauthorized: this key is not yours"


def owner_only(request: JoinRequest) -> str | None:
    """A rule that refuses who asks for the key of another."""
    return None if OWNERS.get(request.token or "") == request.key else NOT_YOURS


def owner_always(request: JoinRequest) -> Allow | str:
    """A rule that gives the key, whatever was asked for, as Phoenix does with `socket.assigns`."""
    owner = OWNERS.get(request.token or "")
    return "unauthorized" if owner is None else Allow(owner)


def world_of(rule: Any) -> World:
    return World(HubConfig(authorize=rule, presence_window=0))


def joins(world: World, key: str | None, token: str | None, topic: str = ROOM) -> tuple[Client, Any]:
    """A Supabase client, and the response to its join."""
    client = world.connect(SUPABASE)
    payload = supabase_join(key, ack=True) | ({} if token is None else {"access_token": token})
    client.say("1", "1", topic, "phx_join", payload)
    return client, next(message[4] for message in client.take() if message[3] == "phx_reply")


def connects(world: World, user_id: str, token: str, **more: Any) -> tuple[Any, Any]:
    """A Jarvis client, and the answer to its `connect`."""
    client = jarvis(world)
    return client, client.tell("connect", user_id=user_id, access_token=token, **more)[0]


# ---------------------------------------------------------------------------------------------- the rule


def quoting(request: JoinRequest) -> str | None:
    return f"{request.token} is not for {request.topic}"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("jwt-12345", "… is not for room:a"),
        ("", " is not for room:a"),
        ("room", "room is not for room:a"),
        (None, "None is not for room:a"),
        (5, "None is not for room:a"),
    ],
)
def test_a_reason_goes_out_without_the_token(token: Any, reason: str) -> None:
    with pytest.raises(JoinRefusedError) as refused:
        authorize(quoting, join_request("room:a", token, None))
    assert (refused.value.reason, refused.value.detail) == (reason, "")


@pytest.mark.parametrize(
    ("answer", "key"),
    [(None, "asked"), (Allow(), "asked"), (Allow("given"), "given"), (Allow("asked"), "asked")],
)
def test_the_key_is_the_one_asked_for_or_the_one_that_the_rule_gives(answer: Any, key: str) -> None:
    assert authorize(lambda request: answer, join_request("room:a", None, "asked")) == key
    assert authorize(None, join_request("room:a", None, "asked")) == "asked"


def test_a_rule_that_fails_refuses() -> None:
    def failing(request: JoinRequest) -> None:
        raise LookupError(request.token)

    with pytest.raises(JoinRefusedError) as refused:
        authorize(failing, join_request("room:a", "jwt-123", None))
    assert refused.value.reason == "join crashed"
    assert refused.value.detail == " (LookupError in a rule)"


@pytest.mark.parametrize("answer", [True, False, 0, ("ann", {}), b"no"])
def test_a_rule_that_answers_something_else_refuses(answer: Any) -> None:
    with pytest.raises(JoinRefusedError) as refused:
        authorize(lambda request: answer, join_request("room:a", None, None))
    assert refused.value.reason == "join crashed"
    assert repr(answer) in refused.value.detail


@pytest.mark.parametrize(("key", "asked_for"), [("ann", "ann"), ("", None), (None, None), (5, None)])
def test_the_rule_learns_the_key_that_a_supabase_join_asks_for(key: Any, asked_for: str | None) -> None:
    asked: list[JoinRequest] = []
    world = world_of(asked.append)
    joins(world, key, "jwt", "realtime:x")
    assert asked == [JoinRequest("realtime:x", "jwt", asked_for)]


# ---------------------------------------------------------------------------------------------- Supabase


def test_without_a_rule_two_clients_may_have_one_key() -> None:
    world = world_of(None)
    tracks(joins(world, "ann", None)[0], display_name="Ann")
    tracks(joins(world, "ann", None)[0], display_name="Eve")
    assert len(world.hub.online(ROOM)["ann"]) == 2


@pytest.mark.parametrize("topic", [ROOM, "realtime:x"])
def test_nobody_takes_the_presence_key_of_another_on_supabase(topic: str) -> None:
    world = world_of(owner_only)
    ann, answer = joins(world, "ann", "token of ann", topic)
    assert answer["status"] == "ok"
    ann.say("1", "2", topic, "presence", {"event": "track", "payload": {"display_name": "Ann"}})
    before = world.hub.online(topic)
    world.take_events()
    eve, answer = joins(world, "ann", "token of eve", topic)
    assert answer == {"status": "error", "response": {"reason": NOT_YOURS}}
    assert world.take_events()[-1] == JoinRefused(eve.conn, topic, NOT_YOURS)
    eve.say("1", "2", topic, "presence", {"event": "track", "payload": {"display_name": "Ann"}})
    assert eve.take()[-1][4] == {"status": "error", "response": {"reason": "unmatched topic"}}
    assert world.hub.online(topic) == before
    assert joins(world, "ann", "second token of ann", topic)[1]["status"] == "ok", "a device of her own"


def test_the_key_that_the_rule_gives_counts_whatever_a_supabase_client_asks_for() -> None:
    world = world_of(owner_always)
    for asked in ("ann", "bob", None):
        eve, answer = joins(world, asked, "token of eve")
        assert answer["status"] == "ok"
        assert world.take_events()[-1] == TopicJoined(eve.conn, ROOM, "eve")
        tracks(eve, display_name="Ann")
        assert set(world.hub.online(ROOM)) == {"eve"}


def test_a_later_token_must_be_of_the_same_user() -> None:
    for rule, reason in (
        (owner_only, NOT_YOURS.partition(": ")[2]),
        (owner_always, "The access token is for another presence key"),
    ):
        world = world_of(rule)
        eve, _ = joins(world, "eve", "token of eve")
        tracks(eve, display_name="Eve")
        eve.take()
        eve.say("1", None, ROOM, "access_token", {"access_token": "token of ann"})
        system, close, diff = (*eve.take(), None)
        assert system[4]["message"] == reason
        assert (close[3], diff) == ("phx_close", None)
        assert world.take_events()[-1] == TopicLeft(eve.conn, ROOM, reason)
        assert world.hub.online(ROOM) == {}


def test_a_later_token_of_the_same_user_changes_nothing() -> None:
    for rule in (owner_only, owner_always):
        world = world_of(rule)
        ann, _ = joins(world, "ann", "token of ann")
        tracks(ann, display_name="Ann")
        ann.take()
        ann.say("1", None, ROOM, "access_token", {"access_token": "second token of ann"})
        assert ann.take() == []
        assert set(world.hub.online(ROOM)) == {"ann"}


def test_a_made_up_key_is_not_asked_about_later() -> None:
    asked: list[JoinRequest] = []
    world = world_of(asked.append)
    client, _ = joins(world, None, "one", "realtime:x")
    client.say("1", None, "realtime:x", "access_token", {"access_token": "two"})
    assert [request.key for request in asked] == [None, None]
    assert client.take() == []


# ---------------------------------------------------------------------------------------------- Phoenix


def test_nobody_takes_the_presence_key_of_another_on_phoenix() -> None:
    world = world_of(owner_only)
    for key, token, status in (("ann", "ann", "ok"), ("ann", "eve", "error"), ("eve", "eve", "ok")):
        client = world.connect(PHOENIX)
        client.say("1", "1", "room:x", "phx_join", {"user_id": key, "access_token": f"token of {token}"})
        assert client.take()[0][4]["status"] == status
    assert {key: len(metas) for key, metas in world.hub.online("room:x").items()} == {"ann": 1, "eve": 1}


def test_the_key_that_the_rule_gives_counts_on_phoenix() -> None:
    world = world_of(owner_always)
    client = world.connect(PHOENIX)
    params = {"user_id": "ann", "mood": "good", "access_token": "token of eve"}
    client.say("1", "1", "room:x", "phx_join", params)
    assert {key: meta["mood"] for key, (meta,) in world.hub.online("room:x").items()} == {"eve": "good"}
    assert TopicJoined(client.conn, "room:x", "eve") in world.take_events()


def test_who_has_no_presence_on_phoenix_gets_none_from_the_rule() -> None:
    world = World(
        HubConfig(authorize=owner_always, presence_rule=lambda topic, params: None, presence_window=0)
    )
    client = world.connect(PHOENIX)
    client.say("1", "1", "room:x", "phx_join", {"access_token": "token of eve"})
    assert client.take()[0][4]["status"] == "ok"
    assert world.hub.online("room:x") == {}


# ---------------------------------------------------------------------------------------------- Jarvis


def test_nobody_takes_the_user_id_of_another_on_jarvis() -> None:
    world = world_of(owner_only)
    ann, welcome = connects(world, "ann", "token of ann", display_name="Ann")
    assert welcome["type"] == "welcome"
    bob, _ = connects(world, "bob", "token of bob")
    ann.take()
    before = world.hub.online(ROOM)
    world.take_events()
    eve, answer = connects(world, "ann", "token of eve", display_name="Not Ann")
    assert answer == {"type": "error", "message": NOT_YOURS}
    assert world.take_events()[1:] == [JoinRefused(eve.conn, ROOM, NOT_YOURS)]
    for kind, fields in (
        ("activity_update", {"status": "in_game"}),
        ("poke", {"target_user_id": "bob"}),
        ("game_invite", {"game": "Chess"}),
        ("disconnect", {}),
    ):
        assert eve.tell(kind, **fields)[0]["type"] == "error"
    assert world.hub.online(ROOM) == before
    assert bob.take() == []
    assert connects(world, "ann", "second token of ann")[1]["type"] == "welcome", "a device of her own"


def test_the_user_id_that_the_rule_gives_counts_on_jarvis() -> None:
    world = world_of(owner_always)
    bob, _ = connects(world, "bob", "token of bob")
    eve, welcome = connects(world, "ann", "token of eve", display_name="Eve")
    assert (welcome["type"], welcome["your_id"]) == ("welcome", "eve")
    assert set(world.hub.online(ROOM)) == {"bob", "eve"}
    bob.take()
    eve.tell("poke", target_user_id="bob", user_id="ann", display_name="Ann")
    assert [(one["user_id"], one["display_name"]) for one in bob.take()] == [("eve", "Eve")]
    eve.tell("connect", user_id="ann", access_token="token of ann")
    assert eve.take() == []
    assert set(world.hub.online(ROOM)) == {"bob", "eve"}, "a connection stays with its user"


# ---------------------------------------------------------------------------------------------- speaking

SAID = {
    "activity_update": {"status": "in_game", "activity": "Snake"},
    "game_invite": {"game": "Chess"},
    "poke": {"target_user_id": "bob"},
    "chat_message": {"channel": "general", "content": "hello", "timestamp": "now"},
}


def room(rule: Any) -> tuple[Client, Any, Client]:
    """Eve, who is to speak; bob on Jarvis and ann on Supabase, who listen."""
    world = world_of(rule)
    ann, _ = joins(world, "ann", "token of ann")
    bob, _ = connects(world, "bob", "token of bob")
    eve, _ = joins(world, "eve", "token of eve")
    tracks(ann, user_id="ann", display_name="Ann")
    tracks(eve, user_id="eve", display_name="Eve")
    for client in (ann, bob, eve):
        client.take()
    return eve, bob, ann


@pytest.mark.parametrize("event", SAID)
def test_nobody_speaks_in_the_name_of_another(event: str) -> None:
    eve, bob, ann = room(owner_only)
    for name in ({"user_id": "ann"}, {"user_id": "ann", "display_name": "Ann"}, {}):
        broadcasts(eve, event, **name, **SAID[event])
        reply = eve.take()[0][4]
        assert reply["response"] == {"reason": "user_id is not the presence key of the sender"}
        eve.binary(user_broadcast(event, {**name, **SAID[event]}))
        assert eve.take()[0][4] == reply
        assert bob.take() == heard(ann) == []
    broadcasts(eve, event, user_id="eve", **SAID[event])
    assert eve.take()[0][4]["status"] == "ok"
    assert heard(ann) == [(event, {"user_id": "eve", **SAID[event]})]


def test_who_wants_no_ack_is_not_told_either() -> None:
    world = world_of(owner_only)
    ann, _ = joins(world, "ann", "token of ann")
    eve = world.connect(SUPABASE)
    eve.say("1", "1", ROOM, "phx_join", supabase_join("eve") | {"access_token": "token of eve"})
    for client in (ann, eve):
        client.take()
    broadcasts(eve, "poke", user_id="ann", **SAID["poke"])
    assert (eve.take(), heard(ann)) == ([], [])


def user_broadcast(event: str, payload: Any) -> bytes:
    """A broadcast in Supabase's binary form, kind 3, with JSON in it."""
    parts = [b"1", b"", ROOM.encode(), event.encode(), b""]
    lengths = bytes(len(part) for part in parts)
    return bytes([3]) + lengths + bytes([1]) + b"".join(parts) + json.dumps(payload).encode()


def test_other_broadcasts_have_no_sender_that_is_looked_at() -> None:
    eve, _, ann = room(owner_only)
    broadcasts(eve, "cursor", user_id="ann", x=1)
    assert heard(ann) == [("cursor", {"user_id": "ann", "x": 1})]


def test_without_a_rule_supabase_looks_at_no_names() -> None:
    eve, bob, ann = room(None)
    broadcasts(eve, "poke", user_id="ann", target_user_id="bob")
    assert heard(ann) == [("poke", {"user_id": "ann", "target_user_id": "bob"})]
    assert bob.take() == [], "Jarvis does, always"
