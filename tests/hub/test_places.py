"""How many connections there may be, in all and from one address."""

from __future__ import annotations

import json
from random import Random

import pytest

from hub_client import World, masked, upgrade
from presence_proto.endpoint import CloseTransport, ConnId
from presence_proto.events import ClientDisconnected, ClientRefused
from presence_proto.hub.config import HubConfig

TWO_EACH = HubConfig(max_connections=6, max_connections_per_address=2, handshake_timeout=10)
HERE, THERE = "192.0.2.1", "2001:db8::/64"


def connect_from(world: World, address: str | None) -> tuple[ConnId, int]:
    """Returns the connection, and the HTTP status: 0 when it was dropped at once."""
    conn = world.open(address)
    if conn in world.closed:
        return conn, 0
    world.receive(conn, upgrade("/socket/websocket"))
    return conn, int(world.sent[conn].split()[1])


def test_one_address_does_not_take_the_places_of_others() -> None:
    world = World(TWO_EACH)
    assert [connect_from(world, HERE)[1] for _ in range(3)] == [101, 101, 429]
    assert [connect_from(world, THERE)[1] for _ in range(3)] == [101, 101, 429]
    assert [connect_from(world, None)[1] for _ in range(3)] == [101, 101, 429], "in all there are six"
    reasons = [event.reason for event in world.take_events() if isinstance(event, ClientRefused)]
    assert reasons == ["too many connections from this address"] * 2 + ["too many connections"]


def test_who_is_one_too_many_is_told_so() -> None:
    world = World(TWO_EACH)
    connect_from(world, HERE)
    connect_from(world, HERE)
    conn, _ = connect_from(world, HERE)
    assert json.loads(world.sent[conn].partition(b"\r\n\r\n")[2]) == {
        "error": "Too many connections from this address"
    }


def test_a_place_is_free_again_when_its_connection_has_ended() -> None:
    world = World(TWO_EACH)
    first, _ = connect_from(world, HERE)
    connect_from(world, HERE)
    assert connect_from(world, HERE)[1] == 429
    world.drop(first)
    assert [connect_from(world, HERE)[1] for _ in range(2)] == [101, 429]


def test_twice_as_many_may_be_in_their_handshake_and_no_more() -> None:
    world = World(TWO_EACH)
    opened = [world.open(HERE) for _ in range(4)]
    assert world.closed == {}
    fifth = world.open(HERE)
    assert world.closed == {fifth: CloseTransport(fifth, abort=True)}
    assert world.take_events() == [ClientRefused(fifth, 429, "too many connections from this address")]
    assert connect_from(world, THERE)[1] == 101
    world.advance(10)
    assert all(isinstance(event, ClientDisconnected) for event in world.take_events()[1:])
    assert all(conn in world.closed for conn in opened)
    assert connect_from(world, HERE)[1] == 101


def test_without_the_limit_addresses_do_not_count() -> None:
    world = World(HubConfig(max_connections=5))
    assert [connect_from(world, HERE)[1] for _ in range(6)] == [101] * 5 + [429]


@pytest.mark.parametrize("seed", range(20))
def test_the_counts_are_those_of_what_is_open(seed: int) -> None:
    """Whatever comes and goes: nobody is refused while there is a place, nor let in when there is none."""
    rng, world = Random(seed), World(TWO_EACH)
    waiting: dict[ConnId, str | None] = {}
    admitted: dict[ConnId, str | None] = {}
    for _ in range(300):
        match rng.randrange(4):
            case 0 | 1:
                address = rng.choice([HERE, THERE, None])
                every = [*waiting.values(), *admitted.values()]
                fits = len(every) < 12 and (address is None or every.count(address) < 4)
                conn = world.open(address)
                assert (conn not in world.closed) is fits
                if fits:
                    waiting[conn] = address
            case 2 if waiting:
                conn = rng.choice(list(waiting))
                address = waiting.pop(conn)
                fits = len(admitted) < 6 and (address is None or list(admitted.values()).count(address) < 2)
                world.receive(conn, upgrade("/socket/websocket"))
                assert int(world.sent[conn].split()[1]) == (101 if fits else 429)
                if fits:
                    admitted[conn] = address
            case _ if waiting or admitted:
                conn = rng.choice([*waiting, *admitted])
                waiting.pop(conn, None)
                admitted.pop(conn, None)
                world.drop(conn)


def test_a_client_that_drips_is_idle() -> None:
    """A byte now and then, within one frame or within fragments of one message, is no sign of life."""
    whole = masked(b"x" * 300)
    # An empty text frame without FIN, then empty continuations.
    fragments = [b"\x01\x80\0\0\0\0", *([b"\x00\x80\0\0\0\0"] * 9)]
    for pieces in ([bytes((byte,)) for byte in whole[:10]], fragments):
        world = World(HubConfig(idle_timeout=60, close_timeout=5))
        client = world.connect()
        for piece in pieces:
            world.advance(59)
            world.receive(client.conn, piece)
            world.settle()
        assert world.take_events()[-1] == ClientDisconnected(client.conn, "idle timeout", 1002)


def test_a_long_message_may_come_slowly() -> None:
    world = World(HubConfig(idle_timeout=60))
    client = world.connect()
    whole = masked(b"x" * 20_000)
    for at in range(0, 20_000, 1000):
        world.advance(50)
        world.receive(client.conn, whole[at : at + 1000])
    assert world.hub.connections == (client.conn,)
