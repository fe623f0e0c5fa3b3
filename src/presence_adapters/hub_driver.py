"""The asyncio driver, with what only a hub needs: peers that come by themselves, and many of them."""

from __future__ import annotations

import asyncio
import os
import struct
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any

from presence_adapters.asyncio import Connection, Driver
from presence_proto import ConnId, LocalProtocolError

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from presence_proto import Endpoint

LINGER_NOT = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""The value of SO_LINGER that makes closing a socket an RST."""


NOT_YET = ConnId(0)


class Peer(Connection):
    """A connection that was accepted. It gets its id when it is open."""

    driver: HubDriver

    def __init__(self, driver: HubDriver, sock: socket.socket) -> None:
        super().__init__(driver, NOT_YET)
        self._sock: socket.socket | None = sock  # until the loop has it

    async def welcome(self, context: ssl.SSLContext | None, timeout: float) -> None:
        """Bring it to the loop. `timeout` is for the handshake of TLS."""
        assert self._sock is not None
        sock, self._sock = self._sock, None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self, sock, ssl=context, ssl_handshake_timeout=None if context is None else timeout
            )
        except OSError:
            pass  # no TLS, or they do not trust us: the core never hears of them

    def not_welcome(self) -> None:
        """Close the socket, if the loop does not have it."""
        if self._sock is not None:
            self._sock.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.conn = self.driver.admit(self)
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.set_write_buffer_limits(self.driver.max_write_buffer)

    def pause_writing(self) -> None:
        """What waits to be written is more than the limit."""
        self.fate = f"it left more than {self.driver.max_write_buffer} bytes unread"
        self.cut()


class HubDriver(Driver):
    """It drains once for all facts and commands of one pass of the loop, so that a busy hub writes once to
    each peer; the order of things stays the same. `max_write_buffer`: a peer that leaves more bytes than this
    unread is cut off.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        on_event: Callable[[Any], None],
        on_end: Callable[[Exception | None], None],
        *,
        linger: float = 5.0,
        max_write_buffer: int = 8 * 1024 * 1024,
    ) -> None:
        super().__init__(endpoint, on_event, on_end, linger=linger)
        self.max_write_buffer = max_write_buffer
        self._last_conn = NOT_YET
        self._drain_soon: asyncio.Handle | None = None

    # ---------------------------------------------------------------- peers

    def accept(self, sock: socket.socket, ssl_context: ssl.SSLContext | None, timeout: float) -> None:
        """A peer has connected. If it is to be TLS, `timeout` is for its handshake."""
        peer = Peer(self, sock)
        task = self._make(peer, peer.welcome(ssl_context, timeout))
        # Cancelled before its first step, the coroutine never runs.
        task.add_done_callback(lambda _: peer.not_welcome())

    def admit(self, peer: Peer) -> ConnId:
        """The id of a peer whose connection is open."""
        self._last_conn = ConnId(self._last_conn + 1)
        self.connections[self._last_conn] = peer
        return self._last_conn

    def cut(self, conn: ConnId, *, reset: bool) -> None:
        """Drop one connection at once; `reset`: the peer sees an RST instead of an orderly end."""
        self.drain()  # what was said before is on its way
        connection = self.connections.get(conn)
        if connection is None or connection.transport is None:
            raise LocalProtocolError(f"there is no connection {conn}")
        connection.fate = "cut by the server"
        if reset and (sock := connection.transport.get_extra_info("socket")) is not None:
            sock.setsockopt(SOL_SOCKET, SO_LINGER, LINGER_NOT)
        connection.cut()

    def cut_all(self, *, reset: bool) -> None:
        """Drop all connections at once, those that are not open yet, too."""
        self.cut_unopened()
        self.drain()
        for conn in tuple(self.connections):
            self.cut(conn, reset=reset)

    def cut_unopened(self) -> None:
        """Drop the connections that are not open yet."""
        for connection in list(self.existing):
            if connection.transport is None:
                connection.cut()

    # ---------------------------------------------------------------- many

    def _was_told(self) -> None:
        if self._drain_soon is None:
            self._drain_soon = self._loop.call_soon(self.drain)

    def drain(self) -> None:
        """Carry out what the core wants, and set the timer."""
        if self._drain_soon is not None:
            self._drain_soon.cancel()
            self._drain_soon = None
        super().drain()
