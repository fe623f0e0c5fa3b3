"""The asyncio driver, with what only a hub needs: peers that come by themselves, and many of them."""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from collections import defaultdict, deque
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from presence_adapters.asyncio import AsyncioConnection, AsyncioDriver
from presence_adapters.connecting import one_peer
from presence_proto import ConnId, LocalProtocolError

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Hashable, Iterator

    from presence_proto import Hub


# ---------------------------------------------------------------------------------------------- write backlog
# `WriteBacklog`: what was written to one connection and not taken yet. `WriteBuffers`: all of them.


PIECE = 64 * 1024
"""Bytes that a transport is given at once. It copies what its socket does not take."""

PATIENCE = 1.0
"""Seconds after which a write is old."""


class WriteBuffers:
    """Counts the bytes of memory that backlogs hold. A message for many connections counts once."""

    def __init__(self) -> None:
        self.size = 0
        self._holders: dict[int, int] = {}  # by the identity of a write: how many backlogs hold it

    def hold(self, data: bytes) -> None:
        """A backlog holds `data`, and keeps a reference to it until `release`."""
        holders = self._holders.get(id(data), 0)
        if not holders:
            self.size += len(data)
        self._holders[id(data)] = holders + 1

    def release(self, data: bytes) -> None:
        """A backlog does not need `data` any more."""
        holders = self._holders.pop(id(data)) - 1
        if holders:
            self._holders[id(data)] = holders
        else:
            self.size -= len(data)


class WriteBacklog:
    """Writes that wait for a transport, oldest first. `now` is in seconds of one monotonic clock.

    The transport gets them in pieces. The oldest unfinished write never counts as old, whatever its size: a
    client that reads it is not slow.
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
        self._writes: deque[bytes] = deque()  # of which the transport has nothing
        self._oldest = b""  # of which it has a part
        self._rest = memoryview(b"")  # of the oldest: what it does not have
        self._in_transport = 0  # bytes that it has not passed on
        # Positions in the stream of bytes.
        self._written = 0
        self._given = 0  # to the transport
        self._ended = 0  # the end of the oldest unfinished write
        self._mark = self._old = 0  # `_written` at the mark's time, and at that of the mark before
        self._mark_time = now

    @property
    def size(self) -> int:
        """Bytes that the socket has not taken."""
        return self._written - self._given + self._in_transport

    @property
    def overdue(self) -> int:
        """Bytes of old writes, other than the oldest."""
        return max(0, self._old - self._ended)

    @property
    def unfinished(self) -> int:
        """Bytes of the oldest write that the transport has not got."""
        return len(self._rest)

    def add(self, data: bytes, now: float) -> None:
        """Another write."""
        if now - self._mark_time >= PATIENCE:
            self._old, self._mark, self._mark_time = self._mark, self._written, now
        self._buffers.hold(data)
        self._writes.append(data)
        self._written += len(data)

    def piece(self) -> bytes | memoryview:
        """The next bytes for the transport, `PIECE` at most; empty when it has all."""
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
        """The transport holds `size` bytes that its socket has not taken."""
        self._buffers.size += size - self._in_transport
        self._in_transport = size

    def drop(self) -> None:
        """Forget the writes of which the transport has nothing."""
        for data in self._writes:
            self._buffers.release(data)
        self._writes.clear()
        self._written = self._ended

    def clear(self) -> None:
        """Forget all."""
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
# The TLS handshakes of a hub that are under way: how many there may be, and which gives way.


P = TypeVar("P", bound="Hashable")

logger = logging.getLogger("presence_adapters.server")

WARN_EVERY = 10.0  # seconds


class TlsHandshakes(Generic[P]):
    """The peers that are in a TLS handshake. They take places like open connections, of which the core knows.

    With too many of them the oldest gives way to the newest: an honest handshake takes milliseconds, so the
    one that has taken longest is most likely stalled.
    """

    def __init__(self, limit: int, limit_per_address: int | None) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._addresses: dict[P, str | None] = {}  # the oldest first
        self._peers: defaultdict[str, dict[P, None]] = defaultdict(dict)  # by address; the oldest first
        self._cut = 0  # since the last warning
        self._warned = float("-inf")

    def begin(self, peer: P, address: str | None, *, opened: int, now: float) -> Iterator[P]:
        """Count a handshake. Yields the peers to cut. `opened`: the connections that are past theirs."""
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
        """A handshake is done, or was given up."""
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

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
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
