"""How a channel is left. Driven through `RealtimeClient`."""

from __future__ import annotations

from typing import Any

import pytest

from presence_proto.channel import ChannelState
from presence_proto.config import ChannelConfig
from presence_proto.errors import LocalProtocolError
from presence_proto.events import (
    ChannelJoined,
    ChannelLeft,
    SocketDisconnected,
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
