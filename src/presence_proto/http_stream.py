"""HTTP/1.1 off a byte stream, on h11: what the handshakes and the tunnel through a proxy have in common."""

from __future__ import annotations

from typing import Any

import h11

MAX_HEADER_SIZE = 16 * 1024  # bytes of the request or status line and the headers together


class HttpStream:
    """h11, fed so that its limit falls on the same byte however the stream is cut: it looks at the limit only
    when it lacks data. It is never told of the end of the stream, which it takes `b""` for.
    """

    __slots__ = ("_h11", "_unread")

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER]) -> None:
        self._h11 = h11.Connection(role, MAX_HEADER_SIZE)
        self._unread = bytearray()

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes came in."""
        self._unread += data

    def _next_event(self) -> Any:
        """The next event of h11, or `None` when it takes more data. Raises `h11.RemoteProtocolError`."""
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if not self._unread:
                return None
            room = MAX_HEADER_SIZE + 1 - len(self._h11.trailing_data[0])
            self._h11.receive_data(bytes(self._unread[:room]))
            del self._unread[:room]
        return event
