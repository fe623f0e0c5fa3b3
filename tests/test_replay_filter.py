"""What a replay after a rejoin repeats is passed over, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_proto.channel import KEPT, LONGEST_ID, ReplayFilter
from presence_proto.events import Broadcast


def live(number: int) -> dict[str, Any]:
    return {"id": str(number)}


def replayed(number: int) -> dict[str, Any]:
    return {"id": str(number), "replayed": True}


def test_what_was_seen_is_not_new_when_it_is_replayed() -> None:
    seen = ReplayFilter(print)
    assert [seen.is_new(replayed(n)) for n in (1, 2)] == [True, True]
    assert [seen.is_new(live(n)) for n in (3, 4)] == [True, True]
    assert [seen.is_new(replayed(n)) for n in (2, 3, 4, 5)] == [False, False, False, True]
    assert [seen.is_new(replayed(n)) for n in (2, 3, 4, 5)] == [False] * 4


def test_what_is_new_is_emitted() -> None:
    told: list[Broadcast] = []
    emit = ReplayFilter(told.append)
    broadcasts = [Broadcast("realtime:a", "news", n, replayed(n)) for n in (1, 2)]
    for broadcast in (*broadcasts, *broadcasts):
        emit(broadcast)
    assert told == broadcasts


def test_a_live_broadcast_is_always_new() -> None:
    seen = ReplayFilter(print)
    assert all(seen.is_new(live(1)) for _ in range(3))
    assert all(seen.is_new({"id": "1", "replayed": word}) for word in (False, None, "true", 1))


@pytest.mark.parametrize("meta", [{}, {"id": None}, {"id": 7}, {"id": ["x"]}, {"id": "x" * (LONGEST_ID + 1)}])
def test_what_has_no_id_as_the_server_gives_it_is_always_new(meta: dict[str, Any]) -> None:
    seen = ReplayFilter(print)
    assert all(seen.is_new(meta | {"replayed": True}) for _ in range(3))


def test_an_id_may_be_long() -> None:
    seen = ReplayFilter(print)
    assert [seen.is_new({"id": "x" * LONGEST_ID, "replayed": True}) for _ in range(2)] == [True, False]


def test_the_latest_are_remembered_and_no_more() -> None:
    seen = ReplayFilter(print)
    for number in range(KEPT + 1):
        assert seen.is_new(live(number))
    assert not seen.is_new(replayed(1))  # which makes it the latest
    assert seen.is_new(live(KEPT + 1))
    assert not seen.is_new(replayed(1))
    assert not seen.is_new(replayed(3))
    assert seen.is_new(replayed(2))
    assert seen.is_new(replayed(0))


@given(st.lists(st.integers(1, 12), max_size=8), st.integers(1, 25))
def test_with_a_server_that_replays_the_newest_each_broadcast_comes_once(sent: list[int], limit: int) -> None:
    """`sent`: how many broadcasts there were while the client was joined, away, joined again, …"""
    stored: list[int] = []
    told: list[int] = []
    missed: set[int] = set()
    seen = ReplayFilter(print)
    for turn, count in enumerate(sent):
        fresh = [len(stored) + n for n in range(count)]
        stored += fresh
        if turn % 2:
            missed |= set(fresh[:-limit])  # more than a replay has
            told += [n for n in stored[-limit:] if seen.is_new(replayed(n))]
        else:
            told += [n for n in fresh if seen.is_new(live(n))]
    assert told == [n for n in stored if n not in missed]
