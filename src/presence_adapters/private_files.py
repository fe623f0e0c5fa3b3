"""Reading small files that people write: settings and secrets."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from presence_adapters.error_words import os_error_words

if TYPE_CHECKING:
    from pathlib import Path

MAX_SIZE = 1024 * 1024
"""Bytes. What is larger is no such file."""


class FileTooLargeError(OSError):
    """The file cannot be one of ours."""


class NotAFileError(OSError):
    """The path is something else than a file, and reading it could wait for ever."""


def read_private(path: Path, *, pipes: bool = False) -> tuple[bytes, os.stat_result]:
    """What is in a file, and who may do what with it. Raises `OSError`.

    With `pipes` it may be a pipe, too, as the shell's `<(command)` is one.
    """
    with open(path, "rb", opener=_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            if not pipes:
                raise NotAFileError("it is not a regular file")
            if os.name == "posix":
                os.set_blocking(file.fileno(), True)
        content = file.read(MAX_SIZE + 1)
    if len(content) > MAX_SIZE:
        raise FileTooLargeError(f"it is larger than {MAX_SIZE} bytes")
    return content, status


def _at_once(path: str, flags: int) -> int:
    """Open a FIFO without waiting for somebody to write to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def why_unreadable(error: OSError) -> str:
    """The fault, without the path."""
    return str(error) if isinstance(error, (FileTooLargeError, NotAFileError)) else os_error_words(error)


def readable_by_others(status: os.stat_result) -> bool:
    """Whether the group or everybody may read a file, where there are such permissions."""
    return os.name == "posix" and bool(status.st_mode & (stat.S_IRGRP | stat.S_IROTH))


def writable_by_others(status: os.stat_result) -> bool:
    """Whether the group or everybody may write to a file, where there are such permissions."""
    return os.name == "posix" and bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def changeable_by_others(status: os.stat_result) -> bool:
    """Whether somebody else than we and root may change a file, where there are such permissions."""
    return writable_by_others(status) or (os.name == "posix" and status.st_uid not in (0, os.geteuid()))
