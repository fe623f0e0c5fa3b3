"""What each form carries, and that it arrives."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from presence_proto.errors import LocalProtocolError, PresenceError, RemoteProtocolError
from presence_proto.json_text import encode_payload
from presence_proto.presence import EncodedDiff
from presence_proto.serializer import (
    EncodedFrame,
    Message,
    Ref,
    Serializer,
    SupabasePush,
    UserBroadcast,
    V1Serializer,
    V2Serializer,
    serializer_for,
)
from presence_proto.testing import strategies as ps
from presence_proto.websocket import BinaryMessage, TextMessage
from serializers import EVERY, PAIRS, V1_CLIENT, V1_SERVER, V2_CLIENT, V2_SERVER, frame, parts, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

# ---------------------------------------------------------------------------------------------- examples


def test_v1_from_a_client_carries_the_join_ref() -> None:
    message = Message("1", "2", "room:x", "ping", {"a": 1})
    expected = {"topic": "room:x", "event": "ping", "payload": {"a": 1}, "ref": "2", "join_ref": "1"}
    assert text_of(V1_CLIENT, message) == expected


def test_v1_from_a_server_has_no_join_ref() -> None:
    message = Message("1", "2", "room:x", "phx_reply", {})
    assert text_of(V1_SERVER, message) == {"topic": "room:x", "event": "phx_reply", "payload": {}, "ref": "2"}


@pytest.mark.parametrize("serializer", [V1_CLIENT, V1_SERVER])
def test_v1_always_has_a_ref(serializer: Serializer) -> None:
    assert text_of(serializer, Message(None, None, "t", "e", {})) == {
        "topic": "t",
        "event": "e",
        "payload": {},
        "ref": None,
    }


def test_v1_reads_a_server_that_leaves_out_the_ref() -> None:
    text = TextMessage('{"topic":"t","event":"e","payload":[1]}')
    assert parts(V1_CLIENT.decode(text)) == (None, None, "t", "e", [1])
    with pytest.raises(RemoteProtocolError, match="it has no ref"):
        V1_SERVER.decode(text)


def test_v1_passes_over_other_fields() -> None:
    text = TextMessage('{"x":[{}],"topic":"t","event":"e","payload":{},"ref":"1","join_ref":"7"}')
    for serializer in (V1_CLIENT, V1_SERVER):
        assert parts(serializer.decode(text)) == ("7", "1", "t", "e", {})


@pytest.mark.parametrize("serializer", [V2_CLIENT, V2_SERVER])
def test_v2_text(serializer: Serializer) -> None:
    assert text_of(serializer, Message("1", None, "t", "e", {"a": [1, None]})) == [
        "1",
        None,
        "t",
        "e",
        {"a": [1, None]},
    ]


def test_v2_passes_over_further_elements() -> None:
    message = V2_CLIENT.decode(TextMessage('["1","2","t","e",{"a":1},"extra",[]]'))
    assert parts(message) == ("1", "2", "t", "e", {"a": 1})


@pytest.mark.parametrize(
    "text", ['[7,8,"t","e",{}]', '{"topic":"t","event":"e","payload":{},"ref":8,"join_ref":7}']
)
def test_refs_may_be_integers(text: str) -> None:
    serializer = serializer_for("2.0.0" if text[0] == "[" else None, server=True)
    assert parts(serializer.decode(TextMessage(text))) == (7, 8, "t", "e", {})


def test_the_last_of_duplicate_keys_counts() -> None:
    message = V1_CLIENT.decode(
        TextMessage('{"topic":"a","topic":"t","event":"e","payload":{"x":1,"x":2},"ref":null}')
    )
    assert parts(message) == (None, None, "t", "e", {"x": 2})


def test_numbers_of_any_size() -> None:
    payload = {"int": 10**40, "float": 1.5e300, "negative": -(2**63) - 1}
    for writer, reader in PAIRS:
        assert reader.decode(frame(writer.encode(Message(None, "1", "t", "e", payload)))).payload == payload


@pytest.mark.parametrize("payload", [None, [], "text", 5, 1.5, True, {}])
def test_a_payload_is_any_json(payload: Any) -> None:
    for writer, reader in PAIRS:
        assert reader.decode(frame(writer.encode(Message(None, "1", "t", "e", payload)))).payload == payload


BINARY = [
    # A push to a server: kind, four lengths, the strings, the data.
    (V2_CLIENT, Message("1", "2", "t:é", "ev", b"\xff\x00"), b"\x00\x01\x01\x04\x0212t:\xc3\xa9ev\xff\x00"),
    (V2_CLIENT, Message(None, None, "t", "e", b""), b"\x00\x00\x00\x01\x01te"),
    # A push from one has no ref.
    (V2_SERVER, Message("1", None, "t", "ev", b"x"), b"\x00\x01\x01\x021tevx"),
    (
        V2_SERVER,
        Message("1", "2", "t", "phx_reply", {"status": "ok", "response": b"x"}),
        b"\x01\x01\x01\x01\x0212tokx",
    ),
    (V2_SERVER, Message(None, None, "t", "ev", b"x"), b"\x02\x01\x02tevx"),
    # Then the user broadcasts of Supabase: the encoding comes after the lengths.
    (
        V2_CLIENT,
        Message("1", "2", "t", "broadcast", UserBroadcast("ev", {"a": 1}, {"persist": True})),
        b'\x03\x01\x01\x01\x02\x10\x0112tev{"persist":true}{"a":1}',
    ),
    (
        V2_CLIENT,
        Message("1", "2", "t", "broadcast", UserBroadcast("ev", b"\x00\xff")),
        b"\x03\x01\x01\x01\x02\x00\x0012tev\x00\xff",
    ),
    (
        V2_SERVER,
        Message(None, None, "t", "broadcast", UserBroadcast("ev", [None], {"id": "7"})),
        b'\x04\x01\x02\x0a\x01tev{"id":"7"}[null]',
    ),
    (
        V2_SERVER,
        Message(None, None, "t", "broadcast", UserBroadcast("ev", b"raw")),
        b"\x04\x01\x02\x00\x00tevraw",
    ),
]


@pytest.mark.parametrize(("writer", "message", "data"), BINARY)
def test_binary_frames(writer: Serializer, message: Message, data: bytes) -> None:
    reader = V2_SERVER if writer is V2_CLIENT else V2_CLIENT
    assert writer.encode(message) == EncodedFrame(data, False)
    assert parts(reader.decode(BinaryMessage(data))) == parts(message)


def test_integer_refs_become_strings_in_binary_frames() -> None:
    encoded = V2_CLIENT.encode(Message(12, 345, "t", "e", b""))
    assert parts(V2_SERVER.decode(frame(encoded))) == ("12", "345", "t", "e", b"")


def test_empty_refs_of_binary_frames_are_none() -> None:
    assert parts(V2_SERVER.decode(BinaryMessage(b"\x00\x00\x00\x01\x01te"))) == (None, None, "t", "e", b"")


@pytest.mark.parametrize("metadata", [{}, {"id": "7"}])
def test_v1_carries_a_user_broadcast_of_json_as_an_object(metadata: dict[str, Any]) -> None:
    message = Message(None, None, "t", "broadcast", UserBroadcast("ev", {"a": 1}, metadata))
    assert text_of(V1_SERVER, message)["payload"] == {
        "type": "broadcast",
        "event": "ev",
        "payload": {"a": 1},
        **({"meta": metadata} if metadata else {}),
    }


def test_only_a_binary_reply_of_the_usual_shape_is_binary() -> None:
    json_reply = {"status": "ok", "response": {"a": 1}}
    assert text_of(V2_SERVER, Message("1", "2", "t", "phx_reply", json_reply))[4] == json_reply
    assert text_of(V2_SERVER, Message("1", "2", "t", "phx_reply", ["status"]))[4] == ["status"]
    for payload in (
        {"status": 1, "response": b""},
        {"status": "ok", "response": b"", "more": 1},
        {"response": b""},
    ):
        with pytest.raises(LocalProtocolError, match='`bytes` at key "response"'):
            V2_SERVER.encode(Message("1", "2", "t", "phx_reply", payload))


def test_which_serializer() -> None:
    assert isinstance(serializer_for(None, server=False), V1Serializer)
    assert isinstance(serializer_for("1.0.0", server=False), V1Serializer)
    assert isinstance(serializer_for("2.0.0", server=True), V2Serializer)
    assert (V1Serializer.vsn, V2Serializer.vsn) == ("1.0.0", "2.0.0")


@pytest.mark.parametrize("vsn", ["", "1", "2", "2.1.0", "3.0.0", "abc", "x" * 1000])
def test_unknown_vsn(vsn: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"vsn must be '1.0.0' or '2.0.0', not '") as caught:
        serializer_for(vsn, server=True)
    assert len(str(caught.value)) < 80


def test_reprs_keep_the_payload_to_themselves() -> None:
    message = Message("1", None, "t", "phx_join", {"access_token": "secret"})
    assert repr(message) == "Message(join_ref='1', ref=None, topic='t', event='phx_join', payload=<dict>)"
    assert repr(V1_CLIENT.encode(message)) == "EncodedFrame(data=<94 bytes>, text=True)"


def test_messages_are_frozen_values() -> None:
    message = Message("1", "2", "t", "e", {})
    assert message == Message("1", "2", "t", "e", {})
    assert message != Message("1", "2", "t", "e", [])
    with pytest.raises(AttributeError):
        message.topic = "u"  # type: ignore[misc]  # the point of the test


# ---------------------------------------------------------------------------------------------- properties

texts = ps.texts()
values = ps.json_values()
refs = st.none() | texts | st.integers()
binary_refs = st.none() | ps.texts(min_size=1)  # an empty one means none there


@given(refs, refs, texts, texts, values)
def test_text_round_trip(join_ref: Ref, ref: Ref, topic: str, event: str, payload: Any) -> None:
    message = Message(join_ref, ref, topic, event, payload)
    for writer, reader in PAIRS:
        decoded = reader.decode(frame(writer.encode(message)))
        # V1 servers say no join_ref.
        expected = message if writer is not V1_SERVER else Message(None, ref, topic, event, payload)
        assert parts(decoded) == parts(expected)


@st.composite
def binary_messages(draw: st.DrawFn) -> tuple[Serializer, Serializer, Message]:
    """A message that has a binary frame, with its writer and its reader."""
    topic, event = draw(texts), draw(texts)
    join_ref, ref = draw(binary_refs), draw(binary_refs)
    data = draw(st.binary(max_size=20))
    user = draw(ps.user_broadcasts())
    client, server = (V2_CLIENT, V2_SERVER), (V2_SERVER, V2_CLIENT)
    cases: list[tuple[Serializer, Serializer, Message]] = [
        (*client, Message(join_ref, ref, topic, event, data)),
        (*client, Message(join_ref, ref, topic, "broadcast", user)),
        (*server, Message(join_ref, None, topic, event, data)),
        (*server, Message(join_ref, ref, topic, "phx_reply", {"status": event, "response": data})),
        (*server, Message(None, None, topic, event, data)),
        (*server, Message(None, None, topic, "broadcast", user)),
    ]
    return draw(st.sampled_from(cases))


@given(binary_messages())
def test_binary_round_trip(case: tuple[Serializer, Serializer, Message]) -> None:
    writer, reader, message = case
    encoded = writer.encode(message)
    assert not encoded.text
    assert parts(reader.decode(frame(encoded))) == parts(message)


@given(binary_messages(), st.data())
def test_every_cut_of_a_header_is_noticed(
    case: tuple[Serializer, Serializer, Message], data: st.DataObject
) -> None:
    writer, reader, message = case
    encoded = writer.encode(message).data
    size = len(encoded) - len(payload_bytes(message.payload))
    cut = data.draw(st.integers(0, size - 1))
    with pytest.raises(RemoteProtocolError, match=r"a binary frame (is empty|of kind . ends in its)"):
        reader.decode(BinaryMessage(encoded[:cut]))


def payload_bytes(payload: Any) -> bytes:
    if isinstance(payload, UserBroadcast):
        return payload_bytes(payload.payload)
    if isinstance(payload, dict) and "response" in payload and isinstance(payload["response"], bytes):
        return payload["response"]
    return payload if isinstance(payload, bytes) else bytes(encode_payload(payload))


def outcome(call: Callable[[], object]) -> type:
    try:
        return type(call())
    except PresenceError as exc:
        return type(exc)


@given(st.text() | values.map(json.dumps))
@example("")
@example("[" * 3000)
def test_text_never_raises_anything_else(text: str) -> None:
    for serializer in EVERY:
        assert outcome(partial(serializer.decode, TextMessage(text))) in (Message, RemoteProtocolError)


@given(
    st.binary() | st.tuples(st.integers(0, 5), st.binary(max_size=12)).map(lambda kd: bytes([kd[0]]) + kd[1])
)
@example(b"")
def test_bytes_never_raise_anything_else(data: bytes) -> None:
    for serializer in EVERY:
        assert outcome(partial(serializer.decode, BinaryMessage(data))) in (Message, RemoteProtocolError)


anything: st.SearchStrategy[Any] = st.recursive(
    values | st.binary() | st.floats() | st.text() | st.builds(object) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        | st.builds(UserBroadcast, st.text(), inner)
    ),
    max_leaves=6,
)


@given(refs, refs, st.text(), st.text() | st.just("broadcast") | st.just("phx_reply"), anything)
def test_encoding_never_raises_anything_else(
    join_ref: Ref, ref: Ref, topic: str, event: str, payload: Any
) -> None:
    message = Message(join_ref, ref, topic, event, payload)
    for serializer in EVERY:
        assert outcome(partial(serializer.encode, message)) in (EncodedFrame, LocalProtocolError)


# ---------------------------------------------------------------------------------------------- presence

STATE = {f"user-{number}": {"metas": [{"phx_ref": str(number), "x": "y" * 20}]} for number in range(500)}
DIFF = {"joins": {"ann": {"metas": [{"phx_ref": "1"}]}}, "leaves": {"bo": {"metas": [{"phx_ref": "2"}, 3]}}}


def compact(*message: Any) -> str:
    return json.dumps(message, separators=(",", ":"))


def in_v1(*message: Any) -> str:
    return json.dumps(dict(zip(("join_ref", "ref", "topic", "event", "payload"), message, strict=True)))


in_both_forms = pytest.mark.parametrize(
    ("write", "client"), [(in_v1, V1_CLIENT), (compact, V2_CLIENT), (lambda *all: json.dumps(all), V2_CLIENT)]
)


@in_both_forms
def test_a_client_leaves_a_state_encoded(write: Callable[..., str], client: Serializer) -> None:
    message = client.decode_text(write("1", None, "t", "presence_state", STATE))
    assert isinstance(message, Message)
    assert parts(message)[:4] == ("1", None, "t", "presence_state")
    assert isinstance(message.payload, msgspec.Raw)
    assert json.loads(bytes(message.payload)) == STATE
    assert repr(message) == (
        "Message(join_ref='1', ref=None, topic='t', event='presence_state', payload=<Raw>)"
    )


@in_both_forms
def test_a_client_leaves_the_entries_of_a_diff_encoded(write: Callable[..., str], client: Serializer) -> None:
    message = client.decode_text(write("1", None, "t", "presence_diff", DIFF))
    assert isinstance(message, Message)
    assert parts(message)[:4] == ("1", None, "t", "presence_diff")
    assert isinstance(message.payload, EncodedDiff)
    entries = {"joins": message.payload.joins, "leaves": message.payload.leaves}
    assert {
        side: {key: json.loads(bytes(entry)) for key, entry in there.items()}
        for side, there in entries.items()
    } == DIFF
    assert "payload=<EncodedDiff>" in repr(message)
    more = {**DIFF, "more": [1]}
    assert client.decode_text(write("1", None, "t", "presence_diff", more)).payload == more


@in_both_forms
@pytest.mark.parametrize(
    "message",
    [
        ("1", None, "t", "presence_diff", {"joins": {}}),
        ("1", None, "t", "presence_diff", {"joins": {}, "leaves": []}),
        ("1", None, "t", "presence_diff", ["joins"]),
        ("1", None, "t", "other", [1, "presence_state", STATE]),
        ("1", None, "t", "other", {"event": "presence_diff", **DIFF}),
        ("1", None, '"presence_state"', "other", STATE),
        ("1", None, "presence_diff", "other", DIFF),
        ("1", None, "t" * 600, "presence_state", STATE),
        ("1", None, "t" * 600, "presence_diff", DIFF),
    ],
)
def test_all_other_text_is_decoded_at_once(
    message: tuple[Any, ...], write: Callable[..., str], client: Serializer
) -> None:
    text = write(*message)
    assert parts(client.decode_text(text)) == message
    assert parts(client.decode(TextMessage(text))) == message


@in_both_forms
@pytest.mark.parametrize(("event", "payload"), [("presence_state", STATE), ("presence_diff", DIFF)])
def test_decode_decodes_all(event: str, payload: Any, write: Callable[..., str], client: Serializer) -> None:
    message = ("1", None, "t", event, payload)
    assert parts(client.decode(TextMessage(write(*message)))) == message


@pytest.mark.parametrize("event", ["presence_state", "presence_diff"])
def test_presence_that_is_malformed(event: str) -> None:
    message = compact("1", None, "t", event, DIFF)
    for text in (
        message[:-1],
        compact("1", None, 1, event, DIFF),
        message.replace(":", "", 1),
        f'[null,null,"t","{event}",' + "[" * 20_000 + "]" * 20_000 + "]",
    ):
        with pytest.raises(RemoteProtocolError, match="a V2 message is malformed"):
            V2_CLIENT.decode_text(text)
    with pytest.raises(RemoteProtocolError, match="a V1 message is malformed"):
        V1_CLIENT.decode_text(in_v1("1", None, 1, event, DIFF))


def test_the_repr_of_a_push_to_supabase_hides_its_payload() -> None:
    push = SupabasePush("broadcast", "shout", msgspec.Raw(b'{"secret":"s3cr3t"}'))
    assert repr(push) == "SupabasePush(type='broadcast', event='shout', payload=<JSON>)"
