"""The presence client in the room: who is there, what happens, and what a lost connection does to it."""

from __future__ import annotations

from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from msgspec.structs import replace

from presence_proto.config import Identity, PresenceConfig
from presence_proto.errors import LocalProtocolError
from presence_proto.events import (
    ActivityChanged,
    ChatMessage,
    CommandFailed,
    Connected,
    Disconnected,
    Error,
    GameInvite,
    OnlineUser,
    Poked,
    UserOffline,
    UserOnline,
    UserStatus,
)
from presence_proto.presence_client import PresenceClient
from presence_rig import BO, CY, ME, ONLINE_AT, TOPIC, URL, PresenceRig, entry, meta

both_vsns = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])


@pytest.fixture(params=["1.0.0", "2.0.0"])
def rig(request: Any) -> PresenceRig:
    return PresenceRig(vsn=request.param)


# ------------------------------------------------------------------------------------ the whole story


@both_vsns
@pytest.mark.parametrize("chunk", [None, 1])
def test_an_evening_in_the_room(vsn: str, chunk: int | None) -> None:
    rig = PresenceRig(chunk=chunk)
    client = rig.client
    bo, me = meta("b1"), meta("m1", online_at=ONLINE_AT)

    assert rig.enter({"bo": entry("Bo", bo)}) == [Connected(2, (ME, BO), False)]
    assert rig.diff({"me": entry("Me", me)}) == []
    assert rig.diff({"cy": entry("Cy", meta("c1"))}) == [UserOnline(CY)]
    assert client.online_count == 3

    rig.do(client.update_activity, UserStatus.IN_GAME, "Playing Snake")
    rig.acknowledge()
    rig.reply(rig.last("presence"))
    playing = {"status": "in_game", "activity": "Playing Snake"}
    assert rig.broadcasts() == [("activity_update", {"user_id": "me", "display_name": "Me", **playing})]
    assert rig.tracks()[-1] == {"user_id": "me", "display_name": "Me", **playing, "online_at": ONLINE_AT}
    newer = meta("m2", **playing, online_at=ONLINE_AT, phx_ref_prev="m1")
    assert rig.diff({"me": entry("Me", newer)}, {"me": entry("Me", me)}) == []

    claim = {"user_id": "bo", "display_name": "Bo", "status": "in_game", "activity": "Chess"}
    at_chess = replace(BO, status=UserStatus.IN_GAME, activity="Chess")
    assert rig.broadcast("activity_update", claim) == [ActivityChanged(at_chess, BO)]
    assert (client.user("bo"), client.user("nobody")) == (at_chess, None)
    assert client.user("me") == client.online_users[0]
    bo2 = meta("b2", "in_game", "Chess", phx_ref_prev="b1")
    assert rig.diff({"bo": entry("Bo", bo2)}, {"bo": entry("Bo", bo)}) == []

    sender = {"user_id": "bo", "display_name": "Bo"}
    assert rig.broadcast("poke", {**sender, "target_user_id": "cy"}) == []
    assert rig.broadcast("poke", {**sender, "target_user_id": "me"}) == [Poked("bo", "Bo")]
    invite = {**sender, "game": "Chess", "code": "1234"}
    assert rig.broadcast("game_invite", invite) == [GameInvite("bo", "Bo", "Chess", "1234")]
    chat = {**sender, "channel": "lobby", "content": "hi", "timestamp": "now"}
    assert rig.broadcast("chat_message", chat) == [ChatMessage("bo", "Bo", "lobby", "hi", "now")]

    rig.cut("reset")
    assert rig.take() == [Disconnected("reset", 1.0)]
    assert client.is_stale
    assert [user.user_id for user in client.online_users] == ["me", "bo", "cy"]
    for delay in (2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        rig.advance(rig.client.next_deadline() - rig.now)  # type: ignore[operator]  # there is one
        rig.cut("refused")
        assert rig.take() == [Disconnected("refused", delay)]
    rig.do(client.update_activity, UserStatus.AWAY)
    assert rig.take() == []

    me_away = replace(ME, status=UserStatus.AWAY)
    state = {"bo": entry("Bo", bo2), "di": entry("Di", meta("d1"))}
    di = OnlineUser("di", "Di")
    assert sorted(rig.come_back(state), key=repr) == sorted(
        [Connected(3, (me_away, at_chess, di), True), UserOffline(CY), UserOnline(di)], key=repr
    )
    assert rig.events[-3] == Connected(3, (me_away, at_chess, di), True)
    assert rig.tracks()[-1]["status"] == "away"
    assert rig.tracks()[-1]["activity"] is None
    assert not client.is_stale

    rig.do(client.disconnect)
    assert rig.take() == [Disconnected("disconnect was called", None)]
    assert client.is_closed
    assert client.next_deadline() is None
    assert {type(event) for event in rig.events}.isdisjoint({Error})


# ------------------------------------------------------------------------------------ connecting


class TestConnecting:
    def test_where_and_with_what(self) -> None:
        rig = PresenceRig(server_url=None, project_ref="abc", api_key="key", access_token="jwt")
        rig.connect()
        opened, target = rig.opens[0], urlsplit(rig.requests[0].target)
        assert (opened.host, opened.port, opened.tls) == ("abc.supabase.co", 443, True)
        assert target.path == "/realtime/v1/websocket"
        assert parse_qs(target.query) == {"apikey": ["key"], "vsn": ["2.0.0"]}

    def test_the_join(self, rig: PresenceRig) -> None:
        rig.connect()
        join = rig.last()
        assert (join.topic, join.event, join.join_ref) == (TOPIC, "phx_join", join.ref)
        assert join.payload == {
            "config": {
                "broadcast": {"ack": True, "self": False},
                "presence": {"enabled": True, "key": "me"},
                "private": False,
                "postgres_changes": [],
            }
        }

    def test_the_track_follows_the_join(self, rig: PresenceRig) -> None:
        rig.connect()
        assert rig.tracks() == []
        rig.accept_join(TOPIC)
        assert rig.tracks() == [
            {
                "user_id": "me",
                "display_name": "Me",
                "status": "online",
                "activity": None,
                "online_at": ONLINE_AT,
            }
        ]

    def test_without_a_time_none_is_told(self) -> None:
        rig = PresenceRig(online_at=None)
        rig.enter()
        assert rig.tracks() == [{"user_id": "me", "display_name": "Me", "status": "online", "activity": None}]

    @pytest.mark.parametrize("online_at", ["", 7, "\ud800"])
    def test_a_time_that_is_no_text(self, online_at: Any) -> None:
        with pytest.raises(LocalProtocolError, match="online_at"):
            PresenceClient(Identity("me", "Me"), PresenceConfig(server_url=URL), online_at=online_at)

    def test_nothing_is_reported_before_the_state(self, rig: PresenceRig) -> None:
        rig.connect()
        rig.accept_join(TOPIC)
        rig.reply(rig.last("presence"))
        rig.diff({"bo": entry("Bo", meta("b1"))})
        assert rig.take() == []
        assert not rig.client.is_connected
        assert rig.client.is_stale
        rig.say(rig.last("phx_join").ref, None, TOPIC, "presence_state", {})
        assert rig.take() == [Connected(1, (ME,), False), UserOnline(BO)]
        assert rig.client.is_connected
        assert not rig.client.is_stale

    def test_everybody_who_is_there_is_in_connected(self, rig: PresenceRig) -> None:
        state = {
            "bo": entry("Bo", meta("b1"), meta("b2")),
            "me": entry("Me", meta("m1", online_at=ONLINE_AT)),
        }
        assert rig.enter(state) == [Connected(2, (ME, BO), False)]
        assert rig.client.online_users == (ME, BO)
        assert rig.client.online_count == 2

    def test_another_channel(self) -> None:
        rig = PresenceRig(channel="elsewhere")
        rig.connect()
        assert rig.last().topic == "realtime:elsewhere"

    def test_connect_twice(self, rig: PresenceRig) -> None:
        rig.do(rig.client.connect)
        with pytest.raises(LocalProtocolError, match="connect was already called"):
            rig.do(rig.client.connect)
        rig.open()
        assert len(rig.opens) == 1

    def test_before_connecting(self, rig: PresenceRig) -> None:
        client = rig.client
        assert (client.is_connected, client.is_stale, client.is_closed) == (False, True, True)
        assert client.identity == Identity("me", "Me")
        assert client.online_users == (ME,)
        assert client.online_count == 1
        assert client.server_count is None
        assert client.pending_commands == frozenset()
        rig.do(client.disconnect)
        assert rig.take() == []
        assert client.is_closed

    def test_two_clients_of_one_user(self, rig: PresenceRig) -> None:
        """The count is of users, the most recent device is shown, and neither is an event."""
        rig.enter({"me": entry("Me", meta("m1", online_at=ONLINE_AT))})
        assert rig.diff({"me": entry("Me", meta("m2", "in_game", "Chess", online_at=ONLINE_AT))}) == []
        assert rig.client.online_count == 1
        assert rig.client.online_users[0].activity == "Chess"
        assert rig.client.activity is None


# ------------------------------------------------------------------------------------ presence


class TestPresence:
    def test_coming_and_going(self, rig: PresenceRig) -> None:
        rig.enter()
        desk, phone = meta("b1"), meta("b2")
        assert rig.diff({"bo": entry("Bo", desk)}) == [UserOnline(BO)]
        assert rig.diff({"bo": entry("Bo", phone)}) == []
        assert rig.diff(None, {"bo": entry("Bo", desk)}) == []
        assert rig.diff(None, {"bo": entry("Bo", phone)}) == [UserOffline(BO)]

    def test_several_diffs_in_one_read(self, rig: PresenceRig) -> None:
        """A device leaves, and then the last one: the events are as if each had come alone."""
        desk, phone = meta("b1", "idle"), meta("b2")
        rig.enter({"bo": entry("Bo", desk)})
        rig.diff({"bo": entry("Bo", phone)})
        idle = replace(BO, status=UserStatus.IDLE)
        assert rig.diffs(
            ({}, {"bo": entry("Bo", phone)}),
            ({}, {"bo": entry("Bo", desk)}),
            ({"cy": entry("Cy", meta("c1"))}, {}),
        ) == [ActivityChanged(idle, BO), UserOffline(idle), UserOnline(CY)]

    def test_payloads_of_any_client(self, rig: PresenceRig) -> None:
        metas = [{"phx_ref": "x1", "status": ["odd"], "display_name": 7, "level": 3}]
        rig.enter()
        shown = OnlineUser("x", "x", UserStatus.ONLINE, None, None, {"status": ["odd"], "level": 3})
        assert rig.diff({"x": {"metas": metas}}) == [UserOnline(shown)]

    def test_a_second_state_in_one_life(self, rig: PresenceRig) -> None:
        rig.enter({"bo": entry("Bo", meta("b1"))})
        events = rig.tell("presence_state", {"cy": entry("Cy", meta("c1"))})
        assert sorted(events, key=repr) == [UserOffline(BO), UserOnline(CY)]

    @pytest.mark.parametrize(
        ("event", "payload", "fault"),
        [
            ("presence_diff", [], "presence_diff must be an object"),
            ("presence_diff", {"joins": {"bo": {"metas": [{}]}}, "leaves": {}}, "phx_ref"),
            ("presence_state", {"bo": 7}, "'bo' must be an object"),
            ("broadcast", ["poke"], "broadcast"),
            ("broadcast", {"event": 7}, "broadcast"),
        ],
    )
    def test_malformed_messages_of_the_server(
        self, rig: PresenceRig, event: str, payload: Any, fault: str
    ) -> None:
        rig.enter({"bo": entry("Bo", meta("b1"))})
        (error,) = rig.tell(event, payload)
        assert isinstance(error, Error)
        assert fault in error.message
        assert not error.fatal
        assert rig.client.online_users == (ME, BO)
        assert rig.client.is_connected

    def test_text_that_is_no_message(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.say_text("{nonsense")
        (error,) = rig.take()
        assert isinstance(error, Error)
        assert "malformed" in error.message

    @pytest.mark.parametrize("deep", ["[" * 900 + "]" * 900, "[" * 5000 + "]" * 5000])
    def test_payloads_nested_without_measure(self, deep: str) -> None:
        rig = PresenceRig(vsn="1.0.0")
        rig.enter({"bo": entry("Bo", meta("b1"))})
        rig.do(rig.client.send_poke, "bo")
        envelope = '{"topic":"realtime:jarvis-presence","ref":%s,"event":"%s","payload":%s}'
        entries = '{"bo":{"metas":[{"phx_ref":"%s","status":%s,"deep":%s}]}}'
        for n in range(2):
            joins = entries % (f"b{n + 2}", deep, deep)
            diff = f'{{"joins":{joins},"leaves":{{}}}}'
            rig.say_text(envelope % ("null", "presence_diff", diff))
        poke = rig.last("broadcast").ref
        rig.say_text(envelope % (f'"{poke}"', "phx_reply", f'{{"status":"error","response":{deep}}}'))
        rig.say_text(envelope % ("null", "broadcast", f'{{"event":"poke","payload":{deep}}}'))
        assert rig.client.is_connected
        assert rig.take() != []


# ------------------------------------------------------------------------------------ broadcasts


class TestBroadcasts:
    def test_an_activity_of_a_stranger_is_nothing(self, rig: PresenceRig) -> None:
        rig.enter()
        assert rig.broadcast("activity_update", {"user_id": "bo", "status": "idle"}) == []
        assert rig.client.online_count == 1

    def test_an_activity_of_an_unknown_kind_waits_for_its_track(self, rig: PresenceRig) -> None:
        bo = meta("b1")
        rig.enter({"bo": entry("Bo", bo)})
        assert rig.broadcast("activity_update", {"user_id": "bo", "status": "invisible"}) == []
        newer = meta("b2", "invisible", phx_ref_prev="b1")
        (event,) = rig.diff({"bo": entry("Bo", newer)}, {"bo": entry("Bo", bo)})
        assert event == ActivityChanged(replace(BO, extra={"status": "invisible"}), BO)

    def test_an_activity_of_ours_that_is_not_from_us(self, rig: PresenceRig) -> None:
        """Our other device has a presence to tell it; anybody else has nothing to tell."""
        rig.enter()
        assert rig.broadcast("activity_update", {"user_id": "me", "status": "idle"}) == []
        assert rig.client.online_users == (ME,)
        assert rig.diff({"me": entry("Me", meta("m2", "idle", online_at=ONLINE_AT))}) == []
        assert rig.client.online_users == (replace(ME, status=UserStatus.IDLE),)

    def test_without_a_name(self, rig: PresenceRig) -> None:
        rig.enter({"bo": entry("Bo", meta("b1"))})
        (event,) = rig.broadcast("activity_update", {"user_id": "bo", "status": "idle"})
        assert event.user.display_name == "Bo"

    def test_further_fields_survive(self, rig: PresenceRig) -> None:
        rig.enter({"bo": entry("Bo", meta("b1"))})
        more = {"user_id": "bo", "display_name": "Bo", "mood": {"is": "fine"}}
        extra = {"mood": {"is": "fine"}}
        events = [
            *rig.broadcast("poke", {**more, "target_user_id": "me"}),
            *rig.broadcast("game_invite", {**more, "game": "Chess"}),
            *rig.broadcast("chat_message", {**more, "channel": "lobby", "content": "hi"}),
        ]
        assert [event.extra for event in events] == [extra] * 3
        (changed,) = rig.broadcast("activity_update", {**more, "status": "idle"})
        assert changed.user.extra == extra

    @pytest.mark.parametrize(
        ("event", "payload", "field"),
        [
            ("activity_update", {"user_id": "bo"}, "status"),
            ("activity_update", {"user_id": "bo", "status": "idle", "activity": 7}, "activity"),
            ("game_invite", {"user_id": "bo", "display_name": "Bo"}, "game"),
            ("poke", {"target_user_id": "me"}, "user_id"),
            ("poke", {"user_id": "bo"}, "target_user_id"),
            ("chat_message", {"user_id": "bo", "channel": "lobby", "content": None}, "content"),
            ("chat_message", "hi", "object"),
        ],
    )
    def test_a_malformed_broadcast_names_the_field(
        self, rig: PresenceRig, event: str, payload: Any, field: str
    ) -> None:
        rig.enter({"bo": entry("Bo", meta("b1"))})
        (error,) = rig.broadcast(event, payload)
        assert isinstance(error, Error)
        assert not error.fatal
        assert event in error.message
        assert field in error.message

    def test_bytes_for_a_payload(self) -> None:
        rig = PresenceRig()
        rig.enter()
        (error,) = rig.broadcast("poke", b"\0\1")
        assert error == Error("a poke broadcast must be an object, not bytes")

    def test_what_is_not_ours_is_passed_over(self, rig: PresenceRig) -> None:
        rig.enter()
        assert rig.broadcast("cursor", {"x": 1}) == []
        assert rig.tell("postgres_changes", {"ids": [1]}) == []
        assert rig.tell("system", {"extension": "x", "status": "ok", "message": "fine", "channel": "c"}) == []
        rig.say(None, None, "realtime:elsewhere", "broadcast", {"event": "poke", "payload": {}})
        assert rig.take() == []

    def test_while_the_roster_is_stale_nobody_changes(self, rig: PresenceRig) -> None:
        """What came between the join and its state is older than the state. Other news are news."""
        rig.enter({"bo": entry("Bo", meta("b1"))})
        rig.cut()
        rig.advance(1.0)
        rig.open()
        rig.accept_join(TOPIC)
        rig.take()
        assert rig.broadcast("activity_update", {"user_id": "bo", "status": "idle"}) == []
        assert rig.client.online_users == (ME, BO)
        poke = {"user_id": "bo", "display_name": "Bo", "target_user_id": "me"}
        assert rig.broadcast("poke", poke) == [Poked("bo", "Bo")]


# ------------------------------------------------------------------------------------ coming back


class TestComingBack:
    def test_nobody_flickers(self, rig: PresenceRig) -> None:
        state = {name: entry(name.title(), meta(f"{name}1")) for name in ("bo", "cy", "di")}
        rig.enter(state)
        rig.cut()
        assert rig.take() == [Disconnected("eof", 1.0)]
        users = rig.client.online_users
        assert rig.come_back(state) == [Connected(4, users, True)]
        assert rig.client.online_users == users

    def test_net_differences(self, rig: PresenceRig) -> None:
        di = entry("Di", meta("d1"))
        rig.enter({"bo": entry("Bo", meta("b1")), "cy": entry("Cy", meta("c1")), "di": di})
        rig.cut()
        rig.take()
        events = rig.come_back({"bo": entry("Bo", meta("b9", "idle")), "di": di})
        idle = replace(BO, status=UserStatus.IDLE)
        assert events[0] == Connected(3, (ME, idle, OnlineUser("di", "Di")), True)
        assert sorted(events[1:], key=repr) == [ActivityChanged(idle, BO), UserOffline(CY)]

    def test_the_current_status_is_told_again(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.do(rig.client.update_activity, "in_skill", "Cooking")
        rig.cut()
        rig.do(rig.client.update_activity, "do_not_disturb", "Eating")
        assert rig.tracks()[-1]["activity"] == "Cooking"
        rig.come_back()
        assert rig.tracks()[-1]["status"] == "do_not_disturb"
        assert rig.tracks()[-1]["activity"] == "Eating"
        assert rig.tracks()[-1]["online_at"] == ONLINE_AT

    def test_it_is_told_again_though_it_is_the_same(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.cut()
        rig.come_back()
        first, second = rig.tracks()
        assert first == second

    def test_our_own_ghost(self, rig: PresenceRig) -> None:
        """The server has not noticed the loss: our old meta is there beside our new one, and goes later."""
        old = meta("m1", online_at=ONLINE_AT)
        rig.enter({"me": entry("Me", old)})
        rig.cut()
        rig.do(rig.client.update_activity, "away")
        away = replace(ME, status=UserStatus.AWAY)
        rig.take()
        assert rig.come_back({"me": entry("Me", old)}) == [Connected(1, (away,), True)]
        assert rig.diff({"me": entry("Me", meta("m2", "away", online_at=ONLINE_AT))}) == []
        assert rig.diff(None, {"me": entry("Me", old)}) == []
        assert rig.client.online_users == (away,)

    def test_a_claim_that_came_to_nothing_while_we_were_away(self, rig: PresenceRig) -> None:
        state = {"bo": entry("Bo", meta("b1"))}
        rig.enter(state)
        rig.broadcast("activity_update", {"user_id": "bo", "status": "idle"})
        rig.cut()
        rig.take()
        idle = replace(BO, status=UserStatus.IDLE)
        assert rig.come_back(state) == [Connected(2, (ME, BO), True), ActivityChanged(BO, idle)]

    @pytest.mark.parametrize("code", [1000, 1001, 1002, 1012])
    def test_any_close_that_we_did_not_ask_for(self, rig: PresenceRig, code: int) -> None:
        rig.enter()
        rig.close(code, "bye")
        (event,) = rig.take()
        assert event == Disconnected(f"the server closed the connection with code {code}: bye", 1.0)
        assert rig.come_back() == [Connected(1, (ME,), True)]

    def test_no_answer_to_a_heartbeat(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.answers_heartbeats = False
        rig.advance(35.0)
        assert rig.take() == [Disconnected("no heartbeat reply within 10 s", 1.0)]
        rig.answers_heartbeats = True
        assert rig.come_back() == [Connected(1, (ME,), True)]

    def test_the_backoff_starts_over_when_we_were_in_the_room_for_a_while(self, rig: PresenceRig) -> None:
        rig.enter()
        for delay in (1.0, 2.0, 4.0):
            rig.cut()
            assert rig.take() == [Disconnected("eof", delay)]
            rig.come_back()
        rig.advance(5.0)
        rig.cut()
        assert rig.take() == [Disconnected("eof", 1.0)]

    def test_jitter_only_shortens(self) -> None:
        rig = PresenceRig(rng=Random(1), jitter=0.5)
        rig.do(rig.client.connect)
        delays = []
        for exact in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
            rig.cut("refused")
            (event,) = rig.take()
            assert exact / 2 <= event.retry_in <= exact
            delays.append(event.retry_in)
            rig.advance(event.retry_in)
        assert len({round(delay, 6) for delay in delays}) == len(delays)

    @pytest.mark.parametrize("event", ["phx_error", "phx_close"])
    def test_the_server_ends_the_channel(self, rig: PresenceRig, event: str) -> None:
        state = {"bo": entry("Bo", meta("b1"))}
        rig.enter(state)
        rig.say(rig.join_ref, rig.join_ref, TOPIC, event, {"reason": "channel_crash"})
        assert rig.take() == [Disconnected("channel_crash", 1.0)]
        assert rig.client.is_stale
        rig.advance(1.0)
        assert rig.let_in(state) == [Connected(2, (ME, BO), True)]
        assert len(rig.opens) == 1

    def test_the_reason_may_come_before_the_end(self, rig: PresenceRig) -> None:
        rig.enter()
        complaint = "Client presence rate limit exceeded"
        system = {
            "extension": "system",
            "status": "error",
            "message": complaint,
            "channel": "jarvis-presence",
        }
        assert rig.tell("system", system) == []
        rig.say(rig.join_ref, rig.join_ref, TOPIC, "phx_close", {})
        assert rig.take() == [Disconnected(complaint, 1.0)]

    def test_leave_and_come_back(self, rig: PresenceRig) -> None:
        rig.enter({"bo": entry("Bo", meta("b1"))})
        rig.do(rig.client.disconnect)
        rig.take()
        rig.do(rig.client.update_activity, "away")
        rig.connect()
        away = replace(ME, status=UserStatus.AWAY)
        assert rig.let_in() == [Connected(1, (away,), True), UserOffline(BO)]
        assert rig.tracks()[-1]["status"] == "away"

    def test_disconnect_between_two_attempts(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.cut()
        rig.take()
        rig.do(rig.client.disconnect)
        assert rig.take() == [Disconnected("disconnect was called", None)]
        assert rig.client.next_deadline() is None
        assert rig.client.is_closed

    def test_disconnect_while_connecting(self, rig: PresenceRig) -> None:
        rig.do(rig.client.connect)
        rig.do(rig.client.disconnect)
        assert rig.take() == [Disconnected("disconnect was called", None)]
        assert len(rig.closes) == 1
        assert rig.client.is_closed

    def test_a_server_that_does_not_answer_our_goodbye(self, rig: PresenceRig) -> None:
        rig.enter({"bo": entry("Bo", meta("b1"))})
        rig.silent = True
        rig.do(rig.client.disconnect)
        assert not rig.client.is_closed
        rig.do(rig.client.update_activity, "away")
        rig.do(rig.client.send_poke, "bo")
        rig.advance(60.0)
        assert [type(event).__name__ for event in rig.take()] == ["Disconnected", "CommandFailed"]
        assert rig.client.is_closed
        assert rig.client.pending_commands == frozenset()


# ------------------------------------------------------------------------------------ refusals


class TestRefusals:
    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_what_cannot_heal_ends_it(self, rig: PresenceRig, status: int) -> None:
        rig.do(rig.client.connect)
        rig.refuse(status, b'{"error": "no"}')
        gone, error = rig.take()
        assert isinstance(error, Error)
        assert gone == Disconnected(error.message, None)
        assert error.fatal
        assert f"HTTP {status}" in error.message
        assert rig.client.is_closed
        assert rig.client.next_deadline() is None
        assert rig.client.online_users == (ME,)

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_what_may_heal_is_tried_again(self, rig: PresenceRig, status: int) -> None:
        rig.do(rig.client.connect)
        rig.refuse(status)
        assert rig.take() == [Disconnected(f"the server refused the connection: HTTP {status}", 1.0)]
        assert rig.come_back() == [Connected(1, (ME,), False)]

    def test_after_a_fatal_refusal_one_may_connect_again(self, rig: PresenceRig) -> None:
        rig.do(rig.client.connect)
        rig.refuse(401)
        rig.take()
        rig.do(rig.client.set_access_token, "better")
        rig.connect()
        assert rig.let_in() == [Connected(1, (ME,), False)]

    def test_a_refused_join_is_told_and_tried_again(self, rig: PresenceRig) -> None:
        rig.connect()
        rig.reply(rig.last("phx_join"), "error", {"reason": "unauthorized"})
        assert rig.take() == [Error("the server refused us: unauthorized"), Disconnected("unauthorized", 1.0)]
        rig.advance(1.0)
        assert rig.let_in() == [Connected(1, (ME,), False)]

    def test_a_join_that_is_refused_for_good_is_the_end(self, rig: PresenceRig) -> None:
        rig.connect()
        command = rig.do(rig.client.send_poke, "bo")
        for delay in (1.0, 2.0, 4.0, 8.0):
            rig.reply(rig.last("phx_join"), "error", {"reason": "Unauthorized: no"})
            assert rig.take() == [
                Error("the server refused us: Unauthorized: no"),
                Disconnected("Unauthorized: no", delay),
            ]
            rig.advance(delay)
        rig.reply(rig.last("phx_join"), "error", {"reason": "Unauthorized: no"})
        assert rig.take() == [
            CommandFailed(command, "send_poke", "disconnect was called"),
            Disconnected("the server refused us: Unauthorized: no", None),
            Error("the server refused us: Unauthorized: no", fatal=True),
        ]
        assert rig.client.is_closed
        assert rig.client.next_deadline() is None
        rig.do(rig.client.set_access_token, "better")
        rig.connect()
        assert rig.let_in() == [Connected(1, (ME,), False)]

    def test_the_end_waits_for_a_server_that_does_not_say_goodbye(self) -> None:
        rig = PresenceRig(max_final_refusals=1, close_timeout=5.0)
        rig.connect()
        rig.silent = True
        rig.reply(rig.last("phx_join"), "error", {"reason": "Unauthorized: no"})
        rig.release()
        rig.silent = True
        rig.advance(5.0)
        assert [type(event) for event in rig.take()] == [Disconnected, Error]
        assert rig.client.is_closed

    def test_a_refusal_in_the_last_moment_of_a_connection_is_the_end(self) -> None:
        rig = PresenceRig(max_final_refusals=1)
        rig.connect()
        rig.silent = True
        rig.reply(rig.last("phx_join"), "error", {"reason": "Unauthorized: no"})
        rig.close(1012)
        rig.release()
        assert rig.take() == [
            Disconnected("the server refused us: Unauthorized: no", None),
            Error("the server refused us: Unauthorized: no", fatal=True),
        ]
        assert rig.client.is_closed

    def test_to_be_thrown_out_is_the_end_where_the_config_says_so(self) -> None:
        rig = PresenceRig(rejoin_after_close=False)
        rig.enter()
        assert rig.tell("phx_close", {"reason": "banned"}) == [
            Disconnected("banned", None),
            Error("banned", fatal=True),
        ]
        assert rig.client.is_closed
        rig.connect()
        assert rig.let_in() == [Connected(1, (ME,), True)]

    def test_a_refusal_that_will_pass_is_not(self) -> None:
        rig = PresenceRig(max_final_refusals=1)
        rig.connect()
        for _ in range(10):
            rig.reply(rig.last("phx_join"), "error", {"reason": "RealtimeRestarting: please standby"})
            _, lost = rig.take()
            rig.advance(lost.retry_in)
        assert rig.let_in() == [Connected(1, (ME,), False)]

    def test_a_join_without_an_answer(self, rig: PresenceRig) -> None:
        rig.connect()
        rig.advance(10.0)
        assert rig.take() == [Disconnected("no reply within 10 s", 20.0)]

    def test_a_refused_track_is_told(self, rig: PresenceRig) -> None:
        rig.connect()
        rig.accept_join(TOPIC, {})
        rig.take()
        rig.reply(rig.last("presence"), "error", {"reason": "no"})
        (error,) = rig.take()
        assert error == Error("the server did not accept our presence: no")

    def test_silence_is_reported(self, rig: PresenceRig) -> None:
        """Joined, and no presence_state: one rejoin, then an error that names the likely cause."""
        rig.connect()
        rig.accept_join(TOPIC)
        rig.reply(rig.last("presence"))
        rig.advance(10.0)
        assert rig.take() == []
        assert len(rig.sent("phx_join")) == 2
        rig.accept_join(TOPIC)
        rig.reply(rig.last("presence"))
        rig.advance(10.0)
        (error,) = rig.take()
        assert isinstance(error, Error)
        assert "presence may be disabled" in error.message
        assert not error.fatal
        assert rig.client.is_stale
        rig.advance(300.0)
        assert rig.take() == []
        assert len(rig.sent("phx_join")) == 2

    def test_a_state_that_was_lost_once(self, rig: PresenceRig) -> None:
        rig.connect()
        rig.accept_join(TOPIC)
        rig.reply(rig.last("presence"))
        rig.advance(10.0)
        assert rig.let_in() == [Connected(1, (ME,), False)]


# ------------------------------------------------------------------------------------ tokens, secrets


class TestTokens:
    def test_the_identity_s_token_comes_first(self) -> None:
        rig = PresenceRig(identity=Identity("me", "Me", "mine"), access_token="everybody's")
        rig.connect()
        assert rig.last().payload["access_token"] == "mine"
        assert "mine" not in rig.requests[0].target

    def test_a_new_token_is_told_at_once_and_used_from_then_on(self, rig: PresenceRig) -> None:
        rig.enter()
        rig.do(rig.client.set_access_token, "fresh")
        assert rig.last().event == "access_token"
        assert rig.last().payload == {"access_token": "fresh"}
        rig.cut()
        rig.come_back()
        assert rig.last("phx_join").payload["access_token"] == "fresh"
        assert "fresh" not in rig.requests[-1].target  # Supabase reads the token of the join
        assert [type(event) for event in rig.events] == [Connected, Disconnected, Connected]

    def test_no_token_any_more(self) -> None:
        rig = PresenceRig(access_token="old")
        rig.enter()
        rig.do(rig.client.set_access_token, None)
        rig.cut()
        rig.come_back()
        assert "access_token" not in rig.last("phx_join").payload
        assert "token" not in rig.requests[-1].target

    @pytest.mark.parametrize("token", ["", 7, "\ud800"])
    def test_what_is_no_token(self, rig: PresenceRig, token: Any) -> None:
        rig.enter()
        before = len(rig.received)
        with pytest.raises(LocalProtocolError) as caught:
            rig.do(rig.client.set_access_token, token)
        assert not token or repr(token) not in str(caught.value)
        assert len(rig.received) == before


def test_nothing_secret_is_ever_shown() -> None:
    secrets = ["s3cr3t-key", "s3cr3t-jwt", "s3cr3t-mine", "s3cr3t-fresh", "s3cr3t-param"]
    key, jwt, mine, fresh, param = secrets
    identity = Identity("me", "Me", mine)
    rig = PresenceRig(
        identity=identity,
        api_key=key,
        access_token=jwt,
        params={"p_secret": param},
        server_url=f"{URL}/socket?password={param}",
    )
    shown: list[Any] = [identity, rig.client, rig.client.identity, rig.client.online_users]
    rig.enter()
    shown += rig.opens
    rig.do(rig.client.set_access_token, fresh)
    rig.do(rig.client.send_poke, "bo")
    rig.acknowledge("error", "x" * 150 + f"bad {fresh * 9} {key}")
    rig.say(rig.join_ref, rig.join_ref, TOPIC, "phx_error", {"reason": f"bad {fresh} {key}"})
    rig.advance(1.0)
    rig.reply(rig.last("phx_join"), "error", {"reason": "x" * 195 + fresh})
    rig.close(1011, f"bad {fresh} {key}")
    rig.advance(1.0)
    rig.refuse(500, f"bad {fresh} {key} {param}".encode())
    rig.advance(2.0)
    rig.refuse(401, f'{{"error": "bad {fresh}"}}'.encode())
    shown += rig.events + rig.received + rig.requests
    try:
        rig.do(rig.client.send_poke, "bo")
    except LocalProtocolError as exc:
        shown.append(exc)
    text = " ".join([*map(repr, shown), *map(str, shown)])
    assert "bad … …" in text
    assert "s3cr3t" not in text


def test_a_token_that_was_replaced_stays_a_secret() -> None:
    rig = PresenceRig(access_token="s3cr3t-old")
    rig.enter()
    rig.do(rig.client.set_access_token, "s3cr3t-new")
    command = rig.do(rig.client.send_poke, "bo")
    rig.acknowledge("error", "neither s3cr3t-old nor s3cr3t-new")
    assert rig.take() == [CommandFailed(command, "send_poke", "the server said error: neither … nor …")]
