"""Every recorded message through the serializers, and the presence that comes of it: as phoenix.js had it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

import golden_expectations
import golden_files
import node_tools
from presence_proto.errors import RemoteProtocolError
from presence_proto.presence import PresenceMap
from presence_proto.serializer import Message, Serializer, UserBroadcast, serializer_for
from presence_proto.websocket import BinaryMessage, TextMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

# What clients sent that made the server close the socket, and what we say of it.
MALFORMED = {
    "l_array_short": "it must have 5 elements, not 3",
    "l_badjson": "not JSON at character 1",
    "l_bin_garbage": "kind 255",
    "l_bin_short": "ends in its header",
    "l_empty_text": "a V2 message is malformed: it is empty",
    "l_json_not_array": "it must be an array, not an object",
    "l_v1_array": "it must be an object, not an array",
    "l_v1_binary": "V1 has no binary frames",
    "q_nojoinref_v1": "it has no ref",
}


def frames(name: str) -> Iterator[tuple[golden_files.Line, str | None]]:
    """The messages of a recording, each with the `vsn` of its connection."""
    vsn = golden_expectations.vsn_of(name)
    for line in golden_files.msgs(name):
        if line.kind in ("text", "binary"):
            yield line, vsn


def frame_of(line: golden_files.Line) -> TextMessage | BinaryMessage:
    return BinaryMessage(line.data) if isinstance(line.data, bytes) else TextMessage(line.data)


def reader(line: golden_files.Line, vsn: str | None) -> Serializer:
    return serializer_for(vsn, server=line.dir == "out")


def writer(line: golden_files.Line, vsn: str | None) -> Serializer:
    return serializer_for(vsn, server=line.dir == "in")


class Malformed(Exception):  # noqa: N818 - an answer, not an error
    """A message that no rule of the protocol can read."""


def by_hand(line: golden_files.Line, vsn: str | None) -> Message:
    """What a message says, read without the help of the serializers. Raises `Malformed`."""
    if isinstance(line.data, bytes):
        if vsn != "2.0.0":
            raise Malformed("V1 has no binary messages")
        return binary_by_hand(line.data, from_client=line.dir == "out")
    try:
        value = json.loads(line.data)
    except ValueError as exc:
        raise Malformed(str(exc)) from exc
    if vsn == "2.0.0":
        if not isinstance(value, list) or len(value) < 5:
            raise Malformed("not an array of five")
        join_ref, ref, topic, event, payload = value[:5]
        return Message(join_ref, ref, topic, event, payload)
    if not isinstance(value, dict) or not {"topic", "event", "payload", "ref"} <= set(value):
        raise Malformed("not an object with the four fields")
    return Message(value.get("join_ref"), value["ref"], value["topic"], value["event"], value["payload"])


def binary_by_hand(data: bytes, *, from_client: bool) -> Message:
    kinds = {
        0: ("join_ref", "ref", "topic", "event") if from_client else ("join_ref", "topic", "event"),
        1: ("join_ref", "ref", "topic", "status"),
        2: ("topic", "event"),
        3: ("join_ref", "ref", "topic", "user_event", "metadata"),
        4: ("topic", "user_event", "metadata"),
    }
    if not data or data[0] not in kinds:
        raise Malformed("no such kind")
    kind, names = data[0], kinds[data[0]]
    sizes, rest = data[1 : 1 + len(names)], data[1 + len(names) :]
    is_json = False
    if kind in (3, 4):
        is_json, rest = rest[:1] == b"\1", rest[1:]
    if len(sizes) < len(names) or len(rest) < sum(sizes):
        raise Malformed("too short")
    field: dict[str, Any] = {"join_ref": None, "ref": None}
    for name, size in zip(names, sizes, strict=True):
        field[name], rest = rest[:size].decode(), rest[size:]
    payload: Any = json.loads(rest) if is_json else rest
    if kind == 1:
        field["event"], payload = "phx_reply", {"status": field["status"], "response": rest}
    elif kind in (3, 4):
        metadata = json.loads(field["metadata"] or "{}")
        field["event"], payload = "broadcast", UserBroadcast(field["user_event"], payload, metadata)
    return Message(field["join_ref"], field["ref"], field["topic"], field["event"], payload)


def is_malformed(line: golden_files.Line, vsn: str | None) -> bool:
    """Whether the recorded client sent this to see what happens. What a server sent never is."""
    if line.dir == "in":
        return False
    try:
        by_hand(line, vsn)
    except Malformed:
        return True
    return False


@pytest.mark.parametrize("name", golden_files.names())
def test_decodes_to_what_was_sent(name: str) -> None:
    for line, vsn in frames(name):
        if is_malformed(line, vsn):
            with pytest.raises(RemoteProtocolError):
                reader(line, vsn).decode(frame_of(line))
        else:
            assert fields(reader(line, vsn).decode(frame_of(line))) == fields(by_hand(line, vsn)), line


def fields(message: Message) -> tuple[Any, ...]:
    """The message with its payload, which its repr keeps to itself."""
    return message.join_ref, message.ref, message.topic, message.event, message.payload


@pytest.mark.parametrize("name", MALFORMED)
def test_refuses_what_the_server_refused(name: str) -> None:
    closes = [line.code for line in golden_files.msgs(name) if line.kind == "close"]
    assert closes == [1011]
    [(line, vsn)] = [(line, vsn) for line, vsn in frames(name) if is_malformed(line, vsn)]
    with pytest.raises(RemoteProtocolError, match=re.escape(MALFORMED[name])):
        reader(line, vsn).decode(frame_of(line))


def what_is_read(value: Any) -> Any:
    """Without what a server passes over: a sixth element, another field, a join_ref that is null."""
    if isinstance(value, list):
        return value[:5]
    known = {name: value[name] for name in ("topic", "event", "payload", "ref")}
    return known if value.get("join_ref") is None else {**known, "join_ref": value["join_ref"]}


@pytest.mark.parametrize("name", golden_files.names())
def test_encodes_what_the_other_side_took(name: str) -> None:
    for line, vsn in frames(name):
        if is_malformed(line, vsn):
            continue
        encoded = writer(line, vsn).encode(reader(line, vsn).decode(frame_of(line)))
        if isinstance(line.data, bytes):
            assert (encoded.data, encoded.text) == (line.data, False)
        else:
            assert json.loads(encoded.data) == what_is_read(json.loads(line.data))
            assert encoded.text


def test_the_recordings_hold_every_form() -> None:
    seen = {
        (vsn, line.dir, line.data[0] if isinstance(line.data, bytes) else "text")
        for name in golden_files.names()
        for line, vsn in frames(name)
        if not is_malformed(line, vsn)
    }
    assert seen == {
        ("1.0.0", "in", "text"),
        ("1.0.0", "out", "text"),
        ("2.0.0", "in", "text"),
        ("2.0.0", "out", "text"),
        ("2.0.0", "out", 0),
        ("2.0.0", "in", 0),
        ("2.0.0", "in", 1),
        ("2.0.0", "in", 2),
        ("2.0.0", "out", 3),
        ("2.0.0", "in", 4),
    }


class PhoenixPresence:
    """`Presence` of phoenix.js around our map: diffs wait for the state of their join."""

    def __init__(self) -> None:
        self.map = PresenceMap()
        self.join_ref: object = None  # of the channel
        self.synced: object = None  # the join_ref that the last state came for
        self.waiting: list[Any] = []

    @property
    def is_pending(self) -> bool:
        return self.synced is None or self.synced != self.join_ref

    def receive(self, message: Message) -> None:
        if message.event == "presence_state":
            self.synced = self.join_ref
            self.map.apply_state(message.payload)
            for diff in self.waiting:
                self.map.apply_diff(diff)
            self.waiting = []
        elif self.is_pending:
            self.waiting.append(message.payload)
        else:
            self.map.apply_diff(message.payload)

    def state(self) -> dict[str, Any]:
        return {key: {"metas": [*metas], **self.map.extra(key)} for key, metas in self.map.items()}


@pytest.mark.parametrize("name", golden_expectations.names())
def test_presence_after_every_line(name: str) -> None:
    expected = {entry.line: entry for entry in golden_expectations.expected(name)}
    presences: dict[str, PhoenixPresence] = {}
    checked = []
    for line, vsn in frames(name):
        if is_malformed(line, vsn):
            continue
        message = reader(line, vsn).decode(frame_of(line))
        presence = presences.setdefault(message.topic, PhoenixPresence())
        if line.dir == "out":
            if message.event == "phx_join":
                presence.join_ref = message.ref
        elif message.event in ("presence_state", "presence_diff"):
            presence.receive(message)
        if line.number in expected:
            entry = expected[line.number]
            assert message.topic == entry.topic
            assert (presence.is_pending, presence.state()) == (entry.pending, entry.state), line
            checked.append(line.number)
    assert checked == sorted(expected)


@pytest.mark.long
@pytest.mark.interop
def test_the_expected_files_are_what_phoenix_js_says() -> None:
    node_tools.require_node()
    names = golden_files.names(golden_files.EXPECTED)
    computed = golden_expectations.compute(names)
    assert [name for name in names if computed[name] != golden_files.expected(name)] == []


def test_the_expected_files_hold_both_versions_and_a_pending_diff() -> None:
    names = golden_files.names(golden_files.EXPECTED)
    assert any(entry.pending for name in names for entry in golden_files.expected(name))
    vsns = {vsn for name in names for _, vsn in frames(name)}
    assert vsns == {"1.0.0", "2.0.0"}
