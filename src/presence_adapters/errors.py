"""Exceptions that the adapters raise, and functions that create these exceptions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn

from presence_proto import LocalProtocolError, PresenceError

if TYPE_CHECKING:
    from collections.abc import Callable


class ConnectError(PresenceError):
    """The client has ended and does not reconnect, after a permanent refusal or a disconnect.

    `reason` is the cause. After a refusal, `reason` quotes the server. `status` is the HTTP status of the
    refusal, if known.
    """

    def __init__(self, text: str, reason: str | None = None, status: int | None = None) -> None:
        super().__init__(text)
        self.reason = text if reason is None else reason
        self.status = status


class JoinError(PresenceError):
    """A topic could not be joined, for example because the server refused. The client has left the topic.

    `response` is the server's reply, or `None` if no reply arrived.
    """

    def __init__(self, topic: str, reason: str, response: Any = None) -> None:
        super().__init__(f"cannot join {topic!r}: {reason}")
        self.topic = topic
        self.reason = reason
        self.response = response


class PushError(PresenceError):
    """A push failed, because the reply status is not `"ok"` or because no reply arrived.

    `status` and `response` are fields of the server's reply. `status` is `None` if no reply arrived.
    """

    def __init__(self, topic: str, reason: str, status: str | None = None, response: Any = None) -> None:
        super().__init__(f"push to {topic!r} failed: {reason}")
        self.topic = topic
        self.reason = reason
        self.status = status
        self.response = response


class WaitTimeoutError(PresenceError, TimeoutError):
    """A wait took longer than `timeout`. The client continues to try. `reason` is the latest failure."""

    def __init__(self, text: str, reason: str | None = None) -> None:
        super().__init__(text if reason is None else f"{text}: {reason}")
        self.reason = reason


class JoinTimeoutError(JoinError, TimeoutError):
    """A join took longer than `timeout` seconds. The client has left the topic."""

    def __init__(self, topic: str, timeout: float, trouble: str | None = None) -> None:
        super().__init__(
            topic, f"no answer within {timeout:g} s" + ("" if trouble is None else f": {trouble}")
        )


def left_already(topic: str) -> LocalProtocolError:
    """Return the exception to raise when a channel that was left is used."""
    return LocalProtocolError(f"{topic!r} was left: join it again")


def forked(what: str) -> str:
    """Return the error text for using an object in a forked process."""
    return f"the {what} belongs to the process that this one was forked from: create another {what} here"


def checked_timeout(timeout: float | None) -> float | None:
    """Return `timeout` (seconds or `None`). Raises `LocalProtocolError` if `timeout` is not valid."""
    if timeout is not None:
        is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if not is_number or math.isnan(timeout) or timeout < 0:
            raise LocalProtocolError(f"timeout must be at least 0 seconds, or None, not {timeout!r}")
    return timeout


# -------------------------------------------------------------------------------------------- wrong statement
# The error when a statement belongs to another adapter, such as `async with` on a blocking client.


METHODS = {
    "with": ("__enter__", "__exit__"),
    "async with": ("__aenter__", "__aexit__"),
    "for": ("__iter__",),
    "async for": ("__aiter__",),
}


def refuse(cls: type[Any], advice: str, *statements: str) -> None:
    """Make the named statements (keys of `METHODS`) raise a `TypeError` with `advice` for instances of `cls`.

    The methods are not defined in the class body, because type checkers would then accept the wrong
    statement.
    """

    for statement in statements:
        for name in METHODS[statement]:
            setattr(cls, name, _refusing(statement, advice))


def _refusing(statement: str, advice: str) -> Callable[..., NoReturn]:
    def refuse(self: object, *args: object) -> NoReturn:
        whole = f"{type(self).__module__}.{type(self).__name__}"
        raise TypeError(f"{whole} does not support `{statement}`: {advice}")

    return refuse


# ----------------------------------------------------------------------------------------------------- extras
# The error when an extra of this package, such as `trio`, is not installed.


def missing(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """Return the exception to raise instead of `error`. The message names the extra to install."""
    package = str(error.name).partition(".")[0]
    return ModuleNotFoundError(
        f"{package} is missing. Install it: pip install 'presence-proto[{extra}]'", name=package
    )
