"""`FaultyHub`: what it refuses, passes over in silence, loses and limits, and that it heals."""

from __future__ import annotations

import math
from typing import Any

import pytest

from faulty_rig import (
    BROADCAST,
    CLOSE,
    HEARTBEAT,
    ROOM,
    SUPABASE_URL,
    TRACK,
    Room,
    events_of,
    faulty,
    kinds,
    on_both,
    reasons,
    set_faults,
    switch,
)
from hub_client import PHOENIX, SUPABASE, SUPABASE_V1, joined, supabase_join
from presence_proto.endpoint import ConnId
from presence_proto.errors import LocalProtocolError
from presence_proto.events import (
    ActivityChanged,
    ClientRefused,
    Connected,
    Disconnected,
    Error,
    GameInvite,
    InviteSent,
    Poked,
    UserOffline,
    UserOnline,
    UserStatus,
)
from presence_proto.hub.config import HubConfig
from presence_proto.testing import Faults, FaultyHub

# ------------------------------------------------------------------------------------ handshakes


@on_both
def test_the_next_handshakes_are_refused(url: str) -> None:
    room = Room()
    room.set_faults(handshakes_to_refuse=2, refusal_status=429, refusal_body='{"error": "Too many joins"}')
    assert room.hub.faults.handshakes_to_refuse == 2
    host = room.join("ann", url)
    room.advance(1)
    first, second = host.take()
    assert (type(first), type(second)) == (Disconnected, Disconnected)
    assert "429" in first.reason
    assert "Too many joins" in first.reason
    assert room.hub.faults.handshakes_to_refuse == 0
    room.advance(2)
    assert kinds(host.take()) == [Connected]
    assert host.opens == 3


def test_a_refusal_is_a_response_of_http_and_an_event() -> None:
    world = faulty()
    set_faults(world, handshakes_to_refuse=1, refusal_status=401, refusal_body='{"error":"no"}')
    refused = world.connect().refused
    assert refused is not None
    assert (refused.status, refused.body) == (401, b'{"error":"no"}')
    assert world.events == [ClientRefused(ConnId(1), 401, "refused for a test")]
    assert world.connect().opened is not None


@pytest.mark.parametrize(("off", "changes"), [("set_faults", {"handshakes_to_refuse": 0}), ("heal", {})])
def test_handshakes_are_accepted_again(off: str, changes: dict[str, int]) -> None:
    world = faulty()
    set_faults(world, handshakes_to_refuse=5)
    refused = world.connect().refused
    assert refused is not None
    assert (refused.status, refused.body) == (503, b"")
    switch(world, off, **changes)
    assert world.connect().opened is not None


# ------------------------------------------------------------------------------------ silence


@on_both
def test_heartbeats_are_not_answered(url: str) -> None:
    room = Room()
    ann, bo = room.two(
        url, heartbeat_interval=5, heartbeat_timeout=2, reconnect_delay=100, max_reconnect_delay=100
    )
    room.set_faults(heartbeats_muted=True)
    room.advance(1.9)
    assert (ann.take(), bo.take()) == ([], [])
    room.advance(20)
    (reason,) = reasons(ann)
    assert "no heartbeat reply" in reason or "no pong" in reason
    room.switch("heal")
    room.advance(300)
    assert (ann.client.online_count, bo.client.online_count) == (2, 2)
    opens = ann.opens
    room.advance(3600)
    assert ann.opens == opens


def test_other_messages_of_the_socket_are_answered_meanwhile() -> None:
    world = faulty()
    (client,) = joined(world, SUPABASE, topic="realtime:x")
    set_faults(world, heartbeats_muted=True)
    client.say(*HEARTBEAT)
    assert client.take() == []
    client.say(None, "3", "phoenix", "what", {})
    client.say("1", "4", "realtime:x", "heartbeat", {})
    assert [message[1:3] for message in client.take()] == [["3", "phoenix"]]
    set_faults(world, heartbeats_muted=False)
    client.say(*HEARTBEAT)
    assert client.take() == [[None, "9", "phoenix", "phx_reply", {"status": "ok", "response": {}}]]


@on_both
def test_joins_are_not_answered(url: str) -> None:
    room = Room()
    room.set_faults(joins_ignored=True)
    host = room.join("ann", url, join_timeout=3, reconnect_delay=1, max_reconnect_delay=1)
    room.advance(30)
    assert room.hub.connections
    assert Connected not in kinds(host.take())
    assert not room.hub.online(ROOM)
    room.switch("heal")
    room.advance(10)  # three join timeouts, and the delay
    assert Connected in kinds(host.take())
    assert list(room.hub.online(ROOM)) == ["ann"]


def test_who_has_joined_stays_joined_while_joins_are_ignored() -> None:
    world = faulty()
    (client,) = joined(world, SUPABASE, topic="realtime:x")
    set_faults(world, joins_ignored=True)
    assert client.join("realtime:x", supabase_join("u0"), "5") == []
    client.say("1", "6", "realtime:x", "presence", TRACK)
    assert events_of(client.take()) == ["phx_reply", "presence_diff"]


def test_states_are_withheld() -> None:
    room = Room()
    room.set_faults(states_withheld=True)
    host = room.join("ann", SUPABASE_URL, state_timeout=2)
    room.advance(20)
    events = host.take()
    assert Connected not in kinds(events)
    assert any("presence" in event.message for event in events if isinstance(event, Error))
    room.switch("heal")
    room.switch("crash_channel", ROOM)
    room.advance(60)
    assert Connected in kinds(host.take())


def test_diffs_still_come_without_a_state() -> None:
    world = faulty()
    set_faults(world, states_withheld=True)
    ann, bo = (world.connect(SUPABASE) for _ in range(2))
    assert events_of(ann.join("realtime:x", supabase_join("ann"))) == ["phx_reply"]
    assert events_of(bo.join("realtime:x", supabase_join("bo"))) == ["phx_reply"]
    bo.say("1", "2", "realtime:x", "presence", TRACK)
    assert events_of(ann.take()) == ["presence_diff"]
    set_faults(world, states_withheld=False)
    assert events_of(world.connect(PHOENIX).join("room:x", {})) == ["phx_reply", "presence_state"]


def test_states_are_late_on_every_other_connection() -> None:
    world = faulty()
    odd, even = world.connect(SUPABASE), world.connect(SUPABASE)
    assert (odd.conn % 2, even.conn % 2) == (1, 0)
    set_faults(world, states_late=True)
    assert events_of(odd.join("realtime:x", supabase_join("odd"))) == ["phx_reply", "presence_state"]
    assert events_of(even.join("realtime:x", supabase_join("even"))) == ["phx_reply"]
    odd.say("1", "2", "realtime:x", "presence", TRACK)
    assert events_of(even.take()) == ["presence_diff", "presence_state"]
    even.join("realtime:x", supabase_join("even"), "5")
    even.say(*HEARTBEAT)
    assert events_of(even.take()) == ["presence_state", "phx_reply"]
    even.join("realtime:x", supabase_join("even"), "6")
    switch(world, "crash_channel", "realtime:x")
    assert events_of(even.take()) == ["phx_error", "presence_state"]


# ------------------------------------------------------------------------------------ what is said to all


@on_both
def test_broadcasts_are_lost(url: str) -> None:
    room = Room()
    ann, bo = room.two(url)
    room.set_faults(broadcasts_dropped=True)
    bo.do("send_poke", "ann")
    bo.do("send_invite", "Chess")
    assert ann.take() == []
    assert all(isinstance(event, InviteSent) for event in bo.take())
    bo.do("update_activity", UserStatus.AWAY)
    assert kinds(ann.take()) == [ActivityChanged]  # as the presence says
    room.set_faults(broadcasts_dropped=False)
    bo.do("send_poke", "ann")
    bo.do("send_invite", "Chess")
    assert kinds(ann.take()) == [Poked, GameInvite]


def test_a_lost_broadcast_is_acknowledged() -> None:
    world = faulty()
    ann, bo = joined(world, SUPABASE, SUPABASE_V1, topic="realtime:x")
    ann.join("realtime:x", supabase_join("ann", ack=True, echo=True), "5")
    set_faults(world, broadcasts_dropped=True)
    ann.say("5", "6", "realtime:x", "broadcast", BROADCAST)
    assert events_of(ann.take()) == ["phx_reply"]
    switch(world, "broadcast", "realtime:x", "news", {})
    assert (ann.take(), bo.take()) == ([], [])
    switch(world, "heal")
    ann.say("5", "7", "realtime:x", "broadcast", BROADCAST)
    assert events_of(ann.take()) == ["broadcast", "phx_reply"]
    assert events_of(bo.take()) == ["broadcast"]


def test_what_plain_channels_relay_is_lost_too() -> None:
    world = faulty()
    ann, bo = joined(world, PHOENIX, PHOENIX)
    set_faults(world, broadcasts_dropped=True)
    ann.say("1", "2", "room:x", "shout", {"n": 1})
    assert events_of(ann.take()) == ["phx_reply"]
    ann.say("1", "3", "room:x", "track", {"n": 1})
    assert events_of(bo.take()) == ["presence_diff"]


@on_both
def test_diffs_come_twice(url: str) -> None:
    room = Room()
    room.set_faults(diffs_duplicated=True)
    ann = room.join("ann", url)
    ann.take()
    bo = room.join("bo", url)
    bo.do("update_activity", UserStatus.AWAY)
    bo.do("send_poke", "ann")
    bo.do("disconnect")
    room.advance(60)
    assert kinds(ann.take()) == [UserOnline, ActivityChanged, Poked, UserOffline]
    assert ann.client.online_count == 1


@pytest.mark.parametrize("target", [SUPABASE, SUPABASE_V1])
def test_both_diffs_are_the_same(target: str) -> None:
    world = faulty()
    ann, bo = joined(world, target, target, topic="realtime:x")
    set_faults(world, diffs_duplicated=True)
    ann.say("1", "2", "realtime:x", "presence", TRACK)
    first, second = bo.take()
    assert first == second
    assert first[3] == "presence_diff"
    switch(world, "heal")
    ann.say("1", "3", "realtime:x", "presence", {**TRACK, "payload": {"n": 2}})
    assert events_of(bo.take()) == ["presence_diff"]


# ------------------------------------------------------------------------------------ limits


def test_who_tracks_too_often_loses_the_channel() -> None:
    room = Room()
    ann, bo = room.two(SUPABASE_URL, track_limit=None)
    room.set_faults(presence_limit=5, broadcast_limit=100)
    for n in range(5):
        ann.do("update_activity", UserStatus.IN_GAME, f"Level {n}")
    assert {event.user.activity for event in bo.take()} == {f"Level {n}" for n in range(5)}
    ann.do("update_activity", UserStatus.AWAY)
    assert reasons(ann) == ["Client presence rate limit exceeded"]
    assert ann.opens == 1  # the connection stays
    assert UserOffline in kinds(bo.take())
    room.advance(5)
    assert UserOnline in kinds(bo.take())  # after a rejoin the count starts anew


def test_the_budget_of_our_client_keeps_it_within_the_limit() -> None:
    room = Room()
    ann, bo = room.two(SUPABASE_URL)
    room.set_faults(presence_limit=5, broadcast_limit=100)
    for n in range(100):
        ann.do("update_activity", UserStatus.IN_GAME, f"Level {n}")
        room.advance(1)
    room.advance(60)
    assert UserOffline not in kinds(bo.take())


@pytest.mark.parametrize(
    ("event", "payload", "says", "seconds"),
    [
        ("presence", TRACK, "Client presence rate limit exceeded", 30),
        ("broadcast", BROADCAST, "Too many messages per second", 1),
    ],
)
def test_the_server_says_what_was_too_much(event: str, payload: Any, says: str, seconds: float) -> None:
    world = faulty()
    (client,) = joined(world, PHOENIX, topic="realtime:x")
    set_faults(world, presence_limit=2, broadcast_limit=2)

    def call(join_ref: str | None, times: int = 1) -> list[list[Any]]:
        for _ in range(times):
            client.say(join_ref, "7", "realtime:x", event, payload)
        return [message for message in client.take() if message[3] in ("system", "phx_close")]

    assert call("1", 2) == []
    assert call("0", 9) == []  # meant for another life of the channel
    world.advance(seconds + 0.01)
    assert call(None, 2) == []
    system, close = call("1")
    assert (system[3], system[4]["status"], system[4]["message"]) == ("system", "error", says)
    assert close[:4] == ["1", "1", "realtime:x", "phx_close"]
    assert call("1") == []  # there is no channel any more
    client.join("realtime:x", supabase_join("u0"), "8")
    assert call("8", 2) == []
    assert events_of(call("8")) == ["system", "phx_close"]
    set_faults(world, presence_limit=None, broadcast_limit=None)
    client.join("realtime:x", supabase_join("u0"), "9")
    assert call("9", 20) == []
    set_faults(world, presence_limit=0, broadcast_limit=0)
    assert events_of(call("9")) == ["system", "phx_close"]


def test_plain_channels_have_no_limit() -> None:
    world = faulty()
    (client,) = joined(world, PHOENIX)
    set_faults(world, presence_limit=0, broadcast_limit=0)
    for event in ("presence", "broadcast", "track"):
        client.say("1", "2", "room:x", event, {})
        assert "phx_reply" in events_of(client.take())


def test_our_client_comes_back_when_the_limit_is_lifted() -> None:
    room = Room()
    room.set_faults(presence_limit=0)
    host = room.join("ann", SUPABASE_URL)
    room.advance(10)
    assert not room.hub.online(ROOM)
    assert set(reasons(host)) == {"Client presence rate limit exceeded"}
    room.switch("heal")
    room.advance(60)
    assert list(room.hub.online(ROOM)) == ["ann"]


# ------------------------------------------------------------------------------------ channels, the end


@pytest.mark.parametrize("end", ["crash_channel", "close_channel"])
def test_a_channel_that_ends_comes_back(end: str) -> None:
    room = Room()
    ann, _ = room.two(SUPABASE_URL)
    room.switch(end, ROOM)
    assert not room.hub.online(ROOM)
    room.advance(10)
    assert list(room.hub.online(ROOM)) == ["ann", "bo"]
    assert (ann.opens, ann.client.online_count) == (1, 2)


@pytest.mark.parametrize("fault", [{"frozen": True}, {"delay": 5}])
def test_a_hub_that_shuts_down_heals_first(fault: dict[str, Any]) -> None:
    world = faulty()
    (client,) = joined(world, SUPABASE, topic="realtime:x")
    set_faults(world, **fault)
    client.say(*HEARTBEAT)
    switch(world, "shutdown")
    assert events_of(client.take()) == ["phx_reply"]
    assert client.closed is not None
    assert client.closed.code == 1012
    assert world.hub.is_closed


def test_a_hub_is_not_closed_while_it_holds_something_back() -> None:
    world = faulty()
    client = world.connect()
    client.mute = True
    switch(world, "shutdown")
    set_faults(world, delay=60)
    world.receive(client.conn, CLOSE)
    assert not world.hub.is_closed
    world.advance(60)
    assert world.hub.is_closed
    assert client.conn in world.closed


# ------------------------------------------------------------------------------------ the commands


@pytest.mark.parametrize(
    ("fault", "value"),
    [
        *[("handshakes_to_refuse", value) for value in (-1, 1.5, True)],
        *[("refusal_status", value) for value in (200, 600, "503")],
        *[("refusal_body", value) for value in (b"", "\ud800")],
        *[("presence_limit", value) for value in (-1, 2.0)],
        ("broadcast_limit", 2.0),
        *[("join_delay", value) for value in (-1, "5")],
        ("refusal_delay", 0.0001),
        *[("delay", value) for value in (-1, math.inf, 0.0001)],
    ],
)
def test_values_that_make_no_sense_change_nothing(fault: str, value: Any) -> None:
    hub = FaultyHub(faults=Faults(joins_ignored=True))
    with pytest.raises(LocalProtocolError, match=f"{fault} must be"):
        hub.set_faults(now=1.0, **{fault: value})
    assert hub.faults == Faults(joins_ignored=True)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["set_faults", "cut_all", "heal", "tick", "shutdown"])
def test_every_command_wants_a_time(name: str, frozen: bool) -> None:
    hub = FaultyHub()
    if frozen:
        hub.set_faults(frozen=True, now=1.0)
    before = hub.faults
    with pytest.raises(LocalProtocolError):
        getattr(hub, name)(now=math.nan)
    assert hub.faults == before


def test_a_command_runs_what_is_due() -> None:
    world = faulty(HubConfig(handshake_timeout=10))
    conn = world.open()
    world.advance(9)
    world.now += 1
    set_faults(world, frozen=False)
    assert conn not in world.closed, "a command comes before what lies unread"
    world.now += 5
    set_faults(world, frozen=False)
    assert conn in world.closed
