"""Stateful machines for Hypothesis: random programs against a real client or hub, and a plain model.

    class TestMine(PresenceClientMachine.TestCase):
        settings = settings(max_examples=200)

Subclass one to try your own client, hub or application: override `make_client` or `make_hub`, add rules and
invariants. A program that fails is shrunk, and printed as the calls that make it happen.
"""

from __future__ import annotations

from presence_proto.testing.hypothesis_extra import hypothesis  # noqa: F401  # before what needs it
from presence_proto.testing.machines.client import ClientMachine, PresenceClientMachine
from presence_proto.testing.machines.hub import HubMachine

__all__ = ["ClientMachine", "HubMachine", "PresenceClientMachine"]
