"""Make an input that fails smaller: leave out what is not needed for it to fail in the same way."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Check: TypeAlias = Callable[[bytes], object]
Failure: TypeAlias = tuple[type[BaseException], str, str]


def failure(data: bytes, check: Check) -> Failure | None:
    """How an input fails: the exception, and the file and function that it comes from."""
    try:
        check(data)
    except Exception as exc:
        last = traceback.extract_tb(exc.__traceback__)[-1]
        return type(exc), Path(last.filename).name, last.name
    return None


def shrink(data: bytes, check: Check) -> bytes | None:
    """A small input that fails as `data` does; `None` when that does not fail."""
    wanted = failure(data, check)
    if wanted is None:
        return None
    size = len(data)
    while size:
        at = 0
        while at < len(data):
            candidate = data[:at] + data[at + size :]
            if failure(candidate, check) == wanted:
                data = candidate
            else:
                at += size
        size //= 2
    return data
