"""How a `PresenceClient` on asyncio begins and ends: entering, leaving, cancellation, bugs of the core."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adapters.fakes import run, until
from adapters.room import client, connects, next_of, rest_of
from presence_adapters.asyncio import ConnectError, PresenceClient
from presence_adapters.server import HubServer
from presence_proto import (
    Connected,
    Disconnected,
    HubConfig,
    Identity,
    LocalProtocolError,
    PresenceConfig,
)

# ---------------------------------------------------------------------------------------------- life


def test_entering_returns_at_once_and_leaving_while_connecting_is_quick() -> None:
    async def main() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        listener = await asyncio.start_server(silent, "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with PresenceClient(Identity("a", "A"), PresenceConfig(server_url=url)) as alice:
            await asyncio.sleep(0.02)
        assert loop.time() - start < 0.5
        assert [type(event) for event in await rest_of(alice)] == [Disconnected]
        listener.close()
        await until(lambda: len(asyncio.all_tasks()) == 1)

    run(main)


def test_a_half_open_server_is_given_up_and_tried_again() -> None:
    async def main() -> None:
        connections: list[asyncio.StreamWriter] = []
        listener = await asyncio.start_server(lambda r, w: connections.append(w), "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        patience = PresenceConfig(server_url=url, connect_timeout=0.05, reconnect_delay=0.02)
        async with PresenceClient(Identity("a", "A"), patience) as alice:
            assert (await next_of(alice, Disconnected)).reason == "no connection within 0.05 s"
            await next_of(alice, Disconnected)
            assert len(connections) >= 2
        listener.close()
        for writer in connections:
            writer.close()
            await writer.wait_closed()

    run(main)


@pytest.mark.long
def test_a_server_that_falls_silent_is_noticed() -> None:
    async def main() -> None:
        async with HubServer() as server:
            impatient = {"heartbeat_interval": 0.05, "heartbeat_timeout": 0.05, "join_timeout": 0.05}
            async with client(server, "alice", **impatient) as alice:
                await next_of(alice, Connected)
                for connection in server._driver.connections.values():
                    assert connection.transport is not None
                    connection.transport.pause_reading()
                assert (await next_of(alice, Disconnected)).reason == "no heartbeat reply within 0.05 s"
                assert (await next_of(alice, Connected)).resumed

    run(main)


def test_a_cancelled_body_leaves_at_once() -> None:
    async def main() -> None:
        async with HubServer() as server:

            async def body() -> None:
                async with client(server, "alice", close_timeout=60) as alice:
                    await next_of(alice, Connected)
                    for connection in server._driver.connections.values():
                        assert connection.transport is not None
                        connection.transport.pause_reading()  # there will be no answer to a goodbye
                    reached.set()
                    await asyncio.sleep(60)

            reached = asyncio.Event()
            task = asyncio.create_task(body())
            await reached.wait()
            task.cancel()
            start = asyncio.get_running_loop().time()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.get_running_loop().time() - start < 0.5
            assert connects() == []
            for connection in server._driver.connections.values():
                assert connection.transport is not None
                connection.transport.resume_reading()
            await until(lambda: not server.hub.connections)

    run(main)


def test_a_goodbye_without_an_answer_is_bounded_and_can_be_cancelled() -> None:
    async def main() -> None:
        async with HubServer(HubConfig(close_timeout=0.05)) as server:

            async def leave(close_timeout: float) -> float:
                async with client(server, "alice", close_timeout=close_timeout) as alice:
                    await next_of(alice, Connected)
                    for connection in server._driver.connections.values():
                        assert connection.transport is not None
                        connection.transport.pause_reading()
                    start = asyncio.get_running_loop().time()
                return asyncio.get_running_loop().time() - start

            assert 0.09 < await leave(0.1) < 1
            task = asyncio.create_task(leave(60))
            await asyncio.sleep(0.2)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert connects() == []

    run(main)


def test_it_is_used_with_async_with_and_once() -> None:
    async def main() -> None:
        async with HubServer() as server:
            alice = client(server, "alice")
            with pytest.raises(LocalProtocolError, match="async with"):
                await alice.send_poke("bob")
            async with alice:
                pass
            with pytest.raises(LocalProtocolError, match="only once"):
                async with alice:
                    pass

    run(main)


# ---------------------------------------------------------------------------------------------- bugs


def break_core(one: PresenceClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def receive_data(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("bug")

    monkeypatch.setattr(one._core, "receive_data", receive_data)


async def fail(one: PresenceClient, monkeypatch: pytest.MonkeyPatch, then: Exception | None = None) -> None:
    """A body that reads no events, until the core has failed."""
    async with one:
        break_core(one, monkeypatch)
        await until(one._driver.ended.is_set)
        if then is not None:
            raise then


def test_a_bug_of_the_core_reaches_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with HubServer() as server, client(server, "alice") as alice:
            break_core(alice, monkeypatch)
            with pytest.raises(ZeroDivisionError):
                await next_of(alice, Connected)
            for late in (lambda: rest_of(alice), lambda: alice.send_poke("bob")):
                with pytest.raises(ConnectError, match="failed with ZeroDivisionError") as caught:
                    await late()
                assert isinstance(caught.value.__cause__, ZeroDivisionError)
            await until(lambda: not server._driver.connections)

    run(main)


def test_a_bug_of_the_core_is_raised_at_the_end_when_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with HubServer() as server:
            with pytest.raises(ZeroDivisionError):
                await fail(client(server, "alice"), monkeypatch)

    run(main)


def test_a_bug_of_the_core_does_not_hide_the_callers_own_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with HubServer() as server:
            with pytest.raises(KeyError):
                await fail(client(server, "alice"), monkeypatch, then=KeyError())

    run(main)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]
