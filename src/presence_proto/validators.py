"""Checks of config values. Each check raises a `ConfigError` that names the field and quotes no secret."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from presence_proto.errors import ConfigError

if TYPE_CHECKING:
    from attrs import Attribute

MIN_SECONDS = 0.001
"""The shortest legal time in a config. A shorter timer would keep a CPU core busy."""

MAX_EPOCH_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, the latest time that Supabase accepts."""

MAX_REPLAY = 25
"""The maximum number of broadcasts that Supabase replays."""

LEAST_NESTING, MOST_NESTING = 20, 250
"""The range of `max_nesting`. Fewer levels are too few for this library's messages. More levels need too much
of Python's stack."""

RESERVED_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that only the handshake may set."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_HOST = re.compile(r"[0-9A-Za-z.:%_-]+")  # IPv6 included
_HEADER_VALUE = re.compile(r"([!-~]+([ \t]+[!-~]+)*)?")  # RFC 9110 §5.5, ASCII


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number that fits a float. A bool is not a number here."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def is_unicode(text: Any) -> bool:
    """Whether `text` is a string without lone surrogates, so that UTF-8 can encode it."""
    try:
        return isinstance(text, str) and text.encode() is not None
    except UnicodeEncodeError:
        return False


def is_one_line(text: str) -> bool:
    """Whether `text` has no control characters, such as line breaks and tabs."""
    return not any(ord(character) < 0x20 or ord(character) == 0x7F for character in text)


def is_token(text: str) -> bool:
    """Whether `text` is an HTTP token (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def host_name(host: str) -> str:
    """Return the host of a URL in ASCII (IDNA), for DNS and headers. Raises `ConfigError`."""
    try:
        ascii_host = host if ":" in host else host.encode("idna").decode("ascii")
    except UnicodeError:
        ascii_host = ""
    if not _HOST.fullmatch(ascii_host):
        raise ConfigError(f"{host!r} is not a host name")
    return ascii_host


def seconds(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not is_number(value) or value < MIN_SECONDS:
        raise ConfigError(f"{attribute.name} must be at least {MIN_SECONDS} seconds, not {value!r}")


def seconds_or_zero(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not is_number(value) or (value != 0 and value < MIN_SECONDS):
        raise ConfigError(f"{attribute.name} must be 0 or at least {MIN_SECONDS} seconds, not {value!r}")


def positive_int(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{attribute.name} must be a whole number of at least 1, not {value!r}")


def nesting(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not LEAST_NESTING <= value <= MOST_NESTING:
        raise ConfigError(
            f"{attribute.name} must be a whole number from {LEAST_NESTING} to {MOST_NESTING}, not {value!r}"
        )


def positive_int_or_none(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value is not None:
        positive_int(instance, attribute, value)


def fraction(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not is_number(value) or not 0 <= value <= 1:
        raise ConfigError(f"{attribute.name} must be a number from 0 to 1, not {value!r}")


def boolean(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{attribute.name} must be true or false, not {value!r}")


def text(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not value or not is_unicode(value):
        raise ConfigError(f"{attribute.name} must be a non-empty Unicode string, not {value!r}")


def text_or_empty(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not is_unicode(value):
        raise ConfigError(f"{attribute.name} must be a Unicode string, not {value!r}")


def secret(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and (not value or not is_unicode(value)):
        # Do not quote the value: the value may be an API key of the wrong type.
        kind = type(value).__name__
        raise ConfigError(f"{attribute.name} must be a non-empty Unicode string or None, not {kind}")


def string_pairs(value: Any) -> tuple[tuple[str, str], ...]:
    """Return a mapping or an iterable of pairs as pairs of strings. Raises `ConfigError` for other values."""
    try:
        pairs = tuple((name, text) for name, text in (value.items() if isinstance(value, Mapping) else value))
    except (TypeError, ValueError):
        pairs = ((None, None),)
    if not all(is_unicode(name) and is_unicode(text) for name, text in pairs):
        raise ConfigError("params and headers must be mappings or pairs of Unicode strings")
    return pairs


def params(instance: object, attribute: Attribute[Any], value: tuple[tuple[str, str], ...]) -> None:
    if "vsn" in dict(value):
        raise ConfigError(f"{attribute.name} must not hold 'vsn': set the vsn field")


def headers(instance: object, attribute: Attribute[Any], value: tuple[tuple[str, str], ...]) -> None:
    for name, text in value:
        if not is_token(name) or not _HEADER_VALUE.fullmatch(text):
            raise ConfigError(f"{attribute.name}: {name!r} is not a header in printable ASCII")
        if name.lower() in RESERVED_HEADERS:
            raise ConfigError(f"{attribute.name}: {name!r} is reserved: the handshake sets it")


def user_agent(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and (not value or not is_unicode(value) or not _HEADER_VALUE.fullmatch(value)):
        raise ConfigError(f"{attribute.name} must be printable ASCII or None, not {value!r}")


def token_param(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not value or not is_unicode(value) or value in ("vsn", "apikey"):
        hint = "; to keep the access token out of the URL, set token_in to 'none'" if not value else ""
        raise ConfigError(
            f"{attribute.name} must name a parameter other than vsn and apikey, not {value!r}{hint}"
        )


def token_in(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value not in (None, "query", "subprotocol", "none"):
        raise ConfigError(f"{attribute.name} must be 'query', 'subprotocol', 'none' or None, not {value!r}")


def as_tuple(value: Any) -> Any:
    """Return an iterable as a tuple. Strings and other values stay unchanged, for the validator to reject."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


def vsn(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value not in ("1.0.0", "2.0.0"):
        raise ConfigError(f"{attribute.name} must be '1.0.0' or '2.0.0', not {value!r}")


def protocol(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value not in (None, "phoenix", "jarvis"):
        raise ConfigError(f"{attribute.name} must be 'phoenix', 'jarvis' or None, not {value!r}")


def hub_protocol(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value not in ("both", "phoenix", "jarvis"):
        raise ConfigError(f"{attribute.name} must be 'both', 'phoenix' or 'jarvis', not {value!r}")


def shutdown_like(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value not in ("phoenix", "supabase"):
        raise ConfigError(f"{attribute.name} must be 'phoenix' or 'supabase', not {value!r}")


def subprotocols(instance: object, attribute: Attribute[Any], value: Any) -> None:
    tokens = isinstance(value, tuple) and all(is_unicode(name) and is_token(name) for name in value)
    if not tokens or len(set(value)) < len(value):  # RFC 6455 §4.1
        raise ConfigError(f"{attribute.name} must be a sequence of distinct HTTP tokens, not {value!r}")


def epoch_ms_or_none(instance: object, attribute: Attribute[Any], value: Any) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (whole and 0 <= value <= MAX_EPOCH_MS):
        raise ConfigError(
            f"{attribute.name} must be a whole number of milliseconds since 1970, or None, not {value!r}"
        )


def replay_limit(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_REPLAY:
        raise ConfigError(f"{attribute.name} must be a whole number from 1 to {MAX_REPLAY}, not {value!r}")
