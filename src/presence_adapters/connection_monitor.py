"""Follows the connection of one client, so that a failure shows itself though nobody reads events.

The first failed attempt after a success is logged at WARNING, the recovery at INFO, a final refusal at ERROR.
It knows no event loop.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from presence_adapters.errors import ConnectError
from presence_proto import (
    AccessTokenFailed,
    Connected,
    Disconnected,
    Error,
    SocketConnected,
    SocketDisconnected,
)

if TYPE_CHECKING:
    from presence_adapters.routing import Waiter

logger = logging.getLogger(__name__)

WATCHED: frozenset[type] = frozenset(
    {AccessTokenFailed, Connected, Disconnected, Error, SocketConnected, SocketDisconnected}
)
"""The events that `saw` wants. All are rare."""


class ConnectionMonitor:
    """What became of the attempts to connect to `where`, a host and port.

    `trouble` is why there is no connection, as far as is known; `refusal` the exception to raise once the
    server has refused for good.
    """

    def __init__(self, where: str) -> None:
        self.trouble: str | None = None
        self.refusal: ConnectError | None = None
        self._where = where
        self._cause: Exception | None = None  # of the end
        self._is_connected = False
        self._is_failing = False  # which was logged
        self._waiters: list[Waiter] = []

    def wait(self, waiter: Waiter) -> None:
        """`waiter` gets `None` with the next success, or an exception when the client ends before."""
        self._waiters.append(waiter)

    def abort(self, waiter: Waiter) -> None:
        """`waiter` does not want the answer any more."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def saw(self, event: Any) -> None:
        """An event of `WATCHED` comes out of the core."""
        match event:
            case Connected() | SocketConnected():
                self._connected()
            case SocketDisconnected(fatal=True):
                self._refused(ConnectError(event.reason, status=event.status))
            case Error(fatal=True):
                self._refused(ConnectError(event.message))
            case SocketDisconnected() | Disconnected() | AccessTokenFailed():
                if not (isinstance(event, AccessTokenFailed) and self._is_connected):
                    self._disconnected(event.reason, will_retry=event.retry_in is not None)

    def end(self, error: Exception | None) -> None:
        """The client has ended: with a bug, a refusal, or because it was disconnected (`None`)."""
        self._is_connected, self._cause = False, error
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error or self.ended())

    def ended(self) -> ConnectError:
        """What to raise for whatever is wanted of the client after its end."""
        if self._cause is None or isinstance(self._cause, ConnectError):
            reason = self.trouble or "it was disconnected"
        else:
            reason = f"it has failed with {type(self._cause).__name__}"
        status = None if self.refusal is None else self.refusal.status
        error = ConnectError(f"the client has ended ({reason}): create a new one", reason, status)
        error.__cause__ = self._cause
        return error

    def _connected(self) -> None:
        if self._is_failing:
            logger.info("connected to %s", self._where)
        self._is_connected, self._is_failing, self.trouble = True, False, None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _disconnected(self, reason: str, *, will_retry: bool) -> None:
        was_connected, self._is_connected, self.trouble = self._is_connected, False, reason
        # A loss is no failed attempt: an event tells of it, and most connections are back in a second.
        if will_retry and not was_connected and not self._is_failing:
            self._is_failing = True
            logger.warning("%s; trying again", self._in_words(reason))

    def _refused(self, refusal: ConnectError) -> None:
        self.refusal, self.trouble, self._is_connected = refusal, refusal.reason, False
        logger.error("%s; not trying again", self._in_words(refusal.reason))

    def _in_words(self, reason: str) -> str:
        return reason if self._where in reason else f"cannot connect to {self._where}: {reason}"
