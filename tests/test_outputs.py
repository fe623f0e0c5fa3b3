"""The queue of outputs: order, merging, and what an abort drops."""

from __future__ import annotations

from typing import Any

import pytest

from presence_proto.endpoint import MERGED, CloseTransport, ConnId, OpenTransport, Outbox, SendData
from presence_proto.events import SocketConnected

ONE, TWO = ConnId(1), ConnId(2)
EVENT = SocketConnected()


def drained(outbox: Outbox[Any]) -> list[Any]:
    outputs = list(outbox.drain())
    assert len(outbox) == 0
    assert not outbox.drain()
    return outputs


def test_an_empty_outbox_is_drained() -> None:
    outbox: Outbox[Any] = Outbox()
    assert len(outbox) == 0
    assert drained(outbox) == []


def test_outputs_come_in_order() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.put(OpenTransport(ONE, "host", 443, True))
    outbox.put(EVENT)
    outbox.send(ONE, b"a")
    outbox.put(CloseTransport(ONE))
    assert len(outbox) == 4
    assert drained(outbox) == [
        OpenTransport(ONE, "host", 443, True),
        EVENT,
        SendData(ONE, b"a"),
        CloseTransport(ONE),
    ]


def test_data_is_merged_until_it_is_drained() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.send(ONE, b"a")
    outbox.send(TWO, b"b")
    outbox.put(EVENT)
    outbox.send(ONE, b"c")
    assert drained(outbox) == [SendData(ONE, b"ac"), SendData(TWO, b"b"), EVENT]
    outbox.send(ONE, b"d")
    assert drained(outbox) == [SendData(ONE, b"d")]


def test_more_than_64_kib_are_not_merged_and_what_is_large_is_not_copied() -> None:
    outbox: Outbox[Any] = Outbox()
    large, half = bytes(MERGED + 1), bytes(MERGED // 2)
    for data in (b"a", b"b", large, b"c", half, half, b"d", large):
        outbox.send(ONE, data)
    outbox.send(TWO, large)
    outputs = drained(outbox)
    assert outputs == [
        SendData(ONE, b"ab"),
        SendData(ONE, large),
        SendData(ONE, b"c" + half),
        SendData(ONE, half + b"d"),
        SendData(ONE, large),
        SendData(TWO, large),
    ]
    assert all(outputs[index].data is large for index in (1, 4, 5))


def test_exactly_64_kib_are_merged() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.send(ONE, bytes(MERGED - 1))
    outbox.send(ONE, b"a")
    assert drained(outbox) == [SendData(ONE, bytes(MERGED - 1) + b"a")]


def test_pongs_are_merged_whatever_their_size() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.send_pong(ONE, bytes(MERGED))
    outbox.send_pong(ONE, b"p")
    outbox.send(TWO, bytes(MERGED))
    outbox.send(TWO, bytes(MERGED))
    pongs, *others = drained(outbox)
    assert pongs == SendData(ONE, bytes(MERGED) + b"p", is_pong=True)
    assert others == [SendData(TWO, bytes(MERGED))] * 2


def test_data_sent_after_a_drain_comes_with_the_next_one() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.send(ONE, b"a")
    assert drained(outbox) == [SendData(ONE, b"a")]
    outbox.send(ONE, b"b")
    outbox.send(ONE, b"c")
    assert drained(outbox) == [SendData(ONE, b"bc")]


def test_empty_data_is_nothing() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.send(ONE, b"")
    assert drained(outbox) == []


def test_a_close_is_an_orderly_one_unless_it_says_otherwise() -> None:
    assert CloseTransport(ONE) == CloseTransport(ONE, abort=False)


def test_an_orderly_close_comes_after_the_data() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.send(ONE, b"a")
    outbox.put(EVENT)
    outbox.put(CloseTransport(ONE))
    assert drained(outbox) == [SendData(ONE, b"a"), EVENT, CloseTransport(ONE)]


@pytest.mark.parametrize("abort", [False, True])
def test_data_after_a_close_is_not_merged_with_that_before_it(abort: bool) -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.send(ONE, b"a")
    outbox.put(CloseTransport(ONE, abort))
    outbox.send(ONE, b"b")
    before = [] if abort else [SendData(ONE, b"a")]
    assert drained(outbox) == [*before, CloseTransport(ONE, abort), SendData(ONE, b"b")]


def test_an_abort_drops_the_data_that_is_not_drained_and_only_its_own() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.send(TWO, b"b")
    outbox.put(EVENT)
    outbox.send(ONE, b"a")
    outbox.put(CloseTransport(ONE, abort=True))
    assert drained(outbox) == [SendData(TWO, b"b"), EVENT, CloseTransport(ONE, abort=True)]


def test_an_abort_without_data_is_just_a_close() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.put(CloseTransport(ONE, abort=True))
    assert drained(outbox) == [CloseTransport(ONE, abort=True)]


def test_the_data_stays_out_of_the_repr() -> None:
    assert repr(SendData(ONE, b"GET /?apikey=secret")) == "SendData(conn=1, data=<19 bytes>)"
    outbox: Outbox[Any] = Outbox()
    outbox.send(ONE, b"secret")
    assert "secret" not in repr(outbox)


def test_an_event_can_be_queued_in_less_time() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.put(CloseTransport(ONE))
    outbox.emit(EVENT)
    assert drained(outbox) == [CloseTransport(ONE), EVENT]
    outbox.emit(EVENT)
    assert len(outbox) == 1
    assert drained(outbox) == [EVENT]


def test_drained_data_is_merged_with_nothing() -> None:
    outbox: Outbox[Any] = Outbox()
    for _ in range(2):
        outbox.send(ONE, b"a")
        outbox.send(ONE, b"b")
        first = outbox.drain()
        assert list(first) == [SendData(ONE, b"ab")]
        outbox.send(ONE, b"c")
        assert list(first) == [SendData(ONE, b"ab")]
        assert drained(outbox) == [SendData(ONE, b"c")]


def test_an_abort_drops_the_data_that_nobody_has_drained() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.emit(EVENT)
    outbox.send(ONE, b"a")
    outbox.send(TWO, b"b")
    outbox.send(ONE, b"c")
    outbox.put(CloseTransport(ONE, abort=True))
    outbox.send(TWO, b"d")
    outbox.send(ONE, b"e")
    assert len(outbox) == 4
    assert drained(outbox) == [
        EVENT,
        SendData(TWO, b"bd"),
        CloseTransport(ONE, abort=True),
        SendData(ONE, b"e"),
    ]


def test_events_can_be_queued_together() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.emit_all([EVENT, EVENT])
    outbox.emit_all([])
    assert drained(outbox) == [EVENT, EVENT]


# ---------------------------------------------------------------------------------------------- pongs


def test_pongs_keep_their_place_and_are_merged_with_pongs_only() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.send(ONE, b"a")
    for data in (b"p", b"", b"q", b"r"):
        outbox.send_pong(ONE, data)
    outbox.send_pong(TWO, b"s")
    for data in (b"b", b"c", b"d"):
        outbox.send(ONE, data)
    outbox.send_pong(ONE, b"t")
    assert drained(outbox) == [
        SendData(ONE, b"a"),
        SendData(ONE, b"pqr", is_pong=True),
        SendData(TWO, b"s", is_pong=True),
        SendData(ONE, b"bcd"),
        SendData(ONE, b"t", is_pong=True),
    ]
    outbox.send_pong(ONE, b"u")
    assert drained(outbox) == [SendData(ONE, b"u", is_pong=True)]


def test_an_abort_drops_all_that_was_not_drained() -> None:
    outbox: Outbox[Any] = Outbox()
    for send in (outbox.send, outbox.send_pong, outbox.send):
        send(ONE, b"x")
        send(TWO, b"y")
    outbox.put(EVENT)
    outbox.put(CloseTransport(ONE, abort=True))
    left = drained(outbox)
    assert [output.conn for output in left if isinstance(output, SendData)] == [TWO, TWO, TWO]
    assert left[-2:] == [EVENT, CloseTransport(ONE, abort=True)]


def test_an_orderly_close_drops_nothing() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.send(ONE, b"x")
    outbox.send_pong(ONE, b"y")
    outbox.put(CloseTransport(ONE))
    assert drained(outbox) == [SendData(ONE, b"x"), SendData(ONE, b"y", is_pong=True), CloseTransport(ONE)]
