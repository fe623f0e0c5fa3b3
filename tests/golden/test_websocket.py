"""The recorded TCP bytes of real sessions through `WebSocket`, in both roles and in every chunking."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

import golden_files
from golden_files import RAW, RawLine
from presence_proto.config import Address
from presence_proto.websocket import (
    BinaryMessage,
    Closed,
    HandshakeRefused,
    HandshakeRequest,
    Opened,
    PingReceived,
    PongReceived,
    State,
    TextMessage,
    WebSocket,
    WebSocketEvent,
)
from websocket_bytes import LIMIT, feed, frames_of, single_bytes

CUTS = ["as recorded", "in one piece", pytest.param("byte by byte", marks=pytest.mark.long)]
WITH_MESSAGES = sorted(set(golden_files.names(RAW)) & set(golden_files.names()))
LOST = Closed(1006, "the stream ended", clean=False)


def header(data: bytes, name: str) -> str | None:
    match = re.search(rb"\r\n%s: ?([^\r]*)\r\n" % name.encode(), data, re.IGNORECASE)
    return None if match is None else match[1].decode()


def cut(lines: list[RawLine], how: str) -> list[bytes]:
    chunks = [line.data for line in lines if line.kind == "bytes"]
    if how == "as recorded":
        return chunks
    return [b"".join(chunks)] if how == "in one piece" else single_bytes(b"".join(chunks))


def side(name: str, direction: str) -> list[RawLine]:
    return [line for line in golden_files.raw(name) if line.dir == direction]


def recorded_client(name: str) -> WebSocket:
    """A client that asks what the recorded one asked."""
    request = side(name, "out")[0].data
    key, subprotocols = header(request, "sec-websocket-key"), header(request, "sec-websocket-protocol")
    return WebSocket.client(
        Address("127.0.0.1", 80, False, request.split(b" ")[1].decode()),
        deflate=header(request, "sec-websocket-extensions") is not None,
        subprotocols=subprotocols.split(", ") if subprotocols else (),
        max_message_size=LIMIT,
        key=None if key is None else key.encode(),
    )


def replay_client(name: str, how: str) -> list[WebSocketEvent]:
    lines = side(name, "in")
    return feed(recorded_client(name), *cut(lines, how), eof=lines[-1].kind == "eof")


def replay_server(name: str, how: str) -> list[WebSocketEvent]:
    lines = side(name, "out")
    answer = side(name, "in")[0].data
    server = WebSocket.server(
        deflate=header(answer, "sec-websocket-extensions") is not None, max_message_size=LIMIT
    )
    return feed(server, *cut(lines, how), eof=lines[-1].kind == "eof")


def messages(name: str, direction: str) -> list[WebSocketEvent]:
    found: list[WebSocketEvent] = []
    for line in golden_files.msgs(name):
        if line.dir == direction and line.kind == "text":
            assert isinstance(line.data, str)
            found.append(TextMessage(line.data))
        elif line.dir == direction and line.kind == "binary":
            assert isinstance(line.data, bytes)
            found.append(BinaryMessage(line.data))
    return found


def without_pings(events: list[WebSocketEvent]) -> list[WebSocketEvent]:
    return [event for event in events if not isinstance(event, PingReceived | PongReceived)]


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("name", WITH_MESSAGES)
def test_what_servers_sent(name: str, how: str) -> None:
    (http,) = [line for line in golden_files.msgs(name) if line.kind == "http"]
    closes = [line for line in golden_files.msgs(name) if line.kind == "close" and line.dir == "in"]
    expected: list[WebSocketEvent]
    if http.status == 101:
        chosen = header(side(name, "in")[0].data, "sec-websocket-protocol")
        expected = [Opened(chosen, "sec-websocket-extensions" in dict(http.headers)), *messages(name, "in")]
    else:
        assert http.status is not None
        body = b"".join(cut(side(name, "in"), "as recorded")).partition(b"\r\n\r\n")[2]
        assert http.data in ("", body.decode())  # not every recorder kept it among the messages
        expected = [HandshakeRefused(http.status, http.headers, body)]
    for line in closes:
        if line.code in (None, 1006):
            expected.append(LOST)
        else:
            expected.append(Closed(line.code, (line.reason or b"").decode(), clean=line.clean is True))
    assert without_pings(replay_client(name, how)) == expected


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("name", WITH_MESSAGES)
def test_what_clients_sent(name: str, how: str) -> None:
    lines = golden_files.msgs(name)
    (url,) = [urlsplit(str(line.data)) for line in lines if line.kind == "connect"]
    request, *events = replay_server(name, how)
    assert isinstance(request, HandshakeRequest)
    assert request.target == f"{url.path}?{url.query}"
    # The recorder did not wait to answer the server's close frames.
    sent = b"".join(line.data for line in side(name, "out")).partition(b"\r\n\r\n")[2]
    closes = [payload for first, payload in frames_of(sent) if first == 0x88]
    last = LOST
    if closes:
        last = Closed(int.from_bytes(closes[0][:2], "big"), closes[0][2:].decode(), clean=True)
        (code,) = {line.sent for line in lines if line.kind == "close" and line.dir == "in"}
        assert code == last.code
    assert without_pings(events) == [*messages(name, "out"), last]


def test_deflate_was_recorded() -> None:
    found = {name: replay_client(name, "as recorded")[0] for name in WITH_MESSAGES if name.startswith("j_")}
    assert found == {
        "j_deflate_not_offered": Opened(None, False),
        "j_deflate_server_off": Opened(None, False),
        "j_deflate_v2": Opened(None, True),
    }


# ---------------------------------------------------------------------------------------------- odd ones

REFUSALS = {
    "q_handshake_http10": (400, b"HTTP version HTTP/1.0 unsupported"),
    "q_handshake_plainget": (400, b"'connection' header must contain 'upgrade', got []"),
    "q_handshake_wrongpath": (
        404,
        b"node=nonode@nohost phoenix=1.8.12 bandit=1.12.5 elixir=1.18.4 nodes=[]\n",
    ),
    "q_handshake_wsver8": (400, b"'sec-websocket-version' header must equal '13', got [\"8\"]"),
}
UPGRADES: dict[str, list[WebSocketEvent]] = {
    "q_handshake_novsn": [
        TextMessage(
            '{"event":"phx_reply","payload":{"response":{},"status":"ok"},"ref":"1","topic":"phoenix"}'
        )
    ],
    "q_handshake_subproto": [],
    "q_fragmented": [
        PongReceived(b"mid"),
        TextMessage('["1","1","room:f","phx_reply",{"response":{},"status":"ok"}]'),
        TextMessage('["1",null,"room:f","presence_state",{}]'),
        TextMessage(
            '[null,null,"room:f","presence_diff",'
            '{"joins":{"f":{"metas":[{"phx_ref":"GOqsLkofmZRlfElh"}]}},"leaves":{}}]'
        ),
        Closed(1002, "", clean=True),
    ],
}


def test_every_recording_of_bytes_is_replayed() -> None:
    assert {*WITH_MESSAGES, *REFUSALS, *UPGRADES} == set(golden_files.names(RAW))


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("name", REFUSALS)
def test_how_a_server_refuses(name: str, how: str) -> None:
    (refused,) = replay_client(name, how)
    assert isinstance(refused, HandshakeRefused)
    assert (refused.status, refused.body) == REFUSALS[name]


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("name", UPGRADES)
def test_how_a_server_upgrades(name: str, how: str) -> None:
    assert replay_client(name, how) == [Opened(None, False), *UPGRADES[name]]


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("q_handshake_http10", "the version of HTTP must be 1.1"),
        ("q_handshake_plainget", "this is a WebSocket of version 13"),
        ("q_handshake_wsver8", "this is a WebSocket of version 13"),
    ],
)
def test_bad_requests(name: str, reason: str, how: str) -> None:
    assert replay_server(name, how) == [Closed(1002, reason, clean=False)]


@pytest.mark.parametrize("how", CUTS)
def test_good_requests(how: str) -> None:
    request, *events = replay_server("q_handshake_subproto", how)
    assert isinstance(request, HandshakeRequest)
    assert request.subprotocols == ("phoenix", "chat")
    assert events == []
    request, *events = replay_server("q_handshake_novsn", how)
    assert isinstance(request, HandshakeRequest)
    assert request.target == "/socket/websocket"
    assert events == [
        TextMessage('{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}'),
    ]
    assert isinstance(replay_server("q_handshake_wrongpath", how)[0], HandshakeRequest)


@pytest.mark.parametrize("how", CUTS)
def test_fragments_with_a_ping_between_them(how: str) -> None:
    request, *events = replay_server("q_fragmented", how)
    assert isinstance(request, HandshakeRequest)
    assert events == [
        PingReceived(b"mid"),
        TextMessage('["1","1","room:f","phx_join",{"user_id":"f"}]'),
        # the recorded client left out the mask once, to see what happens
        Closed(1002, "a malformed WebSocket frame", clean=False),
    ]


@pytest.mark.parametrize("name", WITH_MESSAGES)
def test_our_client_sends_what_it_is_told_like_the_recorded_one(name: str) -> None:
    """What our client makes of the recorded messages, a server reads as the recorded bytes."""
    opened = replay_client(name, "in one piece")[0]
    if not isinstance(opened, Opened) or opened.deflate:
        return
    client = recorded_client(name)
    server = WebSocket.server(max_message_size=LIMIT)
    feed(server, client.data_to_send())
    feed(client, server.data_to_send())
    assert client.state is State.OPEN
    for message in messages(name, "out"):
        if isinstance(message, TextMessage):
            client.send_text(message.data)
        elif isinstance(message, BinaryMessage):
            client.send_binary(message.data)
    assert feed(server, client.data_to_send()) == messages(name, "out")
