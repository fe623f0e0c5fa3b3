"""The `RealtimeClient` of asyncio and trio, but for the driver, and its channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

import presence_proto as core
from presence_adapters.access_tokens import with_token
from presence_adapters.async_clients import AsyncClient, AsyncQueue
from presence_adapters.recording import Recording
from presence_adapters.routing import Route, Routes

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Awaitable, Callable, Mapping

    from presence_adapters.access_tokens import TokenProvider
    from presence_adapters.async_driver import Event
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

    def __anext__(self) -> Awaitable[core.RealtimeEvent | EventsDropped]:
        return self._route.queue.__anext__()

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
