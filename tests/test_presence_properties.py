"""The presence map beside a naive model, the laws of its changes, and what a diff costs."""

from __future__ import annotations

import sys
import tracemalloc
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_entries import Entries, diff, entry, holding, meta, refs, snapshot
from presence_proto.errors import RemoteProtocolError
from presence_proto.presence import PresenceChange, PresenceMap

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# ---------------------------------------------------------------------------------------------- a naive model


class Model:
    """`Presence` of phoenix.js 1.8.16, but for two things: no ref is held twice, and no key without metas."""

    def __init__(self) -> None:
        self.state: Entries = {}

    def sync_state(self, new: Entries) -> None:
        joins, leaves = {}, {}
        for key, present in self.state.items():
            if key not in new:
                leaves[key] = present
        for key, present in new.items():
            if key in self.state:
                held = {meta["phx_ref"] for meta in self.state[key]["metas"]}
                sent = {meta["phx_ref"] for meta in present["metas"]}
                joined = [meta for meta in present["metas"] if meta["phx_ref"] not in held]
                left = [meta for meta in self.state[key]["metas"] if meta["phx_ref"] not in sent]
                if joined:
                    joins[key] = {**present, "metas": joined}
                if left:
                    leaves[key] = {**self.state[key], "metas": left}
            else:
                joins[key] = present
        self.sync_diff(deepcopy({"joins": joins, "leaves": leaves}))

    def sync_diff(self, diff: dict[str, Entries]) -> None:
        for key, present in diff["joins"].items():
            joined = {meta["phx_ref"] for meta in present["metas"]}
            current = self.state.get(key, {"metas": []})["metas"]
            kept = [meta for meta in current if meta["phx_ref"] not in joined]
            self.state[key] = {**present, "metas": kept + without_twins(present["metas"])}
        for key, present in diff["leaves"].items():
            if key in self.state:
                left = {meta["phx_ref"] for meta in present["metas"]}
                current = self.state[key]["metas"]
                self.state[key]["metas"] = [meta for meta in current if meta["phx_ref"] not in left]
        self.state = {key: present for key, present in self.state.items() if present["metas"]}


def without_twins(metas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        meta
        for index, meta in enumerate(metas)
        if meta["phx_ref"] not in [later["phx_ref"] for later in metas[index + 1 :]]
    ]


keys = st.sampled_from(["a", "b", "c", "", "__proto__", "7"])
metas = st.builds(meta, st.sampled_from("123456"), n=st.sampled_from([0, 0, 0, 1]))
entries = st.dictionaries(
    keys,
    st.builds(
        lambda metas, extra: {"metas": metas, **extra},
        st.lists(metas, max_size=4),
        st.just({}) | st.just({}) | st.just({"user": 1}) | st.just({"user": 2}),
    ),
    max_size=4,
)
payloads = st.tuples(st.just("state"), entries) | st.tuples(
    st.just("diff"), st.builds(diff, entries, entries)
)


def apply(presence: PresenceMap, kind: str, payload: Any) -> tuple[PresenceChange, ...]:
    return presence.apply_state(payload) if kind == "state" else presence.apply_diff(payload)


@given(st.lists(payloads, max_size=8))
def test_any_history_gives_what_the_model_gives(history: list[tuple[str, Any]]) -> None:
    presence, model = PresenceMap(), Model()
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


@given(st.lists(payloads, max_size=8))
def test_the_changes_are_the_difference(history: list[tuple[str, Any]]) -> None:
    presence = PresenceMap()
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
            assert change.joined == tuple(meta for ref, meta in new.items() if ref not in old)
            assert sorted(meta["phx_ref"] for meta in change.left) == sorted(old.keys() - new.keys())
            assert all(old[meta["phx_ref"]] == meta for meta in change.left)


@given(st.lists(payloads, max_size=5), payloads)
def test_everything_is_idempotent(history: list[tuple[str, Any]], last: tuple[str, Any]) -> None:
    presence = PresenceMap()
    for kind, payload in [*history, last]:
        apply(presence, kind, payload)
    once = snapshot(presence)
    assert apply(presence, *last) == ()
    assert snapshot(presence) == once


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["metas", "phx_ref", "joins", "leaves", "a"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(entries, json_values | st.builds(diff, json_values, json_values))
def test_any_json_is_applied_or_refused_without_a_trace(state: Entries, payload: Any) -> None:
    presence = PresenceMap(max_keys=4, max_metas=4)
    presence.apply_state(state)
    for method in (presence.apply_diff, presence.apply_state):
        before = snapshot(presence)
        try:
            method(payload)
        except RemoteProtocolError:
            assert snapshot(presence) == before


@given(entries, st.builds(diff, entries, entries))
def test_limits_are_exact(state: Entries, payload: dict[str, Entries]) -> None:
    free, limit = PresenceMap(), PresenceMap(max_keys=3, max_metas=3)
    for kind, step in (("state", state), ("diff", payload)):
        before = snapshot(limit)
        apply(free, kind, step)
        if len(free) > 3 or any(len(metas) > 3 for metas in free.values()):
            with pytest.raises(RemoteProtocolError, match=r"\((max_keys|max_metas)\)"):
                apply(limit, kind, step)
            assert snapshot(limit) == before
            return
        apply(limit, kind, step)
        assert snapshot(limit) == snapshot(free)


# --------------------------------------------------------------------------------------------- a real history


class Server:
    """Presence on a server: every join gets a ref of its own, and every change is one diff."""

    def __init__(self) -> None:
        self.state: Entries = {}
        self.last = 0

    def act(self, key: str, action: str) -> dict[str, Entries]:
        held = self.state.setdefault(key, entry())["metas"]
        joins, leaves = {}, {}
        if held and action != "join":
            leaves[key] = {"metas": [held.pop(0)]}
        if action == "join" or (leaves and action == "update"):
            self.last += 1
            joins[key] = entry(f"ref{self.last}")
            held += joins[key]["metas"]
        if not held:
            del self.state[key]
        return deepcopy(diff(joins, leaves))


actions = st.tuples(st.sampled_from("abcd"), st.sampled_from(["join", "update", "leave"]))


@given(st.lists(actions, max_size=20), st.data())
def test_a_state_and_diffs_that_overlap_it_lead_to_the_roster(
    history: list[tuple[str, str]], data: st.DataObject
) -> None:
    server = Server()
    states, diffs = [deepcopy(server.state)], []
    for key, action in history:
        diffs.append(server.act(key, action))
        states.append(deepcopy(server.state))
    at = data.draw(st.integers(0, len(history)), label="when the state was taken")
    since = data.draw(st.integers(0, at), label="the first diff that arrives")
    presence = PresenceMap()
    presence.apply_state(states[at])
    for payload in diffs[since:]:
        presence.apply_diff(payload)
    assert {key: sorted(held) for key, held in refs(presence).items()} == {
        key: sorted(meta["phx_ref"] for meta in present["metas"]) for key, present in server.state.items()
    }


# ---------------------------------------------------------------------------------------------- cost


def crowd(size: int) -> PresenceMap:
    presence = PresenceMap()
    presence.apply_state({f"user{number}": entry(f"ref{number}") for number in range(size)})
    return presence


def operations(call: Callable[[], object]) -> int:
    """How many bytecode instructions, lines and calls `call` runs."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += 1
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(previous)
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
