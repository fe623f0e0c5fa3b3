"""`RestartGrace`: the time that missing users stay in the roster after a server restart.

A restarted server has lost its presence. All clients lost their connection at the same moment, and reconnect
with the same backoff. The time that this client was disconnected therefore predicts the time that other
clients still need:

    lost ────── away ──────▶ back ────── grace ──────▶ users still missing go offline
                             │ reconnect_delay + 2 · away, at most max_reconnect_delay
                             │ + SETTLING

Each delay of the backoff is about as long as the sum of the previous delays. A client whose last attempt was
just before the server was up therefore reconnects after another `reconnect_delay + away`. The factor 2 allows
for jitter and slow attempts. `PresenceConfig.restart_grace` limits the grace, and a limit of 0 disables the
grace.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from presence_proto.config import PresenceConfig

SETTLING = 5.0  # seconds for the connect, join and track of the other clients

OVERSLEPT = 1.0  # seconds; a tick with a longer delay means that the host was asleep


class RestartGrace:
    """The timer after which missing users go offline. The timer runs only while the client is in the room.

    If the server restarts again within the grace, the timer starts again, and the time away counts from the
    first loss. The unused part of `restart_grace` limits the new grace. Therefore, no missing user stays
    longer than `restart_grace` while the client is in the room.
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
        """Whether users who are missing when the client returns may stay in the roster."""
        self.deadline = inf
        """The time at which `expire` is due, in seconds, or infinity."""
        self._config = config
        self._away_since = -inf
        self._here_since: float | None = None
        self._left = 0.0  # unused seconds of restart_grace
        self._patience = 0.0  # additional seconds, once, if the host was asleep
        self._paused = inf  # the deadline while the client is disconnected

    def lost(self, now: float) -> None:
        """Pause the timer, because the client is disconnected. A repeated call does nothing."""
        if self._here_since is None:
            return
        if self.deadline == inf:
            self._away_since, self._left = now, self._config.restart_grace
        else:
            self._left -= now - self._here_since
        self._paused, self.deadline, self._here_since = self.deadline, inf, None

    def left(self, now: float) -> None:
        """Stop the timer. After the application leaves, the time away predicts nothing about other
        clients."""
        self.lost(now)
        self.applies, self._paused = False, -inf

    def returned(self, now: float) -> None:
        """Resume the timer, because the client is in the room again. A passed deadline is due at once."""
        self._here_since, self.deadline = now, self._paused
        self.applies = self._config.restart_grace > 0
        if self.deadline <= now:
            self._patience = 0.0  # after a new state, no older data can be unread in the socket

    def start(self, now: float) -> None:
        """Start the grace: users are missing because the server was restarted."""
        config = self._config
        delay = min(config.reconnect_delay + 2 * (now - self._away_since), config.max_reconnect_delay)
        self.deadline = now + max(min(delay + SETTLING, self._left), 0.0)
        self._patience = config.heartbeat_timeout

    def expire(self, now: float) -> bool:
        """Handle the passed deadline. Returns whether the missing users go offline now.

        If the host was asleep, joins of missing users may be unread in the socket. The deadline then moves
        once, by the heartbeat timeout: until the new deadline, the client reads the joins or detects a dead
        connection.
        """
        if now - self.deadline > OVERSLEPT and self._patience:
            self.deadline, self._patience = now + self._patience, 0.0
            return False
        self.deadline = inf
        return True
