"""What Supabase is slow at, and how it stops, as options of the hub."""

from __future__ import annotations

from hub_client import PHOENIX, SUPABASE, World, joined, upgrade
from jarvis_client import jarvis
from presence_proto.endpoint import CloseTransport
from presence_proto.events import ClientDisconnected, ClientRefused, TopicLeft
from presence_proto.hub.config import HubConfig

LIKE_SUPABASE = HubConfig(shutdown_like="supabase", presence_window=0)


def test_channels_crash_and_the_streams_end_after_the_close_timeout() -> None:
    world = World(LIKE_SUPABASE)
    member, other = joined(world, SUPABASE, SUPABASE, topic="realtime:x")
    idle = world.connect(SUPABASE)
    world.take_events()
    world.hub.shutdown(now=world.now)
    world.settle()
    for client in (member, other):
        assert client.take() == [["1", "1", "realtime:x", "phx_error", {"reason": "channel_crash"}]]
    assert idle.take() == []
    assert TopicLeft(member.conn, "realtime:x", "crashed") in world.take_events()
    member.say("2", "2", "realtime:y", "phx_join", {})  # never answered
    world.advance(4.9)
    assert (member.take(), world.closed) == ([], {})
    world.advance(0.1)
    assert world.closed == {client.conn: CloseTransport(client.conn) for client in (member, other, idle)}
    assert world.take_events() == [
        ClientDisconnected(client.conn, "the server is stopping", 1006) for client in (member, other, idle)
    ]
    assert world.hub.is_closed


def test_a_client_may_close_before_that() -> None:
    world = World(LIKE_SUPABASE)
    (member,) = joined(world, SUPABASE, topic="realtime:x")
    world.hub.shutdown(now=world.now)
    world.settle()
    member.close()
    assert world.hub.is_closed


def test_other_sockets_are_closed_as_ever() -> None:
    world = World(LIKE_SUPABASE)
    phoenix, user = world.connect(PHOENIX), jarvis(world, "ann")
    world.hub.shutdown(now=world.now)
    world.settle()
    assert phoenix.closed is not None
    assert user.closed is not None
    assert phoenix.closed.code == user.closed.code == 1012


def test_a_wrong_key_is_answered_late() -> None:
    world = World(HubConfig(api_keys={"good"}, handshake_refusal_delay=2.0))
    wrong = world.connect(SUPABASE)
    path = world.connect("/nowhere/websocket?vsn=9")
    assert path.refused is not None, "only a wrong key takes its time"
    world.advance(1.9)
    assert wrong.refused is None
    world.advance(0.1)
    assert wrong.refused is not None
    assert (wrong.refused.status, wrong.refused.body) == (401, b'{"error":"API key is invalid"}')
    assert world.take_events()[-1] == ClientRefused(wrong.conn, 401, "wrong API key")
    assert world.closed[wrong.conn] == CloseTransport(wrong.conn)


def test_who_goes_before_the_refusal_is_forgotten() -> None:
    world = World(HubConfig(api_keys={"good"}, handshake_refusal_delay=2.0))
    wrong = world.connect(SUPABASE)
    wrong.drop()
    world.advance(5)
    assert world.hub.next_deadline() is None
    assert world.take_events() == [ClientDisconnected(wrong.conn, "eof", None)]


def test_a_hub_that_stops_refuses_at_once() -> None:
    world = World(HubConfig(api_keys={"good"}, handshake_refusal_delay=2.0))
    waiting, conn = world.connect(SUPABASE), world.open()
    world.hub.shutdown(now=world.now)
    world.settle()
    world.receive(conn, upgrade(SUPABASE))
    assert world.take_events()[-1] == ClientRefused(conn, 503, "the server is stopping")
    world.advance(5)
    assert waiting.refused is not None
    assert world.hub.is_closed
