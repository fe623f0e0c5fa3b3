"""The presence map beside a naive model, the laws of its changes, and what a diff costs."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_entries import Entries, FromJson, by_ref, diff, entry, holding, snapshot, told
from presence_model import Model
from presence_proto.errors import RemoteProtocolError
from presence_proto.presence import PresenceChange, PresenceMap
from presence_proto.testing import strategies as ps
from presence_proto.testing.strategies import PresenceHistory

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

in_both_forms = pytest.mark.parametrize("map_type", [PresenceMap, FromJson], ids=["decoded", "JSON"])
payloads = st.tuples(st.just("state"), ps.entries()) | st.tuples(st.just("diff"), ps.diffs())


def apply(presence: PresenceMap, kind: str, payload: Any) -> tuple[PresenceChange, ...]:
    return presence.apply_state(payload) if kind == "state" else presence.apply_diff(payload)


@in_both_forms
@given(st.lists(payloads, max_size=8))
def test_any_history_gives_what_the_model_gives(
    map_type: type[PresenceMap], history: list[tuple[str, Any]]
) -> None:
    presence, model = map_type(), Model()
    for kind, payload in history:
        untouched = deepcopy(payload)
        apply(presence, kind, payload)
        assert payload == untouched
        if kind == "state":
            model.sync_state(deepcopy(payload))
        else:
            model.sync_diff(deepcopy(payload))
        assert snapshot(presence) == model.state
        assert {key: presence.latest(key) for key in presence} == {
            key: present["metas"][-1] for key, present in model.state.items()
        }


@in_both_forms
@given(st.lists(payloads, max_size=8))
def test_the_changes_are_the_difference(map_type: type[PresenceMap], history: list[tuple[str, Any]]) -> None:
    presence = map_type()
    for kind, payload in history:
        before = snapshot(presence)
        changes = apply(presence, kind, payload)
        after = snapshot(presence)
        assert [change.key for change in changes] == list(dict.fromkeys(change.key for change in changes))
        assert {change.key for change in changes} == {
            key for key in before.keys() | after.keys() if before.get(key) != after.get(key)
        }
        for change in changes:
            old = {meta["phx_ref"]: meta for meta in before.get(change.key, entry())["metas"]}
            new = {meta["phx_ref"]: meta for meta in after.get(change.key, entry())["metas"]}
            assert change.kind == ("updated" if old and new else "joined" if new else "left")
            left = [old.pop(meta["phx_ref"]) for meta in change.left]
            assert repr(left) == repr([*change.left]), "what leaves is what was held"
            folded = [*old.values(), *change.joined]
            assert repr(folded) == repr([*new.values()]), "what was held and the change give what is held"


@in_both_forms
@given(st.lists(payloads, max_size=5), payloads)
def test_everything_is_idempotent(
    map_type: type[PresenceMap], history: list[tuple[str, Any]], last: tuple[str, Any]
) -> None:
    presence = map_type()
    for kind, payload in [*history, last]:
        apply(presence, kind, payload)
    once = snapshot(presence)
    assert apply(presence, *last) == ()
    assert snapshot(presence) == once


json_values = ps.json_values(
    keys=st.sampled_from(["metas", "phx_ref", "joins", "leaves", "a"]), max_leaves=12
)


@in_both_forms
@given(ps.entries(), json_values | st.builds(diff, json_values, json_values))
def test_any_json_is_applied_or_refused_without_a_trace(
    map_type: type[PresenceMap], state: Entries, payload: Any
) -> None:
    presence = map_type(max_keys=4, max_metas=4)
    presence.apply_state(state)
    for method in (presence.apply_diff, presence.apply_state):
        before = snapshot(presence)
        try:
            method(payload)
        except RemoteProtocolError:
            assert snapshot(presence) == before


@in_both_forms
@given(st.lists(payloads, max_size=6))
def test_limits_are_exact(map_type: type[PresenceMap], history: list[tuple[str, Any]]) -> None:
    limit = map_type(max_keys=3, max_metas=3)
    for number, (kind, step) in enumerate(history):
        before, free = snapshot(limit), map_type()
        free.apply_state({key: dict(value) for key, value in before.items()})
        apply(free, kind, step)
        if len(free) > 3 or any(len(metas) > 3 for metas in free.values()):
            with pytest.raises(RemoteProtocolError, match=r"\((max_keys|max_metas)\)"):
                apply(limit, kind, step)
            assert snapshot(limit) == before, f"step {number}"
            continue
        apply(limit, kind, step)
        assert snapshot(limit) == snapshot(free)


# --------------------------------------------------------------------------------------------- a real history


@in_both_forms
@given(ps.presence_histories())
def test_what_a_server_tells_leads_to_what_is_true(
    map_type: type[PresenceMap], history: PresenceHistory
) -> None:
    """Every device, every node, whatever came twice, early, late, or was never told before."""
    presence, truth = map_type(), None
    for truth in told(history, presence):
        assert by_ref(presence) == truth
    assert truth == history.truth


# ---------------------------------------------------------------------------------------------- cost


def crowd(size: int, map_type: type[PresenceMap] = PresenceMap) -> PresenceMap:
    presence = map_type()
    presence.apply_state({f"user{number}": entry(f"ref{number}") for number in range(size)})
    return presence


def nothing() -> None:
    pass


def operations(call: Callable[[], object]) -> int:
    """How many bytecode instructions, lines and calls `call` runs."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += 1
        return trace

    previous = sys.gettrace()
    gc.disable()  # a collection calls who wants to know of it, and Hypothesis does
    try:
        for traced in (nothing, call):  # Python 3.12 tells of instructions only when it has traced before
            count = 0
            sys.settrace(trace)
            traced()
            sys.settrace(previous)
    finally:
        sys.settrace(previous)
        gc.enable()
    return count


def memory(call: Callable[[], object]) -> int:
    """How many bytes `call` needs at its worst moment."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


DIFFS = [
    diff({"new": entry("new")}),
    diff(leaves={"user5": entry("ref5")}),
    diff({"user5": entry("new")}, {"user5": entry("ref5")}),
    diff({"user5": entry("ref5")}),
    diff({"user5": entry("new", user="extra")}),
]


@pytest.mark.parametrize("payload", DIFFS)
def test_the_cost_of_a_diff_does_not_grow_with_the_roster(payload: Any) -> None:
    few, many = crowd(10), crowd(10_000)
    assert operations(lambda: few.apply_diff(payload)) == operations(lambda: many.apply_diff(payload)) > 30
    # Nor is there a hidden copy inside one instruction: that of 10,000 keys would be far larger.
    few, many = crowd(10), crowd(10_000)
    assert memory(lambda: many.apply_diff(payload)) < memory(lambda: few.apply_diff(payload)) + 5_000


@pytest.mark.parametrize("payload", DIFFS)
def test_the_cost_of_a_diff_does_not_grow_with_the_devices(payload: Any) -> None:
    def devices(size: int) -> PresenceMap:
        return holding(user5=entry("ref5", *(str(number) for number in range(size))))

    few, many = devices(20), devices(9_000)
    assert operations(lambda: few.apply_diff(payload)) == operations(lambda: many.apply_diff(payload)) > 30
    assert operations(lambda: few.latest("user5")) == operations(lambda: many.latest("user5"))
