"""Test tools without I/O for code built on this package. `presence_adapters.testing` has tools with I/O."""

from __future__ import annotations

from presence_proto.testing.contract import Contract, ContractError, PresenceFold, RealtimeFold
from presence_proto.testing.faulty_hub import Faults, FaultyHub
from presence_proto.testing.in_memory_pair import InMemoryPair
from presence_proto.testing.model_server import Device, ModelServer
from presence_proto.testing.scripted_clients import ScriptedClient, ScriptedClients
from presence_proto.testing.scripted_servers import ScriptedJarvisServer, ScriptedServer
from presence_proto.testing.server_script import play
from presence_proto.testing.sim import (
    ClientHost,
    LinkQuality,
    SimFaults,
    SimLog,
    SimStats,
    SimViolation,
    SimWorld,
    play_seed,
)

__all__ = [
    "ClientHost",
    "Contract",
    "ContractError",
    "Device",
    "Faults",
    "FaultyHub",
    "InMemoryPair",
    "LinkQuality",
    "ModelServer",
    "PresenceFold",
    "RealtimeFold",
    "ScriptedClient",
    "ScriptedClients",
    "ScriptedJarvisServer",
    "ScriptedServer",
    "SimFaults",
    "SimLog",
    "SimStats",
    "SimViolation",
    "SimWorld",
    "play",
    "play_seed",
]
