"""`DaemonCall`: calls a function that may block or hang in a separate thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from presence_proto import PresenceError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class DaemonCall(Generic[T]):
    """One call of `function` in a daemon thread named `name`. The thread calls `on_end` at the end.

    A thread pool is not used, because a program waits for the threads of a pool before exiting.
    """

    def __init__(
        self, name: str, function: Callable[[], T], on_end: Callable[[], object] = lambda: None
    ) -> None:
        self.is_over = False
        self._function = function
        self._on_end = on_end
        self._result: T
        self._error: Exception | None = None
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError:
            self._error, self.is_over = PresenceError("the system cannot start another thread"), True
            on_end()

    def result(self) -> T:
        """Return the result of the function, or raise the function's exception. Legal only if `is_over`."""
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._function()
        except Exception as exc:
            self._error = exc
        self.is_over = True
        self._on_end()
