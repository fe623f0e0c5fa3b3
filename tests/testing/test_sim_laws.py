"""The watchers of clients, event by event: what no honest client reports is a violation of the right law."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from presence_proto import (
    ActivityChanged,
    Broadcast,
    ChannelDown,
    ChannelJoined,
    ChannelLeft,
    ChannelMessage,
    CommandFailed,
    Connected,
    ConnId,
    Disconnected,
    Error,
    GameInvite,
    Identity,
    InviteSent,
    JoinFailed,
    OnlineUser,
    Poked,
    PresenceClient,
    PresenceConfig,
    ProtocolViolation,
    RealtimeClient,
    RealtimeConfig,
    SendData,
    SocketDisconnected,
    TrackFailed,
    UserOffline,
    UserOnline,
)
from presence_proto.phoenix_socket import ChannelTimer
from presence_proto.testing import ClientHost, LinkQuality, SimFaults, SimViolation, SimWorld
from presence_proto.testing.sim import hosts as sim_hosts
from presence_proto.testing.sim import laws
from presence_proto.testing.sim._judges import _share

URL = "ws://hub.sim/realtime/v1"
BOB = OnlineUser("bob", "Bob")


def room(world: SimWorld, name: str, **config: Any) -> ClientHost:
    client = PresenceClient(
        Identity(name, name.title()), PresenceConfig(**{"server_url": URL} | config), rng=Random(1)
    )
    host = world.add_client(client, name=name)
    host.do("connect")
    return host


def channels(world: SimWorld) -> ClientHost:
    host = world.add_client(
        RealtimeClient(RealtimeConfig(server_url="ws://hub.sim/socket"), rng=Random(2)), name="ada"
    )
    host.do("connect")
    return host


def a_world() -> SimWorld:
    return SimWorld(1, clients=0, quality=LinkQuality(jitter=0.0))


def law_of(host: ClientHost, *happened: Any, sent: float | None = 4.0) -> str:
    assert host.watch is not None
    with pytest.raises(SimViolation) as caught:
        host.watch.happened([*happened], sent)
    return caught.value.law


@pytest.mark.parametrize(
    ("event", "law"),
    [
        (UserOnline(OnlineUser("zoe", "Zoe")), laws.GHOST),
        (ActivityChanged(OnlineUser("zoe", "Zoe"), BOB), laws.GHOST),
        (UserOffline(BOB), laws.FLICKER),
        (UserOnline(BOB), laws.FOLD),
        (Connected(1, (OnlineUser("ada", "Ada"),), True), laws.STORY),
        (Disconnected("why", 1.0), laws.QUIET),
        (GameInvite("bob", "Bob", "never said"), laws.ONCE),
        (Poked("bob", "Bob"), laws.ONCE),
        (CommandFailed(77, "send_poke", "why"), laws.ANSWER),
        (InviteSent(77, ()), laws.ANSWER),
        (Error("no entry", fatal=True), laws.ALIVE),
    ],
)
def test_what_a_client_in_the_room_must_not_report(event: Any, law: str) -> None:
    world = a_world()
    ada = room(world, "ada")
    room(world, "bob")
    world.run(seconds=5)
    assert law_of(ada, event) == law


@pytest.mark.parametrize("event", [UserOnline(BOB), UserOffline(BOB)])
def test_presence_comes_in_bytes(event: Any) -> None:
    world = a_world()
    ada = room(world, "ada")
    room(world, "bob")
    world.run(seconds=5)
    assert law_of(ada, event, sent=None) in (laws.GHOST, laws.FLICKER)


def test_who_is_heard_has_been_seen() -> None:
    world = a_world()
    ada, bob = room(world, "ada"), room(world, "bob")
    world.run(seconds=5)
    bob.do("send_invite", "Chess", None)
    watch: Any = ada.watch
    shown = watch._fold.users.pop("bob")
    assert law_of(ada, GameInvite("bob", "Bob", "Chess")) == laws.ORDER
    watch._fold.users["bob"] = shown
    watch.saw(GameInvite("bob", "Bob", "Chess"), 4.0)


@pytest.mark.parametrize("event", [Broadcast, ChannelMessage])
def test_who_is_heard_in_a_channel_has_been_seen(event: Any) -> None:
    world = a_world()
    ada = channels(world)
    ada.do("join", "room:hall", {"user_id": "ada"})
    world.run(seconds=5)
    hello = event("room:hall", "hello", {"from": "ada"})
    watch: Any = ada.watch
    watch.saw(hello, 4.0)
    held = watch._fold.presence["room:hall"].pop("ada")
    watch.saw(hello, None)
    watch.saw(event("room:hall", "hello", {"from": "zoe"}), 4.0)
    assert law_of(ada, hello) == laws.ORDER
    for gone in (ChannelLeft("room:hall"), ChannelJoined("room:hall", {}, False)):
        watch._synced.add("room:hall")
        watch.saw(gone, None)
        watch.saw(hello, 4.0)
    watch._fold.presence["room:hall"]["ada"] = held


def test_an_outcome_is_of_its_command() -> None:
    world = a_world()
    ada = room(world, "ada")
    number = ada.do("send_poke", target_user_id="bob")
    assert law_of(ada, CommandFailed(number, "send_chat", "why")) == laws.ANSWER


def test_ids_grow() -> None:
    world = a_world()
    ada = room(world, "ada")
    ada.do("send_poke", "bob")
    assert ada.watch is not None
    with pytest.raises(SimViolation) as caught:
        ada.watch.commanded("send_poke", ("bob",), {}, 1)
    assert caught.value.law == laws.ANSWER


def test_a_loss_is_no_wonder_once_a_fault_has_struck() -> None:
    world = a_world()
    ada = room(world, "ada")
    world.run(seconds=5)
    world.cut("ada", how="dead")
    assert ada.watch is not None
    ada.watch.saw(Disconnected("why", 1.0), None)
    ada.watch.saw(Error("a warning"), None)


@pytest.mark.parametrize(
    ("event", "law"),
    [
        (SocketDisconnected("no", fatal=True), laws.ALIVE),
        (ProtocolViolation("a diff of lead"), laws.HONEST),
        (SocketDisconnected("why", retry_in=1.0), laws.QUIET),
        (ChannelDown("realtime:x", "why", 1.0), laws.QUIET),
        (JoinFailed("realtime:x", "why", None, 1.0), laws.QUIET),
        (TrackFailed("realtime:x", "why"), laws.QUIET),
    ],
)
def test_what_a_raw_client_must_not_report(event: Any, law: str) -> None:
    world = a_world()
    ada = channels(world)
    ada.do("join", "realtime:x")
    world.run(seconds=5)
    assert law_of(ada, event) == law


def test_a_push_has_an_outcome_in_time() -> None:
    world = a_world()
    ada = channels(world)
    ada.do("join", "realtime:x")
    world.run(seconds=5)
    number = ada.do("push", "realtime:x", "nobody answers this")
    ada.endpoint._socket.timers.cancel((ChannelTimer.PUSH, number))
    with pytest.raises(SimViolation, match="still pending") as caught:
        world.run(minutes=5)
    assert caught.value.law == laws.ANSWER


def test_commands_without_an_id_have_no_outcome() -> None:
    world = a_world()
    ada = room(world, "ada")
    ada.do("set_access_token", None)
    assert world.settle() < 1


# ---------------------------------------------------------------------------------------------- settling


def test_what_keeps_a_room_client_from_being_settled() -> None:
    world = a_world()
    ada = room(world, "ada")
    watch = ada.watch
    assert watch is not None
    assert watch.unsettled() == "ada is not in the room"
    ada.do("send_chat", "general", content="hello")
    assert "still has the commands {1: 'send_chat'}" in str(watch.unsettled())
    world.run(seconds=5)
    assert watch.unsettled() is None
    bob = room(world, "bob")
    world.run(seconds=5)
    bob.endpoint._own = OnlineUser("bob", "Bob", activity="secretly")
    with pytest.raises(SimViolation, match="secretly"):
        world.settle()
    shown = watch._fold.users.pop("bob")
    assert "shows [] too many and ['bob'] too few" in str(watch.unsettled())
    watch._fold.users["bob"] = OnlineUser("bob", "Robert")
    assert "ada shows ('Robert'" in str(watch.unsettled())
    watch._fold.users["bob"] = shown
    ada.do("disconnect")
    assert watch.wrong_view() is None
    world.run(seconds=5)
    assert watch.unsettled() is None
    ada.wanted = True
    assert watch.unsettled() == "ada is closed"


def test_what_keeps_a_raw_client_from_being_settled() -> None:
    world = a_world()
    ada = channels(world)
    watch = ada.watch
    assert watch is not None
    ada.do("join", topic="room:hall", params={"user_id": "ada"})
    assert "WAITING in room:hall" in str(watch.unsettled())
    ada.do("push", "room:hall", "hello")
    assert "still has the pushes {1: 'push'}" in str(watch.unsettled())
    world.run(seconds=5)
    assert watch.unsettled() is None
    held = ada.endpoint.presence("room:hall")._held
    metas = held.pop("ada")
    assert "ada in room:hall holds {}" in str(watch.unsettled())
    held["ada"] = metas
    watch.wants.clear()
    assert "has the channels ('room:hall',)" in str(watch.unsettled())
    ada.do("disconnect")
    world.run(seconds=5)
    ada.wanted = True
    assert watch.unsettled() == "ada is closed"


def test_the_keys_of_the_nameless_are_nobodys_business() -> None:
    world = a_world()
    ada = channels(world)
    ada.do("join", "realtime:x")
    ada.do("track", "realtime:x", payload={"mood": "good"})
    world.run(seconds=1)
    assert world.settle() < 1
    assert len(world.hub.online("realtime:x")) == 1
    ada.do("untrack", "realtime:x")
    world.run(seconds=1)
    world.settle()
    assert not world.hub.online("realtime:x")


def test_jarvis_devices_share_one_presence() -> None:
    world = a_world()
    hosts = []
    for number, protocol in enumerate(("phoenix", "jarvis", "jarvis")):
        url = URL if protocol == "phoenix" else "ws://hub.sim:8790/"
        client = PresenceClient(
            Identity("ada", "Ada"), PresenceConfig(server_url=url), rng=Random(number), online_at=str(number)
        )
        hosts.append(world.add_client(client, name=f"ada{number}", hears_chat=protocol == "phoenix"))
        hosts[-1].do("connect")
    world.settle()
    for status, host in zip(("away", "idle", "in_game"), hosts, strict=True):
        host.do("update_activity", status)
        world.run(seconds=1)
    assert world.settle() < 1
    hosts[2].do("disconnect")
    world.run(seconds=20)
    assert world.settle() < 1
    assert [meta["status"] for meta in world.hub.online("realtime:jarvis-presence")["ada"]] == [
        "away",
        "in_game",
    ]


def test_the_shared_presence_is_told_from_the_others() -> None:
    wanted: dict[str, list[Any]] = {"ada": ["away", "idle"]}
    _share(wanted, "ada", ["in_game", None], ["away", "busy"])
    assert wanted == {"ada": ["away", "idle", "busy"]}
    _share(wanted, "bob", [None], [])
    _share(wanted, "eve", ["here", "there"], [])
    _share(wanted, "dan", ["here"], ["there"])
    assert wanted == {"ada": ["away", "idle", "busy"], "eve": ["here"], "dan": ["here"]}


# ---------------------------------------------------------------------------------------------- the contract


class Bad(PresenceClient):
    """Does as it is told by `wrong`."""

    wrong = ""

    def receive_data(self, *args: Any, **kwargs: Any) -> None:
        if self.wrong == "receive_data":
            raise ZeroDivisionError
        super().receive_data(*args, **kwargs)

    def tick(self, *, now: float) -> None:
        if self.wrong == "tick" or (self.wrong == "late tick" and now >= (self.next_deadline() or now)):
            raise ZeroDivisionError
        if self.wrong == "early tick":
            self._outbox.send(ConnId(1), b"hello")
        super().tick(now=now)

    def drain(self) -> Any:
        if self.wrong == "flood":
            self.wrong = ""
            self._outbox.emit_all([Error("again")] * 1000)
        return super().drain()

    def next_deadline(self) -> float | None:
        return None if self.wrong == "no deadline" else super().next_deadline()

    def transport_closed(self, *args: Any, **kwargs: Any) -> None:
        if self.wrong == "transport_closed":
            raise ZeroDivisionError
        super().transport_closed(*args, **kwargs)


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        ("receive_data", laws.WEATHER),
        ("tick", laws.WEATHER),
        ("late tick", laws.WEATHER),
        ("transport_closed", laws.WEATHER),
        ("early tick", laws.CONTRACT),
        ("flood", laws.BOUNDS),
        ("no deadline", laws.ALIVE),
    ],
)
def test_bad_endpoints(wrong: str, law: str) -> None:
    world = a_world()
    client = Bad(Identity("ada", "Ada"), PresenceConfig(server_url=URL), rng=Random(1))
    ada = world.add_client(client, name="ada")
    ada.do("connect")
    world.run(seconds=5)
    client.wrong = wrong
    with pytest.raises(SimViolation) as caught:
        if "tick" in wrong:
            world.tick_early("ada")
        world.run(minutes=2)
        world.cut("ada")
    assert caught.value.law == law


def test_the_bound_of_outputs_leaves_room_for_a_full_queue() -> None:
    world = a_world()
    ada = room(world, "ada")
    for _ in range(100):
        ada.do("send_poke", "bob")
    ada.do("disconnect")
    assert sim_hosts.MAX_OUTPUTS > 101


def test_a_fact_that_was_due_is_no_reason_to_complain() -> None:
    world = SimWorld(1, clients=0, quality=LinkQuality(jitter=0.0), faults=SimFaults.STALE)
    ada = room(world, "ada")
    world.run(seconds=5)
    ada.freeze()
    world.run(seconds=21)
    ada.is_frozen = False
    ada.stale_fact("transport_closed", ConnId(0))  # the heartbeat is due, and goes out
    assert ada.end is not None
    assert ada.end.in_flight == 1
    assert not any(isinstance(output, SendData) for output in ada.endpoint.drain())


def test_a_tick_that_is_due_is_not_early() -> None:
    world = a_world()
    ada = room(world, "ada")
    world.run(seconds=5)
    world.tick_late("ada", 1000, 2000)
    ada.do("send_poke", "bob")
    world.run(seconds=40)
    deadline = ada.endpoint.next_deadline()
    assert deadline is not None
    assert deadline < ada.now
    world.tick_early("ada")
    assert ada.endpoint.next_deadline() == deadline
