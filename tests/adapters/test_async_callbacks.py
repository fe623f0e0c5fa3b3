"""The callback surface on asyncio and trio: made from keywords, `on_notification`, `run`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trio

from adapters.fakes import run, until
from adapters.trio_hub import client as trio_client
from adapters.trio_hub import memory_hub
from adapters.trio_hub import run as run_trio
from presence_adapters.asyncio import ConnectError, PresenceClient
from presence_adapters.server import HubServer
from presence_adapters.trio import PresenceClient as TrioPresenceClient
from presence_proto import ConfigError, HubConfig, Identity, UserStatus


def make(server: HubServer, **options: Any) -> PresenceClient:
    url = f"{server.url}/realtime/v1/websocket"
    return PresenceClient(server_url=url, user_id="alice-123", display_name="alice", **options)


def test_every_event_is_told_and_run_ends_with_disconnect() -> None:
    told: list[tuple[str, dict[str, Any]]] = []

    async def main() -> None:
        async with HubServer(HubConfig(presence_window=0)) as server:
            client = make(server)

            def handle_notification(event_type: str, data: dict[str, Any]) -> None:
                told.append((event_type, data))

            client.on_notification = handle_notification
            running = asyncio.create_task(client.run())
            await until(lambda: client.is_connected)
            async with make_bob(server) as bob:
                await until(lambda: bob.is_connected)
                await bob.update_activity(UserStatus.IN_GAME, "Snake")
                await bob.send_poke("alice-123")
                await until(lambda: len(told) == 4)
            await until(lambda: len(told) == 5)
            await client.disconnect()
            await running

    run(main)
    assert [event_type for event_type, _ in told] == [
        "connected",
        "user_online",
        "activity_changed",
        "poke",
        "user_offline",
        "disconnected",
    ]
    assert told[0][1]["online_count"] == 1
    assert told[1][1]["user_id"] == "bob"
    assert told[2][1]["activity"] == "Snake"


def make_bob(server: HubServer) -> PresenceClient:
    return PresenceClient(server_url=f"{server.url}/realtime/v1", user_id="bob", display_name="Bob")


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_what_a_callback_raises_is_logged_and_the_client_lives(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def plain(event_type: str, data: dict[str, Any]) -> None:
        told.append(event_type)
        raise ZeroDivisionError

    async def slow(event_type: str, data: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        plain(event_type, data)

    async def main() -> None:
        async with HubServer() as server:
            client = make(server)
            client.on_notification = plain if kind == "plain" else slow
            running = asyncio.create_task(client.run())
            await until(lambda: told == ["connected"])
            async with make_bob(server):
                await until(lambda: len(told) == 2)
            await until(lambda: told == ["connected", "user_online", "user_offline"])
            await client.disconnect()
            await running

    run(main)
    failures = [record for record in caplog.records if record.exc_info]
    assert {record.exc_info[0] for record in failures if record.exc_info} == {ZeroDivisionError}
    assert len(failures) == len(told) == 4


def test_a_callback_may_end_the_run() -> None:
    async def main() -> None:
        async with HubServer() as server:
            client = make(server)

            async def handle_notification(event_type: str, data: dict[str, Any]) -> None:
                await client.disconnect()

            client.on_notification = handle_notification
            await client.run()
            assert not client.is_connected

    run(main)


def test_run_ends_with_a_fatal_error() -> None:
    told: list[tuple[str, Any]] = []

    async def main() -> None:
        async with HubServer(HubConfig(api_keys=frozenset({"right-key"}))) as server:
            client = make(server, api_key="wrong-key")
            client.on_notification = lambda event_type, data: told.append((event_type, data.get("fatal")))
            with pytest.raises(ConnectError, match="HTTP 401"):
                await client.run()

    run(main)
    assert ("error", True) in told


def test_a_cancelled_run_leaves_nothing() -> None:
    async def main() -> None:
        async with HubServer() as server:
            client = make(server)  # nobody need be told
            running = asyncio.create_task(client.run())
            await until(lambda: client.is_connected)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await until(lambda: not server.hub.connections)

    run(main)


def test_it_is_made_from_an_identity_and_a_config_or_from_keywords() -> None:
    for made_from in ({}, {"server_url": "ws://127.0.0.1"}, {"identity": Identity("a", "A")}):
        with pytest.raises(ConfigError):
            PresenceClient(**made_from)


def test_on_trio(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    async def main() -> None:
        async with memory_hub(monkeypatch):
            client = TrioPresenceClient(
                server_url="ws://hub.example/realtime/v1/websocket", user_id="alice-123", display_name="alice"
            )

            async def handle_notification(event_type: str, data: dict[str, Any]) -> None:
                await trio.sleep(1)
                told.append(event_type)
                if event_type == "user_offline":
                    await client.disconnect()
                if event_type == "user_online":
                    raise ZeroDivisionError

            client.on_notification = handle_notification
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.run)
                await trio.sleep(5)
                async with trio_client("bob"):
                    await trio.sleep(5)
            with trio.move_on_after(3) as scope:
                await trio_client("carol").run()
            assert scope.cancelled_caught

    run_trio(main)
    assert told == ["connected", "user_online", "user_offline", "disconnected"]
    assert len([record for record in caplog.records if record.exc_info]) == 1
