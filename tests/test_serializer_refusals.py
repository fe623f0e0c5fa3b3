"""What is refused: malformed frames of the peer, and what the application gives that a form cannot carry."""

from __future__ import annotations

import enum
import json
import math
from collections import OrderedDict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from presence_proto.errors import LocalProtocolError, RemoteProtocolError
from presence_proto.json_text import encode_payload, plain
from presence_proto.serializer import Message, Serializer, UserBroadcast
from presence_proto.websocket import BinaryMessage, TextMessage
from serializers import EVERY, V1_CLIENT, V1_SERVER, V2_CLIENT, V2_SERVER, frame, parts, text_of

if TYPE_CHECKING:
    from collections.abc import Callable


def nested(depth: int, *, closed: bool = True) -> str:
    return "[" * depth + "]" * (depth if closed else 0)


# ---------------------------------------------------------------------------------------------- malformed

DEEP = "is malformed: nested more than 100 levels deep (see max_nesting)"
RANGE = "it has a number or an escape that is out of range"

MALFORMED_TEXT = [
    (V1_CLIENT, "", "a V1 message is malformed: it is empty"),
    (V2_CLIENT, " \n", "a V2 message is malformed: it is empty"),
    (V2_CLIENT, "null", "a V2 message is malformed: it must be an array, not null"),
    (V2_CLIENT, "true", "it must be an array, not a boolean"),
    (V2_CLIENT, '{"topic":"t"}', "it must be an array, not an object"),
    (V1_SERVER, '["1","2","t","e",{}]', "a V1 message is malformed: it must be an object, not an array"),
    (V1_CLIENT, "5", "it must be an object, not a number"),
    (V1_CLIENT, "5.5", "it must be an object, not a number"),
    (V1_CLIENT, '"x"', "it must be an object, not a string"),
    (V2_SERVER, '["1","2","t","e"]', "it must have 5 elements, not 4"),
    (V2_SERVER, "[]", "it must have 5 elements, not 0"),
    (V2_SERVER, '[1.5,"2","t","e",{}]', "the join_ref must be a string, an integer or null, not a fraction"),
    (V2_SERVER, '["1",true,"t","e",{}]', "the ref must be a string, an integer or null, not a boolean"),
    (V2_SERVER, '["1","2",null,"e",{}]', "the topic must be a string, not null"),
    (V2_SERVER, '["1","2","t",5,{}]', "the event must be a string, not a number"),
    (V1_SERVER, '{"topic":null,"event":"e","payload":{},"ref":"1"}', "the topic must be a string, not null"),
    (V1_SERVER, '{"topic":"t","event":5,"payload":{},"ref":"1"}', "the event must be a string, not a number"),
    (
        V1_SERVER,
        '{"topic":"t","event":"e","payload":{},"ref":[]}',
        "the ref must be a string, an integer or null, not an array",
    ),
    (V1_SERVER, '{"topic":"t","event":"e","ref":"1"}', "a V1 message is malformed: it has no payload"),
    (V1_SERVER, '{"topic":"t","event":"e","payload":1}', "a V1 message is malformed: it has no ref"),
    (V1_CLIENT, '{"event":"e","payload":1}', "a V1 message is malformed: it has no topic"),
    (V2_CLIENT, '["1","2","t","e",NaN]', "a V2 message is malformed: NaN is not JSON"),
    (V2_CLIENT, '["1","2","t","e",-Infinity]', "-Infinity is not JSON"),
    (V2_CLIENT, '["1","2","t","e",1e999]', RANGE),
    (V2_CLIENT, '["1","2","t","e",' + "1" * 5000 + "]", RANGE),
    (V2_CLIENT, '["1","2","t","e",{}] x', "not JSON at character 21"),
    (V2_CLIENT, '["1","2","t","e",{"a":}]', "not JSON at character 22"),
    (V2_CLIENT, '["1","2","t","e",{"a":', "it ends too early"),
    (V2_CLIENT, '["1","2","t","e","\\ud800 and more"]', RANGE),
    (V2_CLIENT, '["1","2","\ud800","e",{}]', "not Unicode at character 10 (a lone surrogate)"),
    (V2_CLIENT, '["1","2","t","e",' + nested(100) + "]", "a V2 message " + DEEP),
    (V2_CLIENT, '["1","2","t","e",' + nested(100_000) + "]", "a V2 message " + DEEP),
    (V2_CLIENT, '["1","2","t","e",1,' + nested(100_000) + "]", "a V2 message " + DEEP),
    (V1_CLIENT, '{"payload":' + nested(100_000, closed=False), "a V1 message " + DEEP),
]


@pytest.mark.parametrize(("reader", "text", "fault"), MALFORMED_TEXT, ids=range(len(MALFORMED_TEXT)))
def test_malformed_text(reader: Serializer, text: str, fault: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        reader.decode(TextMessage(text))
    assert fault in str(caught.value)
    assert len(str(caught.value)) < 200
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


MALFORMED_BINARY = [
    (V1_CLIENT, b"\x02\x01\x02tev", "V1 has no binary frames"),
    (V2_CLIENT, b"", "a binary frame is empty"),
    (V2_CLIENT, b"\xff\x01\x02", "of kind 255, which no server sends"),
    (V2_CLIENT, b"\x03\x01\x01\x01\x02\x00\x0012tev", "of kind 3, which no server sends"),
    (V2_SERVER, b"\x01\x01\x01\x01\x0212tok", "of kind 1, which no client sends"),
    (V2_SERVER, b"\x02\x01\x02tev", "of kind 2, which no client sends"),
    (V2_SERVER, b"\x04\x01\x02\x00\x00tev", "of kind 4, which no client sends"),
    (V2_SERVER, b"\x00", "kind 0 ends in its header"),
    (V2_SERVER, b"\x00\x00\x00\x01", "kind 0 ends in its header"),
    (V2_SERVER, b"\x03\x00\x00\x01\x01\x00", "kind 3 ends in its header"),
    (V2_SERVER, b"\x00\x00\x00\x01\x02te", "kind 0 ends in its event"),
    (V2_SERVER, b"\x00\x00\x00\xff\x01te", "kind 0 ends in its topic"),
    (V2_SERVER, b"\x00\x00\x00\x01\x01", "kind 0 ends in its topic"),
    (V2_CLIENT, b"\x02\x01\x01\xffe", "the topic of a binary frame is not UTF-8"),
    (V2_CLIENT, b"\x02\x01\x03t\xed\xa0\x80", "the event of a binary frame is not UTF-8"),
    (V2_CLIENT, b"\x04\x01\x01\x00\x02tex", "unknown encoding 2"),
    (V2_CLIENT, b"\x04\x01\x01\x00\x01te", "the payload of a binary broadcast is malformed: it is empty"),
    (V2_CLIENT, b"\x04\x01\x01\x00\x01te{", "the payload of a binary broadcast is malformed"),
    (
        V2_CLIENT,
        b'\x04\x01\x01\x00\x01te"\xff"',
        "the payload of a binary broadcast is malformed: not UTF-8 at byte 1",
    ),
    (V2_CLIENT, b"\x04\x01\x01\x00\x01te" + nested(101).encode(), "broadcast " + DEEP),
    (V2_CLIENT, b"\x04\x01\x01\x00\x01te" + nested(100_000).encode(), "broadcast " + DEEP),
    (
        V2_CLIENT,
        b"\x04\x01\x01\x02\x00te[]",
        "the metadata of a binary broadcast is malformed: it must be an object, not an array",
    ),
    (V2_CLIENT, b"\x04\x01\x01\x01\x00te{", "the metadata of a binary broadcast is malformed"),
]


@pytest.mark.parametrize(("reader", "data", "fault"), MALFORMED_BINARY)
def test_malformed_binary(reader: Serializer, data: bytes, fault: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        reader.decode(BinaryMessage(data))
    assert fault in str(caught.value)
    assert len(str(caught.value)) < 200


# --------------------------------------------------------------------------------------------- cannot be sent


class Colour(enum.StrEnum):
    RED = "red"


class NotANumber(enum.Enum):
    NAN = math.nan


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not what it is"


class Fraction(float):
    __slots__ = ()


class Whole(int):
    pass


class Items(list[Any]):
    pass


class Point(msgspec.Struct):
    x: Any


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


def endless() -> Point:
    point = Point(None)
    point.x = point
    return point


def unset() -> Point:
    point = Point(1)
    del point.x
    return point


TOO_DEEP = "nested more than 250 levels deep, or circular"

NOT_JSON: list[tuple[Callable[[], Any], str]] = [
    (lambda: math.nan, "`nan` is not a finite number"),
    (lambda: -math.inf, "`-inf` is not a finite number"),
    (lambda: Fraction("nan"), "`nan` is not a finite number"),
    (lambda: {"a": [0, math.inf]}, '`inf` is not a finite number at key "a"[1]'),
    (lambda: {"a": NotANumber.NAN}, '`nan` is not a finite number at key "a"'),
    (lambda: Point(math.nan), '`nan` is not a finite number at key "x"'),
    (lambda: {"a": b"x"}, '`bytes` at key "a"'),
    (lambda: (bytearray(b"x"),), "`bytearray` at index 0"),
    (lambda: [[memoryview(b"x")]], "`memoryview` at index 0[0]"),
    (lambda: MappingProxyType({"a": b"x"}), '`bytes` at key "a"'),
    (lambda: {1: 2}, "a key of the type `int`"),
    (lambda: {"a": {None: 2}}, 'a key of the type `NoneType` at key "a"'),
    (lambda: {b"a": 2}, "a key of the type `bytes`"),
    (object, "`object`"),
    (lambda: {"at": object()}, '`object` at key "at"'),
    (lambda: {"users": [1, {"a.b": {Text("at"): object()}}]}, '`object` at key "users"[1]["a.b"]["at"]'),
    (lambda: {"k" * 65: object()}, "`object` at key a key of 65 characters"),
    (lambda: {"at": Point(Point(object()))}, '`object` at key "at"'),
    (lambda: {"at": unset()}, '`Point` at key "at"'),
    (lambda: {"at": Point({(1, 2): 3})}, 'a key of the type `tuple` at key "at"["x"]'),
    (lambda: {"set": {object()}}, '`object` at key "set"'),
    (lambda: Items([Text("x"), object()]), "`object` at index 1"),
    (lambda: {"at": {("a", "b"): 1}.items()}, '`dict_items` at key "at"'),
    (lambda: {"a": ["\ud800"]}, "a string has a lone surrogate, which is not UTF-8"),
    (lambda: {"\ud800": 1}, "a string has a lone surrogate, which is not UTF-8"),
    (lambda: 10**5000, "an integer has too many digits"),
    (circular, TOO_DEEP),
    (endless, TOO_DEEP),
    (deep, TOO_DEEP),
]


@pytest.mark.parametrize(("make", "fault"), NOT_JSON, ids=range(len(NOT_JSON)))
def test_what_is_not_json_is_refused(make: Callable[[], Any], fault: str) -> None:
    value = make()
    with pytest.raises(LocalProtocolError) as caught:
        encode_payload(value)
    assert str(caught.value) == f"payload is not JSON-serializable: {fault}"
    assert caught.value.__suppress_context__
    for serializer in EVERY:
        with pytest.raises(LocalProtocolError):
            serializer.encode(Message(None, None, "t", "e", {"inside": value}))


def test_subclasses_are_their_base() -> None:
    same: dict[str, Any] = {"a": [1, {"b": 1.5}], "c": "x"}
    assert plain(same) is same, "nothing is copied"
    payload = {
        Text("k"): [Text("x"), Fraction(0.5), Whole(7), True, {"in": Items([Text("y")])}],
        "same": same,
    }
    for value in (payload, OrderedDict(payload), MappingProxyType(payload)):
        assert json.loads(bytes(encode_payload(value))) == {
            "k": ["x", 0.5, 7, True, {"in": ["y"]}],
            "same": same,
        }
    assert bytes(encode_payload([Whole(1), Fraction(1)])) == b"[1,1.0]"
    for serializer in EVERY:
        value = text_of(serializer, Message(Text("1"), Text("2"), Text("t"), Text("e"), Text("p")))
        assert "not what it is" not in json.dumps(value)


def test_a_ref_that_is_not_json() -> None:
    ref: Any = object()
    for serializer in EVERY:
        with pytest.raises(LocalProtocolError, match="payload is not JSON-serializable: `object`"):
            serializer.encode(Message(None, ref, "t", "e", {}))


def test_payloads_may_have_a_number_of_levels() -> None:
    def levels(count: int) -> Any:
        value: Any = 1
        for level in range(count):
            value = {"a": value} if level % 2 else [0, value]
        return value

    for count, limit in ((0, 0), (1, 1), (90, 90), (250, 250)):
        assert json.loads(bytes(encode_payload(levels(count), limit))) == levels(count)
        with pytest.raises(LocalProtocolError, match=f"nested more than {limit} levels deep, or circular"):
            encode_payload(levels(count + 1), limit)


def test_what_msgspec_knows_is_taken() -> None:
    payload = {
        "enum": Colour.RED,
        Colour.RED: (1, 2),
        "date": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        "set": {1},
        "struct": Point({"y": None}),
        "mapping": MappingProxyType({"a": OrderedDict(b=1)}),
        "raw": encode_payload([1]),
        "raw in a mapping": MappingProxyType({"a": encode_payload({"b": 2})}),
        "mapping in a struct": Point(MappingProxyType({"a": 1})),
    }
    expected = {
        "enum": "red",
        "red": [1, 2],
        "date": "2024-01-02T03:04:05Z",
        "set": [1],
        "struct": {"x": {"y": None}},
        "mapping": {"a": {"b": 1}},
        "raw": [1],
        "raw in a mapping": {"a": {"b": 2}},
        "mapping in a struct": {"x": {"a": 1}},
    }
    assert json.loads(bytes(encode_payload(payload))) == expected
    for serializer in EVERY:
        value = text_of(serializer, Message(None, "1", "t", "e", payload))
        assert (value["payload"] if isinstance(value, dict) else value[4]) == expected


def test_a_frozen_payload_stands_anywhere() -> None:
    raw = encode_payload({"a": [1, "é"]})
    message = Message("1", "2", "t", "broadcast", UserBroadcast("e", raw, {"m": encode_payload(1)}))
    decoded = V2_SERVER.decode(frame(V2_CLIENT.encode(message)))
    assert decoded.payload == UserBroadcast("e", {"a": [1, "é"]}, {"m": 1})
    assert text_of(V2_CLIENT, Message(None, None, "t", "e", raw))[4] == {"a": [1, "é"]}
    assert text_of(V1_SERVER, Message(None, None, "t", "e", {"x": [raw]}))["payload"] == {
        "x": [{"a": [1, "é"]}]
    }


LONG = "é" * 128  # 256 bytes

CANNOT_CARRY: list[tuple[Serializer, Message, str]] = [
    (
        V1_CLIENT,
        Message("1", "2", "t", "e", b"x"),
        "V1 has no binary frames: a payload of bytes needs vsn 2.0.0",
    ),
    (
        V1_SERVER,
        Message(None, None, "t", "broadcast", UserBroadcast("e", b"x")),
        "V1 has no binary frames: a payload of bytes needs vsn 2.0.0",
    ),
    (V2_CLIENT, Message("1", "2", "t", "phx_reply", {"status": "ok", "response": b""}), "`bytes` at key"),
    (V2_CLIENT, Message(None, None, LONG, "e", b"x"), "the topic has 256 bytes; binary frames allow 255"),
    (V2_CLIENT, Message(None, None, "t", LONG, b"x"), "the event has 256 bytes"),
    (V2_CLIENT, Message(LONG, None, "t", "e", b"x"), "the join_ref has 256 bytes"),
    (V2_CLIENT, Message(None, LONG, "t", "e", b"x"), "the ref has 256 bytes"),
    (V2_SERVER, Message("1", "2", "t", "phx_reply", {"status": LONG, "response": b""}), "the status has 256"),
    (
        V2_SERVER,
        Message(None, None, "t", "broadcast", UserBroadcast(LONG, {})),
        "the user_event has 256 bytes",
    ),
    (
        V2_SERVER,
        Message(None, None, "t", "broadcast", UserBroadcast("e", {}, {"m": LONG})),
        "the metadata has",
    ),
    (V2_SERVER, Message("1", "2", "t", "e", b"x"), "a binary frame of kind 0 cannot carry a ref"),
    (V2_SERVER, Message(None, "2", "t", "e", b"x"), "a binary frame of kind 2 cannot carry a ref"),
    (
        V2_SERVER,
        Message("1", None, "t", "broadcast", UserBroadcast("e", {})),
        "kind 4 cannot carry a join_ref",
    ),
    (
        V2_CLIENT,
        Message("1", None, "t", "ev", UserBroadcast("e", {})),
        "must have the event 'broadcast', not 'ev'",
    ),
    (V2_CLIENT, Message(None, None, "t\ud800", "e", b"x"), "the topic has a lone surrogate"),
    (
        V2_CLIENT,
        Message(None, None, "t", "broadcast", UserBroadcast("e", math.nan)),
        "`nan` is not a finite number",
    ),
    (
        V2_CLIENT,
        Message(None, None, "t", "broadcast", UserBroadcast("e", {}, {"a": b""})),
        '`bytes` at key "a"',
    ),
]


@pytest.mark.parametrize(("writer", "message", "fault"), CANNOT_CARRY)
def test_what_a_form_cannot_carry(writer: Serializer, message: Message, fault: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        writer.encode(message)
    assert fault in str(caught.value)


@pytest.mark.parametrize("serializer", EVERY)
def test_names_must_be_strings(serializer: Serializer) -> None:
    topic: Any = None
    event: Any = 5
    with pytest.raises(LocalProtocolError, match="a topic must be a string, not NoneType"):
        serializer.encode(Message(None, None, topic, "e", {}))
    with pytest.raises(LocalProtocolError, match="an event must be a string, not int"):
        serializer.encode(Message(None, None, "t", event, {}))
    with pytest.raises(LocalProtocolError, match="an event must be a string, not int"):
        serializer.encode(Message(None, None, "t", "broadcast", UserBroadcast(event, {})))
    with pytest.raises(LocalProtocolError, match="a lone surrogate"):
        serializer.encode(Message(None, None, "t\udfff", "e", {}))


def test_255_bytes_are_not_too_long() -> None:
    longest = "é" * 127 + "x"
    message = Message(longest, longest, longest, longest, b"data")
    assert parts(V2_SERVER.decode(frame(V2_CLIENT.encode(message)))) == parts(message)
