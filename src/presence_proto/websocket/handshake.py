"""The opening handshakes of clients and servers (RFC 6455 §4), based on h11."""

from __future__ import annotations

import binascii
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import h11
from msgspec import Struct
from wsproto.utilities import generate_accept_token, generate_nonce

from presence_proto.errors import LocalProtocolError, RemoteProtocolError
from presence_proto.validators import RESERVED_HEADERS
from presence_proto.websocket.deflate import (
    OFFER,
    Deflate,
    MessageLimit,
    accept_offer,
    follow_answer,
    is_token,
)
from presence_proto.websocket.events import HandshakeRefused, HandshakeRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from presence_proto.config import Address
    from presence_proto.websocket.events import Headers


# ------------------------------------------------------------------------------------------------ http stream
# HTTP/1.1 on a byte stream, based on h11. The handshakes and the proxy tunnel share `HttpStream`.


MAX_HEADER_SIZE = 16 * 1024  # maximum number of bytes of the request or status line with the headers


class HttpStream:
    """An h11 connection whose size limit does not depend on how the network splits the stream.

    h11 checks its size limit only when more data is needed. Therefore, this class passes at most one byte
    more than the limit to h11. The class never passes `b""`, which h11 interprets as the end of the stream.
    """

    __slots__ = ("_h11", "_unread")

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER]) -> None:
        self._h11 = h11.Connection(role, MAX_HEADER_SIZE)
        self._unread = bytearray()

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes from the peer to the buffer."""
        self._unread += data

    def _next_event(self) -> Any:
        """Return h11's next event, or `None` if h11 needs more data. Raises `h11.RemoteProtocolError`."""
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if not self._unread:
                return None
            room = MAX_HEADER_SIZE + 1 - len(self._h11.trailing_data[0])
            self._h11.receive_data(bytes(self._unread[:room]))
            del self._unread[:room]
        return event


# -------------------------------------------------------------------------------------------------- handshake


MAX_REFUSAL_BODY = 64 * 1024  # maximum number of bytes that are kept of a refusal's body
MAX_EARLY_DATA = 64 * 1024  # maximum number of bytes that may arrive while a request waits for its answer


class Upgraded(Struct, frozen=True):
    """The result of a finished handshake. `early_data` has the frame bytes received with the handshake."""

    limit: MessageLimit
    subprotocol: str | None
    early_data: bytes


class HandshakeError(RemoteProtocolError):
    """The server cannot accept the client's request. `response` has the bytes of the HTTP answer."""

    def __init__(self, reason: str, response: bytes) -> None:
        super().__init__(reason)
        self.response = response


# ---------------------------------------------------------------------------------------------- headers


def _decode(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    # Decode Latin-1, not UTF-8: HTTP values may contain any byte above 127, and Latin-1 decodes all bytes.
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def _encode(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    encoded = []
    for name, value in headers:
        if name.lower() in RESERVED_HEADERS:
            raise LocalProtocolError(f"the header {name!r} is reserved: the handshake sets it")
        try:
            encoded.append((name.encode("latin-1"), value.encode("latin-1")))
        except UnicodeEncodeError:
            raise LocalProtocolError(f"the header {name!r} is not Latin-1") from None
    return encoded


def _values(headers: Headers, name: str) -> list[str]:
    return [value for header, value in headers if header == name]


def _elements(headers: Headers, name: str) -> tuple[str, ...]:
    pieces = ",".join(_values(headers, name)).split(",")
    return tuple(piece.strip(" \t") for piece in pieces if piece.strip(" \t"))


def _upgrades(headers: Headers) -> bool:
    """Whether the headers have `Upgrade: websocket` and `Connection: Upgrade` (RFC 6455 §4.2.1)."""
    return all(
        wanted in [element.lower() for element in _elements(headers, name)]
        for name, wanted in (("upgrade", "websocket"), ("connection", "upgrade"))
    )


def _is_nonce(key: str) -> bool:
    """Whether `key` is the base64 of 16 bytes (RFC 6455 §4.2.1)."""
    try:
        return len(binascii.a2b_base64(key, strict_mode=True)) == 16
    except ValueError:
        return False


# ---------------------------------------------------------------------------------------------- the two roles


class ClientHandshake(HttpStream):
    """The client's handshake, which sends `request`. Raises `LocalProtocolError` for illegal HTTP."""

    __slots__ = ("_accept", "_body", "_deflate", "_limit", "_response", "_subprotocols", "request")

    def __init__(
        self,
        address: Address,
        *,
        headers: Iterable[tuple[str, str]],
        subprotocols: Iterable[str],
        deflate: bool,
        max_message_size: int,
        key: bytes | None,
    ) -> None:
        super().__init__(h11.CLIENT)
        key = key or generate_nonce()
        self._accept = generate_accept_token(key).decode("ascii")
        self._deflate = deflate
        self._limit = max_message_size
        self._subprotocols = tuple(subprotocols)
        self._response: h11.Response | None = None
        self._body = bytearray()
        lines = [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", key),
            (b"Sec-WebSocket-Version", b"13"),
        ]
        if self._subprotocols:
            distinct = len(set(self._subprotocols)) == len(self._subprotocols)
            if not distinct or not all(map(is_token, self._subprotocols)):
                raise LocalProtocolError("subprotocols must be distinct HTTP tokens")
            lines.append((b"Sec-WebSocket-Protocol", ", ".join(self._subprotocols).encode("ascii")))
        if deflate:
            lines.append((b"Sec-WebSocket-Extensions", OFFER.encode("ascii")))
        lines += _encode(headers)
        try:
            host = (b"Host", address.authority.encode("ascii"))
            request = h11.Request(method="GET", target=address.target, headers=[host, *lines])
        except (h11.LocalProtocolError, UnicodeEncodeError):
            # Do not use h11's message: it quotes the value, which may be secret.
            raise LocalProtocolError("the target or a header of the request is not legal HTTP") from None
        self.request = self._h11.send(request) + self._h11.send(h11.EndOfMessage())

    def next(self, *, eof: bool) -> Upgraded | HandshakeRefused | None:
        """Return the result, or `None` if the answer is incomplete. `eof` says whether the stream has ended.

        Raises `RemoteProtocolError` if the answer is not valid HTTP, or is not a valid upgrade.
        """
        complete = False
        try:
            while not complete and (event := self._next_event()) is not None:
                if isinstance(event, h11.InformationalResponse):
                    if event.status_code == 101:
                        return self._upgraded(event)
                elif isinstance(event, h11.Response):
                    self._response = event
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    complete = len(self._body) >= MAX_REFUSAL_BODY
                else:
                    complete = True
        except h11.RemoteProtocolError:
            if self._response is None:
                raise RemoteProtocolError("the server's answer is not HTTP") from None
            complete = True  # the body is broken, but status and headers are still reported
        if self._response is None or not (complete or eof):
            return None
        body = bytes(self._body[:MAX_REFUSAL_BODY])
        return HandshakeRefused(self._response.status_code, _decode(self._response.headers), body)

    def _upgraded(self, response: h11.InformationalResponse) -> Upgraded:
        headers = _decode(response.headers)
        if response.http_version != b"1.1" or not _upgrades(headers):
            raise RemoteProtocolError("the server's upgrade is not to WebSocket")
        if _values(headers, "sec-websocket-accept") != [self._accept]:
            raise RemoteProtocolError("the server's Sec-WebSocket-Accept header is missing or wrong")
        chosen = _values(headers, "sec-websocket-protocol")
        if len(chosen) > 1 or not set(chosen) <= set(self._subprotocols):
            raise RemoteProtocolError("the server chose a subprotocol that was not offered")
        extensions = ",".join(_values(headers, "sec-websocket-extensions"))
        limit = follow_answer(extensions, self._limit, offered=self._deflate) or MessageLimit(self._limit)
        early_data = self._h11.trailing_data[0] + bytes(self._unread)
        return Upgraded(limit, chosen[0] if chosen else None, early_data)


class ServerHandshake(HttpStream):
    """The server's handshake, which reads a client's request and builds the answer."""

    __slots__ = ("_deflate", "_deflate_answer", "_head", "_key", "_limit", "_room", "_subprotocols")

    def __init__(self, *, deflate: bool, max_message_size: int) -> None:
        super().__init__(h11.SERVER)
        self._deflate = deflate
        self._limit = max_message_size
        self._key: bytes | None = None  # set while a valid request waits for its answer
        self._deflate_answer: tuple[str, Deflate] | None = None
        self._subprotocols: tuple[str, ...] = ()
        self._room = 0
        self._head = False  # the answer to a HEAD request has no body

    def next(self) -> HandshakeRequest | None:
        """Return a complete request once, else `None`. Raises `HandshakeError` with the HTTP answer."""
        if self._key is not None:
            if len(self._unread) > self._room:
                raise self._failure(HTTPStatus.BAD_REQUEST, "too much data before the answer")
            return None
        try:
            event = self._next_event()
        except h11.RemoteProtocolError as exc:
            reason = "the request is not HTTP"
            if exc.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
                reason = f"a request of more than {MAX_HEADER_SIZE} bytes"
            raise self._failure(exc.error_status_hint, reason) from None
        return None if event is None else self._checked(event)

    def _checked(self, request: h11.Request) -> HandshakeRequest:
        headers = _decode(request.headers)
        self._head = request.method == b"HEAD"
        if request.method != b"GET":
            raise self._failure(HTTPStatus.METHOD_NOT_ALLOWED, "the method must be GET", (b"Allow", b"GET"))
        if request.http_version != b"1.1":
            raise self._failure(HTTPStatus.BAD_REQUEST, "the version of HTTP must be 1.1")
        if _values(headers, "transfer-encoding") or _values(headers, "content-length") not in ([], ["0"]):
            raise self._failure(HTTPStatus.BAD_REQUEST, "the request must not have a body")
        version = _values(headers, "sec-websocket-version")
        if not _upgrades(headers) or version != ["13"]:
            raise self._failure(
                HTTPStatus.UPGRADE_REQUIRED,
                "this is a WebSocket of version 13",
                (b"Upgrade", b"websocket"),
                (b"Sec-WebSocket-Version", b"13"),
            )
        keys = _values(headers, "sec-websocket-key")
        if len(keys) != 1 or not _is_nonce(keys[0]):
            raise self._failure(HTTPStatus.BAD_REQUEST, "the Sec-WebSocket-Key header is missing or wrong")
        try:
            accepted = accept_offer(",".join(_values(headers, "sec-websocket-extensions")), self._limit)
        except RemoteProtocolError as exc:
            raise self._failure(HTTPStatus.BAD_REQUEST, str(exc)) from None
        self._deflate_answer = accepted if self._deflate else None
        self._key = keys[0].encode("ascii")
        self._subprotocols = _elements(headers, "sec-websocket-protocol")
        self._unread[:0] = self._h11.trailing_data[0]
        # Data that arrived together with the request does not count towards MAX_EARLY_DATA.
        self._room = len(self._unread) + MAX_EARLY_DATA
        return HandshakeRequest(request.target.decode("ascii"), headers, self._subprotocols)

    def accept(self, subprotocol: str | None, headers: Iterable[tuple[str, str]]) -> tuple[bytes, Upgraded]:
        """Return an upgrade's bytes and result. Raises `LocalProtocolError` for an illegal answer."""
        key = self._waiting()
        lines = [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", generate_accept_token(key)),
        ]
        if subprotocol is not None:
            if subprotocol not in self._subprotocols:
                raise LocalProtocolError(f"the client did not offer the subprotocol {subprotocol!r}")
            lines.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
        limit = MessageLimit(self._limit)
        if self._deflate_answer is not None:
            answer, limit = self._deflate_answer
            lines.append((b"Sec-WebSocket-Extensions", answer.encode("ascii")))
        try:
            response = h11.InformationalResponse(
                status_code=101, headers=lines + _encode(headers), reason=b"Switching Protocols"
            )
        except h11.LocalProtocolError:
            raise LocalProtocolError("a header of the answer is not legal HTTP") from None
        return self._h11.send(response), Upgraded(limit, subprotocol, bytes(self._unread))

    def reject(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
        """Return the bytes of a refusal. Raises `LocalProtocolError` for an illegal answer."""
        self._waiting()
        if not 300 <= status <= 599:
            raise LocalProtocolError(f"the status of a refusal must be from 300 to 599, not {status!r}")
        try:
            return self._refusal(status, _encode(headers), body)
        except h11.LocalProtocolError:
            raise LocalProtocolError("a header of the answer is not legal HTTP") from None

    def _waiting(self) -> bytes:
        if self._key is None:
            raise LocalProtocolError("there is no request to answer")
        return self._key

    def _failure(self, status: int, reason: str, *headers: tuple[bytes, bytes]) -> HandshakeError:
        text = (b"Content-Type", b"text/plain; charset=utf-8")
        return HandshakeError(reason, self._refusal(status, [*headers, text], f"{reason}\n".encode()))

    def _refusal(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = ""
        response = h11.Response(
            status_code=status,
            headers=[*headers, (b"Content-Length", b"%d" % len(body)), (b"Connection", b"close")],
            reason=phrase,
        )
        return self._h11.send(response) + (b"" if self._head else body)
