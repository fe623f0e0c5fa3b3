"""The life of a hub and its transports: time, closing, shutting down, the commands, one slow or dead peer."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hub_client import (
    PHOENIX,
    SUPABASE,
    World,
    joined,
)
from presence_proto.endpoint import CloseTransport, ConnId
from presence_proto.errors import LocalProtocolError
from presence_proto.events import (
    ClientDisconnected,
    ClientRefused,
    TopicLeft,
)
from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig

OK = {"status": "ok", "response": {}}


# ---------------------------------------------------------------------------------------------- facts


def test_a_new_hub_has_nothing_to_do() -> None:
    hub = Hub()
    assert (hub.drain(), hub.next_deadline(), hub.connections, hub.topics) == ((), None, (), ())
    assert not hub.is_closed
    assert hub.online("room:x") == {}


@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf])
def test_now_must_be_a_time(now: float) -> None:
    hub = Hub()
    hub.transport_opened(ConnId(1), now=5)
    for call in (
        lambda: hub.tick(now=now),
        lambda: hub.receive_data(ConnId(1), b"", now=now),
        lambda: hub.transport_closed(ConnId(1), now=now),
        lambda: hub.transport_opened(ConnId(2), now=now),
        lambda: hub.shutdown(now=now),
        lambda: hub.broadcast("room:x", "e", {}, now=now),
        lambda: hub.disconnect(ConnId(1), now=now),
        lambda: hub.close_channel("room:x", now=now),
        lambda: hub.crash_channel("room:x", now=now),
    ):
        with pytest.raises(LocalProtocolError, match="finite"):
            call()
    assert not hub.is_closed
    assert not hub.drain()
    hub.transport_opened(ConnId(2), now=6)


def test_time_does_not_run_backwards() -> None:
    world = World(HubConfig(handshake_timeout=10))
    world.open()
    world.hub.tick(now=world.now - 50)
    assert world.hub.next_deadline() == world.now + 10


def test_ids_only_grow() -> None:
    hub = Hub()
    hub.transport_opened(ConnId(3), now=0)
    for conn in (3, 2):
        with pytest.raises(LocalProtocolError, match="increase"):
            hub.transport_opened(ConnId(conn), now=0)


def test_facts_about_others_are_ignored() -> None:
    world = World()
    (client,) = joined(world, PHOENIX)
    client.drop()
    world.take_events()
    for conn in (client.conn, ConnId(99)):
        world.hub.receive_data(conn, b"\x81\x80\0\0\0\0", now=world.now)
        world.hub.transport_closed(conn, now=world.now)
        world.hub.disconnect(conn, now=world.now)
        assert not world.hub.drain()


def test_no_data_is_nothing() -> None:
    world = World(HubConfig(idle_timeout=60))
    (client,) = joined(world, PHOENIX)
    world.advance(50)
    world.receive(client.conn, b"")
    world.advance(10)
    assert client.closed is not None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes(kind: Any) -> None:
    world = World()
    client = world.connect()
    world.receive(client.conn, kind(client.bytes_of(None, "1", "phoenix", "heartbeat", {})))
    assert client.take() == [[None, "1", "phoenix", "phx_reply", OK]]


def test_pings_are_answered() -> None:
    client = World().connect()
    client.websocket.ping(b"hello")
    client.flush()
    assert client.pongs == [b"hello"]
    client.websocket.send_text('[null,"1","phoenix",')  # and a fragment of nonsense does no harm to it
    client.flush()
    assert client.closed is not None


# ---------------------------------------------------------------------------------------------- closing


def test_the_client_closes() -> None:
    world = World()
    first, second = joined(world, PHOENIX, PHOENIX)
    first.close(4001)
    assert first.closed is not None
    assert world.closed[first.conn] == CloseTransport(first.conn)
    assert [message[3] for message in second.take()] == ["presence_diff"]
    assert world.take_events() == [
        TopicLeft(first.conn, "room:x", "closed by the client"),
        ClientDisconnected(first.conn, "closed by the client", 4001),
    ]


def test_an_oversize_message_closes_1009() -> None:
    world = World(HubConfig(max_message_size=1000, presence_window=0))
    client, other = joined(world, PHOENIX, PHOENIX)
    client.say("1", "2", "room:x", "e", "x" * 900)
    assert client.closed is None
    other.take()
    client.say("1", "3", "room:x", "e", "x" * 1000)
    assert client.closed is not None
    assert client.closed.code == 1009
    assert [message[3] for message in other.take()] == ["presence_diff"]
    event = world.take_events()[-1]
    assert isinstance(event, ClientDisconnected)
    assert event.code == 1009


def test_an_unmasked_frame_closes_1002() -> None:
    world = World()
    (client,) = joined(world, PHOENIX)
    world.receive(client.conn, b"\x81\x02{}")
    assert client.closed is not None
    assert client.closed.code == 1002
    assert world.closed[client.conn] == CloseTransport(client.conn)


def test_silence_is_idle_after_a_while() -> None:
    # 1002 as Phoenix on Bandit has it. Some clients take 1000 for an orderly end and do not come back.
    world = World(HubConfig(idle_timeout=60, close_timeout=5))
    client, other = joined(world, PHOENIX, PHOENIX)
    world.advance(30)
    other.say("1", "2", "room:x", "e", {})
    world.advance(29.9)
    assert client.closed is None
    world.advance(0.1)
    assert client.closed is not None
    assert (client.closed.code, client.closed.reason) == (1002, "idle timeout")
    assert other.closed is None
    assert world.take_events() == [
        TopicLeft(client.conn, "room:x", "idle timeout"),
        ClientDisconnected(client.conn, "idle timeout", 1002),
    ]
    world.advance(30)
    assert other.closed is not None


def test_what_the_hub_sends_is_no_sign_of_life_and_a_ping_is_one() -> None:
    world = World(HubConfig(idle_timeout=60))
    quiet, pinging = joined(world, PHOENIX, PHOENIX)
    for _ in range(7):
        world.advance(10)
        world.hub.broadcast("room:x", "tick", {}, now=world.now)
        world.settle()
        if pinging.closed is None:
            pinging.websocket.ping()
            pinging.flush()
    assert quiet.closed is not None
    assert pinging.closed is None


def test_a_frame_does_not_touch_the_timer() -> None:
    world = World(HubConfig(idle_timeout=60, presence_window=0))
    (client,) = joined(world, PHOENIX)
    deadline = world.hub.next_deadline()
    world.advance(20)
    client.say("1", "2", "room:x", "e", {})
    assert world.hub.next_deadline() == deadline
    world.advance(45)
    assert client.closed is None
    assert world.hub.next_deadline() == deadline + 20


def test_a_peer_that_does_not_answer_the_close() -> None:
    world = World(HubConfig(idle_timeout=60, close_timeout=5))
    (client,) = [world.connect(mute=True, shake_hands=False)]
    world.receive(client.conn, client.websocket.data_to_send())
    assert client.opened is not None
    world.take_events()
    world.advance(60)
    assert client.closed is not None
    assert world.closed == {}
    assert world.hub.connections == ()
    world.receive(client.conn, b"\x81\x82\0\0\0\0{}")  # too late
    world.advance(5)
    assert world.closed == {client.conn: CloseTransport(client.conn, abort=True)}
    assert world.take_events() == [ClientDisconnected(client.conn, "idle timeout", 1002)]


def test_a_transport_that_ends_while_closing() -> None:
    world = World()
    client = world.connect(mute=True, shake_hands=False)
    world.receive(client.conn, client.websocket.data_to_send())
    world.hub.disconnect(client.conn, 4000, "bye", now=world.now)
    world.settle()
    client.drop()
    assert world.take_events()[-1] == ClientDisconnected(client.conn, "bye", 4000)
    assert world.hub.next_deadline() is None


# ---------------------------------------------------------------------------------------------- disconnect


def test_disconnect() -> None:
    world = World()
    client, other = joined(world, PHOENIX, PHOENIX)
    world.hub.disconnect(client.conn, now=world.now)
    world.settle()
    assert client.closed is not None
    assert client.closed.code == 1001
    assert [message[3] for message in other.take()] == ["presence_diff"]
    assert world.hub.connections == (other.conn,)
    world.hub.disconnect(other.conn, 4123, "your room is gone", now=world.now)
    world.hub.disconnect(other.conn, 1000, now=world.now)
    world.settle()
    assert other.closed is not None
    assert (other.closed.code, other.closed.reason) == (4123, "your room is gone")


def test_disconnect_of_what_is_closing_changes_nothing() -> None:
    world = World(HubConfig(close_timeout=5))
    client = world.connect(mute=True, shake_hands=False)
    world.receive(client.conn, client.websocket.data_to_send())
    world.hub.disconnect(client.conn, 4000, "bye", now=world.now)
    world.settle()
    world.advance(3)
    world.hub.disconnect(client.conn, 4001, "again", now=world.now)
    world.settle()
    assert world.hub.next_deadline() == world.now + 2
    world.advance(2)
    assert world.closed == {client.conn: CloseTransport(client.conn, abort=True)}
    assert world.take_events()[-1] == ClientDisconnected(client.conn, "bye", 4000)


def test_disconnect_in_the_handshake() -> None:
    world = World()
    conn = world.open()
    world.hub.disconnect(conn, now=world.now)
    world.settle()
    assert world.closed == {conn: CloseTransport(conn)}
    assert world.take_events() == [ClientDisconnected(conn, "disconnected by the server", None)]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(999, ""), (1005, ""), (1006, ""), (1015, ""), (5000, ""), (4000, "é" * 62), (4000, "\ud800")],
)
def test_disconnect_checks_first(code: int, reason: str) -> None:
    world = World()
    (client,) = joined(world, PHOENIX)
    with pytest.raises(LocalProtocolError):
        world.hub.disconnect(client.conn, code, reason, now=world.now)
    assert world.hub.connections == (client.conn,)
    assert not world.hub.drain()


# ---------------------------------------------------------------------------------------------- shutdown


def test_shutdown_closes_1012_and_ends() -> None:
    world = World()
    first, second = joined(world, PHOENIX, SUPABASE)
    world.hub.shutdown(now=world.now)
    assert not world.hub.is_closed
    world.settle()
    for client in (first, second):
        assert client.closed is not None
        assert client.closed.code == 1012
        assert client.take() == []  # nobody learns that the others leave
    assert world.hub.is_closed
    assert world.hub.next_deadline() is None
    assert world.hub.topics == ()
    late = world.open()
    assert world.closed[late] == CloseTransport(late)
    world.hub.shutdown(now=world.now)
    assert world.hub.is_closed


def test_shutdown_while_handshakes_are_under_way() -> None:
    world = World(HubConfig(handshake_timeout=60, close_timeout=5))
    half, silent = world.connect(mute=True), world.open()
    world.hub.shutdown(now=world.now)
    world.settle()
    half.mute = False
    half.flush()
    assert half.refused is not None
    assert half.refused.status == 503
    assert world.take_events() == [ClientRefused(half.conn, 503, "the server is stopping")]
    assert not world.hub.is_closed
    world.advance(5)
    assert world.closed[silent] == CloseTransport(silent, abort=True)
    assert world.hub.is_closed


def test_shutdown_leaves_alone_what_is_closing() -> None:
    world = World(HubConfig(close_timeout=5))
    client = world.connect(mute=True, shake_hands=False)
    world.receive(client.conn, client.websocket.data_to_send())
    world.hub.disconnect(client.conn, 4000, now=world.now)
    world.settle()
    world.advance(3)
    world.hub.shutdown(now=world.now)
    world.advance(2)
    assert world.hub.is_closed
    assert client.closed is not None
    assert client.closed.code == 4000
    assert world.take_events()[-1] == ClientDisconnected(client.conn, "disconnected by the server", 4000)


def test_shutdown_does_not_wait_for_the_dead() -> None:
    world = World(HubConfig(close_timeout=5))
    client = world.connect(mute=True, shake_hands=False)
    world.receive(client.conn, client.websocket.data_to_send())
    world.hub.shutdown(now=world.now)
    world.settle()
    world.advance(4)
    world.hub.shutdown(now=world.now)  # once more changes nothing
    world.settle()
    assert not world.hub.is_closed
    world.advance(1)
    assert world.hub.is_closed
    assert world.take_events()[-1] == ClientDisconnected(client.conn, "the server is stopping", 1012)
