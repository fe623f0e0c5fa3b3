"""`RestartGrace`: how long users stay in the roster whom a restarted server has not seen again.

A server that was restarted has forgotten everybody. All clients lost it at the same moment and come back with
the same backoff, so the time that we were away says how long the others may still need:

    lost ────── away ──────▶ back ────── grace ──────▶ who is still missing goes offline
                             │ reconnect_delay + 2 · away, at most max_reconnect_delay
                             │ + SETTLING

Each delay of the backoff is about as long as all the time before it. A client that tried just before the
server was up therefore comes back after another `reconnect_delay + away`; the factor 2 leaves room for jitter
and for slow attempts. `PresenceConfig.restart_grace` bounds the whole, and 0 turns it off.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from presence_proto.config import PresenceConfig

SETTLING = 5.0  # seconds that the others have for their connect, join and track

OVERSLEPT = 1.0  # seconds; a tick that is later comes from a host that slept


class RestartGrace:
    """The timer of the missing users. It runs only while we are in the room.

    After another restart within the grace it starts again, with the time since the first loss. What is left
    of `restart_grace` bounds it: nobody is shown as missing for longer than that while we are in the room.
    """

    __slots__ = (
        "_away_since",
        "_config",
        "_here_since",
        "_left",
        "_patience",
        "_paused",
        "applies",
        "deadline",
    )

    def __init__(self, config: PresenceConfig) -> None:
        self.applies = False
        """Whether users who are missing when we return may stay."""
        self.deadline = inf
        """When `expire` is due, in seconds; infinite while it is not."""
        self._config = config
        self._away_since = -inf
        self._here_since: float | None = None
        self._left = 0.0  # seconds of restart_grace that are not used up
        self._patience = 0.0  # seconds that a host that slept gets once
        self._paused = inf  # the deadline, while we are away

    def lost(self, now: float) -> None:
        """We are out of the room. Calling it again does nothing."""
        if self._here_since is None:
            return
        if self.deadline == inf:
            self._away_since, self._left = now, self._config.restart_grace
        else:
            self._left -= now - self._here_since
        self._paused, self.deadline, self._here_since = self.deadline, inf, None

    def left(self, now: float) -> None:
        """The application leaves. How long it stays away says nothing about the others: no grace follows."""
        self.lost(now)
        self.applies, self._paused = False, -inf

    def returned(self, now: float) -> None:
        """We are in the room again. A deadline that has passed meanwhile is due at once."""
        self._here_since, self.deadline = now, self._paused
        self.applies = self._config.restart_grace > 0
        if self.deadline <= now:
            self._patience = 0.0  # the state is fresh: nothing of before it can lie unread

    def start(self, now: float) -> None:
        """Users are missing because the server was restarted."""
        config = self._config
        delay = min(config.reconnect_delay + 2 * (now - self._away_since), config.max_reconnect_delay)
        self.deadline = now + max(min(delay + SETTLING, self._left), 0.0)
        self._patience = config.heartbeat_timeout

    def expire(self, now: float) -> bool:
        """The deadline has passed. Returns whether the missing users go now.

        When the host slept, their joins may lie unread in the socket. By the time of the next heartbeat's
        timeout they are read, or the connection is known to be dead.
        """
        if now - self.deadline > OVERSLEPT and self._patience:
            self.deadline, self._patience = now + self._patience, 0.0
            return False
        self.deadline = inf
        return True
