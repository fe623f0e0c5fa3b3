"""Messages and frames: the serializers carry what is right, and refuse what is not."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis.vendor.pretty import pretty

from examples import minimal, sample
from presence_proto.errors import RemoteProtocolError
from presence_proto.serializer import Message, UserBroadcast, serializer_for
from presence_proto.testing import strategies as ps
from presence_proto.testing.strategies import FRAME_FAULTS, MalformedFrame
from presence_proto.websocket import BinaryMessage, TextMessage
from serializers import frame, parts

SIDES: list[Any] = [(role, vsn) for role in ("client", "server") for vsn in ("1.0.0", "2.0.0")]
each_side = pytest.mark.parametrize(("role", "vsn"), SIDES)


def received(data: str | bytes) -> TextMessage | BinaryMessage:
    return TextMessage(data) if isinstance(data, str) else BinaryMessage(data)


# ---------------------------------------------------------------------------------------------- the core


@each_side
def test_every_message_arrives_as_it_was(role: ps.Role, vsn: ps.Vsn) -> None:
    writer, reader = (serializer_for(vsn, server=role == side) for side in ("server", "client"))

    @given(ps.messages(role, vsn=vsn))
    def check(message: Message) -> None:
        assert parts(reader.decode(frame(writer.encode(message)))) == parts(message)

    check()


@each_side
def test_every_frame_is_read(role: ps.Role, vsn: ps.Vsn) -> None:
    reader = serializer_for(vsn, server=role == "client")

    @given(ps.frames(role, vsn=vsn))
    def check(data: str | bytes) -> None:
        assert parts(reader.decode(received(data))) == naive(data, role)

    check()


def naive(data: str | bytes, role: ps.Role) -> tuple[Any, ...]:
    """The parts of a message, by other means than the core's."""
    if isinstance(data, str):
        value = json.loads(data)
        if isinstance(value, dict):
            value = [value.get(name) for name in ("join_ref", "ref", "topic", "event", "payload")]
        return tuple(value[:5])
    kind, lengths = data[0], {0: 3 + (role == "client"), 1: 4, 2: 2, 3: 5, 4: 3}[data[0]]
    at = 1 + lengths + (kind >= 3)
    fields = []
    for length in data[1 : 1 + lengths]:
        fields.append(data[at : at + length].decode())
        at += length
    rest: Any = data[at:]
    if kind >= 3:
        *fields, event, metadata = fields
        payload = json.loads(rest) if data[1 + lengths] else rest
        rest = UserBroadcast(event, payload, json.loads(metadata or "{}"))
        fields.append("broadcast")
    elif kind == 1:
        rest = {"status": fields.pop(), "response": rest}
        fields.append("phx_reply")
    if len(fields) == 3:
        fields.insert(1, "")  # a join_ref, and no ref
    *some_refs, topic, event = ["", "", *fields][-4:]
    return *(ref or None for ref in some_refs), topic, event, rest


@each_side
def test_every_malformed_frame_is_refused(role: ps.Role, vsn: ps.Vsn) -> None:
    reader = serializer_for(vsn, server=role == "client")

    @settings(max_examples=100)
    @given(ps.malformed_frames(role, vsn=vsn))
    def check(malformed: MalformedFrame) -> None:
        with pytest.raises(RemoteProtocolError):
            reader.decode(received(malformed.data))

    check()


# ---------------------------------------------------------------------------------------------- the promises


@pytest.mark.long
def test_the_protocol_occurs() -> None:
    said = Counter(message.event for message in sample(ps.messages("client", vsn="1.0.0"), 200))
    assert said.keys() >= {"phx_join", "phx_leave", "heartbeat", "access_token", "presence", "broadcast"}
    said = Counter(message.event for message in sample(ps.messages("server", vsn="1.0.0"), 200))
    assert said.keys() >= {"phx_reply", "presence_state", "presence_diff", "phx_close", "phx_error", "system"}
    payloads = [message.payload for message in sample(ps.messages(), 200)]
    assert any(isinstance(payload, bytes) for payload in payloads)
    assert any(isinstance(payload, UserBroadcast) for payload in payloads)
    payloads = [message.payload for message in sample(ps.messages(binary=False), 200)]
    assert not any(isinstance(payload, bytes | UserBroadcast) for payload in payloads)


@pytest.mark.long
def test_every_kind_of_binary_frame_occurs() -> None:
    for role, kinds in (("client", {0, 3}), ("server", {0, 1, 2, 4})):
        assert {data[0] for data in sample(ps.binary_frames(role), 200)} == kinds  # type: ignore[arg-type]  # a role
    assert all(isinstance(data, str) for data in sample(ps.frames(vsn="1.0.0"), 50))


@pytest.mark.long
def test_text_is_written_in_more_ways_than_one() -> None:
    texts = sample(ps.text_frames(), 200)
    assert any("\n" in text for text in texts)
    assert any("\\u00" in text for text in texts)
    assert any(not text.isascii() for text in texts)
    assert any(len(json.loads(text)) == 6 for text in texts)
    objects = [json.loads(text) for text in sample(ps.text_frames(vsn="1.0.0"), 200)]
    assert any("more0" in value for value in objects)
    assert len({tuple(value) for value in objects}) > 5


@pytest.mark.long
def test_every_fault_occurs() -> None:
    found = Counter(
        malformed.fault
        for role, vsn in SIDES
        for malformed in sample(ps.malformed_frames(role, vsn=vsn), 200)
    )
    assert found.keys() == set(FRAME_FAULTS)


# ---------------------------------------------------------------------------------------------- printing


def test_a_message_is_shown_with_its_payload() -> None:
    """Its repr keeps the payload to itself. A strategy has no secrets."""

    @settings(max_examples=500, database=None, phases=[Phase.generate, Phase.shrink])
    @given(ps.messages())
    def test(message: Message) -> None:
        assert message.event != "presence_state" or not message.payload

    with pytest.raises(AssertionError) as caught:
        test()
    shown = "".join(caught.value.__notes__[0].split())
    assert "message=Message(None,None,'room:7','presence_state',{'ann':{'metas':[]}},)" in shown


def test_frames_are_shown_as_they_are() -> None:
    assert minimal(ps.text_frames(), lambda text: True) == '[null,null,"room:7","phx_close",{}]'
    assert minimal(ps.text_frames(vsn="1.0.0"), lambda text: "more" in text) == (
        '{"topic":"room:7","event":"phx_close","payload":{},"ref":null,"more0":null}'
    )
    assert minimal(ps.binary_frames(), lambda data: data[0] == 4) == b"\x04\x06\x00\x00\x00room:7"
    example = minimal(ps.malformed_frames(), lambda malformed: isinstance(malformed.data, bytes))
    assert repr(example) == pretty(example) == "MalformedFrame('header cut short', b'')"
