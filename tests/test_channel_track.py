"""Being tracked in a channel: the messages, the budget, and what comes back after a loss.

Driven through `RealtimeClient`.
"""

from __future__ import annotations

from typing import Any

import pytest

from presence_proto.config import ChannelConfig
from presence_proto.errors import LocalProtocolError
from presence_proto.events import ChannelDown, ChannelEnd, SystemMessage, TrackFailed
from rig import Rig, online, realtime

ROOM = "realtime:room"
PLAIN = "room:a"
both = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
UNTRACK = {"type": "presence", "event": "untrack"}


def tracked(payload: Any) -> dict[str, Any]:
    return {"type": "presence", "event": "track", "payload": payload}


def joined(topic: str = ROOM, *, vsn: str = "2.0.0", **channel: Any) -> Rig:
    rig = online(vsn=vsn)
    rig.join(topic, ChannelConfig(**channel) if topic == ROOM else None, state={})
    rig.take()
    return rig


def track(rig: Rig, payload: Any, topic: str = ROOM) -> None:
    rig.do(rig.client.track, topic, payload)
    if rig.sent("presence") and rig.sent("presence")[-1].payload == tracked(payload):
        rig.reply(rig.last("presence"))


def said(rig: Rig) -> list[Any]:
    return [message.payload for message in rig.sent("presence")]


@both
def test_tracking_and_untracking_speak_supabase(vsn: str) -> None:
    rig = joined(vsn=vsn)
    track(rig, {"status": "online"})
    track(rig, {"status": "away"})
    rig.do(rig.client.untrack, ROOM)
    rig.reply(rig.last("presence"))
    assert said(rig) == [tracked({"status": "online"}), tracked({"status": "away"}), UNTRACK]
    rig.advance(100.0)
    assert rig.take() == [], "an ok is nothing to tell"


def test_plain_phoenix_is_tracked_by_events_of_our_own_without_a_budget() -> None:
    rig = joined(PLAIN)
    for n in range(20):
        rig.do(rig.client.track, PLAIN, {"n": n})
    rig.do(rig.client.untrack, PLAIN)
    assert [message.payload for message in rig.sent("track")] == [{"n": n} for n in range(20)]
    assert rig.last("untrack").payload == {}


def test_a_payload_equal_to_the_last_one_sent_is_not_sent() -> None:
    rig = joined()
    for _ in range(10):
        track(rig, {"status": "online"})
    assert said(rig) == [tracked({"status": "online"})]


def test_untracking_before_tracking_says_nothing() -> None:
    rig = joined()
    rig.do(rig.client.untrack, ROOM)
    assert said(rig) == []


def test_more_calls_than_the_budget_wait_and_the_latest_wins() -> None:
    rig = joined()
    for n in range(5):
        track(rig, {"n": n})
        rig.advance(1.0)
    for n in range(5, 50):
        track(rig, {"n": n})
    assert len(said(rig)) == 5
    rig.advance(27.9)
    assert len(said(rig)) == 5
    rig.advance(0.1)  # 33 seconds after the first: the server's 30, and 3 for delays on the way
    assert said(rig)[5:] == [tracked({"n": 49})]
    rig.reply(rig.last("presence"))
    rig.advance(300.0)
    assert len(said(rig)) == 6
    assert rig.take() == []


def test_a_wish_that_is_taken_back_while_it_waits_is_never_sent() -> None:
    rig = joined(track_limit=1, track_window=20.0)
    track(rig, {"n": 0})
    deadline = rig.client.next_deadline()
    track(rig, {"n": 1})
    track(rig, {"n": 0})
    rig.advance(6.0)
    assert rig.client.next_deadline() > deadline + 15.0, "nothing waits for the end of the window"
    rig.advance(100.0)
    assert said(rig) == [tracked({"n": 0})]


def test_the_budget_is_configurable_and_can_be_off() -> None:
    rig = joined(track_limit=2, track_window=5.0)
    for n in range(4):
        track(rig, {"n": n})
    assert len(said(rig)) == 2
    rig.advance(5.0)
    assert said(rig)[2:] == [tracked({"n": 3})]
    rig = joined(track_limit=None)
    for n in range(20):
        track(rig, {"n": n})
    assert len(said(rig)) == 20


def test_tracking_before_the_join_is_said_when_joined_once_and_as_of_last() -> None:
    rig = realtime()
    rig.do(rig.client.join, ROOM)
    for n in range(10):
        rig.do(rig.client.track, ROOM, {"n": n})
    rig.connect()
    assert said(rig) == []
    rig.accept_join(ROOM)
    assert said(rig) == [tracked({"n": 9})]
    assert rig.last("presence").join_ref == rig.last("phx_join").ref


def test_the_track_goes_out_before_the_pushes_that_waited() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    rig.do(rig.client.push, ROOM, "ask")
    rig.do(rig.client.track, ROOM, {})
    rig.accept_join(ROOM)
    assert [message.event for message in rig.sent()] == ["phx_join", "presence", "ask"]


@pytest.mark.parametrize("how", ["crash", "loss", "disconnect"])
def test_after_a_rejoin_the_current_payload_is_tracked_again_in_a_fresh_budget(how: str) -> None:
    rig = joined(track_limit=1)
    track(rig, {"n": 0})
    track(rig, {"n": 1})
    if how == "crash":
        rig.say("1", "1", ROOM, "phx_error", {})
        rig.advance(1.0)
    elif how == "loss":
        rig.cut()
        rig.advance(1.0)
        rig.open()
    else:
        rig.do(rig.client.disconnect)
        rig.connect()
    track(rig, {"n": 2})
    assert len(said(rig)) == 1
    rig.accept_join(ROOM, {})
    assert said(rig)[1:] == [tracked({"n": 2})]


def test_after_untracking_nothing_is_tracked_again() -> None:
    rig = joined()
    track(rig, {"n": 0})
    rig.do(rig.client.untrack, ROOM)
    rig.say("1", "1", ROOM, "phx_error", {})
    rig.advance(1.0)
    rig.accept_join(ROOM)
    assert len(said(rig)) == 2


def test_untracking_without_a_connection_is_kept_for_the_rejoin() -> None:
    rig = joined()
    track(rig, {"n": 0})
    rig.cut()
    rig.do(rig.client.untrack, ROOM)
    rig.advance(1.0)
    rig.open()
    rig.accept_join(ROOM, {})
    assert said(rig) == [tracked({"n": 0})]


def test_leaving_and_joining_again_tracks_nothing() -> None:
    rig = joined()
    track(rig, {"n": 0})
    rig.do(rig.client.leave, ROOM)
    rig.do(rig.client.join, ROOM)
    rig.accept_join(ROOM)
    assert len(said(rig)) == 1


@pytest.mark.parametrize("status", ["error", "timeout"])
def test_a_track_that_the_server_refuses_is_told(status: str) -> None:
    rig = joined()
    rig.do(rig.client.track, ROOM, {"n": 0})
    rig.reply(rig.last("presence"), status, {"reason": "unauthorized"})
    assert rig.take() == [TrackFailed(ROOM, "unauthorized", {"reason": "unauthorized"})]
    track(rig, {"n": 0})
    assert len(said(rig)) == 1, "it is tracked again at the next join"
    rig.say("1", "1", ROOM, "phx_error", {})
    rig.advance(1.0)
    rig.accept_join(ROOM)
    assert len(said(rig)) == 2


def test_a_track_without_an_answer_is_told() -> None:
    rig = joined()
    rig.do(rig.client.track, ROOM, {"n": 0})
    rig.advance(10.0)
    assert rig.take() == [TrackFailed(ROOM, "no reply in time")]


def test_a_track_that_is_lost_with_the_connection_is_made_again_and_not_told() -> None:
    rig = joined()
    rig.do(rig.client.track, ROOM, {"n": 0})
    rig.cut()
    rig.advance(1.0)
    rig.open()
    rig.accept_join(ROOM, {})
    rig.reply(rig.last("presence"))
    rig.advance(60.0)
    assert not [event for event in rig.take() if isinstance(event, TrackFailed)]
    assert said(rig) == [tracked({"n": 0})] * 2


@pytest.mark.parametrize("event", ["phx_error", "phx_close"])
@pytest.mark.parametrize("answered", [True, False])
def test_a_track_whose_channel_ended_is_made_again_and_not_told(event: str, answered: bool) -> None:
    rig = joined()
    rig.do(rig.client.track, ROOM, {"n": 0})
    rig.say("1", "1", ROOM, event, {})
    if answered:
        rig.reply(rig.last("presence"), "error", {"reason": "unmatched topic"})
    rig.advance(1.0)
    rig.accept_join(ROOM, {})
    rig.reply(rig.last("presence"))
    rig.advance(60.0)
    assert not [event for event in rig.take() if isinstance(event, TrackFailed)]
    assert said(rig) == [tracked({"n": 0})] * 2


def test_a_track_in_a_channel_that_the_server_has_forgotten_is_made_again_and_not_told() -> None:
    rig = joined()
    rig.do(rig.client.track, ROOM, {"n": 0})
    rig.reply(rig.last("presence"), "error", {"reason": "unmatched topic"})
    [down] = rig.take()
    assert (down.end, down.retry_in) == (ChannelEnd.FORGOTTEN, 1.0)
    rig.advance(1.0)
    rig.accept_join(ROOM, {})
    assert said(rig) == [tracked({"n": 0})] * 2


def test_a_track_in_a_channel_that_is_left_is_not_told() -> None:
    rig = joined()
    rig.do(rig.client.track, ROOM, {"n": 0})
    rig.do(rig.client.leave, ROOM)
    rig.reply(rig.last("phx_leave"))
    rig.advance(60.0)
    assert not [event for event in rig.take() if isinstance(event, TrackFailed)]


@pytest.mark.parametrize(
    ("response", "reason"),
    [({}, "the server said error"), ("too large", "too large"), ({"message": "no"}, "no")],
)
def test_the_reason_of_a_refused_track_is_the_servers(response: Any, reason: str) -> None:
    rig = joined()
    rig.do(rig.client.track, ROOM, {"n": 0})
    asked = rig.last("presence")
    payload = {"status": "error", "response": response}
    rig.say(asked.join_ref, asked.ref, ROOM, "phx_reply", payload)
    assert rig.take() == [TrackFailed(ROOM, reason, response)]


def test_a_channel_that_the_server_closed_over_its_rate_limit_comes_back_tracked() -> None:
    rig = joined(track_limit=None)
    for n in range(6):
        track(rig, {"n": n})
    error = {"status": "error", "message": "Client presence rate limit exceeded"}
    rig.say(None, None, ROOM, "system", error)
    rig.say("1", "1", ROOM, "phx_close", {})
    assert rig.take() == [
        SystemMessage(ROOM, "", "error", "Client presence rate limit exceeded", error),
        ChannelDown(ROOM, "Client presence rate limit exceeded", 1.0, ChannelEnd.CLOSED),
    ]
    rig.advance(1.0)
    rig.accept_join(ROOM, {})
    assert said(rig)[6:] == [tracked({"n": 5})]


@pytest.mark.parametrize(
    "payload", [None, [], "online", b"{}", {"a": b"bytes"}, {1: "a"}, {"a": float("nan")}]
)
def test_a_payload_that_is_no_json_object_is_refused_and_changes_nothing(payload: Any) -> None:
    rig = joined()
    with pytest.raises(LocalProtocolError, match=r"the payload must be a mapping|not JSON"):
        rig.do(rig.client.track, ROOM, payload)
    assert said(rig) == []


def test_the_payload_is_frozen_when_it_is_given() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    payload = {"list": [1]}
    rig.do(rig.client.track, ROOM, payload)
    payload["list"].append(2)
    rig.accept_join(ROOM)
    assert said(rig) == [tracked({"list": [1]})]
