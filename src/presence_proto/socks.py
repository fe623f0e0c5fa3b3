"""`SocksConnect`: the client's side of SOCKS 5 (RFC 1928), with a user name and password (RFC 1929) or not.

    METHOD ──▶ (LOGIN) ──▶ REPLY ──▶ DONE

It takes bytes and gives bytes. A host name goes to the proxy as it is: the proxy looks it up.
"""

from __future__ import annotations

import ipaddress
import struct
from enum import Enum, auto
from typing import Literal, TypeAlias

from presence_proto.errors import LocalProtocolError, ProxyError

Refusal: TypeAlias = Literal["login", "unreachable", "forbidden"]

LONGEST = 255  # bytes of a user name, a password or a host name: one byte has their length

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
    """Asks `proxy` for a connection to `host`:`port`. `login`: a user name and password, or `None`.

    `refusal`: in what way the proxy has refused. Raises `LocalProtocolError` for a host that SOCKS cannot
    carry.
    """

    __slots__ = ("_login", "_out", "_proxy", "_request", "_stage", "_unread", "refusal")

    def __init__(self, proxy: str, host: str, port: int, login: tuple[str, str] | None) -> None:
        self.refusal: Refusal | None = None
        self._proxy = proxy
        self._request = bytes((_VERSION, _CONNECT, 0)) + _address(host) + struct.pack("!H", port)
        self._login = login
        self._stage = _Stage.METHOD
        self._unread = bytearray()
        methods = (_NO_LOGIN,) if login is None else (_NO_LOGIN, _LOGIN)
        self._out = bytes((_VERSION, len(methods), *methods))

    @property
    def is_done(self) -> bool:
        """Whether the connection is there. What came after the reply is in `trailing_data`."""
        return self._stage is _Stage.DONE

    @property
    def trailing_data(self) -> bytes:
        """What has come and was not read."""
        return bytes(self._unread)

    def data_to_send(self) -> bytes:
        """Take what is to be written to the proxy now."""
        data, self._out = self._out, b""
        return data

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes came from the proxy. Raises `ProxyError` when there will be no connection."""
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
        """The next answer, once it is complete. What is wrong with it shows as early as it can be seen."""
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
                words = "it takes no user name and password, and lets nobody in without"
            raise self._refused("login", words)
        else:
            raise self._no_socks()

    def _say(self, data: bytes, stage: _Stage) -> None:
        self._out += data  # to a proxy that answers before it is asked, what it was asked is still due
        self._stage = stage

    def _reply_size(self, reply: bytearray) -> int:
        """The bytes of a reply; as many as tell more, while they are not there."""
        if len(reply) < 5:
            return 5
        address = {_IPV4: 4, _IPV6: 16, _NAME: 1 + reply[4]}.get(reply[3])
        if address is None:
            raise self._no_socks()
        return 4 + address + 2

    def _refused(self, refusal: Refusal, words: str) -> ProxyError:
        self.refusal = refusal
        return ProxyError(f"the proxy {self._proxy} refused: {words}")

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
