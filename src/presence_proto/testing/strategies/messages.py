"""Strategies for Phoenix messages, for encoded frames, and for malformed frames with one named fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from attrs import frozen
from hypothesis import strategies as st

from presence_proto.serializer import Message, UserBroadcast
from presence_proto.testing.strategies.presence import diffs, entries, tracked_payloads
from presence_proto.testing.strategies.values import Program, Role, Vsn, json_values, texts

# -------------------------------------------------------------------------------------------------- envelopes
# Phoenix messages that one side may send, in every shape of the protocol.


Some = st.SearchStrategy[Any]

NAMES = st.sampled_from(["room:7", "realtime:lobby", "phoenix"]) | texts()
JSON = json_values(max_leaves=5)
_REFS = st.none() | st.sampled_from(["1", "2", "10"]) | texts() | st.integers()
# Refs in binary frames are never empty and never numbers.
BINARY_REFS = st.none() | st.sampled_from(["1", "2", "10"]) | texts(min_size=1)
DATA = st.binary(max_size=20)


def messages(role: Role = "server", *, vsn: Vsn = "2.0.0", binary: bool = True) -> st.SearchStrategy[Message]:
    """Messages sent by `role`, which the serializer of `vsn` encodes and decodes without change.

    The messages are joins, replies, broadcasts and presence messages of Phoenix and Supabase, and other
    events with arbitrary JSON. With `binary`, a V2 payload may be binary or a `UserBroadcast`.
    """
    shapes = _FROM_CLIENT if role == "client" else _FROM_SERVER
    # A server sends no join_ref in V1.
    join_refs = st.none() if role == "server" and vsn == "1.0.0" else _REFS
    found = st.one_of(*[st.builds(Message, join_refs, _REFS, NAMES, *shape) for shape in shapes])
    if binary and vsn == "2.0.0":
        found |= _BINARY_FROM_CLIENT if role == "client" else _BINARY_FROM_SERVER
    return found


def user_broadcasts() -> st.SearchStrategy[UserBroadcast]:
    """Payloads of broadcasts that are sent in a special kind of binary frame."""
    # Small, because the whole metadata may have at most 255 bytes.
    metadata = st.dictionaries(st.sampled_from(["id", "é"]), st.booleans() | st.integers(0, 99))
    return st.builds(UserBroadcast, texts(), JSON | DATA, metadata)


def _object(**fields: Some) -> Some:
    return st.fixed_dictionaries(fields)


def _just(**fields: Any) -> Some:
    return st.builds(dict, **{name: st.just(value) for name, value in fields.items()})


_YES = st.booleans()
_ANY: tuple[Some, Some] = (texts(), JSON)
_BROADCAST: tuple[Some, Some] = (
    st.just("broadcast"),
    _object(type=st.just("broadcast"), event=texts(), payload=JSON),
)
_CONFIG = _object(
    broadcast=_object(ack=_YES, self=_YES),
    presence=_object(enabled=_YES, key=texts()),
    private=_YES,
)
_TRACK = _object(type=st.just("presence"), event=st.just("track"), payload=tracked_payloads())
# (event, payload). Examples shrink to the first entry, so the first entry draws nothing.
_FROM_CLIENT: list[tuple[Some, Some]] = [
    (st.just("phx_leave"), _just()),
    _ANY,
    _BROADCAST,
    (st.just("phx_join"), st.fixed_dictionaries({"config": _CONFIG}, optional={"access_token": texts()})),
    (st.just("heartbeat"), _just()),
    (st.just("access_token"), _object(access_token=texts())),
    (st.just("presence"), _TRACK | _just(type="presence", event="untrack")),
]
_FROM_SERVER: list[tuple[Some, Some]] = [
    (st.just("phx_close"), _just()),
    _ANY,
    _BROADCAST,
    (st.just("phx_reply"), _object(status=st.sampled_from(["ok", "error"]), response=JSON)),
    (st.just("presence_state"), entries()),
    (st.just("presence_diff"), diffs()),
    (st.just("phx_error"), _just() | _just(reason="channel_crash")),
    (
        st.just("system"),
        _object(status=st.sampled_from(["ok", "error"]), message=texts(), extension=st.just("system")),
    ),
]
_USER_BROADCAST: tuple[Some, Some] = (st.just("broadcast"), user_broadcasts())
_BINARY_FROM_CLIENT = st.one_of(
    st.builds(Message, BINARY_REFS, BINARY_REFS, NAMES, texts(), DATA),
    st.builds(Message, BINARY_REFS, BINARY_REFS, NAMES, *_USER_BROADCAST),
)
_BINARY_FROM_SERVER = st.one_of(
    st.builds(Message, BINARY_REFS, st.none(), NAMES, texts(), DATA),
    st.builds(
        Message, BINARY_REFS, BINARY_REFS, NAMES, st.just("phx_reply"), _object(status=texts(), response=DATA)
    ),
    st.builds(Message, st.none(), st.none(), NAMES, *_USER_BROADCAST),
)


# ----------------------------------------------------------------------------------------------------- frames
# Frames are encoded without the code under test. `str` is a text frame, `bytes` a binary frame.


FIELDS = {
    ("client", 0): ("join_ref", "ref", "topic", "event"),
    ("client", 3): ("join_ref", "ref", "topic", "user_event", "metadata"),
    ("server", 0): ("join_ref", "topic", "event"),
    ("server", 1): ("join_ref", "ref", "topic", "status"),
    ("server", 2): ("topic", "event"),
    ("server", 4): ("topic", "user_event", "metadata"),
}
"""The header fields of each kind of binary frame: (sender, kind) -> field names."""


def frames(role: Role = "server", *, vsn: Vsn = "2.0.0") -> st.SearchStrategy[str | bytes]:
    """Frames sent by `role`: text frames, and on V2 also binary frames."""
    text: st.SearchStrategy[str | bytes] = text_frames(role, vsn=vsn)
    return text | binary_frames(role) if vsn == "2.0.0" else text


def text_frames(role: Role = "server", *, vsn: Vsn = "2.0.0") -> st.SearchStrategy[str]:
    """Text frames sent by `role`, in the styles of different implementations.

    Frames may contain spaces, `\\u` escapes, reordered fields, and additional fields or elements.
    """
    return _text_frames(role, vsn, messages(role, vsn=vsn, binary=False))


@st.composite
def _text_frames(draw: st.DrawFn, role: Role, vsn: Vsn, messages: st.SearchStrategy[Message]) -> str:
    value = envelope(draw(messages), role, vsn)
    if isinstance(value, list):
        value += draw(_MORE)
    else:
        value |= {f"more{number}": more for number, more in enumerate(draw(_MORE))}
        value = dict(draw(st.permutations(list(value.items()))))
    written: str = draw(_WRITERS)(value)
    return written


def envelope(message: Message, role: Role, vsn: Vsn) -> Any:
    """Return the JSON value of a message: an object in V1, an array in V2."""
    if vsn == "2.0.0":
        return [message.join_ref, message.ref, message.topic, message.event, message.payload]
    value = {
        "topic": message.topic,
        "event": message.event,
        "payload": message.payload,
        "ref": message.ref,
    }
    return value if role == "server" else {**value, "join_ref": message.join_ref}


def compact(value: Any) -> str:
    """Return `value` as compact JSON text."""
    return msgspec.json.encode(value).decode()


def _spaced(value: Any) -> str:
    return msgspec.json.format(compact(value), indent=2)


def _escaped(value: Any) -> str:
    # JSON is ASCII outside of strings, so only characters of strings are escaped.
    units = compact(value).encode("utf-16-be")
    pairs = [units[start : start + 2] for start in range(0, len(units), 2)]
    return "".join(f"\\u{unit.hex()}" if unit >= b"\x00\x80" else chr(unit[1]) for unit in pairs)


_WRITERS = st.sampled_from([compact, _spaced, _escaped])
_MORE = st.lists(json_values(max_leaves=2), max_size=1)


def binary_frames(role: Role = "server") -> st.SearchStrategy[bytes]:
    """Binary V2 frames sent by `role`. A client sends kinds 0 and 3, a server kinds 0, 1, 2 and 4."""
    return st.one_of(*[_binary_frames(role, kind) for sender, kind in FIELDS if sender == role])


@st.composite
def _binary_frames(draw: st.DrawFn, role: Role, kind: int) -> bytes:
    return pack(*draw(binary_parts(role, kind)))


@st.composite
def binary_parts(draw: st.DrawFn, role: Role, kind: int) -> tuple[int, list[bytes], bytes, bytes]:
    """Draw the parts of a binary frame: kind, fields, encoding (one byte or empty) and data."""
    fields = [(draw(_FIELD_VALUES[name]) or "").encode() for name in FIELDS[role, kind]]
    encoding = draw(st.sampled_from([b"\0", b"\1"])) if kind >= 3 else b""
    data = compact(draw(JSON)).encode() if encoding == b"\1" else draw(DATA)
    return kind, fields, encoding, data


def pack(kind: int, fields: list[bytes], encoding: bytes, data: bytes) -> bytes:
    """Return the binary frame with the given kind, fields, encoding and data."""
    return b"".join((bytes((kind, *map(len, fields))), encoding, *fields, data))


_FIELD_VALUES: dict[str, st.SearchStrategy[str | None]] = {
    "join_ref": BINARY_REFS,
    "ref": BINARY_REFS,
    "topic": NAMES,
    "event": texts(),
    "user_event": texts(),
    "status": st.sampled_from(["ok", "error"]) | texts(),
    "metadata": st.sampled_from(["", "{}", '{"id":1}', '{ "é": [null] }']),
}


# -------------------------------------------------------------------------------------------------- malformed


@frozen(repr=False)
class MalformedFrame(Program):
    """A frame that a decoder must reject. `fault` is one of `FRAME_FAULTS`."""

    fault: str
    data: str | bytes


def malformed_frames(role: Role = "server", *, vsn: Vsn = "2.0.0") -> st.SearchStrategy[MalformedFrame]:
    """Text and binary frames sent by `role`, each with exactly one fault."""
    text = _malformed_texts(role, vsn, messages(role, vsn=vsn, binary=False))
    if vsn == "1.0.0":
        in_v1 = st.builds(MalformedFrame, st.just(_BINARY_IN_V1), binary_frames(role))
        return st.one_of(*[text] * len(_TEXT_FAULTS), in_v1)
    return text | _malformed_binaries(role)


@st.composite
def _malformed_texts(
    draw: st.DrawFn, role: Role, vsn: Vsn, messages: st.SearchStrategy[Message]
) -> MalformedFrame:
    fault, break_ = draw(st.sampled_from(_TEXT_FAULTS))
    return MalformedFrame(fault, break_(draw, draw(messages), role, vsn))


@st.composite
def _malformed_binaries(draw: st.DrawFn, role: Role) -> MalformedFrame:
    fault, break_ = draw(st.sampled_from(_BINARY_FAULTS))
    return MalformedFrame(fault, break_(draw, role))


# ---------------------------------------------------------------------------------------------- text

_TextFault: TypeAlias = Callable[[st.DrawFn, "Message", Role, Vsn], str]


def _cut_short(draw: st.DrawFn, message: Message, role: Role, vsn: Vsn) -> str:
    text = compact(envelope(message, role, vsn))
    return text[: draw(st.integers(0, len(text) - 1))]


def _longer(draw: st.DrawFn, message: Message, role: Role, vsn: Vsn) -> str:
    return compact(envelope(message, role, vsn)) + draw(st.sampled_from(["]", "}", ",", "x", " []"]))


def _field_missing(draw: st.DrawFn, message: Message, role: Role, vsn: Vsn) -> str:
    value = envelope(message, role, vsn)
    if isinstance(value, list):
        return compact(value[: draw(st.integers(0, 4))])
    needed = ["topic", "event", "payload"] + ["ref"] * (role == "client")
    del value[draw(st.sampled_from(needed))]
    return compact(value)


def _wrong_type(draw: st.DrawFn, message: Message, role: Role, vsn: Vsn) -> str:
    wrong = draw(st.sampled_from([1.5, True, [], {}]))
    names = st.sampled_from(["join_ref", "ref", "topic", "event"])
    return compact(envelope(msgspec.structs.replace(message, **{draw(names): wrong}), "client", vsn))


def _bad_json(draw: st.DrawFn, message: Message, role: Role, vsn: Vsn) -> str:
    payload = draw(
        st.sampled_from([b"NaN", b"-Infinity", b"1e999", b"01", b'{"a":}', b"'a'", b'"\\ud800"', b"tru"])
    )
    return compact(envelope(msgspec.structs.replace(message, payload=msgspec.Raw(payload)), role, vsn))


def _other_version(draw: st.DrawFn, message: Message, role: Role, vsn: Vsn) -> str:
    return compact(envelope(message, role, "1.0.0" if vsn == "2.0.0" else "2.0.0"))


def _no_envelope(draw: st.DrawFn, message: Message, role: Role, vsn: Vsn) -> str:
    return draw(st.sampled_from(["null", "7", '""', "[]", "{}", "[[]]"]))


_TEXT_FAULTS: list[tuple[str, _TextFault]] = [
    ("text cut short", _cut_short),
    ("something after the end", _longer),
    ("field missing", _field_missing),
    ("field of a wrong type", _wrong_type),
    ("payload that is not JSON", _bad_json),
    ("form of the other version", _other_version),
    ("no envelope at all", _no_envelope),
]

# ---------------------------------------------------------------------------------------------- binary

_BinaryFault: TypeAlias = Callable[[st.DrawFn, Role], bytes]
_Parts: TypeAlias = tuple[int, list[bytes], bytes, bytes]


def _any_parts(draw: st.DrawFn, role: Role) -> _Parts:
    return draw(binary_parts(role, draw(st.sampled_from(_kinds(role)))))


def _broadcast_parts(draw: st.DrawFn, role: Role) -> _Parts:
    """Draw a frame of the last kind of `role`, the only kind with metadata and an encoding."""
    return draw(binary_parts(role, _kinds(role)[-1]))


def _kinds(role: Role) -> list[int]:
    return [kind for sender, kind in FIELDS if sender == role]


def _header_cut_short(draw: st.DrawFn, role: Role) -> bytes:
    header = pack(*_any_parts(draw, role)[:3], b"")
    return header[: draw(st.integers(0, len(header) - 1))]


def _unknown_kind(draw: st.DrawFn, role: Role) -> bytes:
    _, fields, encoding, data = _any_parts(draw, role)
    unknown = [kind for kind in (*range(6), 255) if kind not in _kinds(role)]
    return pack(draw(st.sampled_from(unknown)), fields, encoding, data)


def _field_not_utf_8(draw: st.DrawFn, role: Role) -> bytes:
    kind, fields, encoding, data = _any_parts(draw, role)
    fields[draw(st.integers(0, len(fields) - 1))] = draw(
        st.sampled_from([b"\xff", b"\xed\xa0\x80", b"a\xe2\x82"])
    )
    return pack(kind, fields, encoding, data)


def _unknown_encoding(draw: st.DrawFn, role: Role) -> bytes:
    kind, fields, _, data = _broadcast_parts(draw, role)
    return pack(kind, fields, bytes((draw(st.integers(2, 255)),)), data)


def _data_not_json(draw: st.DrawFn, role: Role) -> bytes:
    kind, fields, _, _ = _broadcast_parts(draw, role)
    return pack(kind, fields, b"\1", draw(st.sampled_from([b"", b"{", b"NaN", b'"\xff"'])))


def _metadata_no_object(draw: st.DrawFn, role: Role) -> bytes:
    kind, [*fields, _], encoding, data = _broadcast_parts(draw, role)
    return pack(kind, [*fields, draw(st.sampled_from([b"[]", b"null", b"{", b" "]))], encoding, data)


_BINARY_FAULTS: list[tuple[str, _BinaryFault]] = [
    ("header cut short", _header_cut_short),
    ("unknown kind", _unknown_kind),
    ("field that is not UTF-8", _field_not_utf_8),
    ("unknown encoding", _unknown_encoding),
    ("data that is not JSON", _data_not_json),
    ("metadata that is no object", _metadata_no_object),
]
_BINARY_IN_V1 = "binary frame in V1"

FRAME_FAULTS = (*(name for name, _ in [*_TEXT_FAULTS, *_BINARY_FAULTS]), _BINARY_IN_V1)
"""All possible values of `MalformedFrame.fault`."""
