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
from presence_proto.serializer import (
    Message,
    Serializer,
    UserBroadcast,
    encode_payload,
)
from presence_proto.websocket import BinaryMessage, TextMessage
from serializers import EVERY, V1_CLIENT, V1_SERVER, V2_CLIENT, V2_SERVER, frame, parts, text_of

if TYPE_CHECKING:
    from collections.abc import Callable


def nested(depth: int, *, closed: bool = True) -> str:
    return "[" * depth + "]" * (depth if closed else 0)


# ---------------------------------------------------------------------------------------------- malformed

MALFORMED_TEXT = [
    (V1_CLIENT, "", "a V1 message is malformed: Input data was truncated"),
    (V2_CLIENT, "", "a V2 message is malformed: Input data was truncated"),
    (V2_CLIENT, "null", "Expected `array`, got `null`"),
    (V2_CLIENT, '{"topic":"t"}', "Expected `array`, got `object`"),
    (V1_SERVER, '["1","2","t","e",{}]', "Expected `object`, got `array`"),
    (V2_SERVER, '["1","2","t","e"]', "at least length 5, got 4"),
    (V2_SERVER, "[]", "at least length 5, got 0"),
    (V2_SERVER, '[1.5,"2","t","e",{}]', "got `float` - at `join_ref`"),
    (V2_SERVER, '["1",true,"t","e",{}]', "got `bool` - at `ref`"),
    (V2_SERVER, '["1","2",null,"e",{}]', "Expected `str`, got `null` - at `topic`"),
    (V2_SERVER, '["1","2","t",5,{}]', "Expected `str`, got `int` - at `event`"),
    (V1_SERVER, '{"topic":null,"event":"e","payload":{},"ref":"1"}', "got `null` - at `$.topic`"),
    (V1_SERVER, '{"topic":"t","event":5,"payload":{},"ref":"1"}', "got `int` - at `$.event`"),
    (V1_SERVER, '{"topic":"t","event":"e","payload":{},"ref":[]}', "got `array` - at `$.ref`"),
    (V1_SERVER, '{"topic":"t","event":"e","ref":"1"}', "missing required field `payload`"),
    (V2_CLIENT, '["1","2","t","e",NaN]', "JSON is malformed: invalid character"),
    (V2_CLIENT, '["1","2","t","e",-Infinity]', "invalid"),
    (V2_CLIENT, '["1","2","t","e",1e999]', "Number out of range"),
    (V2_CLIENT, '["1","2","t","e",' + "1" * 5000 + "]", "Integer value out of range"),
    (V2_CLIENT, '["1","2","t","e",{}] x', "trailing characters"),
    (V2_CLIENT, '["1","2","t","e",{"a":}]', "JSON is malformed"),
    (V2_CLIENT, '["1","2","t","e","\\ud800 and more"]', "utf-16 surrogate pair"),
    (V2_CLIENT, '["1","2","\ud800","e",{}]', "surrogates not allowed"),
    (V2_CLIENT, '["1","2","t","e",' + nested(100_000) + "]", "a V2 message is malformed: nested too deeply"),
    (
        V1_CLIENT,
        '{"payload":' + nested(100_000, closed=False),
        "a V1 message is malformed: nested too deeply",
    ),
]


@pytest.mark.parametrize(("reader", "text", "fault"), MALFORMED_TEXT, ids=range(len(MALFORMED_TEXT)))
def test_malformed_text(reader: Serializer, text: str, fault: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        reader.decode(TextMessage(text))
    assert fault in str(caught.value)
    assert len(str(caught.value)) < 200
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


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
    (V2_CLIENT, b"\x04\x01\x01\x00\x01te", "the payload of a binary broadcast is malformed: Input data was"),
    (V2_CLIENT, b"\x04\x01\x01\x00\x01te{", "the payload of a binary broadcast is malformed"),
    (
        V2_CLIENT,
        b'\x04\x01\x01\x00\x01te"\xff"',
        "the payload of a binary broadcast is malformed: 'utf-8' codec",
    ),
    (V2_CLIENT, b"\x04\x01\x01\x00\x01te" + nested(100_000).encode(), "nested too deeply"),
    (
        V2_CLIENT,
        b"\x04\x01\x01\x02\x00te[]",
        "the metadata of a binary broadcast is malformed: Expected `object`",
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


NOT_JSON: list[tuple[Callable[[], Any], str]] = [
    (lambda: math.nan, "a number must be finite, not nan"),
    (lambda: -math.inf, "a number must be finite, not -inf"),
    (lambda: {"a": [math.inf]}, "a number must be finite, not inf"),
    (lambda: NotANumber.NAN, "a number must be finite, not nan"),
    (lambda: Point(math.nan), "a number must be finite, not nan"),
    (lambda: {"a": b"x"}, "bytes cannot stand inside JSON"),
    (lambda: (bytearray(b"x"),), "bytearray cannot stand inside JSON"),
    (lambda: [memoryview(b"x")], "memoryview cannot stand inside JSON"),
    (lambda: MappingProxyType({"a": b"x"}), "bytes cannot stand inside JSON"),
    (lambda: {1: 2}, "a key must be a string, not int"),
    (lambda: {"a": {None: 2}}, "a key must be a string, not NoneType"),
    (lambda: {b"a": 2}, "a key must be a string, not bytes"),
    (lambda: object(), "object is no JSON type"),
    (lambda: [Text("x")], "Text is no JSON type"),
    (lambda: {"a": ["\ud800"]}, "surrogates not allowed"),
    (lambda: {"\ud800": 1}, "surrogates not allowed"),
    (lambda: 10**5000, "4300 digits"),
    (circular, "circular, or nested too deeply"),
    (deep, "circular, or nested too deeply"),
]


@pytest.mark.parametrize(("make", "fault"), NOT_JSON, ids=range(len(NOT_JSON)))
def test_what_is_not_json_is_refused(make: Callable[[], Any], fault: str) -> None:
    value = make()
    with pytest.raises(LocalProtocolError) as caught:
        encode_payload(value)
    assert fault in str(caught.value)
    for serializer in EVERY:
        with pytest.raises(LocalProtocolError):
            serializer.encode(Message(None, None, "t", "e", {"inside": value}))


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
    (V1_CLIENT, Message("1", "2", "t", "e", b"x"), "bytes cannot stand inside JSON"),
    (
        V1_SERVER,
        Message(None, None, "t", "broadcast", UserBroadcast("e", b"x")),
        "bytes cannot stand inside JSON",
    ),
    (V2_CLIENT, Message("1", "2", "t", "phx_reply", {"status": "ok", "response": b""}), "bytes cannot stand"),
    (V2_CLIENT, Message(None, None, LONG, "e", b"x"), "the topic has 256 bytes; binary frames carry 255"),
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
    (V2_SERVER, Message("1", "2", "t", "e", b"x"), "a binary frame of kind 0 carries no ref"),
    (V2_SERVER, Message(None, "2", "t", "e", b"x"), "a binary frame of kind 2 carries no ref"),
    (V2_SERVER, Message("1", None, "t", "broadcast", UserBroadcast("e", {})), "kind 4 carries no join_ref"),
    (V2_CLIENT, Message("1", None, "t", "ev", UserBroadcast("e", {})), "has the event 'broadcast', not 'ev'"),
    (V2_CLIENT, Message(None, None, "t\ud800", "e", b"x"), "the topic has a lone surrogate"),
    (
        V2_CLIENT,
        Message(None, None, "t", "broadcast", UserBroadcast("e", math.nan)),
        "a number must be finite",
    ),
    (
        V2_CLIENT,
        Message(None, None, "t", "broadcast", UserBroadcast("e", {}, {"a": b""})),
        "bytes cannot stand",
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
    with pytest.raises(LocalProtocolError, match="surrogates not allowed"):
        serializer.encode(Message(None, None, "t\udfff", "e", {}))


def test_255_bytes_are_not_too_long() -> None:
    longest = "é" * 127 + "x"
    message = Message(longest, longest, longest, longest, b"data")
    assert parts(V2_SERVER.decode(frame(V2_CLIENT.encode(message)))) == parts(message)
