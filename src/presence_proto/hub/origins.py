"""Checks of the `Origin` and `Host` headers, which decide which web pages may connect.

A browser allows every page to open a WebSocket to every server, and sends the page's origin in the request
(RFC 6455 §10.2). Other programs send no origin. The checks refuse two kinds of pages:

- a page of another origin, such as `https://evil.example`, that opens `ws://localhost:4000`;
- a page after DNS rebinding: the page's host name first resolved to the page's server, and later to
  127.0.0.1. The origin of the page and the `Host` of the request agree. Only the `Host` shows that the name
  does not belong to this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from presence_proto.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[^/:@?#\[\]\s]+)(:(?P<port>\d{1,5}))?"
)
_HOST = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^/:@?#\[\]\s]+)(:\d{0,5})?")
_DEFAULT_PORTS = {"http": "80", "ws": "80", "https": "443", "wss": "443"}
_MAX_QUOTED = 100  # maximum number of characters of a header that a refusal quotes


def page_fault(
    headers: Iterable[tuple[str, str]], allowed_origins: Sequence[str], allowed_hosts: Sequence[str] | None
) -> str | None:
    """Return the reason to refuse a web page's request, or `None` if the request is allowed.

    Header names are lower-case. `allowed_hosts` lists the legal `Host` values of a page's request, besides
    loopback names and the hosts of `allowed_origins`. `None` allows any `Host`.
    """
    origins = [value for name, value in headers if name == "origin"]
    if not origins or "*" in allowed_origins:
        return None
    named = [value.strip() for name, value in headers if name == "host"]
    host = _host_of(named[0]) if len(named) == 1 else None
    if allowed_hosts is not None and not _is_known(host, allowed_origins, allowed_hosts):
        return (
            f"the host {_quoted(', '.join(named))} is not a name of loopback. If pages use it, "
            "list an origin of this host in allowed_origins (`presence hub --allow-origin`)"
        )
    for origin in origins:
        if not _may_connect(origin.strip(), host, allowed_origins):
            return (
                f"pages of the origin {_quoted(origin)} may not connect. "
                "If they should, list it in allowed_origins (`presence hub --allow-origin`)"
            )
    return None


def _may_connect(origin: str, host: str | None, allowed: Sequence[str]) -> bool:
    plain = _normal(origin)
    if plain is None:
        return origin == "null" and origin in allowed
    page = _host_of(plain.partition("://")[2])
    if page == host or (host is not None and _both_loopback(page, host)):
        return True
    return any(_matches(plain, pattern) for pattern in allowed)


def _is_known(host: str | None, allowed_origins: Sequence[str], allowed_hosts: Sequence[str]) -> bool:
    if host is None:
        return False
    hosts = (*allowed_hosts, *(origin.partition("://")[2] for origin in allowed_origins))
    return is_loopback(host) or any(_matches(host, _host_of(one) or one) for one in hosts)


def _matches(text: str, pattern: str) -> bool:
    """Whether an origin or a host matches a pattern. In the pattern, `*.` stands for any subdomain."""
    start, star, end = pattern.partition("*")
    if not star:
        return text == pattern
    return text.startswith(start) and text.endswith(end) and len(text) > len(start + end)


def _both_loopback(page: str | None, host: str) -> bool:
    return page is not None and is_loopback(page) and is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback name (RFC 6761 §6.3) or address. The check makes no DNS lookup."""
    host = host.lower().strip("[]").removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _host_of(authority: str) -> str | None:
    """Return the host of `host:port`, lower-case and without a final dot; `None` for malformed text."""
    match = _HOST.fullmatch(authority.lower())
    return None if match is None else match["host"].removesuffix(".")


def _normal(origin: str) -> str | None:
    """Return an origin in lower case and without its scheme's default port; `None` for malformed text."""
    match = _ORIGIN.fullmatch(origin.lower())
    if match is None:
        return None
    scheme, host, port = match["scheme"], match["host"], match["port"]
    return f"{scheme}://{host}" + ("" if port in (None, _DEFAULT_PORTS.get(scheme)) else f":{port}")


def _quoted(text: str) -> str:
    return json.dumps(text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "…")


# ---------------------------------------------------------------------------------------------- settings


def origin_list(value: Any) -> tuple[str, ...]:
    """Validate `allowed_origins`, and return each origin in normal form. Raises `ConfigError` if invalid."""
    return tuple(dict.fromkeys(map(_pattern, _strings("allowed_origins", value))))


def host_list(value: Any) -> tuple[str, ...] | None:
    """Validate `allowed_hosts`, and return each host in lower case. Raises `ConfigError` if invalid."""
    if value is None:
        return None
    hosts = []
    for text in _strings("allowed_hosts", value):
        host = _host_of(text)
        if host is None or host != text.lower().removesuffix(".") or "*" in host.removeprefix("*."):
            raise ConfigError(
                f"allowed_hosts: {text!r} is not a host: it must be like 'example.com' or '*.example.com', "
                "without a port"
            )
        hosts.append(host)
    return tuple(dict.fromkeys(hosts))


def _pattern(text: str) -> str:
    if text in ("*", "null"):
        return text
    plain = _normal(text)
    if plain is None or "*" in plain.replace("://*.", "://", 1):
        raise ConfigError(
            f"allowed_origins: {text!r} is not an origin: it must be like 'https://example.com', "
            "'http://localhost:5173', 'https://*.example.com', '*' or 'null'"
        )
    return plain


def _strings(name: str, value: Any) -> list[str]:
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        texts = list(value)
        if all(isinstance(text, str) for text in texts):
            return texts
    raise ConfigError(f"{name} must be a sequence of strings, not {value!r}")
