"""`HubThread`, by way of the fixture `presence_hub`: each command over sockets, against our clients."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import trio

import presence_adapters.asyncio
from adapters.hub_thread import nothing_left
from presence_adapters.blocking import PresenceClient, RealtimeClient
from presence_adapters.server.hub_thread import COMMANDS, HubThread
from presence_proto import (
    ChatMessage,
    Connected,
    Disconnected,
    Error,
    HubConfig,
    Identity,
    LocalProtocolError,
    Poked,
    PresenceConfig,
    RealtimeConfig,
    UserOffline,
    UserOnline,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

E = TypeVar("E")

ROOM = "realtime:jarvis-presence"


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


def config(hub: HubThread, **options: Any) -> PresenceConfig:
    quick = {"reconnect_delay": 0.05, "max_reconnect_delay": 0.05, "stable_after": 0.01}
    return PresenceConfig(**{"server_url": hub.url, "api_key": hub.api_key, **quick, **options})


@contextmanager
def presence(hub: HubThread, name: str = "alice", **options: Any) -> Iterator[PresenceClient]:
    """A client that lives by itself."""
    with PresenceClient(Identity(name, name.title()), config(hub, **options)) as client:
        client.drive_in_background()
        yield client


@contextmanager
def two_who_saw_each_other(hub: HubThread) -> Iterator[tuple[PresenceClient, PresenceClient]]:
    """Alice, who has been told that bob came, and bob. He comes later: he is not in her first state."""
    with presence(hub) as alice:
        hub.wait_online(ROOM, 1)
        with presence(hub, "bob") as bob:
            next_of(alice, UserOnline)
            yield alice, bob


def next_of(client: PresenceClient, kind: type[E]) -> E:
    for event in client.events(timeout=5):
        if isinstance(event, kind):
            return event
    raise AssertionError(f"there was no {kind.__name__}")


# ------------------------------------------------------------------------------------ where it is


def use_asyncio(config: PresenceConfig, wait: Callable[[], None]) -> None:
    async def main() -> None:
        async with presence_adapters.asyncio.PresenceClient(Identity("alice", "Alice"), config):
            await asyncio.to_thread(wait)

    asyncio.run(main())


def use_threads(config: PresenceConfig, wait: Callable[[], None]) -> None:
    with PresenceClient(Identity("alice", "Alice"), config) as client:
        client.drive_in_background()
        wait()


@pytest.mark.parametrize("protocol", ["phoenix", "jarvis"])
@pytest.mark.parametrize("use", [use_asyncio, use_threads])
def test_it_serves_tests_of_any_kind(presence_hub: HubThread, use: Any, protocol: Any) -> None:
    def wait() -> None:
        found = presence_hub.wait_online(ROOM)
        assert found["alice"][0]["display_name"] == "Alice"
        assert len(presence_hub.connections) == 1
        found["alice"].clear()  # it is a copy
        assert presence_hub.online(ROOM)["alice"]

    url = presence_hub.url if protocol == "phoenix" else presence_hub.jarvis_url
    use(config(presence_hub, server_url=url, protocol=protocol), wait)
    presence_hub.wait_for(lambda: not presence_hub.connections)


def test_the_key_is_demanded(presence_hub: HubThread) -> None:
    for url, protocol in [(presence_hub.url, "phoenix"), (presence_hub.jarvis_url, "jarvis")]:
        with presence(presence_hub, server_url=url, protocol=protocol, api_key="a-wrong-one") as client:
            error = next_of(client, Error)
            assert error.fatal
            assert "401" in error.message
    assert presence_hub.api_key not in repr(presence_hub)


def test_plain_phoenix_needs_no_key(presence_hub: HubThread) -> None:
    with RealtimeClient(RealtimeConfig(server_url=presence_hub.socket_url)) as client:
        client.drive_in_background()
        client.join("room:lobby", {"user_id": "alice"})
        assert list(presence_hub.wait_online("room:lobby")) == ["alice"]


def test_a_config_is_used_as_it_is() -> None:
    with HubThread(HubConfig(api_keys=["one", "two"])) as hub:
        assert hub.api_key == "one"
    with HubThread(HubConfig()) as hub, presence(hub) as client:
        assert hub.api_key == "any"
        next_of(client, Connected)


# ------------------------------------------------------------------------------------ life


def test_a_restart_is_on_the_same_port(presence_hub: HubThread) -> None:
    port, url = presence_hub.port, presence_hub.url
    with presence(presence_hub) as client:
        next_of(client, Connected)
        presence_hub.stop()
        assert "1012" not in next_of(client, Disconnected).reason
        presence_hub.start()
        assert next_of(client, Connected).resumed
        assert (presence_hub.port, presence_hub.url) == (port, url)
        presence_hub.stop(orderly=True)
        assert "1012" in next_of(client, Disconnected).reason
        presence_hub.stop()  # it is


def test_a_hub_that_starts_is_healthy(presence_hub: HubThread) -> None:
    presence_hub.mute_heartbeats()
    presence_hub.stop()
    presence_hub.start()
    assert not presence_hub.run(lambda server: server.hub.faults.heartbeats_muted)


def test_a_stopped_hub_says_so() -> None:
    hub = HubThread()
    with pytest.raises(LocalProtocolError, match="not been started"):
        print(hub.url)
    with hub:
        with pytest.raises(LocalProtocolError, match="running already"):
            hub.start()
        hub.stop()
        for call in (hub.freeze, hub.cut_all, lambda: hub.connections, lambda: hub.online(ROOM)):
            with pytest.raises(LocalProtocolError, match="the hub is stopped: start it first"):
                call()
        assert hub.url.endswith("/realtime/v1")  # where it will be again


def test_a_port_that_is_taken_leaves_nothing_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        hub = HubThread(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            hub.start()
    hub.start()
    hub.stop()


def test_a_bug_of_the_hub_comes_out_at_the_end() -> None:
    def wall_clock() -> str:
        raise ZeroDivisionError

    hub = HubThread(HubConfig(wall_clock=wall_clock))
    hub.start()
    with presence(hub, server_url=hub.jarvis_url, protocol="jarvis") as client:
        next_of(client, Disconnected)
        with pytest.raises(LocalProtocolError, match="has ended"):
            hub.freeze()
    with pytest.raises(ZeroDivisionError):
        hub.stop()
    hub.start()
    hub.stop()


# ------------------------------------------------------------------------------------ waiting


def test_waiting_ends_with_what_is_there_instead(presence_hub: HubThread) -> None:
    with pytest.raises(TimeoutError, match=r"1 should be online in 'realtime:x', but after 0.05 s: nobody"):
        presence_hub.wait_online("realtime:x", timeout=0.05)
    with presence(presence_hub):
        presence_hub.wait_online(ROOM)
        with pytest.raises(TimeoutError, match=r"2 should be online .*: alice"):
            presence_hub.wait_online(ROOM, 2, timeout=0.05)
    assert presence_hub.wait_for(lambda: "yes") == "yes"
    with pytest.raises(TimeoutError, match=r"after 0\.05 s"):
        presence_hub.wait_for(lambda: False, timeout=0.05)


def test_no_event_loop_is_made_to_wait(presence_hub: HubThread) -> None:
    async def main() -> None:
        for wait in (lambda: presence_hub.wait_online(ROOM), lambda: presence_hub.stop(orderly=True)):
            with pytest.raises(LocalProtocolError, match="to_thread"):
                wait()
        assert presence_hub.connections == []

    asyncio.run(main())
    trio.run(main)


# ------------------------------------------------------------------------------------ commands


def test_a_broadcast(presence_hub: HubThread) -> None:
    with presence(presence_hub) as client:
        next_of(client, Connected)
        chat = {"user_id": "x", "display_name": "X", "channel": "lobby", "content": "hi", "timestamp": "now"}
        presence_hub.broadcast(ROOM, "chat_message", chat)
        assert next_of(client, ChatMessage).content == "hi"
        presence_hub.broadcast(ROOM, "anything")


@pytest.mark.parametrize("name", ["crash_channel", "close_channel"])
def test_a_channel_ends_and_comes_back(presence_hub: HubThread, name: str) -> None:
    with presence(presence_hub) as client:
        next_of(client, Connected)
        before = presence_hub.connections
        getattr(presence_hub, name)(ROOM)
        next_of(client, Disconnected)
        assert next_of(client, Connected).resumed
        assert presence_hub.connections == before


def test_the_reason_of_a_close_is_told(presence_hub: HubThread) -> None:
    with presence(presence_hub) as client:
        next_of(client, Connected)
        presence_hub.close_channel(ROOM, "go home")
        assert "go home" in next_of(client, Disconnected).reason


def test_a_connection_is_closed_with_a_code(presence_hub: HubThread) -> None:
    with presence(presence_hub) as client:
        next_of(client, Connected)
        presence_hub.disconnect(presence_hub.connections[0], 4000, "go home")
        assert "4000" in next_of(client, Disconnected).reason
        assert next_of(client, Connected).resumed


@pytest.mark.parametrize("reset", [False, True])
def test_connections_are_cut(presence_hub: HubThread, reset: bool) -> None:
    with presence(presence_hub) as alice, presence(presence_hub, "bob") as bob:
        presence_hub.wait_online(ROOM, 2)
        next_of(alice, Connected)
        next_of(bob, Connected)
        presence_hub.cut_all(reset=reset)
        for client in (alice, bob):
            assert ("reset" in next_of(client, Disconnected).reason) == reset
            assert next_of(client, Connected).resumed
        first, second = presence_hub.connections
        presence_hub.cut(first, reset=reset)
        presence_hub.wait_for(lambda: first not in presence_hub.connections)
        presence_hub.wait_online(ROOM, 2)
        assert second in presence_hub.connections
    with pytest.raises(LocalProtocolError, match="no connection 99"):
        presence_hub.cut(99)


def test_a_frozen_hub_can_be_cut_off(presence_hub: HubThread) -> None:
    with presence(presence_hub) as client, socket.create_connection(("127.0.0.1", presence_hub.port)) as idle:
        next_of(client, Connected)
        presence_hub.freeze()
        presence_hub.cut_all()
        next_of(client, Disconnected)
        idle.settimeout(5)
        assert idle.recv(1) == b""
        presence_hub.heal()
        assert next_of(client, Connected).resumed


# ------------------------------------------------------------------------------------ switches


def test_handshakes_are_refused(presence_hub: HubThread) -> None:
    presence_hub.refuse_handshakes(2, 429, '{"error":"Too many connected users"}')
    with presence(presence_hub) as client:
        for _ in range(2):
            reason = next_of(client, Disconnected).reason
            assert "429" in reason
            assert "Too many connected users" in reason
        assert not next_of(client, Connected).resumed


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["phoenix", "jarvis"])
def test_heartbeats_are_muted(presence_hub: HubThread, protocol: Any) -> None:
    url = presence_hub.url if protocol == "phoenix" else presence_hub.jarvis_url
    # After a join the client is more patient, for as long as the join may take.
    impatient = {"heartbeat_interval": 0.1, "heartbeat_timeout": 0.1, "join_timeout": 0.2}
    with presence(presence_hub, server_url=url, protocol=protocol, **impatient) as client:
        next_of(client, Connected)
        presence_hub.mute_heartbeats()
        assert "no " in next_of(client, Disconnected).reason
        presence_hub.mute_heartbeats(False)
        assert next_of(client, Connected).resumed
        assert not list(client.events(timeout=0.5))  # it stays


def test_joins_are_ignored(presence_hub: HubThread) -> None:
    presence_hub.ignore_joins()
    with presence(presence_hub, join_timeout=0.2) as client:
        next_of(client, Disconnected)
        assert not presence_hub.online(ROOM)
        presence_hub.ignore_joins(False)
        next_of(client, Connected)


def test_states_are_withheld(presence_hub: HubThread) -> None:
    presence_hub.withhold_states()
    with presence(presence_hub, state_timeout=0.2) as client:
        assert "presence" in next_of(client, Error).message
        presence_hub.heal()
        presence_hub.crash_channel(ROOM)
        next_of(client, Connected)


def test_broadcasts_are_dropped(presence_hub: HubThread) -> None:
    with two_who_saw_each_other(presence_hub) as (alice, bob):
        presence_hub.drop_broadcasts()
        bob.send_chat("lobby", "lost")
        bob.send_poke("alice")
        with presence(presence_hub, "carol"):
            next_of(alice, UserOnline)  # what bob said would have come before
        presence_hub.heal()
        bob.send_chat("lobby", "found")
        assert next_of(alice, ChatMessage).content == "found"


def test_diffs_are_duplicated(presence_hub: HubThread) -> None:
    with presence(presence_hub) as alice:
        next_of(alice, Connected)
        presence_hub.duplicate_diffs()
        with presence(presence_hub, "bob"):
            next_of(alice, UserOnline)
        next_of(alice, UserOffline)
        assert not list(alice.events(timeout=0.2))  # each is told once
        assert presence_hub.run(lambda server: server.hub.faults.diffs_duplicated)
        presence_hub.duplicate_diffs(False)
        assert not presence_hub.run(lambda server: server.hub.faults.diffs_duplicated)


def test_the_rate_is_limited(presence_hub: HubThread) -> None:
    presence_hub.limit_rate(0)
    with presence(presence_hub) as client:
        assert next_of(client, Disconnected).reason == "Client presence rate limit exceeded"
        presence_hub.limit_rate(None, 0)
        presence_hub.wait_online(ROOM)
        next_of(client, Connected)
        client.send_chat("lobby", "hello")
        assert next_of(client, Disconnected).reason == "Too many messages per second"
        presence_hub.heal()
        next_of(client, Connected)


def test_all_is_delayed(presence_hub: HubThread) -> None:
    with presence(presence_hub) as client:
        next_of(client, Connected)
        presence_hub.delay(0.3)
        begin = time.monotonic()
        presence_hub.broadcast(ROOM, "poke", {"user_id": "x", "display_name": "X", "target_user_id": "alice"})
        next_of(client, Poked)
        assert time.monotonic() - begin > 0.25
        presence_hub.delay(60)
        presence_hub.broadcast(ROOM, "poke", {"user_id": "x", "display_name": "X", "target_user_id": "alice"})
        presence_hub.delay(0)
        next_of(client, Poked)


def test_it_freezes_and_thaws(presence_hub: HubThread) -> None:
    with two_who_saw_each_other(presence_hub) as (alice, bob):
        presence_hub.freeze()
        bob.send_poke("alice")
        assert not list(alice.events(timeout=0.3))
        with pytest.raises(LocalProtocolError, match="thaw it first"):
            presence_hub.crash_channel(ROOM)
        presence_hub.thaw()
        next_of(alice, Poked)
        presence_hub.freeze()
        presence_hub.stop(orderly=True)
        assert "1012" in next_of(bob, Disconnected).reason


def test_values_that_make_no_sense_are_refused(presence_hub: HubThread) -> None:
    with pytest.raises(LocalProtocolError, match="refusal_status must be"):
        presence_hub.refuse_handshakes(1, 200)
    with pytest.raises(TypeError, match="bad_weather"):
        presence_hub.set_faults(bad_weather=True)


def test_every_command_says_what_it_does() -> None:
    for name, command in COMMANDS.items():
        assert command.__doc__, name
