"""A hub that takes its time for joins: one after the other on each connection, as Phoenix does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from faulty_rig import HEARTBEAT, events_of, faulty, set_faults
from hub_client import PHOENIX, SUPABASE, Client, World, masked
from presence_proto.errors import ConfigError
from presence_proto.events import ClientDisconnected, JoinRefused, TopicJoined
from presence_proto.hub.config import HubConfig

REPLY = "phx_reply"


def refuse_some(topic: str, token: str | None) -> str | None:
    return "not you" if "private" in topic else None


def slow(join_delay: float = 0.0, refusal_delay: float = 0.0, target: str = PHOENIX) -> tuple[World, Client]:
    config = HubConfig(
        join_delay=join_delay, refusal_delay=refusal_delay, authorize=refuse_some, presence_window=0
    )
    world = World(config)
    client = world.connect(target)
    world.take_events()
    return world, client


def ask(client: Client, *topics: str) -> None:
    for number, topic in enumerate(topics):
        ref = str(number)
        client.say(ref, ref, topic, "phx_join", {})


def answers(client: Client) -> list[tuple[str, str]]:
    return [(message[2], message[4]["status"]) for message in client.take() if message[3] == REPLY]


def test_joins_of_a_connection_are_answered_one_after_the_other() -> None:
    world, client = slow(3.0)
    ask(client, "room:a", "room:b", "room:c")
    client.say(*HEARTBEAT)
    for expected in (["room:a"], ["room:b"], ["room:c", "phoenix"]):
        world.advance(2.9)
        assert client.take() == []
        world.advance(0.1)
        assert [topic for topic, _ in answers(client)] == expected
    assert [event.topic for event in world.take_events() if isinstance(event, TopicJoined)] == [
        "room:a",
        "room:b",
        "room:c",
    ]


def test_other_connections_do_not_wait() -> None:
    world, client = slow(3.0)
    ask(client, "room:a", "room:b")
    world.advance(1.0)
    other = world.connect()
    ask(other, "room:a")
    other.say(*HEARTBEAT)
    world.advance(3.0)
    assert answers(other) == [("room:a", "ok"), ("phoenix", "ok")]
    assert answers(client) == [("room:a", "ok")]


@pytest.mark.parametrize(("target", "kind"), [(PHOENIX, "room"), (SUPABASE, "realtime")])
def test_refusals_take_longer(target: str, kind: str) -> None:
    world, client = slow(1.0, 5.0, target)
    ask(client, f"{kind}:private", f"{kind}:a")
    world.advance(5.9)
    assert client.take() == []
    world.advance(0.1)
    assert answers(client) == [(f"{kind}:private", "error")]
    assert [event for event in world.take_events() if isinstance(event, JoinRefused)]
    world.advance(1.0)
    assert answers(client) == [(f"{kind}:a", "ok")]


def test_a_topic_that_does_not_exist_is_refused_at_once() -> None:
    _, client = slow(1.0, 5.0, SUPABASE)
    ask(client, "room:a")
    assert answers(client) == [("room:a", "error")]


def test_malformed_messages_behind_a_slow_join_are_passed_over() -> None:
    world, client = slow(1.0, target=SUPABASE)
    ask(client, "realtime:a")
    client.text("{nonsense")
    client.say(*HEARTBEAT)
    world.advance(1.0)
    assert [topic for topic, _ in answers(client)] == ["realtime:a", "phoenix"]
    assert client.closed is None


def test_good_joins_do_not_wait_where_only_refusals_are_slow() -> None:
    world, client = slow(0.0, 5.0)
    ask(client, "room:a", "room:private", "room:b")
    assert answers(client) == [("room:a", "ok")]
    world.advance(5.0)
    assert answers(client) == [("room:private", "error"), ("room:b", "ok")]


def test_what_comes_after_a_join_sees_it_done() -> None:
    world, client = slow(3.0)
    ask(client, "room:a")
    client.say("0", "7", "room:a", "hello", {})
    client.say("0", "8", "room:a", "phx_leave", {})
    world.advance(3.0)
    assert events_of(client.take()) == [REPLY, "presence_state", REPLY, REPLY, "phx_close"]


def test_a_second_join_of_a_topic_replaces_the_first_in_its_turn() -> None:
    world, client = slow(3.0)
    client.say("1", "1", "room:a", "phx_join", {})
    client.say("2", "2", "room:a", "phx_join", {})
    world.advance(6.0)
    told = [(message[0], message[3]) for message in client.take()]
    assert told == [
        ("1", REPLY),
        ("1", "presence_state"),
        ("2", REPLY),
        ("1", "phx_close"),
        ("2", "presence_state"),
    ]


def test_a_connection_that_ends_during_a_join_is_forgotten() -> None:
    world, client = slow(3.0)
    ask(client, "room:a", "room:b")
    world.drop(client.conn)
    world.advance(10.0)
    assert world.hub.topics == ()
    assert world.hub.next_deadline() is None
    assert not [event for event in world.take_events() if isinstance(event, TopicJoined)]


def test_a_hub_that_stops_during_a_join_does_not_wait_for_it() -> None:
    world, client = slow(3.0)
    ask(client, "room:a")
    world.hub.shutdown(now=world.now)
    world.settle()
    world.advance(10.0)
    assert world.hub.is_closed
    assert client.take() == []


def test_what_is_malformed_ends_the_connection_in_its_turn() -> None:
    world, client = slow(3.0)
    ask(client, "room:a")
    client.websocket.send_text(b"{")
    client.flush()
    world.advance(2.9)
    assert not [event for event in world.take_events() if isinstance(event, ClientDisconnected)]
    world.advance(1.0)
    [gone] = [event for event in world.take_events() if isinstance(event, ClientDisconnected)]
    assert gone.code == 1011
    assert world.hub.topics == ()


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_a_refusal_that_cannot_be_encoded_ends_the_connection_and_nothing_else(delay: float) -> None:
    rule = lambda topic, token: "\ud800" if "private" in topic else None  # noqa: E731
    world = World(HubConfig(join_delay=delay, authorize=rule, presence_window=0))
    client, other = world.connect(PHOENIX), world.connect(PHOENIX)
    ask(client, "room:private")
    world.advance(1.0)
    [gone] = [event for event in world.take_events() if isinstance(event, ClientDisconnected)]
    assert (gone.conn, gone.code) == (client.conn, 1011)
    ask(other, "room:a")
    world.advance(1.0)
    assert answers(other) == [("room:a", "ok")]


def test_nothing_is_read_during_a_join_so_what_waits_is_bounded() -> None:
    world, client = slow(3.0)
    assert world.hub.wants_data(client.conn)
    ask(client, "room:a")
    assert not world.hub.wants_data(client.conn)
    client.say(*HEARTBEAT)
    world.advance(3.0)
    assert world.hub.wants_data(client.conn)
    assert [topic for topic, _ in answers(client)] == ["room:a", "phoenix"]


def test_what_waits_behind_a_join_is_handled_in_turns() -> None:
    world, client = slow(3.0)
    ask(client, "room:a")
    beats = b"".join(masked(json.dumps(HEARTBEAT).encode()) for _ in range(1000))
    world.receive(client.conn, beats)
    world.now += 3.0
    world.hub.tick(now=world.now)
    assert world.hub.has_backlog
    assert not world.hub.wants_data(client.conn)
    world.settle()
    assert len(answers(client)) == 1001
    assert world.hub.wants_data(client.conn)


def test_a_ping_behind_a_join_waits_for_it() -> None:
    """As in Phoenix, where the process of the connection is the one that joins."""
    world, client = slow(3.0)
    ask(client, "room:a")
    client.websocket.ping(b"?")
    client.flush()
    assert client.pongs == []
    world.advance(3.0)
    assert client.pongs == [b"?"]


def test_a_client_that_says_goodbye_behind_a_join_goes_after_it() -> None:
    world, client = slow(3.0)
    ask(client, "room:a")
    client.close()
    assert client.closed is None
    world.advance(3.0)
    assert client.closed is not None
    assert client.closed.code == 1000


def test_a_goodbye_behind_a_join_is_seen_when_the_hub_ends_the_connection() -> None:
    world, client = slow(3.0)
    ask(client, "room:a")
    client.close()
    world.hub.disconnect(client.conn, now=world.now)
    world.settle()
    assert client.conn in world.closed


def test_a_slow_join_is_not_taken_for_silence() -> None:
    world = World(HubConfig(join_delay=100.0, idle_timeout=60.0, presence_window=0))
    client = world.connect()
    ask(client, "room:a")
    world.advance(100.0)
    assert answers(client) == [("room:a", "ok")]


def test_a_faulty_hub_can_be_told_to_be_slow_and_quick_again() -> None:
    world = faulty(HubConfig(join_delay=1.0, presence_window=0))
    client = world.connect()
    set_faults(world, join_delay=2.0, refusal_delay=5.0)
    assert (world.hub.faults.join_delay, world.hub.faults.refusal_delay) == (2.0, 5.0)  # type: ignore[attr-defined]
    ask(client, "room:a", "room:b")
    world.advance(2.9)
    assert client.take() == []
    set_faults(world, join_delay=0, refusal_delay=0)
    world.advance(0.1)
    assert answers(client) == [("room:a", "ok")]
    world.advance(1.0)
    assert answers(client) == [("room:b", "ok")]


def test_the_defaults_of_the_switch_are_supabases() -> None:
    world = faulty(HubConfig(authorize=refuse_some, presence_window=0))
    client = world.connect()
    set_faults(world, refusal_delay=5.0)
    ask(client, "room:a", "room:private")
    assert answers(client) == [("room:a", "ok")]
    world.advance(4.9)
    assert client.take() == []
    world.advance(0.1)
    assert answers(client) == [("room:private", "error")]


@pytest.mark.parametrize("name", ["join_delay", "refusal_delay"])
@pytest.mark.parametrize("seconds", [-1, "5", None, True, float("nan")])
def test_a_delay_is_a_number_of_seconds(name: str, seconds: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        HubConfig(**{name: seconds})
