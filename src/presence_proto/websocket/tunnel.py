"""`ProxyTunnel`: a tunnel through a proxy to a server, by HTTP CONNECT (RFC 9110 §9.3.6) or SOCKS 5."""

from __future__ import annotations

import ipaddress
import struct
from base64 import b64encode
from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import h11
from attrs import field, frozen

from presence_proto import validators as check
from presence_proto.errors import ConfigError, LocalProtocolError, ProxyError
from presence_proto.version import USER_AGENT
from presence_proto.websocket.handshake import HttpStream

if TYPE_CHECKING:
    from presence_proto.endpoint import OpenTransport


# ------------------------------------------------------------------------------------------------------ socks
# `SocksConnect`: the client side of SOCKS 5 (RFC 1928), with or without user name and password (RFC 1929).
#
#     METHOD ──▶ (LOGIN) ──▶ REPLY ──▶ DONE
#
# `SocksConnect` is sans-IO. It sends host names unresolved, and the proxy resolves the names.


Refusal: TypeAlias = Literal["login", "unreachable", "forbidden"]

LONGEST = 255  # maximum bytes of a user name, a password or a host name: SOCKS sends the length as one byte

_VERSION, _LOGIN_VERSION = 5, 1
_NO_LOGIN, _LOGIN, _NO_METHOD = 0, 2, 0xFF
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4

_REPLIES: dict[int, tuple[Refusal, str]] = {  # RFC 1928 §6
    1: ("forbidden", "general failure"),
    2: ("forbidden", "its rules do not allow this connection"),
    3: ("unreachable", "network unreachable"),
    4: ("unreachable", "host unreachable"),
    5: ("unreachable", "connection refused"),
    6: ("unreachable", "the time to live has expired"),
    7: ("forbidden", "it does not support CONNECT"),
    8: ("forbidden", "it does not support this type of address"),
}


class _Stage(Enum):
    METHOD = auto()
    LOGIN = auto()
    REPLY = auto()
    DONE = auto()


class SocksConnect:
    """A request to `proxy` for a connection to `host`:`port`, with a `login` (user name, password) or `None`.

    Raises `LocalProtocolError` if `host` has a form that SOCKS does not support.
    """

    __slots__ = ("_login", "_out", "_proxy", "_request", "_stage", "_unread")

    def __init__(self, proxy: str, host: str, port: int, login: tuple[str, str] | None) -> None:
        self._proxy = proxy
        self._request = bytes((_VERSION, _CONNECT, 0)) + _address(host) + struct.pack("!H", port)
        self._login = login
        self._stage = _Stage.METHOD
        self._unread = bytearray()
        methods = (_NO_LOGIN,) if login is None else (_NO_LOGIN, _LOGIN)
        self._out = bytes((_VERSION, len(methods), *methods))

    @property
    def is_done(self) -> bool:
        """Whether the proxy has opened the connection. `trailing_data` has the bytes after the reply."""
        return self._stage is _Stage.DONE

    @property
    def trailing_data(self) -> bytes:
        """Received bytes that are not part of an answer of the proxy."""
        return bytes(self._unread)

    def data_to_send(self) -> bytes:
        """Return and remove the bytes to write to the proxy."""
        data, self._out = self._out, b""
        return data

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Process bytes from the proxy. Raises `ProxyError` for a refusal or a malformed answer."""
        self._unread += data
        while self._stage is not _Stage.DONE and (answer := self._next_answer()) is not None:
            if self._stage is _Stage.METHOD:
                self._method_chosen(answer[1])
            elif self._stage is _Stage.LOGIN:
                if answer[1] != 0:
                    raise self._refused("login", "it does not accept the user name and password")
                self._say(self._request, _Stage.REPLY)
            else:
                self._stage = _Stage.DONE

    def _next_answer(self) -> bytes | None:
        """Return the next complete answer, or `None`. Raises `ProxyError` when the bytes show an error."""
        unread = self._unread
        version = _LOGIN_VERSION if self._stage is _Stage.LOGIN else _VERSION
        if unread and unread[0] != version:
            raise self._no_socks()
        size = 2
        if self._stage is _Stage.REPLY:
            if len(unread) > 1 and unread[1] != 0:
                refusal, words = _REPLIES.get(unread[1], ("forbidden", f"code {unread[1]}"))
                raise self._refused(refusal, words)
            size = self._reply_size(unread)
        if len(unread) < size:
            return None
        answer = bytes(unread[:size])
        del unread[:size]
        return answer

    def _method_chosen(self, method: int) -> None:
        if method == _NO_LOGIN:
            self._say(self._request, _Stage.REPLY)
        elif method == _LOGIN and self._login is not None:
            user, password = (text.encode() for text in self._login)
            login = bytes((_LOGIN_VERSION, len(user))) + user + bytes((len(password),)) + password
            self._say(login, _Stage.LOGIN)
        elif method == _NO_METHOD:
            words = "it wants a user name and password, or another way to log in"
            if self._login is not None:
                words = "it supports neither a user name and password nor access without them"
            raise self._refused("login", words)
        else:
            raise self._no_socks()

    def _say(self, data: bytes, stage: _Stage) -> None:
        self._out += data  # append: a proxy may answer before `data_to_send` took the previous request
        self._stage = stage

    def _reply_size(self, reply: bytearray) -> int:
        """Return the size of a reply in bytes, or 5 while the size is unknown."""
        if len(reply) < 5:
            return 5
        address = {_IPV4: 4, _IPV6: 16, _NAME: 1 + reply[4]}.get(reply[3])
        if address is None:
            raise self._no_socks()
        return 4 + address + 2

    def _refused(self, refusal: Refusal, words: str) -> ProxyError:
        return ProxyError(f"the proxy {self._proxy} refused: {words}", refusal, words)

    def _no_socks(self) -> ProxyError:
        return ProxyError(f"the answer of the proxy {self._proxy} is not SOCKS 5")


def _address(host: str) -> bytes:
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return bytes((_IPV4 if number.version == 4 else _IPV6,)) + number.packed
    try:
        name = host.encode("ascii")
    except UnicodeError:
        name = b""
    if not 1 <= len(name) <= LONGEST:
        raise LocalProtocolError(f"{host!r} is not a host that SOCKS can carry")
    return bytes((_NAME, len(name))) + name


# ----------------------------------------------------------------------------------------------------- tunnel


MAX_INTERIM = 10  # maximum number of interim answers, such as "100 Continue", before the final answer


# The legal URL schemes, each with its protocol and default port. Desktop environments use `socks` in
# environment variables.
_SCHEMES: dict[str, tuple[Literal["http", "socks5"], int]] = {
    "http": ("http", 80),
    "socks5": ("socks5", 1080),
    "socks5h": ("socks5", 1080),
    "socks": ("socks5", 1080),
}


@frozen
class Proxy:
    """An HTTP or SOCKS 5 proxy. `str` returns `host:port`. The `repr` hides user name and password."""

    host: str
    port: int
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    scheme: Literal["http", "socks5"] = "http"

    @classmethod
    def from_url(cls, url: str) -> Proxy:
        """Parse `http://[user[:password]@]host[:port]` or `socks5://…`. The default port is 80 or 1080.

        User name and password may be percent-encoded. The prefix `http://` is optional. `socks5h://` and
        `socks://` mean the same as `socks5://`: the proxy resolves the server's name. Raises `ConfigError`
        for an invalid URL. The exception's text does not quote the URL.
        """
        if not check.is_unicode(url):
            raise ConfigError("proxy must be a URL, such as http://proxy.example:3128")
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigError("proxy is not a URL: its host or port is malformed") from None
        if parts.scheme == "https":
            raise ConfigError(
                "proxy must not start with https://: TLS to the proxy itself is not supported. Most proxies "
                "for HTTPS traffic have an http:// URL"
            )
        if parts.scheme not in _SCHEMES:
            raise ConfigError("proxy must start with http:// or socks5://: no other kind is supported")
        scheme, usual_port = _SCHEMES[parts.scheme]
        if not host or port == 0:
            raise ConfigError("proxy must name a host, and its port must not be 0")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ConfigError("proxy must not have a path, a query or a fragment")
        try:
            host = check.host_name(host)
        except ConfigError as exc:
            raise ConfigError(f"proxy: {exc}") from None
        username, password = (
            None if text is None else unquote(text) for text in (parts.username, parts.password)
        )
        if scheme == "http" and ":" in (username or ""):
            raise ConfigError("proxy: the user name must not hold a colon")
        if scheme == "socks5" and max(len((text or "").encode()) for text in (username, password)) > LONGEST:
            raise ConfigError(f"proxy: user name and password must have at most {LONGEST} bytes each")
        return cls(host, port or usual_port, username, password, scheme)

    def __str__(self) -> str:
        return _authority(self.host, self.port)

    @property
    def authorization(self) -> str | None:
        """The value of the `Proxy-Authorization` header (RFC 7617), or `None` without a user name."""
        if self.username is None:
            return None
        return "Basic " + b64encode(f"{self.username}:{self.password or ''}".encode()).decode("ascii")


class ProxyTunnel:
    """A sans-IO tunnel through `proxy` to the server in `wanted`.

    The caller writes `data_to_send()` to the proxy at the beginning and after each `receive_data`. The caller
    passes the proxy's answers to `receive_data` or `receive_eof` until `is_open` is true. From then on, the
    stream leads to the server, and TLS begins if `wanted.tls` is true. `early_data` has the server bytes that
    arrived with the proxy's answer. With TLS, `early_data` is empty, because the client sends first.

    The tunnel has no time limit of its own: `connect_timeout` applies. Raises `LocalProtocolError` for a host
    that the proxy's protocol does not support.
    """

    __slots__ = ("_connect", "_proxy", "_tls", "early_data", "is_open")

    def __init__(self, proxy: Proxy, wanted: OpenTransport) -> None:
        self._proxy = proxy
        self._tls = wanted.tls
        self._connect: _HttpConnect | SocksConnect
        if proxy.scheme == "http":
            self._connect = _HttpConnect(proxy, wanted)
        else:
            login = None if proxy.username is None else (proxy.username, proxy.password or "")
            self._connect = SocksConnect(str(proxy), wanted.host, wanted.port, login)
        self.is_open = False
        self.early_data = b""

    def data_to_send(self) -> bytes:
        """Return and remove the bytes to write to the proxy, or `b""` if no bytes are waiting."""
        return self._connect.data_to_send()

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Process bytes from the proxy. Raises `ProxyError` if the proxy does not open the tunnel."""
        self._connect.receive_data(data)
        if not self._connect.is_done:
            return
        self.is_open = True
        self.early_data = self._connect.trailing_data
        if self.early_data and self._tls:
            raise ProxyError(f"the proxy {self._proxy} sent data of its own into the tunnel")

    def receive_eof(self) -> None:
        """Report that the stream ended before the tunnel was open. Always raises `ProxyError`."""
        raise ProxyError(f"the proxy {self._proxy} closed the connection without an answer")


_REFUSALS: dict[int, Refusal | None] = {  # by HTTP status
    400: None,  # a web server that is not a proxy gives this answer
    407: "login",
    502: "unreachable",
    503: "unreachable",
    504: "unreachable",
}


class _HttpConnect(HttpStream):
    """The client side of an HTTP CONNECT request."""

    __slots__ = ("_interim", "_out", "_proxy", "is_done")

    def __init__(self, proxy: Proxy, wanted: OpenTransport) -> None:
        super().__init__(h11.CLIENT)
        self._proxy = proxy
        self._interim = 0
        self.is_done = False
        target = _authority(wanted.host, wanted.port)
        headers = [("Host", target), ("User-Agent", USER_AGENT)]
        if proxy.authorization is not None:
            headers.append(("Proxy-Authorization", proxy.authorization))
        try:
            request = h11.Request(method="CONNECT", target=target, headers=headers)
        except (h11.LocalProtocolError, UnicodeError):
            raise LocalProtocolError(f"host {wanted.host!r} has characters that HTTP forbids") from None
        self._out: bytes = self._h11.send(request)
        self._h11.send(h11.EndOfMessage())  # produces no bytes

    @property
    def trailing_data(self) -> bytes:
        return self._h11.trailing_data[0] + bytes(self._unread)

    def data_to_send(self) -> bytes:
        data, self._out = self._out, b""
        return data

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        super().receive_data(data)
        while not self.is_done:
            try:
                answer = self._next_event()
            except h11.RemoteProtocolError:
                fault = f"the answer of the proxy {self._proxy} is too long or is not HTTP"
                raise ProxyError(fault) from None
            if answer is None:
                return
            if isinstance(answer, h11.InformationalResponse):
                self._interim += 1
                if self._interim > MAX_INTERIM:
                    raise ProxyError(f"the proxy {self._proxy} sends only interim responses")
            elif 200 <= answer.status_code < 300:
                self.is_done = True
            else:
                raise self._refused(answer.status_code)

    def _refused(self, status: int) -> ProxyError:
        # The error text does not contain the proxy's text, which may quote the request.
        refusal = _REFUSALS.get(status, "forbidden")
        try:
            words = f"{status} {HTTPStatus(status).phrase}"
        except ValueError:
            words = str(status)
        if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            fault = "it wants a" if self._proxy.username is None else "it does not accept the"
            words += f" ({fault} user name and password)"
        return ProxyError(f"the proxy {self._proxy} refused: {words}", refusal, words)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
