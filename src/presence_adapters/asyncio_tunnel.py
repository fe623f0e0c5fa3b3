"""Through a proxy on asyncio: connect to it, have it make a tunnel, hand over what is at its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from presence_adapters.asyncio_connect import open_socket
from presence_adapters.connecting import out_of_reach
from presence_proto import ProxyError, ProxyTunnel

if TYPE_CHECKING:
    import ssl

    from presence_adapters.asyncio import AsyncioConnection
    from presence_proto import OpenTransport, Proxy


async def connect_through(
    proxy: Proxy, wanted: OpenTransport, context: ssl.SSLContext | None, protocol: AsyncioConnection
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

    def hand_over(self, protocol: AsyncioConnection) -> None:
        """From now on the connection is `protocol`'s."""
        assert self.transport is not None
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if self._early:
            protocol.data_received(bytes(self._early))
        if self._is_over:
            protocol.connection_lost(self._error)
        else:
            self.transport.resume_reading()

    def _fail(self, error: Exception) -> None:
        if not self.is_answered.is_set():
            self.failure = error
            self.is_answered.set()
