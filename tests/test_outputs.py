"""The queue of outputs: order, merging, and what an abort drops."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from presence_proto.events import SocketConnected
from presence_proto.outputs import CloseTransport, ConnId, OpenTransport, Outbox, SendData

ONE, TWO = ConnId(1), ConnId(2)
EVENT = SocketConnected()


def drained(outbox: Outbox[Any]) -> list[Any]:
    at_once = list(deepcopy(outbox).drain())
    outputs = []
    while (output := outbox.next()) is not None:
        outputs.append(output)
    assert outbox.next() is None
    assert at_once == outputs
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


def test_data_that_comes_while_draining_is_not_lost() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.send(ONE, b"a")
    assert outbox.next() == SendData(ONE, b"a")
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
    assert list(outbox.drain()) == [EVENT]
    assert len(outbox) == 0
    outbox.emit(EVENT)
    assert outbox.next() == EVENT


def test_what_was_drained_at_once_is_merged_with_nothing() -> None:
    outbox: Outbox[Any] = Outbox()
    for _ in range(2):
        outbox.send(ONE, b"a")
        outbox.send(ONE, b"b")
        assert list(outbox.drain()) == [SendData(ONE, b"ab")]
        assert not outbox.drain()


def test_one_that_is_never_empty() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.emit(EVENT)
    for number in range(5000):
        outbox.send(ConnId(number), b"x")
        assert outbox.next() == (SendData(ConnId(number - 1), b"x") if number else EVENT)
        assert len(outbox) == 1


def test_an_abort_drops_the_data_that_would_have_come_next() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.emit(EVENT)
    outbox.send(ONE, b"a")
    outbox.send(TWO, b"b")
    assert outbox.next() is EVENT
    outbox.send(ONE, b"c")
    outbox.put(CloseTransport(ONE, abort=True))
    outbox.send(TWO, b"d")
    outbox.send(ONE, b"e")
    assert len(outbox) == 3
    assert drained(outbox) == [SendData(TWO, b"bd"), CloseTransport(ONE, abort=True), SendData(ONE, b"e")]


def test_events_can_be_queued_together() -> None:
    outbox: Outbox[Any] = Outbox()
    outbox.emit_all([EVENT, EVENT])
    outbox.emit_all([])
    assert drained(outbox) == [EVENT, EVENT]
