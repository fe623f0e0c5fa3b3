"""`PresenceClient` and `RealtimeClient` for plain threads, without an event loop.

    with PresenceClient(identity, config) as client:
        for event in client.events():
            ...

Entering starts to connect and returns at once; leaving says goodbye, or closes at once when it is because of
Ctrl-C.

**Something happens only while somebody waits**: in `events`, `run`, `join`, `push`, `leave` or `disconnect`,
whichever of them and in whichever thread. A program with other things to do for longer than a heartbeat says
`drive_in_background()` first; otherwise the server takes us for gone.

Everything may be called from any thread. A command is carried out at once, in the thread that calls it; with
`close` or `disconnect` all the others stop waiting. Several threads that read the same events share them.
Signal handlers are not threads: have them raise something, as the one of Ctrl-C does.

Events wait in a queue of `max_queued_events`, and of 64 MiB as received. When a slow consumer lets it fill
up, the oldest are dropped and `EventsDropped` stands in their place: read the roster again then.
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
from presence_adapters.socket_clients import (
    Core,
    Event,
    PendingReply,
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
# A `SocketDriver` that waits, for any number of threads.


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
    """What both clients share: their life, their commands and their event stream."""

    _make_driver: ClassVar[type[SocketDriver]] = BlockingDriver
    _driver: BlockingDriver
    _background: threading.Thread | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the client has ended, after `disconnect` or a final refusal. It does not start again."""
        return self._driver.ended

    def events(self, timeout: float | None = None) -> Iterator[Event | EventsDropped]:
        """The events as they come. Ends when none has come for `timeout` seconds (0: when there is none now),
        and for good when the client has ended and everything was read.

        Raises `ConnectError` at the end, if the server has refused us for good, and when the end was read
        before.
        """
        self._check()
        if self._events.is_finished:
            raise self._monitor.ended()
        return _read(self._driver, self._events, timeout)

    def __iter__(self) -> Iterator[Event | EventsDropped]:
        return self.events()

    def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until `is_connected`, for `timeout` seconds at most (`None`: as long as it takes).

        Raises `WaitTimeoutError`, a `TimeoutError` that says what kept it, after which the client goes on
        trying; and `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        self._check()
        with self._driver.lock:
            connected = self._connected()
        try:
            if not self._driver.wait(connected.done, timeout):
                raise WaitTimeoutError(f"not connected within {timeout:g} s", self._monitor.trouble)
            connected.result()
        finally:
            with self._driver.lock:
                self._monitor.abort(connected)

    def drive_in_background(self) -> None:
        """Have a thread of its own for whatever there is to do, until the client has ended."""
        if not self._driver.is_running:
            raise core.LocalProtocolError("the client is not running: enter it with `with`")
        if self._background is None:
            thread = threading.Thread(
                target=self._driver.wait, args=(lambda: self._driver.is_quiet,), name="presence", daemon=True
            )
            thread.start()
            self._background = thread  # now that it can be joined: Ctrl-C may have come before

    def disconnect(self) -> None:
        """Say goodbye and wait until the connection is closed; the config's `close_timeout` bounds that."""
        self._check_process()
        with self._driver.lock:
            self._goodbye()
        self._driver.wait(lambda: self._driver.is_quiet)

    def close(self) -> None:
        """Say goodbye without waiting for an answer, and close at once. The last events can still be read."""
        if self._is_forked:
            return  # the connection is the parent's
        with self._driver.lock:
            self._goodbye()
            self._driver.stop()

    def __enter__(self) -> Self:
        if (loop := _running_loop()) is not None:
            # Not a warning of `warnings`: under -W error it would end programs that work, if badly.
            logger.warning(
                "the blocking client was entered where %s runs, which stands still while the client waits:"
                " use presence_adapters.%s",
                loop,
                loop,
                stacklevel=2,
            )
        self._recording.open()
        with self._driver.lock:
            self._driver.start()
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_forked:
            return  # the connection is the parent's, and so are the threads that would be waited for
        try:
            # Ctrl-C wants out at once; any other end of the body leaves time for a goodbye.
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
            raise bug  # nobody has read the events up to here
        logger.error("the client has failed", exc_info=bug)

    def _make_room(self) -> None:
        self._driver.wait(lambda: self._driver.is_writable or self._driver.ended)


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
        """Everybody in the room, ourselves included, as of now: ahead of the events that are still queued."""
        with self._driver.lock:
            return self._core.online_users

    @property
    def pending_commands(self) -> frozenset[int]:
        """The ids of the commands that the server has neither acknowledged nor refused yet."""
        with self._driver.lock:
            return self._core.pending_commands

    def run(self) -> None:
        """Drive the client until it ends, and tell `on_notification` of every event.

        Enters the client, unless that was done before.
        """
        with nullcontext() if self._driver.is_running else self:
            for event in self.events():
                self._notify(event)


class RealtimeClient(_Blocking[core.RealtimeClient, core.RealtimeEvent], SocketRealtimeClient):
    __doc__ = SocketRealtimeClient.__doc__

    @property
    def channels(self) -> tuple[str, ...]:
        """The topics that were joined and not left, oldest first."""
        with self._driver.lock:
            return self._core.channels

    def join(
        self,
        topic: str,
        params: Mapping[str, Any] | core.ChannelConfig | None = None,
        timeout: float | None = None,
    ) -> Channel:
        """Join a topic and wait until the server has let us in. Joining it again gives the same `Channel`.

        `params`: a `ChannelConfig` for Supabase, the join's payload for plain Phoenix. Lost connections, late
        answers and refusals that will pass are waited out. Raises `JoinError` when the server refuses;
        `JoinTimeoutError`, a `TimeoutError` that says what kept it, when `timeout` seconds have passed;
        `ConnectError` when the client ends. Then the topic is left again.
        """
        checked_timeout(timeout)
        joined = PendingReply()
        route = self._join(topic, params, joined)
        try:
            if not self._driver.wait(joined.done, timeout):
                assert timeout is not None
                raise JoinTimeoutError(topic, timeout, route.trouble or self._monitor.trouble)
            joined.result()
        except BaseException:
            with self._driver.lock:
                self._routes.abort(route, joined)
            raise
        with self._driver.lock:
            if route.channel is None:
                route.channel = Channel(self, route, params)
        assert isinstance(route.channel, Channel)
        return route.channel


class Channel(SocketChannel):
    __doc__ = SocketChannel.__doc__

    _client: RealtimeClient

    @property
    def presence(self) -> dict[str, tuple[Meta, ...]]:
        """Who is present: the metas of every key, as of now; as it last was after the channel is left."""
        with self._client._driver.lock:
            return dict(self._presence)

    def push(self, event: str, payload: Any = None, timeout: float | None = None) -> Any:
        """Push an event with a JSON payload or `bytes`, and return the server's response.

        Raises `PushError` when the status is not `"ok"`, or no answer came within `timeout` seconds (default:
        the config's `push_timeout`), which include waiting for a channel that is down.
        A crash of the channel and the end of the connection fail it at once.
        """
        return self._wait(self._push(event, payload, timeout))

    def broadcast(self, event: str, payload: Any = None) -> None:
        """Broadcast an event to the others in a Supabase channel.

        Waits for the server's word only when the channel was joined with `broadcast_ack`, and raises
        `PushError` then.
        """
        self._wait(self._broadcast(event, payload))

    def wait_synced(self, timeout: float | None = None) -> None:
        """Wait until `is_synced`: `presence` has everybody. `timeout`: seconds; `None`: as long as it takes.

        Raises `PresenceError` when the server does not send the presence of this topic, `WaitTimeoutError`
        when the time is up, `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        client = self._client
        client._check()
        with client._driver.lock:
            synced = self._synced()
        try:
            if not client._driver.wait(synced.done, timeout):
                text = f"{self.topic!r} not synced within {timeout:g} s"
                raise WaitTimeoutError(text, client._monitor.trouble)
            synced.result()
        finally:
            with client._driver.lock:
                client._routes.abort(self._route, synced)

    def leave(self) -> None:
        """Leave, and wait until it is done. The client forgets the channel; doing it twice is no error."""
        self._client._check()
        left = PendingReply()
        with self._client._driver.lock:
            self._client._routes.leave(self._route, left)
        self._wait(left)

    def events(self, timeout: float | None = None) -> Iterator[core.RealtimeEvent | EventsDropped]:
        """The channel's events as they come. Ends when none has come for `timeout` seconds (0: when there is
        none now), and for good when the channel is left or the client has ended, and everything was read;
        after a final refusal with a `ConnectError`.
        """
        self._client._check()
        if self._route.queue.is_finished:
            raise left_already(self.topic) if self._route.leaving else self._client._monitor.ended()
        return _read(self._client._driver, self._route.queue, timeout)

    def __iter__(self) -> Iterator[core.RealtimeEvent | EventsDropped]:
        return self.events()

    def _wait(self, answer: PendingReply) -> Any:
        self._client._driver.wait(answer.done)
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
    """The library whose event loop runs in this thread. What is not imported does not run."""
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
