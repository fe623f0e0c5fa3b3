"""What a core asks its driver to do, and the queue that holds it until it is drained."""

from __future__ import annotations

from collections import deque
from typing import Generic, NewType, TypeVar

from attrs import frozen
from msgspec import Struct, field

ConnId = NewType("ConnId", int)
"""Names one transport connection. Ids only grow, and none is used twice."""


@frozen
class OpenTransport:
    """Open a byte stream to `host`:`port`, with TLS for `host` when `tls`, then report `transport_opened`."""

    conn: ConnId
    host: str
    port: int
    tls: bool


class SendData(Struct, frozen=True):
    """Write `data` (never empty) to the transport."""

    # A struct, not an attrs class: it is made in a quarter of the time.

    conn: ConnId
    data: bytes

    def __repr__(self) -> str:
        # The upgrade request and join frames carry keys and tokens.
        return f"SendData(conn={self.conn}, data=<{len(self.data)} bytes>)"


@frozen
class CloseTransport:
    """Close the transport, or stop opening it. The core has already forgotten `conn`.

    `abort=False`: write out what was sent before, then close. `abort=True`: drop it at once.
    """

    conn: ConnId
    abort: bool = False


Event = TypeVar("Event")


class _Chunks(Struct, eq=False):
    """Bytes for one connection that nobody has drained yet."""

    conn: ConnId
    parts: list[bytes] = field(default_factory=list)


class Outbox(Generic[Event]):
    """Outputs in order, oldest first. Bytes for one connection are merged until they are drained.

    Merging is what makes a burst of frames to one connection a single write: `SendData` keeps the place of
    its first byte in the queue, and only a `CloseTransport` of the same connection ends the merging.
    """

    __slots__ = ("_open", "_queue")

    def __init__(self) -> None:
        self._queue: deque[Event | OpenTransport | CloseTransport | _Chunks] = deque()
        self._open: dict[ConnId, _Chunks] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def send(self, conn: ConnId, data: bytes) -> None:
        """Queue `data` for `conn`; nothing is queued for empty data."""
        if not data:
            return
        chunks = self._open.get(conn)
        if chunks is None:
            chunks = self._open[conn] = _Chunks(conn)
            self._queue.append(chunks)
        chunks.parts.append(data)

    def put(self, output: Event | OpenTransport | CloseTransport) -> None:
        """Queue an event or a transport command."""
        if isinstance(output, CloseTransport):
            chunks = self._open.pop(output.conn, None)
            if chunks is not None and output.abort:
                self._queue.remove(chunks)
        self._queue.append(output)

    def next(self) -> Event | OpenTransport | SendData | CloseTransport | None:
        """The next output, or `None` when there is none left."""
        if not self._queue:
            return None
        output = self._queue.popleft()
        if isinstance(output, _Chunks):
            if self._open.get(output.conn) is output:
                del self._open[output.conn]
            return SendData(
                output.conn, output.parts[0] if len(output.parts) == 1 else b"".join(output.parts)
            )
        return output
