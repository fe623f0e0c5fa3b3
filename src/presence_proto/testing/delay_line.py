"""An outbox whose bytes take their time."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from presence_proto.outputs import (
    CloseTransport,
    ConnId,
    Event,
    OpenTransport,
    Outbox,
    SendData,
    _Chunks,
)

if TYPE_CHECKING:
    from presence_proto.timers import Clock


class DelayLine(Outbox[Event]):
    """An `Outbox` that can hold back bytes, and the orderly closes after them. Nothing else waits.

    What comes out keeps the order in which it came in. `release` lets go what is due.
    """

    __slots__ = ("_clock", "_line", "_seconds")

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._seconds = 0.0
        self._line: deque[tuple[float, SendData | CloseTransport]] = deque()  # each with its time

    @property
    def deadline(self) -> float | None:
        """When something is due, or `None`."""
        return self._line[0][0] if self._line else None

    def delay(self, seconds: float) -> None:
        """Hold back what comes from now on for so long. 0: nothing, and let go what is held."""
        self._seconds = seconds
        while not seconds and self._line:
            self._let_go()

    def release(self) -> None:
        """Let go what is due."""
        while self._line and self._line[0][0] <= self._clock.now:
            self._let_go()

    def send(self, conn: ConnId, data: bytes) -> None:
        """Queue `data` for `conn`; nothing is queued for empty data."""
        if not self._seconds:
            super().send(conn, data)
        elif data:
            self._line.append((self._clock.now + self._seconds, SendData(conn, data)))

    def put(self, output: Event | OpenTransport | CloseTransport) -> None:
        """Queue an event or a transport command. An abort drops what is held for its connection."""
        if isinstance(output, CloseTransport) and self._seconds:
            if not output.abort:
                self._line.append((self._clock.now + self._seconds, output))
                return
            self.forget(output.conn)
        super().put(output)

    def forget(self, conn: ConnId) -> None:
        """A transport is gone, and with it what was to be done with it."""
        self._line = deque(held for held in self._line if held[1].conn != conn)
        self._open.pop(conn, None)
        about = (_Chunks, CloseTransport)
        self._queue[:] = [one for one in self._queue if not (isinstance(one, about) and one.conn == conn)]

    def cut(self) -> None:
        """All transports break: nothing more is sent, and the closes that wait are aborts now."""
        closing = [output.conn for _, output in self._line if isinstance(output, CloseTransport)]
        self._line.clear()
        for conn in closing:
            super().put(CloseTransport(conn, abort=True))

    def _let_go(self) -> None:
        _, output = self._line.popleft()
        if isinstance(output, SendData):
            super().send(output.conn, output.data)
        else:
            super().put(output)
