"""`ConnectionMonitor`: logs connection failures of a client, even if the application reads no events.

The first failed attempt to connect is logged at WARNING, the next success at INFO, and a permanent refusal at
ERROR. The module does not depend on an event loop.
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
"""The event classes that the driver passes to `saw`. Events of these classes are rare."""


class ConnectionMonitor:
    """State of a client's connection to `where` (host and port), and the callers that wait for a connect.

    `trouble` is the reason why there is no connection, if known. `refusal` is the exception to raise if the
    server has refused the client permanently.
    """

    def __init__(self, where: str) -> None:
        self.trouble: str | None = None
        self.refusal: ConnectError | None = None
        self._where = where
        self._cause: Exception | None = None  # why the client has ended
        self._is_connected = False
        self._is_failing = False  # a failure was logged, and no attempt has succeeded since
        self._waiters: list[Waiter] = []

    def wait(self, waiter: Waiter) -> None:
        """Finish `waiter` when the client is connected. Fail `waiter` if the client ends first."""
        self._waiters.append(waiter)

    def abort(self, waiter: Waiter) -> None:
        """Remove `waiter`."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def saw(self, event: Any) -> None:
        """Process an event of the core whose class is in `WATCHED`."""
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
        """Fail all waiters, because the client has ended with `error` or by a disconnect (`None`)."""
        self._is_connected, self._cause = False, error
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error or self.ended())

    def ended(self) -> ConnectError:
        """Return the exception to raise when a client that has ended is used."""
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
        # Do not log a lost connection: an event reports the loss, and most reconnects take about a second.
        if will_retry and not was_connected and not self._is_failing:
            self._is_failing = True
            logger.warning("%s; trying again", self._in_words(reason))

    def _refused(self, refusal: ConnectError) -> None:
        self.refusal, self.trouble, self._is_connected = refusal, refusal.reason, False
        logger.error("%s; not trying again", self._in_words(refusal.reason))

    def _in_words(self, reason: str) -> str:
        return reason if self._where in reason else f"cannot connect to {self._where}: {reason}"
