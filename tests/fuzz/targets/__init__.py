"""What is fuzzed: one module each, with `check(data)`, the oracle, and `inputs()`, the seeds.

`check` is an ordinary function: tests and replays need no fuzzer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from zlib import crc32

from stack_depth import at_stack_depth, stack_depth

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


STACK = 400
"""Frames left to an input that runs deep in the stack. The oracle and our own code need that many."""


def load(name: str) -> ModuleType:
    """The module of a target."""
    return import_module(f"fuzz.targets.{name}")


def check(name: str) -> Callable[[bytes], None]:
    """The `check` of a target, each input at a stack depth of its own: one in eight with little stack left.

    The core must not depend on the depth. The depth follows from the input, so a replay has the same one.
    """
    return partial(_at_its_depth, load(name))


def _at_its_depth(target: ModuleType, data: bytes) -> None:
    deep = crc32(data) % 8 == 0
    frames = sys.getrecursionlimit() - STACK - stack_depth() if deep else 0
    at_stack_depth(frames, partial(target.check, data))
