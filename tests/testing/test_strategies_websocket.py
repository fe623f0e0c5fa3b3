"""WebSocket streams: what the strategies promise, the core in both roles, and bugs that shrink to little."""

from __future__ import annotations

import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.vendor.pretty import pretty

from examples import minimal, sample, times
from presence_proto.testing import strategies as ps
from presence_proto.testing.strategies import (
    STREAM_FAULTS,
    Binary,
    BrokenWebSocketStream,
    Close,
    Frame,
    Opcode,
    Ping,
    Pong,
    Text,
    WebSocketStream,
)
from presence_proto.websocket import Closed
from websocket_bytes import event_of, feed, frames_of, open_client, open_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_proto.websocket import WebSocket

ROLES = st.sampled_from(["server", "client"])


def opened(role: str, *, deflate: bool, limit: int = 1_000_000) -> WebSocket:
    """The other side of `role`."""
    return (open_client if role == "server" else open_server)(deflate=deflate, limit=limit)


# ---------------------------------------------------------------------------------------------- the core


@given(st.data(), ROLES, st.booleans())
def test_the_core_hears_what_is_said(data: st.DataObject, role: ps.Role, deflate: bool) -> None:
    stream = data.draw(ps.websocket_streams(role, deflate=deflate))
    chunks = data.draw(ps.chunkings(stream.data))
    assert feed(opened(role, deflate=deflate), *chunks) == [*map(event_of, stream.heard)]


@given(st.data(), ROLES, st.booleans())
def test_the_core_closes_with_the_code_that_is_due(data: st.DataObject, role: ps.Role, deflate: bool) -> None:
    stream = data.draw(ps.broken_websocket_streams(role, deflate=deflate, max_size=1000))
    chunks = data.draw(ps.chunkings(stream.data))
    websocket = opened(role, deflate=deflate, limit=1000)
    *heard, last = feed(websocket, *chunks)
    assert heard == [*map(event_of, stream.heard)]
    assert isinstance(last, Closed)
    assert (last.code, last.clean) == (stream.code, False)
    pongs = [(0x8A, one.payload) for one in stream.heard if isinstance(one, Ping)]
    *answers, (first, payload) = frames_of(websocket.data_to_send())
    assert answers == pongs
    assert (first, payload[:2]) == (0x88, stream.code.to_bytes(2, "big"))


@given(ps.websocket_streams("client", deflate=True, context_takeover=False))
def test_the_core_needs_no_context(stream: WebSocketStream) -> None:
    assert feed(open_server(deflate=True), stream.data) == [*map(event_of, stream.heard)]


# ---------------------------------------------------------------------------------------------- the promises


@given(st.data(), ROLES)
def test_a_plain_stream_can_be_read_naively(data: st.DataObject, role: ps.Role) -> None:
    stream = data.draw(ps.websocket_streams(role, max_messages=3, max_size=500, closing=False))
    assert not stream.deflate
    assert all((frame.mask is not None) is (role == "client") for frame in stream.frames)
    whole = b"".join(frame.payload for frame in stream.frames if frame.opcode < 8)
    messages = [one.encode() if isinstance(one, str) else one for one in stream.messages]
    assert whole == b"".join(messages)
    assert all(len(message) <= 500 for message in messages)
    assert [(one.opcode | 0x80, one.payload) for one in stream.frames if one.opcode >= 8] == [
        (0x89 if isinstance(one, Ping) else 0x8A, one.payload)
        for one in stream.heard
        if isinstance(one, Ping | Pong)
    ]
    assert frames_of(stream.data) == [
        (one.fin << 7 | one.rsv << 4 | one.opcode, one.payload) for one in stream.frames
    ]


@given(ps.websocket_streams(max_size=3))
def test_even_the_smallest_messages(stream: WebSocketStream) -> None:
    sizes = [len(one.encode() if isinstance(one, str) else one) for one in stream.messages]
    assert all(size <= 3 for size in sizes)


@given(ps.websocket_streams(deflate=True, context_takeover=False))
def test_without_context_each_message_can_be_inflated_alone(stream: WebSocketStream) -> None:
    data, compressed, messages = b"", False, []
    for frame in stream.frames:
        if frame.opcode < 8:
            compressed = frame.rsv == 4 if frame.opcode else compressed
            data += frame.payload
            if frame.fin:
                tail = b"\x00\x00\xff\xff"
                messages.append(zlib.decompressobj(-15).decompress(data + tail) if compressed else data)
                data = b""
    assert messages == [one.encode() if isinstance(one, str) else one for one in stream.messages]


@pytest.mark.long
def test_everything_occurs() -> None:
    streams = sample(ps.websocket_streams("client", deflate=True), 300)
    frames = [frame for stream in streams for frame in stream.frames]
    assert {Opcode(frame.opcode) for frame in frames} == set(Opcode)
    assert {frame.rsv for frame in frames} == {0, 4}
    assert any(len(frame.payload) == 125 for frame in frames)
    assert any(126 <= len(frame.payload) <= 65_535 for frame in frames)
    assert any(len(frame.payload) > 65_535 for frame in frames)
    assert len({frame.mask for frame in frames}) > 10
    assert any(Close(1005, "") in stream.heard for stream in streams)
    between = Counter(
        after.opcode
        for stream in streams
        for before, after in zip(stream.frames, stream.frames[1:], strict=False)
        if not before.fin
    )
    assert between.keys() == {Opcode.CONTINUATION, Opcode.PING, Opcode.PONG}


def test_every_fault_occurs_where_it_may() -> None:
    plain = Counter(stream.fault for stream in sample(ps.broken_websocket_streams(), 200))
    every = sample(ps.broken_websocket_streams("client", deflate=True, max_size=50), 300)
    assert plain.keys() == STREAM_FAULTS.keys() - {
        "data that cannot be inflated",
        "message that is too large",
    }
    assert {stream.fault: stream.code for stream in every} == STREAM_FAULTS
    assert all(
        len(one.data) <= 50 for stream in every for one in stream.heard if isinstance(one, Text | Binary)
    )


def test_a_frame_on_the_wire() -> None:
    assert Frame(Opcode.TEXT, b"hello").data == b"\x81\x05hello"
    assert Frame(Opcode.PING, b"", fin=False, rsv=5).data == b"\x59\x00"
    assert Frame(Opcode.TEXT, b"\x01\x02\x03\x04\x05", mask=b"\x01\x02\x03\x05").data == (
        b"\x81\x85\x01\x02\x03\x05\x00\x00\x00\x01\x04"
    )
    assert Frame(Opcode.BINARY, bytes(126)).data == b"\x82\x7e\x00\x7e" + bytes(126)
    assert Frame(Opcode.BINARY, bytes(65_536)).data == b"\x82\x7f" + bytes(5) + b"\x01\x00\x00" + bytes(
        65_536
    )
    assert Frame(Opcode.TEXT, b"", length=b"\x00\x00").data == b"\x81\x7e\x00\x00"
    assert Frame(3, b"", length=b"\x80" + bytes(7), mask=b"abcd").data == b"\x83\xff\x80" + bytes(7) + b"abcd"


# ---------------------------------------------------------------------------------------------- planted bugs


def naive(
    data: bytes, *, masked: bool, joins: bool = True, sixty_four: bool = True, remask: bool = True
) -> Any:
    """A reader of valid bytes without deflate. Each keyword that is false plants a bug."""
    messages: list[Any] = []
    pending, at, kind, first_mask = b"", 0, 0, None
    while at < len(data):
        first, size = data[at], data[at + 1] & 0x7F
        at += 2
        if size == 126 or (size == 127 and not sixty_four):
            size, at = int.from_bytes(data[at : at + 2], "big"), at + 2
        elif size == 127:
            size, at = int.from_bytes(data[at : at + 8], "big"), at + 8
        mask = bytes(4)
        if masked:
            mask, at = data[at : at + 4], at + 4
            first_mask = mask if remask else first_mask or mask
        payload, at = data[at : at + size], at + size
        key = first_mask if masked and first_mask else mask
        payload = bytes(byte ^ key[n % 4] for n, byte in enumerate(payload))
        if first & 0x0F < 8:
            kind = first & 0x0F or kind
            pending = pending + payload if joins else payload
            if first & 0x80:
                messages.append(pending.decode("utf-8", "replace") if kind == 1 else pending)
                pending = b""
    return tuple(messages)


@times(0.5)
@given(st.data(), ROLES)
def test_the_naive_reader_can_be_right(data: st.DataObject, role: ps.Role) -> None:
    stream = data.draw(ps.websocket_streams(role))
    assert naive(stream.data, masked=role == "client") == stream.messages


def hears(planted: str, role: ps.Role) -> Callable[[WebSocketStream], bool]:
    """Whether the reader with this bug hears something else."""
    return lambda stream: naive(stream.data, masked=role == "client", **{planted: False}) != stream.messages


def test_a_reader_that_forgets_fragments() -> None:
    example = minimal(ps.websocket_streams(), hears("joins", "server"))
    assert len(example.frames) == 2
    assert len(repr(example)) < 150, repr(example)
    assert "fin=False" in repr(example)


def test_a_reader_that_knows_no_long_lengths() -> None:
    example = minimal(ps.websocket_streams(), hears("sixty_four", "server"))
    assert repr(example) == (
        "WebSocketStream('server', (Frame(Opcode.TEXT, b'a' * 65536),), (Text('a' * 65536),))"
    )
    assert pretty(example) == (
        "WebSocketStream('server', (\n    Frame(Opcode.TEXT, b'a' * 65536),\n), (\n    Text('a' * 65536),\n))"
    )


def test_a_reader_that_keeps_the_first_mask() -> None:
    example = minimal(ps.websocket_streams("client"), hears("remask", "client"))
    assert len(example.frames) == 2
    assert len(repr(example)) < 250, repr(example)


def test_a_reader_that_minds_no_utf_8() -> None:
    def reads(stream: BrokenWebSocketStream) -> bool:
        return stream.fault == "text that is not UTF-8"

    example = minimal(ps.broken_websocket_streams(), reads)
    assert example == BrokenWebSocketStream(
        "text that is not UTF-8", 1007, "server", (Frame(Opcode.TEXT, b"\xff"),), ()
    )
    assert pretty(example) == repr(example).replace("(Frame", "(\n    Frame").replace("),), ()", "),\n), ()")
