"""What the drivers of asyncio and trio have in common: facts in, outputs out, one timer, one end.

There is no retry, sleep or heartbeat here; those are the core's.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from presence_adapters.access_tokens import answer, is_async, refuse
from presence_adapters.connecting import log_opening
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
    from presence_proto import ConnId, Endpoint, Proxy

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ORDERS = frozenset({SendData, CloseTransport, OpenTransport, AccessTokenNeeded})
"""The outputs that are no events."""


class Event(Protocol):
    """Something that happens once and can be waited for: `asyncio.Event`, `trio.Event`."""

    def is_set(self) -> bool: ...
    def set(self) -> object: ...
    async def wait(self) -> object: ...


class Connection(Protocol):
    """One byte stream, from the wish for it to its end. `forgotten`: the core wants to hear no more of it."""

    forgotten: bool


C = TypeVar("C", bound=Connection)


class AsyncDriver(ABC, Generic[C]):
    """Drives `endpoint` until it is closed or fails.

    `on_event` gets every output that is not about a transport. `on_end` is called once: with `None` when the
    core is closed, or with the exception that a fact or a drain raised (a bug), which ends everything.
    `proxy`: the one on the way. `provider` is asked for access tokens, and an `async` one has `patience`
    seconds. `linger`: seconds that an orderly closed connection has to take what was written.
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
    ) -> None:
        self.endpoint = endpoint
        self.ended = self.event_type()
        self.error: Exception | None = None
        self.connections: dict[ConnId, C] = {}  # those that the core knows: a client has one at most
        self.existing: set[C] = set()  # with a socket, or on the way to one
        self.room = self.event_type()  # to write more
        self.room.set()
        self._emptied = self.event_type()  # `existing` was
        self._on_event = logged_events(on_event)
        self._on_end = on_end
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._provider = provider
        self._patience = patience
        self._is_asking = False  # the provider
        self._linger = linger
        self._is_started = False

    # ---------------------------------------------------------------- what each loop does in its own way

    event_type: ClassVar[type[Event]]
    checkpoints: ClassVar[bool] = False  # whether waiting for what has happened lets others have a turn

    @abstractmethod
    async def stop(self) -> None:
        """Drop what is left, and wait until it is gone. After this nothing runs any more."""

    @abstractmethod
    def _now(self) -> float: ...

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
        if self._is_started:
            raise LocalProtocolError("this can be entered only once: make a new one")
        self._is_started = True

    async def writable(self) -> None:
        """Wait while too much waits to be written."""
        await self.room.wait()
        while not self.room.is_set():
            await self.room.wait()

    async def quiet(self) -> None:
        """Wait until no socket is open and no connect under way."""
        while self.existing:
            await self._emptied.wait()

    def call(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the core. What it raises is the caller's; nothing has changed then."""
        if not self._is_started:
            raise LocalProtocolError("this is not running yet: use `async with`")
        if self.ended.is_set():
            raise LocalProtocolError("this has ended") from self.error
        result = command(*args, now=self._now(), **kwargs)
        self._was_told()
        return result

    def fact(self, fact: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Tell the core a fact. What it raises is a bug, and the end."""
        if self.error is not None:
            return
        try:
            fact(*args, now=self._now(), **kwargs)
        except Exception as exc:
            self.end(exc)
        else:
            self._was_told()

    def _was_told(self) -> None:
        """The core was told a fact or a command. A driver may wait for more of them before it drains."""
        self.drain()

    def drain(self) -> None:
        """Carry out what the core wants, and set the timer."""
        if self.error is not None:
            return
        try:
            on_event = self._on_event
            for output in iter(self.endpoint.next_output, None):
                if type(output) not in _ORDERS:  # nearly all that comes
                    on_event(output)
                    continue
                match output:
                    case SendData():
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
                        self._on_event(output)
            self._set_timer(self.endpoint.next_deadline())
        except Exception as exc:
            self.end(exc)
            return
        if self.endpoint.is_closed:
            self.end(None)

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
        self._on_end(error)
