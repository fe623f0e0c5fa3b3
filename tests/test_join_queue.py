"""Joins that wait for each other in the server: their timeouts, late answers, and how long to be patient."""

from __future__ import annotations

from typing import Any

import pytest

from lan import Host, Lan
from presence_proto.channel import ChannelState
from presence_proto.config import ChannelConfig, RealtimeConfig
from presence_proto.events import ChannelJoined, ChannelLeft, JoinFailed, SocketDisconnected
from presence_proto.hub.config import HubConfig
from presence_proto.realtime_client import RealtimeClient
from rig import Rig, online

both = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])

ROOM = "room:lobby"
TOPICS = ("room:a", "room:b", "room:c", "room:d")


def late(topic: str, timeout: float = 10.0) -> JoinFailed:
    return JoinFailed(topic, f"no reply within {timeout:g} s", None, 2 * timeout)


def blocked(**settings: Any) -> Rig:
    """A server that is busy with a join answers no heartbeat."""
    rig = online(**settings)
    rig.answers_heartbeats = False
    return rig


def join(rig: Rig, *topics: str) -> None:
    for topic in topics:
        rig.do(rig.client.join, topic)


def answer(rig: Rig, status: str = "ok", topic: str | None = None) -> None:
    """Reply to the last join of the topic."""
    rig.reply(rig.last("phx_join", topic), status)


# ------------------------------------------------------------------------------------ one after the other


@both
def test_the_timeout_of_a_join_counts_from_the_answer_to_the_one_before_it(vsn: str) -> None:
    rig = blocked(vsn=vsn)
    join(rig, *TOPICS)
    for topic in TOPICS:
        rig.advance(9.9)
        answer(rig, topic=topic)
    assert rig.take() == [ChannelJoined(topic, {}, False) for topic in TOPICS]
    assert len(rig.sent("phx_join")) == 4
    assert rig.client.is_connected


def test_refusals_count_as_answers_too() -> None:
    rig = blocked()
    join(rig, *TOPICS)
    for topic in TOPICS[:3]:
        rig.advance(9.9)
        answer(rig, "error", topic)
    rig.advance(9.9)
    answer(rig, topic="room:d")
    assert [type(event) for event in rig.take()] == [JoinFailed] * 3 + [ChannelJoined]


def test_the_end_of_a_channel_is_an_answer_to_its_join() -> None:
    rig = blocked()
    join(rig, "room:a", "room:b")
    rig.advance(9.0)
    first = rig.last("phx_join", "room:a")
    rig.say(first.ref, first.ref, "room:a", "phx_error", {})
    [crashed] = rig.take()
    assert crashed == JoinFailed("room:a", "the channel crashed", None, 1.0, refused=True)
    rig.advance(9.0)
    assert rig.take() == []


def test_without_an_answer_the_turn_of_the_next_comes_when_the_first_is_late() -> None:
    rig = blocked(heartbeat_interval=1000.0, heartbeat_timeout=1000.0)
    join(rig, "room:a", "room:b", "room:c")
    rig.advance(9.9)
    assert rig.take() == []
    rig.advance(0.1)
    assert rig.take() == [late("room:a")]
    rig.advance(9.9)
    assert rig.take() == []
    rig.advance(0.1)
    assert rig.take() == [late("room:b")]
    rig.advance(10.0)
    assert rig.take() == [late("room:c")]
    rig.advance(500.0)
    assert rig.take() == []
    assert len(rig.sent("phx_join")) == 3


def test_an_answer_starts_the_timeout_of_the_next_anew() -> None:
    rig = blocked()
    join(rig, "room:a", "room:b")
    rig.advance(10.0)
    assert rig.take() == [late("room:a")]
    rig.advance(9.0)
    answer(rig, topic="room:a")
    rig.advance(9.9)
    assert rig.take() == [ChannelJoined("room:a", {}, False)]
    rig.advance(0.1)
    assert rig.take() == [late("room:b")]


def test_more_joins_do_not_prolong_the_first_ones_time() -> None:
    rig = blocked()
    join(rig, "room:a")
    rig.advance(9.0)
    join(rig, "room:b")
    rig.advance(1.0)
    assert rig.take() == [late("room:a")]
    rig.advance(5.0)
    join(rig, "room:c")
    rig.advance(5.0)
    assert rig.take() == [late("room:b")]


def test_a_join_behind_a_late_one_has_its_turn_at_once() -> None:
    rig = blocked()
    join(rig, "room:a")
    rig.advance(12.0)
    join(rig, "room:b")
    rig.take()
    rig.advance(9.9)
    assert rig.take() == []
    rig.advance(0.1)
    assert rig.take() == [late("room:b")]


# ------------------------------------------------------------------------------------ late answers


@both
def test_a_late_answer_is_an_answer_and_nothing_else_was_sent_meanwhile(vsn: str) -> None:
    rig = blocked(vsn=vsn)
    join(rig, ROOM)
    first = rig.last()
    rig.advance(10.0)
    assert rig.take() == [late(ROOM)]
    assert rig.client.state_of(ROOM) is ChannelState.JOINING
    rig.advance(19.9)
    assert rig.sent() == [first]
    rig.reply(first)
    assert rig.take() == [ChannelJoined(ROOM, {}, rejoined=False)]
    rig.do(rig.client.push, ROOM, "ask")
    assert rig.last().join_ref == first.ref or vsn == "1.0.0"
    assert len(rig.sent("phx_join")) == 1


def test_a_late_refusal_is_a_refusal() -> None:
    rig = blocked()
    join(rig, ROOM)
    rig.advance(15.0)
    rig.take()
    answer(rig, "error")
    assert rig.take() == [JoinFailed(ROOM, "the server said error", {}, 1.0, refused=True)]
    rig.advance(1.0)
    assert len(rig.sent("phx_join")) == 2


def test_an_answer_to_an_earlier_join_than_the_last_changes_nothing() -> None:
    rig = online()
    join(rig, ROOM)
    first = rig.last()
    rig.advance(30.0)  # the heartbeats are answered: the server has passed the first one over
    assert [join.ref for join in rig.sent("phx_join")] != [first.ref]
    rig.take()
    rig.reply(first, "error", {"reason": "late"})
    rig.say(first.ref, first.ref, ROOM, "phx_close", {})
    assert rig.take() == []
    answer(rig)
    assert rig.take() == [ChannelJoined(ROOM, {}, rejoined=False)]


def test_a_malformed_reply_is_an_answer_too() -> None:
    rig = blocked()
    join(rig, ROOM)
    first = rig.last()
    rig.say(first.ref, first.ref, ROOM, "phx_reply", {"status": None, "response": {}})
    violation, failed = rig.take()
    assert violation.reason == "a reply must be an object with a string status"
    assert (failed.refused, failed.retry_in) == (True, 1.0)


@pytest.mark.parametrize("ref", [None, 7, "", "x"])
def test_a_reply_with_an_odd_ref_answers_no_join(ref: Any) -> None:
    rig = online()
    join(rig, ROOM)
    rig.say(None, ref, ROOM, "phx_reply", {"status": "ok", "response": {}})
    assert rig.take() == []
    assert rig.client.state_of(ROOM) is ChannelState.JOINING


# ------------------------------------------------------------------------------------ one join of a topic


def test_a_topic_that_is_left_and_joined_again_waits_for_the_answer_to_the_first_join() -> None:
    rig = blocked()
    join(rig, ROOM)
    rig.do(rig.client.leave, ROOM)
    join(rig, ROOM)
    assert [message.event for message in rig.sent()] == ["phx_join", "phx_leave"]
    assert rig.client.state_of(ROOM) is ChannelState.WAITING
    rig.reply(rig.sent()[0])
    assert [message.event for message in rig.sent()] == ["phx_join", "phx_leave", "phx_join"]
    rig.reply(rig.sent()[1])
    answer(rig)
    assert rig.take() == [ChannelLeft(ROOM), ChannelJoined(ROOM, {}, rejoined=False)]


def test_who_waits_for_an_earlier_join_is_told_that_it_is_late() -> None:
    rig = blocked()
    join(rig, ROOM)
    rig.do(rig.client.leave, ROOM)
    join(rig, ROOM)
    rig.take()
    rig.advance(10.0)
    assert rig.take() == [late(ROOM)]


def test_who_waits_for_an_earlier_join_joins_when_the_server_has_passed_it_over() -> None:
    rig = online()
    join(rig, ROOM)
    rig.do(rig.client.leave, ROOM)
    join(rig, ROOM)
    rig.advance(29.9)
    assert len(rig.sent("phx_join")) == 1
    rig.advance(0.1)
    assert len(rig.sent("phx_join")) == 2
    answer(rig)
    assert rig.client.state_of(ROOM) is ChannelState.JOINED


def test_who_waits_for_an_earlier_join_joins_with_the_next_connection() -> None:
    rig = blocked()
    join(rig, ROOM)
    rig.do(rig.client.leave, ROOM)
    join(rig, ROOM)
    rig.cut()
    rig.advance(1.0)
    rig.open()
    assert len(rig.sent("phx_join")) == 2
    answer(rig)
    assert rig.client.state_of(ROOM) is ChannelState.JOINED


def test_who_waits_for_an_earlier_join_can_leave() -> None:
    rig = blocked()
    join(rig, ROOM)
    rig.do(rig.client.leave, ROOM)
    join(rig, ROOM)
    rig.take()
    rig.do(rig.client.leave, ROOM)
    assert rig.take() == [ChannelLeft(ROOM)]
    rig.reply(rig.sent()[0])
    assert len(rig.sent("phx_join")) == 1


def test_a_join_that_was_left_still_has_its_turn() -> None:
    rig = blocked()
    join(rig, "room:a", "room:b")
    rig.do(rig.client.leave, "room:a")
    rig.advance(9.0)
    rig.reply(rig.sent("phx_join")[0])
    rig.advance(9.9)
    rig.take()
    rig.advance(0.1)
    assert rig.take() == [late("room:b")]


@pytest.mark.parametrize("push_timeout", [5.0, 15.0])
def test_the_late_join_of_a_topic_that_is_left_is_not_reported(push_timeout: float) -> None:
    rig = blocked(push_timeout=push_timeout)
    join(rig, ROOM)
    rig.do(rig.client.leave, ROOM)
    rig.advance(29.9)
    assert rig.take() == [ChannelLeft(ROOM)]
    rig.advance(0.1)
    assert [type(event) for event in rig.take()] == [SocketDisconnected]


# ------------------------------------------------------------------------------------ no answer at all


def test_a_server_that_answers_all_but_the_join_is_asked_again_after_three_timeouts() -> None:
    rig = online(heartbeat_interval=1000.0)
    join(rig, ROOM)
    rig.advance(29.9)
    assert len(rig.sent("phx_join")) == 1
    assert len(rig.sent("heartbeat")) == 1, "to find out whether the server has passed it over"
    rig.advance(0.1)
    assert len(rig.sent("phx_join")) == 2
    rig.advance(30.0)
    assert rig.take() == [late(ROOM)] * 2
    assert len(rig.sent("phx_join")) == 3
    assert not rig.sent("phx_leave")


def test_a_heartbeat_that_is_on_its_way_already_is_enough_to_find_out() -> None:
    rig = blocked(heartbeat_interval=4.0, heartbeat_timeout=100.0)
    join(rig, ROOM)
    rig.advance(10.0)
    assert len(rig.sent("heartbeat")) == 2


def test_a_heartbeat_from_before_the_join_does_not_tell() -> None:
    rig = blocked(heartbeat_interval=30.0, heartbeat_timeout=100.0)
    rig.advance(30.0)
    join(rig, ROOM)
    rig.advance(10.0)
    before, after = rig.sent("heartbeat")
    assert rig.take() == [late(ROOM)]
    rig.reply(before)
    rig.advance(19.9)
    assert len(rig.sent("phx_join")) == 1
    assert int(after.ref) > int(rig.last("phx_join").ref)  # type: ignore[arg-type]


def test_a_dead_connection_is_noticed_three_timeouts_after_the_join() -> None:
    rig = blocked()
    join(rig, *TOPICS)
    rig.advance(29.9)
    assert rig.take() == [late("room:a"), late("room:b")]
    rig.advance(0.1)
    assert [type(event) for event in rig.take()] == [SocketDisconnected]
    rig.advance(1.0)
    rig.open()
    assert len(rig.sent("phx_join")) == 8
    for topic in TOPICS:
        answer(rig, topic=topic)
    assert len(rig.take()) == 5


def test_joins_that_keep_coming_do_not_keep_a_dead_connection() -> None:
    rig = blocked()
    for number in range(10):
        join(rig, f"room:{number}")
        rig.advance(3.0)
    assert [event for event in rig.take() if isinstance(event, SocketDisconnected)]


def test_each_answer_is_a_sign_of_life() -> None:
    rig = blocked()
    join(rig, *TOPICS)
    for topic in TOPICS:
        rig.advance(29.0)
        answer(rig, topic=topic)
    assert [event.topic for event in rig.take() if isinstance(event, ChannelJoined)] == [*TOPICS]
    assert not [event for event in rig.take() if isinstance(event, SocketDisconnected)]


def test_a_join_that_others_have_overtaken_is_asked_for_again() -> None:
    """A server that runs joins side by side, and has lost one."""
    rig = online(heartbeat_interval=1000.0)
    join(rig, "room:a", "room:b")
    answer(rig, topic="room:b")
    rig.advance(30.0)
    assert [message.topic for message in rig.sent("phx_join")] == ["room:a", "room:b", "room:a"]
    answer(rig, topic="room:a")
    rig.advance(100.0)
    assert [type(event) for event in rig.take()] == [ChannelJoined, JoinFailed, ChannelJoined]


def test_joins_that_are_overtaken_before_their_turn_have_their_time_from_then() -> None:
    rig = blocked(heartbeat_interval=1000.0)
    join(rig, "room:a", "room:b", "room:c")
    rig.advance(5.0)
    answer(rig, topic="room:c")
    rig.take()
    rig.advance(5.0)
    assert rig.take() == [late("room:a")]
    rig.advance(5.0)
    assert rig.take() == [late("room:b")]


def test_a_late_join_that_is_passed_over_at_last_is_asked_for_again() -> None:
    rig = blocked(heartbeat_interval=1000.0, heartbeat_timeout=1000.0)
    join(rig, ROOM)
    rig.advance(100.0)
    rig.reply(rig.last("heartbeat"))
    rig.advance(9.9)
    assert len(rig.sent("phx_join")) == 1
    rig.advance(0.1)
    assert len(rig.sent("phx_join")) == 2


@pytest.mark.parametrize("push_timeout", [5.0, 1000.0])
def test_a_join_that_was_passed_over_while_the_topic_was_left_is_forgotten(push_timeout: float) -> None:
    rig = online(push_timeout=push_timeout)
    join(rig, ROOM)
    rig.do(rig.client.leave, ROOM)
    rig.advance(100.0)
    assert len(rig.sent("phx_join")) == 1
    assert not [event for event in rig.take() if isinstance(event, JoinFailed)]


def test_the_next_connection_knows_nothing_of_the_joins_of_the_last() -> None:
    rig = blocked()
    join(rig, "room:a", "room:b")
    first = rig.sent("phx_join")[0]
    rig.cut()
    rig.advance(1.0)
    rig.open()
    rig.take()
    rig.reply(first)
    assert rig.take() == []
    rig.advance(10.0)
    assert rig.take() == [late("room:a")]


# ------------------------------------------------------------------------------------ a slow hub


def at(lan: Lan, host: Host, seconds: float) -> dict[str, int]:
    """When each topic was joined, in whole seconds, if no connection is lost in so many."""
    began, joined = lan.now, {}
    for _ in range(round(seconds * 10)):
        lan.advance(0.1)
        for event in host.take():
            assert not isinstance(event, SocketDisconnected)
            if isinstance(event, ChannelJoined):
                assert event.topic not in joined
                joined[event.topic] = round(lan.now - began)
    return joined


def refuse_private(topic: str, token: str | None) -> str | None:
    return "Unauthorized: no" if topic.startswith("realtime:private") else None


@pytest.mark.parametrize(("takes", "ends"), [(3.0, [3, 6, 9, 12, 15]), (12.0, [12, 24, 36, 48, 60])])
def test_five_joins_take_five_times_as_long_as_one(takes: float, ends: list[int]) -> None:
    lan = Lan(HubConfig(join_delay=takes))
    host = lan.add(RealtimeClient(RealtimeConfig(server_url="ws://hub/socket")))
    for number in range(5):
        host.do("join", f"room:{number}")
    assert [*at(lan, host, 150.0).values()] == ends
    assert host.opens == 1


def test_a_good_join_behind_four_refused_ones_has_its_turn() -> None:
    lan = Lan(HubConfig(refusal_delay=5.0, authorize=refuse_private))
    host = lan.add(RealtimeClient(RealtimeConfig(server_url="ws://hub/realtime/v1")))
    for number in range(4):
        host.do("join", f"realtime:private-{number}", ChannelConfig(private=True))
    host.do("join", "realtime:public")
    assert at(lan, host, 300.0) == {"realtime:public": 20}
    assert host.opens == 1
