"""How the driver makes connections: out and in, with TLS and without, and all that can go wrong."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from adapters.fakes import CONN, Certificates, run, until
from adapters.hub_thread import nothing_left
from adapters.proxy import ProxyThread
from adapters.rig import Rig, opened, peer, started
from presence_adapters.server.hub_driver import HubDriver
from presence_proto import CloseTransport, OpenTransport, SendData
from presence_proto.websocket import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


# ---------------------------------------------------------------------------------------------- connecting


async def failure(host: str, port: int, *, tls: bool = False, **options: Any) -> str:
    rig = await started(**options)
    rig.do(OpenTransport(CONN, host, port, tls))
    fact, conn, reason = await rig.fact("closed")
    assert (fact, conn) == ("closed", CONN)
    assert rig.facts("opened") == []
    await rig.driver.stop()
    assert isinstance(reason, str)
    return reason


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert isinstance(port, int)
    return port


def test_nobody_listens() -> None:
    port = free_port()
    reason = run(lambda: failure("127.0.0.1", port))
    assert reason == f"cannot connect to 127.0.0.1:{port} (connection refused)"


def test_the_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    reason = run(lambda: failure("nowhere.invalid", 443, tls=True))
    assert reason == "cannot find the host nowhere.invalid (the name is not known)"


def test_the_name_is_no_name() -> None:
    assert run(lambda: failure("a" * 70 + ".example", 80)) == f"{'a' * 70}.example is not a valid host name"


def test_tls_with_a_trusted_certificate() -> None:
    async def main() -> None:
        certificates = Certificates()
        async with peer(certificates.server) as server:
            rig = await started(ssl_context=certificates.client)
            rig.endpoint.on("opened", lambda conn: rig.endpoint.outputs.append(SendData(conn, b"hello")))
            rig.do(OpenTransport(CONN, "127.0.0.1", server.port, tls=True))
            await until(lambda: server.received == b"hello")
            rig.do(CloseTransport(CONN))
            await until(lambda: not rig.driver.existing)
            await until(lambda: server.ends == 1)
            assert rig.facts("closed") == []
            await rig.driver.stop()

    run(main)


@pytest.mark.parametrize(
    ("names", "ours", "words"),
    [
        (("127.0.0.1",), False, "is not trusted (its issuer is not trusted)"),
        (
            ("other.example",),
            True,
            "is not trusted (it is for another IP address)",
        ),
    ],
)
def test_tls_with_a_certificate_that_is_not_trusted(names: tuple[str, ...], ours: bool, words: str) -> None:
    async def main() -> str:
        certificates = Certificates(*names)
        async with peer(certificates.server) as server:
            reason = await failure(
                "127.0.0.1", server.port, tls=True, ssl_context=certificates.client if ours else None
            )
            assert server.received == b""
            return reason

    assert run(main).endswith(words)


def test_tls_with_a_server_that_does_not_speak_it() -> None:
    async def main() -> str:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        reason = await failure("127.0.0.1", server.sockets[0].getsockname()[1], tls=True)
        server.close()
        await until(lambda: len(asyncio.all_tasks()) == 1)
        return reason

    assert "the TLS handshake with 127.0.0.1:" in run(main)


def test_tls_that_the_server_breaks_off() -> None:
    async def main() -> str:
        async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.transport.abort()

        server = await asyncio.start_server(rude, "127.0.0.1", 0)
        reason = await failure("127.0.0.1", server.sockets[0].getsockname()[1], tls=True)
        server.close()
        return reason

    assert run(main).startswith("cannot connect to 127.0.0.1:")


def test_closing_while_connecting_cancels_the_connect() -> None:
    async def main() -> None:
        async with peer() as silent:  # it accepts, and never answers the TLS handshake
            rig = await started()
            rig.do(OpenTransport(CONN, "127.0.0.1", silent.port, tls=True))
            await until(lambda: silent.received)
            rig.do(CloseTransport(CONN, abort=True))
            await until(lambda: not rig.driver.existing)
            await until(lambda: silent.ends + silent.resets == 1)
            assert rig.facts() == []
            await rig.driver.stop()

    run(main)


def test_closing_before_the_connect_has_begun() -> None:
    async def main() -> None:
        async with peer() as server:
            rig = await started()
            rig.do(OpenTransport(CONN, "127.0.0.1", server.port, tls=False), CloseTransport(CONN, abort=True))
            await rig.driver.quiet()
            assert rig.facts() == []
            await rig.driver.stop()

    run(main)


def test_stopping_while_connecting_cancels_the_connect() -> None:
    async def main() -> None:
        async with peer() as silent:
            rig = await started()
            rig.do(OpenTransport(CONN, "127.0.0.1", silent.port, tls=True))
            await until(lambda: silent.received)
            await rig.driver.stop()
            await until(lambda: silent.ends + silent.resets == 1)
            assert rig.facts() == []

    run(main)


def test_a_connect_that_completes_after_it_was_closed_is_closed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with peer() as server:
            rig = await started()
            loop = asyncio.get_running_loop()
            connect = loop.create_connection

            async def stubborn(*args: Any, **kwargs: Any) -> Any:
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    return await connect(*args, **kwargs)

            monkeypatch.setattr(loop, "create_connection", stubborn)
            rig.do(OpenTransport(CONN, "127.0.0.1", server.port, tls=False))
            await asyncio.sleep(0.01)
            rig.do(CloseTransport(CONN, abort=True))
            await until(lambda: server.ends + server.resets == 1)
            await until(lambda: not rig.driver.existing)
            assert rig.facts() == []
            await rig.driver.stop()

    run(main)


@pytest.mark.long
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 403 No\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_whenever_a_way_through_a_proxy_is_given_up_nothing_is_left(answer: bytes, tls: bool) -> None:
    """Neither a socket nor an exception that nobody has taken."""

    complaints: list[dict[str, Any]] = []

    async def main(passes: int) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        rig = await started(proxy=Proxy("127.0.0.1", proxy.port))
        rig.do(OpenTransport(CONN, "hub.example", 443, tls))
        for _ in range(passes):
            await asyncio.sleep(0)
        rig.do(CloseTransport(CONN, abort=True))
        await rig.driver.stop()

    with nothing_left(), ProxyThread(answer) as proxy:
        for passes in range(14):
            run(partial(main, passes), collect=False)
    assert not complaints


def test_a_bug_while_connecting_ends_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        rig = await started()

        async def broken(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("bug")

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", broken)
        rig.do(OpenTransport(CONN, "127.0.0.1", 1, tls=False))
        await rig.driver.ended.wait()
        assert [str(error) for error in rig.ends] == ["bug"]
        await rig.driver.quiet()

    run(main)


# ---------------------------------------------------------------------------------------------- accepting


@asynccontextmanager
async def accepting(rig: Rig, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def accept() -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            rig.driver.accept(sock, "127.0.0.1", context, 0.2)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        task = asyncio.create_task(accept())
        yield listener.getsockname()[1]
        task.cancel()
        await asyncio.wait([task])


def test_accepted_connections_get_growing_ids_and_one_drain_for_one_pass_of_the_loop() -> None:
    async def main() -> None:
        rig = await started(HubDriver)
        async with accepting(rig) as port:
            pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
            await until(lambda: len(rig.facts("opened")) == 10)
        assert [fact[1] for fact in rig.facts("opened")] == list(range(1, 11))
        before = rig.endpoint.drains
        for _, writer in pairs:
            writer.write(b"x")
        await until(lambda: len(rig.facts("data")) == 10)
        assert 1 <= rig.endpoint.drains - before < 10
        await rig.driver.stop()
        for _, writer in pairs:
            writer.close()
            await writer.wait_closed()
        assert len(rig.facts("closed")) == 10

    run(main)


def test_one_who_comes_after_the_end_is_sent_away() -> None:
    async def main() -> None:
        rig = await started(HubDriver)
        async with accepting(rig) as port:
            rig.endpoint.is_closed = True
            rig.do()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await rig.driver.quiet()
        assert rig.facts() == []

    run(main)


def test_accepted_connections_may_be_tls() -> None:
    async def main() -> None:
        certificates = Certificates()
        rig = await started(HubDriver)
        async with accepting(rig, certificates.server) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=certificates.client)
            writer.write(b"hello")
            assert await rig.fact("data") == ("data", CONN, b"hello")
            rig.do(SendData(CONN, b"world"), CloseTransport(CONN))
            assert await reader.read() == b"world"
            writer.close()
            await writer.wait_closed()
        await rig.driver.stop()

    run(main)


@pytest.mark.parametrize("how", ["speaks no TLS", "says nothing", "is dropped", "is dropped at once"])
def test_of_a_failed_tls_handshake_the_core_never_hears(how: str) -> None:
    async def main() -> None:
        rig = await started(HubDriver)
        async with accepting(rig, Certificates().server) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if how == "speaks no TLS":
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
            elif how.startswith("is dropped"):
                while not rig.driver.existing:
                    await asyncio.sleep(0)
                if how == "is dropped":
                    await asyncio.sleep(0.01)
                rig.driver.cut_unopened()
            with suppress(ConnectionError):
                assert await reader.read() == b""
            await rig.driver.quiet()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        assert rig.facts() == []
        await rig.driver.stop()

    run(main)


def test_one_who_is_dropped_before_the_loop_has_the_socket() -> None:
    async def main() -> None:
        rig = await started(HubDriver)
        ours, theirs = socket.socketpair()
        with theirs:
            rig.driver.accept(ours, "127.0.0.1", None, 1.0)
            rig.driver.cut_unopened()
            await rig.driver.quiet()
            assert theirs.recv(1) == b""
        assert rig.facts() == []
        await rig.driver.stop()

    run(main)


def test_cutting_the_unopened_leaves_the_open() -> None:
    async def main() -> None:
        async with peer() as server:
            rig = await opened(server, HubDriver)
            rig.driver.cut_unopened()
            rig.do(SendData(CONN, b"x"))
            await until(lambda: server.received == b"x")
            await rig.driver.stop()

    run(main)
