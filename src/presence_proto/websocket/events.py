"""The events of a `WebSocket`. This module imports neither h11 nor wsproto."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

Headers: TypeAlias = tuple[tuple[str, str], ...]


class HandshakeRequest(Struct, frozen=True):
    """A client's upgrade request. The server answers the request with `accept` or `reject`.

    `target` is the path and the query of the URL. Header names are lower-case, values are decoded as Latin-1.
    """

    target: str
    headers: Headers
    subprotocols: tuple[str, ...]

    def __repr__(self) -> str:
        # The query, the headers and the subprotocols may hold keys and tokens.
        path, question_mark, _ = self.target.partition("?")
        return f"HandshakeRequest(target={path + question_mark + '…' * bool(question_mark)!r})"


class HandshakeRefused(Struct, frozen=True):
    """The server answered with plain HTTP instead of an upgrade. No other event follows.

    Header names are lower-case, values are decoded as Latin-1. `body` contains at most the first 64 KiB, and
    is incomplete if the stream ended early.
    """

    status: int
    headers: Headers
    body: bytes

    def __repr__(self) -> str:
        body = repr(self.body[:200]) + (f"… ({len(self.body)} bytes)" if len(self.body) > 200 else "")
        return f"HandshakeRefused(status={self.status}, body={body})"


class Opened(Struct, frozen=True):
    """The server has accepted the client's handshake. `subprotocol` is the server's choice, if any.

    `deflate` says whether permessage-deflate is in use.
    """

    subprotocol: str | None
    deflate: bool


class TextMessage(Struct, frozen=True):
    """A complete text message from the peer. The fragments of a fragmented message are joined."""

    data: str

    def __repr__(self) -> str:
        # The repr omits the text, which may contain an access token.
        return f"TextMessage(data=<{len(self.data)} characters>)"


class BinaryMessage(Struct, frozen=True):
    """A complete binary message from the peer. The fragments of a fragmented message are joined."""

    data: bytes

    def __repr__(self) -> str:
        return f"BinaryMessage(data=<{len(self.data)} bytes>)"


class PingReceived(Struct, frozen=True):
    """A ping from the peer. `data_to_send` already has the pong, unless this side has sent a close frame."""

    payload: bytes


class PongReceived(Struct, frozen=True):
    """A pong from the peer, solicited or unsolicited."""

    payload: bytes


class Closed(Struct, frozen=True):
    """The last event of a connection. The caller writes `data_to_send()`, then closes the transport.

    If `clean` is true, the peer has sent a close frame with `code` and `reason` (1005 stands for a frame
    without a code), and the answering close frame is sent or in `data_to_send`. If `clean` is false, the
    stream ended without a close frame, and `code` is 1006, or the peer violated the protocol, and `code` is
    1002, 1007 or 1009. After a protocol violation, `reason` describes the error.
    """

    code: int
    reason: str
    clean: bool


WebSocketEvent: TypeAlias = (
    HandshakeRequest
    | Opened
    | HandshakeRefused
    | TextMessage
    | BinaryMessage
    | PingReceived
    | PongReceived
    | Closed
)
