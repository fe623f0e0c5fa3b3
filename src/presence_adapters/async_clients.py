"""The clients of `presence_adapters.asyncio` and `presence_adapters.trio`: all of them but the driver.

    async with PresenceClient(identity, config) as client:
        async for event in client:
            ...

Entering starts to connect and returns at once; leaving disconnects in an orderly way, or at once when it is
cancelled. Connecting, heartbeats, timeouts and coming back after a loss go on by themselves, whether events
are read or not.

Events wait in a queue of `max_queued_events`. When a slow consumer lets it fill up, the oldest are dropped
and `EventsDropped` stands in their place: read the roster again then. Two consumers of one stream share its
events.

A command waits only while the transport's write buffer is over its limit. Cancelled there, it has not been
made.
"""

from __future__ import annotations

import logging
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from attrs import evolve

import presence_proto as core
from presence_adapters.access_tokens import with_token
from presence_adapters.errors import ConnectError
from presence_adapters.event_queue import EventQueue, EventsDropped
from presence_adapters.notifications import logged, notification, who_and_where
from presence_adapters.proxies import find_proxy
from presence_adapters.recording import Recording
from presence_adapters.room_view import RoomView
from presence_adapters.routing import Route, Routes
from presence_adapters.wall_clock import utc_now

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Awaitable, Callable, Mapping
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
    """An event queue that can be waited for, on the loop of `driver_type`."""

    def __init__(self, limit: int, driver_type: type[AsyncDriver[Any]]) -> None:
        super().__init__(limit, self._wake_up)
        self._event_type = driver_type.event_type
        self._checkpoints = driver_type.checkpoints
        self._news = self._event_type()

    def put(self, event: E) -> None:
        """Add an event."""
        if 0 < len(self._events) < self._limit:
            self._events.append(event)  # who waits has been woken
        else:
            super().put(event)

    def _wake_up(self) -> None:
        self._news.set()

    async def next(self) -> E | EventsDropped:
        """The next event. After the last one: what ended it, once, and then `StopAsyncIteration`."""
        if self._checkpoints or not self._news.is_set():
            await self._news.wait()
        if self._events and not self._dropped:  # nearly always
            return self._events.popleft()
        while (event := self.get()) is None:
            if self.error is not None:
                error, self.error = self.error, None
                raise error
            if self.closed:
                raise StopAsyncIteration
            if self._news.is_set():  # else another consumer was here first, and all wait for the same one
                self._news = self._event_type()
            await self._news.wait()
        return event


class Answer:
    """The one answer that somebody awaits."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._result: Any = None
        self._error: Exception | None = None

    def done(self) -> bool:
        """Whether it is there."""
        return self._event.is_set()

    def set_result(self, result: Any) -> None:
        """It is this."""
        self._result = result
        self._event.set()

    def set_exception(self, exception: Exception) -> None:
        """It is no."""
        self._error = exception
        self._event.set()

    async def wait(self) -> Any:
        """Wait for it."""
        await self._event.wait()
        if self._error is not None:
            raise self._error
        return self._result


class AsyncClient(Generic[Core, E]):
    """What both clients share: their life, their commands and their event stream."""

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
        self._driver = self._driver_type(
            endpoint,
            on_event,
            recording.until(on_end),
            ssl_context=ssl_context,
            proxy=find_proxy(proxy, config),
            provider=access_token if callable(access_token) else None,
            patience=config.access_token_timeout,
            linger=config.close_timeout,
        )

    @property
    def is_connected(self) -> bool:
        """Whether we are connected."""
        return self._core.is_connected

    async def set_access_token(self, token: str | None) -> None:
        """Use another access token from now on: in every joined channel at once, in the next joins and the
        next URL.
        """
        await self._command(self._core.set_access_token, token)

    async def disconnect(self) -> None:
        """Say goodbye and wait until the connection is closed; the config's `close_timeout` bounds that."""
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
        try:
            # A cancelled body wants out at once; any other end of it leaves time for a goodbye.
            if error is None or isinstance(error, Exception):
                await self.disconnect()
        finally:
            if not self._driver.ended.is_set():
                self._driver.call(self._core.disconnect)
            await self._driver.stop()
        bug = self._events.error
        if bug is None or bug is error:
            return
        if error is None:
            raise bug  # nobody has read the events up to here
        logger.error("the client has failed", exc_info=bug)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[E | EventsDropped]:
        return self._events.next()

    async def _command(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        await self._driver.writable()
        if self._driver.ended.is_set():
            raise ConnectError("the client has ended") from self._driver.error
        return self._driver.call(command, *args, **kwargs)


class AsyncPresenceClient(RoomView, AsyncClient[core.PresenceClient, core.PresenceEvent]):
    """Who is online and what they are doing. Iterate over it for `PresenceEvent`s and `EventsDropped`.

    Made from an `Identity` and a `PresenceConfig`, or from the keywords of both:
    `PresenceClient(server_url=…, user_id=…, display_name=…)`. `ssl_context`: for TLS with other rules than
    the system's. `proxy`: the URL of an HTTP proxy on the way, `""` for none; by default the environment
    says (`https_proxy`, `http_proxy`, `all_proxy`, `no_proxy`). `access_token`: one, or a plain or `async`
    function that gives one; it is asked before connects, joins and the expiry of the last one.
    `rng` is for the jitter of the backoff.
    `online_at` is what others see as the time we came online, now by default. `record`: a path or a text
    file, to be written to for `presence replay`. The iteration ends after `disconnect` or a fatal `Error`,
    when everything queued was delivered.

    Commands return the core's id, which a `CommandFailed` would carry. They raise `LocalProtocolError` when
    they are not legal.

    Without `async with`, by callback: set `on_notification`, a plain or `async` function that is called with
    the type of every event and its data (see `presence_adapters.notifications`), and `await run()`.
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
        events: AsyncQueue[core.PresenceEvent] = AsyncQueue(max_queued_events, self._driver_type)
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
        """Be connected, and call `on_notification` for every event, until `disconnect` or a fatal `Error`.

        What the callback raises is logged, and we go on. Cancelling this ends it.
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
        """Be seen with this status and activity, now and after every reconnect."""
        return await self._command(self._core.update_activity, status, activity)

    async def send_invite(self, game: str, code: str | None = None) -> int:
        """Invite everybody to a game."""
        return await self._command(self._core.send_invite, game, code)

    async def send_poke(self, user_id: str) -> int:
        """Poke a user."""
        return await self._command(self._core.send_poke, user_id)

    async def send_chat(self, channel: str, content: str, reply_to: str | None = None) -> int:
        """Say something in a chat channel of the room."""
        return await self._command(self._core.send_chat, channel, content, reply_to, timestamp=utc_now())


class AsyncRealtimeClient(AsyncClient[core.RealtimeClient, core.RealtimeEvent]):
    """Many Phoenix or Supabase channels on one connection.

    Iterate over it for the events that belong to no channel (`SocketConnected`, `SocketDisconnected`,
    `ProtocolViolation`) and `EventsDropped`; each `Channel` has its own events. Iterations end after
    `disconnect` or a fatal refusal. The parameters are those of `PresenceClient`; every channel has a queue
    of `max_queued_events`.
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
        self._routes: Routes[AsyncQueue[core.RealtimeEvent]] = Routes(
            lambda: AsyncQueue(max_queued_events, self._driver_type),
            lambda topic: self._driver.call(endpoint.leave, topic),
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

    async def join(self, topic: str, params: Mapping[str, Any] | core.ChannelConfig | None = None) -> Channel:
        """Join a topic and wait until the server has let us in. Joining it again gives the same `Channel`.

        `params`: a `ChannelConfig` for Supabase, the join's payload for plain Phoenix. Lost connections and
        timeouts are tried again meanwhile. Raises `JoinError` when the server refuses, `ConnectError` when
        the client ends; then, and when it is cancelled, the topic is left again.
        """
        joined = self._answer()

        def join(*, now: float) -> Route[AsyncQueue[core.RealtimeEvent]]:
            self._core.join(topic, params, now=now)
            return self._routes.join(topic, joined)

        route = await self._command(join)
        try:
            await joined.wait()
        except BaseException:
            self._routes.give_up(route, joined)
            raise
        if route.channel is None:
            acked = isinstance(params, core.ChannelConfig) and params.broadcast_ack
            route.channel = Channel(self, route, self._core.presence(topic), acked=acked)
        assert isinstance(route.channel, Channel)
        return route.channel

    def _answer(self) -> Answer:
        return Answer(self._driver.event_type())


class Channel:
    """A joined topic, kept joined until `leave`. Made by `RealtimeClient.join`.

    Iterate over it for all that happens in it, replies to pushes excepted: `Broadcast`, `ChannelMessage`,
    `PresenceSynced`, `PresenceDiffed`, `ChannelDown`, `ChannelJoined` when it is joined again, and so on, and
    `EventsDropped`. The iteration ends after `leave` and when the client ends.
    """

    def __init__(
        self,
        client: AsyncRealtimeClient,
        route: Route[AsyncQueue[core.RealtimeEvent]],
        presence: core.PresenceMap,
        *,
        acked: bool,
    ) -> None:
        self.topic = route.topic
        self.presence = presence  # live; as it last was after the channel is left
        self._client = client
        self._route = route
        self._acked = acked

    def __repr__(self) -> str:
        return f"<Channel {self.topic!r}, {'joined' if self.is_joined else 'not joined'}>"

    @property
    def is_joined(self) -> bool:
        """Whether we are in it now. It comes back by itself after a loss."""
        return not self._route.leaving and self._client._core.state_of(self.topic) is core.ChannelState.JOINED

    @property
    def response(self) -> Any:
        """The server's answer to the latest join."""
        return self._route.response

    async def push(self, event: str, payload: Any = None, timeout: float | None = None) -> Any:
        """Push an event with a JSON payload or `bytes`, and return the server's response.

        Raises `PushError` when the status is not `"ok"`, or no answer came within `timeout` seconds (default:
        the config's `push_timeout`), which include waiting for a channel that is down.
        """
        return await self._push(self._client._core.push, event, payload, timeout=timeout)

    async def broadcast(self, event: str, payload: Any = None) -> None:
        """Broadcast an event to the others in a Supabase channel.

        Waits for the server's word only when the channel was joined with `broadcast_ack`, and raises
        `PushError` then.
        """
        if self._acked:
            await self._push(self._client._core.broadcast, event, payload)
        else:
            await self._command(self._client._core.broadcast, event, payload)

    async def track(self, meta: Mapping[str, Any]) -> None:
        """Be present with this payload, now and after every rejoin."""
        await self._command(self._client._core.track, meta)

    async def untrack(self) -> None:
        """Stop being present."""
        await self._command(self._client._core.untrack)

    async def leave(self) -> None:
        """Leave, and wait until it is done. The client forgets the channel; doing it twice is no error."""
        left = self._client._answer()
        self._client._routes.leave(self._route, left)
        await left.wait()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> core.RealtimeEvent | EventsDropped:
        return await self._route.queue.next()

    async def _command(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        def checked(*, now: float) -> T:
            if self._route.leaving:
                raise core.LocalProtocolError(f"{self.topic!r} was left: join it again")
            return command(self.topic, *args, now=now, **kwargs)

        return await self._client._command(checked)

    async def _push(self, command: Callable[..., int], *args: Any, **kwargs: Any) -> Any:
        answer = self._client._answer()

        def push(topic: str, *, now: float) -> None:
            self._client._routes.expect_reply(command(topic, *args, now=now, **kwargs), answer)

        await self._command(push)
        return await answer.wait()
