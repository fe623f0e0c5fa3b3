"""`ProxyTunnel`: a way through an HTTP proxy to a server behind it, by CONNECT (RFC 9110 §9.3.6)."""

from __future__ import annotations

from base64 import b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import h11
from attrs import field, frozen

from presence_proto import validators as check
from presence_proto.errors import ConfigError, LocalProtocolError, ProxyError
from presence_proto.http_stream import HttpStream

if TYPE_CHECKING:
    from presence_proto.outputs import OpenTransport

MAX_INTERIM = 10  # answers such as "100 Continue" that may come before the one that counts


@frozen
class Proxy:
    """An HTTP proxy. As a string it is `host:port`; the user name and the password are never shown."""

    host: str
    port: int
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def from_url(cls, url: str) -> Proxy:
        """From `http://[user[:password]@]host[:port]`; the port is 80 by default.

        User name and password may be percent-encoded. `http://` may be missing. Raises `ConfigError`, which
        does not quote the URL.
        """
        if not check.is_unicode(url):
            raise ConfigError("proxy must be a URL, such as http://proxy.example:3128")
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigError("proxy is not a URL: its host or port is malformed") from None
        if parts.scheme != "http":
            raise ConfigError("proxy must start with http://: no other kind of proxy is supported")
        if not host or port == 0:
            raise ConfigError("proxy must name a host, and a port other than 0 or none")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ConfigError("proxy must end after the host and the port")
        try:
            host = check.host_name(host)
        except ConfigError as exc:
            raise ConfigError(f"proxy: {exc}") from None
        username, password = (
            None if text is None else unquote(text) for text in (parts.username, parts.password)
        )
        if ":" in (username or ""):
            raise ConfigError("proxy: the user name must not hold a colon")
        return cls(host, port or 80, username, password)

    def __str__(self) -> str:
        return _authority(self.host, self.port)

    @property
    def authorization(self) -> str | None:
        """The value of the `Proxy-Authorization` header, if there is a user name (RFC 7617)."""
        if self.username is None:
            return None
        return "Basic " + b64encode(f"{self.username}:{self.password or ''}".encode()).decode("ascii")


class ProxyTunnel(HttpStream):
    """Asks `proxy` for a tunnel to where `wanted` leads.

    Write `request` to the proxy, and give what it answers to `receive_data`, or `receive_eof`, until the
    tunnel `is_open`. The stream is the server's then: TLS begins, if `wanted`. `early_data` is what came of
    it with the answer already; with TLS it is empty, since there the client speaks first.

    There is no time limit in here: the one of the connection holds. Raises `LocalProtocolError` for a host
    that HTTP cannot carry.
    """

    __slots__ = ("_interim", "_proxy", "_tls", "early_data", "is_open", "request")

    def __init__(self, proxy: Proxy, wanted: OpenTransport) -> None:
        super().__init__(h11.CLIENT)
        self._proxy = proxy
        self._tls = wanted.tls
        self._interim = 0
        target = _authority(wanted.host, wanted.port)
        headers = [("Host", target)]
        if proxy.authorization is not None:
            headers.append(("Proxy-Authorization", proxy.authorization))
        try:
            request = h11.Request(method="CONNECT", target=target, headers=headers)
        except (h11.LocalProtocolError, UnicodeError):
            raise LocalProtocolError(f"{wanted.host!r} is not a host that HTTP can carry") from None
        self.request: bytes = self._h11.send(request)
        self._h11.send(h11.EndOfMessage())  # which is no bytes
        self.is_open = False
        self.early_data = b""

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes came from the proxy. Raises `ProxyError` when they say that there will be no tunnel."""
        super().receive_data(data)
        while not self.is_open:
            try:
                answer = self._next_event()
            except h11.RemoteProtocolError:
                raise ProxyError(f"the answer of the proxy {self._proxy} is not HTTP, or too long") from None
            if answer is None:
                return
            if isinstance(answer, h11.InformationalResponse):
                self._interim += 1
                if self._interim > MAX_INTERIM:
                    raise ProxyError(f"the proxy {self._proxy} does not come to the point")
            elif 200 <= answer.status_code < 300:
                self._opened()
            else:
                raise ProxyError(self._refusal(answer.status_code))

    def receive_eof(self) -> None:
        """The stream has ended before the tunnel was open. Raises `ProxyError`."""
        raise ProxyError(f"the proxy {self._proxy} closed the connection without an answer")

    def _opened(self) -> None:
        self.is_open = True
        self.early_data = self._h11.trailing_data[0] + bytes(self._unread)
        if self.early_data and self._tls:
            raise ProxyError(f"the proxy {self._proxy} sent something of its own in place of a tunnel")

    def _refusal(self, status: int) -> str:
        """In words of ours: the proxy's own may quote what we said."""
        try:
            words = f"{status} {HTTPStatus(status).phrase}"
        except ValueError:
            words = str(status)
        if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            fault = "it wants a" if self._proxy.username is None else "it does not accept the"
            words += f" ({fault} user name and password)"
        return f"the proxy {self._proxy} refused: {words}"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
