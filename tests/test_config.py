"""Configs: where they lead, what they refuse, and what they keep to themselves."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from attrs import evolve, exceptions, fields
from hypothesis import given
from hypothesis import strategies as st

from presence_proto.config import (
    Address,
    ChannelConfig,
    Identity,
    PresenceConfig,
    RealtimeConfig,
    auth_token,
    auth_token_subprotocol,
)
from presence_proto.errors import ConfigError
from presence_proto.hub.config import HubConfig, join_params_are_the_meta
from presence_proto.secrets import Credentials
from presence_proto.validators import MIN_SECONDS, RESERVED_HEADERS
from presence_proto.websocket import WebSocket

URL = "ws://host.test"


def realtime(**settings: Any) -> RealtimeConfig:
    return RealtimeConfig(**{"server_url": URL} | settings)


def query(address: Address) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(address.target).query, keep_blank_values=True, strict_parsing=True))


# ---------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "path"),
    [
        ("ws://host.test", "host.test", 80, False, "/socket/websocket"),
        ("ws://host.test/", "host.test", 80, False, "/socket/websocket"),
        ("http://host.test:4000", "host.test", 4000, False, "/socket/websocket"),
        ("https://host.test", "host.test", 443, True, "/socket/websocket"),
        ("WSS://Host.Test:8443", "host.test", 8443, True, "/socket/websocket"),
        ("ws://host.test/live", "host.test", 80, False, "/live/websocket"),
        ("ws://host.test/live/websocket", "host.test", 80, False, "/live/websocket"),
        ("ws://host.test/live/websocket/", "host.test", 80, False, "/live/websocket"),
        ("ws://host.test/a b/ü", "host.test", 80, False, "/a%20b/%C3%BC/websocket"),
        ("ws://host.test/a%20b", "host.test", 80, False, "/a%20b/websocket"),
        ("wss://x.supabase.co", "x.supabase.co", 443, True, "/realtime/v1/websocket"),
        ("wss://x.supabase.in", "x.supabase.in", 443, True, "/realtime/v1/websocket"),
        ("ws://bücher.test", "xn--bcher-kva.test", 80, False, "/socket/websocket"),
        ("ws://127.0.0.1:80", "127.0.0.1", 80, False, "/socket/websocket"),
        ("ws://[::1]:4000", "::1", 4000, False, "/socket/websocket"),
    ],
)
def test_a_server_url_is_a_socket_or_the_mount_that_it_lies_under(
    url: str, host: str, port: int, tls: bool, path: str
) -> None:
    address = realtime(server_url=url).address()
    assert (address.host, address.port, address.tls) == (host, port, tls)
    assert address.target == f"{path}?vsn=2.0.0"


def test_a_bare_url_with_an_api_key_is_a_supabase_one() -> None:
    assert realtime(api_key="anon-key").address().target == "/realtime/v1/websocket?apikey=anon-key&vsn=2.0.0"


def test_a_project_ref_names_a_supabase_project() -> None:
    address = RealtimeConfig(project_ref="abc-123", api_key="anon-key", vsn="1.0.0").address()
    assert (address.host, address.port, address.tls) == ("abc-123.supabase.co", 443, True)
    assert address.target == "/realtime/v1/websocket?apikey=anon-key&vsn=1.0.0"


def test_the_presence_system_is_at_home_on_supabase() -> None:
    assert PresenceConfig(server_url=URL).address().target == "/realtime/v1/websocket?vsn=2.0.0"
    assert PresenceConfig(server_url=URL + "/socket").address().target == "/socket/websocket?vsn=2.0.0"


def test_the_query_holds_the_urls_own_parameters_the_params_the_key_the_token_and_the_vsn() -> None:
    config = realtime(
        server_url=URL + "/socket?a=1&b=&vsn=2.0.0", params={"c": "new ü&", "log": "info"}, api_key="k/+ ="
    )
    wanted = {"a": "1", "b": "", "vsn": "2.0.0", "c": "new ü&", "log": "info", "apikey": "k/+ ="}
    assert query(config.address()) == wanted
    assert query(config.address("jwt")) == wanted | {"token": "jwt"}
    assert query(evolve(config, token_param="access").address("jwt")) == wanted | {"access": "jwt"}
    assert query(evolve(config, token_in="none").address("jwt")) == wanted


def pairs(config: RealtimeConfig, token: str | None = None) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(config.address(token).target).query, keep_blank_values=True)


def test_names_may_be_repeated_and_keep_their_order() -> None:
    config = realtime(server_url=URL + "/?t[]=1&a=x&t[]=2&a=y", params=[("u", "1"), ("u", "1"), ("u", "")])
    asked = [("t[]", "1"), ("a", "x"), ("t[]", "2"), ("a", "y"), ("u", "1"), ("u", "1"), ("u", "")]
    assert pairs(config) == [*asked, ("vsn", "2.0.0")]


def test_what_the_url_says_like_a_setting_is_said_once() -> None:
    for vsn in ("1.0.0", "2.0.0"):
        config = realtime(server_url=f"{URL}/socket?vsn={vsn}&apikey=k&x=1&apikey=k", vsn=vsn, api_key="k")
        assert pairs(config, "jwt") == [("x", "1"), ("apikey", "k"), ("token", "jwt"), ("vsn", vsn)]
    assert pairs(realtime(server_url=f"{URL}/?apikey=k&token=t")) == [
        ("apikey", "k"),
        ("token", "t"),
        ("vsn", "2.0.0"),
    ]
    jarvis = PresenceConfig(server_url="ws://host.test:8790/?vsn=1.0.0", params={"a": "b"})
    assert pairs(jarvis) == [("vsn", "1.0.0"), ("a", "b")]  # that protocol has no vsn


TOKEN_TWICE = "the parameter 'token' is for the access token, but server_url or params set it, too: set"


@pytest.mark.parametrize(
    ("url", "fields", "words"),
    [
        ("/?vsn=1.0.0", {}, "server_url must have the same vsn as the vsn field, '2.0.0'"),
        ("/?vsn=2.0.0&vsn=1.0.0", {}, "server_url must have the same vsn as the vsn field, '2.0.0'"),
        ("/?vsn=", {"vsn": "1.0.0"}, "server_url must have the same vsn as the vsn field, '1.0.0'"),
        ("/?a=1", {"params": {"a": "1"}}, "server_url and params both set 'a': set it in one place only"),
        (
            "/?apikey=secret",
            {"api_key": "k"},
            "the apikey in server_url or params differs from the api_key field",
        ),
        ("/?apikey=k&apikey=", {"api_key": "k"}, "differs from the api_key field"),
        ("", {"params": {"apikey": "secret"}, "api_key": "k"}, "differs from the api_key field"),
        ("/socket?token=secret", {"access_token": "jwt"}, TOKEN_TWICE),
        ("/socket?token=jwt", {"access_token": "jwt"}, TOKEN_TWICE),
        ("/socket", {"params": {"token": "secret"}, "access_token": "jwt"}, TOKEN_TWICE),
        ("/socket?token=secret", {"asks_for_token": True}, TOKEN_TWICE),
        (
            "/?jwt=secret",
            {"access_token": "t", "token_param": "jwt"},
            "the parameter 'jwt' is for the access token",
        ),
    ],
)
def test_what_the_url_and_a_setting_say_differently_is_refused(
    url: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        realtime(server_url=URL + url, **fields)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_token_of_the_url_is_the_application_s_own_where_ours_goes_elsewhere() -> None:
    for token_in in ("subprotocol", "none"):
        config = realtime(server_url=URL + "/socket?token=x", access_token="jwt", token_in=token_in)
        assert pairs(config, "jwt") == [("token", "x"), ("vsn", "2.0.0")]


@pytest.mark.parametrize(
    "url", [" ws://h.test", "ws://h.test/x ", "ws://h.test\n", "ws://h.te\nst/x", "ws://h.test/\ta"]
)
@pytest.mark.parametrize("more", ["", "?a=b "])
def test_a_url_has_no_spaces_around_it_and_no_control_characters(url: str, more: str) -> None:
    with pytest.raises(ConfigError, match="must not begin or end with spaces, or contain control characters"):
        realtime(server_url=url + more)


def test_an_address_carries_no_token_unless_it_is_given_one() -> None:
    assert "jwt" not in realtime(access_token="jwt").address().target


@pytest.mark.parametrize(
    ("config", "by_default"),
    [
        (realtime(server_url="ws://host.test"), "query"),
        (realtime(server_url="ws://host.test/socket", api_key="key"), "query"),
        (realtime(server_url="wss://host.test/deep/realtime/v1/"), "none"),
        (realtime(server_url="ws://host.test/realtime/v1/websocket"), "none"),
        (realtime(server_url="ws://host.test/realtime/v1x"), "query"),
        (realtime(server_url="ws://host.test", api_key="key"), "none"),
        (realtime(server_url="wss://ref.supabase.co/socket"), "none"),
        (realtime(server_url="wss://ref.supabase.in"), "none"),
        (realtime(server_url="wss://notsupabase.co"), "query"),
        (RealtimeConfig(project_ref="ref"), "none"),
        (PresenceConfig(server_url="ws://host.test"), "none"),
        (PresenceConfig(server_url="ws://host.test/socket"), "query"),
        (PresenceConfig(server_url="ws://host.test:8790"), "query"),
        (PresenceConfig(server_url="ws://host.test/realtime/v1/websocket", protocol="jarvis"), "query"),
    ],
)
def test_supabase_finds_no_token_in_the_url_and_others_do_unless_the_config_says_so(
    config: RealtimeConfig, by_default: str
) -> None:
    for token_in in (None, "query", "none"):
        target = evolve(config, token_in=token_in).address("the-jwt").target
        assert ("token=the-jwt" in target) is ((token_in or by_default) == "query")
        assert ("the-jwt" in target) is ("token=the-jwt" in target)


AUTH_TOKEN = (
    "base64url.bearer.phx.U0ZNeU5UWS5nMmdEYlFBQUFBUjBhVzVoYmdZQU1ZQzJMYUlCWWdBQlVZQS5xV05ET1RiZVBj"
    "OTJaVmpwNzFmbFpMTmRNWGZWcjZabDJlQjBhcDc1MWJN"
)
PHOENIX_TOKEN = "SFMyNTY.g2gDbQAAAAR0aW5hbgYAMYC2LaIBYgABUYA.qWNDOTbePc92ZVjp71flZLNdMXfVr6Zl2eB0ap751bM"


def test_phoenix_s_auth_token_is_a_subprotocol() -> None:
    """The bytes are what a server of Phoenix 1.8.12 took, and what phoenix.js sends for this token."""
    config = realtime(token_in="subprotocol", access_token=PHOENIX_TOKEN)
    address = config.address(PHOENIX_TOKEN)
    assert address.subprotocols == ("phoenix", AUTH_TOKEN)
    assert address.target == "/socket/websocket?vsn=2.0.0"
    assert PHOENIX_TOKEN not in repr(address)
    assert AUTH_TOKEN.rpartition(".")[2] not in repr(address)
    hidden = Credentials(config.secrets).hide(f"no {PHOENIX_TOKEN}, no {AUTH_TOKEN}")
    assert hidden == "no …, no base64url.bearer.phx.…"
    # btoa("1234") is MTIzNA==, without padding.
    assert config.address("1234").subprotocols == ("phoenix", "base64url.bearer.phx.MTIzNA")
    assert config.address(None).subprotocols == ()


def test_an_auth_token_is_offered_beside_other_subprotocols() -> None:
    config = realtime(token_in="subprotocol", subprotocols=["chat", "phoenix"])
    assert config.address(None).subprotocols == ("chat", "phoenix")
    assert config.address("1234").subprotocols == ("phoenix", "base64url.bearer.phx.MTIzNA", "chat")
    for token_in in ("query", "none"):
        assert evolve(config, token_in=token_in).address("1234").subprotocols == ("chat", "phoenix")


@given(st.text(min_size=1, max_size=30))
def test_an_auth_token_that_a_config_took_can_be_sent_and_read(token: str) -> None:
    try:
        address = realtime(token_in="subprotocol", access_token=token).address(token)
    except ConfigError:
        assert "/" in auth_token_subprotocol(token)
        return
    WebSocket.client(address, subprotocols=address.subprotocols, max_message_size=100)
    assert auth_token(address.subprotocols) == token


@pytest.mark.parametrize(
    "offered",
    [
        (),
        ("phoenix",),
        ("base64url.bearer.phx.!",),
        ("base64url.bearer.phx.YQYQY",),
        ("base64url.bearer.phx.é",),
        ("x", "_w"),
    ],
)
def test_what_is_no_auth_token(offered: tuple[str, ...]) -> None:
    assert auth_token(offered) is None
    assert auth_token(("base64url.bearer.phx._w", *offered)) is None
    assert auth_token(("base64url.bearer.phx./w", *offered)) is None  # no UTF-8


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"server_url": URL, "token_in": "subprotocol", "access_token": "is it a secret?"},
            "access_token cannot be sent as a subprotocol: its base64 contains a '/'",
        ),
        (
            {"server_url": URL, "token_in": "subprotocol", "subprotocols": ["base64url.bearer.phx.YQ"]},
            "subprotocols must not contain base64url.bearer.phx.… when token_in is 'subprotocol'",
        ),
        (
            {"server_url": URL, "token_in": "subprotocol", "token_param": "jwt"},
            "token_param has no effect without the access token in the URL",
        ),
        ({"server_url": URL, "token_in": "none", "token_param": "jwt"}, "set token_in to 'query'"),
        ({"project_ref": "ref", "token_param": "jwt"}, "set token_in to 'query'"),
        (
            {"server_url": "ws://host.test:8790", "token_in": "subprotocol"},
            "token_in 'subprotocol' is for Phoenix: the Jarvis JSON protocol takes 'query' or 'none'",
        ),
    ],
)
def test_where_the_token_goes_is_said_once(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PresenceConfig(**fields)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "port", "tls", "authority"),
    [
        ("host.test", 80, False, "host.test"),
        ("host.test", 443, False, "host.test:443"),
        ("host.test", 443, True, "host.test"),
        ("host.test", 80, True, "host.test:80"),
        ("::1", 80, False, "[::1]"),
        ("::1", 4000, False, "[::1]:4000"),
    ],
)
def test_the_authority_leaves_out_the_default_port_and_brackets_ipv6(
    host: str, port: int, tls: bool, authority: str
) -> None:
    assert Address(host, port, tls, "/").authority == authority


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("host.test", "must start with"),
        ("ftp://host.test", "must start with"),
        ("", "must start with"),
        ("ws://", "must name a host"),
        ("ws:///path", "must name a host"),
        ("ws://host.test:0", "must name a host, and its port must not be 0"),
        ("ws://host.test:99999", "is not a URL"),
        ("ws://host.test:port", "is not a URL"),
        ("ws://[::1", "is not a URL"),
        ("ws://user@host.test", "must not hold a user name"),
        ("ws://:password@host.test", "must not hold a user name"),
        ("ws://host.test/#top", "must not hold a fragment"),
        ("ws://a..b", "is not a host name"),
        ("ws://ho st", "is not a host name"),
        ('ws://"host"', "is not a host name"),
        ("ws://host.test/\ud800", "must be a Unicode string"),
        (b"ws://host.test", "must be a Unicode string"),
        (7, "must be a Unicode string"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"server_url {message}|server_url: .*{message}"):
        realtime(server_url=url)


@pytest.mark.parametrize(
    ("url", "quoted"),
    [
        ("localhost:4000", ", not 'localhost:4000'"),
        ("127.0.0.1:4000/socket", ", not '127.0.0.1:4000/socket'"),
        ("localhost:4000/a?key=s3cret", ", not 'localhost:4000/a?…'"),
        ("ftp://host.test", ""),
        ("localhost", ""),
        ("ann:s3cret", ""),
        ("sb_secret_s3cret", ""),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.s3cret", ""),
    ],
)
def test_a_url_without_its_scheme_is_quoted_and_a_secret_is_not(url: str, quoted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        realtime(server_url=url)
    assert str(caught.value) == f"server_url must start with ws://, wss://, http:// or https://{quoted}"


@pytest.mark.parametrize("ref", ["", "a.b", "a/b", "ü", "x" * 64, 7])
def test_a_project_ref_that_cannot_work_is_refused(ref: Any) -> None:
    with pytest.raises(ConfigError, match="project_ref must be letters, digits and dashes"):
        RealtimeConfig(project_ref=ref)


def test_one_place_to_connect_to_is_needed_and_no_more() -> None:
    with pytest.raises(ConfigError, match="either server_url or project_ref"):
        RealtimeConfig()
    with pytest.raises(ConfigError, match="either server_url or project_ref"):
        RealtimeConfig(server_url=URL, project_ref="abc")


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_config_that_was_made_can_be_connected_with(path: str, key: str, name: str, value: str) -> None:
    try:
        config = realtime(server_url=f"{URL}/{path}", api_key=key, params={name: value}, access_token=value)
    except ConfigError:
        return
    address = config.address(value)
    websocket = WebSocket.client(address, max_message_size=100)
    assert websocket.data_to_send().startswith(f"GET {address.target} HTTP/1.1\r\n".encode("ascii"))
    if name not in ("apikey", "token", "vsn"):
        assert query(address)[name] == value


# ---------------------------------------------------------------------------------------------- values

MAY_BE_ZERO = (
    *("presence_window", "offline_grace", "join_delay", "refusal_delay", "restart_grace"),
    "handshake_refusal_delay",
)
SECONDS = [  # all but those, and the jitter, which is a fraction
    *(("RealtimeConfig", f.name) for f in fields(RealtimeConfig) if f.type == "float"),
    ("ChannelConfig", "track_window"),
    ("PresenceConfig", "track_window"),
    ("PresenceConfig", "command_timeout"),
    *(("HubConfig", f.name) for f in fields(HubConfig) if f.type == "float"),
]
SECONDS = [(kind, name) for kind, name in SECONDS if name not in ("jitter", *MAY_BE_ZERO)]
COUNTS = [
    *(
        ("RealtimeConfig", f.name)
        for f in fields(RealtimeConfig)
        if f.type == "int" and f.name != "max_nesting"
    ),
    *(("HubConfig", f.name) for f in fields(HubConfig) if f.type == "int" and f.name != "max_nesting"),
    ("ChannelConfig", "track_limit"),
    ("PresenceConfig", "track_limit"),
    ("HubConfig", "presence_limit"),
    ("HubConfig", "message_rate"),
    ("HubConfig", "join_rate"),
    ("HubConfig", "delivery_rate"),
    ("HubConfig", "max_connections_per_address"),
    ("RealtimeConfig", "max_final_refusals"),
]
SWITCHES = [
    ("RealtimeConfig", "deflate"),
    ("RealtimeConfig", "rejoin_after_close"),
    ("HubConfig", "deflate"),
    *(("ChannelConfig", f.name) for f in fields(ChannelConfig) if f.type == "bool"),
]


def make(kind: str, **settings: Any) -> Any:
    match kind:
        case "RealtimeConfig":
            return RealtimeConfig(server_url=URL, **settings)
        case "PresenceConfig":
            return PresenceConfig(server_url=URL, **settings)
        case "ChannelConfig":
            return ChannelConfig(**settings)
        case "HubConfig":
            return HubConfig(**settings)
        case _:
            return Identity(**{"user_id": "u", "display_name": "U"} | settings)


def refused(kind: str, name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}.* must.* {message}"):
        make(kind, **{name: value})


@pytest.mark.parametrize(("kind", "name"), SECONDS)
def test_a_time_is_a_millisecond_or_more(kind: str, name: str) -> None:
    for value in (0, -1, 0.0009, math.nan, math.inf, 10**400, True, "1", None):
        refused(kind, name, value, "at least 0.001 seconds")
    config = make(kind, **{name: 30})
    assert getattr(config, name) == 30
    if name != "max_reconnect_delay":
        assert getattr(make(kind, **{name: MIN_SECONDS}), name) == MIN_SECONDS


def test_the_longest_delay_is_not_shorter_than_the_first() -> None:
    with pytest.raises(ConfigError, match="max_reconnect_delay must be at least reconnect_delay"):
        realtime(reconnect_delay=2.0, max_reconnect_delay=1.0)
    assert realtime(reconnect_delay=2, max_reconnect_delay=2).max_reconnect_delay == 2


@pytest.mark.parametrize("name", MAY_BE_ZERO)
def test_some_times_may_be_zero(name: str) -> None:
    kind = "PresenceConfig" if name == "restart_grace" else "HubConfig"
    for good in (0, 1.5):
        assert getattr(make(kind, **{name: good}), name) == good
    for value in (-1, 0.0001, math.nan, math.inf, False, "1"):
        refused(kind, name, value, "0 or at least 0.001 seconds")


def test_the_hub_speaks_what_it_knows() -> None:
    for protocol in ("both", "phoenix", "jarvis"):
        assert make("HubConfig", protocol=protocol).protocol == protocol
    for value in ("", "Both", None, 1, ["both"]):
        refused("HubConfig", "protocol", value, "'both', 'phoenix' or 'jarvis'")


def test_the_hub_stops_like_a_server_that_it_knows() -> None:
    for server in ("phoenix", "supabase"):
        assert make("HubConfig", shutdown_like=server).shutdown_like == server
    for value in ("", "Phoenix", None, 1, ["phoenix"]):
        refused("HubConfig", "shutdown_like", value, "'phoenix' or 'supabase'")


@pytest.mark.parametrize(("kind", "name"), COUNTS)
def test_a_limit_is_a_whole_number_of_at_least_one(kind: str, name: str) -> None:
    for value in (0, -1, 1.5, True, "1"):
        refused(kind, name, value, "a whole number of at least 1")
    assert getattr(make(kind, **{name: 1}), name) == 1


@pytest.mark.parametrize("kind", ["RealtimeConfig", "HubConfig"])
def test_nesting_has_a_limit_that_python_can_keep(kind: str) -> None:
    for value in (0, 19, 251, 100.0, True, "100", None):
        refused(kind, "max_nesting", value, "a whole number from 20 to 250")
    for value in (20, 250):
        assert make(kind, max_nesting=value).max_nesting == value
    assert make(kind).max_nesting == 100


@pytest.mark.parametrize("kind", ["ChannelConfig", "PresenceConfig"])
def test_there_may_be_no_track_limit(kind: str) -> None:
    assert make(kind).track_limit == 5
    assert make(kind, track_limit=None).track_limit is None


@pytest.mark.parametrize(("kind", "name"), SWITCHES)
def test_a_switch_is_true_or_false(kind: str, name: str) -> None:
    for value in (0, 1, "true", None):
        refused(kind, name, value, "be true or false")
    assert getattr(make(kind, **{name: False}), name) is False


def test_the_jitter_is_a_fraction() -> None:
    for value in (-0.1, 1.1, math.nan, True, "0"):
        refused("RealtimeConfig", "jitter", value, "a number from 0 to 1")
    assert realtime(jitter=1).jitter == 1


@pytest.mark.parametrize(
    ("kind", "name"), [("Identity", "user_id"), ("Identity", "display_name"), ("PresenceConfig", "channel")]
)
def test_a_name_is_a_non_empty_unicode_string(kind: str, name: str) -> None:
    for value in ("", None, 7, b"x", "\ud800"):
        refused(kind, name, value, "be a non-empty Unicode string")
    assert getattr(make(kind, **{name: "ü"}), name) == "ü"


def test_a_presence_key_may_be_empty() -> None:
    assert ChannelConfig().presence_key == ""
    for value in (None, 7, "\ud800"):
        refused("ChannelConfig", "presence_key", value, "be a Unicode string")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("RealtimeConfig", "api_key"),
        ("RealtimeConfig", "access_token"),
        ("PresenceConfig", "api_key"),
        ("Identity", "access_token"),
    ],
)
def test_a_secret_is_a_string_or_none_and_never_quoted(kind: str, name: str) -> None:
    assert getattr(make(kind, **{name: None}), name) is None
    for value in ("", 123456789, b"s3cr3t", ["s3cr3t"], "s3cr3t\ud800"):
        with pytest.raises(ConfigError, match=f"{name} must be a non-empty Unicode string or None") as caught:
            make(kind, **{name: value})
        assert "s3cr3t" not in str(caught.value)
        assert "123456789" not in str(caught.value)


def test_the_vsn_is_one_of_two() -> None:
    for value in ("", "3.0.0", None, 2):
        refused("RealtimeConfig", "vsn", value, "be '1.0.0' or '2.0.0'")


@pytest.mark.parametrize("name", ["params", "headers"])
def test_pairs_come_as_a_mapping_or_as_pairs(name: str) -> None:
    wanted = (("a", "1"), ("b", "2"))
    for value in ({"a": "1", "b": "2"}, [("a", "1"), ["b", "2"]], wanted):
        assert getattr(realtime(**{name: value}), name) == wanted
    for value in (7, "abc", [("s3cr3t",)], {"s3cr3t": 1}, {1: "s3cr3t"}, {"a": "s3cr3t\ud800"}, None):
        with pytest.raises(ConfigError, match="must be mappings or pairs of Unicode strings") as caught:
            realtime(**{name: value})
        assert "s3cr3t" not in str(caught.value)


def test_the_vsn_is_not_set_by_a_param() -> None:
    with pytest.raises(ConfigError, match="params must not hold 'vsn'"):
        realtime(params={"vsn": "1.0.0"})


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ü", "a\n", *sorted(RESERVED_HEADERS), "Host"])
def test_a_header_that_cannot_be_sent_or_is_the_handshakes_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="headers: ") as caught:
        realtime(headers={name: "s3cr3t"})
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("value", ["ü", "a\r\nb", "a\nb", " a", "a ", "a\x00", "\x7f", "a\x0bb"])
def test_a_header_value_that_cannot_be_sent_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="headers: 'X-A' is not a header in printable ASCII"):
        realtime(headers={"X-A": value})


@given(st.text(max_size=10), st.text(max_size=10))
def test_headers_that_a_config_took_can_be_sent(name: str, value: str) -> None:
    try:
        config = realtime(headers={name: value})
    except ConfigError:
        return
    WebSocket.client(config.address(), headers=config.headers, max_message_size=100)


def test_the_user_agent_can_be_sent() -> None:
    assert realtime(user_agent="game/2 (linux)").user_agent == "game/2 (linux)"
    for value in ("", "ü", "a\r\nb", " a", 7):
        refused("RealtimeConfig", "user_agent", value, "be printable ASCII or None")


def test_subprotocols_are_different_tokens() -> None:
    assert realtime(subprotocols=["phoenix", "b"]).subprotocols == ("phoenix", "b")
    for value in ("phoenix", ["a", "a"], ["a b"], [""], [7], [[]], None):
        refused("RealtimeConfig", "subprotocols", value, "be a sequence of distinct HTTP tokens")


def test_the_token_param_is_a_name_of_its_own() -> None:
    for value in ("", None, "vsn", "apikey", 7, "\ud800"):
        refused("RealtimeConfig", "token_param", value, "name a parameter other than vsn and apikey")
    with pytest.raises(ConfigError, match="to keep the access token out of the URL, set token_in to 'none'"):
        realtime(token_param=None)


def test_token_in_names_a_place() -> None:
    for value in ("", "header", "url", True, ["query"]):
        refused("RealtimeConfig", "token_in", value, "be 'query', 'subprotocol', 'none' or None")


def test_api_keys_are_a_set_of_strings() -> None:
    assert HubConfig().api_keys is None
    assert HubConfig(api_keys=["a", "b", "a"]).api_keys == {"a", "b"}
    with pytest.raises(ConfigError, match="api_keys must be a set of strings, not a string"):
        HubConfig(api_keys="s3cr3t")


def test_configs_are_frozen_and_take_keywords_only() -> None:
    config = realtime()
    with pytest.raises(exceptions.FrozenInstanceError):
        config.api_key = "k"
    with pytest.raises(TypeError):
        RealtimeConfig(URL)
    assert hash(config) == hash(realtime())


# ---------------------------------------------------------------------------------------------- secrets


def test_no_secret_is_in_a_repr() -> None:
    for config in (
        RealtimeConfig(
            server_url="wss://host.test/socket?apikey=s3cr3t",
            api_key="s3cr3t",
            access_token="s3cr3t",
            params={"password": "s3cr3t"},
            headers={"Authorization": "Bearer s3cr3t"},
            subprotocols=["phoenix", "base64url.bearer.phx.s3cr3t"],
        ),
        PresenceConfig(project_ref="abc", api_key="s3cr3t", access_token="s3cr3t"),
        Identity("alice", "Alice", "s3cr3t"),
        HubConfig(api_keys={"s3cr3t"}),
        RealtimeConfig(server_url=URL, api_key="s3cr3t").address("s3cr3t"),
    ):
        assert "s3cr3t" not in repr(config)
        assert "s3cr3t" not in str(config)


def test_the_repr_says_where_it_leads() -> None:
    assert "server_url='wss://host.test/socket?…'" in repr(realtime(server_url="wss://host.test/socket?a=b"))
    assert "server_url='ws://host.test'" in repr(realtime())
    assert "server_url=None, project_ref='abc'" in repr(RealtimeConfig(project_ref="abc"))


def test_a_url_that_was_refused_is_not_quoted() -> None:
    for url in ("ws://user:s3cr3t@host.test", "ws://host.test:s3cr3t", "s3cr3t://host.test/"):
        with pytest.raises(ConfigError) as caught:
            realtime(server_url=url)
        assert "s3cr3t" not in str(caught.value)


def test_the_secrets_of_a_config_are_its_credentials_and_nothing_else() -> None:
    config = realtime(
        server_url=URL + "/socket?room=lobby-of-all&session_token=in+the%2Furl",
        api_key="key-of-the-api",
        access_token="the-access-token",
        params={"signature": "a+b/c=d&", "user_id": "alice-123", "platform": "android"},
        headers={
            "Authorization": "Bearer header-token",
            "Cookie": 'sid=c00kie-value; theme="dark"',
            "X-Api-Key": "another-key",
            "X-Client": "reason server any",
        },
        subprotocols=["phoenix", "base64url.bearer.phx.YS1iZWFyZXItdG9rZW4"],
    )
    assert set(config.secrets) == {
        "key-of-the-api",
        "the-access-token",
        "in the/url",
        "a+b/c=d&",
        "header-token",
        "c00kie-value",
        "dark",
        "another-key",
        "YS1iZWFyZXItdG9rZW4",
        "a-bearer-token",
    }
    assert not realtime(params={"user_id": "alice-123"}, headers={"User-Agent": "my-client/1.0"}).secrets
    assert realtime(token_param="jot", params={"jot": "x"}).secrets == ("x",)
    assert RealtimeConfig(project_ref="abc").secrets == ()


# ---------------------------------------------------------------------------------------------- hub


def test_the_default_presence_rule_takes_the_join_params_for_the_meta() -> None:
    params = {"user_id": "alice", "status": "online", "access_token": "not for all to see"}
    assert join_params_are_the_meta("room:1", params) == ("alice", {"status": "online"})
    for other in ({}, {"user_id": 7}, None, "alice", ["user_id"]):
        assert join_params_are_the_meta("room:1", other) is None
