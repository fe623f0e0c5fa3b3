"""A `SocketDriver` that waits, for any number of threads."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from presence_adapters.socket_connect import Selector
from presence_adapters.socket_driver import SocketDriver
from presence_proto import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

LONGEST_SLEEP = 3600.0
"""Seconds. After this a thread looks up and goes on waiting: selectors cannot wait for ever longer."""


class BlockingDriver(SocketDriver):
    """One of the threads that `wait` drives, and sleeps in a selector; the others sleep until it tells them.

    `lock` guards everything but that sleep. Who changes something under it, wakes the sleeper. It is never
    given back and taken again by hand, since Ctrl-C may come in between.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Not the condition itself: its `with` is Python, and Ctrl-C may come in the middle of that.
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)  # who drives, or whether anybody does
        self._driven_by: int | None = None  # a thread
        self._alarm: tuple[socket.socket, socket.socket] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is between `start` and `release`."""
        return self._alarm is not None

    def start(self) -> None:
        """Get ready to wait."""
        if self._alarm is not None or self.ended:
            raise LocalProtocolError("a client can be entered only once: create a new one")
        self._alarm = socket.socketpair()
        for end in self._alarm:
            end.setblocking(False)

    def release(self) -> None:
        """After the end: wait until no thread sleeps here any more."""
        with self.lock:
            self.wake()
            self._changed.wait_for(lambda: not self._is_driven)
            for end in self._alarm or ():
                end.close()
            self._alarm = None

    def call(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the core, from any thread. What it raises is the caller's."""
        with self.lock:
            try:
                return super().call(command, *args, **kwargs)
            finally:
                self.wake()

    def stop(self) -> None:
        """Close what is open at once, from any thread."""
        with self.lock:
            try:
                super().stop()
            finally:
                self.wake()

    def wake(self) -> None:
        """Have the sleeper look again. Under the lock."""
        if self._driven_by is not None and self._alarm is not None:
            with suppress(BlockingIOError):  # it was woken often enough
                self._alarm[1].send(b"\0")

    def wait(self, is_over: Callable[[], bool], timeout: float | None = None) -> bool:
        """Drive until `is_over`, or sleep while another thread does. `False`: `timeout` seconds have passed.

        `is_over` is called under the lock, and not again once it was true. A bug of the core ends everything;
        it is told to `on_end`, not raised here.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                with self.lock:
                    if is_over():
                        return True
                    if self._alarm is None:
                        raise LocalProtocolError("the client is not running: enter it with `with`")
                    if self._is_driven:
                        left = _left(deadline)
                        if left <= 0:
                            return False
                        self._changed.wait(left)
                        continue
                    self._driven_by = threading.get_ident()
                    with suppress(Exception):
                        self.step()
                    if is_over():
                        return True
                    left = _left(deadline)
                    if left <= 0:
                        return False
                    delay, fd, wants_write = self.next_delay(), self.fileno(), self.wants_write
                _sleep(self._alarm[0], fd, wants_write, left if delay is None else min(delay, left))
            finally:
                if self._driven_by == threading.get_ident():
                    with self.lock:
                        self._driven_by = None
                        self._changed.notify_all()

    @property
    def _is_driven(self) -> bool:
        """Whether another thread drives. That it is this one is what Ctrl-C may have left behind."""
        return self._driven_by not in (None, threading.get_ident())


def _sleep(alarm: socket.socket, fd: int, wants_write: bool, seconds: float) -> None:
    with Selector() as selector:
        selector.register(alarm, selectors.EVENT_READ)
        if fd >= 0:
            selector.register(fd, selectors.EVENT_READ | (selectors.EVENT_WRITE if wants_write else 0))
        selector.select(seconds)
    with suppress(BlockingIOError):
        alarm.recv(4096)


def _left(deadline: float | None) -> float:
    return LONGEST_SLEEP if deadline is None else min(deadline - time.monotonic(), LONGEST_SLEEP)
