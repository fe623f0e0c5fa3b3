"""The contract between a core and its driver. `RealtimeClient`, `PresenceClient` and `Hub` all keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from presence_proto.outputs import ConnId


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
