"""`Proxy` and `ProxyTunnel`: what is asked of a proxy, and what becomes of its answer."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_proto import ConfigError, ConnId, LocalProtocolError, OpenTransport, ProxyError
from presence_proto.version import USER_AGENT
from presence_proto.websocket import Proxy, ProxyTunnel
from presence_proto.websocket.handshake import MAX_HEADER_SIZE
from presence_proto.websocket.tunnel import MAX_INTERIM

PROXY = Proxy("proxy.example", 3128)
NO_HTTP = "the answer of the proxy proxy.example:3128 is too long or is not HTTP"
LOGIN = Proxy("proxy.example", 3128, "ann", "s3cret-pw")


def tunnel(
    proxy: Proxy = PROXY, host: str = "hub.example", port: int = 80, *, tls: bool = False
) -> ProxyTunnel:
    return ProxyTunnel(proxy, OpenTransport(ConnId(1), host, port, tls))


def outcome(answer: bytes, *, cuts: list[int] | None = None, tls: bool = False) -> tuple[object, ...]:
    """What becomes of an answer that comes in pieces, and of a few bytes after it."""
    one = tunnel(tls=tls)
    ends = sorted({min(cut, len(answer)) for cut in cuts or []} | {len(answer)})
    early, at = b"", 0
    try:
        for end in ends:
            if one.is_open:
                early += answer[at:end]  # the stream is the server's already
            else:
                one.receive_data(answer[at:end])
                early += one.early_data
            at = end
    except ProxyError as exc:
        return "failed", str(exc)
    return "open" if one.is_open else "waiting", early


# ---------------------------------------------------------------------------------------------- the URL


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.example:3128", PROXY),
        ("proxy.example:3128", PROXY),
        ("http://proxy.example:3128/", PROXY),
        ("http://PROXY.example", Proxy("proxy.example", 80)),
        ("http://[::1]:3128", Proxy("::1", 3128)),
        ("http://bücher.example:1", Proxy("xn--bcher-kva.example", 1)),
        ("http://ann:s3cret-pw@proxy.example:3128", LOGIN),
        ("http://a%40b:p%3Aw%2F@10.0.0.1", Proxy("10.0.0.1", 80, "a@b", "p:w/")),
        ("http://ann@10.0.0.1", Proxy("10.0.0.1", 80, "ann", None)),
    ],
)
def test_the_url_of_a_proxy(url: str, proxy: Proxy) -> None:
    assert Proxy.from_url(url) == proxy


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "must be a URL"),
        ("http://a\ud800", "must be a URL"),
        ("https://ann:s3cret-pw@proxy.example", "must not start with https://: TLS to the proxy itself is"),
        ("socks4://ann:s3cret-pw@proxy.example", "must start with http:// or socks5://"),
        ("http://ann:s3cret-pw@proxy.example:port", "is malformed"),
        ("http://[::1", "is malformed"),
        ("http://", "must name a host"),
        ("http://ann:s3cret-pw@proxy.example:0", "must name a host"),
        ("http://ann:s3cret-pw@proxy.example/path", "must not have a path"),
        ("http://proxy.example?s3cret-pw", "must not have a path"),
        ("http://ann:s3cret-pw@pro xy", "'pro xy' is not a host name"),
        ("http://a%3Ab:s3cret-pw@proxy.example", "must not hold a colon"),
    ],
)
def test_a_url_that_is_none_of_a_proxy(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Proxy.from_url(url)
    assert "s3cret" not in str(caught.value)


def test_a_proxy_does_not_show_who_we_are() -> None:
    assert "ann" not in repr(LOGIN)
    assert "s3cret" not in repr(LOGIN)
    assert str(LOGIN) == "proxy.example:3128"
    assert str(Proxy("::1", 80)) == "[::1]:80"


# ---------------------------------------------------------------------------------------------- the request


def test_the_request() -> None:
    head = f"CONNECT hub.example:80 HTTP/1.1\r\nHost: hub.example:80\r\nUser-Agent: {USER_AGENT}\r\n\r\n"
    assert tunnel().data_to_send() == head.encode()
    assert (
        tunnel(host="::1", port=443)
        .data_to_send()
        .startswith(b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n")
    )


@pytest.mark.parametrize(
    ("proxy", "plain"),
    [
        (LOGIN, "ann:s3cret-pw"),
        (Proxy("p", 1, "ann"), "ann:"),
        (Proxy("p", 1, "änn", "pä:ß"), "änn:pä:ß"),
        (Proxy("p", 1, "", "x"), ":x"),
    ],
)
def test_the_request_says_who_we_are(proxy: Proxy, plain: str) -> None:
    lines = tunnel(proxy).data_to_send().split(b"\r\n")
    scheme, _, value = lines[3].partition(b": ")[2].partition(b" ")
    assert (lines[3].partition(b":")[0], scheme) == (b"Proxy-Authorization", b"Basic")
    assert base64.b64decode(value).decode() == plain


@pytest.mark.parametrize("host", ["hub example", "hüb.example", "hub\r\nX: y"])
def test_a_host_that_http_cannot_carry(host: str) -> None:
    with pytest.raises(LocalProtocolError, match="has characters that HTTP forbids"):
        tunnel(host=host)


# ---------------------------------------------------------------------------------------------- the answer


@pytest.mark.parametrize(
    ("answer", "early"),
    [
        (b"HTTP/1.1 200 Connection established\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n", b""),
        (b"HTTP/1.1 299\r\n\r\n", b""),
        # RFC 9110 §9.3.6: what a 2xx says of a body is to be ignored.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", b"5\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_INTERIM + b"HTTP/1.1 200 OK\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, b"x" * 100_000),
    ],
)
def test_an_open_tunnel(answer: bytes, early: bytes) -> None:
    assert outcome(answer) == ("open", early)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 403 Zzz s3cret\r\n\r\n", "refused: 403 Forbidden"),
        (b"HTTP/1.1 502 \r\nContent-Length: 9\r\n\r\n", "refused: 502 Bad Gateway"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://login\r\n\r\n", "refused: 302 Found"),
        (b"HTTP/1.1 599 Odd\r\n\r\n", "refused: 599"),
        (b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n", NO_HTTP),
        (b"<html>\r\n\r\n", NO_HTTP),
        (
            b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_HEADER_SIZE,
            NO_HTTP,
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 11, "sends only interim responses"),
    ],
)
def test_no_tunnel(answer: bytes, words: str) -> None:
    words = words if words.startswith("the ") else f"the proxy proxy.example:3128 {words}"
    assert outcome(answer) == ("failed", words)


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (400, None),
        (401, "forbidden"),
        (407, "login"),
        (500, "forbidden"),
        (502, "unreachable"),
        (503, "unreachable"),
        (504, "unreachable"),
    ],
)
def test_the_kind_of_a_refusal(status: int, refusal: str | None) -> None:
    with pytest.raises(ProxyError) as caught:
        tunnel().receive_data(b"HTTP/1.1 %d No\r\n\r\n" % status)
    assert caught.value.refusal == refusal
    assert str(caught.value) == f"the proxy proxy.example:3128 refused: {caught.value.detail}"


def test_a_proxy_that_wants_to_know_who_we_are() -> None:
    answer = b'HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n'
    with pytest.raises(ProxyError) as caught:
        tunnel().receive_data(answer)
    said = "the proxy proxy.example:3128 refused: 407 Proxy Authentication Required"
    assert str(caught.value) == f"{said} (it wants a user name and password)"
    with pytest.raises(ProxyError) as caught:
        tunnel(LOGIN).receive_data(answer)
    assert str(caught.value) == f"{said} (it does not accept the user name and password)"


def test_the_end_before_the_answer() -> None:
    one = tunnel()
    one.receive_data(b"HTTP/1.1 200 OK\r\n")
    assert not one.is_open
    with pytest.raises(
        ProxyError, match=r"^the proxy proxy.example:3128 closed the connection without an answer$"
    ):
        one.receive_eof()


def test_before_tls_the_client_speaks() -> None:
    assert outcome(b"HTTP/1.1 200 OK\r\n\r\n", tls=True) == ("open", b"")
    words = "the proxy proxy.example:3128 sent data of its own into the tunnel"
    assert outcome(b"HTTP/1.1 200 OK\r\n\r\n<html>", tls=True) == ("failed", words)


def test_an_endless_header_is_not_kept() -> None:
    one = tunnel()
    with pytest.raises(ProxyError, match="too long"):
        for _ in range(1 + MAX_HEADER_SIZE // 1000):
            one.receive_data(b"x: " + b"y" * 1000)


ANSWERS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nearly \r\n\r\n data",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 407 Who?\r\n\r\nbody",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 12,
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MAX_HEADER_SIZE - 24) + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_HEADER_SIZE + b"\r\n\r\n",
        b"no HTTP\r\n\r\n",
    ]
)


@given(ANSWERS, st.lists(st.integers(0, 17000), max_size=6))
def test_however_the_answer_is_cut_the_outcome_is_the_same(answer: bytes, cuts: list[int]) -> None:
    assert outcome(answer, cuts=cuts) == outcome(answer)


@given(st.binary(max_size=300))
def test_whatever_comes_it_raises_nothing_else(answer: bytes) -> None:
    assert outcome(answer)[0] in ("open", "waiting", "failed")
