"""Who is let in, byte for byte where a recording says so."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import golden_files
from hub_client import PHOENIX, SUPABASE, World, supabase_join, upgrade
from presence_proto.endpoint import CloseTransport, ConnId
from presence_proto.events import ClientConnected, ClientDisconnected, ClientRefused, JoinRefused
from presence_proto.hub.config import HubConfig

KEYS = HubConfig(api_keys={"secret", "другой"})


@pytest.mark.parametrize(
    "target",
    [
        "/socket/websocket",
        "/websocket?vsn=1.0.0",
        "/a/b%20c/websocket?vsn=2.0.0&user=x",
        "/realtime/v1/websocket?vsn=2.0.0",
        "/some/prefix/realtime/v1/websocket",
    ],
)
def test_phoenix_and_supabase_paths_are_served(target: str) -> None:
    world = World()
    client = world.connect(target)
    assert client.opened is not None
    assert client.opened.subprotocol is None
    path = target.partition("?")[0]
    assert world.take_events() == [ClientConnected(client.conn, path)]
    assert world.hub.connections == (client.conn,)


def test_no_vsn_is_v1() -> None:
    client = World().connect("/socket/websocket")
    client.text('{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}')
    assert json.loads(client.frames[0].data) == {
        "event": "phx_reply",
        "payload": {"response": {}, "status": "ok"},
        "ref": "1",
        "topic": "phoenix",
    }


@pytest.mark.parametrize("target", ["/", "/socket", "/socket/websocket/", "/mywebsocket", "/realtime/v1"])
def test_other_paths_are_not_found(target: str) -> None:
    world = World(HubConfig(protocol="phoenix"))
    client = world.connect(target + "?vsn=2.0.0")
    assert client.refused is not None
    assert client.refused.status == 404
    assert world.take_events() == [ClientRefused(client.conn, 404, "no such path")]
    assert world.closed[client.conn] == CloseTransport(client.conn)
    assert world.hub.connections == ()
    assert world.hub.next_deadline() is None


@pytest.mark.parametrize(
    "name", [name for name in golden_files.names() if name.startswith(("l_vsn", "h_supabase_no_apikey"))]
)
def test_refusals_as_recorded(name: str) -> None:
    connect, http = golden_files.msgs(name)[:2]
    assert isinstance(connect.data, str)
    assert isinstance(http.data, str)
    world = World(HubConfig(api_keys={"x"}))
    client = world.connect("/" + connect.data.split("/", 3)[3])
    assert client.refused is not None
    assert client.refused.status == http.status
    assert client.refused.body == http.data.encode()
    if client.refused.body:
        recorded, ours = dict(http.headers), dict(client.refused.headers)
        assert ours["content-type"] == {k.lower(): v for k, v in recorded.items()}["content-type"]


def test_the_key_of_a_supabase_url_is_checked() -> None:
    for query, status, body in (
        ("", 401, b'{"error":"API key is missing"}'),
        ("&apikey=", 401, b'{"error":"API key is missing"}'),
        ("&apikey=wrong", 401, b'{"error":"API key is invalid"}'),
    ):
        client = World(KEYS).connect("/realtime/v1/websocket?vsn=2.0.0" + query)
        assert client.refused is not None
        assert (client.refused.status, client.refused.body) == (status, body)
    for query in ("&apikey=secret", "&apikey=%D0%B4%D1%80%D1%83%D0%B3%D0%BE%D0%B9"):
        assert World(KEYS).connect("/realtime/v1/websocket?vsn=2.0.0" + query).opened is not None


def test_the_key_may_come_in_a_header() -> None:
    target = "/realtime/v1/websocket?vsn=2.0.0"
    assert World(KEYS).connect(target, headers=(("X-Api-Key", "secret"),)).opened is not None
    refused = World(KEYS).connect(target, headers=(("X-Api-Key", "no"),)).refused
    assert refused is not None
    assert refused.status == 401


def test_the_key_in_the_header_counts_when_there_are_two() -> None:
    """As in Supabase Realtime: `x-api-key` comes first."""
    for header, query, opened in (
        ("secret", "wrong", True),
        ("wrong", "secret", False),
        ("", "secret", True),
    ):
        client = World(KEYS).connect(
            f"/realtime/v1/websocket?vsn=2.0.0&apikey={query}", headers=(("X-Api-Key", header),)
        )
        assert (client.opened is not None) is opened


def test_without_keys_any_key_will_do() -> None:
    assert World().connect("/realtime/v1/websocket?vsn=2.0.0").opened is not None
    assert World().connect("/realtime/v1/websocket?vsn=2.0.0&apikey=anything").opened is not None


def test_the_key_guards_the_topics_and_not_only_the_url() -> None:
    world = World(KEYS)
    outside = world.connect(PHOENIX)
    assert outside.join("realtime:room", supabase_join("eve")) == [
        [
            None,
            "1",
            "realtime:room",
            "phx_reply",
            {"status": "error", "response": {"reason": "unmatched topic"}},
        ]
    ]
    assert world.take_events()[-1] == JoinRefused(outside.conn, "realtime:room", "unmatched topic")
    assert outside.join("room:open", {"user_id": "eve"})[0][4]["status"] == "ok"
    inside = world.connect(SUPABASE)
    assert inside.join("realtime:room", supabase_join("ann"))[0][4]["status"] == "ok"


def test_an_unknown_vsn_is_told_before_a_missing_key() -> None:
    refused = World(KEYS).connect("/realtime/v1/websocket?vsn=9").refused
    assert refused is not None
    assert refused.status == 403


def test_no_secret_is_in_the_events() -> None:
    world = World(KEYS)
    world.connect("/realtime/v1/websocket?vsn=2.0.0&apikey=hush")
    world.connect(SUPABASE)
    assert "hush" not in repr(world.events)
    assert "secret" not in repr(world.events)


def test_subprotocols() -> None:
    offers: list[tuple[tuple[str, ...], str | None]] = [
        (("phoenix", "chat"), None),  # as recorded in q_handshake_subproto
        (("base64url.bearer.phx.dG9rZW4",), None),
        (("phoenix", "base64url.bearer.phx.dG9rZW4"), "phoenix"),  # phoenix.js with an authToken
    ]
    for offered, chosen in offers:
        client = World().connect(subprotocols=offered)
        assert client.opened is not None
        assert client.opened.subprotocol == chosen


def test_deflate_is_an_option() -> None:
    for config, offered, agreed in ((True, True, True), (True, False, False), (False, True, False)):
        client = World(HubConfig(deflate=config)).connect(deflate=offered)
        assert client.opened is not None
        assert client.opened.deflate is agreed


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"rubbish\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"POST /socket/websocket HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /socket/websocket HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
def test_what_is_no_upgrade_gets_plain_http(request_bytes: bytes, status: int) -> None:
    world = World()
    conn = world.open()
    world.receive(conn, request_bytes)
    assert int(world.sent[conn].split()[1]) == status
    (event,) = world.take_events()
    assert isinstance(event, ClientRefused)
    assert (event.conn, event.status) == (conn, status)
    assert world.closed[conn] == CloseTransport(conn)


def test_too_many_connections_are_told_so() -> None:
    world = World(HubConfig(max_connections=2, protocol="phoenix"))
    first, second = world.connect(), world.connect()
    third = world.connect()
    assert third.refused is not None
    assert third.refused.status == 429
    assert json.loads(third.refused.body) == {"error": "Too many connected users"}
    assert world.take_events()[-1] == ClientRefused(third.conn, 429, "too many connections")
    wrong = world.connect("/nowhere")
    assert wrong.refused is not None
    assert wrong.refused.status == 404
    assert world.connect().refused is not None, "those who were refused make no room"
    first.close()
    assert world.connect().opened is not None
    second.drop()
    assert world.connect().opened is not None


def test_far_too_many_transports_are_dropped_at_once() -> None:
    world = World(HubConfig(max_connections=2))
    opened = [world.open() for _ in range(4)]
    assert world.closed == {}
    conn = world.open()
    assert world.closed == {conn: CloseTransport(conn, abort=True)}
    assert world.take_events() == [ClientRefused(conn, 429, "too many connections")]
    world.hub.transport_closed(opened[0], now=world.now)
    assert world.connect().opened is not None


def test_the_handshake_has_a_time_limit() -> None:
    world = World(HubConfig(handshake_timeout=10))
    conn = world.open()
    world.advance(6)
    world.receive(conn, b"GET /socket/websocket HTTP/1.1\r\n")
    world.advance(3.9)
    assert world.closed == {}
    world.advance(0.1)
    assert world.closed == {conn: CloseTransport(conn, abort=True)}
    assert world.take_events() == [ClientDisconnected(conn, "handshake timeout", None)]
    assert world.hub.next_deadline() is None


def test_a_transport_that_ends_in_its_handshake() -> None:
    world = World()
    conn = world.open()
    world.hub.transport_closed(conn, now=world.now, reason="reset")
    world.settle()
    assert world.take_events() == [ClientDisconnected(conn, "reset", None)]
    assert world.closed == {}
    world.receive(conn, b"GET / HTTP/1.1\r\n\r\n")
    world.hub.transport_closed(ConnId(77), now=world.now)
    world.settle()
    assert world.take_events() == []


HEADERS = (
    *("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Sec-WebSocket-Version", "Sec-WebSocket-Key"),
    *("Host", "Origin", "x-api-key", "Connection", "Upgrade", "Content-Length", "X-Other"),
)
# What a header may hold of RFC 9110 §5.5; after the beginnings that lead to code of their own.
VALUES = st.builds(
    lambda start, rest: (start + rest).strip(),
    st.sampled_from(
        [
            "",
            "phoenix, base64url.bearer.phx.",
            "permessage-deflate; client_max_window_bits=",
            "http://",
            "[::",
        ]
    ),
    st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0", exclude_categories=["Cc"])),
)
QUERIES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E))


@given(
    st.lists(st.tuples(st.sampled_from(HEADERS), VALUES), max_size=4), QUERIES, st.sampled_from([None, KEYS])
)
def test_whatever_stands_in_a_request_is_answered(
    headers: list[tuple[str, str]], query: str, config: HubConfig | None
) -> None:
    # The lines of `upgrade` but for those that are said otherwise: twice is refused before anybody looks.
    said = {name for name, _ in headers}
    lines = upgrade(f"/realtime/v1/websocket?vsn=2.0.0&apikey=secret&{query}").decode().split("\r\n")[:-2]
    lines = lines[:1] + [line for line in lines[1:] if line.partition(":")[0] not in said]
    request = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers), "", ""]).encode(
        "latin-1"
    )
    world = World(config)
    conn = world.open()
    world.receive(conn, request)
    events = world.take_events()
    if conn in world.hub.connections:
        assert isinstance(events[0], ClientConnected)
    else:
        assert conn in world.closed
        assert events
