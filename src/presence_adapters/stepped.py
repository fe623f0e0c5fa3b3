"""`PresenceClient` and `RealtimeClient` for a program with its own loop: a game, Tk, curses, `select`.

    client = PresenceClient(identity, config)
    client.connect()
    while running:
        client.step()
        for event in client.events():
            ...

No method blocks: commands return at once, and `step` does the I/O that is possible now. Call `step` as often
as you like, for example once a frame. Or call `step` only when necessary: when `fileno()` is readable, when
`fileno()` is writable while `wants_write` is true, and after `next_delay()` seconds at the latest. Read
`fileno()`, `wants_write` and `next_delay()` again after every step and every command, because the socket may
have changed. `fileno()` is -1 when there is no socket. Two consecutive sockets never have the same file
descriptor.

As long as `step` is called, the client connects, sends heartbeats, enforces timeouts and reconnects
automatically. Host names are looked up in a temporary thread.

The event queue holds at most `max_queued_events` events, and at most 64 MiB of received data. When the
queue is full, the oldest events are dropped, and `events` yields `EventsDropped` instead. After an
`EventsDropped`, read the roster again.

Only one thread may use a client. An exception in the core is a bug: `step` raises the exception, and the
client ends.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

import presence_proto as core
from presence_adapters.clients import Core
from presence_adapters.errors import (
    ConnectError,
    JoinError,
    JoinTimeoutError,
    PushError,
    WaitTimeoutError,
    checked_timeout,
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
from presence_adapters.socket_link import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from presence_adapters.routing import Route, Routes
    from presence_adapters.socket_driver import SocketDriver
    from presence_proto.presence import PresenceMap


__all__ = [
    "Channel",
    "ConnectError",
    "EventsDropped",
    "JoinError",
    "JoinTimeoutError",
    "PresenceClient",
    "PushError",
    "RealtimeClient",
    "Reply",
    "WaitTimeoutError",
]


class _Stepped(SocketClient[Core, Event]):
    """Common part of the two stepped clients: the interface for the driving loop, and the event stream."""

    _limits: tuple[_Limit, ...] = ()

    @property
    def is_closed(self) -> bool:
        """Whether the client has ended and the socket is closed, so that `step` has no more work."""
        return self._driver.is_quiet

    def connect(self) -> None:
        """Start to connect, and stay connected until `disconnect`. A `with` block also calls `connect`."""
        self._begin()

    def step(self, budget: int = CHUNK) -> None:
        """Do the work that is possible now, and read at most `budget` bytes. Before `connect`, do nothing.

        A message that arrives during several steps is handled as a whole in the last of these steps.
        """
        if self._driver.process is None:
            return
        self._driver.check()
        self._driver.step(budget)
        self._enforce_limits()

    def fileno(self) -> int:
        """File descriptor to wait on, or -1 when there is no socket."""
        return self._driver.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether to wait until `fileno()` is writable as well as readable."""
        return self._driver.wants_write

    def next_delay(self) -> float | None:
        """Seconds until `step` is due even without activity on `fileno()`; 0: now; `None`: no deadline."""
        limits = [limit.at for limit in self._limits if not limit.answer.done()]
        if not limits:
            return self._driver.next_delay()
        left, delay = max(0.0, min(limits) - time.monotonic()), self._driver.next_delay()
        return left if delay is None else min(left, delay)

    def events(self) -> Iterator[Event | EventsDropped]:
        """Yield the queued events. The iteration ends when the queue is empty.

        Raises `LocalProtocolError` before `connect`. Raises `ConnectError` after the last event if the server
        has refused the client permanently.
        """
        self._driver.check()
        return _read(self._events)

    def wait_connected(self, timeout: float | None = None) -> Reply:
        """Return a `Reply` that is done when `is_connected`.

        After `timeout` seconds, the error of the `Reply` is a `WaitTimeoutError` with the reason, and the
        client continues to connect. If the client ends, the error is a `ConnectError`.
        """
        checked_timeout(timeout)
        connected = self._until_connected(Waiter())

        def abort(seconds: float) -> Exception:
            self._driver.monitor.abort(connected)
            return WaitTimeoutError(f"not connected within {seconds:g} s", self._driver.monitor.trouble)

        return self._limited(connected, timeout, abort)

    def _limited(self, answer: Waiter, timeout: float | None, abort: Callable[[float], Exception]) -> Reply:
        """Return the `Reply` for `answer`. After `timeout` seconds, `abort(timeout)` becomes the error."""
        if timeout is not None:
            limit = _Limit(time.monotonic() + timeout, answer, lambda: abort(timeout))
            self._limits = (*self._limits, limit)
        return Reply(answer)

    def _enforce_limits(self) -> None:
        if not self._limits:
            return
        now, waiting = time.monotonic(), []
        for limit in self._limits:
            if limit.answer.done():
                continue
            if limit.at <= now:
                limit.answer.set_exception(limit.abort())
            else:
                waiting.append(limit)
        self._limits = tuple(waiting)

    def disconnect(self) -> None:
        """Start to disconnect gracefully. Call `step` until `is_closed`. A second call does nothing."""
        self._driver.check_process()
        self._goodbye()

    def close(self) -> None:
        """Disconnect and close the socket at once, without waiting. Queued events can still be read."""
        if self._driver.is_forked:
            return  # the connection belongs to the parent process
        self._goodbye()
        self._driver.stop()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


refuse(_Stepped, "use `for event in client.events()` after each `step()`", "for")
refuse(
    _Stepped, "use `with`, or import it from presence_adapters.asyncio or .trio", "async with", "async for"
)


class PresenceClient(_Stepped[core.PresenceClient, core.PresenceEvent], SocketPresenceClient):
    __doc__ = SocketPresenceClient.__doc__

    def step(self, budget: int = CHUNK) -> None:
        """Do the work that is possible now, and read at most `budget` bytes. Before `connect`, do nothing.

        If `on_notification` is set, call it for every event. The callback may run commands.
        """
        super().step(budget)
        if self.on_notification is not None:
            while (event := self._events.get()) is not None:
                self._notify(event)


class RealtimeClient(_Stepped[core.RealtimeClient, core.RealtimeEvent], SocketRealtimeClient):
    __doc__ = SocketRealtimeClient.__doc__

    def join(
        self,
        topic: str,
        params: Mapping[str, Any] | core.ChannelConfig | None = None,
        timeout: float | None = None,
    ) -> Channel:
        """Join a topic. `channel.joining` is the server's reply. A second call returns the same `Channel`.

        `params`: a `ChannelConfig` for Supabase, the join payload for plain Phoenix. The join is retried
        after lost connections, late replies and temporary refusals. On a permanent refusal, the client leaves
        the topic, and the error is a `JoinError`. After `timeout` seconds without success, the client also
        leaves the topic, and the error is a `JoinTimeoutError`.
        """
        checked_timeout(timeout)
        joined = Waiter()
        route = self._driver.command(self._joining(topic, params, joined))

        def abort(seconds: float) -> Exception:
            trouble = route.trouble or self._driver.monitor.trouble
            self._routes.leave(route)
            return JoinTimeoutError(topic, seconds, trouble)

        if route.channel is None:
            reply = self._limited(joined, timeout, abort)
            route.channel = Channel(
                self._core, self._driver, self._routes, route, params, reply, self._limited
            )
        assert isinstance(route.channel, Channel)
        return route.channel


class Reply:
    """The result of a join, a push or a wait. The result may still be pending."""

    def __init__(self, answer: Waiter) -> None:
        self._answer = answer

    def __repr__(self) -> str:
        return f"<Reply, {'done' if self.done else 'not done'}>"

    @property
    def done(self) -> bool:
        """Whether the result or an error has arrived."""
        return self._answer.done()

    @property
    def error(self) -> Exception | None:
        """The exception, for example a `PushError` or `JoinError`; `None` after success and while pending."""
        return self._answer.error

    def result(self) -> Any:
        """Return the server's response. Raises `error` if set, and `LocalProtocolError` while not `done`."""
        if not self.done:
            raise core.LocalProtocolError("the reply has not arrived yet")
        return self._answer.result()


class Channel(SocketChannel):
    __doc__ = SocketChannel.__doc__

    def __init__(
        self,
        endpoint: core.RealtimeClient,
        driver: SocketDriver,
        routes: Routes[EventQueue[core.RealtimeEvent]],
        route: Route[EventQueue[core.RealtimeEvent]],
        params: Mapping[str, Any] | core.ChannelConfig | None,
        joining: Reply,
        limited: Callable[[Waiter, float | None, Callable[[float], Exception]], Reply],
    ) -> None:
        super().__init__(endpoint, driver, routes, route, params)
        self._limited = limited
        self.joining = joining  #: The `Reply` for the first join.

    @property
    def presence(self) -> PresenceMap:
        """The current presence metas by key; after `leave`, the last known metas."""
        return self._presence

    def push(self, event: str, payload: Any = None, timeout: float | None = None) -> Reply:
        """Push an event with a JSON payload or `bytes`. Return a `Reply` for the server's response.

        The error of the `Reply` is a `PushError` when the server's status is not `"ok"`, or when no reply
        arrives within `timeout` seconds (default: `push_timeout` of the config). The timeout includes the
        time until a lost channel is rejoined. The push fails at once when the channel crashes or the
        connection ends.
        """
        return Reply(self._push(event, payload, timeout))

    def broadcast(self, event: str, payload: Any = None) -> Reply:
        """Broadcast an event to the other members of a Supabase channel.

        Return a `Reply`. If the channel was joined with `broadcast_ack`, the `Reply` is done when the server
        acknowledges the broadcast. Otherwise the `Reply` is done at once.
        """
        return Reply(self._broadcast(event, payload))

    def events(self) -> Iterator[core.RealtimeEvent | EventsDropped]:
        """Yield the queued events of the channel. The iteration ends when the queue is empty.

        Raises `ConnectError` after the last event if the server has refused the client permanently.
        """
        return _read(self._route.queue)

    def wait_synced(self, timeout: float | None = None) -> Reply:
        """Return a `Reply` that is done when `presence` is complete (`is_synced`).

        The error of the `Reply` is a `PresenceError` when the server does not send the presence of this
        topic, a `WaitTimeoutError` after `timeout` seconds, or a `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        synced = self._until_synced(Waiter())

        def abort(seconds: float) -> Exception:
            self._routes.abort(self._route, synced)
            return WaitTimeoutError(
                f"{self.topic!r} not synced within {seconds:g} s", self._driver.monitor.trouble
            )

        return self._limited(synced, timeout, abort)

    def leave(self) -> None:
        """Leave the topic. A second call does nothing."""
        self._routes.leave(self._route)


refuse(Channel, "use `for event in channel.events()`", "for", "async for")


@frozen
class _Limit:
    """Deadline of a pending reply, by the monotonic clock."""

    at: float
    answer: Waiter
    abort: Callable[[], Exception]


def _read(queue: EventQueue[Event]) -> Iterator[Event | EventsDropped]:
    while (event := queue.get()) is not None:
        yield event
    if isinstance(queue.error, ConnectError):  # any other error is a bug, which `step` raises
        queue.end()
