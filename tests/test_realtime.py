"""`RealtimeClient` as a whole: commands and getters, time, limits, malformed messages, secrets.

What one channel does is in `test_channel*.py`, what the connection does in `test_connection*.py`.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

from presence_proto.channel import ChannelState
from presence_proto.config import ChannelConfig, RealtimeConfig
from presence_proto.endpoint import ConnId
from presence_proto.errors import LocalProtocolError, PresenceError
from presence_proto.events import (
    ChannelDown,
    ChannelEnd,
    ChannelJoined,
    ChannelLeft,
    ChannelMessage,
    JoinFailed,
    ProtocolViolation,
    PushFailed,
    PushReplied,
)
from presence_proto.realtime_client import RealtimeClient
from rig import Rig, online, realtime

ROOM = "room:a"
LOUNGE = "realtime:lounge"


def in_state(state: str, **settings: Any) -> Rig:
    """A client somewhere in its life, with two channels."""
    rig = realtime(**settings)
    rig.do(rig.client.join, ROOM)
    rig.do(rig.client.join, LOUNGE)
    if state == "idle":
        return rig
    rig.do(rig.client.connect)
    if state == "connecting":
        return rig
    rig.open()
    rig.accept_join(ROOM)
    rig.accept_join(LOUNGE, {})
    if state == "waiting":
        rig.cut()
    elif state == "closing":
        rig.silent = True
        rig.do(rig.client.disconnect)
    rig.take()
    return rig


STATES = ["idle", "connecting", "open", "waiting", "closing"]
in_every_state = pytest.mark.parametrize("state", STATES)


def snapshot(rig: Rig) -> Any:
    client = rig.client
    return (
        client.is_closed,
        client.is_connected,
        client.channels,
        [client.state_of(topic) for topic in client.channels],
        [client.is_synced(topic) for topic in client.channels],
        client.next_deadline(),
        len(rig.received),
        len(rig.events),
        len(rig.opens),
        len(rig.closes),
        client._socket.token,
    )


# ---------------------------------------------------------------------------------------------- getters


@pytest.mark.parametrize(
    ("state", "closed", "connected", "channel", "synced"),
    [
        ("idle", True, False, ChannelState.WAITING, False),
        ("connecting", False, False, ChannelState.WAITING, False),
        ("open", False, True, ChannelState.JOINED, True),
        ("waiting", False, False, ChannelState.WAITING, False),
        ("closing", False, False, ChannelState.WAITING, False),
    ],
)
def test_getters_work_in_every_state(
    state: str, closed: bool, connected: bool, channel: ChannelState, synced: bool
) -> None:
    rig = in_state(state)
    before = snapshot(rig)
    client = rig.client
    assert (client.is_closed, client.is_connected) == (closed, connected)
    assert client.channels == (ROOM, LOUNGE)
    assert client.state_of(LOUNGE) is channel
    assert client.is_synced(LOUNGE) is synced
    assert len(client.presence(LOUNGE)) == 0
    assert client.state_of("nowhere") is ChannelState.CLOSED
    assert client.is_synced("nowhere") is False
    with pytest.raises(LocalProtocolError, match="'nowhere' is not joined"):
        client.presence("nowhere")
    assert snapshot(rig) == before


@in_every_state
def test_the_deadline_is_none_only_when_there_is_nothing_to_wait_for(state: str) -> None:
    rig = in_state(state)
    assert (rig.client.next_deadline() is None) == (state == "idle")


# ---------------------------------------------------------------------------------------------- illegal


class Odd:
    pass


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)

ILLEGAL: dict[str, Any] = {
    "join nothing": lambda c, now: c.join("", now=now),
    "join the socket's own topic": lambda c, now: c.join("phoenix", now=now),
    "join a number": lambda c, now: c.join(7, now=now),
    "join half a character": lambda c, now: c.join("room:\ud800", now=now),
    "join with a list": lambda c, now: c.join("room:b", [], now=now),
    "join with text": lambda c, now: c.join("room:b", "params", now=now),
    "join with bytes inside": lambda c, now: c.join("room:b", {"a": b"x"}, now=now),
    "join with no number": lambda c, now: c.join("room:b", {"a": math.nan}, now=now),
    "join with what is not JSON": lambda c, now: c.join("room:b", {"a": Odd()}, now=now),
    "join Phoenix as Supabase": lambda c, now: c.join("room:b", ChannelConfig(), now=now),
    "join again with other params": lambda c, now: c.join(ROOM, {"a": 1}, now=now),
    "leave an unknown topic": lambda c, now: c.leave("room:b", now=now),
    "push to an unknown topic": lambda c, now: c.push("room:b", "ask", now=now),
    "push no event": lambda c, now: c.push(ROOM, "", now=now),
    "push an event of the protocol": lambda c, now: c.push(ROOM, "phx_leave", now=now),
    "push an event that is a number": lambda c, now: c.push(ROOM, 7, now=now),
    "push half a character for an event": lambda c, now: c.push(ROOM, "\ud800", now=now),
    "push what is not JSON": lambda c, now: c.push(ROOM, "ask", Odd(), now=now),
    "push half a character": lambda c, now: c.push(ROOM, "ask", {"a": "\ud800"}, now=now),
    "push a circle": lambda c, now: c.push(ROOM, "ask", CIRCLE, now=now),
    "push infinity": lambda c, now: c.push(ROOM, "ask", math.inf, now=now),
    "push a key that is a number": lambda c, now: c.push(ROOM, "ask", {1: 2}, now=now),
    "push with no time": lambda c, now: c.push(ROOM, "ask", timeout=0, now=now),
    "push with negative time": lambda c, now: c.push(ROOM, "ask", timeout=-1, now=now),
    "push with all time": lambda c, now: c.push(ROOM, "ask", timeout=math.inf, now=now),
    "push with NaN time": lambda c, now: c.push(ROOM, "ask", timeout=math.nan, now=now),
    "push with text for a time": lambda c, now: c.push(ROOM, "ask", timeout="1", now=now),
    "push too long a name in binary": lambda c, now: c.push(ROOM, "x" * 256, b"data", now=now),
    "broadcast to an unknown topic": lambda c, now: c.broadcast("realtime:b", "hi", now=now),
    "broadcast in a plain channel": lambda c, now: c.broadcast(ROOM, "hi", now=now),
    "broadcast no event": lambda c, now: c.broadcast(LOUNGE, "", now=now),
    "broadcast an event that is a number": lambda c, now: c.broadcast(LOUNGE, 7, now=now),
    "broadcast what is not JSON": lambda c, now: c.broadcast(LOUNGE, "hi", Odd(), now=now),
    "broadcast too long a name in binary": lambda c, now: c.broadcast(LOUNGE, "x" * 256, b"data", now=now),
    "track in an unknown topic": lambda c, now: c.track("room:b", {}, now=now),
    "track a list": lambda c, now: c.track(LOUNGE, [], now=now),
    "track what is not JSON": lambda c, now: c.track(LOUNGE, {"a": Odd()}, now=now),
    "untrack in an unknown topic": lambda c, now: c.untrack("room:b", now=now),
    "an empty token": lambda c, now: c.set_access_token("", now=now),
    "a token that is a number": lambda c, now: c.set_access_token(7, now=now),
}


@in_every_state
@pytest.mark.parametrize("name", ILLEGAL)
def test_an_illegal_command_raises_and_changes_nothing(state: str, name: str) -> None:
    rig = in_state(state)
    before = snapshot(rig)
    with pytest.raises(LocalProtocolError):
        rig.do(lambda *, now: ILLEGAL[name](rig.client, now))
    assert snapshot(rig) == before
    assert rig.do(rig.client.push, ROOM, "ask") == 1, "not even a number was taken"


@pytest.mark.parametrize("state", ["connecting", "open", "waiting", "closing"])
def test_connecting_twice_is_illegal_and_changes_nothing(state: str) -> None:
    rig = in_state(state)
    before = snapshot(rig)
    with pytest.raises(LocalProtocolError, match="connect was already called"):
        rig.do(rig.client.connect)
    assert snapshot(rig) == before


@in_every_state
def test_every_legal_command_is_taken_in_every_state(state: str) -> None:
    rig = in_state(state)
    client = rig.client
    ids = [
        rig.do(client.push, ROOM, "ask"),
        rig.do(client.broadcast, LOUNGE, "hi"),
        rig.do(client.track, LOUNGE, {"n": 1}),
        rig.do(client.untrack, LOUNGE),
        rig.do(client.set_access_token, "jwt"),
        rig.do(client.join, "room:b", {"a": 1}),
        rig.do(client.leave, ROOM),
        rig.do(client.disconnect),
    ]
    assert ids[:2] == [1, 2]
    rig.advance(30.0)
    assert client.is_closed
    assert client.channels == (LOUNGE, "room:b")
    rig.silent = False
    rig.connect()
    assert [message.topic for message in rig.sent("phx_join")][-2:] == [LOUNGE, "room:b"]


# ---------------------------------------------------------------------------------------------- time


COMMANDS = {
    "connect": (),
    "disconnect": (),
    "join": ("room:b",),
    "leave": (ROOM,),
    "push": (ROOM, "ask"),
    "broadcast": (LOUNGE, "hi"),
    "track": (LOUNGE, {"n": 1}),
    "untrack": (LOUNGE,),
    "set_access_token": ("jwt",),
}
FACTS = {
    "transport_opened": (ConnId(1),),
    "receive_data": (ConnId(1), b"\x88\x02\x03\xe8"),
    "transport_closed": (ConnId(1),),
    "tick": (),
}


@pytest.mark.parametrize("state", ["idle", "open"])
@pytest.mark.parametrize("call", [*COMMANDS, *FACTS])
@pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf, 1e18])
def test_a_now_that_is_no_time_is_refused_and_changes_nothing(state: str, call: str, now: float) -> None:
    if call == "connect" and state == "open":
        return  # illegal for another reason
    rig = in_state(state)
    before = snapshot(rig)
    with pytest.raises(LocalProtocolError, match="now must be a finite number of seconds"):
        getattr(rig.client, call)(*(COMMANDS | FACTS)[call], now=now)
    assert not rig.client.drain()
    assert snapshot(rig) == before


def test_now_is_a_keyword() -> None:
    client = realtime().client
    with pytest.raises(TypeError):
        client.tick(1.0)
    with pytest.raises(TypeError):
        client.connect(1.0)


def test_time_that_runs_backwards_stands_still() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    rig.advance(5.0)
    deadline = rig.client.next_deadline()
    rig.client.tick(now=rig.now - 1000.0)
    assert not rig.client.drain()
    assert rig.client.next_deadline() == deadline
    rig.client.push(ROOM, "ask", timeout=1.0, now=-5.0)
    assert rig.client.next_deadline() == rig.now + 1.0, "counted from the latest now"


def test_now_may_be_negative_to_begin_with() -> None:
    rig = Rig(RealtimeClient(RealtimeConfig(server_url="ws://host.test")), now=-500.0)
    rig.connect()
    rig.advance(25.0)
    assert rig.now == -475.0
    assert len(rig.sent("heartbeat")) == 1


def test_an_early_or_repeated_tick_does_nothing() -> None:
    rig = in_state("open")
    deadline = rig.client.next_deadline()
    for _ in range(5):
        rig.do(rig.client.tick)
        rig.now += (deadline - rig.now) / 2
    assert rig.take() == []
    assert rig.client.next_deadline() == deadline


@pytest.mark.parametrize("state", ["idle", "open"])
@pytest.mark.parametrize("call", COMMANDS)
def test_a_command_that_comes_late_does_what_is_due_as_well(state: str, call: str) -> None:
    if call == "connect" and state == "open":
        return  # illegal
    rig = in_state(state)
    rig.do(rig.client.push, LOUNGE, "ask")
    rig.now += 3600.0
    rig.do(getattr(rig.client, call), *COMMANDS[call])  # the rig checks that the deadline lies in the future
    assert len([event for event in rig.take() if isinstance(event, PushFailed)]) == 1


def test_a_transport_that_opens_too_late_is_given_up() -> None:
    rig = in_state("connecting")
    rig.now += 3600.0
    rig.do(rig.client.transport_opened, rig.conn)
    assert [event.reason for event in rig.take()] == ["no connection within 10 s"]


def test_a_very_late_tick_does_everything_that_is_due_once() -> None:
    rig = online(heartbeat_timeout=3600.0)
    rig.do(rig.client.join, ROOM)
    rig.do(rig.client.push, ROOM, "ask")
    rig.jump(1000.0)
    assert [type(event).__name__ for event in rig.take()] == ["JoinFailed", "PushFailed"]
    assert [message.event for message in rig.sent()] == ["phx_join"]
    assert len(rig.sent("heartbeat")) == 1


# ---------------------------------------------------------------------------------------------- many channels


def test_channels_have_fates_of_their_own() -> None:
    rig = online()
    first = rig.join("room:a")
    second = rig.join("room:b")
    rig.do(rig.client.join, "room:c")
    rig.take()
    rig.say(first.join_ref, first.ref, "room:a", "phx_error", {})
    rig.reply(rig.last("phx_join", "room:c"), "error", {"reason": "no"})
    rig.do(rig.client.leave, "room:b")
    rig.reply(rig.last("phx_leave"))
    assert rig.take() == [
        ChannelDown("room:a", "the channel crashed", 1.0, ChannelEnd.CRASHED),
        JoinFailed("room:c", "no", {"reason": "no"}, 1.0, refused=True),
        ChannelLeft("room:b"),
    ]
    assert rig.client.channels == ("room:a", "room:c")
    rig.advance(1.0)
    rig.accept_join("room:c")
    rig.accept_join("room:a")
    assert rig.take() == [ChannelJoined("room:c", {}, False), ChannelJoined("room:a", {}, True)]
    assert second.topic == "room:b"


def test_no_more_channels_than_the_limit() -> None:
    rig = online(max_channels=2)
    rig.do(rig.client.join, "room:a")
    rig.do(rig.client.join, "room:b")
    before = snapshot(rig)
    with pytest.raises(LocalProtocolError, match=r"too many channels: the limit is 2 \(max_channels\)"):
        rig.do(rig.client.join, "room:c")
    assert snapshot(rig) == before
    rig.do(rig.client.join, "room:b")  # it is there already
    rig.do(rig.client.leave, "room:a")
    rig.do(rig.client.join, "room:a")  # in place of the old one
    rig.do(rig.client.leave, "room:b")
    with pytest.raises(LocalProtocolError, match="max_channels"):
        rig.do(rig.client.join, "room:c")
    rig.reply(rig.last("phx_leave"))
    rig.do(rig.client.join, "room:c")
    assert rig.client.channels == ("room:a", "room:c")


# ---------------------------------------------------------------------------------------------- malformed


@pytest.mark.parametrize(
    ("vsn", "text"),
    [
        *[
            ("2.0.0", text)
            for text in ("", "{}", "[]", "null", "7", '["1"]', '[1, 2, "t", 4, {}]', "[[[", "nonsense")
        ],
        *[
            ("2.0.0", text)
            for text in ('[null,null,7,"e",{}]', "[" * 100_000, '[null,null,"\\ud800","e",{}]')
        ],
        *[
            ("1.0.0", text)
            for text in ("", "[]", "{}", '{"topic":"t"}', '{"topic":1,"event":"e","payload":{}}', "{")
        ],
    ],
)
def test_a_malformed_message_is_named_and_passed_over(vsn: str, text: str) -> None:
    rig = online(vsn=vsn)
    rig.join(ROOM)
    rig.take()
    rig.say_text(text)
    [event] = rig.take()
    assert isinstance(event, ProtocolViolation)
    assert event.topic is None
    assert f"V{vsn[0]} message" in event.reason or "nested more than 100 levels" in event.reason
    rig.say(None, None, ROOM, "hello", {})
    assert rig.take() == [ChannelMessage(ROOM, "hello", {})]


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x09abc", b"\x02\xff\xffroom", b"\x01\x01\x01\x06\x02\xff\xfe"]
)
def test_so_is_a_malformed_binary_frame(vsn: str, data: bytes) -> None:
    rig = online(vsn=vsn)
    rig.say_binary(data)
    [event] = rig.take()
    assert isinstance(event, ProtocolViolation)
    assert rig.client.is_connected


def test_an_integer_ref_and_more_than_five_elements_are_no_fault() -> None:
    rig = online()
    rig.join(ROOM)
    rig.take()
    rig.say_text('[null, 7, "room:a", "hello", {}, "more"]')
    assert rig.take() == [ChannelMessage(ROOM, "hello", {})]


# ---------------------------------------------------------------------------------------------- secrets


def test_no_secret_is_in_any_event_output_exception_or_repr() -> None:
    secrets = ("s3cr3t-key", "s3cr3t-token", "s3cr3t-newer", "s3cr3t-param", "s3cr3t-header")
    rig = realtime(
        api_key="s3cr3t-key",
        access_token="s3cr3t-token",
        params={"signature": "s3cr3t-param"},
        headers={"Authorization": "Bearer s3cr3t-header"},
    )
    client = rig.client
    shown: list[Any] = [client, client._socket, client._connection, client._config]
    sent: list[Any] = []
    take = client.drain

    def watched() -> Any:
        outputs = take()
        sent.append(repr(outputs))
        return outputs

    client.drain = watched
    rig.connect()
    rig.join(LOUNGE, state={"s3cr3t-token": None})
    rig.do(client.track, LOUNGE, {})
    rig.reply(rig.last("presence"), "s3cr3t-token")
    violated, refused = rig.take()[-2:]
    assert violated.reason == "presence_state: '…' must be an object with a list 'metas'"
    assert refused.reason == "the server said …"
    rig.do(client.push, LOUNGE, "hello", {})
    rig.reply(rig.last("hello"), "s3cr3t", {"s3cr3t-token": ["is no", "s3cr3t-token", 1]})
    [refusal] = rig.take()
    assert (refusal.status, refusal.response) == ("s3cr3t", {"s3cr3t-token": ["is no", "s3cr3t-token", 1]})
    rig.do(client.set_access_token, "s3cr3t-newer")
    shown += [client._channels[LOUNGE], client._channels[LOUNGE]._current]
    rig.close(1011, "s3cr3t-token s3cr3t-key s3cr3t-param s3cr3t-header")
    rig.advance(1.0)
    rig.refuse(503, b"s3cr3t-newer s3cr3t-key")
    rig.advance(2.0)
    rig.open_transport()
    rig.deliver(b"s3cr3t-key: s3cr3t-newer")
    rig.cut("s3cr3t-header")
    shown += [*rig.events, *rig.opens, *rig.closes, *rig.received, *rig.requests]
    assert any("SendData" in text for text in sent)
    for one in [*sent, *map(repr, shown), *map(str, shown)]:
        assert not any(secret in one for secret in secrets), one


# ---------------------------------------------------------------------------------------------- the rest


def test_a_client_needs_no_random_generator_and_uses_it_for_jitter_only() -> None:
    class Counting(Random):
        calls = 0

        def random(self) -> float:
            self.calls += 1
            return super().random()

    rng = Counting(1)
    rig = realtime(rng=rng)
    rig.connect()
    rig.join(ROOM)
    rig.do(rig.client.push, ROOM, "ask")
    rig.reply(rig.last("ask"))
    assert rig.take()[-1] == PushReplied(1, ROOM, "ok", {})
    assert rng.calls == 0
    rig.say("1", "1", ROOM, "phx_error", {})
    rig.cut()
    assert rng.calls == 2


def test_what_a_caller_may_catch_has_one_base() -> None:
    assert issubclass(LocalProtocolError, PresenceError)


def test_redacted_works_in_every_state() -> None:
    rig = realtime(access_token="s3cr3t-old")
    assert rig.client.redacted("no s3cr3t-old here") == "no … here"
    rig.connect()
    rig.do(rig.client.set_access_token, "s3cr3t-new")
    assert rig.client.redacted("no s3cr3t-old and no s3cr3t-new") == "no … and no …"
    rig.do(rig.client.disconnect)
    assert rig.client.redacted("no s3cr3t-old and no s3cr3t-new") == "no … and no …"
