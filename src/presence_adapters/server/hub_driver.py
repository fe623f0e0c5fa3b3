"""`HubDriver`: the asyncio driver of a hub, for many accepted connections with bounded write buffers."""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from collections import defaultdict, deque
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from presence_adapters.asyncio import AsyncioConnection, AsyncioDriver
from presence_adapters.tls_and_proxies import one_peer
from presence_proto import ConnId, LocalProtocolError

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Hashable, Iterator

    from presence_proto import Hub


# ---------------------------------------------------------------------------------------------- write backlog
# A `WriteBacklog` holds the unsent writes of one connection. `WriteBuffers` counts the bytes of all backlogs.


PIECE = 64 * 1024
"""Maximum bytes passed to a transport at once. A transport copies bytes that the socket does not accept."""

PATIENCE = 1.0
"""Age in seconds at which unsent bytes become old and count as overdue."""


class WriteBuffers:
    """Counter of the bytes in all backlogs. A message for many connections counts only once."""

    def __init__(self) -> None:
        self.size = 0
        self._holders: dict[int, int] = {}  # the number of backlogs that hold a write, by its `id`

    def hold(self, data: bytes) -> None:
        """Count `data` for one more backlog. The backlog must keep a reference to `data` until `release`."""
        holders = self._holders.get(id(data), 0)
        if not holders:
            self.size += len(data)
        self._holders[id(data)] = holders + 1

    def release(self, data: bytes) -> None:
        """Stop counting `data` for one backlog."""
        holders = self._holders.pop(id(data)) - 1
        if holders:
            self._holders[id(data)] = holders
        else:
            self.size -= len(data)


class WriteBacklog:
    """Queue of writes that wait for a transport, oldest first. `now` is a monotonic time in seconds.

    The transport receives the writes in pieces. The oldest unfinished write, of any size, never counts
    as overdue, because a client that is still reading a large message is not slow.
    """

    __slots__ = (
        "_buffers",
        "_ended",
        "_given",
        "_in_transport",
        "_mark",
        "_mark_time",
        "_old",
        "_oldest",
        "_rest",
        "_writes",
        "_written",
    )

    def __init__(self, buffers: WriteBuffers, now: float) -> None:
        self._buffers = buffers
        self._writes: deque[bytes] = deque()  # writes that the transport has not begun
        self._oldest = b""  # the write that the transport has begun
        self._rest = memoryview(b"")  # the rest of `_oldest`, not yet passed to the transport
        self._in_transport = 0  # bytes in the transport's buffer
        # Positions in the stream of all written bytes.
        self._written = 0  # the end of the newest write
        self._given = 0  # the end of the bytes passed to the transport
        self._ended = 0  # the end of the oldest unfinished write
        # `_mark` is the value of `_written` at `_mark_time`. `_old` is the previous value of `_mark`: bytes
        # before this position are old.
        self._mark = self._old = 0
        self._mark_time = now

    @property
    def size(self) -> int:
        """Number of written bytes that the socket has not accepted."""
        return self._written - self._given + self._in_transport

    @property
    def overdue(self) -> int:
        """Number of unsent old bytes, without the oldest unfinished write."""
        return max(0, self._old - self._ended)

    @property
    def unfinished(self) -> int:
        """Number of bytes of the oldest unfinished write that were not passed to the transport."""
        return len(self._rest)

    def add(self, data: bytes, now: float) -> None:
        """Append a write to the queue."""
        if now - self._mark_time >= PATIENCE:
            self._old, self._mark, self._mark_time = self._mark, self._written, now
        self._buffers.hold(data)
        self._writes.append(data)
        self._written += len(data)

    def piece(self) -> bytes | memoryview:
        """Remove and return the next bytes for the transport, at most `PIECE`; `b""` if no bytes are left."""
        if not self._rest:
            self._release_oldest()
            if not self._writes:
                return b""
            if len(self._writes[0]) < PIECE:
                return self._several()
            self._oldest = self._writes.popleft()
            self._rest = memoryview(self._oldest)
            self._ended += len(self._oldest)
        piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
        self._given += len(piece)
        return piece

    def held(self, size: int) -> None:
        """Record that the transport's buffer holds `size` bytes."""
        self._buffers.size += size - self._in_transport
        self._in_transport = size

    def drop(self) -> None:
        """Drop the writes that the transport has not begun."""
        for data in self._writes:
            self._buffers.release(data)
        self._writes.clear()
        self._written = self._ended

    def clear(self) -> None:
        """Drop all writes."""
        self.drop()
        self._rest = memoryview(b"")
        self._release_oldest()
        self.held(0)
        self._given = self._written

    def _several(self) -> bytes:
        writes: list[bytes] = []
        size = 0
        while self._writes and size + len(self._writes[0]) <= PIECE:
            data = self._writes.popleft()
            self._buffers.release(data)
            writes.append(data)
            size += len(data)
        self._given += size
        self._ended += size
        return b"".join(writes)

    def _release_oldest(self) -> None:
        if self._oldest:
            self._buffers.release(self._oldest)
            self._oldest = b""


# --------------------------------------------------------------------------------------------- tls handshakes
# The number of TLS handshakes in progress is limited, because the core counts only open connections.


P = TypeVar("P", bound="Hashable")

logger = logging.getLogger("presence_adapters.server")

WARN_EVERY = 10.0  # seconds


class TlsHandshakes(Generic[P]):
    """The peers in a TLS handshake. Handshakes count towards the connection limits, like open connections.

    When there are too many handshakes, the connection with the oldest handshake is cut. A normal handshake
    takes milliseconds, so the oldest handshake has most likely stalled.
    """

    def __init__(self, limit: int, limit_per_address: int | None) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._addresses: dict[P, str | None] = {}  # address by peer, oldest first
        self._peers: defaultdict[str, dict[P, None]] = defaultdict(dict)  # peers by address, oldest first
        self._cut = 0  # number of handshakes cut since the last warning
        self._warned = float("-inf")

    def begin(self, peer: P, address: str | None, *, opened: int, now: float) -> Iterator[P]:
        """Add a peer and yield the peers to cut. `opened` is the number of open connections."""
        self._addresses[peer] = address
        if address is not None and self._limit_per_address is not None:
            same = self._peers[address]
            same[peer] = None
            if len(same) > self._limit_per_address:
                yield self._give_way(next(iter(same)), now)
        most = max(1, min(self._limit, 2 * self._limit - opened))
        while len(self._addresses) > most:
            yield self._give_way(next(iter(self._addresses)), now)

    def end(self, peer: P) -> None:
        """Remove a peer whose handshake has ended."""
        address = self._addresses.pop(peer, None)
        if address is not None and (same := self._peers.get(address)) is not None:
            same.pop(peer, None)
            if not same:
                del self._peers[address]

    def _give_way(self, peer: P, now: float) -> P:
        self.end(peer)
        self._cut += 1
        if now - self._warned >= WARN_EVERY:
            logger.warning("too many TLS handshakes at once: the oldest were dropped, %d so far", self._cut)
            self._cut, self._warned = 0, now
        return peer


# ------------------------------------------------------------------------------------------------- hub driver


LINGER_NOT = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""The value of the socket option SO_LINGER that makes closing the socket send an RST."""


NOT_YET = ConnId(0)  # the id of a connection that is not open yet

MAX_WRITE_BUFFER = 1024 * 1024  # bytes
WRITE_TIMEOUT = 30.0  # seconds
WRITE_BUDGET = 256 * 1024 * 1024  # bytes


class AcceptedConnection(AsyncioConnection):
    """An accepted connection. The connection gets an id when the TLS handshake is done.

    Large writes are passed to the transport in pieces, and no data while the transport is full.
    """

    driver: HubDriver
    is_slow = False
    """Whether the peer reads too slowly, so that the connection will end soon."""
    stalled_since: float | None = None
    """The event loop's time at which the transport became full, or `None` while the transport is not full."""

    # Defaults on the class save memory: most peers never have a backlog.
    _backlog: WriteBacklog | None = None
    _watch: asyncio.TimerHandle | None = None
    _is_finishing = False

    def __init__(self, driver: HubDriver, sock: socket.socket, address: str | None) -> None:
        super().__init__(driver, NOT_YET)
        self._sock: socket.socket | None = sock  # `None` once the event loop owns the socket
        self.address = address  # `None` when there is no limit for each address

    async def welcome(self, context: ssl.SSLContext | None, timeout: float) -> None:
        """Pass the socket to the event loop. `timeout` limits the TLS handshake, in seconds."""
        assert self._sock is not None
        sock, self._sock = self._sock, None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self, sock, ssl=context, ssl_handshake_timeout=None if context is None else timeout
            )
        except OSError:
            pass  # the TLS handshake failed; the core does not know this connection yet

    def not_welcome(self) -> None:
        """Close the socket, unless the event loop owns the socket."""
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
        # The transport counts as full as soon as its socket is full. Not `high=0`: asyncio's TLS transport
        # would then treat an empty buffer as full.
        self.transport.set_write_buffer_limits(high=1, low=0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_backlog()
        super().connection_lost(exc)

    # ---------------------------------------------------------------- writing

    @property
    def unread(self) -> int:
        """Number of written bytes that the socket has not accepted; 0 without a backlog."""
        return 0 if self._backlog is None else self._backlog.size

    def write(self, data: bytes) -> None:
        """Write data after all earlier writes."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return  # the connection has ended; the loop will call `connection_lost`
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

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        if not self.driver.hub.wants_data(self.conn):
            self.driver.pause(self)

    def pause_writing(self) -> None:
        """Stop writing, because the socket accepts no more data, and check the progress regularly."""
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        self.stalled_since = loop.time()
        buffered = self.transport.get_write_buffer_size()
        self._make_backlog(self.stalled_since).held(buffered)
        self._watch = loop.call_later(self.driver.write_timeout, self._look, buffered)

    def resume_writing(self) -> None:
        """Continue writing, because the socket has accepted all data of the transport."""
        self.stalled_since = None
        if self._watch is not None:
            self._watch.cancel()
        if self._backlog is not None:
            self._backlog.held(0)
            self._write_backlog()

    def finish(self) -> None:
        """Close the connection after all pending writes."""
        if self._backlog is None:
            assert self.transport is not None
            self.transport.close()
        else:
            self._is_finishing = True

    def cut(self) -> None:
        """Drop the connection and all pending writes at once."""
        self._forget_backlog()
        super().cut()

    def drop_backlog(self) -> int:
        """Drop the writes that were not begun. Return the number of unsent bytes of the begun write."""
        if self._backlog is None:
            return 0
        self._backlog.drop()
        return self._backlog.unfinished

    def _write_backlog(self) -> None:
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
            # Do not call close() directly: asyncio reports the end twice if `resume_writing` calls close().
            asyncio.get_running_loop().call_soon(self.transport.close)

    def _look(self, buffered: int) -> None:
        # This method is called every `write_timeout` seconds while the transport is full.
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
    """The asyncio driver of a hub, for many accepted connections.

    The driver drains the core once per iteration of the event loop, for all events and commands together. A
    busy hub therefore writes once to each peer. The order of outputs is unchanged. The core's limits for
    connections also apply to TLS handshakes. The driver does not read from a peer while received bytes of
    this peer wait in the hub.

    A peer is too slow in each of these cases:

    - The peer reads no bytes for `write_timeout` seconds.
    - More than `max_write_buffer` bytes that were written at least a second ago are unread. The oldest
      message does not count.
    - All peers together have more than `write_budget` unread bytes. Peers then count as too slow until the
      sum is small enough. Peers whose transport has been full for a second come first, then all other peers.
      In both groups, peers with the most unread bytes come first.

    For a slow peer, the driver drops the writes that were not begun, and calls `on_slow(conn, reason)`, which
    may close the connection through the core. If there is no `on_slow`, the driver cuts the connection. The
    driver also cuts the connection if too many bytes of a begun write would precede the close frame: more
    than `max_write_buffer`, or any bytes if the budget is exceeded.
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
        self._paused: set[AcceptedConnection] = set()  # peers that the driver does not read from
        self.max_write_buffer = max_write_buffer
        self.write_timeout = write_timeout
        self._write_budget = write_budget
        self._on_slow = on_slow
        self.buffers = WriteBuffers()
        self.debtors: dict[AcceptedConnection, None] = {}  # the connections with a backlog
        self._slow: list[tuple[AcceptedConnection, str]] = []  # slow peers since the last drain, and reasons
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
        """Take over an accepted socket. `timeout` limits the TLS handshake, in seconds."""
        peer = AcceptedConnection(self, sock, one_peer(address) if self._counts_addresses else None)
        task = self._make(peer, peer.welcome(ssl_context, timeout))
        # Not at the end of the coroutine: a task that is cancelled before its first step runs no code.
        task.add_done_callback(lambda _: peer.not_welcome())
        if ssl_context is not None:
            # The core counts only open connections, but handshakes must also count towards the limits.
            opened = len(self.connections)
            for oldest in self._handshakes.begin(peer, peer.address, opened=opened, now=self.now()):
                oldest.cut()
            task.add_done_callback(lambda _: self._handshakes.end(peer))

    def admit(self, peer: AcceptedConnection) -> ConnId:
        """Register a peer whose connection is open, and return the new connection id."""
        self._last_conn = ConnId(self._last_conn + 1)
        self.connections[self._last_conn] = peer
        return self._last_conn

    def pause(self, peer: AcceptedConnection) -> None:
        """Stop reading from a peer until the hub can process more data of this peer."""
        if peer.transport is not None and not peer.transport.is_closing():
            peer.transport.pause_reading()
            self._paused.add(peer)

    def _resume(self) -> None:
        for peer in [peer for peer in self._paused if self.hub.wants_data(peer.conn)]:
            self._paused.remove(peer)
            if peer.transport is not None and not peer.transport.is_closing():
                peer.transport.resume_reading()

    def cut(self, conn: ConnId, *, reset: bool) -> None:
        """Drop one connection at once. With `reset`, the peer receives a TCP RST instead of an orderly end.

        Raises `LocalProtocolError` when there is no connection with this id.
        """
        self.drain()  # write earlier outputs first
        connection = self.connections.get(conn)
        if connection is None or connection.transport is None:
            raise LocalProtocolError(f"there is no connection {conn}")
        if self._is_draining:  # an event handler made this call, so earlier outputs are not written yet
            self._loop.call_soon(self._cut_peer, connection, reset)
        else:
            self._cut_peer(connection, reset)

    def _cut_peer(self, connection: AsyncioConnection, reset: bool) -> None:
        if connection.transport is None:
            return  # the connection has ended in the meantime
        connection.fate = "cut by the server"
        if reset and (sock := connection.transport.get_extra_info("socket")) is not None:
            sock.setsockopt(SOL_SOCKET, SO_LINGER, LINGER_NOT)
        connection.cut()

    def cut_all(self, *, reset: bool) -> None:
        """Drop all connections at once, including connections that are not open yet."""
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
        """Record that a peer is too slow. The peer is disconnected after the current or next drain."""
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
        # Peers whose transport has been full for a second come first, then all other peers. In both groups,
        # peers with the most unread bytes come first.
        recent = self.now() - PATIENCE

        def is_reading(peer: AcceptedConnection) -> bool:
            return peer.stalled_since is None or peer.stalled_since > recent

        return sorted(self.debtors, key=lambda peer: (is_reading(peer), -peer.unread))

    def _free(self, peer: AcceptedConnection) -> None:
        """Drop pending writes of a peer to free memory. Cut the connection if this frees no memory."""
        before = self.buffers.size
        if not peer.is_slow:
            reason = f"it left {peer.unread} bytes unread when the buffers of all clients were full"
            self._dismiss(peer, reason, 0)
        if self.buffers.size == before:
            peer.cut()

    def _dismiss(self, peer: AcceptedConnection, reason: str, patience: int) -> None:
        """Drop the writes that were not begun, and report the peer to `on_slow`.

        Cut the connection if there is no `on_slow`, or if over `patience` bytes of a begun write are left.
        """
        peer.is_slow = True
        peer.fate = reason
        unfinished = peer.drop_backlog()
        if self._on_slow is not None and peer.conn in self.connections:
            self._on_slow(peer.conn, reason)
        if self._on_slow is None or unfinished > patience:
            peer.cut()

    # ---------------------------------------------------------------- draining

    def _was_told(self) -> None:
        if self._drain_soon is None:
            self._drain_soon = self._loop.call_soon(self.drain)

    def drain(self) -> None:
        """Process the core's outputs, set the timer, and disconnect slow peers."""
        if self._drain_soon is not None:
            self._drain_soon.cancel()
            self._drain_soon = None
        super().drain()
        if not self._is_draining and not self.ended.is_set():
            self._cut_slow()
        if self._paused:
            self._resume()
