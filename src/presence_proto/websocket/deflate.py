"""The message size limit and permessage-deflate (RFC 7692), as extensions of wsproto's frame decoder.

This module replaces wsproto's `PerMessageDeflate`. That class inflates without a size limit, and no longer
treats a message as compressed after a ping between two fragments. Input from a peer can fail asserts of that
class, and unusual parameters raise `ValueError`.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

from presence_proto.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

OFFER = "permessage-deflate; client_max_window_bits"
"""The client's offer of permessage-deflate with any window size, with or without context takeover."""

# Bandit 1.11 and later closes the connection with code 1009 if a message inflates to more than 25 times its
# size and to more than about 30,000 bytes. Other servers may have lower limits, so the limits here are lower.
_LARGE = 16 * 1024  # bytes; smaller messages are compressed at any ratio
_MAX_RATIO = 20

_NO_BITS = RsvBits(False, False, False)
_RSV1 = RsvBits(True, False, False)
_TAIL = b"\x00\x00\xff\xff"  # RFC 7692 §7.2.1: the sender removes these bytes


class MessageLimit(Extension):
    """A wsproto extension that refuses a message of more than `limit` bytes when its frame header arrives.

    The extension is never negotiated.

    After a hook has returned a `CloseReason`, `fault` describes the error. `added` is the total number of
    bytes by which inflation has enlarged the received messages.
    """

    __slots__ = ("_control", "_frame_size", "_in_message", "_size", "_wire_limit", "added", "fault", "limit")

    name = "message-limit"

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._wire_limit = limit  # limit of a message's payload bytes before inflation
        self._size = 0  # bytes of the finished frames of the current message
        self._frame_size = 0
        self._in_message = False
        self._control = False
        self.added = 0
        self.fault = ""

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool | str:
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        # Do not add up sizes in this hook: wsproto calls the hook again for the same frame until the masking
        # key has arrived.
        self._control = opcode.iscontrol()
        if self._control:
            return _NO_BITS
        # wsproto also checks the order of fragments, but only after the extensions have seen the payload.
        if (opcode is Opcode.CONTINUATION) is not self._in_message:
            what = "a message inside another" if self._in_message else "a continuation of no message"
            return self._fail(CloseReason.PROTOCOL_ERROR, what)
        if self._size + payload_length > self._wire_limit:
            return self._too_big()
        self._frame_size = payload_length
        return _NO_BITS

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        if not self._control:
            self._in_message = not fin
            self._size = 0 if fin else self._size + self._frame_size
        return None

    def _fail(self, code: CloseReason, fault: str) -> CloseReason:
        self.fault = fault
        return code

    def _too_big(self) -> CloseReason:
        return self._fail(CloseReason.MESSAGE_TOO_BIG, f"a message of more than {self.limit} bytes")


class Deflate(MessageLimit):
    """The negotiated permessage-deflate extension, for clients and servers. The limit counts inflated bytes.

    `inflate_bits` and `deflate_bits`, 9 to 15, are the window sizes of received and of sent messages.
    `keep_inflating` and `keep_deflating` say whether the context is kept for the next message.
    """

    __slots__ = (
        "_compressed",
        "_deflater",
        "_held",
        "_inflate_bits",
        "_inflated",
        "_inflater",
        "_keep_deflating",
        "_keep_inflating",
        "deflate_bits",
    )

    name = "permessage-deflate"

    def __init__(
        self,
        limit: int,
        *,
        inflate_bits: int = 15,
        deflate_bits: int = 15,
        keep_inflating: bool = True,
        keep_deflating: bool = True,
    ) -> None:
        super().__init__(limit)
        self._inflate_bits = inflate_bits
        self.deflate_bits = deflate_bits
        self._keep_inflating = keep_inflating
        self._keep_deflating = keep_deflating
        self._inflater: zlib._Decompress | None = None
        self._deflater: zlib._Compress | None = None
        self._compressed = False  # whether the current message is compressed
        self._inflated = 0  # inflated bytes of the current message
        self._held = bytearray()  # received bytes of the current frame

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        starts = opcode in (Opcode.TEXT, Opcode.BINARY)
        if starts and not self._in_message:
            self._compressed = rsv.rsv1
            # Deflated data may be longer than the original, above all in small fragments. The memory needs
            # this limit because each frame is kept until its end arrives.
            self._wire_limit = 2 * self.limit + 1024 if rsv.rsv1 else self.limit
        result = super().frame_inbound_header(proto, opcode, rsv, payload_length)
        return _RSV1 if starts and isinstance(result, RsvBits) else result

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        if self._control or not self._compressed:
            return data
        # Inflate only complete frames, so that errors do not depend on how the network splits the bytes.
        self._held += data
        return b""

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        super().frame_inbound_complete(proto, fin)
        if self._control or not self._compressed:
            return None
        held, self._held = self._held, bytearray()
        return self._inflate(held + _TAIL if fin else held, fin)

    def inflate(self, payload: bytes) -> bytes | CloseReason:
        """Inflate a whole compressed message, only between messages. After an error, `fault` describes it."""
        return self._inflate(payload + _TAIL, True)

    def _inflate(self, data: bytes | bytearray, fin: bool) -> bytes | CloseReason:
        if self._inflater is None:
            self._inflater = zlib.decompressobj(-self._inflate_bits)
        inflater = self._inflater
        try:
            # One byte more than the limit: an additional byte shows an excess, and a bound of 0 would mean no
            # limit.
            inflated = inflater.decompress(data, self.limit - self._inflated + 1)
        except zlib.error:
            return self._fail(CloseReason.INVALID_FRAME_PAYLOAD_DATA, "data that cannot be inflated")
        self._inflated += len(inflated)
        self.added += max(0, len(inflated) - len(data))
        if self._inflated > self.limit:
            return self._too_big()
        # RFC 7692 §7.2.3.4: a message may end its DEFLATE stream. An empty block then follows, whose first
        # byte is sent and whose remaining bytes are _TAIL.
        if inflater.eof and len(inflater.unused_data) > 1 + len(_TAIL):
            return self._fail(
                CloseReason.INVALID_FRAME_PAYLOAD_DATA, "data after the end of what was deflated"
            )
        if fin:
            self._inflated = 0
            if inflater.eof or not self._keep_inflating:
                self._inflater = None
        return inflated

    def frame_outbound(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, data: bytes, fin: bool
    ) -> tuple[RsvBits, bytes]:
        if opcode.iscontrol():
            return rsv, data
        # Each call has a whole message, because every message is sent as one frame.
        if len(data) >= _LARGE:
            return self._large_outbound(rsv, data)
        if not self._keep_deflating:
            return _RSV1, deflate(data, self.deflate_bits)
        if self._deflater is None:
            self._deflater = zlib.compressobj(wbits=-self.deflate_bits)
        return _RSV1, _deflated(self._deflater, data)

    def _large_outbound(self, rsv: RsvBits, data: bytes) -> tuple[RsvBits, bytes]:
        """Deflate a large message, unless the server could mistake the result for a decompression bomb."""
        deflater = self._deflater if self._keep_deflating else None
        # Use a copy: only compressed messages may change the shared context (RFC 7692 §7.2.1).
        trial = zlib.compressobj(wbits=-self.deflate_bits) if deflater is None else deflater.copy()
        deflated = _deflated(trial, data)
        if len(data) > _MAX_RATIO * len(deflated):
            return rsv, data
        if self._keep_deflating:
            self._deflater = trial
        return _RSV1, deflated


def deflate(data: bytes, bits: int) -> bytes:
    """Deflate a message without context takeover, for a receiver with a window of `bits` bits, 9 to 15."""
    # The window need not be larger than the data plus the 262 bytes that zlib reserves in a window. Creating
    # a window of 32 KiB takes four times as long as deflating a small message.
    return _deflated(zlib.compressobj(wbits=-min(bits, max(9, (len(data) + 262).bit_length()))), data)


def _deflated(deflater: zlib._Compress, data: bytes) -> bytes:
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]


# ---------------------------------------------------------------------------------------------- negotiation

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NAME = re.compile(_TOKEN)
# RFC 6455 §9.1: a quoted value must be a token, too. Therefore, no value contains a comma or a semicolon.
_PARAM = re.compile(rf'({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|"({_TOKEN})"))?')
_Params = list[tuple[str, "str | None"]]


def is_token(text: str) -> bool:
    """Whether `text` is an HTTP token, as subprotocols and the names of headers and extensions must be."""
    return _NAME.fullmatch(text) is not None


def parse_extensions(header: str) -> Iterator[tuple[str, _Params]]:
    """Yield the name and parameters of each element of a `Sec-WebSocket-Extensions` header.

    Raises `RemoteProtocolError` if the header is malformed.
    """
    for element in header.split(","):
        if not element.strip(" \t"):
            continue
        name, *rest = (piece.strip(" \t") for piece in element.split(";"))
        params = [_PARAM.fullmatch(piece) for piece in rest]
        if not is_token(name) or None in params:
            raise RemoteProtocolError("malformed Sec-WebSocket-Extensions header")
        yield name, [(match[1], match[2] or match[3]) for match in params if match is not None]


def _check(params: _Params) -> dict[str, int | None]:
    """Return the checked parameters of permessage-deflate. Raises `RemoteProtocolError` if illegal."""
    checked: dict[str, int | None] = {}
    for name, value in params:
        if name in checked:
            raise RemoteProtocolError("permessage-deflate: a parameter is repeated")
        if name in ("client_no_context_takeover", "server_no_context_takeover"):
            legal = value is None
        elif name == "client_max_window_bits":
            legal = value is None or re.fullmatch("[89]|1[0-5]", value) is not None
        elif name == "server_max_window_bits":
            legal = value is not None and re.fullmatch("[89]|1[0-5]", value) is not None
        else:
            legal = False
        if not legal:
            raise RemoteProtocolError("permessage-deflate: a parameter is unknown or has an illegal value")
        checked[name] = None if value is None else int(value)
    return checked


def accept_offer(header: str, limit: int) -> tuple[str, Deflate] | None:
    """Accept the first usable offer of a client. Return the answer's header and the extension, or `None`.

    The server sends without context takeover, and announces `server_no_context_takeover` even if the client
    did not request it (RFC 7692 §7.1.1.1). Therefore, many clients can receive the same compressed frame, and
    a connection takes a sixth of the memory. `limit` is the maximum size of a message in bytes. Raises
    `RemoteProtocolError` if the header is malformed.
    """
    accepted = None
    for name, params in parse_extensions(header):
        if name != Deflate.name or accepted is not None:
            continue
        try:
            offer = _check(params)
        except RemoteProtocolError:
            continue  # RFC 7692 §7.1: decline an invalid offer
        bits = offer.get("server_max_window_bits") or 15
        if bits == 8:
            continue  # zlib cannot deflate with a window of 8 bits
        answer = [Deflate.name, "server_no_context_takeover"]
        if "client_no_context_takeover" in offer:
            answer.append("client_no_context_takeover")
        if "server_max_window_bits" in offer:
            answer.append(f"server_max_window_bits={bits}")
        accepted = (
            "; ".join(answer),
            Deflate(
                limit,
                deflate_bits=bits,
                keep_inflating="client_no_context_takeover" not in offer,
                keep_deflating=False,
            ),
        )
    return accepted


def follow_answer(header: str, limit: int, *, offered: bool) -> Deflate | None:
    """Return the client's extension for the server's answer, or `None` if the server chose no extension.

    `limit` is the maximum size of a message in bytes. `offered` says whether the client sent `OFFER`. Raises
    `RemoteProtocolError` if the answer was not offered, is malformed, or requires a window that zlib cannot
    use.
    """
    deflate = None
    for name, params in parse_extensions(header):
        if name != Deflate.name or not offered or deflate is not None:
            raise RemoteProtocolError("the server chose an extension that was not offered")
        answer = _check(params)
        bits = answer.get("client_max_window_bits", 15)
        if bits is None or bits == 8:
            raise RemoteProtocolError("permessage-deflate: client_max_window_bits must be from 9 to 15")
        deflate = Deflate(
            limit,
            inflate_bits=max(9, answer.get("server_max_window_bits") or 15),
            deflate_bits=bits,
            keep_inflating="server_no_context_takeover" not in answer,
            keep_deflating="client_no_context_takeover" not in answer,
        )
    return deflate
