"""What the clients of `presence_adapters.asyncio` and `presence_adapters.trio` have in common.

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
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import presence_proto as core
from presence_adapters.errors import ConnectError
from presence_adapters.event_queue import EventQueue, EventsDropped
from presence_adapters.proxies import find_proxy

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from presence_adapters.access_tokens import TokenProvider
    from presence_adapters.async_driver import AsyncDriver
    from presence_adapters.recording import Recording

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

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E | EventsDropped:
        """The next event. After the last one: what ended it, once, and then `StopAsyncIteration`."""
        if self._events and not self._dropped and not self._checkpoints:  # nearly always
            return self._events.popleft()
        if self._checkpoints or not self._news.is_set():
            await self._news.wait()
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
            elif not self._driver.ended.is_set():
                self._driver.call(self._core.disconnect)
        finally:
            await self._driver.stop()
        bug = self._events.error
        if bug is None or bug is error:
            return
        if error is None:
            raise bug  # nobody has read the events up to here
        logger.error("the client has failed", exc_info=bug)

    def __aiter__(self) -> AsyncIterator[E | EventsDropped]:
        return self._events

    def __anext__(self) -> Awaitable[E | EventsDropped]:
        return self._events.__anext__()

    async def _command(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        await self._driver.writable()
        if self._driver.ended.is_set():
            raise ConnectError("the client has ended") from self._driver.error
        return self._driver.call(command, *args, **kwargs)
