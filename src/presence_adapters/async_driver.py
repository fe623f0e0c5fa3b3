"""What the drivers of asyncio and trio have in common: facts in, outputs out, one timer, one end.

There is no retry, sleep or heartbeat here; those are the core's.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from presence_adapters.access_tokens import answer, is_async, refuse
from presence_adapters.connecting import log_opening
from presence_adapters.connection_monitor import WATCHED
from presence_adapters.errors import forked
from presence_adapters.event_log import logged_events
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
    from presence_adapters.connection_monitor import ConnectionMonitor
    from presence_adapters.event_queue import ReadMeter
    from presence_proto import ConnId, Endpoint
    from presence_proto.websocket import Proxy

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SPECIAL = WATCHED | {SendData, CloseTransport, OpenTransport, AccessTokenNeeded}
"""The outputs that are more than an event to pass on."""


class Event(Protocol):
    """Something that happens once and can be waited for: `asyncio.Event`, `trio.Event`."""

    def is_set(self) -> bool: ...
    def set(self) -> object: ...
    async def wait(self) -> object: ...


class DriverConnection(Protocol):
    """One byte stream, from the wish for it to its end. `forgotten`: the core wants to hear no more of it."""

    forgotten: bool


C = TypeVar("C", bound=DriverConnection)


class AsyncDriver(ABC, Generic[C]):
    """Drives `endpoint` until it is closed or fails.

    `on_event` gets every output that is not about a transport. `on_end` is called once: with `None` when the
    core is closed, or with the exception that a fact or a drain raised (a bug), which ends everything.
    `proxy`: the one on the way. `provider` is asked for access tokens, and an `async` one has `patience`
    seconds. `linger`: seconds that an orderly closed connection has to take what was written. `monitor` sees
    what becomes of a client's connection. `meter` is told how many bytes a client has received.
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
        self.connections: dict[ConnId, C] = {}  # those that the core knows: a client has one at most
        self.existing: set[C] = set()  # with a socket, or on the way to one
        self.room = self.event_type()  # to write more
        self.room.set()
        self._pong: SendData | None = None  # the latest, while there is no room
        self._emptied = self.event_type()  # `existing` was
        self._on_event = logged_events(on_event)
        self._on_end = on_end
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._provider = provider
        self._patience = patience
        self._is_asking = False  # the provider
        self._linger = linger
        self._is_draining = False
        self._has_more = False  # outputs to drain, which came meanwhile
        self._monitor = monitor
        self._process: int | None = None  # its id; `None`: not started

    # ---------------------------------------------------------------- what each loop does in its own way

    event_type: ClassVar[type[Event]]
    checkpoints: ClassVar[bool] = False  # whether waiting for what has happened lets others have a turn

    now: Callable[[], float]  # the clock of the loop, from `start` on
    what: ClassVar[str] = "client"
    elsewhere: ClassVar[str]  # where it was entered, and how to call it from where it was not

    @abstractmethod
    def _is_here(self) -> bool:
        """Whether the code that runs now is in the loop that it was entered in."""

    @abstractmethod
    async def within(self, timeout: float | None, wait: Callable[[], Awaitable[T]]) -> T:
        """What `wait` returns. Raises `TimeoutError` when it takes longer than `timeout` seconds."""

    @abstractmethod
    async def stop(self) -> None:
        """Drop what is left, and wait until it is gone. After this nothing runs any more."""

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
        """Have `_ask` run, until the end."""

    @abstractmethod
    async def _in_thread(self, provider: TokenProvider) -> Any:
        """What a plain provider returns, which may take its time, or hang."""

    @abstractmethod
    async def _in_time(self, provided: Awaitable[Any]) -> Any:
        """What a provider's awaitable gives. It is cancelled after `_patience` seconds."""

    @abstractmethod
    def _cut(self) -> None:
        """Drop all connections at once."""

    # ---------------------------------------------------------------- what all do

    async def start(self) -> None:
        """Use the running loop from now on, until `stop`."""
        if self._process is not None:
            raise LocalProtocolError(f"a {self.what} can be entered only once: create a new one")
        self._process = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this process is a child of the one that entered it, and its sockets are the parent's."""
        return self._process not in (None, os.getpid())

    def check(self) -> None:
        """Raise `LocalProtocolError` unless it was entered, in this process and in this loop."""
        if self._process is None:
            raise LocalProtocolError(f"the {self.what} is not running yet: enter it with `async with`")
        if self.is_forked:
            raise LocalProtocolError(forked(self.what))
        if not self._is_here():
            raise LocalProtocolError(f"the {self.what} belongs to {self.elsewhere}")

    async def writable(self) -> None:
        """Wait while too much waits to be written."""
        await self.room.wait()
        while not self.room.is_set():
            await self.room.wait()

    async def quiet(self) -> None:
        """Wait until no socket is open and no connect under way."""
        while self.existing:
            await self._emptied.wait()

    def has_room(self) -> None:
        """The transport takes more again."""
        self.room.set()
        self._send_pong()

    def _send_pong(self) -> None:
        """Send the pong that there was no room for, if there is one."""
        pong, self._pong = self._pong, None
        if pong is not None:
            self._send(pong.conn, pong.data)

    def call(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the core. What it raises is the caller's; nothing has changed then."""
        self.check()
        if self.ended.is_set():
            raise LocalProtocolError(f"the {self.what} has ended") from self.error
        result = command(*args, now=self.now(), **kwargs)
        self._was_told()
        return result

    def fact(self, fact: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Tell the core a fact. What it raises is a bug, and the end."""
        if self.error is not None:
            return
        try:
            fact(*args, now=self.now(), **kwargs)
        except Exception as exc:
            self.end(exc)
        else:
            self._was_told()

    def drain(self) -> None:
        """Carry out what the core wants, and set the timer.

        A command that `on_event` gives drains nothing itself: its outputs follow those under way.
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
                    else:  # nearly all that comes
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
        if not self.connections and self.endpoint.is_closed:  # at rest a core has no connection
            self.end(None)

    _was_told = drain
    """The core was told a fact or a command. A driver may wait for more of them before it drains."""

    def _carry_out(self, output: Any) -> None:
        match output:
            case SendData() if output.is_pong and not self.room.is_set():
                self._pong = output
            case SendData():
                self._send_pong()  # before this: nothing may follow a close frame
                self._send(output.conn, output.data)
            case CloseTransport():
                logger.debug("connection %d: closing", output.conn, extra={"conn": output.conn})
                self._close(output.conn, output.abort)
            case OpenTransport():
                log_opening(logger, output, self._proxy)
                self._open(output)
            case AccessTokenNeeded() if self._provider is not None:
                # While a call is under way, its result is the answer.
                if not self._is_asking:
                    self._is_asking = True
                    self._start_asking(self._provider)
            case _:
                if self._monitor is not None:
                    self._monitor.saw(output)
                self._on_event(output)

    async def _ask(self, provider: TokenProvider) -> None:
        """Ask the provider, and tell the core. What comes after the end is dropped."""
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
        """It will have a socket."""
        self.existing.add(connection)
        if self._emptied.is_set():
            self._emptied = self.event_type()

    def _forget(self, conn: ConnId) -> C | None:
        """The core wants to hear no more of a connection, or has heard all."""
        connection = self.connections.pop(conn, None)
        if connection is not None:
            connection.forgotten = True
            self._pong = None
            self.room.set()
        return connection

    def _gone(self, connection: C) -> None:
        """It has none any more."""
        self.existing.discard(connection)
        if not self.existing:
            self._emptied.set()

    def end(self, error: Exception | None) -> None:
        """The core is closed, or something has failed. Only the first call counts."""
        if self.ended.is_set():
            return
        self.error = error
        self.ended.set()
        self._set_timer(None)
        if error is not None:
            self._cut()
        if self._monitor is not None:
            error = error or self._monitor.refusal
            self._monitor.end(error)
        self._on_end(error)
