"""The contract between a core and its driver. `RealtimeClient`, `PresenceClient` and `Hub` all keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, NewType, NoReturn, Protocol, TypeVar

from attrs import frozen
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


# ---------------------------------------------------------------------------------------------------- outputs
# What a core asks its driver to do, and the queue that holds it until it is drained.


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
    """Write `data` (never empty) to the transport.

    `is_pong`: it answers pings and nothing else. While the transport takes nothing more, a driver may keep
    only the latest of these, and write it before whatever comes next (RFC 6455 §5.5.3).
    """

    # A struct, not an attrs class: it is made in a quarter of the time.

    conn: ConnId
    data: bytes
    is_pong: bool = False

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


MERGED = 64 * 1024
"""Bytes up to which data for one connection is merged. More is left apart: it may be shared with others."""


class _Chunks(Struct, eq=False):
    """Bytes for one connection that nobody has drained yet."""

    conn: ConnId
    data: bytes
    parts: list[bytes] | None = None  # these in place of `data`, when there are several

    def joined(self) -> SendData:
        assert self.parts is not None
        return SendData(self.conn, b"".join(self.parts))

    @property
    def is_large(self) -> bool:
        assert self.parts is not None
        return sum(map(len, self.parts)) > MERGED

    def several(self) -> list[SendData]:
        """Each as long as `MERGED` allows, unless a single part is longer."""
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
    """Pongs for one connection, and nothing between them."""

    @property
    def is_large(self) -> bool:
        return False

    def joined(self) -> SendData:
        return SendData(self.conn, self.data if self.parts is None else b"".join(self.parts), is_pong=True)


class Outbox(Generic[Event]):
    """Outputs in order, oldest first. Bytes for one connection are merged until they are drained.

    Merging is what makes a burst of frames to one connection a single write: `SendData` keeps the place of
    its first byte in the queue, and only a `CloseTransport` of the same connection or pongs end the merging.
    Of more than `MERGED` bytes several are made: a large frame for many receivers is not copied for each.
    """

    # A list, not a deque: a deque weighs more and never gives back memory that it once needed.
    __slots__ = ("_open", "_queue", "_sent", "bytes_received", "emit", "emit_all")

    def __init__(self) -> None:
        self.bytes_received = 0
        """Bytes that the endpoint has received; compressed messages count with their inflated size."""
        self._queue: list[Event | OpenTransport | CloseTransport | _Chunks] = []  # the oldest first
        self._open: dict[ConnId, _Chunks] = {}
        self._sent = False  # whether there may be bytes in the queue
        self.emit: Callable[[Event], None] = self._queue.append
        """Queue an event, and nothing else: a `put` in less time."""
        self.emit_all: Callable[[Iterable[Event]], None] = self._queue.extend
        """Queue events."""

    def __len__(self) -> int:
        return len(self._queue)

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

    def send_pong(self, conn: ConnId, data: bytes) -> None:
        """Queue what answers pings; nothing is queued for empty data. It keeps its place among other data."""
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
        """Queue an event or a transport command."""
        if isinstance(output, CloseTransport):
            self._open.pop(output.conn, None)
            if output.abort and self._sent:
                self._queue[:] = [
                    one for one in self._queue if not (isinstance(one, _Chunks) and one.conn == output.conn)
                ]
        self._queue.append(output)

    def drain(self) -> Sequence[Event | OpenTransport | SendData | CloseTransport]:
        """All outputs, oldest first. The outbox is empty afterwards."""
        if not self._queue:
            return ()
        outputs: list[Any] = self._queue[:]
        self._queue.clear()
        if self._sent:
            large = False
            for index, output in enumerate(outputs):
                if type(output) is _Chunks and output.parts is None:  # nearly all
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
    """A protocol core, as a driver sees it.

    After every fact or command the driver carries out what `drain()` returns, until it returns nothing, and
    then reads `next_deadline()`. `now` is seconds of one monotonic clock; going backwards is clamped, NaN and
    infinity raise `LocalProtocolError`. No fact raises for anything that a peer or a network does. Facts
    about a connection that the core has not asked for, or has closed, are ignored.
    """

    @property
    def is_closed(self) -> bool:
        """Whether the core is at rest: it has no connection, and wants none."""
        ...

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """The byte stream is there: it was asked for with `OpenTransport`, or a server accepted it."""
        ...

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Bytes came in. `b""` does nothing: the end of the stream is `transport_closed`."""
        ...

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """The byte stream ended, or could not be opened. `reason` is for people."""
        ...

    def tick(self, *, now: float) -> None:
        """Time passed. Early and repeated ticks do nothing."""
        ...

    def drain(self) -> Sequence[Any]:
        """All outputs since the last drain, oldest first: orders to the driver, and events.

        Draining runs no protocol code. A command that an event handler gives while the driver carries out a
        drain adds its outputs to the next one.
        """
        ...

    def next_deadline(self) -> float | None:
        """When `tick` is due, on the clock of `now`; `None` when there is nothing to wait for."""
        ...


# ---------------------------------------------------------------------------------------------------- sans io
# What a core answers when it is used like an adapter's client, which has the same name.


class SansIO:
    """Mixin of the cores: `with`, `async with`, `for` and `async for` name the adapters in their `TypeError`.

    Python's own text, "does not support the context manager protocol", names no way out.
    """

    __slots__ = ()

    _adapters: ClassVar[str] = (
        "import it from presence_adapters.asyncio (or .trio, .blocking, .stepped), which run it on a socket"
    )


def _refuse(core: SansIO, *args: object) -> NoReturn:
    raise TypeError(f"presence_proto.{type(core).__name__} does no I/O: {core._adapters}")


# Not in the class: type checkers find the mistake by themselves as long as they see no such methods.
for _name in ("__enter__", "__exit__", "__aenter__", "__aexit__", "__iter__", "__aiter__"):
    setattr(SansIO, _name, _refuse)
