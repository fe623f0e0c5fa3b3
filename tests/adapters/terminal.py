"""A program in a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Terminal:
    """Runs `command` while it is entered; it is killed at the end if it still runs. `size`: columns, rows."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], size: tuple[int, int]) -> None:
        self.output = ""
        self._raw = b""
        self._mark = 0
        self._command = command
        self._env = env
        self._size = size
        self._status: int | None = None

    def __enter__(self) -> Self:
        columns, rows = self._size
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execve(self._command[0], [*self._command], dict(self._env))
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._fd)

    def read_until(self, *words: str, seconds: float = 15.0) -> None:
        """Read until all of these have come, in any order, after what the last call has waited for."""
        deadline = time.monotonic() + seconds
        while missing := [one for one in words if one not in self.output[self._mark :]]:
            assert time.monotonic() < deadline, f"no {missing} in {self.output[self._mark :]!r}"
            assert self._read(), f"it ended without {missing}: {self.output[self._mark :]!r}"
        self._mark = max(self.output.index(one, self._mark) + len(one) for one in words)

    def press(self, keys: str) -> None:
        """Press some keys."""
        os.write(self._fd, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self._pid, signal.SIGWINCH)

    def kill(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self._pid, number)

    def wait(self, seconds: float = 10.0) -> int:
        """Wait for the end. Returns the exit status."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, f"it does not end: {self.output[-500:]!r}"
        self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status

    def _read(self) -> bool:
        """Take what comes in the next moment. `False`: it has ended."""
        if select.select([self._fd], [], [], 0.05)[0]:
            try:
                chunk = os.read(self._fd, 65536)
            except OSError:  # so the end looks on Linux
                return False
            self._raw += chunk
            self.output = self._raw.decode(errors="replace")
            return bool(chunk)
        return True
