"""Presence payloads that are well-formed, and no more: no server need ever say them.

For what a server could have said in this order, see `presence_histories`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from hypothesis import strategies as st

from presence_proto.events import UserStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

Entries: TypeAlias = dict[str, dict[str, Any]]
"""The payload of a `presence_state`, or one side of a diff: `{key: {"metas": [{"phx_ref": ..., ...}]}}`."""

_KEYS = st.sampled_from(["ann", "bob", "cy", "7", "", "__proto__"])
_REFS = st.sampled_from(["r1", "r2", "r3", "r4", "r5", "r6"])
# One draw, where a strategy for each field takes six.
_TRACKED = st.sampled_from(
    [
        {**status, **activity}
        for activity in ({}, {"activity": None}, {"activity": "Chess"}, {"activity": "Snake"})
        for status in ({}, *({"status": status.value} for status in UserStatus))
    ]
)


@st.composite
def tracked_payloads(draw: st.DrawFn) -> dict[str, Any]:
    """What a client may track: nothing, or a status, or an activity, or both."""
    return dict(draw(_TRACKED))


@st.composite
def metas(
    draw: st.DrawFn,
    refs: st.SearchStrategy[str] = _REFS,
    fields: st.SearchStrategy[Mapping[str, Any]] = _TRACKED,
) -> dict[str, Any]:
    """One meta: a `phx_ref` of `refs`, which are few, so that they meet, and `fields`."""
    return {"phx_ref": draw(refs), **draw(fields)}


def entries(
    *,
    keys: st.SearchStrategy[str] = _KEYS,
    metas: st.SearchStrategy[dict[str, Any]] | None = None,
    max_keys: int = 4,
    max_metas: int = 4,
    twins: bool = True,
) -> st.SearchStrategy[Entries]:
    """Any refs in any place: one ref with several keys or contents, no metas at all, a field beside `metas`.

    `metas` are any if not given. `twins`: a ref may stand twice in one list.
    """
    of_one = st.lists(
        _METAS if metas is None else metas,
        max_size=max_metas,
        unique_by=None if twins else lambda meta: str(meta["phx_ref"]),
    )
    entry = st.fixed_dictionaries({"metas": of_one}, optional={"user": st.integers(1, 2)})
    return st.dictionaries(keys, entry, max_size=max_keys)


def diffs(entries: st.SearchStrategy[Entries] | None = None) -> st.SearchStrategy[dict[str, Entries]]:
    """The payload of a `presence_diff`, with `entries` on both sides, any if not given."""
    entries = _ENTRIES if entries is None else entries
    return st.fixed_dictionaries({"joins": entries, "leaves": entries})


_METAS = metas()
_ENTRIES = entries()
