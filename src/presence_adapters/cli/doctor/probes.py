"""Small questions to the network, one at a time. What is asked without verified TLS is never a secret."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC
from email.parser import BytesHeaderParser
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from attrs import frozen

from presence_adapters.cli.doctor.facts import HttpAnswer
from presence_adapters.connecting import os_error_words, tls_error_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_adapters.cli.doctor.facts import TlsTrouble

T = TypeVar("T")

Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_VERIFY_CODES: dict[int, TlsTrouble] = {  # of OpenSSL, X509_V_ERR_…
    2: "unknown issuer",
    9: "not yet valid",
    10: "expired",
    18: "self-signed",
    19: "unknown issuer",  # it has sent the certificate of its authority, too
    20: "unknown issuer",
    21: "unknown issuer",
    62: "other host",
    64: "other host",
}
_PLAIN_TEXT = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")
"""What OpenSSL makes of plain text. It differs from one version to the next."""


async def in_thread(function: Callable[[], T]) -> T:
    """What a function that takes its time returns, or raises. Its thread is one that nobody waits for: so a
    timeout ends this at once, and Ctrl-C the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: Exception | None) -> None:
        if future.done():  # it was cancelled
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as exc:
            error = exc
        with suppress(RuntimeError):  # the loop is closed: nobody has waited for it
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="doctor", daemon=True).start()
    return await future


async def connect(addresses: list[Any], timeout: float) -> tuple[socket.socket, list[str]]:
    """A connection to the first of the addresses (of `getaddrinfo`) that works, and those that do not.

    Each has an equal share of `timeout` seconds: one that drops what comes does not hide the others. Raises
    `OSError`: a refusal if there is one, for it says most, or else the failure of the first address.
    """
    loop = asyncio.get_running_loop()
    failures: dict[str, OSError] = {}  # by address
    for family, kind, protocol, _, address in addresses:
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)  # raises, too: there may be no IPv6 here
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
    """What is wrong with TLS, and in words."""
    match error:
        case ssl.SSLCertVerificationError():
            return _VERIFY_CODES.get(error.verify_code, "bad certificate"), tls_error_words(error)
        case ssl.SSLEOFError() | ConnectionError():
            return "closed", "the connection was closed"
        case TimeoutError():
            return "silent", "no answer"
    reason = getattr(error, "reason", None)
    return "no TLS" if reason in _PLAIN_TEXT else "other", os_error_words(error)


async def speaks_tls(host: str, address: str, port: int, timeout: float) -> bool:
    """Whether a TLS server listens there, whatever its certificate is, and whether it lets us in or not."""
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
    """The time by a TLS server's clock, whatever its certificate is; `None` when it does not tell."""
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


@frozen
class HttpHead:
    """The head of an HTTP answer. `date`: its `Date`, in seconds since 1970."""

    answer: HttpAnswer
    date: float | None


_STATUS_LINE = re.compile(rb"HTTP/1\.\d (\d{3})\b.*")


_ERROR = re.compile(rb'"(?:error|message)"\s*:\s*"([^"\\]{1,100})"')  # in JSON, perhaps in chunks


def parsed_head(data: bytes) -> HttpHead | None:
    """The head of an HTTP answer, with as much of its body as is there; `None` when it is none.

    Of several, such as "103 Early Hints" and what it announces, the one that counts.
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
    answer = HttpAnswer(status, is_html, host, is_to_tls, words if words.isprintable() else "")
    return HttpHead(answer, _time(headers.get("date")))


def _target(location: Any) -> tuple[str | None, bool]:
    """The host that a `Location` names, if it does, and whether it is to be spoken to in TLS."""
    try:
        parts = urlsplit(str(location)) if location else None
        return (None, False) if parts is None else (parts.hostname, parts.scheme in ("https", "wss"))
    except ValueError:
        return None, False


def _time(date: Any) -> float | None:
    try:
        time = parsedate_to_datetime(str(date))
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()  # HTTP has no other zone
    except (ValueError, OverflowError):
        return None


def _trusting_all() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
