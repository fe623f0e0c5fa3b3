"""When to ask the application for an access token: for connects and joins, and before the last one expires.

A request is answered, or fails: because the application says so, or because it says nothing for too long.
What has failed is asked for again, with a backoff, for as long as the client is wanted.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any

from presence_proto.backoff import Backoff
from presence_proto.errors import LocalProtocolError
from presence_proto.outputs import AccessTokenNeeded
from presence_proto.timers import Timers
from presence_proto.validators import is_number

if TYPE_CHECKING:
    from random import Random

    from presence_proto.config import RealtimeConfig
    from presence_proto.outputs import Outbox

LONGEST_AHEAD = 60.0
"""Seconds before the expiry at which a new token is asked for; a fifth of its time, when that is less."""


class TokenTimer(IntEnum):
    """The timers of the requests."""

    ANSWER = auto()  # the answer is due
    AGAIN = auto()  # there was none, or a bad one: ask again
    REFRESH = auto()  # the token expires soon


class TokenRequests:
    """The requests of one client, one at a time. Without `asks_for_token` there are none."""

    def __init__(self, config: RealtimeConfig, outbox: Outbox[Any], rng: Random | None) -> None:
        self._config = config
        self._outbox = outbox
        self.timers: Timers[TokenTimer] = Timers()
        self._backoff = Backoff(
            config.reconnect_delay, config.max_reconnect_delay, jitter=config.jitter, rng=rng
        )

    def next_deadline(self) -> float | None:
        """When `tick` has something to do, or `None`."""
        return self.timers.next_deadline()

    @property
    def is_open(self) -> bool:
        """Whether an answer is awaited."""
        return self.timers.get(TokenTimer.ANSWER) is not None

    def need(self, now: float) -> None:
        """A fresh token is needed. Asks for one, unless that is being done."""
        if not self.is_open and self.timers.get(TokenTimer.AGAIN) is None:
            self._ask(now)

    def answered(self, expires_in: float | None, now: float) -> None:
        """There is a token, which is good for so long (seconds), or for ever. It may have expired already."""
        self.timers.clear()
        ahead = None if expires_in is None else expires_in - min(LONGEST_AHEAD, expires_in / 5)
        if ahead is not None and ahead < self._config.reconnect_delay:
            ahead = self._backoff.next()  # it may be our clock that is wrong: the server shall say
        else:
            self._backoff.reset()
        if ahead is not None and self._config.asks_for_token:
            self.timers.set(TokenTimer.REFRESH, now + ahead)

    def failed(self, now: float) -> float:
        """There is none. Returns the seconds until it is asked for again."""
        delay = self._backoff.next()
        self.timers.clear()
        self.timers.set(TokenTimer.AGAIN, now + delay)
        return delay

    def connection_lost(self) -> None:
        """Before the next connection a token is asked for anyway."""
        self.timers.cancel(TokenTimer.REFRESH)

    def stop(self) -> None:
        """The client is leaving or at rest: it needs no token."""
        self.timers.clear()
        self._backoff.reset()

    def tick(self, now: float) -> bool:
        """Time passed. `True`: the time for an answer is up, so say that it has `failed`."""
        slot = self.timers.pop_expired(now)
        if slot in (TokenTimer.AGAIN, TokenTimer.REFRESH):
            self._ask(now)
        return slot is TokenTimer.ANSWER

    def _ask(self, now: float) -> None:
        self.timers.clear()
        self.timers.set(TokenTimer.ANSWER, now + self._config.access_token_timeout)
        self._outbox.put(AccessTokenNeeded())


def check_expires_in(expires_in: float | None) -> None:
    """Raise `LocalProtocolError` unless these are seconds, or `None`."""
    if expires_in is not None and not is_number(expires_in):
        raise LocalProtocolError(f"expires_in must be a finite number of seconds or None, not {expires_in!r}")
