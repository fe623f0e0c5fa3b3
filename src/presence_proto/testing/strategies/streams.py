"""What one side of a WebSocket says after the upgrade: valid bytes, and what they mean."""

from __future__ import annotations

import struct
import zlib
from typing import TypeAlias

from attrs import frozen
from hypothesis import strategies as st

from presence_proto.testing.strategies.program import Program
from presence_proto.testing.strategies.values import Role, texts
from presence_proto.testing.strategies.wire import Frame, Opcode


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
