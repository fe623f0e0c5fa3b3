"""`PresenceClient` and `RealtimeClient` for a host that owns the loop: a game, Tk, curses, `select`.

    client = PresenceClient(identity, config)
    client.connect()
    while running:
        client.step()
        for event in client.events():
            ...

Nothing here waits: commands return at once, and `step` does what can be done now. Call it as often as you
like, once a frame for example; or only when it is due: when `fileno()` can be read, or written if
`wants_write`, and after `next_delay()` seconds at the latest. Look at these three again after every step and
every command, for sockets come and go: `fileno()` changes with each of them, and is -1 when there is none.
It never changes from one socket to another one of the same number.

Connecting, heartbeats, timeouts and coming back after a loss go on by themselves, as long as `step` is
called. Names are looked up in a thread that lives for as long as that takes.

Events wait in a queue of `max_queued_events`, and of 64 MiB as received. When nobody reads them and it fills
up, the oldest are dropped and `EventsDropped` stands in their place: read the roster again then.

All this is for one thread. An exception of the core, which is a bug, comes out of `step` and ends the client.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from attrs import frozen

import presence_proto as core
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
from presence_adapters.socket_clients import (
    Core,
    Event,
    PendingReply,
    SocketChannel,
    SocketClient,
    SocketPresenceClient,
    SocketRealtimeClient,
)
from presence_adapters.socket_link import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from presence_adapters.routing import Route

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
    """What both clients have for the loop that drives them."""

    _how_to_start = "call `connect()` first, or use `with`"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits: list[_Limit] = []

    @property
    def is_closed(self) -> bool:
        """Whether it has ended, and nothing is open any more: there is nothing left to step for."""
        return self._driver.is_quiet

    def connect(self) -> None:
        """Start to connect, and stay connected until `disconnect`. Entering a `with` block does it, too."""
        self._begin()

    def step(self, budget: int = CHUNK) -> None:
        """Do what can be done now, reading `budget` bytes at most. Before `connect` that is nothing.

        A message that takes several steps to come in is handled as a whole in the last of them.
        """
        if self._process is None:
            return
        self._check()
        self._driver.step(budget)
        self._enforce_limits()

    def fileno(self) -> int:
        """What to wait for, or -1."""
        return self._driver.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether to wait for room to write, too."""
        return self._driver.wants_write

    def next_delay(self) -> float | None:
        """Seconds until `step` is due though nothing comes in, 0 when it has work; `None`: it is not due."""
        limits = [limit.at for limit in self._limits if not limit.answer.done()]
        if not limits:
            return self._driver.next_delay()
        left, delay = max(0.0, min(limits) - time.monotonic()), self._driver.next_delay()
        return left if delay is None else min(left, delay)

    def events(self) -> Iterator[Event | EventsDropped]:
        """What has happened and was not read yet. Ends when there is no more now.

        Raises `LocalProtocolError` before `connect`, and `ConnectError` after the last event of a client that
        the server has refused for good.
        """
        self._check()
        return _read(self._events)

    def wait_connected(self, timeout: float | None = None) -> Reply:
        """A `Reply` that is done when `is_connected`.

        Its error is a `WaitTimeoutError`, a `TimeoutError` that says what kept it, when `timeout` seconds
        have passed; the client goes on trying then. It is a `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        connected = self._connected()

        def abort(seconds: float) -> Exception:
            self._monitor.abort(connected)
            return WaitTimeoutError(f"not connected within {seconds:g} s", self._monitor.trouble)

        return self._limited(connected, timeout, abort)

    def _limited(
        self, answer: PendingReply, timeout: float | None, abort: Callable[[float], Exception]
    ) -> Reply:
        """The `Reply` for an answer. After `timeout` seconds its error is what `abort` returns."""
        if timeout is not None:
            self._limits.append(_Limit(time.monotonic() + timeout, answer, lambda: abort(timeout)))
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
        self._limits = waiting

    def disconnect(self) -> None:
        """Begin to say goodbye, if that was not done before. Go on with `step` until `is_closed`."""
        self._check_process()
        self._goodbye()

    def close(self) -> None:
        """Say goodbye without waiting for an answer, and close at once. The last events can still be read."""
        if self._is_forked:
            return  # the connection is the parent's
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
        """Do what can be done now, reading `budget` bytes at most. Before `connect` that is nothing.

        With an `on_notification` the events go there. It may use commands.
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
        """Join a topic. Whether the server lets us in, `channel.joining` tells. Joining it again gives the
        same `Channel`.

        `params`: a `ChannelConfig` for Supabase, the join's payload for plain Phoenix. Lost connections, late
        answers and refusals that will pass are waited out until `leave`. A topic that the server refuses is
        left, and one that is not joined within `timeout` seconds, with a `JoinTimeoutError` that says what
        kept it.
        """
        checked_timeout(timeout)
        joined = PendingReply()
        route = self._join(topic, params, joined)

        def abort(seconds: float) -> Exception:
            trouble = route.trouble or self._monitor.trouble
            self._routes.leave(route)
            return JoinTimeoutError(topic, seconds, trouble)

        if route.channel is None:
            route.channel = Channel(self, route, params, self._limited(joined, timeout, abort))
        assert isinstance(route.channel, Channel)
        return route.channel


class Reply:
    """The server's answer, when it is there."""

    def __init__(self, answer: PendingReply) -> None:
        self._answer = answer

    def __repr__(self) -> str:
        return f"<Reply, {'done' if self.done else 'not done'}>"

    @property
    def done(self) -> bool:
        """Whether there is an answer, or it is clear that none will come."""
        return self._answer.done()

    @property
    def error(self) -> Exception | None:
        """Why it failed: a `PushError`, `JoinError` or `ConnectError`. `None`: it did not, or is not done."""
        return self._answer.error

    def result(self) -> Any:
        """The server's response. Raises `error`; and `LocalProtocolError` while it is not done."""
        if not self.done:
            raise core.LocalProtocolError("there is no answer yet")
        return self._answer.result()


class Channel(SocketChannel):
    __doc__ = SocketChannel.__doc__

    _client: RealtimeClient

    def __init__(
        self,
        client: RealtimeClient,
        route: Route[EventQueue[core.RealtimeEvent]],
        params: Mapping[str, Any] | core.ChannelConfig | None,
        joining: Reply,
    ) -> None:
        super().__init__(client, route, params)
        self.joining = joining  #: The answer to the first join.
        #: Who is present, live; as it last was after the channel is left.
        self.presence = self._presence

    def push(self, event: str, payload: Any = None, timeout: float | None = None) -> Reply:
        """Push an event with a JSON payload or `bytes`. Its `Reply` gets the server's response.

        It gets a `PushError` when the status is not `"ok"`, or no answer came within `timeout` seconds
        (default: the config's `push_timeout`), which include waiting for a channel that is down.
        A crash of the channel and the end of the connection fail it at once.
        """
        return Reply(self._push(event, payload, timeout))

    def broadcast(self, event: str, payload: Any = None) -> Reply:
        """Broadcast an event to the others in a Supabase channel.

        The `Reply` is done at once, unless the channel was joined with `broadcast_ack`.
        """
        return Reply(self._broadcast(event, payload))

    def events(self) -> Iterator[core.RealtimeEvent | EventsDropped]:
        """What has happened in the channel and was not read yet. Ends when there is no more now.

        Raises `ConnectError` after the last event of a client that the server has refused for good.
        """
        return _read(self._route.queue)

    def wait_synced(self, timeout: float | None = None) -> Reply:
        """A `Reply` that is done when `is_synced`: `presence` has everybody.

        Its error is a `PresenceError` when the server does not send the presence of this topic, a
        `WaitTimeoutError` when `timeout` seconds have passed, a `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        client, synced = self._client, self._synced()

        def abort(seconds: float) -> Exception:
            client._routes.abort(self._route, synced)
            return WaitTimeoutError(
                f"{self.topic!r} not synced within {seconds:g} s", client._monitor.trouble
            )

        return client._limited(synced, timeout, abort)

    def leave(self) -> None:
        """Leave. The client forgets the channel; doing it twice is no error."""
        self._client._routes.leave(self._route)


refuse(Channel, "use `for event in channel.events()`", "for", "async for")


@frozen
class _Limit:
    """An answer that is given up at a time of the monotonic clock."""

    at: float
    answer: PendingReply
    abort: Callable[[], Exception]


def _read(queue: EventQueue[Event]) -> Iterator[Event | EventsDropped]:
    while (event := queue.get()) is not None:
        yield event
    if isinstance(queue.error, ConnectError):  # a bug comes out of `step`
        queue.end()
