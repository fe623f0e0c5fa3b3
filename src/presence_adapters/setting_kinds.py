"""The kinds of values that settings have, from TOML, which knows types, or from text.

What is wrong with a value is said in words. Long strings are never quoted: a secret may stand in the wrong
place.
"""

from __future__ import annotations

import os
import re
import shlex
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

from presence_proto import ConfigError, PresenceConfig, Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

Command: TypeAlias = str | tuple[str, ...]
"""A command to run without a shell: its words; on Windows perhaps the whole line."""

LONGEST_QUOTED = 20
"""Characters. A longer string may be a secret in the wrong place, and is not quoted."""

# ---------------------------------------------------------------------------------------------- words

_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")


def without_long_quotes(message: str) -> str:
    """`message`, which somebody else has worded, without the longer strings that it quotes."""
    return _QUOTED.sub(lambda match: match[0] if len(match[0]) <= LONGEST_QUOTED + 2 else "…", message)


def shown(value: Any, *, secret: bool = False) -> str:
    """A value in the words of TOML, for an error."""
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
    """A kind of value. `expected` says in words what it is.

    `from_toml` and `from_text` give the value, or raise `ConfigError` with the fault after the key's name,
    or `ValueError` when it is not what is expected.
    """

    expected: str
    from_toml: Callable[[Any], Any]
    from_text: Callable[[str], Any] | None  # None: it can stand in the file only
    is_string: bool = True  # in TOML


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
    if " " in text or not text.isprintable():  # what is copied from a page may bring some that nobody sees
        raise ConfigError("must not hold spaces or characters that cannot be seen")
    return text


def _path(value: Any) -> Path:
    return Path(os.path.expanduser(_text(value)))


def _server(value: Any) -> str:
    text = _text(value).strip()
    try:
        PresenceConfig(
            **server_fields(text.partition("?")[0])
        )  # the query may have to do with other settings
    except ConfigError as exc:
        if "://" not in text:
            raise ValueError from None
        raise ConfigError(without_long_quotes(str(exc)).removeprefix("server_url").lstrip(": ")) from None
    return text


def server_fields(server_url: str) -> dict[str, Any]:
    """The field of `PresenceConfig` for a `server_url` of the settings: a URL or a project ref."""
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
"""What joins letters, as in Persian, and faces, or keeps them apart. It cannot be seen by itself."""


def _name(value: Any) -> str:
    text = _text(value).strip()
    visible = text.translate(_JOINERS)
    if not visible.strip() or not visible.isprintable():
        raise ConfigError("must be printable characters, at least one that is no space")
    return text


def checked_name(name: str) -> str:
    """A display name, without the space around it. Raises `ConfigError` for one that cannot be shown."""
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
        return text  # there a program splits its own command line
    try:
        return tuple(shlex.split(text))
    except ValueError:
        raise ConfigError("has a quotation mark that is never closed, or ends in a backslash") from None


def _pairs(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError
    return {_text(name): _text(text) for name, text in value.items()}


def choice(*words: str) -> Kind:
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
