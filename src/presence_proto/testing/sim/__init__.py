"""`SimWorld`: a hub and its clients in virtual time, on unreliable networks, checked at every step."""

from __future__ import annotations

from presence_proto.testing.sim.faults import SimFaults
from presence_proto.testing.sim.hosts import ClientHost
from presence_proto.testing.sim.laws import SimViolation
from presence_proto.testing.sim.links import LinkQuality
from presence_proto.testing.sim.stage import SimLog, SimStats
from presence_proto.testing.sim.world import SimWorld, play_seed

__all__ = [
    "ClientHost",
    "LinkQuality",
    "SimFaults",
    "SimLog",
    "SimStats",
    "SimViolation",
    "SimWorld",
    "play_seed",
]
