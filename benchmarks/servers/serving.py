"""The Python side of the protocol between the benchmark and a server."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Protocol

from benchmarks.requests import allow_many_files, answer, requests


class Server(Protocol):
    """Something that is listening."""

    @property
    def port(self) -> int:
        """Where."""
        ...

    def prepare(self, texts: list[str]) -> None:
        """Get ready to say these. Not timed."""
        ...

    async def say(self, first: int, last: int) -> None:
        """Say those from `first` to before `last` to everybody, in one moment. Timed."""
        ...


async def serve(server: Server) -> None:
    """Do what is asked for on stdin, until it ends."""
    print_port(server.port)
    start = 0.0
    async for request in requests():
        if "cpu" in request:
            answer(cpu=time.process_time() - start)
            continue
        texts, together = request["texts"], request["together"]
        server.prepare(texts)
        gc.collect()
        start = time.process_time()
        for first in range(0, len(texts), together):
            await server.say(first, min(first + together, len(texts)))
            await asyncio.sleep(0)  # the moment is over
        answer(said=len(texts))


def print_port(port: int) -> None:
    """Be ready."""
    allow_many_files()
    answer(port=port)
