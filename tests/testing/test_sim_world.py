"""The simulated world: exact replays, clients of one's own, and each fault by itself."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from random import Random
from typing import Any

import pytest

from presence_proto import (
    ChannelConfig,
    ChannelDown,
    ConfigError,
    Connected,
    Disconnected,
    HubConfig,
    Identity,
    LocalProtocolError,
    Poked,
    PresenceClient,
    PresenceConfig,
    RealtimeClient,
    RealtimeConfig,
    SocketDisconnected,
    UserOffline,
    UserOnline,
    UserStatus,
)
from presence_proto.testing import (
    ClientHost,
    FaultyHub,
    LinkQuality,
    SimFaults,
    SimViolation,
    SimWorld,
    play_seed,
)
from presence_proto.testing.sim import laws

DIGEST = """
import hashlib
from presence_proto.testing import SimFaults, SimWorld

world = SimWorld(11, clients=7, faults=SimFaults.MIXED, pace=30, log=True)
world.run(minutes=10)
world.heal()
world.settle()
print(len(world.log), hashlib.sha256("\\n".join(world.log).encode()).hexdigest())
"""

ROOM = "realtime:jarvis-presence"
GOOD = LinkQuality(latency=0.01, jitter=0.0, bandwidth=0.0, chunking=0.0)


def empty(**options: Any) -> SimWorld:
    """A world with nobody in it."""
    return SimWorld(1, clients=0, quality=GOOD, **options)


def room_client(world: SimWorld, name: str, *, protocol: Any = "phoenix", **options: Any) -> ClientHost:
    """Somebody in the room, who is online, and whose events are kept in the list `events`."""
    url = "ws://hub.sim:8790/" if protocol == "jarvis" else "ws://hub.sim/realtime/v1"
    config = PresenceConfig(server_url=url, protocol=protocol)
    client = PresenceClient(Identity(name, name.title()), config, rng=Random(name))
    happened: list[Any] = []
    host = world.add_client(
        client, name=name, on_event=happened.append, hears_chat=protocol == "phoenix", **options
    )
    EVENTS[host] = happened
    host.do("connect")
    world.run(seconds=5)
    assert isinstance(happened.pop(0), Connected)
    return host


EVENTS: dict[ClientHost, list[Any]] = {}


def taken(host: ClientHost) -> list[Any]:
    """The events since the last time."""
    happened = [*EVENTS[host]]
    EVENTS[host].clear()
    return happened


def kinds(host: ClientHost) -> list[str]:
    return [type(event).__name__ for event in taken(host)]


# ---------------------------------------------------------------------------------------------- replays


@pytest.mark.long
def test_the_log_is_the_same_under_any_hash_seed() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DIGEST],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("0", "1", "4711")
    ]
    digests = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(digests) == 1
    assert int(digests.pop().split()[0]) > 1000


def test_the_log_does_not_change_what_happens() -> None:
    lines: list[str] = []
    loud = play_seed(5, minutes=4, clients=4, log=lines.append)
    quiet = play_seed(5, minutes=4, clients=4)
    assert loud == quiet
    loud.add(quiet)
    assert loud.writes == 2 * quiet.writes
    assert loud.client_hours == 2 * quiet.client_hours
    assert loud.faults["early tick"] == 2 * quiet.faults["early tick"]
    assert loud.faults
    assert any("gets" in line for line in lines)


def test_another_seed_is_another_world() -> None:
    assert play_seed(5, minutes=4, clients=4) != play_seed(6, minutes=4, clients=4)


def test_progress_is_told_in_virtual_time() -> None:
    told: list[float] = []
    stats = play_seed(1, minutes=25, clients=1, faults=SimFaults.NONE, progress=told.append)
    assert told == [450, 450, 450, 150]
    assert stats.client_hours == pytest.approx(25 / 60, abs=0.1)
    assert not stats.faults


@pytest.mark.parametrize("seed", [5347, 11903])
def test_seeds_in_which_something_was_found(seed: int) -> None:
    """5347: a welcome in the moment of the diff, and before it. 11903: a connection that was superseded."""
    play_seed(seed)


@pytest.mark.parametrize("seed", range(20, 32))
def test_some_seeds(seed: int) -> None:
    assert sum(play_seed(seed).faults.values()) > 10


def test_a_quiet_world_has_ordinary_activity() -> None:
    world = SimWorld(3, clients=10)
    world.run(hours=1)
    assert world.settle() < 5
    stats = world.stats
    assert stats.client_hours == pytest.approx(10, abs=0.1)
    assert stats.writes > 2 * 10 * 144  # the heartbeats, there and back
    assert stats.events > 100
    assert {line.split()[1] for line in world.log} - {"hub", "world"} <= {*world.clients}


# ---------------------------------------------------------------------------------------------- one's own


def test_a_client_of_ones_own_answers_a_poke() -> None:
    world = empty()

    def on_event(event: Any) -> None:
        if isinstance(event, Poked):
            ada.do("send_poke", event.user_id)

    client = PresenceClient(Identity("ada", "Ada"), PresenceConfig(server_url="ws://hub.sim"))
    ada = world.add_client(client, name="ada", on_event=on_event)
    ada.do("connect")
    bob = room_client(world, "bob")
    jack = room_client(world, "jack", protocol="jarvis")
    bob.do("send_poke", "ada")
    jack.do("send_poke", "ada")
    jack.do("send_invite", "Snake")
    world.settle()
    assert Poked("ada", "Ada") in taken(bob)
    assert sorted(kinds(jack)) == ["InviteSent", "Poked"]


def test_what_on_event_raises_comes_out() -> None:
    world = empty()

    def on_event(event: Any) -> None:
        raise ZeroDivisionError

    client = PresenceClient(Identity("ada", "Ada"), PresenceConfig(server_url="ws://hub.sim"))
    world.add_client(client, name="ada", on_event=on_event).do("connect")
    with pytest.raises(ZeroDivisionError):
        world.run(seconds=5)


def test_a_command_that_is_not_legal_raises_what_it_raises() -> None:
    world = empty()
    ada = room_client(world, "ada")
    with pytest.raises(LocalProtocolError):
        ada.do("connect")
    with pytest.raises(LocalProtocolError, match="there is a 'ada' already"):
        world.add_client(ada.endpoint, name="ada")


def test_a_command_that_crashes_is_a_violation() -> None:
    class Crashing(PresenceClient):
        def send_poke(self, *args: Any, **kwargs: Any) -> int:
            raise ZeroDivisionError

    world = empty()
    client = Crashing(Identity("ada", "Ada"), PresenceConfig(server_url="ws://hub.sim"))
    ada = world.add_client(client, name="ada")
    with pytest.raises(SimViolation, match="ZeroDivisionError") as caught:
        ada.do("send_poke", "bob")
    assert caught.value.law == laws.WEATHER


def test_any_endpoint_can_be_a_client() -> None:
    class Wrapped:
        """An endpoint that the world does not know."""

        def __init__(self) -> None:
            self.inner = RealtimeClient(RealtimeConfig(server_url="ws://hub.sim"))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    world = empty()
    host = world.add_client(Wrapped(), name="wrapped")  # type: ignore[arg-type]  # it is one, by __getattr__
    host.do("connect")
    host.do("join", "room:plain", {"user_id": "wrapped"})
    world.run(seconds=1)
    world.cut("wrapped", how="rst")
    world.run(minutes=1)
    assert [*world.hub.online("room:plain")] == ["wrapped"]
    world.settle()


def test_a_hub_config_of_ones_own() -> None:
    world = SimWorld(2, clients=3, hub_config=HubConfig(wall_clock=lambda: "noon", deflate=True))
    world.run(minutes=1)
    world.settle()


def test_seeds_choose_between_a_window_and_none() -> None:
    windows = {SimWorld(seed, clients=0).hub._config.presence_window for seed in range(10)}
    assert windows == {0.0, HubConfig().presence_window}


def test_a_bad_link_is_refused() -> None:
    with pytest.raises(ConfigError, match="latency"):
        LinkQuality(latency=-1)


# ---------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(("how", "seconds"), [("fin", 0), ("rst", 0), ("near", 0), ("far", 25), ("dead", 35)])
def test_cut(how: str, seconds: float) -> None:
    world = empty()
    ada = room_client(world, "ada")
    world.cut("ada", how=how)
    world.run(seconds=max(seconds - 6, 0))
    assert bool(taken(ada)) == (not seconds)
    world.run(seconds=10)
    assert kinds(ada)[0] == ("Disconnected" if seconds else "Connected")
    world.heal()
    world.settle()
    assert world.stats.faults[f"cut {how}"] == 1


def test_cut_of_nothing_is_nothing() -> None:
    world = empty()
    ada = room_client(world, "ada")
    ada.do("disconnect")
    world.run(seconds=10)
    for fault in (world.cut, world.kick):
        fault("ada")
    world.silence("ada", 1)
    world.end_channel(ROOM, name="ada")
    assert not world.stats.faults


def test_silence_holds_everything_back_until_it_ends() -> None:
    world = empty()
    ada, bob = room_client(world, "ada"), room_client(world, "bob")
    taken(ada), taken(bob)
    world.silence("ada", 8, way="down")
    bob.do("send_chat", "general", "hello")
    world.run(seconds=7)
    assert kinds(ada) == []
    world.run(seconds=2)
    assert kinds(ada) == ["ChatMessage"]
    world.silence("bob", 60, way="up")
    bob.do("send_chat", "general", "are you there?")
    world.run(seconds=50)
    assert kinds(ada) == []
    assert kinds(bob) == ["Disconnected", "CommandFailed", "Connected"]
    world.run(seconds=20)
    world.settle()


@pytest.mark.parametrize("how", ["refuse", "hang", "slow"])
def test_connects_are_hampered_for_a_while(how: str) -> None:
    world = empty()
    ada = room_client(world, "ada")
    world.hamper_connects("ada", 40, how=how)
    world.cut("ada")
    world.run(seconds=39)
    assert all(isinstance(event, (Disconnected, Connected)) for event in taken(ada))
    world.run(seconds=45)
    assert ada.endpoint.is_connected
    world.settle()


def test_a_refusal_may_come_when_nobody_asks_any_more() -> None:
    world = empty(log=True)
    ada = room_client(world, "ada")
    world.kill_hub(down=600)
    world.hamper_connects("ada", 590, how="slow")
    world.run(seconds=600)
    reasons = {event.reason for event in taken(ada)}
    assert {"connection refused", "no connection within 10 s"} <= reasons
    world.run(seconds=40)
    assert ada.endpoint.is_connected


def test_the_hub_is_stopped_and_comes_back() -> None:
    world = empty()
    ada = room_client(world, "ada")
    first = world.hub
    world.stop_hub(down=20)
    world.stop_hub(down=1)  # it is being stopped
    world.run(seconds=25)
    assert "code 1012" in taken(ada)[0].reason
    assert world.hub is first
    assert world.hub.is_closed
    world.run(seconds=40)
    assert world.hub is not first
    world.settle()


@pytest.mark.parametrize("lost", [False, True])
def test_the_hub_is_killed(lost: bool) -> None:
    world = empty()
    ada = room_client(world, "ada")
    world.freeze("hub", 100)
    world.kill_hub(down=60, lost=lost)
    world.kill_hub()  # it is dead
    assert world.hub_do("shutdown") is None
    world.freeze("hub", 1)
    world.jump_clock("hub", 1)
    world.tick_early("hub")
    world.run(seconds=10)
    assert kinds(ada)[:1] == ([] if lost else ["Disconnected"])
    world.run(seconds=300)
    assert ada.endpoint.is_connected
    assert world.settle() == 0


def test_healing_does_not_wait_for_the_last_words_of_a_hub() -> None:
    world = empty()
    ada = room_client(world, "ada")
    world.silence("ada", 100)
    world.stop_hub()
    world.heal()
    second = world.hub
    assert world.settle() < 60
    assert world.hub is second
    assert ada.endpoint.is_connected


def test_a_client_that_freezes_while_it_connects() -> None:
    world = empty()
    ada = room_client(world, "ada")
    world.hamper_connects("ada", 10, how="slow")
    world.cut("ada")
    world.run(seconds=1.001)
    world.freeze("ada", 40)
    world.run(seconds=39)
    assert kinds(ada) == ["Disconnected"]
    world.run(seconds=60)
    assert world.settle() < 1


def test_healing_brings_the_hub_back_at_once() -> None:
    world = empty()
    room_client(world, "ada")
    world.kill_hub(down=3600)
    world.run(seconds=5)
    world.heal()
    assert world.settle() < 40
    world.run(hours=2)
    assert not world.hub.is_closed


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("name", [None, "ada"])
def test_channels_end(crash: bool, name: str | None) -> None:
    world = empty()
    ada, bob = room_client(world, "ada"), room_client(world, "bob")
    taken(ada), taken(bob)
    world.end_channel(ROOM, name=name, crash=crash)
    world.run(seconds=5)
    assert [kinds(ada)[0], *kinds(bob)[:1]] == ["Disconnected", "UserOffline" if name else "Disconnected"]
    world.settle()


def test_a_connection_is_kicked() -> None:
    world = empty()
    ada = room_client(world, "ada")
    world.kick("ada", code=1011)
    world.run(seconds=5)
    assert "code 1011" in taken(ada)[0].reason


def test_a_frozen_client_gets_everything_at_once() -> None:
    world = empty()
    ada, bob = room_client(world, "ada"), room_client(world, "bob")
    taken(ada)
    world.freeze("ada", 50)
    world.freeze("ada", 1)  # it is frozen
    bob.do("update_activity", UserStatus.AWAY)
    world.run(seconds=40)
    assert taken(ada) == []
    assert ada.is_frozen
    world.run(seconds=11)
    assert kinds(ada)[0] == "ActivityChanged"
    assert not ada.is_frozen
    world.settle()


def test_a_frozen_hub_is_slow_to_answer() -> None:
    world = empty()
    ada = room_client(world, "ada")
    world.freeze("hub", 20, tick_first=True)
    bob = world.add_client(
        RealtimeClient(RealtimeConfig(server_url="ws://hub.sim"), rng=Random(1)), name="bob"
    )
    bob.do("connect")
    world.run(seconds=8)
    assert bob.endpoint.is_connected is False
    ada.do("disconnect")
    world.run(seconds=60)
    assert bob.endpoint.is_connected
    world.settle()


def test_clocks_jump() -> None:
    world = empty()
    ada = room_client(world, "ada")
    before = ada.now
    world.jump_clock("ada", 3600)
    assert ada.now == before + 3600
    world.jump_clock("ada", -20)
    assert ada.now == before + 3580
    with pytest.raises(LocalProtocolError, match="20 s at most"):
        world.jump_clock("ada", -21)
    ada.do("send_chat", "general", "hello")
    world.run(minutes=3)
    assert taken(ada) == []
    world.jump_clock("hub", 4000)  # the hub takes everybody for idle
    world.run(minutes=3)
    assert "code 1000: idle timeout" in taken(ada)[0].reason
    world.settle()


def test_ticks_come_early_and_late() -> None:
    world = empty()
    ada = room_client(world, "ada")
    world.tick_early("ada")
    world.tick_late("ada", 5, 300)
    world.run(minutes=4)
    world.freeze("ada", 5)
    world.tick_early("ada")
    world.run(minutes=4)
    assert taken(ada) == []
    assert world.stats.faults == {"early tick": 2, "late ticks": 1, "freeze": 1}


def test_the_hub_is_spoiled_for_a_while() -> None:
    world = empty(faults=SimFaults.HUB, fault_every=1e9)
    ada = room_client(world, "ada")
    world.spoil_hub(60, heartbeats_muted=True)
    world.run(seconds=59)
    assert kinds(ada)[0] == "Disconnected"
    world.run(minutes=3)
    taken(ada)
    world.run(minutes=3)
    assert taken(ada) == []
    world.spoil_hub(1, handshakes_to_refuse=2)
    world.spoil_hub(5, joins_ignored=True)
    world.spoil_hub(5, join_delay=8.0, refusal_delay=5.0)
    world.kill_hub(1)
    world.spoil_hub(1, joins_ignored=True)
    world.run(minutes=1)
    assert world.settle() >= 0


def test_joins_are_slow_for_a_while() -> None:
    world = empty(faults=SimFaults.HUB, fault_every=1e9)
    hub = world.hub
    assert isinstance(hub, FaultyHub)
    ada = room_client(world, "ada")
    world.spoil_hub(60, join_delay=8.0, refusal_delay=5.0)
    assert (hub.faults.join_delay, hub.faults.refusal_delay) == (8.0, 5.0)
    world.cut("ada")
    world.run(seconds=8)
    assert kinds(ada) == ["Disconnected"]
    world.run(seconds=3)
    assert kinds(ada) == ["Connected"]
    world.run(seconds=60)
    assert (hub.faults.join_delay, hub.faults.refusal_delay) == (0.0, 0.0)


def test_a_plain_hub_cannot_be_spoiled() -> None:
    world = empty()
    world.spoil_hub(60, heartbeats_muted=True)
    assert not world.stats.faults


def test_stale_facts_are_told() -> None:
    world = empty(faults=SimFaults.STALE)
    ada = room_client(world, "ada")
    for _ in range(60):
        world.cut("ada", how="rst")
        world.hamper_connects("ada", 20, how="slow")
        world.run(seconds=30)
    world.freeze("ada", 100)
    world.run(minutes=10)
    assert world.stats.faults["stale fact"] > 5
    assert any("is told late: transport_opened" in line for line in world.log) or len(world.log) == 40
    world.heal()
    world.settle()
    assert ada.endpoint.is_connected


# ---------------------------------------------------------------------------------------------- reports


def test_a_violation_has_all_that_is_needed() -> None:
    world = empty()
    ada, bob = room_client(world, "ada"), room_client(world, "bob")
    ada.endpoint._roster._entries.pop("bob")
    with pytest.raises(SimViolation) as caught:
        bob.do("update_activity", UserStatus.AWAY)
        world.run(seconds=1)
    violation = caught.value
    assert violation.law == laws.FOLD
    text = str(violation)
    assert "folding the events reproduces the roster (ada, at 10." in text
    assert "SimWorld(1, clients=0, faults=SimFaults.NONE, pace=900)" in text
    assert "ada      reports UserOnline: bob [online]" in text


def test_a_world_that_does_not_become_well_is_reported() -> None:
    world = empty()
    ada = room_client(world, "ada")
    ada.connects = "hang"
    world.cut("ada")
    with pytest.raises(SimViolation, match="ada") as caught:
        world.settle()
    assert caught.value.law == laws.LIVENESS
    assert caught.value.now == pytest.approx(5 + world.settling_time)


def test_masked_bytes_are_not_in_the_log() -> None:
    world = empty(log=True)
    ada = room_client(world, "ada")
    ada.do("send_chat", "general", "secret words")
    assert len(world.log) == len([*world.log])
    said = [line for line in world.log if "secret words" in line]
    assert len(said) == 1
    assert "calls send_chat('general', 'secret words')" in said[0]
    digest = hashlib.sha256("\n".join(world.log).encode()).hexdigest()
    again = empty(log=True)
    room_client(again, "ada").do("send_chat", "general", "secret words")
    assert hashlib.sha256("\n".join(again.log).encode()).hexdigest() == digest


def test_raw_channels_are_watched() -> None:
    world = empty()
    client = RealtimeClient(RealtimeConfig(server_url="ws://hub.sim/socket"), rng=Random(1))
    happened: list[Any] = []
    host = world.add_client(client, name="ada", on_event=happened.append)
    host.do("connect")
    host.do("join", "realtime:lobby", ChannelConfig(presence_key="ada"))
    host.do("join", "room:hall", {"mood": "good"})
    host.do("track", "realtime:lobby", {"mood": "bad"})
    host.do("push", "room:hall", "hello")
    assert world.settle() < 2
    host.do("leave", "room:hall")
    world.end_channel("realtime:lobby", name="ada")
    assert world.settle() < 5
    assert [event.topic for event in happened if isinstance(event, ChannelDown)] == ["realtime:lobby"]
    host.do("disconnect")
    world.settle()
    assert isinstance(happened[-1], SocketDisconnected)


def test_users_come_and_go() -> None:
    world = SimWorld(4, clients=6, pace=20)
    host = room_client(world, "me")
    world.run(minutes=20)
    seen = [type(event) for event in taken(host)]
    assert UserOnline in seen
    assert UserOffline in seen
    world.users_rest = True
    world.run(minutes=5)
    taken(host)
    world.run(minutes=20)
    assert taken(host) == []
