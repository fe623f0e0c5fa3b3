"""Ctrl-C and SIGTERM, for programs that end in an orderly way."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


@contextmanager
def on_stop_signal(callback: Callable[[], object]) -> Iterator[None]:
    """The first SIGINT or SIGTERM runs `callback` in the loop. The next one does what it did before: end it
    for good.
    """
    loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def stop(number: int, frame: object) -> None:
        restore()
        # Through the loop: a signal comes between any two lines of it, or while it sleeps.
        loop.call_soon_threadsafe(callback)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


async def until_stopped(main: Coroutine[Any, Any, None], seconds: float | None = None) -> None:
    """Run `main` until it ends, `seconds` have passed, or SIGINT or SIGTERM comes. Raises what it raises."""
    stop = asyncio.Event()
    with on_stop_signal(stop.set):
        running, stopping = asyncio.create_task(main), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([running, stopping], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
        finally:
            running.cancel()
            stopping.cancel()
            await asyncio.wait([running, stopping])
