"""One connection: opening, closing, and whose facts count.

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
from presence_proto.events import ChannelMessage, SocketConnected, SocketDisconnected
from presence_proto.realtime_client import RealtimeClient
from presence_proto.version import VERSION
from presence_proto.websocket import Closed
from rig import Rig, online, realtime
from websocket_bytes import PONG, frames_of


def lost(rig: Rig) -> SocketDisconnected:
    """The one event of the last moments."""
    [event] = rig.take()
    assert isinstance(event, SocketDisconnected)
    return event


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
