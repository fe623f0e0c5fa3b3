"""Which web pages may connect: by the `Origin` and the `Host` of the upgrade request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_client import World, upgrade
from presence_proto.endpoint import CloseTransport
from presence_proto.errors import ConfigError
from presence_proto.events import ClientRefused
from presence_proto.hub.config import HubConfig
from presence_proto.hub.origins import is_loopback

PATHS = ["/socket/websocket", "/realtime/v1/websocket?vsn=2.0.0", "/"]
LOOPBACK = [
    "localhost",
    "LOCALHOST.",
    "app.localhost",
    "127.0.0.1",
    "127.9.8.7",
    "[::1]",
    "[::ffff:127.0.0.1]",
]
STRANGE = [
    "https://evil.example",
    "http://evil.example:4000",
    "null",
    "",
    "file://",
    "garbage",
    "http://",
    "http://a b",
]


def request(host: str, *origins: str, target: str = PATHS[0]) -> bytes:
    """An upgrade request with this `Host`, and a header `Origin` for each of `origins`."""
    lines = "".join(f"Origin: {origin}\r\n" for origin in origins)
    return upgrade(target).replace(b"Host: hub\r\n", f"Host: {host}\r\n{lines}".encode())


def status(config: HubConfig | None, host: str, *origins: str, target: str = PATHS[0]) -> int:
    world = World(config)
    conn = world.open()
    world.receive(conn, request(host, *origins, target=target))
    return int(world.sent[conn].split()[1])


@pytest.mark.parametrize("target", PATHS)
@pytest.mark.parametrize("host", ["hub.example:4000", "localhost:4000"])
def test_a_program_names_no_origin_and_may_connect(host: str, target: str) -> None:
    assert status(None, host, target=target) == 101


@pytest.mark.parametrize("target", PATHS)
@pytest.mark.parametrize("host", ["hub.example:4000", "localhost:4000", "127.0.0.1:4000", "[::1]:4000"])
@pytest.mark.parametrize("origin", STRANGE)
def test_a_page_of_another_origin_may_not(origin: str, host: str, target: str) -> None:
    assert status(None, host, origin, target=target) == 403


def test_the_refusal_says_what_to_set() -> None:
    world = World()
    conn = world.open()
    world.receive(conn, request("localhost:4000", "https://evil.example"))
    (event,) = world.take_events()
    words = (
        'pages of the origin "https://evil.example" may not connect. '
        "If they should, list it in allowed_origins (`presence hub --allow-origin`)"
    )
    assert event == ClientRefused(conn, 403, words)
    assert json.loads(world.sent[conn].partition(b"\r\n\r\n")[2]) == {"error": words}
    assert world.closed[conn] == CloseTransport(conn)


def test_a_refusal_quotes_no_more_than_a_line() -> None:
    world = World()
    conn = world.open()
    world.receive(conn, request("localhost", "https://" + "é\x9b" * 3000))
    (event,) = world.take_events()
    assert len(event.reason) < 1000
    assert event.reason.isprintable()
    assert event.reason.isascii()


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://chat.example", "chat.example"),  # TLS ends at a proxy
        ("http://Chat.Example.", "chat.example:4000"),
        ("http://chat.example:8080", "CHAT.example:4000"),
        ("http://192.0.2.7:3000", "192.0.2.7:4000"),
        ("http://[2001:db8::7]:3000", "[2001:db8::7]:4000"),
        ("ws://chat.example:4000", "chat.example:4000"),  # as some programs do
    ],
)
def test_a_page_of_the_same_host_may(origin: str, host: str) -> None:
    assert status(None, host, origin) == 101


@pytest.mark.parametrize("page", LOOPBACK)
@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_may_speak_to_loopback_whatever_the_ports(page: str, host: str) -> None:
    for port in ("", ":5173"):
        assert status(None, f"{host}:4000", f"http://{page}{port}") == 101
        assert status(HubConfig().listening_on("127.0.0.1"), f"{host}:4000", f"http://{page}{port}") == 101


@pytest.mark.parametrize("page", LOOPBACK)
def test_a_page_of_loopback_is_a_stranger_to_another_host(page: str) -> None:
    assert status(None, "chat.example", f"http://{page}:5173") == 403


@pytest.mark.parametrize(
    ("allowed", "origin", "expected"),
    [
        ("https://app.example", "https://app.example", 101),
        ("https://app.example", "HTTPS://APP.example:443", 101),
        ("HTTPS://APP.example:443", "https://app.example", 101),
        ("https://app.example", "https://app.example:444", 403),
        ("https://app.example", "http://app.example", 403),
        ("https://app.example", "https://www.app.example", 403),
        ("https://app.example", "https://app.example.evil", 403),
        ("https://*.app.example", "https://www.app.example", 101),
        ("https://*.app.example", "https://a.b.app.example", 101),
        ("https://*.app.example", "https://app.example", 403),
        ("https://*.app.example", "https://.app.example", 403),
        ("https://*.app.example", "https://evilapp.example", 403),
        ("https://*.app.example", "https://www.app.example:444", 403),
        ("https://*.app.example:444", "https://www.app.example:444", 101),
        ("https://*.app.example", "http://www.app.example", 403),
        ("http://app.example:3000", "http://app.example:3000", 101),
        ("capacitor://app.example", "capacitor://app.example", 101),
        ("null", "null", 101),
        ("null", "https://null", 403),
        ("https://null", "null", 403),
        ("*", "null", 101),
        ("*", "https://evil.example", 101),
        ("*", "garbage", 101),
    ],
)
def test_others_may_when_they_are_listed(allowed: str, origin: str, expected: int) -> None:
    config = HubConfig(allowed_origins=["https://other.example", allowed])
    for guarded in (config, config.listening_on("localhost")):
        assert status(guarded, "localhost:4000", origin) == expected


def test_of_two_origins_each_is_asked() -> None:
    assert status(None, "localhost", "http://localhost", "http://127.0.0.1") == 101
    assert status(None, "localhost", "http://localhost", "http://evil.example") == 403
    assert status(None, "localhost", "http://evil.example", "http://localhost") == 403


def test_a_stranger_does_not_learn_whether_its_key_or_path_is_right() -> None:
    config = HubConfig(api_keys={"secret"}, protocol="phoenix")
    for target in ("/realtime/v1/websocket?apikey=secret", "/realtime/v1/websocket?apikey=no", "/nowhere"):
        assert status(config, "localhost", "https://evil.example", target=target) == 403


@pytest.mark.parametrize("target", PATHS)
def test_a_rebound_name_may_not_reach_loopback(target: str) -> None:
    config, page = HubConfig().listening_on("127.0.0.1"), "http://evil.example:4000"
    assert status(config, "evil.example:4000", page, target=target) == 403
    assert status(HubConfig().listening_on("0.0.0.0"), "evil.example:4000", page, target=target) == 101
    # Only browsers can be led astray, and they name the page: a program may know this machine by any name.
    assert status(config, "evil.example:4000", target=target) == 101


def test_the_refusal_of_a_host_says_what_to_set() -> None:
    world = World(HubConfig().listening_on("::1"))
    conn = world.open()
    world.receive(conn, request("evil.example:4000", "http://evil.example:4000"))
    (event,) = world.take_events()
    assert event.reason == (
        'the host "evil.example:4000" is not a name of loopback. If pages use it, '
        "list an origin of this host in allowed_origins (`presence hub --allow-origin`)"
    )


@pytest.mark.parametrize(
    "host", ["", "x y", "a@localhost", "localhost:4000:1", "[::1", "192.0.2.7:4000", "::1"]
)
def test_what_is_no_name_of_loopback_is_refused_there(host: str) -> None:
    assert status(HubConfig().listening_on("localhost"), host, f"http://{host}") in (400, 403)


@pytest.mark.parametrize(
    ("options", "host", "expected"),
    [
        ({"allowed_origins": ["https://chat.example"]}, "chat.example", 101),
        ({"allowed_origins": ["https://chat.example"]}, "Chat.Example.:4000", 101),
        ({"allowed_origins": ["https://chat.example:8443"]}, "chat.example", 101),
        ({"allowed_origins": ["https://*.example"]}, "chat.example", 101),
        ({"allowed_origins": ["https://*.example"]}, "example", 403),
        ({"allowed_origins": ["null"]}, "null", 403),
        ({"allowed_origins": ["*"]}, "evil.example", 101),
        ({"allowed_hosts": ["chat.example"]}, "chat.example:4000", 101),
        ({"allowed_hosts": ["*.example."]}, "chat.example", 101),
        ({"allowed_hosts": ["[2001:db8::7]"]}, "[2001:db8::7]:4000", 101),
        ({"allowed_hosts": ["chat.example"]}, "evil.example", 403),
        ({"allowed_hosts": []}, "chat.example", 403),
        ({"allowed_hosts": []}, "localhost", 101),
    ],
)
def test_names_of_a_hub_behind_a_proxy(options: dict[str, Any], host: str, expected: int) -> None:
    config = HubConfig(**options).listening_on("127.0.0.1")
    assert status(config, host, f"https://{host}") == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in LOOPBACK),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:192.0.2.7", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("notlocalhost", False),
        ("128.0.0.1", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    assert (HubConfig().listening_on(host) == HubConfig(allowed_hosts=())) is expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"allowed_origins": "https://a.example"}, "allowed_origins must be a sequence of strings"),
        ({"allowed_origins": 5}, "allowed_origins must be a sequence of strings"),
        ({"allowed_origins": [b"*"]}, "allowed_origins must be a sequence of strings"),
        ({"allowed_origins": ["a.example"]}, "allowed_origins: 'a.example' is not an origin"),
        ({"allowed_origins": ["https://a.example/"]}, "'https://a.example/' is not an origin"),
        ({"allowed_origins": ["https://a.example/x"]}, "is not an origin"),
        ({"allowed_origins": ["https://u@a.example"]}, "is not an origin"),
        ({"allowed_origins": ["https://*"]}, "is not an origin"),
        ({"allowed_origins": ["https://*.*.example"]}, "is not an origin"),
        ({"allowed_origins": ["https://a*.example"]}, "is not an origin"),
        ({"allowed_origins": ["https://a.example:*"]}, "is not an origin"),
        ({"allowed_origins": ["*://a.example"]}, "is not an origin"),
        ({"allowed_origins": [""]}, "is not an origin"),
        ({"allowed_hosts": "a.example"}, "allowed_hosts must be a sequence of strings"),
        (
            {"allowed_hosts": ["a.example:80"]},
            "allowed_hosts: 'a.example:80' is not a host: it must be like 'example.com'",
        ),
        ({"allowed_hosts": ["https://a.example"]}, "is not a host"),
        ({"allowed_hosts": ["*"]}, "is not a host"),
        ({"allowed_hosts": ["a*.example"]}, "is not a host"),
        ({"allowed_hosts": [""]}, "is not a host"),
    ],
)
def test_what_is_no_origin_or_host_is_an_error(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HubConfig(**options)
    assert words in str(caught.value)


def test_equal_settings_are_equal() -> None:
    one = HubConfig(
        allowed_origins=["HTTPS://A.example:443", "https://a.example"], allowed_hosts=["A.example."]
    )
    assert one == HubConfig(allowed_origins=("https://a.example",), allowed_hosts=("a.example",))
    assert one.listening_on("localhost") is one


@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30), st.data())
def test_no_text_of_a_page_is_let_in_by_chance(text: str, data: st.DataObject) -> None:
    config = HubConfig(allowed_origins=("https://a.example", "https://*.b.example")).listening_on("localhost")
    origin = data.draw(
        st.sampled_from([text, f"http://{text}", f"https://{text}.a.example", f"http://localhost{text}"])
    )
    if status(config, "localhost:4000", origin) == 101:
        plain = origin.lower()
        host = plain.partition("://")[2].partition(":")[0]
        assert plain.rstrip("0123456789").rstrip(":") in ("https://a.example",) or is_loopback(host), origin
