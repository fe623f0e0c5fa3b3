"""`presence_proto.websocket.handshake`: the HTTP part, seen through `WebSocket`, byte for byte."""

from __future__ import annotations

import pytest

from presence_proto.config import Address
from presence_proto.errors import LocalProtocolError
from presence_proto.websocket import (
    Closed,
    HandshakeRefused,
    HandshakeRequest,
    Opened,
    State,
    TextMessage,
    WebSocket,
)
from presence_proto.websocket.handshake import MAX_EARLY_DATA, MAX_HEADER_SIZE, MAX_REFUSAL_BODY
from websocket_bytes import (
    ACCEPT,
    ADDRESS,
    KEY,
    LIMIT,
    MASK,
    TEXT,
    events,
    feed,
    frame,
    http,
    new_client,
    single_bytes,
    upgrade_request,
    upgrade_response,
)

REFUSED = "HTTP/1.1 403 Forbidden"


def new_server(*, deflate: bool = False) -> WebSocket:
    return WebSocket.server(deflate=deflate, max_message_size=LIMIT)


def asked_server(request: bytes | None = None, *, deflate: bool = False) -> WebSocket:
    """A server whose request waits for its answer."""
    server = new_server(deflate=deflate)
    server.receive_data(request or upgrade_request())
    assert isinstance(server.next_event(), HandshakeRequest)
    assert server.next_event() is None
    return server


# ---------------------------------------------------------------------------------- client: the request


def test_the_request() -> None:
    client = WebSocket.client(
        ADDRESS,
        headers=[("User-Agent", "presence"), ("X-Latin", "ä")],
        subprotocols=["chat", "phoenix"],
        deflate=True,
        max_message_size=LIMIT,
        key=KEY,
    )
    assert client.state is State.CONNECTING
    assert client.data_to_send().decode("latin-1").split("\r\n") == [
        "GET /socket/websocket?apikey=secret&vsn=2.0.0 HTTP/1.1",
        "Host: hub.test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: chat, phoenix",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "User-Agent: presence",
        "X-Latin: ä",
        "",
        "",
    ]
    assert client.data_to_send() == b""


def test_each_request_has_a_key_of_its_own() -> None:
    requests = {WebSocket.client(ADDRESS, max_message_size=LIMIT).data_to_send() for _ in range(3)}
    assert len(requests) == 3
    assert all(len(request) == len(requests.copy().pop()) for request in requests)


def test_an_ipv6_host_and_a_port() -> None:
    client = WebSocket.client(Address("::1", 4000, False, "/"), deflate=False, max_message_size=LIMIT)
    assert b"\r\nHost: [::1]:4000\r\n" in client.data_to_send()


@pytest.mark.parametrize(
    ("headers", "subprotocols", "address", "reason"),
    [
        ([("Upgrade", "h2c")], [], ADDRESS, "'Upgrade' is reserved: the handshake sets it"),
        ([("hOsT", "other")], [], ADDRESS, "'hOsT' is reserved: the handshake sets it"),
        ([("Sec-WebSocket-Key", "x")], [], ADDRESS, "is reserved: the handshake sets it"),
        ([("X", "π-secret")], [], ADDRESS, "'X' is not Latin-1"),
        ([("X", "secret\r\nY: z")], [], ADDRESS, "not legal HTTP"),
        ([("X y", "secret")], [], ADDRESS, "not legal HTTP"),
        ([], ["chat", "chat"], ADDRESS, "subprotocols must be distinct HTTP tokens"),
        ([], ["a,secret"], ADDRESS, "subprotocols must be distinct HTTP tokens"),
        ([], [], Address("h", 80, False, "/ secret"), "not legal HTTP"),
        ([], [], Address("h", 80, False, "/secret\r\n"), "not legal HTTP"),
        ([], [], Address("h", 80, False, "/secretä"), "not legal HTTP"),
        ([], [], Address("hä", 80, False, "/secret"), "not legal HTTP"),
    ],
)
def test_an_illegal_request_is_never_sent(
    headers: list[tuple[str, str]], subprotocols: list[str], address: Address, reason: str
) -> None:
    with pytest.raises(LocalProtocolError, match=reason) as caught:
        WebSocket.client(address, headers=headers, subprotocols=subprotocols, max_message_size=LIMIT)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# ---------------------------------------------------------------------------------- client: the upgrade


@pytest.mark.parametrize(
    ("response", "opened"),
    [
        (upgrade_response(), Opened(None, False)),
        (upgrade_response(connection="keep-alive, UPGRADE", upgrade="WebSocket"), Opened(None, False)),
        (upgrade_response(("sec-websocket-protocol", "phoenix")), Opened("phoenix", False)),
        (upgrade_response(("sec-websocket-extensions", "permessage-deflate")), Opened(None, True)),
        # any byte above 127 may stand in a value
        (upgrade_response(("x-name", "caf\xe9 \xff")), Opened(None, False)),
        (upgrade_response().replace(b"\r\n", b"\n"), Opened(None, False)),
        (upgrade_response(line="HTTP/1.1 101"), Opened(None, False)),
        # other interim answers are passed over
        (
            http("HTTP/1.1 100 Continue")
            + http("HTTP/1.1 103 Early Hints", ("link", "x"))
            + upgrade_response(),
            Opened(None, False),
        ),
    ],
)
def test_the_server_upgrades(response: bytes, opened: Opened) -> None:
    for chunks in ([response], single_bytes(response)):
        client = new_client(deflate=True, subprotocols=("chat", "phoenix"))
        assert feed(client, *chunks) == [opened]
        assert client.state is State.OPEN
        assert client.uses_deflate is opened.deflate


def test_frames_right_behind_the_upgrade() -> None:
    data = upgrade_response() + frame(TEXT, b"one") + frame(TEXT, b"two")[:3]
    client = new_client()
    assert feed(client, data) == [Opened(None, False), TextMessage("one")]
    assert feed(client, frame(TEXT, b"two")[3:]) == [TextMessage("two")]


NO_UPGRADE = "the server's upgrade is not to WebSocket"
BAD_ACCEPT = "the server's Sec-WebSocket-Accept header is missing or wrong"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (upgrade_response(without="upgrade"), NO_UPGRADE),
        (upgrade_response(without="connection"), NO_UPGRADE),
        (upgrade_response(upgrade="h2c"), NO_UPGRADE),
        (upgrade_response(connection="close"), NO_UPGRADE),
        (upgrade_response(line="HTTP/1.0 101 Switching Protocols"), NO_UPGRADE),
        (upgrade_response(without="sec-websocket-accept"), BAD_ACCEPT),
        (upgrade_response(sec_websocket_accept="x3pPLMBiTxaQ9kYGzzhZRbK+xOo="), BAD_ACCEPT),
        (upgrade_response(sec_websocket_accept="é"), BAD_ACCEPT),
        (upgrade_response(("sec-websocket-accept", ACCEPT.decode())), BAD_ACCEPT),
        (
            upgrade_response(("sec-websocket-protocol", "mqtt")),
            "the server chose a subprotocol that was not offered",
        ),
        (
            upgrade_response(("sec-websocket-protocol", "chat"), ("sec-websocket-protocol", "chat")),
            "the server chose a subprotocol that was not offered",
        ),
        (
            upgrade_response(("sec-websocket-extensions", "x-other")),
            "the server chose an extension that was not offered",
        ),
        (
            upgrade_response(("sec-websocket-extensions", "permessage-deflate; server_max_window_bits=soon")),
            "permessage-deflate: a parameter is unknown or has an illegal value",
        ),
        (
            upgrade_response(("sec-websocket-extensions", "permessage-deflate; caf\xe9")),
            "malformed Sec-WebSocket-Extensions header",
        ),
    ],
)
def test_an_upgrade_that_is_wrong_ends_in_1002(response: bytes, reason: str) -> None:
    for chunks in ([response], single_bytes(response)):
        client = new_client(deflate=True, subprotocols=("chat", "phoenix"))
        client.data_to_send()
        assert feed(client, *chunks) == [Closed(1002, reason, clean=False)]
        assert client.state is State.CLOSED
        assert client.data_to_send() == b""
        assert feed(client, b"more", eof=True) == []


@pytest.mark.parametrize(
    "answer",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 twelve\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"\r\n\r\n",
        http(REFUSED, ("content-length", "1" * 5000)),
        http(REFUSED, ("content-length", "1"), ("content-length", "2")),
        http(REFUSED, ("transfer-encoding", "gzip")),
        http(REFUSED, ("no colon", "here")),
        b"HTTP/1.1 403 Forbidden\r\nx: " + b"y" * (MAX_HEADER_SIZE + 10),
    ],
)
def test_an_answer_that_is_not_http_ends_in_1002(answer: bytes) -> None:
    for chunks in ([answer], single_bytes(answer)):
        assert feed(new_client(), *chunks) == [Closed(1002, "the server's answer is not HTTP", clean=False)]


@pytest.mark.parametrize("size", [MAX_HEADER_SIZE + 1, MAX_HEADER_SIZE + 2])
def test_the_limit_of_the_header_falls_on_the_same_byte_however_the_stream_is_cut(size: int) -> None:
    head = upgrade_response(("x", ""))
    data = upgrade_response(("x", "y" * (size - len(head))))
    assert len(data) == size
    for chunk in (len(data) + 10, 4096, 1):
        found = feed(new_client(), *[data[i : i + chunk] for i in range(0, size, chunk)], frame(TEXT, b"x"))
        assert (
            len(found) == 1
            if size > MAX_HEADER_SIZE + 1
            else found == [Opened(None, False), TextMessage("x")]
        )
        assert isinstance(found[0], Closed) is (size > MAX_HEADER_SIZE + 1)


# ---------------------------------------------------------------------------------- client: refusals


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (http(REFUSED, ("content-length", "0")), 403, b""),
        (http("HTTP/1.1 401 Unauthorized", ("content-length", "3"), body=b"no!"), 401, b"no!"),
        (http("HTTP/1.0 400 Bad Request", ("content-length", "3"), body=b"no!"), 400, b"no!"),
        (http("HTTP/1.1 302 Found", ("location", "/elsewhere"), ("content-length", "0")), 302, b""),
        (http("HTTP/1.1 200 OK", ("content-length", "2"), body=b"hi"), 200, b"hi"),
        (http("HTTP/1.1 304 Not Modified", ("content-length", "100")), 304, b""),
        (
            http(
                "HTTP/1.1 500 Oh",
                ("transfer-encoding", "chunked"),
                body=b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: u\r\n\r\n",
            ),
            500,
            b"abcde",
        ),
        (
            http("HTTP/1.1 100 Continue") + http("HTTP/1.1 429 Slow", ("content-length", "1"), body=b"!"),
            429,
            b"!",
        ),
        # more than was announced is not part of it
        (http("HTTP/1.1 404 No", ("content-length", "2"), body=b"noHTTP/1.1 101"), 404, b"no"),
    ],
)
def test_a_refusal(answer: bytes, status: int, body: bytes) -> None:
    for chunks in ([answer], single_bytes(answer)):
        client = new_client()
        (refused,) = feed(client, *chunks)
        assert isinstance(refused, HandshakeRefused)
        assert (refused.status, refused.body) == (status, body)
        assert client.state is State.CLOSED
        assert feed(client, b"more", eof=True) == []


def test_the_headers_of_a_refusal() -> None:
    answer = http(REFUSED, ("X-Name", "caf\xe9"), ("x-name", "2"), ("Content-Length", "0"))
    assert feed(new_client(), answer) == [
        HandshakeRefused(403, (("x-name", "caf\xe9"), ("x-name", "2"), ("content-length", "0")), b"")
    ]


@pytest.mark.parametrize(
    "answer",
    [
        http(REFUSED, body=b"so far"),  # no length: the end of the stream is the end
        http(REFUSED, ("content-length", "100"), body=b"so far"),
        http(REFUSED, ("transfer-encoding", "chunked"), body=b"6\r\nso far\r\n"),
    ],
)
def test_a_refusal_that_the_end_of_the_stream_ends(answer: bytes) -> None:
    for chunks in ([answer], single_bytes(answer)):
        client = new_client()
        assert feed(client, *chunks) == []
        assert client.state is State.CONNECTING
        (refused,) = feed(client, eof=True)
        assert isinstance(refused, HandshakeRefused)
        assert refused.body == b"so far"
        assert events(client) == []


def test_a_refusal_whose_body_is_garbage_is_a_refusal_still() -> None:
    answer = http(REFUSED, ("transfer-encoding", "chunked"), body=b"6\r\nso far\r\nxyz\r\n")
    for chunks in ([answer], single_bytes(answer)):
        (refused,) = feed(new_client(), *chunks)
        assert isinstance(refused, HandshakeRefused)
        assert refused.body == b"so far"


@pytest.mark.parametrize("framing", [None, ("content-length", "1000000"), ("transfer-encoding", "chunked")])
def test_the_body_of_a_refusal_is_bounded(framing: tuple[str, str] | None) -> None:
    head = http(REFUSED, *([framing] if framing else []))
    if framing and framing[1] == "chunked":
        head += b"f4240\r\n"
    body = bytes(range(256)) * 300
    for chunk in (1_000_000, 5000):
        data = head + body
        (refused,) = feed(new_client(), *[data[i : i + chunk] for i in range(0, len(data), chunk)])
        assert isinstance(refused, HandshakeRefused)
        assert refused.body == body[:MAX_REFUSAL_BODY]


def test_the_stream_ends_before_an_answer() -> None:
    for data in ([], [b"HTTP/1.1 101 Swi"], [http("HTTP/1.1 100 Continue")]):
        client = new_client()
        assert feed(client, *data, eof=True) == [Closed(1006, "the stream ended", clean=False)]
        assert client.state is State.CLOSED


def test_the_repr_of_a_refusal_is_short_and_holds_no_headers() -> None:
    refused = HandshakeRefused(403, (("set-cookie", "secret"),), b"x" * 300)
    assert repr(refused) == f"HandshakeRefused(status=403, body=b'{'x' * 200}'… (300 bytes))"
    assert repr(HandshakeRefused(403, (), b"no")) == "HandshakeRefused(status=403, body=b'no')"


# ---------------------------------------------------------------------------------- server: the request


def test_the_request_as_the_server_sees_it() -> None:
    request = upgrade_request(
        ("X-Name", "caf\xe9"),
        ("Sec-WebSocket-Protocol", "chat, phoenix"),
        ("Sec-WebSocket-Protocol", " ,v2"),
        line="GET /socket/websocket?apikey=secret HTTP/1.1",
    )
    for chunks in ([request], single_bytes(request)):
        server = new_server()
        for chunk in chunks:
            server.receive_data(chunk)
        event = server.next_event()
        assert isinstance(event, HandshakeRequest)
        assert event.target == "/socket/websocket?apikey=secret"
        assert event.subprotocols == ("chat", "phoenix", "v2")
        assert dict(event.headers)["x-name"] == "caf\xe9"
        assert dict(event.headers)["host"] == "hub.test"
        assert server.next_event() is None
        assert server.state is State.CONNECTING
        assert server.data_to_send() == b""


def test_the_repr_of_a_request_tells_no_secret() -> None:
    request = HandshakeRequest("/socket/websocket?apikey=secret", (("cookie", "secret"),), ("secret",))
    assert repr(request) == "HandshakeRequest(target='/socket/websocket?…')"
    assert repr(HandshakeRequest("/socket", (), ())) == "HandshakeRequest(target='/socket')"


@pytest.mark.parametrize(
    "request_bytes",
    [
        upgrade_request(upgrade="WebSocket, x", connection="keep-alive, Upgrade"),
        upgrade_request(("content-length", "0")),
        upgrade_request(("expect", "100-continue")),
        upgrade_request().replace(b"\r\n", b"\n"),
        upgrade_request(("sec-websocket-extensions", "permessage-deflate; client_max_window_bits=seven")),
    ],
)
def test_odd_requests_that_are_good(request_bytes: bytes) -> None:
    for chunks in ([request_bytes], single_bytes(request_bytes)):
        server = new_server(deflate=True)
        (event,) = feed(server, *chunks)
        assert isinstance(event, HandshakeRequest)
        assert server.state is State.OPEN
        assert server.data_to_send().startswith(b"HTTP/1.1 101 ")


BAD = "HTTP/1.1 400 Bad Request"
UPGRADE = "HTTP/1.1 426 Upgrade Required"
BAD_KEY = "the Sec-WebSocket-Key header is missing or wrong"
VERSION = "this is a WebSocket of version 13"


@pytest.mark.parametrize(
    ("request_bytes", "line", "reason"),
    [
        (http("GET / HTTP/1.1", ("host", "x")), UPGRADE, VERSION),
        (upgrade_request(without="upgrade"), UPGRADE, VERSION),
        (upgrade_request(without="connection"), UPGRADE, VERSION),
        (upgrade_request(upgrade="h2c"), UPGRADE, VERSION),
        (upgrade_request(connection="caf\xe9"), UPGRADE, VERSION),
        (upgrade_request(sec_websocket_version="8"), UPGRADE, VERSION),
        (upgrade_request(without="sec-websocket-version"), UPGRADE, VERSION),
        (upgrade_request(without="sec-websocket-key"), BAD, BAD_KEY),
        (upgrade_request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ"), BAD, BAD_KEY),
        (upgrade_request(sec_websocket_key="c2hvcnQ="), BAD, BAD_KEY),
        (upgrade_request(sec_websocket_key="\xe9" * 24), BAD, BAD_KEY),
        (upgrade_request(("sec-websocket-key", KEY.decode())), BAD, BAD_KEY),
        (upgrade_request(line="GET / HTTP/1.0"), BAD, "the version of HTTP must be 1.1"),
        (upgrade_request(line="GET / HTTP/2.0"), BAD, "the version of HTTP must be 1.1"),
        (
            upgrade_request(line="POST / HTTP/1.1"),
            "HTTP/1.1 405 Method Not Allowed",
            "the method must be GET",
        ),
        (upgrade_request(("content-length", "5")), BAD, "the request must not have a body"),
        (upgrade_request(("transfer-encoding", "chunked")), BAD, "the request must not have a body"),
        (
            upgrade_request(("sec-websocket-extensions", "permessage-deflate;")),
            BAD,
            "malformed Sec-WebSocket-Extensions header",
        ),
        (upgrade_request(without="host"), BAD, "the request is not HTTP"),
        (upgrade_request(("host", "twice")), BAD, "the request is not HTTP"),
        (upgrade_request(line="GET /caf\xe9 HTTP/1.1"), BAD, "the request is not HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00", BAD, "the request is not HTTP"),
        (b"\x00", BAD, "the request is not HTTP"),
        (b"\r\n\r\n", BAD, "the request is not HTTP"),
        (
            upgrade_request(("transfer-encoding", "gzip")),
            "HTTP/1.1 501 Not Implemented",
            "the request is not HTTP",
        ),
        (
            b"GET /" + b"x" * (MAX_HEADER_SIZE + 10),
            "HTTP/1.1 431 Request Header Fields Too Large",
            "a request of more than 16384 bytes",
        ),
    ],
)
def test_a_request_that_is_wrong_is_answered_and_ends(request_bytes: bytes, line: str, reason: str) -> None:
    for chunks in ([request_bytes], single_bytes(request_bytes)):
        server = new_server()
        assert feed(server, *chunks) == [Closed(1002, reason, clean=False)]
        assert server.state is State.CLOSED
        head, _, body = server.data_to_send().partition(b"\r\n\r\n")
        assert head.decode().split("\r\n")[0] == line
        headers = dict(header.lower().split(": ") for header in head.decode().split("\r\n")[1:])
        assert headers["connection"] == "close"
        assert headers["content-length"] == str(len(body))
        assert body.decode() == f"{reason}\n"
        assert ("sec-websocket-version" in headers) is ("upgrade" in headers) is (line == UPGRADE)
        assert ("allow" in headers) is ("405" in line)
        assert feed(server, b"more", eof=True) == []
        assert server.data_to_send() == b""


def test_a_head_request_gets_no_body() -> None:
    server = new_server()
    assert feed(server, upgrade_request(line="HEAD / HTTP/1.1")) == [
        Closed(1002, "the method must be GET", clean=False)
    ]
    sent = server.data_to_send()
    assert sent.startswith(b"HTTP/1.1 405 ")
    assert sent.endswith(b"\r\n\r\n")


def test_the_stream_ends_before_the_request_is_whole() -> None:
    for data in (b"", upgrade_request()[:-1]):
        server = new_server()
        assert feed(server, data, eof=True) == [Closed(1006, "the stream ended", clean=False)]
        assert server.data_to_send() == b""


# ---------------------------------------------------------------------------------- server: the answer


def test_accept() -> None:
    server = asked_server(upgrade_request(("sec-websocket-protocol", "chat, phoenix")))
    server.accept(subprotocol="phoenix", headers=[("X-Name", "caf\xe9")])
    assert server.state is State.OPEN
    assert server.data_to_send().decode("latin-1").split("\r\n") == [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: phoenix",
        "X-Name: caf\xe9",
        "",
        "",
    ]


def test_accept_with_deflate() -> None:
    offer = ("sec-websocket-extensions", "permessage-deflate; server_no_context_takeover")
    server = asked_server(upgrade_request(offer), deflate=True)
    server.accept()
    assert server.uses_deflate
    answer = b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"
    assert answer in server.data_to_send()


@pytest.mark.parametrize(
    ("subprotocol", "headers", "reason"),
    [
        ("mqtt", [], "did not offer the subprotocol 'mqtt'"),
        (None, [("Connection", "close")], "'Connection' is reserved: the handshake sets it"),
        (None, [("X", "π")], "'X' is not Latin-1"),
        (None, [("X", "secret\r\nY: z")], "not legal HTTP"),
    ],
)
def test_an_illegal_accept_changes_nothing(
    subprotocol: str | None, headers: list[tuple[str, str]], reason: str
) -> None:
    server = asked_server()
    with pytest.raises(LocalProtocolError, match=reason) as caught:
        server.accept(subprotocol=subprotocol, headers=headers)
    assert "secret" not in str(caught.value)
    assert server.state is State.CONNECTING
    assert server.data_to_send() == b""
    server.accept()
    assert server.data_to_send().startswith(b"HTTP/1.1 101 Switching Protocols\r\n")


def test_reject() -> None:
    server = asked_server()
    server.reject(403, headers=[("Content-Type", "application/json")], body=b'{"error":"no"}')
    assert server.state is State.CLOSED
    assert server.data_to_send().decode().split("\r\n") == [
        "HTTP/1.1 403 Forbidden",
        "Content-Type: application/json",
        "Content-Length: 14",
        "Connection: close",
        "",
        '{"error":"no"}',
    ]
    # The end: no event, whatever comes.
    assert feed(server, b"more", eof=True) == []


def test_reject_with_a_status_that_has_no_name() -> None:
    server = asked_server()
    server.reject(599)
    assert server.data_to_send().startswith(b"HTTP/1.1 599 \r\n")


@pytest.mark.parametrize(
    ("status", "headers", "reason"),
    [
        (200, [], "the status of a refusal must be from 300 to 599, not 200"),
        (600, [], "the status of a refusal must be from 300 to 599, not 600"),
        (403, [("content-length", "1")], "is reserved: the handshake sets it"),
        (403, [("X", "secret\n")], "not legal HTTP"),
    ],
)
def test_an_illegal_reject_changes_nothing(status: int, headers: list[tuple[str, str]], reason: str) -> None:
    server = asked_server()
    with pytest.raises(LocalProtocolError, match=reason) as caught:
        server.reject(status, headers=headers)
    assert "secret" not in str(caught.value)
    assert server.state is State.CONNECTING
    server.reject(403)
    assert server.data_to_send().startswith(b"HTTP/1.1 403 Forbidden\r\n")


def test_there_must_be_a_request_to_answer() -> None:
    server, client = new_server(), new_client()
    opened = asked_server()
    opened.accept()
    rejected = asked_server()
    rejected.reject(403)
    for websocket in (server, client, opened, rejected):
        state = websocket.state
        websocket.data_to_send()
        with pytest.raises(LocalProtocolError, match="no request to answer"):
            websocket.accept()
        with pytest.raises(LocalProtocolError, match="no request to answer"):
            websocket.reject(403)
        assert websocket.state is state
        assert websocket.data_to_send() == b""


def test_frames_right_behind_the_request() -> None:
    early = frame(TEXT, b"one", mask=MASK) + frame(TEXT, b"two", mask=MASK)
    server = new_server()
    server.receive_data(upgrade_request() + early[:5])
    assert isinstance(server.next_event(), HandshakeRequest)
    server.receive_data(early[5:])
    assert server.next_event() is None
    server.accept()
    assert events(server) == [TextMessage("one"), TextMessage("two")]


def test_the_stream_ends_while_the_request_waits() -> None:
    server = asked_server()
    assert feed(server, eof=True) == [Closed(1006, "the stream ended", clean=False)]
    with pytest.raises(LocalProtocolError, match="no request to answer"):
        server.accept()


def test_what_comes_while_the_request_waits_is_bounded() -> None:
    server = asked_server(upgrade_request() + bytes(100_000))
    assert feed(server, bytes(MAX_EARLY_DATA)) == []
    assert feed(server, b"x") == [Closed(1002, "too much data before the answer", clean=False)]
    assert server.data_to_send().startswith(b"HTTP/1.1 400 ")
