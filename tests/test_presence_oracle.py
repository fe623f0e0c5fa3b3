"""The presence map beside phoenix.js itself: the same payloads, the same presence, joins and leaves."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

import node_tools
from presence_proto.presence import PresenceMap

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

pytestmark = pytest.mark.interop

Step: TypeAlias = tuple[str, Any]  # "state" or "diff", and the payload
ByKey: TypeAlias = dict[str, list[dict[str, Any]]]

KEYS = ["alice", "bob", "carol", "7", "", "__proto__", "constructor", "é"]


# ---------------------------------------------------------------------------------------------- histories


def consistent(rng: Random) -> list[Step]:
    """What a client of a well-behaved server sees: diffs may come twice, or overlap a state taken later."""
    held: ByKey = {}
    diffs: list[Step] = []
    history: list[Step] = []
    for number in range(rng.randrange(5, 30)):
        if rng.random() < 0.2:
            history.append(("state", {key: {"metas": metas} for key, metas in held.items()}))
            history += diffs[len(diffs) - rng.randrange(3) :]
        key = rng.choice(KEYS)
        joins, leaves = {}, {}
        if held.get(key) and rng.random() < 0.6:
            leaves[key] = {"metas": [held[key].pop(rng.randrange(len(held[key])))]}
        if not leaves or rng.random() < 0.5:
            meta = {"phx_ref": f"ref{number}", "n": number}
            if leaves:
                meta["phx_ref_prev"] = leaves[key]["metas"][0]["phx_ref"]
            joins[key] = {"metas": [meta]}
            held.setdefault(key, []).append(meta)
        if not held[key]:
            del held[key]
        diffs.append(("diff", {"joins": joins, "leaves": leaves}))
        history += diffs[-1:] * rng.choice([0, 1, 1, 1, 1, 2])
    return json.loads(json.dumps(history))  # type: ignore[no-any-return]  # a copy without shared metas


def wild(rng: Random) -> list[Step]:
    """Any refs in any place, the same ref with other contents, extra fields: no server would."""

    def entries() -> dict[str, Any]:
        return {
            key: {
                # phoenix.js holds a ref twice that stands twice in one list. We do not, so that is left out.
                "metas": [
                    {"phx_ref": f"ref{ref}", "n": rng.randrange(2)}
                    for ref in rng.sample(range(6), rng.randrange(4))
                ],
                **rng.choice([{}, {}, {"user": {"name": "A"}}, {"user": {"name": "B"}, "more": None}]),
            }
            for key in rng.sample(KEYS, rng.randrange(4))
        }

    return [
        ("state", entries()) if rng.random() < 0.25 else ("diff", {"joins": entries(), "leaves": entries()})
        for _ in range(rng.randrange(1, 15))
    ]


# ------------------------------------------------------------------------------------------- what is compared


def by_ref(metas: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {meta["phx_ref"]: meta for meta in metas}


def net(reported: list[list[Any]], without: ByKey, within: ByKey) -> ByKey:
    """What phoenix.js reported, without the metas that the step left as they were.

    It reports a join of what it holds, a leave of what it does not hold, and both for a ref on both sides.
    """
    result = {}
    for key, metas in reported:
        absent, present = by_ref(without.get(key, [])), by_ref(within.get(key, []))
        changed = [meta for meta in metas if meta["phx_ref"] not in absent and meta["phx_ref"] in present]
        if changed:
            result[key] = changed
    return result


def metas_of(state: dict[str, Any]) -> ByKey:
    return {key: entry["metas"] for key, entry in state.items()}


def compare(history: list[Step], replayed: list[Any]) -> None:
    presence = PresenceMap()
    before: ByKey = {}
    for (kind, payload), theirs in zip(history, replayed, strict=True):
        changes = presence.apply_state(payload) if kind == "state" else presence.apply_diff(payload)
        # A key without metas stays in phoenix.js until a leave.
        expected = {key: entry for key, entry in theirs["state"].items() if entry["metas"]}
        ours = {key: {"metas": [*metas], **presence.extra(key)} for key, metas in presence.items()}
        assert ours == expected
        after = metas_of(expected)
        assert {change.key: [*change.joined] for change in changes if change.joined} == net(
            theirs["joins"], before, after
        )
        left = {change.key: [*change.left] for change in changes if change.left}
        reported = net(theirs["leaves"], after, before)
        assert {key: [*by_ref(metas)] for key, metas in left.items()} == {
            key: [*by_ref(metas)] for key, metas in reported.items()
        }
        # phoenix.js reports the metas of the message, we those that were held: wild histories differ there.
        held = {key: by_ref(metas) for key, metas in before.items()}
        assert all(meta == held[key][meta["phx_ref"]] for key, metas in left.items() for meta in metas)
        before = after


@pytest.mark.parametrize("make", [consistent, wild])
def test_phoenix_js_does_the_same(make: Any) -> None:
    histories = [make(Random(seed)) for seed in range(400)]
    replays = json.loads(node_tools.run_script("presence_oracle.mjs", json.dumps(histories)))
    assert len(replays) == len(histories)
    for history, replayed in zip(histories, replays, strict=True):
        compare(history, replayed)
    assert sum(len(history) for history in histories) > 1000
    assert any(step["joins"] and step["leaves"] for replayed in replays for step in replayed)
