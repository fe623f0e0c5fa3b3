"""Members with large metas, newcomers who read their state, and members who all track again in one moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from attrs import define

from attacks.rig import JARVIS, TOPIC, Socket, honest, hub, scaled

if TYPE_CHECKING:
    from attacks.rig import HubProcess, Report

JARVIS_TOPIC = "realtime:jarvis-presence"
LARGE = 60_000  # bytes of a meta that the default limit lets in


@define
class Newcomers:
    """What newcomers saw. `let_in`: how many read the whole state; `state`: its bytes."""

    members: int  # of the attackers, who stayed
    let_in: int
    state: int
    peak: int  # bytes of memory of the hub


async def large_state(size: int, config: dict[str, Any] | None = None, *, jarvis: bool = False) -> Newcomers:
    """12 members with a meta of `size` bytes each, and 5 newcomers who read at full speed."""
    topic = JARVIS_TOPIC if jarvis else TOPIC
    async with hub(config) as server:
        members = [await Socket.open(server.port) for _ in range(12)]
        for number, member in enumerate(members):
            await member.reply(member.join(topic, f"m{number}", presence=False))
        for member in members:
            member.track({"display_name": "x" * size}, topic)
            await _answer(member)
        reading = [asyncio.create_task(_until_end(member)) for member in members]
        await asyncio.sleep(0.3)  # more than the presence window
        states = await asyncio.gather(
            *[_jarvis_state(server) if jarvis else _state(server) for _ in range(5)]
        )
        stayed = sum(not task.done() for task in reading)
        for task, member in zip(reading, members, strict=True):
            task.cancel()
            member.close()
    return Newcomers(stayed, sum(state > 0 for state in states), max(states), server.peak)


async def _state(server: HubProcess) -> int:
    """The bytes of a newcomer's state; 0 if the connection ended before."""
    socket = await Socket.open(server.port)
    socket.join()
    return await _read(socket, b'"presence_state"')


async def _jarvis_state(server: HubProcess) -> int:
    socket = await Socket.open(server.port, JARVIS)
    socket.send({"type": "connect", "user_id": "new", "display_name": "New"})
    return await _read(socket, b'"welcome"')


async def _read(socket: Socket, kind: bytes) -> int:
    size = 0
    while not size and (data := await socket.read()) is not None:
        size = len(data) if kind in data[:200] else 0
    socket.close()
    return size


async def _answer(socket: Socket) -> None:
    """Read up to the reply, or to the end of the channel."""
    while (data := await socket.read()) is not None and b"phx_" not in data[:64]:
        pass


async def _until_end(socket: Socket) -> None:
    while await socket.read() is not None:
        pass


@define
class Beside:
    """Honest clients without an attack, and with one."""

    before: Report
    during: Report
    peak: int

    def __str__(self) -> str:
        told = [
            f"p50 {report.percentile(0.5) * 1000:.1f} ms, p99 {report.percentile(0.99) * 1000:.1f} ms"
            for report in (self.before, self.during)
        ]
        cut, read = self.during.cut, self.during.bytes_read / 1e6
        return f"{told[0]}; attacked: {told[1]}, {cut} cut, {read:.0f} MB read; hub {self.peak / 1e6:.0f} MB"


async def retracks(size: int) -> Beside:
    """24 members track a meta of `size` bytes in one moment, again and again, beside 100 honest members."""
    async with hub() as server:
        async with honest(server, scaled(100)) as alone:
            await asyncio.sleep(1)
        async with honest(server, scaled(100)) as others:
            members = [await Socket.open(server.port) for _ in range(scaled(24, 6))]
            reading = []
            for number, member in enumerate(members):
                await member.reply(member.join(key=f"m{number}", presence=False))
                reading.append(asyncio.create_task(_until_end(member)))
            for turn in range(scaled(5)):
                for member in members:
                    member.track({"n": f"{turn}" * size})
                await asyncio.sleep(1)
            for task, member in zip(reading, members, strict=True):
                task.cancel()
                member.close()
    return Beside(alone.report, others.report, server.peak)
