"""The fast lane: whole plain messages, pings, pongs and small fragments, read without wsproto.

wsproto takes ten times as long for a frame. It stays the authority for all else: close frames, large
fragments, errors. The lane stands in front of it and owns the bytes that came. At each frame border it either
takes the next frame itself, or hands wsproto the bytes of that frame, and not one more. So the two are always
at a border together, and every byte is looked at once.

The lane takes a frame only if wsproto would make one message of it, now: a text or binary frame with FIN, no
reserved bit, the mask bit of the peer's role, a length in its shortest form and within the limit, all bytes
there, valid UTF-8 if it is text, and not inside another message. Of a short frame from a server it waits for
the end, if there is nothing wrong up to there: most reads end in the middle of one.

It takes a ping or a pong that is all there, also inside a message: wsproto keeps no state of those.

It takes a message of small fragments that are all there, if the message is valid. Other small fragments in a
row become one frame for wsproto, which is the same message (RFC 6455 §5.4: fragments carry no meaning). They
are put together up to the size limit only, so wsproto finds the same fault as in the single ones.

With permessage-deflate it takes such frames that are compressed, too. What is inside shows when it is
inflated, and that can be done only once: so the lane finds the faults of those, in wsproto's stead.
"""

from __future__ import annotations

import codecs
import struct
from typing import TYPE_CHECKING

from wsproto.frame_protocol import CloseReason

if TYPE_CHECKING:
    from presence_proto.websocket.deflate import Deflate

_TEXT, _BINARY = 0x81, 0x82  # the first byte of a frame: FIN, no reserved bits, the opcode
_FIN, _RSV1, _CONTROL, _OPCODE = 0x80, 0x40, 0x08, 0x0F
_PLAIN = (_TEXT, _BINARY)
_PLAIN_OR_DEFLATED = (_TEXT, _BINARY, _TEXT | _RSV1, _BINARY | _RSV1)
_MIDDLE_TEXT = _TEXT << 8 | 126  # no mask, and a length of two bytes
_TEXT_START, _BINARY_START = 0x01, 0x02  # the first fragment of a message
_MIDDLE, _END = 0x00, 0x80  # the others
_PING, _PONG = 0x89, 0x8A
_MAX_HEADER = 10  # without the mask
_SMALL = 125  # bytes of a fragment that is put together with others
_MOST_FRAGMENTS = 64  # that are put together at once
_SOON = 4096  # bytes of a frame up to which its end is waited for: the next read most likely has it
_ENOUGH = 256  # messages that are taken at once, and so held in memory as well as their bytes

_read_header = struct.Struct(">HH").unpack_from

MAX_MASKED = 1 << 14
"""Bytes of a masked payload up to which xor as one number is faster than what wsproto does."""


class FrameReader:
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
        "_message_size",
        "_most",
        "_owed",
        "_waits",
        "broken",
        "is_empty",
    )

    def __init__(self, data: bytes, *, masked: bool, limit: int, deflate: Deflate | None = None) -> None:
        self._data = data
        self._at = 0  # where the unread part of it begins
        self._mask_bit = 0x80 if masked else 0
        self._most = limit
        self._limit = min(limit, MAX_MASKED) if masked else limit
        self._at_border = True  # between frames, and between messages
        self._in_message = False  # between fragments
        self._message_size = 0  # bytes of the fragments that wsproto has or is to get
        self._owed = 0  # bytes that wsproto still has to get of the frame that it is in
        self._header = b""  # what wsproto got of a frame whose length is not all there yet
        self._waits = False  # for the end of the next frame, which is the lane's
        self._eof = False
        self._deflate = deflate
        self._firsts = _PLAIN if deflate is None else _PLAIN_OR_DEFLATED
        self.broken: CloseReason | None = None
        self.is_empty = False
        """Whether nothing is left to read, by whomever, and nothing is wrong. When in doubt, `False`."""

    def receive(self, data: bytes) -> None:
        """Take in what came."""
        self.is_empty = False
        self._waits = False
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def receive_eof(self) -> None:
        """Nothing more comes: what waits for its end is wsproto's to judge."""
        self._waits, self._eof, self.is_empty = False, True, False

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
                codecs.utf_8_decode(payload, "strict", False)  # the last character may be cut off
            except UnicodeDecodeError:
                return False  # wsproto ends the connection at once
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
            # Those frames that most are: texts of middle size, from a server.
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
            if self._at == end:
                self._data, self._at = b"", 0  # an idle connection keeps no buffer
                self.is_empty = not self._eof
                return messages
        while len(messages) < _ENOUGH and (message := self.take()) is not None:
            messages.append(message)
        return messages

    def take_small(self) -> tuple[bool, bytes] | str | bytes | None:
        """A ping or pong, or a message of small fragments, if that comes next."""
        if self._at == len(self._data):
            return None
        control = self.take_control()
        return self.take_fragments() if control is None else control

    def take_control(self) -> tuple[bool, bytes] | None:
        """The control frame that comes next: whether it is a ping or a pong, and its payload.

        `None` when there is none, or it is wsproto's to judge.
        """
        data, at = self._data, self._at
        if len(data) - at < 2 or self._owed or self._header:
            return None
        first, size = data[at], data[at + 1] ^ self._mask_bit
        if (first != _PING and first != _PONG) or size > 125:
            return None
        start = at + 6 if self._mask_bit else at + 2
        end = start + size
        if end > len(data):
            return None
        payload = data[start:end]
        if self._mask_bit and size:
            payload = xor(payload, data[start - 4 : start])
        self._at = end
        return first == _PING, payload

    def take_fragments(self) -> str | bytes | None:
        """The message in the next frames, if they are small fragments of one, all there and valid."""
        data, at = self._data, self._at
        if len(data) - at < 2 or not self._at_border or data[at] not in (_TEXT_START, _BINARY_START):
            return None
        payloads, end, is_whole = self._small_fragments(at, self._most)
        if not is_whole:
            return None
        message: str | bytes = b"".join(payloads)
        if data[at] == _TEXT_START:
            try:
                message = str(message, "utf-8")  # type: ignore[arg-type]  # it is bytes here
            except UnicodeDecodeError:
                return None
        self._at = end
        return message

    def _small_fragments(self, at: int, most: int) -> tuple[list[bytes], int, bool]:
        """The payloads of the small fragments from `at` on, up to `most` bytes of them.

        Also where they end, and whether their message does.
        """
        data, mask_bit, end = self._data, self._mask_bit, len(self._data)
        payloads: list[bytes] = []
        while end - at >= 2 and len(payloads) < _MOST_FRAGMENTS:
            first, size = data[at], data[at + 1] ^ mask_bit
            start = at + 6 if mask_bit else at + 2
            if size > _SMALL or size > most or start + size > end:
                break
            if first not in (_MIDDLE, _END) and (payloads or self._in_message):
                break
            payload = data[start : start + size]
            if mask_bit and size:
                payload = xor(payload, data[start - 4 : start])
            payloads.append(payload)
            most -= size
            at = start + size
            if first == _END:
                return payloads, at, True
        return payloads, at, False

    def _put_together(self) -> bytes:
        """The next small fragments as one, for wsproto; `b""` when there are not several."""
        data, at = self._data, self._at
        if not self._in_message and data[at] not in (_TEXT_START, _BINARY_START):
            return b""
        most = self._most - (self._message_size if self._in_message else 0)
        payloads, end, is_whole = self._small_fragments(at, most)
        if len(payloads) < 2:
            return b""
        payload = b"".join(payloads)
        size = len(payload)
        self._message_size = self._most - most + size
        self._in_message = not is_whole
        self._at_border, self._at = is_whole, end
        first = data[at] & _OPCODE | (_FIN if is_whole else 0)
        mask = b"\0\0\0\0" if self._mask_bit else b""
        if size < 126:
            return bytes((first, self._mask_bit | size)) + mask + payload
        return struct.pack(">BBH", first, self._mask_bit | 126, size) + mask + payload

    def hand_over(self) -> bytes:
        """What wsproto is to read next: of one frame, and not past its end. `b""`: wait for more data."""
        data, at, end = self._data, self._at, len(self._data)
        if at == end:
            self._data, self._at = b"", 0  # an idle connection keeps no buffer
            return b""
        if self._waits:
            return b""
        if not self._owed:
            if not self._header and (fragments := self._put_together()):
                return fragments
            header = self._header + data[at : at + _MAX_HEADER - len(self._header)]
            size = _frame_size(header)
            if size is None:
                self._header = header  # wsproto gets what there is of it, and may find fault with that
            else:
                self._owed, self._header = size - len(self._header), b""
                if not header[0] & _CONTROL:
                    # The header counts, too: that makes the limit for what is put together a little lower.
                    self._message_size = size + (self._message_size if self._in_message else 0)
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
