"""The fast lane: whole plain messages, read without wsproto, which takes ten times as long for a frame.

wsproto stays the authority for all else: control frames, fragments, errors. The lane stands in front of it
and owns the bytes that came. At each frame border it either takes the next frame itself, or hands wsproto the
bytes of that frame, and not one more. So the two are always at a border together, and every byte is looked at
once.

The lane takes a frame only if wsproto would make one message of it, now: a text or binary frame with FIN, no
reserved bit, the mask bit of the peer's role, a length in its shortest form and within the limit, all bytes
there, valid UTF-8 if it is text, and not inside another message. Of a short frame from a server it waits for
the end, if there is nothing wrong up to there: most reads end in the middle of one.

With permessage-deflate it takes such frames that are compressed, too. What is inside shows when it is
inflated, and that can be done only once: so the lane finds the faults of those, in wsproto's stead.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from wsproto.frame_protocol import CloseReason

if TYPE_CHECKING:
    from presence_proto.deflate import Deflate

_TEXT, _BINARY = 0x81, 0x82  # the first byte of a frame: FIN, no reserved bits, the opcode
_FIN, _RSV1, _CONTROL = 0x80, 0x40, 0x08
_PLAIN = (_TEXT, _BINARY)
_PLAIN_OR_DEFLATED = (_TEXT, _BINARY, _TEXT | _RSV1, _BINARY | _RSV1)
_MIDDLE_TEXT = _TEXT << 8 | 126  # no mask, and a length of two bytes
_MAX_HEADER = 10  # without the mask
_SOON = 4096  # bytes of a frame up to which its end is waited for: the next read most likely has it
_ENOUGH = 256  # messages that are taken at once, and so held in memory as well as their bytes

_read_header = struct.Struct(">HH").unpack_from

MAX_MASKED = 1 << 14
"""Bytes of a masked payload up to which xor as one number is faster than what wsproto does."""


class FastLane:
    """The bytes that came and are not read yet.

    `limit` is the largest message in bytes; `masked`: frames must be, since they come from a client;
    `deflate`: what inflates compressed ones. `broken` is the reason for the connection to be closed, once a
    compressed message could not be read.
    """

    __slots__ = (
        "_at",
        "_at_border",
        "_data",
        "_deflate",
        "_eof",
        "_firsts",
        "_header",
        "_in_message",
        "_limit",
        "_mask_bit",
        "_owed",
        "_waits",
        "broken",
    )

    def __init__(self, data: bytes, *, masked: bool, limit: int, deflate: Deflate | None = None) -> None:
        self._data = data
        self._at = 0  # where the unread part of it begins
        self._mask_bit = 0x80 if masked else 0
        self._limit = min(limit, MAX_MASKED) if masked else limit
        self._at_border = True  # between frames, and between messages
        self._in_message = False  # between fragments
        self._owed = 0  # bytes that wsproto still has to get of the frame that it is in
        self._header = b""  # what wsproto got of a frame whose length is not all there yet
        self._waits = False  # for the end of the next frame, which is the lane's
        self._eof = False
        self._deflate = deflate
        self._firsts = _PLAIN if deflate is None else _PLAIN_OR_DEFLATED
        self.broken: CloseReason | None = None

    def receive(self, data: bytes) -> None:
        """Take in what came."""
        self._waits = False
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def receive_eof(self) -> None:
        """Nothing more comes: what waits for its end is wsproto's to judge."""
        self._waits, self._eof = False, True

    def take(self) -> str | bytes | None:
        """The message in the next frame; `None` when there is no frame, or it is wsproto's to judge."""
        data, at = self._data, self._at
        available = len(data) - at
        if available < 2 or not self._at_border:
            return None
        first, size, start = data[at], data[at + 1] ^ self._mask_bit, at + 2
        if first not in self._firsts:
            return None
        if size > 125:
            # Where the bytes of the length are cut off the end is, too.
            if size == 126:
                start += 2
                size = int.from_bytes(data[at + 2 : start], "big")
                if size < 126:
                    return None
            elif size == 127:
                start += 8
                size = int.from_bytes(data[at + 2 : start], "big")
                if size < 1 << 16:
                    return None
            else:
                return None  # the mask bit is not as it must be
        if self._mask_bit:
            start += 4
        end = start + size
        if size > self._limit:
            return None
        if end > len(data):
            self._waits = self._is_worth_waiting(first, size, data[start:])
            return None
        payload = data[start:end]
        if self._mask_bit:
            payload = xor(payload, data[start - 4 : start])
        if first & _RSV1:
            self._at = end
            return self._inflated(payload, text=first & ~_RSV1 == _TEXT)
        message: str | bytes = payload
        if first == _TEXT:
            try:
                message = payload.decode()
            except UnicodeDecodeError:
                return None
        self._at = end
        return message

    def _is_worth_waiting(self, first: int, size: int, payload: bytes) -> bool:
        """Whether the frame that is not all there is kept for its end. Else wsproto begins with it."""
        if size > _SOON or first & _RSV1 or self._mask_bit or self._eof:
            return False
        if first == _TEXT:
            try:
                payload.decode()
            except UnicodeDecodeError as exc:
                return exc.reason == "unexpected end of data"  # for all else wsproto ends it at once
        return True

    def _inflated(self, payload: bytes, *, text: bool) -> str | bytes | None:
        assert self._deflate is not None
        message = self._deflate.inflate(payload)
        if isinstance(message, CloseReason):
            self.broken = message
        elif not text:
            return message
        else:
            try:
                return message.decode()
            except UnicodeDecodeError:
                self.broken = CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._at_border = False  # nothing after it is read
        return None

    def take_all(self) -> list[str | bytes]:
        """The messages in the next frames, up to one that is wsproto's or not all there, or to enough."""
        messages: list[str | bytes] = []
        if self._at_border and not self._mask_bit:
            self._take_texts(messages)
        while len(messages) < _ENOUGH and (message := self.take()) is not None:
            messages.append(message)
        return messages

    def _take_texts(self, messages: list[str | bytes]) -> None:
        """As `take`, of those frames that most are: texts of middle size, from a server."""
        data, at, end, limit = self._data, self._at, len(self._data), self._limit
        for _ in range(_ENOUGH):
            if end - at < 5:
                break
            start = at + 4
            kind, size = _read_header(data, at)
            at = start + size
            if kind != _MIDDLE_TEXT or at > end or not 126 <= size <= limit:
                break
            try:
                messages.append(data[start:at].decode())
            except UnicodeDecodeError:
                break
            self._at = at

    def hand_over(self) -> bytes:
        """What wsproto is to read next: of one frame, and not past its end. `b""`: wait for more data."""
        data, at, end = self._data, self._at, len(self._data)
        if at == end:
            self._data, self._at = b"", 0  # an idle connection keeps no buffer
            return b""
        if self._waits:
            return b""
        if not self._owed:
            header = self._header + data[at : at + _MAX_HEADER - len(self._header)]
            size = _frame_size(header)
            if size is None:
                self._header = header  # wsproto gets what there is of it, and may find fault with that
            else:
                self._owed, self._header = size - len(self._header), b""
                if not header[0] & _CONTROL:
                    self._in_message = header[0] < _FIN
        if self._owed:
            end = min(end, at + self._owed)
            self._owed -= end - at
        self._at = end
        self._at_border = not (self._owed or self._header or self._in_message)
        return data[at:end]


def _frame_size(header: bytes) -> int | None:
    """How many bytes the frame has that begins with `header`; `None` while its length is not all there."""
    if len(header) < 2:
        return None
    masked, size, start = header[1] >> 7, header[1] & 0x7F, 2
    if size > 125:
        start = 4 if size == 126 else 10
        if len(header) < start:
            return None
        size = int.from_bytes(header[2:start], "big")
    return start + 4 * masked + size


def xor(payload: bytes, mask: bytes) -> bytes:
    """`payload` masked or unmasked, which is the same (RFC 6455 §5.3)."""
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(payload, "little") ^ key).to_bytes(size, "little")
