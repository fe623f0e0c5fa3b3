"""`PresenceClient` and `RealtimeClient` for plain threads, without an event loop.

    with PresenceClient(identity, config) as client:
        for event in client.events():
            ...

Entering the `with` block starts to connect and returns at once. Leaving the block disconnects gracefully.
Ctrl-C closes the connection at once.

**The client does I/O only while a thread waits** in `events`, `run`, `join`, `push`, `leave` or `disconnect`.
One thread that waits in one of these methods is enough. A program that does other work for longer than a
heartbeat interval must call `drive_in_background()` first. Otherwise the server disconnects the client.

All methods may be called from any thread. A command runs at once, in the calling thread. `close` and
`disconnect` end the waits of all other threads. If several threads read the same queue, each event goes to
one of the threads. A signal handler must not call the client, but may raise an exception, as the handler of
Ctrl-C does.

The event queue holds at most `max_queued_events` events, and at most 64 MiB of received data. When the
queue is full, the oldest events are dropped, and the consumer gets `EventsDropped` instead. After an
`EventsDropped`, read the roster again.
"""

from __future__ import annotations

import logging
import selectors
import socket
import sys
import threading
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import presence_proto as core
from presence_adapters.clients import Core
from presence_adapters.errors import (
    ConnectError,
    JoinError,
    JoinTimeoutError,
    PushError,
    WaitTimeoutError,
    checked_timeout,
    left_already,
    refuse,
)
from presence_adapters.event_queue import EventQueue, EventsDropped
from presence_adapters.routing import Waiter
from presence_adapters.socket_clients import (
    Event,
    SocketChannel,
    SocketClient,
    SocketPresenceClient,
    SocketRealtimeClient,
)
from presence_adapters.socket_driver import SocketDriver
from presence_adapters.socket_link import Selector
from presence_proto import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from presence_proto.presence import Meta


# -------------------------------------------------------------------------------------------- blocking driver
# A `SocketDriver` for any number of waiting threads.


T = TypeVar("T")

LONGEST_SLEEP = 3600.0
"""Maximum duration of one sleep of a waiting thread, in seconds. Selectors limit their timeout."""


class BlockingDriver(SocketDriver):
    """`SocketDriver` for any number of threads that call `wait`.

    One of the waiting threads drives the core and sleeps in a selector. The other waiting threads
    sleep until the driving thread stops.

    `lock` is held for everything except the sleep in the selector. A thread that changes the state under
    `lock` wakes the driving thread. No code releases and reacquires `lock` by hand, because Ctrl-C may arrive
    between the two steps.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Not the `Condition`: entering a `Condition` runs Python code, which Ctrl-C can interrupt halfway.
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)  # notified when `_driven_by` changes
        self._driven_by: int | None = None  # id of the driving thread
        self._alarm: tuple[socket.socket, socket.socket] | None = None  # a byte wakes the driving thread

    @property
    def is_running(self) -> bool:
        """Whether `start` was called and `release` was not called yet."""
        return self._alarm is not None

    how_to_start = "enter it with `with`"

    def start(self) -> None:
        """Prepare the driver for `wait`. Raises `LocalProtocolError` on a second start."""
        if self._alarm is not None or self.ended:
            raise LocalProtocolError("a client can be entered only once: create a new one")
        super().start()
        self._alarm = socket.socketpair()
        for end in self._alarm:
            end.setblocking(False)

    def release(self) -> None:
        """Free the resources after the end of the client. First wait until no thread drives the client."""
        with self.lock:
            self.wake()
            self._changed.wait_for(lambda: not self._is_driven)
            for end in self._alarm or ():
                end.close()
            self._alarm = None

    def call(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the core, from any thread. Raises the exceptions of the command."""
        with self.lock:
            try:
                return super().call(command, *args, **kwargs)
            finally:
                self.wake()

    def stop(self) -> None:
        """Close the connection at once, from any thread."""
        with self.lock:
            try:
                super().stop()
            finally:
                self.wake()

    def wake(self) -> None:
        """Wake the driving thread, so that this thread checks for changes. The caller holds `lock`."""
        if self._driven_by is not None and self._alarm is not None:
            with suppress(BlockingIOError):  # the buffer is full of unread wake-ups, and one is enough
                self._alarm[1].send(b"\0")

    def wait(self, is_over: Callable[[], bool], timeout: float | None = None) -> bool:
        """Drive the core until `is_over()`, or sleep while another thread drives the core.

        Return `True` when `is_over()` is true, or `False` after `timeout` seconds. `is_over` is called under
        `lock`, and never again after a true result. An exception in the core is a bug and ends the client.
        The exception is passed to `on_end`, and is not raised by `wait`.
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

    def make_room(self) -> None:
        """Wait until at most `MAX_UNSENT` bytes are unsent, or until the client has ended."""
        self.wait(lambda: self.is_writable or self.ended)

    @property
    def _is_driven(self) -> bool:
        # Ignore the id of the current thread: a `wait` that Ctrl-C interrupted may have left the id behind.
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


# --------------------------------------------------------------------------------------------------- blocking


__all__ = [
    "Channel",
    "ConnectError",
    "EventsDropped",
    "JoinError",
    "JoinTimeoutError",
    "PresenceClient",
    "PushError",
    "RealtimeClient",
    "WaitTimeoutError",
]

logger = logging.getLogger(__name__)


class _Blocking(SocketClient[Core, Event]):
    """Common part of the two blocking clients: start and end, commands, event stream."""

    _driver_type: ClassVar[type[SocketDriver]] = BlockingDriver
    _driver: BlockingDriver
    _background: threading.Thread | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the client has ended for good, after `disconnect` or a permanent refusal by the server."""
        return self._driver.ended

    def events(self, timeout: float | None = None) -> Iterator[Event | EventsDropped]:
        """Yield each event on arrival.

        The iteration ends when no event has arrived for `timeout` seconds (0: when the queue is empty).
        The iteration also ends when the client has ended and all events have been read.

        Raises `ConnectError` after the last event if the server has refused the client permanently. Also
        raises `ConnectError` if an earlier iteration has already read all events of a client that has ended.
        """
        self._driver.check()
        if self._events.is_finished:
            raise self._driver.monitor.ended()
        return _read(self._driver, self._events, timeout)

    def __iter__(self) -> Iterator[Event | EventsDropped]:
        return self.events()

    def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until `is_connected`, for at most `timeout` seconds (`None`: no limit).

        Raises `WaitTimeoutError` after `timeout` seconds, with the `reason` why there is no connection. After
        a timeout the client continues to connect. Raises `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        self._driver.check()
        with self._driver.lock:
            connected = self._until_connected(Waiter())
        try:
            if not self._driver.wait(connected.done, timeout):
                raise WaitTimeoutError(f"not connected within {timeout:g} s", self._driver.monitor.trouble)
            connected.result()
        finally:
            with self._driver.lock:
                self._driver.monitor.abort(connected)

    def drive_in_background(self) -> None:
        """Start a thread that drives the client until the client has ended."""
        if not self._driver.is_running:
            raise core.LocalProtocolError("the client is not running: enter it with `with`")
        if self._background is None:
            thread = threading.Thread(
                target=self._driver.wait, args=(lambda: self._driver.is_quiet,), name="presence", daemon=True
            )
            thread.start()
            # Not before `start`: after a Ctrl-C in between, `__exit__` would join an unstarted thread.
            self._background = thread

    def disconnect(self) -> None:
        """Disconnect gracefully, and wait at most `close_timeout` seconds until the connection is closed."""
        self._driver.check_process()
        with self._driver.lock:
            self._goodbye()
        self._driver.wait(lambda: self._driver.is_quiet)

    def close(self) -> None:
        """Disconnect and close the socket at once, without waiting. Queued events can still be read."""
        if self._driver.is_forked:
            return  # the connection belongs to the parent process
        with self._driver.lock:
            self._goodbye()
            self._driver.stop()

    def __enter__(self) -> Self:
        if (loop := _running_loop()) is not None:
            # Not `warnings.warn`: with `-W error` a warning would break programs that work, although slowly.
            logger.warning(
                "the blocking client was entered where %s runs, which stands still while the client waits:"
                " use presence_adapters.%s",
                loop,
                loop,
                stacklevel=2,
            )
        with self._driver.lock:
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._driver.is_forked:
            return  # the connection and the threads to wait for belong to the parent process
        try:
            # Ctrl-C must end the `with` block at once. Otherwise, disconnect gracefully.
            if error is None or isinstance(error, Exception):
                self.disconnect()
        finally:
            try:
                self.close()
            finally:
                self._driver.release()
                if self._background is not None:
                    self._background.join()
        bug = self._driver.error
        if not isinstance(bug, Exception) or bug is error or self._events.was_told:
            return
        if error is None:
            raise bug  # no consumer has received this exception yet
        logger.error("the client has failed", exc_info=bug)


refuse(
    _Blocking,
    "use `with` and `for`, or import it from presence_adapters.asyncio or .trio",
    "async with",
    "async for",
)


class PresenceClient(_Blocking[core.PresenceClient, core.PresenceEvent], SocketPresenceClient):
    __doc__ = SocketPresenceClient.__doc__

    @property
    def online_users(self) -> tuple[core.OnlineUser, ...]:
        """All users in the room, this client's user first. The list already reflects queued events."""
        with self._driver.lock:
            return self._core.online_users

    @property
    def pending_commands(self) -> frozenset[int]:
        """Ids of the commands that the server has not acknowledged or refused yet."""
        with self._driver.lock:
            return self._core.pending_commands

    def run(self) -> None:
        """Drive the client until the client ends, and call `on_notification` for every event.

        `run` also enters and exits the client, unless the caller has already entered the client.
        """
        with nullcontext() if self._driver.is_running else self:
            for event in self.events():
                self._notify(event)


class RealtimeClient(_Blocking[core.RealtimeClient, core.RealtimeEvent], SocketRealtimeClient):
    __doc__ = SocketRealtimeClient.__doc__

    @property
    def channels(self) -> tuple[str, ...]:
        """Topics that the client has joined and not left, oldest first."""
        with self._driver.lock:
            return self._core.channels

    def join(
        self,
        topic: str,
        params: Mapping[str, Any] | core.ChannelConfig | None = None,
        timeout: float | None = None,
    ) -> Channel:
        """Join a topic and wait until the server accepts the join. A second call returns the same `Channel`.

        `params`: a `ChannelConfig` for Supabase, the join payload for plain Phoenix. The call continues
        to wait after lost connections, late replies and temporary refusals. Raises `JoinError` on a permanent
        refusal, `JoinTimeoutError` after `timeout` seconds, and `ConnectError` when the client ends. After an
        exception the client leaves the topic.
        """
        checked_timeout(timeout)
        joined = Waiter()
        route = self._driver.command(self._joining(topic, params, joined))
        try:
            if not self._driver.wait(joined.done, timeout):
                assert timeout is not None
                raise JoinTimeoutError(topic, timeout, route.trouble or self._driver.monitor.trouble)
            joined.result()
        except BaseException:
            with self._driver.lock:
                self._routes.abort(route, joined)
            raise
        with self._driver.lock:
            if route.channel is None:
                route.channel = Channel(self._core, self._driver, self._routes, route, params)
        assert isinstance(route.channel, Channel)
        return route.channel


class Channel(SocketChannel):
    __doc__ = SocketChannel.__doc__

    _driver: BlockingDriver

    @property
    def presence(self) -> dict[str, tuple[Meta, ...]]:
        """The current presence metas by key; after `leave`, the last known metas."""
        with self._driver.lock:
            return dict(self._presence)

    def push(self, event: str, payload: Any = None, timeout: float | None = None) -> Any:
        """Push an event with a JSON payload or `bytes`, and return the response of the server.

        Raises `PushError` when the reply status is not `"ok"`, or when no reply arrives within `timeout`
        seconds (default: `push_timeout` of the config). The timeout includes the time until a lost
        channel is rejoined. The push fails at once when the channel crashes or the connection ends.
        """
        return self._wait(self._push(event, payload, timeout))

    def broadcast(self, event: str, payload: Any = None) -> None:
        """Broadcast an event to the other members of a Supabase channel.

        If the channel was joined with `broadcast_ack`, wait until the server acknowledges the broadcast.
        Raises `PushError` when the server does not acknowledge the broadcast.
        """
        self._wait(self._broadcast(event, payload))

    def wait_synced(self, timeout: float | None = None) -> None:
        """Wait until `presence` is complete (`is_synced`), for at most `timeout` seconds (`None`: no limit).

        Raises `PresenceError` when the server does not send the presence of this topic, `WaitTimeoutError`
        after `timeout` seconds, and `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        self._driver.check()
        with self._driver.lock:
            synced = self._until_synced(Waiter())
        try:
            if not self._driver.wait(synced.done, timeout):
                text = f"{self.topic!r} not synced within {timeout:g} s"
                raise WaitTimeoutError(text, self._driver.monitor.trouble)
            synced.result()
        finally:
            with self._driver.lock:
                self._routes.abort(self._route, synced)

    def leave(self) -> None:
        """Leave the topic and wait until the leave is complete. A second call does nothing."""
        self._driver.check()
        left = Waiter()
        with self._driver.lock:
            self._routes.leave(self._route, left)
        self._wait(left)

    def events(self, timeout: float | None = None) -> Iterator[core.RealtimeEvent | EventsDropped]:
        """Yield each event of the channel on arrival.

        The iteration ends when no event has arrived for `timeout` seconds (0: when the queue is empty).
        The iteration also ends when the channel was left or the client has ended, and all events have been
        read. Raises `ConnectError` after the last event if the server has refused the client permanently.
        """
        self._driver.check()
        if self._route.queue.is_finished:
            raise left_already(self.topic) if self._route.leaving else self._driver.monitor.ended()
        return _read(self._driver, self._route.queue, timeout)

    def __iter__(self) -> Iterator[core.RealtimeEvent | EventsDropped]:
        return self.events()

    def _wait(self, answer: Waiter) -> Any:
        self._driver.wait(answer.done)
        return answer.result()


refuse(Channel, "use `for`", "async for")


def _read(
    driver: BlockingDriver, queue: EventQueue[Event], timeout: float | None
) -> Iterator[Event | EventsDropped]:
    found: list[Event | EventsDropped] = []

    def is_over() -> bool:
        event = queue.get()
        if event is not None:
            found.append(event)
        return event is not None or queue.closed

    while driver.wait(is_over, timeout) and found:
        yield found.pop()
    if queue.closed and not len(queue):
        queue.end()


def _running_loop() -> str | None:
    # Import only a library that is loaded already: a library outside `sys.modules` cannot be running.
    if "asyncio" in sys.modules:
        import asyncio

        with suppress(RuntimeError):
            asyncio.get_running_loop()
            return "asyncio"
    if "trio" in sys.modules:
        import trio

        if trio.lowlevel.in_trio_run():
            return "trio"
    return None
