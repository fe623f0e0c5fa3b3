"""The hub behind a socket: many peers, slow ones, stopping, logging."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from adapters.fakes import Certificates, run, until
from attacks.rig import Socket
from hub_client import masked, upgrade
from presence_adapters.asyncio import ConnectError, PresenceClient, RealtimeClient
from presence_adapters.server import HubServer, hub_driver
from presence_proto import (
    Broadcast,
    ChannelConfig,
    ConfigError,
    ConnId,
    Hub,
    HubConfig,
    Identity,
    LocalProtocolError,
    PresenceConfig,
    RealtimeConfig,
)
from presence_proto.hub import ClientConnected, ClientDisconnected, TopicJoined

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def realtime(server: HubServer, **options: Any) -> RealtimeClient:
    return RealtimeClient(RealtimeConfig(server_url=f"{server.url}/realtime/v1", **options))


def test_it_says_where_it_is() -> None:
    async def main() -> None:
        async with HubServer() as server:
            assert server.port > 0
            assert server.url == f"ws://127.0.0.1:{server.port}"
        assert HubServer(host="0.0.0.0", port=7).url == "ws://127.0.0.1:7"
        assert HubServer(host="::", port=7).url == "ws://[::1]:7"
        assert HubServer(host="", port=7).url == "ws://127.0.0.1:7"
        assert HubServer(host="hub.example", port=7).url == "ws://hub.example:7"
        assert HubServer(port=7, ssl_context=Certificates().server).url == "wss://127.0.0.1:7"

    run(main)


def test_nothing_is_read_from_who_has_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the client waits, too, and the hub keeps a read or two of it and no more."""
    sizes: list[int] = []
    receive_data = Hub.receive_data

    def count(self: Hub, conn: ConnId, data: bytes, *, now: float) -> None:
        sizes.append(len(data))
        receive_data(self, conn, data, now=now)

    async def main() -> None:
        monkeypatch.setattr(Hub, "receive_data", count)
        async with HubServer(HubConfig(join_delay=60.0)) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(upgrade("/socket/websocket?vsn=2.0.0"))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(masked(b'["1","1","room:a","phx_join",{}]') + masked(bytes(60_000)) * 1_000)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await writer.drain()
            writer.transport.abort()
        assert 60_000 < sum(sizes) < 200_000

    run(main)


@pytest.mark.parametrize(
    ("listens_on", "host", "origin", "status"),
    [
        ("127.0.0.1", "localhost", "http://localhost:5173", 101),
        ("127.0.0.1", "localhost", "https://evil.example", 403),
        ("127.0.0.1", "evil.example", "http://evil.example", 403),
        ("localhost", "evil.example", "http://evil.example", 403),
        ("localhost", "evil.example", None, 101),
        ("0.0.0.0", "evil.example", "http://evil.example", 101),
        ("127.0.0.1", "chat.example", "https://chat.example", 101),
    ],
)
def test_strange_pages_and_rebound_names_are_refused(
    listens_on: str, host: str, origin: str | None, status: int
) -> None:
    async def main() -> None:
        config = HubConfig(allowed_origins=("https://chat.example",))
        async with HubServer(config, host=listens_on) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            request = upgrade("/socket/websocket").replace(
                b"Host: hub", f"Host: {host}:{server.port}".encode()
            )
            if origin is not None:
                request = request.replace(b"\r\n\r\n", f"\r\nOrigin: {origin}\r\n\r\n".encode())
            writer.write(request)
            assert (await reader.readline()).split()[1] == str(status).encode()
            writer.close()

    run(main)


def test_a_name_with_two_addresses_is_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
            one = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
            two = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0))
            return [one, two, one]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        async with HubServer(host="two.example") as server:
            for address in ("127.0.0.1", "127.0.0.2"):
                _, writer = await asyncio.open_connection(address, server.port)
                writer.close()
                await writer.wait_closed()

    run(main)


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open() -> None:
    async def main() -> None:
        async with HubServer() as server:
            with pytest.raises(OSError) as caught:
                await HubServer(port=server.port).start()
            assert caught.value.errno == errno.EADDRINUSE

    run(main)


def test_commands_and_events_of_the_hub() -> None:
    async def main() -> None:
        events: list[Any] = []
        async with HubServer(on_event=events.append) as server, realtime(server) as client:
            room = await client.join("realtime:room", ChannelConfig(presence_key="alice"))
            assert events == [
                ClientConnected(ConnId(1), "/realtime/v1/websocket"),
                TopicJoined(ConnId(1), "realtime:room", "alice"),
            ]
            server.run(server.hub.broadcast, "realtime:room", "news", {"n": 1})
            async for event in room:
                if isinstance(event, Broadcast):
                    assert event.payload == {"n": 1}
                    break
            with pytest.raises(LocalProtocolError, match="no connection 99"):
                server.cut(ConnId(99))

    run(main)


def test_what_is_said_in_one_moment_is_one_write_for_each_client(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with HubServer() as server, realtime(server) as alice, realtime(server) as bob:
            rooms = [await client.join("realtime:room") for client in (alice, bob)]
            written: list[ConnId] = []
            send = server._driver._send

            def noted(conn: ConnId, data: bytes) -> None:
                written.append(conn)
                send(conn, data)

            monkeypatch.setattr(server._driver, "_send", noted)
            for number in range(20):
                server.run(server.hub.broadcast, "realtime:room", "news", {"n": number})
            for room in rooms:
                heard = [event.payload["n"] async for event in first_20(room)]
                assert heard == list(range(20))
            assert sorted(written) == [1, 2]

    async def first_20(room: Any) -> AsyncIterator[Broadcast]:
        count = 0
        async for event in room:
            if isinstance(event, Broadcast):
                yield event
                count += 1
                if count == 20:
                    return

    run(main)


def test_only_a_faulty_hub_has_faults() -> None:
    async def main() -> None:
        async with HubServer() as server:
            with pytest.raises(TypeError, match="hub_type=FaultyHub"):
                server.set_faults(frozen=True)

    run(main)


def test_what_was_said_before_a_cut_is_written_before_it() -> None:
    async def main() -> None:
        async with HubServer() as server, realtime(server) as client:
            room = await client.join("realtime:room")
            server.run(server.hub.broadcast, "realtime:room", "news", {})
            server.cut_all()
            async for event in room:
                if isinstance(event, Broadcast):
                    return
            raise AssertionError("the news never came")

    run(main)


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_by_an_event_handler_comes_after_what_was_said_before(reset: bool) -> None:
    async def main() -> None:
        events: list[Any] = []

        def on_event(event: Any) -> None:
            events.append(event)
            if event == TopicJoined(ConnId(1), "realtime:room", "alice"):
                server.run(server.hub.broadcast, "realtime:room", "news", {})
                server.cut(event.conn, reset=reset)
                server.cut(event.conn, reset=reset)

        server = HubServer(on_event=on_event)
        written: list[int] = []
        send = server._driver._send

        def noted(conn: ConnId, data: bytes) -> None:
            transport = server._driver.connections[conn].transport
            if conn == 1 and transport is not None and not transport.is_closing():
                written.append(len(events))
            send(conn, data)

        server._driver._send = noted  # type: ignore[method-assign]
        async with server, realtime(server) as client:
            await client.join("realtime:room", ChannelConfig(presence_key="alice"))
            await until(lambda: any(isinstance(event, ClientDisconnected) for event in events))
        joined = events.index(TopicJoined(ConnId(1), "realtime:room", "alice"))
        assert any(count > joined for count in written), "the news was written"
        reasons = [event.reason for event in events if isinstance(event, ClientDisconnected)]
        assert reasons[0] == "cut by the server"

    run(main)


def test_it_logs_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        config = HubConfig(
            api_keys=frozenset({"right-key"}), authorize=lambda topic, token: "no" if "no" in topic else None
        )
        async with HubServer(config) as server:
            async with realtime(server, api_key="right-key", access_token="secret-token") as client:
                await (await client.join("realtime:evil\nline")).leave()
                with pytest.raises(Exception, match="cannot join"):
                    await client.join("realtime:no")
            async with realtime(server, api_key="wrong-key") as client:
                with pytest.raises(ConnectError, match="HTTP 401"):
                    async for _ in client:
                        pass

    with caplog.at_level(logging.DEBUG, "presence_adapters.server"):
        run(main)
    text = "\n".join(record.getMessage() for record in caplog.records)
    for words in (
        "1 connected to '/realtime/v1/websocket'",
        r"1 joined 'realtime:evil\nline'",
        r"1 left 'realtime:evil\nline'",
        "1 may not join 'realtime:no'",
        "1 disconnected (1000)",
        "2 was refused with HTTP",
    ):
        assert words in text
    for secret in ("right-key", "wrong-key", "secret-token"):
        assert secret not in text
    loggers = {record.name for record in caplog.records if record.levelno < logging.ERROR}
    assert loggers == {"presence_adapters.server"}


# ---------------------------------------------------------------------------------------------- slow peers


def test_a_line_of_the_log_has_a_length(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a peer puts into its path or a topic."""

    async def main() -> None:
        async with HubServer(HubConfig(protocol="phoenix")) as server:
            for path in ("/" + "x" * 12_000 + "/websocket?vsn=2.0.0", "/" + "x" * 12_000):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                request = upgrade(path).replace(b"Host: hub", b"Host: localhost")
                writer.write(request + masked(json.dumps(["1", "1", "t" * 250, "phx_join", {}]).encode()))
                await reader.readline()
                writer.close()
            await until(lambda: sum("connected" in record.message for record in caplog.records) >= 2)

    caplog.set_level(logging.DEBUG, logger="presence_adapters.server")
    run(main)
    ours = [record.message for record in caplog.records if record.name == "presence_adapters.server"]
    assert any("joined 'ttt" in line for line in ours)
    assert max(map(len, ours)) < 500


@pytest.mark.long
def test_a_slow_reader_is_cut_off_and_delays_nobody() -> None:
    async def main() -> None:
        acked = ChannelConfig(broadcast_ack=True)
        async with (
            HubServer(max_write_buffer=300_000) as server,
            realtime(server) as slow,
            realtime(server) as quick,
            realtime(server) as talker,
        ):
            await slow.join("realtime:room", acked)
            received = await quick.join("realtime:room", acked)
            room = await talker.join("realtime:room", acked)
            stuck = next(iter(slow._driver.connections.values())).transport
            assert stuck is not None
            stuck.pause_reading()
            loop, text, worst = asyncio.get_running_loop(), "x" * 20_000, 0.0
            for _ in range(600):  # 12 MB: more than the sockets and the write buffer hold
                start = loop.time()
                await room.broadcast("flood", text)
                worst = max(worst, loop.time() - start)
            assert worst < 1
            await until(lambda: len(received._route.queue) >= 600)
            async with asyncio.timeout(10):
                while len(server.hub.connections) > 2:  # what it has left is old in a second or two
                    await asyncio.sleep(0.1)
                    await room.broadcast("flood", "x")
            stuck.abort()

    run(main)


@pytest.mark.long
def test_who_read_too_slowly_is_told_with_1013_and_the_log_has_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub_driver, "PATIENCE", 0.0)  # every write is old when the next one comes

    async def main() -> None:
        async with HubServer(max_write_buffer=300_000) as server:
            slow = await Socket.open(server.port, limit=1024)
            slow.join("realtime:room")
            await until(lambda: server.hub.topics)
            async with asyncio.timeout(10):
                while server.hub.connections:  # more than the sockets hold, and the limit
                    server.run(server.hub.broadcast, "realtime:room", "flood", "x" * 50_000)
                    await asyncio.sleep(0)
            while await slow.read() is not None:
                pass
            assert slow.close_code == 1013
            slow.close()

    run(main)
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage().startswith("client 1 reads too slowly, and is disconnected: it left 3")


def test_the_limits_of_writing_must_make_sense() -> None:
    for name in ("max_write_buffer", "write_timeout", "write_budget"):
        with pytest.raises(ConfigError, match=f"{name} must be more than 0, not -1"):
            HubServer(**{name: -1})


# ---------------------------------------------------------------------------------------------- stopping


async def close_code(server: HubServer, stop: Any) -> str:
    config = PresenceConfig(server_url=f"{server.url}/realtime/v1")
    async with PresenceClient(Identity("a", "A"), config) as client:
        await until(lambda: client.is_connected)
        await stop()
        async with asyncio.timeout(5):
            async for event in client:
                if hasattr(event, "retry_in"):
                    return str(event.reason)
    raise AssertionError


def test_closing_says_1012_and_aborting_says_nothing() -> None:
    async def main() -> None:
        async with HubServer() as server:
            assert "1012" in await close_code(server, server.close)
            with pytest.raises(LocalProtocolError, match="has ended"):
                server.run(server.hub.broadcast, "t", "e", {})
            await server.wait_closed()
        async with HubServer() as server:
            assert await close_code(server, server.abort) == "eof"
        async with HubServer(port=server.port):
            pass

    run(main)


def test_closing_is_bounded_when_peers_do_not_answer() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        config = HubConfig(close_timeout=0.1)
        server = HubServer(config)
        await server.start()
        async with realtime(server, reconnect_delay=60, max_reconnect_delay=60) as client:
            await client.join("realtime:room")
            transport = next(iter(client._driver.connections.values())).transport
            assert transport is not None
            transport.pause_reading()
            _, raw = await asyncio.open_connection("127.0.0.1", server.port)
            start = loop.time()
            await server.close()
            assert 0.05 < loop.time() - start < 1
            transport.abort()
        raw.close()
        await raw.wait_closed()

    run(main)


def test_closing_with_a_full_write_buffer_is_bounded() -> None:
    async def main() -> None:
        server = HubServer(HubConfig(close_timeout=0.1), max_write_buffer=100_000_000)
        await server.start()
        async with realtime(server, reconnect_delay=60, max_reconnect_delay=60) as client:
            await client.join("realtime:room")
            transport = next(iter(client._driver.connections.values())).transport
            assert transport is not None
            transport.pause_reading()
            for _ in range(20):
                server.run(server.hub.broadcast, "realtime:room", "flood", "x" * 1_000_000)
            start = asyncio.get_running_loop().time()
            await server.close()
            assert asyncio.get_running_loop().time() - start < 1
            transport.abort()

    run(main)


def test_closing_is_bounded_even_when_the_hub_forgets_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        server = HubServer(HubConfig(close_timeout=0.05))
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: server._driver.connections)
        monkeypatch.setattr(server.hub, "shutdown", lambda *, now: None)
        await server.close()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    run(main)


def test_closing_does_not_wait_for_a_tls_handshake() -> None:
    async def main() -> None:
        server = HubServer(ssl_context=Certificates().server)
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: server._driver.existing)
        start = asyncio.get_running_loop().time()
        await server.close()
        assert asyncio.get_running_loop().time() - start < 0.5
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    run(main)


@pytest.mark.parametrize("stop", [HubServer.close, HubServer.abort])
@pytest.mark.parametrize("passes", range(5))
def test_one_who_comes_in_the_moment_in_which_it_stops_is_sent_away(stop: Any, passes: int) -> None:
    """Nothing is lost that was accepted already: an open socket would keep them waiting."""

    async def main() -> None:
        server = HubServer(HubConfig(close_timeout=0.05))
        await server.start()
        await asyncio.sleep(0.01)
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as late:
            for _ in range(passes):
                await asyncio.sleep(0)
            await stop(server)
            with suppress(ConnectionError):
                assert late.recv(1) == b""

    run(main)


def test_a_cancelled_body_drops_everything_at_once() -> None:
    async def main() -> None:
        async def body() -> None:
            async with HubServer(HubConfig(close_timeout=60)) as server:
                ports.append(server.port)
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writers.append(writer)
                await until(lambda: server._driver.connections)
                await asyncio.sleep(60)

        ports: list[int] = []
        writers: list[asyncio.StreamWriter] = []
        task = asyncio.create_task(body())
        await until(lambda: writers)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        writers[0].close()
        await writers[0].wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", ports[0])

    run(main)


# ---------------------------------------------------------------------------------------------- trouble


def test_a_system_without_room_for_another_connection_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("presence_adapters.server.hub_server.PAUSE", 0.01)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        accept = loop.sock_accept
        trouble: list[OSError] = [OSError(errno.EMFILE, "Too many open files"), ConnectionAbortedError()]

        async def sock_accept(sock: socket.socket) -> Any:
            if trouble:
                raise trouble.pop(0)
            return await accept(sock)

        monkeypatch.setattr(loop, "sock_accept", sock_accept)
        async with HubServer() as server, realtime(server) as client:
            assert (await client.join("realtime:room")).is_joined

    run(main)
    assert "cannot accept a connection: too many open files" in caplog.text


def test_a_bug_in_the_hub_stops_the_server_and_is_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def receive_data(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("bug")

    async def crash(server: HubServer) -> None:
        async with server:
            monkeypatch.setattr(server.hub, "receive_data", receive_data)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"x")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            with pytest.raises(ZeroDivisionError):
                await server.wait_closed()

    async def main() -> None:
        server = HubServer()
        with pytest.raises(ZeroDivisionError):
            await crash(server)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)

    run(main)
    assert "the hub has failed" in caplog.text
