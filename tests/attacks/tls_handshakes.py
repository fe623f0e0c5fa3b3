"""Peers that connect to a hub with TLS, and never finish their handshake."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path

import trustme
from attrs import define

from attacks.rig import INTERVAL, SUPABASE, TOPIC, HubProcess, Report, Socket, hub, scaled

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # the beginning of a ClientHello


@define
class Stalled:
    """What came of it. `held`: handshakes that the hub still has. `newcomer`: its seconds to come in."""

    alone: Report
    beside: Report
    held: int
    newcomer: float
    memory: int  # bytes that the hub took for them
    log: list[str]


async def stall(max_connections: int) -> Stalled:
    """300 peers stall their handshake beside 100 honest clients."""
    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA()
        pem = Path(folder) / "server.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
        context = ssl.create_default_context()
        authority.configure_trust(context)
        config = {"max_connections": max_connections, "handshake_timeout": 60}
        async with hub(config, certificate=str(pem)) as server:
            clients = [await _open(server, context) for _ in range(scaled(100, 8))]
            for number, client in enumerate(clients):
                await client.reply(client.join(TOPIC, f"honest-{number}"))
            alone = await _beat(clients)
            before = server.memory
            stalled = [await _stall(server) for _ in range(scaled(300, 60))]
            beside = await _beat(clients)
            memory = server.memory - before
            held = sum([await _is_held(reader) for reader, _ in stalled])
            began = asyncio.get_running_loop().time()
            newcomer = await _open(server, context)
            took = asyncio.get_running_loop().time() - began
            for socket in [*clients, newcomer]:
                socket.close()
            for _, writer in stalled:
                writer.transport.abort()
        return Stalled(alone, beside, held, took, memory, server.log)


async def _open(server: HubProcess, context: ssl.SSLContext) -> Socket:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    writer.write(
        f"GET {SUPABASE} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return Socket(reader, writer)


async def _stall(server: HubProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(HELLO)
    return reader, writer


async def _is_held(reader: asyncio.StreamReader) -> bool:
    """Whether the hub has not ended it."""
    with suppress(ConnectionError):
        try:
            async with asyncio.timeout(0.02):
                return await reader.read(1) != b""
        except TimeoutError:
            return True
    return False


async def _beat(clients: list[Socket], seconds: float = 3.0) -> Report:
    """Let them send heartbeats for a while."""
    report = Report()
    loop = asyncio.get_running_loop()

    async def beats(client: Socket, delay: float) -> None:
        await asyncio.sleep(delay)
        end = loop.time() + seconds
        while loop.time() < end:
            began = loop.time()
            if await client.reply(client.push("phoenix", "heartbeat", {}, None)) is None:
                report.cut += 1
                return
            report.round_trips.append(loop.time() - began)
            await asyncio.sleep(INTERVAL)

    await asyncio.gather(*(beats(one, INTERVAL * n / len(clients)) for n, one in enumerate(clients)))
    return report
