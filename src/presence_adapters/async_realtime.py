"""The `RealtimeClient` of asyncio and trio, but for the driver, and its channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

import presence_proto as core
from presence_adapters.access_tokens import with_token
from presence_adapters.async_clients import AsyncClient, AsyncQueue
from presence_adapters.errors import JoinTimeoutError, WaitTimeoutError, checked_timeout, left_already
from presence_adapters.event_queue import ReadMeter
from presence_adapters.recording import Recording
from presence_adapters.routing import Route, Routes
from presence_adapters.wrong_statement import refuse

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Awaitable, Callable, Mapping

    from presence_adapters.access_tokens import TokenProvider
    from presence_adapters.event_queue import EventsDropped
    from presence_adapters.recording import Record

T = TypeVar("T")


class AsyncRealtimeClient(AsyncClient[core.RealtimeClient, core.RealtimeEvent]):
    """Many Phoenix or Supabase channels on one connection.

    Iterate over it for the events that belong to no channel (`SocketConnected`, `SocketDisconnected`,
    `AccessTokenFailed`, `ProtocolViolation`) and `EventsDropped`; each `Channel` has its own events.
    Iterations end after `disconnect` or a fatal refusal. The parameters are those of `PresenceClient`; every
    channel has a queue of `max_queued_events`.
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
        meter = ReadMeter()  # one for all channels: they share the connection
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
        """The topics that were joined and not left, oldest first."""
        return self._core.channels

    async def join(
        self,
        topic: str,
        params: Mapping[str, Any] | core.ChannelConfig | None = None,
        timeout: float | None = None,
    ) -> Channel:
        """Join a topic and wait until the server has let us in. Joining it again gives the same `Channel`.

        `params`: a `ChannelConfig` for Supabase, the join's payload for plain Phoenix. Lost connections, late
        answers and refusals that will pass are waited out. Raises `JoinError` when the server refuses;
        `JoinTimeoutError`, a `TimeoutError` that says what kept it, when `timeout` seconds have passed;
        `ConnectError` when the client ends. Then, and when it is cancelled, the topic is left again.
        """
        checked_timeout(timeout)
        joined = self._answer()
        route: Route[AsyncQueue[core.RealtimeEvent]] | None = None

        def join(*, now: float) -> Route[AsyncQueue[core.RealtimeEvent]]:
            self._core.join(topic, params, now=now)
            return self._routes.join(topic, joined)

        async def joining() -> Route[AsyncQueue[core.RealtimeEvent]]:
            nonlocal route
            route = await self._command(join)
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
            route.channel = Channel(self, route, self._core.presence(topic), acked=acked)
        assert isinstance(route.channel, Channel)
        return route.channel


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
        self.topic = route.topic  #: Which one it is.
        #: Who is present, live; as it last was after the channel is left.
        self.presence = presence
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
    def is_synced(self) -> bool:
        """Whether `presence` is the server's current state. False: it is stale, or not there yet."""
        return not self._route.leaving and self._client._core.is_synced(self.topic)

    @property
    def response(self) -> Any:
        """The server's answer to the latest join."""
        return self._route.response

    async def push(self, event: str, payload: Any = None, timeout: float | None = None) -> Any:
        """Push an event with a JSON payload or `bytes`, and return the server's response.

        Raises `PushError` when the status is not `"ok"`, or no answer came within `timeout` seconds (default:
        the config's `push_timeout`), which include waiting for a channel that is down.
        A crash of the channel and the end of the connection fail it at once.
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

    async def wait_synced(self, timeout: float | None = None) -> None:
        """Wait until `is_synced`: `presence` has everybody. `timeout`: seconds; `None`: as long as it takes.

        Raises `PresenceError` when the server does not send the presence of this topic, `WaitTimeoutError`
        when the time is up, `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        self._client._check_running()
        synced = self._client._answer()
        if self.is_synced:
            synced.set_result(None)
        else:
            self._client._routes.await_sync(self._route, synced)
        try:
            await self._client._driver.within(timeout, synced.wait)
        except TimeoutError:
            raise WaitTimeoutError(
                f"{self.topic!r} not synced within {timeout:g} s", self._client._monitor.trouble
            ) from None
        finally:
            self._client._routes.abort(self._route, synced)

    async def leave(self) -> None:
        """Leave, and wait until it is done. The client forgets the channel; doing it twice is no error."""
        self._client._driver.check()
        left = self._client._answer()
        self._client._routes.leave(self._route, left)
        await left.wait()

    def __aiter__(self) -> Self:
        self._client._driver.check()
        if self._route.queue.is_finished:
            raise left_already(self.topic) if self._route.leaving else self._client._monitor.ended()
        return self

    def __anext__(self) -> Awaitable[core.RealtimeEvent | EventsDropped]:
        return self._route.queue.__anext__()

    async def _command(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        def checked(*, now: float) -> T:
            if self._route.leaving:
                raise left_already(self.topic)
            return command(self.topic, *args, now=now, **kwargs)

        return await self._client._command(checked)

    async def _push(self, command: Callable[..., int], *args: Any, **kwargs: Any) -> Any:
        answer = self._client._answer()

        def push(topic: str, *, now: float) -> None:
            self._client._routes.expect_reply(command(topic, *args, now=now, **kwargs), answer)

        await self._command(push)
        return await answer.wait()


refuse(Channel, "use `async for`", "for")
