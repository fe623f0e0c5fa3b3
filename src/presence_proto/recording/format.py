"""Outputs as a recording tells them: by meaning. The masks of a client's frames are random, so bytes are told
as the messages that they carry.
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

from presence_proto.authorization import Allow
from presence_proto.config import (
    BroadcastReplay,
    ChannelConfig,
    HubConfig,
    Identity,
    PresenceConfig,
    RealtimeConfig,
    join_params_are_the_meta,
)
from presence_proto.endpoint import CloseTransport, OpenTransport, SendData
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
# Values as JSON, and back: arguments, configs, events. Secrets are replaced on the way.


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


# ----------------------------------------------------------------------------------------------------- header
# The first line of a recording: what the endpoint was made from, without secrets.


FORMAT = "presence-recording"
FORMAT_VERSION = 1

FACTS = {
    "transport_opened": ("conn", "address"),  # the latter of hubs that count connections by address
    "receive_data": ("conn", "data"),
    "transport_closed": ("conn", "reason"),
    "tick": (),
}
"""The facts of every endpoint, and what they tell besides the time."""

_CLIENT = ("connect", "disconnect", "set_access_token", "access_token_failed")
COMMANDS = {
    "RealtimeClient": (*_CLIENT, "join", "leave", "push", "broadcast", "track", "untrack"),
    "PresenceClient": (*_CLIENT, "update_activity", "send_invite", "send_poke", "send_chat"),
    "Hub": ("broadcast", "close_channel", "crash_channel", "disconnect", "shutdown"),
}
"""The commands of each kind of endpoint."""

CALLS = {
    "presence_rule": ("topic", "params"),
    "authorize": ("join",),
    "private_rule": ("topic", "access_token"),
    "wall_clock": (),
}
"""What a hub asks its user, and with what. The answers are recorded."""

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
    """The header of a recording of `kind`. The secrets of the config are known to `secrets` from here on."""
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
    """The config in a header. `rules` are to be a hub's. Raises `ConfigError`, or `TypeError` and others."""
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
    """Give `rng` the state in a header. Raises `ValueError` or `TypeError`."""
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
    """The settings that are secret or may hold secrets, without them."""
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


CLIPPED = 200
"""Characters of a server's words that a core quotes at most."""


class Decoder:
    """One direction of one connection: its bytes in, what they say out."""

    def __init__(self, secrets: Secrets | None, limit: int) -> None:
        self._secrets = secrets
        self._scanner = Scanner()
        self._inflater = Inflater(limit)
        self._compressed = False  # the message under way is

    def read(self, data: bytes) -> list[dict[str, Any]]:
        """What is complete with these bytes."""
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
    """The outputs of one endpoint, each as one line of a recording. `limit`: bytes of a message."""

    def __init__(self, secrets: Secrets | None, limit: int) -> None:
        self._secrets = secrets
        self._limit = limit
        self._decoders: dict[ConnId, Decoder] = {}
        self._over: set[ConnId] = set()

    def closed(self, conn: ConnId) -> None:
        """This connection is over. Data for it may still wait to be drained."""
        self._over.add(conn)

    def drained(self) -> None:
        """No more outputs wait."""
        for conn in self._over:
            self._decoders.pop(conn, None)
        self._over.clear()

    def tell(self, output: Any) -> dict[str, Any]:
        """The line for an output."""
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
        for name in ("reason", "message"):
            words = getattr(event, name, None)
            if self._secrets is not None and isinstance(words, str) and len(words) >= CLIPPED:
                told[name] = self._secrets.redact_clipped(words)
        return told
