"""The workloads are what they say: folded by the rules of presence, they lead to the roster they promise."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

import pytest
from benchmarks.workloads import Workload, chunks, digest, envelope, shout

from benchmarks import workloads
from presence_proto.presence import PresenceMap

WORKLOADS: list[Callable[[int], Workload]] = [
    lambda seed: workloads.steady(seed, users=10, diffs=300),
    lambda seed: workloads.steady(seed, users=100, diffs=300, max_state=30),
    lambda seed: workloads.burst(seed, users=250, diffs=5),
    lambda seed: workloads.resync(seed, users=100, states=4),
    lambda seed: workloads.devices(seed, metas=5, diffs=100),
    lambda seed: workloads.small_rooms(seed, rooms=5, users=3, diffs=200),
]
each = pytest.mark.parametrize("make", WORKLOADS, ids=range(len(WORKLOADS)))


def folded(workload: Workload) -> dict[str, tuple[str, ...]]:
    maps: dict[str, PresenceMap] = {}
    for topic, event, payload in workload.messages:
        presence = maps.setdefault(topic, PresenceMap())
        if event == "presence_state":
            presence.apply_state(payload)
        else:
            presence.apply_diff(payload)
    return {
        key if len(maps) == 1 else f"{topic}/{key}": tuple(meta["phx_ref"] for meta in metas)
        for topic, presence in maps.items()
        for key, metas in presence.items()
    }


@each
def test_they_lead_to_their_roster(make: Callable[[int], Workload]) -> None:
    workload = make(7)
    roster = folded(workload)
    assert digest(roster) == workload.digest
    assert workload.digest != workload.keys_digest == digest(dict.fromkeys(roster, ()))
    assert workload.units == len(workload.messages) - workload.untimed > 0


@each
def test_a_seed_is_the_same_every_time(make: Callable[[int], Workload]) -> None:
    assert make(7).messages == make(7).messages
    assert make(7).messages != make(8).messages


def test_the_steady_room_keeps_its_size_and_its_shares() -> None:
    workload = workloads.steady(7, users=100, diffs=2_000)
    sizes, kinds = [], {"join": 0, "leave": 0, "update": 0}
    presence = PresenceMap()
    presence.apply_state(workload.messages[0][2])
    for _, _, diff in workload.messages[1:]:
        presence.apply_diff(diff)
        sizes.append(len(presence))
        kinds["update" if diff["joins"] and diff["leaves"] else "join" if diff["joins"] else "leave"] += 1
    assert 85 < min(sizes) <= max(sizes) < 115
    assert {name: round(count / 2_000, 1) for name, count in kinds.items()} == {
        "join": 0.4,
        "leave": 0.4,
        "update": 0.2,
    }


def test_a_resync_changes_one_percent() -> None:
    first, second = (payload for _, _, payload in workloads.resync(7, users=900, states=1).messages)
    same = sum(first.get(key) == entry for key, entry in second.items())
    assert len(first) == len(second) == 900
    assert 890 <= same < 900


def test_messages_are_as_a_server_writes_them() -> None:
    assert envelope("2.0.0", "t", "e", {"ä": 1}) == '[null,null,"t","e",{"ä":1}]'
    assert envelope("1.0.0", "t", "e", {}) == '{"ref":null,"topic":"t","event":"e","payload":{}}'
    assert [len(shout(number)) for number in (0, 99, 12_345)] == [300, 300, 300]
    assert json.loads(shout(17))[4]["payload"]["n"] == 17


def test_chunks_are_all_of_it() -> None:
    data = Random(1).randbytes(200_000)
    pieces = list(chunks(data))
    assert b"".join(pieces) == data
    assert {len(piece) for piece in pieces[:-1]} == {65_536}
