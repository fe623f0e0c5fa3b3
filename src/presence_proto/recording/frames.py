"""Split a byte stream into pieces: an HTTP head, followed by WebSocket frames or a refusal's body.

This module validates nothing, because a recording must contain every received byte. The core validates the
bytes.
"""

from __future__ import annotations

import re
import zlib
from typing import TypeAlias

from attrs import frozen

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

_HEAD_END = re.compile(rb"\n\r?\n")
_TAIL = b"\x00\x00\xff\xff"  # RFC 7692 §7.2.1: the sender removes these bytes


@frozen
class HeadPiece:
    """An HTTP start line, the headers and the empty line after the headers."""

    raw: bytes


@frozen
class BodyPiece:
    """A part of the body that follows the HTTP head of a refusal."""

    raw: bytes


@frozen
class FramePiece:
    """One frame, or the beginning of a frame. `header` is the number of bytes before the payload."""

    raw: bytes
    header: int

    @property
    def opcode(self) -> int:
        """The opcode of the frame (RFC 6455 §5.2)."""
        return self.raw[0] & 0x0F

    @property
    def is_control(self) -> bool:
        """Whether the frame is a close, ping or pong frame.

        Control frames may stand between the fragments of a message.
        """
        return self.opcode >= CLOSE

    @property
    def fin(self) -> bool:
        """Whether the frame is the last frame of its message."""
        return self.raw[0] & 0x80 != 0

    @property
    def compressed(self) -> bool:
        """Whether the frame begins a compressed message."""
        return self.raw[0] & 0x40 != 0

    @property
    def payload(self) -> bytes:
        """The unmasked payload of the frame."""
        return self._masked(self.raw[self.header :])

    def with_payload(self, payload: bytes) -> bytes:
        """Return the bytes of the frame with another unmasked payload of the same length."""
        return self.raw[: self.header] + self._masked(payload)

    def _masked(self, data: bytes) -> bytes:
        if len(self.raw) <= self.header or not self.raw[1] & 0x80 or not data:
            return data
        mask = self.raw[self.header - 4 : self.header] * (len(data) // 4 + 1)
        number = int.from_bytes(data, "big") ^ int.from_bytes(mask[: len(data)], "big")
        return number.to_bytes(len(data), "big")


Piece: TypeAlias = HeadPiece | BodyPiece | FramePiece


class Scanner:
    """A splitter that turns a byte stream into pieces. The concatenation of all pieces equals the stream."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._expects: type[Piece] = HeadPiece

    def feed(self, data: bytes) -> list[Piece]:
        """Add bytes. Return the pieces that these bytes complete."""
        self._rest += data
        pieces = []
        while (piece := self._next()) is not None:
            pieces.append(piece)
            del self._rest[: len(piece.raw)]
        return pieces

    def take_rest(self) -> Piece:
        """Return the incomplete last piece of the stream. Must be called at the end of the stream."""
        rest, header = bytes(self._rest), self._frame_header()
        self._rest.clear()
        if self._expects is FramePiece:
            return FramePiece(rest, len(rest) if header is None else header[0])
        return HeadPiece(rest) if self._expects is HeadPiece else BodyPiece(rest)

    def _next(self) -> Piece | None:
        if not self._rest:
            return None
        if self._expects is HeadPiece:
            return self._head()
        if self._expects is BodyPiece:
            return BodyPiece(bytes(self._rest))
        header = self._frame_header()
        if header is None or len(self._rest) < sum(header):
            return None
        return FramePiece(bytes(self._rest[: sum(header)]), header[0])

    def _head(self) -> HeadPiece | None:
        end = _HEAD_END.search(self._rest)
        if end is None:
            return None
        head = HeadPiece(bytes(self._rest[: end.end()]))
        status = head.raw.split(None, 2)[1] if head.raw.startswith(b"HTTP/") and b" " in head.raw else b"101"
        if status == b"101":
            self._expects = FramePiece  # for a request, too: early frames may follow a request at once
        elif not status.startswith(b"1"):
            self._expects = BodyPiece
        return head

    def _frame_header(self) -> tuple[int, int] | None:
        """Return the sizes of a frame's header and payload in bytes, or `None` for an incomplete header."""
        rest = self._rest
        if len(rest) < 2:
            return None
        size, extended = rest[1] & 0x7F, {126: 2, 127: 8}.get(rest[1] & 0x7F, 0)
        header = 2 + extended + (4 if rest[1] & 0x80 else 0)
        if extended:
            size = int.from_bytes(rest[2 : 2 + extended], "big")
        return None if len(rest) < header else (header, size)


class Inflater:
    """An inflater for the compressed messages of one direction of a connection.

    `limit` is the maximum size of a message in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._zlib = zlib.decompressobj(-15)  # the largest window also inflates data of smaller windows

    def inflate(self, data: bytes, *, whole: bool = True) -> bytes | None:
        """Return the message up to its first fault, or `None` when the message exceeds the limit.

        With `whole=False`, `data` is only the beginning of a message, because the stream ends there.
        """
        data = data + _TAIL if whole else data
        before = self._zlib.copy()
        try:
            inflated = self._zlib.decompress(data, self._limit + 1)
        except zlib.error:
            return _inflated_to_the_fault(before, data)
        if len(inflated) > self._limit:
            return None
        if self._zlib.eof:
            self._zlib = zlib.decompressobj(-15)
        return inflated


def _inflated_to_the_fault(inflater: zlib._Decompress, data: bytes) -> bytes:
    inflated, rest = bytearray(), iter(data)
    try:
        while True:
            inflated += inflater.decompress(bytes((next(rest),)), 1 << 16)
    except (zlib.error, StopIteration):
        return bytes(inflated)
