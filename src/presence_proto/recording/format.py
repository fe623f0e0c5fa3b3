"""The format of a recording: its header, values, facts, commands and outputs as JSON.

A recording has the sent messages instead of the sent bytes, because the masks of a client's frames are
random.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import msgspec

from presence_proto.config import BroadcastReplay, ChannelConfig, Identity, PresenceConfig, RealtimeConfig
from presence_proto.endpoint import CloseTransport, OpenTransport, SendData
from presence_proto.hub.authorization import Allow
from presence_proto.hub.config import HubConfig, join_params_are_the_meta
from presence_proto.json_text import DECODE_ERRORS
from presence_proto.recording.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FramePiece,
    HeadPiece,
    Inflater,
    Scanner,
)
from presence_proto.recording.redaction import redact_head, redact_header, redact_subprotocol, redact_url
from presence_proto.secrets import is_secret_name
from presence_proto.serializer import UserBroadcast
from presence_proto.version import VERSION

if TYPE_CHECKING:
    from random import Random

    from presence_proto.endpoint import ConnId
    from presence_proto.recording.redaction import Secrets


# ----------------------------------------------------------------------------------------------------- values
# Conversion of arguments, configs and events to JSON and back. Stand-ins replace secrets.


KIND = "$"
"""The key of every JSON object that stands for a value without a JSON type.

The value of this key is the name of the type.
"""

_BYTES = (bytes, bytearray, memoryview)


def dump(value: Any) -> str:
    """Return `value` as one line of ASCII JSON. Every string and number is preserved."""
    return json.dumps(value, separators=(",", ":"))


def from_bytes(data: bytes) -> str:
    """Return the base64 text of `data`."""
    return b64encode(data).decode("ascii")


def to_bytes(text: Any) -> bytes:
    """Return the bytes of a base64 text. Raises `ValueError` or `TypeError` for a malformed text."""
    return b64decode(text, validate=True)


def to_json(value: Any, secrets: Secrets | None = None, *, name: str = "") -> Any:
    """Return `value` in a form that `dump` accepts, with all secrets replaced by stand-ins.

    `name` is the name of the value. If `name` is the name of a secret, strings in the value are secrets.
    """
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
        kind = "bytes" if isinstance(value, bytes) else "bytearray"  # a core refuses a bytearray
        return {KIND: kind, "data": from_bytes(data if secrets is None else secrets.redact_json(data))}
    if isinstance(value, (list, tuple)):
        return [_to_json(item, secrets, name) for item in value]
    if isinstance(value, Mapping):
        return _mapping(value, secrets, name)
    if isinstance(value, (Allow, ChannelConfig, BroadcastReplay, UserBroadcast)):
        return {KIND: type(value).__name__, "data": _mapping(fields(value), secrets)}
    if attrs.has(type(value)) or isinstance(value, msgspec.Struct):
        return _mapping(fields(value), secrets)
    try:  # a date, a dataclass, …: converted like in the core
        return _to_json(msgspec.to_builtins(value, builtin_types=_BYTES), secrets, name)
    except (TypeError, *DECODE_ERRORS):
        return {KIND: "opaque", "data": type(value).__name__}


def _mapping(value: Mapping[Any, Any], secrets: Secrets | None, above: str = "") -> Any:
    """Convert a mapping with the name `above`. Below a secret's name, all strings are secrets."""
    names = [_to_json(name, secrets, "") for name in value]
    inside = above if is_secret_name(above) else None
    items = [_to_json(item, secrets, inside or str(name)) for name, item in value.items()]
    if KIND in names or not all(isinstance(name, str) for name in value):
        return {KIND: "pairs", "data": [list(pair) for pair in zip(names, items, strict=True)]}
    return dict(zip(names, items, strict=True))


def fields(value: Any) -> dict[str, Any]:
    """Return the fields of an attrs instance or a msgspec struct by name."""
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    return attrs.asdict(value, recurse=False)


def from_json(value: Any) -> Any:
    """Return the value that `to_json` has converted, or a value that a core treats in the same way.

    Raises `ValueError`, `TypeError` or `KeyError` for a malformed `value`.
    """
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
            return object()  # like the original value, the object is not JSON
        case kind:
            raise ValueError(f"unknown kind of value: {kind!r}")


def _hashable(name: Any) -> Any:
    return tuple(name) if isinstance(name, list) else name


# ----------------------------------------------------------------------------------------------------- header
# The first line of a recording has the arguments of the endpoint's constructor, without secrets.


FORMAT = "presence-recording"
FORMAT_VERSION = 1

FACTS = {
    "transport_opened": ("conn", "address"),  # only hubs that count by address have `address`
    "receive_data": ("conn", "data"),
    "transport_closed": ("conn", "reason"),
    "tick": (),
}
"""The facts that every endpoint accepts, with the arguments of each fact except `now`."""

_CLIENT = ("connect", "disconnect", "set_access_token", "access_token_failed")
COMMANDS = {
    "RealtimeClient": (*_CLIENT, "join", "leave", "push", "broadcast", "track", "untrack"),
    "PresenceClient": (*_CLIENT, "update_activity", "send_invite", "send_poke", "send_chat"),
    "Hub": ("broadcast", "close_channel", "crash_channel", "disconnect", "shutdown"),
}
"""The names of the commands of each kind of endpoint."""

GETTERS = {
    "next_deadline",
    *("is_synced", "presence", "redacted", "state_of"),  # RealtimeClient
    *("device_count", "is_user_stale", "user"),  # PresenceClient
    *("online", "wants_data"),  # Hub
}
"""The names of the methods that change nothing and are not recorded."""

CALLS = {
    "presence_rule": ("topic", "params"),
    "authorize": ("join",),
    "private_rule": ("topic", "access_token"),
    "wall_clock": (),
}
"""The functions that a hub calls from its config, with their arguments. The answers are recorded."""

RECORDED = "recorded"
DEFAULT_RULE = join_params_are_the_meta.__name__

Config: TypeAlias = RealtimeConfig | HubConfig


def header(
    kind: str,
    config: Config,
    rng: Random | None,
    secrets: Secrets,
    identity: Identity | None = None,
    online_at: str | None = None,
) -> dict[str, Any]:
    """Return the header for a recording of a `kind` endpoint. Add the secrets in the config to `secrets`."""
    token = None if identity is None else identity.access_token
    hidden = None if token is None else secrets.hide(token)
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "package": VERSION,
        "kind": kind,
        "config": _config_to_json(config, secrets),
        "identity": None
        if identity is None
        else {**to_json(fields(identity), secrets), "access_token": hidden},
        "online_at": to_json(online_at, secrets),
        "rng": None if rng is None else _state_to_json(rng.getstate()),
    }


def config_from_json(value: dict[str, Any], rules: dict[str, Any]) -> Config:
    """Return the config in a header. `rules` has the functions for a hub's config, by setting.

    Raises `ConfigError` for invalid settings, or errors such as `TypeError` for a malformed `value`.
    """
    settings = {name: setting for name, setting in value.items() if name != "type"}
    for name, rule in rules.items():
        if settings.get(name) == RECORDED:
            settings[name] = rule
    if settings.get("presence_rule") == DEFAULT_RULE:
        settings["presence_rule"] = join_params_are_the_meta
    types: dict[str, type[Config]] = {
        one.__name__: one for one in (RealtimeConfig, PresenceConfig, HubConfig)
    }
    return types[value["type"]](**settings)


def set_state(rng: Random, value: Any) -> None:
    """Set the state of `rng` to the state in a header. Raises `ValueError` or `TypeError` if malformed."""
    version, words, position, gauss = value
    data = to_bytes(words)
    rng.setstate((version, (*struct.unpack(f">{len(data) // 4}I", data), position), gauss))


def _state_to_json(state: tuple[Any, ...]) -> list[Any]:
    version, words, gauss = state
    *numbers, position = words
    return [version, from_bytes(struct.pack(f">{len(numbers)}I", *numbers)), position, gauss]


def _config_to_json(config: Config, secrets: Secrets) -> dict[str, Any]:
    hidden = (
        _hub_secrets(config, secrets) if isinstance(config, HubConfig) else _client_secrets(config, secrets)
    )
    rest = {name: to_json(value, secrets) for name, value in fields(config).items() if name not in hidden}
    known = next(one for one in (HubConfig, PresenceConfig, RealtimeConfig) if isinstance(config, one))
    return {"type": known.__name__, **hidden, **rest}


def _client_secrets(config: RealtimeConfig, secrets: Secrets) -> dict[str, Any]:
    """Return the settings that may contain secrets, with the secrets replaced by stand-ins."""
    keys = {name: getattr(config, name) for name in ("api_key", "access_token")}
    hidden: dict[str, Any] = {name: None if key is None else secrets.hide(key) for name, key in keys.items()}
    hidden["params"] = [
        [name, secrets.hide(value, seek=is_secret_name(name) or name == config.token_param)]
        for name, value in config.params
    ]
    hidden["headers"] = [
        [name, redact_header(name.lower().encode(), value.encode(), secrets).decode()]
        for name, value in config.headers
    ]
    hidden["subprotocols"] = [
        redact_subprotocol(one.encode(), secrets).decode() for one in config.subprotocols
    ]
    if config.server_url is not None:
        hidden["server_url"] = redact_url(config.server_url.encode(), secrets).decode()
    secrets.keep()
    return {name: to_json(value, secrets) for name, value in hidden.items()}


def _hub_secrets(config: HubConfig, secrets: Secrets) -> dict[str, Any]:
    keys = None if config.api_keys is None else [secrets.hide(key) for key in sorted(config.api_keys)]
    secrets.keep()
    is_default = config.presence_rule is join_params_are_the_meta
    return {
        "api_keys": keys,
        "presence_rule": DEFAULT_RULE if is_default else RECORDED,
        "authorize": None if config.authorize is None else RECORDED,
        "private_rule": None if config.private_rule is None else RECORDED,
        "wall_clock": None if config.wall_clock is None else RECORDED,
    }


# ---------------------------------------------------------------------------------------------------- outputs


_NAMES = {
    CONTINUATION: "continuation",
    TEXT: "text",
    BINARY: "binary",
    CLOSE: "close",
    PING: "ping",
    PONG: "pong",
}


CLIPPED = 200  # maximum number of characters that a core quotes from a server's text


class Decoder:
    """A decoder that turns the bytes of one direction of one connection into frames and HTTP parts."""

    def __init__(self, secrets: Secrets | None, limit: int) -> None:
        self._secrets = secrets
        self._scanner = Scanner()
        self._inflater = Inflater(limit)
        self._compressed = False  # whether the current message is compressed

    def read(self, data: bytes) -> list[dict[str, Any]]:
        """Add bytes. Return the frames and HTTP parts that these bytes complete."""
        return [
            self._frame(piece)
            if isinstance(piece, FramePiece)
            else {"http": self._http(piece.raw, isinstance(piece, HeadPiece))}
            for piece in self._scanner.feed(data)
        ]

    def _http(self, raw: bytes, is_head: bool) -> str:
        if self._secrets is not None:
            raw = redact_head(raw, self._secrets) if is_head else self._secrets.redact_json(raw)
        return raw.decode("utf-8", "surrogateescape")

    def _frame(self, frame: FramePiece) -> dict[str, Any]:
        payload = frame.payload
        more: dict[str, Any] = {} if frame.fin else {"fin": False}
        name = _NAMES.get(frame.opcode, f"opcode {frame.opcode}")
        if frame.is_control:
            payload = payload if self._secrets is None else self._secrets.redact(payload)
        else:
            if frame.opcode != CONTINUATION:
                self._compressed = frame.compressed
            if self._compressed:
                payload = self._inflater.inflate(payload, whole=frame.fin) or b""
                more["compressed"] = True
            payload = payload if self._secrets is None else self._secrets.redact_json(payload)
        if frame.opcode == CLOSE and len(payload) >= 2:
            more = {"code": int.from_bytes(payload[:2], "big"), **more}
            payload = payload[2:]
        if frame.opcode == BINARY:
            return {name: from_bytes(payload), **more}
        return {name: payload.decode("utf-8", "surrogateescape"), **more}


class OutputTeller:
    """A converter of one endpoint's outputs to lines of a recording.

    `limit` is the maximum message size in bytes.
    """

    def __init__(self, secrets: Secrets | None, limit: int) -> None:
        self._secrets = secrets
        self._limit = limit
        self._decoders: dict[ConnId, Decoder] = {}
        self._over: set[ConnId] = set()

    def closed(self, conn: ConnId) -> None:
        """Record the end of a connection. Outputs for the connection may still wait to be drained."""
        self._over.add(conn)

    def drained(self) -> None:
        """Remove closed connections. The caller must have drained all outputs before."""
        for conn in self._over:
            self._decoders.pop(conn, None)
        self._over.clear()

    def tell(self, output: Any) -> dict[str, Any]:
        """Return the line of the recording for an output."""
        match output:
            case OpenTransport():
                return {"open": output.conn, "host": output.host, "port": output.port, "tls": output.tls}
            case SendData():
                decoder = self._decoders.setdefault(output.conn, Decoder(self._secrets, self._limit))
                return {"send": output.conn, "frames": decoder.read(output.data)}
            case CloseTransport():
                self.closed(output.conn)
                return {"close": output.conn, "abort": output.abort}
            case _:
                return {"event": type(output).__name__, "fields": self._fields(output)}

    def _fields(self, event: Any) -> Any:
        told = to_json(fields(event), self._secrets)
        told.pop("server_text", None)  # version 1 of the format lacks this field; `message` has the same text
        for name in ("reason", "message"):
            words = getattr(event, name, None)
            if self._secrets is not None and isinstance(words, str) and len(words) >= CLIPPED:
                told[name] = self._secrets.redact_clipped(words)
        return told
