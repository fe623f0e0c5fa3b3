"""A hub in a thread with a loop of its own, for clients that have none; waiting, and what may be left."""

from __future__ import annotations

import gc
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from adapters.fakes import sockets
from presence_adapters.server import HubThread
from presence_proto import ConnId, HubConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from presence_adapters.server import HubServer


def hub_thread(config: HubConfig | None = None, **options: Any) -> HubThread:
    """One that demands no key and tells of presence at once, unless the config says so."""
    return HubThread(HubConfig(presence_window=0) if config is None else config, **options)


def pause(hub: HubThread, paused: bool) -> None:
    """Read nothing from anybody, or read on: unlike that of a frozen hub, the kernel's buffers fill up."""

    def do(server: HubServer) -> None:
        for conn in server.hub.connections:
            transport: Any = server._driver.connections[ConnId(conn)].transport
            if paused:
                transport.pause_reading()
            else:
                transport.resume_reading()

    hub.run(do)


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
