"""Exceptions of this package. An endpoint reports a peer's errors as events and never raises for them."""

from __future__ import annotations

from typing import Any, Literal


def reduce_exception(error: BaseException) -> tuple[Any, ...]:
    """`__reduce__` for an exception whose `__init__` takes other arguments than the error text.

    By default, unpickling and `copy.copy` call the class with `args`, the finished text, and raise TypeError.
    This version does not call the class, but restores its attributes, including `args`.
    """
    return _without_init, (type(error),), {**error.__dict__, "args": error.args}


def _without_init(cls: type[BaseException]) -> BaseException:
    return cls.__new__(cls)


class PresenceError(Exception):
    """Base class of all exceptions that this package raises on purpose. All support `pickle` and `copy`."""

    __reduce__ = reduce_exception


class ConfigError(PresenceError, ValueError):
    """A config value cannot work. The message names the field and a correct value."""


class LocalProtocolError(PresenceError):
    """The call has an illegal argument, or is not legal in the current state. Nothing has changed."""


class RemoteProtocolError(PresenceError):
    """The peer sent malformed data. The message describes the error, without secrets.

    Parsers raise it inside the core. The methods of an endpoint that take input never raise it.
    """


class ProxyError(PresenceError):
    """A proxy does not open a tunnel. The message has the reason, without secrets.

    `refusal` is the kind of the proxy's refusal, and `detail` is its reason without the name of the proxy:

    - `"login"`: the proxy requires a user name and password, or does not accept the given ones;
    - `"unreachable"`: it cannot reach the server;
    - `"forbidden"`: any other reason;
    - `None`: the proxy did not refuse, or the server is not a proxy (it answers CONNECT with HTTP 400).
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
    """A recording is malformed or damaged. `line` counts from 1. `fault` is a human-readable text."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(f"line {line}: {fault}")
        self.line = line
        self.fault = fault
