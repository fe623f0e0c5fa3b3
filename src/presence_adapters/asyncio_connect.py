"""TCP connections on any asyncio loop, to the first address of a host that answers (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

from presence_adapters.connecting import STAGGER, in_turn, none_works, numeric, out_of_reach
from presence_proto import ProxyError
from presence_proto.websocket import ProxyTunnel

if TYPE_CHECKING:
    import ssl

    from presence_adapters.connecting import Found
    from presence_proto import OpenTransport
    from presence_proto.websocket import Proxy


async def open_socket(host: str, port: int) -> socket.socket:
    """A connected socket. Raises `OSError` or `UnicodeError`. When it is cancelled, nothing stays open."""
    # Not `create_connection(host, port, happy_eyeballs_delay=…)`: uvloop does not know that argument, and
    # Python 3.11 may leave a socket open when it is cancelled.
    found = numeric(host, port)
    if not found:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    waiting = in_turn(found)
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    winner: socket.socket | None = None
    try:
        while winner is None and (waiting or attempts):
            if waiting:
                attempts.add(asyncio.ensure_future(_attempt(waiting.pop(0))))
            limit = STAGGER if waiting else None
            over, _ = await asyncio.wait(attempts, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            for attempt in over:
                error = attempt.exception()
                if isinstance(error, OSError):
                    errors.append(error)
                    attempts.remove(attempt)
                elif winner is None:
                    winner = attempt.result()
                    attempts.remove(attempt)
        await _abandon(attempts)
    except BaseException:
        if winner is not None:
            winner.close()
        await _abandon(attempts)
        raise
    if winner is None:
        raise none_works(errors)
    return winner


async def _attempt(found: Found) -> socket.socket:
    family, kind, protocol, _, address = found
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _abandon(attempts: set[asyncio.Task[socket.socket]]) -> None:
    """Cancel these, and wait for them: a loop that stops now would complain of them."""
    for attempt in attempts:
        attempt.add_done_callback(_close)
        attempt.cancel()
    if attempts:
        await asyncio.wait(attempts)


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    """Close what came of an attempt that nobody waits for, also if it was cancelled too late."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


# --------------------------------------------------------------------------------------------- asyncio tunnel
# Through a proxy on asyncio: connect to it, have it make a tunnel, hand over what is at its end.


async def connect_through(
    proxy: Proxy, wanted: OpenTransport, context: ssl.SSLContext | None, protocol: asyncio.BufferedProtocol
) -> None:
    """Connect `protocol` to where `wanted` leads; with TLS, if there is a `context`.

    Raises `ProxyError`, and what TLS raises. When it is cancelled, nothing stays open.
    """
    loop = asyncio.get_running_loop()
    asking = _Asking(ProxyTunnel(proxy, wanted))
    try:
        try:
            sock = await open_socket(proxy.host, proxy.port)
            await loop.create_connection(lambda: asking, sock=sock)
            await asking.is_answered.wait()
            if asking.failure is not None:
                raise asking.failure
        except (OSError, UnicodeError) as exc:
            raise out_of_reach(exc, proxy) from None
        assert asking.transport is not None
        if context is not None:
            tls = await loop.start_tls(asking.transport, asking, context, server_hostname=wanted.host)
            asking.transport = cast("asyncio.Transport", tls)
    except BaseException:
        if asking.transport is not None:
            asking.transport.abort()
        raise
    asking.hand_over(protocol)


class _Asking(asyncio.Protocol):
    """Asks for the tunnel. When that `is_answered`, it is open, or there is a `failure`. What comes then is
    kept for the hand-over.
    """

    def __init__(self, tunnel: ProxyTunnel) -> None:
        self.is_answered = asyncio.Event()  # no future: nobody may be left to take an exception out of it
        self.failure: Exception | None = None
        self.transport: asyncio.Transport | None = None
        self._tunnel = tunnel
        self._early = bytearray()
        self._is_over = False
        self._error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._tunnel.data_to_send())

    def data_received(self, data: bytes) -> None:
        if self.is_answered.is_set():
            self._early += data
            return
        assert self.transport is not None
        try:
            self._tunnel.receive_data(data)
        except ProxyError as exc:
            self._fail(exc)
        if more := self._tunnel.data_to_send():
            self.transport.write(more)
        if self._tunnel.is_open:
            self._early += self._tunnel.early_data
            self.transport.pause_reading()  # the next bytes may be for TLS
            self.is_answered.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over, self._error = True, exc
        try:
            self._tunnel.receive_eof()
        except ProxyError as closed:
            self._fail(exc or closed)

    def hand_over(self, protocol: asyncio.BufferedProtocol) -> None:
        """From now on the connection is `protocol`'s."""
        assert self.transport is not None
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        while self._early:
            buffer = memoryview(protocol.get_buffer(len(self._early)))
            size = min(len(buffer), len(self._early))
            buffer[:size] = self._early[:size]
            del self._early[:size]
            protocol.buffer_updated(size)
        if self._is_over:
            protocol.connection_lost(self._error)
        else:
            self.transport.resume_reading()

    def _fail(self, error: Exception) -> None:
        if not self.is_answered.is_set():
            self.failure = error
            self.is_answered.set()
