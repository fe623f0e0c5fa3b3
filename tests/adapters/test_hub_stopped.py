"""A hub whose process was stopped, over real sockets: nobody is dropped whose bytes lie in theirs."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from attacks.rig import JARVIS, PHOENIX, SUPABASE, TOPIC, HubProcess, Socket, hub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP"),
]

TIMEOUTS = {"idle_timeout": 1.5, "eviction_timeout": 1.5, "offline_grace": 0.5, "handshake_timeout": 1.5}


@asynccontextmanager
async def opened(server: HubProcess, path: str, count: int) -> AsyncIterator[list[Socket]]:
    clients = [await Socket.open(server.port, path) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()
        await asyncio.sleep(0)


@pytest.mark.parametrize("path", [PHOENIX, SUPABASE])
def test_a_heartbeat_that_lies_in_the_socket_counts(path: str) -> None:
    async def stop() -> None:
        async with hub(TIMEOUTS) as server, opened(server, path, 5) as clients:
            for client in clients:
                assert (await client.reply(client.join(TOPIC)))["status"] == "ok"
            server.process.send_signal(signal.SIGSTOP)
            refs = [client.push("phoenix", "heartbeat", {}, None) for client in clients]
            await asyncio.sleep(2.5)
            server.process.send_signal(signal.SIGCONT)
            replies = [await client.reply(ref) for client, ref in zip(clients, refs, strict=True)]
            assert replies == [{"status": "ok", "response": {}}] * 5

    asyncio.run(stop())


def test_a_ping_that_lies_in_the_socket_counts_on_jarvis() -> None:
    async def stop() -> None:
        async with hub(TIMEOUTS) as server, opened(server, JARVIS, 3) as clients:
            for number, client in enumerate(clients):
                client.send({"type": "connect", "user_id": f"u{number}"})
                assert b"welcome" in (await client.read() or b"")
            server.process.send_signal(signal.SIGSTOP)
            for client in clients:
                client.send({"type": "ping"})
            await asyncio.sleep(2.5)
            server.process.send_signal(signal.SIGCONT)
            for client in clients:
                kinds = []
                while "pong" not in kinds:
                    message = await client.read()
                    assert message is not None, kinds
                    kinds.append(json.loads(message)["type"])
                assert "user_offline" not in kinds

    asyncio.run(stop())
