"""Why joins are refused: the server's words, whether they are to stay, and when to stop asking."""

from __future__ import annotations

from typing import Any

import pytest

from presence_proto.channel import ChannelState
from presence_proto.config import ChannelConfig, RealtimeConfig
from presence_proto.endpoint import AccessTokenNeeded
from presence_proto.errors import ConfigError
from presence_proto.events import (
    ChannelDown,
    ChannelEnd,
    ChannelJoined,
    ChannelLeft,
    JoinFailed,
    PushFailed,
    PushReplied,
)
from presence_proto.join_refusals import Verdict, verdict, words_of
from rig import Rig, online, realtime

ROOM, PLAIN = "realtime:room", "room:lobby"


def joining(topic: str = ROOM, **settings: Any) -> Rig:
    rig = online(**settings)
    rig.do(rig.client.join, topic)
    return rig


def refuse(rig: Rig, reason: str, topic: str | None = None) -> JoinFailed:
    rig.reply(rig.last("phx_join", topic), "error", {"reason": reason})
    [failed] = rig.take()
    assert isinstance(failed, JoinFailed)
    assert (failed.reason, failed.response, failed.refused) == (reason, {"reason": reason}, True)
    return failed


def refuse_all(rig: Rig, reason: str, times: int) -> list[tuple[float | None, bool]]:
    """Refuse so many joins; returns when each of them is tried again, and whether it is not."""
    told = []
    for _ in range(times):
        failed = refuse(rig, reason)
        told.append((failed.retry_in, failed.final))
        if failed.retry_in is not None:
            rig.advance(failed.retry_in)
    return told


# ------------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (None, None),
        ({}, None),
        ([], None),
        ("", None),
        (7, None),
        (True, None),
        ({"reason": ""}, None),
        ({"reason": 7}, None),
        ("no", "no"),
        ({"reason": "no"}, "no"),
        ({"message": "no"}, "no"),
        ({"error": "no"}, "no"),
        ({"msg": "no"}, "no"),
        ({"detail": "no"}, "no"),
        ({"code": "E7", "reason": "no"}, "no"),
        ({"error": "unauthorized", "message": "You are not a member"}, "You are not a member"),
        ({"reason": {"code": 7}, "error": "no"}, "no"),
        ({"error": {"code": 7, "message": "no"}}, "no"),
        ({"errors": [{"detail": "no"}]}, "no"),
        (["no", "yes"], "no"),
        ({"a": {"b": {"c": "no"}}}, "no"),
        ({"a": {"b": {"c": {"d": "no"}}}}, None),
    ],
)
def test_the_words_of_a_server_are_found_in_whatever_field(response: Any, words: str | None) -> None:
    assert words_of(response) == words


def test_a_very_deep_response_has_no_words() -> None:
    deep: Any = "no"
    for _ in range(100_000):
        deep = [deep]
    assert words_of(deep) is None


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("RealtimeRestarting: Realtime is restarting, please standby", Verdict.PASSING),
        ("InitializingProjectConnection: Connecting to the project database", Verdict.PASSING),
        ("DatabaseLackOfConnections: Database can't accept more connections", Verdict.PASSING),
        ("TimeoutOnRpcCall: Node request timeout", Verdict.PASSING),
        ("ClientJoinRateLimitReached: Too many joins per second", Verdict.PASSING),
        ("join crashed", Verdict.PASSING),
        ("Unauthorized: You do not have permissions to read from this Channel topic: a", Verdict.FINAL),
        ("InvalidJWTToken: Token has expired 3 seconds ago", Verdict.FINAL),
        ("ChannelRateLimitReached: Too many channels", Verdict.FINAL),
        ("unmatched topic", Verdict.FINAL),
        ("unauthorized", Verdict.FINAL),
        ("join crashed again", Verdict.UNKNOWN),
        ("RealtimeRestartingSoon", Verdict.UNKNOWN),
        ("Unknown Error on Channel", Verdict.UNKNOWN),
        ("the room is full", Verdict.UNKNOWN),
    ],
)
def test_what_a_reason_says_about_the_next_join(reason: str, expected: Verdict) -> None:
    assert verdict(reason) is expected


# ------------------------------------------------------------------------------------ when to stop asking


def test_a_channel_stops_asking_after_so_many_final_refusals_in_a_row() -> None:
    rig = joining(PLAIN, max_final_refusals=3)
    assert refuse_all(rig, "unauthorized", 3) == [(1.0, False), (2.0, False), (None, True)]
    rig.advance(1000.0)
    assert rig.take() == []
    assert rig.client.state_of(PLAIN) is ChannelState.WAITING
    assert len(rig.sent("phx_join")) == 3


def test_the_default_is_five() -> None:
    rig = joining(PLAIN)
    delays: list[tuple[float | None, bool]] = [(1, False), (2, False), (4, False), (8, False), (None, True)]
    assert refuse_all(rig, "unmatched topic", 5) == delays


def test_a_channel_may_never_stop_asking() -> None:
    rig = joining(PLAIN, max_final_refusals=None)
    assert refuse_all(rig, "unauthorized", 20)[-1] == (30.0, False)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3"])
def test_the_limit_is_a_number_or_none(limit: Any) -> None:
    with pytest.raises(ConfigError, match="max_final_refusals"):
        RealtimeConfig(server_url="ws://host.test", max_final_refusals=limit)


@pytest.mark.parametrize("reason", ["RealtimeRestarting: …", "the room is full"])
def test_other_refusals_do_not_count_and_start_the_count_anew(reason: str) -> None:
    rig = joining(PLAIN, max_final_refusals=2)
    assert all(not final for _, final in refuse_all(rig, reason, 4))
    assert [final for _, final in refuse_all(rig, "unauthorized", 1)] == [False]
    assert [final for _, final in refuse_all(rig, reason, 1)] == [False]
    assert [final for _, final in refuse_all(rig, "unauthorized", 2)] == [False, True]


def test_a_join_that_is_accepted_starts_the_count_anew() -> None:
    rig = joining(PLAIN, max_final_refusals=2)
    refuse_all(rig, "unauthorized", 1)
    join = rig.accept_join()
    rig.say(join.ref, join.ref, PLAIN, "phx_error", {})
    rig.advance(2.0)
    rig.take()
    assert [final for _, final in refuse_all(rig, "unauthorized", 2)] == [False, True]


def test_only_what_will_pass_is_passing() -> None:
    rig = joining(PLAIN)
    told = []
    for reason in ("unauthorized", "the room is full", "join crashed"):
        failed = refuse(rig, reason)
        told.append(failed.passing)
        rig.advance(failed.retry_in)
    assert told == [False, False, True]


# ------------------------------------------------------------------------------------ what makes it ask again


def parked(topic: str = ROOM, **settings: Any) -> Rig:
    rig = joining(topic, max_final_refusals=1, **settings)
    assert refuse(rig, "Unauthorized: no").final
    return rig


def test_a_new_access_token_makes_it_ask_again_at_once() -> None:
    rig = parked(access_token="old")
    rig.do(rig.client.set_access_token, "old")
    assert len(rig.sent("phx_join")) == 1
    rig.do(rig.client.set_access_token, "new")
    assert rig.last().payload["access_token"] == "new"
    assert refuse(rig, "Unauthorized: no").final


def test_no_access_token_is_another_one_too() -> None:
    rig = parked(access_token="old")
    rig.do(rig.client.set_access_token, None)
    assert "access_token" not in rig.last("phx_join").payload
    assert len(rig.sent("phx_join")) == 2


def test_a_plain_channel_has_no_token_to_try() -> None:
    rig = parked(PLAIN, access_token="old")
    rig.do(rig.client.set_access_token, "new")
    assert len(rig.sent("phx_join")) == 1


@pytest.mark.parametrize("topic", [ROOM, PLAIN])
def test_another_join_makes_it_ask_again(topic: str) -> None:
    rig = parked(topic)
    rig.do(rig.client.join, topic)
    assert len(rig.sent("phx_join")) == 2
    rig.accept_join()
    assert rig.take() == [ChannelJoined(topic, {}, rejoined=False)]
    rig.do(rig.client.join, topic)
    assert len(rig.sent("phx_join")) == 2


def test_the_next_connect_makes_it_ask_again_once() -> None:
    rig = joining(PLAIN, max_final_refusals=3)
    refuse_all(rig, "unauthorized", 3)
    rig.cut()
    rig.do(rig.client.join, PLAIN)
    rig.advance(1.0)
    rig.open()
    rig.take()
    assert refuse(rig, "unauthorized").retry_in is not None, "`join` was called"
    rig.cut()
    rig.advance(2.0)
    rig.open()
    rig.take()
    assert len(rig.sent("phx_join")) == 5


def test_after_the_next_connect_one_refusal_is_enough() -> None:
    rig = joining(PLAIN, max_final_refusals=3)
    refuse_all(rig, "unauthorized", 3)
    rig.cut()
    rig.advance(1.0)
    rig.open()
    rig.take()
    assert refuse(rig, "unauthorized").final


def test_a_channel_that_has_stopped_asking_can_be_left() -> None:
    rig = parked()
    rig.do(rig.client.leave, ROOM)
    assert rig.take() == [ChannelLeft(ROOM)]


# ------------------------------------------------------------------------------------ tokens


def test_a_new_token_does_not_wait_for_the_delay_after_a_refusal() -> None:
    rig = joining(access_token="old")
    refuse_all(rig, "InvalidJWTToken: Token has expired", 3)
    assert refuse(rig, "InvalidJWTToken: Token has expired").retry_in == 8.0
    rig.advance(1.0)
    rig.do(rig.client.set_access_token, "new")
    assert rig.last().payload["access_token"] == "new"
    rig.accept_join(state={})
    rig.take()
    rig.advance(20.0)
    assert len(rig.sent("phx_join")) == 5


def test_a_channel_that_waits_for_another_reason_waits_on() -> None:
    rig = joining(access_token="old")
    join = rig.accept_join()
    rig.say(join.ref, join.ref, ROOM, "phx_error", {})
    rig.do(rig.client.set_access_token, "new")
    assert len(rig.sent("phx_join")) == 1


def test_a_token_that_was_replaced_while_the_join_was_under_way_is_no_reason() -> None:
    rig = joining(access_token="old", max_final_refusals=1)
    rig.do(rig.client.set_access_token, "new")
    failed = refuse(rig, "InvalidJWTToken: Token has expired")
    assert (failed.retry_in, failed.passing, failed.final) == (0.0, True, False)
    rig.advance(0.0)
    assert [join.payload["access_token"] for join in rig.sent("phx_join")] == ["old", "new"]
    assert refuse(rig, "InvalidJWTToken: Token has expired").final


def test_offline_a_new_token_waits_for_the_connection() -> None:
    rig = joining(access_token="old")
    refuse(rig, "InvalidJWTToken: Token has expired")
    rig.cut()
    rig.do(rig.client.set_access_token, "new")
    rig.advance(1.0)
    rig.open()
    assert [join.payload["access_token"] for join in rig.sent("phx_join")] == ["old", "new"]


def test_a_new_token_while_joining_after_a_refusal_changes_nothing_now() -> None:
    rig = joining(access_token="old")
    refuse(rig, "InvalidJWTToken: Token has expired")
    rig.advance(1.0)
    rig.do(rig.client.set_access_token, "new")
    assert len(rig.sent("phx_join")) == 2


def asking() -> Rig:
    """A client that has asked for a token, and joins with one."""
    rig = realtime(asks_for_token=True, max_final_refusals=1)
    rig.do(rig.client.connect)
    rig.do(rig.client.set_access_token, "t0")
    rig.open()
    rig.do(rig.client.join, ROOM)
    rig.do(rig.client.set_access_token, "t1")
    rig.take()
    return rig


def told(rig: Rig, reason: str) -> tuple[bool, bool]:
    rig.reply(rig.last("phx_join"), "error", {"reason": reason})
    [failed] = [event for event in rig.take() if isinstance(event, JoinFailed)]
    return failed.passing, failed.final


def test_a_token_from_a_provider_that_is_refused_is_tried_once_more_with_a_fresh_one() -> None:
    rig = asking()
    assert told(rig, "InvalidJWTToken: Token has expired") == (True, False)
    rig.advance(1.0)
    rig.do(rig.client.set_access_token, "t2")
    assert rig.last().payload["access_token"] == "t2"
    assert told(rig, "InvalidJWTToken: Token has expired") == (False, False)
    rig.advance(2.0)
    rig.do(rig.client.set_access_token, "t3")
    rig.accept_join(ROOM)
    join = rig.last("phx_join")
    rig.say(join.ref, join.ref, ROOM, "phx_error", {})
    rig.advance(4.0)
    rig.do(rig.client.set_access_token, "t4")
    assert told(rig, "the token is too old") == (True, False), "once more after each success"


def test_what_is_not_about_the_token_is_judged_as_ever() -> None:
    rig = asking()
    assert told(rig, "Unauthorized: no") == (False, True)


def test_another_join_of_a_channel_that_has_stopped_asking_has_a_fresh_token() -> None:
    rig = asking()
    assert told(rig, "Unauthorized: no") == (False, True)
    rig.do(rig.client.join, ROOM)
    assert rig.take() == [AccessTokenNeeded()]
    rig.do(rig.client.set_access_token, "t2")
    assert [join.payload["access_token"] for join in rig.sent("phx_join")] == ["t1", "t2"]


def test_without_a_provider_a_bad_token_is_final() -> None:
    rig = joining(access_token="old", max_final_refusals=1)
    assert refuse(rig, "InvalidJWTToken: Token has expired").final


# ------------------------------------------------------------------------------------ thrown out


def closed(rig: Rig, event: str = "phx_close") -> None:
    join = rig.last("phx_join")
    rig.say(join.ref, join.ref, join.topic, event, {"reason": "banned"})


def test_the_client_can_stay_away_when_the_server_closes_a_channel() -> None:
    rig = online(rejoin_after_close=False)
    rig.join(PLAIN)
    push_id = rig.do(rig.client.push, PLAIN, "ask")
    asked = rig.last()
    rig.take()
    closed(rig)
    assert rig.take() == [ChannelDown(PLAIN, "banned", None, ChannelEnd.CLOSED), ChannelLeft(PLAIN)]
    assert rig.client.channels == ()
    rig.reply(asked)
    assert rig.take() == [PushReplied(push_id, PLAIN, "ok", {})]
    rig.advance(100.0)
    rig.cut()
    rig.advance(1.0)
    rig.open()
    assert len(rig.sent("phx_join")) == 1
    rig.join(PLAIN)
    assert len(rig.sent("phx_join")) == 2


def test_it_comes_back_from_a_crash_and_a_lost_connection_all_the_same() -> None:
    rig = online(rejoin_after_close=False)
    rig.join(PLAIN)
    rig.take()
    closed(rig, "phx_error")
    assert rig.take() == [ChannelDown(PLAIN, "banned", 1.0, ChannelEnd.CRASHED)]
    rig.advance(1.0)
    rig.accept_join()
    rig.cut()
    rig.advance(2.0)
    rig.open()
    assert len(rig.sent("phx_join")) == 3


def test_a_join_that_is_answered_by_a_close_is_not_tried_again_either() -> None:
    rig = joining(PLAIN, rejoin_after_close=False)
    closed(rig)
    assert rig.take() == [JoinFailed(PLAIN, "banned", None, None, refused=True, final=True)]
    rig.advance(100.0)
    assert len(rig.sent("phx_join")) == 1


# ------------------------------------------------------------------------------------ pushes


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
def test_a_push_fails_when_its_channel_crashes(vsn: str) -> None:
    rig = online(vsn=vsn)
    rig.join(PLAIN)
    rig.join("room:other")
    push_id = rig.do(rig.client.push, PLAIN, "ask")
    other = rig.do(rig.client.push, "room:other", "ask")
    asked = rig.last("ask", PLAIN)
    rig.take()
    join = rig.last("phx_join", PLAIN)
    rig.say(join.ref, join.ref, PLAIN, "phx_error", {})
    assert rig.take() == [
        PushFailed(push_id, PLAIN, "the channel crashed before the reply"),
        ChannelDown(PLAIN, "the channel crashed", 1.0, ChannelEnd.CRASHED),
    ]
    rig.reply(asked)
    rig.reply(rig.last("ask", "room:other"))
    assert rig.take() == [PushReplied(other, "room:other", "ok", {})]


def test_a_push_waits_for_its_reply_when_its_channel_was_closed_in_order() -> None:
    rig = online()
    rig.join(PLAIN)
    push_id = rig.do(rig.client.push, PLAIN, "ask")
    asked = rig.last()
    closed(rig)
    rig.take()
    rig.reply(asked)
    assert rig.take() == [PushReplied(push_id, PLAIN, "ok", {})]


def test_a_push_says_with_which_code_the_connection_ended() -> None:
    rig = online()
    rig.join(PLAIN)
    rig.do(rig.client.push, PLAIN, "ask", {"text": "x" * 1000})
    rig.take()
    rig.close(1009, "message too big")
    [failed] = [event for event in rig.take() if isinstance(event, PushFailed)]
    assert failed.reason == (
        "the connection ended before the reply: the server closed the connection with code 1009: "
        "message too big"
    )


def test_supabase_params_are_compared_as_they_were_given() -> None:
    rig = parked()
    rig.do(rig.client.join, ROOM, ChannelConfig())
    assert len(rig.sent("phx_join")) == 2
