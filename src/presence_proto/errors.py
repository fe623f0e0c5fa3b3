"""Exceptions of this package. An endpoint reports a peer's errors as events, not as exceptions."""

from __future__ import annotations

from typing import Any, Literal


def reduce_exception(error: BaseException) -> tuple[Any, ...]:
    """Implements `__reduce__` for an exception whose `__init__` takes other arguments than the error text.

    By default, unpickling and `copy.copy` call the class with `args`, the finished text, and raise TypeError.
    `reduce_exception` does not call the class, but restores the attributes of the exception, including
    `args`.
    """
    return _without_init, (type(error),), {**error.__dict__, "args": error.args}


def _without_init(cls: type[BaseException]) -> BaseException:
    return cls.__new__(cls)


class PresenceError(Exception):
    """Base class of all exceptions that this package raises on purpose. Exceptions can be pickled and
    copied."""

    __reduce__ = reduce_exception


class ConfigError(PresenceError, ValueError):
    """A config value cannot work. The message names the field and a correct value."""


class LocalProtocolError(PresenceError):
    """A call has an illegal argument, or is not legal in the current state. The call has changed nothing."""


class RemoteProtocolError(PresenceError):
    """The peer sent malformed data. The message describes the error, without secrets.

    Parsers raise `RemoteProtocolError` inside the core. The methods of an endpoint that take input never
    raise `RemoteProtocolError`.
    """


class ProxyError(PresenceError):
    """A proxy did not open a tunnel. The message has the reason, without secrets.

    `detail` is the reason without the name of the proxy. `refusal` is the kind of the proxy's refusal:

    - `"login"`: the proxy requires a user name and password, or refuses the given user name and password;
    - `"unreachable"`: the proxy cannot reach the server;
    - `"forbidden"`: the proxy refused for any other reason;
    - `None`: the proxy did not refuse, or the server is not a proxy (and answers CONNECT with HTTP 400).
    """

    def __init__(
        self,
        message: str,
        refusal: Literal["login", "unreachable", "forbidden"] | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.detail = detail


class RecordingError(PresenceError):
    """A recording is malformed or damaged. `line` is a number from 1. `fault` is human-readable."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(f"line {line}: {fault}")
        self.line = line
        self.fault = fault
