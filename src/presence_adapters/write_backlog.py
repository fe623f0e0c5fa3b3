"""`WriteBacklog`: what was written to one connection and not taken yet. `WriteBuffers`: all of them."""

from __future__ import annotations

from collections import deque

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
