"""What the hub's user tells it to do, what many clients share, and the names that the hub makes."""

from __future__ import annotations

import gc
import json
import tracemalloc
from random import Random
from typing import Any

import pytest

from hub_client import (
    PHOENIX,
    PHOENIX_V1,
    SUPABASE,
    SUPABASE_V1,
    World,
    joined,
    masked,
    supabase_join,
    upgrade,
)
from presence_proto.endpoint import ConnId, SendData
from presence_proto.errors import ConfigError, LocalProtocolError
from presence_proto.events import (
    ClientConnected,
    ClientDisconnected,
    TopicJoined,
    TopicLeft,
)
from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig
from presence_proto.serializer import UserBroadcast

OK = {"status": "ok", "response": {}}


# ---------------------------------------------------------------------------------------------- channels


def test_close_channel() -> None:
    world = World()
    first, second = joined(world, PHOENIX, PHOENIX_V1)
    world.hub.close_channel("room:x", now=world.now, reason="maintenance")
    world.settle()
    assert first.take() == [["1", "1", "room:x", "phx_close", {}]]
    assert second.take() == [[None, "1", "room:x", "phx_close", {}]]
    assert world.hub.topics == ()
    assert world.hub.connections == (first.conn, second.conn)
    assert world.take_events() == [
        TopicLeft(first.conn, "room:x", "maintenance"),
        TopicLeft(second.conn, "room:x", "maintenance"),
    ]
    world.hub.close_channel("room:x", now=world.now)
    assert not world.hub.drain()


def test_close_channel_of_supabase_says_why() -> None:
    world = World()
    (client,) = joined(world, SUPABASE, topic="realtime:x")
    world.hub.close_channel("realtime:x", now=world.now, reason="maintenance")
    world.settle()
    said = {"channel": "x", "extension": "system", "message": "maintenance", "status": "error"}
    assert client.take() == [
        ["1", None, "realtime:x", "system", said],
        ["1", "1", "realtime:x", "phx_close", {}],
    ]


@pytest.mark.parametrize("topic", ["room:x", "realtime:x"])
def test_crash_channel(topic: str) -> None:
    world = World()
    (client,) = joined(world, PHOENIX, topic=topic)
    world.hub.crash_channel(topic, now=world.now)
    world.settle()
    assert client.take() == [["1", "1", topic, "phx_error", {"reason": "channel_crash"}]]
    assert world.take_events() == [TopicLeft(client.conn, topic, "crashed")]
    assert client.join(topic, supabase_join("u"), ref="2")[0][4]["status"] == "ok"


def test_one_member_alone() -> None:
    world = World()
    first, second = joined(world, PHOENIX, PHOENIX)
    world.hub.crash_channel("room:x", now=world.now, conn=second.conn)
    world.settle()
    assert second.take() == [["1", "1", "room:x", "phx_error", {"reason": "channel_crash"}]]
    (left,) = first.take()
    assert list(left[4]["leaves"]) == ["u1"]


# ---------------------------------------------------------------------------------------------- broadcast


def test_broadcast_in_a_plain_topic() -> None:
    world = World()
    first, second = joined(world, PHOENIX, PHOENIX_V1)
    world.hub.broadcast("room:x", "news", {"a": [1]}, now=world.now)
    world.hub.broadcast("room:y", "news", {}, now=world.now)
    world.settle()
    for client in (first, second):
        assert client.take() == [[None, None, "room:x", "news", {"a": [1]}]]


def test_broadcast_in_a_supabase_topic() -> None:
    world = World()
    first, second = joined(world, PHOENIX, PHOENIX_V1, topic="realtime:x")
    world.hub.broadcast(
        "realtime:x", "presence_diff", {"a": [1]}, now=world.now
    )  # any name is the user's there
    world.settle()
    said = {"type": "broadcast", "event": "presence_diff", "payload": {"a": [1]}}
    for client in (first, second):
        assert client.take() == [[None, None, "realtime:x", "broadcast", said]]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_broadcast_of_bytes_reaches_v2_only(kind: Any) -> None:
    world = World()
    first, second = joined(world, PHOENIX, PHOENIX_V1)
    for client in (first, second):
        client.join("realtime:x", supabase_join(), ref="2")
        client.take()
    world.hub.broadcast("room:x", "raw", kind(b"\x00\x01"), now=world.now)
    world.hub.broadcast("realtime:x", "raw", kind(b"\x00\x01"), now=world.now)
    world.settle()
    assert first.take() == [
        [None, None, "room:x", "raw", b"\x00\x01"],
        [None, None, "realtime:x", "broadcast", UserBroadcast("raw", b"\x00\x01")],
    ]
    assert second.take() == []


@pytest.mark.parametrize(
    ("topic", "event", "payload"),
    [
        ("room:x", "e", {"a": object()}),
        ("realtime:x", "e", {1: 2}),
        ("room:x", "e" * 256, b"bytes"),
        ("realtime:x", "e" * 256, b"bytes"),
        ("room:x", "presence_diff", {}),
        ("room:x", "phx_close", {}),
    ],
)
def test_broadcast_checks_first(topic: str, event: str, payload: Any) -> None:
    world = World()
    joined(world, PHOENIX)
    with pytest.raises(LocalProtocolError):
        world.hub.broadcast(topic, event, payload, now=world.now)
    assert not world.hub.drain()


# ---------------------------------------------------------------------------------------------- many


def test_what_is_shared_is_encoded_once() -> None:
    world = World(HubConfig(deflate=True))
    topic = "room:x"
    plain = joined(world, *[PHOENIX] * 3, *[PHOENIX_V1] * 2)
    deflating = [world.connect(target, deflate=True) for target in (PHOENIX, PHOENIX_V1)]
    for client in deflating:
        client.join(topic, {})
    world.hub.broadcast(topic, "news", {"text": "x" * 1000}, now=world.now)
    sent: dict[ConnId, bytes] = {}
    for output in world.hub.drain():
        if isinstance(output, SendData):
            sent[output.conn] = output.data
            world.clients[output.conn].receive(output.data)
    frames = [sent[client.conn] for client in plain]
    assert len({id(frame) for frame in frames[:3]}) == 1
    assert len({id(frame) for frame in frames[3:]}) == 1
    assert frames[0] != frames[3]
    for client in deflating:
        assert len(sent[client.conn]) < 200
    for client in plain + deflating:
        assert client.take()[-1] == [None, None, topic, "news", {"text": "x" * 1000}]


def test_binary_to_deflating_clients() -> None:
    world = World(HubConfig(deflate=True))
    client = world.connect(deflate=True)
    client.join("room:x", {})
    world.hub.broadcast("room:x", "raw", b"\x00" * 500, now=world.now)
    world.settle()
    assert client.take()[-1] == [None, None, "room:x", "raw", b"\x00" * 500]


def test_a_peer_that_is_closing_is_spared() -> None:
    # Its close frame and a message of another come in between the hub's steps, in any order.
    world = World()
    first, second = joined(world, PHOENIX, PHOENIX)
    second.mute = True
    world.hub.disconnect(second.conn, now=world.now)
    world.hub.broadcast("room:x", "news", {}, now=world.now)
    world.settle()
    assert [message[3] for message in first.take()] == ["presence_diff", "news"]
    assert second.take() == []


def test_a_dead_peer_is_nobody_elses_problem() -> None:
    world = World(HubConfig(idle_timeout=60, close_timeout=5))
    dead, alive = joined(world, PHOENIX, PHOENIX)
    dead.mute = True
    for number in range(100):
        alive.say("1", str(number), "room:x", "e", {"n": number})
        assert alive.take()[-1] == ["1", str(number), "room:x", "phx_reply", OK]
        world.advance(1)
    assert world.hub.connections == (alive.conn,)
    assert list(world.hub.online("room:x")) == ["u1"]


@pytest.mark.parametrize(("target", "topic"), [(PHOENIX, "room:x"), (SUPABASE_V1, "realtime:x")])
def test_an_idle_connection_is_small(target: str, topic: str) -> None:
    payload = json.dumps({"user_id": "somebody", "name": "Some Body"} | supabase_join("somebody"))
    message = {
        PHOENIX: f'["1","1","{topic}","phx_join",{payload}]',
        SUPABASE_V1: f'{{"topic":"{topic}","event":"phx_join","payload":{payload},"ref":"1"}}',
    }[target]
    hub = Hub()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for conn in range(200):
            hub.transport_opened(ConnId(conn), now=0)
            for data in (upgrade(target), masked(message.encode())):
                hub.receive_data(ConnId(conn), data, now=0)
                hub.drain()
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(hub.connections) == 200
    assert used / 200 < 8 * 1024


# ---------------------------------------------------------------------------------------------- names


def test_refs_are_new_after_a_restart_when_there_is_an_rng() -> None:
    def refs_and_keys(rng: Random | None) -> list[str]:
        world = World(rng=rng)
        client = world.connect()
        client.join("realtime:x", supabase_join())
        for number in range(3):
            payload = {"event": "track", "payload": {"n": number}}
            client.say("1", "2", "realtime:x", "presence", payload)
        return [
            name
            for _, _, _, event, payload in client.take()
            if event == "presence_diff"
            for key, entry in payload["joins"].items()
            for name in (key, entry["metas"][0]["phx_ref"])
        ]

    first, second = refs_and_keys(Random(1)), refs_and_keys(Random(2))
    assert set(first).isdisjoint(second)
    assert refs_and_keys(Random(1)) == first
    assert refs_and_keys(None) == refs_and_keys(None)
    for ref in first[1::2]:
        assert len(ref) == 16
        assert set(ref) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert len(set(first)) == 4


@pytest.mark.parametrize("limit", [0, -1, True, 2.5])
def test_the_presence_limit_is_a_number_or_none(limit: Any) -> None:
    with pytest.raises(ConfigError, match="presence_limit"):
        HubConfig(presence_limit=limit)


def test_events_in_their_order() -> None:
    world = World()
    client = world.connect()
    client.join("room:x", {"user_id": "u"})
    client.close()
    assert world.take_events() == [
        ClientConnected(client.conn, "/socket/websocket"),
        TopicJoined(client.conn, "room:x", "u"),
        TopicLeft(client.conn, "room:x", "closed by the client"),
        ClientDisconnected(client.conn, "closed by the client", 1000),
    ]
