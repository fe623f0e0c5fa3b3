"""The stdin of a process with an event loop: a line of JSON is a request, and so is its answer."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import AsyncIterator
from typing import Any

LONGEST = 1 << 24
"""Bytes of a request: it may hold hundreds of messages."""


async def requests() -> AsyncIterator[dict[str, Any]]:
    """What is asked for, until the end of stdin."""
    reader = asyncio.StreamReader(limit=LONGEST)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def answer(**facts: Any) -> None:
    """Answer one."""
    print(json.dumps(facts), flush=True)


def allow_many_files() -> None:
    """As many sockets as the system lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
