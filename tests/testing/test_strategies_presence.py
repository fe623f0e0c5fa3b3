"""Presence: what the strategies promise, and bugs that shrink to little."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.vendor.pretty import pretty

from examples import minimal, sample, times
from presence_entries import by_ref, told
from presence_proto.presence import PresenceMap
from presence_proto.testing import strategies as ps
from presence_proto.testing.strategies import ODDITIES, Oddity, PresenceHistory, PresenceStep


@times(0.4)
@given(ps.presence_histories(fields=st.dictionaries(ps.texts(), ps.json_values(max_leaves=3), max_size=2)))
def test_the_truth_stays_whatever_is_done_to_the_payloads(history: PresenceHistory) -> None:
    truths = deepcopy(history.truths)
    for step in history.steps:
        vandalise(step.payload)
    assert history.truths == truths


def vandalise(value: Any) -> None:
    """Empty every list and dict in it, which empties those that are shared with others, too."""
    for inner in list(
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    ):
        vandalise(inner)
    if isinstance(value, dict | list):
        value.clear()


@given(ps.presence_histories(oddities={"duplicates"}))
def test_steps_share_nothing(history: PresenceHistory) -> None:
    for number, step in enumerate(history.steps):
        others = deepcopy(history.steps[number + 1 :])
        vandalise(step.payload)
        assert history.steps[number + 1 :] == others


@given(ps.presence_histories(users=["a", "b"], max_devices=2, max_steps=5))
def test_the_bounds(history: PresenceHistory) -> None:
    assert 1 <= len(history.steps) <= 5
    assert history.truth == history.truths[-1]
    for truth in history.truths:
        assert set(truth or {}) <= {"a", "b"}
        assert all(1 <= len(metas) <= 2 for metas in (truth or {}).values())


@given(ps.presence_histories(oddities=()))
def test_without_oddities_there_is_one_state_and_one_diff_for_each_change(history: PresenceHistory) -> None:
    events = [step.event for step in history.steps]
    assert events == ["presence_state"] + ["presence_diff"] * (len(events) - 1)
    before = history.truths[0]
    for step, truth in zip(history.steps[1:], history.truths[1:], strict=True):
        assert before is not None
        assert truth is not None
        old, new = refs(before), refs(truth)
        assert refs(by_ref(metas_of(step.payload["joins"]))) == new - old
        assert refs(by_ref(metas_of(step.payload["leaves"]))) == old - new
        assert len(old ^ new) == 1 or (len(old - new), len(new - old)) == (1, 1)
        before = truth


def metas_of(entries: Any) -> dict[str, list[dict[str, Any]]]:
    return {key: entry["metas"] for key, entry in entries.items()}


def refs(truth: Any) -> set[str]:
    return {ref for metas in truth.values() for ref in metas}


def test_an_unknown_oddity() -> None:
    with pytest.raises(ValueError, match="unknown oddities: \\['ghosts'\\]"):
        ps.presence_histories(oddities=["ghosts"])  # type: ignore[list-item]  # the point of the test


def early(history: PresenceHistory) -> bool:
    return history.steps[0].event == "presence_diff"


def overlap(history: PresenceHistory) -> bool:
    states = [n for n, step in enumerate(history.steps) if step.event == "presence_state"]
    return history.truths[states[0]] is None


def resync(history: PresenceHistory) -> bool:
    return sum(step.event == "presence_state" for step in history.steps) > 1


def diffs_of(history: PresenceHistory) -> list[dict[str, Any]]:
    return [step.payload for step in history.steps if step.event == "presence_diff"]


def duplicate(history: PresenceHistory) -> bool:
    return any(
        one == other and one.event == "presence_diff"
        for one, other in zip(history.steps, history.steps[1:], strict=False)
    )


def sides(payload: dict[str, Any]) -> tuple[Counter[str], Counter[str]]:
    joins, leaves = (
        Counter(meta["phx_ref"] for metas in metas_of(payload[side]).values() for meta in metas)
        for side in ("joins", "leaves")
    )
    return joins, leaves


def flash(history: PresenceHistory) -> bool:
    return any(joins & leaves for joins, leaves in map(sides, diffs_of(history)))


def merged(history: PresenceHistory) -> bool:
    """Who joins and who leaves are not one user that tracks again."""
    return any(
        diff["joins"] and diff["leaves"] and (diff["joins"].keys() != diff["leaves"].keys() or len(joins) > 1)
        for diff, (joins, leaves) in ((diff, sides(diff)) for diff in diffs_of(history))
        if not joins & leaves
    )


def unseen_previous(history: PresenceHistory) -> bool:
    """A diff names a ref before that stands nowhere else."""
    if None in history.truths:
        return False
    seen: set[str] = {ref for truth in history.truths if truth for ref in refs(truth)}
    for joins, leaves in map(sides, diffs_of(history)):
        seen |= joins.keys() | leaves.keys()
    metas = [meta for diff in diffs_of(history) for of in metas_of(diff["joins"]).values() for meta in of]
    return any(meta.get("phx_ref_prev", meta["phx_ref"]) not in seen for meta in metas)


def unknown_leave(history: PresenceHistory) -> bool:
    seen = {ref for truth in history.truths if truth for ref in refs(truth)}
    return None not in history.truths and any(
        set(leaves) - set(joins) - seen for joins, leaves in map(sides, diffs_of(history))
    )


def same_refs_again(history: PresenceHistory) -> bool:
    """A ref is there, is gone, and is there again."""
    there = [set(step.present) for step in history.steps if step.present is not None]
    return any(there[n + 1] & set().union(*there[:n]) - there[n] for n in range(1, len(there) - 1))


def whole_part_leaves(history: PresenceHistory) -> bool:
    return any(len(leaves) > 1 and not joins for joins, leaves in map(sides, diffs_of(history)))


KINDS: list[tuple[set[Oddity], Any]] = [
    ({"duplicates"}, duplicate),
    ({"early diffs"}, early),
    ({"flashes"}, flash),
    ({"merged"}, merged),
    ({"merged", "netsplits"}, unseen_previous),
    ({"netsplits"}, same_refs_again),
    ({"netsplits"}, whole_part_leaves),
    ({"overlaps"}, overlap),
    ({"resyncs"}, resync),
    ({"unknown leaves"}, unknown_leave),
]


def test_every_oddity_is_looked_for() -> None:
    assert set().union(*(oddities for oddities, _ in KINDS)) == ODDITIES


@pytest.mark.long
@pytest.mark.parametrize(("oddities", "occurs"), KINDS, ids=[occurs.__name__ for _, occurs in KINDS])
def test_each_oddity_occurs_where_it_may(oddities: set[Oddity], occurs: Any) -> None:
    assert any(map(occurs, sample(ps.presence_histories(oddities=oddities), 60)))
    others = ODDITIES - oddities - {"merged"}
    assert not any(map(occurs, sample(ps.presence_histories(oddities=others), 60)))


@given(ps.entries(), ps.entries(twins=False, max_keys=2, max_metas=2), ps.diffs(), ps.metas())
def test_well_formed_payloads(one: Any, small: Any, diff: Any, meta: Any) -> None:
    presence = PresenceMap()
    for payload in (one, small, {"m": {"metas": [meta]}}):
        presence.apply_state(payload)
    presence.apply_diff(diff)
    assert len(small) <= 2
    for entry in small.values():
        found = [meta["phx_ref"] for meta in entry["metas"]]
        assert len(found) == len(set(found)) <= 2


def test_twins_and_contents() -> None:
    twins = minimal(ps.entries(), lambda found: any(has_twins(entry["metas"]) for entry in found.values()))
    assert twins == {"ann": {"metas": [{"phx_ref": "r1"}, {"phx_ref": "r1"}]}}
    assert minimal(ps.entries(), lambda found: "user" in found.get("ann", {})) == {
        "ann": {"metas": [], "user": 1}
    }
    status = minimal(ps.metas(), lambda meta: meta.get("status") is not None)
    assert status == {"phx_ref": "r1", "status": "online"}
    mine = ps.metas(st.just("x"), st.just({"n": 1}))
    assert minimal(mine, lambda meta: True) == {"phx_ref": "x", "n": 1}
    assert minimal(ps.tracked_payloads(), lambda payload: len(payload) == 2) == {
        "activity": None,
        "status": "online",
    }


def has_twins(metas: list[dict[str, Any]]) -> bool:
    return len({meta["phx_ref"] for meta in metas}) < len(metas)


# ---------------------------------------------------------------------------------------------- planted bugs


class Roster(dict[str, list[dict[str, Any]]]):
    """A presence map of a newcomer. It is right."""

    def apply_state(self, payload: Any) -> None:
        self.clear()
        self.update(metas_of(payload))

    def apply_diff(self, payload: Any) -> None:
        self.join(payload["joins"])
        self.leave(payload["leaves"])

    def join(self, entries: Any) -> None:
        for key, entry in entries.items():
            joined = [meta["phx_ref"] for meta in entry["metas"]]
            kept = [meta for meta in self.get(key, []) if meta["phx_ref"] not in joined]
            self[key] = kept + entry["metas"]

    def leave(self, entries: Any) -> None:
        for key, entry in entries.items():
            left = [meta["phx_ref"] for meta in entry["metas"]]
            self[key] = [meta for meta in self.get(key, []) if meta["phx_ref"] not in left]
            if not self[key]:
                del self[key]


class LeavesFirst(Roster):
    def apply_diff(self, payload: Any) -> None:
        self.leave(payload["leaves"])
        self.join(payload["joins"])


class NoRefs(Roster):
    """Who joins is added, known or not."""

    def join(self, entries: Any) -> None:
        for key, entry in entries.items():
            self[key] = self.get(key, []) + entry["metas"]


class NoDevices(Roster):
    """Who leaves is gone, with all devices."""

    def leave(self, entries: Any) -> None:
        for key in entries:
            self.pop(key, None)


class OneDevice(Roster):
    def join(self, entries: Any) -> None:
        self.update(metas_of(entries))


class StateAdds(Roster):
    def apply_state(self, payload: Any) -> None:
        self.join(payload)


class UnknownRaises(Roster):
    """Who leaves must be known."""

    def leave(self, entries: Any) -> None:
        for key, metas in metas_of(entries).items():
            if key not in self:
                raise KeyError(key)
            super().leave({key: {"metas": metas}})


def is_wrong(roster: type[Roster], history: PresenceHistory) -> bool:
    mine = roster()
    try:
        return any(
            {key: sorted(meta["phx_ref"] for meta in metas) for key, metas in mine.items()}
            != {key: sorted(metas) for key, metas in truth.items()}
            for truth in told(history, mine)
        )
    except KeyError:
        return True


@given(ps.presence_histories())
def test_the_newcomer_can_be_right(history: PresenceHistory) -> None:
    assert not is_wrong(Roster, history)


@pytest.mark.long
@pytest.mark.parametrize("roster", [LeavesFirst, NoRefs, NoDevices, OneDevice, StateAdds, UnknownRaises])
def test_a_bug_is_shown_in_few_steps(roster: type[Roster]) -> None:
    example = minimal(ps.presence_histories(), lambda history: is_wrong(roster, history))
    assert len(example.steps) <= 3
    assert len(repr(example)) <= 300, repr(example)


def test_a_history_is_printed_as_a_program() -> None:
    history = PresenceHistory(
        (
            PresenceStep("presence_state", {"ann": {"metas": [{"phx_ref": "r1"}]}}, ("r1",)),
            PresenceStep(
                "presence_diff", {"joins": {}, "leaves": {"ann": {"metas": [{"phx_ref": "r1"}]}}}, ()
            ),
        )
    )
    assert history.truths == ({"ann": {"r1": {"phx_ref": "r1"}}}, {})
    assert pretty(history) == (
        "PresenceHistory((\n"
        "    PresenceStep('presence_state', {'ann': {'metas': [{'phx_ref': 'r1'}]}}, ('r1',)),\n"
        "    PresenceStep('presence_diff',"
        " {'joins': {}, 'leaves': {'ann': {'metas': [{'phx_ref': 'r1'}]}}}, ()),\n"
        "))"
    )


def test_a_failing_test_prints_it() -> None:
    @settings(database=None, phases=[Phase.generate, Phase.shrink])
    @given(ps.presence_histories(oddities=()))
    def test(history: PresenceHistory) -> None:
        assert not is_wrong(NoDevices, history)

    with pytest.raises(AssertionError) as caught:
        test()
    shown = "\n".join(caught.value.__notes__)
    assert "history=PresenceHistory((\n        PresenceStep('presence_state', " in shown
    assert shown.count("\n        PresenceStep(") <= 3
