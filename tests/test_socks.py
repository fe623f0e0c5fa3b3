"""SOCKS 5 through `ProxyTunnel`: what is asked of the proxy, and what its answers mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_proto import ConfigError, ConnId, LocalProtocolError, OpenTransport, ProxyError
from presence_proto.websocket import Proxy, ProxyTunnel

PROXY = Proxy("proxy.example", 1080, scheme="socks5")
LOGIN = Proxy("proxy.example", 1080, "ann", "s3cret-pw", "socks5")
NO_SOCKS = "the answer of the proxy proxy.example:1080 is not SOCKS 5"
REFUSED = "the proxy proxy.example:1080 refused: "

NO_LOGIN, WANTS_LOGIN, NO_WAY = b"\5\0", b"\5\2", b"\5\xff"
REPLY = b"\5\0\0\1\x7f\0\0\1\0\x50"


def tunnel(
    proxy: Proxy = PROXY, host: str = "hub.example", port: int = 443, *, tls: bool = False
) -> ProxyTunnel:
    return ProxyTunnel(proxy, OpenTransport(ConnId(1), host, port, tls))


def talk(one: ProxyTunnel, *answers: bytes) -> list[bytes]:
    """What it says, before the first answer and after each."""
    said = [one.data_to_send()]
    for answer in answers:
        one.receive_data(answer)
        said.append(one.data_to_send())
    return said


# ---------------------------------------------------------------------------------------------- the URL


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("socks5://proxy.example:9050", Proxy("proxy.example", 9050, scheme="socks5")),
        ("socks5://proxy.example", PROXY),
        ("socks5h://proxy.example", PROXY),
        ("socks://proxy.example/", PROXY),
        ("SOCKS5://PROXY.example", PROXY),
        ("socks5://ann:s3cret-pw@proxy.example", LOGIN),
        ("socks5://a%3Ab:p%40w@[::1]:1", Proxy("::1", 1, "a:b", "p@w", "socks5")),
    ],
)
def test_the_url(url: str, proxy: Proxy) -> None:
    assert Proxy.from_url(url) == proxy


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("socks4://ann:s3cret-pw@proxy", "must start with http:// or socks5://"),
        ("https://ann:s3cret-pw@proxy", "must not start with https://: TLS to the proxy itself"),
        (f"socks5://ann:s3cret-pw{'x' * 255}@proxy", "at most 255 bytes each"),
        (f"socks5://s3cret-pw{'%C3%A9' * 128}:x@proxy", "at most 255 bytes each"),
        ("socks5://ann:s3cret-pw@proxy:0", "must name a host"),
        ("socks5://proxy/s3cret-pw", "must not have a path"),
    ],
)
def test_a_url_that_cannot_be_used(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Proxy.from_url(url)
    assert "s3cret" not in str(caught.value)


def test_a_login_of_255_bytes_each_can_be_sent() -> None:
    proxy = Proxy.from_url(f"socks5://{'u' * 255}:{'p' * 255}@proxy")
    said = talk(tunnel(proxy), WANTS_LOGIN)
    assert said[1] == b"\1\xff" + b"u" * 255 + b"\xff" + b"p" * 255


# ---------------------------------------------------------------------------------------------- the talk


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("hub.example", 443, b"\3\x0bhub.example\x01\xbb"),
        ("xn--bcher-kva.example", 80, b"\3\x15xn--bcher-kva.example\0\x50"),
        ("192.0.2.7", 65535, b"\1\xc0\0\2\7\xff\xff"),
        ("2001:db8::1", 1, b"\4\x20\1\x0d\xb8" + bytes(11) + b"\1\0\1"),
        ("x" * 255, 1, b"\3\xff" + b"x" * 255 + b"\0\1"),
    ],
)
def test_the_request(host: str, port: int, address: bytes) -> None:
    one = tunnel(host=host, port=port)
    assert talk(one, NO_LOGIN, REPLY) == [b"\5\1\0", b"\5\1\0" + address, b""]
    assert one.is_open
    assert one.early_data == b""


@pytest.mark.parametrize(
    ("proxy", "login"),
    [
        (LOGIN, b"\1\3ann\x09s3cret-pw"),
        (Proxy("p", 1, "ann", None, "socks5"), b"\1\3ann\0"),
        (Proxy("p", 1, "änn", "ß", "socks5"), b"\1\4\xc3\xa4nn\2\xc3\x9f"),
    ],
)
def test_the_login(proxy: Proxy, login: bytes) -> None:
    one = tunnel(proxy)
    assert talk(one, WANTS_LOGIN, b"\1\0", REPLY)[:2] == [b"\5\2\0\2", login]
    assert one.is_open


def test_a_login_that_nobody_asks_for_is_not_told() -> None:
    assert talk(tunnel(LOGIN), NO_LOGIN) == [b"\5\2\0\2", b"\5\1\0\3\x0bhub.example\x01\xbb"]


@pytest.mark.parametrize(
    "address", [b"\1" + bytes(4), b"\4" + bytes(16), b"\3\x05abcde", b"\3\0", b"\3\xff" + bytes(255)]
)
@pytest.mark.parametrize("early", [b"", b"\5\0 of the server"])
def test_whatever_address_it_was_connected_from(address: bytes, early: bytes) -> None:
    one = tunnel()
    talk(one, NO_LOGIN, b"\5\0\0" + address + b"\1\2" + early)
    assert one.is_open
    assert one.early_data == early


@pytest.mark.parametrize("host", ["", "x" * 256, "hüb.example"])
def test_a_host_that_socks_cannot_carry(host: str) -> None:
    with pytest.raises(LocalProtocolError, match="is not a host that SOCKS can carry"):
        tunnel(host=host)


FAILURES = [
    ((NO_WAY,), PROXY, REFUSED + "it wants a user name and password, or another way to log in", "login"),
    (
        (NO_WAY,),
        LOGIN,
        REFUSED + "it supports neither a user name and password nor access without them",
        "login",
    ),
    ((WANTS_LOGIN, b"\1\1"), LOGIN, REFUSED + "it does not accept the user name and password", "login"),
    ((NO_LOGIN, b"\5\1\0\1" + bytes(6)), PROXY, REFUSED + "general failure", "forbidden"),
    ((NO_LOGIN, b"\5\2"), PROXY, REFUSED + "its rules do not allow this connection", "forbidden"),
    ((NO_LOGIN, b"\5\3"), PROXY, REFUSED + "network unreachable", "unreachable"),
    ((NO_LOGIN, b"\5\4"), PROXY, REFUSED + "host unreachable", "unreachable"),
    ((NO_LOGIN, b"\5\5"), PROXY, REFUSED + "connection refused", "unreachable"),
    ((NO_LOGIN, b"\5\6"), PROXY, REFUSED + "the time to live has expired", "unreachable"),
    ((NO_LOGIN, b"\5\7"), PROXY, REFUSED + "it does not support CONNECT", "forbidden"),
    ((NO_LOGIN, b"\5\x08"), PROXY, REFUSED + "it does not support this type of address", "forbidden"),
    ((NO_LOGIN, b"\5\x5b"), PROXY, REFUSED + "code 91", "forbidden"),
    ((b"\4\0",), PROXY, NO_SOCKS, None),
    ((b"\0\x5a" + bytes(6),), PROXY, NO_SOCKS, None),
    ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), PROXY, NO_SOCKS, None),
    ((b"SSH-2.0-OpenSSH_9.6\r\n",), PROXY, NO_SOCKS, None),
    ((WANTS_LOGIN,), PROXY, NO_SOCKS, None),  # what was not offered
    ((b"\5\1",), LOGIN, NO_SOCKS, None),
    ((WANTS_LOGIN, b"\5\0"), LOGIN, NO_SOCKS, None),
    ((NO_LOGIN, b"\1\0"), PROXY, NO_SOCKS, None),
    ((NO_LOGIN, b"\5\0\0\2" + bytes(6)), PROXY, NO_SOCKS, None),
]


@pytest.mark.parametrize(("answers", "proxy", "words", "refusal"), FAILURES)
def test_what_is_no_way_through(
    answers: tuple[bytes, ...], proxy: Proxy, words: str, refusal: str | None
) -> None:
    one = tunnel(proxy)
    with pytest.raises(ProxyError) as caught:
        talk(one, *answers)
    assert str(caught.value) == words
    assert caught.value.refusal == refusal
    assert "ann" not in str(caught.value)
    assert not one.is_open


def test_the_end_before_the_answer() -> None:
    with pytest.raises(ProxyError, match=r"^the proxy proxy\.example:1080 closed the connection without"):
        tunnel().receive_eof()


def test_with_tls_the_server_does_not_speak_first() -> None:
    with pytest.raises(ProxyError, match="sent data of its own into the tunnel"):
        talk(tunnel(tls=True), NO_LOGIN, REPLY + b"x")


# ---------------------------------------------------------------------------------------------- any pieces


def outcome(proxy: Proxy, answers: bytes, cuts: set[int]) -> tuple[object, ...]:
    """What becomes of a stream of answers that comes in these pieces, and what was said to them in all."""
    one = tunnel(proxy)
    said, early, at = one.data_to_send(), b"", 0
    try:
        for end in sorted({cut for cut in cuts if cut < len(answers)} | {len(answers)}):
            piece, at = answers[at:end], end
            if one.is_open:
                early += piece
                continue
            one.receive_data(piece)
            said += one.data_to_send()
            early += one.early_data
    except ProxyError as exc:
        return str(exc), exc.refusal
    return one.is_open, said, early


STREAMS = st.one_of(
    st.sampled_from([(b"".join(answers), proxy) for answers, proxy, *_ in FAILURES]),
    st.tuples(st.sampled_from([NO_LOGIN + REPLY, WANTS_LOGIN + b"\1\0" + REPLY]), st.just(LOGIN)),
    st.tuples(st.binary(max_size=40), st.sampled_from([PROXY, LOGIN])),
    st.tuples(st.binary(max_size=300).map(lambda rest: NO_LOGIN + b"\5\0\0" + rest), st.just(PROXY)),
)


@given(STREAMS, st.binary(max_size=5), st.sets(st.integers(0, 300)))
def test_any_bytes_in_any_pieces(stream: tuple[bytes, Proxy], early: bytes, cuts: set[int]) -> None:
    """Nothing raises anything but a `ProxyError`, and how the bytes are cut changes nothing."""
    answers, proxy = stream[0] + early, stream[1]
    whole = outcome(proxy, answers, set())
    assert outcome(proxy, answers, cuts) == whole
    assert outcome(proxy, answers, set(range(len(answers)))) == whole
