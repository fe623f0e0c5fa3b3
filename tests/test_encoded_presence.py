"""Presence that is still JSON gives what it gives decoded, and most of a state is never decoded."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_entries import Entries, as_received, diff, entry, holding, meta, refs, snapshot
from presence_proto import json_text
from presence_proto.errors import RemoteProtocolError
from presence_proto.presence import EncodedDiff, PresenceChange, PresenceMap
from presence_proto.presence import only_meta as only_meta_of
from presence_proto.testing import strategies as ps


def encoded(value: Any) -> msgspec.Raw:
    return msgspec.Raw(value if isinstance(value, bytes) else json.dumps(value).encode())


def told(**state: dict[str, Any]) -> PresenceMap:
    """A map that holds this as JSON."""
    presence = PresenceMap()
    presence.apply_state(as_received("presence_state", state))
    return presence


def received(joins: Entries | None = None, leaves: Entries | None = None) -> EncodedDiff:
    payload = as_received("presence_diff", diff(joins, leaves))
    assert isinstance(payload, EncodedDiff)
    return payload


def outcome(presence: PresenceMap, event: str, payload: Any) -> Any:
    try:
        apply = presence.apply_state if event == "presence_state" else presence.apply_diff
        return apply(payload), snapshot(presence)
    except RemoteProtocolError:
        return snapshot(presence)


steps = st.lists(
    st.tuples(st.just("presence_state"), ps.entries()) | st.tuples(st.just("presence_diff"), ps.diffs()),
    max_size=6,
)


@given(steps, st.lists(st.booleans(), min_size=6, max_size=6))
def test_it_gives_what_it_gives_decoded(history: list[tuple[str, Any]], forms: list[bool]) -> None:
    """Some of a history as JSON or all of it decoded: the changes are the same, and so is what is held."""
    one, other = PresenceMap(max_keys=3, max_metas=3), PresenceMap(max_keys=3, max_metas=3)
    for (event, payload), as_json in zip(history, forms, strict=False):
        told = as_received(event, payload) if as_json else payload
        assert outcome(one, event, told) == outcome(other, event, payload)


# ---------------------------------------------------------------------------------------------- diffs


@pytest.mark.parametrize("other", [{}, {"zoe": entry("9")}], ids=["alone", "among others"])
def test_the_same_said_in_other_words(other: Entries) -> None:
    """A server may write its JSON differently when somebody goes: the ref decides."""
    presence = told(ann={"metas": [meta("1", n=1)]}, bo={"metas": [meta("2", n=1)]}, cy=entry("3"))
    leaves = {"ann": {"metas": [{"n": 1.0, "phx_ref": "1"}]}}
    (change, *_) = presence.apply_diff(received({"ann": entry("4"), **other}, leaves))
    assert change == PresenceChange("ann", "updated", (meta("4"),), (meta("1", n=1),))
    (change, *_) = presence.apply_diff(received(leaves={"bo": {"metas": [{"n": 2, "phx_ref": "2"}]}}))
    assert change == PresenceChange("bo", "left", (), (meta("2", n=1),))
    assert presence.apply_diff(received(leaves={"cy": {"metas": [meta("2")]}})) == ()
    assert refs(presence) == {"ann": ["4"], "cy": ["3"], **{key: ["9"] for key in other}}


def test_who_is_left_with_one_device_is_held_as_it_comes_next() -> None:
    presence = told(ann=entry("1", "2"))
    presence.apply_diff(received(leaves={"ann": entry("1")}))
    (change,) = presence.apply_diff(received({"ann": entry("3")}, {"ann": entry("2")}))
    assert change == PresenceChange("ann", "updated", (meta("3"),), (meta("2"),))
    assert presence["ann"][0] is not presence["ann"][0], "decoded each time"


def test_a_meta_is_decoded_each_time_and_what_is_done_to_it_stays_outside() -> None:
    presence = told(ann=entry("1"))
    mine: Any = presence["ann"][0]
    mine["phx_ref"] = "2"
    assert presence["ann"] == (meta("1"),)
    assert presence.latest("ann") == meta("1")


def test_a_diff_that_cannot_be_decoded_changes_nothing() -> None:
    presence = told(ann=entry("1"))
    for text in (b'{"metas":[{"phx_ref":"2","n":1e999}]}', b'{"metas":[{"phx_ref":"2","x":"\\x"}]}'):
        payload = EncodedDiff({"bo": msgspec.Raw(text)}, {"ann": encoded(entry("1"))})
        with pytest.raises(RemoteProtocolError, match="presence_diff joins is malformed"):
            presence.apply_diff(payload)
        payload = EncodedDiff({"bo": encoded(entry("2"))}, {"ann": msgspec.Raw(text)})
        with pytest.raises(RemoteProtocolError, match="presence_diff leaves is malformed"):
            presence.apply_diff(payload)
    assert refs(presence) == {"ann": ["1"]}


# ---------------------------------------------------------------------------------------------- states


def test_only_what_is_new_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    presence = told(ann=entry("1"), bob=entry("2", "3"), cy=entry("4"), di=entry("5"), ed=entry("6"))
    read = []
    decode, only_meta = json_text.decode, only_meta_of

    def watched(entry: msgspec.Raw, what: str, levels: int) -> Any:
        read.append(json.loads(bytes(entry)))
        return decode(entry, what, levels)

    def watched_too(entry: msgspec.Raw | bytes) -> Any:
        meta = only_meta(entry)
        if meta is not None and isinstance(entry, msgspec.Raw):
            read.append(json.loads(bytes(entry)))
        return meta

    monkeypatch.setattr(json_text, "decode", watched)
    monkeypatch.setattr("presence_proto.presence.only_meta", watched_too)
    changes = presence.apply_state(
        as_received(
            "presence_state",
            {
                "ann": entry("1"),
                "bob": entry("3", "2"),
                "cy": entry("4", "7"),
                "di": entry("8"),
                "flo": entry("9"),
            },
        )
    )
    # "bob" has several metas, so there is no JSON to compare with.
    assert read == [entry("3", "2"), entry("4", "7"), entry("8"), entry("9")]
    assert [(change.key, change.kind) for change in changes] == [
        ("cy", "updated"),
        ("di", "updated"),
        ("flo", "joined"),
        ("ed", "left"),
    ]


def test_a_map_that_holds_nothing_takes_all_of_it() -> None:
    presence = PresenceMap()
    assert presence.apply_state(encoded({"ann": entry("1", name="Ann")})) == (
        PresenceChange("ann", "joined", (meta("1"),), ()),
    )
    assert presence.extra("ann") == {"name": "Ann"}


def test_who_is_known_stays_as_they_are() -> None:
    for presence in (holding(ann={"metas": [meta("1", n=1)]}), told(ann={"metas": [meta("1", n=1)]})):
        assert presence.apply_state(encoded({"ann": {"metas": [meta("1", n=2)]}})) == ()
        assert presence.latest("ann") == meta("1", n=1)


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ([], "presence_state must be an object, not an array"),
        (b"{", "presence_state is malformed: it ends too early"),
        (b'{"new":{"metas":[{"phx_ref":"\\x"}]}}', "presence_state is malformed: not JSON at character 29"),
        (
            b'{"ann":{"metas":[{"phx_ref":"2","x":\\x}]}}',
            "presence_state is malformed: not JSON at character",
        ),
        ({"ann": []}, "presence_state: 'ann' must be an object with a list 'metas'"),
        ({"ann": {"metas": [{}]}}, "'ann': a meta must be an object with a string 'phx_ref'"),
        ({"ann": {"metas": [meta("1"), 1]}}, "'ann': a meta must be an object with a string 'phx_ref'"),
        ({"new": {"metas": 1}}, "presence_state: 'new' must be an object with a list 'metas'"),
        (
            b'{"new":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "presence_state is malformed: nested more than 99 levels deep",
        ),
        (
            b'{"ann":{"metas":[{"phx_ref":"2","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}}",
            "presence_state is malformed: nested more than 99 levels deep",
        ),
        (
            b'{"ann":{"metas":[{"phx_ref":"2","x":' + b"[" * 96 + b"]" * 96 + b"}]}}",
            "presence_state is malformed: nested more than 98 levels deep",
        ),
    ],
)
def test_a_malformed_one_changes_nothing(state: Any, fault: str) -> None:
    presence = holding(ann=entry("1"), bob=entry("2", "3"))
    before = snapshot(presence)
    with pytest.raises(RemoteProtocolError) as caught:
        presence.apply_state(encoded(state))
    assert fault in str(caught.value)
    assert snapshot(presence) == before


def test_what_is_malformed_from_the_start() -> None:
    deep = b'{"ann":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(RemoteProtocolError, match="presence_state is malformed: nested more than 99"):
        PresenceMap().apply_state(encoded(deep))


def test_the_limits_count_what_is_known() -> None:
    presence = PresenceMap(max_keys=3, max_metas=2)
    presence.apply_state({"ann": entry("1"), "bob": entry("2")})
    known: Entries = {"ann": entry("1"), "bob": entry("2")}
    with pytest.raises(RemoteProtocolError, match="more than 3 keys"):
        presence.apply_state(encoded({**known, "cy": entry("3"), "di": entry("4")}))
    with pytest.raises(RemoteProtocolError, match="'cy' would hold more than 2 metas"):
        presence.apply_state(encoded({**known, "cy": entry("3", "4", "5")}))
    assert list(presence) == ["ann", "bob"]
    presence.apply_state(encoded({**known, "cy": entry("3"), "nobody": entry()}))
    assert list(presence) == ["ann", "bob", "cy"]
