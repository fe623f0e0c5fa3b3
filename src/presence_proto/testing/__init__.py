"""Tools for testing what is built on this package. Unlike the rest of `presence_proto`, some do I/O."""

from __future__ import annotations

from presence_proto.testing.contract import Contract, ContractError
from presence_proto.testing.driver_check import DUTIES, Driver, DutyError, check_driver
from presence_proto.testing.faults import Faults
from presence_proto.testing.faulty_hub import FaultyHub
from presence_proto.testing.folds import PresenceFold, RealtimeFold
from presence_proto.testing.in_memory_pair import InMemoryPair
from presence_proto.testing.model_server import Device, ModelServer
from presence_proto.testing.scripted_clients import ScriptedClient, ScriptedClients
from presence_proto.testing.scripted_jarvis import ScriptedJarvisServer
from presence_proto.testing.scripted_server import ScriptedServer
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
    "DUTIES",
    "ClientHost",
    "Contract",
    "ContractError",
    "Device",
    "Driver",
    "DutyError",
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
    "check_driver",
    "play",
    "play_seed",
]
