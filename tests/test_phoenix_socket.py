"""Refs, pushes and their replies: what the channels of a client share. Driven through `RealtimeClient`."""

from __future__ import annotations

from typing import Any

import pytest

from presence_proto.errors import LocalProtocolError
from presence_proto.events import (
    ChannelDown,
    ChannelEnd,
    ChannelJoined,
    ProtocolViolation,
    PushFailed,
    PushReplied,
    SocketConnected,
    SocketDisconnected,
)
from presence_proto.serializer import Message
from presence_proto.websocket import BinaryMessage
from rig import Rig, online, realtime

ROOM = "room:a"
both = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])


def joined(**settings: Any) -> Rig:
    rig = online(**settings)
    rig.join(ROOM)
    rig.take()
    return rig


def push(rig: Rig, event: str = "ask", payload: Any = None, **kwargs: Any) -> int:
    push_id = rig.do(rig.client.push, ROOM, event, payload, **kwargs)
    assert isinstance(push_id, int)
    return push_id


# ---------------------------------------------------------------------------------------------- refs


@both
def test_no_ref_is_ever_used_twice_on_whatever_connection(vsn: str) -> None:
    rig = joined(vsn=vsn)
    for _ in range(3):
        push(rig)
        rig.advance(30.0)
        rig.cut()
        rig.advance(1.0)
        rig.open()
        rig.accept_join(ROOM)
    refs = [message.ref for message in rig.received]
    assert len(refs) >= 10
    assert len(set(refs)) == len(refs)


@both
def test_a_join_has_its_ref_for_join_ref_and_all_that_follows_carries_it(vsn: str) -> None:
    rig = joined(vsn=vsn)
    push(rig)
    rig.do(rig.client.track, ROOM, {"a": 1})
    rig.do(rig.client.leave, ROOM)
    [join, *others] = rig.sent()
    assert join.event == "phx_join"
    assert join.join_ref == join.ref is not None
    assert [message.event for message in others] == ["ask", "track", "phx_leave"]
    assert {message.join_ref for message in others} == {join.ref}


# ---------------------------------------------------------------------------------------------- replies


@both
@pytest.mark.parametrize(
    ("status", "response"), [("ok", {}), ("ok", {"n": 1}), ("ok", None), ("error", "too_big"), ("later", [1])]
)
def test_a_reply_comes_with_its_status_and_response(vsn: str, status: str, response: Any) -> None:
    rig = joined(vsn=vsn)
    push_id = push(rig, "ask", {"question": "ü"})
    asked = rig.last()
    assert (asked.topic, asked.event, asked.payload) == (ROOM, "ask", {"question": "ü"})
    rig.say(asked.join_ref, asked.ref, ROOM, "phx_reply", {"status": status, "response": response})
    assert rig.take() == [PushReplied(push_id, ROOM, status, response)]
    rig.advance(100.0)
    assert rig.take() == []


def test_a_push_without_a_payload_has_an_empty_one_and_a_reply_without_a_response_none() -> None:
    rig = joined()
    push_id = push(rig)
    assert rig.last().payload == {}
    rig.say(None, rig.last().ref, ROOM, "phx_reply", {"status": "ok"})
    assert rig.take() == [PushReplied(push_id, ROOM, "ok", None)]


def test_any_json_can_be_pushed_and_is_frozen_when_it_is() -> None:
    rig = joined()
    for payload in ([1, {"a": None}], "text", 7, 1.5, False, {"nested": {"ü": []}}):
        push(rig, "ask", payload)
        assert rig.last().payload == payload
    rig.cut()
    payload = {"list": [1]}
    push(rig, "ask", payload)
    payload["list"].append(2)
    rig.advance(1.0)
    rig.open()
    rig.accept_join(ROOM)
    assert rig.last().payload == {"list": [1]}


def test_replies_come_in_any_order_and_only_the_first_of_each_counts() -> None:
    rig = joined()
    first, second = push(rig), push(rig)
    asked = rig.sent("ask")
    assert first != second
    rig.reply(asked[1], "ok", {"n": 2})
    rig.reply(asked[0], "ok", {"n": 1})
    rig.reply(asked[0], "error")
    rig.reply(asked[1], "ok", {"n": 3})
    assert rig.take() == [PushReplied(second, ROOM, "ok", {"n": 2}), PushReplied(first, ROOM, "ok", {"n": 1})]


@pytest.mark.parametrize("ref", ["999", None, 3, "", "1"])
def test_replies_that_nobody_waits_for_are_nothing(ref: Any) -> None:
    rig = joined()
    push(rig)
    rig.say("1", ref, ROOM, "phx_reply", {"status": "error", "response": {"reason": "?"}})
    rig.say(None, ref, "room:other", "phx_reply", {"status": "error", "response": {"reason": "?"}})
    assert rig.take() == []


@pytest.mark.parametrize("payload", [{}, {"status": 1}, {"status": None, "response": {}}, [], "ok", None, 7])
def test_a_malformed_reply_is_named_and_answers_nothing(payload: Any) -> None:
    rig = joined()
    push_id = push(rig)
    rig.say(None, rig.last().ref, ROOM, "phx_reply", payload)
    assert rig.take() == [ProtocolViolation("a reply must be an object with a string status", ROOM)]
    rig.reply(rig.last())
    assert rig.take() == [PushReplied(push_id, ROOM, "ok", {})]


def test_a_push_without_a_reply_fails_in_time() -> None:
    rig = joined(push_timeout=10.0)
    push_id = push(rig)
    rig.advance(9.9)
    assert rig.take() == []
    rig.advance(0.1)
    assert rig.take() == [PushFailed(push_id, ROOM, "no reply in time")]
    rig.reply(rig.last())
    assert rig.take() == [], "too late"


@pytest.mark.parametrize("end", ["reply", "loss"])
def test_a_push_that_is_over_leaves_no_timer_behind(end: str) -> None:
    rig = joined(push_timeout=2.0, stable_after=1000.0)
    rig.advance(20.0)
    deadline = rig.client.next_deadline()
    push(rig)
    rig.do(rig.client.track, ROOM, {"n": 1})
    assert rig.client.next_deadline() == rig.now + 2.0 < deadline
    if end == "loss":
        rig.cut()
        assert rig.client.next_deadline() == rig.now + 1.0
        rig.advance(1.0)
        rig.open()
    else:
        rig.reply(rig.last("ask"))
        rig.reply(rig.last("track"))
    assert rig.client.next_deadline() >= deadline


def test_each_push_can_have_a_timeout_of_its_own() -> None:
    rig = joined()
    slow, quick = push(rig, timeout=20), push(rig, timeout=0.5)
    rig.advance(0.5)
    assert rig.take() == [PushFailed(quick, ROOM, "no reply in time")]
    rig.advance(19.5)
    assert rig.take() == [PushFailed(slow, ROOM, "no reply in time")]


def test_a_reply_that_is_there_in_the_moment_of_the_timeout_wins() -> None:
    rig = joined()
    push_id = push(rig)
    rig.now += 10.0
    rig.reply(rig.last())
    assert rig.take() == [PushReplied(push_id, ROOM, "ok", {})]


@both
def test_a_late_reply_after_the_server_closed_the_channel_still_counts(vsn: str) -> None:
    rig = joined(vsn=vsn)
    push_id = push(rig)
    asked = rig.last()
    rig.say(asked.join_ref, asked.join_ref, ROOM, "phx_close", {})
    rig.take()
    rig.reply(asked)
    assert rig.take() == [PushReplied(push_id, ROOM, "ok", {})]


@both
def test_a_late_reply_with_the_join_ref_of_an_earlier_life_still_counts(vsn: str) -> None:
    rig = joined(vsn=vsn)
    push_id = push(rig)
    asked = rig.last()
    rig.say(asked.join_ref, asked.join_ref, ROOM, "phx_close", {})
    rig.advance(1.0)
    rig.accept_join(ROOM)
    rig.take()
    rig.reply(asked)
    assert rig.take() == [PushReplied(push_id, ROOM, "ok", {})]


def test_a_late_reply_after_the_channel_was_left_still_counts() -> None:
    rig = joined()
    push_id = push(rig)
    rig.do(rig.client.leave, ROOM)
    rig.reply(rig.last("phx_leave"))
    rig.take()
    rig.reply(rig.last("ask"))
    assert rig.take() == [PushReplied(push_id, ROOM, "ok", {})]


def test_losing_the_connection_fails_what_is_in_flight_once() -> None:
    rig = joined()
    push_id = push(rig)
    asked = rig.last()
    rig.cut("reset")
    assert rig.take() == [
        SocketDisconnected("reset", 1006, retry_in=1.0),
        PushFailed(push_id, ROOM, "the connection ended before the reply: reset"),
        ChannelDown(ROOM, "the connection ended", None, ChannelEnd.CONNECTION_LOST),
    ]
    rig.advance(1.0)
    rig.open()
    rig.reply(asked)
    rig.advance(30.0)
    assert not [event for event in rig.take() if isinstance(event, (PushFailed, PushReplied))]


def test_disconnecting_fails_what_is_in_flight_at_once() -> None:
    rig = joined()
    push_id = push(rig)
    rig.silent = True
    rig.do(rig.client.disconnect)
    assert rig.take() == [
        PushFailed(push_id, ROOM, "the connection ended before the reply: disconnect was called"),
        ChannelDown(ROOM, "disconnect was called", None, ChannelEnd.CONNECTION_LOST),
    ]


@both
def test_a_server_that_has_forgotten_the_channel_is_joined_again(vsn: str) -> None:
    rig = joined(vsn=vsn)
    push_id = push(rig)
    rig.say(
        None,
        rig.last().ref,
        ROOM,
        "phx_reply",
        {"status": "error", "response": {"reason": "unmatched topic"}},
    )
    assert rig.take() == [
        PushReplied(push_id, ROOM, "error", {"reason": "unmatched topic"}),
        ChannelDown(ROOM, "the server has forgotten the channel", 1.0, ChannelEnd.FORGOTTEN),
    ]
    rig.advance(1.0)
    rig.accept_join(ROOM)
    assert rig.take() == [ChannelJoined(ROOM, {}, rejoined=True)]


def test_that_it_had_forgotten_an_earlier_life_says_nothing_about_this_one() -> None:
    rig = joined()
    push_id = push(rig)
    asked = rig.last()
    rig.say("1", "1", ROOM, "phx_close", {})
    rig.advance(1.0)
    rig.accept_join(ROOM)
    rig.take()
    rig.reply(asked, "error", {"reason": "unmatched topic"})
    assert rig.take() == [PushReplied(push_id, ROOM, "error", {"reason": "unmatched topic"})]


def test_a_forgotten_channel_that_is_down_already_is_not_down_twice() -> None:
    rig = joined()
    first, second = push(rig), push(rig)
    for asked in rig.sent("ask"):
        rig.reply(asked, "error", {"reason": "unmatched topic"})
    assert [type(event) for event in rig.take()] == [PushReplied, ChannelDown, PushReplied]
    assert first != second


# ---------------------------------------------------------------------------------------------- waiting


@both
def test_pushes_before_the_join_wait_for_it_and_keep_their_order(vsn: str) -> None:
    rig = realtime(vsn=vsn)
    rig.do(rig.client.join, ROOM)
    first = push(rig, "first")
    rig.connect()
    second = push(rig, "second")
    assert [message.event for message in rig.sent()] == ["phx_join"]
    join = rig.accept_join(ROOM)
    third = push(rig, "third")
    asked = rig.sent(topic=ROOM)[1:]
    assert [message.event for message in asked] == ["first", "second", "third"]
    assert {message.join_ref for message in asked} == {join.ref}
    for message in asked:
        rig.reply(message)
    assert rig.take() == [
        SocketConnected(),
        ChannelJoined(ROOM, {}, rejoined=False),
        *(PushReplied(push_id, ROOM, "ok", {}) for push_id in (first, second, third)),
    ]


def test_a_push_that_waits_for_too_long_fails_and_the_others_stay() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM, {})
    slow = push(rig, "slow", timeout=30)
    quick = push(rig, "quick", timeout=2)
    rig.advance(2.0)
    assert rig.take() == [PushFailed(quick, ROOM, "not joined in time")]
    rig.accept_join(ROOM)
    assert [message.event for message in rig.sent()] == ["phx_join", "slow"]
    rig.reply(rig.last())
    assert rig.take()[-1] == PushReplied(slow, ROOM, "ok", {})


def test_the_timeout_counts_from_the_push_and_not_from_the_join() -> None:
    rig = online(push_timeout=10.0)
    rig.do(rig.client.join, ROOM)
    push_id = push(rig)
    rig.advance(8.0)
    rig.accept_join(ROOM)
    rig.take()
    rig.advance(1.9)
    assert rig.take() == []
    rig.advance(0.1)
    assert rig.take() == [PushFailed(push_id, ROOM, "no reply in time")]


def test_a_push_expires_in_the_queue_of_its_own_channel() -> None:
    rig = online()
    for topic in ("room:b", ROOM, "room:c"):
        rig.do(rig.client.join, topic)
    push_id = push(rig)
    rig.advance(9.0)
    for topic in ("room:b", "room:c"):
        rig.accept_join(topic)
    rig.take()
    rig.advance(1.0)
    assert PushFailed(push_id, ROOM, "not joined in time") in rig.take()


def test_each_channel_has_a_queue_of_its_own() -> None:
    rig = online(max_pending_pushes=1)
    for topic in ("room:a", "room:b"):
        rig.do(rig.client.join, topic)
        rig.do(rig.client.push, topic, "ask")
    rig.accept_join("room:b")
    assert [message.topic for message in rig.sent("ask")] == ["room:b"]
    rig.advance(10.0)
    reasons = [event.reason for event in rig.take() if isinstance(event, PushFailed)]
    assert reasons == ["not joined in time", "no reply in time"]


def test_no_more_than_the_limit_wait_and_the_next_is_refused() -> None:
    rig = online(max_pending_pushes=3)
    rig.do(rig.client.join, ROOM)
    ids = [push(rig) for _ in range(3)]
    deadline = rig.client.next_deadline()
    with pytest.raises(LocalProtocolError, match=r"3 pushes already wait for the join"):
        push(rig)
    assert rig.client.next_deadline() == deadline
    rig.accept_join(ROOM)
    assert len(rig.sent("ask")) == 3
    assert push(rig) == ids[-1] + 1, "the refused one took no number"
    for _ in range(10):
        push(rig)  # no limit for what is in flight: a reply or a timeout ends it


def test_waiting_pushes_outlive_a_connection_and_a_crash() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    push_id = push(rig, timeout=60)
    rig.cut()
    rig.advance(1.0)
    rig.open()
    rig.reply(rig.last("phx_join"), "error", {"reason": "not now"})
    rig.advance(1.0)
    rig.accept_join(ROOM)
    rig.reply(rig.last("ask"))
    assert rig.take()[-1] == PushReplied(push_id, ROOM, "ok", {})
    assert len(rig.sent("ask")) == 1


def test_pushes_to_a_channel_that_is_down_wait_for_the_rejoin() -> None:
    rig = joined()
    rig.say("1", "1", ROOM, "phx_error", {})
    push(rig)
    assert rig.sent("ask") == []
    rig.advance(1.0)
    join = rig.accept_join(ROOM)
    assert [message.join_ref for message in rig.sent("ask")] == [join.ref]


def test_leaving_fails_the_waiting_pushes() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    push_id = push(rig)
    rig.do(rig.client.leave, ROOM)
    assert rig.take() == [PushFailed(push_id, ROOM, "the channel was left")]
    rig.advance(60.0)
    assert not [event for event in rig.take() if isinstance(event, PushFailed)]


def test_disconnecting_fails_the_waiting_pushes() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    push_id = push(rig)
    rig.do(rig.client.disconnect)
    assert rig.take() == [
        PushFailed(push_id, ROOM, "disconnect was called"),
        SocketDisconnected("disconnect was called", 1000),
    ]


def test_a_fatal_refusal_fails_the_waiting_pushes() -> None:
    rig = realtime()
    rig.do(rig.client.join, ROOM)
    push_id = push(rig)
    rig.do(rig.client.connect)
    rig.refuse(401)
    assert rig.take()[-1] == PushFailed(push_id, ROOM, "the connection ended")


def test_pushes_made_while_disconnected_expire() -> None:
    rig = realtime()
    rig.do(rig.client.join, ROOM)
    push_id = push(rig)
    assert rig.client.is_closed
    rig.advance(10.0)
    assert rig.take() == [PushFailed(push_id, ROOM, "not joined in time")]
    assert rig.client.next_deadline() is None


def test_pushes_made_in_the_closing_handshake_are_not_sent_and_fail() -> None:
    rig = joined()
    rig.silent = True
    rig.do(rig.client.disconnect)
    rig.take()
    push_id = push(rig)
    assert rig.take() == []
    rig.release()
    assert rig.take() == [
        SocketDisconnected("disconnect was called", 1000),
        PushFailed(push_id, ROOM, "the connection ended"),
    ]


# ---------------------------------------------------------------------------------------------- binary


def test_bytes_go_out_in_a_binary_frame_and_come_back_in_one() -> None:
    rig = joined()
    push_id = push(rig, "upload", b"\x00\xffdata")
    assert isinstance(rig.frames[-1], BinaryMessage)
    asked = rig.last()
    assert asked == Message("1", "2", ROOM, "upload", b"\x00\xffdata")
    rig.reply(asked, "ok", b"\x01\x02")
    assert rig.take() == [PushReplied(push_id, ROOM, "ok", b"\x01\x02")]


def test_v1_carries_no_bytes() -> None:
    rig = joined(vsn="1.0.0")
    with pytest.raises(LocalProtocolError, match="V1 has no binary frames"):
        push(rig, "upload", b"data")
    assert rig.sent("upload") == []


def test_a_topic_too_long_for_a_binary_frame_is_refused_at_once() -> None:
    rig = online()
    topic = "room:" + "x" * 251
    rig.do(rig.client.join, topic)
    deadline = rig.client.next_deadline()
    with pytest.raises(LocalProtocolError, match="topic has 256 bytes"):
        rig.do(rig.client.push, topic, "upload", b"data")
    assert rig.client.next_deadline() == deadline
    rig.do(rig.client.push, topic, "upload", {"in": "text"})
    rig.accept_join(topic)
    assert rig.last().payload == {"in": "text"}
