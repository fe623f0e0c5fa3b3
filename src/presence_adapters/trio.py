"""`PresenceClient` and `RealtimeClient` for trio.

    async with PresenceClient(identity, config) as client:
        async for event in client:
            ...

`presence_adapters.async_clients` describes the behaviour that asyncio and trio clients share. On trio, the
tasks of the client run in a nursery that `async with` opens and closes. Every `async` call is a checkpoint.
All times are measured by trio's clock. An exception in the `async with` block is raised unchanged, not in
an exception group.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Self, TypeVar

import presence_proto as core
from presence_adapters.access_tokens import ask, too_late
from presence_adapters.async_clients import (
    AsyncClient,
    AsyncPresenceClient,
    AsyncRealtimeClient,
    Channel,
    E,
)
from presence_adapters.async_driver import AsyncDriver
from presence_adapters.clients import Core
from presence_adapters.errors import (
    ConnectError,
    JoinError,
    JoinTimeoutError,
    PushError,
    WaitTimeoutError,
    missing,
)
from presence_adapters.event_queue import EventsDropped
from presence_adapters.tls_and_proxies import (
    client_context,
    open_tunnel,
    out_of_reach,
    why_lost,
    why_not_connected,
)
from presence_proto import ProxyError
from presence_proto.websocket import ProxyTunnel

try:
    import trio
except ModuleNotFoundError as exc:
    raise missing(exc, "trio") from None

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from presence_adapters.access_tokens import TokenProvider
    from presence_proto import ConnId, OpenTransport
    from presence_proto.websocket import Proxy

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

WRITE_BUFFER = 65536
"""Maximum size of the write buffer, in bytes. Commands wait while the buffer is larger."""


class TrioConnection:
    """State of one connection, from the request to open the connection until the end of the connection.

    `forgotten`: the core has dropped the connection, so the driver ignores the connection's later events.
    """

    def __init__(self, wanted: OpenTransport) -> None:
        self.wanted = wanted
        self.scope = trio.CancelScope()  # encloses the whole task of the connection
        self.early_data = b""  # bytes from the server that arrived together with the proxy's reply
        self.outgoing = bytearray()
        self.news = trio.Event()  # set when there is data to write, or the connection must be closed
        self.is_open = False
        self.forgotten = False
        self.fate = "cut off"  # why the connection ended


class TrioDriver(AsyncDriver[TrioConnection]):
    """`AsyncDriver` for trio. Each connection has a writing and a reading task; the timer is one more task.

    Tasks and commands are protected from Ctrl-C. trio raises `KeyboardInterrupt` in the code of the
    application instead, or at the end of the client.
    """

    event_type = trio.Event
    now = staticmethod(trio.current_time)
    checkpoints = True
    elsewhere = "another run of trio: use `trio.from_thread.run(function, trio_token=token)` to call it there"

    _nursery: trio.Nursery

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._alarm = trio.CancelScope()

    async def start(self) -> None:
        """Bind the driver to the running loop, and open the nursery of the client."""
        await super().start()
        self._nursery_manager = trio.open_nursery()  # not earlier: trio may start after `__init__`
        self._nursery = await self._nursery_manager.__aenter__()
        self._nursery.start_soon(self._keep_time)
        self._token = trio.lowlevel.current_trio_token()

    async def stop(self) -> None:
        """Cancel the tasks and close the nursery. `stop` cannot be cancelled, but takes only a moment."""
        # Without the shield, an outer cancellation would replace the exception of the `async with` block.
        self._next = None
        self._nursery.cancel_scope.shield = True
        self._nursery.cancel_scope.cancel()
        try:
            await self._nursery_manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            # Ctrl-C arrived in a token provider, or in a task that trio started to connect to an address.
            raise _only(group) from None
        finally:
            self.end(None)

    @trio.lowlevel.enable_ki_protection
    def call(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the core. If the command raises an exception, the core is unchanged."""
        return super().call(command, *args, **kwargs)

    def _is_here(self) -> bool:
        try:
            return trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:  # no trio runs here
            return False

    async def within(self, timeout: float | None, wait: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `wait()`. Raises `TimeoutError` after `timeout` seconds (`None`: no limit)."""
        with trio.move_on_after(inf if timeout is None else timeout) as scope:
            return await wait()
        assert scope.cancelled_caught
        raise TimeoutError

    # ---------------------------------------------------------------- outputs

    def _set_timer(self, deadline: float | None) -> None:
        self._alarm.deadline = inf if deadline is None else deadline

    def _open(self, wanted: OpenTransport) -> None:
        connection = self.connections[wanted.conn] = TrioConnection(wanted)
        self._begin(connection)
        self._nursery.start_soon(self._run, connection)

    def _send(self, conn: ConnId, data: bytes) -> None:
        if (connection := self.connections.get(conn)) is not None:
            connection.outgoing += data
            connection.news.set()
            if len(connection.outgoing) > WRITE_BUFFER and self.room.is_set():
                self.room = trio.Event()

    def _close(self, conn: ConnId, abort: bool) -> None:
        if (connection := self._forget(conn)) is None:
            return
        if abort or not connection.is_open:
            connection.scope.cancel()
        else:
            connection.scope.deadline = trio.current_time() + self._linger
            connection.news.set()

    def _start_asking(self, provider: TokenProvider) -> None:
        self._nursery.start_soon(self._ask, provider)

    @trio.lowlevel.enable_ki_protection
    async def _ask(self, provider: TokenProvider) -> None:
        await super()._ask(provider)

    async def _in_thread(self, provider: TokenProvider) -> Any:
        # trio raises an error when a thread function returns a coroutine, so return it in a tuple.
        (provided,) = await trio.to_thread.run_sync(lambda: (ask(provider),), abandon_on_cancel=True)
        return provided

    @trio.lowlevel.disable_ki_protection
    async def _in_time(self, provided: Awaitable[Any]) -> Any:
        with trio.move_on_after(self._patience):
            return await provided
        raise too_late(self._patience)

    def _cut(self) -> None:
        # Do not cancel the nursery: the nursery's cancel scope also contains the `async with` block.
        for connection in self.existing:
            connection.scope.cancel()

    # ---------------------------------------------------------------- tasks

    @trio.lowlevel.enable_ki_protection
    async def _keep_time(self) -> None:
        while True:
            with self._alarm:
                await trio.sleep_forever()
            self._alarm = trio.CancelScope()
            await trio.lowlevel.checkpoint()  # the reading task goes first: a reply that is there is in time
            self.fact(self.endpoint.tick)

    @trio.lowlevel.enable_ki_protection
    async def _run(self, connection: TrioConnection) -> None:
        try:
            with connection.scope:
                await self._connect_and_talk(connection)
        except Exception as exc:
            self.end(exc)
        finally:
            conn, fate = connection.wanted.conn, connection.fate
            if self._forget(conn) is not None:
                logger.debug("connection %d: ended: %s", conn, fate, extra={"conn": conn})
                self.fact(self.endpoint.transport_closed, conn, reason=fate)
            self._gone(connection)

    async def _connect_and_talk(self, connection: TrioConnection) -> None:
        wanted = connection.wanted
        try:
            stream = await self._connect(connection)
        except (OSError, UnicodeError, trio.BrokenResourceError, ProxyError) as exc:
            connection.fate = why_not_connected(_unwrapped(exc), wanted.host, wanted.port)
            return
        async with stream:
            if connection.forgotten:
                return  # the core dropped the connection during the last step of connecting
            connection.is_open = True
            logger.debug("connection %d: open", wanted.conn, extra={"conn": wanted.conn})
            self.fact(self.endpoint.transport_opened, wanted.conn)
            if connection.early_data:
                self._received(connection, connection.early_data)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, connection, stream)
                await self._write(connection, stream)
                nursery.cancel_scope.cancel()
            await _say_goodbye(stream)

    async def _connect(self, connection: TrioConnection) -> trio.abc.Stream:
        wanted = connection.wanted
        if self._proxy is None:
            stream: trio.abc.Stream = await trio.open_tcp_stream(wanted.host, wanted.port)
        else:
            stream = await self._connect_through(self._proxy, connection)
        if not wanted.tls:
            return stream
        try:
            self._ssl_context = client_context(self._ssl_context)
            tls = trio.SSLStream(stream, self._ssl_context, server_hostname=wanted.host)
            await tls.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return tls

    async def _connect_through(self, proxy: Proxy, connection: TrioConnection) -> trio.abc.Stream:
        tunnel = ProxyTunnel(proxy, connection.wanted)
        try:
            stream = await trio.open_tcp_stream(proxy.host, proxy.port)
            try:
                await open_tunnel(tunnel, stream.send_all, stream.receive_some)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        except (OSError, UnicodeError, trio.BrokenResourceError) as exc:
            raise out_of_reach(_unwrapped(exc), proxy) from None
        connection.early_data = tunnel.early_data
        return stream

    @trio.lowlevel.enable_ki_protection
    async def _read(self, connection: TrioConnection, stream: trio.abc.Stream) -> None:
        fate = "eof"
        try:
            async for data in stream:
                if not connection.forgotten:
                    self._received(connection, data)
        except trio.BrokenResourceError as exc:
            fate = why_lost(_unwrapped(exc))
        if not connection.forgotten:
            connection.fate = fate
            connection.scope.cancel()

    def _received(self, connection: TrioConnection, data: bytes | bytearray) -> None:
        self.fact(self.endpoint.receive_data, connection.wanted.conn, data)

    async def _write(self, connection: TrioConnection, stream: trio.abc.Stream) -> None:
        """Write `outgoing` until the connection is forgotten and all data is written."""
        while connection.outgoing or not connection.forgotten:
            await connection.news.wait()
            chunk = connection.outgoing[:WRITE_BUFFER]
            try:
                await stream.send_all(chunk)
            except trio.BrokenResourceError:
                if connection.forgotten:
                    return
                # Do not end the connection here: the reading task must first read the received data. The
                # reading task also reports the end.
                await trio.sleep_forever()
            del connection.outgoing[: len(chunk)]
            if len(connection.outgoing) <= WRITE_BUFFER:
                self.has_room()
            if not connection.outgoing and not connection.forgotten:
                connection.news = trio.Event()


async def _say_goodbye(stream: trio.abc.Stream) -> None:
    """Shut down the sending side, and wait until the peer has closed its side, too."""
    with suppress(trio.BrokenResourceError):
        if isinstance(stream, trio.SSLStream):
            tcp, _ = await stream.unwrap()
            await trio.aclose_forcefully(tcp)
        elif isinstance(stream, trio.abc.HalfCloseableStream):
            await stream.send_eof()
            async for _ in stream:
                pass


def _unwrapped(error: BaseException) -> BaseException:
    """Return the cause of trio's `BrokenResourceError`."""
    return error.__cause__ or error if isinstance(error, trio.BrokenResourceError) else error


def _only(error: BaseException) -> BaseException:
    """Return the first exception in nested exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Client(AsyncClient[Core, E]):
    """Client whose start and end are protected from Ctrl-C, which could leave the nursery open."""

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()  # before the nursery opens: a cancellation may arrive here
        return await super().__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, traceback)


class PresenceClient(_Client[core.PresenceClient, core.PresenceEvent], AsyncPresenceClient):
    __doc__ = AsyncPresenceClient.__doc__
    _driver_type = TrioDriver


class RealtimeClient(_Client[core.RealtimeClient, core.RealtimeEvent], AsyncRealtimeClient):
    __doc__ = AsyncRealtimeClient.__doc__
    _driver_type = TrioDriver
