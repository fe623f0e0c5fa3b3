"""Which proxy is on the way to a server: the one that is given, or the one of the environment."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING

from presence_proto import ConfigError, Proxy

if TYPE_CHECKING:
    from presence_proto import RealtimeConfig

_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):([0-9]+)")  # a host, in brackets if it has colons, and a port


def find_proxy(given: str | None, config: RealtimeConfig) -> Proxy | None:
    """The proxy on the way to the server of `config`, or `None` when the way is direct.

    `given`: the URL of a proxy, for whatever server; `""` for none; `None` for what the environment says:
    `https_proxy` for TLS, `http_proxy` without, or else `all_proxy`, in lower or upper case. Then loopback
    and the hosts of `no_proxy` are reached directly. Raises `ConfigError` for a proxy that cannot be used.
    """
    if given is not None:
        return Proxy.from_url(given) if given else None
    address = config.address()
    if _is_loopback(address.host):
        return None
    names = ("https_proxy" if address.tls else "http_proxy", "all_proxy")
    name, url = next(((name, url) for name in names if (url := _variable(name)) is not None), ("", ""))
    if not url or is_exempt(address.host, address.port, _variable("no_proxy") or ""):
        return None
    try:
        return Proxy.from_url(url)
    except ConfigError as exc:
        way_round = f'to go without a proxy, set no_proxy={address.host}, or proxy=""'
        raise ConfigError(f"{name} in the environment: {exc}; {way_round}") from None


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether a server is to be reached without a proxy: the list `no_proxy` names it.

    Its items are separated by commas or spaces: `*`; a host or a domain, with or without a leading dot or
    `*.`, which stands for everything under it, too; an IP address, or a network such as `10.0.0.0/8`. All but
    networks may end in a port; an IPv6 address stands in brackets then.
    """
    return any(_names(item, host.rstrip(".").lower(), port) for item in no_proxy.replace(",", " ").split())


def _names(item: str, host: str, port: int) -> bool:
    if item == "*":
        return True
    if with_port := _PORT.fullmatch(item):
        item, wanted = with_port[1], with_port[2].lstrip("0")
        if wanted != str(port):
            return False
    network, number = _network(item.strip("[]")), _network(host)
    if network is not None:
        return number is not None and number.version == network.version and _lies_in(number, network)
    domain = item.lower().removeprefix("*").strip(".")
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        pass  # no name that a host can have
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """A network, or the one of an address alone."""
    try:
        return ipaddress.ip_network(text.partition("%")[0], strict=False)
    except ValueError:
        return None


def _lies_in(number: ipaddress.IPv4Network | ipaddress.IPv6Network, network: object) -> bool:
    return number.network_address in network  # type: ignore[operator]


def _variable(name: str) -> str | None:
    """A variable of the environment, in lower case first: an empty one hides the one in upper case."""
    if name in os.environ:
        return os.environ[name]
    if name == "http_proxy" and "REQUEST_METHOD" in os.environ:
        return None  # a CGI program: HTTP_PROXY is the header `Proxy` of whoever asks (httpoxy)
    return os.environ.get(name.upper())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")
