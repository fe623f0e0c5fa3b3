"""`RestartGrace`: how long missing users stay in the roster after a server restart.

A restarted server has lost its presence. All clients lost their connection at the same moment and reconnect
with the same backoff. So the time that this client was away indicates how long the others may still need:

    lost ────── away ──────▶ back ────── grace ──────▶ users still missing go offline
                             │ reconnect_delay + 2 · away, at most max_reconnect_delay
                             │ + SETTLING

Each delay of the backoff is about as long as all the time before it. A client whose last attempt was just
before the server was up therefore reconnects after another `reconnect_delay + away`. The factor 2 allows for
jitter and slow attempts. `PresenceConfig.restart_grace` limits the whole grace; 0 disables it.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from presence_proto.config import PresenceConfig

SETTLING = 5.0  # seconds that the other clients get for connect, join and track

OVERSLEPT = 1.0  # seconds; a tick later than this means that the host was asleep


class RestartGrace:
    """The timer after which missing users go offline. It runs only while the client is in the room.

    If the server restarts again within the grace, the timer starts again, and the time away counts from the
    first loss. The unused part of `restart_grace` limits the new grace. So no missing user stays longer than
    `restart_grace` while the client is in the room.
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
        """Whether users who are missing when the client returns may stay."""
        self.deadline = inf
        """The time at which `expire` is due, in seconds, or infinity."""
        self._config = config
        self._away_since = -inf
        self._here_since: float | None = None
        self._left = 0.0  # unused seconds of restart_grace
        self._patience = 0.0  # additional seconds, once, if the host was asleep
        self._paused = inf  # the deadline while the client is out of the room

    def lost(self, now: float) -> None:
        """Pause, because the client is out of the room. A repeated call does nothing."""
        if self._here_since is None:
            return
        if self.deadline == inf:
            self._away_since, self._left = now, self._config.restart_grace
        else:
            self._left -= now - self._here_since
        self._paused, self.deadline, self._here_since = self.deadline, inf, None

    def left(self, now: float) -> None:
        """Stop, because the application leaves. That time away says nothing about other clients."""
        self.lost(now)
        self.applies, self._paused = False, -inf

    def returned(self, now: float) -> None:
        """Resume, because the client is in the room again. A deadline that has passed is due at once."""
        self._here_since, self.deadline = now, self._paused
        self.applies = self._config.restart_grace > 0
        if self.deadline <= now:
            self._patience = 0.0  # the state is new: no older data can be unread in the socket

    def start(self, now: float) -> None:
        """Start the grace: users are missing because the server was restarted."""
        config = self._config
        delay = min(config.reconnect_delay + 2 * (now - self._away_since), config.max_reconnect_delay)
        self.deadline = now + max(min(delay + SETTLING, self._left), 0.0)
        self._patience = config.heartbeat_timeout

    def expire(self, now: float) -> bool:
        """Handle the deadline. Returns whether the missing users go offline now.

        If the host was asleep, joins of missing users may be unread in the socket. Then the deadline moves
        once, by the heartbeat timeout: by that time the joins are read, or the connection is known to be
        dead.
        """
        if now - self.deadline > OVERSLEPT and self._patience:
            self.deadline, self._patience = now + self._patience, 0.0
            return False
        self.deadline = inf
        return True
