"""One connection: opening, closing, heartbeats, and whose facts count.

Driven through `RealtimeClient`, over real bytes.
"""

from __future__ import annotations

import sys
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from presence_proto.channel import ChannelState
from presence_proto.config import RealtimeConfig
from presence_proto.endpoint import CloseTransport, ConnId, OpenTransport, SendData
from presence_proto.errors import LocalProtocolError
from presence_proto.events import ChannelMessage, JoinFailed, SocketConnected, SocketDisconnected
from presence_proto.realtime_client import RealtimeClient
from presence_proto.version import VERSION
from presence_proto.websocket import Closed, PongReceived
from rig import Rig, lost, online, realtime
from websocket_bytes import PONG, frames_of


def beats(rig: Rig) -> int:
    return len(rig.sent("heartbeat"))


# ---------------------------------------------------------------------------------------------- opening


def test_connecting_goes_from_idle_over_the_transport_and_the_upgrade_to_open() -> None:
    rig = realtime(server_url="wss://host.test:8443/socket")
    client = rig.client
    assert (client.is_closed, client.is_connected, client.next_deadline()) == (True, False, None)
    rig.do(client.connect)
    assert rig.opens == [OpenTransport(ConnId(1), "host.test", 8443, True)]
    assert (client.is_closed, client.is_connected) == (False, False)
    rig.open_transport()
    assert (client.is_closed, client.is_connected) == (False, False)
    rig.server.accept()
    rig.deliver(rig.server.data_to_send())
    assert (client.is_closed, client.is_connected) == (False, True)
    assert rig.take() == [SocketConnected()]


def test_the_upgrade_carries_the_query_the_headers_and_the_subprotocols() -> None:
    rig = realtime(
        api_key="anon",
        access_token="jwt",
        headers={"X-Client": "test"},
        subprotocols=["phoenix"],
    )
    rig.connect()
    [request] = rig.requests
    url = urlsplit(request.target)
    assert url.path == "/socket/websocket"
    assert parse_qsl(url.query) == [("apikey", "anon"), ("token", "jwt"), ("vsn", "2.0.0")]
    assert ("x-client", "test") in request.headers
    assert request.subprotocols == ("phoenix",)
    assert any(name == "sec-websocket-extensions" for name, _ in request.headers)


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, [f"presence-proto/{VERSION} Python/{sys.version_info.major}.{sys.version_info.minor}"]),
        ({"user_agent": "game/2"}, ["game/2"]),
        ({"headers": {"uSER-aGENT": "theirs"}}, ["theirs"]),
        ({"headers": {"User-Agent": ""}}, [""]),
        ({"user_agent": None}, []),
    ],
)
def test_the_upgrade_has_one_user_agent(settings: dict[str, Any], sent: list[str]) -> None:
    rig = realtime(**settings)
    rig.connect()
    assert [value for name, value in rig.requests[0].headers if name == "user-agent"] == sent


def test_the_nonce_of_the_upgrade_is_drawn_from_the_rng() -> None:
    def first_bytes(rng: Random | None) -> bytes:
        client = RealtimeClient(RealtimeConfig(server_url="ws://host.test"), rng=rng)
        client.connect(now=0)
        client.drain()
        client.transport_opened(ConnId(1), now=0)
        (output,) = client.drain()
        assert isinstance(output, SendData)
        return output.data

    assert first_bytes(Random(1)) == first_bytes(Random(1)) != first_bytes(Random(2))
    assert first_bytes(None) != first_bytes(None)


def test_compression_is_used_when_the_server_agrees() -> None:
    rig = online(server_deflate=True)
    assert rig.server.uses_deflate
    rig.join("room:a")
    rig.say(None, None, "room:a", "hello", {"text": "x" * 1000})
    assert rig.take()[-1] == ChannelMessage("room:a", "hello", {"text": "x" * 1000})


def test_compression_is_not_offered_when_it_is_off() -> None:
    rig = online(server_deflate=True, deflate=False)
    assert not rig.server.uses_deflate
    assert not any(name == "sec-websocket-extensions" for name, _ in rig.requests[0].headers)


def test_connect_twice_is_refused_and_changes_nothing() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    for _ in range(2):
        deadline = rig.client.next_deadline()
        with pytest.raises(LocalProtocolError, match="connect was already called"):
            rig.do(rig.client.connect)
        assert rig.client.next_deadline() == deadline
        assert len(rig.opens) == 1
        if rig.server is None:
            rig.open()


def test_no_transport_in_time_is_given_up_and_tried_again() -> None:
    rig = realtime(connect_timeout=7.0)
    rig.do(rig.client.connect)
    rig.advance(6.9)
    assert rig.take() == []
    rig.advance(0.1)
    assert rig.take() == [SocketDisconnected("no connection within 7 s", retry_in=1.0)]
    assert rig.closes == [CloseTransport(ConnId(1), abort=True)]
    rig.advance(1.0)
    assert [output.conn for output in rig.opens] == [1, 2]


def test_no_upgrade_in_time_is_given_up_and_tried_again() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.advance(4.0)
    rig.open_transport()
    rig.advance(5.9)
    assert rig.take() == []
    rig.advance(0.1)
    assert lost(rig) == SocketDisconnected("no connection within 10 s", retry_in=1.0)
    assert rig.closes == [CloseTransport(ConnId(1), abort=True)]


def test_a_transport_that_cannot_be_opened_needs_no_close() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.cut("connection refused")
    assert lost(rig) == SocketDisconnected("connection refused", retry_in=1.0)
    assert rig.closes == []


WRONG_ACCEPT = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: d3Jvbmc=\r\n\r\n"
)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", WRONG_ACCEPT, b"\x00" * 40_000])
def test_an_answer_that_is_no_upgrade_is_given_up_and_tried_again(answer: bytes) -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.open_transport()
    rig.deliver(answer)
    event = lost(rig)
    assert (event.code, event.status, event.retry_in, event.fatal) == (None, None, 1.0, False)
    assert event.reason.startswith("the server's")
    assert rig.closes == [CloseTransport(ConnId(1))]


def test_a_stream_that_ends_during_the_upgrade_is_tried_again() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.open_transport()
    rig.cut("connection reset")
    assert lost(rig) == SocketDisconnected("connection reset", retry_in=1.0)


# ---------------------------------------------------------------------------------------------- closing


def ended(rig: Rig, *, code: int | None = None) -> None:
    assert rig.take() == [SocketDisconnected("disconnect was called", code=code)]
    assert rig.client.is_closed
    assert not rig.client.is_connected
    assert rig.client.next_deadline() is None
    opens = len(rig.opens)
    rig.advance(1000.0)
    assert len(rig.opens) == opens
    assert rig.take() == []


def test_disconnecting_an_idle_client_does_nothing() -> None:
    rig = realtime()
    rig.do(rig.client.disconnect)
    assert rig.take() == []
    assert rig.client.is_closed


def test_disconnecting_while_the_transport_opens_gives_it_up() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.do(rig.client.disconnect)
    assert rig.closes == [CloseTransport(ConnId(1), abort=True)]
    ended(rig)


def test_disconnecting_during_the_upgrade_gives_it_up() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.open_transport()
    rig.do(rig.client.disconnect)
    assert rig.closes == [CloseTransport(ConnId(1), abort=True)]
    ended(rig)


def test_disconnecting_when_open_is_an_orderly_goodbye() -> None:
    rig = online()
    rig.do(rig.client.disconnect)
    assert rig.server_events == [Closed(1000, "", clean=True)]
    assert rig.closes == [CloseTransport(ConnId(1))]
    ended(rig, code=1000)


def test_disconnecting_while_waiting_ends_the_waiting() -> None:
    rig = online()
    rig.cut()
    rig.take()
    rig.do(rig.client.disconnect)
    assert rig.closes == []
    ended(rig)


def test_a_server_that_is_silent_in_the_closing_handshake_is_cut_off() -> None:
    rig = online(close_timeout=5.0)
    rig.silent = True
    rig.do(rig.client.disconnect)
    assert (rig.client.is_connected, rig.client.is_closed) == (False, False)
    rig.do(rig.client.disconnect)
    with pytest.raises(LocalProtocolError, match="connect was already called"):
        rig.do(rig.client.connect)
    rig.advance(4.9)
    assert rig.take() == []
    assert beats(rig) == 0
    rig.advance(0.1)
    assert rig.closes == [CloseTransport(ConnId(1), abort=True)]
    ended(rig)


def test_a_stream_that_ends_in_the_closing_handshake_ends_it() -> None:
    rig = online()
    rig.silent = True
    rig.do(rig.client.disconnect)
    rig.cut()
    assert rig.closes == []
    ended(rig, code=1006)


def test_what_arrives_in_the_closing_handshake_is_not_read() -> None:
    rig = online()
    rig.join("room:a")
    rig.silent = True
    rig.say(None, None, "room:a", "late", {})
    rig.say_text("not a message at all")
    rig.do(rig.client.disconnect)
    rig.take()
    rig.release()
    ended(rig, code=1000)


def test_after_disconnect_connect_may_be_called_again() -> None:
    rig = online()
    rig.do(rig.client.disconnect)
    rig.take()
    rig.connect()
    assert rig.take() == [SocketConnected()]
    assert [output.conn for output in rig.opens] == [1, 2]


# ---------------------------------------------------------------------------------------------- one life


def test_facts_about_other_connections_are_ignored() -> None:
    rig = online()
    rig.cut()
    rig.advance(1.0)
    rig.take()
    rig.open()
    rig.take()
    deadline = rig.client.next_deadline()
    for conn in (ConnId(1), ConnId(3), ConnId(0), ConnId(-1)):
        rig.do(rig.client.transport_opened, conn)
        rig.do(rig.client.receive_data, conn, b"\x88\x02\x03\xe8")
        rig.do(rig.client.transport_closed, conn)
    assert rig.take() == []
    assert rig.client.is_connected
    assert rig.client.next_deadline() == deadline


def test_facts_before_connect_and_after_the_end_are_ignored() -> None:
    rig = realtime()
    for _ in range(2):
        rig.do(rig.client.transport_opened, ConnId(1))
        rig.do(rig.client.receive_data, ConnId(1), b"\x88\x02\x03\xe8")
        rig.do(rig.client.transport_closed, ConnId(1))
        assert rig.take() == []
        assert rig.client.is_closed
        rig.connect()
        rig.do(rig.client.disconnect)
        rig.take()


def test_data_before_the_transport_opened_and_a_second_opening_are_ignored() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.do(rig.client.receive_data, ConnId(1), b"HTTP/1.1 500 no\r\n\r\n")
    assert rig.take() == []
    rig.open()
    rig.do(rig.client.transport_opened, ConnId(1))
    assert rig.take() == [SocketConnected()]
    assert len(rig.requests) == 1
    assert rig.server_events == []
    rig.join("room:a")
    assert rig.client.state_of("room:a") is ChannelState.JOINED


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_empty_data_does_nothing_and_data_may_be_any_buffer(kind: Any) -> None:
    rig = online()
    rig.do(rig.client.receive_data, rig.conn, kind(b""))
    assert rig.take() == []
    assert rig.client.is_connected
    rig.do(rig.client.receive_data, rig.conn, kind(b"\x88\x02\x03\xe9"))
    assert lost(rig).code == 1001


# ---------------------------------------------------------------------------------------------- pings


def test_the_answer_to_pings_is_marked_and_comes_apart() -> None:
    """So that a driver may drop it for a later one when the server reads nothing."""
    rig = online()
    client, server = rig.client, rig.server
    server.ping(b"one")
    server.ping(b"two")
    server.send_text('[null,null,"room:a","hello",{}]')
    client.receive_data(rig.conn, server.data_to_send(), now=rig.now)
    outputs = [output for output in client.drain() if isinstance(output, SendData)]
    assert [(output.is_pong, [first for first, _ in frames_of(output.data)]) for output in outputs] == [
        (True, [0x80 | PONG, 0x80 | PONG])
    ]
    assert b"".join(payload for output in outputs for _, payload in frames_of(output.data)) == b"onetwo"


def test_a_pong_that_nobody_asked_for_means_nothing() -> None:
    rig = online()
    rig.take()
    rig.deliver(b"\x8a\x02hi")
    assert rig.take() == []
    assert rig.client.is_connected


@pytest.mark.parametrize("deflate", [False, True])
def test_the_bytes_of_all_connections_are_counted_as_inflated(deflate: bool) -> None:
    rig = online(server_deflate=deflate)
    before = rig.client.bytes_received
    rig.say(None, None, "room:a", "hello", {"text": "x" * 100_000})
    first = rig.client.bytes_received - before
    assert 100_000 <= first <= 100_100
    rig.cut()
    assert rig.client.bytes_received == before + first
    rig.advance(5)
    rig.open()
    rig.say(None, None, "room:a", "hello", {"text": "x" * 100_000})
    assert rig.client.bytes_received >= before + first + 100_000


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
