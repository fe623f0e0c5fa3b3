"""Calls from far down in Python's stack."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def at_stack_depth(frames: int, call: Callable[[], Any]) -> Any:
    """The result of the call, made from so many frames further down."""
    return call() if frames <= 0 else at_stack_depth(frames - 1, call)


def stack_depth() -> int:
    """How many frames are above the caller's."""
    frame, depth = sys._getframe(1), 0
    while (back := frame.f_back) is not None:
        frame, depth = back, depth + 1
    return depth
