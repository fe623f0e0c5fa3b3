"""The presence map: examples of every rule, what is refused, and the limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

import presence_entries
from presence_entries import Entries, FromJson, diff, entry, holding, meta, refs, snapshot
from presence_proto.errors import RemoteProtocolError
from presence_proto.presence import PresenceChange, PresenceMap

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(params=[PresenceMap, FromJson], ids=["decoded", "JSON"], autouse=True)
def map_type(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[PresenceMap]:
    """Every example is told twice: decoded, and as it comes from a server."""
    monkeypatch.setitem(globals(), "PresenceMap", request.param)
    monkeypatch.setattr(presence_entries, "PresenceMap", request.param)
    return request.param


# ---------------------------------------------------------------------------------------------- diffs


def test_a_new_key_joins() -> None:
    presence = PresenceMap()
    changes = presence.apply_diff(diff({"alice": entry("1", "2")}))
    assert changes == (PresenceChange("alice", "joined", (meta("1"), meta("2")), ()),)
    assert snapshot(presence) == {"alice": entry("1", "2")}


def test_a_second_device_is_an_update_and_the_latest() -> None:
    presence = holding(alice=entry("1"))
    assert presence.apply_diff(diff({"alice": entry("2")})) == (
        PresenceChange("alice", "updated", (meta("2"),), ()),
    )
    assert refs(presence) == {"alice": ["1", "2"]}
    assert presence.latest("alice") == meta("2")


def test_one_device_leaves_and_then_the_last() -> None:
    presence = holding(alice=entry("1", "2"))
    assert presence.apply_diff(diff(leaves={"alice": entry("2")})) == (
        PresenceChange("alice", "updated", (), (meta("2"),)),
    )
    assert presence.latest("alice") == meta("1")
    assert presence.apply_diff(diff(leaves={"alice": entry("1")})) == (
        PresenceChange("alice", "left", (), (meta("1"),)),
    )
    assert not presence


def test_a_key_on_both_sides_is_one_update() -> None:
    presence = holding(alice=entry("1", "2"))
    changes = presence.apply_diff(diff({"alice": entry("3")}, {"alice": entry("1")}))
    assert changes == (PresenceChange("alice", "updated", (meta("3"),), (meta("1"),)),)
    assert refs(presence) == {"alice": ["2", "3"]}


def test_the_last_meta_replaced_is_an_update() -> None:
    presence = holding(alice=entry("1"))
    changes = presence.apply_diff(diff({"alice": entry("2")}, {"alice": entry("1")}))
    assert changes == (PresenceChange("alice", "updated", (meta("2"),), (meta("1"),)),)


def test_several_keys_change_in_the_order_joins_then_leaves() -> None:
    presence = holding(alice=entry("1"), bob=entry("2"))
    changes = presence.apply_diff(
        diff({"carol": entry("3"), "bob": entry("4")}, {"alice": entry("1"), "bob": entry("2")})
    )
    assert [(change.key, change.kind) for change in changes] == [
        ("carol", "joined"),
        ("bob", "updated"),
        ("alice", "left"),
    ]


def test_a_ref_on_both_sides_is_gone() -> None:
    presence = PresenceMap()
    both = diff({"alice": entry("1")}, {"alice": entry("1")})
    assert presence.apply_diff(both) == ()
    assert not presence
    presence = holding(alice=entry("1", "2"))
    assert presence.apply_diff(both) == (PresenceChange("alice", "updated", (), (meta("1"),)),)
    presence = holding(alice=entry("1"))
    assert presence.apply_diff(both) == (PresenceChange("alice", "left", (), (meta("1"),)),)
    assert not presence


def test_part_of_what_joins_leaves_at_once() -> None:
    presence = PresenceMap()
    changes = presence.apply_diff(diff({"alice": entry("1", "2")}, {"alice": entry("1")}))
    assert changes == (PresenceChange("alice", "joined", (meta("2"),), ()),)


def test_leaving_reports_the_meta_that_was_held() -> None:
    presence = holding(alice={"metas": [meta("1", name="Alice")]})
    [change] = presence.apply_diff(diff(leaves={"alice": entry("1")}))
    assert change.left == (meta("1", name="Alice"),)


@pytest.mark.parametrize("leaves", [{"bob": entry("1")}, {"alice": entry("9")}, {"alice": entry()}])
def test_an_unknown_leave_is_nothing(leaves: Entries) -> None:
    presence = holding(alice=entry("1"))
    assert presence.apply_diff(diff(leaves=leaves)) == ()
    assert snapshot(presence) == {"alice": entry("1")}


def test_an_empty_diff_is_nothing() -> None:
    presence = holding(alice=entry("1"))
    assert presence.apply_diff(diff()) == ()
    assert presence.apply_diff(diff({"bob": entry(), "alice": entry()}, {"bob": entry()})) == ()
    assert snapshot(presence) == {"alice": entry("1")}


def test_a_join_of_what_is_held_is_nothing() -> None:
    presence = holding(alice=entry("1"), bob=entry("2", "3"))
    assert presence.apply_diff(diff({"alice": entry("1"), "bob": entry("3")})) == ()
    assert presence.apply_diff(diff({"bob": entry("2", "3")})) == ()
    assert snapshot(presence) == {"alice": entry("1"), "bob": entry("2", "3")}


def test_a_join_of_what_is_held_replaces_it_and_moves_it_to_the_end() -> None:
    presence = holding(alice=entry("1", "2"))
    moved = PresenceChange("alice", "updated", (meta("1"),), (meta("1"),))
    assert presence.apply_diff(diff({"alice": entry("1")})) == (moved,)
    assert refs(presence) == {"alice": ["2", "1"]}
    held = meta("1")
    for content in ({"name": "Alice"}, {"n": 1}, {"n": True}, {"n": 1.0}):  # all of them differ, in JSON
        newer = meta("1", **content)
        changes = presence.apply_diff(diff({"alice": {"metas": [newer]}}))
        assert repr(changes) == repr((PresenceChange("alice", "updated", (newer,), (held,)),))
        assert repr(presence["alice"]) == repr((meta("2"), newer))
        held = newer
    assert presence.apply_diff(diff({"alice": {"metas": [held]}})) == ()


def test_a_join_of_old_and_new_reports_both() -> None:
    presence = holding(alice=entry("1", "2"))
    changes = presence.apply_diff(diff({"alice": entry("3", "1")}, {"alice": entry("9")}))
    assert changes == (PresenceChange("alice", "updated", (meta("3"), meta("1")), (meta("1"),)),)
    assert refs(presence) == {"alice": ["2", "3", "1"]}


def test_the_last_of_a_ref_that_stands_twice_counts() -> None:
    presence = PresenceMap()
    twice = {"metas": [meta("1", n=1), meta("2"), meta("1", n=2)]}
    [change] = presence.apply_diff(diff({"alice": twice}))
    assert change.joined == presence["alice"] == (meta("2"), meta("1", n=2))
    assert presence.apply_state({"alice": twice}) == ()


# ---------------------------------------------------------------------------------------------- states


def test_the_first_state_joins_everybody() -> None:
    presence = PresenceMap()
    changes = presence.apply_state({"alice": entry("1", "2"), "bob": entry("3"), "nobody": entry()})
    assert changes == (
        PresenceChange("alice", "joined", (meta("1"), meta("2")), ()),
        PresenceChange("bob", "joined", (meta("3"),), ()),
    )
    assert refs(presence) == {"alice": ["1", "2"], "bob": ["3"]}


def test_a_later_state_gives_the_differences() -> None:
    presence = holding(alice=entry("1"), bob=entry("2", "3"), carol=entry("4"), dave=entry("5", "6"))
    changes = presence.apply_state(
        {"erin": entry("7"), "bob": entry("8", "3"), "dave": entry("6"), "carol": entry("4")}
    )
    assert changes == (
        PresenceChange("erin", "joined", (meta("7"),), ()),
        PresenceChange("bob", "updated", (meta("8"),), (meta("2"),)),
        PresenceChange("dave", "updated", (), (meta("5"),)),
        PresenceChange("alice", "left", (), (meta("1"),)),
    )
    # What both hold stays where it is.
    assert refs(presence) == {"bob": ["3", "8"], "carol": ["4"], "dave": ["6"], "erin": ["7"]}


def test_a_key_whose_metas_are_all_new_is_an_update() -> None:
    presence = holding(alice=entry("1"))
    assert presence.apply_state({"alice": entry("2")}) == (
        PresenceChange("alice", "updated", (meta("2"),), (meta("1"),)),
    )


@pytest.mark.parametrize("state", [{}, {"alice": entry()}])
def test_a_state_without_a_key_ends_it(state: Entries) -> None:
    presence = holding(alice=entry("1"))
    assert presence.apply_state(state) == (PresenceChange("alice", "left", (), (meta("1"),)),)
    assert not presence


def test_what_a_state_repeats_is_neither_moved_nor_replaced() -> None:
    presence = holding(alice=entry("1", "2", user="Alice"))
    assert presence.apply_state({"alice": {"metas": [meta("2", n=1), meta("1", n=1)], "user": "A"}}) == ()
    assert snapshot(presence) == {"alice": entry("1", "2", user="Alice")}


# ---------------------------------------------------------------------------------------------- extra fields


def test_extra_fields_come_with_joins() -> None:
    presence = holding(alice=entry("1", user={"name": "Alice"}, age=7), bob=entry("2"))
    assert presence.extra("alice") == {"user": {"name": "Alice"}, "age": 7}
    assert presence.extra("bob") == {}
    presence.apply_diff(diff({"bob": entry("3", user="Bob")}))
    assert presence.extra("bob") == {"user": "Bob"}
    presence.apply_diff(diff({"carol": entry("5", user="Carol")}))
    assert presence.extra("carol") == {"user": "Carol"}


def test_extra_fields_are_replaced_by_a_join_and_kept_by_a_leave() -> None:
    presence = holding(alice=entry("1", "2", user="Alice"))
    presence.apply_diff(diff(leaves={"alice": entry("1", user="X")}))
    assert presence.extra("alice") == {"user": "Alice"}
    presence.apply_diff(diff({"alice": entry("3")}))
    assert presence.extra("alice") == {}


def test_extra_fields_end_with_the_key() -> None:
    presence = holding(alice=entry("1", user="Alice"), bob=entry("2", user="Bob"))
    presence.apply_diff(diff(leaves={"alice": entry("1")}))
    presence.apply_state({})
    presence.apply_diff(diff({"alice": entry("3"), "bob": entry("4")}))
    assert presence.extra("alice") == presence.extra("bob") == {}


def test_extra_fields_alone_are_an_update() -> None:
    presence = holding(alice=entry("1", user="Alice"))
    assert presence.apply_diff(diff({"alice": entry("1", user="Alice")})) == ()
    changed = (PresenceChange("alice", "updated", (), ()),)
    assert presence.apply_diff(diff({"alice": entry("1", user="Al")})) == changed
    assert presence.apply_diff(diff({"alice": entry("1")})) == changed
    assert presence.apply_diff(diff({"alice": entry("1")})) == ()


# ---------------------------------------------------------------------------------------------- a mapping


def test_it_is_a_mapping() -> None:
    presence = holding(alice=entry("1", "2"), bob=entry("3"))
    assert isinstance(presence, Mapping)
    assert len(presence) == 2
    assert list(presence) == ["alice", "bob"]
    assert presence["alice"] == (meta("1"), meta("2"))
    assert "alice" in presence
    assert "carol" not in presence
    assert presence.get("carol") is None
    assert presence == {"alice": (meta("1"), meta("2")), "bob": (meta("3"),)}
    assert repr(presence) == "<PresenceMap: 2 keys, 3 metas>"


@pytest.mark.parametrize("get", [PresenceMap.__getitem__, PresenceMap.latest, PresenceMap.extra])
def test_an_unknown_key(get: Callable[[PresenceMap, str], object]) -> None:
    with pytest.raises(KeyError, match="carol"):
        get(holding(alice=entry("1")), "carol")


def test_it_is_read_only() -> None:
    presence: Any = holding(alice=entry("1"))
    with pytest.raises(TypeError):
        presence["bob"] = ()
    with pytest.raises(TypeError):
        del presence["alice"]
    with pytest.raises(TypeError):
        presence.extra("alice")["user"] = "Alice"
    with pytest.raises(AttributeError):
        presence.other = 1
    assert refs(presence) == {"alice": ["1"]}


def test_metas_that_came_decoded_are_the_dicts_that_were_received(map_type: type[PresenceMap]) -> None:
    received = meta("1", rooms=["lobby"])
    presence = PresenceMap()
    [change] = presence.apply_diff(diff({"alice": {"metas": [received]}}))
    assert presence["alice"][0] == presence.latest("alice") == change.joined[0] == received
    if map_type is not FromJson:
        assert presence["alice"][0] is presence.latest("alice") is change.joined[0] is received


# ---------------------------------------------------------------------------------------------- malformed

MALFORMED_ENTRIES: list[tuple[Any, str]] = [
    (None, "{} must be an object, not NoneType"),
    ([], "{} must be an object, not list"),
    ("", "{} must be an object, not str"),
    (0, "{} must be an object, not int"),
    ({"bob": None}, "{}: 'bob' must be an object with a list 'metas'"),
    ({"bob": []}, "{}: 'bob' must be an object with a list 'metas'"),
    ({"bob": {}}, "{}: 'bob' must be an object with a list 'metas'"),
    ({"bob": {"metas": {}}}, "{}: 'bob' must be an object with a list 'metas'"),
    ({"bob": {"metas": ""}}, "{}: 'bob' must be an object with a list 'metas'"),
    ({"bob": {"metas": None}}, "{}: 'bob' must be an object with a list 'metas'"),
    ({"bob": {"metas": [None]}}, "{}: 'bob': a meta must be an object with a string 'phx_ref'"),
    ({"bob": {"metas": ["phx_ref"]}}, "{}: 'bob': a meta must be an object with a string 'phx_ref'"),
    ({"bob": {"metas": [{}]}}, "{}: 'bob': a meta must be an object with a string 'phx_ref'"),
    ({"bob": {"metas": [meta("1"), {"phx_ref": 5}]}}, "{}: 'bob': a meta must be an object with a string"),
    ({"bob": {"metas": [{"phx_ref": None}]}}, "{}: 'bob': a meta must be an object with a string 'phx_ref'"),
    ({"bob": {"metas": [{"phx_ref": ["secret"]}]}}, "{}: 'bob': a meta must be an object with a string"),
    ({"carol": entry("7"), "x" * 10_000: "secret" * 1000}, "{}: a key of 10000 characters must"),
]


@pytest.mark.parametrize(("entries", "fault"), MALFORMED_ENTRIES, ids=range(len(MALFORMED_ENTRIES)))
@pytest.mark.parametrize("where", ["presence_state", "presence_diff joins", "presence_diff leaves"])
def test_malformed_entries_change_nothing(
    map_type: type[PresenceMap], where: str, entries: Any, fault: str
) -> None:
    if map_type is FromJson and where == "presence_state" and not isinstance(entries, dict):
        fault = "presence_state must be an object, not "
    presence = holding(alice=entry("1"))
    good = {"alice": entry("2", "1"), "dave": entry("3")}
    call, payload = {
        "presence_state": (
            presence.apply_state,
            {**good, **entries} if isinstance(entries, dict) else entries,
        ),
        "presence_diff joins": (presence.apply_diff, {"joins": entries, "leaves": good}),
        "presence_diff leaves": (presence.apply_diff, {"joins": good, "leaves": entries}),
    }[where]
    with pytest.raises(RemoteProtocolError) as caught:
        call(payload)
    assert str(caught.value).startswith(fault.format(where))
    assert len(str(caught.value)) < 200
    assert "secret" not in str(caught.value)
    assert snapshot(presence) == {"alice": entry("1")}


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (None, "presence_diff must be an object, not NoneType"),
        ([], "presence_diff must be an object, not list"),
        ({}, "presence_diff joins must be an object, not NoneType"),
        ({"joins": {}}, "presence_diff leaves must be an object, not NoneType"),
        ({"leaves": {}}, "presence_diff joins must be an object, not NoneType"),
    ],
)
def test_a_malformed_diff(payload: Any, fault: str) -> None:
    with pytest.raises(RemoteProtocolError, match=fault):
        PresenceMap().apply_diff(payload)


# ---------------------------------------------------------------------------------------------- limits


def limited() -> PresenceMap:
    presence = PresenceMap(max_keys=2, max_metas=2)
    presence.apply_state({"alice": entry("1", "2"), "bob": entry("3")})
    return presence


TOO_MANY_KEYS = "presence would hold more than 2 keys (max_keys)"
TOO_MANY_METAS = "presence of 'alice' would hold more than 2 metas (max_metas)"


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (diff({"carol": entry("4")}), TOO_MANY_KEYS),
        (diff({"carol": entry("4"), "dave": entry("5")}, {"bob": entry("3")}), TOO_MANY_KEYS),
        (diff({"carol": entry("4")}, {"alice": entry("1"), "bob": entry("9")}), TOO_MANY_KEYS),
        (diff({"alice": entry("4")}), TOO_MANY_METAS),
        (diff({"alice": entry("4", "5", "2")}, {"alice": entry("1", "9")}), TOO_MANY_METAS),
    ],
)
def test_a_diff_past_a_limit_changes_nothing(payload: Any, fault: str) -> None:
    presence = limited()
    with pytest.raises(RemoteProtocolError) as caught:
        presence.apply_diff(payload)
    assert str(caught.value) == fault
    assert snapshot(presence) == snapshot(limited())


def test_the_metas_of_a_key_are_limited_when_there_is_room_for_more_keys_too() -> None:
    presence = PresenceMap(max_keys=9, max_metas=2)
    presence.apply_diff(diff({"alice": entry("1")}))
    with pytest.raises(RemoteProtocolError, match="more than 2 metas"):
        presence.apply_diff(diff({"alice": entry("2", "3")}))
    presence.apply_diff(diff({"alice": entry("2")}))
    with pytest.raises(RemoteProtocolError, match="more than 2 metas"):
        presence.apply_diff(diff({"alice": entry("3")}))
    assert refs(presence) == {"alice": ["1", "2"]}


@pytest.mark.parametrize(
    ("payload", "after"),
    [
        (diff({"carol": entry("4")}, {"bob": entry("3")}), {"alice": ["1", "2"], "carol": ["4"]}),
        (diff({"alice": entry("4")}, {"alice": entry("1")}), {"alice": ["2", "4"], "bob": ["3"]}),
        (diff({"alice": entry("4")}, {"alice": entry("4")}), {"alice": ["1", "2"], "bob": ["3"]}),
        (diff({"alice": entry("1")}), {"alice": ["2", "1"], "bob": ["3"]}),
        (diff({"carol": entry("4")}, {"carol": entry("4")}), {"alice": ["1", "2"], "bob": ["3"]}),
        (diff({"carol": entry()}), {"alice": ["1", "2"], "bob": ["3"]}),
    ],
)
def test_what_leaves_makes_room(payload: Any, after: dict[str, list[str]]) -> None:
    presence = limited()
    presence.apply_diff(payload)
    assert refs(presence) == after


def test_a_state_past_a_limit_changes_nothing() -> None:
    presence = limited()
    with pytest.raises(RemoteProtocolError) as caught:
        presence.apply_state({"x": entry("1"), "y": entry("2"), "z": entry("3")})
    assert str(caught.value) == TOO_MANY_KEYS
    with pytest.raises(RemoteProtocolError) as caught:
        presence.apply_state({"alice": entry("1", "2", "3")})
    assert str(caught.value) == TOO_MANY_METAS
    assert snapshot(presence) == snapshot(limited())
    presence.apply_state({"x": entry("1"), "y": entry("2", "3"), "z": entry()})
    assert refs(presence) == {"x": ["1"], "y": ["2", "3"]}


def test_the_keys_are_limited_when_there_is_room_for_more_metas_too() -> None:
    presence = PresenceMap(max_keys=2, max_metas=100)
    presence.apply_state({"ann": entry("1")})
    with pytest.raises(RemoteProtocolError, match="more than 2 keys"):
        presence.apply_diff(diff({"bo": entry("2"), "cy": entry("3")}))
    presence.apply_diff(diff({"bo": entry("2"), "cy": entry("3")}, {"ann": entry("1")}))
    assert refs(presence) == {"bo": ["2"], "cy": ["3"]}


class Odd(dict[str, Any]):
    """A meta that did not come from a JSON library."""


def test_metas_may_be_of_another_kind(map_type: type[PresenceMap]) -> None:
    one, two = Odd(meta("1")), Odd(meta("2"))
    presence = PresenceMap()
    presence.apply_diff(diff({"ann": {"metas": [one]}}))
    assert presence["ann"] == (one,)
    assert (presence.latest("ann") is one) == (map_type is not FromJson)
    presence.apply_diff(diff({"ann": {"metas": [two]}}, {"ann": {"metas": [one]}}))
    assert presence["ann"] == (two,)
    (change,) = presence.apply_diff(diff({}, {"ann": {"metas": [two]}}))
    assert change.kind == "left"
    assert not presence


@pytest.mark.parametrize("other", [{}, {"zoe": entry("9")}], ids=["alone", "among others"])
@pytest.mark.parametrize(
    ("joins", "leaves", "held", "changes"),
    [
        ({"bo": entry("2")}, {}, ["2"], 1),
        ({"ann": entry("2")}, {}, ["1", "2"], 1),
        ({"ann": entry("1")}, {}, ["1"], 0),
        ({"ann": entry("2")}, {"ann": entry("1")}, ["2"], 1),
        ({"ann": entry("1")}, {"ann": entry("1")}, None, 1),
        ({"ann": entry("2")}, {"ann": entry("2")}, ["1"], 0),
        ({"ann": entry("2")}, {"ann": entry("3")}, ["1", "2"], 1),
        ({"ann": entry("2", "3")}, {"ann": entry("1")}, ["2", "3"], 1),
        ({"ann": entry("2")}, {"ann": entry("1", "3")}, ["2"], 1),
        ({"ann": entry("2", name="Ann")}, {"ann": entry("1")}, ["2"], 1),
        ({"bo": entry("2")}, {"ann": entry("1")}, None, 2),
        ({"bo": entry("2")}, {"bo": entry("2")}, ["1"], 0),
        ({}, {"ann": entry("1")}, None, 1),
        ({}, {"ann": entry("2")}, ["1"], 0),
        ({}, {"ann": entry("1", "2")}, None, 1),
        ({}, {"bo": entry("1")}, ["1"], 0),
        ({}, {}, ["1"], 0),
    ],
)
def test_a_plain_diff_is_as_any_other(
    other: Entries, joins: Entries, leaves: Entries, held: list[str] | None, changes: int
) -> None:
    presence = holding(ann=entry("1"))
    happened = presence.apply_diff(diff({**joins, **other}, leaves))
    there = refs(presence)
    there.pop("zoe", None)
    if "bo" in joins and "bo" not in leaves:
        assert there.pop("bo") == ["2"]
        held = ["1"] if not leaves else None
    assert there == ({} if held is None else {"ann": held})
    assert len(happened) == changes + len(other)


@pytest.mark.parametrize(
    "payload",
    [
        diff({"ann": entry("2")}, {"ann": {"metas": [1]}}),
        diff({"ann": {"metas": [1]}}, {"ann": entry("1")}),
        diff({"ann": {"metas": [{"phx_ref": 1}]}}, {"ann": entry("1")}),
        diff({"ann": {"metas": {}}}, {"ann": entry("1")}),
        diff({"ann": entry("2")}, {"ann": {"metas": {}}}),
        diff({"ann": entry("2")}, {"ann": []}),  # type: ignore[dict-item]
        diff({}, {"ann": {"metas": [{}]}}),
        diff({}, {"ann": {"metas": [None]}}),
        diff({"bo": {"metas": [None]}}),
        diff({"bo": {"metas": [{}]}}),
        diff({"bo": {}}),
    ],
)
def test_a_plain_diff_that_is_malformed_changes_nothing(payload: Any) -> None:
    presence = holding(ann=entry("1"))
    with pytest.raises(RemoteProtocolError):
        presence.apply_diff(payload)
    assert refs(presence) == {"ann": ["1"]}


def test_the_most_metas_of_any_key_are_remembered(map_type: type[PresenceMap]) -> None:
    presence = map_type(max_metas=3)
    presence.apply_diff(diff({"alice": entry("1", "2", "3")}))
    presence.apply_diff(diff({"bob": entry("4", "5")}))
    with pytest.raises(RemoteProtocolError, match="'alice' would hold more than 3 metas"):
        presence.apply_diff(diff({"alice": entry("6")}))
    presence.apply_diff(diff({"alice": entry("6")}, {"alice": entry("1")}))
    assert refs(presence) == {"alice": ["2", "3", "6"], "bob": ["4", "5"]}
