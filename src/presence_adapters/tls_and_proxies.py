"""Connection helpers for all drivers: address order, choice of the proxy, TLS context, error texts."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
import ssl
from ipaddress import IPv6Address, ip_address
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

from presence_proto import ConfigError, PresenceError, ProxyError
from presence_proto.websocket import Proxy

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from presence_proto import OpenTransport, RealtimeConfig
    from presence_proto.websocket import ProxyTunnel


# -------------------------------------------------------------------------------------------------- addresses
# Addresses of a host (RFC 8305): the order of attempts, and the error when all fail. Addresses of peers.


Found: TypeAlias = tuple[Any, ...]  # family, type, protocol, name, address: an item of `getaddrinfo`

STAGGER = 0.25
"""Delay in seconds before the next address is tried in parallel (RFC 8305 §5)."""


def look_up(host: str, port: int, flags: int = 0) -> list[Found]:
    """Return the TCP results of `getaddrinfo`. Blocks; raises `OSError` or `UnicodeError`."""
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))


def numeric(host: str, port: int) -> list[Found]:
    """Return the address if `host` is an IP address, or `[]` if `host` is a name. Never blocks."""
    try:
        return look_up(host, port, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []


def in_turn(found: Iterable[Found]) -> list[Found]:
    """Sort addresses so that IPv4 and IPv6 alternate (RFC 8305 §4). Broken IPv6 then costs one `STAGGER`."""
    families: dict[Any, list[Found]] = {}
    for one in found:
        families.setdefault(one[0], []).append(one)
    return [one for turn in zip_longest(*families.values()) for one in turn if one is not None]


def none_works(errors: Sequence[OSError]) -> OSError:
    """Return the exception to raise when all addresses have failed, or when there is no address."""
    if not errors:
        return socket.gaierror(socket.EAI_NONAME, "it has no address")
    if len(errors) == 1:
        return errors[0]
    failure = OSError("no address of the host works")
    failure.__cause__ = ExceptionGroup("the addresses", list(errors))  # trio raises the same structure
    return failure


def one_peer(address: str) -> str:
    """Return a key that is equal for all addresses of one peer: the IPv4 address, or the IPv6 /64 network.

    A customer has at least an IPv6 /64 network (RFC 6177), and may use a new address for each connection.
    """
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or f"{IPv6Address(int(ip) >> 64 << 64)}/64")
    return str(ip)


# ---------------------------------------------------------------------------------------------------- proxies
# Choice of the proxy for a server: from the argument, or from the environment.


_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):([0-9]+)")  # host and port; brackets enclose a host with colons


def find_proxy(given: str | None, config: RealtimeConfig) -> Proxy | None:
    """Return the proxy for the server of `config`, or `None` for a direct connection.

    `given`: a proxy URL, `""` for a direct connection, or `None` to read the environment: `https_proxy` with
    TLS, `http_proxy` without TLS, else `all_proxy`, in lower or upper case. A proxy from the environment is
    not used for loopback and the hosts of `no_proxy`. Raises `ConfigError` for an invalid proxy.
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
        way_round = f'to connect without a proxy, set no_proxy={address.host}, or proxy=""'
        raise ConfigError(f"{name} in the environment: {exc}; {way_round}") from None


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether the list `no_proxy` contains the server, so that the client must connect without a proxy.

    Items are separated by commas or spaces. An item is `*`, a host or domain, an IP address, or a network
    such as `10.0.0.0/8`. A domain includes its subdomains; a leading dot or `*.` changes nothing. All items
    except networks may end in a port. Brackets enclose an IPv6 address that has a port.
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
        pass  # not a valid host name: compare the text unchanged
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Parse a network. A single address is parsed as a network of one address."""
    try:
        return ipaddress.ip_network(text.partition("%")[0], strict=False)
    except ValueError:
        return None


def _lies_in(number: ipaddress.IPv4Network | ipaddress.IPv6Network, network: object) -> bool:
    return number.network_address in network  # type: ignore[operator]


def _variable(name: str) -> str | None:
    """Return an environment variable. The lower-case name, even if empty, overrides the upper-case name."""
    if name in os.environ:
        return os.environ[name]
    if name == "http_proxy" and "REQUEST_METHOD" in os.environ:
        return None  # in a CGI program, HTTP_PROXY is the request header `Proxy` of the client (httpoxy)
    return os.environ.get(name.upper())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


# ------------------------------------------------------------------------------------------------ error words
# Error texts for failures of the operating system and of TLS.
#
# The texts of the system, Python and OpenSSL are not used, because the texts differ between machines and
# releases. An error that is not in these tables is reported by number or name.


_OS_ERRORS = {
    errno.EACCES: "permission denied",
    errno.EADDRINUSE: "address already in use",
    errno.EADDRNOTAVAIL: "address not available on this machine",
    errno.EAFNOSUPPORT: "address family not supported",
    errno.EBADF: "file is closed",
    errno.ECONNABORTED: "connection aborted",
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset by peer",
    errno.EEXIST: "file exists",
    errno.EHOSTUNREACH: "no route to host",
    errno.EINVAL: "invalid argument",
    errno.EIO: "input/output error",
    errno.EISDIR: "is a directory",
    errno.ELOOP: "too many symbolic links",
    errno.EMFILE: "too many open files",
    errno.ENAMETOOLONG: "file name too long",
    errno.ENETDOWN: "network is down",
    errno.ENETUNREACH: "network is unreachable",
    errno.ENFILE: "too many open files in system",
    errno.ENOBUFS: "no buffer space available",
    errno.ENOENT: "no such file or directory",
    errno.ENOMEM: "cannot allocate memory",
    errno.ENOSPC: "no space left on device",
    errno.ENOTCONN: "not connected",
    errno.ENOTDIR: "not a directory",
    errno.ENXIO: "no such device or address",
    errno.EPERM: "operation not permitted",
    errno.EPIPE: "broken pipe",
    errno.EROFS: "read-only file system",
    errno.ETIMEDOUT: "connection timed out",
    errno.EAGAIN: "resource temporarily unavailable",
}
for _name, _words in (("EDQUOT", "disk quota exceeded"), ("EHOSTDOWN", "host is down")):
    if hasattr(errno, _name):  # Windows lacks some of these error names
        _OS_ERRORS[getattr(errno, _name)] = _words

_NAME_ERRORS = {
    getattr(socket, name): words
    for name, words in {
        "EAI_AGAIN": "the name server does not answer",
        "EAI_FAIL": "the name server failed",
        "EAI_FAMILY": "address family not supported",
        "EAI_NODATA": "the name has no address",
        "EAI_NONAME": "the name is not known",
        "EAI_SERVICE": "the port is not known",
    }.items()
    if hasattr(socket, name)
}

# Verification errors of X.509 certificates, by number in OpenSSL's x509_vfy.h.
_CERTIFICATE_ERRORS = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed",
    19: "a self-signed certificate is in its chain",
    20: "its issuer is not trusted",
    21: "its issuer is not trusted",
    23: "it was revoked",
    24: "a certificate in its chain is not allowed to issue certificates",
    26: "it is not a server certificate",
    62: "it is for another host name",
    64: "it is for another IP address",
}

# TLS errors, by the name of the OpenSSL reason.
_TLS_ERRORS = {
    "CERTIFICATE_REQUIRED": "a client certificate is required",
    "CERTIFICATE_VERIFY_FAILED": "the certificate is not trusted",
    "HTTP_REQUEST": "the other side speaks HTTP without TLS",
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
    "NO_PROTOCOLS_AVAILABLE": "the two sides have no TLS version in common",
    "NO_SHARED_CIPHER": "the two sides have no cipher in common",
    "PACKET_LENGTH_TOO_LONG": "the other side does not speak TLS",
    "RECORD_LAYER_FAILURE": "the other side does not speak TLS",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the other side refused our certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the other side refused the TLS handshake",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "a client certificate is required",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the other side refused our TLS version",
    "TLSV1_ALERT_UNKNOWN_CA": "the other side does not trust the issuer of our certificate",
    "UNEXPECTED_EOF_WHILE_READING": "the connection ended without a TLS closing message",
    "UNSUPPORTED_PROTOCOL": "the other side refused our TLS version",
    "WRONG_VERSION_NUMBER": "the other side does not speak TLS",
}


def os_error_words(error: OSError) -> str:
    """Return the reason of a failed system call, without the path or address."""
    if isinstance(error, ssl.SSLError):
        return tls_error_words(error)
    number = error.errno
    if isinstance(error, socket.gaierror):
        return _NAME_ERRORS.get(number or 0) or f"name look-up error {number}"
    if number is None:
        return "timed out" if isinstance(error, TimeoutError) else type(error).__name__
    return _OS_ERRORS.get(number) or f"system error {errno.errorcode.get(number, number)}"


def tls_error_words(error: ssl.SSLError) -> str:
    """Return the reason of a TLS failure, as an error text."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code: int | None = getattr(error, "verify_code", None)
        return _CERTIFICATE_ERRORS.get(code or 0) or f"verification error {code}"
    reason = getattr(error, "reason", None)
    if reason is None:
        return "TLS failed"
    return _TLS_ERRORS.get(reason) or f"TLS error {reason}"


# ------------------------------------------------------------------------------------------------- connecting


_CLOSED_IN_TLS = "the connection was closed during the TLS handshake"


def log_opening(logger: logging.Logger, wanted: OpenTransport, proxy: Proxy | None) -> None:
    """Log the target of a new connection at level DEBUG."""
    logger.debug(
        "connection %d: opening %s:%d%s%s",
        wanted.conn,
        wanted.host,
        wanted.port,
        " with TLS" if wanted.tls else "",
        "" if proxy is None else f" through the proxy {proxy}",
        extra={"conn": wanted.conn},
    )


def client_context(given: ssl.SSLContext | None) -> ssl.SSLContext:
    """Return `given`, or a new TLS context that verifies certificates and host names."""
    return ssl.create_default_context() if given is None else given


async def open_tunnel(
    tunnel: ProxyTunnel,
    send: Callable[[bytes], Awaitable[object]],
    receive: Callable[[], Awaitable[bytes | bytearray]],
) -> None:
    """Open `tunnel` on a stream to the proxy. Raises `ProxyError`, and the exceptions of the stream."""
    while not tunnel.is_open:
        await send(tunnel.data_to_send())
        if not (data := await receive()):
            tunnel.receive_eof()
        tunnel.receive_data(data)


def why_not_connected(error: BaseException, host: str, port: int) -> str:
    """Return the reason why a connection to `host`:`port` could not be made."""
    where = f"{host}:{port}"
    match error:
        case PresenceError():
            return str(error)
        case socket.gaierror():
            return f"cannot find the host {host} ({os_error_words(error)})"
        case UnicodeError():
            return f"{host} is not a valid host name"
        case ssl.SSLCertVerificationError():
            return f"the TLS certificate of {where} is not trusted ({tls_error_words(error)})"
        case ssl.SSLEOFError():
            return f"cannot connect to {where} ({_CLOSED_IN_TLS})"
        case ssl.SSLError():
            return f"the TLS handshake with {where} failed ({tls_error_words(error)})"
        case ConnectionError() if error.errno is None:
            return f"cannot connect to {where} ({_CLOSED_IN_TLS})"
        case OSError():
            return f"cannot connect to {where} ({_in_words(error)})"
        case _:
            return f"cannot connect to {where} ({type(error).__name__})"


def out_of_reach(error: BaseException, proxy: Proxy) -> ProxyError:
    """Return the exception to raise when the proxy itself cannot be reached."""
    return ProxyError(f"the proxy is unreachable: {why_not_connected(error, proxy.host, proxy.port)}")


def why_lost(error: BaseException | None) -> str:
    """Return the reason why an open connection ended. `error=None` means a normal end of the stream."""
    match error:
        case None | ssl.SSLEOFError():  # a TLS stream has ended without close_notify
            return "eof"
        case ssl.SSLError():
            return f"TLS failed ({tls_error_words(error)})"
        case OSError():
            return f"the connection was lost ({_in_words(error)})"
        case _:
            return f"the connection was lost ({type(error).__name__})"


def _in_words(error: OSError) -> str:
    if error.errno is not None:
        return os_error_words(error)
    # Without errno, several addresses have failed. Here and in trio, `__cause__` contains their errors.
    errors = error.__cause__.exceptions if isinstance(error.__cause__, ExceptionGroup) else ()
    numbers = {exc.errno for exc in errors if isinstance(exc, OSError) and exc.errno is not None}
    faults = [os_error_words(OSError(number, "")) for number in sorted(numbers)]
    return ", ".join(faults) or os_error_words(error)
