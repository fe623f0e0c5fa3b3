"""Server scripts: whatever a server does, the clients keep their word; and scripts read and shrink well."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from presence_proto import (
    ChannelConfig,
    Disconnected,
    Identity,
    PresenceClient,
    PresenceConfig,
    PresenceMap,
    RealtimeClient,
    RealtimeConfig,
    UserOffline,
)
from presence_proto.testing import ContractError, ModelServer, play
from presence_proto.testing import server_script as steps
from presence_proto.testing.server_script import (
    Call,
    Connect,
    Crash,
    Cut,
    Die,
    Echo,
    Refuse,
    RepeatDiff,
    Restart,
    Retrack,
    Say,
    SendBinary,
    SendBroadcast,
    SendBytes,
    SendClose,
    SendReply,
    SendText,
    Serve,
    ServeOne,
    Sleep,
    Stall,
    Together,
    Track,
    Untrack,
    Wait,
)
from presence_proto.testing.strategies.server_scripts import server_scripts

ROOM = "realtime:jarvis-presence"
vsns = st.sampled_from(["1.0.0", "2.0.0"])
kinds = st.sampled_from(["well-behaved", "slow", "buggy", "hostile"])


def realtime(vsn: Any = "2.0.0") -> RealtimeClient:
    """A client that wants two channels."""
    client = RealtimeClient(RealtimeConfig(server_url="ws://host.test", vsn=vsn), rng=Random(1))
    client.join("realtime:a", ChannelConfig(presence_key="me", broadcast_ack=True), now=1000.0)
    client.track("realtime:a", {"n": 1}, now=1000.0)
    client.join("room:b", {"user_id": "me"}, now=1000.0)
    return client


def presence(vsn: Any = "2.0.0") -> PresenceClient:
    config = PresenceConfig(server_url="ws://host.test", vsn=vsn)
    return PresenceClient(Identity("me", "Me"), config, rng=Random(1))


# ---------------------------------------------------------------------------------------------- any server


@given(kinds.flatmap(server_scripts), vsns)
def test_a_realtime_client_keeps_its_word_whatever_the_server_does(script: Any, vsn: str) -> None:
    play(script, realtime(vsn))


@given(kinds.flatmap(server_scripts), vsns)
def test_so_does_a_presence_client(script: Any, vsn: str) -> None:
    play(script, presence(vsn))


@given(st.sampled_from(["well-behaved", "slow"]).flatmap(server_scripts), vsns)
def test_of_a_good_server_a_client_holds_what_it_must(script: Any, vsn: str) -> None:
    def check(server: ModelServer) -> None:
        for topic in server.client.channels:
            held = {key: set(map(str, metas)) for key, metas in server.client.presence(topic).items()}
            must = {key: set(map(str, metas)) for key, metas in server.expected(topic).items()}
            assert held == must

    play(script, realtime(vsn), after_step=check)


# ---------------------------------------------------------------------------------------------- the steps


def test_a_heartbeat_behind_a_join_waits_for_it() -> None:
    """As on Phoenix. So a server that does not answer a join loses the client, which does not join twice."""
    server = play([Stall(), Crash(), Wait(31.0)], realtime())
    assert "SocketDisconnected" in names(server)
    assert len(server.sent("phx_join", "realtime:a")) == 2
    server = play([Stall(), Crash(), Wait(25.0), Serve(), Wait(60.0)], realtime())
    assert "SocketDisconnected" not in names(server)
    assert server.has_joined("realtime:a")


def names(server: ModelServer) -> list[str]:
    return [type(event).__name__ for event in server.take()]


def test_who_comes_and_goes() -> None:
    told: list[Any] = []
    script = [Track("ann"), Track("ann"), Retrack(1, {"status": "away"}), Untrack(0), Untrack(1), Untrack(2)]
    server = play(script, presence(), after_step=lambda server: told.append(names(server)))
    gone = [[], ["UserOffline"], []]
    assert told == [["Connected"], ["UserOnline"], [], ["ActivityChanged"], *gone]
    assert server.client.online_count == 1
    assert server.online(ROOM).keys() == {"me"}


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize(
    ("merged", "diffs"), [(True, [["ann", "cy"]]), (False, [["ann"], ["bob"], ["ann"], ["bob"], ["cy"]])]
)
def test_what_happens_together_is_told_in_one_diff_or_one_read(
    merged: bool, diffs: list[list[str]], chunk: int | None
) -> None:
    changes = (Track("ann"), Track("bob"), Retrack(0, {"n": 1}), Untrack(1), Track("cy"))
    server = play([Together(changes, merged)], realtime(), chunk=chunk)
    told = [[change.key for change in event.changes] for event in server.take() if hasattr(event, "changes")]
    assert told[-len(diffs) :] == diffs
    assert server.fold.presence["realtime:a"].keys() == {"me", "ann", "cy"}


def test_changes_that_cancel_each_other_are_no_diff() -> None:
    server = play([Together((Track("ann"), Untrack(0)))], presence(), deflate=True)
    assert names(server) == ["Connected"]
    dead = play([Die(), Together((Track("ann"),), merged=False)], presence())
    assert names(dead) == ["Connected"]


@pytest.mark.parametrize("restart", [[Restart()], [Cut(), Restart()]])
def test_a_server_that_restarts_knows_nobody(restart: list[Any]) -> None:
    script = [Track("ann"), *restart, Untrack(0), Retrack(0, {"n": 1}), RepeatDiff(), Wait(1.0)]
    server = play(script, presence())
    assert server.online(ROOM).keys() == {"me"}
    assert server.client.is_user_stale("ann"), "a new server may not have met her yet"
    assert play([*script, Wait(50.0)], presence()).client.online_count == 1


def test_the_application_calls() -> None:
    poke = Call("send_poke", ("ann",))
    server = play([poke, Call("disconnect"), poke, Call("connect")], presence())
    assert [call.method for call, _ in server.calls] == ["send_poke", "disconnect", "connect"]
    assert len(server.sent("broadcast")) == 1
    server = play([Call("push", ("room:b", "ask", {}), {"timeout": 5.0})], realtime())
    [(_, push_id)] = server.calls
    assert server.fold.outcomes.keys() == {push_id}


def test_what_somebody_says() -> None:
    poke = {"user_id": "ann", "display_name": "Ann", "target_user_id": "me"}
    for vsn in ("1.0.0", "2.0.0"):
        assert names(play([SendBroadcast("poke", poke)], presence(vsn)))[-1] == "Poked"
        assert names(play([Crash(), SendBroadcast("poke", poke)], presence(vsn)))[-1] == "Disconnected"


def test_a_lost_connection_comes_back_and_ghosts_can_go() -> None:
    server = play([Track("ann"), Cut(noticed=False), Untrack(0), Wait(1.0)], presence())
    assert names(server)[-3:] == ["Disconnected", "Connected", "UserOffline"]
    assert len(server.online(ROOM)["me"]) == 2
    ghostly = [Cut(noticed=False), Wait(1.0), Untrack(0)]
    assert len(play(ghostly, presence()).online(ROOM)["me"]) == 1


@pytest.mark.parametrize(
    ("trouble", "wait"),
    [(Cut(), 1.0), (SendClose(), 1.0), (Die(), 40.0), (Crash(), 1.0), (Crash("phx_close"), 1.0)],
    ids=repr,
)
def test_trouble_passes(trouble: Any, wait: float) -> None:
    server = play([trouble, Wait(wait)], presence())
    assert [type(event).__name__ for event in server.events] == ["Connected", "Disconnected", "Connected"]


def test_a_refused_connection_is_tried_again() -> None:
    server = play([Refuse(), Cut(), Wait(1.0), Wait(2.0)], presence())
    reasons = [event.reason for event in server.events if isinstance(event, Disconnected)]
    assert reasons == ["eof", "the server refused the connection: HTTP 503"]
    assert server.client.is_connected


def test_a_second_cut_and_a_close_without_a_connection_are_nothing() -> None:
    assert names(play([Cut(), Cut(), SendClose(), SendText("x")], presence())) == [
        "Connected",
        "Disconnected",
    ]


def test_a_slow_server() -> None:
    script = [Stall(), Crash(), Wait(1.0), Track("ann"), ServeOne(), Track("bob"), ServeOne()]
    server = play(script, presence())
    assert {user.user_id for user in server.client.online_users} == {"me", "ann", "bob"}
    assert len(server.unanswered) == 1, "our track"
    server = play([*script, Serve()], presence())
    assert not server.unanswered


def test_a_state_that_never_comes() -> None:
    slow = [ServeOne(), Wait(11.0), ServeOne(), ServeOne(), ServeOne(), Wait(11.0)]
    server = play([Stall(), Crash(), Wait(1.0), *slow], realtime())
    assert "PresenceMissing" in names(server)
    assert server.fold.missing == {"realtime:a"}


def test_the_latest_push_first() -> None:
    client = realtime()
    server = play([Stall()], client)
    asked = [server.do(client.push, "room:b", "ask", {"n": n}) for n in range(2)]
    server.take()
    server.serve_one(latest=True)
    server.deny()
    server.deny()
    assert [(reply.push_id, reply.status) for reply in server.take()] == [
        (asked[1], "ok"),
        (asked[0], "error"),
    ]
    server.serve_one(latest=True)
    assert server.take() == []


def test_a_host_that_sleeps() -> None:
    server = play([Sleep(1000.0)], presence())
    assert names(server) == ["Connected"]
    assert len(server.sent("heartbeat")) == 1


def test_a_buggy_server() -> None:
    back = [Crash(), Wait(1.0)]
    script = [
        RepeatDiff(),
        Echo(),
        *back,
        Echo(),
        Echo("phx_error"),
        Echo("phx_reply"),
        Track("ann"),
        RepeatDiff(),
    ]
    server = play([*script, SendReply(), SendReply(99), SendReply(1, "error")], realtime())
    assert names(server).count("ChannelDown") == 1, "echoes are passed over"
    assert server.fold.presence["realtime:a"].keys() == {"me", "ann"}
    assert len(server.client.presence("realtime:a")["ann"]) == 1


def test_anything_may_be_said() -> None:
    script = [
        Say("hi", {"n": 1}),
        Say("hi", {}, "old", "unknown"),
        Say("hi", {}, "unknown"),
        Say("x", {1: 2}),
    ]
    server = play(
        [
            *script,
            Connect(),
            SendBinary(b"\x09"),
            SendBytes(b"\x81\x7f"),
            SendBytes(b"\xff"),
            Say("hi", b"x", topic=1),
        ],
        realtime(),
    )
    assert [event.payload for event in server.events if type(event).__name__ == "ChannelMessage"] == [
        {"n": 1},
        {},
    ]


# ---------------------------------------------------------------------------------------------- as programs


def test_scripts_are_programs() -> None:
    script = [Track("ann"), Cut(noticed=False), Say("hi", {"a": [1]}, ref="old"), Wait(1.0)]
    told = "[Track('ann'), Cut(noticed=False), Say('hi', {'a': [1]}, ref='old'), Wait(1.0)]"
    assert repr(script) == told
    assert eval(told, vars(steps)) == script


def test_they_shrink_to_what_matters() -> None:
    def somebody_goes(script: Any) -> bool:
        events = play(script, presence()).events
        return any(isinstance(event, UserOffline) for event in events)

    limits = settings(max_examples=500, database=None, phases=[Phase.generate, Phase.shrink])
    script = find(server_scripts(), somebody_goes, settings=limits)
    assert repr(script) == "[Track('ann'), Untrack(0)]"


def test_an_unknown_kind() -> None:
    with pytest.raises(KeyError):
        server_scripts("friendly")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- bad clients


def test_a_client_that_breaks_its_word_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = PresenceMap.apply_diff
    monkeypatch.setattr(PresenceMap, "apply_diff", lambda self, payload: apply(self, payload) * 2)
    with pytest.raises(ContractError, match="'me' joined, with"):
        play([Track("ann")], realtime())


def test_events_without_end_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MAX_EVENTS", 0)
    with pytest.raises(ContractError, match=r"Connect\(\) leads to events without end"):
        play([], presence())
