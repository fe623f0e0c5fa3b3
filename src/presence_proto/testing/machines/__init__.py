"""Hypothesis state machines that run random programs against a real client or hub and a simple model.

    class TestMine(PresenceClientMachine.TestCase):
        settings = settings(max_examples=200)

Subclass a machine to test your own client, hub or application: override `make_client` or `make_hub`, and add
rules and invariants. Hypothesis shrinks a failing program and prints the calls that reproduce the failure.
"""

from __future__ import annotations

from presence_proto.testing.hypothesis_extra import hypothesis  # noqa: F401  # first, for its clear error
from presence_proto.testing.machines.client import ClientMachine, PresenceClientMachine
from presence_proto.testing.machines.hub import HubMachine

__all__ = ["ClientMachine", "HubMachine", "PresenceClientMachine"]
