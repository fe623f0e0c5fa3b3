"""What ends a connection against our will, and how it comes back: refusals, losses, backoff.

Driven through `RealtimeClient`, over real bytes.
"""

from __future__ import annotations

from random import Random

import pytest

from presence_proto.endpoint import CloseTransport, ConnId
from presence_proto.events import SocketConnected, SocketDisconnected
from presence_proto.websocket import Closed
from rig import lost, online, realtime

# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("status", [300, 301, 302, 400, 401, 403, 404, 405, 410, 426, 499])
def test_a_refusal_that_cannot_heal_is_fatal(status: int) -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.refuse(status, b'{"error": "no"}')
    reason = f'the server refused the connection: HTTP {status} {{"error": "no"}}'
    assert lost(rig) == SocketDisconnected(reason, status=status, fatal=True)
    assert rig.closes == [CloseTransport(ConnId(1))]
    assert rig.client.is_closed
    assert rig.client.next_deadline() is None
    rig.advance(1000)
    assert len(rig.opens) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_refusal_that_may_heal_is_tried_again(status: int) -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.refuse(status)
    reason = f"the server refused the connection: HTTP {status}"
    assert lost(rig) == SocketDisconnected(reason, status=status, retry_in=1.0)
    rig.advance(1.0)
    rig.open()
    assert rig.take() == [SocketConnected()]


@pytest.mark.parametrize(
    ("status", "fatal"), [(404, False), (301, False), (426, False), (401, True), (403, True)]
)
def test_after_a_success_a_wrong_url_is_a_proxy_but_a_wrong_key_is_a_wrong_key(
    status: int, fatal: bool
) -> None:
    rig = online()
    rig.cut()
    rig.advance(1.0)
    rig.take()
    rig.refuse(status)
    event = lost(rig)
    assert (event.fatal, event.retry_in) == (fatal, None if fatal else 2.0)


@pytest.mark.parametrize(
    ("status", "location", "words"),
    [
        (
            301,
            "https://ann:s3cr3t@new.test/socket?apikey=s3cr3t",
            " (moved to https://new.test/socket?…) gone",
        ),
        (302, "/log in#s3cr3t", " (moved to /log%20in) gone"),
        (302, "", " gone"),
        (404, "https://new.test", " gone"),
    ],
)
def test_the_target_of_a_redirect_is_told_without_its_secrets(status: int, location: str, words: str) -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.refuse(status, b"gone", (("Location", location),))
    assert lost(rig).reason == f"the server refused the connection: HTTP {status}{words}"


@pytest.mark.parametrize("status", [408, 429, 503])
@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 1.0),  # the backoff is the least
        ({"Retry-After": "31"}, 30.0),  # and max_reconnect_delay the most
        ({"Retry-After": "9" * 10_000}, 30.0),
        ({"Date": "Sun, 31 Dec 2023 23:59:55 GMT", "Retry-After": "Mon, 01 Jan 2024 00:00:04 GMT"}, 9.0),
        ({"Retry-After": "Mon, 01 Jan 2024 00:00:04 GMT"}, 1.0),  # from when?
        ({"Retry-After": "soon"}, 1.0),
    ],
)
def test_retry_after_is_honoured_up_to_the_longest_delay(
    status: int, headers: dict[str, str], delay: float
) -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.refuse(status, headers=tuple(headers.items()))
    assert lost(rig).retry_in == delay
    rig.advance(delay - 0.001)
    assert len(rig.opens) == 1
    rig.advance(0.001)
    assert len(rig.opens) == 2


def test_jitter_does_not_shorten_what_the_server_asked_for() -> None:
    for seed in range(20):
        rig = realtime(rng=Random(seed), jitter=1.0)
        rig.do(rig.client.connect)
        rig.refuse(503, headers=(("Retry-After", "5"),))
        assert lost(rig).retry_in == 5.0


def test_retry_after_counts_once() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.refuse(503, headers=(("Retry-After", "20"),))
    assert lost(rig).retry_in == 20.0
    rig.advance(20.0)
    rig.refuse(503)
    assert lost(rig).retry_in == 2.0


def test_after_a_fatal_refusal_connect_may_be_called_again() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.refuse(401)
    rig.do(rig.client.set_access_token, "better")
    rig.connect()
    assert rig.take()[1:] == [SocketConnected()]
    assert rig.requests[-1].target.endswith("?token=better&vsn=2.0.0")


def test_the_body_of_a_refusal_is_quoted_in_bounds() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.refuse(503, b"<h1>\r\n  Sorry\xff </h1>\n" + b"x" * 100_000)
    reason = lost(rig).reason
    assert reason.startswith("the server refused the connection: HTTP 503 <h1> Sorry\ufffd </h1> xxx")
    assert len(reason) < 260


def test_a_refusal_is_complete_when_the_stream_ends() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    rig.open_transport()
    rig.deliver(b"HTTP/1.1 503 Down\r\nContent-Length: 100\r\n\r\ntry la")
    assert rig.take() == []
    rig.cut()
    assert lost(rig).reason == "the server refused the connection: HTTP 503 try la"
    assert rig.closes == []


def test_secrets_that_a_server_quotes_are_taken_out() -> None:
    rig = realtime(api_key="s3cr3t-key/1", access_token="s3cr3t-token", params={"signature": "s3cr3t-param"})
    rig.do(rig.client.connect)
    rig.open_transport()
    rig.do(rig.client.set_access_token, "newer")
    quoted = f"bad request to {rig.requests[-1].target} s3cr3t-key/1 s3cr3t-token"
    rig.server.reject(400, body=quoted.encode())
    rig.deliver(rig.server.data_to_send())
    reason = lost(rig).reason
    assert "s3cr3t" not in reason
    assert reason.startswith(
        "the server refused the connection: HTTP 400 bad request to /socket/websocket?sig"
    )


def test_a_secret_on_the_edge_of_the_quote_does_not_show_in_part() -> None:
    rig = realtime(api_key="s3cr3t-key")
    rig.do(rig.client.connect)
    rig.refuse(400, b"x" * 195 + b"s3cr3t-key")
    assert "s3c" not in lost(rig).reason


def test_a_token_that_was_told_since_we_connected_is_taken_out_as_well() -> None:
    rig = online(access_token="s3cr3t-token")
    rig.do(rig.client.set_access_token, "s3cr3t-newer")
    rig.close(4001, "s3cr3t-newer is no better than s3cr3t-token")
    assert lost(rig).reason == "the server closed the connection with code 4001: … is no better than …"


def test_secrets_in_a_close_reason_or_a_drivers_reason_are_taken_out() -> None:
    rig = online(access_token="s3cr3t-token")
    rig.close(4001, "token s3cr3t-token has expired")
    assert lost(rig).reason == "the server closed the connection with code 4001: token … has expired"
    rig.advance(1.0)
    rig.cut("GET /?token=s3cr3t-token failed")
    assert lost(rig).reason == "GET /?token=… failed"


# ---------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1007, 1011, 1012, 1013, 3000, 4999])
def test_a_close_that_we_did_not_ask_for_reconnects_whatever_its_code(code: int) -> None:
    rig = online()
    rig.close(code, "bye")
    reason = f"the server closed the connection with code {code}: bye"
    assert lost(rig) == SocketDisconnected(reason, code=code, retry_in=1.0)
    assert rig.closes == [CloseTransport(ConnId(1))], "our half of the closing handshake is flushed"
    assert rig.server_events == [Closed(code, "", clean=True)], "and echoes the code"
    assert not rig.client.is_connected
    rig.advance(1.0)
    rig.open()
    assert rig.take() == [SocketConnected()]


def test_a_close_without_a_reason_has_none() -> None:
    rig = online()
    rig.close(1012)
    assert lost(rig).reason == "the server closed the connection with code 1012"


def test_a_bare_end_of_stream_is_1006() -> None:
    rig = online()
    rig.cut("connection reset by peer")
    assert lost(rig) == SocketDisconnected("connection reset by peer", code=1006, retry_in=1.0)
    assert rig.closes == []


def test_messages_before_the_end_come_before_it() -> None:
    rig = online()
    rig.join("room:a")
    rig.take()
    rig.silent = True
    rig.say(None, None, "room:a", "last", {})
    rig.close(1001)
    rig.release()
    assert [type(event).__name__ for event in rig.take()] == [
        "ChannelMessage",
        "SocketDisconnected",
        "ChannelDown",
    ]


def test_a_frame_that_breaks_the_protocol_closes_with_1002() -> None:
    rig = online()
    rig.deliver(b"\xff\xff\xff\xff")
    event = lost(rig)
    assert (event.code, event.retry_in) == (1002, 1.0)
    assert event.reason
    assert rig.server_events[-1].code == 1002, "the server was told"


def test_a_message_over_the_limit_closes_with_1009() -> None:
    rig = online(max_message_size=1000)
    rig.say(None, None, "room:a", "big", {"text": "x" * 900})
    assert rig.take() == []
    rig.say(None, None, "room:a", "big", {"text": "x" * 1000})
    event = lost(rig)
    assert (event.code, event.retry_in) == (1009, 1.0)
    assert rig.server_events[-1].code == 1009


def test_reconnecting_backs_off_to_thirty_seconds() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    delays = []
    for _ in range(8):
        rig.cut("connection refused")
        delays.append(lost(rig).retry_in)
        before = rig.now
        rig.advance(delays[-1])
        assert rig.opens[-1].conn == len(delays) + 1
        assert rig.now == before + delays[-1]
    assert delays == [1, 2, 4, 8, 16, 30, 30, 30]


def test_connecting_anew_starts_the_backoff_over() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    for _ in range(3):
        rig.cut()
        rig.advance(rig.take()[-1].retry_in)
    rig.do(rig.client.disconnect)
    rig.do(rig.client.connect)
    rig.take()
    rig.cut()
    assert lost(rig).retry_in == 1.0


def test_jitter_shortens_the_delays_and_is_the_same_for_the_same_seed() -> None:
    runs = []
    for _ in range(2):
        rig = realtime(rng=Random(5), jitter=0.5)
        rig.do(rig.client.connect)
        delays = []
        for _ in range(6):
            rig.cut()
            delays.append(lost(rig).retry_in)
            rig.advance(delays[-1])
        runs.append(delays)
    assert runs[0] == runs[1]
    assert all(full / 2 <= delay < full for delay, full in zip(runs[0], [1, 2, 4, 8, 16, 30], strict=True))


def test_full_jitter_may_reconnect_in_the_same_moment() -> None:
    class One(Random):
        def random(self) -> float:
            return 1.0 - 2**-53

    rig = realtime(rng=One(), jitter=1.0, reconnect_delay=0.001)
    rig.do(rig.client.connect)
    rig.cut()
    assert [output.conn for output in rig.opens] == [1, 2]


def test_a_connection_that_opens_and_is_lost_at_once_does_not_reset_the_backoff() -> None:
    rig = realtime()
    rig.do(rig.client.connect)
    for delay in (1.0, 2.0, 4.0):
        rig.open()
        rig.advance(4.9)
        rig.cut()
        assert rig.take() == [SocketConnected(), SocketDisconnected("eof", code=1006, retry_in=delay)]
        rig.advance(delay)


def test_a_connection_without_channels_resets_it_after_a_while() -> None:
    rig = realtime(stable_after=5.0)
    rig.do(rig.client.connect)
    for _ in range(3):
        rig.open()
        rig.advance(5.0)
        rig.cut()
        assert rig.take()[-1].retry_in == 1.0
        rig.advance(1.0)


def test_with_channels_it_is_reset_only_when_one_was_joined_for_a_while() -> None:
    rig = realtime(stable_after=5.0)
    rig.do(rig.client.join, "room:a")
    rig.do(rig.client.connect)
    rig.open()
    rig.reply(rig.last("phx_join"), "error", {"reason": "no"})
    rig.advance(20.0)
    rig.cut()
    assert rig.take()[-1].retry_in == 1.0
    rig.advance(1.0)
    rig.open()
    rig.advance(4.0)
    rig.accept_join("room:a")
    rig.advance(4.9)
    rig.cut()
    assert rig.take()[-2].retry_in == 2.0, "joined for 4.9 seconds"
    rig.advance(2.0)
    rig.open()
    rig.accept_join("room:a")
    rig.advance(5.0)
    rig.cut()
    assert rig.take()[-2].retry_in == 1.0, "joined for 5 seconds"
