"""TCP connections on any asyncio loop, to the first address of a host that answers (RFC 8305)."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from presence_adapters.addresses import STAGGER, in_turn, none_works, numeric

if TYPE_CHECKING:
    from presence_adapters.addresses import Found


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
