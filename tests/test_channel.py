"""One channel: its joins, its lives on the server, and its leave. Driven through `RealtimeClient`."""

from __future__ import annotations

import math
from typing import Any

import pytest

from presence_proto.channel import ChannelState
from presence_proto.config import ChannelConfig
from presence_proto.errors import LocalProtocolError
from presence_proto.events import (
    ChannelDown,
    ChannelEnd,
    ChannelJoined,
    ChannelLeft,
    ChannelMessage,
    JoinFailed,
    SocketConnected,
    SocketDisconnected,
    SystemMessage,
)
from presence_proto.serializer import Message
from rig import Rig, online, realtime

ROOM = "room:a"
LOUNGE = "realtime:lounge"
both = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])


def joined(topic: str = ROOM, **settings: Any) -> Rig:
    rig = online(**settings)
    rig.join(topic)
    rig.take()
    return rig


def state(rig: Rig, topic: str = ROOM) -> ChannelState:
    found = rig.client.state_of(topic)
    assert isinstance(found, ChannelState)
    return found


def close(rig: Rig, join: Message, event: str = "phx_close", payload: Any = None) -> None:
    """What the server says when a life ends."""
    rig.say(join.join_ref, join.join_ref, join.topic, event, {} if payload is None else payload)


# ---------------------------------------------------------------------------------------------- joining


@both
def test_joining_sends_phx_join_and_ends_in_joined(vsn: str) -> None:
    rig = online(vsn=vsn)
    rig.do(rig.client.join, ROOM, {"user_id": "alice", "n": 1})
    assert state(rig) is ChannelState.JOINING
    [join] = rig.sent()
    assert (join.topic, join.event, join.payload) == (ROOM, "phx_join", {"user_id": "alice", "n": 1})
    rig.reply(join, "ok", {"welcome": True})
    assert rig.take() == [ChannelJoined(ROOM, {"welcome": True}, rejoined=False)]
    assert state(rig) is ChannelState.JOINED


def test_a_plain_topic_joins_with_an_empty_payload_and_no_token() -> None:
    rig = online(access_token="jwt")
    rig.do(rig.client.join, ROOM)
    assert rig.last().payload == {}


def test_a_supabase_topic_joins_with_a_config() -> None:
    rig = online()
    rig.do(rig.client.join, LOUNGE)
    assert rig.last().payload == {
        "config": {
            "broadcast": {"ack": False, "self": False},
            "presence": {"enabled": True, "key": ""},
            "postgres_changes": [],
            "private": False,
        }
    }


def test_the_config_says_what_the_channel_config_says_and_the_token_is_beside_it() -> None:
    rig = online(access_token="jwt")
    change = {"event": "*", "schema": "public"}
    config = ChannelConfig(
        broadcast_ack=True,
        broadcast_self=True,
        presence=False,
        presence_key="alice",
        private=True,
        postgres_changes=[change],
    )
    rig.do(rig.client.join, "realtime:any:topic", config)
    change["schema"] = "changed later"
    assert rig.last().payload == {
        "config": {
            "broadcast": {"ack": True, "self": True},
            "presence": {"enabled": False, "key": "alice"},
            "postgres_changes": [{"event": "*", "schema": "public"}],
            "private": True,
        },
        "access_token": "jwt",
    }


def test_params_are_frozen_when_they_are_given() -> None:
    rig = realtime()
    params = {"list": [1]}
    rig.do(rig.client.join, ROOM, params)
    params["list"].append(2)
    rig.connect()
    assert rig.last().payload == {"list": [1]}


def test_what_is_joined_before_the_connection_is_there_joins_with_it_in_order() -> None:
    rig = realtime()
    for topic in ("room:b", "room:a"):
        rig.do(rig.client.join, topic)
    assert state(rig) is ChannelState.WAITING
    rig.do(rig.client.connect)
    rig.do(rig.client.join, "room:c")
    rig.open()
    assert [message.topic for message in rig.sent("phx_join")] == ["room:b", "room:a", "room:c"]
    assert rig.client.channels == ("room:b", "room:a", "room:c")


def test_joining_a_topic_again_changes_nothing() -> None:
    rig = online()
    for params in (None, {}, None):
        rig.do(rig.client.join, ROOM, params)
    rig.accept_join(ROOM)
    rig.do(rig.client.join, ROOM, {})
    rig.do(rig.client.join, LOUNGE, ChannelConfig(presence_key="alice"))
    rig.do(rig.client.join, LOUNGE, ChannelConfig(presence_key="alice"))
    assert [message.topic for message in rig.sent("phx_join")] == [ROOM, LOUNGE]


def test_joining_a_topic_again_late_does_what_was_due() -> None:
    rig = online()
    rig.join("room:a")
    rig.now += 26  # nobody ticked when the heartbeat was due
    rig.do(rig.client.join, "room:a")
    assert len(rig.sent("heartbeat")) == 1
    with pytest.raises(LocalProtocolError, match="now must be"):
        rig.client.join("room:a", now=math.nan)


@pytest.mark.parametrize(
    ("topic", "params"),
    [(ROOM, {"a": 1}), (LOUNGE, {}), (LOUNGE, ChannelConfig(private=True))],
)
def test_joining_a_topic_again_with_other_params_is_refused(topic: str, params: Any) -> None:
    rig = joined(topic)
    with pytest.raises(LocalProtocolError, match="is already joined with other params: leave it first"):
        rig.do(rig.client.join, topic, params)
    assert state(rig, topic) is ChannelState.JOINED
    assert rig.take() == []


# ---------------------------------------------------------------------------------------------- failing


@pytest.mark.parametrize(
    ("status", "response", "reason"),
    [
        ("error", {"reason": "unauthorized"}, "unauthorized"),
        ("error", {"reason": {"code": 7}}, "the server said error"),
        ("error", {"reason": "x" * 500}, "x" * 200),
        ("error", {"reason": ""}, "the server said error"),
        ("error", "not today", "not today"),
        ("error", {"message": "not today"}, "not today"),
        ("error", {"code": 7, "error": "not today"}, "not today"),
        ("error", {"code": 7, "msg": "not today"}, "not today"),
        ("error", {"errors": {"topic": ["not today"]}}, "not today"),
        ("error", {"title": "no", "error": {"detail": "not today"}}, "not today"),
        ("error", [[[["too deep"]]]], "the server said error"),
        ("error", None, "the server said error"),
        ("maybe", {}, "the server said maybe"),
        ("error", {"reason": "no s3cr3t-token here"}, "no … here"),
        ("error", {"reason": "x" * 195 + "s3cr3t-token"}, "x" * 195 + "…"),
    ],
)
def test_a_refused_join_says_why_and_is_tried_again(status: str, response: Any, reason: str) -> None:
    rig = online(access_token="s3cr3t-token")
    rig.do(rig.client.join, ROOM)
    join = rig.last()
    rig.say(join.join_ref, join.ref, ROOM, "phx_reply", {"status": status, "response": response})
    [failed] = rig.take()
    assert (failed.topic, failed.reason, failed.retry_in) == (ROOM, reason, 1.0)
    assert failed.response == response
    assert "s3cr3t" not in repr(failed)
    assert state(rig) is ChannelState.WAITING
    rig.advance(1.0)
    assert state(rig) is ChannelState.JOINING
    rig.accept_join(ROOM)
    assert rig.take() == [ChannelJoined(ROOM, {}, rejoined=False)]


def test_refused_joins_back_off_to_thirty_seconds() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    delays = []
    for _ in range(7):
        rig.reply(rig.last("phx_join"), "error", {"reason": "no"})
        [failed] = rig.take()
        delays.append(failed.retry_in)
        rig.advance(failed.retry_in - 0.1)
        assert state(rig) is ChannelState.WAITING
        rig.advance(0.1)
        assert state(rig) is ChannelState.JOINING
    assert delays == [1, 2, 4, 8, 16, 30, 30]


@both
@pytest.mark.parametrize(
    ("event", "payload", "reason"),
    [("phx_error", {}, "the channel crashed"), ("phx_close", {"reason": "shutdown"}, "shutdown")],
)
def test_a_life_that_ends_while_joining_is_a_failed_join(
    vsn: str, event: str, payload: Any, reason: str
) -> None:
    rig = online(vsn=vsn)
    rig.do(rig.client.join, ROOM)
    close(rig, rig.last(), event, payload)
    assert rig.take() == [JoinFailed(ROOM, reason, None, retry_in=1.0, refused=True)]
    rig.advance(1.0)
    rig.accept_join(ROOM)
    assert state(rig) is ChannelState.JOINED


def test_a_reply_in_the_moment_of_the_join_timeout_wins() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    rig.now += 10.0
    rig.accept_join(ROOM)
    assert rig.take() == [ChannelJoined(ROOM, {}, rejoined=False)]


def test_losing_the_connection_while_joining_joins_with_the_next_one_at_once() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    rig.cut()
    assert rig.take() == [SocketDisconnected("eof", 1006, retry_in=1.0)]
    rig.advance(1.0)
    rig.open()
    assert state(rig) is ChannelState.JOINING
    assert len(rig.sent("phx_join")) == 2


def test_a_rejoin_that_waits_does_not_outlive_the_connection() -> None:
    rig = joined(reconnect_delay=5.0)
    close(rig, rig.last("phx_join"), "phx_error")
    rig.advance(3.0)
    rig.cut()
    rig.advance(4.0)
    assert len(rig.sent("phx_join")) == 1
    rig.advance(1.0)
    rig.open()
    assert len(rig.sent("phx_join")) == 2


# ---------------------------------------------------------------------------------------------- lives


@both
@pytest.mark.parametrize(
    ("event", "payload", "reason"),
    [
        ("phx_error", {}, "the channel crashed"),
        ("phx_error", {"reason": "channel_crash"}, "channel_crash"),
        ("phx_error", None, "the channel crashed"),
        ("phx_close", {}, "the server closed the channel"),
        ("phx_close", {"reason": "x" * 300}, "x" * 200),
        ("phx_close", "shutdown", "shutdown"),
        ("phx_close", [], "the server closed the channel"),
    ],
)
def test_a_channel_that_ends_unasked_is_down_and_joined_again(
    vsn: str, event: str, payload: Any, reason: str
) -> None:
    rig = joined(vsn=vsn)
    close(rig, rig.last("phx_join"), event, payload)
    end = {"phx_error": ChannelEnd.CRASHED, "phx_close": ChannelEnd.CLOSED}[event]
    assert rig.take() == [ChannelDown(ROOM, reason, 1.0, end)]
    assert state(rig) is ChannelState.WAITING
    rig.advance(1.0)
    rig.accept_join(ROOM)
    assert rig.take() == [ChannelJoined(ROOM, {}, rejoined=True)]


@pytest.mark.parametrize("event", ["phx_error", "phx_close"])
def test_the_end_of_a_life_may_come_without_refs(event: str) -> None:
    rig = joined()
    rig.say(None, None, ROOM, event, {})
    assert [type(one) for one in rig.take()] == [ChannelDown]


def test_crashes_back_off_until_the_channel_was_joined_for_a_while() -> None:
    rig = joined(stable_after=5.0)
    delays = []
    for stay in (0.0, 4.9, 4.9, 4.9, 4.9, 4.9, 4.9, 5.0, 0.0):
        rig.advance(stay)
        close(rig, rig.last("phx_join"), "phx_error")
        [down] = rig.take()
        delays.append(down.retry_in)
        rig.advance(down.retry_in)
        rig.accept_join(ROOM)
        rig.take()
    assert delays == [1, 2, 4, 8, 16, 30, 30, 1, 2]


def test_an_error_of_the_system_is_the_reason_of_the_close_behind_it() -> None:
    rig = joined(LOUNGE)
    error = {
        "extension": "presence",
        "status": "error",
        "message": "rate limit exceeded",
        "channel": "lounge",
    }
    rig.say(None, None, LOUNGE, "system", error)
    close(rig, rig.last("phx_join"))
    assert rig.take() == [
        SystemMessage(LOUNGE, "presence", "error", "rate limit exceeded", error),
        ChannelDown(LOUNGE, "rate limit exceeded", 1.0, ChannelEnd.CLOSED),
    ]
    rig.advance(1.0)
    join = rig.accept_join(LOUNGE)
    rig.say(None, None, LOUNGE, "system", {"status": "ok", "message": "Subscribed"})
    rig.take()
    close(rig, join)
    assert rig.take() == [ChannelDown(LOUNGE, "the server closed the channel", 2.0, ChannelEnd.CLOSED)]


@both
def test_echoes_of_an_earlier_life_do_not_touch_this_one(vsn: str) -> None:
    rig = joined(LOUNGE, vsn=vsn)
    first = rig.last("phx_join")
    close(rig, first, "phx_error")
    rig.advance(1.0)
    second = rig.accept_join(LOUNGE)
    rig.take()
    assert first.ref != second.ref
    for event in ("phx_close", "phx_error"):
        close(rig, first, event)
    rig.reply(first)
    assert rig.take() == []
    assert state(rig, LOUNGE) is ChannelState.JOINED


def test_on_v2_whatever_carries_another_join_ref_is_an_echo() -> None:
    rig = joined(LOUNGE)
    first = rig.last("phx_join")
    close(rig, first, "phx_error")
    rig.advance(1.0)
    second = rig.accept_join(LOUNGE)
    rig.take()
    for event in ("presence_state", "hello", "broadcast", "system"):
        rig.say(first.join_ref, None, LOUNGE, event, {})
    assert rig.take() == []
    rig.say(second.join_ref, None, LOUNGE, "hello", {})
    rig.say(None, None, LOUNGE, "hello", {})
    assert rig.take() == [ChannelMessage(LOUNGE, "hello", {})] * 2


def test_nothing_is_heard_of_a_channel_that_is_down() -> None:
    rig = joined()
    join = rig.last("phx_join")
    close(rig, join, "phx_error")
    rig.take()
    rig.say(join.join_ref, None, ROOM, "hello", {})
    rig.say(None, None, ROOM, "hello", {})
    rig.reply(join)
    close(rig, join)
    assert rig.take() == []


def test_a_second_answer_to_a_join_is_nothing() -> None:
    rig = joined()
    rig.reply(rig.last("phx_join"), "error", {"reason": "no"})
    assert rig.take() == []
    assert state(rig) is ChannelState.JOINED


def test_a_lost_connection_takes_the_channels_down_and_the_next_one_brings_them_back() -> None:
    rig = joined()
    rig.do(rig.client.join, "room:b")
    rig.cut("reset")
    assert rig.take() == [
        SocketDisconnected("reset", 1006, retry_in=1.0),
        ChannelDown(ROOM, "the connection ended", None, ChannelEnd.CONNECTION_LOST),
    ]
    assert (state(rig), state(rig, "room:b")) == (ChannelState.WAITING, ChannelState.WAITING)
    rig.advance(1.0)
    rig.open()
    rig.accept_join(ROOM)
    rig.accept_join("room:b")
    assert rig.take() == [
        SocketConnected(),
        ChannelJoined(ROOM, {}, rejoined=True),
        ChannelJoined("room:b", {}, rejoined=False),
    ]


def test_disconnecting_keeps_the_channels_and_connecting_joins_them_again() -> None:
    rig = joined()
    rig.do(rig.client.disconnect)
    assert rig.take() == [
        ChannelDown(ROOM, "disconnect was called", None, ChannelEnd.CONNECTION_LOST),
        SocketDisconnected("disconnect was called", 1000),
    ]
    assert rig.client.channels == (ROOM,)
    rig.connect()
    rig.accept_join(ROOM)
    assert rig.take() == [SocketConnected(), ChannelJoined(ROOM, {}, rejoined=True)]


@both
def test_leaving_asks_the_server_and_forgets_the_channel(vsn: str) -> None:
    rig = joined(vsn=vsn)
    rig.do(rig.client.leave, ROOM)
    assert state(rig) is ChannelState.LEAVING
    leave = rig.last()
    assert (leave.event, leave.payload) == ("phx_leave", {})
    rig.reply(leave)
    assert rig.take() == [ChannelLeft(ROOM)]
    assert state(rig) is ChannelState.CLOSED
    assert rig.client.channels == ()
    close(rig, rig.last("phx_join"))
    rig.advance(100.0)
    assert rig.take() == []


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_the_end_of_the_life_answers_the_leave_as_well(event: str) -> None:
    rig = joined()
    rig.do(rig.client.leave, ROOM)
    close(rig, rig.last("phx_join"), event)
    assert rig.take() == [ChannelLeft(ROOM)]
    rig.reply(rig.last("phx_leave"))
    assert rig.take() == []


def test_so_does_a_server_that_knows_no_such_channel() -> None:
    rig = joined()
    rig.do(rig.client.leave, ROOM)
    rig.reply(rig.last(), "error", {"reason": "unmatched topic"})
    assert rig.take() == [ChannelLeft(ROOM)]


def test_a_push_that_finds_the_channel_gone_changes_nothing_about_the_leave() -> None:
    rig = joined()
    rig.do(rig.client.push, ROOM, "ask")
    rig.do(rig.client.leave, ROOM)
    rig.reply(rig.last("ask"), "error", {"reason": "unmatched topic"})
    assert state(rig) is ChannelState.LEAVING
    rig.reply(rig.last("phx_leave"), "error", {"reason": "unmatched topic"})
    assert rig.take()[1:] == [ChannelLeft(ROOM)]


def test_a_leave_without_an_answer_ends_in_time() -> None:
    rig = joined(push_timeout=7.0)
    rig.do(rig.client.leave, ROOM)
    rig.advance(6.9)
    assert rig.take() == []
    rig.advance(0.1)
    assert rig.take() == [ChannelLeft(ROOM)]
    assert rig.client.channels == ()
    assert len(rig.sent("phx_leave")) == 1


def test_nothing_else_is_done_in_a_channel_that_is_being_left() -> None:
    rig = online(state_timeout=2.0)
    rig.do(rig.client.join, "realtime:room", ChannelConfig(track_limit=1, track_window=3.0))
    rig.accept_join("realtime:room")
    for n in range(2):
        rig.do(rig.client.track, "realtime:room", {"n": n})
    rig.reply(rig.last("presence"))
    rig.do(rig.client.leave, "realtime:room")
    rig.advance(9.0)
    assert [message.event for message in rig.sent()] == ["phx_join", "presence", "phx_leave"]


@pytest.mark.parametrize("end", ["cut", "disconnect"])
def test_a_leave_is_done_when_the_connection_ends(end: str) -> None:
    rig = joined()
    rig.do(rig.client.leave, ROOM)
    rig.cut() if end == "cut" else rig.do(rig.client.disconnect)
    assert ChannelLeft(ROOM) in rig.take()
    assert rig.client.channels == ()


def test_leaving_while_joining_takes_the_join_back() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    join = rig.last()
    rig.do(rig.client.leave, ROOM)
    leave = rig.last()
    assert (leave.event, leave.join_ref) == ("phx_leave", join.ref)
    rig.reply(join)
    assert rig.take() == [], "the late ok changes nothing"
    assert state(rig) is ChannelState.LEAVING
    rig.reply(leave)
    assert rig.take() == [ChannelLeft(ROOM)]


@pytest.mark.parametrize("when", ["never connected", "waiting for the rejoin", "disconnected"])
def test_leaving_when_there_is_nobody_to_ask_is_done_at_once(when: str) -> None:
    rig = realtime()
    if when == "never connected":
        rig.do(rig.client.join, ROOM)
    else:
        rig.connect()
        rig.join(ROOM)
        if when == "disconnected":
            rig.cut()
        else:
            close(rig, rig.last("phx_join"), "phx_error")
    rig.take()
    sent = len(rig.sent())
    rig.do(rig.client.leave, ROOM)
    assert rig.take() == [ChannelLeft(ROOM)]
    assert rig.client.channels == ()
    rig.advance(1.0)
    if when == "disconnected":
        rig.open()
    assert len(rig.sent()) == sent


def test_leaving_in_the_closing_handshake_is_done_at_once() -> None:
    rig = joined()
    rig.silent = True
    rig.do(rig.client.disconnect)
    rig.take()
    rig.do(rig.client.leave, ROOM)
    assert rig.take() == [ChannelLeft(ROOM)]
    rig.release()
    assert rig.take() == [SocketDisconnected("disconnect was called", 1000)]


@both
def test_leaving_and_joining_back_to_back_begins_a_new_channel(vsn: str) -> None:
    rig = joined(vsn=vsn)
    first = rig.last("phx_join")
    rig.do(rig.client.leave, ROOM)
    rig.do(rig.client.join, ROOM, {"other": "params"})
    assert rig.take() == [ChannelLeft(ROOM)]
    assert [message.event for message in rig.sent()] == ["phx_join", "phx_leave", "phx_join"]
    second = rig.last()
    assert second.payload == {"other": "params"}
    close(rig, first)  # the reply to the leave never comes
    assert rig.take() == []
    rig.reply(second)
    close(rig, first)
    assert rig.take() == [ChannelJoined(ROOM, {}, rejoined=False)]
    assert state(rig) is ChannelState.JOINED


@both
def test_the_answer_to_a_duplicate_join_comes_before_the_close_of_the_old_life(vsn: str) -> None:
    rig = joined(LOUNGE, vsn=vsn, state_timeout=3.0)
    first = rig.last("phx_join")
    rig.advance(3.0)  # no presence_state came: the client joins again, without leaving
    second = rig.last("phx_join")
    assert first.ref != second.ref
    rig.reply(second)
    close(rig, first)
    assert state(rig, LOUNGE) is ChannelState.JOINED
    rig.say(second.join_ref, None, LOUNGE, "presence_state", {})
    assert rig.client.is_synced(LOUNGE)


def test_a_channel_that_is_being_left_takes_no_commands() -> None:
    rig = joined()
    rig.do(rig.client.leave, ROOM)
    client = rig.client
    for command, *args in (
        (client.leave, ROOM),
        (client.push, ROOM, "ask"),
        (client.track, ROOM, {}),
        (client.untrack, ROOM),
        (client.broadcast, ROOM, "hello"),
    ):
        with pytest.raises(LocalProtocolError, match="'room:a' is not joined"):
            rig.do(command, *args)
    assert len(client.presence(ROOM)) == 0, "getters work all the same"
    assert [message.event for message in rig.sent()] == ["phx_join", "phx_leave"]
