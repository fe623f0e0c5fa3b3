"""Which proxy is on the way to a server: the one that is given, or the one of the environment."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING

from presence_proto import ConfigError, Proxy

if TYPE_CHECKING:
    from presence_proto import RealtimeConfig


def find_proxy(given: str | None, config: RealtimeConfig) -> Proxy | None:
    """The proxy on the way to the server of `config`, or `None` when the way is direct.

    `given`: the URL of a proxy, for whatever server; `""` for none; `None` for what the environment says:
    `https_proxy` for TLS, `http_proxy` without, or else `all_proxy`, in lower or upper case. Then loopback
    and the hosts of `no_proxy` are reached directly. Raises `ConfigError` for a proxy that cannot be used.
    """
    if given is not None:
        return Proxy.from_url(given) if given else None
    address = config.address()
    if _is_loopback(address.host) or not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    # Not at the top: it takes 10 ms to import, and few need it.
    from urllib.request import getproxies_environment, proxy_bypass

    proxies = getproxies_environment()
    name = next((name for name in ("https" if address.tls else "http", "all") if name in proxies), None)
    hosts = (address.host, f"{address.host}:{address.port}")
    if name is None or any(proxy_bypass(host) for host in hosts):
        return None
    try:
        return Proxy.from_url(proxies[name])
    except ConfigError as exc:
        raise ConfigError(f"{name}_proxy in the environment: {exc}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")
