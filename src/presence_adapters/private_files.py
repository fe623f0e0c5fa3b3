"""Reading small files that people write: settings and secrets."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MAX_SIZE = 1024 * 1024
"""Bytes. What is larger is no such file."""


def read_private(path: Path) -> tuple[bytes, os.stat_result]:
    """What is in a file, and who may do what with it. Raises `OSError`."""
    with open(path, "rb") as file:
        content = file.read(MAX_SIZE + 1)
        status = os.fstat(file.fileno())
    if len(content) > MAX_SIZE:
        raise OSError(None, f"it is larger than {MAX_SIZE} bytes")
    return content, status


def why_unreadable(error: OSError) -> str:
    """The fault, without the path."""
    text = os.strerror(error.errno) if error.errno else str(error.strerror or error)
    return text[:1].lower() + text[1:]


def readable_by_others(status: os.stat_result) -> bool:
    """Whether the group or everybody may read a file, where there are such permissions."""
    return os.name == "posix" and bool(status.st_mode & (stat.S_IRGRP | stat.S_IROTH))


def writable_by_others(status: os.stat_result) -> bool:
    """Whether the group or everybody may write to a file, where there are such permissions."""
    return os.name == "posix" and bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
