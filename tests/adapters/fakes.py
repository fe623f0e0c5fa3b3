"""An endpoint that does as it is told, a loop that leaves nothing behind, and certificates."""

from __future__ import annotations

import asyncio
import gc
import ssl
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import trustme

from presence_proto import ConnId

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

CONN = ConnId(1)


class FakeEndpoint:
    """Notes every fact; `on(fact, action)` says what it does then. Outputs are put into `outputs`."""

    def __init__(self) -> None:
        self.facts: list[tuple[Any, ...]] = []
        self.times: list[float] = []
        self.outputs: deque[Any] = deque()
        self.deadline: float | None = None
        self.is_closed = False
        self.is_connected = False
        self.drains = 0
        self._actions: dict[str, Callable[..., None]] = {}

    def on(self, fact: str, action: Callable[..., None]) -> None:
        self._actions[fact] = action

    def _note(self, fact: str, *args: Any, now: float) -> None:
        self.facts.append((fact, *args))
        self.times.append(now)
        if fact in self._actions:
            self._actions[fact](*args)

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        self._note("opened", conn, now=now)

    def receive_data(self, conn: ConnId, data: bytes, *, now: float) -> None:
        self._note("data", conn, bytes(data), now=now)

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        self._note("closed", conn, reason, now=now)

    def tick(self, *, now: float) -> None:
        self._note("tick", now=now)

    def do(self, *outputs: Any, now: float) -> str:
        """A command: gives these outputs."""
        self.outputs.extend(outputs)
        return "done"

    def drain(self) -> list[Any]:
        outputs: list[Any] = []
        while self.outputs and not isinstance(self.outputs[0], Exception):
            outputs.append(self.outputs.popleft())
        if not outputs and self.outputs:
            raise self.outputs.popleft()
        self.drains += 1
        return outputs

    def wants_data(self, conn: ConnId) -> bool:
        return True

    def next_deadline(self) -> float | None:
        return self.deadline


def sockets() -> set[str]:
    """The sockets that this process has open (Linux)."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir() if sys.platform == "linux" else ():
        try:
            target = str(fd.readlink())
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def run(
    main: Callable[[], Coroutine[Any, Any, T]],
    *,
    seconds: float = 20.0,
    debug: bool = False,
    collect: bool = True,
) -> T:
    """Run `main`; fail when it takes too long, leaves a task or socket behind, or the loop complains.

    Sockets are found by collecting garbage, which takes its time. Without `collect` they are not looked for.
    """
    complaints: list[dict[str, Any]] = []
    before = sockets()

    async def guarded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        async with asyncio.timeout(seconds):
            result = await main()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        assert not tasks, f"left behind: {tasks}"
        return result

    result = asyncio.run(guarded(), debug=debug)
    if collect:
        gc.collect()
        assert sockets() <= before
    assert not complaints, complaints
    return result


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


class Certificates:
    """A certificate authority of our own, a server certificate of it, and a client that trusts it."""

    def __init__(self, *names: str) -> None:
        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names or ("127.0.0.1", "localhost")).configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)
