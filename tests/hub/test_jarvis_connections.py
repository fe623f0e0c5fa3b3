"""Connections of the Jarvis JSON protocol: which are let in and evicted, what many of them cost."""

from __future__ import annotations

import gc
import json
import tracemalloc
from typing import Any

import pytest

from hub_client import PHOENIX, World, masked, upgrade
from jarvis_client import CONFIG, NOON, ROOM, jarvis, noon, people
from presence_proto.endpoint import ConnId, SendData
from presence_proto.events import ClientConnected, JoinRefused
from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig

# ---------------------------------------------------------------------------------------------- let in


@pytest.mark.parametrize(
    "target", ["/", "/presence?a=b", "/socket", "/socket/websocket/", "/mywebsocket", "/realtime/v1?vsn=9"]
)
def test_any_path_but_the_phoenix_ones(target: str) -> None:
    world = World()
    client = jarvis(world, target=target)
    assert client.opened is not None
    assert world.take_events() == [ClientConnected(client.conn, target.partition("?")[0])]
    assert client.tell("connect", user_id="ann", display_name="Ann", version="1")[0]["type"] == "welcome"


def test_a_port_of_its_own_has_every_path() -> None:
    world = World(HubConfig(protocol="jarvis"))
    for target in (PHOENIX, "/realtime/v1/websocket?vsn=3", "/"):
        client = jarvis(world, "ann", target=target)
        assert client.take()[0]["type"] == "welcome"


def test_no_subprotocol_is_chosen() -> None:
    client = jarvis(World(), subprotocols=("phoenix", "base64url.bearer.phx.YQ"))
    assert client.opened is not None
    assert client.opened.subprotocol is None


@pytest.mark.parametrize("protocol", ["both", "jarvis"])
@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", (), 401),
        ("?apikey=", (), 401),
        ("?apikey=wrong", (), 401),
        ("", (("x-api-key", "wrong"),), 401),
        ("?apikey=right", (), None),
        ("", (("x-api-key", "right"),), None),
    ],
)
def test_where_keys_are_needed_jarvis_needs_one(protocol: Any, query: str, headers: Any, status: Any) -> None:
    client = jarvis(
        World(HubConfig(protocol=protocol, api_keys={"right"})), target="/" + query, headers=headers
    )
    assert (client.opened is None) == (status is not None)
    if client.refused is not None:
        assert client.refused.status == status


def test_who_may_not_join_the_topic_may_not_connect() -> None:
    asked = []

    def authorize(topic: str, token: str | None) -> str | None:
        asked.append((topic, token))
        return None if token == "good" else "not you"

    world = World(HubConfig(authorize=authorize))
    client = jarvis(world)
    world.take_events()
    assert client.tell("connect", user_id="ann") == [{"type": "error", "message": "not you"}]
    assert client.tell("ping")[0]["type"] == "error"
    assert world.take_events() == [JoinRefused(client.conn, ROOM, "not you")]
    assert world.hub.online(ROOM) == {}
    assert client.tell("connect", user_id="ann", access_token="good")[0]["type"] == "welcome"
    assert asked == [(ROOM, None), (ROOM, "good")]


def test_the_token_may_stand_in_the_url() -> None:
    asked = []
    world = World(HubConfig(authorize=lambda topic, token: asked.append(token)))
    client = jarvis(world, "ann", target="/presence?token=t%20of%20url")
    assert client.take()[0]["type"] == "welcome"
    client.tell("connect", user_id="ann", access_token="newer")
    assert asked == ["t of url", "newer"]
    assert "of url" not in repr(world.take_events())


def test_a_rule_that_fails_refuses() -> None:
    def authorize(topic: str, token: str | None) -> str | None:
        raise KeyError("secret")

    world = World(HubConfig(authorize=authorize))
    assert jarvis(world, "ann").take() == [{"type": "error", "message": "join crashed"}]
    assert "secret" not in repr(world.take_events())


# ---------------------------------------------------------------------------------------------- silence


def test_who_says_nothing_for_90_seconds_is_evicted() -> None:
    world = World(CONFIG)
    ann, bob = people(world, "ann", "bob")
    for _ in range(3):
        world.advance(29.9)
        bob.tell("ping")
    ann.websocket.ping(b"")  # its library is alive, and that is all
    ann.flush()
    assert ann.pongs == [b""]
    world.advance(0.2)
    assert bob.take() == []
    world.advance(0.1)
    assert bob.take() == [{"type": "user_offline", "user_id": "ann", "display_name": "Ann", "ts": NOON}]
    assert ann.closed is not None
    assert (ann.closed.code, ann.closed.reason) == (1002, "idle timeout")
    world.advance(89)
    assert world.hub.connections == (bob.conn,)


def test_the_idle_timeout_is_phoenixs_and_the_eviction_jarvis() -> None:
    world = World(HubConfig(idle_timeout=20, eviction_timeout=50))
    phoenix, _, silent = world.connect(), *people(world, "ann"), jarvis(world)
    world.advance(20)
    assert phoenix.closed is not None
    world.advance(29.9)
    assert silent.closed is None
    world.advance(0.1)
    assert silent.closed is not None
    assert world.hub.connections == ()
    assert world.hub.next_deadline() is None


def test_timers_are_not_set_for_every_message() -> None:
    world = World()
    (ann,) = people(world, "ann")
    deadline = world.hub.next_deadline()
    for _ in range(5):
        world.advance(10)
        ann.tell("ping")
        assert world.hub.next_deadline() == deadline
    world.advance(40)
    assert world.hub.next_deadline() == world.now + 50


def test_a_silent_device_does_not_take_the_user_along() -> None:
    world = World()
    old, new, bob = people(world, "ann", "ann", "bob")
    for _ in range(3):
        world.advance(30)
        for client in (new, bob):
            client.tell("ping")
    assert old.closed is not None
    assert new.closed is None
    assert bob.take() == []


# ---------------------------------------------------------------------------------------------- many


def test_what_is_shared_is_encoded_once() -> None:
    world = World(HubConfig(deflate=True, wall_clock=noon, presence_window=0))
    *plain, _ = clients = people(world, *[f"u{n}" for n in range(5)], "ann")
    ann = clients[-1]
    deflating, other = (jarvis(world, name, deflate=True) for name in ("d", "e"))
    for client in clients:
        client.take()
    update = json.dumps({"type": "activity_update", "status": "idle", "activity": "x" * 1000})
    world.hub.receive_data(ann.conn, masked(update.encode()), now=world.now)
    sent: dict[ConnId, bytes] = {}
    for output in world.hub.drain():
        assert isinstance(output, SendData)
        sent[output.conn] = output.data
        world.clients[output.conn].receive(output.data)
    assert ann.conn not in sent
    assert len({id(sent[client.conn]) for client in plain}) == 1
    assert len(sent[deflating.conn]) < 200
    assert sent[deflating.conn] is sent[other.conn]
    for client in (*plain, deflating, other):
        assert client.take()[-1]["activity"] == "x" * 1000


def test_a_slow_peer_is_nobody_elses_problem() -> None:
    # It reads nothing at all: its bytes wait for its driver, and everybody else's go out at once.
    world = World()
    slow, ann, bob = people(world, "slow", "ann", "bob")
    slow.mute = True
    for number in range(50):
        ann.tell("activity_update", status="idle", activity=str(number))
        assert [m["activity"] for m in bob.take() if m["type"] == "activity_changed"] == [str(number)]
        bob.tell("ping")
        world.advance(2)
    assert set(world.hub.connections) == {ann.conn, bob.conn}


def test_an_idle_connection_is_small() -> None:
    hub = Hub()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for conn in range(200):
            connect = {"type": "connect", "user_id": f"user-{conn}", "display_name": "Some Body"}
            hub.transport_opened(ConnId(conn), now=0)
            for data in (upgrade("/"), masked(json.dumps(connect).encode())):
                hub.receive_data(ConnId(conn), data, now=0)
                hub.drain()
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(hub.online(ROOM)) == 200
    assert used / 200 < 10 * 1024
