"""Delays between attempts: `min(base * 2**n, maximum)`, with jitter that only ever shortens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random


class Backoff:
    """Counts failed attempts and says how long to wait before the next one.

    `base` and `maximum` are seconds. `jitter` is a fraction of the delay (0 to 1): each delay is shortened by
    up to that much, so that a thousand clients of one lost server do not come back in the same instant.
    Without an `rng` there is no jitter, and the delays are exact.
    """

    __slots__ = ("_attempts", "_base", "_jitter", "_maximum", "_rng")

    def __init__(
        self, base: float, maximum: float, *, jitter: float = 0.0, rng: Random | None = None
    ) -> None:
        self._base = base
        self._maximum = maximum
        self._jitter = jitter
        self._rng = rng
        self._attempts = 0

    @property
    def attempts(self) -> int:
        """How many delays were handed out since the last reset."""
        return self._attempts

    def next(self) -> float:
        """The next delay in seconds."""
        # 2**63 is past every sane maximum; the cap keeps the power a cheap one.
        delay = float(min(self._base * 2 ** min(self._attempts, 63), self._maximum))
        self._attempts += 1
        if self._rng is not None and self._jitter:
            delay *= 1.0 - self._jitter * self._rng.random()
        return delay

    def reset(self) -> None:
        """Start over: things have been well for a while."""
        self._attempts = 0
