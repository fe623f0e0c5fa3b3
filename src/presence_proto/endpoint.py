"""The interface between a protocol core (`RealtimeClient`, `PresenceClient` or `Hub`) and its driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, NewType, NoReturn, Protocol, TypeVar

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


# ---------------------------------------------------------------------------------------------------- outputs
# The orders of a core to its driver, and the queue that holds the orders until the driver drains the queue.


ConnId = NewType("ConnId", int)
"""The id of one transport connection. Ids increase and are never reused."""


class OpenTransport(Struct, frozen=True):
    """Order to open a byte stream to `host`:`port`, then to report `transport_opened`.

    If `tls` is true, the stream uses TLS, with `host` as the server's name.
    """

    conn: ConnId
    host: str
    port: int
    tls: bool


class SendData(Struct, frozen=True):
    """Order to write `data`, which is never empty, to the transport.

    `is_pong` means that `data` contains only pongs. While the transport accepts no data, a driver may drop
    all pong outputs except the latest, which the driver writes before any other data (RFC 6455 §5.5.3).
    """

    conn: ConnId
    data: bytes
    is_pong: bool = False

    def __repr__(self) -> str:
        # The repr omits the data: the upgrade request and join frames contain keys and tokens.
        return f"SendData(conn={self.conn}, data=<{len(self.data)} bytes>)"


class CloseTransport(Struct, frozen=True):
    """Order to close a transport, or to stop opening a transport. The core has already forgotten `conn`.

    With `abort=False`, the driver writes all pending data first. With `abort=True`, the driver aborts at
    once.
    """

    conn: ConnId
    abort: bool = False


class AccessTokenNeeded(Struct, frozen=True):
    """Order to get an access token and call `set_access_token`, or `access_token_failed` without a token.

    Only clients with `asks_for_token` in their config output an `AccessTokenNeeded`.
    """


Event = TypeVar("Event")


MERGED = 64 * 1024
"""The maximum size of a merged output, in bytes. Larger data is not copied: connections may share data."""


class _Chunks(Struct, eq=False):
    """Bytes for one connection that are not drained yet."""

    conn: ConnId
    data: bytes
    parts: list[bytes] | None = None  # replaces `data` when there are several parts

    def joined(self) -> SendData:
        assert self.parts is not None
        return SendData(self.conn, b"".join(self.parts))

    @property
    def is_large(self) -> bool:
        assert self.parts is not None
        return sum(map(len, self.parts)) > MERGED

    def several(self) -> list[SendData]:
        """Return outputs of at most `MERGED` bytes each. A longer part becomes a separate output."""
        assert self.parts is not None
        merged: list[list[bytes]] = []
        room = 0
        for part in self.parts:
            room -= len(part)
            if room < 0:
                merged.append([])
                room = MERGED - len(part)
            merged[-1].append(part)
        return [SendData(self.conn, b"".join(parts)) for parts in merged]


class _Pongs(_Chunks):
    """Consecutive pongs for one connection."""

    @property
    def is_large(self) -> bool:
        return False

    def joined(self) -> SendData:
        return SendData(self.conn, self.data if self.parts is None else b"".join(self.parts), is_pong=True)


class Outbox(Generic[Event]):
    """Queue of outputs, oldest first. Bytes for one connection are merged until the next drain.

    Therefore, a burst of frames to one connection is a single write. The merged `SendData` has the position
    of its first byte in the queue. Bytes are not merged across a `CloseTransport` of the connection, or
    across pongs. More than `MERGED` bytes become several outputs, so that a large frame is not copied for
    each receiver.
    """

    # Not a deque: a deque takes more memory than a list, and never releases memory.
    __slots__ = ("_open", "_queue", "_sent", "bytes_received", "emit", "emit_all")

    def __init__(self) -> None:
        self.bytes_received = 0
        """The number of bytes received so far. Compressed messages count with their inflated size."""
        self._queue: list[Event | OpenTransport | CloseTransport | _Chunks] = []  # oldest first
        self._open: dict[ConnId, _Chunks] = {}  # bytes that more data can be merged into
        self._sent = False  # whether there may be bytes in the queue
        self.emit: Callable[[Event], None] = self._queue.append
        """Queue an event. `emit` is faster than `put`, which also accepts transport orders."""
        self.emit_all: Callable[[Iterable[Event]], None] = self._queue.extend
        """Queue several events."""

    def __len__(self) -> int:
        return len(self._queue)

    def send(self, conn: ConnId, data: bytes) -> None:
        """Queue `data` for `conn`. Empty data is ignored."""
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

    def send_pong(self, conn: ConnId, data: bytes) -> None:
        """Queue the pongs in `data` for `conn`, after the bytes already queued. Empty data is ignored."""
        if not data:
            return
        last = self._queue[-1] if self._queue else None
        if isinstance(last, _Pongs) and last.conn == conn:
            if last.parts is None:
                last.parts = [last.data]
            last.parts.append(data)
            return
        self._open.pop(conn, None)
        self._queue.append(_Pongs(conn, data))
        self._sent = True

    def put(self, output: Event | OpenTransport | CloseTransport) -> None:
        """Queue an event or a transport order. An aborting `CloseTransport` removes queued data."""
        if isinstance(output, CloseTransport):
            self._open.pop(output.conn, None)
            if output.abort and self._sent:
                self._queue[:] = [
                    one for one in self._queue if not (isinstance(one, _Chunks) and one.conn == output.conn)
                ]
        self._queue.append(output)

    def drain(self) -> Sequence[Event | OpenTransport | SendData | CloseTransport]:
        """Remove and return all outputs, oldest first."""
        if not self._queue:
            return ()
        outputs: list[Any] = self._queue[:]
        self._queue.clear()
        if self._sent:
            large = False
            for index, output in enumerate(outputs):
                if type(output) is _Chunks and output.parts is None:  # nearly always
                    outputs[index] = SendData(output.conn, output.data)
                elif isinstance(output, _Chunks):
                    if output.is_large:
                        large = True
                    else:
                        outputs[index] = output.joined()
            if large:
                outputs = [
                    one
                    for output in outputs
                    for one in (output.several() if isinstance(output, _Chunks) else (output,))
                ]
            self._open.clear()
            self._sent = False
        return outputs


# --------------------------------------------------------------------------------------------------- endpoint


class Endpoint(Protocol):
    """Interface of a protocol core, for drivers.

    A driver reports *facts* with `transport_opened`, `receive_data`, `transport_closed` and `tick`. After
    each fact or command, the driver carries out the outputs of `drain()` until `drain()` returns no outputs.
    Then the driver reads `next_deadline()`.

    `now` is the time of one monotonic clock, in seconds. If `now` is earlier than in the last call, the time
    of the last call counts. A `now` of NaN or infinity raises `LocalProtocolError`. The methods that report
    facts never raise because of an action of a peer or the network. The core ignores facts about a connection
    that the core has not requested, or has closed.
    """

    @property
    def is_closed(self) -> bool:
        """Whether the core has no connection and does not try to connect."""
        ...

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """Report that a byte stream is open: requested with `OpenTransport`, or accepted by a server."""
        ...

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Report received bytes. `b""` is ignored: `transport_closed` reports the end of the stream."""
        ...

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """Report that the byte stream has ended, or could not be opened. `reason` is human-readable."""
        ...

    def tick(self, *, now: float) -> None:
        """Report the time. The core handles deadlines that have passed. An early tick does nothing."""
        ...

    def drain(self) -> Sequence[Any]:
        """Remove and return all outputs, oldest first: orders to the driver, and events.

        `drain` runs no protocol code. If an event handler calls a command while the driver carries out
        outputs, the next drain returns the outputs of that command.
        """
        ...

    def next_deadline(self) -> float | None:
        """Return the time when `tick` is due, on the clock of `now`, or `None` if no deadline is set."""
        ...


# ---------------------------------------------------------------------------------------------------- sans io
# The error for code that confuses a core with an adapter's client, because both have the same name.


class SansIO:
    """Mixin that makes `with`, `async with`, `for` and `async for` raise a `TypeError` about the adapters.

    Python's own error text, "does not support the context manager protocol", does not name a solution.
    """

    __slots__ = ()

    _adapters: ClassVar[str] = (
        "import it from presence_adapters.asyncio (or .trio, .blocking, .stepped), which run it on a socket"
    )


def _refuse(core: SansIO, *args: object) -> NoReturn:
    kind = core.__class__  # not type(core): a recorded core is a wrapper
    raise TypeError(f"presence_proto.{kind.__name__} does no I/O: {kind._adapters}")


# Not in the class: type checkers report the mistake only if they do not see these methods.
for _name in ("__enter__", "__exit__", "__aenter__", "__aexit__", "__iter__", "__aiter__"):
    setattr(SansIO, _name, _refuse)
