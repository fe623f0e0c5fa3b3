"""Common part of the clients of `presence_adapters.asyncio` and `presence_adapters.trio`.

    async with PresenceClient(identity, config) as client:
        async for event in client:
            ...

Entering the `async with` block starts to connect and returns at once. Leaving the block disconnects
gracefully. After a cancellation it closes the connection at once. In between, the client connects, sends
heartbeats, enforces timeouts and reconnects by itself, even if the application reads no events.

The event queue holds at most `max_queued_events` events, and at most 64 MiB of received data. When a slow
consumer lets it fill up, the oldest events are dropped and `EventsDropped` takes their place. Read the roster
again then. Two consumers of the same events share them: each event goes to one consumer.

A command is delayed while the transport's write buffer is over its limit. A command that is cancelled during
this delay has no effect.
"""

from __future__ import annotations

import logging
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from attrs import evolve

import presence_proto as core
from presence_adapters.access_tokens import with_token
from presence_adapters.connecting import find_proxy
from presence_adapters.connection_monitor import ConnectionMonitor
from presence_adapters.errors import JoinTimeoutError, WaitTimeoutError, checked_timeout, left_already, refuse
from presence_adapters.event_queue import CHUNK, EventQueue, EventsDropped, ReadMeter
from presence_adapters.notifications import logged, notification, who_and_where
from presence_adapters.recording import Recording
from presence_adapters.room_view import RoomView
from presence_adapters.routing import Route, Routes
from presence_adapters.wall_clock import utc_now

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from types import TracebackType

    from presence_adapters.access_tokens import TokenProvider
    from presence_adapters.async_driver import AsyncDriver, Event
    from presence_adapters.notifications import OnNotification
    from presence_adapters.recording import Record


T = TypeVar("T")
E = TypeVar("E")
Core = TypeVar("Core", bound=core.PresenceClient | core.RealtimeClient)

logger = logging.getLogger(__name__)


class AsyncQueue(EventQueue[E]):
    """An event queue that is an asynchronous iterator, for the async library of `driver_type`.

    `check` raises an exception where waiting is not possible, for example in another loop.
    """

    def __init__(
        self,
        limit: int,
        driver_type: type[AsyncDriver[Any]],
        check: Callable[[], object],
        meter: ReadMeter | None = None,
    ) -> None:
        super().__init__(limit, self._wake_up, meter)
        self._check = check
        self._event_type = driver_type.event_type
        self._checkpoints = driver_type.checkpoints
        self._news = self._event_type()

    def put(self, event: E) -> None:
        """Add an event."""
        events = self._events
        if len(events) < self._limit and self.meter.bytes <= CHUNK:  # nearly always
            events.append(event)
            if len(events) == 1:  # otherwise the consumer was woken by an earlier event
                self._news.set()
        else:
            super().put(event)

    def _wake_up(self) -> None:
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E | EventsDropped:
        """Return the next event. After the last event, raise the client's error or `StopAsyncIteration`."""
        if self._events and not (self._dropped or self._heavy or self._checkpoints):  # nearly always
            return self._events.popleft()
        if not self._news.is_set():
            self._check()
            await self._news.wait()
        elif self._checkpoints:
            await self._news.wait()
        while (event := self.get()) is None:
            if self.closed:
                self.end()
                raise StopAsyncIteration
            if self._news.is_set():  # otherwise another consumer has replaced it: wait for the same event
                self._news = self._event_type()
            self._check()
            await self._news.wait()
        return event


class Runner(Generic[Core]):
    """A core and its asynchronous driver. A client and its channels use it to run commands."""

    def __init__(self, endpoint: Core, driver: AsyncDriver[Any], monitor: ConnectionMonitor) -> None:
        self.core = endpoint
        self.driver = driver
        self.monitor = monitor

    async def command(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the core when the transport takes more data. Raises as `check_running` does."""
        self.driver.check()
        await self.driver.writable()
        self.check_running()
        return self.driver.call(command, *args, **kwargs)

    def check_running(self) -> None:
        """Raise `LocalProtocolError` before the start and in another process or loop.

        Raise `ConnectError` after the end.
        """
        self.driver.check()
        if self.driver.ended.is_set():
            raise self.monitor.ended()

    def reply(self) -> AwaitedReply:
        """Return a new pending reply, to be awaited on the loop of the driver."""
        return AwaitedReply(self.driver.event_type())


class AsyncClient(Generic[Core, E]):
    """Common part of the two asynchronous clients: start and end, commands, event stream."""

    _driver_type: ClassVar[type[AsyncDriver[Any]]]

    def __init__(
        self,
        endpoint: Core,
        events: AsyncQueue[E],
        on_event: Callable[[E], None],
        on_end: Callable[[Exception | None], None],
        config: core.RealtimeConfig,
        ssl_context: ssl.SSLContext | None,
        proxy: str | None,
        access_token: TokenProvider | str | None,
        recording: Recording,
    ) -> None:
        self._core = endpoint
        self._events = events
        self._recording = recording
        self._monitor = ConnectionMonitor(config.address().authority)
        self._driver = self._driver_type(
            endpoint,
            on_event,
            recording.until(on_end),
            ssl_context=ssl_context,
            proxy=find_proxy(proxy, config),
            provider=access_token if callable(access_token) else None,
            patience=config.access_token_timeout,
            linger=config.close_timeout,
            monitor=self._monitor,
            meter=events.meter,
        )
        self._runner = Runner(endpoint, self._driver, self._monitor)

    @property
    def is_connected(self) -> bool:
        """Whether the client is connected, in this process."""
        return self._core.is_connected and not self._driver.is_forked

    @property
    def is_closed(self) -> bool:
        """Whether the client has ended, after `disconnect` or a final refusal. It cannot be restarted."""
        return self._driver.ended.is_set()

    @property
    def latency(self) -> float | None:
        """Round-trip time of the latest heartbeat, in seconds; `None` before the first heartbeat."""
        return self._core.latency

    async def set_access_token(self, token: str | None) -> None:
        """Replace the access token: at once in every joined channel, in later joins and in the next URL."""
        await self._runner.command(self._core.set_access_token, token)

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until `is_connected`, for at most `timeout` seconds (`None`: no limit).

        Raises `WaitTimeoutError` after `timeout` seconds. Its `reason` says why there is no connection. The
        client goes on trying after that. Raises `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        self._runner.check_running()
        connected = self._runner.reply()
        if self.is_connected:
            connected.set_result(None)
        else:
            self._monitor.wait(connected)
        try:
            await self._driver.within(timeout, connected.wait)
        except TimeoutError:
            raise WaitTimeoutError(f"not connected within {timeout:g} s", self._monitor.trouble) from None
        finally:
            self._monitor.abort(connected)

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
            # A cancellation must end the block at once. Any other end leaves time to disconnect gracefully.
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
            raise bug  # no consumer has read the events up to the bug
        logger.error("the client has failed", exc_info=bug)

    def __aiter__(self) -> AsyncIterator[E | EventsDropped]:
        self._driver.check()
        if self._events.is_finished:
            raise self._monitor.ended()
        return self._events

    def __anext__(self) -> Awaitable[E | EventsDropped]:
        return self._events.__anext__()


refuse(AsyncClient, "use `async with` and `async for`, or presence_adapters.blocking", "with", "for")


class AwaitedReply:
    """`Waiter` of `routing` for one reply, which one task awaits."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._result: Any = None
        self._error: Exception | None = None

    def done(self) -> bool:
        """Whether the reply, or an exception in its place, has arrived."""
        return self._event.is_set()

    def set_result(self, result: Any) -> None:
        """Finish with this result."""
        self._result = result
        self._event.set()

    def set_exception(self, exception: Exception) -> None:
        """Finish with this exception, which `wait` raises."""
        self._error = exception
        self._event.set()

    async def wait(self) -> Any:
        """Wait for the reply and return it. Raises the exception that came in its place."""
        await self._event.wait()
        if self._error is not None:
            raise self._error
        return self._result


# --------------------------------------------------------------------------------------------- async presence
# The `PresenceClient` of asyncio and trio, without its driver.


class AsyncPresenceClient(RoomView, AsyncClient[core.PresenceClient, core.PresenceEvent]):
    """Client of one presence room: who is online and what they are doing.

    Create it from an `Identity` and a `PresenceConfig`, or from the keywords of both:
    `PresenceClient(server_url=…, user_id=…, display_name=…)`.

    - `ssl_context`: a TLS context in place of the default one, which verifies certificates.
    - `proxy`: the URL of a proxy, or `""` for none. The default is read from the environment (`https_proxy`,
      `http_proxy`, `all_proxy`, `no_proxy`).
    - `access_token`: a token, or a plain or `async` function that returns a token. The function is called
      before connects and joins, and before the last token expires.
    - `rng`: random numbers for the backoff jitter.
    - `online_at`: the time that others see as the start of the presence; default: now.
    - `record`: a path or text file for a recording that `presence replay` reads.

    Iterating over the client yields `PresenceEvent`s and `EventsDropped`. The iteration ends after
    `disconnect` or a fatal `Error`, when all queued events were read.

    Commands return an id, which `CommandFailed` repeats if the command fails. They raise `LocalProtocolError`
    when they are not legal, and `ConnectError` when the client has ended.

    To get events by callback instead, set `on_notification` and `await run()`, without `async with`. The
    callback is a plain or `async` function of the event type and the data of an event; see `notifications`.
    """

    def __init__(
        self,
        identity: core.Identity | None = None,
        config: core.PresenceConfig | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        access_token: TokenProvider | str | None = None,
        max_queued_events: int = 10_000,
        rng: random.Random | None = None,
        online_at: str | None = None,
        record: Record | None = None,
        **settings: Any,
    ) -> None:
        identity, config = who_and_where(identity, config, settings)
        if access_token is not None:
            identity = evolve(identity, access_token=None)
        config = with_token(config, access_token)
        recording = Recording(record)
        endpoint = recording.presence_client(identity, config, rng, online_at)
        events: AsyncQueue[core.PresenceEvent] = AsyncQueue(
            max_queued_events, self._driver_type, lambda: self._driver.check()
        )
        super().__init__(
            endpoint,
            events,
            events.put,
            events.close,
            config,
            ssl_context,
            proxy,
            access_token,
            recording,
        )
        self.on_notification: OnNotification | None = None

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
        """Show this status and activity to others, now and after every reconnect."""
        return await self._runner.command(self._core.update_activity, status, activity)

    async def send_invite(self, game: str, code: str | None = None) -> int:
        """Invite all users in the room to a game."""
        return await self._runner.command(self._core.send_invite, game, code)

    async def send_poke(self, user_id: str) -> int:
        """Poke a user."""
        return await self._runner.command(self._core.send_poke, user_id)

    async def send_chat(self, channel: str, content: str, reply_to: str | None = None) -> int:
        """Send a message to a chat channel of the room."""
        return await self._runner.command(
            self._core.send_chat, channel, content, reply_to, timestamp=utc_now()
        )


# --------------------------------------------------------------------------------------------- async realtime
# The `RealtimeClient` of asyncio and trio, without its driver, and the `Channel` class of its channels.


class AsyncRealtimeClient(AsyncClient[core.RealtimeClient, core.RealtimeEvent]):
    """Client of many Phoenix or Supabase channels on one connection.

    Iterating over the client yields the events without a channel (`SocketConnected`, `SocketDisconnected`,
    `AccessTokenFailed`, `ProtocolViolation`) and `EventsDropped`. Each `Channel` has its own events, in its
    own queue of `max_queued_events`. All iterations end after `disconnect` or a fatal refusal. For the
    parameters see `PresenceClient`.
    """

    def __init__(
        self,
        config: core.RealtimeConfig,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        access_token: TokenProvider | str | None = None,
        max_queued_events: int = 10_000,
        rng: random.Random | None = None,
        record: Record | None = None,
    ) -> None:
        config = with_token(config, access_token)
        recording = Recording(record)
        endpoint = recording.realtime_client(config, rng)
        meter = ReadMeter()  # shared by all channels, because they share the connection
        self._routes: Routes[AsyncQueue[core.RealtimeEvent]] = Routes(
            lambda: AsyncQueue(max_queued_events, self._driver_type, lambda: self._driver.check(), meter),
            lambda topic: self._driver.call(endpoint.leave, topic),
            lambda: self._monitor.refusal,
        )
        routes = self._routes
        super().__init__(
            endpoint,
            routes.stream,
            routes.handle,
            routes.end,
            config,
            ssl_context,
            proxy,
            access_token,
            recording,
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """Topics that were joined and not left, oldest first."""
        return self._core.channels

    async def join(
        self,
        topic: str,
        params: Mapping[str, Any] | core.ChannelConfig | None = None,
        timeout: float | None = None,
    ) -> Channel:
        """Join a topic and wait until the server accepts. A second call returns the same `Channel`.

        `params`: a `ChannelConfig` for Supabase, the join payload for plain Phoenix. The call waits through
        lost connections, late replies and temporary refusals. Raises `JoinError` when the server refuses for
        good, `JoinTimeoutError` after `timeout` seconds, and `ConnectError` when the client ends. After an
        exception or a cancellation the client leaves the topic.
        """
        checked_timeout(timeout)
        joined = self._runner.reply()
        route: Route[AsyncQueue[core.RealtimeEvent]] | None = None

        def join(*, now: float) -> Route[AsyncQueue[core.RealtimeEvent]]:
            self._core.join(topic, params, now=now)
            return self._routes.join(topic, joined)

        async def joining() -> Route[AsyncQueue[core.RealtimeEvent]]:
            nonlocal route
            route = await self._runner.command(join)
            await joined.wait()
            return route

        try:
            route = await self._driver.within(timeout, joining)
        except BaseException as exc:
            trouble = self._monitor.trouble
            if route is not None:
                trouble = route.trouble or trouble
                self._routes.abort(route, joined)
            if timeout is not None and isinstance(exc, TimeoutError):
                raise JoinTimeoutError(topic, timeout, trouble) from None
            raise
        if route.channel is None:
            acked = isinstance(params, core.ChannelConfig) and params.broadcast_ack
            route.channel = Channel(self._runner, self._routes, route, acked=acked)
        assert isinstance(route.channel, Channel)
        return route.channel


class Channel:
    """Channel of one topic, created by `RealtimeClient.join`. It is rejoined after every loss until `leave`.

    Iterating over the channel yields all events of the topic except replies to pushes: `Broadcast`,
    `ChannelMessage`, `PresenceSynced`, `PresenceDiffed`, `ChannelDown`, `ChannelJoined` after a rejoin, and
    others, and also `EventsDropped`. The iteration ends after `leave` and when the client ends.
    """

    def __init__(
        self,
        runner: Runner[core.RealtimeClient],
        routes: Routes[AsyncQueue[core.RealtimeEvent]],
        route: Route[AsyncQueue[core.RealtimeEvent]],
        *,
        acked: bool,
    ) -> None:
        self.topic = route.topic  #: The topic of the channel.
        #: The current presence: the metas of every key. After `leave` it keeps its last state.
        self.presence = runner.core.presence(route.topic)
        self._runner = runner
        self._routes = routes
        self._route = route
        self._acked = acked

    def __repr__(self) -> str:
        return f"<Channel {self.topic!r}, {'joined' if self.is_joined else 'not joined'}>"

    @property
    def is_joined(self) -> bool:
        """Whether the channel is joined now. After a loss the client rejoins by itself."""
        return not self._route.leaving and self._runner.core.state_of(self.topic) is core.ChannelState.JOINED

    @property
    def is_synced(self) -> bool:
        """Whether `presence` matches the server's current state. `False`: it is stale or not received yet."""
        return not self._route.leaving and self._runner.core.is_synced(self.topic)

    @property
    def response(self) -> Any:
        """The server's response to the latest join."""
        return self._route.response

    async def push(self, event: str, payload: Any = None, timeout: float | None = None) -> Any:
        """Push an event with a JSON payload or `bytes`, and return the response of the server.

        Raises `PushError` when the reply status is not `"ok"`, or when no reply arrives within `timeout`
        seconds (default: `push_timeout` of the config). That time includes the wait for a channel that is
        down. The push fails at once when the channel crashes or the connection ends.
        """
        return await self._push(self._runner.core.push, event, payload, timeout=timeout)

    async def broadcast(self, event: str, payload: Any = None) -> None:
        """Broadcast an event to the others in a Supabase channel.

        If the channel was joined with `broadcast_ack`, wait for the server's acknowledgement, and raise
        `PushError` when it fails.
        """
        if self._acked:
            await self._push(self._runner.core.broadcast, event, payload)
        else:
            await self._command(self._runner.core.broadcast, event, payload)

    async def track(self, meta: Mapping[str, Any]) -> None:
        """Add this payload to the presence of the channel, now and after every rejoin."""
        await self._command(self._runner.core.track, meta)

    async def untrack(self) -> None:
        """Remove the payload of this client from the presence of the channel."""
        await self._command(self._runner.core.untrack)

    async def wait_synced(self, timeout: float | None = None) -> None:
        """Wait until `presence` is complete (`is_synced`), for at most `timeout` seconds (`None`: no limit).

        Raises `PresenceError` when the server does not send the presence of this topic, `WaitTimeoutError`
        after `timeout` seconds, `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        self._runner.check_running()
        synced = self._runner.reply()
        if self.is_synced:
            synced.set_result(None)
        else:
            self._routes.await_sync(self._route, synced)
        try:
            await self._runner.driver.within(timeout, synced.wait)
        except TimeoutError:
            raise WaitTimeoutError(
                f"{self.topic!r} not synced within {timeout:g} s", self._runner.monitor.trouble
            ) from None
        finally:
            self._routes.abort(self._route, synced)

    async def leave(self) -> None:
        """Leave the topic and wait until it is left. A second call does nothing."""
        self._runner.driver.check()
        left = self._runner.reply()
        self._routes.leave(self._route, left)
        await left.wait()

    def __aiter__(self) -> Self:
        self._runner.driver.check()
        if self._route.queue.is_finished:
            raise left_already(self.topic) if self._route.leaving else self._runner.monitor.ended()
        return self

    def __anext__(self) -> Awaitable[core.RealtimeEvent | EventsDropped]:
        return self._route.queue.__anext__()

    async def _command(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        def checked(*, now: float) -> T:
            if self._route.leaving:
                raise left_already(self.topic)
            return command(self.topic, *args, now=now, **kwargs)

        return await self._runner.command(checked)

    async def _push(self, command: Callable[..., int], *args: Any, **kwargs: Any) -> Any:
        answer = self._runner.reply()

        def push(topic: str, *, now: float) -> None:
            self._routes.expect_reply(command(topic, *args, now=now, **kwargs), answer)

        await self._command(push)
        return await answer.wait()


refuse(Channel, "use `async for`", "for")
