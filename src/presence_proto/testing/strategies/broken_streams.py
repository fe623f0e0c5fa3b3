"""Streams that break the rules of WebSocket once, with the fault's name and the close code that is due."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen
from hypothesis import strategies as st

from presence_proto.testing.strategies.program import Program
from presence_proto.testing.strategies.streams import Heard, Saying, Speaker, masks, sayings
from presence_proto.testing.strategies.wire import Frame, Opcode

if TYPE_CHECKING:
    from presence_proto.testing.strategies.values import Role


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
