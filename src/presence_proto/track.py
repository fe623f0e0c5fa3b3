"""Our own presence payload in a channel: latest wins, and never more calls than the server allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import msgspec


class Tracker:
    """What we want to be tracked as, what the server was last told, and the budget of calls.

    Supabase closes a channel that makes more than 5 track or untrack calls in 30 s, unchanged payloads
    included. So calls are coalesced: only the latest wish is sent, when the budget allows, and never what was
    sent last.
    """

    __slots__ = ("_calls", "_limit", "_sent", "_wanted", "_window")

    def __init__(self, limit: int | None, window: float) -> None:
        self._limit = limit
        self._window = window  # seconds
        self._calls: list[float] = []  # when the last calls were made, at most `limit` of them
        self._wanted: msgspec.Raw | None = None
        self._sent: msgspec.Raw | None = None

    def want(self, payload: msgspec.Raw | None) -> None:
        """Be tracked as `payload`, or not at all."""
        self._wanted = payload

    def start_over(self) -> None:
        """The channel has a new life on the server, which knows nothing of us and has counted nothing."""
        self._sent = None
        self._calls.clear()

    def due(self, now: float) -> float | None:
        """When the next call may be made: `now` or later; `None` when there is nothing to say."""
        if self._wanted == self._sent:
            return None
        if self._limit is None or len(self._calls) < self._limit:
            return now
        return max(now, self._calls[0] + self._window)

    def call(self, now: float) -> msgspec.Raw | None:
        """Make the call that is due: returns the payload to track, or `None` to untrack."""
        if self._limit is not None:
            if len(self._calls) == self._limit:
                del self._calls[0]
            self._calls.append(now)
        self._sent = self._wanted
        return self._sent
