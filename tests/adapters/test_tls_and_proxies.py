from __future__ import annotations

import errno
import socket
import ssl

import pytest

from presence_adapters.tls_and_proxies import client_context, none_works, why_lost, why_not_connected


def verification_error() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] … (_ssl.c:1006)")
    error.verify_message = "in OpenSSL's words"
    error.verify_code = 18
    return error


def ssl_error() -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")
    error.reason = "WRONG_VERSION_NUMBER"
    return error


def failures(*errors: OSError) -> OSError:
    """As trio reports those of several addresses of one name."""
    error = OSError("all attempts to connect to h.example:443 failed")
    error.__cause__ = ExceptionGroup("all attempts", errors)
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "in the system's words"),
            "cannot find the host h.example (the name is not known)",
        ),
        (UnicodeError("label too long"), "h.example is not a valid host name"),
        (
            verification_error(),
            "the TLS certificate of h.example:443 is not trusted (it is self-signed)",
        ),
        (ssl_error(), "the TLS handshake with h.example:443 failed (the other side does not speak TLS)"),
        (ssl.SSLError("?"), "the TLS handshake with h.example:443 failed (TLS failed)"),
        (
            ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
            "cannot connect to h.example:443 (the connection was closed during the TLS handshake)",
        ),
        (
            ConnectionAbortedError("SSL handshake is taking longer than 60.0 seconds"),
            "cannot connect to h.example:443 (the connection was closed during the TLS handshake)",
        ),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 443)"),
            "cannot connect to h.example:443 (connection refused)",
        ),
        (OSError(errno.ENETUNREACH, "x"), "cannot connect to h.example:443 (network is unreachable)"),
        (
            failures(
                OSError(errno.ENETUNREACH, "x"), OSError(errno.ECONNREFUSED, "x"), OSError("of no number")
            ),
            "cannot connect to h.example:443 (network is unreachable, connection refused)",
        ),
        (none_works([]), "cannot find the host h.example (the name is not known)"),
        (
            none_works([OSError(errno.EPERM, "x")]),
            "cannot connect to h.example:443 (operation not permitted)",
        ),
        (
            none_works([OSError(errno.ETIMEDOUT, "x"), OSError(errno.EHOSTUNREACH, "x"), OSError()]),
            "cannot connect to h.example:443 (connection timed out, no route to host)",
        ),
        (OSError("in no words of ours"), "cannot connect to h.example:443 (OSError)"),
        (RuntimeError("the query had a key"), "cannot connect to h.example:443 (RuntimeError)"),
    ],
)
def test_failures_to_connect_in_words(error: BaseException, words: str) -> None:
    assert why_not_connected(error, "h.example", 443) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, "eof"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "the connection was lost (connection reset by peer)"),
        (ConnectionResetError(), "the connection was lost (ConnectionResetError)"),
        (ssl_error(), "TLS failed (the other side does not speak TLS)"),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "eof"),
        (RuntimeError("a secret"), "the connection was lost (RuntimeError)"),
    ],
)
def test_the_end_of_a_connection_in_words(error: BaseException | None, words: str) -> None:
    assert why_lost(error) == words


def test_certificates_are_verified_unless_somebody_says_otherwise() -> None:
    context = client_context(None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert client_context(own) is own
