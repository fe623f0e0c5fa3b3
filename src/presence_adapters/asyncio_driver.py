"""Runs one core, client or hub, on the running asyncio loop: its connections, its one timer, its outputs.

Every duty is one method: a fact of asyncio becomes a fact of the core, an output of the core becomes a call
of asyncio. There is no retry, sleep or heartbeat here; those are the core's.
"""

from __future__ import annotations

import asyncio
import os
import struct
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Any, TypeVar, cast

from presence_adapters.connecting import client_context, why_lost, why_not_connected
from presence_proto import CloseTransport, ConnId, LocalProtocolError, OpenTransport, SendData

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Coroutine

    from presence_proto import Endpoint

T = TypeVar("T")

LINGER_NOT = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""The value of SO_LINGER that makes closing a socket an RST."""


class Connection(asyncio.Protocol):
    """One byte stream. `forgotten`: the core wants to hear no more of it."""

    def __init__(self, driver: Driver, conn: ConnId | None = None) -> None:
        self.driver = driver
        self.conn = conn  # None until a peer's connection is accepted
        self.transport: asyncio.Transport | None = None
        self.accepted: socket.socket | None = None  # a peer's that the loop does not know of yet
        self.making: asyncio.Task[str | None] | None = None
        self.lingering: asyncio.TimerHandle | None = None
        self.forgotten = False
        self.is_over = False
        self.fate: str | None = None  # why it ended, when we know better than the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.driver.opened(self)

    def data_received(self, data: bytes) -> None:
        self.driver.fact(self.driver.endpoint.receive_data, self.conn, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self.driver.lost(self, self.fate or why_lost(exc))

    def pause_writing(self) -> None:
        if not self.forgotten:
            self.driver.writable.clear()

    def resume_writing(self) -> None:
        if not self.forgotten:
            self.driver.writable.set()

    def cut(self, *, reset: bool = False) -> None:
        """Drop the connection at once; `reset`: the peer sees an RST instead of an orderly end."""
        if self.transport is not None:
            if reset and (sock := self.transport.get_extra_info("socket")) is not None:
                sock.setsockopt(SOL_SOCKET, SO_LINGER, LINGER_NOT)
            self.transport.abort()
        elif self.making is not None:
            self.making.cancel()


class Driver:
    """Drives `endpoint` until it is closed or fails.

    `on_event` gets every output that is not about a transport. `on_end` is called once: with `None` when the
    core is closed, or with the exception that a fact or a drain raised (a bug), which ends everything.
    `linger`: seconds that an orderly closed connection has to take what was written. `max_write_buffer`: a
    peer that leaves more bytes than this unread is cut off. `batch`: drain once for all facts of one pass of
    the loop, so that a busy hub writes once to each peer; the order of things stays the same.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        on_event: Callable[[Any], None],
        on_end: Callable[[Exception | None], None],
        *,
        ssl_context: ssl.SSLContext | None = None,
        linger: float = 5.0,
        max_write_buffer: int | None = None,
        batch: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.connections: dict[ConnId, Connection] = {}  # those that the core knows
        self.writable = asyncio.Event()  # cleared while a write buffer is over its limit
        self.ended = asyncio.Event()
        self.quiet = asyncio.Event()  # no socket is open, no connect under way
        self.error: Exception | None = None
        self._on_event = on_event
        self._on_end = on_end
        self._ssl_context = ssl_context
        self._linger = linger
        self._max_write_buffer = max_write_buffer
        self._batch = batch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._existing: set[Connection] = set()  # with a socket, or on the way to one
        self._last_conn = 0
        self._timer: asyncio.TimerHandle | None = None
        self._armed: float | None = None  # what the timer is set to
        self._drain_soon: asyncio.Handle | None = None
        self.writable.set()
        self.quiet.set()

    def start(self) -> None:
        """Use the running loop from now on."""
        if self._loop is not None:
            raise LocalProtocolError("this can be entered only once: make a new one")
        self._loop = asyncio.get_running_loop()

    # ---------------------------------------------------------------- commands and facts

    def call(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the core. What it raises is the caller's; nothing has changed then."""
        if self._loop is None:
            raise LocalProtocolError("this is not running yet: use `async with`")
        if self.ended.is_set():
            raise LocalProtocolError("this has ended") from self.error
        result = command(*args, now=self._loop.time(), **kwargs)
        self._drain()
        return result

    def fact(self, fact: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Tell the core a fact. What it raises is a bug, and the end."""
        assert self._loop is not None
        if self.error is not None:
            return
        try:
            fact(*args, now=self._loop.time(), **kwargs)
        except Exception as exc:
            self._end(exc)
        else:
            if not self._batch:
                self._drain()
            elif self._drain_soon is None:
                self._drain_soon = self._loop.call_soon(self._drain)

    def opened(self, connection: Connection) -> None:
        """A socket is there (and its TLS): one that the core asked for, or a peer's."""
        assert connection.transport is not None
        if connection.conn is None:
            self._last_conn += 1
            connection.conn = ConnId(self._last_conn)
            self.connections[connection.conn] = connection
        if connection.forgotten or self.ended.is_set():
            # It came too late: the core has closed it while it was on its way, or is closed itself.
            self._forget(connection.conn)
            connection.transport.abort()
            # uvloop does not report the end of a connection whose making was cancelled at the last moment.
            connection.is_over = True
            self._check_quiet(connection)
        else:
            self.fact(self.endpoint.transport_opened, connection.conn)

    def accept(self, sock: socket.socket, ssl_context: ssl.SSLContext | None, timeout: float) -> None:
        """A peer has connected. If it is to be TLS, `timeout` is for its handshake."""
        connection = Connection(self)
        connection.accepted = sock
        self._make(connection, self._welcome(connection, sock, ssl_context, timeout))

    def lost(self, connection: Connection, reason: str) -> None:
        """A connection is gone, or could not be made."""
        if connection.lingering is not None:
            connection.lingering.cancel()
        connection.is_over = True
        self._check_quiet(connection)
        if not connection.forgotten:
            assert connection.conn is not None
            self._forget(connection.conn)
            self.fact(self.endpoint.transport_closed, connection.conn, reason=reason)

    def _time_is_up(self) -> None:
        self._timer = self._armed = None
        self.fact(self.endpoint.tick)

    # ---------------------------------------------------------------- outputs

    def _drain(self) -> None:
        if self._drain_soon is not None:
            self._drain_soon.cancel()
            self._drain_soon = None
        if self.error is not None:
            return
        try:
            while (output := self.endpoint.next_output()) is not None:
                match output:
                    case SendData():
                        self._send(output.conn, output.data)
                    case CloseTransport():
                        self._close(output.conn, output.abort)
                    case OpenTransport():
                        self._open(output)
                    case _:
                        self._on_event(output)
            deadline = self.endpoint.next_deadline()
        except Exception as exc:
            self._end(exc)
            return
        self._arm(deadline)
        if self.endpoint.is_closed:
            self._end(None)

    def _arm(self, deadline: float | None) -> None:
        if deadline == self._armed:
            return
        self._armed = deadline
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            assert self._loop is not None
            self._timer = self._loop.call_at(deadline, self._time_is_up)

    def _send(self, conn: ConnId, data: bytes) -> None:
        connection = self.connections.get(conn)
        if connection is None or (transport := connection.transport) is None or transport.is_closing():
            return  # it has ended already; its connection_lost is on the way
        transport.write(data)
        if self._max_write_buffer is not None and transport.get_write_buffer_size() > self._max_write_buffer:
            connection.fate = f"it left more than {self._max_write_buffer} bytes unread"
            transport.abort()

    def _close(self, conn: ConnId, abort: bool) -> None:
        connection = self._forget(conn)
        if connection is None:
            return
        if abort or connection.transport is None:
            connection.cut()
        else:
            assert self._loop is not None
            connection.transport.close()
            connection.lingering = self._loop.call_later(self._linger, connection.cut)

    def _open(self, wanted: OpenTransport) -> None:
        connection = self.connections[wanted.conn] = Connection(self, wanted.conn)
        self._make(connection, self._connect(connection, wanted))

    # ---------------------------------------------------------------- making connections

    def _make(self, connection: Connection, making: Coroutine[Any, Any, str | None]) -> None:
        assert self._loop is not None
        self._existing.add(connection)
        self.quiet.clear()
        connection.making = self._loop.create_task(making)
        # Not at the end of the coroutine: cancelled before its first step, it never runs.
        connection.making.add_done_callback(lambda task: self._made(connection, task))

    async def _connect(self, connection: Connection, wanted: OpenTransport) -> str | None:
        """Returns why there is no connection, if so."""
        assert self._loop is not None
        try:
            if wanted.tls and self._ssl_context is None:
                self._ssl_context = client_context(None)
            context = self._ssl_context if wanted.tls else None
            await self._loop.create_connection(lambda: connection, wanted.host, wanted.port, ssl=context)
        except (OSError, UnicodeError) as exc:
            return why_not_connected(exc, wanted.host, wanted.port)
        return None

    async def _welcome(
        self, connection: Connection, sock: socket.socket, context: ssl.SSLContext | None, timeout: float
    ) -> None:
        assert self._loop is not None
        connection.accepted = None  # from here on the loop closes it
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=context,
                ssl_handshake_timeout=None if context is None else timeout,
            )
        except OSError:
            pass  # no TLS, or they do not trust us: the core never hears of them

    def _made(self, connection: Connection, task: asyncio.Task[str | None]) -> None:
        connection.making = None
        if connection.transport is None:
            connection.is_over = True
            if connection.accepted is not None:
                connection.accepted.close()
        self._check_quiet(connection)
        if task.cancelled():
            return
        try:
            failure = task.result()
        except Exception as exc:
            self._end(exc)
        else:
            if failure is not None:
                self.lost(connection, failure)

    # ---------------------------------------------------------------- the end

    def cut(self, *, unopened: bool = False) -> None:
        """Drop all connections at once, or those that are not open yet. The core hears of the open ones."""
        for connection in list(self._existing):
            if connection.transport is None or not unopened:
                connection.cut()

    async def stop(self) -> None:
        """Drop what is left, and wait until it is gone. After this nothing runs any more."""
        try:
            self.cut()
            await self.quiet.wait()
            self._drain()
        finally:
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self.ended.is_set():
            return
        self.ended.set()
        self.error = error
        if error is not None:
            self.cut()
        self._arm(None)
        if self._drain_soon is not None:
            self._drain_soon.cancel()
        self.writable.set()
        self._on_end(error)

    def _forget(self, conn: ConnId) -> Connection | None:
        connection = self.connections.pop(conn, None)
        if connection is not None:
            connection.forgotten = True
            self.writable.set()  # if it was this one that did not take more
        return connection

    def _check_quiet(self, connection: Connection) -> None:
        if connection.is_over and connection.making is None:
            self._existing.discard(connection)
        if not self._existing:
            self.quiet.set()
