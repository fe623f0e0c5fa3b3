"""`HubServer`: the hub behind a listening socket, on asyncio.

    async with HubServer(port=4000) as server:
        print(server.url)
        ...

Events are logged to `presence_adapters.server`. A slow client delays nobody else: each has a write
buffer of its own, and a client that does not read is cut off.
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

from presence_adapters.connecting import os_error_words
from presence_adapters.errors import refuse
from presence_adapters.recording import Recording
from presence_adapters.server.hub_driver import MAX_WRITE_BUFFER, WRITE_BUDGET, WRITE_TIMEOUT, HubDriver
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

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    from presence_adapters.recording import Record
    from presence_proto import ConnId
    from presence_proto.hub import HubEvent


# ------------------------------------------------------------------------------------------------- open files
# How many files, and so connections, this process may have open.


if sys.platform != "win32":
    import resource

    def open_files_limit() -> int | None:
        """The limit of now, `RLIMIT_NOFILE`; `None` when there is none."""
        return _known(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def raise_open_files_limit(wanted: int) -> None:
        """Let this process open so many files, or as many as it may without more rights."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most, limit = _known(hard), _known(soft)
        enough = wanted if most is None else min(wanted, most)
        if limit is not None and limit < enough:
            with suppress(OSError, ValueError):  # macOS has a limit of its own below "unlimited"
                resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))

    def _known(limit: int) -> int | None:
        return None if limit == resource.RLIM_INFINITY else limit

else:

    def open_files_limit() -> int | None:
        """The limit of now; `None` when there is none, or none that is known."""
        return None

    def raise_open_files_limit(wanted: int) -> None:
        """Let this process open so many files. Nothing is to be done here."""


# ------------------------------------------------------------------------------------------------- hub server


T = TypeVar("T")

logger = logging.getLogger("presence_adapters.server")


BACKLOG = 1024
"""Connections that may wait to be accepted."""

TURN = 8
"""Connections that are accepted in a row, while nobody else has a turn. With TLS each takes a millisecond."""

FILES_BESIDES = 64
"""Files that a process has open besides those of its connections, roughly."""

TRY_AGAIN_LATER = 1013  # the close code for a client that reads too slowly

LONGEST = 200
"""Characters of what a peer chose, in a line of the log."""

PAUSE = 1.0
"""Seconds until the next try when the system has no room for another connection."""


class HubServer:
    """Listens while it is entered. Leaving closes in an orderly way, or drops everything when cancelled.

    `port=0` takes a free one, see `port` and `url`. With an `ssl_context` it speaks TLS only.
    A client is too slow when it reads nothing for `write_timeout` seconds, or when it has more than
    `max_write_buffer` bytes unread of what was sent at least a second ago, the oldest message apart: that one
    may be of any size. When all clients together have more than `write_budget` bytes unread, those that have
    most of them are too slow. The close code for them is 1013, if they still read it.

    `rng` makes refs and presence keys; its default is seeded by the system. A `wall_clock` that the config
    lacks is the system's, ISO 8601 in UTC. `on_event` gets every `HubEvent` as it happens, before it is
    logged. It must not call the server back, and what it raises stops the server. `hub_type`: the class of
    `hub`, such as `presence_proto.testing.FaultyHub`. `record`: a path or a text file, to be written to for
    `presence replay`.
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
        self._accepting: dict[socket.socket, asyncio.Task[None]] = {}  # by listener, which it closes
        self._handshake_timeout = config.handshake_timeout
        # Closing takes the hub one close_timeout at most, and then each connection its linger.
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
        """The port that it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """Where it is, such as `ws://127.0.0.1:4000`. Clients add a path, `/realtime/v1` or `/socket`."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self._host, self._host)
        host = f"[{host}]" if ":" in host else host
        return f"{'ws' if self._ssl_context is None else 'wss'}://{host}:{self._port}"

    # ---------------------------------------------------------------- life

    async def start(self) -> None:
        """Listen. Raises `OSError` when the port is taken or not ours to take."""
        await self._driver.start()
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            self._host or None, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with ExitStack() as opened:
            listeners: list[socket.socket] = []
            for family, _, _, _, address in dict.fromkeys(found):
                # All addresses of one name get the same port, also when the first one has taken a free one.
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
            # By the time that this is called, the loop does not look at the socket any more.
            task.add_done_callback(partial(_close, listener))
            self._accepting[listener] = task

    async def close(self) -> None:
        """Stop in an orderly way: nobody new, close code 1012 for all, within twice `close_timeout`."""
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
        """Drop everything at once, as if the process had been killed."""
        try:
            await self._stop_listening()
        finally:
            await self._driver.stop()

    async def wait_closed(self) -> None:
        """Wait until it has stopped. Raises what stopped it, if that was an internal error."""
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

        What comes of it is written, and reported, in the next turn of the loop, with all else of this moment.
        """
        return self._driver.call(command, *args, **kwargs)

    def cut(self, conn: ConnId, *, reset: bool = False) -> None:
        """Break one connection without a goodbye, as a failing network does; with `reset`, as an RST does."""
        self._driver.cut(conn, reset=reset)

    def cut_all(self, *, reset: bool = False) -> None:
        """Break every connection so, those that are not open yet, too."""
        self._driver.cut_all(reset=reset)

    # ---------------------------------------------------------------- inside

    async def _accept(self, listener: socket.socket) -> None:
        # Not loop.create_server: it keeps connections to itself until their TLS handshake is done, and a
        # server that stops could not drop those.
        loop = asyncio.get_running_loop()
        accepted = 0
        while self._is_listening:
            accepted += 1
            if accepted % TURN == 0:
                await asyncio.sleep(0)
            try:
                sock, address = await loop.sock_accept(listener)
            except ConnectionError:
                continue  # gone again already
            except OSError as exc:
                logger.error("cannot accept a connection: %s", os_error_words(exc))
                await asyncio.sleep(PAUSE)  # out of files or memory: others must go first
                continue
            self._driver.accept(sock, address[0], self._ssl_context, self._handshake_timeout)

    def _warn_of_few_files(self) -> None:
        files = open_files_limit()
        needed = self._max_connections + FILES_BESIDES
        if files is not None and files < needed:
            logger.warning(
                "this process may open %d files, too few for max_connections=%d: further connections "
                "will wait. Raise the limit to %d (ulimit -n), or lower max_connections",
                files,
                self._max_connections,
                needed,
            )

    async def _stop_listening(self) -> None:
        # `sock_accept` loses a connection that it accepts in the moment in which it is cancelled. So first no
        # more are looked for, and what has just come is taken.
        self._is_listening = False
        loop = asyncio.get_running_loop()
        for listener, task in self._accepting.items():
            if not task.done():
                with suppress(NotImplementedError):  # the proactor loop takes care of it by itself
                    loop.remove_reader(listener)
        await asyncio.sleep(0)
        for task in self._accepting.values():
            task.cancel()
        if self._accepting:
            await asyncio.wait(self._accepting.values())

    def _close_slow(self, conn: ConnId, reason: str) -> None:
        logger.warning("%d reads too slowly, and is cut off: %s", conn, reason)
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
                logger.info("%d connected to %s", event.conn, _quoted(event.path))
            case ClientRefused():
                logger.warning("%d refused with HTTP %d: %s", event.conn, event.status, _quoted(event.reason))
            case ClientDisconnected():
                logger.info("%d disconnected (%s): %s", event.conn, event.code, _quoted(event.reason))
            case TopicJoined():
                logger.debug("%d joined %s as %s", event.conn, _quoted(event.topic), _quoted(event.key))
            case TopicLeft():
                logger.debug("%d left %s: %s", event.conn, _quoted(event.topic), _quoted(event.reason))
            case JoinRefused():
                topic, reason = _quoted(event.topic), _quoted(event.reason)
                logger.warning("%d may not join %s: %s", event.conn, topic, reason)


refuse(HubServer, "use `async with`, or presence_adapters.server.HubThread", "with")


def _close(listener: socket.socket, task: asyncio.Task[None]) -> None:
    listener.close()


def _quoted(text: str | None) -> str:
    """What a peer chose, for the log: as a repr, which cannot forge lines, and not longer than a line."""
    return repr(text if text is None or len(text) <= LONGEST else text[:LONGEST] + "…")
