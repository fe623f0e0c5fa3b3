"""The adapters' clients have the getters that the core's clients have."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import presence_adapters.asyncio
import presence_adapters.blocking
import presence_adapters.stepped
import presence_adapters.trio
import presence_proto as core

ADAPTERS: list[Any] = [
    presence_adapters.asyncio,
    presence_adapters.blocking,
    presence_adapters.stepped,
    presence_adapters.trio,
]

# Getters of the core's `RealtimeClient` that take a topic, and their names on the adapters' `Channel`.
OF_CHANNELS = {"state_of": "is_joined", "presence": "presence", "is_synced": "is_synced"}


def getters(cls: type) -> set[str]:
    """Properties, and methods that are not told the time: only those change something."""
    found = set()
    for name, value in inspect.getmembers(cls):
        if name.startswith("_"):
            continue
        if isinstance(value, property) or (
            inspect.isfunction(value) and "now" not in inspect.signature(value).parameters
        ):
            found.add(name)
    return found - {"drain", "next_deadline", "redacted", "bytes_received"}  # which are for drivers


def has(cls: type, name: str) -> bool:
    """Whether instances have it: some are made in `__init__`."""
    return hasattr(cls, name) or f"self.{name} =" in "".join(
        inspect.getsource(base) for base in cls.__mro__ if base.__module__.startswith("presence_adapters")
    )


@pytest.mark.parametrize("client", ["PresenceClient", "RealtimeClient"])
def test_every_adapter_shows_the_same_parameters(client: str) -> None:
    (parameters,) = {str(inspect.signature(getattr(adapter, client))) for adapter in ADAPTERS}
    assert "max_queued_events: 'int' = 10000" in parameters


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_presence_clients_have_every_getter_of_the_core(adapter: Any) -> None:
    expected = getters(core.PresenceClient)
    assert {"status", "activity", "is_closed", "latency", "user", "pending_commands"} <= expected
    assert {name for name in expected if not has(adapter.PresenceClient, name)} == set()


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_realtime_clients_and_channels_have_every_getter_of_the_core(adapter: Any) -> None:
    expected = getters(core.RealtimeClient)
    assert expected >= {"channels", "latency", "is_closed", *OF_CHANNELS}
    missing = {name for name in expected - OF_CHANNELS.keys() if not has(adapter.RealtimeClient, name)}
    assert missing == set()
    assert {name for name in OF_CHANNELS.values() if not has(adapter.Channel, name)} == set()
