"""The roster as the place where a channel keeps its presence.

Whatever comes, and in whatever form, the events and the users are those of the plain way: a `PresenceMap`,
whose changes are applied to a roster.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_proto.errors import RemoteProtocolError
from presence_proto.events import OnlineUser, UserOffline, UserOnline, UserStatus
from presence_proto.payloads import PendingActivity
from presence_proto.presence import PresenceMap
from presence_proto.roster import Roster
from presence_proto.serializer import (
    Message,
    Serializer,
    UserDiff,
    UserReader,
    V1Serializer,
    V2Serializer,
    serializer_for,
)
from presence_proto.websocket import TextMessage

if TYPE_CHECKING:
    from collections.abc import Callable

ME = OnlineUser("me", "Me")
LIMITS: dict[str, Any] = {"max_keys": 4, "max_metas": 3, "max_nesting": 20}

keys = st.sampled_from(["me", "bo", "cy", "di", "eve"])
refs = st.sampled_from("1234567")
plain_metas = st.fixed_dictionaries(
    {"phx_ref": refs, "display_name": st.sampled_from(["Bo", "Cy"]), "status": st.sampled_from(UserStatus)},
    optional={
        "user_id": keys,
        "activity": st.none() | st.sampled_from(["Chess", "Snake"]),
        "online_at": st.none() | st.sampled_from(["1", "2", "3"]),
        "phx_ref_prev": refs,
    },
)
odd = st.none() | st.booleans() | st.integers(0, 1) | st.just("") | st.just([[1]]) | st.just({"a": [{}]})
odd_metas = st.fixed_dictionaries(
    {"phx_ref": refs},
    optional=dict.fromkeys(
        ("user_id", "display_name", "status", "activity", "online_at", "phx_ref_prev", "more"), odd
    ),
)
metas = st.one_of(plain_metas, plain_metas, plain_metas, odd_metas)
entries = st.one_of(
    st.builds(lambda meta: {"metas": [meta]}, metas),
    st.builds(lambda meta: {"metas": [meta]}, plain_metas),
    st.builds(
        lambda some, more: {"metas": some, **more},
        st.lists(metas, max_size=4),
        st.sampled_from([{}, {"x": 1}]),
    ),
)
malformed = st.sampled_from([{"metas": [{}]}, {"metas": {}}, {"metas": [{"phx_ref": 1}]}, 5, {}])
payload_entries = st.dictionaries(keys, entries | entries | entries | malformed, max_size=4)
one_entry = st.dictionaries(keys, st.builds(lambda meta: {"metas": [meta]}, plain_metas), max_size=1)
diffs = st.fixed_dictionaries({"joins": one_entry, "leaves": one_entry}) | st.fixed_dictionaries(
    {"joins": payload_entries, "leaves": payload_entries}
)
states = st.tuples(st.dictionaries(keys, entries | entries | malformed, max_size=5), st.booleans())
claims = st.builds(
    PendingActivity,
    st.sampled_from(["bo", "cy"]),
    st.sampled_from(UserStatus),
    st.none() | st.just("Chess"),
    st.none() | st.just("Bo"),
    st.just({}),
)
steps = st.one_of(
    st.tuples(st.just("diff"), diffs),
    st.tuples(st.just("diff"), diffs),
    st.tuples(st.just("state"), states),
    st.tuples(st.just("claim"), claims),
    st.tuples(st.just("own"), st.sampled_from(UserStatus)),
    st.tuples(st.just("drop"), st.none()),
)


def text_of(event: str, payload: Any) -> str:
    return json.dumps([None, None, "t", event, payload], separators=(",", ":"))


class Plain:
    """A map, and the roster that is told what changed there."""

    def __init__(self, limits: dict[str, Any] | None = None) -> None:
        self.presence = PresenceMap(**(LIMITS if limits is None else limits))
        self.roster = Roster(ME)

    def state(self, text: str, keep: bool) -> Any:
        before = len(self.presence)
        payload = V2Serializer(server=False, max_nesting=20).decode_text(text).payload
        changes = self.presence.apply_state(payload)
        forgotten = self.presence.nothing_continues(before, changes)
        return forgotten, self.roster.sync(changes, keep=keep)

    def diff(self, text: str) -> Any:
        payload = V2Serializer(server=False, max_nesting=20).decode_text(text).payload
        return self.roster.apply(self.presence.apply_diff(payload))


class Store:
    """The roster alone."""

    def __init__(self, decode: Callable[[str], Any], limits: dict[str, Any] | None = None) -> None:
        self.roster = Roster(ME, **(LIMITS if limits is None else limits))
        self.decode = decode

    def state(self, text: str, keep: bool) -> Any:
        changes = self.roster.apply_state(self.decode(text).payload)
        forgotten = self.roster.nothing_continues(0, changes)
        return forgotten, self.roster.sync(changes, keep=keep)

    def diff(self, text: str) -> Any:
        return self.roster.apply_diff(self.decode(text).payload)


def decode_users(serializer: Serializer, text: str) -> Message:
    """What a reader that has met nothing odd yet makes of a text."""
    return UserReader(serializer).decode(text)


def users_of_v2(text: str) -> Message:
    return decode_users(V2Serializer(server=False), text)


def stores() -> list[Store]:
    serializer = V2Serializer(server=False, max_nesting=20)
    return [
        Store(lambda text: serializer.decode(TextMessage(text))),
        Store(serializer.decode_text),
        Store(lambda text: decode_users(serializer, text)),
        Store(UserReader(serializer).decode),
    ]


def outcome(contestant: Plain | Store, step: str, argument: Any) -> Any:
    roster = contestant.roster
    try:
        match step:
            case "diff":
                return contestant.diff(text_of("presence_diff", argument))
            case "state":
                payload, keep = argument
                return contestant.state(text_of("presence_state", payload), keep)
            case "claim":
                return roster.claim(argument)
            case "own":
                return roster.set_own(OnlineUser("me", "Me", argument))
            case _:
                return roster.drop_stale()
    except RemoteProtocolError as exc:
        return str(exc)


@given(st.lists(steps, max_size=12))
def test_any_history_gives_what_the_plain_way_gives(history: list[tuple[str, Any]]) -> None:
    plain, others = Plain(), stores()
    for step, argument in history:
        expected = outcome(plain, step, argument)
        for other in others:
            assert outcome(other, step, argument) == expected, other.decode
            assert repr(other.roster.users()) == repr(plain.roster.users())
            for key in ("me", "bo", "cy", "di", "eve"):
                assert other.roster.device_count(key) == plain.roster.device_count(key)
                assert other.roster.is_stale(key) == plain.roster.is_stale(key)


# ---------------------------------------------------------------------------------------------- the reader


def entry(ref: str, **more: Any) -> dict[str, Any]:
    return {"metas": [{"phx_ref": ref, "display_name": "Bo", "status": "online", **more}]}


PLAIN = text_of(
    "presence_diff", {"joins": {"bo": entry("2", phx_ref_prev="1")}, "leaves": {"bo": entry("1")}}
)


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
def test_a_plain_diff_is_decoded_once(vsn: str) -> None:
    _, _, topic, event, payload = json.loads(PLAIN)
    text = (
        PLAIN
        if vsn == "2.0.0"
        else json.dumps({"topic": topic, "event": event, "payload": payload, "ref": None})
    )
    message = decode_users(serializer_for(vsn, server=False), text)
    assert (message.topic, message.event) == ("t", "presence_diff")
    assert type(message.payload) is UserDiff
    assert message.payload.joins["bo"].metas[0].status is UserStatus.ONLINE


@pytest.mark.parametrize(
    "payload",
    [
        {"joins": {"bo": entry("1", level=5)}, "leaves": {}},
        {"joins": {"bo": entry("1", status="elsewhere")}, "leaves": {}},
        {"joins": {"bo": {"metas": [*entry("1")["metas"], *entry("2")["metas"]]}}, "leaves": {}},
        {"joins": {"bo": {**entry("1"), "more": 1}}, "leaves": {}},
        {"joins": {}, "leaves": {}, "more": 1},
        {"joins": {}},
        5,
    ],
)
def test_what_does_not_fit_is_read_the_general_way(payload: Any) -> None:
    text = text_of("presence_diff", payload)
    serializer = V2Serializer(server=False)
    message = decode_users(serializer, text)
    assert type(message.payload) is not UserDiff
    assert type(message.payload) is type(serializer.decode_text(text).payload)


def test_what_leaves_is_read_whole_too() -> None:
    """Nothing is skipped in it, so that nothing can nest there without an end."""
    for more, fits in (({}, True), ({"deep": []}, False)):
        text = text_of("presence_diff", {"joins": {}, "leaves": {"bo": entry("1", **more)}})
        assert (type(users_of_v2(text).payload) is UserDiff) is fits


def test_another_message_is_what_it_is() -> None:
    text = json.dumps([None, None, "t", "chat", {"content": '"presence_diff"', "joins": {}, "leaves": {}}])
    assert users_of_v2(text).payload["joins"] == {}
    text = json.dumps([None, None, "presence_diff", "chat", {"joins": {}, "leaves": {}}])
    assert users_of_v2(text).payload == {"joins": {}, "leaves": {}}


def test_a_room_with_fields_of_its_own_is_not_decoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    reader = UserReader(V2Serializer(server=False))
    real = reader._decode_users
    monkeypatch.setattr(reader, "_decode_users", lambda text: tried.append(text) or real(text))
    assert type(reader.decode(PLAIN).payload) is UserDiff
    odd = text_of("presence_diff", {"joins": {"bo": entry("1", level=5)}, "leaves": {}})
    for _ in range(UserReader.GENERAL + 1):
        reader.decode(odd)
    assert tried == [PLAIN, odd]
    assert type(reader.decode(PLAIN).payload) is UserDiff, "it is tried again"
    reader.decode(text_of("chat", {}))
    assert type(reader.decode(PLAIN).payload) is UserDiff, "other messages say nothing"


def test_v1_has_the_same_ways() -> None:
    serializer = V1Serializer(server=False)
    text = json.dumps({"topic": "t", "event": "chat", "payload": 1, "ref": "2"})
    assert decode_users(serializer, text) == serializer.decode_text(text)


def test_a_state_says_which_device_is_there() -> None:
    for contestant in (Plain(), *stores()):
        first = text_of("presence_state", {"bo": entry("1"), "cy": entry("2")})
        second = text_of("presence_state", {"bo": entry("3", activity="Chess"), "cy": entry("2")})
        contestant.state(first, False)
        assert contestant.state(first, False) == (False, [])
        forgotten, [changed] = contestant.state(second, False)
        assert not forgotten
        assert (changed.user.user_id, changed.user.activity) == ("bo", "Chess")


def test_a_key_without_metas_is_of_nobody() -> None:
    for contestant in (Plain(), *stores()):
        contestant.state(text_of("presence_state", {"bo": entry("1"), "cy": entry("2")}), False)
        nobody = text_of("presence_state", {"bo": {"metas": []}, "cy": entry("2")})
        forgotten, [gone] = contestant.state(nobody, False)
        assert not forgotten
        assert isinstance(gone, UserOffline)
        assert gone.user.user_id == "bo"


def test_we_are_in_our_roster_whatever_plain_diffs_say_of_us() -> None:
    for contestant in (Plain(), *stores()):
        for joins, leaves, devices in (
            ({"me": "1"}, {}, 1),
            ({"me": "2"}, {"me": "1"}, 1),
            ({}, {"me": "2"}, 0),
        ):
            sides = {"joins": joins, "leaves": leaves}
            payload = {
                side: {key: entry(ref, activity=ref) for key, ref in refs.items()}
                for side, refs in sides.items()
            }
            assert contestant.diff(text_of("presence_diff", payload)) == []
            assert contestant.roster.device_count("me") == devices
            assert [user.user_id for user in contestant.roster.users()] == ["me"]


def test_a_leave_with_an_unknown_ref_changes_nothing() -> None:
    for contestant in (Plain(), *stores()):
        (came,) = contestant.diff(text_of("presence_diff", {"joins": {"bo": entry("1")}, "leaves": {}}))
        assert isinstance(came, UserOnline)
        assert contestant.diff(text_of("presence_diff", {"joins": {}, "leaves": {"bo": entry("2")}})) == []
        assert contestant.roster.device_count("bo") == 1
        (gone,) = contestant.diff(text_of("presence_diff", {"joins": {}, "leaves": {"bo": entry("1")}}))
        assert isinstance(gone, UserOffline)


# ---------------------------------------------------------------------------------------------- limits


def test_limits_are_those_of_the_map() -> None:
    store = Store(users_of_v2, {"max_keys": 2, "max_metas": 2})
    joins = {key: entry(key) for key in ("bo", "cy")}
    assert len(store.diff(text_of("presence_diff", {"joins": joins, "leaves": {}}))) == 2
    with pytest.raises(RemoteProtocolError, match="more than 2 keys"):
        store.diff(text_of("presence_diff", {"joins": {"di": entry("di")}, "leaves": {}}))
    # What leaves makes room.
    [online, offline] = store.diff(
        text_of("presence_diff", {"joins": {"di": entry("di")}, "leaves": {"bo": entry("bo")}})
    )
    assert isinstance(online, UserOnline)
    assert isinstance(offline, UserOffline)
    store.diff(text_of("presence_diff", {"joins": {"di": entry("2")}, "leaves": {}}))
    with pytest.raises(RemoteProtocolError, match="of 'di' would hold more than 2 metas"):
        store.diff(text_of("presence_diff", {"joins": {"di": entry("3")}, "leaves": {}}))


def test_a_state_has_the_limits_of_the_map() -> None:
    limits = {"max_keys": 2, "max_metas": 2}
    for contestant in (Plain(limits), Store(users_of_v2, limits)):
        many = {"metas": [{"phx_ref": ref} for ref in "123"]}
        for payload, fault in (
            ({"bo": many}, "of 'bo' would hold more than 2 metas"),
            ({key: entry(key) for key in ("bo", "cy", "di")}, "more than 2 keys"),
        ):
            with pytest.raises(RemoteProtocolError, match=fault):
                contestant.state(text_of("presence_state", payload), False)
        assert [user.user_id for user in contestant.roster.users()] == ["me"], "nothing of it was taken"


def test_a_user_whom_we_hold_is_said_to_nest_too_deeply_all_the_same() -> None:
    nested: Any = 1
    for _ in range(30):
        nested = [nested]
    for contestant in (Plain(), *stores()):
        contestant.state(text_of("presence_state", {"bo": entry("1")}), False)
        for payload in ({"bo": entry("1", x=nested)}, {"bo": entry("1", x=nested), "cy": entry("2")}):
            assert "nested more than" in outcome(contestant, "state", (payload, False))
