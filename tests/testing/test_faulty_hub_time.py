"""`FaultyHub`: frozen, cut off and slow."""

from __future__ import annotations

import pytest

from faulty_rig import HEARTBEAT, Room, events_of, faulty, kinds, on_both, reasons, set_faults, switch
from hub_client import PHOENIX, SUPABASE, joined, masked, upgrade
from presence_proto.endpoint import CloseTransport, ConnId
from presence_proto.errors import LocalProtocolError
from presence_proto.events import (
    ClientConnected,
    ClientDisconnected,
    ClientRefused,
    Connected,
    GameInvite,
    Poked,
    UserStatus,
)
from presence_proto.hub.config import HubConfig
from presence_proto.json_text import encode_payload
from presence_proto.testing import Contract, Faults, FaultyHub

# ------------------------------------------------------------------------------------ freezing


@on_both
def test_a_frozen_hub_does_nothing_and_thaws(url: str) -> None:
    room = Room()
    ann, bo = room.two(url)
    room.set_faults(frozen=True)
    assert room.hub.next_deadline() is None
    bo.do("send_poke", "ann")
    bo.do("update_activity", UserStatus.AWAY)
    cy = room.join("cy", url)
    room.advance(5)
    assert (ann.take(), cy.take()) == ([], [])
    room.set_faults(frozen=False)
    assert sorted(kind.__name__ for kind in kinds(ann.take())) == ["ActivityChanged", "Poked", "UserOnline"]
    assert kinds(cy.take()) == [Connected]
    assert {host.client.online_count for host in (ann, bo, cy)} == {3}


@on_both
def test_a_hub_that_stays_frozen_loses_its_clients_and_gets_them_back(url: str) -> None:
    room = Room()
    ann, bo = room.two(url)
    room.set_faults(frozen=True)
    room.advance(100)
    assert len(reasons(ann)) > 1
    assert len(room.hub.connections) == 2  # as far as it knows
    room.switch("heal")
    room.advance(100)
    assert (ann.client.is_connected, ann.client.online_count, bo.client.online_count) == (True, 2, 2)
    assert len(room.hub.connections) == 2


def test_what_was_due_is_done_after_it_thaws_and_what_came_in_is_handled_first() -> None:
    world = faulty(HubConfig(handshake_timeout=10))
    conn = world.open()
    (member,) = joined(world, SUPABASE, topic="realtime:x")
    set_faults(world, frozen=True)
    late = world.open()
    world.advance(1000)
    member.say(*HEARTBEAT)
    assert (world.closed, world.events, member.take()) == ({}, [], [])
    set_faults(world, frozen=False)
    assert world.closed == {}
    assert [message[3] for message in member.take()] == ["phx_reply"]
    world.advance(5)
    assert world.closed == {conn: CloseTransport(conn, abort=True)}
    world.advance(5)
    assert late in world.closed
    assert member.closed is None


def test_what_is_for_a_connection_that_went_meanwhile_is_not_sent() -> None:
    hub = FaultyHub()
    contract = Contract(hub)
    conn = ConnId(1)
    contract.accepted(conn)
    hub.transport_opened(conn, now=0)
    hub.set_faults(frozen=True, now=0)
    hub.receive_data(conn, memoryview(bytearray(upgrade(SUPABASE))), now=1)
    hub.receive_data(conn, masked(b"{}"), now=2)
    contract.closed(conn)
    hub.transport_closed(conn, now=3, reason="reset")
    assert contract.drain(3) == []
    hub.set_faults(frozen=False, now=4)
    connected, disconnected = contract.drain(4)
    assert isinstance(connected, ClientConnected)
    assert isinstance(disconnected, ClientDisconnected)
    assert hub.connections == ()


def test_switches_may_be_set_while_it_is_frozen_and_commands_may_not() -> None:
    world = faulty()
    (client,) = joined(world, SUPABASE, topic="realtime:x")
    set_faults(world, frozen=True)
    set_faults(world, heartbeats_muted=True)
    set_faults(world, frozen=True)
    for name, *args in [
        ("broadcast", "realtime:x", "news", {}),
        ("close_channel", "realtime:x"),
        ("crash_channel", "realtime:x"),
        ("disconnect", client.conn),
        ("cut_all",),
    ]:
        with pytest.raises(LocalProtocolError, match="thaw it first"):
            switch(world, name, *args)
    client.say(*HEARTBEAT)
    set_faults(world, frozen=False)
    assert client.take() == []
    set_faults(world, frozen=False)  # it is not frozen
    assert world.hub.connections == (client.conn,)


def test_healing_a_frozen_hub_heals_before_it_goes_on() -> None:
    world = faulty()
    (client,) = joined(world, SUPABASE, topic="realtime:x")
    set_faults(world, heartbeats_muted=True, frozen=True)
    client.say(*HEARTBEAT)
    switch(world, "heal")
    assert events_of(client.take()) == ["phx_reply"]
    assert world.hub.faults == Faults()


# ------------------------------------------------------------------------------------ cutting


@on_both
def test_everybody_is_cut_and_comes_back(url: str) -> None:
    room = Room()
    ann, bo = room.two(url)
    room.switch("cut_all")
    assert room.hub.connections == ()
    assert (len(reasons(ann)), len(reasons(bo))) == (1, 1)
    room.advance(10)
    assert (ann.client.online_count, bo.client.online_count) == (2, 2)
    assert ann.opens == 2


def test_every_transport_is_aborted_whatever_it_does() -> None:
    world = faulty()
    conn, client = world.open(), world.connect()
    closing = world.connect()
    closing.mute = True
    switch(world, "disconnect", closing.conn)
    world.take_events()
    switch(world, "cut_all")
    assert world.closed == {one: CloseTransport(one, abort=True) for one in (conn, client.conn, closing.conn)}
    assert world.events == [
        ClientDisconnected(conn, "cut for a test", None),
        ClientDisconnected(client.conn, "cut for a test", 1006),
        ClientDisconnected(closing.conn, "disconnected by the server", 1001),
    ]
    assert world.hub.next_deadline() is None


def test_who_is_cut_with_unread_messages_is_cut_once() -> None:
    world = faulty()
    (client,) = joined(world, PHOENIX)
    world.hub.receive_data(client.conn, masked(bytes(encode_payload(HEARTBEAT))) * 300, now=world.now)
    assert world.hub.has_backlog
    for _ in range(2):
        switch(world, "cut_all")
    assert world.closed[client.conn] == CloseTransport(client.conn, abort=True)
    world.advance(1)
    assert world.events[-1] == ClientDisconnected(client.conn, "cut for a test", 1006)


# ------------------------------------------------------------------------------------ delays


@on_both
def test_what_is_sent_comes_late_and_in_order(url: str) -> None:
    room = Room()
    ann, bo = room.two(url)
    room.set_faults(delay=2)
    bo.do("send_poke", "ann")
    room.advance(1)
    bo.do("send_invite", "Chess")
    room.advance(0.9)
    assert ann.take() == []
    room.advance(0.2)
    assert kinds(ann.take()) == [Poked]
    room.advance(1)
    assert kinds(ann.take()) == [GameInvite]
    bo.do("send_poke", "ann")
    room.switch("heal")
    assert kinds(ann.take()) == [Poked]
    bo.do("send_poke", "ann")
    assert kinds(ann.take()) == [Poked]


def test_a_shorter_delay_overtakes_nothing() -> None:
    world = faulty()
    ann, bo = joined(world, PHOENIX, PHOENIX)
    set_faults(world, delay=5)
    ann.say("1", "2", "room:x", "first", {})
    set_faults(world, delay=1)
    ann.say("1", "3", "room:x", "second", {})
    world.advance(4.9)
    assert bo.take() == []
    world.advance(0.1)
    assert events_of(bo.take()) == ["first", "second"]


def test_events_and_aborts_do_not_wait_and_orderly_closes_do() -> None:
    world = faulty(HubConfig(handshake_timeout=10, protocol="phoenix"))
    set_faults(world, delay=30)
    silent = world.open()
    refused = world.connect("/nowhere")
    assert isinstance(world.events[-1], ClientRefused)
    assert (refused.refused, world.closed) == (None, {})
    world.receive(silent, b"")
    world.advance(10)
    assert world.closed == {silent: CloseTransport(silent, abort=True)}
    world.advance(20)
    assert refused.refused is not None
    assert world.closed[refused.conn] == CloseTransport(refused.conn)


def test_who_is_gone_is_sent_nothing_late() -> None:
    world = faulty()
    ann, bo = joined(world, PHOENIX, PHOENIX)
    set_faults(world, delay=1)
    ann.say("1", "2", "room:x", "shout", {})
    bo.drop()
    world.advance(2)  # the world would complain
    assert "phx_reply" in events_of(ann.take())


def test_a_cut_loses_what_was_held_back() -> None:
    world = faulty(HubConfig(protocol="phoenix"))
    ann, bo = joined(world, PHOENIX, PHOENIX)
    set_faults(world, delay=5)
    ann.say("1", "2", "room:x", "shout", {})
    refused = world.connect("/nowhere")
    switch(world, "cut_all")
    assert world.closed[refused.conn] == CloseTransport(refused.conn, abort=True)
    assert {ann.conn, bo.conn} < set(world.closed)
    world.advance(10)
    assert (ann.take(), bo.take(), refused.refused) == ([], [], None)


def test_what_is_held_waits_through_a_freeze() -> None:
    world = faulty()
    (client,) = joined(world, PHOENIX)
    set_faults(world, delay=1)
    client.say(*HEARTBEAT)
    set_faults(world, frozen=True)
    world.advance(5)
    assert client.take() == []
    set_faults(world, frozen=False)
    assert events_of(client.take()) == ["phx_reply"]
