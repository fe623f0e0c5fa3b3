"""`PresenceClient` and `RealtimeClient` for asyncio.

    async with PresenceClient(identity, config) as client:
        async for event in client:
            ...

`presence_adapters.async_clients` describes the behaviour that asyncio and trio clients share.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

from presence_adapters.access_tokens import ask, too_late
from presence_adapters.async_clients import AsyncPresenceClient, AsyncRealtimeClient, Channel
from presence_adapters.async_driver import AsyncDriver
from presence_adapters.asyncio_connect import open_socket, open_through
from presence_adapters.daemon_thread import DaemonCall
from presence_adapters.errors import ConnectError, JoinError, JoinTimeoutError, PushError, WaitTimeoutError
from presence_adapters.event_queue import EventsDropped
from presence_adapters.tls_and_proxies import client_context, why_lost, why_not_connected
from presence_proto import PresenceError, ProxyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from presence_adapters.access_tokens import TokenProvider
    from presence_proto import ConnId, OpenTransport

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

T = TypeVar("T")


READ_SIZE = 64 * 1024
"""Maximum size of one read, in bytes. asyncio's 256 KiB are slower, because they exceed the CPU caches."""


_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


class AsyncioConnection(asyncio.BufferedProtocol):
    """State of one connection, from the request to open the connection until the end of the connection.

    `forgotten`: the core has dropped the connection, so the driver ignores the connection's later events.
    """

    early_data = b""  # bytes from the server that arrived together with the proxy's reply

    def __init__(self, driver: AsyncioDriver, conn: ConnId) -> None:
        self.driver = driver
        self.conn = conn
        self.transport: asyncio.Transport | None = None
        self.making: asyncio.Task[str | None] | None = None
        self.lingering: asyncio.TimerHandle | None = None
        self.forgotten = False
        self.is_over = False
        self.fate: str | None = None  # why the connection ended, if the loop does not know the reason

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.forgotten or self.driver.ended.is_set():
            # The core dropped the connection or was closed during the last step of connecting.
            self.transport.abort()
            # Do not wait for `connection_lost`: uvloop omits this call if the connect was just cancelled.
            self.driver.lost(self, "too late")
        else:
            logger.debug("connection %d: open", self.conn, extra={"conn": self.conn})
            self.tell_opened()
            if self.early_data:
                self.driver.fact(self.driver.endpoint.receive_data, self.conn, self.early_data)

    def tell_opened(self) -> None:
        """Report to the core that the transport is open."""
        self.driver.fact(self.driver.endpoint.transport_opened, self.conn)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.driver.buffer

    def buffer_updated(self, nbytes: int) -> None:
        driver = self.driver
        driver.fact(driver.endpoint.receive_data, self.conn, bytes(driver.buffer[:nbytes]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self.driver.lost(self, self.fate or why_lost(exc))

    def pause_writing(self) -> None:
        if not self.forgotten:
            self.driver.room.clear()

    def resume_writing(self) -> None:
        if not self.forgotten:
            self.driver.has_room()

    def write(self, data: bytes) -> None:
        """Write `data` after all earlier data."""
        if self.transport is None or self.transport.is_closing():
            return  # the connection has ended; the loop will call `connection_lost`
        sock = self.transport.get_extra_info("socket")
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.fate = why_lost(OSError(number, os.strerror(number)))
        if self.fate is None:  # else the write would fail, and the loop would drop data that has arrived
            self.transport.write(data)

    def finish(self) -> None:
        """Close the connection after its pending data is written, and after the peer has closed its side."""
        assert self.transport is not None
        if self.transport.can_write_eof():
            with suppress(OSError):  # the peer has reset the connection
                self.transport.write_eof()
                return
        self.transport.close()  # over TLS, `close` waits for the peer

    def cut(self) -> None:
        """Drop the connection at once."""
        if self.transport is not None:
            self.transport.abort()
        elif self.making is not None:
            self.making.cancel()


class AsyncioDriver(AsyncDriver[AsyncioConnection]):
    """`AsyncDriver` for asyncio. Each connection is an asyncio protocol; the timer is a `TimerHandle`."""

    event_type = asyncio.Event
    elsewhere = "another event loop: use `asyncio.run_coroutine_threadsafe(coro, loop)` to call it there"

    room: asyncio.Event
    _loop: asyncio.AbstractEventLoop
    _timer: asyncio.TimerHandle | None = None
    _alarm: float | None = None  # deadline of `_timer`
    buffer: memoryview  # read buffer of all connections
    _asking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bind the driver to the running loop."""
        await super().start()
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        # All connections of the loop can share a buffer, because the data is copied before the next read. A
        # new buffer for each read would have to be filled with zeros. Filling a buffer takes 69,000 of the
        # 174,000 CPU instructions for reading one presence diff.
        self.buffer = _buffers.setdefault(self._loop, memoryview(bytearray(READ_SIZE)))

    async def stop(self) -> None:
        """Drop all connections and tasks, and wait until all of them have ended."""
        try:
            self._cut()
            if self._asking is not None:
                self._asking.cancel()
                await asyncio.wait([self._asking])
            await self.quiet()
            self.drain()
        finally:
            self.end(None)

    def _is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:  # no loop runs here
            return False

    async def within(self, timeout: float | None, wait: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `wait()`. Raises `TimeoutError` after `timeout` seconds (`None`: no limit)."""
        async with asyncio.timeout(timeout):
            return await wait()

    # ---------------------------------------------------------------- outputs

    def _set_timer(self, deadline: float | None) -> None:
        if deadline == self._alarm:
            return
        self._alarm = deadline
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = self._alarm = None
        self.fact(self.endpoint.tick)

    def _open(self, wanted: OpenTransport) -> None:
        connection = self.connections[wanted.conn] = AsyncioConnection(self, wanted.conn)
        self._make(connection, self._connect(connection, wanted))

    def _send(self, conn: ConnId, data: bytes) -> None:
        connection = self.connections.get(conn)
        if connection is not None:
            connection.write(data)

    def _close(self, conn: ConnId, abort: bool) -> None:
        connection = self._forget(conn)
        if connection is None:
            return
        if abort or connection.transport is None:
            connection.cut()
        else:
            connection.finish()
            connection.lingering = self._loop.call_later(self._linger, connection.cut)

    def _start_asking(self, provider: TokenProvider) -> None:
        self._asking = self._loop.create_task(self._ask(provider))

    async def _in_thread(self, provider: TokenProvider) -> Any:
        return await in_daemon_thread("access token", lambda: ask(provider))

    async def _in_time(self, provided: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._patience) as limit:
                return await provided
        except TimeoutError:
            if not limit.expired():
                raise  # the provider itself raised this exception
            raise too_late(self._patience) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise PresenceError("it was cancelled") from None  # cancelled, but not by the driver

    def _cut(self) -> None:
        self._next = None
        for connection in list(self.existing):
            connection.cut()

    # ---------------------------------------------------------------- connections

    def _make(
        self, connection: AsyncioConnection, making: Coroutine[Any, Any, str | None]
    ) -> asyncio.Task[str | None]:
        self._begin(connection)
        connection.making = self._loop.create_task(making)
        # Not at the end of the coroutine: a task that is cancelled before its first step runs no code.
        connection.making.add_done_callback(lambda task: self._made(connection, task))
        return connection.making

    async def _connect(self, connection: AsyncioConnection, wanted: OpenTransport) -> str | None:
        """Connect. Return the reason of a failure, or `None` after success."""
        try:
            if wanted.tls and self._ssl_context is None:
                self._ssl_context = client_context(None)
            context = self._ssl_context if wanted.tls else None
            if self._proxy is None:
                sock = await open_socket(wanted.host, wanted.port)
            else:
                sock, connection.early_data = await open_through(self._proxy, wanted)
            name = None if context is None else wanted.host
            await self._loop.create_connection(
                lambda: connection, sock=sock, ssl=context, server_hostname=name
            )
        except (OSError, UnicodeError, ProxyError) as exc:
            return why_not_connected(exc, wanted.host, wanted.port)
        return None

    def _made(self, connection: AsyncioConnection, task: asyncio.Task[str | None]) -> None:
        connection.making = None
        if connection.transport is None:
            connection.is_over = True
        self._check_over(connection)
        if task.cancelled():
            return
        try:
            failure = task.result()
        except Exception as exc:
            self.end(exc)
        else:
            if failure is not None:
                self.lost(connection, failure)

    def lost(self, connection: AsyncioConnection, reason: str) -> None:
        """Report that a connection has ended, or could not be opened."""
        if connection.lingering is not None:
            connection.lingering.cancel()
        connection.is_over = True
        self._check_over(connection)
        if self._forget(connection.conn) is not None and not self.ended.is_set():
            logger.debug("connection %d: ended: %s", connection.conn, reason, extra={"conn": connection.conn})
            self.fact(self.endpoint.transport_closed, connection.conn, reason=reason)

    def _check_over(self, connection: AsyncioConnection) -> None:
        if connection.is_over and connection.making is None:
            self._gone(connection)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Call `call` in the loop, from another thread, unless the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


async def in_daemon_thread(name: str, function: Callable[[], T]) -> T:
    """Return the result of `function`, or raise the exception of `function`. See `DaemonCall`."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    call = DaemonCall(name, function, lambda: _tell(loop, over.set))
    await over.wait()
    return call.result()


class PresenceClient(AsyncPresenceClient):
    __doc__ = AsyncPresenceClient.__doc__
    _driver_type = AsyncioDriver


class RealtimeClient(AsyncRealtimeClient):
    __doc__ = AsyncRealtimeClient.__doc__
    _driver_type = AsyncioDriver
