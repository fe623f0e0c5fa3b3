"""A Jarvis client comes back on another connection: what is still under way on the earlier one is old."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from hub_client import World, masked
from jarvis_client import CONFIG, ROOM, JarvisClient, jarvis
from presence_proto.config import Identity, PresenceConfig
from presence_proto.endpoint import ConnId, OpenTransport, SendData
from presence_proto.events import ClientDisconnected, UserStatus
from presence_proto.presence_client import PresenceClient

DAN = {"user_id": "dan", "display_name": "Dan"}


def dan(world: World, run_id: Any = "run-of-dan", number: Any = 1, **more: Any) -> JarvisClient:
    """A connection of Dan's, which has said who it is."""
    client = jarvis(world)
    client.tell("connect", **{**DAN, **more}, run_id=run_id, run_connection=number)
    return client


def activity(world: World) -> Any:
    return world.hub.online(ROOM)["dan"][-1]["status"]


class Network:
    """Our own client and the hub. What the client sends waits until it is delivered."""

    def __init__(self, world: World, client: PresenceClient) -> None:
        self.world = world
        self.client = client
        self.hub_ids: dict[ConnId, ConnId] = {}  # by the client's
        self.sent: dict[ConnId, bytes] = {}

    def pump(self, conn: ConnId | None = None) -> None:
        """Carry out what the client wants, and deliver what it sent on a connection, with the answers."""
        for output in self.client.drain():
            if isinstance(output, OpenTransport):
                self.hub_ids[output.conn] = self.world.open()
                self.client.transport_opened(output.conn, now=self.world.now)
                self.pump()
            elif isinstance(output, SendData):
                self.sent[output.conn] = self.sent.get(output.conn, b"") + bytes(output.data)
        if conn is not None and self.sent.get(conn):
            hub_id = self.hub_ids[conn]
            self.world.hub.receive_data(hub_id, self.sent.pop(conn), now=self.world.now)
            for output in self.world.hub.drain():
                if isinstance(output, SendData) and output.conn == hub_id:
                    self.client.receive_data(conn, output.data, now=self.world.now)
            self.pump(conn)


def test_old_bytes_do_not_overwrite_what_the_later_connection_said() -> None:
    world = World(CONFIG)
    client = PresenceClient(
        Identity("dan", "Dan"), PresenceConfig(server_url="ws://h:1", protocol="jarvis"), rng=Random(7)
    )
    network = Network(world, client)
    client.connect(now=world.now)
    network.pump()
    network.pump(first := next(iter(network.hub_ids)))
    assert activity(world) == "online"
    client.update_activity(UserStatus.IDLE, None, now=world.now)
    network.pump()  # and the network holds it
    client.transport_closed(first, now=world.now, reason="the network is gone")
    world.advance((client.next_deadline() or 0) - world.now)
    client.tick(now=world.now)
    network.pump()
    second = max(network.hub_ids)
    client.update_activity(UserStatus.IN_GAME, "Snake", now=world.now)
    network.pump(second)
    assert activity(world) == "in_game"
    assert network.sent[first]
    network.pump(first)
    assert activity(world) == "in_game"
    assert world.hub.connections == (network.hub_ids[second],)


def test_a_later_connection_of_the_run_ends_the_earlier_one() -> None:
    world = World(CONFIG)
    first = dan(world)
    first.tell("activity_update", status="idle")
    world.take_events()
    second = dan(world, number=2)
    assert second.take() == []
    assert first.closed is not None
    assert (first.closed.code, first.closed.reason) == (1000, "superseded by a later connection")
    world.receive(first.conn, masked(b'{"type":"activity_update","status":"in_skill"}'))
    assert activity(world) == "idle", "the user was never away"
    reasons = [event.reason for event in world.take_events() if isinstance(event, ClientDisconnected)]
    assert reasons == ["superseded by a later connection"]
    second.tell("activity_update", status="in_game")
    assert activity(world) == "in_game"


def test_a_connect_that_comes_late_does_not_end_the_later_connection() -> None:
    world = World(CONFIG)
    second = dan(world, number=2)
    second.tell("activity_update", status="in_game")
    first = dan(world, number=1)
    assert first.closed is not None
    assert first.closed.reason == "superseded by a later connection"
    assert second.closed is None
    assert activity(world) == "in_game"
    assert second.tell("ping") == [{"type": "pong", "online_count": 1}]


def test_who_has_not_the_run_id_ends_nobodys_connection() -> None:
    world = World(CONFIG)
    first = dan(world, "one")
    second = dan(world, "another", 9)
    third = jarvis(world, "dan")
    for run_id in ("", None):
        dan(world, run_id, 10)
    eve = jarvis(world)
    assert eve.tell("connect", user_id="eve", run_id="one", run_connection=9)[0]["type"] == "welcome"
    assert first.closed is second.closed is third.closed is None


def test_connections_without_a_run_stay_side_by_side() -> None:
    world = World(CONFIG)
    devices = [jarvis(world, "dan") for _ in range(3)]
    assert [device.closed for device in devices] == [None] * 3


def test_who_says_the_same_again_on_one_connection_is_welcomed_again() -> None:
    world = World(CONFIG)
    first = dan(world)
    first.take()
    again = first.tell("connect", **DAN, run_id="run-of-dan", run_connection=1)
    assert [message["type"] for message in again] == ["welcome"]
    assert first.closed is None


def test_of_connections_without_a_number_the_last_to_come_counts() -> None:
    world = World(CONFIG)
    first, second = jarvis(world), jarvis(world)
    for client in (first, second):
        assert client.tell("connect", **DAN, run_id="r")[0]["type"] == "welcome"
    assert first.closed is not None
    assert second.closed is None


@pytest.mark.parametrize(
    ("run_id", "number", "words"),
    [
        (5, 1, "run_id of connect must be a string"),
        ("r" * 65, 1, "run_id of connect has more than 64 characters"),
        ("r", "1", "run_connection of connect must be a whole number"),
        ("r", True, "run_connection of connect must be a whole number"),
        ("r", None, "run_connection of connect must be a whole number"),
    ],
)
def test_a_run_that_makes_no_sense_is_an_error(run_id: Any, number: Any, words: str) -> None:
    world = World(CONFIG)
    client = jarvis(world)
    answer = client.tell("connect", **DAN, run_id=run_id, run_connection=number)
    assert [message["message"] for message in answer] == [words]
    assert world.hub.online(ROOM) == {}
    assert client.tell("connect", **DAN, run_id="r" * 64, run_connection=1)[0]["type"] == "welcome"
