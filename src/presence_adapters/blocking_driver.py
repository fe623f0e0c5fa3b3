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

    `lock` guards everything but that sleep. Who changes something under it, wakes the sleeper.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lock = threading.Condition()
        self._is_driven = False
        self._alarm: tuple[socket.socket, socket.socket] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is between `start` and `release`."""
        return self._alarm is not None

    def start(self) -> None:
        """Get ready to wait."""
        if self._alarm is not None or self.ended:
            raise LocalProtocolError("this can be entered only once: make a new one")
        self._alarm = socket.socketpair()
        for end in self._alarm:
            end.setblocking(False)

    def release(self) -> None:
        """After the end: wait until no thread sleeps here any more."""
        with self.lock:
            self.wake()
            self.lock.wait_for(lambda: not self._is_driven)
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
        if self._is_driven and self._alarm is not None:
            with suppress(BlockingIOError):  # it was woken often enough
                self._alarm[1].send(b"\0")

    def wait(self, is_over: Callable[[], bool], timeout: float | None = None) -> bool:
        """Drive until `is_over`, or sleep while another thread does. `False`: `timeout` seconds have passed.

        `is_over` is called under the lock, and not again once it was true. A bug of the core ends everything;
        it is told to `on_end`, not raised here.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.lock:
            while not is_over():
                if self._alarm is None:
                    raise LocalProtocolError("this is not running: use `with`")
                if self._is_driven:
                    left = _left(deadline)
                    if left <= 0:
                        return False
                    self.lock.wait(left)
                    continue
                try:
                    self._is_driven = True
                    with suppress(Exception):
                        self.step()
                    if is_over():
                        return True
                    left = _left(deadline)
                    if left <= 0:
                        return False
                    self._sleep(self._alarm[0], left)
                finally:
                    self._is_driven = False
                    self.lock.notify_all()
        return True

    def _sleep(self, alarm: socket.socket, seconds: float) -> None:
        delay, fd, wants_write = self.next_delay(), self.fileno(), self.wants_write
        self.lock.release()
        try:
            with Selector() as selector:
                selector.register(alarm, selectors.EVENT_READ)
                if fd >= 0:
                    wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if wants_write else 0)
                    selector.register(fd, wanted)
                selector.select(seconds if delay is None else min(delay, seconds))
        finally:
            self.lock.acquire()
        with suppress(BlockingIOError):
            alarm.recv(4096)


def _left(deadline: float | None) -> float:
    return LONGEST_SLEEP if deadline is None else min(deadline - time.monotonic(), LONGEST_SLEEP)
