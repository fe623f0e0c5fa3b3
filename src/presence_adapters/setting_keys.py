"""Every setting of the `presence` command: its name, the kind of its value, and how that is checked.

What is wrong with a value is a `ConfigError` that says what would be right, and quotes no secret.
"""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, fields_dict, frozen

from presence_adapters.setting_kinds import (
    COMMAND,
    COUNT,
    FILE,
    FRACTION,
    LONGEST_QUOTED,
    NAME,
    PAIRS,
    PROXY,
    SECONDS,
    SECRET,
    SERVER,
    SWITCH,
    TEXT,
    TEXTS,
    TIMEOUT,
    Kind,
    choice,
    shown,
    without_long_quotes,
)
from presence_proto import ConfigError, PresenceConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BLANK = object()
"""The value of a setting that is there and empty, which is as good as not there."""


@frozen
class Key:
    """A setting. `secret`: its value is never shown. `blank`: whether an empty string means "not set"."""

    name: str
    kind: Kind
    secret: bool = False
    blank: bool = True

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"PRESENCE_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return f"--{self.name.replace('_', '-')}"

    def from_toml(self, value: Any) -> Any:
        """The value, checked, or `BLANK`. Raises `ConfigError`."""
        if value == "" and self.blank and self.kind.is_string:
            return BLANK
        try:
            return self._checked(self.kind.from_toml(value))
        except ConfigError as exc:
            raise self._named(exc) from None
        except ValueError:
            hint = " (without the quotation marks)" if self._would_be_right(value) else ""
            raise self._unexpected(value, hint) from None

    def from_text(self, text: str) -> Any:
        """The value, checked, or `BLANK`. Raises `ConfigError`."""
        if not text:
            return BLANK
        if self.kind.from_text is None:
            raise ConfigError(f"{self.name} can be set in the file only")
        try:
            return self._checked(self.kind.from_text(text))
        except ConfigError as exc:
            raise self._named(exc) from None
        except ValueError:
            raise self._unexpected(text) from None

    def _checked(self, value: Any) -> Any:
        """What the client's config says to it, which knows the ranges."""
        attribute = fields_dict(PresenceConfig).get(self.name)
        if attribute is not None and self.kind is not SERVER:
            value = attribute.converter(value) if callable(attribute.converter) else value
            if attribute.validator is not None:
                attribute.validator(None, attribute, field_value(self.name, value))
        return value

    def _named(self, exc: ConfigError) -> ConfigError:
        text = without_long_quotes(str(exc))
        return ConfigError(text if text.startswith(self.name) else f"{self.name} {text}")

    def _unexpected(self, value: Any, hint: str = "") -> ConfigError:
        return ConfigError(
            f"{self.name} must be {self.kind.expected}, not {shown(value, secret=self.secret)}{hint}"
        )

    def _would_be_right(self, value: Any) -> bool:
        """Whether a string holds what would have been right as it is."""
        if not isinstance(value, str):
            return False
        try:
            self.kind.from_toml(tomllib.loads(f"value = {value}")["value"])
        except ValueError:
            return False
        return True


def field_value(name: str, value: Any) -> Any:
    """The value of a field of `PresenceConfig`. TOML has no null: 0 is no limit, "" nothing at all."""
    nothing = (("track_limit", 0), ("max_final_refusals", 0), ("user_agent", ""))
    return None if (name, value) in nothing else value


_ALL = [
    Key("enabled", SWITCH),
    Key("server_url", SERVER),
    Key("api_key", SECRET, secret=True),
    Key("api_key_file", FILE),
    Key("access_token", SECRET, secret=True),
    Key("access_token_file", FILE),
    Key("access_token_command", COMMAND, secret=True),  # its arguments may hold one
    Key("access_token_timeout", TIMEOUT),
    Key("display_name", NAME),
    Key("identity_file", FILE),
    Key("tls_ca", FILE),
    Key("proxy", PROXY, secret=True, blank=False),  # it may hold a password
    Key("protocol", choice("phoenix", "jarvis")),
    Key("channel", TEXT),
    Key("visible", SWITCH),
    Key("vsn", choice("1.0.0", "2.0.0")),
    Key("params", PAIRS, secret=True),
    Key("headers", PAIRS, secret=True),
    Key("user_agent", TEXT, blank=False),
    Key("subprotocols", TEXTS),
    Key("token_in", choice("query", "subprotocol", "none")),
    Key("token_param", TEXT, blank=False),  # "" meant that the URL has no token; that is for token_in to say
    Key("deflate", SWITCH),
    Key("heartbeat_interval", SECONDS),
    Key("heartbeat_timeout", SECONDS),
    Key("connect_timeout", SECONDS),
    Key("join_timeout", SECONDS),
    Key("push_timeout", SECONDS),
    Key("state_timeout", SECONDS),
    Key("close_timeout", SECONDS),
    Key("command_timeout", SECONDS),
    Key("restart_grace", SECONDS),
    Key("reconnect_delay", SECONDS),
    Key("max_reconnect_delay", SECONDS),
    Key("jitter", FRACTION),
    Key("stable_after", SECONDS),
    Key("max_final_refusals", COUNT),
    Key("rejoin_after_close", SWITCH),
    Key("track_limit", COUNT),
    Key("track_window", SECONDS),
    Key("max_message_size", COUNT),
    Key("max_nesting", COUNT),
    Key("max_channels", COUNT),
    Key("max_pending_pushes", COUNT),
    Key("max_pending_diffs", COUNT),
    Key("max_pending_bytes", COUNT),
    Key("max_roster", COUNT),
    Key("max_metas", COUNT),
]
KEYS: Mapping[str, Key] = {key.name: key for key in _ALL}
"""The settings by name, in the order of the documentation."""

ALTERNATIVES = [
    ("api_key", "api_key_file"),
    ("access_token", "access_token_file", "access_token_command"),
]
"""Of each of these, one can be set."""

_MEANT = {
    "anon_key": "api_key",
    "apikey": "api_key",
    "heartbeat": "heartbeat_interval",
    "host": "server_url",
    "key": "api_key",
    "name": "display_name",
    "project": "server_url",
    "project_ref": "server_url",
    "wire": "protocol",
    "token": "access_token",
    "url": "server_url",
    "user_id": "identity_file",
    "username": "display_name",
}
"""What people may call a setting."""


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that somebody may have meant by `name`."""
    found = get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.7)
    return found[0] if found else None


def unknown_key(name: str) -> str:
    """What is wrong with a key that is none, and what may have been meant."""
    meant = _MEANT.get(name.lower().replace("-", "_")) or nearest(name, list(KEYS))
    if meant:
        return f'unknown key "{name}", did you mean {meant}?'
    what = f'unknown key "{name}"' if len(name) <= LONGEST_QUOTED and name.isprintable() else "unknown key"
    return f"{what}, and no setting has a name like it"


# ---------------------------------------------------------------------------------------------- entries


@frozen
class Origin:
    """The source of a value. `str` of it is for people: `config.toml:3`, `PRESENCE_VSN`, `--vsn`."""

    kind: Literal["default", "file", "environment", "flag"]
    name: str = ""  # the path, the variable or the option
    line: int | None = None

    def __str__(self) -> str:
        if self.kind == "default":
            return "the default"
        return self.name if self.line is None else f"{self.name}:{self.line}"


@frozen
class Entry:
    """A value that was set, and where."""

    value: Any = field(repr=False)
    origin: Origin
