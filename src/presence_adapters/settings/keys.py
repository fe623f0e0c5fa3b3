"""All settings of the `presence` command, with names, kinds of values and checks.

A wrong value raises a `ConfigError`. The message describes valid values and never quotes a secret.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import field, fields_dict, frozen

from presence_proto import ConfigError, PresenceConfig
from presence_proto.websocket import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


# ---------------------------------------------------------------------------------------------- setting kinds
# A kind converts a setting's value from TOML, which has types, or from text.
#
# Error messages never quote a long string, because the string may be a secret in the wrong setting.


Command: TypeAlias = str | tuple[str, ...]
"""A command to run without a shell: a tuple of arguments or, on Windows, a whole command line."""

LONGEST_QUOTED = 20  # maximum quoted characters; a longer string may be a secret in the wrong setting

# ---------------------------------------------------------------------------------------------- words

_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")


def without_long_quotes(message: str) -> str:
    """Return `message`, with each quoted string of more than `LONGEST_QUOTED` characters replaced by "…"."""
    return _QUOTED.sub(lambda match: match[0] if len(match[0]) <= LONGEST_QUOTED + 2 else "…", message)


def shown(value: Any, *, secret: bool = False) -> str:
    """Describe a value in TOML's terms, for an error message. `secret`: do not quote the value."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number" if secret or len(repr(value)) > LONGEST_QUOTED else repr(value)
        case str() if not secret and len(value) <= LONGEST_QUOTED and value.isprintable():
            return f'"{value}"'
        case str():
            return f"a string of {len(value)} characters"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


# ---------------------------------------------------------------------------------------------- kinds


@frozen
class Kind:
    """A kind of setting value. `expected` describes valid values in words.

    `from_toml` and `from_text` return the converted value. Both functions raise `ValueError` when the value
    is not as `expected`, and `ConfigError` for any other fault. The message of a `ConfigError` continues a
    sentence that starts with the setting's name.
    """

    expected: str
    from_toml: Callable[[Any], Any]
    from_text: Callable[[str], Any] | None  # None: only the settings file can have this setting
    is_string: bool = True  # whether the value is a string in TOML


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


_SWITCHES = {"true": True, "yes": True, "on": True, "1": True}
_SWITCHES |= {"false": False, "no": False, "off": False, "0": False}


def _switch_from_text(text: str) -> bool:
    if text.lower() not in _SWITCHES:
        raise ValueError
    return _SWITCHES[text.lower()]


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    try:
        if isfinite(value):
            return value
    except OverflowError:
        pass
    raise ConfigError("must be a finite number")


def _timeout(value: Any) -> int | float:
    if _number(value) <= 0:
        raise ConfigError(f"must be more than 0 seconds, not {shown(value)}")
    return _number(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError("is not valid UTF-8") from None
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
        raise ConfigError("must not hold line breaks or other control characters")
    return value


def _secret(value: Any) -> str:
    text = _text(value).strip()
    if " " in text or not text.isprintable():  # text copied from a web page may contain invisible characters
        raise ConfigError("must not hold spaces or invisible characters")
    return text


def _path(value: Any) -> Path:
    return Path(os.path.expanduser(_text(value)))


def _server(value: Any) -> str:
    text = _text(value).strip()
    try:
        PresenceConfig(
            **server_fields(text.partition("?")[0])
        )  # without the query, which may depend on other settings
    except ConfigError as exc:
        if "://" not in text:
            raise ValueError from None
        raise ConfigError(without_long_quotes(str(exc)).removeprefix("server_url").lstrip(": ")) from None
    return text


def server_fields(server_url: str) -> dict[str, Any]:
    """Return the argument of `PresenceConfig` for a `server_url` setting, which is a URL or a project ref."""
    return {"server_url" if "://" in server_url else "project_ref": server_url}


def _proxy(value: Any) -> str:
    text = _text(value).strip()
    if text:
        try:
            Proxy.from_url(text)
        except ConfigError as exc:
            raise ConfigError(str(exc).removeprefix("proxy").lstrip(": ")) from None
    return text


_JOINERS = str.maketrans("", "", "\u200c\u200d")
"""The zero-width non-joiner and joiner. Both are invisible alone, but Persian text and emoji need them."""


def _name(value: Any) -> str:
    text = _text(value).strip()
    visible = text.translate(_JOINERS)
    if not visible.strip() or not visible.isprintable():
        raise ConfigError("must be printable characters, and not only spaces")
    return text


def checked_name(name: str) -> str:
    """Return a display name without surrounding space. Raises `ConfigError` if no character is
    visible or if any character is not printable."""
    try:
        return _name(name)
    except ConfigError as exc:
        raise ConfigError(f"a display name {exc}") from None


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(_text(item) for item in value)


def _command(value: Any) -> Command:
    words = _texts(value) if isinstance(value, list) else _command_from_text(_text(value))
    if not words or not words[0]:
        raise ConfigError("must name a program")
    return words


def _command_from_text(text: str) -> Command:
    if os.name == "nt":
        return text  # on Windows each program splits its own command line
    try:
        return tuple(shlex.split(text))
    except ValueError:
        raise ConfigError("has a quotation mark that is never closed, or ends in a backslash") from None


def _pairs(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError
    return {_text(name): _text(text) for name, text in value.items()}


def choice(*words: str) -> Kind:
    """Return the kind of a setting that must be one of `words`."""

    def chosen(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Kind(" or ".join(f'"{word}"' for word in words), chosen, chosen)


SWITCH = Kind("true or false", _switch, _switch_from_text, is_string=False)
SECONDS = Kind("a number of seconds, such as 30", _number, lambda text: _number(float(text)), is_string=False)
TIMEOUT = Kind(SECONDS.expected, _timeout, lambda text: _timeout(float(text)), is_string=False)
FRACTION = Kind(
    "a number from 0 to 1, such as 0.25", _number, lambda text: _number(float(text)), is_string=False
)
COUNT = Kind("a whole number, such as 100", _count, int, is_string=False)
TEXT = Kind('a string, such as "text"', _text, _text)
NAME = Kind('a string, such as "Alice"', _name, _name)
SECRET = Kind("a string", _secret, _secret)
FILE = Kind("the path of a file, as a string", _path, _path)
SERVER = Kind(
    "a Supabase project ref (letters, digits and dashes) or a whole URL that begins with ws:// or wss://",
    _server,
    _server,
)
PROXY = Kind(
    "the URL of a proxy, such as http://proxy.example:3128 or socks5://proxy.example", _proxy, _proxy
)
COMMAND = Kind('a command, such as "pass show token" or ["pass", "show", "token"]', _command, _command)
TEXTS = Kind(
    'a list of strings, such as ["one", "two"]',
    _texts,
    lambda text: _texts([item.strip() for item in text.split(",")]),
    is_string=False,
)
PAIRS = Kind('a table of strings, such as { name = "value" }', _pairs, None, is_string=False)


# ----------------------------------------------------------------------------------------------- setting keys


BLANK = object()
"""The value of a setting that is present but empty. An empty setting counts as not set."""


@frozen
class Key:
    """A setting. `secret`: the value must never be shown. `blank`: an empty string means "not set"."""

    name: str
    kind: Kind
    secret: bool = False
    blank: bool = True

    @property
    def variable(self) -> str:
        """The name of the environment variable for this setting, such as `PRESENCE_VSN`."""
        return f"PRESENCE_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """The command-line option for this setting, such as `--vsn`."""
        return f"--{self.name.replace('_', '-')}"

    def from_toml(self, value: Any) -> Any:
        """Check and convert a TOML value. May return `BLANK`. Raises `ConfigError`."""
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
        """Check and convert the text of a variable or option. May return `BLANK`. Raises `ConfigError`."""
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
        # The converters and validators of `PresenceConfig` check the ranges of values.
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
        """Whether a TOML string would be valid without the quotation marks."""
        if not isinstance(value, str):
            return False
        try:
            self.kind.from_toml(tomllib.loads(f"value = {value}")["value"])
        except (ValueError, RecursionError):
            return False
        return True


def field_value(name: str, value: Any) -> Any:
    """Return the `PresenceConfig` value of a setting.

    TOML has no null. `None` is written as 0 for `track_limit` and `max_final_refusals`, and as "" for
    `user_agent`.
    """
    nothing = (("track_limit", 0), ("max_final_refusals", 0), ("user_agent", ""))
    return None if (name, value) in nothing else value


_ALL = [
    Key("enabled", SWITCH),
    Key("server_url", SERVER),
    Key("api_key", SECRET, secret=True),
    Key("api_key_file", FILE),
    Key("access_token", SECRET, secret=True),
    Key("access_token_file", FILE),
    Key("access_token_command", COMMAND, secret=True),  # the arguments may contain a secret
    Key("access_token_timeout", TIMEOUT),
    Key("display_name", NAME),
    Key("identity_file", FILE),
    Key("tls_ca", FILE),
    Key("proxy", PROXY, secret=True, blank=False),  # the URL may contain a password
    Key("protocol", choice("phoenix", "jarvis")),
    Key("channel", TEXT),
    Key("visible", SWITCH),
    Key("vsn", choice("1.0.0", "2.0.0")),
    Key("params", PAIRS, secret=True),
    Key("headers", PAIRS, secret=True),
    Key("user_agent", TEXT, blank=False),
    Key("subprotocols", TEXTS),
    Key("token_in", choice("query", "subprotocol", "none")),
    Key("token_param", TEXT, blank=False),  # "" is an error: use token_in to keep the token out of the URL
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
"""All settings by name, in the order used in the documentation."""

ALTERNATIVES = [
    ("api_key", "api_key_file"),
    ("access_token", "access_token_file", "access_token_command"),
]
"""Groups of alternative settings. Each source of settings may set only one of a group."""

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
"""Wrong setting names that people may use, each with the correct name."""


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name most similar to `name`, or `None` if no name is similar."""
    found = get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.7)
    return found[0] if found else None


def unknown_key(name: str) -> str:
    """Return the error text for an unknown key, with a suggestion."""
    meant = _MEANT.get(name.lower().replace("-", "_")) or nearest(name, list(KEYS))
    if meant:
        return f'unknown key "{name}", did you mean {meant}?'
    what = f'unknown key "{name}"' if len(name) <= LONGEST_QUOTED and name.isprintable() else "unknown key"
    return f"{what}: no setting has a similar name"


# ---------------------------------------------------------------------------------------------- entries


@frozen
class Origin:
    """The source of a setting's value. The `str` is, for example, `config.toml:3` or `PRESENCE_VSN`."""

    kind: Literal["default", "file", "environment", "flag"]
    name: str = ""  # the path, the variable or the option
    line: int | None = None

    def __str__(self) -> str:
        if self.kind == "default":
            return "the default"
        return self.name if self.line is None else f"{self.name}:{self.line}"


@frozen
class SourcedValue:
    """A value of a setting, and the source of the value."""

    value: Any = field(repr=False)
    origin: Origin
