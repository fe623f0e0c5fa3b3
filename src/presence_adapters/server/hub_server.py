"""`HubServer`: the hub behind a listening socket, on asyncio.

    async with HubServer(port=4000) as server:
        print(server.url)
        ...

Events are logged to the logger `presence_adapters.server`. A slow client does not delay other clients: each
client has its own write buffer, and a client that does not read is disconnected.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import evolve

from presence_adapters.errors import refuse
from presence_adapters.recording import Recording
from presence_adapters.server.hub_driver import MAX_WRITE_BUFFER, WRITE_BUDGET, WRITE_TIMEOUT, HubDriver
from presence_adapters.tls_and_proxies import os_error_words
from presence_adapters.wall_clock import utc_now
from presence_proto import ConfigError, Hub, HubConfig
from presence_proto.hub import (
    ClientConnected,
    ClientDisconnected,
    ClientRefused,
    JoinRefused,
    TopicJoined,
    TopicLeft,
)
from presence_proto.testing import FaultyHub

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    from presence_adapters.recording import Record
    from presence_proto import ConnId
    from presence_proto.hub import HubEvent


# ------------------------------------------------------------------------------------------------- open files
# The limit of open files of this process, which also limits the number of connections.


if sys.platform != "win32":
    import resource

    def open_files_limit() -> int | None:
        """Return the current soft limit, `RLIMIT_NOFILE`, or `None` when there is no limit."""
        return _known(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def raise_open_files_limit(wanted: int) -> None:
        """Raise the soft limit to `wanted` files, or to the hard limit if the hard limit is lower."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most, limit = _known(hard), _known(soft)
        enough = wanted if most is None else min(wanted, most)
        if limit is not None and limit < enough:
            with suppress(OSError, ValueError):  # macOS has another limit even if the hard limit is unlimited
                resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))

    def _known(limit: int) -> int | None:
        return None if limit == resource.RLIM_INFINITY else limit

else:

    def open_files_limit() -> int | None:
        """Return `None`, because no limit is known on Windows."""
        return None

    def raise_open_files_limit(wanted: int) -> None:
        """Do nothing on Windows."""


# ------------------------------------------------------------------------------------------------- hub server


T = TypeVar("T")

logger = logging.getLogger("presence_adapters.server")


BACKLOG = 1024
"""Maximum number of connections that wait to be accepted (the argument of `listen`)."""

TURN = 8
"""Maximum number of connections to accept before other tasks run. With TLS, each takes a millisecond."""

FILES_BESIDES = 64
"""Approximate number of open files of a process that are not client connections."""

TRY_AGAIN_LATER = 1013  # the close code for a client that reads too slowly

LONGEST = 200
"""Maximum number of characters of a peer's text that a log line quotes."""

PAUSE = 1.0
"""Seconds to wait after a failed accept, because file descriptors or memory may have run out."""


class HubServer:
    """A hub on a listening socket. The server listens inside the `async with` block.

    Leaving the block closes all connections gracefully. A cancellation drops all connections at once.

    `port=0` chooses a free port; see `port` and `url`. With an `ssl_context` the server accepts only TLS.

    The server disconnects clients that are too slow, with close code 1013. A client is too slow when it reads
    nothing for `write_timeout` seconds. A client is also too slow when more than `max_write_buffer` bytes
    that were sent at least a second ago are unread; the oldest message, of any size, does not count. When all
    clients together have more than `write_budget` unread bytes, the clients with the most unread bytes are
    too slow.

    - `rng` generates refs and presence keys. The default generator is seeded by the system.
    - `wall_clock` of the config is by default the system's time, in ISO 8601 and UTC.
    - `on_event` receives every `HubEvent` before the event is logged. `on_event` must not call the server.
      An exception from `on_event` stops the server.
    - `hub_type` is the class of `hub`, such as `presence_proto.testing.FaultyHub`.
    - `record` is a path or a text file for a recording that `presence replay` reads.
    """

    def __init__(
        self,
        config: HubConfig | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        max_write_buffer: int = MAX_WRITE_BUFFER,
        write_timeout: float = WRITE_TIMEOUT,
        write_budget: int = WRITE_BUDGET,
        rng: random.Random | None = None,
        on_event: Callable[[HubEvent], None] | None = None,
        hub_type: type[Hub] = Hub,
        record: Record | None = None,
    ) -> None:
        limits = {
            "max_write_buffer": max_write_buffer,
            "write_timeout": write_timeout,
            "write_budget": write_budget,
        }
        for name, limit in limits.items():
            if not limit > 0:
                raise ConfigError(f"{name} must be more than 0, not {limit}")
        config = HubConfig() if config is None else config
        if config.wall_clock is None:
            config = evolve(config, wall_clock=utc_now)
        config = config.listening_on(host)
        self._recording = Recording(record)
        self.hub = self._recording.hub(config, rng, hub_type)
        self._host = host
        self._port = port
        self._ssl_context = ssl_context
        self._on_event = on_event
        self._is_listening = True
        self._accepting: dict[socket.socket, asyncio.Task[None]] = {}  # accept tasks by listener
        self._handshake_timeout = config.handshake_timeout
        # The hub closes all connections within one `close_timeout`. Sending the pending data of these
        # connections takes at most one more `close_timeout`.
        self._patience = 2 * config.close_timeout
        self._driver = HubDriver(
            self.hub,
            self._happened,
            self._recording.until(self._ended),
            linger=config.close_timeout,
            max_write_buffer=max_write_buffer,
            max_connections=config.max_connections,
            max_connections_per_address=config.max_connections_per_address,
            write_timeout=write_timeout,
            write_budget=write_budget,
            on_slow=self._close_slow,
        )
        self._max_connections = config.max_connections

    # ---------------------------------------------------------------- getters

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self._port

    @property
    def url(self) -> str:
        """The base URL, such as `ws://127.0.0.1:4000`. Clients append `/realtime/v1` or `/socket`."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self._host, self._host)
        host = f"[{host}]" if ":" in host else host
        return f"{'ws' if self._ssl_context is None else 'wss'}://{host}:{self._port}"

    # ---------------------------------------------------------------- lifecycle

    async def start(self) -> None:
        """Start to listen. Raises `OSError` when the port is in use or not permitted."""
        await self._driver.start()
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            self._host or None, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with ExitStack() as opened:
            listeners: list[socket.socket] = []
            for family, _, _, _, address in dict.fromkeys(found):
                # All addresses of a host name use the same port, even if `port=0` chose it for the first one.
                where = (address[0], self._port, *address[2:])
                listener = opened.enter_context(socket.create_server(where, family=family, backlog=BACKLOG))
                listener.setblocking(False)
                listeners.append(listener)
                self._port = listener.getsockname()[1]
            self._recording.open()
            opened.pop_all()
        self._warn_of_few_files()
        for listener in listeners:
            task = loop.create_task(self._accept(listener))
            # Close the socket only after the task is done, when the loop no longer watches the socket.
            task.add_done_callback(partial(_close, listener))
            self._accepting[listener] = task

    async def close(self) -> None:
        """Stop gracefully, within twice `close_timeout`.

        The server refuses new connections and closes the open connections with code 1012.
        """
        try:
            await self._stop_listening()
            self._driver.cut_unopened()
            if not self._driver.ended.is_set():
                self._driver.call(self.hub.shutdown)
            async with asyncio.timeout(self._patience):
                await self._driver.quiet()
        except TimeoutError:
            pass
        finally:
            await self._driver.stop()

    async def abort(self) -> None:
        """Drop all connections at once, as if the process had been killed."""
        try:
            await self._stop_listening()
        finally:
            await self._driver.stop()

    async def wait_closed(self) -> None:
        """Wait until the server has stopped. Raises the internal error that stopped the server, if any."""
        await self._driver.ended.wait()
        if self._driver.error is not None:
            raise self._driver.error

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            await self.close()
        else:
            await self.abort()
        if error is None and self._driver.error is not None:
            raise self._driver.error

    # ---------------------------------------------------------------- commands

    def run(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the hub: `server.run(server.hub.broadcast, topic, event, payload)`.

        The outputs of the command are sent, and the events reported, in the next iteration of the event loop,
        together with the outputs and events of other calls.
        """
        return self._driver.call(command, *args, **kwargs)

    def set_faults(self, **changes: Any) -> None:
        """Change some of the `faults` of a `presence_proto.testing.FaultyHub`.

        Raises `LocalProtocolError` for an invalid value. Raises `TypeError` for an unknown fault, or if `hub`
        is not a `FaultyHub`.
        """
        if not isinstance(self.hub, FaultyHub):
            raise TypeError("only a hub with hub_type=FaultyHub has faults")
        self.run(self.hub.set_faults, **changes)

    def cut(self, conn: ConnId, *, reset: bool = False) -> None:
        """Break one connection without a WebSocket close. With `reset` the client receives a TCP RST."""
        self._driver.cut(conn, reset=reset)

    def cut_all(self, *, reset: bool = False) -> None:
        """Break all connections as `cut` does, including connections that are not open yet."""
        self._driver.cut_all(reset=reset)

    # ---------------------------------------------------------------- inside

    async def _accept(self, listener: socket.socket) -> None:
        # Not loop.create_server: a stopping server could not drop the connections whose TLS handshake is not
        # done, because only the loop knows them.
        loop = asyncio.get_running_loop()
        accepted = 0
        while self._is_listening:
            accepted += 1
            if accepted % TURN == 0:
                await asyncio.sleep(0)
            try:
                sock, address = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # the client has already closed the connection
            except OSError as exc:
                logger.error("cannot accept a connection: %s", os_error_words(exc))
                await asyncio.sleep(PAUSE)  # file descriptors or memory may have run out
                continue
            self._driver.accept(sock, address[0], self._ssl_context, self._handshake_timeout)

    def _warn_of_few_files(self) -> None:
        files = open_files_limit()
        needed = self._max_connections + FILES_BESIDES
        if files is not None and files < needed:
            logger.warning(
                "this process can open only %d files, too few for max_connections=%d: further "
                "connections will wait. Raise the limit to %d (ulimit -n), or lower max_connections",
                files,
                self._max_connections,
                needed,
            )

    async def _stop_listening(self) -> None:
        # A cancelled `sock_accept` loses a connection that it has just accepted. Therefore, first remove the
        # reader, then let the tasks take the connections that were accepted, and only then cancel the tasks.
        self._is_listening = False
        loop = asyncio.get_running_loop()
        for listener, task in self._accepting.items():
            if not task.done():
                with suppress(NotImplementedError):  # the proactor loop has no readers to remove
                    loop.remove_reader(listener)
        await asyncio.sleep(0)
        for task in self._accepting.values():
            task.cancel()
        if self._accepting:
            await asyncio.wait(self._accepting.values())

    def _close_slow(self, conn: ConnId, reason: str) -> None:
        logger.warning("client %d reads too slowly, and is disconnected: %s", conn, reason)
        self._driver.call(self.hub.disconnect, conn, TRY_AGAIN_LATER, f"too slow: {reason}")

    def _ended(self, error: Exception | None) -> None:
        for task in self._accepting.values():
            task.cancel()
        if error is not None:
            logger.error("the hub has failed", exc_info=error)

    def _happened(self, event: HubEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)
        match event:
            case ClientConnected():
                logger.info("client %d connected to %s", event.conn, _quoted(event.path))
            case ClientRefused():
                logger.warning(
                    "client %d was refused with HTTP %d: %s", event.conn, event.status, _quoted(event.reason)
                )
            case ClientDisconnected():
                logger.info("client %d disconnected (%s): %s", event.conn, event.code, _quoted(event.reason))
            case TopicJoined():
                logger.debug(
                    "client %d joined %s as %s", event.conn, _quoted(event.topic), _quoted(event.key)
                )
            case TopicLeft():
                logger.debug("client %d left %s: %s", event.conn, _quoted(event.topic), _quoted(event.reason))
            case JoinRefused():
                topic, reason = _quoted(event.topic), _quoted(event.reason)
                logger.warning("client %d may not join %s: %s", event.conn, topic, reason)


refuse(HubServer, "use `async with`, or presence_adapters.server.HubThread", "with")


def _close(listener: socket.socket, task: asyncio.Task[None]) -> None:
    listener.close()


def _quoted(text: str | None) -> str:
    # Quote the text with repr(), so that a peer cannot forge log lines.
    return repr(text if text is None or len(text) <= LONGEST else text[:LONGEST] + "…")
