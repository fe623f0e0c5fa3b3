"""What every driver needs to connect: the TLS context, and failures in words that a person understands."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from presence_adapters.error_words import os_error_words, tls_error_words
from presence_proto import ProxyError

if TYPE_CHECKING:
    import logging

    from presence_proto import OpenTransport, Proxy

_CLOSED_IN_TLS = "the connection was closed while TLS was set up"


def log_opening(logger: logging.Logger, wanted: OpenTransport, proxy: Proxy | None) -> None:
    """Log where a connection is to lead."""
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
    """The context for a TLS client: the one given, or one that verifies certificates and host names."""
    return ssl.create_default_context() if given is None else given


def why_not_connected(error: BaseException, host: str, port: int) -> str:
    """Why a connection to `host`:`port` could not be made."""
    where = f"{host}:{port}"
    match error:
        case ProxyError():
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
            return f"no TLS with {where} ({tls_error_words(error)})"
        case ConnectionError() if error.errno is None:
            return f"cannot connect to {where} ({_CLOSED_IN_TLS})"
        case OSError():
            return f"cannot connect to {where} ({_in_words(error)})"
        case _:
            return f"cannot connect to {where} ({type(error).__name__})"


def out_of_reach(error: BaseException, proxy: Proxy) -> ProxyError:
    """What to raise when there is no talking to the proxy itself."""
    return ProxyError(f"the proxy is out of reach: {why_not_connected(error, proxy.host, proxy.port)}")


def why_lost(error: BaseException | None) -> str:
    """Why an open connection ended; `None` is the plain end of the stream."""
    match error:
        case None | ssl.SSLEOFError():  # TLS without its own goodbye is no more than TCP
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
    # Several addresses of one name, on all loops.
    errors = error.__cause__.exceptions if isinstance(error.__cause__, ExceptionGroup) else ()
    numbers = {exc.errno for exc in errors if isinstance(exc, OSError) and exc.errno is not None}
    faults = [os_error_words(OSError(number, "")) for number in sorted(numbers)]
    return ", ".join(faults) or os_error_words(error)
