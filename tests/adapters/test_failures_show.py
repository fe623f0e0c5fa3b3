"""A failure that nobody asked about shows itself: where the application waits, or in the log."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from adapters.fakes import run, until
from adapters.hub_thread import hub_thread
from presence_adapters import blocking, stepped
from presence_adapters import trio as on_trio
from presence_adapters.asyncio import PresenceClient, RealtimeClient
from presence_adapters.errors import ConnectError, JoinError, JoinTimeoutError, WaitTimeoutError
from presence_adapters.server import HubServer
from presence_proto import (
    ChannelConfig,
    Connected,
    HubConfig,
    Identity,
    LocalProtocolError,
    PresenceConfig,
    PresenceError,
    RealtimeConfig,
)

IDENTITY = Identity("alice", "Alice")
MONITOR = "presence_adapters.connection_monitor"


@pytest.fixture
def dead() -> Iterator[str]:
    """The URL of a port where nobody listens, and nobody else will."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"ws://127.0.0.1:{sock.getsockname()[1]}"


def config(url: str, **options: Any) -> PresenceConfig:
    return PresenceConfig(server_url=url, close_timeout=0.5, **options)


def realtime(url: str, **options: Any) -> RealtimeConfig:
    return RealtimeConfig(server_url=url, close_timeout=0.5, **options)


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == MONITOR]


# ---------------------------------------------------------------------------------------------- not entered

NOT_YET = "not running yet"


def test_on_asyncio_iterating_what_was_not_entered_raises(dead: str) -> None:
    async def main() -> None:
        client, other = PresenceClient(IDENTITY, config(dead)), RealtimeClient(realtime(dead))
        for one in (client, other):
            with pytest.raises(LocalProtocolError, match=NOT_YET):
                async for _ in one:
                    pass
            for early in (one.__anext__, one.wait_connected, one.disconnect):
                with pytest.raises(LocalProtocolError, match=NOT_YET):
                    await early()
        with pytest.raises(LocalProtocolError, match=NOT_YET):
            await other.join("realtime:2", {})

    run(main)


def test_on_trio_iterating_what_was_not_entered_raises(dead: str) -> None:
    async def main() -> None:
        client, other = on_trio.PresenceClient(IDENTITY, config(dead)), on_trio.RealtimeClient(realtime(dead))
        for one in (client, other):
            with pytest.raises(LocalProtocolError, match=NOT_YET):
                async for _ in one:
                    pass
            for early in (one.__anext__, one.wait_connected, one.disconnect):
                with pytest.raises(LocalProtocolError, match=NOT_YET):
                    await early()
        with pytest.raises(LocalProtocolError, match=NOT_YET):
            await other.join("realtime:2", {})

    trio.run(main)


@pytest.mark.parametrize("adapter", [blocking, stepped])
def test_on_sockets_reading_what_was_not_entered_raises(adapter: Any, dead: str) -> None:
    client, other = adapter.PresenceClient(IDENTITY, config(dead)), adapter.RealtimeClient(realtime(dead))
    for one in (client, other):
        for early in (one.events, one.wait_connected):
            with pytest.raises(LocalProtocolError, match=NOT_YET):
                early()
    with pytest.raises(LocalProtocolError, match=NOT_YET):
        other.join("realtime:2", {})
    with pytest.raises(LocalProtocolError, match=NOT_YET):
        client.send_poke("bob")


# ---------------------------------------------------------------------------------------------- the log


def fresh_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("kind", ["presence", "realtime"])
def test_the_first_failed_connect_and_the_recovery_are_logged(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, MONITOR)
    port = fresh_port()
    url = f"ws://127.0.0.1:{port}/realtime/v1"
    fast: Any = {"reconnect_delay": 0.01, "max_reconnect_delay": 0.02}
    refused = f"cannot connect to 127.0.0.1:{port} (connection refused); trying again"

    async def main() -> None:
        client: Any = RealtimeClient(realtime(url, **fast))
        if kind == "presence":
            client = PresenceClient(IDENTITY, config(url, **fast))
        async with client:
            losses = 0
            async for event in client:
                losses += type(event).__name__.endswith("Disconnected")
                if losses == 3:
                    break
            assert logged(caplog) == [("WARNING", refused)]  # once, not three times
            for _ in range(2):  # and again after a success
                async with HubServer(port=port):
                    await client.wait_connected(8)
                    assert logged(caplog)[-1] == ("INFO", f"connected to 127.0.0.1:{port}")
                await until(lambda: logged(caplog)[-1][0] == "WARNING")
        assert [level for level, _ in logged(caplog)] == ["WARNING", "INFO"] * 2 + ["WARNING"]

    run(main)


@pytest.mark.long
def test_a_loss_that_is_over_at_once_and_a_goodbye_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, MONITOR)
    with (
        hub_thread() as hub,
        blocking.PresenceClient(IDENTITY, config(hub.url, reconnect_delay=0.01)) as client,
    ):
        client.wait_connected(8)
        hub.cut(hub.connections[0], reset=True)
        connected = [event for event, _ in zip(client.events(8), range(3), strict=False)]
        assert isinstance(connected[-1], Connected)
    assert logged(caplog) == []


def test_a_final_refusal_is_logged_as_an_error_without_the_key(caplog: pytest.LogCaptureFixture) -> None:
    with hub_thread(HubConfig(api_keys=frozenset({"right"}))) as hub:
        client = blocking.RealtimeClient(realtime(hub.url, api_key="wrong-s3cret-key"))
        with client, pytest.raises(ConnectError):
            list(client)
    [(level, message)] = logged(caplog)
    assert level == "ERROR"
    assert message.startswith(
        f"cannot connect to 127.0.0.1:{hub.port}: the server refused the connection: HTTP 401"
    )
    assert message.endswith("; not trying again")
    assert "s3cret" not in caplog.text


# ---------------------------------------------------------------------------------------------- timeouts

REFUSED = r"cannot connect to 127\.0\.0\.1:\d+ \(connection refused\)"


def check_timeouts(error: BaseException, joining: BaseException) -> None:
    for one, text in (
        (error, "not connected within 0.2 s: "),
        (joining, "'realtime:2': no answer within 0.2 s: "),
    ):
        assert isinstance(one, TimeoutError)
        assert isinstance(one, PresenceError)
        assert text + "cannot connect to 127.0.0.1:" in str(one)
    assert isinstance(joining, JoinError)


def test_on_asyncio_join_and_wait_connected_have_a_timeout(dead: str) -> None:
    async def main() -> None:
        async with RealtimeClient(realtime(dead)) as client:
            with pytest.raises(WaitTimeoutError, match=REFUSED) as waited:
                await client.wait_connected(0.2)
            with pytest.raises(JoinTimeoutError, match=REFUSED) as joined:
                await client.join("realtime:2", {}, timeout=0.2)
            check_timeouts(waited.value, joined.value)
            assert client.channels == ()  # it was left again
            assert client._driver.monitor._waiters == []

    run(main)


def test_on_trio_join_and_wait_connected_have_a_timeout(dead: str) -> None:
    async def main() -> None:
        async with on_trio.RealtimeClient(realtime(dead)) as client:
            with pytest.raises(WaitTimeoutError, match=REFUSED) as waited:
                await client.wait_connected(0.2)
            with pytest.raises(JoinTimeoutError, match=REFUSED) as joined:
                await client.join("realtime:2", {}, timeout=0.2)
            check_timeouts(waited.value, joined.value)
            assert client.channels == ()

    trio.run(main)


def test_on_threads_join_and_wait_connected_have_a_timeout(dead: str) -> None:
    with blocking.RealtimeClient(realtime(dead)) as client:
        with pytest.raises(WaitTimeoutError, match=REFUSED) as waited:
            client.wait_connected(0.2)
        with pytest.raises(JoinTimeoutError, match=REFUSED) as joined:
            client.join("realtime:2", {}, timeout=0.2)
        check_timeouts(waited.value, joined.value)
        assert client.channels == ()


def step_until(client: Any, is_over: Callable[[], object]) -> None:
    """As a host does that steps only when it is due."""
    end = time.monotonic() + 20
    while not is_over():
        assert time.monotonic() < end
        client.step()
        delay = client.next_delay()
        assert delay is not None
        threading.Event().wait(min(delay, 0.05))


def test_in_steps_join_and_wait_connected_have_a_timeout(dead: str) -> None:
    with stepped.RealtimeClient(realtime(dead)) as client:
        waiting, channel = client.wait_connected(0.2), client.join("realtime:2", {}, timeout=0.2)
        assert client.next_delay() is not None
        step_until(client, lambda: waiting.done and channel.joining.done)
        assert waiting.error is not None
        assert channel.joining.error is not None
        check_timeouts(waiting.error, channel.joining.error)
        assert client.channels == ()
        with pytest.raises(LocalProtocolError, match="was left"):
            channel.push("hello")


def test_in_steps_a_limit_is_a_reason_to_step(dead: str) -> None:
    with stepped.RealtimeClient(realtime(dead, reconnect_delay=30.0)) as client:
        step_until(client, lambda: client._driver._link is None)  # now nothing is due for half a minute
        client.wait_connected(0.2)
        delay = client.next_delay()
        assert delay is not None
        assert delay <= 0.2


def test_waits_end_with_what_they_wait_for() -> None:
    async def main() -> None:
        async with HubServer() as server:
            url = server.url
            async with RealtimeClient(realtime(url)) as client:
                await client.wait_connected()
                await client.wait_connected(5)  # at once
                room = await client.join("realtime:room", timeout=5)
                await room.wait_synced(5)
                assert room.is_synced
                await room.wait_synced()

            def elsewhere() -> None:
                with blocking.RealtimeClient(realtime(url)) as one:
                    one.wait_connected(5)
                    room = one.join("realtime:room", timeout=5)
                    room.wait_synced(5)
                    assert room.is_synced
                with stepped.RealtimeClient(realtime(url)) as two:
                    connected, channel = two.wait_connected(5), two.join("realtime:room", timeout=5)
                    step_until(two, lambda: connected.done and channel.joining.done)
                    synced = channel.wait_synced(5)
                    step_until(two, lambda: synced.done)
                    assert (connected.error, channel.joining.error, synced.error) == (None, None, None)
                    assert channel.is_synced

            await asyncio.to_thread(elsewhere)

    run(main)


def test_the_presence_of_a_topic_without_one_is_no_endless_wait() -> None:
    async def main() -> None:
        async with HubServer() as server, RealtimeClient(realtime(server.url)) as client:
            room = await client.join("realtime:1", ChannelConfig(presence=False), timeout=5)
            waiting = asyncio.create_task(room.wait_synced())
            await asyncio.sleep(0)
            with pytest.raises(WaitTimeoutError, match=r"'realtime:1' not synced within 0\.01 s"):
                await room.wait_synced(0.01)
            await room.leave()
            with pytest.raises(LocalProtocolError, match="was left"):
                await waiting
            for late in (room.wait_synced, room.__aiter__().__anext__):
                with pytest.raises((LocalProtocolError, StopAsyncIteration)):
                    await late()
            with pytest.raises(LocalProtocolError, match="'realtime:1' was left: join it again"):
                async for _ in room:
                    pass

    run(main)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "soon", True])
def test_a_timeout_that_is_none_is_refused(timeout: Any, dead: str) -> None:
    async def main() -> None:
        async with RealtimeClient(realtime(dead)) as client:
            for call in (client.wait_connected(timeout), client.join("realtime:2", {}, timeout)):
                with pytest.raises(LocalProtocolError, match="timeout must be at least 0 seconds, or None"):
                    await call
            assert client.channels == ()

    run(main)


# ---------------------------------------------------------------------------------------------- refused


def test_a_final_refusal_ends_whatever_waits_with_the_reason() -> None:
    async def main() -> None:
        async with HubServer(HubConfig(api_keys=frozenset({"right"}))) as server:
            url, port = server.url, server.port
            async with RealtimeClient(realtime(url, api_key="right", reconnect_delay=0.01)) as client:
                room = await client.join("realtime:2", {})
                await server.close()
                await until(lambda: not client.is_connected)
                waits: list[Any] = [client.wait_connected(), room.push("hello"), client.join("room:2", {})]
                waits += [room.wait_synced(), room.__anext__()]
                tasks = [asyncio.create_task(one) for one in waits]
                await asyncio.sleep(0.01)
                async with HubServer(HubConfig(api_keys=frozenset({"another"})), port=port):
                    results = await asyncio.gather(*tasks, return_exceptions=True)
                    while True:  # what came before the end in the channel
                        try:
                            await anext(room)
                        except ConnectError as exc:
                            results[-1] = exc
                            break
        for result in results:
            assert isinstance(result, ConnectError)
            assert result.status == 401
            assert "HTTP 401" in str(result)

    run(main)


# ---------------------------------------------------------------------------------------------- elsewhere


def plain_url(url: str) -> str:
    """Of the hub's mount that has plain topics, too."""
    return url.replace("/realtime/v1", "/socket")


def test_on_asyncio_another_loop_or_thread_is_told_the_way() -> None:
    async def main() -> None:
        async with HubServer() as server, RealtimeClient(realtime(plain_url(server.url))) as client:
            room = await client.join("realtime:1", ChannelConfig(presence=False))
            plain = await client.join("room:1", {})
            await anext(client)  # what is queued already is given to anybody
            uses: list[Callable[[], Any]] = [
                lambda: room.push("hello"),
                lambda: room.leave(),
                lambda: room.wait_synced(),
                lambda: anext(room),
                lambda: anext(client),
                lambda: client.join("room:2", {}),
                lambda: client.wait_connected(),
                lambda: client.disconnect(),
                lambda: client.set_access_token("token"),
            ]

            def elsewhere() -> list[str]:
                said = []
                for use in uses:
                    try:
                        asyncio.run(asyncio.wait_for(use(), 5))
                    except LocalProtocolError as exc:
                        said.append(str(exc))
                return said

            said = await asyncio.to_thread(elsewhere)
            way = "another event loop: use `asyncio.run_coroutine_threadsafe(coro, loop)` to call it there"
            assert said == [f"the client belongs to {way}"] * len(uses)
            loop = asyncio.get_running_loop()

            def rightly() -> Any:
                return asyncio.run_coroutine_threadsafe(plain.push("hello"), loop).result(5)

            assert await asyncio.to_thread(rightly) == {}

    run(main)


def test_on_trio_another_run_or_thread_is_told_the_way() -> None:
    async def main(url: str) -> None:
        async with on_trio.RealtimeClient(realtime(plain_url(url))) as client:
            room = await client.join("realtime:1", ChannelConfig(presence=False))
            plain = await client.join("room:1", {})
            token = trio.lowlevel.current_trio_token()

            def elsewhere() -> None:
                for use in (lambda: room.push("hello"), lambda: anext(room), client.wait_connected):
                    with pytest.raises(
                        LocalProtocolError, match=r"another run of trio: use `trio.from_thread"
                    ):
                        trio.run(use)
                with pytest.raises(LocalProtocolError, match="another run of trio"):
                    asyncio.run(room.push("hello"))
                assert trio.from_thread.run(plain.push, "hello", trio_token=token) == {}

            await trio.to_thread.run_sync(elsewhere)

    with hub_thread() as hub:
        trio.run(main, hub.socket_url)


def test_a_hub_of_another_loop_says_so() -> None:
    async def main() -> None:
        async with HubServer() as server:

            async def call() -> None:
                server.run(server.hub.broadcast, "realtime:2", "news", {})

            def elsewhere() -> None:
                with pytest.raises(LocalProtocolError, match="the hub belongs to another event loop"):
                    asyncio.run(call())
                with pytest.raises(LocalProtocolError, match="the hub belongs to another event loop"):
                    server.run(server.hub.broadcast, "realtime:2", "news", {})

            await asyncio.to_thread(elsewhere)

    run(main)
