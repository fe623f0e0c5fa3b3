"""What clients may have the hub keep: unread messages, metas, and users who are away."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from attrs import define, field

from attacks.large_metas import Beside
from attacks.rig import JARVIS, TOPIC, Socket, honest, hub, scaled

MIB = 1024 * 1024


@define
class Memory:
    """Resident bytes of the hub, before and at most. `refused`: what was not kept. `log`: its warnings."""

    before: int
    peak: int
    kept: int = 0
    refused: int = 0
    log: list[str] = field(factory=list)


async def never_read() -> tuple[Beside, int, list[str]]:
    """250 members who read nothing, and 100 honest ones, hear messages of 200 KB.

    Returns also how many of the 250 are left, and the hub's log.
    """
    count = scaled(250, 25)
    async with hub() as server:
        async with honest(server, scaled(100)) as alone:
            await asyncio.sleep(1)
        async with honest(server, scaled(100)) as others:
            deaf = [await Socket.open(server.port, limit=1024) for _ in range(count)]
            for number, socket in enumerate(deaf):
                socket.join(TOPIC, f"deaf-{number}")
            talker = await Socket.open(server.port)
            await talker.reply(talker.join(TOPIC, "talker"))
            reading = asyncio.create_task(_read_all(talker))
            for _ in range(scaled(100, 60)):
                payload = {"type": "broadcast", "event": "e", "payload": {"x": "y" * 200_000}}
                talker.push(TOPIC, "broadcast", payload)
                await talker.writer.drain()
                await asyncio.sleep(0.06)
            await asyncio.sleep(0.5)
            server.look()
            reading.cancel()
        gone = sum("reads too slowly" in line for line in server.log)
        for socket in [*deaf, talker]:
            socket.close()
    return Beside(alone.report, others.report, server.peak), count - gone, server.log


async def large_names(size: int) -> Memory:
    """60 Jarvis connections with names of `size` bytes, each closed at once."""
    async with hub({"offline_grace": 300}) as server:
        before = server.memory
        refused = 0
        for number in range(60):
            socket = await Socket.open(server.port, JARVIS)
            socket.send({"type": "connect", "user_id": f"u{number}", "display_name": "x" * size})
            refused += b'"error"' in (await socket.read() or b"")[:100]
            socket.close()
        await asyncio.sleep(0.3)  # more than the presence window
        socket = await Socket.open(server.port, JARVIS, limit=1 << 27)
        socket.send({"type": "connect", "user_id": "new"})
        welcome = await socket.read()
        socket.close()
    return Memory(before, server.peak, len(welcome or b""), refused)


async def many_channels(size: int) -> Memory:
    """One connection joins 100 channels, and tracks a meta of `size` bytes in each."""
    async with hub() as server:
        before = server.memory
        kept = refused = 0
        socket = await Socket.open(server.port)
        for number in range(100):
            topic = f"realtime:{number}"
            await socket.reply(socket.join(topic, "k", presence=False))
            ref = socket.track({"n": "x" * size}, topic)
            while True:
                data = await socket.read() or b""
                if data[:20].startswith(f'["1","{ref}"'.encode()):
                    kept += 1
                    break
                if not data or b"phx_close" in data[:100]:
                    refused += 1
                    break
        socket.close()
    return Memory(before, server.peak, kept, refused)


async def _read_all(socket: Socket) -> None:
    with suppress(OSError):
        while await socket.read() is not None:
            pass
