"""Frames: `FrameReader`, a fast reader in front of wsproto, and functions that build frames.

wsproto, which takes ten times as long for a frame, handles close frames, large fragments and errors. The
`FrameReader` owns the received bytes. At each frame border, the reader either reads the next frame itself, or
passes exactly the bytes of that frame to wsproto. Therefore, the reader and wsproto are always at the same
frame border, and each byte is parsed once. The `FrameReader` reads

- a message in a single frame, if wsproto would return exactly that message now. Such a frame has FIN, no
  reserved bit, the mask bit of the peer's role, and a length in its shortest form and within the limit. The
  frame is complete and not inside another message, and text is valid UTF-8. A short server frame that is
  valid so far is kept until its end arrives, because most reads end in the middle of a frame.
- a complete ping or pong, even between fragments: wsproto keeps no state for pings and pongs.
- a complete, valid message of small fragments. Other consecutive small fragments are joined into one frame
  for wsproto, which does not change the message (RFC 6455 §5.4: fragment borders carry no meaning). Fragments
  are joined up to the size limit only, so wsproto finds the same fault as in the separate fragments.
- with permessage-deflate, also compressed messages in a single frame. A message can be inflated only once,
  and some faults are detected only then. The `FrameReader` itself reports such faults, in `broken`.
"""

from __future__ import annotations

import codecs
import struct
from typing import TYPE_CHECKING

from wsproto.frame_protocol import CloseReason

from presence_proto.websocket.deflate import deflate

if TYPE_CHECKING:
    from presence_proto.websocket.deflate import Deflate

TEXT, BINARY = 0x81, 0x82  # first bytes of frames: FIN, no reserved bits, the opcode
_FIN, _RSV1, _CONTROL, _OPCODE = 0x80, 0x40, 0x08, 0x0F
_PLAIN = (TEXT, BINARY)
_PLAIN_OR_DEFLATED = (TEXT, BINARY, TEXT | _RSV1, BINARY | _RSV1)
_MIDDLE_TEXT = TEXT << 8 | 126  # header of an unmasked text frame with a two-byte length
_TEXT_START, _BINARY_START = 0x01, 0x02  # first byte of a message's first fragment
_MIDDLE, _END = 0x00, 0x80  # first bytes of the other fragments
_PING, PONG = 0x89, 0x8A
_MAX_HEADER = 10  # bytes, without the mask
_SMALL = 125  # bytes; larger fragments are not joined
_MOST_FRAGMENTS = 64  # maximum number of fragments joined at once
_SOON = 4096  # bytes; the end of a frame up to this size probably arrives with the next read
_ENOUGH = 256  # maximum number of messages returned at once: their received bytes are in memory, too

_read_header = struct.Struct(">HH").unpack_from

MAX_MASKED = 1 << 14
"""Maximum size in bytes of a masked payload for which `xor` is faster than wsproto's masking."""


class FrameReader:
    """A buffer of received bytes, and the reader of the frames in the buffer.

    `data` has the bytes received so far. `masked` says whether the frames must be masked, like a client's
    frames. `limit` is the maximum size of a message in bytes. `deflate` inflates compressed messages. After a
    compressed message that could not be read, `broken` is the close code for the connection.
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
        self._at = 0  # offset of the first unread byte in `_data`
        self._mask_bit = 0x80 if masked else 0
        self._most = limit
        self._limit = min(limit, MAX_MASKED) if masked else limit
        self._at_border = True  # whether wsproto is between two messages, not inside a message or frame
        self._in_message = False  # whether wsproto is inside a fragmented message
        self._message_size = 0  # bytes of that message's fragments, including the fragment being passed on
        self._owed = 0  # bytes of the current frame still to be passed to wsproto
        self._header = b""  # the part of a header passed to wsproto, while the length is incomplete
        self._waits = False  # whether the next frame is kept until its end arrives
        self._eof = False
        self._deflate = deflate
        self._firsts = _PLAIN if deflate is None else _PLAIN_OR_DEFLATED
        self.broken: CloseReason | None = None
        self.is_empty = False
        """Whether this reader or wsproto has certainly read all received bytes without a fault."""

    def receive(self, data: bytes) -> None:
        """Add bytes from the peer to the buffer."""
        self.is_empty = False
        self._waits = False
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def receive_eof(self) -> None:
        """Report the end of the stream. After this call, wsproto gets the incomplete last frame."""
        self._waits, self._eof, self.is_empty = False, True, False

    def take(self) -> str | bytes | None:
        """Return the message in the next frame, or `None` if incomplete or not readable by this reader."""
        data, at = self._data, self._at
        available = len(data) - at
        if available < 2 or not self._at_border:
            return None
        first, size, start = data[at], data[at + 1] ^ self._mask_bit, at + 2
        if first not in self._firsts:
            return None
        if size > 125:
            # If bytes of the length are missing, `size` is wrong, but `start` is past the end of the data.
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
                return None  # the mask bit is wrong
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
            return self._inflated(payload, text=first & ~_RSV1 == TEXT)
        message: str | bytes = payload
        if first == TEXT:
            try:
                message = payload.decode()
            except UnicodeDecodeError:
                return None
        self._at = end
        return message

    def _is_worth_waiting(self, first: int, size: int, payload: bytes) -> bool:
        """Whether to keep an incomplete frame until its end arrives, instead of passing it to wsproto."""
        if size > _SOON or first & _RSV1 or self._mask_bit or self._eof:
            return False
        if first == TEXT:
            try:
                codecs.utf_8_decode(payload, "strict", False)  # the last character may be incomplete
            except UnicodeDecodeError:
                return False  # wsproto closes the connection without waiting for the end of the frame
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
        self._at_border = False  # read no message after this fault
        return None

    def take_all(self) -> list[str | bytes]:
        """Return the messages in the next frames, at most 256.

        The list ends before the first frame that is incomplete, or that wsproto must read.
        """
        messages: list[str | bytes] = []
        if self._at_border and not self._mask_bit:
            # A fast path for the most frequent frames: server text of 126 bytes to 64 KiB.
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
        while self._at < len(self._data):
            if len(messages) >= _ENOUGH or (message := self.take()) is None:
                return messages
            messages.append(message)
        if self._at_border:
            self._data, self._at = b"", 0  # an idle connection keeps no buffer
            self.is_empty = not self._eof
        return messages

    def take_small(self) -> tuple[bool, bytes] | str | bytes | None:
        """Return the next ping, pong or message of small fragments, or `None` if another frame comes next."""
        if self._at == len(self._data):
            return None
        control = self.take_control()
        return self.take_fragments() if control is None else control

    def take_control(self) -> tuple[bool, bytes] | None:
        """Return the next ping or pong as `(is_ping, payload)`.

        Return `None` if the next frame is incomplete or of another kind, or if wsproto must read this frame.
        """
        data, at = self._data, self._at
        if len(data) - at < 2 or self._owed or self._header:
            return None
        first, size = data[at], data[at + 1] ^ self._mask_bit
        if (first != _PING and first != PONG) or size > 125:
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
        """Return the next message if it is complete, valid and in small fragments, otherwise `None`."""
        data, at = self._data, self._at
        if len(data) - at < 2 or not self._at_border or data[at] not in (_TEXT_START, _BINARY_START):
            return None
        payloads, end, is_whole = self._small_fragments(at, self._most)
        if not is_whole:
            return None
        message: str | bytes = b"".join(payloads)
        if data[at] == _TEXT_START:
            try:
                message = str(message, "utf-8")  # type: ignore[arg-type]  # `message` is bytes here
            except UnicodeDecodeError:
                return None
        self._at = end
        return message

    def _small_fragments(self, at: int, most: int) -> tuple[list[bytes], int, bool]:
        """Return the payloads, at most `most` bytes, of the small fragments from offset `at` on.

        Also return the offset where the last of these fragments ends, and whether the message ends there.
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
        """Return the next small fragments as one frame for wsproto, or `b""` for fewer than two fragments."""
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
        return header(first, size, self._mask_bit) + mask + payload

    def hand_over(self) -> bytes:
        """Return the next bytes for wsproto, up to the end of a frame, or `b""` to wait for more data."""
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
                self._header = header  # wsproto gets the incomplete header, which may already contain a fault
            else:
                self._owed, self._header = size - len(self._header), b""
                if not header[0] & _CONTROL:
                    # `size` includes the header, which makes the limit for joined fragments slightly lower.
                    self._message_size = size + (self._message_size if self._in_message else 0)
                    self._in_message = header[0] < _FIN
        if self._owed:
            end = min(end, at + self._owed)
            self._owed -= end - at
        self._at = end
        self._at_border = not (self._owed or self._header or self._in_message)
        return data[at:end]


def _frame_size(header: bytes) -> int | None:
    """Return the size of the frame that begins with `header`; `None` while the length is incomplete."""
    if len(header) < 2:
        return None
    masked, size, start = header[1] >> 7, header[1] & 0x7F, 2
    if size > 125:
        start = 4 if size == 126 else 10
        if len(header) < start:
            return None
        size = int.from_bytes(header[2:start], "big")
    return start + 4 * masked + size


# ------------------------------------------------------------------------------------------------ writing


def server_frame(data: bytes, *, text: bool, deflate_bits: int | None = None) -> bytes:
    """Return a message as one unmasked frame, which fits all server connections with these `deflate_bits`.

    `data` must be valid UTF-8 if `text` is true. If `deflate_bits` is `None`, the frame is not compressed.
    """
    first = TEXT if text else BINARY
    if deflate_bits is not None:
        first, data = first | 0x40, deflate(data, deflate_bits)
    return header(first, len(data)) + data


def client_frame(first: int, data: bytes, mask: bytes) -> bytes:
    """Return a frame that is masked with the four bytes of `mask`, as all frames of a client are."""
    return b"".join((header(first, len(data), 0x80), mask, xor(data, mask)))


def header(first: int, size: int, mask_bit: int = 0) -> bytes:
    """Return the header of a frame with a payload of `size` bytes, without the mask (RFC 6455 §5.2)."""
    if size < 126:
        return bytes((first, mask_bit | size))
    if size < 1 << 16:
        return struct.pack("!BBH", first, mask_bit | 126, size)
    return struct.pack("!BBQ", first, mask_bit | 127, size)


def xor(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask `payload`. Masking and unmasking are the same operation (RFC 6455 §5.3)."""
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(payload, "little") ^ key).to_bytes(size, "little")
