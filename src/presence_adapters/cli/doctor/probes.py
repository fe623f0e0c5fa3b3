"""Small questions to the network, one at a time. What is asked without verified TLS is never a secret."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from email.parser import BytesHeaderParser
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from attrs import frozen

from presence_adapters.cli.doctor.facts import Answer

if TYPE_CHECKING:
    from presence_adapters.cli.doctor.facts import TlsTrouble

Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_VERIFY_CODES: dict[int, TlsTrouble] = {  # of OpenSSL, X509_V_ERR_…
    2: "unknown issuer",
    9: "not yet valid",
    10: "expired",
    18: "self-signed",
    19: "self-signed",
    20: "unknown issuer",
    21: "unknown issuer",
    62: "other host",
    64: "other host",
}
_PLAIN_TEXT = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")
"""What OpenSSL makes of plain text. It differs from one version to the next."""


async def connect(addresses: list[Any]) -> socket.socket:
    """A connection to the first of the addresses (of `getaddrinfo`) that works. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    failures: list[OSError] = []
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as exc:
            sock.close()
            failures.append(exc)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failures[0]


def why_no_tls(error: OSError) -> tuple[TlsTrouble, str]:
    """What is wrong with TLS, and in OpenSSL's words."""
    match error:
        case ssl.SSLCertVerificationError():
            return _VERIFY_CODES.get(error.verify_code, "other"), error.verify_message
        case ssl.SSLEOFError() | ConnectionError():
            return "closed", "the connection was closed"
        case TimeoutError():
            return "silent", "no answer"
    reason = str(getattr(error, "reason", None) or "it failed")
    return "no TLS" if reason in _PLAIN_TEXT else "other", reason.replace("_", " ").lower()


async def speaks_tls(address: str, port: int, timeout: float) -> bool:
    """Whether a TLS server listens there, whatever its certificate is."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port, ssl=_trusting_all())
    except OSError:
        return False
    writer.transport.abort()
    return True


async def server_time(host: str, address: str, port: int, timeout: float) -> float | None:
    """The time by a TLS server's clock, whatever its certificate is; `None` when it does not tell."""
    request = f"HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    head = b""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(address, port, ssl=_trusting_all())
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


@frozen
class Head:
    """The head of an HTTP answer. `date`: its `Date`, in seconds since 1970."""

    answer: Answer
    date: float | None


_STATUS_LINE = re.compile(rb"HTTP/1\.\d (\d{3})\b.*")


def parsed_head(data: bytes) -> Head | None:
    """The head of an HTTP answer, with as much of its body as is there; `None` when it is none."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, _, fields = head.partition(b"\r\n")
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        return None
    headers = BytesHeaderParser().parsebytes(fields)
    is_html = "html" in str(headers.get("content-type", "")).lower() or body.lstrip().startswith(b"<")
    return Head(Answer(int(match[1]), is_html, _host(headers.get("location"))), _time(headers.get("date")))


def _host(location: Any) -> str | None:
    try:
        return urlsplit(str(location)).hostname if location else None
    except ValueError:
        return None


def _time(date: Any) -> float | None:
    try:
        return parsedate_to_datetime(str(date)).timestamp()
    except (ValueError, OverflowError):
        return None


def _trusting_all() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
