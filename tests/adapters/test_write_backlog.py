"""What waits for a transport: its order, its pieces, its age, and what it counts with others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_adapters.server.hub_driver import PATIENCE, PIECE, WriteBacklog, WriteBuffers

if TYPE_CHECKING:
    from collections.abc import Iterable


def backlog(*writes: bytes, buffers: WriteBuffers | None = None) -> WriteBacklog:
    """A backlog whose writes are all of the time 0."""
    made = WriteBacklog(WriteBuffers() if buffers is None else buffers, 0.0)
    for data in writes:
        made.add(data, 0.0)
    return made


def taken(backlog: WriteBacklog) -> Iterable[bytes]:
    while piece := backlog.piece():
        yield bytes(piece)


@given(st.lists(st.integers(1, 3 * PIECE), max_size=20))
def test_the_pieces_are_the_writes_in_order(sizes: list[int]) -> None:
    writes = [bytes([number]) * size for number, size in enumerate(sizes)]
    buffers = WriteBuffers()
    waiting = backlog(*writes, buffers=buffers)
    assert waiting.size == sum(sizes)
    pieces = list(taken(waiting))
    assert b"".join(pieces) == b"".join(writes)
    assert all(len(piece) <= PIECE for piece in pieces)
    # No two neighbours would fit into one, but for the end of a large write.
    assert len(pieces) <= 2 * sum(sizes) // PIECE + 2 * sum(size >= PIECE for size in sizes) + 1
    assert (waiting.size, buffers.size) == (0, 0)


def test_a_large_write_is_not_copied() -> None:
    data = bytes(3 * PIECE)
    piece = backlog(data).piece()
    assert isinstance(piece, memoryview)
    assert piece.obj is data


def test_one_message_is_never_old_whatever_its_size() -> None:
    waiting = backlog(bytes(100 * PIECE))
    waiting.piece()
    for now in range(1, 100):
        waiting.add(b"x", now * PATIENCE)
        assert waiting.overdue < now


def test_a_burst_is_not_old() -> None:
    waiting = backlog(bytes(PIECE), bytes(PIECE), bytes(PIECE))
    waiting.piece()
    waiting.add(bytes(PIECE), PATIENCE * 0.99)
    assert waiting.overdue == 0


def test_what_was_written_before_is_old() -> None:
    waiting = backlog(bytes(PIECE), bytes(2 * PIECE), bytes(10))
    waiting.piece()
    waiting.add(b"mark", PATIENCE)
    assert waiting.overdue == 0
    waiting.add(b"new", 2 * PATIENCE)
    assert waiting.overdue == 2 * PIECE + 10
    # The second write is now the oldest.
    waiting.piece()
    assert waiting.overdue == 10
    assert waiting.unfinished == PIECE


def test_what_the_transport_holds_is_unread() -> None:
    buffers = WriteBuffers()
    waiting = backlog(bytes(2 * PIECE), buffers=buffers)
    waiting.piece()
    waiting.held(1000)
    assert waiting.size == PIECE + 1000
    assert buffers.size == 2 * PIECE + 1000  # the write is kept until its last byte is given
    waiting.held(0)
    assert (waiting.size, buffers.size) == (PIECE, 2 * PIECE)


def test_dropping_keeps_what_was_begun() -> None:
    buffers = WriteBuffers()
    first = bytes(range(256)) * 1024
    waiting = backlog(first, b"lost", bytes(PIECE), buffers=buffers)
    begin = bytes(waiting.piece())
    waiting.drop()
    waiting.add(b"goodbye", 1.0)
    assert begin + b"".join(taken(waiting)) == first + b"goodbye"
    assert buffers.size == 0


def test_a_message_for_many_counts_once() -> None:
    buffers = WriteBuffers()
    shared, own = bytes(5 * PIECE), bytes(7)
    waiting = [backlog(shared, own + bytes([number]), buffers=buffers) for number in range(10)]
    assert sum(one.size for one in waiting) == 10 * (5 * PIECE + 8)
    assert buffers.size == 5 * PIECE + 80
    for one in waiting[:5]:
        list(taken(one))
    assert buffers.size == 5 * PIECE + 40
    for one in waiting[5:]:
        one.piece()
        one.held(100)
        one.clear()
        assert one.size == 0
    assert buffers.size == 0


@pytest.mark.parametrize("written_twice", [True, False])
def test_the_same_bytes_may_be_written_twice(written_twice: bool) -> None:
    buffers = WriteBuffers()
    data = bytes(PIECE)
    waiting = backlog(*[data] * (1 + written_twice), buffers=buffers)
    assert (waiting.size, buffers.size) == (PIECE * (1 + written_twice), PIECE)
    list(taken(waiting))
    assert buffers.size == 0
