"""Clients that send as fast as they can, beside honest ones.

    python -m attacks.floods [KIND...]

Each kind is a flood that once held up everybody. The honest clients are in a room of their own, or in the
room that is flooded. `ATTACK_SCALE=1` makes it the full size.
"""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from contextlib import suppress
from typing import Any

from attrs import define

from attacks.rig import JARVIS, SUPABASE, TOPIC, HubProcess, Report, Socket, frame, honest, hub, scaled

READ = 64 * 1024  # bytes that an attacker writes at once
SECONDS = 3.0  # of flooding
ELSEWHERE = "realtime:elsewhere"
PING, PONG, TEXT, CONTINUATION = 9, 10, 1, 0


@define
class Flood:
    """A flood by `attackers`, in a room with `members` besides them.

    `first` is what each of them sends once, `data` what it sends all the time.
    """

    data: bytes
    first: bytes = b""
    attackers: int = 1
    members: int = 0
    path: str = SUPABASE
    headers: str = ""
    config: dict[str, Any] | None = None
    in_room: bool = False  # the honest clients are in the room, too


def message(value: Any) -> bytes:
    return frame(json.dumps(value).encode())


def join(topic: str) -> bytes:
    config = {"presence": {"enabled": False}, "broadcast": {"ack": False}}
    return message(["1", "1", topic, "phx_join", {"config": config}])


def broadcast(topic: str, payload: Any) -> bytes:
    call = {"type": "broadcast", "event": "x", "payload": payload}
    return message(["1", None, topic, "broadcast", call])


def connect(name: str) -> bytes:
    return message({"type": "connect", "user_id": name, "display_name": name, "version": "1"})


def filled(*units: bytes) -> bytes:
    """These units again and again, as many as an attacker writes at once."""
    unit = b"".join(units)
    return unit * max(1, READ // len(unit))


def bomb(data: bytes) -> bytes:
    """A compressed text, which needs no context."""
    deflater = zlib.compressobj(9, wbits=-15)
    deflated = deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return frame(deflated[:-4], TEXT | 0x40)


DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n"
EMPTY_ARRAYS = b'["1",null,"' + TOPIC.encode() + b'","broadcast",{"p":[' + b"[]," * 340_000 + b"[]]}]"
LARGE_TEXT = (
    b'["1",null,"'
    + ELSEWHERE.encode()
    + b'","broadcast",{"type":"broadcast","event":"x","payload":"'
    + b"x" * 1_000_000
    + b'"}]'
)


def floods() -> dict[str, Flood]:
    """All kinds."""
    beside = {"presence_window": 0.1}
    activities = [
        message({"type": "activity_update", "status": "in_game", "activity": f"{number}"})
        for number in range(10)
    ]
    return {
        "pings": Flood(filled(frame(b"", PING)), attackers=scaled(20, 4)),
        "pongs": Flood(filled(frame(b"", PONG)), attackers=scaled(20, 4)),
        "fragments": Flood(
            filled(frame(b"", CONTINUATION, fin=False)), frame(b"", TEXT, fin=False), attackers=scaled(20, 4)
        ),
        "fragments and pings": Flood(
            filled(frame(b"", CONTINUATION, fin=False), frame(b"", PING)),
            frame(b"", TEXT, fin=False),
            attackers=scaled(20, 4),
        ),
        "heartbeats": Flood(
            filled(message([None, "7", "phoenix", "heartbeat", {}])), attackers=scaled(20, 4)
        ),
        "broadcaster": Flood(
            filled(broadcast(ELSEWHERE, {"a": 1})), join(ELSEWHERE), members=scaled(1000, 50)
        ),
        "broadcaster in the room": Flood(filled(broadcast(TOPIC, {"a": 1})), join(TOPIC), in_room=True),
        "inviter": Flood(
            filled(message({"type": "game_invite", "game": "x"})),
            connect("mallory"),
            members=scaled(1000, 50),
            path=JARVIS,
        ),
        "activities": Flood(
            filled(*activities), connect("mallory"), members=scaled(1000, 50), path=JARVIS, config=beside
        ),
        "empty arrays": Flood(frame(EMPTY_ARRAYS), join(TOPIC)),
        "bombs": Flood(filled(bomb(EMPTY_ARRAYS)), join(TOPIC), headers=DEFLATE, config={"deflate": True}),
        "bombs to a room": Flood(
            filled(bomb(LARGE_TEXT)),
            join(ELSEWHERE),
            members=scaled(100, 10),
            headers=DEFLATE,
            config={"deflate": True},
        ),
    }


@define
class Outcome:
    """What honest clients say of the time before a flood and during it. `peak`: bytes of the hub's memory."""

    alone: Report
    beside: Report
    peak: int
    sent: int  # bytes that the attackers could send

    @property
    def delay(self) -> float:
        """Seconds that the slowest hundredth of heartbeats took longer."""
        return self.beside.percentile(0.99) - self.alone.percentile(0.99)


async def run(flood: Flood, *, rates: dict[str, int] | None = None, seconds: float = SECONDS) -> Outcome:
    """The flood, beside 100 honest clients. `rates` are those of the hub."""
    async with hub({**(flood.config or {}), **(rates or {})}) as server:
        members = [await _member(server, flood, number) for number in range(flood.members)]
        async with honest(server, scaled(100)) as alone:
            await asyncio.sleep(seconds)
        async with honest(server, scaled(100)) as others:
            attackers = [asyncio.create_task(_attack(server, flood)) for _ in range(flood.attackers)]
            await asyncio.sleep(seconds)
        for attacker in attackers:
            attacker.cancel()
        sent = await asyncio.gather(*attackers, return_exceptions=True)
        for member in members:
            member.cancel()
        await asyncio.gather(*members, return_exceptions=True)
        await asyncio.sleep(0.01)  # until the sockets are closed
    total = sum(size for size in sent if isinstance(size, int))
    return Outcome(alone.report, others.report, server.peak, total)


async def _member(server: HubProcess, flood: Flood, number: int) -> asyncio.Task[None]:
    """Somebody who is in the room and reads."""
    socket = await Socket.open(server.port, flood.path)
    socket.write(connect(f"member{number}") if flood.path == JARVIS else join(ELSEWHERE))
    return asyncio.create_task(_discard(socket))


async def _discard(socket: Socket) -> None:
    try:
        with suppress(OSError):
            while await socket.reader.read(1 << 20):
                pass
    finally:
        socket.close()


async def _attack(server: HubProcess, flood: Flood) -> int:
    """Send until cancelled. An attacker that is cut comes again. Returns the bytes that were sent."""
    sent = 0
    while True:
        reading: asyncio.Task[None] | None = None
        try:
            socket = await Socket.open(server.port, flood.path, headers=flood.headers)
            reading = asyncio.create_task(_discard(socket))
            socket.write(flood.first)
            while not reading.done():
                socket.write(flood.data)
                await socket.writer.drain()
                sent += len(flood.data)
        except OSError:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            return sent
        finally:
            if reading is not None:
                reading.cancel()
                socket.close()


RATES = {"presence_limit": 5, "message_rate": 100, "join_rate": 100, "delivery_rate": 10_000}
"""Those of `presence hub`."""


COLUMNS = ("rates", "p50", "p99", "max", "longer", "cut", "MB in", "peak")


def main(*kinds: str) -> None:
    """Flood, without rates and with them, and print what came of it: milliseconds of heartbeats, and MB."""
    if {"-h", "--help"} & {*kinds}:
        print(f"{__doc__}\nThe kinds: {', '.join(floods())}.")
        return
    if unknown := {*kinds} - floods().keys():
        sys.exit(f"there is no flood {', '.join(sorted(unknown))}: choose of {', '.join(floods())}")
    print(f"{'flood':26s}" + "".join(f"{name:>8s}" for name in COLUMNS))
    for kind, flood in floods().items():
        for rates in [{}, RATES] if not kinds or kind in kinds else []:
            outcome = asyncio.run(run(flood, rates=rates, seconds=10.0))
            beside = outcome.beside
            times = [*(beside.percentile(share) for share in (0.5, 0.99, 1.0)), outcome.delay]
            numbers = [*(1e3 * time for time in times), beside.cut, outcome.sent / 1e6, outcome.peak / 1e6]
            line = "".join(f"{number:8.0f}" for number in numbers)
            print(f"{kind:26s}{'on' if rates else 'off':>8s}{line}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
