"""JSON decoding and encoding, with a nesting limit and with error texts that are independent of a library.

A level is one array or object inside another. `max_nesting` limits the levels of a message, so that no
message can exhaust the interpreter's stack. The limit costs ordinary messages no time: the fast decoders
accept only `Shallow` values, a type of finite depth. If a fast decoder refuses a message, the levels are
counted first, and then a general decoder runs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec

from presence_proto.errors import LocalProtocolError, RemoteProtocolError
from presence_proto.validators import MOST_NESTING

DEFAULT_NESTING = 100  # levels of a message: the default of `max_nesting`

if TYPE_CHECKING:
    Shallow = Any
else:
    Shallow = None | bool | int | float | str
    for _ in range(5):
        Shallow = None | bool | int | float | str | list[Shallow] | dict[str, Shallow]

# ---------------------------------------------------------------------------------------------- nesting

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{\]}]', re.DOTALL)
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"?')
_ALL_BUT_MARKS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_ALL_BUT_ELEMENTS = bytes(byte for byte in range(256) if byte not in b'[{,"')
_STEPS = [0] * 256
for _byte in b"[{":
    _STEPS[_byte] = 1
for _byte in b"]}":
    _STEPS[_byte] = -1


def nests_deeper(data: str | bytes, levels: int) -> bool:
    """Whether a JSON text, valid or not, nests more than `levels` levels. The function does not recurse."""
    if len(data) <= levels:
        return False
    if isinstance(data, str):
        if data.count("[") + data.count("{") <= levels:
            return False
        data = data.encode("utf-8", "surrogatepass")
    elif data.count(b"[") + data.count(b"{") <= levels:
        return False
    marks = _outside_strings(data, _ALL_BUT_MARKS)
    return max(accumulate(map(_STEPS.__getitem__, marks)), default=0) > levels


def _outside_strings(data: bytes, unwanted: bytes) -> bytes:
    """Return a JSON text without its strings and without the `unwanted` bytes, which must not be quotes."""
    if b"\\" in data:
        data = _ESCAPE.sub(b"", data)
    # Two adjacent quotes are an empty string, or the end and start of two strings. Without adjacent quotes,
    # the other quotes still form pairs.
    marks = data.translate(None, unwanted).replace(b'""', b"")
    return _STRING.sub(b"", marks) if b'"' in marks else marks


SMALL_TEXT = 32 * 1024
"""Largest JSON text that needs no `check_elements`, in bytes or characters: a small text has few elements."""


def check_elements(data: str | bytes, what: str, most: int) -> None:
    """Raise `RemoteProtocolError` if a JSON text, valid or not, has more than `most` elements.

    `check_elements` counts opening brackets and commas. Each element costs time to decode, to check and to
    encode again, and the pauses of the garbage collector grow with the number of lists and dicts.
    """
    if isinstance(data, str):
        if data.count(",") + data.count("[") + data.count("{") <= most:
            return
        data = data.encode("utf-8", "surrogatepass")
    elif data.count(b",") + data.count(b"[") + data.count(b"{") <= most:
        return
    if len(_outside_strings(data, _ALL_BUT_ELEMENTS)) > most:
        raise RemoteProtocolError(f"{what} is malformed: more than {most} elements (see max_elements)")


def cut(text: str, levels: int) -> str:
    """Return the JSON text with `null` in place of every array or object below the given level."""
    pieces: list[str] = []
    depth = kept = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        step = _STEPS[ord(found[0][0])]
        if step > 0 and depth == levels:
            pieces += text[kept : found.start()], "null"
        elif step < 0 and depth == levels + 1:
            kept = found.end()
        depth += step
    return "".join(pieces) + (text[kept:] if depth <= levels else "")


def too_deep(what: str, levels: int) -> RemoteProtocolError:
    """Return the error for a message that nests too deeply."""
    return RemoteProtocolError(
        f"{what} is malformed: nested more than {levels} levels deep (see max_nesting)"
    )


# ---------------------------------------------------------------------------------------------- decoding

DECODE_ERRORS = (msgspec.MsgspecError, ValueError)
"""msgspec's exceptions for malformed JSON: `MsgspecError` (a `ValueError` since 0.21), Unicode errors."""

_decode = msgspec.json.Decoder().decode
_decode_shallow = msgspec.json.Decoder(Shallow).decode
_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def decode(data: str | bytes | msgspec.Raw, what: str, levels: int) -> Any:
    """Decode a JSON text of at most `levels` levels.

    Raises `RemoteProtocolError` if the text is not JSON or nests deeper. The error calls the text `what`.
    """
    try:
        return _decode_shallow(data)
    except DECODE_ERRORS:
        if isinstance(data, msgspec.Raw):
            data = bytes(data)
    if nests_deeper(data, levels):
        raise too_deep(what, levels)
    try:
        return _decode(data)
    except DECODE_ERRORS:
        raise RemoteProtocolError(f"{what} is malformed: {_fault(data)}") from None


def decode_object(data: str | bytes, what: str, levels: int = DEFAULT_NESTING) -> dict[str, Any]:
    """Decode a JSON object of at most `levels` levels.

    Raises `RemoteProtocolError` if `data` is not an object or nests deeper. The error calls the data `what`.
    """
    value = decode(data, what, levels)
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"{what} is malformed: it must be an object, not {kind_of(value)}")
    return value


def kind_of(value: Any) -> str:
    """Return JSON's name for the type of a decoded value, with an article."""
    return _KINDS[type(value)]


def _fault(data: str | bytes) -> str:
    """Return why `data` is not JSON. The texts of libraries are not used, because such texts may change."""
    if isinstance(data, str):
        try:
            data.encode()
        except UnicodeEncodeError as exc:
            return f"not Unicode at character {exc.start} (a lone surrogate)"
    else:
        try:
            data = data.decode()
        except UnicodeDecodeError as exc:
            return f"not UTF-8 at byte {exc.start}"
    if not data.strip():
        return "it is empty"
    try:
        json.loads(data, parse_constant=_no_constant)
    except _NotJsonError as exc:
        return exc.fault
    except json.JSONDecodeError as exc:
        return "it ends too early" if exc.pos >= len(data) else f"not JSON at character {exc.pos}"
    except ValueError:
        pass
    return "it has a number or an escape that is out of range"


def _no_constant(name: str) -> Any:
    raise _NotJsonError(f"{name} is not JSON")


# ---------------------------------------------------------------------------------------------- encoding

_BYTES = (bytes, bytearray, memoryview)


class _NotJsonError(Exception):
    """A payload is not JSON. `path` has the keys and indexes that lead to the fault, innermost first."""

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault
        self.path: list[str | int] = []

    def __str__(self) -> str:
        return self.fault + _where(self.path[::-1])


def _where(path: list[str | int]) -> str:
    if not path:
        return ""
    first, *rest = [_quoted(step) if isinstance(step, str) else str(step) for step in path]
    kind = "key" if isinstance(path[0], str) else "index"
    return f" at {kind} {first}" + "".join(f"[{step}]" for step in rest)


def _quoted(key: str) -> str:
    return json.dumps(key) if len(key) <= 64 else f"a key of {len(key)} characters"


def _as_base(value: Any) -> Any:
    """Convert an instance of a `str`, `int` or `float` subclass to its base type, and a mapping to a dict.

    Raises `_NotJsonError` for other types.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise _NotJsonError(f"`{type(value).__name__}`")


_encoder = msgspec.json.Encoder(enc_hook=_as_base)


def encode_payload(payload: Any, levels: int = MOST_NESTING) -> msgspec.Raw:
    """Check and encode an application's payload. The result can be used as any part of a message's payload.

    Raises `LocalProtocolError` unless the payload is JSON: string keys, finite numbers, no `bytes`, and at
    most `levels` levels. A mapping becomes a dict, and an instance of a subclass of `str`, `int` or `float`
    becomes an instance of its base type. Enums, dates and other types that msgspec supports are encoded by
    msgspec.
    """
    return msgspec.Raw(encode(plain(payload, levels)))


def encode(value: Any) -> bytes:
    """Encode a value that `plain` has checked. Raises `LocalProtocolError` if the value is not JSON."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        raise _refusal("a string has a lone surrogate, which is not UTF-8") from None
    except ValueError:  # Python's limit, see sys.set_int_max_str_digits
        raise _refusal("an integer has too many digits") from None
    except _NotJsonError as exc:
        raise _refusal(str(exc)) from None


def plain(payload: Any, levels: int = MOST_NESTING) -> Any:
    """Return `payload` in JSON's own types, copied only if necessary. Raises what `encode_payload` raises."""
    try:
        return _plain(payload, levels)
    except _NotJsonError as exc:
        raise _refusal(str(exc)) from None
    except _TooDeepError:
        raise _refusal(f"nested more than {levels} levels deep, or circular") from None


def _refusal(fault: str) -> LocalProtocolError:
    return LocalProtocolError(f"payload is not JSON-serializable: {fault}")


class _TooDeepError(Exception):
    """An application's payload nests too deeply."""


def _plain(value: Any, levels: int) -> Any:
    kind = type(value)
    if kind is str or value is None or kind is int or kind is bool or kind is msgspec.Raw:
        return value
    if kind is dict:
        return _plain_dict(value, levels)
    if isinstance(value, (list, tuple)):
        return _plain_list(value, levels)
    if kind is float:
        if not math.isfinite(value):
            raise _NotJsonError(f"`{value}` is not a finite number")
        return value
    if kind in _BYTES:
        raise _NotJsonError(f"`{kind.__name__}`")
    if isinstance(value, Mapping):
        return _plain_dict(dict(value), levels)
    return _converted(value, levels)


def _plain_dict(value: dict[Any, Any], levels: int) -> dict[str, Any]:
    if levels <= 0:
        raise _TooDeepError
    changed = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise _NotJsonError(f"a key of the type `{type(key).__name__}`")
        try:
            same = _plain(item, levels - 1)
        except _NotJsonError as exc:
            exc.path.append(key)
            raise
        if same is not item:
            changed[key] = same
    return {**value, **changed} if changed else value


def _plain_list(value: list[Any] | tuple[Any, ...], levels: int) -> list[Any] | tuple[Any, ...]:
    if levels <= 0:
        raise _TooDeepError
    changed = {}
    for index, item in enumerate(value):
        try:
            same = _plain(item, levels - 1)
        except _NotJsonError as exc:
            exc.path.append(index)
            raise
        if same is not item:
            changed[index] = same
    return [changed.get(index, item) for index, item in enumerate(value)] if changed else value


def _converted(value: Any, levels: int) -> Any:
    """Convert an enum, date, struct, … with msgspec, and an instance of a subclass to its base type."""
    try:
        became = msgspec.to_builtins(value, builtin_types=_BYTES, enc_hook=_as_base)
    except RecursionError:  # msgspec descends into structs by itself; a cyclic struct ends here
        raise _TooDeepError from None
    except (AttributeError, TypeError, *DECODE_ERRORS):  # a struct without one of its fields
        raise _NotJsonError(f"`{type(value).__name__}`") from None
    return _plain(became, levels)
