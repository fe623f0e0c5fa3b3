"""Access tokens that the application is asked for: when, what waits for them, and what if there are none."""

from __future__ import annotations

from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jarvis_rig import JarvisRig
from presence_proto import (
    AccessTokenFailed,
    AccessTokenNeeded,
    ChannelConfig,
    ChannelDown,
    ChannelEnd,
    ChannelJoined,
    ChannelLeft,
    ChannelState,
    Connected,
    Disconnected,
    Error,
    JoinFailed,
    LocalProtocolError,
    RealtimeConfig,
    SocketConnected,
    SocketDisconnected,
)
from presence_proto.recording import Recorder, replay
from presence_rig import PresenceRig
from rig import Rig, realtime

ROOM = "realtime:room"
OTHER = "realtime:other"
NEEDED = AccessTokenNeeded()
EXPIRED = {"extension": "system", "status": "error", "message": "Token has expired", "channel": "room"}
FAST: dict[str, Any] = {
    "asks_for_token": True,
    "jitter": 0.0,
    "server_url": "ws://host.test/realtime/v1",
    "token_in": "query",  # so that each connect shows which token it has
}


def asking(**settings: Any) -> Rig:
    return realtime(**{**FAST, **settings})


def online(token: str = "t1", expires_in: float | None = None, **settings: Any) -> Rig:
    """A client that was given its first token, with a connection."""
    rig = asking(**settings)
    rig.do(rig.client.connect)
    give(rig, token, expires_in)
    rig.open()
    rig.take()
    return rig


def joined(token: str = "t1", expires_in: float | None = None, **settings: Any) -> Rig:
    """The same, in a room that it wanted from the beginning."""
    rig = asking(**settings)
    rig.do(rig.client.join, ROOM)
    rig.do(rig.client.connect)
    give(rig, token, expires_in)
    rig.open()
    rig.accept_join(ROOM, {})
    rig.take()
    return rig


def give(rig: Any, token: str | None, expires_in: float | None = None) -> None:
    rig.do(rig.client.set_access_token, token, expires_in=expires_in)


def fail(rig: Any, reason: str = "offline") -> None:
    rig.do(rig.client.access_token_failed, reason)


def url_token(rig: Any) -> str | None:
    query = parse_qs(urlsplit(rig.requests[-1].target).query)
    return query["token"][0] if "token" in query else None


def join_tokens(rig: Rig, topic: str = ROOM) -> list[Any]:
    return [join.payload.get("access_token") for join in rig.sent("phx_join", topic)]


def expire(rig: Rig, topic: str = ROOM) -> None:
    """The server finds that the token has expired."""
    join = rig.last("phx_join", topic)
    rig.say(join.join_ref, None, topic, "system", EXPIRED)
    rig.say(join.join_ref, join.ref, topic, "phx_close", {})


# ---------------------------------------------------------------------------------------------- connects


def test_before_a_connect_a_token_is_asked_for() -> None:
    rig = asking()
    rig.do(rig.client.connect)
    assert rig.take() == [NEEDED]
    assert rig.opens == []
    assert not rig.client.is_closed
    give(rig, "t1")
    assert len(rig.opens) == 1
    rig.open()
    assert rig.take() == [SocketConnected()]
    assert url_token(rig) == "t1"
    assert rig.client.next_deadline() is not None


def test_none_is_a_token_too() -> None:
    rig = online(access_token="old")
    assert url_token(rig) == "t1"
    rig.cut()
    rig.advance(1.0)
    give(rig, None)
    rig.open()
    assert url_token(rig) is None


def test_each_connect_has_a_token_of_its_own() -> None:
    rig = joined()
    rig.cut()
    rig.take()
    rig.advance(1.0)
    assert rig.take() == [NEEDED]
    give(rig, "t2")
    rig.open()
    assert url_token(rig) == "t2"
    assert join_tokens(rig) == ["t1", "t2"]
    assert rig.take() == [SocketConnected()]  # the joins that come with a connection have its token


def test_without_the_setting_nothing_is_asked() -> None:
    rig = realtime(server_url="ws://host.test/realtime/v1", access_token="t1")
    rig.connect()
    rig.join(ROOM, state={})
    give(rig, "t2", 100.0)
    fail(rig)
    rig.advance(200)
    assert not [event for event in rig.events if isinstance(event, (AccessTokenNeeded, AccessTokenFailed))]


def test_a_disconnect_while_a_token_is_asked_for() -> None:
    rig = asking()
    rig.do(rig.client.connect)
    rig.do(rig.client.disconnect)
    assert rig.take() == [NEEDED, SocketDisconnected("disconnect was called", None, None, None, False)]
    assert rig.client.is_closed
    assert rig.client.next_deadline() is None
    give(rig, "late", 1.0)
    fail(rig)
    assert (rig.take(), rig.opens, rig.client.next_deadline()) == ([], [], None)
    rig.do(rig.client.connect)
    assert rig.take() == [NEEDED]


def test_a_token_that_nobody_asked_for_does_not_end_a_backoff() -> None:
    rig = online()
    rig.cut()
    give(rig, "t2")
    assert len(rig.opens) == 1
    rig.advance(1.0)
    assert rig.events[-1] == NEEDED


@pytest.mark.parametrize("status", [401, 403])
def test_who_is_refused_is_refused_once_more_with_another_token_and_stops(status: int) -> None:
    rig = asking()
    rig.do(rig.client.connect)
    give(rig, "stale")
    rig.refuse(status)
    (refused,) = [event for event in rig.events if isinstance(event, SocketDisconnected)]
    assert (refused.retry_in, refused.fatal) == (1.0, False)
    rig.advance(1.0)
    give(rig, "fresh")
    rig.refuse(status)
    assert rig.events[-1].fatal
    assert (rig.client.is_closed, rig.client.next_deadline()) == (True, None)


def test_who_was_let_in_once_is_refused_anew() -> None:
    rig = online()
    for _ in range(2):
        rig.cut()
        rig.advance(40)
        give(rig, "stale")
        rig.refuse(401)
        assert not rig.events[-1].fatal
        rig.advance(40)
        give(rig, "fresh")
        rig.open()


# ---------------------------------------------------------------------------------------------- joins


def test_before_a_later_join_a_token_is_asked_for() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    rig.do(rig.client.join, OTHER)
    assert rig.take() == [NEEDED]  # one for both
    assert rig.sent("phx_join") == []
    give(rig, "t2")
    assert [join.topic for join in rig.sent("phx_join")] == [ROOM, OTHER]
    assert join_tokens(rig) == ["t2"]
    give(rig, "t3")
    assert len(rig.sent("phx_join")) == 2


def test_a_plain_phoenix_channel_needs_no_token() -> None:
    rig = online()
    rig.do(rig.client.join, "room:a")
    assert len(rig.sent("phx_join")) == 1
    assert rig.take() == []


def test_a_join_that_waits_for_a_token_can_be_undone_and_changed() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    rig.do(rig.client.join, OTHER)
    rig.do(rig.client.leave, ROOM)
    rig.do(rig.client.leave, OTHER)
    rig.do(rig.client.join, OTHER, {})  # a plain one, which does not wait
    give(rig, "t2")
    assert [join.topic for join in rig.sent("phx_join")] == [OTHER]
    assert rig.client.state_of(ROOM) is ChannelState.CLOSED
    assert rig.take() == [NEEDED, ChannelLeft(ROOM), ChannelLeft(OTHER)]


def test_a_join_that_waits_goes_with_the_next_connection() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    rig.cut()
    rig.advance(1.0)
    give(rig, "t2")  # it was asked for before, and is asked for once
    rig.open()
    assert join_tokens(rig) == ["t2"]
    assert rig.events.count(NEEDED) == 2


def test_an_expired_token_leads_to_one_request_and_a_rejoin() -> None:
    rig = joined()
    expire(rig)
    assert ChannelDown(ROOM, "Token has expired", 1.0, ChannelEnd.CLOSED) in rig.take()
    rig.advance(1.0)
    assert rig.take() == [NEEDED]
    give(rig, "t2", 3600.0)
    rig.accept_join(ROOM, {})
    assert join_tokens(rig) == ["t1", "t2"]
    assert rig.take()[0] == ChannelJoined(ROOM, {}, rejoined=True)
    rig.advance(100.0)
    assert rig.take() == []


@pytest.mark.parametrize("expires_in", [None, -10.0, 0.0, 0.5])
@pytest.mark.parametrize("way", ["closes", "refuses"])
def test_a_provider_of_expired_tokens_is_asked_ever_more_seldom(way: str, expires_in: float | None) -> None:
    rig = joined("expired", expires_in)
    asked_at: list[float] = []
    began = rig.now
    expire(rig)
    while rig.now < began + 600:
        deadline = rig.client.next_deadline()
        assert deadline is not None
        rig.advance(deadline - rig.now)
        for event in rig.take():
            if event != NEEDED:
                continue
            asked_at.append(rig.now - began)
            joins = len(rig.sent("phx_join"))
            give(rig, "expired", expires_in)
            if len(rig.sent("phx_join")) == joins:
                continue  # asked ahead of the expiry
            if way == "closes":
                rig.accept_join(ROOM)
                expire(rig)
            else:
                join = rig.last("phx_join")
                rig.reply(join, "error", {"reason": "InvalidJWTToken: Token has expired"})
    # 1, 2, 4, 8, 16, 30, 30, … seconds, for the joins and for what is ahead of the expiry.
    assert len(rig.sent("phx_join")) <= 26
    assert len(asked_at) <= 50
    assert rig.client.is_connected


def test_a_refused_join_is_one_of_the_channel() -> None:
    rig = joined()
    expire(rig)
    rig.advance(1.0)
    give(rig, "t2")
    rig.reply(rig.last("phx_join"), "error", {"reason": "Unauthorized"})
    assert JoinFailed(ROOM, "Unauthorized", {"reason": "Unauthorized"}, 2.0, refused=True) in rig.take()
    rig.advance(2.0)
    assert rig.take() == [NEEDED]


# ---------------------------------------------------------------------------------------------- expiry


@pytest.mark.parametrize(
    ("expires_in", "asked_after"), [(3600.0, 3540.0), (300.0, 240.0), (100, 80.0), (5.0, 4.0)]
)
def test_a_token_is_replaced_before_it_expires(expires_in: float, asked_after: float) -> None:
    rig = joined("t1", expires_in)
    rig.advance(asked_after - 0.01)
    assert rig.take() == []
    rig.advance(0.02)
    assert rig.take() == [NEEDED]
    give(rig, "t2", expires_in)
    assert [message.payload for message in rig.sent("access_token")] == [{"access_token": "t2"}]
    rig.advance(asked_after)
    assert rig.take() == [NEEDED]
    assert join_tokens(rig) == ["t1"]


def test_offline_no_token_is_replaced() -> None:
    rig = joined("t1", 10.0, reconnect_delay=20.0, max_reconnect_delay=20.0)
    rig.cut()
    rig.take()
    rig.advance(19.9)
    assert rig.take() == []


def test_a_token_of_unknown_expiry_is_not_replaced() -> None:
    rig = joined("t1", 10.0)
    give(rig, "t2")
    rig.advance(1000.0)
    assert NEEDED not in rig.take()


# ---------------------------------------------------------------------------------------------- no token


def test_while_there_is_no_token_it_is_asked_for_with_a_backoff() -> None:
    rig = asking()
    rig.do(rig.client.connect)
    rig.take()
    for delay in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        fail(rig)
        assert rig.take() == [AccessTokenFailed("no access token: offline", delay)]
        fail(rig)  # nobody has asked again
        rig.advance(delay - 0.01)
        assert rig.take() == []
        rig.advance(0.01)
        assert rig.take() == [NEEDED]
    assert rig.opens == []
    give(rig, "t1")
    rig.open()
    assert rig.take() == [SocketConnected()]


def test_an_answer_that_never_comes() -> None:
    rig = asking(access_token_timeout=5.0)
    rig.do(rig.client.connect)
    rig.take()
    rig.advance(5.0)
    assert rig.take() == [AccessTokenFailed("no access token: no answer within 5 s", 1.0)]
    rig.advance(6.0)
    assert rig.take() == [NEEDED, AccessTokenFailed("no access token: no answer within 5 s", 2.0)]
    give(rig, "late")  # also between two requests
    rig.open()
    assert url_token(rig) == "late"


def test_a_refresh_that_fails_disturbs_nothing() -> None:
    rig = joined("t1", 100.0)
    rig.advance(80.0)
    fail(rig)
    assert rig.take() == [NEEDED, AccessTokenFailed("no access token: offline", 1.0)]
    rig.advance(1.0)
    give(rig, "t2", 100.0)
    assert rig.client.state_of(ROOM) is ChannelState.JOINED
    assert rig.last("access_token").payload == {"access_token": "t2"}


def test_secrets_are_not_told() -> None:
    rig = joined("s3cret-token", api_key="s3cret-key")
    rig.do(rig.client.join, OTHER)
    fail(rig, "refused s3cret-token with s3cret-key: " + "x" * 300)
    (event,) = [event for event in rig.events if isinstance(event, AccessTokenFailed)]
    assert event.reason.startswith("no access token: refused … with …: xxx")
    assert len(event.reason) == 200


@pytest.mark.parametrize("rig", [asking(), JarvisRig(asks_for_token=True)], ids=["realtime", "jarvis"])
def test_answers_that_make_no_sense(rig: Any) -> None:
    rig.do(rig.client.connect)
    for expires_in in (float("nan"), float("inf"), "1", True):
        with pytest.raises(LocalProtocolError, match="expires_in must be a finite number"):
            give(rig, "t", expires_in)
    with pytest.raises(LocalProtocolError, match="reason must be a string, not int"):
        fail(rig, 7)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="access_token"):
        give(rig, "")
    assert rig.opens == []


# ---------------------------------------------------------------------------------------------- rooms


def test_the_presence_client_asks_and_is_answered() -> None:
    rig = PresenceRig(asks_for_token=True, jitter=0.0)
    rig.do(rig.client.connect)
    assert rig.take() == [NEEDED]
    fail(rig)
    assert rig.take() == [Disconnected("no access token: offline", 1.0)]
    rig.advance(1.0)
    give(rig, "t1", 100.0)
    rig.open()
    assert [type(event) for event in rig.let_in()] == [AccessTokenNeeded, Connected]
    assert rig.last("phx_join").payload["access_token"] == "t1"
    rig.advance(80.0)
    fail(rig)
    assert rig.take() == [NEEDED, Error("no access token: offline")]


def test_a_jarvis_room_asks_before_each_connect() -> None:
    rig = JarvisRig(asks_for_token=True, jitter=0.0, access_token_timeout=5.0)
    rig.do(rig.client.connect)
    assert rig.take() == [NEEDED]
    fail(rig)
    fail(rig)
    assert rig.take() == [Disconnected("no access token: offline", 1.0)]
    rig.advance(1.0 + 5.0)
    assert rig.take() == [NEEDED, Disconnected("no access token: no answer within 5 s", 2.0)]
    give(rig, "t1", 10.0)
    rig.open()
    rig.welcome()
    assert url_token(rig) == "t1"
    rig.advance(20.0)
    assert rig.take() == []  # the token was for the URL: its expiry does not matter any more
    give(rig, "t2")
    rig.cut()
    rig.take()
    rig.advance(1.0)
    assert rig.take() == [NEEDED]
    rig.do(rig.client.disconnect)
    give(rig, "t3")
    assert rig.client.next_deadline() is None
    assert len(rig.opens) == 1


# ---------------------------------------------------------------------------------------------- closing


def online_clients() -> list[Any]:
    """A client of each protocol that asks for tokens and is connected."""
    presence = PresenceRig(**FAST)
    presence.do(presence.client.connect)
    give(presence, "t1", 5.0)
    presence.open()
    jarvis = JarvisRig(asks_for_token=True, jitter=0.0)
    jarvis.do(jarvis.client.connect)
    give(jarvis, "t1", 5.0)
    jarvis.open()
    jarvis.welcome()
    return [joined("t1", 5.0), presence, jarvis]


@pytest.mark.parametrize("pending", ["nothing", "request", "failure", "refresh", "late answer", "join"])
@pytest.mark.parametrize("number", range(3), ids=["realtime", "presence", "jarvis"])
def test_a_client_that_closes_asks_for_no_token(number: int, pending: str) -> None:
    """Also when the server never answers the close frame: the client waits for `close_timeout` then."""
    rig = online_clients()[number]
    client = rig.client
    requests = getattr(client, "_room", client)
    requests = getattr(requests, "_realtime", requests)._connection
    if pending in ("request", "failure"):
        requests.need_token(rig.now)
    if pending == "failure":
        client.access_token_failed("offline", now=rig.now)
    client.tick(now=rig.now)
    client.drain()
    client.disconnect(now=rig.now)
    assert not client.is_closed
    if pending == "late answer":
        client.set_access_token("t2", expires_in=1.0, now=rig.now)
    if pending == "join" and number == 0:
        client.join(OTHER, now=rig.now)
    outputs = list(client.drain())
    while (deadline := client.next_deadline()) is not None:
        client.tick(now=deadline)
        outputs += client.drain()
    assert client.is_closed
    kinds = {type(output).__name__ for output in outputs}
    assert not kinds & {"AccessTokenNeeded", "AccessTokenFailed"}
    assert "OpenTransport" not in kinds
    assert {"SocketDisconnected", "Disconnected"} & kinds


@given(
    number=st.integers(0, 2),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["give", "expired", "fail", "join", "push", "poke", "tick"]), st.floats(0, 3)
        ),
        max_size=8,
    ),
)
def test_while_closing_nothing_is_asked_whatever_the_application_does(
    number: int, steps: list[tuple[str, float]]
) -> None:
    rig = online_clients()[number]
    client, now = rig.client, rig.now
    client.disconnect(now=now)
    client.drain()
    for step, seconds in steps:
        if client.is_closed:
            break
        match step:
            case "give" | "expired":
                client.set_access_token("t2", expires_in=-1.0 if step == "expired" else 2.0, now=now)
            case "fail":
                client.access_token_failed("offline", now=now)
            case "join" if number == 0:
                client.join(OTHER, now=now)
            case "push" if number == 0:
                client.push(ROOM, "hello", timeout=1.0, now=now)
            case "poke" if number:
                client.send_poke("bo", now=now)
        now += seconds
        client.tick(now=now)
        for output in client.drain():
            assert type(output).__name__ in {
                "ChannelDown",
                "CloseTransport",
                "CommandFailed",
                "Disconnected",
                "PushFailed",
                "SocketDisconnected",
            }


# ---------------------------------------------------------------------------------------------- recordings


def test_requests_and_answers_are_recorded_without_the_tokens() -> None:
    lines: list[str] = []
    config = RealtimeConfig(**FAST)
    recorder = Recorder(lines.append)
    rig = Rig(recorder.realtime_client(config, rng=Random(7)))
    rig.do(rig.client.join, ROOM)
    rig.do(rig.client.connect)
    fail(rig, "the s3cret-token has expired")
    rig.advance(1.0)
    give(rig, "s3cret-token", 100.0)
    rig.open()
    rig.accept_join(ROOM, {})
    rig.advance(80.0)
    give(rig, "s3cret-token-2")
    recorder.close()
    assert replay(lines).difference is None
    text = "".join(lines)
    assert "AccessTokenNeeded" in text
    assert "s3cret-token" not in text.replace("the s3cret-token has expired", "")  # nobody knew it then


# ---------------------------------------------------------------------------------------------- all together


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, float]]:
    steps = ["give", "give", "expired", "fail", "silence", "cut", "expire", "refuse"]
    return draw(st.lists(st.tuples(st.sampled_from(steps), st.floats(0.0, 50.0)), max_size=25))


@given(lives())
def test_through_any_life_requests_come_one_at_a_time_and_tokens_are_the_newest(
    life: list[tuple[str, float]],
) -> None:
    rig = asking(access_token_timeout=7.0)
    rig.do(rig.client.join, ROOM, ChannelConfig())
    rig.do(rig.client.connect)
    newest, is_asked = None, False

    def look() -> None:
        nonlocal is_asked
        for event in rig.take():
            if isinstance(event, AccessTokenNeeded):
                assert not is_asked
                is_asked = True
            elif isinstance(event, AccessTokenFailed):
                assert is_asked
                is_asked = False

    for number, (step, seconds) in enumerate(life):
        look()
        match step:
            case "give" | "expired":
                newest = f"t{number}"
                give(rig, newest, -1.0 if step == "expired" else 30.0 + seconds)
                is_asked = False
            case "fail":
                fail(rig)
            case "cut" if rig.conn is not None:
                rig.cut()
            case "expire" if rig.client.state_of(ROOM) is ChannelState.JOINED:
                expire(rig)
            case "refuse" if rig.conn is not None and rig.server is None:
                rig.refuse(503)
        if rig.conn is not None and rig.server is None:
            rig.open()
            assert url_token(rig) == newest
        if rig.client.state_of(ROOM) is ChannelState.JOINING:
            assert join_tokens(rig)[-1] == newest
            rig.accept_join(ROOM, {})
        rig.advance(seconds)
    # With an answer, it is always in the room soon after.
    for _ in range(3):
        rig.advance(31.0)
        give(rig, "last", 3600.0)
        if rig.conn is not None and rig.server is None:
            rig.open()
        if rig.client.state_of(ROOM) is ChannelState.JOINING:
            rig.accept_join(ROOM, {})
    assert rig.client.state_of(ROOM) is ChannelState.JOINED


@pytest.mark.parametrize("number", range(3), ids=["realtime", "presence", "jarvis"])
def test_a_refused_command_does_not_even_move_the_clock(number: int) -> None:
    rig = online_clients()[number]
    client = rig.client
    client.drain()
    deadline = client.next_deadline()
    assert deadline is not None
    with pytest.raises(LocalProtocolError):
        client.access_token_failed(b"no text", now=rig.now + 1e6)
    with pytest.raises(LocalProtocolError):
        client.set_access_token("t", expires_in=float("nan"), now=rig.now + 1e6)
    client.tick(now=rig.now)
    assert not client.drain()
    assert client.next_deadline() == deadline
