"""The presence of a channel: states, diffs, and what happens when they do not come, or not in order.

Driven through `RealtimeClient`.
"""

from __future__ import annotations

from typing import Any

import pytest

from presence_proto.channel import ChannelState
from presence_proto.config import ChannelConfig
from presence_proto.events import (
    ChannelDown,
    ChannelEnd,
    ChannelJoined,
    JoinFailed,
    PresenceDiffed,
    PresenceMissing,
    PresenceSynced,
    ProtocolViolation,
    SocketConnected,
    SocketDisconnected,
)
from presence_proto.presence import PresenceChange
from rig import Rig, online

ROOM = "realtime:room"
PLAIN = "room:a"
both = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])


def entry(*refs: str) -> dict[str, Any]:
    return {"metas": [{"phx_ref": ref} for ref in refs]}


def joins(**keys: dict[str, Any]) -> dict[str, Any]:
    return {"joins": keys, "leaves": {}}


def leaves(**keys: dict[str, Any]) -> dict[str, Any]:
    return {"joins": {}, "leaves": keys}


def came(key: str, *refs: str) -> PresenceChange:
    return PresenceChange(key, "joined", tuple({"phx_ref": ref} for ref in refs), ())


def went(key: str, *refs: str) -> PresenceChange:
    return PresenceChange(key, "left", (), tuple({"phx_ref": ref} for ref in refs))


def refs(rig: Rig, topic: str = ROOM) -> dict[str, list[str]]:
    return {key: [meta["phx_ref"] for meta in metas] for key, metas in rig.client.presence(topic).items()}


def diff(rig: Rig, payload: Any, topic: str = ROOM) -> None:
    rig.say(None, None, topic, "presence_diff", payload)


def state(rig: Rig, payload: Any, topic: str = ROOM) -> None:
    rig.say(rig.last("phx_join", topic).join_ref, None, topic, "presence_state", payload)


# ---------------------------------------------------------------------------------------------- in order


@both
@pytest.mark.parametrize("topic", [ROOM, PLAIN])
def test_a_state_and_its_diffs_make_the_presence(vsn: str, topic: str) -> None:
    rig = online(vsn=vsn)
    rig.join(topic)
    assert not rig.client.is_synced(topic)
    state(rig, {"ann": entry("a1")}, topic)
    assert rig.client.is_synced(topic)
    diff(rig, joins(bob=entry("b1")), topic)
    diff(rig, leaves(ann=entry("a1")), topic)
    assert rig.take()[1:] == [
        PresenceSynced(topic, (came("ann", "a1"),)),
        PresenceDiffed(topic, (came("bob", "b1"),)),
        PresenceDiffed(topic, (went("ann", "a1"),)),
    ]
    assert refs(rig, topic) == {"bob": ["b1"]}


def test_an_empty_state_is_told_and_a_diff_that_changes_nothing_is_not() -> None:
    rig = online()
    rig.join(ROOM, state={})
    assert rig.take()[-1] == PresenceSynced(ROOM, ())
    diff(rig, leaves(nobody=entry("x")))
    diff(rig, joins())
    assert rig.take() == []


def test_a_second_state_tells_what_differs() -> None:
    rig = online()
    rig.join(ROOM, state={"ann": entry("a1"), "bob": entry("b1")})
    rig.take()
    state(rig, {"bob": entry("b1"), "cy": entry("c1")})
    assert rig.take() == [PresenceSynced(ROOM, (came("cy", "c1"), went("ann", "a1")))]


def test_the_presence_is_live_and_one_object_for_as_long_as_the_channel() -> None:
    rig = online()
    rig.join(ROOM, state={})
    presence = rig.client.presence(ROOM)
    diff(rig, joins(ann=entry("a1")))
    assert list(presence) == ["ann"]
    rig.cut()
    rig.advance(1.0)
    rig.open()
    rig.accept_join(ROOM, {"bob": entry("b1")})
    assert rig.client.presence(ROOM) is presence
    assert list(presence) == ["bob"]


# ---------------------------------------------------------------------------------------------- out of order


@both
def test_diffs_before_the_state_wait_for_it(vsn: str) -> None:
    rig = online(vsn=vsn)
    rig.join(ROOM)
    rig.take()
    diff(rig, joins(bob=entry("b1")))
    diff(rig, leaves(ann=entry("a1")))
    diff(rig, joins(ann=entry("a2")))
    assert rig.take() == []
    assert refs(rig) == {}
    state(rig, {"ann": entry("a1")})
    assert rig.take() == [
        PresenceSynced(ROOM, (came("ann", "a1"),)),
        PresenceDiffed(ROOM, (came("bob", "b1"),)),
        PresenceDiffed(ROOM, (went("ann", "a1"),)),
        PresenceDiffed(ROOM, (came("ann", "a2"),)),
    ]
    assert refs(rig) == {"bob": ["b1"], "ann": ["a2"]}


def test_diffs_that_the_state_covers_are_no_events() -> None:
    rig = online()
    rig.join(ROOM)
    rig.take()
    diff(rig, joins(ann=entry("a1")))
    state(rig, {"ann": entry("a1")})
    assert rig.take() == [PresenceSynced(ROOM, (came("ann", "a1"),))]


@both
def test_presence_before_the_reply_to_the_join_is_of_an_earlier_life(vsn: str) -> None:
    rig = online(vsn=vsn)
    rig.join(ROOM, state={"ann": entry("a1")})
    rig.say("1", "1", ROOM, "phx_error", {})
    rig.advance(1.0)
    rig.take()
    diff(rig, joins(ghost=entry("g1")))
    rig.say(None, None, ROOM, "presence_state", {"ghost": entry("g1")})
    rig.accept_join(ROOM, {"ann": entry("a1")})
    assert rig.take() == [ChannelJoined(ROOM, {}, rejoined=True), PresenceSynced(ROOM, ())]
    assert refs(rig) == {"ann": ["a1"]}


def test_diffs_wait_for_the_state_of_their_own_life() -> None:
    rig = online()
    rig.join(ROOM)
    diff(rig, joins(ghost=entry("g1")))
    rig.say("1", "1", ROOM, "phx_error", {})
    rig.advance(1.0)
    rig.accept_join(ROOM, {})
    assert refs(rig) == {}


def test_diffs_after_a_rejoin_do_not_touch_the_stale_presence_before_the_new_state() -> None:
    rig = online()
    rig.join(ROOM, state={"ann": entry("a1")})
    rig.cut()
    rig.advance(1.0)
    rig.open()
    rig.accept_join(ROOM)
    diff(rig, leaves(ann=entry("a1")))
    assert refs(rig) == {"ann": ["a1"]}
    state(rig, {"ann": entry("a1"), "bob": entry("b1")})
    assert refs(rig) == {"bob": ["b1"]}


def test_from_a_loss_to_the_next_state_the_presence_is_stale_and_then_only_the_net_changes_are_told() -> None:
    rig = online()
    rig.join(ROOM, state={"ann": entry("a1"), "bob": entry("b1")})
    rig.take()
    rig.cut()
    assert not rig.client.is_synced(ROOM)
    assert refs(rig) == {"ann": ["a1"], "bob": ["b1"]}
    rig.advance(1.0)
    rig.open()
    rig.accept_join(ROOM)
    assert not rig.client.is_synced(ROOM)
    state(rig, {"bob": entry("b1"), "cy": entry("c1")})
    assert rig.client.is_synced(ROOM)
    assert rig.take() == [
        SocketDisconnected("eof", 1006, retry_in=1.0),
        ChannelDown(ROOM, "the connection ended", None, ChannelEnd.CONNECTION_LOST),
        SocketConnected(),
        ChannelJoined(ROOM, {}, rejoined=True),
        PresenceSynced(ROOM, (came("cy", "c1"), went("ann", "a1"))),
    ]


def test_too_many_waiting_diffs_push_out_the_oldest_and_that_is_said() -> None:
    rig = online(max_pending_diffs=2)
    rig.join(ROOM)
    rig.take()
    for name in ("ann", "bob", "cy", "di"):
        diff(rig, joins(**{name: entry(name)}))
    said = ProtocolViolation("too many presence diffs before the presence state (max_pending_diffs)", ROOM)
    assert rig.take() == [said, said]
    state(rig, {})
    assert list(refs(rig)) == ["cy", "di"]


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
def test_waiting_diffs_are_bounded_in_bytes_too(vsn: str) -> None:
    said = ProtocolViolation(
        "too many bytes of presence diffs before the presence state (max_pending_bytes)", ROOM
    )
    rig = online(max_pending_bytes=1000, vsn=vsn)
    rig.join(ROOM)
    rig.take()
    for name, size in (("ann", 200), ("bob", 200), ("cy", 200), ("di", 500), ("ed", 1000)):
        diff(rig, joins(**{name: {"metas": [{"phx_ref": name, "text": "x" * size}]}}))
    assert rig.take() == [said, said]
    state(rig, {})
    assert list(refs(rig)) == []


@pytest.mark.parametrize(
    "odd", [{"more": "x" * 600}, {"joins": {"ann": {"metas": []}}, "leaves": ["x" * 600]}]
)
def test_so_are_those_of_an_odd_form(odd: Any) -> None:
    rig = online(max_pending_bytes=1000)
    rig.join(ROOM)
    rig.take()
    for _ in range(2):
        rig.say(None, None, ROOM, "presence_diff", odd)
    [violation] = rig.take()
    assert "max_pending_bytes" in violation.reason


def test_the_oldest_go_until_there_is_room() -> None:
    rig = online(max_pending_bytes=1000)
    rig.join(ROOM)
    rig.take()
    for name, size in (("ann", 100), ("bob", 100), ("cy", 600), ("di", 700)):
        diff(rig, joins(**{name: {"metas": [{"phx_ref": name, "text": "x" * size}]}}))
    rig.take()
    state(rig, {})
    assert list(refs(rig)) == ["di"]


# ---------------------------------------------------------------------------------------------- missing


def missing(rig: Rig) -> PresenceMissing:
    [event] = [event for event in rig.take() if isinstance(event, PresenceMissing)]
    return event


@both
def test_a_state_that_does_not_come_is_asked_for_once_and_then_reported(vsn: str) -> None:
    rig = online(vsn=vsn, state_timeout=7.0)
    rig.join(ROOM)
    rig.take()
    rig.advance(6.9)
    assert len(rig.sent("phx_join")) == 1
    rig.advance(0.1)
    assert [message.event for message in rig.sent()] == ["phx_join", "phx_join"]
    assert rig.client.state_of(ROOM) is ChannelState.JOINING
    assert rig.take() == []
    rig.accept_join(ROOM)
    assert rig.take() == [ChannelJoined(ROOM, {}, rejoined=True)]
    rig.advance(7.0)
    event = missing(rig)
    assert event.topic == ROOM
    assert "presence may be disabled" in event.reason
    assert rig.client.state_of(ROOM) is ChannelState.JOINED
    rig.advance(1000.0)
    assert rig.take() == []
    assert len(rig.sent("phx_join")) == 2


def test_a_state_that_comes_after_asking_again_is_fine() -> None:
    rig = online()
    rig.join(ROOM)
    rig.advance(10.0)
    rig.accept_join(ROOM, {"ann": entry("a1")})
    rig.advance(100.0)
    assert rig.take()[-1] == PresenceSynced(ROOM, (came("ann", "a1"),))
    rig.say("2", "2", ROOM, "phx_error", {})
    rig.advance(1.0)
    rig.accept_join(ROOM)
    joins_so_far = len(rig.sent("phx_join"))
    rig.advance(10.0)
    assert len(rig.sent("phx_join")) == joins_so_far + 1, "another loss, another question"


def test_a_state_that_comes_at_last_is_taken() -> None:
    rig = online()
    rig.join(ROOM)
    rig.advance(10.0)
    rig.accept_join(ROOM)
    rig.advance(10.0)
    missing(rig)
    state(rig, {"ann": entry("a1")})
    assert rig.client.is_synced(ROOM)


def test_a_state_in_the_last_moment_is_in_time() -> None:
    rig = online()
    rig.join(ROOM)
    rig.now += 10.0
    state(rig, {})
    rig.advance(50.0)
    assert len(rig.sent("phx_join")) == 1


def test_asking_again_begins_a_new_life_in_every_respect() -> None:
    rig = online(state_timeout=3.0, stable_after=5.0)
    rig.join(ROOM)
    rig.say("1", "1", ROOM, "phx_error", {})
    rig.advance(1.0)
    rig.accept_join(ROOM)
    rig.advance(3.0)
    rig.take()
    rig.advance(3.0)  # the life before was joined for three seconds, and is not for five
    rig.reply(rig.last("phx_join"), "error", {"reason": "no"})
    assert rig.take() == [JoinFailed(ROOM, "no", {"reason": "no"}, retry_in=2.0, refused=True)]


def test_asking_again_may_fail_like_any_join() -> None:
    rig = online()
    rig.join(ROOM)
    rig.advance(10.0)
    rig.take()
    rig.reply(rig.last("phx_join"), "error", {"reason": "no"})
    assert rig.take() == [JoinFailed(ROOM, "no", {"reason": "no"}, retry_in=1.0, refused=True)]


@pytest.mark.parametrize(("topic", "params"), [(ROOM, ChannelConfig(presence=False)), (PLAIN, {})])
def test_no_state_is_missed_where_none_is_due(topic: str, params: Any) -> None:
    rig = online()
    rig.join(topic, params)
    rig.take()
    rig.advance(100.0)
    assert rig.take() == []
    assert len(rig.sent("phx_join")) == 1


@both
def test_on_plain_phoenix_diffs_that_wait_for_a_state_in_vain_are_reported(vsn: str) -> None:
    rig = online(vsn=vsn, state_timeout=7.0)
    rig.join(PLAIN)
    rig.advance(100.0)
    for ref in ("a1", "b1", "c1"):
        rig.diff(joins={"ann": entry(ref)})
        rig.advance(2.0)
    rig.take()
    rig.advance(0.9)
    assert rig.take() == []
    rig.advance(0.1)
    event = missing(rig)
    assert event.topic == PLAIN
    assert event.reason == (
        "no presence_state came, and 3 presence diffs wait for it: on the server, push "
        '"presence_state" with Presence.list(socket) after the join'
    )
    assert not rig.client.is_synced(PLAIN)
    rig.diff(joins={"ann": entry("d1")})
    rig.advance(100.0)
    assert rig.take() == [], "once for each join"
    assert len(rig.sent("phx_join")) == 1
    join = rig.last("phx_join")
    rig.say(join.ref, join.ref, PLAIN, "phx_error", {})
    rig.advance(1.0)
    rig.accept_join()
    rig.diff(joins={"ann": entry("e1")})
    rig.advance(7.0)
    assert "1 presence diffs" in missing(rig).reason


def test_on_plain_phoenix_a_state_that_comes_after_the_diffs_is_fine() -> None:
    rig = online(state_timeout=7.0)
    rig.join(PLAIN)
    rig.diff(joins={"ann": entry("a1")})
    rig.advance(6.9)
    rig.say(None, None, PLAIN, "presence_state", {})
    rig.diff(joins={"bob": entry("b1")})
    rig.advance(100.0)
    assert not [event for event in rig.take() if isinstance(event, PresenceMissing)]
    assert rig.client.is_synced(PLAIN)


def test_diffs_without_a_state_are_no_wonder_where_presence_is_turned_off() -> None:
    rig = online()
    rig.join(ROOM, ChannelConfig(presence=False))
    rig.take()
    rig.diff(joins={"ann": entry("a1")})
    rig.advance(100.0)
    assert rig.take() == []


# ---------------------------------------------------------------------------------------------- malformed


@both
@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "x",
        7,
        {"joins": {}},
        {"joins": [], "leaves": {}},
        joins(bob={}),
        joins(bob={"metas": [{}]}),
        joins(bob=7),
    ],
)
def test_a_malformed_diff_is_named_and_loses_nothing(vsn: str, payload: Any) -> None:
    rig = online(vsn=vsn)
    rig.join(ROOM, state={"ann": entry("a1")})
    rig.take()
    diff(rig, payload)
    [event] = rig.take()
    assert isinstance(event, ProtocolViolation)
    assert event.topic == ROOM
    assert event.reason.startswith("presence_diff")
    diff(rig, joins(bob=entry("b1")))
    assert refs(rig) == {"ann": ["a1"], "bob": ["b1"]}


@pytest.mark.parametrize("payload", [None, [], {"bob": {}}, {"bob": {"metas": [{"phx_ref": 1}]}}])
def test_a_malformed_state_is_named_and_the_good_one_still_due(payload: Any) -> None:
    rig = online()
    rig.join(ROOM)
    rig.take()
    state(rig, payload)
    [event] = rig.take()
    assert isinstance(event, ProtocolViolation)
    assert event.reason.startswith("presence_state")
    assert not rig.client.is_synced(ROOM)
    rig.advance(10.0)
    rig.accept_join(ROOM, {"ann": entry("a1")})
    assert refs(rig) == {"ann": ["a1"]}


def test_a_malformed_diff_among_the_waiting_ones_loses_nothing_else() -> None:
    rig = online()
    rig.join(ROOM)
    rig.take()
    diff(rig, joins(bob=entry("b1")))
    diff(rig, "nonsense")
    diff(rig, joins(cy=entry("c1")))
    assert rig.take() == []
    state(rig, {"ann": entry("a1")})
    assert [type(event) for event in rig.take()] == [
        PresenceSynced,
        PresenceDiffed,
        ProtocolViolation,
        PresenceDiffed,
    ]
    assert list(refs(rig)) == ["ann", "bob", "cy"]


def test_a_diff_past_the_limit_of_keys_is_named_and_passed_over() -> None:
    rig = online(max_roster=2, max_metas=2)
    rig.join(ROOM, state={"ann": entry("a1")})
    rig.take()
    diff(rig, joins(bob=entry("b1"), cy=entry("c1")))
    diff(rig, joins(ann=entry("a2", "a3")))
    assert [event.reason.rpartition(" ")[2] for event in rig.take()] == ["(max_keys)", "(max_metas)"]
    assert refs(rig) == {"ann": ["a1"]}


# ---------------------------------------------------------------------------------------------- large states


@both
def test_a_large_state_is_as_any_other(vsn: str) -> None:
    crowd = {f"user-{number}": entry(f"{number}-" + "x" * 30) for number in range(500)}
    rig = online(vsn=vsn)
    join = rig.join(ROOM, state=crowd)
    joined, synced = rig.take()
    assert isinstance(joined, ChannelJoined)
    assert len(synced.changes) == 500
    rig.say(join.ref, None, ROOM, "presence_state", {**crowd, "user-1": entry("other")})
    (synced,) = rig.take()
    assert [(change.key, change.kind) for change in synced.changes] == [("user-1", "updated")]
    assert len(refs(rig)) == 500


def test_a_large_state_that_is_malformed_is_passed_over() -> None:
    rig = online()
    join = rig.join(ROOM, state={"ann": entry("1")})
    rig.take()
    broken = {f"user-{number}": {"metas": [{"ref": "x" * 30}]} for number in range(500)}
    rig.say(join.ref, None, ROOM, "presence_state", broken)
    (violation,) = rig.take()
    assert isinstance(violation, ProtocolViolation)
    assert violation.topic == ROOM
    assert "a meta must be an object with a string 'phx_ref'" in violation.reason
    assert refs(rig) == {"ann": ["1"]}
