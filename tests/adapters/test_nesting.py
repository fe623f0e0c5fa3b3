"""An attacker with two plain WebSockets tracks metas that nest deeply: nobody else in the room is harmed."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from adapters.fakes import run, until
from presence_adapters.asyncio import PresenceClient
from presence_adapters.server import HubServer
from presence_proto import HubConfig, Identity, PresenceConfig

ROOM = "realtime:jarvis-presence"


@pytest.mark.parametrize("depth", [90, 93, 94, 970, 973, 980, 983, 50_000])
def test_one_user_ends_no_client(depth: int) -> None:
    async def attack(url: str) -> None:
        join = {"config": {"presence": {"key": "eve", "enabled": True}}}
        nested = "[" * depth + "]" * depth
        target = f"{url}/realtime/v1/websocket?vsn=2.0.0"
        async with connect(target) as first, connect(target) as second:
            for socket in (first, second):
                with suppress(ConnectionClosed):
                    await socket.send(json.dumps(["1", "1", ROOM, "phx_join", join]))
                    await socket.recv()
                    track = f'{{"event":"track","payload":{{"x":{nested}}}}}'
                    await socket.send(f'["1","2","{ROOM}","presence",{track}]')
                    await socket.recv()

    async def main() -> None:
        async with HubServer(HubConfig(presence_window=0)) as server:
            config = PresenceConfig(server_url=f"{server.url}/realtime/v1")
            async with PresenceClient(Identity("ann", "Ann"), config) as ann:
                await until(lambda: ann.is_connected)
                await attack(server.url)
                async with PresenceClient(Identity("bob", "Bob"), config) as bob:
                    await until(lambda: {user.user_id for user in ann.online_users} == {"ann", "bob"})
                    await until(lambda: bob.is_connected)
                assert ann.is_connected

    run(main)
