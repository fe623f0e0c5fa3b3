"""Heartbeats: when they are sent, and what silence means.

Driven through `RealtimeClient`, over real bytes.
"""

from __future__ import annotations

import pytest

from presence_proto.endpoint import CloseTransport, ConnId
from presence_proto.events import JoinFailed, SocketDisconnected
from presence_proto.websocket import PongReceived
from rig import Rig, online


def lost(rig: Rig) -> SocketDisconnected:
    """The one event of the last moments."""
    [event] = rig.take()
    assert isinstance(event, SocketDisconnected)
    return event


def beats(rig: Rig) -> int:
    return len(rig.sent("heartbeat"))


# ---------------------------------------------------------------------------------------------- heartbeats


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
def test_a_heartbeat_is_sent_every_interval(vsn: str) -> None:
    rig = online(heartbeat_interval=25.0, vsn=vsn)
    rig.advance(24.9)
    assert beats(rig) == 0
    rig.advance(0.1)
    [beat] = rig.sent("heartbeat")
    assert (beat.join_ref, beat.topic, beat.payload) == (None, "phoenix", {})
    assert beat.ref is not None
    rig.advance(75.0)
    assert beats(rig) == 4
    assert len({message.ref for message in rig.sent("heartbeat")}) == 4
    assert rig.take() == []


def test_a_missing_reply_closes_the_connection_and_reconnects() -> None:
    rig = online(heartbeat_interval=25.0, heartbeat_timeout=10.0)
    rig.answers_heartbeats = False
    rig.advance(34.9)
    assert rig.take() == []
    rig.advance(0.1)
    assert lost(rig) == SocketDisconnected("no heartbeat reply within 10 s", retry_in=1.0)
    assert rig.closes == [CloseTransport(ConnId(1), abort=True)]
    rig.advance(1.0)
    rig.open()
    assert rig.client.is_connected


def test_a_reply_in_the_last_moment_is_in_time() -> None:
    rig = online()
    rig.answers_heartbeats = False
    rig.advance(25.0)
    rig.now += 10.0
    rig.reply(rig.last("heartbeat"))
    assert rig.client.is_connected
    assert rig.take() == []


def test_any_answer_to_a_heartbeat_is_a_sign_of_life_but_nothing_else_is() -> None:
    rig = online()
    rig.answers_heartbeats = False
    rig.advance(25.0)
    rig.reply(rig.last("heartbeat"), "error", {"reason": "unmatched topic"})
    rig.advance(25.0)
    assert rig.client.is_connected
    rig.say(None, None, "phoenix", "phx_reply", {"status": "ok", "response": {}})
    rig.say(None, "999", "phoenix", "phx_reply", {"status": "ok", "response": {}})
    rig.advance(10.0)
    assert not rig.client.is_connected


def test_an_answer_counts_once_and_on_its_own_connection() -> None:
    rig = online()
    rig.answers_heartbeats = False
    rig.advance(25.0)
    first = rig.last("heartbeat")
    rig.reply(first)
    rig.advance(25.0)
    rig.reply(first)
    second = rig.last("heartbeat")
    rig.advance(10.0)
    assert not rig.client.is_connected
    rig.advance(1.0)
    rig.open()
    rig.advance(25.0)
    rig.reply(second)
    rig.advance(10.0)
    assert not rig.client.is_connected


def test_an_interval_shorter_than_the_timeout_keeps_the_first_unanswered_ones_time() -> None:
    rig = online(heartbeat_interval=4.0, heartbeat_timeout=10.0)
    rig.answers_heartbeats = False
    rig.advance(13.9)
    assert beats(rig) == 3
    rig.advance(0.1)
    assert lost(rig).reason == "no heartbeat reply within 10 s"


def test_with_a_short_interval_an_answer_to_any_of_them_is_enough() -> None:
    rig = online(heartbeat_interval=4.0, heartbeat_timeout=10.0)
    rig.answers_heartbeats = False
    rig.advance(9.0)
    rig.reply(rig.sent("heartbeat")[0])
    rig.advance(12.9)  # the third was sent at 12 and has until 22
    assert rig.client.is_connected
    rig.advance(0.1)
    assert not rig.client.is_connected


def test_an_answer_makes_those_before_it_void() -> None:
    rig = online(heartbeat_interval=4.0, heartbeat_timeout=10.0)
    rig.answers_heartbeats = False
    rig.advance(9.0)
    first, second = rig.sent("heartbeat")
    rig.reply(second)
    rig.advance(4.0)
    rig.reply(first)
    rig.advance(8.9)  # the third was sent at 12 and has until 22
    assert rig.client.is_connected
    rig.advance(0.1)
    assert not rig.client.is_connected


def test_a_late_tick_sends_one_heartbeat_not_many() -> None:
    rig = online(heartbeat_interval=25.0)
    rig.jump(25.0 * 40)
    assert beats(rig) == 1
    rig.advance(24.9)
    assert beats(rig) == 1
    rig.advance(0.1)
    assert beats(rig) == 2
    assert rig.take() == []


@pytest.mark.parametrize("interval", [4.0, 25.0])
def test_after_a_long_gap_an_unanswered_heartbeat_is_asked_again_not_guessed(interval: float) -> None:
    rig = online(heartbeat_interval=interval, heartbeat_timeout=10.0)
    rig.answers_heartbeats = False
    rig.advance(interval)
    assert beats(rig) == 1
    rig.jump(3600.0)
    assert beats(rig) == 2, "one, not many"
    assert rig.client.is_connected
    assert rig.take() == []
    rig.reply(rig.sent("heartbeat")[0])
    rig.reply(rig.sent("heartbeat")[1])
    rig.advance(interval - 0.1)
    assert rig.client.is_connected


def test_a_gap_that_ends_before_the_next_heartbeat_is_one_as_well() -> None:
    rig = online(heartbeat_interval=25.0, heartbeat_timeout=10.0)
    rig.answers_heartbeats = False
    rig.advance(25.0)
    rig.jump(20.5)  # more than ten seconds after the reply was due
    assert beats(rig) == 2
    assert rig.client.is_connected
    rig.advance(9.9)
    assert rig.client.is_connected
    rig.advance(0.1)
    assert not rig.client.is_connected


def test_after_a_long_gap_silence_ends_the_connection_within_the_timeout() -> None:
    rig = online()
    rig.answers_heartbeats = False
    rig.advance(25.0)
    rig.jump(3600.0)
    rig.advance(9.9)
    assert rig.client.is_connected
    rig.advance(0.1)
    assert lost(rig).reason == "no heartbeat reply within 10 s"


def test_a_short_delay_of_the_tick_is_no_gap() -> None:
    rig = online()
    rig.answers_heartbeats = False
    rig.advance(25.0)
    rig.jump(15.0)
    assert not rig.client.is_connected


def test_during_a_join_a_missing_heartbeat_reply_has_patience() -> None:
    rig = online(join_timeout=20.0)
    rig.answers_heartbeats = False
    rig.advance(24.0)
    rig.do(rig.client.join, "room:slow")  # until 44, and the heartbeat of 25 has until 35
    rig.advance(19.0)
    assert rig.client.is_connected
    rig.accept_join("room:slow")
    rig.reply(rig.last("heartbeat"))
    rig.advance(5.0)
    assert rig.client.is_connected


def test_patience_ends_three_join_timeouts_after_the_last_answer() -> None:
    rig = online(join_timeout=20.0)
    rig.answers_heartbeats = False
    rig.advance(24.0)
    rig.do(rig.client.join, "room:slow")
    rig.advance(59.9)
    assert [type(event) for event in rig.take()] == [JoinFailed]
    rig.advance(0.1)
    assert lost(rig).reason == "no heartbeat reply within 10 s"


def test_patience_ends_when_the_last_join_is_answered() -> None:
    rig = online(join_timeout=1000.0)
    rig.answers_heartbeats = False
    for topic in ("room:a", "room:b", "room:c"):
        rig.do(rig.client.join, topic)
    rig.accept_join("room:c")
    rig.reply(rig.last("phx_join", "room:a"), "error", {"reason": "no"})
    rig.do(rig.client.leave, "room:a")
    rig.advance(24.0)
    rig.do(rig.client.leave, "room:b")  # nobody waits for its join any more
    rig.advance(11.0)  # the heartbeat of 25 has until 35
    [end] = [event for event in rig.take() if isinstance(event, SocketDisconnected)]
    assert end.reason == "no heartbeat reply within 10 s"


def test_patience_lasts_as_long_as_a_join_is_under_way() -> None:
    rig = online(join_timeout=100.0)
    rig.answers_heartbeats = False
    rig.do(rig.client.join, "room:quick")
    rig.do(rig.client.join, "room:slow")
    rig.accept_join("room:quick")
    rig.advance(60.0)
    assert rig.client.is_connected


def test_a_join_that_the_server_has_passed_over_does_not_block_it() -> None:
    rig = online(join_timeout=100.0)
    rig.answers_heartbeats = False
    rig.do(rig.client.join, "room:slow")
    rig.do(rig.client.join, "room:quick")
    rig.accept_join("room:quick")
    rig.advance(34.9)
    assert rig.client.is_connected
    rig.advance(0.1)
    assert not rig.client.is_connected


def test_patience_does_not_outlive_its_connection() -> None:
    rig = online(join_timeout=1000.0)
    rig.do(rig.client.join, "room:slow")
    rig.cut()
    rig.do(rig.client.leave, "room:slow")
    rig.advance(1.0)
    rig.open()
    rig.answers_heartbeats = False
    rig.take()
    rig.advance(35.0)
    assert lost(rig).reason == "no heartbeat reply within 10 s"


def test_a_heartbeat_that_is_due_when_the_connection_is_lost_is_not_sent() -> None:
    rig = online(heartbeat_interval=4.0, heartbeat_timeout=10.0)
    rig.answers_heartbeats = False
    rig.advance(11.9)
    rig.jump(2.5)  # the third was due at 12, and the reply to the first at 14
    assert beats(rig) == 2
    assert lost(rig).reason == "no heartbeat reply within 10 s"


def test_no_heartbeats_are_sent_in_the_closing_handshake() -> None:
    rig = online(heartbeat_interval=2.0, close_timeout=5.0)
    rig.silent = True
    rig.do(rig.client.disconnect)
    rig.advance(5.0)
    assert beats(rig) == 0
    assert rig.client.is_closed


def test_no_heartbeats_are_sent_while_there_is_no_connection() -> None:
    rig = online()
    rig.cut()
    rig.advance(100.0)
    assert beats(rig) == 0


def test_pings_are_answered() -> None:
    rig = online()
    rig.ping(b"are you there")
    assert rig.server_events == [PongReceived(b"are you there")]


# ---------------------------------------------------------------------------------------------- latency


def test_the_latency_is_that_of_the_latest_heartbeat_that_was_answered() -> None:
    rig = online()
    rig.answers_heartbeats = False
    assert rig.client.latency is None
    rig.advance(25.0)
    assert rig.client.latency is None
    rig.now += 0.25
    rig.reply(rig.last("heartbeat"))
    assert rig.client.latency == 0.25
    rig.now += 1.0
    rig.reply(rig.last("heartbeat"))  # which answers nothing any more
    assert rig.client.latency == 0.25
    rig.advance(23.75)
    assert rig.client.latency == 0.25
    rig.now += 0.5
    rig.reply(rig.last("heartbeat"))
    assert rig.client.latency == 0.5


def test_of_two_heartbeats_without_an_answer_the_first_one_counts() -> None:
    rig = online(heartbeat_interval=4.0, heartbeat_timeout=10.0)
    rig.answers_heartbeats = False
    rig.advance(9.0)
    rig.reply(rig.last("heartbeat"))
    assert rig.client.latency == 5.0


def test_a_lost_connection_has_no_latency() -> None:
    rig = online()
    rig.advance(25.0)
    assert rig.client.latency == 0.0
    rig.answers_heartbeats = False
    rig.advance(35.0)
    assert not rig.client.is_connected
    assert rig.client.latency is None
