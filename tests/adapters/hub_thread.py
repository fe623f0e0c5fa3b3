"""A `HubServer` in a thread with a loop of its own, for clients that have none."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from adapters.fakes import sockets
from presence_adapters.hub_server import HubServer
from presence_proto import ConnId, Hub, HubConfig

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")


class HubThread:
    """The server and its loop. Everything that is done to it is done in its thread."""

    def __init__(self, server: HubServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self.url = server.url
        self.port = server.port

    def do(self, call: Callable[[HubServer], T]) -> T:
        async def run() -> T:
            return call(self._server)

        return self._await(run())

    def hub(self, look: Callable[[Hub], T]) -> T:
        return self.do(lambda server: look(server.hub))

    def cut(self, number: int = 0, *, reset: bool = False) -> None:
        """Break the connection that came first, second, …, of those that are there."""
        self.do(lambda server: server.cut(server.hub.connections[number], reset=reset))

    def pause(self, paused: bool) -> None:
        """Read nothing from anybody, or read on."""

        def do(server: HubServer) -> None:
            for conn in server.hub.connections:
                transport: Any = server._driver.connections[ConnId(conn)].transport
                if paused:
                    transport.pause_reading()
                else:
                    transport.resume_reading()

        self.do(do)

    def _await(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)


@contextmanager
def hub_thread(
    config: HubConfig | None = None, *, port: int = 0, ssl_context: ssl.SSLContext | None = None
) -> Iterator[HubThread]:
    started: list[HubThread] = []
    ready, stop = threading.Event(), []

    async def main() -> None:
        async with HubServer(config, port=port, ssl_context=ssl_context) as server:
            over = asyncio.Event()
            stop.append(over.set)
            started.append(HubThread(server, asyncio.get_running_loop()))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield started[0]
    finally:
        started[0]._loop.call_soon_threadsafe(stop[0])
        thread.join(20)
        assert not thread.is_alive()


def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be so"
        time.sleep(0.002)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fail when a socket or thread is left behind."""
    files, threads = sockets(), set(threading.enumerate())
    yield
    until(lambda: set(threading.enumerate()) <= threads)
    gc.collect()
    until(lambda: sockets() <= files)
