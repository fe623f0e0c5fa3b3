"""Through HTTP proxies, on all adapters: an independent proxy, one with faults, and which proxy it is."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.every_adapter import ON, Listen
from adapters.fakes import Certificates
from adapters.hub_thread import hub_thread, nothing_left, until
from adapters.proxy import ProxyThread
from presence_adapters.stepped import PresenceClient
from presence_adapters.tls_and_proxies import find_proxy, is_exempt
from presence_proto import ConfigError, Connected, Disconnected, Identity, PresenceConfig, RealtimeConfig
from presence_proto.websocket import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAST: Any = {"jitter": 0.0, "reconnect_delay": 0.05, "max_reconnect_delay": 0.05, "close_timeout": 0.5}
SECRET = "s3cret-pw"

on_all = pytest.mark.parametrize("listen", ON.values(), ids=ON.keys())


def config(url: str, **options: Any) -> PresenceConfig:
    return PresenceConfig(server_url=url, **{**FAST, **options})


def one_event(events: list[Any]) -> bool:
    return len(events) == 1


# ---------------------------------------------------------------------------------------------- a real one


@pytest.fixture(scope="module")
def real_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of the package proxy.py, in a process of its own."""
    port_file = tmp_path_factory.mktemp("proxy") / "port"
    command = [sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", "0", "--num-workers", "1"]
    command += ["--num-acceptors", "1", "--port-file", str(port_file), "--basic-auth", f"ann:{SECRET}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: port_file.exists() and port_file.read_text().strip(), seconds=20)
            yield int(port_file.read_text())
        finally:
            process.terminate()


@on_all
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_into_the_room_through_a_real_proxy(listen: Listen, tls: bool, real_proxy: int) -> None:
    certificates = Certificates() if tls else None
    with nothing_left(), hub_thread(ssl_context=certificates and certificates.server) as hub:
        events = listen(
            config(hub.url),
            lambda events: (len(events) == 1 and hub.cut_all()) or len(events) == 3,
            ssl_context=certificates and certificates.client,
            proxy=f"http://ann:{SECRET}@127.0.0.1:{real_proxy}",
        )
        until(lambda: not hub.connections)
    assert [type(event) for event in events] == [Connected, Disconnected, Connected]


@on_all
@pytest.mark.parametrize(
    ("login", "fault"), [("", "it wants a"), (f"ann:{SECRET}x@", "it does not accept the")]
)
def test_a_real_proxy_that_does_not_know_us(listen: Listen, login: str, fault: str, real_proxy: int) -> None:
    with nothing_left(), hub_thread() as hub:
        events = listen(config(hub.url), one_event, proxy=f"http://{login}127.0.0.1:{real_proxy}")
    said = f"the proxy 127.0.0.1:{real_proxy} refused: 407 Proxy Authentication Required"
    assert events == [Disconnected(f"{said} ({fault} user name and password)", 0.05)]


# ---------------------------------------------------------------------------------------------- faults


def closes(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 Conn")


def goes_on(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        sock.sendall(b"X-More: " + b"y" * 1000 + b"\r\n")


def waits(sock: socket.socket) -> None:
    sock.recv(1)


FAULTS: list[tuple[bytes | Callable[[socket.socket], None], str]] = [
    (
        b"HTTP/1.1 407 Who\r\n\r\n",
        "the proxy {} refused: 407 Proxy Authentication Required (it does not accept",
    ),
    (b"HTTP/1.1 403 No\r\n\r\n", "the proxy {} refused: 403 Forbidden"),
    (b"HTTP/1.1 502 \r\nContent-Length: 3\r\n\r\nbad", "the proxy {} refused: 502 Bad Gateway"),
    (b"<html>\r\n\r\n</html>", "the answer of the proxy {} is too long or is not HTTP"),
    (b"", "the proxy {} closed the connection without an answer"),
    (closes, "the proxy {} closed the connection without an answer"),
    (goes_on, "the answer of the proxy {} is too long or is not HTTP"),
    (waits, "no connection within 0.2 s"),
]


@on_all
@pytest.mark.parametrize(("answer", "words"), FAULTS)
def test_a_proxy_with_faults(
    listen: Listen, answer: bytes | Callable[[socket.socket], None], words: str
) -> None:
    with nothing_left(), ProxyThread(answer) as proxy:
        events = listen(
            config("ws://hub.example:4000", connect_timeout=0.2 if answer is waits else 5.0),
            one_event,
            proxy=f"http://ann:{SECRET}@127.0.0.1:{proxy.port}",
        )
        until(lambda: proxy.ends >= 1)
        assert proxy.requests[0].startswith(b"CONNECT hub.example:4000 HTTP/1.1\r\n")
        login = b64encode(f"ann:{SECRET}".encode())
        assert b"\r\nProxy-Authorization: Basic " + login + b"\r\n" in proxy.requests[0]
    assert isinstance(events[0], Disconnected)
    assert events[0].reason.startswith(words.format(f"127.0.0.1:{proxy.port}"))
    assert SECRET not in events[0].reason


@on_all
def test_nobody_is_there_for_a_proxy(listen: Listen) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    events = listen(config("ws://hub.example"), one_event, proxy=f"http://127.0.0.1:{port}")
    words = f"the proxy is unreachable: cannot connect to 127.0.0.1:{port} (connection refused)"
    assert events == [Disconnected(words, 0.05)]


@on_all
def test_the_name_of_the_proxy_is_unknown(listen: Listen) -> None:
    events = listen(config("ws://127.0.0.1"), one_event, proxy="http://proxy.invalid:1")
    assert events[0].reason.startswith("the proxy is unreachable: cannot find the host proxy.invalid")


@on_all
def test_a_certificate_is_checked_behind_the_proxy(listen: Listen) -> None:
    certificates = Certificates("other.example")
    with nothing_left(), hub_thread(ssl_context=certificates.server) as hub, ProxyThread() as proxy:
        events = listen(
            config(f"wss://hub.example:{hub.port}"),
            one_event,
            proxy=proxy.url,
            ssl_context=certificates.client,
        )
    words = f"the TLS certificate of hub.example:{hub.port} is not trusted (it is for another host name)"
    assert events[0].reason == words


@on_all
def test_a_proxy_that_speaks_in_place_of_the_server(listen: Listen) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>\r\n\r\nlog in</html>"
    with nothing_left(), ProxyThread(page) as proxy:
        plain = listen(config("ws://hub.example"), one_event, proxy=proxy.url)
        tls = listen(config("wss://hub.example"), one_event, proxy=proxy.url)
    assert plain[0].reason == "the server's answer is not HTTP"
    assert tls[0].reason == f"the proxy 127.0.0.1:{proxy.port} sent data of its own into the tunnel"


@on_all
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_what_comes_with_the_answer_is_not_lost(listen: Listen, tls: bool) -> None:
    """A server that speaks at once: the proxy passes it on in one piece with its answer, and then closes."""
    refusal = b"HTTP/1.1 503 Later\r\nContent-Length: 5\r\n\r\nlater"
    certificates = Certificates("hub.example")

    def both(sock: socket.socket) -> None:
        if not tls:
            sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + refusal)
            return
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with certificates.server.wrap_socket(sock, server_side=True) as encrypted:
            encrypted.sendall(refusal)  # before it has read the request
            while encrypted.recv(65536):
                pass

    with nothing_left(), ProxyThread(both) as proxy:
        events = listen(
            config(f"ws{'s' * tls}://hub.example"),
            one_event,
            proxy=proxy.url,
            ssl_context=certificates.client if tls else None,
        )
    assert events == [Disconnected("the server refused the connection: HTTP 503 later", 0.05)]


@pytest.mark.long
@on_all
@pytest.mark.parametrize("stage", ["answer", "handshake"])
def test_leaving_while_the_way_is_being_made(listen: Listen, stage: str) -> None:
    """The connect timeout, and what is closed by it, are of the whole way."""

    def stalls(sock: socket.socket) -> None:
        if stage == "handshake":
            sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while sock.recv(4096):
            pass

    context = Certificates().client  # those of the system may take longer to read than the connect has
    with nothing_left(), ProxyThread(stalls) as proxy:
        started = time.monotonic()
        slow = config("wss://hub.example", connect_timeout=0.5)
        events = listen(slow, one_event, proxy=proxy.url, ssl_context=context)
        assert time.monotonic() - started < 5
        assert events == [Disconnected("no connection within 0.5 s", 0.05)]
        until(lambda: proxy.ends >= 1)


# ---------------------------------------------------------------------------------------------- which proxy

PROXY = Proxy("proxy.example", 3128)
URL = "http://proxy.example:3128"
SOCKS = Proxy("proxy", 1080, "ann", "pw", "socks5")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no", "ws", "wss"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


@pytest.mark.parametrize(
    ("variables", "server", "proxy"),
    [
        ({"https_proxy": URL}, "wss://hub.example", PROXY),
        ({"HTTPS_PROXY": URL}, "wss://hub.example", PROXY),
        ({"http_proxy": URL}, "ws://hub.example", PROXY),
        ({"HTTP_PROXY": URL}, "ws://hub.example", PROXY),
        ({"http_proxy": URL}, "wss://hub.example", None),
        ({"https_proxy": URL}, "ws://hub.example", None),
        ({"all_proxy": URL}, "ws://hub.example", PROXY),
        ({"ALL_PROXY": URL}, "wss://hub.example", PROXY),
        ({"all_proxy": "http://other", "https_proxy": URL}, "wss://hub.example", PROXY),
        ({"HTTPS_PROXY": "http://other", "https_proxy": URL}, "wss://hub.example", PROXY),
        ({"HTTPS_PROXY": URL, "https_proxy": ""}, "wss://hub.example", None),
        ({"all_proxy": URL, "no_proxy": "example"}, "wss://hub.example", None),
        ({"all_proxy": URL, "NO_PROXY": "other, .hub.example"}, "wss://hub.example", None),
        ({"all_proxy": URL, "no_proxy": "hub.example:443"}, "wss://hub.example", None),
        ({"all_proxy": URL, "no_proxy": "hub.example:444"}, "wss://hub.example", PROXY),
        ({"all_proxy": URL, "no_proxy": "ub.example"}, "wss://hub.example", PROXY),
        ({"all_proxy": URL, "no_proxy": "2001:db8::1"}, "wss://[2001:db8::1]", None),
        ({"all_proxy": URL, "no_proxy": "*"}, "wss://hub.example", None),
        ({"all_proxy": "socks5h://ann:pw@proxy"}, "wss://hub.example", SOCKS),
        ({"ALL_PROXY": "socks://ann:pw@proxy:1080/"}, "ws://hub.example", SOCKS),
        ({"all_proxy": "socks5://other", "http_proxy": URL}, "ws://hub.example", PROXY),
        ({"all_proxy": "socks4://proxy", "no_proxy": "hub.example"}, "ws://hub.example", None),
        ({"HTTP_PROXY": URL, "REQUEST_METHOD": "GET"}, "ws://hub.example", None),
        ({"http_proxy": URL, "REQUEST_METHOD": "GET"}, "ws://hub.example", PROXY),
        ({"all_proxy": URL}, "ws://127.0.0.1:4000", None),
        ({"all_proxy": URL}, "ws://127.9.9.9:4000", None),
        ({"all_proxy": URL}, "ws://[::1]:4000", None),
        ({"all_proxy": URL}, "ws://localhost", None),
        ({"all_proxy": URL}, "ws://hub.localhost", None),
        ({"all_proxy": "socks4://proxy"}, "ws://localhost", None),
        ({}, "wss://hub.example", None),
    ],
)
def test_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], server: str, proxy: Proxy | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_proxy(None, RealtimeConfig(server_url=server)) == proxy


def test_a_proxy_that_is_given_goes_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "http://other")
    monkeypatch.setenv("no_proxy", "*")
    server = RealtimeConfig(server_url="ws://127.0.0.1")
    assert find_proxy(URL, server) == PROXY
    assert find_proxy("", RealtimeConfig(server_url="ws://hub.example")) is None


def test_a_proxy_that_cannot_be_used_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    who = Identity("alice", "Alice")
    with pytest.raises(ConfigError, match=r"^proxy must not start with https://"):
        PresenceClient(who, config("ws://hub.example"), proxy=f"https://a:{SECRET}@proxy")
    monkeypatch.setenv("ALL_PROXY", f"socks4://a:{SECRET}@proxy")
    with pytest.raises(ConfigError) as caught:
        PresenceClient(who, config("ws://hub.example"))
    assert str(caught.value) == (
        "all_proxy in the environment: proxy must start with http:// or socks5://: no other kind is "
        'supported; to connect without a proxy, set no_proxy=hub.example, or proxy=""'
    )


@pytest.mark.parametrize(
    ("item", "host", "exempt"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3/8", "10.200.0.1", True),  # with host bits
        ("10.0.0.0/8", "hub.example", False),
        ("10.0.0.0/33", "10.0.0.1", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.70", False),
        ("192.0.2.7:8080", "192.0.2.7", True),
        ("192.0.2.7:80", "192.0.2.7", False),
        ("2001:db8::/32", "2001:db8:1::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("2001:DB8:0::1", "2001:db8::1", True),
        ("[2001:db8::1]", "2001:db8::1", True),
        ("[2001:db8::1]:8080", "2001:db8::1", True),
        ("[2001:db8::1]:80", "2001:db8::1", False),
        ("::/0", "10.0.0.1", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("hub.example", "hub.example", True),
        ("hub.example", "HUB.example.", True),
        ("HUB.Example", "hub.example", True),
        ("hub.example:8080", "hub.example", True),
        ("hub.example:08080", "hub.example", True),
        ("hub.example:80", "hub.example", False),
        (".example", "hub.example", True),
        ("*.example", "hub.example", True),
        ("example", "a.hub.example", True),
        ("ub.example", "hub.example", False),
        ("hub.example", "example", False),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("*", "hub.example", True),
        (".", "hub.example", False),
        ("", "hub.example", False),
        (":8080", "hub.example", False),
        ("a..b", "hub.example", False),
    ],
)
def test_what_no_proxy_names(item: str, host: str, exempt: bool) -> None:
    for no_proxy in (item, f"other.test, {item}", f"{item} other.test"):
        assert is_exempt(host, 8080, no_proxy) is exempt


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_stands_in_no_proxy_raises_nothing(no_proxy: str, host: str) -> None:
    is_exempt(host, 80, no_proxy)


@pytest.mark.long
@on_all
def test_through_the_proxy_of_the_environment(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    with nothing_left(), hub_thread() as hub, ProxyThread() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        events = listen(config(f"ws://hub.example:{hub.port}/realtime/v1"), one_event)
        assert isinstance(events[0], Connected)
        listen(config(hub.url), one_event)  # loopback
        assert [request.split()[1] for request in proxy.requests] == [f"hub.example:{hub.port}".encode()]
