"""Peers of a hub that do not read, read slowly, or have much to read."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from adapters.fakes import run, until
from adapters.rig import Rig, started
from presence_adapters.server import hub_driver
from presence_adapters.server.hub_driver import PIECE, AcceptedConnection, HubDriver
from presence_proto import CloseTransport, ConnId, SendData

SOCKETS = 1 << 20  # bytes; more than a pair of sockets holds
WORDS = b"goodbye"


class Transport:
    """A transport whose socket takes nothing, until it is told to."""

    def __init__(self) -> None:
        self.protocol: Any = None
        self.buffer = bytearray()
        self.read = bytearray()
        self.is_open = True
        self.is_full = False

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert (high, low) == (1, 0)

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def is_closing(self) -> bool:
        return not self.is_open

    def write(self, data: bytes) -> None:
        assert self.is_open
        assert not self.is_full, "the transport is full"
        self.buffer += data
        self.is_full = True
        self.protocol.pause_writing()

    def take(self, size: int = 1 << 62) -> None:
        """The socket takes so much."""
        self.read += self.buffer[:size]
        del self.buffer[:size]
        if not self.buffer and self.is_full:
            self.is_full = False
            self.protocol.resume_writing()

    def close(self) -> None:
        self.is_open = False

    def abort(self) -> None:
        if self.is_open:
            self.is_open = False
            self.protocol.connection_lost(None)


class Slow:
    """A driver with some peers, and what became of them. `told`: those that were found too slow, and why."""

    rig: Rig

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.told: list[tuple[ConnId, str]] = []

    async def start(self, count: int = 1, *, tells: bool = True) -> list[tuple[ConnId, Transport]]:
        def on_slow(conn: ConnId, reason: str) -> None:
            self.told.append((conn, reason))
            self.rig.do(SendData(conn, WORDS))

        self.rig = await started(HubDriver, on_slow=on_slow if tells else None, **self.options)
        made = []
        for _ in range(count):
            sock, other = socket.socketpair()
            other.close()
            sock.close()
            transport = Transport()
            peer = transport.protocol = AcceptedConnection(self.rig.driver, sock, None)
            self.rig.driver.existing.add(peer)
            peer.connection_made(transport)  # type: ignore[arg-type]
            made.append((peer.conn, transport))
        return made

    async def send(self, conn: ConnId, *writes: bytes) -> None:
        """Write, and let the driver look at what came of it."""
        self.rig.do(*[SendData(conn, data) for data in writes])
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def stop(self) -> None:
        await self.rig.driver.stop()
        assert self.rig.driver.buffers.size == 0
        assert self.rig.driver.debtors == {}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write is old when the next one comes."""
    monkeypatch.setattr(hub_driver, "PATIENCE", 0.0)


# ---------------------------------------------------------------------------------------------- real sockets


def test_who_reads_gets_a_message_of_any_size_and_all_that_follows() -> None:
    async def main() -> None:
        rig = await started(HubDriver, max_write_buffer=1, write_budget=100_000_000)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        rig.driver.accept(ours, "127.0.0.1", None, 5.0)
        conn = (await rig.fact("opened"))[1]
        reader, writer = await asyncio.open_connection(sock=theirs)
        state, rest = bytes(range(256)) * 80_000, [b"%d" % number * 1000 for number in range(300)]
        rig.do(SendData(conn, b"small"), SendData(conn, state), *[SendData(conn, data) for data in rest])
        rig.do(CloseTransport(conn))
        assert await reader.read() == b"small" + state + b"".join(rest)
        assert rig.facts("closed") == []
        writer.close()
        await writer.wait_closed()
        await rig.driver.quiet()
        await rig.driver.stop()
        assert rig.driver.buffers.size == 0

    run(main)


def test_a_peer_that_ends_with_much_unread_is_forgotten() -> None:
    async def main() -> None:
        rig = await started(HubDriver)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        rig.driver.accept(ours, "127.0.0.1", None, 5.0)
        conn = (await rig.fact("opened"))[1]
        rig.do(SendData(conn, bytes(SOCKETS)), SendData(conn, bytes(SOCKETS)))
        await until(lambda: rig.driver.buffers.size)
        theirs.close()
        assert (await rig.fact("closed"))[1] == conn
        assert rig.driver.buffers.size == 0
        await rig.driver.stop()

    run(main)


# ---------------------------------------------------------------------------------------------- not reading


@pytest.mark.usefixtures("hasty")
def test_who_leaves_too_much_unread_is_told_and_gets_nothing_more() -> None:
    async def main() -> None:
        slow = Slow(max_write_buffer=1000)
        [(conn, transport)] = await slow.start()
        await slow.send(conn, b"first")
        await slow.send(conn, bytes(900))
        await slow.send(conn, bytes(200))
        await slow.send(conn, b"x")
        assert slow.told == []
        await slow.send(conn, b"y")
        assert slow.told == [(conn, "it left 1100 bytes unread")]
        await slow.send(conn, b"z")
        assert len(slow.told) == 1
        transport.take()
        transport.take()
        assert transport.read == b"first" + WORDS + b"z"
        await slow.stop()

    run(main)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("size", "is_told"), [(PIECE + 1000, True), (PIECE + 1001, False)])
def test_a_large_message_that_was_begun_does_not_stay_for_a_goodbye(size: int, is_told: bool) -> None:
    async def main() -> None:
        slow = Slow(max_write_buffer=1000)
        [(conn, transport)] = await slow.start()
        for data in (bytes(size), bytes(1001), b"x", b"x"):
            await slow.send(conn, data)
        assert [conn for conn, _ in slow.told] == [conn]
        assert transport.is_open == is_told
        await asyncio.sleep(0)
        assert len(slow.rig.facts("closed")) == (not is_told)
        assert slow.rig.driver.buffers.size == (size + len(WORDS) + PIECE if is_told else 0)
        await slow.stop()

    run(main)


@pytest.mark.usefixtures("hasty")
def test_a_driver_that_tells_nobody_cuts() -> None:
    async def main() -> None:
        slow = Slow(max_write_buffer=1000)
        [(conn, _)] = await slow.start(tells=False)
        for data in (b"first", bytes(1001), b"x", b"x"):
            await slow.send(conn, data)
        assert slow.rig.facts("closed") == [("closed", conn, "it left 1001 bytes unread")]
        await slow.stop()

    run(main)


def test_who_reads_nothing_for_some_time_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        slow = Slow(write_timeout=0.02)
        [(conn, transport)] = await slow.start()
        left = iter([10, 8, 5, 5, 5])  # each time that the driver looks
        monkeypatch.setattr(transport, "get_write_buffer_size", lambda: next(left))
        await slow.send(conn, b"some bytes")
        await until(lambda: slow.told)
        assert slow.told == [(conn, "it read nothing for 0.02 seconds")]
        assert list(left) == [5]
        await slow.stop()

    run(main)


def test_who_has_read_all_is_not_watched() -> None:
    async def main() -> None:
        slow = Slow(write_timeout=0.01)
        [(conn, transport)] = await slow.start()
        await slow.send(conn, b"some bytes")
        transport.take()
        await asyncio.sleep(0.05)
        assert slow.told == []
        await slow.stop()

    run(main)


# ---------------------------------------------------------------------------------------------- the budget


def test_when_the_budget_is_exceeded_the_largest_debtor_goes_first() -> None:
    async def main() -> None:
        slow = Slow(write_budget=500_000)
        peers = await slow.start(3)
        for (conn, _), size in zip(peers, (100_000, 300_000, 200_000), strict=True):
            await slow.send(conn, b"x", bytes(size))
        assert [conn for conn, _ in slow.told] == [peers[1][0]]
        words = "it left 300001 bytes unread when the buffers of all clients were full"
        assert slow.told[0][1] == words
        await slow.stop()

    run(main)


def test_a_message_for_all_does_not_count_for_each() -> None:
    async def main() -> None:
        slow = Slow(write_budget=1_000_000)
        peers = await slow.start(10)
        shared = bytes(300_000)
        for conn, _ in peers:
            await slow.send(conn, b"x", shared)
        assert slow.told == []
        assert slow.rig.driver.buffers.size == 300_010
        await slow.stop()

    run(main)


def test_who_reads_goes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        slow = Slow(write_budget=570_000)
        peers = await slow.start(3)
        (deaf, _), (reader, transport), (other, _) = peers
        await slow.send(deaf, b"x", bytes(50_000))
        await slow.send(reader, b"x", bytes(400_000))
        now = asyncio.get_running_loop().time() + 10
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        monkeypatch.setattr(slow.rig.driver, "now", lambda: now)
        transport.take()
        await slow.send(other, b"x", bytes(90_000))
        assert [conn for conn, _ in slow.told] == [deaf]
        await slow.stop()

    run(main)


def test_what_transports_hold_counts_too() -> None:
    async def main() -> None:
        slow = Slow(write_budget=2 * PIECE)
        peers = await slow.start(4)
        for conn, _ in peers:
            await slow.send(conn, bytes(PIECE))
        # Nothing that could be dropped: they are told, but that does not help.
        assert len(slow.rig.facts("closed")) == 2
        assert slow.rig.driver.buffers.size <= 2 * PIECE
        await slow.stop()

    run(main)
