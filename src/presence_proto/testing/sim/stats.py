"""What happened in a world, in numbers."""

from __future__ import annotations

from collections import Counter

from attrs import Factory, define


@define
class SimStats:
    """`client_hours` is virtual; `writes` are the pieces that endpoints sent, each of one or more frames."""

    client_hours: float = 0.0
    writes: int = 0
    bytes: int = 0
    events: int = 0
    faults: Counter[str] = Factory(Counter)  # by kind

    def add(self, other: SimStats) -> None:
        """Add the numbers of another world."""
        self.client_hours += other.client_hours
        self.writes += other.writes
        self.bytes += other.bytes
        self.events += other.events
        self.faults += other.faults
