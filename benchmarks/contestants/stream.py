"""What a server sends, as bytes: the frames of a WebSocket, in pieces as they come from a socket."""

from __future__ import annotations

import zlib

from benchmarks.workloads import chunks
from presence_proto.websocket.frames import server_frame

RSV1 = 0x40
"""The bit of a frame that says it is compressed."""


class Stream:
    """One connection. With `deflate` it has negotiated permessage-deflate, and context takeover with it."""

    def __init__(self, *, deflate: bool = False) -> None:
        self._deflater = zlib.compressobj(wbits=-15) if deflate else None

    def chunks(self, texts: list[str]) -> list[bytes]:
        """The next messages."""
        return list(chunks(b"".join(self.frames(texts))))

    def frames(self, texts: list[str]) -> list[bytes]:
        """The same, one message in each piece."""
        return list(map(self._frame, texts))

    def _frame(self, text: str) -> bytes:
        if self._deflater is None:
            return server_frame(text.encode(), text=True)
        data = self._deflater.compress(text.encode()) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        frame = server_frame(data[:-4], text=True)
        return bytes([frame[0] | RSV1]) + frame[1:]
