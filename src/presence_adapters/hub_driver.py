"""The asyncio driver, with what only a hub needs: peers that come by themselves, and many of them."""

from __future__ import annotations

import asyncio
import os
import struct
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any

from presence_adapters.addresses import one_peer
from presence_adapters.asyncio import AsyncioConnection, AsyncioDriver
from presence_adapters.tls_handshakes import TlsHandshakes
from presence_adapters.write_backlog import PATIENCE, PIECE, WriteBacklog, WriteBuffers
from presence_proto import ConnId, LocalProtocolError

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from presence_proto import Hub

LINGER_NOT = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""The value of SO_LINGER that makes closing a socket an RST."""


NOT_YET = ConnId(0)

MAX_WRITE_BUFFER = 1024 * 1024  # bytes
WRITE_TIMEOUT = 30.0  # seconds
WRITE_BUDGET = 256 * 1024 * 1024  # bytes


class AcceptedConnection(AsyncioConnection):
    """A connection that was accepted. It gets its id when it is open.

    Its transport is given large writes in pieces, and nothing while it is full.
    """

    driver: HubDriver
    is_slow = False
    """Whether it was found to be too slow, and will be gone soon."""
    stalled_since: float | None = None
    """When the transport became full, in the loop's time."""

    # On the class, as the rest is: most peers never have a backlog.
    _backlog: WriteBacklog | None = None
    _watch: asyncio.TimerHandle | None = None
    _is_finishing = False

    def __init__(self, driver: HubDriver, sock: socket.socket, address: str | None) -> None:
        super().__init__(driver, NOT_YET)
        self._sock: socket.socket | None = sock  # until the loop has it
        self.address = address  # if connections are counted by it

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

    def tell_opened(self) -> None:
        if self.address is None:
            super().tell_opened()
        else:
            opened: Callable[..., None] = self.driver.endpoint.transport_opened
            self.driver.fact(opened, self.conn, address=self.address)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.conn = self.driver.admit(self)
        super().connection_made(transport)
        assert self.transport is not None
        # Full as soon as the socket is. Not 0: to asyncio's TLS an empty buffer would be full then.
        self.transport.set_write_buffer_limits(high=1, low=0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_backlog()
        super().connection_lost(exc)

    # ---------------------------------------------------------------- writing

    @property
    def unread(self) -> int:
        """Bytes that were written and the socket has not taken; 0 while it takes all at once."""
        return 0 if self._backlog is None else self._backlog.size

    def write(self, data: bytes) -> None:
        """Write after all that was written before."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return  # it has ended already; its connection_lost is on the way
        if self._backlog is None and len(data) <= PIECE:
            transport.write(data)
            return
        now = asyncio.get_running_loop().time()
        backlog = self._make_backlog(now)
        backlog.add(data, now)
        if backlog.overdue > self.driver.max_write_buffer and not self.is_slow:
            self.driver.found_slow(self, f"it left {backlog.overdue} bytes unread")
        if self.stalled_since is None:
            self._write_backlog()

    def data_received(self, data: bytes | memoryview) -> None:
        super().data_received(data)
        if not self.driver.hub.wants_data(self.conn):
            self.driver.pause(self)

    def pause_writing(self) -> None:
        """The socket takes no more."""
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        self.stalled_since = loop.time()
        buffered = self.transport.get_write_buffer_size()
        self._make_backlog(self.stalled_since).held(buffered)
        self._watch = loop.call_later(self.driver.write_timeout, self._look, buffered)

    def resume_writing(self) -> None:
        """The socket has taken all that the transport had."""
        self.stalled_since = None
        if self._watch is not None:
            self._watch.cancel()
        if self._backlog is not None:
            self._backlog.held(0)
            self._write_backlog()

    def finish(self) -> None:
        """Close it when what was written is on its way."""
        if self._backlog is None:
            super().finish()
        else:
            self._is_finishing = True

    def cut(self) -> None:
        """Drop it at once, with all that waits."""
        self._forget_backlog()
        super().cut()

    def drop_backlog(self) -> int:
        """Forget what was not begun. Returns how many bytes of a message that was begun are to follow."""
        if self._backlog is None:
            return 0
        self._backlog.drop()
        return self._backlog.unfinished

    def _write_backlog(self) -> None:
        """Write until the transport is full."""
        assert self.transport is not None
        assert self._backlog is not None
        while self.stalled_since is None and not self.transport.is_closing():
            piece = self._backlog.piece()
            if not piece:
                break
            self.transport.write(piece)
        else:
            return
        self._forget_backlog()
        if self._is_finishing:
            # Not now: asyncio reports the end twice when a transport is closed by `resume_writing`.
            asyncio.get_running_loop().call_soon(self.transport.close)

    def _look(self, buffered: int) -> None:
        """See whether the socket has taken anything in `write_timeout` seconds."""
        assert self.transport is not None
        now_buffered = self.transport.get_write_buffer_size()
        timeout = self.driver.write_timeout
        if now_buffered < buffered:
            self._watch = asyncio.get_running_loop().call_later(timeout, self._look, now_buffered)
        else:
            self.driver.found_slow(self, f"it read nothing for {timeout:g} seconds")

    def _make_backlog(self, now: float) -> WriteBacklog:
        if self._backlog is None:
            self._backlog = WriteBacklog(self.driver.buffers, now)
            self.driver.debtors[self] = None
        return self._backlog

    def _forget_backlog(self) -> None:
        if self._backlog is not None:
            self._backlog.clear()
            self._backlog = None
            del self.driver.debtors[self]
        if self._watch is not None:
            self._watch.cancel()


class HubDriver(AsyncioDriver):
    """It drains once for all facts and commands of one pass of the loop, so that a busy hub writes once to
    each peer; the order of things stays the same. The limits of connections are the core's, and hold for TLS
    handshakes, too. While bytes of a peer wait for its turn in the hub, no more are read from it.

    A peer is too slow when it leaves more than `max_write_buffer` bytes unread of what was written at least a
    second ago, the oldest message apart, or when it takes nothing for `write_timeout` seconds. When all peers
    together leave more than `write_budget` bytes unread, those that owe most are. `on_slow(conn, reason)`
    may have the core close the connection: what was not begun is dropped, and what the core says goes out,
    unless a long message would have to go before it. Without `on_slow` it is cut.
    """

    what = "hub"

    def __init__(
        self,
        hub: Hub,
        on_event: Callable[[Any], None],
        on_end: Callable[[Exception | None], None],
        *,
        linger: float = 5.0,
        max_write_buffer: int = MAX_WRITE_BUFFER,
        write_timeout: float = WRITE_TIMEOUT,
        write_budget: int = WRITE_BUDGET,
        max_connections: int = 10_000,
        max_connections_per_address: int | None = None,
        on_slow: Callable[[ConnId, str], None] | None = None,
    ) -> None:
        super().__init__(hub, on_event, on_end, linger=linger)
        self.hub = hub
        self._paused: set[AcceptedConnection] = set()  # whom we do not read from
        self.max_write_buffer = max_write_buffer
        self.write_timeout = write_timeout
        self._write_budget = write_budget
        self._on_slow = on_slow
        self.buffers = WriteBuffers()
        self.debtors: dict[AcceptedConnection, None] = {}  # those with a backlog
        self._slow: list[tuple[AcceptedConnection, str]] = []  # found since the last drain
        self._counts_addresses = max_connections_per_address is not None
        self._handshakes: TlsHandshakes[AcceptedConnection] = TlsHandshakes(
            max_connections, max_connections_per_address
        )
        self._last_conn = NOT_YET
        self._drain_soon: asyncio.Handle | None = None

    # ---------------------------------------------------------------- peers

    def accept(
        self, sock: socket.socket, address: str, ssl_context: ssl.SSLContext | None, timeout: float
    ) -> None:
        """A peer has connected. If it is to be TLS, `timeout` is for its handshake."""
        peer = AcceptedConnection(self, sock, one_peer(address) if self._counts_addresses else None)
        task = self._make(peer, peer.welcome(ssl_context, timeout))
        # Cancelled before its first step, the coroutine never runs.
        task.add_done_callback(lambda _: peer.not_welcome())
        if ssl_context is not None:
            # The core counts what is open. What is not takes places, too.
            opened = len(self.connections)
            for oldest in self._handshakes.begin(peer, peer.address, opened=opened, now=self.now()):
                oldest.cut()
            task.add_done_callback(lambda _: self._handshakes.end(peer))

    def admit(self, peer: AcceptedConnection) -> ConnId:
        """The id of a peer whose connection is open."""
        self._last_conn = ConnId(self._last_conn + 1)
        self.connections[self._last_conn] = peer
        return self._last_conn

    def pause(self, peer: AcceptedConnection) -> None:
        """Read no more from a peer until the hub wants its data again."""
        if peer.transport is not None and not peer.transport.is_closing():
            peer.transport.pause_reading()
            self._paused.add(peer)

    def _resume(self) -> None:
        for peer in [peer for peer in self._paused if self.hub.wants_data(peer.conn)]:
            self._paused.remove(peer)
            if peer.transport is not None and not peer.transport.is_closing():
                peer.transport.resume_reading()

    def cut(self, conn: ConnId, *, reset: bool) -> None:
        """Drop one connection at once; `reset`: the peer sees an RST instead of an orderly end."""
        self.drain()  # what was sent before is on its way
        connection = self.connections.get(conn)
        if connection is None or connection.transport is None:
            raise LocalProtocolError(f"there is no connection {conn}")
        if self._is_draining:  # called by an event handler: what was sent before is not written yet
            self._loop.call_soon(self._cut_peer, connection, reset)
        else:
            self._cut_peer(connection, reset)

    def _cut_peer(self, connection: AsyncioConnection, reset: bool) -> None:
        if connection.transport is None:
            return  # it has ended meanwhile
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

    # ---------------------------------------------------------------- slow peers

    def found_slow(self, peer: AcceptedConnection, reason: str) -> None:
        """A peer is too slow. It is cut off when the drain that may be under way is over."""
        peer.is_slow = True
        self._slow.append((peer, reason))
        self._was_told()

    def _cut_slow(self) -> None:
        slow, self._slow = self._slow, []
        for peer, reason in slow:
            self._dismiss(peer, reason, self.max_write_buffer)
        if self.buffers.size > self._write_budget:
            for peer in self._largest_debtors():
                self._free(peer)
                if self.buffers.size <= self._write_budget:
                    break

    def _largest_debtors(self) -> list[AcceptedConnection]:
        """Those that owe most come first, but after those that have read nothing for a while."""
        recent = self.now() - PATIENCE

        def is_reading(peer: AcceptedConnection) -> bool:
            return peer.stalled_since is None or peer.stalled_since > recent

        return sorted(self.debtors, key=lambda peer: (is_reading(peer), -peer.unread))

    def _free(self, peer: AcceptedConnection) -> None:
        """Have a peer hold less memory, or else none."""
        before = self.buffers.size
        if not peer.is_slow:
            reason = f"it left {peer.unread} bytes unread when the buffers of all clients were full"
            self._dismiss(peer, reason, 0)
        if self.buffers.size == before:
            peer.cut()

    def _dismiss(self, peer: AcceptedConnection, reason: str, patience: int) -> None:
        """Drop what a peer has not begun to read, and tell it why, if `patience` bytes may go before that."""
        peer.is_slow = True
        peer.fate = reason
        unfinished = peer.drop_backlog()
        if self._on_slow is not None and peer.conn in self.connections:
            self._on_slow(peer.conn, reason)
        if self._on_slow is None or unfinished > patience:
            peer.cut()

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
        if not self._is_draining and not self.ended.is_set():
            self._cut_slow()
        if self._paused:
            self._resume()
