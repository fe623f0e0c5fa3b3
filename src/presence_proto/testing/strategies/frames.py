"""Messages in the forms that they have on the wire, written by hand: `str` is text, `bytes` binary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import strategies as st

from presence_proto.testing.strategies.envelopes import BINARY_REFS, DATA, JSON, NAMES, messages
from presence_proto.testing.strategies.values import Role, Vsn, json_values, texts

if TYPE_CHECKING:
    from presence_proto.serializer import Message

FIELDS = {
    ("client", 0): ("join_ref", "ref", "topic", "event"),
    ("client", 3): ("join_ref", "ref", "topic", "user_event", "metadata"),
    ("server", 0): ("join_ref", "topic", "event"),
    ("server", 1): ("join_ref", "ref", "topic", "status"),
    ("server", 2): ("topic", "event"),
    ("server", 4): ("topic", "user_event", "metadata"),
}
"""The fields of each kind of binary frame, by who sends it."""


def frames(role: Role = "server", *, vsn: Vsn = "2.0.0") -> st.SearchStrategy[str | bytes]:
    """Frames of `role`: text, and on V2 also binary ones."""
    text: st.SearchStrategy[str | bytes] = text_frames(role, vsn=vsn)
    return text | binary_frames(role) if vsn == "2.0.0" else text


def text_frames(role: Role = "server", *, vsn: Vsn = "2.0.0") -> st.SearchStrategy[str]:
    """Text frames of `role`, as other implementations write them, too.

    There are spaces, `\\u` escapes, fields in another order, and further fields or elements.
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
    """The JSON of a message: an object in V1, an array in V2."""
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
    """JSON as most write it."""
    return msgspec.json.encode(value).decode()


def _spaced(value: Any) -> str:
    return msgspec.json.format(compact(value), indent=2)


def _escaped(value: Any) -> str:
    # Outside of strings there is nothing but ASCII.
    units = compact(value).encode("utf-16-be")
    pairs = [units[start : start + 2] for start in range(0, len(units), 2)]
    return "".join(f"\\u{unit.hex()}" if unit >= b"\x00\x80" else chr(unit[1]) for unit in pairs)


_WRITERS = st.sampled_from([compact, _spaced, _escaped])
_MORE = st.lists(json_values(max_leaves=2), max_size=1)


def binary_frames(role: Role = "server") -> st.SearchStrategy[bytes]:
    """Binary frames of V2: kinds 0 and 3 of a client, 0, 1, 2 and 4 of a server."""
    return st.one_of(*[_binary_frames(role, kind) for sender, kind in FIELDS if sender == role])


@st.composite
def _binary_frames(draw: st.DrawFn, role: Role, kind: int) -> bytes:
    return pack(*draw(binary_parts(role, kind)))


@st.composite
def binary_parts(draw: st.DrawFn, role: Role, kind: int) -> tuple[int, list[bytes], bytes, bytes]:
    """The kind, the fields, the encoding (a byte, or none) and the data."""
    fields = [(draw(_FIELD_VALUES[name]) or "").encode() for name in FIELDS[role, kind]]
    encoding = draw(st.sampled_from([b"\0", b"\1"])) if kind >= 3 else b""
    data = compact(draw(JSON)).encode() if encoding == b"\1" else draw(DATA)
    return kind, fields, encoding, data


def pack(kind: int, fields: list[bytes], encoding: bytes, data: bytes) -> bytes:
    """One binary frame."""
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
