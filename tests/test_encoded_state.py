"""A state that is still JSON gives what it gives decoded, and most of it is never decoded."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import msgspec
import pytest
from hypothesis import given

from presence_entries import Entries, entry, holding, meta, snapshot
from presence_proto import encoded_state
from presence_proto.errors import RemoteProtocolError
from presence_proto.presence import PresenceChange, PresenceMap
from presence_proto.testing import strategies as ps


def encoded(value: Any) -> msgspec.Raw:
    return msgspec.Raw(value if isinstance(value, bytes) else json.dumps(value).encode())


def outcome(presence: PresenceMap, state: Any) -> Any:
    try:
        return presence.apply_state(state), snapshot(presence)
    except RemoteProtocolError:
        return snapshot(presence)


@given(ps.entries(), ps.entries())
def test_it_gives_what_it_gives_decoded(before: Entries, state: Entries) -> None:
    one, other = PresenceMap(max_metas=3), PresenceMap(max_metas=3)
    outcome(one, deepcopy(before)), outcome(other, deepcopy(before))
    assert outcome(one, encoded(state)) == outcome(other, deepcopy(state))


def test_only_the_refs_of_what_is_held_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    presence = holding(ann=entry("1"), bob=entry("2", "3"), cy=entry("4"), di=entry("5"), ed=entry("6"))
    read = []
    decode = encoded_state.decode

    def watched(state: msgspec.Raw) -> Any:
        read.append(json.loads(bytes(state)))
        return decode(state)

    monkeypatch.setattr(encoded_state, "decode", watched)
    changes = presence.apply_state(
        encoded(
            {
                "ann": entry("1"),
                "bob": entry("3", "2"),
                "cy": entry("4", "7"),
                "di": entry("8"),
                "flo": entry("9"),
            }
        )
    )
    assert read == [entry("4", "7"), entry("8"), entry("9")]
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
    presence = holding(ann={"metas": [meta("1", status="away")]})
    before = presence.latest("ann")
    assert presence.apply_state(encoded({"ann": {"metas": [meta("1", status="online")]}})) == ()
    assert presence.latest("ann") is before


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ([], "presence_state is malformed: Expected `object`, got `array`"),
        (b"{", "presence_state is malformed: Input data was truncated"),
        (b'{"new":{"metas":[{"phx_ref":"\\x"}]}}', "presence_state is malformed: JSON is malformed"),
        (b'{"ann":{"metas":[{"phx_ref":"2","x":\\x}]}}', "presence_state is malformed: JSON is malformed"),
        ({"ann": []}, "presence_state: 'ann' must be an object with a list 'metas'"),
        ({"ann": {"metas": [{}]}}, "'ann': a meta must be an object with a string 'phx_ref'"),
        ({"ann": {"metas": [meta("1"), 1]}}, "'ann': a meta must be an object with a string 'phx_ref'"),
        ({"new": {"metas": 1}}, "presence_state: 'new' must be an object with a list 'metas'"),
        (
            b'{"new":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "presence_state is malformed: nested too deeply",
        ),
        (
            b'{"ann":{"metas":[{"phx_ref":"2","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}}",
            "nested too deeply",
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
    with pytest.raises(RemoteProtocolError, match="presence_state is malformed: nested too deeply"):
        PresenceMap().apply_state(encoded(b"[" * 100_000 + b"]" * 100_000))
    with pytest.raises(RemoteProtocolError, match="presence_state must be an object, not list"):
        PresenceMap().apply_state(encoded([]))


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
