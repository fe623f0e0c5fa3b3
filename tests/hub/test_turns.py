"""Fair turns: what one connection sends at once is handled in parts, and others are served in between."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hub_client import PHOENIX, SUPABASE, World, joined, masked
from presence_proto.endpoint import ConnId, SendData
from presence_proto.events import ClientDisconnected, TopicLeft
from presence_proto.hub import Hub, limits
from presence_proto.hub.config import HubConfig
from presence_proto.websocket.frames import server_frame
from websocket_bytes import CONTINUATION, MASK, PING, TEXT, frame

TOPIC = "realtime:x"
BEAT = masked(json.dumps([None, "7", "phoenix", "heartbeat", {}]).encode())
REPLY = server_frame(b'[null,"7","phoenix","phx_reply",{"status":"ok","response":{}}]', text=True)
A_TURN = limits.TURN // limits.MESSAGE  # small messages


def say(payload: Any, topic: str = TOPIC) -> bytes:
    return masked(
        json.dumps(
            ["1", None, topic, "broadcast", {"type": "broadcast", "event": "x", "payload": payload}]
        ).encode()
    )


def room(members: int, config: HubConfig | None = None, topic: str = TOPIC) -> tuple[World, list[ConnId]]:
    """So many who are in a topic. Their hub is driven by the tests themselves."""
    world = World(config)
    clients = joined(world, *[PHOENIX] * members, topic=topic)
    return world, [client.conn for client in clients]


def written(hub: Hub) -> dict[ConnId, bytes]:
    sent: dict[ConnId, bytes] = {}
    for output in hub.drain():
        if isinstance(output, SendData):
            sent[output.conn] = sent.get(output.conn, b"") + output.data
    return sent


def answered(hub: Hub, conn: ConnId) -> int:
    return written(hub).get(conn, b"").count(REPLY)


def test_a_read_is_handled_in_turns() -> None:
    world, (conn,) = room(1)
    hub = world.hub
    hub.receive_data(conn, BEAT * 1000, now=world.now)
    assert answered(hub, conn) == A_TURN
    assert hub.has_backlog
    assert hub.next_deadline() == world.now
    assert not hub.wants_data(conn)
    heard, ticks = A_TURN, 0
    while (deadline := hub.next_deadline()) == world.now:
        hub.tick(now=deadline)
        heard += answered(hub, conn)
        ticks += 1
    assert heard == 1000
    assert ticks == -(-1000 // A_TURN) // (limits.TICK // limits.TURN)
    assert not hub.has_backlog
    assert hub.wants_data(conn)


def test_who_sends_little_is_served_at_once() -> None:
    world, (flooder, honest) = room(2)
    hub = world.hub
    hub.receive_data(flooder, BEAT * 1000, now=world.now)
    written(hub)
    hub.receive_data(honest, BEAT, now=world.now)
    assert answered(hub, honest) == 1
    assert hub.wants_data(honest)
    assert not hub.wants_data(flooder)


def test_those_who_wait_take_turns() -> None:
    world, conns = room(8)
    hub = world.hub
    for conn in conns:
        hub.receive_data(conn, BEAT * 3 * A_TURN, now=world.now)
    written(hub)
    served: list[ConnId] = []
    for _ in range(4):
        hub.tick(now=world.now)
        served += [conn for conn, data in written(hub).items() if data.count(REPLY) == A_TURN]
    assert served == [*conns, *conns], "four in each tick, one after the other"
    hub.tick(now=world.now)  # which finds nothing more
    assert not hub.has_backlog


def test_bytes_that_come_all_the_same_are_kept_in_order() -> None:
    world, (conn,) = room(1)
    hub, numbers = world.hub, range(500)
    for number in numbers:
        data = json.dumps([None, str(number), "phoenix", "heartbeat", {}]).encode()
        hub.receive_data(conn, BEAT * 100 + masked(data), now=world.now)
    sent = written(hub).get(conn, b"")
    while hub.has_backlog:
        hub.tick(now=world.now)
        sent += written(hub).get(conn, b"")
    found = [message.split(b'"')[1] for message in sent.split(b"[null,")[1:]]
    assert [ref for ref in found if ref != b"7"] == [b"%d" % number for number in numbers if number != 7]


def test_receivers_are_work() -> None:
    world, conns = room(100)
    hub = world.hub
    hub.receive_data(conns[0], say("hello") * 200, now=world.now)
    turn = written(hub)[conns[1]].count(b"hello")
    assert turn == -(-limits.TURN // (limits.MESSAGE + 100))


def test_bytes_to_receivers_are_work() -> None:
    world, conns = room(10)
    hub = world.hub
    hub.receive_data(conns[0], say("x" * 60_000) * 20, now=world.now)
    units = limits.MESSAGE + (60_000 >> limits.BYTES_SHIFT) + limits.of_delivery(10, 60_000)
    assert written(hub)[conns[1]].count(b"xx" * 30_000) == -(-limits.TURN // units)


def test_bytes_are_work_as_inflated() -> None:
    world = World(HubConfig(deflate=True, presence_window=0))
    client = world.connect(SUPABASE, deflate=True)
    for _ in range(20):
        client.websocket.send_text(json.dumps([None, "7", "phoenix", "heartbeat", {"a": "x" * 15_000}]))
    data = client.websocket.data_to_send()
    assert len(data) < 20 * 200
    world.hub.receive_data(client.conn, data, now=world.now)
    assert world.hub.has_backlog


@pytest.mark.parametrize(
    "data",
    [
        frame(PING, mask=MASK) * 10_000,
        frame(TEXT, fin=False, mask=MASK) + frame(CONTINUATION, fin=False, mask=MASK) * 10_000,
        frame(TEXT, fin=False, mask=MASK)
        + (frame(CONTINUATION, b"x", fin=False, mask=MASK) + frame(PING, mask=MASK)) * 5_000,
        frame(TEXT, b"[", fin=False, mask=MASK) * 1
        + frame(CONTINUATION, b"x" * 126, fin=False, mask=MASK) * 500,
    ],
)
def test_frames_without_a_message_are_work(data: bytes) -> None:
    world, (flooder, honest) = room(2)
    hub = world.hub
    hub.receive_data(flooder, data, now=world.now)
    assert hub.has_backlog
    ticks = 0
    while hub.has_backlog:
        hub.tick(now=world.now)
        ticks += 1
    assert ticks >= 3
    hub.receive_data(honest, BEAT, now=world.now)
    assert answered(hub, honest) == 1


def test_what_came_before_the_end_of_the_stream_is_handled() -> None:
    world, (speaker, listener) = room(2)
    hub = world.hub
    hub.receive_data(speaker, say("hello") * 300 + BEAT, now=world.now)
    hub.transport_closed(speaker, now=world.now)
    assert hub.connections == (listener,)
    heard, sent, events = 0, [], []
    while True:
        for output in hub.drain():
            if isinstance(output, SendData):
                sent.append(output.conn)
                heard += output.data.count(b"hello") if output.conn == listener else 0
            else:
                events.append(output)
        if not hub.has_backlog:
            break
        assert events == []
        hub.tick(now=world.now)
    assert heard == 300
    assert set(sent[1:]) == {listener}, "nothing is sent to who is gone"
    assert [type(event) for event in events] == [TopicLeft, ClientDisconnected]
    assert hub.next_deadline() is not None  # the listener's


def test_a_goodbye_in_the_backlog_of_a_lost_connection() -> None:
    world, (conn,) = room(1)
    client = world.clients[conn]
    client.websocket.close(4000, "bye")
    world.hub.receive_data(conn, BEAT * 100 + client.websocket.data_to_send(), now=world.now)
    world.hub.transport_closed(conn, now=world.now)
    world.hub.drain()
    world.hub.tick(now=world.now)
    *_, gone = world.hub.drain()
    assert isinstance(gone, ClientDisconnected)
    assert (gone.code, gone.reason) == (4000, "bye")
    assert not world.hub.has_backlog


def test_a_hub_that_stops_ends_a_connection_with_a_backlog() -> None:
    world, (conn,) = room(1)
    world.hub.receive_data(conn, BEAT * 1000, now=world.now)
    world.hub.shutdown(now=world.now)
    world.settle()
    world.advance(10)
    assert world.hub.is_closed


def test_who_waits_for_a_turn_is_not_silent() -> None:
    world, (conn,) = room(1, HubConfig(idle_timeout=10.0, presence_window=0))
    hub = world.hub
    hub.receive_data(conn, BEAT * 1000, now=world.now)
    hub.receive_data(conn, b"", now=world.now + 100.0)  # the timers have fired
    assert hub.connections == (conn,)
    hub.tick(now=world.now + 100.0)
    assert answered(hub, conn) > A_TURN
    while hub.has_backlog:
        hub.tick(now=world.now + 100.0)
    hub.tick(now=world.now + 200.0)  # late: what the client sent may lie unread
    hub.tick(now=world.now + 205.0)
    assert hub.connections == ()


@pytest.mark.long
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_turns_cannot_be_told_from_small_reads(size: int) -> None:
    data = b"".join([BEAT, say({"n": 1}), frame(PING, b"?", mask=MASK), say("x" * 5000)] * 50)
    outcomes = []
    for chunk in (size, len(data)):
        world, conns = room(3)
        world.sent.clear()
        for start in range(0, len(data), chunk):
            world.receive(conns[0], data[start : start + chunk])
        outcomes.append(world.sent)
    assert outcomes[0] == outcomes[1]
