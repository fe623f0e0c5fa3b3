"""What the clients of `presence_adapters.asyncio` and `presence_adapters.trio` have in common.

    async with PresenceClient(identity, config) as client:
        async for event in client:
            ...

Entering starts to connect and returns at once; leaving disconnects in an orderly way, or at once when it is
cancelled. Connecting, heartbeats, timeouts and coming back after a loss go on by themselves, whether events
are read or not.

Events wait in a queue of `max_queued_events`, and of 64 MiB as received. When a slow consumer lets it fill
up, the oldest are dropped and `EventsDropped` stands in their place: read the roster again then. Two
consumers of one stream share its events.

A command waits only while the transport's write buffer is over its limit. Cancelled there, it has not been
made.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import presence_proto as core
from presence_adapters.connection_monitor import ConnectionMonitor
from presence_adapters.errors import WaitTimeoutError, checked_timeout
from presence_adapters.event_queue import CHUNK, EventQueue, EventsDropped, ReadMeter
from presence_adapters.proxies import find_proxy
from presence_adapters.wrong_statement import refuse

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import TracebackType

    from presence_adapters.access_tokens import TokenProvider
    from presence_adapters.async_driver import AsyncDriver, Event
    from presence_adapters.recording import Recording

T = TypeVar("T")
E = TypeVar("E")
Core = TypeVar("Core", bound=core.PresenceClient | core.RealtimeClient)

logger = logging.getLogger(__name__)


class AsyncQueue(EventQueue[E]):
    """An event queue that can be waited for, on the loop of `driver_type`. `check` raises where nothing would
    come.
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
            if len(events) == 1:  # else who waits has been woken
                self._news.set()
        else:
            super().put(event)

    def _wake_up(self) -> None:
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E | EventsDropped:
        """The next event. After the last one: the exception that ended it, or `StopAsyncIteration`."""
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
            if self._news.is_set():  # else another consumer was here first, and all wait for the same one
                self._news = self._event_type()
            self._check()
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

    @property
    def is_connected(self) -> bool:
        """Whether we are connected."""
        return self._core.is_connected and not self._driver.is_forked

    @property
    def is_closed(self) -> bool:
        """Whether the client has ended, after `disconnect` or a final refusal. It does not start again."""
        return self._driver.ended.is_set()

    @property
    def latency(self) -> float | None:
        """How long the latest heartbeat took there and back, in seconds; `None` before there was one."""
        return self._core.latency

    async def set_access_token(self, token: str | None) -> None:
        """Use another access token from now on: in every joined channel at once, in the next joins and the
        next URL.
        """
        await self._command(self._core.set_access_token, token)

    async def wait_connected(self, timeout: float | None = None) -> None:
        """Wait until `is_connected`, for `timeout` seconds at most (`None`: as long as it takes).

        Raises `WaitTimeoutError`, a `TimeoutError` that says what kept it, after which the client goes on
        trying; and `ConnectError` when the client ends.
        """
        checked_timeout(timeout)
        self._check_running()
        connected = self._answer()
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
        """Say goodbye and wait until the connection is closed; the config's `close_timeout` bounds that."""
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
            return  # the connection is the parent's
        try:
            # A cancelled body wants out at once; any other end of it leaves time for a goodbye.
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
            raise bug  # nobody has read the events up to here
        logger.error("the client has failed", exc_info=bug)

    def __aiter__(self) -> AsyncIterator[E | EventsDropped]:
        self._driver.check()
        if self._events.is_finished:
            raise self._monitor.ended()
        return self._events

    def __anext__(self) -> Awaitable[E | EventsDropped]:
        return self._events.__anext__()

    async def _command(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        self._driver.check()
        await self._driver.writable()
        self._check_running()
        return self._driver.call(command, *args, **kwargs)

    def _check_running(self) -> None:
        self._driver.check()
        if self._driver.ended.is_set():
            raise self._monitor.ended()

    def _answer(self) -> AwaitedReply:
        return AwaitedReply(self._driver.event_type())


refuse(AsyncClient, "use `async with` and `async for`, or presence_adapters.blocking", "with", "for")


class AwaitedReply:
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
        """Waiting for it raises this."""
        self._error = exception
        self._event.set()

    async def wait(self) -> Any:
        """Wait for it."""
        await self._event.wait()
        if self._error is not None:
            raise self._error
        return self._result
