"""Single network probes. A probe without verified TLS never sends a secret."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from datetime import UTC
from email.parser import BytesHeaderParser
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from presence_adapters.cli.doctor.facts import HttpAnswer
from presence_adapters.tls_and_proxies import os_error_words, tls_error_words

if TYPE_CHECKING:
    from presence_adapters.cli.doctor.facts import TlsTrouble

Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_VERIFY_CODES: dict[int, TlsTrouble] = {  # by OpenSSL's X509_V_ERR_… codes
    2: "unknown issuer",
    9: "not yet valid",
    10: "expired",
    18: "self-signed",
    19: "unknown issuer",  # the server also sent the CA certificate
    20: "unknown issuer",
    21: "unknown issuer",
    62: "other host",
    64: "other host",
}
_TLS_REASONS: dict[str | None, TlsTrouble] = {  # by OpenSSL's reasons, which differ between versions
    "WRONG_VERSION_NUMBER": "no TLS",
    "PACKET_LENGTH_TOO_LONG": "no TLS",
    "RECORD_LAYER_FAILURE": "no TLS",
    "UNKNOWN_PROTOCOL": "no TLS",
    "CERTIFICATE_REQUIRED": "wants certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "wants certificate",
}


async def connect(addresses: list[Any], timeout: float) -> tuple[socket.socket, list[str]]:
    """Connect to the first reachable address in `addresses` (from `getaddrinfo`).

    Return the socket, and the addresses that failed before. Each address has an equal share of `timeout`
    seconds, so that an address that drops packets does not use up the time of the other addresses. Raises
    `OSError`: the error of a refused connection, which is the clearest, or else the first error.
    """
    loop = asyncio.get_running_loop()
    failures: dict[str, OSError] = {}  # by address
    for family, kind, protocol, _, address in addresses:
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)  # also fails on a machine without IPv6
            sock.setblocking(False)
            async with asyncio.timeout(timeout / len(addresses)):
                await loop.sock_connect(sock, address)
        except BaseException as exc:
            if sock is not None:
                sock.close()
            if not isinstance(exc, OSError):
                raise
            failures[address[0]] = exc
        else:
            return sock, list(failures)
    errors = list(failures.values())
    raise next((error for error in errors if isinstance(error, ConnectionRefusedError)), errors[0])


def why_no_tls(error: OSError) -> tuple[TlsTrouble, str]:
    """Return the kind and the text of a TLS error."""
    match error:
        case ssl.SSLCertVerificationError():
            return _VERIFY_CODES.get(error.verify_code, "bad certificate"), tls_error_words(error)
        case ssl.SSLEOFError() | ConnectionError():
            return "closed", "the connection was closed"
        case TimeoutError():
            return "silent", "no answer"
    return _TLS_REASONS.get(getattr(error, "reason", None), "other"), os_error_words(error)


async def speaks_tls(host: str, address: str, port: int, timeout: float) -> bool:
    """Whether a TLS server with any certificate listens at `address`. A rejected handshake counts, too."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(
                address, port, ssl=_trusting_all(), server_hostname=host
            )
    except OSError as exc:
        return isinstance(exc, ssl.SSLError) and why_no_tls(exc)[0] == "other"
    writer.transport.abort()
    return True


async def server_time(host: str, address: str, port: int, timeout: float) -> float | None:
    """Return the `Date` of a TLS server with any certificate, in seconds since 1970, or `None`."""
    request = f"HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    head = b""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(
                address, port, ssl=_trusting_all(), server_hostname=host
            )
            try:
                writer.write(request.encode())
                while b"\r\n\r\n" not in head and (data := await reader.read(65536)):
                    head += data
            finally:
                writer.transport.abort()
    except OSError:
        return None
    response = parsed_head(head)
    return None if response is None else response.date


_STATUS_LINE = re.compile(rb"HTTP/1\.\d (\d{3})\b.*")


_ERROR = re.compile(rb'"(?:error|message)"\s*:\s*"([^"\\]{1,100})"')  # in JSON; the body may be chunked


def parsed_head(data: bytes) -> HttpAnswer | None:
    """Parse an HTTP response, including the error text in the received part of the body.

    Skip 1xx responses, such as "103 Early Hints", before the final one. Return `None` if `data` is not HTTP.
    """
    body = data
    while True:
        head, _, body = body.partition(b"\r\n\r\n")
        first, _, fields = head.partition(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            return None
        status = int(match[1])
        if not body or status == 101 or status >= 200:
            break
    headers = BytesHeaderParser().parsebytes(fields)
    is_html = "html" in str(headers.get("content-type", "")).lower() or body.lstrip().startswith(b"<")
    host, is_to_tls = _target(headers.get("location"))
    error = _ERROR.search(body)
    words = "" if error is None else error[1].decode("utf-8", "replace")
    words = words if words.isprintable() else ""
    return HttpAnswer(status, is_html, host, is_to_tls, words, _time(headers.get("date")))


def _target(location: Any) -> tuple[str | None, bool]:
    """Return the host of a `Location` header, if there is one, and whether its URL uses TLS."""
    try:
        parts = urlsplit(str(location)) if location else None
        return (None, False) if parts is None else (parts.hostname, parts.scheme in ("https", "wss"))
    except ValueError:
        return None, False


def _time(date: Any) -> float | None:
    try:
        time = parsedate_to_datetime(str(date))
        return (
            time if time.tzinfo else time.replace(tzinfo=UTC)
        ).timestamp()  # HTTP dates are always in GMT (RFC 9110)
    except (ValueError, OverflowError):
        return None


def _trusting_all() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
