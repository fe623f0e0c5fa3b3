"""TCP connections on any asyncio loop: to the first address that answers (RFC 8305), or through a proxy."""

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
    """Return a connected socket. Raises `OSError` or `UnicodeError`. A cancelled call leaves nothing open."""
    # Not `create_connection(host, port, happy_eyeballs_delay=…)`: uvloop does not support that argument, and
    # Python 3.11 may leave a socket open when the call is cancelled.
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
    """Cancel the attempts and wait for them: a loop that stops now would log them as pending."""
    for attempt in attempts:
        attempt.add_done_callback(_close)
        attempt.cancel()
    if attempts:
        await asyncio.wait(attempts)


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    """Close the socket of an abandoned attempt that succeeded in spite of its cancellation."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


# --------------------------------------------------------------------------------------------- asyncio tunnel
# Proxy tunnel on asyncio: connect to the proxy, request the tunnel, and pass the connection to `protocol`.


async def connect_through(
    proxy: Proxy, wanted: OpenTransport, context: ssl.SSLContext | None, protocol: asyncio.BufferedProtocol
) -> None:
    """Connect `protocol` through `proxy` to the host of `wanted`, with TLS if `context` is given.

    Raises `ProxyError`, and the exceptions of the TLS handshake. A cancelled call leaves nothing open.
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
    """Protocol that requests the tunnel from the proxy.

    Once `is_answered` is set, the tunnel is open, or `failure` has the reason why not. Bytes that arrive
    after the reply of the proxy are kept for `hand_over`.
    """

    def __init__(self, tunnel: ProxyTunnel) -> None:
        # Not a future: asyncio logs an exception that is never retrieved, for example after a cancellation.
        self.is_answered = asyncio.Event()
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
            self.transport.pause_reading()  # the next bytes may belong to the TLS handshake
            self.is_answered.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over, self._error = True, exc
        try:
            self._tunnel.receive_eof()
        except ProxyError as closed:
            self._fail(exc or closed)

    def hand_over(self, protocol: asyncio.BufferedProtocol) -> None:
        """Make `protocol` the protocol of the connection, and give it the bytes received so far."""
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
