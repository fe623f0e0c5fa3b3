"""Streams that break the rules of WebSocket once, with the fault's name and the close code that is due."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from enum import IntEnum
from typing import TypeAlias

from attrs import frozen
from hypothesis import strategies as st

from presence_proto.testing.strategies.values import Program, Role, texts

# ------------------------------------------------------------------------------------------------------- wire
# One WebSocket frame, made by hand: what tests a parser should share no code with it.


class Opcode(IntEnum):
    """The opcodes that RFC 6455 gives a meaning."""

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
    """One frame, right or wrong. `rsv` is the three reserved bits as a number, RSV1 being 4.

    `payload` is what it carries before it is masked with the four bytes of `mask`. `length` is a field of two
    or eight bytes that says another length, or the right one in a form that is too long.
    """

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    mask: bytes | None = None
    length: bytes | None = None

    @property
    def data(self) -> bytes:
        """The frame as it is on the wire."""
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
    """`data` masked, or unmasked."""
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(len(data), "big")


# ---------------------------------------------------------------------------------------------------- streams
# What one side of a WebSocket says after the upgrade: valid bytes, and what they mean.


@frozen(repr=False)
class Text(Program):
    """A whole text message."""

    data: str


@frozen(repr=False)
class Binary(Program):
    """A whole binary message."""

    data: bytes


@frozen(repr=False)
class Ping(Program):
    """A ping."""

    payload: bytes


@frozen(repr=False)
class Pong(Program):
    """A pong."""

    payload: bytes


@frozen(repr=False)
class Close(Program):
    """A close frame; the code 1005 stands for one without a code."""

    code: int
    reason: str


Heard: TypeAlias = Text | Binary | Ping | Pong | Close


@frozen(repr=False)
class WebSocketStream(Program):
    """The frames of one side, `role`, and what the other side must `hear`, in this order.

    `deflate`: permessage-deflate was agreed on.
    """

    role: Role
    frames: tuple[Frame, ...]
    heard: tuple[Heard, ...]
    deflate: bool = False

    @property
    def data(self) -> bytes:
        """All the bytes."""
        return b"".join(frame.data for frame in self.frames)

    @property
    def messages(self) -> tuple[str | bytes, ...]:
        """The whole messages alone."""
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
    """Valid streams of `role`: fragments, control frames between them, masks, all forms of lengths.

    `deflate`: messages may be compressed; without `context_takeover` each by itself. At most `max_messages`
    messages and control frames, each message of at most `max_size` bytes. `closing`: a close frame may be the
    last one.
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


# ---------------------------------------------------------------------------------------------- what is said

# Where the form of the length changes, and a little more.
_LENGTHS = (125, 126, 127, 300, 65_535, 65_536, 70_000)


def _messages(max_size: int) -> list[st.SearchStrategy[Text | Binary]]:
    """Of at most `max_size` bytes. The long ones repeat themselves, so that they can be shown."""
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
    """Close frames, with a code that may be sent, or with none."""
    # 1014 (bad gateway) is left out: implementations differ, and wsproto refuses it.
    codes = st.sampled_from([1000, 1001, 1002, 1003, *range(1007, 1014), 3000, 3999, 4000, 4999])
    return st.builds(Close, codes, texts() | st.just("é" * 61)) | st.just(Close(1005, ""))


def masks(role: Role) -> st.SearchStrategy[bytes]:
    """Four bytes; a server draws none."""
    return st.binary(min_size=4, max_size=4) if role == "client" else st.just(b"mask")


@frozen
class Saying:
    """Something to be said, and how. All of it is drawn together, so that shrinking can drop it together.

    A message is compressed, if that was agreed on and `deflated` says so, and cut at `cuts`, with a control
    frame after some of the fragments.
    """

    said: Heard
    mask: bytes
    deflated: bool = False
    cuts: tuple[tuple[int, Ping | Pong | None], ...] = ()


def sayings(role: Role, max_size: int, *, deflate: bool) -> st.SearchStrategy[Saying]:
    """Messages of at most `max_size` bytes, and control frames."""
    # Few draws for each: Hypothesis drops five at a time, and not more.
    mask, deflated = masks(role), st.booleans() if deflate else st.just(False)
    cuts = st.lists(st.tuples(st.integers(0, 70_000), st.none() | controls()), max_size=4).map(tuple)
    return st.one_of(
        *[st.builds(Saying, message, mask, deflated, cuts) for message in _messages(max_size)],
        st.builds(Saying, controls(), mask),
    )


class Speaker:
    """Puts what is said into frames."""

    def __init__(self, role: Role, *, deflate: bool = False, context_takeover: bool = True) -> None:
        self.frames: list[Frame] = []
        self.heard: list[Heard] = []
        self._masked = role == "client"
        self._deflate = deflate
        self._context_takeover = context_takeover
        self._deflater: zlib._Compress | None = None
        self._mask = bytes(4)

    def say(self, saying: Saying) -> None:
        """It is said, and then heard."""
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
        """One frame, with or without a mask as it must be unless it is not `well_masked`."""
        mask = self._mask if self._masked is well_masked else None
        self._mask = self._mask[1:] + self._mask[:1]  # another one for each frame
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
        """RFC 7692: without the four bytes that every block which was flushed ends in."""
        deflater = self._deflater or zlib.compressobj(wbits=-15)
        self._deflater = deflater if self._context_takeover else None
        return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


# --------------------------------------------------------------------------------------------- broken streams


@frozen(repr=False)
class BrokenWebSocketStream(Program):
    """Frames of one side, `role`, that are good up to one, or to one message, that is not.

    `fault` says what is wrong, `code` is what the other side must close with, and `heard` what it must hear
    before. What comes after the fault it must ignore. `deflate`: permessage-deflate was agreed on.
    """

    fault: str
    code: int
    role: Role
    frames: tuple[Frame, ...]
    heard: tuple[Heard, ...]
    deflate: bool = False

    @property
    def data(self) -> bytes:
        """All the bytes."""
        return b"".join(frame.data for frame in self.frames)


def broken_websocket_streams(
    role: Role = "server", *, deflate: bool = False, max_size: int | None = None
) -> st.SearchStrategy[BrokenWebSocketStream]:
    """Streams of `role` with one fault: bad opcodes, bits, masks, lengths, fragments, close frames, text.

    `deflate`: permessage-deflate was agreed on, and data may be bad that is compressed. With `max_size`, in
    bytes, a message may also be larger than that; no good one is.
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
    """A speaker, and what its faults draw."""

    def __init__(self, draw: st.DrawFn, role: Role, *, deflate: bool, max_size: int) -> None:
        super().__init__(role, deflate=deflate)
        self.draw = draw
        self._mask = draw(masks(role))
        self.uses_deflate = deflate
        self.max_size = max_size

    def between(self) -> None:
        """Perhaps begin a message: what comes now is between its fragments."""
        if self.draw(st.booleans()):
            self.frame(Opcode.TEXT, fin=False)


Fault: TypeAlias = Callable[[Breaker], None]

_CONTROL = st.sampled_from([Opcode.PING, Opcode.PONG, Opcode.CLOSE])
_DATA = st.sampled_from([Opcode.TEXT, Opcode.BINARY])
_NOT_UTF_8 = st.sampled_from(
    [
        b"\xff",
        b"\xe2\x82",  # cut short
        b"\xc0\x80",  # longer than it must be
        b"\xed\xa0\x80",  # half of a surrogate pair
        b"\xf4\x90\x80\x80",  # past the last character
    ]
)


def _reserved_opcode(speaker: Breaker) -> None:
    speaker.between()
    speaker.frame(speaker.draw(st.sampled_from([*range(3, 8), *range(11, 16)])))


def _reserved_bits(speaker: Breaker) -> None:
    opcode = speaker.draw(_DATA | _CONTROL | st.just(Opcode.CONTINUATION))
    if opcode is Opcode.CONTINUATION:
        speaker.frame(Opcode.TEXT, fin=False)
    # RSV1 alone says that a message is compressed.
    may_be_compressed = speaker.uses_deflate and opcode in (Opcode.TEXT, Opcode.BINARY)
    bits = [1, 2, 3, 5, 6, 7] if may_be_compressed else range(1, 8)
    speaker.frame(opcode, rsv=speaker.draw(st.sampled_from(bits)))


def _wrong_masking(speaker: Breaker) -> None:
    """A client that does not mask, a server that does."""
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
    """The first bit of eight bytes must be 0."""
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
    """A block of a type that there is not: the last one, or not."""
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
"""Every `fault` of a `BrokenWebSocketStream`, and the close code that is due."""
