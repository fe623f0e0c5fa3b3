"""How much of everything is to be run."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen


@frozen
class Plan:
    """`rounds` of everything, besides one to warm up. `share`: the part of the full size, 1.0 for all of it.

    `progress` is told what goes on.
    """

    seed: int
    rounds: int
    share: float
    progress: Callable[[str], None]

    def scaled(self, count: int) -> int:
        """Our share of `count`."""
        return max(1, int(count * self.share))
