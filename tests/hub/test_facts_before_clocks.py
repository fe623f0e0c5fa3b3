"""The hub handles what came in before it judges what is overdue: what a hub that was stopped has not read yet
is no silence."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_client import PHOENIX, SUPABASE, Client, World, joined, masked, upgrade
from jarvis_client import CONFIG, NOON, ROOM, jarvis, people
from presence_proto.events import ClientConnected, ClientDisconnected, ClientRefused
from presence_proto.hub.config import HubConfig
from presence_proto.hub.hub import LATE, SECOND_CHANCE

HEARTBEAT = masked(b'[null,"9","phoenix","heartbeat",{}]')
PING = masked(b'{"type":"ping"}')
IDLE = HubConfig().idle_timeout


def hears(world: World, client: Client, data: bytes = HEARTBEAT) -> None:
    """The hub reads what lay in the socket of a client."""
    world.receive(client.conn, data)


def stopped(world: World, seconds: float) -> None:
    """The process stands still: nobody ticks."""
    world.now += seconds


def tick(world: World) -> None:
    world.hub.tick(now=world.now)
    world.settle()


@pytest.mark.parametrize("target", [PHOENIX, SUPABASE])
@pytest.mark.parametrize("tick_first", [False, True])
def test_a_hub_that_was_stopped_drops_nobody_whose_heartbeat_lies_in_the_socket(
    target: str, tick_first: bool
) -> None:
    world = World(HubConfig())
    clients = joined(world, *[target] * 5, topic="realtime:x")
    stopped(world, 1000)
    if tick_first:
        tick(world)
    for client in clients:
        hears(world, client)
    world.advance(SECOND_CHANCE + 1)
    assert [client.closed for client in clients] == [None] * 5
    assert len(world.hub.online("realtime:x")) == 0
    assert len(world.hub.connections) == 5


def test_jarvis_users_are_not_evicted_by_a_hub_that_was_stopped() -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    stopped(world, 1000)
    tick(world)
    for client in (ann, bob):
        hears(world, client, PING)
    world.advance(SECOND_CHANCE + 1)
    assert ann.closed is bob.closed is None
    assert [message["type"] for message in ann.take() + bob.take()] == ["pong", "pong"]


def test_who_comes_back_while_the_hub_is_stopped_was_never_away() -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    ann.drop()
    stopped(world, 1000)
    hears(world, bob, PING)
    assert set(world.hub.online(ROOM)) == {"ann", "bob"}
    assert jarvis(world, "ann").take()[0]["type"] == "welcome"
    world.advance(SECOND_CHANCE)
    hears(world, bob, PING)
    assert [message["type"] for message in bob.take()] == ["pong", "pong"]


def test_whose_connection_ends_while_the_hub_is_stopped_has_a_grace() -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    stopped(world, 1000)
    ann.drop()
    hears(world, bob, PING)
    assert set(world.hub.online(ROOM)) == {"ann", "bob"}
    world.advance(9)
    jarvis(world, "ann")
    hears(world, bob, PING)
    assert [message["type"] for message in bob.take()] == ["pong", "pong"]


def test_who_does_not_come_back_is_offline_after_all() -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    ann.drop()
    stopped(world, 50)
    hears(world, bob, PING)
    bob.take()
    world.advance(SECOND_CHANCE - 0.1)
    assert bob.take() == []
    world.advance(0.1)
    assert bob.take() == [{"type": "user_offline", "user_id": "ann", "display_name": "Ann", "ts": NOON}]


def test_each_absence_has_a_second_chance() -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    for _ in range(2):
        ann.drop()
        stopped(world, 50)
        hears(world, bob, PING)
        ann = jarvis(world, "ann")
        assert [message["type"] for message in bob.take()] == ["pong"]


def test_a_short_grace_has_a_short_second_chance() -> None:
    world = World(evolve(CONFIG, offline_grace=1.0))
    ann, bob = people(world, "ann", "bob")
    ann.drop()
    stopped(world, 50)
    hears(world, bob, PING)
    world.advance(1)
    assert set(world.hub.online(ROOM)) == {"bob"}


def test_a_request_that_lies_in_the_socket_is_no_handshake_timeout() -> None:
    world = World()
    conn = world.open()
    stopped(world, 1000)
    tick(world)
    world.receive(conn, upgrade("/socket/websocket?vsn=2.0.0"))
    assert world.take_events() == [ClientConnected(conn, "/socket/websocket")]


def test_the_silence_of_one_is_not_judged_by_what_another_says() -> None:
    """The bytes of a peer may lie in its socket while the hub reads those of another."""
    world = World()
    first, second = joined(world, PHOENIX, PHOENIX)
    stopped(world, IDLE)
    hears(world, first)
    hears(world, second)
    world.advance(IDLE - 0.1)
    assert first.closed is second.closed is None


def test_there_is_one_second_chance_for_each_silence() -> None:
    world = World()
    first, dead = joined(world, PHOENIX, PHOENIX)
    for _ in range(3):
        stopped(world, IDLE + LATE + 0.1)
        hears(world, first)
        hears(world, dead)
    stopped(world, IDLE + 1)
    hears(world, first)
    for _ in range(2):
        assert dead.closed is None
        stopped(world, SECOND_CHANCE / 2)
        hears(world, first)
    assert dead.closed is not None
    assert dead.closed.reason == "idle timeout"
    assert first.closed is None


def test_a_tick_in_time_judges_at_once() -> None:
    world = World()
    (dead,) = joined(world, PHOENIX)
    world.advance(IDLE - 0.1)
    assert dead.closed is None
    stopped(world, 0.1 + LATE)
    tick(world)
    assert dead.closed is not None


def test_what_closes_has_no_second_chance() -> None:
    world = World()
    client = world.connect(mute=True, shake_hands=False)
    world.receive(client.conn, client.websocket.data_to_send())
    fresh = world.open()
    world.hub.shutdown(now=world.now)
    world.settle()
    assert not world.hub.is_closed
    stopped(world, 100)
    tick(world)
    events = [
        event for event in world.take_events() if isinstance(event, (ClientDisconnected, ClientRefused))
    ]
    assert {event.conn for event in events} == {client.conn, fresh}
    assert world.hub.is_closed


@given(
    st.lists(st.floats(0, 200), min_size=1, max_size=4),
    st.permutations(range(4)),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_nobody_who_speaks_is_dropped_however_long_the_hub_is_stopped(
    stops: list[float], order: list[int], ticks: list[bool]
) -> None:
    world = World()
    clients = joined(world, PHOENIX, SUPABASE, SUPABASE, PHOENIX, topic="realtime:x")
    for seconds in stops:
        stopped(world, seconds)
        for index in order:
            if ticks[index]:
                tick(world)
            hears(world, clients[index])
            stopped(world, 0.1)
    assert [client.closed for client in clients] == [None] * 4
    world.advance(IDLE + SECOND_CHANCE)
    assert all(client.closed for client in clients)
