"""Common part of the clients of `presence_adapters.asyncio` and `presence_adapters.trio`.

    async with PresenceClient(identity, config) as client:
        async for event in client:
            ...

Entering the `async with` block starts to connect and returns at once. Leaving the block disconnects
gracefully. A cancellation closes the connection at once. Inside the block, the client connects, sends
heartbeats, enforces timeouts and reconnects automatically, even if the application reads no events.

The event queue holds at most `max_queued_events` events, and at most 64 MiB of received data. When the
queue is full, the oldest events are dropped, and the consumer gets `EventsDropped` instead. After an
`EventsDropped`, read the roster again. If two consumers read the same queue, each event goes to one consumer.

A command is delayed while the transport's write buffer is over its limit. A command that is cancelled during
this delay has no effect.
"""

from __future__ import annotations

import logging
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import presence_proto as core
from presence_adapters.clients import AnyChannel, AnyClient, AnyPresenceClient, AnyRealtimeClient, Core
from presence_adapters.errors import JoinTimeoutError, WaitTimeoutError, checked_timeout, left_already, refuse
from presence_adapters.event_queue import EventQueue, EventsDropped, ReadMeter
from presence_adapters.notifications import logged, notification
from presence_adapters.routing import Route, Routes, Waiter
from presence_adapters.wall_clock import utc_now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from types import TracebackType

    from presence_adapters.access_tokens import TokenProvider
    from presence_adapters.async_driver import AsyncDriver
    from presence_proto.presence import PresenceMap

E = TypeVar("E")

logger = logging.getLogger(__name__)


class AsyncQueue(EventQueue[E]):
    """An event queue that is an asynchronous iterator, for the async library of `driver_type`.

    `check` is called before each wait. `check` raises an exception if the caller must not wait,
    for example because the caller runs in another loop.
    """

    def __init__(
        self, limit: int, meter: ReadMeter, driver_type: type[AsyncDriver[Any]], check: Callable[[], object]
    ) -> None:
        super().__init__(limit, meter)
        self._check = check
        self._event_type = driver_type.event_type
        self._checkpoints = driver_type.checkpoints
        self._expect_news()

    def _expect_news(self) -> None:
        self._news = self._event_type()
        self.wake = self._news.set

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E | EventsDropped:
        """Return the next event. After the last event, raise the client's error or `StopAsyncIteration`."""
        if not self._checkpoints and (event := self.get()) is not None:  # the usual case
            return event
        if not self._news.is_set():
            self._check()
            await self._news.wait()
        elif self._checkpoints:
            await self._news.wait()
        while (event := self.get()) is None:
            if self.closed:
                self.end()
                raise StopAsyncIteration
            if self._news.is_set():  # otherwise another consumer has replaced `_news`
                self._expect_news()
            self._check()
            await self._news.wait()
        return event


class AsyncWaiter(Waiter):
    """A `Waiter` that one task awaits, on the event loop of `driver`."""

    def __init__(self, driver: AsyncDriver[Any]) -> None:
        super().__init__()
        self._event = driver.event_type()

    def set_result(self, result: Any) -> None:
        super().set_result(result)
        self._event.set()

    def set_exception(self, exception: Exception) -> None:
        super().set_exception(exception)
        self._event.set()

    async def wait(self) -> Any:
        """Wait until a result or an exception is set. Return the result or raise the exception."""
        await self._event.wait()
        return self.result()


class AsyncClient(AnyClient[Core], Generic[Core, E]):
    """Common part of the two asynchronous clients: start and end, commands, event stream."""

    _driver_type: ClassVar[type[AsyncDriver[Any]]]
    _driver: AsyncDriver[Any]
    _events: AsyncQueue[E]

    def _make_queue(self, limit: int, meter: ReadMeter) -> AsyncQueue[Any]:
        return AsyncQueue(limit, meter, self._driver_type, lambda: self._driver.check())

    def _provider_options(
        self, access_token: TokenProvider | str | None, config: core.RealtimeConfig
    ) -> dict[str, Any]:
        provider = access_token if callable(access_token) else None
        return {"provider": provider, "patience": config.access_token_timeout}

    @property
    def is_closed(self) -> bool:
        """Whether the client has ended for good, after `disconnect` or a permanent refusal by the server."""
        return self._driver.ended.is_set()

    async def set_access_token(self, token: str | None) -> None:
        """Replace the access token in all joined channels now, and in later joins and connection URLs."""
        await self._driver.command(self._core.set_access_token, token)

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until `is_connected`, for at most `timeout` seconds (`None`: no limit).

        Raises `WaitTimeoutError` after `timeout` seconds, with the `reason` why there is no connection. After
        a timeout the client continues to connect. Raises `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        connected = self._until_connected(AsyncWaiter(self._driver))
        try:
            await self._driver.within(timeout, connected.wait)
        except TimeoutError:
            raise WaitTimeoutError(
                f"not connected within {timeout:g} s", self._driver.monitor.trouble
            ) from None
        finally:
            self._driver.monitor.abort(connected)

    async def disconnect(self) -> None:
        """Disconnect gracefully, and wait at most `close_timeout` seconds until the connection is closed."""
        self._driver.check()
        if not self._driver.ended.is_set():
            self._driver.call(self._core.disconnect)
        await self._driver.ended.wait()
        await self._driver.quiet()

    async def __aenter__(self) -> Self:
        self._recording.open()
        await self._driver.start()
        self._driver.call(self._core.connect)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._driver.is_forked:
            return  # the connection belongs to the parent process
        try:
            # A cancellation must end the `async with` block at once. Otherwise, disconnect gracefully.
            if error is None or isinstance(error, Exception):
                await self.disconnect()
            elif not self._driver.ended.is_set():
                self._driver.call(self._core.disconnect)
        finally:
            await self._driver.stop()
        bug = self._driver.error
        if bug is None or bug is error or self._events.was_told:
            return
        if error is None:
            raise bug  # no consumer has received this exception yet
        logger.error("the client has failed", exc_info=bug)

    def __aiter__(self) -> AsyncIterator[E | EventsDropped]:
        self._driver.check()
        if self._events.is_finished:
            raise self._driver.monitor.ended()
        return self._events

    def __anext__(self) -> Awaitable[E | EventsDropped]:
        return self._events.__anext__()


refuse(AsyncClient, "use `async with` and `async for`, or presence_adapters.blocking", "with", "for")


# --------------------------------------------------------------------------------------------- async presence
# The `PresenceClient` of asyncio and trio, without its driver.


class AsyncPresenceClient(AsyncClient[core.PresenceClient, core.PresenceEvent], AnyPresenceClient):
    """Client of a presence room, where users see who is online and what each user is doing.

    Create a client from an `Identity` and a `PresenceConfig`, or from the keywords of these two classes:
    `PresenceClient(server_url=…, user_id=…, display_name=…)`.

    - `ssl_context`: a TLS context to use instead of the default context, which verifies certificates.
    - `proxy`: the URL of a proxy, or `""` for a direct connection. The default proxy is read from the
      environment variables `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`.
    - `access_token`: a token, or a plain or `async` function that returns a token. The client calls
      the function before each connect and join, and before the current token expires.
    - `rng`: the random number generator for the jitter of reconnect delays.
    - `online_at`: the time that other users see as the start of this presence; default: the current time.
    - `record`: a path or text file for a recording of the client, which `presence replay` reads.

    Iterating over the client yields `PresenceEvent`s and `EventsDropped`. The iteration ends after
    `disconnect` or a fatal `Error`, when all queued events have been read.

    Each command returns an id, and a `CommandFailed` event with this id reports a failure. A command raises
    `LocalProtocolError` when the command is not legal, and `ConnectError` when the client has ended.

    To receive events in a callback, set `on_notification` and `await run()`, without `async with`. The
    callback is a plain or `async` function that takes an event type and event data; see `notifications`.
    """

    async def run(self) -> None:
        """Connect, and call `on_notification` for every event until `disconnect` or a fatal `Error`.

        The callback's exceptions are logged. Cancelling `run` closes the connection and ends the client.
        """
        async with self:
            async for event in self:
                event_type, data = notification(event)
                if self.on_notification is not None:
                    with logged(event_type):
                        result = self.on_notification(event_type, data)
                        if isawaitable(result):
                            await result

    async def update_activity(self, status: core.UserStatus, activity: str | None = None) -> int:
        """Show this status and activity to the other users, now and after every reconnect."""
        return await self._driver.command(self._core.update_activity, status, activity)

    async def send_invite(self, game: str, code: str | None = None) -> int:
        """Invite all users in the room to a game."""
        return await self._driver.command(self._core.send_invite, game, code)

    async def send_poke(self, user_id: str) -> int:
        """Send a poke to the user with this id."""
        return await self._driver.command(self._core.send_poke, user_id)

    async def send_chat(self, channel: str, content: str, reply_to: str | None = None) -> int:
        """Send a message to a chat channel of the room."""
        return await self._driver.command(
            self._core.send_chat, channel, content, reply_to, timestamp=utc_now()
        )


# --------------------------------------------------------------------------------------------- async realtime
# The `RealtimeClient` of asyncio and trio, without its driver, and the `Channel` class of its channels.


class AsyncRealtimeClient(AsyncClient[core.RealtimeClient, core.RealtimeEvent], AnyRealtimeClient):
    """Client of many Phoenix or Supabase channels on one connection.

    Iterating over the client yields the events that belong to no channel (`SocketConnected`,
    `SocketDisconnected`, `AccessTokenFailed`, `ProtocolViolation`) and `EventsDropped`. Each `Channel` has
    its own queue of at most `max_queued_events` events. All iterations end after `disconnect` or a permanent
    refusal by the server. `PresenceClient` describes the parameters.
    """

    _routes: Routes[AsyncQueue[core.RealtimeEvent]]

    async def join(
        self,
        topic: str,
        params: Mapping[str, Any] | core.ChannelConfig | None = None,
        timeout: float | None = None,
    ) -> Channel:
        """Join a topic and wait until the server accepts the join. A second call returns the same `Channel`.

        `params`: a `ChannelConfig` for Supabase, the join payload for plain Phoenix. The call continues
        to wait after lost connections, late replies and temporary refusals. Raises `JoinError` on a permanent
        refusal, `JoinTimeoutError` after `timeout` seconds, and `ConnectError` when the client ends. After an
        exception or a cancellation the client leaves the topic.
        """
        checked_timeout(timeout)
        joined = AsyncWaiter(self._driver)
        route: Route[AsyncQueue[core.RealtimeEvent]] | None = None

        async def joining() -> None:
            nonlocal route
            route = await self._driver.command(self._joining(topic, params, joined))
            await joined.wait()

        try:
            await self._driver.within(timeout, joining)
        except BaseException as exc:
            trouble = self._driver.monitor.trouble
            if route is not None:
                trouble = route.trouble or trouble
                self._routes.abort(route, joined)
            if timeout is not None and isinstance(exc, TimeoutError):
                raise JoinTimeoutError(topic, timeout, trouble) from None
            raise
        assert route is not None
        if route.channel is None:
            route.channel = Channel(self._core, self._driver, self._routes, route, params)
        assert isinstance(route.channel, Channel)
        return route.channel


class Channel(AnyChannel):
    """Channel of one topic, created by `RealtimeClient.join`. The client rejoins lost channels until `leave`.

    Iterating over the channel yields all events of the topic except replies to pushes: `Broadcast`,
    `ChannelMessage`, `PresenceSynced`, `PresenceDiffed`, `ChannelDown`, `ChannelJoined` after a rejoin,
    other event classes, and `EventsDropped`. The iteration ends after `leave` and when the client ends.
    """

    _driver: AsyncDriver[Any]
    _route: Route[AsyncQueue[core.RealtimeEvent]]

    @property
    def presence(self) -> PresenceMap:
        """The current presence metas by key; after `leave`, the last known metas."""
        return self._presence

    async def push(self, event: str, payload: Any = None, timeout: float | None = None) -> Any:
        """Push an event with a JSON payload or `bytes`, and return the response of the server.

        Raises `PushError` when the reply status is not `"ok"`, or when no reply arrives within `timeout`
        seconds (default: `push_timeout` of the config). The timeout includes the time until a lost
        channel is rejoined. The push fails at once when the channel crashes or the connection ends.
        """
        return await self._push(self._core.push, event, payload, timeout=timeout)

    async def broadcast(self, event: str, payload: Any = None) -> None:
        """Broadcast an event to the other members of a Supabase channel.

        If the channel was joined with `broadcast_ack`, wait until the server acknowledges the broadcast.
        Raises `PushError` when the server does not acknowledge the broadcast.
        """
        if self._is_acked:
            await self._push(self._core.broadcast, event, payload)
        else:
            await self._driver.command(self._on_topic(self._core.broadcast, event, payload))

    async def track(self, meta: Mapping[str, Any]) -> None:
        """Add this payload to the presence of the channel, now and after every rejoin."""
        await self._driver.command(self._on_topic(self._core.track, meta))

    async def untrack(self) -> None:
        """Remove the payload of this client from the presence of the channel."""
        await self._driver.command(self._on_topic(self._core.untrack))

    async def wait_synced(self, timeout: float | None = None) -> None:
        """Wait until `presence` is complete (`is_synced`), for at most `timeout` seconds (`None`: no limit).

        Raises `PresenceError` when the server does not send the presence of this topic, `WaitTimeoutError`
        after `timeout` seconds, and `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        synced = self._until_synced(AsyncWaiter(self._driver))
        try:
            await self._driver.within(timeout, synced.wait)
        except TimeoutError:
            raise WaitTimeoutError(
                f"{self.topic!r} not synced within {timeout:g} s", self._driver.monitor.trouble
            ) from None
        finally:
            self._routes.abort(self._route, synced)

    async def leave(self) -> None:
        """Leave the topic and wait until the leave is complete. A second call does nothing."""
        self._driver.check()
        left = AsyncWaiter(self._driver)
        self._routes.leave(self._route, left)
        await left.wait()

    def __aiter__(self) -> Self:
        self._driver.check()
        if self._route.queue.is_finished:
            raise left_already(self.topic) if self._route.leaving else self._driver.monitor.ended()
        return self

    def __anext__(self) -> Awaitable[core.RealtimeEvent | EventsDropped]:
        return self._route.queue.__anext__()

    async def _push(self, push: Callable[..., int], *args: Any, **kwargs: Any) -> Any:
        answer = AsyncWaiter(self._driver)
        await self._driver.command(self._pushing(answer, push, *args, **kwargs))
        return await answer.wait()


refuse(Channel, "use `async for`", "for")
