"""Exceptions that reach the caller. What a peer does wrong is an event, never one of these out of a fact."""

from __future__ import annotations

from typing import Any


def reduce_exception(error: BaseException) -> tuple[Any, ...]:
    """`__reduce__` of an exception whose `__init__` has parameters of its own.

    Python would call the class with `args`, which is the finished text: unpickling and `copy.copy` would
    raise TypeError. Here the class is not called; its attributes, `args` among them, are set again.
    """
    return _without_init, (type(error),), {**error.__dict__, "args": error.args}


def _without_init(cls: type[BaseException]) -> BaseException:
    return cls.__new__(cls)


class PresenceError(Exception):
    """Base of every exception that this package raises on purpose. All survive `pickle` and `copy`."""

    __reduce__ = reduce_exception


class ConfigError(PresenceError, ValueError):
    """A config value that cannot work. The message names the field and what would be right."""


class LocalProtocolError(PresenceError):
    """The caller asked for something that is not legal now. Nothing has changed."""


class RemoteProtocolError(PresenceError):
    """The peer sent something malformed. The message names what was wrong, without secrets.

    Parsers raise it to their caller inside the core; no fact of an endpoint lets it out.
    """


class ProxyError(PresenceError):
    """A proxy does not let us through. The message says why, without secrets."""


class RecordingError(PresenceError):
    """This is no recording, or a damaged one. `line` counts from 1; `fault` is for people."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(f"line {line}: {fault}")
        self.line = line
        self.fault = fault
