"""What a core asks its driver to do, and the queue that holds it until it is drained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NewType, TypeVar

from attrs import frozen
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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


@frozen
class AccessTokenNeeded:
    """Get an access token, and give it to the command `set_access_token`, or say `access_token_failed`.

    Asked by clients with `asks_for_token` in their config only.
    """


Event = TypeVar("Event")


class _Chunks(Struct, eq=False):
    """Bytes for one connection that nobody has drained yet."""

    conn: ConnId
    data: bytes
    parts: list[bytes] | None = None  # these in place of `data`, when there are several

    def joined(self) -> SendData:
        return SendData(self.conn, self.data if self.parts is None else b"".join(self.parts))


class Outbox(Generic[Event]):
    """Outputs in order, oldest first. Bytes for one connection are merged until they are drained.

    Merging is what makes a burst of frames to one connection a single write: `SendData` keeps the place of
    its first byte in the queue, and only a `CloseTransport` of the same connection ends the merging.
    """

    # Lists, and no deque, which weighs more and never gives back what it has once needed.
    __slots__ = ("_next", "_open", "_queue", "_sent", "emit", "emit_all")

    def __init__(self) -> None:
        self._next: list[Event | OpenTransport | CloseTransport | _Chunks] = []  # come first, the oldest last
        self._queue: list[Event | OpenTransport | CloseTransport | _Chunks] = []  # the oldest first
        self._open: dict[ConnId, _Chunks] = {}
        self._sent = False  # whether there may be bytes in the queue
        self.emit: Callable[[Event], None] = self._queue.append
        """Queue an event, and nothing else: a `put` in less time."""
        self.emit_all: Callable[[Iterable[Event]], None] = self._queue.extend
        """Queue events."""

    def __len__(self) -> int:
        return len(self._next) + len(self._queue)

    def send(self, conn: ConnId, data: bytes) -> None:
        """Queue `data` for `conn`; nothing is queued for empty data."""
        if not data:
            return
        chunks = self._open.get(conn)
        if chunks is None:
            chunks = self._open[conn] = _Chunks(conn, data)
            self._queue.append(chunks)
            self._sent = True
        elif chunks.parts is None:
            chunks.parts = [chunks.data, data]
        else:
            chunks.parts.append(data)

    def put(self, output: Event | OpenTransport | CloseTransport) -> None:
        """Queue an event or a transport command."""
        if isinstance(output, CloseTransport):
            chunks = self._open.pop(output.conn, None)
            if chunks is not None and output.abort:
                (self._next if chunks in self._next else self._queue).remove(chunks)
        self._queue.append(output)

    def next(self) -> Event | OpenTransport | SendData | CloseTransport | None:
        """The next output, or `None` when there is none left."""
        if not self._next:
            if not self._queue:
                return None
            self._next = self._queue[::-1]
            self._queue.clear()
        output = self._next.pop()
        if not isinstance(output, _Chunks):
            return output
        if self._open.get(output.conn) is output:
            del self._open[output.conn]
        return output.joined()

    def drain(self) -> Sequence[Event | OpenTransport | SendData | CloseTransport]:
        """All that `next` would give, at once."""
        if not self._queue and not self._next:
            return ()
        outputs: list[Any] = self._next[::-1] + self._queue
        self._next.clear()
        self._queue.clear()
        if self._sent:
            outputs = [output.joined() if isinstance(output, _Chunks) else output for output in outputs]
            self._open.clear()
            self._sent = False
        return outputs
