"""The duties of the driver once it is connected, with an endpoint that does as it is told."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest

from adapters.fakes import CONN, FakeEndpoint, run, until
from adapters.rig import opened, peer, started
from presence_adapters.asyncio import AsyncioDriver
from presence_adapters.server.hub_driver import HubDriver
from presence_proto import CloseTransport, ConnId, LocalProtocolError, OpenTransport, SendData

if TYPE_CHECKING:
    from collections.abc import Callable


def test_connects_writes_reads_and_reports() -> None:
    async def main() -> None:
        async with peer() as server:
            rig = await started()
            rig.endpoint.on(
                "opened", lambda conn: rig.endpoint.outputs.extend([SendData(conn, b"hello"), "event"])
            )
            rig.do(OpenTransport(CONN, "127.0.0.1", server.port, tls=False))
            await until(lambda: server.received == b"hello")
            assert rig.events == ["event"]
            server.writers[0].write(b"world")
            assert await rig.fact("data") == ("data", CONN, b"world")
            server.writers[0].close()
            assert await rig.fact("closed") == ("closed", CONN, "eof")
            await rig.driver.stop()
            assert rig.ends == [None]

    run(main)


def test_after_every_fact_the_outputs_are_drained_and_the_time_is_the_loops() -> None:
    async def main() -> None:
        async with peer() as server:
            rig = await started()
            rig.do(OpenTransport(CONN, "127.0.0.1", server.port, tls=False))
            await rig.fact("opened")
            assert rig.endpoint.drains == 2
            server.writers[0].write(b"x")
            await rig.fact("data")
            assert rig.endpoint.drains == 3
            now = asyncio.get_running_loop().time()
            assert now - 2 < rig.endpoint.times[0] <= rig.endpoint.times[1] <= now
            await rig.driver.stop()

    run(main)


def test_one_timer_follows_the_deadline() -> None:
    async def main() -> None:
        rig = await started()
        loop = asyncio.get_running_loop()
        start = loop.time()
        rig.endpoint.deadline = start + 60
        rig.do()
        rig.endpoint.deadline = start + 0.05
        rig.endpoint.on("tick", lambda: setattr(rig.endpoint, "deadline", None))
        rig.do()
        rig.do()
        await rig.fact("tick")
        assert start + 0.049 < rig.endpoint.times[0] < start + 1
        rig.endpoint.deadline = start + 0.1
        rig.do()
        rig.endpoint.deadline = None
        rig.do()
        await asyncio.sleep(0.15)
        assert rig.facts() == [("tick",)]
        rig.endpoint.deadline = loop.time() + 0.01
        rig.do()
        await rig.driver.stop()
        await asyncio.sleep(0.03)
        assert rig.facts() == [("tick",)]

    run(main)


@pytest.mark.parametrize("where", ["first", "last"])
def test_what_an_event_handler_commands_follows_what_is_under_way(where: str) -> None:
    async def main() -> None:
        async with peer() as server:
            rig = await opened(server)
            order: list[Any] = []

            def on_event(event: Any) -> None:
                order.append(f"begin {event}")
                if event == where:
                    rig.do("of the command", SendData(CONN, b"3"))
                order.append(f"end {event}")

            rig.driver._on_event = on_event
            rig.do("first", SendData(CONN, b"1"), "last", SendData(CONN, b"2"))
            words = ("first", "last", "of the command")
            assert order == [f"{part} {word}" for word in words for part in ("begin", "end")]
            await until(lambda: len(server.received) == 3)
            assert server.received == b"123"
            await rig.driver.stop()

    run(main)


# ---------------------------------------------------------------------------------------------- closing


def test_an_orderly_close_writes_everything_first() -> None:
    async def main() -> None:
        async with peer(reads=False) as server:
            rig = await opened(server)
            data = bytes(5_000_000)
            rig.do(SendData(CONN, data), CloseTransport(CONN))
            await asyncio.sleep(0.02)
            assert rig.driver.existing
            server.reads = True
            await until(lambda: not rig.driver.existing)
            await until(lambda: server.ends == 1)
            assert server.received == data
            assert rig.facts("closed") == []
            await rig.driver.stop()

    run(main)


def test_an_abort_drops_what_is_not_written() -> None:
    async def main() -> None:
        async with peer(reads=False) as server:
            rig = await opened(server)
            rig.do(SendData(CONN, bytes(50_000_000)), CloseTransport(CONN, abort=True))
            await until(lambda: not rig.driver.existing)
            server.reads = True
            await until(lambda: server.ends + server.resets == 1)
            assert len(server.received) < 50_000_000
            assert rig.facts("closed") == []
            await rig.driver.stop()

    run(main)


def test_a_peer_that_does_not_take_the_rest_does_not_hold_up_the_end() -> None:
    async def main() -> None:
        async with peer(reads=False) as server:
            rig = await opened(server, linger=0.05)
            rig.do(SendData(CONN, bytes(50_000_000)), CloseTransport(CONN))
            await until(lambda: not rig.driver.existing, seconds=2)
            await rig.driver.stop()

    run(main)


def test_a_reset_is_told_in_words() -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        rig = await started()
        rig.do(OpenTransport(CONN, "127.0.0.1", listener.getsockname()[1], tls=False))
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        await rig.fact("opened")
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        accepted.close()
        listener.close()
        _, _, reason = await rig.fact("closed")
        assert reason == "the connection was lost (connection reset by peer)"
        await rig.driver.stop()

    run(main)


@pytest.mark.parametrize("driver_type", [AsyncioDriver, HubDriver])
def test_outputs_for_a_connection_that_is_gone_are_nothing(driver_type: type[AsyncioDriver]) -> None:
    async def main() -> None:
        rig = await started(driver_type)
        rig.do(SendData(CONN, b"x"), CloseTransport(CONN), CloseTransport(ConnId(7), abort=True))
        await rig.driver.stop()
        assert rig.facts() == []

    run(main)


# ---------------------------------------------------------------------------------------------- write buffers


def test_writable_tells_when_the_buffer_is_over_its_limit() -> None:
    async def main() -> None:
        async with peer(reads=False) as server:
            rig = await opened(server)
            assert rig.driver.room.is_set()
            rig.do(SendData(CONN, bytes(20_000_000)))
            assert not rig.driver.room.is_set()
            server.reads = True
            await until(rig.driver.room.is_set)
            server.reads = False
            rig.do(SendData(CONN, bytes(20_000_000)))
            assert not rig.driver.room.is_set()
            rig.do(CloseTransport(CONN, abort=True))
            assert rig.driver.room.is_set()
            await rig.driver.stop()

    run(main)


@pytest.mark.long
def test_a_peer_that_reads_too_slowly_is_cut_off() -> None:
    async def main() -> None:
        rig = await started(HubDriver, max_write_buffer=1_000_000)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            rig.driver.accept(ours, "127.0.0.1", None, 5.0)
            conn = (await rig.fact("opened"))[1]
            rig.do(*[SendData(conn, bytes(500_000)) for _ in range(30)])
            while not (closed := rig.facts("closed")):
                await asyncio.sleep(0.1)
                rig.do(SendData(conn, b"more"))
            [(_, closed_conn, reason)] = closed
            assert (closed_conn, reason[:8], reason[-13:]) == (conn, "it left ", " bytes unread")
            await rig.driver.quiet()
            await rig.driver.stop()

    run(main)


# ---------------------------------------------------------------------------------------------- the end


def test_the_end_of_the_core_is_the_end() -> None:
    async def main() -> None:
        rig = await started()
        rig.endpoint.deadline = asyncio.get_running_loop().time() + 60
        rig.do()
        rig.endpoint.is_closed, rig.endpoint.deadline = True, None
        rig.do("last")
        assert rig.events == ["last"]
        assert rig.ends == [None]
        with pytest.raises(LocalProtocolError, match="the client has ended"):
            rig.do()
        await rig.driver.stop()
        assert rig.ends == [None]

    run(main)


def raising(error: Exception) -> Callable[..., None]:
    def action(*args: Any) -> None:
        raise error

    return action


@pytest.mark.parametrize("fact", ["opened", "data", "tick", "closed"])
@pytest.mark.parametrize("batch", [False, True])
def test_a_bug_in_a_fact_ends_everything_and_is_told(fact: str, batch: bool) -> None:
    async def main() -> None:
        async with peer() as server:
            bug = RuntimeError("bug")
            rig = await started(HubDriver if batch else AsyncioDriver)
            rig.endpoint.on(fact, raising(bug))
            rig.endpoint.deadline = asyncio.get_running_loop().time() + (0.05 if fact == "tick" else 60)
            rig.do(OpenTransport(CONN, "127.0.0.1", server.port, tls=False))
            await until(lambda: server.writers)
            server.writers[0].write(b"x")
            await until(lambda: rig.facts("data") or rig.ends)
            if fact == "closed":
                server.writers[0].close()
            await rig.driver.ended.wait()
            assert rig.ends == [bug]
            assert rig.driver.error is bug
            await rig.driver.quiet()
            known = rig.facts()
            await until(lambda: server.ends + server.resets == 1 or fact == "closed")
            assert rig.facts() == known
            with pytest.raises(LocalProtocolError) as caught:
                rig.do()
            assert caught.value.__cause__ is bug

    run(main)


@pytest.mark.parametrize("where", ["drain", "next_deadline", "on_event"])
def test_a_bug_in_a_drain_ends_everything_and_is_told(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with peer() as server:
            bug = RuntimeError("bug")
            rig = await opened(server)
            if where == "drain":
                rig.do(bug)
            elif where == "next_deadline":
                monkeypatch.setattr(rig.endpoint, "next_deadline", raising(bug))
                rig.do()
            else:
                monkeypatch.setattr(rig.driver, "_on_event", raising(bug))
                rig.do("event")
            assert rig.ends == [bug]
            await rig.driver.quiet()
            await until(lambda: server.ends + server.resets == 1)

    run(main)


def test_what_a_command_raises_is_the_callers_and_changes_nothing() -> None:
    async def main() -> None:
        rig = await started()
        with pytest.raises(LocalProtocolError, match="not legal"):
            rig.driver.call(lambda *, now: raising(LocalProtocolError("not legal"))())
        rig.do("event")
        assert rig.events == ["event"]
        assert rig.ends == []
        await rig.driver.stop()

    run(main)


def test_it_is_entered_once_and_first() -> None:
    driver = AsyncioDriver(FakeEndpoint(), print, print)
    with pytest.raises(LocalProtocolError, match="not running yet"):
        driver.call(print)

    async def main() -> None:
        await driver.start()
        with pytest.raises(LocalProtocolError, match="only once"):
            await driver.start()

    run(main)


def test_stopping_with_a_batch_undrained_loses_no_output() -> None:
    async def main() -> None:
        async with peer() as server:
            rig = await started(HubDriver)
            rig.endpoint.on("closed", lambda conn, reason: rig.endpoint.outputs.append("gone"))
            rig.do(OpenTransport(CONN, "127.0.0.1", server.port, tls=False))
            await rig.fact("opened")
            await rig.driver.stop()
            assert rig.events == ["gone"]
            assert rig.ends == [None]

    run(main)
