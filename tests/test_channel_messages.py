"""What a channel says and hears besides presence: broadcasts, system messages, other events, access tokens.

Driven through `RealtimeClient`.
"""

from __future__ import annotations

from typing import Any

import pytest

from presence_proto.channel import ChannelState
from presence_proto.config import ChannelConfig
from presence_proto.errors import LocalProtocolError
from presence_proto.events import (
    Broadcast,
    ChannelMessage,
    ProtocolViolation,
    PushFailed,
    PushReplied,
    SocketDisconnected,
    SystemMessage,
)
from presence_proto.serializer import UserBroadcast
from presence_proto.websocket import BinaryMessage, TextMessage
from rig import Rig, online, realtime

ROOM = "realtime:room"
PLAIN = "room:a"
both = pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])


def joined(*, vsn: str = "2.0.0", access_token: str | None = None, **channel: Any) -> Rig:
    rig = online(vsn=vsn, access_token=access_token)
    rig.join(ROOM, ChannelConfig(**channel), state={})
    rig.take()
    return rig


# ---------------------------------------------------------------------------------------------- any event


@both
@pytest.mark.parametrize("topic", [ROOM, PLAIN])
@pytest.mark.parametrize("payload", [{}, {"a": [1, None]}, [], "text", None, 7])
def test_any_other_event_is_a_message_with_its_payload(vsn: str, topic: str, payload: Any) -> None:
    rig = online(vsn=vsn)
    rig.join(topic)
    rig.take()
    rig.say(None, None, topic, "postgres_changes", payload)
    assert rig.take() == [ChannelMessage(topic, "postgres_changes", payload)]


def test_binary_messages_have_bytes_for_a_payload() -> None:
    rig = online()
    join = rig.join(PLAIN)
    rig.take()
    rig.say(join.join_ref, None, PLAIN, "file", b"\x00pushed")
    rig.say(None, None, PLAIN, "file", b"\x00to all")
    assert rig.take() == [
        ChannelMessage(PLAIN, "file", b"\x00pushed"),
        ChannelMessage(PLAIN, "file", b"\x00to all"),
    ]


def test_on_a_plain_channel_broadcast_and_system_are_events_like_any_other() -> None:
    rig = online()
    rig.join(PLAIN)
    rig.take()
    for event in ("broadcast", "system"):
        rig.say(None, None, PLAIN, event, {"mine": 1})
    assert rig.take() == [ChannelMessage(PLAIN, event, {"mine": 1}) for event in ("broadcast", "system")]


def test_messages_go_to_the_channel_of_their_topic_and_others_to_nobody() -> None:
    rig = online()
    rig.join("room:a")
    rig.join("room:b")
    rig.take()
    for topic in ("room:b", "room:c", "phoenix", ""):
        rig.say(None, None, topic, "hello", {})
    assert rig.take() == [ChannelMessage("room:b", "hello", {})]


# ---------------------------------------------------------------------------------------------- broadcasts


@both
@pytest.mark.parametrize(
    ("payload", "event"),
    [
        ({"type": "broadcast", "event": "hi", "payload": {"a": 1}}, Broadcast(ROOM, "hi", {"a": 1}, {})),
        ({"event": "hi", "payload": [1], "meta": {"id": "x"}}, Broadcast(ROOM, "hi", [1], {"id": "x"})),
        ({"event": "hi", "meta": "odd"}, Broadcast(ROOM, "hi", None, {})),
    ],
)
def test_a_broadcast_comes_with_its_event_payload_and_meta(vsn: str, payload: Any, event: Broadcast) -> None:
    rig = joined(vsn=vsn)
    rig.say(None, None, ROOM, "broadcast", payload)
    assert rig.take() == [event]


@pytest.mark.parametrize("payload", [{"a": [1]}, [], "text", b"\x00bytes", b""])
@pytest.mark.parametrize("metadata", [{}, {"id": "x", "replayed": True}])
def test_so_does_a_binary_one(payload: Any, metadata: dict[str, Any]) -> None:
    rig = joined()
    rig.say(None, None, ROOM, "broadcast", UserBroadcast("hi", payload, metadata))
    assert rig.take() == [Broadcast(ROOM, "hi", payload, metadata)]


@pytest.mark.parametrize("payload", [None, [], "hi", {}, {"event": 7}, b"bytes"])
def test_a_malformed_broadcast_is_named(payload: Any) -> None:
    rig = joined()
    rig.say(None, None, ROOM, "broadcast", payload)
    assert rig.take() == [ProtocolViolation("a broadcast must be an object with a string event", ROOM)]


@both
@pytest.mark.parametrize("payload", [{"a": 1}, [1], "text", None])
def test_broadcasting_with_ack_gets_a_reply(vsn: str, payload: Any) -> None:
    rig = joined(broadcast_ack=True, vsn=vsn)
    push_id = rig.do(rig.client.broadcast, ROOM, "hi", payload)
    asked = rig.last()
    assert asked.event == "broadcast"
    assert asked.payload == {
        "type": "broadcast",
        "event": "hi",
        "payload": {} if payload is None else payload,
    }
    rig.reply(asked)
    assert rig.take() == [PushReplied(push_id, ROOM, "ok", {})]


def test_an_oversize_broadcast_is_refused_in_the_servers_words() -> None:
    rig = joined(broadcast_ack=True)
    push_id = rig.do(rig.client.broadcast, ROOM, "hi", {})
    rig.reply(rig.last(), "error", "payload_size_exceeded")
    assert rig.take() == [PushReplied(push_id, ROOM, "error", "payload_size_exceeded")]


def test_a_broadcast_with_ack_that_gets_no_reply_fails() -> None:
    rig = joined(broadcast_ack=True)
    push_id = rig.do(rig.client.broadcast, ROOM, "hi", timeout=3)
    rig.advance(3.0)
    assert rig.take() == [PushFailed(push_id, ROOM, "no reply in time")]


@both
def test_without_ack_nothing_is_heard_of_a_broadcast_that_was_sent(vsn: str) -> None:
    rig = joined(vsn=vsn)
    deadline = rig.client.next_deadline()
    rig.do(rig.client.broadcast, ROOM, "hi", {"a": 1}, timeout=0.5)
    assert rig.client.next_deadline() == deadline, "nothing is waited for"
    assert rig.last().payload == {"type": "broadcast", "event": "hi", "payload": {"a": 1}}
    rig.advance(100.0)
    rig.reply(rig.last())
    rig.cut()
    assert not [event for event in rig.take() if isinstance(event, (PushFailed, PushReplied))]


def test_a_broadcast_without_ack_waits_for_the_join_and_may_expire() -> None:
    rig = online()
    rig.do(rig.client.join, ROOM)
    quick = rig.do(rig.client.broadcast, ROOM, "quick", timeout=1)
    rig.do(rig.client.broadcast, ROOM, "slow", timeout=20)
    rig.advance(1.0)
    assert rig.take() == [PushFailed(quick, ROOM, "not joined in time")]
    rig.accept_join(ROOM)
    assert [message.payload["event"] for message in rig.sent("broadcast")] == ["slow"]


@pytest.mark.parametrize("ack", [False, True])
def test_broadcasting_bytes_goes_out_in_a_binary_frame(ack: bool) -> None:
    rig = joined(broadcast_ack=ack)
    push_id = rig.do(rig.client.broadcast, ROOM, "photo", b"\x00\xff")
    assert isinstance(rig.frames[-1], BinaryMessage)
    assert rig.last().payload == UserBroadcast("photo", b"\x00\xff", {})
    rig.reply(rig.last())
    assert rig.take() == ([PushReplied(push_id, ROOM, "ok", {})] if ack else [])
    rig.do(rig.client.broadcast, ROOM, "text", {})
    assert isinstance(rig.frames[-1], TextMessage)


def test_v1_cannot_broadcast_bytes() -> None:
    rig = joined(vsn="1.0.0")
    with pytest.raises(LocalProtocolError, match="V1 has no binary frames"):
        rig.do(rig.client.broadcast, ROOM, "photo", b"data")


def test_a_plain_channel_has_no_broadcasts() -> None:
    rig = online()
    rig.join(PLAIN)
    with pytest.raises(
        LocalProtocolError, match="'room:a' is a plain Phoenix channel, which has no broadcasts"
    ):
        rig.do(rig.client.broadcast, PLAIN, "hi")


# ---------------------------------------------------------------------------------------------- system


@both
def test_system_messages_are_told(vsn: str) -> None:
    rig = joined(vsn=vsn)
    payload = {"extension": "postgres_changes", "status": "ok", "message": "Subscribed", "channel": "room"}
    rig.say(None, None, ROOM, "system", payload)
    assert rig.take() == [SystemMessage(ROOM, "postgres_changes", "ok", "Subscribed", payload)]


def test_a_system_message_without_its_fields_has_empty_ones() -> None:
    rig = joined()
    rig.say(None, None, ROOM, "system", {"status": 7})
    assert rig.take() == [SystemMessage(ROOM, "", "", "", {"status": 7})]


@pytest.mark.parametrize("payload", [None, [], "down", b"bytes"])
def test_a_malformed_system_message_is_named(payload: Any) -> None:
    rig = joined()
    rig.say(None, None, ROOM, "system", payload)
    assert rig.take() == [ProtocolViolation("a system message must be an object", ROOM)]


# ---------------------------------------------------------------------------------------------- access tokens


def tokens(rig: Rig) -> list[Any]:
    return [message.payload for message in rig.sent("access_token")]


@both
def test_a_new_token_is_told_to_every_joined_supabase_channel(vsn: str) -> None:
    rig = joined(access_token="old", vsn=vsn)
    second = rig.join("realtime:second")
    rig.join(PLAIN)
    rig.do(rig.client.set_access_token, "new")
    assert [(message.topic, message.payload) for message in rig.sent("access_token")] == [
        (ROOM, {"access_token": "new"}),
        ("realtime:second", {"access_token": "new"}),
    ]
    assert rig.last("access_token").join_ref == second.join_ref
    rig.advance(5.0)
    assert not [event for event in rig.take() if isinstance(event, PushFailed)], "it never gets a reply"


def test_a_token_that_the_server_knows_is_not_told_again() -> None:
    rig = joined(access_token="old")
    for token in ("old", "new", "new"):
        rig.do(rig.client.set_access_token, token)
    assert tokens(rig) == [{"access_token": "new"}]


def test_a_token_that_changes_while_joining_is_told_when_joined() -> None:
    rig = online(access_token="old")
    rig.do(rig.client.join, ROOM)
    rig.do(rig.client.set_access_token, "new")
    assert rig.last("phx_join").payload["access_token"] == "old"
    assert tokens(rig) == []
    rig.accept_join(ROOM)
    assert tokens(rig) == [{"access_token": "new"}]


def test_a_token_that_changes_while_the_channel_is_down_goes_with_the_next_join() -> None:
    rig = joined(access_token="old")
    rig.say("1", "1", ROOM, "phx_error", {})
    rig.do(rig.client.set_access_token, "new")
    rig.advance(1.0)
    rig.accept_join(ROOM)
    assert rig.last("phx_join").payload["access_token"] == "new"
    assert tokens(rig) == []


def test_a_token_that_changes_while_disconnected_goes_with_the_next_url_and_join() -> None:
    rig = joined(access_token="old")
    assert "token=old" in rig.requests[-1].target
    rig.cut()
    rig.do(rig.client.set_access_token, "new")
    rig.advance(1.0)
    rig.do(rig.client.set_access_token, "newest")
    rig.open()
    assert "token=newest" in rig.requests[-1].target
    assert rig.last("phx_join").payload["access_token"] == "newest"


def test_the_tokens_parameter_can_have_another_name_or_none() -> None:
    for settings, query in (
        ({"token_param": "jwt"}, "?jwt=old&vsn=2.0.0"),
        ({"token_in": "none"}, "?vsn=2.0.0"),
    ):
        rig = realtime(access_token="old", **settings)
        rig.connect()
        assert rig.requests[-1].target.endswith(query)


def test_each_upgrade_offers_the_auth_token_of_the_moment() -> None:
    """As with `authToken` of phoenix.js 1.8, which `base64url.bearer.phx.` names."""
    rig = realtime(access_token="1234", token_in="subprotocol")
    rig.connect()
    assert rig.requests[-1].subprotocols == ("phoenix", "base64url.bearer.phx.MTIzNA")
    assert ("sec-websocket-protocol", "phoenix, base64url.bearer.phx.MTIzNA") in rig.requests[-1].headers
    rig.cut()
    rig.do(rig.client.set_access_token, "12345")
    rig.advance(1.0)
    rig.do(rig.client.set_access_token, "123456")  # after OpenTransport, before the upgrade
    rig.open()
    assert rig.requests[-1].subprotocols == ("phoenix", "base64url.bearer.phx.MTIzNDU2")
    rig.cut()
    rig.do(rig.client.set_access_token, None)
    rig.advance(2.0)
    rig.open()
    assert rig.requests[-1].subprotocols == ()
    assert "1234" not in "".join(request.target for request in rig.requests)


def test_an_auth_token_that_cannot_be_sent_is_refused_and_the_old_one_stays() -> None:
    rig = realtime(access_token="1234", token_in="subprotocol")
    with pytest.raises(LocalProtocolError, match="access_token cannot be sent as a subprotocol"):
        rig.do(rig.client.set_access_token, "is it?")
    rig.connect()
    assert rig.requests[-1].subprotocols == ("phoenix", "base64url.bearer.phx.MTIzNA")


def test_the_subprotocol_that_the_server_chose_is_accepted() -> None:
    for chosen in (None, "phoenix"):
        rig = realtime(access_token="1234", token_in="subprotocol")
        rig.do(rig.client.connect)
        rig.open_transport()
        rig.server.accept(subprotocol=chosen)
        rig.deliver(rig.server.data_to_send())
        assert rig.client.is_connected


def test_a_server_that_quotes_the_auth_token_is_not_quoted() -> None:
    rig = realtime(access_token="a-phoenix-token", token_in="subprotocol")
    rig.connect()
    bearer = rig.requests[-1].subprotocols[1]
    rig.cut(f"{bearer} is not good, nor is a-phoenix-token")
    (event,) = (one for one in rig.take() if isinstance(one, SocketDisconnected))
    assert event.reason == "base64url.bearer.phx.… is not good, nor is …"


def test_no_token_is_told_to_nobody_and_left_out_of_the_next_join_and_url() -> None:
    rig = joined(access_token="old")
    rig.do(rig.client.set_access_token, None)
    assert tokens(rig) == []
    rig.cut()
    rig.advance(1.0)
    rig.open()
    assert "token" not in rig.requests[-1].target
    assert "access_token" not in rig.last("phx_join").payload


def test_a_channel_that_is_being_left_is_told_nothing() -> None:
    rig = joined(access_token="old")
    rig.do(rig.client.leave, ROOM)
    rig.do(rig.client.set_access_token, "new")
    assert tokens(rig) == []


@pytest.mark.parametrize("token", ["", 123456789, b"s3cr3t", "s3cr3t\ud800"])
def test_a_token_that_cannot_be_one_is_refused_and_changes_nothing(token: Any) -> None:
    rig = joined(access_token="old")
    with pytest.raises(
        LocalProtocolError, match="access_token must be a non-empty Unicode string or None"
    ) as caught:
        rig.do(rig.client.set_access_token, token)
    assert "s3cr3t" not in str(caught.value)
    rig.cut()
    rig.advance(1.0)
    rig.open()
    assert "token=old" in rig.requests[-1].target


# ---------------------------------------------------------------------------------------------- replay


def stored(number: int, *, replayed: bool = False) -> dict[str, Any]:
    """A broadcast from the database, as Supabase sends it live and again in a replay."""
    meta: dict[str, Any] = {"id": f"00000000-0000-4000-8000-{number:012}"}
    if replayed:
        meta["replayed"] = True
    return {"type": "broadcast", "event": "news", "payload": {"n": number}, "meta": meta}


def heard(rig: Rig) -> list[tuple[int, bool]]:
    """The number of each broadcast, and whether it was replayed."""
    events = [event for event in rig.take() if isinstance(event, Broadcast)]
    return [(event.payload["n"], event.meta.get("replayed", False)) for event in events]


@both
def test_after_a_rejoin_the_replay_goes_on_from_the_last_broadcast_that_came(vsn: str) -> None:
    rig = joined(vsn=vsn, private=True, broadcast_replay={"since": 5, "limit": 3})
    config = rig.last("phx_join").payload["config"]
    assert config["broadcast"] == {"ack": False, "self": False, "replay": {"since": 5, "limit": 3}}
    for number in (1, 2):
        rig.say("1", None, ROOM, "broadcast", stored(number, replayed=True))
    rig.say("1", None, ROOM, "broadcast", stored(3))
    assert heard(rig) == [(1, True), (2, True), (3, False)]
    rig.cut()
    rig.advance(1.0)
    rig.open()
    rig.accept_join(ROOM)
    assert rig.last("phx_join").payload["config"] == config
    rejoined = rig.last("phx_join").join_ref
    for number in (2, 3, 4):
        rig.say(rejoined, None, ROOM, "broadcast", stored(number, replayed=True))
    rig.say(rejoined, None, ROOM, "broadcast", stored(5))
    assert heard(rig) == [(4, True), (5, False)]


def test_binary_broadcasts_are_replayed_once_too() -> None:
    rig = joined(private=True, broadcast_replay={})
    for _ in range(2):
        meta: dict[str, Any] = {"id": "an-id", "replayed": True}
        rig.say(None, None, ROOM, "broadcast", UserBroadcast("news", b"\0", meta))
    assert rig.take() == [Broadcast(ROOM, "news", b"\0", meta)]


def test_a_channel_that_asked_for_no_replay_passes_on_all_that_comes() -> None:
    rig = joined(private=True)
    for _ in range(2):
        rig.say("1", None, ROOM, "broadcast", stored(1, replayed=True))
    assert heard(rig) == [(1, True), (1, True)]


def test_a_channel_that_is_joined_anew_replays_anew() -> None:
    rig = joined(private=True, broadcast_replay={})
    rig.say("1", None, ROOM, "broadcast", stored(1, replayed=True))
    rig.do(rig.client.leave, ROOM)
    rig.reply(rig.last("phx_leave"))
    rig.join(ROOM, ChannelConfig(private=True, broadcast_replay={}), state={})
    rig.take()
    rig.say(rig.last("phx_join").join_ref, None, ROOM, "broadcast", stored(1, replayed=True))
    assert heard(rig) == [(1, True)]


def test_changes_that_the_server_did_not_confirm_are_reported() -> None:
    asked = {"event": "*", "schema": "public"}
    words = "the server's postgres_changes differ from those of the join"
    for confirmed, told in (([{"id": 7, **asked}], []), ([], [ProtocolViolation(words, ROOM)])):
        rig = online()
        rig.do(rig.client.join, ROOM, ChannelConfig(postgres_changes=[asked]))
        rig.reply(rig.last("phx_join"), "ok", {"postgres_changes": confirmed})
        assert [event for event in rig.take() if isinstance(event, ProtocolViolation)] == told
        assert rig.client.state_of(ROOM) is ChannelState.JOINED


@pytest.mark.parametrize("topic", ["room:a", "lobby", "Realtime:a", "realtime"])
def test_a_channel_config_is_for_topics_of_supabase(topic: str) -> None:
    rig = online()
    with pytest.raises(LocalProtocolError) as caught:
        rig.do(rig.client.join, topic, ChannelConfig())
    assert str(caught.value) == (
        f"a ChannelConfig is for Supabase, whose topics begin with 'realtime:': join 'realtime:{topic}', "
        f"or pass a mapping if '{topic}' is a plain Phoenix topic"
    )
    assert rig.client.channels == ()
    rig.do(rig.client.join, "realtime:a", {"user_id": "an application of Phoenix may have such topics"})
    assert rig.client.channels == ("realtime:a",)
