"""`SimWorld`: a hub and its clients in virtual time, on bad networks, judged at every step."""

from __future__ import annotations

from presence_proto.testing.sim.client_host import ClientHost
from presence_proto.testing.sim.faults import SimFaults
from presence_proto.testing.sim.link import LinkQuality
from presence_proto.testing.sim.log import SimLog
from presence_proto.testing.sim.play import play_seed
from presence_proto.testing.sim.stats import SimStats
from presence_proto.testing.sim.violation import SimViolation
from presence_proto.testing.sim.world import SimWorld

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
