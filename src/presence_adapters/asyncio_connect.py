"""TCP connects on any asyncio loop, to the first address that answers (RFC 8305) or through a proxy."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from presence_adapters.tls_and_proxies import STAGGER, in_turn, none_works, numeric, open_tunnel, out_of_reach
from presence_proto.websocket import ProxyTunnel

if TYPE_CHECKING:
    from presence_adapters.tls_and_proxies import Found
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
    """Cancel the attempts and wait for their end, because a stopping loop logs pending tasks."""
    for attempt in attempts:
        attempt.add_done_callback(_close)
        attempt.cancel()
    if attempts:
        await asyncio.wait(attempts)


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    """Close the socket of an abandoned attempt that succeeded despite the cancellation."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def open_through(proxy: Proxy, wanted: OpenTransport) -> tuple[socket.socket, bytes]:
    """Connect through `proxy` to the host of `wanted`. Return the socket and the bytes already received.

    Raises `ProxyError`. A cancelled call leaves nothing open.
    """
    loop = asyncio.get_running_loop()
    tunnel = ProxyTunnel(proxy, wanted)
    try:
        sock = await open_socket(proxy.host, proxy.port)
        try:
            await open_tunnel(
                tunnel, lambda data: loop.sock_sendall(sock, data), lambda: loop.sock_recv(sock, 65536)
            )
        except BaseException:
            sock.close()
            raise
    except (OSError, UnicodeError) as exc:
        raise out_of_reach(exc, proxy) from None
    return sock, tunnel.early_data
