"""Values as JSON, and back: arguments, configs, events. Secrets are replaced on the way."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from presence_proto.authorization import Allow
from presence_proto.channel_config import BroadcastReplay, ChannelConfig
from presence_proto.json_text import DECODE_ERRORS
from presence_proto.secrets import is_secret_name
from presence_proto.serializer import UserBroadcast

if TYPE_CHECKING:
    from presence_proto.recording.redaction import Secrets

KIND = "$"
"""The key that tells what is no JSON by itself."""

_BYTES = (bytes, bytearray, memoryview)


def dump(value: Any) -> str:
    """One line of JSON, of ASCII only, which carries every string and number there is."""
    return json.dumps(value, separators=(",", ":"))


def from_bytes(data: bytes) -> str:
    """Bytes in a string."""
    return b64encode(data).decode("ascii")


def to_bytes(text: Any) -> bytes:
    """And back. Raises `ValueError` or `TypeError`."""
    return b64decode(text, validate=True)


def to_json(value: Any, secrets: Secrets | None = None, *, name: str = "") -> Any:
    """`value` for `dump`, without its secrets. What has a secret's `name` is one."""
    try:
        return _to_json(value, secrets, name)
    except RecursionError:
        return {KIND: "opaque", "data": type(value).__name__}


def _to_json(value: Any, secrets: Secrets | None, name: str) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        if secrets is None:
            return str(value)
        return secrets.hide(value) if is_secret_name(name) else secrets.redact_text(value)
    if isinstance(value, _BYTES):
        data = bytes(value)
        kind = "bytes" if isinstance(value, bytes) else "bytearray"  # which a core does not take for bytes
        return {KIND: kind, "data": from_bytes(data if secrets is None else secrets.redact_json(data))}
    if isinstance(value, (list, tuple)):
        return [_to_json(item, secrets, name) for item in value]
    if isinstance(value, Mapping):
        return _mapping(value, secrets, name)
    if isinstance(value, (Allow, ChannelConfig, BroadcastReplay, UserBroadcast)):
        return {KIND: type(value).__name__, "data": _mapping(fields(value), secrets)}
    if attrs.has(type(value)) or isinstance(value, msgspec.Struct):
        return _mapping(fields(value), secrets)
    try:  # a date, a dataclass, …: as what the core makes of it
        return _to_json(msgspec.to_builtins(value, builtin_types=_BYTES), secrets, name)
    except (TypeError, *DECODE_ERRORS):
        return {KIND: "opaque", "data": type(value).__name__}


def _mapping(value: Mapping[Any, Any], secrets: Secrets | None, above: str = "") -> Any:
    """`above`: the name of the mapping. What stands in a secret is one."""
    names = [_to_json(name, secrets, "") for name in value]
    inside = above if is_secret_name(above) else None
    items = [_to_json(item, secrets, inside or str(name)) for name, item in value.items()]
    if KIND in names or not all(isinstance(name, str) for name in value):
        return {KIND: "pairs", "data": [list(pair) for pair in zip(names, items, strict=True)]}
    return dict(zip(names, items, strict=True))


def fields(value: Any) -> dict[str, Any]:
    """The fields of an attrs instance or a struct."""
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    return attrs.asdict(value, recurse=False)


def from_json(value: Any) -> Any:
    """What `to_json` was given, or the same to a core. Raises `ValueError`, `TypeError` or `KeyError`."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value.get(KIND):
        case None:
            return {name: from_json(item) for name, item in value.items()}
        case "bytes":
            return to_bytes(value["data"])
        case "bytearray":
            return bytearray(to_bytes(value["data"]))
        case "Allow":
            return Allow(**from_json(value["data"]))
        case "ChannelConfig":
            return ChannelConfig(**from_json(value["data"]))
        case "BroadcastReplay":
            return BroadcastReplay(**from_json(value["data"]))
        case "UserBroadcast":
            return UserBroadcast(**from_json(value["data"]))
        case "pairs":
            return {_hashable(from_json(name)): from_json(item) for name, item in value["data"]}
        case "opaque":
            return object()  # neither is JSON
        case kind:
            raise ValueError(f"there is no value of the kind {kind!r}")


def _hashable(name: Any) -> Any:
    return tuple(name) if isinstance(name, list) else name
