"""Common part of the drivers for asyncio and trio.

A driver reports network events to the core, processes the core's outputs, and keeps one timer. The core
decides when to reconnect and when to send heartbeats.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from presence_adapters.access_tokens import answer, is_async, refuse
from presence_adapters.connection_monitor import WATCHED, ConnectionMonitor
from presence_adapters.errors import forked
from presence_adapters.event_log import logged_events
from presence_adapters.tls_and_proxies import log_opening
from presence_proto import (
    AccessTokenNeeded,
    CloseTransport,
    LocalProtocolError,
    OpenTransport,
    SendData,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from presence_adapters.access_tokens import TokenProvider
    from presence_adapters.event_queue import ReadMeter
    from presence_proto import ConnId, Endpoint
    from presence_proto.websocket import Proxy

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SPECIAL = WATCHED | {SendData, CloseTransport, OpenTransport, AccessTokenNeeded}
"""Output classes for which the driver does more than call `on_event`."""


class Event(Protocol):
    """Interface of `asyncio.Event` and `trio.Event`."""

    def is_set(self) -> bool: ...
    def set(self) -> object: ...
    async def wait(self) -> object: ...


class DriverConnection(Protocol):
    """State of one connection, from the request to open the connection until the end of the connection.

    `forgotten`: the core has dropped the connection, so the driver ignores the connection's later events.
    """

    forgotten: bool


C = TypeVar("C", bound=DriverConnection)


class AsyncDriver(ABC, Generic[C]):
    """Base of the drivers that run a core (`endpoint`) on an event loop until the core is closed or fails.

    - `on_event` receives every output of the core that does not concern a connection. With a `provider`,
      `on_event` receives no token requests.
    - `on_end` is called once: with `None` when the core is closed, or with the exception if the core raised
      an exception (a bug). After the call of `on_end`, the driver does nothing more.
    - `proxy`: the proxy for all connections; `None` for direct connections.
    - `provider` returns access tokens. An `async` provider may take at most `patience` seconds.
    - `linger`: the maximum time in seconds for sending pending data while a connection closes gracefully.
    - `monitor` receives the connection events of a client. `meter` receives the number of received bytes.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        on_event: Callable[[Any], None],
        on_end: Callable[[Exception | None], None],
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        provider: TokenProvider | None = None,
        patience: float = 30.0,
        linger: float = 5.0,
        monitor: ConnectionMonitor | None = None,
        meter: ReadMeter | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._meter = meter
        self.ended = self.event_type()
        self.error: Exception | None = None
        self.connections: dict[ConnId, C] = {}  # not dropped by the core; a client has at most one
        self.existing: set[C] = set()  # connections that have a socket or are connecting
        self._next: OpenTransport | None = None  # to open when `existing` is empty
        self.room = self.event_type()  # set while the write buffer is below its limit
        self.room.set()
        self._pong: SendData | None = None  # the latest pong, kept while `room` is not set
        self._emptied = self.event_type()  # set when `existing` becomes empty
        self._on_event = logged_events(on_event)
        self._on_end = on_end
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._provider = provider
        self._patience = patience
        self._is_asking = False  # a call of the provider is running
        self._linger = linger
        self._is_draining = False
        self._has_more = False  # `drain` was called again while it was running
        self.monitor = monitor or ConnectionMonitor("")
        self._process: int | None = None  # id of the process that called `start`; `None` before that

    # ---------------------------------------------------------------- different on each loop

    event_type: ClassVar[type[Event]]
    checkpoints: ClassVar[bool] = False  # whether waiting for a set event lets other tasks run

    now: Callable[[], float]  # the clock of the loop, in seconds; set in `start`
    what: ClassVar[str] = "client"  # for error texts
    elsewhere: ClassVar[str]  # for error texts: the loop that owns the client, and how to call into it

    @abstractmethod
    def _is_here(self) -> bool:
        """Whether the caller runs in the same event loop as the client."""

    @abstractmethod
    async def within(self, timeout: float | None, wait: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `wait()`. Raises `TimeoutError` after `timeout` seconds (`None`: no limit)."""

    @abstractmethod
    async def stop(self) -> None:
        """Drop all connections and tasks, and wait until all of them have ended."""

    @abstractmethod
    def _open(self, wanted: OpenTransport) -> None: ...

    @abstractmethod
    def _send(self, conn: ConnId, data: bytes) -> None: ...

    @abstractmethod
    def _close(self, conn: ConnId, abort: bool) -> None: ...

    @abstractmethod
    def _set_timer(self, deadline: float | None) -> None: ...

    @abstractmethod
    def _start_asking(self, provider: TokenProvider) -> None:
        """Run `_ask` in a task, which is cancelled when the client ends."""

    @abstractmethod
    async def _in_thread(self, provider: TokenProvider) -> Any:
        """Call a plain provider in a thread, because the provider may block or hang. Return the result."""

    @abstractmethod
    async def _in_time(self, provided: Awaitable[Any]) -> Any:
        """Await the result of an `async` provider, and cancel the provider after `_patience` seconds."""

    @abstractmethod
    def _cut(self) -> None:
        """Drop all connections at once."""

    # ---------------------------------------------------------------- the same on each loop

    async def start(self) -> None:
        """Bind the driver to the process and the running loop. A second start raises `LocalProtocolError`."""
        if self._process is not None:
            raise LocalProtocolError(f"a {self.what} can be entered only once: create a new one")
        self._process = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked after the start, so that the sockets belong to the parent."""
        return self._process not in (None, os.getpid())

    def check(self) -> None:
        """Raise `LocalProtocolError` unless the client was entered in this process and in this loop."""
        if self._process is None:
            raise LocalProtocolError(f"the {self.what} is not running yet: enter it with `async with`")
        if self.is_forked:
            raise LocalProtocolError(forked(self.what))
        if not self._is_here():
            raise LocalProtocolError(f"the {self.what} belongs to {self.elsewhere}")

    def check_running(self) -> None:
        """Raise the errors of `check`, and raise `ConnectError` if the client has ended."""
        self.check()
        if self.ended.is_set():
            raise self.monitor.ended()

    async def command(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the core once the transport takes data. Raises the errors of `check_running`."""
        self.check()
        await self.writable()
        self.check_running()
        return self.call(command, *args, **kwargs)

    async def writable(self) -> None:
        """Wait until the write buffer is smaller than the limit."""
        await self.room.wait()
        while not self.room.is_set():
            await self.room.wait()

    async def quiet(self) -> None:
        """Wait until no socket is open and no connect is running."""
        while self.existing:
            await self._emptied.wait()

    def has_room(self) -> None:
        """Resume writing, because the write buffer is below the limit again."""
        self.room.set()
        self._send_pong()

    def _send_pong(self) -> None:
        pong, self._pong = self._pong, None
        if pong is not None:
            self._send(pong.conn, pong.data)

    def call(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the core. If the command raises an exception, the core is unchanged."""
        self.check()
        if self.ended.is_set():
            raise LocalProtocolError(f"the {self.what} has ended") from self.error
        result = command(*args, now=self.now(), **kwargs)
        self._was_told()
        return result

    def fact(self, fact: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Report a network or timer event to the core. An exception is a bug and ends the driver."""
        if self.error is not None:
            return
        try:
            fact(*args, now=self.now(), **kwargs)
        except Exception as exc:
            self.end(exc)
        else:
            self._was_told()

    def drain(self) -> None:
        """Process the outputs of the core, and set the timer to the core's next deadline.

        A call from inside `on_event` returns at once, and the running call then drains the core once more.
        """
        if self.error is not None:
            return
        if self._is_draining:
            self._has_more = True
            return
        self._is_draining = True
        try:
            on_event = self._on_event
            if (meter := self._meter) is not None:
                client: Any = self.endpoint
                received = client.bytes_received
                meter.bytes += received - meter.seen
                meter.seen = received
            while True:
                for output in self.endpoint.drain():
                    if type(output) in _SPECIAL:
                        self._carry_out(output)
                    else:  # the usual case
                        on_event(output)
                if not self._has_more:
                    break
                self._has_more = False
            self._set_timer(self.endpoint.next_deadline())
        except Exception as exc:
            self.end(exc)
            return
        finally:
            self._is_draining = False
        if not self.connections and self.endpoint.is_closed:  # a closed core has no connection
            self.end(None)

    _was_told = drain
    """This method is called after each fact or command. A subclass may drain once for several calls."""

    def _carry_out(self, output: Any) -> None:
        match output:
            case SendData() if output.is_pong and not self.room.is_set():
                self._pong = output
            case SendData():
                self._send_pong()  # before `output`, which may be a close frame; a close frame must be last
                self._send(output.conn, output.data)
            case CloseTransport():
                logger.debug("connection %d: closing", output.conn, extra={"conn": output.conn})
                self._next = None
                self._close(output.conn, output.abort)
            case OpenTransport():
                log_opening(logger, output, self._proxy)
                if self.existing:
                    self._next = output  # the server must see the end of the old connection first
                else:
                    self._open(output)
            case AccessTokenNeeded() if self._provider is not None:
                # If a call of the provider is running, the result of that call also answers this request.
                if not self._is_asking:
                    self._is_asking = True
                    self._start_asking(self._provider)
            case _:
                self.monitor.saw(output)
                self._on_event(output)

    async def _ask(self, provider: TokenProvider) -> None:
        """Get a token from the provider and report the token to the core, unless the client has ended."""
        client: Any = self.endpoint
        try:
            provided = provider() if is_async(provider) else await self._in_thread(provider)
            if isawaitable(provided):
                provided = await self._in_time(provided)
        except Exception as exc:
            self._is_asking = False
            if not self.ended.is_set():
                self.fact(refuse, client, exc)
        else:
            self._is_asking = False
            if not self.ended.is_set():
                self.fact(answer, client, provided)

    def _begin(self, connection: C) -> None:
        """Register a new connection."""
        self.existing.add(connection)
        if self._emptied.is_set():
            self._emptied = self.event_type()

    def _forget(self, conn: ConnId) -> C | None:
        """Ignore all later events of a connection. Return the connection, or `None` if already forgotten."""
        connection = self.connections.pop(conn, None)
        if connection is not None:
            connection.forgotten = True
            self._pong = None
            self.room.set()
        return connection

    def _gone(self, connection: C) -> None:
        """Remove a connection whose socket is closed."""
        self.existing.discard(connection)
        if self.existing:
            return
        wanted, self._next = self._next, None
        if wanted is None:
            self._emptied.set()
        else:
            self._open(wanted)

    def end(self, error: Exception | None) -> None:
        """End the driver, because the core is closed or has failed with `error`. Later calls do nothing."""
        if self.ended.is_set():
            return
        self.error = error
        self._next = None
        self.ended.set()
        self._set_timer(None)
        if error is not None:
            self._cut()
        error = error or self.monitor.refusal
        self.monitor.end(error)
        self._on_end(error)
