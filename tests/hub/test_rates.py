"""Rates of one connection, and what a client is told that is too fast."""

from __future__ import annotations

from typing import Any

import pytest

from hub_client import PHOENIX, SUPABASE, Client, World, joined, masked
from jarvis_client import people
from presence_proto.events import ClientDisconnected, JoinRefused
from presence_proto.hub.config import HubConfig
from presence_proto.hub.limits import Bucket
from presence_proto.serializer import UserBroadcast

TOPIC = "realtime:x"
HEARTBEAT: list[Any] = [None, "7", "phoenix", "heartbeat", {}]
TOO_FAST = "too many messages per second"


def config(**rates: int) -> HubConfig:
    return HubConfig(presence_window=0, **rates)  # type: ignore[arg-type]


def shout(client: Client, times: int = 1, topic: str = TOPIC, text: str = "") -> None:
    for _ in range(times):
        client.say("1", "7", topic, "broadcast", {"type": "broadcast", "event": "x", "payload": {"a": text}})


def told(client: Client) -> list[tuple[str, Any]]:
    return [(message[3], message[4].get("message")) for message in client.take()]


CLOSED = [("system", "Too many messages per second"), ("phx_close", None)]


def test_a_bucket_is_full_again_when_its_time_has_passed_since_the_first_token() -> None:
    bucket = Bucket(10.0)
    assert [bucket.take(3, now) for now in (5.0, 14.0, 14.5, 15.0)] == [True, True, True, False]
    assert [bucket.take(3, now) for now in (15.1, 15.2, 25.0, 25.0)] == [True, True, True, False]


def test_the_last_token_stands_for_many() -> None:
    bucket = Bucket(10.0)
    assert [bucket.take(5, 0.0, tokens) for tokens in (4, 100, 1)] == [True, True, False]
    assert bucket.take(5, 10.1, 1000), "the largest message passes when nothing else went"
    assert not Bucket(1.0).take(0, 0.0)


def test_without_rates_there_are_no_limits() -> None:
    world = World()
    one, other = joined(world, SUPABASE, SUPABASE, topic=TOPIC)
    shout(one, 3000)
    assert len(other.take()) == 3000
    assert world.take_events() == []


# ---------------------------------------------------------------------------------------------- messages


def test_one_message_too_many_closes_a_supabase_channel() -> None:
    world = World(config(message_rate=2))
    one, other = joined(world, SUPABASE, SUPABASE, topic=TOPIC)
    shout(one, 19)  # the join was the first
    assert told(one) == []
    assert len(other.take()) == 19
    shout(one)
    assert told(one) == CLOSED
    assert other.take() == []
    assert one.closed is None
    shout(one)  # to a channel that is not there any more
    assert one.closed is not None
    assert (one.closed.code, one.closed.reason) == (1008, TOO_FAST)
    assert [event.reason for event in world.take_events() if isinstance(event, ClientDisconnected)] == [
        TOO_FAST
    ]


def test_an_average_of_ten_seconds_is_what_counts() -> None:
    world = World(config(message_rate=2))
    (client,) = joined(world, SUPABASE, topic=TOPIC)
    for _ in range(30):
        shout(client)
        world.advance(0.6)
    assert told(client) == []


@pytest.mark.parametrize("message", [HEARTBEAT, ["1", "7", "room:x", "hello", {}]])
def test_one_message_too_many_closes_a_connection_where_there_is_no_supabase_channel(
    message: list[Any],
) -> None:
    world = World(config(message_rate=1))
    (client,) = joined(world, PHOENIX)
    for _ in range(10):
        client.say(*message)
    assert client.closed is not None
    assert (client.closed.code, client.closed.reason) == (1008, TOO_FAST)
    assert len(client.take()) == 9


@pytest.mark.parametrize("target", [SUPABASE, PHOENIX])
def test_malformed_messages_count(target: str) -> None:
    world = World(config(message_rate=1))
    client = world.connect(target)
    if target == PHOENIX:
        for _ in range(10):
            client.say(*HEARTBEAT)
    else:
        for _ in range(10):
            client.text("{")
    assert client.closed is None
    client.text("{")
    assert client.closed is not None
    assert client.closed.code == 1008


def test_one_connection_does_not_pay_for_another() -> None:
    world = World(config(message_rate=1))
    one, other = joined(world, SUPABASE, SUPABASE, topic=TOPIC)
    shout(one, 10)
    other.take()
    other.say(*HEARTBEAT)
    assert [message[3] for message in other.take()] == ["phx_reply"]


# ---------------------------------------------------------------------------------------------- joins


@pytest.mark.parametrize(
    ("target", "kind", "reason"),
    [
        (SUPABASE, "realtime", "ClientJoinRateLimitReached: Too many joins per second"),
        (PHOENIX, "room", "too many joins per second"),
    ],
)
def test_one_join_too_many_is_refused(target: str, kind: str, reason: str) -> None:
    world = World(config(join_rate=1))
    client = world.connect(target)
    for number in range(11):
        client.say(str(number), str(number), f"{kind}:{number}", "phx_join", {})
    replies = [message[4] for message in client.take() if message[3] == "phx_reply"]
    assert [reply["status"] for reply in replies] == ["ok"] * 10 + ["error"]
    assert replies[-1]["response"] == {"reason": reason}
    assert [event.reason for event in world.take_events() if isinstance(event, JoinRefused)] == [reason]
    world.advance(10.1)
    client.say("99", "99", f"{kind}:99", "phx_join", {})
    assert client.take()[0][4]["status"] == "ok"


# ---------------------------------------------------------------------------------------------- deliveries


def test_receivers_count() -> None:
    world = World(config(delivery_rate=1))
    clients = joined(world, *[SUPABASE] * 5, topic=TOPIC)
    shout(clients[0], 2)
    assert told(clients[0]) == []
    shout(clients[0])
    assert told(clients[0]) == CLOSED
    assert len([message for message in clients[1].take() if message[3] == "broadcast"]) == 2


def test_bytes_to_receivers_count() -> None:
    world = World(config(delivery_rate=2))
    one, _ = joined(world, SUPABASE, SUPABASE, topic=TOPIC)
    shout(one, text="x" * 40_000)
    assert told(one) == []
    shout(one)
    assert told(one) == CLOSED


def test_a_plain_channel_is_told_in_a_reply() -> None:
    world = World(config(delivery_rate=1))
    one, other = joined(world, PHOENIX, PHOENIX)
    for _ in range(6):
        one.say("1", "7", "room:x", "hello", {})
    assert [message[4] for message in one.take()] == [
        *[{"status": "ok", "response": {}}] * 5,
        {"status": "error", "response": {"reason": TOO_FAST}},
    ]
    assert len(other.take()) == 5
    assert one.closed is None


# ---------------------------------------------------------------------------------------------- Jarvis


def test_jarvis_messages_have_a_rate() -> None:
    world = World(config(message_rate=1))
    ann, bob = people(world, "ann", "bob")
    for _ in range(9):
        assert ann.tell("ping")[-1]["type"] == "pong"
    assert ann.tell("poke", target_user_id="bob") == [{"type": "error", "message": TOO_FAST}]
    assert bob.take() == []
    world.receive(ann.conn, masked(b'{"type":"ping"}') * 100)
    assert ann.closed is not None
    assert (ann.closed.code, ann.closed.reason) == (1008, "too many errors")


def test_jarvis_connects_have_a_rate() -> None:
    world = World(config(join_rate=1))
    (ann,) = people(world, "ann")
    for _ in range(9):
        assert ann.tell("connect", user_id="ann", display_name="Ann")[-1]["type"] == "welcome"
    refused = {"type": "error", "message": "too many connects per second"}
    assert ann.tell("connect", user_id="ann", display_name="Ann") == [refused]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("poke", {"target_user_id": "bob"}),
        ("game_invite", {"game": "snake"}),
        ("activity_update", {"status": "in_game", "activity": "x"}),
    ],
)
def test_what_a_jarvis_user_tells_a_room_has_a_rate(kind: str, fields: dict[str, Any]) -> None:
    world = World(config(delivery_rate=1))
    ann, bob = people(world, "ann", "bob")
    heard = 0
    for _ in range(5):  # to two users
        assert {message["type"] for message in ann.tell(kind, **fields)} <= {"invite_sent"}
        heard += len(bob.take())
    assert heard
    assert ann.tell(kind, **fields) == [{"type": "error", "message": TOO_FAST}]
    assert bob.take() == []
    assert ann.tell("ping")[-1]["type"] == "pong"


# ---------------------------------------------------------------------------------------------- elements

MANY: Any = [[]] * 60_000


def test_a_message_of_many_elements_is_malformed_on_phoenix() -> None:
    world = World()
    (client,) = joined(world, PHOENIX)
    client.say("1", "7", "room:x", "hello", MANY)
    assert client.closed is not None
    assert client.closed.code == 1011
    [gone] = [event for event in world.take_events() if isinstance(event, ClientDisconnected)]
    assert (
        gone.reason
        == "malformed message: a message is malformed: more than 50000 elements (see max_elements)"
    )


@pytest.mark.parametrize("is_binary", [False, True])
def test_a_message_of_many_elements_is_passed_over_on_supabase(is_binary: bool) -> None:
    world = World()
    one, other = joined(world, SUPABASE, SUPABASE, topic=TOPIC)
    if is_binary:
        one.say("1", "7", TOPIC, "broadcast", UserBroadcast("x", MANY))
    else:
        one.say("1", "7", TOPIC, "broadcast", {"type": "broadcast", "event": "x", "payload": MANY})
    assert one.closed is None
    assert other.take() == []


@pytest.mark.parametrize(
    "payload", [UserBroadcast("x", b"[" * 60_000), UserBroadcast("x", "[" * 60_000), "[," * 60_000]
)
def test_bytes_and_strings_have_no_elements(payload: Any) -> None:
    world = World()
    one, other = joined(world, SUPABASE, SUPABASE, topic=TOPIC)
    one.say("1", "7", TOPIC, "broadcast", payload)
    assert len(other.take()) == 1


def test_a_message_of_many_elements_is_an_error_on_jarvis() -> None:
    world = World(HubConfig(presence_window=0, max_elements=20_000))
    (ann,) = people(world, "ann")
    words = "a message is malformed: more than 20000 elements (see max_elements)"
    assert ann.tell("ping", more=[0] * 20_010) == [{"type": "error", "message": words}]
    assert ann.tell("ping", more=[0] * 19_000)[-1]["type"] == "pong"
