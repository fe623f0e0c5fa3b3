"""Faults planted in the two drivers of `write-your-own.md`. The check names the duty of each."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from adapters.fakes import Certificates
from presence_adapters.testing import DutyError, check_driver
from test_embedding_guides import PROGRAMS

pytestmark = pytest.mark.long

UNKNOWN = "a certificate of an unknown authority is refused"
OTHER = "a certificate for another host is refused"
DEAD = "a dead address does not hold up the others"
REFUSED = "all addresses of a name are tried"
NEXT = "a new connection waits for the closing one"
WRITE = "data that arrived before a failed write is received"
TICK = "data that has arrived comes before the tick"
ENDLESS = "endless data does not stop the clock"
GOODBYE = "a close waits for the end of the peer"
NOT_READING = "a peer that does not read cannot hold up a close"
NOT_ENDING = "a peer that does not end cannot hold up a close"

NO_CERTIFICATE = "ssl_context or ssl.create_default_context()", "ssl._create_unverified_context()"
WRONG_NAME = "server_hostname=host", 'server_hostname="127.0.0.1"'

FIRST_OF_THE_PLAIN = "type=socket.SOCK_STREAM):", "type=socket.SOCK_STREAM)[:1]:"
FIRST_OF_TASKS = (
    "trio.open_tcp_stream(host, port)",
    "trio.open_tcp_stream((await trio.socket.getaddrinfo(host, port))[0][4][0], port)",
)
LATER = """\
                    self.sock.sendall(self.unsent)
                    self.sock.shutdown(socket.SHUT_WR)
                    in_background(self.sock, self.life)
                    self.life = self.sock = None
"""
WRITE_ON = """\
            with suppress(OSError):  # not now; or never again, as reading shows after what came in before
                del self.unsent[: self.sock.send(self.unsent[:65536])]
"""
READERS_FIRST = """\
                    await trio.sleep(0.001)  # `read` goes first: a reply that has arrived is in time
"""
CLOSE_AT_ONCE = """\
            try:
                del self.unsent[: self.sock.send(self.unsent[:65536])]
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            except OSError as exc:
                return self.do(life.throw(exc))
"""
TICK_FIRST = """\
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.do(self.core.tick)
        if is_new or len(waits) > 1 and sock in ready:
"""
GO_ON_READING = """\
                        await link.attempt(link.stream.send_all, data)  # if it fails, `read` goes on
"""
CANCEL_AT_ONCE = """\
                        try:
                            await link.stream.send_all(data)
                        except (OSError, trio.BrokenResourceError):
                            await trio.aclose_forcefully(link.stream)
                            link.scope.cancel()
"""
WAIT_FOR_SILENCE = """\
                    self.news.set()
                    while self.news.is_set():
                        self.news = trio.Event()
                        await trio.sleep(0.001)
"""

# Each fault: its duty, the text that is replaced, and the text that replaces it.
PLAIN_FAULTS = [
    (UNKNOWN, *NO_CERTIFICATE),
    (OTHER, *WRONG_NAME),
    (DEAD, *FIRST_OF_THE_PLAIN),
    (REFUSED, *FIRST_OF_THE_PLAIN),
    (NEXT, "                    self.say_goodbye(self.sock)\n", LATER),
    (WRITE, WRITE_ON, CLOSE_AT_ONCE),
    (TICK, "        if is_new or len(waits) > 1 and sock in ready:\n", TICK_FIRST),
    (ENDLESS, "                    yield self.sock, READ  # let the clock have its turn\n", ""),
    (GOODBYE, "            while sock.recv(65536) and time.monotonic() < until:\n                pass\n", ""),
    (NOT_READING, "sock.settimeout(self.linger)", "sock.settimeout(None)"),
    (NOT_ENDING, " and time.monotonic() < until", ""),
]
TASK_FAULTS = [
    (UNKNOWN, *NO_CERTIFICATE),
    (OTHER, *WRONG_NAME),
    (DEAD, *FIRST_OF_TASKS),
    (REFUSED, *FIRST_OF_TASKS),
    (NEXT, "async with self.one_at_a_time:", "if True:"),
    (
        WRITE,
        GO_ON_READING,
        CANCEL_AT_ONCE,
    ),
    (TICK, READERS_FIRST, ""),
    (ENDLESS, READERS_FIRST, WAIT_FOR_SILENCE),
    (GOODBYE, "                await self.say_goodbye(link)\n", ""),
    (NOT_READING, "self.linger if link.is_open", "3600.0 if link.is_open"),
    (NOT_ENDING, "self.linger if link.is_open", "3600.0 if link.is_open"),
]
PLAIN, TASKS = PROGRAMS["write-your-own"][:2]
MASKED = (TASKS, True, WRITE)  # trio runs the reader before the writer sees the failure
FAULTS = [
    pytest.param(program, tls, *fault, id=f"{kind}-{'tls' if tls else 'plain'}-{fault[0].replace(' ', '_')}")
    for kind, program, faults in (("loop", PLAIN, PLAIN_FAULTS), ("tasks", TASKS, TASK_FAULTS))
    for fault in faults
    for tls in (False, True)
    if (tls or fault[0] not in (UNKNOWN, OTHER)) and (program, tls, fault[0]) != MASKED
]


def in_background(sock: Any, life: Any) -> None:
    """Close a connection when its peer does."""

    def wait() -> None:
        sock.settimeout(5.0)
        sock.recv(1)
        life.close()

    threading.Thread(target=wait).start()


def with_fault(program: str, old: str, new: str) -> Any:
    """Return the driver of the program in which `old` is replaced by `new`."""
    assert program.count(old) == 1
    namespace: dict[str, Any] = {"__name__": "my_driver", "in_background": in_background}
    exec(program.replace(old, new), namespace)
    return namespace["Driver"]


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates("127.0.0.1")


@pytest.mark.parametrize(("program", "tls", "duty", "old", "new"), FAULTS)
def test_fault(program: str, tls: bool, duty: str, old: str, new: str, certificates: Certificates) -> None:
    driver = with_fault(program, old, new)
    with pytest.raises(DutyError) as caught:
        check_driver(
            lambda: driver(ssl_context=certificates.client if tls else None),
            server_context=certificates.server if tls else None,
            duties=[duty],
        )
    assert caught.value.duties == [duty]
