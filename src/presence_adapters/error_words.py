"""What errors of the operating system and of TLS mean, in our own words.

The texts that the system, Python and OpenSSL have for such errors differ between machines and releases. Their
numbers and names do not. An error that is not in these tables is told by its number or name.
"""

from __future__ import annotations

import errno
import socket
import ssl

_OS_ERRORS = {
    errno.EACCES: "permission denied",
    errno.EADDRINUSE: "address already in use",
    errno.EADDRNOTAVAIL: "address not available on this machine",
    errno.EAFNOSUPPORT: "address family not supported",
    errno.EBADF: "file is closed",
    errno.ECONNABORTED: "connection aborted",
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset by peer",
    errno.EEXIST: "file exists",
    errno.EHOSTUNREACH: "no route to host",
    errno.EINVAL: "invalid argument",
    errno.EIO: "input/output error",
    errno.EISDIR: "is a directory",
    errno.ELOOP: "too many symbolic links",
    errno.EMFILE: "too many open files",
    errno.ENAMETOOLONG: "file name too long",
    errno.ENETDOWN: "network is down",
    errno.ENETUNREACH: "network is unreachable",
    errno.ENFILE: "too many open files in system",
    errno.ENOBUFS: "no buffer space available",
    errno.ENOENT: "no such file or directory",
    errno.ENOMEM: "cannot allocate memory",
    errno.ENOSPC: "no space left on device",
    errno.ENOTCONN: "not connected",
    errno.ENOTDIR: "not a directory",
    errno.ENXIO: "no such device or address",
    errno.EPERM: "operation not permitted",
    errno.EPIPE: "broken pipe",
    errno.EROFS: "read-only file system",
    errno.ETIMEDOUT: "connection timed out",
    errno.EAGAIN: "resource temporarily unavailable",
}
for _name, _words in (("EDQUOT", "disk quota exceeded"), ("EHOSTDOWN", "host is down")):
    if hasattr(errno, _name):  # Windows lacks some
        _OS_ERRORS[getattr(errno, _name)] = _words

_NAME_ERRORS = {
    getattr(socket, name): words
    for name, words in {
        "EAI_AGAIN": "the name server does not answer",
        "EAI_FAIL": "the name server failed",
        "EAI_FAMILY": "address family not supported",
        "EAI_NODATA": "the name has no address",
        "EAI_NONAME": "the name is not known",
        "EAI_SERVICE": "the port is not known",
    }.items()
    if hasattr(socket, name)
}

# The verification errors of X.509 certificates, by their numbers in OpenSSL's x509_vfy.h.
_CERTIFICATE_ERRORS = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed",
    19: "a self-signed certificate is in its chain",
    20: "its issuer is not known here",
    21: "its issuer is not known here",
    23: "it was revoked",
    24: "a certificate in its chain may not issue others",
    26: "it is not for servers",
    62: "it is for another host name",
    64: "it is for another IP address",
}

# By the names of OpenSSL's reasons, which it spells in capitals.
_TLS_ERRORS = {
    "CERTIFICATE_REQUIRED": "a client certificate is required",
    "CERTIFICATE_VERIFY_FAILED": "the certificate is not trusted",
    "HTTP_REQUEST": "the other side speaks HTTP without TLS",
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
    "NO_PROTOCOLS_AVAILABLE": "no TLS version is allowed on both sides",
    "NO_SHARED_CIPHER": "there is no cipher that both sides allow",
    "PACKET_LENGTH_TOO_LONG": "the other side does not speak TLS",
    "RECORD_LAYER_FAILURE": "the other side does not speak TLS",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the other side refused our certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the other side refused the TLS handshake",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "a client certificate is required",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the other side refused our TLS version",
    "TLSV1_ALERT_UNKNOWN_CA": "the other side does not trust the issuer of our certificate",
    "UNEXPECTED_EOF_WHILE_READING": "the connection ended without a goodbye",
    "UNSUPPORTED_PROTOCOL": "the other side refused our TLS version",
    "WRONG_VERSION_NUMBER": "the other side does not speak TLS",
}


def os_error_words(error: OSError) -> str:
    """Why a call of the system failed, without the path or address that it was about."""
    if isinstance(error, ssl.SSLError):
        return tls_error_words(error)
    number = error.errno
    if isinstance(error, socket.gaierror):
        return _NAME_ERRORS.get(number or 0) or f"name look-up error {number}"
    if number is None:
        return "timed out" if isinstance(error, TimeoutError) else type(error).__name__
    return _OS_ERRORS.get(number) or f"system error {errno.errorcode.get(number, number)}"


def tls_error_words(error: ssl.SSLError) -> str:
    """Why TLS failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code: int | None = getattr(error, "verify_code", None)
        return _CERTIFICATE_ERRORS.get(code or 0) or f"verification error {code}"
    reason = getattr(error, "reason", None)
    if reason is None:
        return "TLS failed"
    return _TLS_ERRORS.get(reason) or f"TLS error {reason}"
