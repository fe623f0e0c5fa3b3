"""The trio driver on real sockets, with an endpoint that does as it is told: what the check of duties leaves
open, and failures in words.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from adapters.fakes import CONN, Certificates, FakeEndpoint
from adapters.hub_thread import nothing_left
from presence_adapters.trio import TrioDriver
from presence_proto import CloseTransport, OpenTransport, SendData

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Handler = Callable[[trio.SocketStream], Awaitable[object]]


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def guarded() -> None:
        with trio.fail_after(10):
            await main()

    with nothing_left():
        trio.run(guarded)


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[int]:
    """A server for the time of a block; its port."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await handler(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def driver(**options: Any) -> AsyncIterator[tuple[TrioDriver, FakeEndpoint]]:
    endpoint = FakeEndpoint()
    one = TrioDriver(endpoint, lambda event: None, lambda error: None, **options)
    await one.start()
    try:
        yield one, endpoint
    finally:
        await one.stop()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.sleep(0.002)


async def failure(host: str, port: int, *, tls: bool = False, context: ssl.SSLContext | None = None) -> str:
    async with driver(ssl_context=context) as (one, endpoint):
        one.call(endpoint.do, OpenTransport(CONN, host, port, tls))
        await until(lambda: endpoint.facts)
        ((fact, conn, reason),) = endpoint.facts
        assert (fact, conn) == ("closed", CONN)
        assert isinstance(reason, str)
        return reason


# ---------------------------------------------------------------------------------------------- connecting


def test_nobody_listens() -> None:
    async def main() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        assert await failure("127.0.0.1", port) == f"cannot connect to 127.0.0.1:{port} (connection refused)"

    run(main)


def test_the_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def main() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        reason = await failure("nowhere.invalid", 443, tls=True)
        assert reason == "cannot find the host nowhere.invalid (the name is not known)"

    trio.run(trio.to_thread.run_sync, int)  # trio keeps its threads for 10 s: this one is there before
    run(main)


def test_the_name_is_no_name() -> None:
    async def main() -> None:
        name = "a" * 70 + ".example"
        assert await failure(name, 80) == f"{name} is not a valid host name"

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
    certificates = Certificates(*names)

    async def handler(stream: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(stream, certificates.server, server_side=True).do_handshake()

    async def main() -> None:
        async with server(handler) as port:
            reason = await failure("127.0.0.1", port, tls=True, context=certificates.client if ours else None)
            assert reason == f"the TLS certificate of 127.0.0.1:{port} {words}"

    run(main)


def test_tls_with_a_server_that_does_not_speak_it() -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def main() -> None:
        async with server(handler) as port:
            assert f"the TLS handshake with 127.0.0.1:{port}" in await failure("127.0.0.1", port, tls=True)

    run(main)


def test_tls_that_the_server_breaks_off() -> None:
    async def main() -> None:
        async with server(lambda stream: stream.receive_some()) as port:
            reason = await failure("127.0.0.1", port, tls=True)
            words = "the connection was closed during the TLS handshake"
            assert reason == f"cannot connect to 127.0.0.1:{port} ({words})"

    run(main)


def test_closing_while_tls_is_set_up_cancels_that() -> None:
    async def handler(stream: trio.SocketStream) -> None:
        hello.append(await stream.receive_some())
        assert await stream.receive_some() == b""
        ended.set()

    async def main() -> None:
        async with server(handler) as port, driver() as (one, endpoint):
            one.call(endpoint.do, OpenTransport(CONN, "127.0.0.1", port, tls=True))
            await until(lambda: hello)
            one.call(endpoint.do, CloseTransport(CONN))
            await ended.wait()
            await one.quiet()
            assert endpoint.facts == []

    hello: list[object] = []
    ended = trio.Event()
    run(main)


def test_a_connect_that_completes_after_it_was_closed_is_closed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        assert await stream.receive_some() == b""
        ended.set()

    connect = trio.open_tcp_stream

    async def stubborn(host: str, port: int) -> trio.SocketStream:
        with trio.CancelScope(shield=True):
            stream = await connect(host, port)
            await closed.wait()
            return stream

    async def main() -> None:
        async with server(handler) as port, driver() as (one, endpoint):
            monkeypatch.setattr(trio, "open_tcp_stream", stubborn)
            one.call(endpoint.do, OpenTransport(CONN, "127.0.0.1", port, tls=False))
            await trio.sleep(0.05)
            one.call(endpoint.do, CloseTransport(CONN))
            closed.set()
            await ended.wait()
            assert endpoint.facts == []

    ended, closed = trio.Event(), trio.Event()
    run(main)


# ---------------------------------------------------------------------------------------------- the stream


def test_a_reset_is_told_in_words() -> None:
    async def handler(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def main() -> None:
        async with server(handler) as port, driver() as (one, endpoint):
            one.call(endpoint.do, OpenTransport(CONN, "127.0.0.1", port, tls=False))
            await until(lambda: len(endpoint.facts) == 2)
            words = "the connection was lost (connection reset by peer)"
            assert endpoint.facts[1] == ("closed", CONN, words)

    run(main)


@pytest.mark.parametrize("how", ["with TLS's own goodbye", "without"])
def test_the_end_of_tls_is_the_end(how: str) -> None:
    certificates = Certificates()

    async def handler(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, certificates.server, server_side=True)
        await tls.send_all(b"last words")
        if how != "without":
            await tls.aclose()

    async def main() -> None:
        async with server(handler) as port, driver(ssl_context=certificates.client) as (one, endpoint):
            one.call(endpoint.do, OpenTransport(CONN, "127.0.0.1", port, tls=True))
            await until(lambda: len(endpoint.facts) == 3)
            assert endpoint.facts[1:] == [("data", CONN, b"last words"), ("closed", CONN, "eof")]

    run(main)


@pytest.mark.parametrize("tls", [False, True])
def test_a_peer_that_does_not_take_the_rest_does_not_hold_up_the_end(tls: bool) -> None:
    certificates = Certificates()

    async def handler(stream: trio.SocketStream) -> None:
        if tls:
            await trio.SSLStream(stream, certificates.server, server_side=True).do_handshake()
        await trio.sleep_forever()

    async def main() -> None:
        context = certificates.client
        async with server(handler) as port, driver(ssl_context=context, linger=0.1) as (one, endpoint):
            one.call(endpoint.do, OpenTransport(CONN, "127.0.0.1", port, tls))
            await until(lambda: endpoint.facts)
            one.call(endpoint.do, SendData(CONN, bytes(50_000_000)), CloseTransport(CONN))
            start = trio.current_time()
            await one.quiet()
            assert 0.09 < trio.current_time() - start < 1
            assert endpoint.facts == [("opened", CONN)]

    run(main)


def test_what_was_sent_arrives_also_when_the_peer_says_no_more() -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await stream.send_eof()
        await trio.sleep(0.1)
        async for data in stream:
            received.extend(data)
        ended.set()

    async def main() -> None:
        async with server(handler) as port, driver() as (one, endpoint):
            sent = bytes(5_000_000)
            last = [SendData(CONN, sent), CloseTransport(CONN)]
            # Both before the end of the peer's stream can be seen.
            endpoint.on("opened", lambda conn: endpoint.outputs.extend(last))
            one.call(endpoint.do, OpenTransport(CONN, "127.0.0.1", port, tls=False))
            await ended.wait()
            await one.quiet()
            assert received == sent
            assert endpoint.facts == [("opened", CONN)]

    received = bytearray()
    ended = trio.Event()
    run(main)


def test_a_closing_connection_that_breaks_is_over() -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await trio.sleep(0.1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def main() -> None:
        async with server(handler) as port, driver() as (one, endpoint):
            one.call(endpoint.do, OpenTransport(CONN, "127.0.0.1", port, tls=False))
            await until(lambda: endpoint.facts)
            one.call(endpoint.do, SendData(CONN, bytes(50_000_000)), CloseTransport(CONN))
            start = trio.current_time()
            await one.quiet()
            assert trio.current_time() - start < 1  # not the 5 s of the linger

    run(main)


def test_outputs_for_a_connection_that_is_gone_are_nothing() -> None:
    async def main() -> None:
        async with driver() as (one, endpoint):
            one.call(endpoint.do, SendData(CONN, b"x"), CloseTransport(CONN))
            assert endpoint.facts == []

    run(main)
