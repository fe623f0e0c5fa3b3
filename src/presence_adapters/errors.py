"""Exceptions of the adapters: what an awaited command answers when it did not work."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NoReturn

from presence_proto import LocalProtocolError, PresenceError

if TYPE_CHECKING:
    from collections.abc import Callable


class ConnectError(PresenceError):
    """The client has ended and will not try again: the server refused it for good, or it was disconnected.

    `reason` says why; a refusal is quoted. `status` is the HTTP status of a refusal, where it is known.
    """

    def __init__(self, text: str, reason: str | None = None, status: int | None = None) -> None:
        super().__init__(text)
        self.reason = text if reason is None else reason
        self.status = status


class JoinError(PresenceError):
    """The server refused to let us into a topic. The channel is left again.

    `response` is the server's answer.
    """

    def __init__(self, topic: str, reason: str, response: Any = None) -> None:
        super().__init__(f"cannot join {topic!r}: {reason}")
        self.topic = topic
        self.reason = reason
        self.response = response


class PushError(PresenceError):
    """A push was answered with another status than `"ok"`, or not at all.

    `status` and `response` are the server's; `status` is `None` when no answer came.
    """

    def __init__(self, topic: str, reason: str, status: str | None = None, response: Any = None) -> None:
        super().__init__(f"push to {topic!r} failed: {reason}")
        self.topic = topic
        self.reason = reason
        self.status = status
        self.response = response


class WaitTimeoutError(PresenceError, TimeoutError):
    """A wait took longer than its `timeout`. The client goes on trying; `reason` is what kept it last."""

    def __init__(self, text: str, reason: str | None = None) -> None:
        super().__init__(text if reason is None else f"{text}: {reason}")
        self.reason = reason


class JoinTimeoutError(JoinError, TimeoutError):
    """A join took longer than its `timeout` in seconds. The channel is left again."""

    def __init__(self, topic: str, timeout: float, trouble: str | None = None) -> None:
        super().__init__(
            topic, f"no answer within {timeout:g} s" + ("" if trouble is None else f": {trouble}")
        )


def left_already(topic: str) -> LocalProtocolError:
    """What to raise for whatever is wanted of a channel that was left."""
    return LocalProtocolError(f"{topic!r} was left: join it again")


def forked(what: str) -> str:
    """The text for a use in a forked process."""
    return f"the {what} belongs to the process that this one was forked from: create another {what} here"


def checked_timeout(timeout: float | None) -> float | None:
    """`timeout`, if it is a number of seconds or `None`. Raises `LocalProtocolError`."""
    if timeout is not None:
        is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if not is_number or math.isnan(timeout) or timeout < 0:
            raise LocalProtocolError(f"timeout must be a number of seconds or None, not {timeout!r}")
    return timeout


# -------------------------------------------------------------------------------------------- wrong statement
# What a class answers when it is used in a statement that is another adapter's.


METHODS = {
    "with": ("__enter__", "__exit__"),
    "async with": ("__aenter__", "__aexit__"),
    "for": ("__iter__",),
    "async for": ("__aiter__",),
}


def refuse(cls: type[Any], advice: str, *statements: str) -> None:
    """Have these statements of `METHODS` raise a `TypeError` with `advice` for instances of `cls`.

    Called after the class is made: type checkers find the mistake by themselves as long as they see no such
    methods.
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
# What to say when a package of an extra is not installed.


def missing(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """The exception to raise in place of `error`: it names the extra to install."""
    package = str(error.name).partition(".")[0]
    return ModuleNotFoundError(
        f"{package} is missing. Install it: pip install 'presence-proto[{extra}]'", name=package
    )
