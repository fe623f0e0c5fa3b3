"""`presence_proto.fast_lane`: what it takes, and what it hands over. That nobody can tell is a property of
`WebSocket`, in `properties/test_websocket`.
"""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from presence_proto.fast_lane import MAX_MASKED, FastLane, xor
from presence_proto.websocket import TextMessage
from websocket_bytes import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
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

LIMIT = 70_000


def lane(*data: bytes, masked: bool = False, limit: int = LIMIT) -> FastLane:
    return FastLane(b"".join(data), masked=masked, limit=limit)


def taken(lane: FastLane) -> list[str | bytes]:
    found = []
    while (message := lane.take()) is not None:
        found.append(message)
    return found


def handed_over(lane: FastLane) -> list[bytes]:
    found = []
    while piece := lane.hand_over():
        assert lane.take() is None, "the lane overtook wsproto"
        found.append(piece)
    return found


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 4000, 65_535, 65_536, LIMIT])
def test_plain_messages_are_taken(size: int, mask: bytes | None) -> None:
    if mask and size > MAX_MASKED:
        return
    text, data = "x" * size, bytes(size)
    messages = lane(
        frame(TEXT, text.encode(), mask=mask), frame(BINARY, data, mask=mask), masked=mask is not None
    )
    assert taken(messages) == [text, data]
    assert messages.hand_over() == b""


def test_text_is_unicode() -> None:
    assert taken(lane(frame(TEXT, "größe €𝄞".encode()))) == ["größe €𝄞"]


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
    waiting = lane(data, data)
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
    waiting = lane(data, masked=data in (frame(TEXT, b"hi"), frame(TEXT, bytes(126))))
    assert waiting.take() is None
    assert waiting.hand_over() == data


def test_a_length_that_cannot_be_is_left_to_wsproto() -> None:
    waiting = lane(b"\x81\x7f" + b"\xff" * 8 + b"x")
    assert waiting.take() is None
    assert waiting.hand_over() == b"\x81\x7f" + b"\xff" * 8 + b"x"


def test_long_masked_messages_are_not_worth_it() -> None:
    fits, long = (frame(BINARY, bytes(MAX_MASKED + more), mask=MASK) for more in (0, 1))
    waiting = lane(fits, long, masked=True)
    assert waiting.take() == bytes(MAX_MASKED)
    assert waiting.take() is None
    assert waiting.hand_over() == long


@pytest.mark.parametrize("size", [0, 125, 126, 65_536])
@pytest.mark.parametrize("mask", [None, MASK])
def test_wsproto_gets_what_is_cut_off_until_its_end(size: int, mask: bytes | None) -> None:
    data, plain = frame(TEXT, bytes(size), mask=mask), frame(TEXT, b"next", mask=mask)
    for cut in range(1, min(len(data), 20)):
        waiting = lane(data[:cut], masked=mask is not None)
        assert taken(waiting) == []
        assert handed_over(waiting) == [data[:cut]]
        waiting.receive(data[cut:] + plain)
        assert waiting.take() is None
        assert waiting.hand_over() == data[cut:]
        assert taken(waiting) == ["next"]


def test_byte_by_byte_all_is_wsprotos() -> None:
    for data in (frame(TEXT, b"x" * 200), frame(PING, b"x", mask=MASK), frame(BINARY, bytes(65_536))):
        waiting = lane()
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
            waiting = lane(data[:cut], masked=True)
            assert handed_over(waiting) == [data[:cut]]
            waiting.receive(data[cut:])
            assert waiting.take() is None
            assert waiting.hand_over() == data[cut:]


def test_between_fragments_nothing_is_taken() -> None:
    fragments = [
        frame(TEXT, b"a", fin=False),
        frame(CONTINUATION, b"b", fin=False),
        frame(PING, b"c"),
        frame(TEXT, b"a mistake"),
    ]
    waiting = lane(*fragments, frame(BINARY, b"next"))
    for piece in fragments:
        assert waiting.take() is None
        assert waiting.hand_over() == piece
    assert waiting.take() == b"next"


def test_data_that_came_before_the_rest_was_read() -> None:
    waiting = lane(frame(TEXT, b"1"), frame(TEXT, b"2")[:2])
    waiting.receive(b"2" + frame(TEXT, b"3"))
    assert waiting.take() == "1"
    waiting.receive(frame(TEXT, b"4"))
    assert taken(waiting) == ["2", "3", "4"]


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
