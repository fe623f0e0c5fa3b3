"""What is fuzzed: one module each, with `check(data)`, the oracle, and `inputs()`, the seeds.

`check` is an ordinary function: tests and replays need no fuzzer.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

NAMES = (
    "websocket_client",
    "websocket_server",
    "serializer",
    "presence",
    "jarvis_client",
    "hub",
    "client",
)

ON_BYTES = NAMES[:2]
"""Those where the bytes are the matter, and not what is said in them."""


def load(name: str) -> ModuleType:
    """The module of a target."""
    return import_module(f"fuzz.targets.{name}")
