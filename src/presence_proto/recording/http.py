"""The heads of upgrade requests and answers, without what is secret in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from presence_proto.config import auth_token, auth_token_subprotocol
from presence_proto.secrets import BEARER_PREFIX, header_pieces, is_secret_name

if TYPE_CHECKING:
    from presence_proto.recording.redaction import Secrets

# Whatever other headers hold is taken for a secret.
HARMLESS = frozenset(
    {
        *(b"host", b"upgrade", b"connection", b"origin", b"user-agent", b"server", b"date", b"vary", b"via"),
        *(
            b"sec-websocket-key",
            b"sec-websocket-accept",
            b"sec-websocket-version",
            b"sec-websocket-extensions",
        ),
        *(b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"retry-after"),
        *(b"accept", b"accept-encoding", b"accept-language", b"allow", b"cache-control", b"pragma", b"age"),
    }
)
SUBPROTOCOLS = b"sec-websocket-protocol"
_BEARER = BEARER_PREFIX.encode()
_LONG = 20
"""Bytes. A longer subprotocol is more likely a token."""

_LINE = re.compile(rb"([^:\s]+)(:[ \t]*)(.*)", re.DOTALL)


def redact_head(head: bytes, secrets: Secrets) -> bytes:
    """A start line and headers, of the same length."""
    first, *lines = head.split(b"\n")
    method, space, target = first.partition(b" ")
    redacted = [first if method.startswith(b"HTTP/") else method + space + redact_url(target, secrets)]
    name = b""
    for line in lines:
        match = _LINE.match(line)
        if match is None or line[:1] in b" \t":  # goes on with the header before it
            redacted.append(redact_header(name, line, secrets))
        else:
            name = match[1].lower()
            redacted.append(match[1] + match[2] + redact_header(name, match[3], secrets))
    return secrets.redact(b"\n".join(redacted))


def redact_header(name: bytes, value: bytes, secrets: Secrets) -> bytes:
    """The value of a header; `name` in lower case."""
    if name == SUBPROTOCOLS:
        return re.sub(rb"[^,\s]+", lambda one: redact_subprotocol(one[0], secrets), value)
    if name in HARMLESS:
        return value
    if not is_secret_name(name.decode("latin-1")):
        return secrets.hide_words(value)
    match = re.fullmatch(rb"(\s*)(.*?)(\s*)", value, re.DOTALL)  # a line ends with "\r"
    assert match is not None
    pieces = [
        (piece.encode("latin-1"), is_secret)
        for piece, is_secret in header_pieces(name.decode("latin-1"), match[2].decode("latin-1"))
    ]
    hidden = b"".join(secrets.hide_bytes(piece) if is_secret else piece for piece, is_secret in pieces)
    return match[1] + hidden + match[3]


def redact_subprotocol(subprotocol: bytes, secrets: Secrets) -> bytes:
    """One subprotocol; some clients hide a token in it."""
    encoded = auth_token((subprotocol.decode("latin-1"),))
    if encoded and auth_token_subprotocol(encoded).encode() == subprotocol:
        # The token is known by itself, and a replay encodes its stand-in.
        return auth_token_subprotocol(secrets.hide(encoded)).encode()
    if subprotocol.startswith(_BEARER):
        scheme, dot, token = subprotocol.rpartition(b".")
        return scheme + dot + secrets.hide_bytes(token)
    return secrets.hide_words(subprotocol) if len(subprotocol) > _LONG else subprotocol


def redact_url(url: bytes, secrets: Secrets) -> bytes:
    """A URL or a request's target, and what may follow it in its line: all values of its query but `vsn`.

    Those that are not named like a secret are hidden in their place only.
    """
    address, question_mark, rest = url.partition(b"?")
    query = re.match(rb"\S*", rest)
    assert query is not None
    params = []
    for param in query[0].split(b"&"):
        name, equals, value = param.partition(b"=") if b"=" in param else (b"", b"", param)
        if name != b"vsn":
            # What has no name may be anything.
            is_secret = not equals or is_secret_name(unquote_to_bytes(name).decode("utf-8", "replace"))
            value = secrets.hide_in_query(value, seek=is_secret)
        params.append(name + equals + value)
    return address + question_mark + b"&".join(params) + rest[query.end() :]
