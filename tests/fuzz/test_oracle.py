"""The oracles see what is wrong: small bugs are put into the core, and an input that meets each is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from attrs import frozen
from msgspec.structs import replace

from fuzz import cost, framing, script, targets
from fuzz.framing import Mode
from fuzz.oracle import API_KEY, TOKEN, documented, tells_secret
from fuzz.script import record
from presence_proto import events
from presence_proto.events import OnlineUser, UserOnline, UserStatus
from presence_proto.hub.topic import Topic
from presence_proto.jarvis_room import JarvisRoom
from presence_proto.presence import PresenceChange, PresenceMap
from presence_proto.realtime_client import RealtimeClient
from presence_proto.roster import Roster
from presence_proto.secrets import Credentials
from presence_proto.serializer import Message, V2Serializer
from presence_proto.testing import ContractError
from presence_proto.websocket import TextMessage, WebSocket, protocol


@frozen
class Bug:
    """`method` of `owner` is replaced by what `change` makes of it. `data` meets the bug."""

    target: str
    owner: Any
    method: str
    change: Callable[[Any], Any]
    data: bytes
    complaint: str
    error: type[BaseException] = AssertionError


def forgets_single_bytes(right: Any) -> Any:
    return lambda self, data: right(self, data) if len(data) != 1 else None


def lies_about_the_topic(right: Any) -> Any:
    def wrong(self: Any, frame: Any) -> Any:
        message = right(self, frame)
        return Message(message.join_ref, message.ref, message.topic + "x", message.event, message.payload)

    return wrong


def lets_an_error_out(right: Any) -> Any:
    return lambda self, frame: {}[frame.data]


def is_quadratic(right: Any) -> Any:
    def wrong(self: Any, frame: Any) -> Any:
        for _ in range(len(frame.data) ** 2 // 50):
            len(frame.data)
        return right(self, frame)

    return wrong


def ignores_leaves(right: Any) -> Any:
    return lambda self, payload: right(self, {**payload, "leaves": {}})


def does_nothing(right: Any) -> Any:
    return lambda self, *args: None


def says_all(right: Any) -> Any:
    return lambda self, reason: reason


def leaves_ghosts(right: Any) -> Any:
    def wrong(self: Any, member: Any) -> None:
        del self._members[member]

    return wrong


def keeps_quiet(right: Any) -> Any:
    return lambda self, changes: right(self, changes)[:0]


def users(count: int) -> list[dict[str, str]]:
    return [{"user_id": f"u{n}", "display_name": "U"} for n in range(count)]


WELCOME = record("t", 0, json.dumps({"type": "welcome", "users": users(1)}))
CROWD = record("t", 0, json.dumps({"type": "welcome", "users": users(40)}))
OFFLINE = record("t", 0, '{"type":"user_offline","user_id":"u0"}')
REFUSAL = f"HTTP/1.1 500 Oops\r\nContent-Length: {len(API_KEY)}\r\n\r\n{API_KEY}"
DIFF = '{"joins":{},"leaves":{"a":{"metas":[{"phx_ref":"1"}]}}}'
JOIN = '["1","1","room:lobby","phx_join",{"user_id":"ann"}]'
PLAIN = b'["1","2","room:a","e",{}]\3'

BUGS = {
    "bytes": Bug(
        "websocket_client",
        WebSocket,
        "receive_data",
        forgets_single_bytes,
        b"\x81\x05hello" + framing.options(Mode.STREAM, cut=3),
        "other events",
    ),
    "round trip": Bug("serializer", V2Serializer, "decode", lies_about_the_topic, PLAIN, "another one"),
    "exception": Bug("serializer", V2Serializer, "decode", lets_an_error_out, PLAIN, "room:a", KeyError),
    "time": Bug("serializer", V2Serializer, "decode", is_quadratic, PLAIN, "calls"),
    "model": Bug(
        "presence",
        PresenceMap,
        "apply_diff",
        ignores_leaves,
        script.script(
            record("s", 0, '{"a":{"metas":[{"phx_ref":"1"}]}}'), record("d", 0, DIFF), options=b"\0"
        ),
        "phoenix.js",
    ),
    "bounds": Bug(
        "jarvis_client", JarvisRoom, "_check_size", does_nothing, CROWD + b"\0", "the roster is bounded"
    ),
    "fold": Bug(
        "jarvis_client",
        Roster,
        "apply",
        keeps_quiet,
        script.script(WELCOME, OFFLINE, options=b"\0"),
        "the roster is what the events say",
        ContractError,
    ),
    "recovery": Bug(
        "client",
        RealtimeClient,
        "_up",
        does_nothing,
        script.script(record("c", 0), options=b"\0\0"),
        "does not come back",
    ),
    "secrets": Bug("client", Credentials, "hide", says_all, record("h", 0, REFUSAL) + b"\1\0", "secret"),
    "ghosts": Bug("hub", Topic, "remove", leaves_ghosts, record("t", 0, JOIN) + b"\0\0", "left behind"),
}


@pytest.mark.long
@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_a_bug_is_seen(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    check = targets.load(bug.target).check
    monkeypatch.setattr(script, "sampled", lambda data, one_in: True)
    check(bug.data)
    monkeypatch.setattr(bug.owner, bug.method, bug.change(getattr(bug.owner, bug.method)))
    with pytest.raises(bug.error, match=bug.complaint):
        check(bug.data)


def test_a_message_over_the_limit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\x81\x40" + b"a" * 64 + framing.options(Mode.STREAM, small=True)
    check = targets.load("websocket_client").check
    check(data)
    monkeypatch.setattr(protocol, "TextMessage", lambda data: TextMessage(data * 2))
    with pytest.raises(AssertionError, match="limit"):
        check(data)


ANN = OnlineUser("ann", "Ann", UserStatus.AWAY, None, None, {"mood": "calm"})


@pytest.mark.parametrize(
    ("event", "right"),
    [
        (UserOnline(ANN), True),
        (UserOnline(replace(ANN, activity=1)), False),
        (UserOnline(replace(ANN, status="away")), False),
        (UserOnline(replace(ANN, extra={1: 2})), False),
        (events.Connected(1, (ANN,), False), True),
        (events.Connected(1, (ANN, None), False), False),
        (events.Connected(True, (ANN,), False), False),
        (events.SocketDisconnected("gone", None, None, 1.5), True),
        (events.SocketDisconnected("gone", None, None, "1.5"), False),
        (events.PresenceDiffed("room:a", (PresenceChange("a", "left", (), ()),)), True),
        (events.PresenceDiffed("room:a", (PresenceChange("a", "gone", (), ()),)), False),
        (events.PresenceDiffed("room:a", [PresenceChange("a", "left", (), ())]), False),
        (events.ChannelMessage("room:a", "e", object()), True),
        (events.ClientDisconnected(3, "gone", None), True),
        (events.ClientDisconnected("3", "gone", None), False),
    ],
)
def test_the_types_of_the_fields_are_checked(event: Any, right: bool) -> None:
    assert documented(event) is right


def test_a_secret_may_be_what_a_server_says_and_not_what_we_say() -> None:
    heard = json.dumps({"a": TOKEN}).encode()
    assert tells_secret(events.ChannelMessage("room:a", "e", {"a": TOKEN}), b"")
    assert not tells_secret(events.ChannelMessage("room:a", "e", {"a": TOKEN}), heard)
    assert tells_secret(events.ProtocolViolation(f"odd: {TOKEN}"), heard)
    assert tells_secret(events.Error(f"odd: {API_KEY}"), API_KEY.encode())


def test_what_work_costs() -> None:
    assert 100 <= cost.calls(lambda: [len("a") for _ in range(100)]) <= 110
    peak, kept = cost.kept(lambda: bytearray(100_000)[:10])
    assert peak >= 100_000
    assert kept < 10_000
