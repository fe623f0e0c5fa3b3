"""Through SOCKS 5 proxies, on all adapters: a proxy of the RFC, and ones with faults."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.every_adapter import ON, Listen
from adapters.fakes import Certificates
from adapters.hub_thread import hub_thread, nothing_left, until
from adapters.socks_proxy import SocksThread
from adapters.test_proxies import SECRET, config, one_event
from presence_proto import Connected, Disconnected

on_all = pytest.mark.parametrize("listen", ON.values(), ids=ON.keys())

REPLY = b"\5\0\0\1\x7f\0\0\1\0\x50"
HUB = "hub.example"


@on_all
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("login", [None, ("ann", SECRET)], ids=["open", "login"])
def test_into_the_room(listen: Listen, tls: bool, login: tuple[str, str] | None) -> None:
    """By its name, which the proxy looks up; again after the connection was cut."""
    certificates = Certificates(HUB) if tls else None
    with (
        nothing_left(),
        hub_thread(ssl_context=certificates and certificates.server) as hub,
        SocksThread(login) as proxy,
    ):
        url = proxy.url.replace("//", f"//{login[0]}:{login[1]}@") if login else proxy.url
        events = listen(
            config(f"ws{'s' * tls}://{HUB}:{hub.port}/realtime/v1"),
            lambda events: (len(events) == 1 and hub.cut_all()) or len(events) == 3,
            ssl_context=certificates and certificates.client,
            proxy=url,
        )
        until(lambda: not hub.connections)
    assert [type(event) for event in events] == [Connected, Disconnected, Connected]
    assert proxy.targets == [(HUB, hub.port)] * 2
    assert proxy.logins == ([login] * 2 if login else [])


@on_all
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_one_byte_at_a_time_to_an_address(listen: Listen, host: str) -> None:
    with nothing_left(), hub_thread() as hub, SocksThread(("ann", SECRET), drips=True) as proxy:
        events = listen(
            config(f"ws://{host}:{hub.port}/realtime/v1"),
            one_event,
            proxy=f"socks5h://ann:{SECRET}@127.0.0.1:{proxy.port}",
        )
    assert [type(event) for event in events] == [Connected]
    assert proxy.targets == [(host.strip("[]"), hub.port)]


FAULTS: list[tuple[tuple[bytes | None, ...], str, str]] = [
    ((), f"ann:{SECRET}x@", "refused: it does not accept the user name and password"),
    ((), "", "refused: it wants a user name and password, or another way to log in"),
    (
        (None, None, b"\5\2\0\1" + bytes(6)),
        f"ann:{SECRET}@",
        "refused: its rules do not allow this connection",
    ),
    ((None, None, b"\5\5\0\1" + bytes(6)), f"ann:{SECRET}@", "refused: connection refused"),
    ((None, None, b""), f"ann:{SECRET}@", "closed the connection without an answer"),
    ((b"",), f"ann:{SECRET}@", "closed the connection without an answer"),
    ((None, b"\1"), f"ann:{SECRET}@", "no connection within"),
    ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), f"ann:{SECRET}@", "is not SOCKS 5"),
]


@pytest.mark.long
@on_all
@pytest.mark.parametrize(("answers", "login", "words"), FAULTS)
def test_a_proxy_with_faults(
    listen: Listen, answers: tuple[bytes | None, ...], login: str, words: str
) -> None:
    with nothing_left(), SocksThread(("ann", SECRET), answers) as proxy:
        events = listen(
            config("ws://hub.example:4000", connect_timeout=0.5 if words.startswith("no") else 10.0),
            one_event,
            proxy=f"socks5://{login}127.0.0.1:{proxy.port}",
        )
        until(lambda: proxy.ends >= 1)
    assert isinstance(events[0], Disconnected)
    assert words in events[0].reason
    assert SECRET not in events[0].reason


@on_all
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_what_comes_with_the_answer_is_not_lost(listen: Listen, tls: bool) -> None:
    refusal = b"HTTP/1.1 503 Later\r\nContent-Length: 5\r\n\r\nlater"
    with nothing_left(), SocksThread(answers=(None, None, REPLY + refusal)) as proxy:
        events: list[Any] = listen(
            config(f"ws{'s' * tls}://hub.example"),
            one_event,
            proxy=proxy.url,
            ssl_context=Certificates().client,
        )
    words = f"the proxy 127.0.0.1:{proxy.port} sent data of its own into the tunnel"
    assert events[0].reason == (words if tls else "the server refused the connection: HTTP 503 later")


@on_all
def test_through_the_proxy_of_the_environment(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with nothing_left(), hub_thread() as hub, SocksThread() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        events = listen(config(f"ws://hub.example:{hub.port}/realtime/v1"), one_event)
    assert isinstance(events[0], Connected)
    assert proxy.targets == [(HUB, hub.port)]
