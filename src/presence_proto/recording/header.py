"""The first line of a recording: what the endpoint was made from, without secrets."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, TypeAlias

from presence_proto.config import (
    HubConfig,
    Identity,
    PresenceConfig,
    RealtimeConfig,
    join_params_are_the_meta,
)
from presence_proto.recording.http import redact_header, redact_subprotocol, redact_url
from presence_proto.recording.values import fields, from_bytes, to_bytes, to_json
from presence_proto.secrets import is_secret_name
from presence_proto.version import VERSION

if TYPE_CHECKING:
    from random import Random

    from presence_proto.recording.redaction import Secrets

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
