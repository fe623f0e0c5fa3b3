"""What a piece of work costs, by measures that a busy machine does not change."""

from __future__ import annotations

import cProfile
import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def calls(work: Callable[[], Any]) -> int:
    """How many functions were called, those in C included, but for the fuzzer's own."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(entry.callcount for entry in profile.getstats() if "atheris" not in str(entry.code))


def kept(work: Callable[[], Any]) -> tuple[int, int]:
    """Bytes of memory: the most that were in use at a time, and those that the result of `work` keeps."""
    gc.collect()
    tracemalloc.start()
    try:
        result = work()
        gc.collect()
        current, peak = tracemalloc.get_traced_memory()
        del result
    finally:
        tracemalloc.stop()
    return peak, current
