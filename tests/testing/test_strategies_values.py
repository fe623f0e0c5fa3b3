"""Chunks and clocks, and how examples are printed."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.vendor.pretty import pretty

from examples import minimal
from presence_proto import RealtimeClient, RealtimeConfig
from presence_proto.testing import strategies as ps
from presence_proto.testing.strategies.values import Program, brief

# ---------------------------------------------------------------------------------------------- chunks


@given(st.data(), st.binary(max_size=300), st.integers(1, 5))
def test_chunks_are_the_data(data: st.DataObject, whole: bytes, most: int) -> None:
    chunks = data.draw(ps.chunkings(whole, max_chunks=most))
    assert b"".join(chunks) == whole
    assert all(chunks)
    assert len(chunks) <= most or all(len(chunk) == 1 for chunk in chunks)
    chunks = data.draw(ps.chunkings(whole, max_chunks=most, empty=True))
    assert b"".join(chunks) == whole
    assert 1 <= len(chunks) <= most or len(chunks) == len(whole)


def test_chunks_shrink_to_one() -> None:
    data = bytes(range(100))
    assert minimal(ps.chunkings(data), lambda chunks: True) == [data]
    assert minimal(ps.chunkings(data), lambda chunks: len(chunks) > 1) == [data[:1], data[1:]]
    assert minimal(ps.chunkings(data), lambda chunks: len(chunks) == 100) == [
        data[n : n + 1] for n in range(100)
    ]
    assert minimal(ps.chunkings(bytes(201)), lambda chunks: len(chunks) == 8)
    assert minimal(ps.chunkings(b"ab", empty=True), lambda chunks: b"" in chunks) == [b"", b"ab"]
    assert minimal(ps.chunkings(b""), lambda chunks: True) == []


# ---------------------------------------------------------------------------------------------- clocks


@given(ps.clocks(backwards=False, start=5.0, min_size=1))
def test_a_good_clock_never_goes_back(clock: list[float]) -> None:
    assert 1 <= len(clock) <= 20
    assert all(before <= after for before, after in pairwise([5.0, *clock]))


@pytest.mark.parametrize(
    "oddity",
    [
        lambda before, after: after == before,
        lambda before, after: after < before,
        lambda before, after: after > before + 3600,
    ],
)
def test_clocks_are_odd(oddity: object) -> None:
    clock = minimal(ps.clocks(), lambda clock: any(oddity(*two) for two in pairwise(clock)))  # type: ignore[operator]
    assert len(clock) == 2
    assert clock[0] == 0.0


@given(ps.clocks(max_size=40))
def test_whatever_the_clock_says_the_client_has_a_deadline_to_come(clock: list[float]) -> None:
    """Law 2, for a client whose connections all fail."""
    client = RealtimeClient(RealtimeConfig(server_url="ws://hub.test/socket"), rng=Random(1))
    client.connect(now=0.0)
    latest, opened = 0.0, 0
    for now in clock:
        latest = max(latest, now)
        client.tick(now=now)
        while outputs := client.drain():
            for output in outputs:
                if type(output).__name__ == "OpenTransport":
                    opened += 1
                    client.transport_closed(output.conn, now=now)  # type: ignore[union-attr]  # it is one
        deadline = client.next_deadline()
        assert deadline is not None
        assert deadline > latest
    assert opened <= len(clock) + 1, "one attempt for each tick, however late"


# ---------------------------------------------------------------------------------------------- printing


@frozen(repr=False)
class Point(Program):
    x: int
    label: str = ""
    others: tuple[Point, ...] = ()


def test_a_program_prints_what_was_given() -> None:
    assert repr(Point(1)) == pretty(Point(1)) == "Point(1)"
    many = Point(1, others=(Point(2, "b"), Point(3)))
    assert repr(many) == "Point(1, others=(Point(2, label='b'), Point(3)))"
    assert pretty(many) == "Point(1, others=(\n    Point(2, label='b'),\n    Point(3),\n))"
    assert pretty([Point(1, "a" * 50)]) == "[Point(1, label='a' * 50)]"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a" * 40, repr("a" * 40)),
        ("a" * 41, "'a' * 41"),
        (b"\xa9" + b"\xc3\xa9" * 30, r"b'\xa9\xc3' * 30 + b'\xa9'"),
        ("abc" * 20 + "x", "'abc' * 20 + 'x'"),
        ("abcd" * 20, repr("abcd" * 20)),
        (7, "7"),
    ],
)
def test_long_data_is_brief(value: object, shown: str) -> None:
    assert brief(value) == shown
    assert eval(shown) == value


def test_texts_and_json_shrink_to_nothing() -> None:
    assert minimal(ps.texts(min_size=1), lambda text: True) == "0"
    assert minimal(ps.json_values(), lambda value: isinstance(value, list)) == []
