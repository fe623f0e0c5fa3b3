"""`presence_proto.websocket.frames`: what it takes, and what it hands over. That nobody can tell is a
property of `WebSocket`, in `properties/test_websocket`.
"""

from __future__ import annotations

import gc
import tracemalloc
import zlib
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from wsproto.connection import Connection

from presence_proto.websocket import Closed, PingReceived, PongReceived, TextMessage
from presence_proto.websocket.deflate import Deflate
from presence_proto.websocket.frames import MAX_MASKED, FrameReader, xor
from websocket_bytes import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    TEXT,
    feed,
    frame,
    new_client,
    open_client,
    open_server,
    single_bytes,
    upgrade_response,
)
from websocket_bytes import xor as slow_xor

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 70_000


def reader(*data: bytes, masked: bool = False, limit: int = LIMIT) -> FrameReader:
    return FrameReader(b"".join(data), masked=masked, limit=limit)


def taken(reader: FrameReader) -> list[str | bytes]:
    found = []
    while (message := reader.take()) is not None:
        found.append(message)
    return found


def handed_over(reader: FrameReader) -> list[bytes]:
    found = []
    while piece := reader.hand_over():
        assert reader.take() is None, "the lane overtook wsproto"
        found.append(piece)
    return found


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 4000, 65_535, 65_536, LIMIT])
def test_plain_messages_are_taken(size: int, mask: bytes | None) -> None:
    if mask and size > MAX_MASKED:
        return
    text, data = "x" * size, bytes(size)
    messages = reader(
        frame(TEXT, text.encode(), mask=mask), frame(BINARY, data, mask=mask), masked=mask is not None
    )
    assert taken(messages) == [text, data]
    assert messages.hand_over() == b""


def test_text_is_unicode() -> None:
    assert taken(reader(frame(TEXT, "größe €𝄞".encode()))) == ["größe €𝄞"]


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"hi", fin=False),
        frame(CONTINUATION, b"hi"),
        frame(PING),
        frame(CLOSE),
        frame(3),
        frame(TEXT, b"hi", rsv=4),
        frame(BINARY, b"hi", rsv=2),
        frame(TEXT, b"hi", rsv=1),
        frame(TEXT, b"hi", mask=MASK),
        frame(TEXT, b"x" * 126, mask=MASK),
        frame(TEXT, b"x" * (1 << 16), mask=MASK),
        frame(TEXT, b"\xff"),
        frame(TEXT, b"ab\xe2\x82"),
        frame(TEXT, b"\xed\xa0\x80"),
        frame(TEXT, bytes(LIMIT + 1)),
    ],
)
def test_the_rest_is_handed_over_frame_by_frame(data: bytes) -> None:
    waiting = reader(data, data)
    for _ in range(2):
        assert waiting.take() is None
        assert waiting.hand_over() == data
    assert waiting.hand_over() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x7e\x00\x7d" + bytes(125),
        b"\x81\x7f" + (65_535).to_bytes(8, "big") + bytes(65_535),
        frame(TEXT, b"hi"),
        frame(TEXT, bytes(126)),
    ],
)
def test_a_length_must_be_in_its_shortest_form_and_a_client_masks(data: bytes) -> None:
    waiting = reader(data, masked=data in (frame(TEXT, b"hi"), frame(TEXT, bytes(126))))
    assert waiting.take() is None
    assert waiting.hand_over() == data


def test_a_length_that_cannot_be_is_left_to_wsproto() -> None:
    waiting = reader(b"\x81\x7f" + b"\xff" * 8 + b"x")
    assert waiting.take() is None
    assert waiting.hand_over() == b"\x81\x7f" + b"\xff" * 8 + b"x"


def test_long_masked_messages_are_not_worth_it() -> None:
    fits, long = (frame(BINARY, bytes(MAX_MASKED + more), mask=MASK) for more in (0, 1))
    waiting = reader(fits, long, masked=True)
    assert waiting.take() == bytes(MAX_MASKED)
    assert waiting.take() is None
    assert waiting.hand_over() == long


@pytest.mark.parametrize(
    ("size", "mask"), [(0, MASK), (125, MASK), (126, MASK), (4097, None), (65_536, None), (65_536, MASK)]
)
def test_wsproto_gets_what_is_cut_off_until_its_end(size: int, mask: bytes | None) -> None:
    data, plain = frame(TEXT, bytes(size), mask=mask), frame(TEXT, b"next", mask=mask)
    for cut in range(1, min(len(data), 20)):
        waiting = reader(data[:cut], masked=mask is not None)
        assert taken(waiting) == []
        assert handed_over(waiting) == [data[:cut]]
        waiting.receive(data[cut:] + plain)
        assert waiting.take() is None
        assert waiting.hand_over() == data[cut:]
        assert taken(waiting) == ["next"]


@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("size", [2, 124, 126, 4096])
def test_the_end_of_a_short_frame_of_a_server_is_waited_for(size: int, kind: int) -> None:
    payload = "é".encode() * (size // 2)
    data, header = frame(kind, payload), 2 if size < 126 else 4
    for cut in (header, header + 1, len(data) - 1):
        waiting = reader(data[:cut])
        for _ in range(2):
            assert waiting.take() is None
            assert waiting.hand_over() == b""
        waiting.receive(data[cut:] + frame(TEXT, b"next"))
        assert taken(waiting) == [payload.decode() if kind == TEXT else payload, "next"]


@pytest.mark.parametrize(
    ("text", "waits"), [(b"ok\xe2\x82", True), (b"ok\xff", False), (b"ok\xed\xa0\x80", False)]
)
def test_text_that_is_wrong_already_is_not_waited_for(text: bytes, waits: bool) -> None:
    cut = frame(TEXT, text + b" and more")[: 2 + len(text)]
    waiting = reader(cut)
    assert waiting.take() is None
    assert waiting.hand_over() == (b"" if waits else cut)


def test_the_end_of_a_compressed_frame_is_not_waited_for() -> None:
    cut = frame(TEXT, b"abc", rsv=4)[:-1]
    waiting = FrameReader(cut, masked=False, limit=LIMIT, deflate=Deflate(LIMIT, keep_inflating=False))
    assert waiting.take() is None
    assert waiting.hand_over() == cut


def test_at_the_end_of_the_stream_nothing_is_waited_for() -> None:
    cut = frame(TEXT, b"hello")[:-1]
    waiting = reader(cut)
    assert waiting.take() is None
    assert waiting.hand_over() == b""
    waiting.receive_eof()
    assert waiting.take() is None
    assert waiting.hand_over() == cut


def test_byte_by_byte_all_is_wsprotos() -> None:
    for data in (frame(TEXT, b"x" * 200), frame(PING, b"x", mask=MASK), frame(BINARY, bytes(65_536))):
        waiting = reader()
        for byte in single_bytes(data):
            waiting.receive(byte)
            assert waiting.take() is None
            assert handed_over(waiting) == [byte]
        waiting.receive(frame(TEXT, b"next"))
        assert waiting.take() == "next"


def test_what_looks_like_a_frame_inside_another_is_none() -> None:
    inner = frame(TEXT, b"x", mask=b"abcd")
    outer = frame(BINARY, inner * 3, mask=bytes(4))
    # of the next one the second byte and the mask could be a frame, too
    for data in (outer, frame(TEXT, b"x", mask=b"\x80abc")):
        for cut in range(1, len(data)):
            waiting = reader(data[:cut], masked=True)
            assert handed_over(waiting) == [data[:cut]]
            waiting.receive(data[cut:])
            assert waiting.take() is None
            assert waiting.hand_over() == data[cut:]


def test_between_fragments_no_message_is_taken() -> None:
    fragments = [
        frame(TEXT, b"a", fin=False),
        frame(CLOSE),
        frame(CONTINUATION, b"b", fin=False),
        frame(TEXT, b"a mistake"),
    ]
    waiting = reader(*fragments, frame(BINARY, b"next"))
    for piece in fragments:
        assert waiting.take() is None
        assert waiting.take_fragments() is None
        assert waiting.hand_over() == piece
    assert waiting.take() == b"next"


# ---------------------------------------------------------------------------------------------- controls


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 125])
@pytest.mark.parametrize(("opcode", "is_ping"), [(PING, True), (PONG, False)])
def test_pings_and_pongs_are_taken(opcode: int, is_ping: bool, payload: bytes, mask: bytes | None) -> None:
    waiting = reader(frame(opcode, payload, mask=mask) * 2, masked=mask is not None)
    assert waiting.take() is None
    assert [waiting.take_control() for _ in range(3)] == [(is_ping, payload), (is_ping, payload), None]
    assert waiting.hand_over() == b""


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"x"),
        frame(CLOSE),
        frame(11),
        frame(PING, b"x", rsv=1),
        frame(PING, b"x", fin=False),
        frame(PING, b"x", mask=MASK),
        frame(PING, bytes(126)),
        frame(PONG, b"pong")[:-1],
        frame(PONG, b"pong")[:1],
    ],
)
def test_other_control_frames_are_left(data: bytes) -> None:
    waiting = reader(data)
    assert waiting.take_control() is None
    assert waiting.take() is not None or waiting.hand_over() in (data, b"")


def test_a_ping_inside_a_message_is_taken_and_one_inside_a_frame_is_none() -> None:
    begun, ping = frame(TEXT, b"a", fin=False), frame(PING, b"?")
    waiting = reader(begun, ping, frame(BINARY, bytes(300))[:10])
    assert waiting.take_control() is None
    assert waiting.hand_over() == begun
    assert waiting.take_control() == (True, b"?")
    waiting.hand_over()
    waiting.receive(ping)
    assert waiting.take_control() is None


def test_a_thousand_pings_are_answered_without_wsproto() -> None:
    server = open_server()
    with mock.patch.object(Connection, "receive_data", side_effect=AssertionError("wsproto was asked")):
        found = feed(server, frame(PING, b"?", mask=MASK) * 1000 + frame(PONG, mask=MASK) * 1000)
    assert found == [PingReceived(b"?")] * 1000 + [PongReceived(b"")] * 1000
    assert server.data_to_send() == frame(PONG, b"?") * 1000


def test_a_ping_is_not_answered_after_our_close() -> None:
    server = open_server()
    server.close()
    server.data_to_send()
    assert feed(server, frame(PING, b"?", mask=MASK)) == [PingReceived(b"?")]
    assert server.data_to_send() == b""


# ---------------------------------------------------------------------------------------------- fragments


def fragments_of(*payloads: bytes, opcode: int = TEXT, mask: bytes | None = MASK, ends: bool = True) -> bytes:
    """A message, or the beginning of one, in fragments."""
    last = len(payloads) - 1
    return b"".join(
        frame(CONTINUATION if number else opcode, payload, fin=ends and number == last, mask=mask)
        for number, payload in enumerate(payloads)
    )


def test_a_message_of_small_fragments_is_taken() -> None:
    waiting = reader(
        fragments_of(b"\xe2", b"\x82", b"\xac"), fragments_of(b"a", b"b", opcode=BINARY), masked=True
    )
    assert [waiting.take_fragments() for _ in range(3)] == ["€", b"ab", None]
    assert waiting.hand_over() == b""


@pytest.mark.parametrize(
    "data",
    [
        fragments_of(b"a", b"b", ends=False),
        fragments_of(b"a", b"\xff"),
        fragments_of(b"a", bytes(126)),
        fragments_of(bytes(100), bytes(31)),
        fragments_of(b"a", b"b", mask=None),
        fragments_of(b"a") + frame(TEXT, b"b", mask=MASK),
        fragments_of(b"a", b"b")[:-1],
        frame(CONTINUATION, b"a", mask=MASK),
    ],
)
def test_other_fragments_are_left(data: bytes) -> None:
    waiting = reader(data, masked=True, limit=130)
    assert waiting.take_fragments() is None
    assert waiting.take_small() is None
    assert waiting.hand_over()


def test_small_fragments_become_one_frame_for_wsproto() -> None:
    waiting = reader(fragments_of(*[b"ab"] * 5, ends=False), masked=True)
    assert waiting.hand_over() == frame(TEXT, b"ab" * 5, fin=False, mask=bytes(4))
    waiting.receive(fragments_of(*[b"c" * 100] * 3, opcode=CONTINUATION))
    assert waiting.take_fragments() is None
    assert waiting.hand_over() == frame(CONTINUATION, b"c" * 300, mask=bytes(4))
    waiting.receive(frame(TEXT, b"next", mask=MASK))
    assert waiting.take() == "next"


def test_fragments_are_put_together_up_to_the_limit() -> None:
    waiting = reader(fragments_of(*[bytes(40)] * 5), masked=True, limit=130)
    assert waiting.hand_over() == frame(TEXT, bytes(120), fin=False, mask=bytes(4))
    assert waiting.hand_over() == frame(CONTINUATION, bytes(40), fin=False, mask=MASK), "wsproto refuses it"


def test_at_most_so_many_fragments_are_put_together() -> None:
    waiting = reader(fragments_of(*[b"x"] * 150, ends=False), masked=True)
    assert [len(waiting.hand_over()) - 6 for _ in range(3)] == [64, 64, 22]


def test_a_thousand_empty_fragments_are_a_few_looks_of_wsproto() -> None:
    server = open_server()
    with mock.patch.object(
        Connection, "receive_data", autospec=True, side_effect=Connection.receive_data
    ) as read:
        server.receive_data(fragments_of(*[b""] * 1000, ends=False))
        assert server.next_event() is None
    assert read.call_count == 16  # of 64


def test_who_reads_may_stop_between_fragments() -> None:
    server = open_server()
    server.receive_data(fragments_of(*[b"x"] * 1000))
    looks = 0
    while (event := server.next_event(1)) is None:
        looks += 1
        assert server.has_unread
    assert event == TextMessage("x" * 1000)
    assert looks == 15
    assert server.next_event() is None
    assert not server.has_unread


def test_data_that_came_before_the_rest_was_read() -> None:
    waiting = reader(frame(TEXT, b"1"), frame(TEXT, b"2")[:2])
    waiting.receive(b"2" + frame(TEXT, b"3"))
    assert waiting.take() == "1"
    waiting.receive(frame(TEXT, b"4"))
    assert taken(waiting) == ["2", "3", "4"]


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"x" * 200),
        frame(TEXT, b"x" * 126),
        frame(TEXT, b"x"),
        frame(TEXT, bytes(70_000)),
        frame(BINARY, bytes(200)),
        frame(TEXT, "ü".encode() * 100),
        frame(TEXT, b"\xff" * 200),
        frame(TEXT, b"x" * 200, mask=MASK),
        frame(TEXT, b"x" * 200, fin=False),
        frame(PING, b"x"),
        b"\x81\x7e\x00\x7d" + bytes(125),
        frame(TEXT, bytes(LIMIT + 1)),
        frame(TEXT, b"x" * 200)[:-1],
        frame(TEXT, b"x" * 200)[:4],
        frame(TEXT, b"x" * 200)[:2],
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_all_at_once_are_what_comes_one_by_one(data: bytes, masked: bool) -> None:
    plain = frame(TEXT, b"y" * 150, mask=MASK if masked else None)
    for parts in ((plain, data, plain), (data, plain), (plain, plain, data)):
        one_by_one, at_once = reader(*parts, masked=masked), reader(*parts, masked=masked)
        assert at_once.take_all() == taken(one_by_one)
        assert at_once.hand_over() == one_by_one.hand_over()


@pytest.mark.parametrize("size", [1, 200])
def test_not_more_are_taken_at_once_than_fit_in_memory_twice(size: int) -> None:
    waiting = reader(frame(TEXT, b"x" * size) * 1000)
    sizes = []
    while messages := waiting.take_all():
        sizes.append(len(messages))
    assert sizes == [256, 256, 256, 232]


def test_inside_a_message_none_are_taken() -> None:
    waiting = reader(frame(TEXT, b"a", fin=False), frame(TEXT, b"x" * 200))
    assert waiting.hand_over() == frame(TEXT, b"a", fin=False)
    assert waiting.take_all() == []


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 100])
def test_xor(size: int) -> None:
    payload = bytes(range(200, 200 + size // 2)) + bytes(size - size // 2)
    assert xor(payload, MASK) == slow_xor(payload, MASK)
    assert xor(xor(payload, MASK), MASK) == payload


# ---------------------------------------------------------------------------------------- in a WebSocket


def test_messages_that_came_with_the_upgrade() -> None:
    client = new_client()
    assert feed(client, upgrade_response() + frame(TEXT, b"1") + frame(PING))[1:2] == [TextMessage("1")]


def test_a_big_read_of_small_frames_is_not_copied_for_each() -> None:
    data = frame(TEXT, b"x") * 100_000
    client = open_client()
    client.receive_data(data)
    tracemalloc.start()
    try:
        for _ in range(1000):
            assert client.next_event() == TextMessage("x")
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_an_idle_connection_keeps_no_buffer() -> None:
    for websocket, mask in ((open_client(), None), (open_server(), MASK)):
        data = frame(TEXT, b"x" * 1000, mask=mask) * 60
        before = len(gc.get_referrers(data))
        assert len(feed(websocket, data)) == 60
        assert len(gc.get_referrers(data)) == before


def test_messages_at_once_and_events_one_by_one_are_in_order() -> None:
    client = open_client()
    assert client.take_messages() == []
    client.receive_data(
        frame(TEXT, b"1")
        + frame(BINARY, b"2")
        + frame(PING, b"3")
        + frame(TEXT, b"4")
        + frame(TEXT, b"5")[:2]
    )
    assert client.take_messages() == ["1", b"2"]
    assert client.take_messages() == []
    assert client.next_event() == PingReceived(b"3")
    assert client.take_messages() == ["4"]
    assert client.next_event() is None
    client.receive_data(b"5" + frame(TEXT, b"6"))
    assert client.next_event() == TextMessage("5")
    assert client.next_event() == TextMessage("6")
    client.receive_data(frame(TEXT, b"7"))
    assert client.take_messages() == ["7"]


def test_what_is_read_gives_no_event() -> None:
    """However the bytes are cut: a connection that says it is read has nothing to give."""
    parts = [
        frame(TEXT, b"x" * 200),
        frame(TEXT, b"1"),
        frame(PING, b"2"),
        frame(TEXT, b"3", fin=False),
        frame(CONTINUATION, b"4"),
        frame(TEXT, b"y" * 300),
    ]
    data = b"".join(parts)
    for size in (1, 3, 7, 203, 210, len(data)):
        client, plain = open_client(), open_client()
        seen, expected = [], []
        for at in range(0, len(data), size):
            client.receive_data(data[at : at + size])
            expected += feed(plain, data[at : at + size])
            while True:
                seen += [TextMessage(str(text)) for text in client.take_messages()]
                if client.is_read:
                    assert client.next_event() is None
                    break
                event = client.next_event()
                if event is None:
                    break
                seen.append(event)
        assert seen == expected
    assert client.is_read
    client.receive_data(frame(0x83, b"?"))
    assert not client.is_read, "a fault is an event"
    client = open_client()
    client.receive_data(parts[0])
    client.receive_eof()
    assert client.take_messages() == ["x" * 200]
    assert not client.is_read, "and so is the end"
    assert isinstance(client.next_event(), Closed)
    assert not new_client().is_read


def test_no_messages_without_a_connection() -> None:
    client = new_client()
    assert client.take_messages() == []
    client.receive_eof()
    assert isinstance(client.next_event(), Closed)
    assert client.take_messages() == []


@pytest.mark.parametrize("take", [taken, FrameReader.take_all])
def test_middle_sized_texts_have_a_limit(take: Callable[[FrameReader], list[str | bytes]]) -> None:
    fits, long = frame(TEXT, b"x" * 300), frame(TEXT, b"x" * 301)
    waiting = reader(fits, long, limit=300)
    assert take(waiting) == ["x" * 300]
    assert waiting.hand_over() == long


# ---------------------------------------------------------------------------------------- compressed ones


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def deflated_frame(opcode: int, data: bytes, mask: bytes | None = None) -> bytes:
    return frame(opcode, deflated(data), rsv=4, mask=mask)


def deflating_lane(*data: bytes, masked: bool = False, limit: int = LIMIT) -> FrameReader:
    deflate = Deflate(limit, keep_inflating=False)
    return FrameReader(b"".join(data), masked=masked, limit=limit, deflate=deflate)


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("size", [0, 1, 200, LIMIT])
def test_compressed_messages_are_taken(size: int, mask: bytes | None) -> None:
    frames = [
        deflated_frame(TEXT, b"x" * size, mask),
        deflated_frame(BINARY, bytes(size), mask),
        frame(TEXT, b"plain", mask=mask),
    ]
    for take in (taken, FrameReader.take_all):
        messages = deflating_lane(*frames, masked=mask is not None)
        assert take(messages) == ["x" * size, bytes(size), "plain"]
        assert messages.broken is None
        assert messages.hand_over() == b""


def test_compressed_messages_are_wsprotos_unless_deflate_was_agreed_on() -> None:
    data = deflated_frame(TEXT, b"x")
    waiting = reader(data)
    assert waiting.take() is None
    assert waiting.hand_over() == data


@pytest.mark.parametrize(
    "data", [frame(PING, b"x", rsv=4), frame(CONTINUATION, b"x", rsv=4), frame(TEXT, b"x", rsv=2)]
)
def test_other_frames_with_reserved_bits_are_handed_over(data: bytes) -> None:
    waiting = deflating_lane(data)
    assert waiting.take_all() == []
    assert waiting.broken is None
    assert waiting.hand_over() == data


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff" * 9, rsv=4), 1007),
        (deflated_frame(TEXT, b"\xff"), 1007),
        (deflated_frame(BINARY, bytes(LIMIT + 1)), 1009),
    ],
)
def test_after_a_compressed_message_that_cannot_be_read_nothing_is(data: bytes, code: int) -> None:
    waiting = deflating_lane(frame(TEXT, b"1"), data, frame(TEXT, b"2"), frame(TEXT, b"x" * 200))
    assert waiting.take_all() == ["1"]
    assert waiting.broken == code
    assert waiting.take_all() == []
    assert waiting.take() is None


@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(TEXT, b"\xff" * 9, rsv=4), 1007, "data that cannot be inflated"),
        (deflated_frame(TEXT, b"\xff"), 1007, "text that is not UTF-8"),
        (deflated_frame(TEXT, bytes(2_000_000)), 1009, "a message of more than 1000000 bytes"),
    ],
)
def test_such_a_message_ends_the_connection(data: bytes, code: int, reason: str, closing: bool) -> None:
    client = open_client(deflate=True)
    if closing:
        client.close()
        client.data_to_send()
    assert feed(client, data + frame(TEXT, b"more")) == [Closed(code, reason, clean=False)]
    assert bool(client.data_to_send()) is not closing
