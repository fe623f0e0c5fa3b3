"""Strategies for valid WebSocket streams, and for streams with one named fault and its close code."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from enum import IntEnum
from typing import TypeAlias

from attrs import frozen
from hypothesis import strategies as st

from presence_proto.testing.strategies.values import Program, Role, texts

# ------------------------------------------------------------------------------------------------------ frame
# One WebSocket frame, encoded here: a test of a parser should not share code with the parser.


class Opcode(IntEnum):
    """Opcode of a WebSocket frame (RFC 6455, section 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"Opcode.{self.name}"


@frozen(repr=False)
class Frame(Program):
    """One WebSocket frame, valid or invalid. `rsv` has the three reserved bits as a number; RSV1 is 4.

    `payload` is the unmasked payload. `mask` has four bytes. `length` (two or eight bytes) replaces the
    length field with a wrong length, or with the right length in too many bytes.
    """

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    mask: bytes | None = None
    length: bytes | None = None

    @property
    def data(self) -> bytes:
        """The frame, encoded as bytes."""
        size, masked = len(self.payload), 0 if self.mask is None else 0x80
        first = self.fin << 7 | self.rsv << 4 | self.opcode
        if self.length is not None:
            header = bytes((first, masked | (126 if len(self.length) == 2 else 127))) + self.length
        elif size < 126:
            header = bytes((first, masked | size))
        elif size < 1 << 16:
            header = struct.pack("!BBH", first, masked | 126, size)
        else:
            header = struct.pack("!BBQ", first, masked | 127, size)
        return header + (self.payload if self.mask is None else self.mask + xor(self.payload, self.mask))


def xor(data: bytes, mask: bytes) -> bytes:
    """Return `data`, masked or unmasked with `mask`."""
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


# ---------------------------------------------------------------------------------------------------- streams
# The valid bytes that one side sends after the upgrade, and the messages that they contain.


@frozen(repr=False)
class Text(Program):
    """A complete text message."""

    data: str


@frozen(repr=False)
class Binary(Program):
    """A complete binary message."""

    data: bytes


@frozen(repr=False)
class Ping(Program):
    """A ping frame."""

    payload: bytes


@frozen(repr=False)
class Pong(Program):
    """A pong frame."""

    payload: bytes


@frozen(repr=False)
class Close(Program):
    """A close frame. Code 1005 stands for a frame without a code."""

    code: int
    reason: str


Heard: TypeAlias = Text | Binary | Ping | Pong | Close


@frozen(repr=False)
class WebSocketStream(Program):
    """The frames that `role` sends, and the messages and control frames (`heard`) that they contain.

    `deflate` is true if permessage-deflate was negotiated.
    """

    role: Role
    frames: tuple[Frame, ...]
    heard: tuple[Heard, ...]
    deflate: bool = False

    @property
    def data(self) -> bytes:
        """The bytes of all frames, concatenated."""
        return b"".join(frame.data for frame in self.frames)

    @property
    def messages(self) -> tuple[str | bytes, ...]:
        """The contents of the text and binary messages, without control frames."""
        return tuple(one.data for one in self.heard if isinstance(one, Text | Binary))


def websocket_streams(
    role: Role = "server",
    *,
    deflate: bool = False,
    context_takeover: bool = True,
    max_messages: int = 5,
    max_size: int = 70_000,
    closing: bool = True,
) -> st.SearchStrategy[WebSocketStream]:
    """Valid streams sent by `role`, with fragments, control frames, masks and all encodings of lengths.

    With `deflate`, messages may be compressed, each message separately unless `context_takeover`. A stream
    has at most `max_messages` messages and control frames, besides control frames between fragments. A
    message has at most `max_size` bytes. With `closing`, a close frame may follow.
    """
    said = st.lists(sayings(role, max_size, deflate=deflate), max_size=max_messages)
    last = st.builds(Saying, closes(), masks(role))
    return _streams(role, deflate, context_takeover, said, st.none() | last if closing else st.none())


@st.composite
def _streams(
    draw: st.DrawFn,
    role: Role,
    deflate: bool,
    context_takeover: bool,
    said: st.SearchStrategy[list[Saying]],
    last: st.SearchStrategy[Saying | None],
) -> WebSocketStream:
    speaker = Speaker(role, deflate=deflate, context_takeover=context_takeover)
    for saying in draw(said):
        speaker.say(saying)
    closing = draw(last)
    if closing is not None:
        speaker.say(closing)
    return WebSocketStream(role, tuple(speaker.frames), tuple(speaker.heard), deflate)


# ---------------------------------------------------------------------------------------------- messages

# Bytes: the sizes at which the form of the length field changes, and some others.
_LENGTHS = (125, 126, 127, 300, 65_535, 65_536, 70_000)


def _messages(max_size: int) -> list[st.SearchStrategy[Text | Binary]]:
    """Messages of at most `max_size` bytes. Long messages are repetitions, so that their repr is short."""
    lengths = [length for length in _LENGTHS if length <= max_size]
    text, data = [texts(max_size=min(20, max_size // 4))], [st.binary(max_size=min(20, max_size))]
    if lengths:
        sizes, any_size = st.sampled_from(lengths), st.integers(lengths[0], max_size)
        text.append(sizes.map(lambda size: "a" * size))
        text.append(any_size.map(lambda size: "é " * (size // 3)))
        data.append(sizes.map(lambda size: b"a" * size))
        data.append(any_size.map(lambda size: b"ab" * (size // 2)))
    return [*(st.builds(Text, one) for one in text), *(st.builds(Binary, one) for one in data)]


def controls() -> st.SearchStrategy[Ping | Pong]:
    """Pings and pongs of up to 125 bytes."""
    payloads = st.binary(max_size=8) | st.sampled_from([124, 125]).map(lambda size: b"x" * size)
    return st.builds(Ping, payloads) | st.builds(Pong, payloads)


def closes() -> st.SearchStrategy[Close]:
    """Close frames with a code that may be sent, or without a code."""
    # 1014 (bad gateway) is left out: implementations differ, and wsproto refuses it.
    codes = st.sampled_from([1000, 1001, 1002, 1003, *range(1007, 1014), 3000, 3999, 4000, 4999])
    return st.builds(Close, codes, texts() | st.just("é" * 61)) | st.just(Close(1005, ""))


def masks(role: Role) -> st.SearchStrategy[bytes]:
    """Masks of four bytes. A server's mask is a constant that only the fault "wrong masking" uses."""
    return st.binary(min_size=4, max_size=4) if role == "client" else st.just(b"mask")


@frozen
class Saying:
    """One message or control frame, and the options of its encoding.

    A message is compressed if `deflated` is true and compression was negotiated. The message is fragmented at
    `cuts`, with a control frame after some of the fragments.
    """

    said: Heard
    mask: bytes
    deflated: bool = False
    cuts: tuple[tuple[int, Ping | Pong | None], ...] = ()


def sayings(role: Role, max_size: int, *, deflate: bool) -> st.SearchStrategy[Saying]:
    """Messages of at most `max_size` bytes and control frames, each with random encoding options."""
    # Each example needs few draws: Hypothesis deletes at most five draws at a time when it shrinks.
    mask, deflated = masks(role), st.booleans() if deflate else st.just(False)
    cuts = st.lists(st.tuples(st.integers(0, 70_000), st.none() | controls()), max_size=4).map(tuple)
    return st.one_of(
        *[st.builds(Saying, message, mask, deflated, cuts) for message in _messages(max_size)],
        st.builds(Saying, controls(), mask),
    )


class Speaker:
    """Encoder of messages and control frames as the WebSocket frames of one `role`."""

    def __init__(self, role: Role, *, deflate: bool = False, context_takeover: bool = True) -> None:
        self.frames: list[Frame] = []
        self.heard: list[Heard] = []
        self._masked = role == "client"
        self._deflate = deflate
        self._context_takeover = context_takeover
        self._deflater: zlib._Compress | None = None
        self._mask = bytes(4)

    def say(self, saying: Saying) -> None:
        """Append a message or control frame to `frames`, and record its content in `heard`."""
        self._mask = saying.mask
        match saying.said:
            case Text(data):
                self._message(Opcode.TEXT, data.encode(), saying)
            case Binary(data):
                self._message(Opcode.BINARY, data, saying)
            case control:
                self._control(control)

    def frame(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        fin: bool = True,
        rsv: int = 0,
        well_masked: bool = True,
        length: bytes | None = None,
    ) -> None:
        """Append one frame. With `well_masked=False`, only a server's frame is masked."""
        mask = self._mask if self._masked is well_masked else None
        self._mask = self._mask[1:] + self._mask[:1]  # a different mask for each frame
        self.frames.append(Frame(opcode, payload, fin, rsv, mask, length))

    def _control(self, control: Ping | Pong | Close) -> None:
        match control:
            case Ping(payload):
                self.frame(Opcode.PING, payload)
            case Pong(payload):
                self.frame(Opcode.PONG, payload)
            case _:
                payload = struct.pack("!H", control.code) + control.reason.encode()
                self.frame(Opcode.CLOSE, b"" if control.code == 1005 else payload)
        self.heard.append(control)

    def _message(self, opcode: int, payload: bytes, saying: Saying) -> None:
        rsv = 0
        if self._deflate and saying.deflated:
            payload, rsv = self._deflated(payload), 4
        start = 0
        for end, between in sorted(
            ((cut % (len(payload) + 1), between) for cut, between in saying.cuts), key=lambda cut: cut[0]
        ):
            self.frame(opcode, payload[start:end], fin=False, rsv=rsv)
            opcode, rsv, start = Opcode.CONTINUATION, 0, end
            if between is not None:
                self._control(between)
        self.frame(opcode, payload[start:], rsv=rsv)
        self.heard.append(saying.said)

    def _deflated(self, payload: bytes) -> bytes:
        """Compress a payload and remove the last four bytes, as RFC 7692, section 7.2.1 requires."""
        deflater = self._deflater or zlib.compressobj(wbits=-15)
        self._deflater = deflater if self._context_takeover else None
        return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


# --------------------------------------------------------------------------------------------- broken streams


@frozen(repr=False)
class BrokenWebSocketStream(Program):
    """The frames that `role` sends: valid frames, then one invalid frame or message.

    `fault` is the name of the fault. The receiver must report `heard`, close the connection with `code`, and
    ignore all bytes after the fault. `deflate` is true if permessage-deflate was negotiated.
    """

    fault: str
    code: int
    role: Role
    frames: tuple[Frame, ...]
    heard: tuple[Heard, ...]
    deflate: bool = False

    @property
    def data(self) -> bytes:
        """The bytes of all frames, concatenated."""
        return b"".join(frame.data for frame in self.frames)


def broken_websocket_streams(
    role: Role = "server", *, deflate: bool = False, max_size: int | None = None
) -> st.SearchStrategy[BrokenWebSocketStream]:
    """Streams of `role` with one invalid opcode, reserved bit, mask, length, fragment, close frame or text.

    With `deflate`, permessage-deflate was negotiated, and the fault may be invalid compressed data.
    `max_size` limits valid messages, in bytes. If `max_size` is given, the fault may be a message above this
    limit.
    """
    faults = [*_FAULTS, *_DEFLATE_FAULTS] if deflate else _FAULTS
    if max_size is not None:
        faults = [*faults, *_SIZE_FAULTS]
    good = sayings(role, 300 if max_size is None else min(max_size, 300), deflate=deflate)
    return _broken(role, deflate, max_size or 0, st.sampled_from(faults), good)


@st.composite
def _broken(
    draw: st.DrawFn,
    role: Role,
    deflate: bool,
    max_size: int,
    faults: st.SearchStrategy[tuple[str, int, Fault]],
    good: st.SearchStrategy[Saying],
) -> BrokenWebSocketStream:
    name, code, break_ = draw(faults)
    speaker = Breaker(draw, role, deflate=deflate, max_size=max_size)
    for one in draw(st.lists(good, max_size=3)):
        speaker.say(one)
    heard = tuple(speaker.heard)
    break_(speaker)
    for one in draw(st.lists(good, max_size=1)):
        speaker.say(one)
    return BrokenWebSocketStream(name, code, role, tuple(speaker.frames), heard, deflate)


# ---------------------------------------------------------------------------------------------- the faults


class Breaker(Speaker):
    """`Speaker` that can also send invalid frames. `draw` selects the details of the frames."""

    def __init__(self, draw: st.DrawFn, role: Role, *, deflate: bool, max_size: int) -> None:
        super().__init__(role, deflate=deflate)
        self.draw = draw
        self._mask = draw(masks(role))
        self.uses_deflate = deflate
        self.max_size = max_size

    def between(self) -> None:
        """At random, begin a fragmented message, so that the next frame is between its fragments."""
        if self.draw(st.booleans()):
            self.frame(Opcode.TEXT, fin=False)


Fault: TypeAlias = Callable[[Breaker], None]

_CONTROL = st.sampled_from([Opcode.PING, Opcode.PONG, Opcode.CLOSE])
_DATA = st.sampled_from([Opcode.TEXT, Opcode.BINARY])
_NOT_UTF_8 = st.sampled_from(
    [
        b"\xff",
        b"\xe2\x82",  # truncated sequence
        b"\xc0\x80",  # overlong encoding of U+0000
        b"\xed\xa0\x80",  # surrogate
        b"\xf4\x90\x80\x80",  # above U+10FFFF
    ]
)


def _reserved_opcode(speaker: Breaker) -> None:
    speaker.between()
    speaker.frame(speaker.draw(st.sampled_from([*range(3, 8), *range(11, 16)])))


def _reserved_bits(speaker: Breaker) -> None:
    opcode = speaker.draw(_DATA | _CONTROL | st.just(Opcode.CONTINUATION))
    if opcode is Opcode.CONTINUATION:
        speaker.frame(Opcode.TEXT, fin=False)
    # RSV1 alone is valid: it marks a compressed message.
    may_be_compressed = speaker.uses_deflate and opcode in (Opcode.TEXT, Opcode.BINARY)
    bits = [1, 2, 3, 5, 6, 7] if may_be_compressed else range(1, 8)
    speaker.frame(opcode, rsv=speaker.draw(st.sampled_from(bits)))


def _wrong_masking(speaker: Breaker) -> None:
    speaker.frame(speaker.draw(_DATA | _CONTROL), well_masked=False)


def _fragmented_control_frame(speaker: Breaker) -> None:
    speaker.between()
    speaker.frame(speaker.draw(_CONTROL), fin=False)


def _oversize_control_frame(speaker: Breaker) -> None:
    speaker.between()
    size = speaker.draw(st.sampled_from([126, 127, 1 << 16]))
    speaker.frame(speaker.draw(_CONTROL), struct.pack("!H", 1000) + b"x" * (size - 2))


def _continuation_of_nothing(speaker: Breaker) -> None:
    speaker.frame(Opcode.CONTINUATION, fin=speaker.draw(st.booleans()))


def _message_inside_a_message(speaker: Breaker) -> None:
    speaker.frame(speaker.draw(_DATA), fin=False)
    speaker.frame(speaker.draw(_DATA), fin=speaker.draw(st.booleans()))


def _length_in_too_many_bytes(speaker: Breaker) -> None:
    speaker.between()
    size, width = speaker.draw(st.sampled_from([(0, 2), (0, 8), (125, 2), (125, 8), (126, 8)]))
    speaker.frame(speaker.draw(_DATA), b"x" * size, length=size.to_bytes(width, "big"))


def _length_of_64_bits(speaker: Breaker) -> None:
    """Set the most significant bit of a 64-bit length, which RFC 6455, section 5.2 forbids."""
    speaker.between()
    speaker.frame(speaker.draw(_DATA), length=b"\x80" + bytes(7))


def _text_that_is_not_utf_8(speaker: Breaker) -> None:
    payload = speaker.draw(st.sampled_from(["", "é"])).encode() + speaker.draw(_NOT_UTF_8)
    if speaker.draw(st.booleans()):
        cut = speaker.draw(st.integers(0, len(payload)))
        speaker.frame(Opcode.TEXT, payload[:cut], fin=False)
        speaker.frame(Opcode.CONTINUATION, payload[cut:])
    else:
        speaker.frame(Opcode.TEXT, payload)


def _close_code_that_may_not_be_sent(speaker: Breaker) -> None:
    speaker.between()
    code = speaker.draw(st.sampled_from([0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535]))
    speaker.frame(Opcode.CLOSE, struct.pack("!H", code))


def _close_of_one_byte(speaker: Breaker) -> None:
    speaker.between()
    speaker.frame(Opcode.CLOSE, b"\x03")


def _close_reason_that_is_not_utf_8(speaker: Breaker) -> None:
    speaker.between()
    speaker.frame(Opcode.CLOSE, struct.pack("!H", 1000) + speaker.draw(_NOT_UTF_8))


def _bad_deflate(speaker: Breaker) -> None:
    """Send a block of the reserved type 3 (RFC 1951, section 3.2.3), with or without the final bit."""
    speaker.frame(speaker.draw(_DATA), speaker.draw(st.sampled_from([b"\x07", b"\x06"])), rsv=4)


def _too_large(speaker: Breaker) -> None:
    fits = speaker.draw(st.integers(0, speaker.max_size))
    if fits:
        speaker.frame(Opcode.BINARY, b"x" * fits, fin=False)
    opcode = Opcode.CONTINUATION if fits else Opcode.BINARY
    speaker.frame(opcode, b"x" * (speaker.max_size + 1 - fits))


_FAULTS: list[tuple[str, int, Fault]] = [
    ("reserved opcode", 1002, _reserved_opcode),
    ("reserved bits", 1002, _reserved_bits),
    ("wrong masking", 1002, _wrong_masking),
    ("fragmented control frame", 1002, _fragmented_control_frame),
    ("oversize control frame", 1002, _oversize_control_frame),
    ("continuation of nothing", 1002, _continuation_of_nothing),
    ("message inside a message", 1002, _message_inside_a_message),
    ("length in too many bytes", 1002, _length_in_too_many_bytes),
    ("length of 64 bits", 1002, _length_of_64_bits),
    ("text that is not UTF-8", 1007, _text_that_is_not_utf_8),
    ("close code that may not be sent", 1002, _close_code_that_may_not_be_sent),
    ("close of one byte", 1002, _close_of_one_byte),
    ("close reason that is not UTF-8", 1007, _close_reason_that_is_not_utf_8),
]
_DEFLATE_FAULTS: list[tuple[str, int, Fault]] = [("data that cannot be inflated", 1007, _bad_deflate)]
_SIZE_FAULTS: list[tuple[str, int, Fault]] = [("message that is too large", 1009, _too_large)]

STREAM_FAULTS: dict[str, int] = {name: code for name, code, _ in [*_FAULTS, *_DEFLATE_FAULTS, *_SIZE_FAULTS]}
"""All possible values of `BrokenWebSocketStream.fault`, each with the required close code."""
