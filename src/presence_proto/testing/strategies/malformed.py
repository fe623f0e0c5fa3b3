"""Frames that are nearly right: one thing about each is wrong, and it has a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from attrs import frozen
from hypothesis import strategies as st

from presence_proto.testing.strategies.envelopes import messages
from presence_proto.testing.strategies.frames import (
    FIELDS,
    binary_frames,
    binary_parts,
    compact,
    envelope,
    pack,
)
from presence_proto.testing.strategies.program import Program
from presence_proto.testing.strategies.values import Role, Vsn

if TYPE_CHECKING:
    from presence_proto.serializer import Message


@frozen(repr=False)
class MalformedFrame(Program):
    """A frame that must be refused. `fault` says what is wrong with it, and is one of `FRAME_FAULTS`."""

    fault: str
    data: str | bytes


def malformed_frames(role: Role = "server", *, vsn: Vsn = "2.0.0") -> st.SearchStrategy[MalformedFrame]:
    """Frames of `role` with one fault: text, and on V2 binary ones."""
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
    """The last kind of each side is the one with metadata and an encoding."""
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
"""Every `fault` of a `MalformedFrame`."""
