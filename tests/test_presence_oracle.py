"""The presence map beside phoenix.js itself: the same payloads, the same presence, joins and leaves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import strategies as st

import node_tools
from examples import sample
from presence_proto.presence import PresenceMap
from presence_proto.testing import strategies as ps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

pytestmark = [pytest.mark.interop, pytest.mark.long]

Step: TypeAlias = tuple[str, Any]  # its event and its payload
ByKey: TypeAlias = dict[str, list[dict[str, Any]]]

KEYS = ["alice", "bob", "carol", "7", "", "__proto__", "constructor", "é"]
# phoenix.js holds a ref twice that stands twice in one list. We do not, so that is left out.
ENTRIES = ps.entries(keys=st.sampled_from(KEYS), twins=False)

CONSISTENT = ps.presence_histories(users=KEYS, max_steps=30).map(
    lambda history: [(step.event, step.payload) for step in history.steps]
)
WILD = st.lists(
    st.tuples(st.just("presence_diff"), ps.diffs(ENTRIES)) | st.tuples(st.just("presence_state"), ENTRIES),
    max_size=15,
)


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


def new_in(metas: Iterable[Any], others: Iterable[Any]) -> list[Any]:
    """Those of the metas whose refs no other has."""
    refs = by_ref(others)
    return [meta for meta in metas if meta["phx_ref"] not in refs]


def metas_of(state: dict[str, Any]) -> ByKey:
    return {key: entry["metas"] for key, entry in state.items()}


def compare(history: list[Step], replayed: list[Any]) -> None:
    presence = PresenceMap()
    before: ByKey = {}
    for (kind, payload), theirs in zip(history, replayed, strict=True):
        changes = presence.apply_state(payload) if kind == "presence_state" else presence.apply_diff(payload)
        # A key without metas stays in phoenix.js until a leave.
        expected = {key: entry for key, entry in theirs["state"].items() if entry["metas"]}
        ours = {key: {"metas": [*metas], **presence.extra(key)} for key, metas in presence.items()}
        assert ours == expected
        after = metas_of(expected)
        # A meta that was replaced under its ref is in our changes, too, on both sides.
        joined = {change.key: new_in(change.joined, before.get(change.key, [])) for change in changes}
        assert {key: metas for key, metas in joined.items() if metas} == net(theirs["joins"], before, after)
        left = {change.key: new_in(change.left, after.get(change.key, [])) for change in changes}
        left = {key: metas for key, metas in left.items() if metas}
        reported = net(theirs["leaves"], after, before)
        assert {key: [*by_ref(metas)] for key, metas in left.items()} == {
            key: [*by_ref(metas)] for key, metas in reported.items()
        }
        # phoenix.js reports the metas of the message, we those that were held: wild histories differ there.
        held = {key: by_ref(metas) for key, metas in before.items()}
        assert all(meta == held[key][meta["phx_ref"]] for key, metas in left.items() for meta in metas)
        before = after


@pytest.mark.parametrize("steps", [CONSISTENT, WILD], ids=["consistent", "wild"])
def test_phoenix_js_does_the_same(steps: st.SearchStrategy[list[Step]]) -> None:
    histories = sample(steps, 400)
    replays = json.loads(node_tools.run_script("presence_oracle.mjs", json.dumps(histories)))
    assert len(replays) == len(histories)
    for history, replayed in zip(histories, replays, strict=True):
        compare(history, replayed)
    assert sum(len(history) for history in histories) > 1000
    assert any(step["joins"] and step["leaves"] for replayed in replays for step in replayed)
