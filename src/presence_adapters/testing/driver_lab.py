"""Tools of the driver check: a scripted core that checks its driver's calls, and a scripted server."""

from __future__ import annotations

import _socket
import math
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from presence_proto import CloseTransport, ConnId, OpenTransport, SendData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from presence_proto import Endpoint

Handler: TypeAlias = "Callable[[socket.socket], object]"

PATIENCE = 10.0  # seconds; the default time limit
PROMPT = 3.0  # seconds; the time limit for a driver that must stop


UNTRUSTED = Path(__file__).with_name("untrusted.pem")
"""Self-signed certificate for 127.0.0.1, with its key. It is valid until 2126, and no client trusts it."""


class DutyFailedError(Exception):
    """The driver under test failed the duty that runs."""


class NotTriedError(Exception):
    """The duty that runs cannot be checked on this machine or with this driver."""


class Driver(Protocol):
    """Interface of the driver under test. Each driver is used for one run."""

    def run(self, endpoint: Endpoint) -> None:
        """Drive `endpoint` until `endpoint.is_closed`. Begin with a drain.

        Return when all data that was sent before an orderly close is written, and no socket is left open.
        Raise the exceptions that the endpoint raises.
        """
        ...

    def cancel(self) -> None:
        """Make `run` return or raise soon, with nothing left open. Called from another thread."""
        ...


class ScriptedEndpoint:
    """Scripted core: an `Endpoint` that records its driver's mistakes in `faults`.

    Each fact calls its callable `on_…`, if it has one. The callable may queue outputs with `put`, set the
    timer with `after`, or `end` the script.
    """

    def __init__(self, *outputs: Any) -> None:
        self.outputs: deque[Any] = deque(outputs)
        self.deadline: float | None = None
        self.is_closed = False
        self.facts: list[str] = []
        self.received = bytearray()
        self.reason: str | None = None  # the reason of the last transport_closed
        self.faults: list[str] = []
        self.calls = 0  # number of calls by the driver
        self.late = 0.0  # the largest delay of a tick, in seconds
        self.on_opened: Callable[[], None] = lambda: None
        self.on_data: Callable[[], None] = lambda: None
        self.on_closed: Callable[[], None] = lambda: None
        self._due: Callable[[], None] = lambda: None
        self._now = -math.inf
        self._live: set[ConnId] = {output.conn for output in outputs if isinstance(output, OpenTransport)}

    def put(self, *outputs: Any) -> None:
        """Queue outputs. Like every core, forget a connection when it is closed."""
        for output in outputs:
            if isinstance(output, OpenTransport):
                self._live.add(output.conn)
            elif isinstance(output, CloseTransport):
                self._live.discard(output.conn)
            self.outputs.append(output)

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Set the only timer: call `do` when `seconds` have passed since the last fact.

        Before the first fact, the driver's clock is unknown. Then the deadline is 0 at first. It has passed
        on every clock, so the driver calls `tick` at once and passes its time.
        """
        if self._now == -math.inf:
            self.deadline, self._due = 0.0, lambda: self.after(seconds, do)
        else:
            self.deadline, self._due = self._now + seconds, do

    def end(self, *outputs: Any) -> None:
        """Queue outputs, and close the endpoint."""
        self.put(*outputs)
        self.deadline = None
        self.is_closed = True

    # -- facts

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """See `Endpoint`."""
        if self._fact("transport_opened", conn, now):
            self.on_opened()

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """See `Endpoint`."""
        if self._fact("receive_data", conn, now):
            if "transport_opened" not in self.facts:
                self.faults.append("receive_data was called before transport_opened")
            self.received += data
            self.on_data()

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """See `Endpoint`."""
        if self._fact("transport_closed", conn, now):
            self._live.discard(conn)
            self.reason = reason
            self.on_closed()

    def tick(self, *, now: float) -> None:
        """See `Endpoint`."""
        self._fact("tick", None, now)
        if self.deadline is not None and now >= self.deadline:
            if self.deadline:
                self.late = max(self.late, now - self.deadline)
            self.deadline = None
            self._due()

    # -- outputs

    def drain(self) -> Sequence[Any]:
        """Return all outputs, oldest first."""
        self.calls += 1
        outputs = tuple(self.outputs)
        self.outputs.clear()
        return outputs

    def next_deadline(self) -> float | None:
        """Return the deadline. To read it before all outputs are drained is a fault of the driver."""
        self.calls += 1
        if self.outputs:
            self.faults.append("next_deadline was read before the outputs were drained")
        return self.deadline

    def _fact(self, name: str, conn: ConnId | None, now: float) -> bool:
        self.calls += 1
        if self.outputs:
            self.faults.append(f"{name} was called before the outputs of the last fact were drained")
        if not math.isfinite(now):
            self.faults.append(f"{name} was called with now={now!r}")
        elif now < self._now:
            self.faults.append(f"the clock went backwards by {self._now - now:g} s")
        self._now = now
        self.facts.append(name)
        return conn is None or conn in self._live  # like a real core, ignore dropped connections


class Server:
    """Loopback server. A thread runs `handler` for each connection. Without a handler, accept none."""

    def __init__(
        self,
        handler: Handler | None,
        context: ssl.SSLContext | None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._handler = handler
        self._context = context
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(address, family=family, backlog=0 if handler is None else 16)
        self.errors: list[Exception] = []
        self.accepted = 0  # number of accepted connections
        self.port: int = self._listener.getsockname()[1]
        if handler is None:
            # Fill the backlog: further connections are neither accepted nor refused.
            for _ in range(2):
                sock = socket.socket(family)
                sock.setblocking(False)
                with suppress(BlockingIOError):
                    sock.connect(self._listener.getsockname())
                self._sockets.append(sock)
            time.sleep(0.05)
        else:
            self._start(self._accept)

    def open_up(self, handler: Handler) -> None:
        """Start to accept connections, with `handler`."""
        for sock in self._sockets:
            sock.close()
        self._handler = handler
        self._start(self._accept)

    def close(self) -> None:
        """Close every socket and wait for the threads."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock = self._listener.accept()[0]
                self.accepted += 1
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(sock)
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        assert self._handler is not None
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
                self._sockets.append(sock)
            self._handler(sock)
        except OSError:
            pass  # the driver closed its end; the duty decides whether that is legal
        except Exception as exc:
            self.errors.append(exc)
        finally:
            sock.close()


@contextmanager
def localhost_is(first: str, second: str) -> Iterator[list[str]]:
    """Make `localhost` resolve to these two addresses, in this order. Yields a list of the names looked up.

    This patches `_socket.getaddrinfo`, which `socket.getaddrinfo` calls, and the resolver of gevent, too.
    """
    real = _socket.getaddrinfo
    names: list[str] = []

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if host not in ("localhost", b"localhost"):
            return real(host, port, *args, **kwargs)
        names.append("localhost")
        found: list[Any] = []
        for address in (first, second):
            with suppress(socket.gaierror):  # the address is not of the requested family
                found += real(address, port, *args, **kwargs)
        return found

    _socket.getaddrinfo = getaddrinfo
    try:
        yield names
    finally:
        _socket.getaddrinfo = real


def read_all(sock: socket.socket) -> bytes:
    """Return all data up to the end of the stream or an error."""
    data = bytearray()
    with suppress(OSError):
        while chunk := sock.recv(1 << 16):
            data += chunk
    return bytes(data)


def fill(sock: socket.socket, size: int) -> int:
    """Send up to `size` bytes, as far as the peer's system takes them. Return the number of bytes sent."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # hardly more is on the way at the end
    sock.settimeout(0.1)
    sent = 0
    with suppress(TimeoutError):
        while sent < size:
            sent += sock.send(bytes(min(4096, size - sent)))
    return sent


def reset(sock: socket.socket) -> None:
    """Close the socket with a TCP reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(sock, ssl.SSLSocket):
        socket.socket(fileno=sock.detach()).close()
    else:
        sock.close()


def other_address() -> str:
    """Return a loopback address of this machine that is not 127.0.0.1. Raise `NotTriedError` without one."""
    for address, family in ("::1", socket.AF_INET6), ("127.0.0.2", socket.AF_INET):
        with suppress(OSError), socket.socket(family) as sock:
            sock.bind((address, 0))
            return address
    raise NotTriedError("this machine has only one loopback address")


class DriverLab:
    """Environment of one duty: servers, and the driver under test in its own thread."""

    def __init__(self, make_driver: Callable[[], Driver], context: ssl.SSLContext | None) -> None:
        self.tls = context is not None
        self._make_driver = make_driver
        self._context = context

    @contextmanager
    def host_with_two_addresses(self, handler: Handler, *, first_is_dead: bool) -> Iterator[Server]:
        """Context manager: a plain TCP server at the second address of `localhost`.

        The first address refuses connections. If it `is_dead`, it neither accepts nor refuses them. Raise
        `NotTriedError` if the driver gets the addresses from a resolver that cannot be patched.
        """
        first = other_address()
        server = Server(handler, None)
        dead: Server | None = None
        try:
            if first_is_dead:
                dead = Server(None, None, (first, server.port))
            with localhost_is(first, "127.0.0.1") as names:
                yield server
            if not names:
                raise NotTriedError("the driver does not look up names with Python's `socket.getaddrinfo`")
        finally:
            server.close()
            if dead is not None:
                dead.close()

    @contextmanager
    def server(
        self,
        handler: Handler | None,
        context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> Iterator[Server]:
        """Context manager: a server that runs `handler`. Raise `DutyFailedError` when the handler failed."""
        server = Server(handler, context or self._context, (host, 0))
        try:
            yield server
        finally:
            server.close()
        if server.errors:
            raise DutyFailedError(f"the server failed: {server.errors[0]!r}")

    def untrusted(self) -> ssl.SSLContext:
        """Return the context of a server whose certificate the driver must refuse."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(UNTRUSTED)
        return context

    def require_tls(self) -> None:
        """Raise `NotTriedError` unless the check uses TLS."""
        if not self.tls:
            raise NotTriedError("this check has no server_context")

    def open(self, conn: int, port: int, host: str = "127.0.0.1") -> OpenTransport:
        """Return the output that opens a connection."""
        return OpenTransport(ConnId(conn), host, port, self.tls)

    def send(self, conn: int, data: bytes) -> SendData:
        """Return the output that sends data."""
        return SendData(ConnId(conn), data)

    def close(self, conn: int, *, abort: bool = False) -> CloseTransport:
        """Return the output that closes a connection."""
        return CloseTransport(ConnId(conn), abort)

    def require(self, condition: bool, reason: str) -> None:
        """Raise `DutyFailedError` unless `condition`."""
        if not condition:
            raise DutyFailedError(reason)

    def start(self, exam: ScriptedEndpoint) -> DriverRun:
        """Start a driver on `exam`."""
        return DriverRun(self, self._make_driver(), exam)

    def run(self, exam: ScriptedEndpoint, *, within: float = PATIENCE) -> None:
        """Run a driver on `exam`. The driver must return in at most `within` seconds, without a fault."""
        self.start(exam).finish(within=within)


class DriverRun:
    """One run of a driver, in its own thread."""

    def __init__(self, lab: DriverLab, driver: Driver, exam: ScriptedEndpoint) -> None:
        self.error: BaseException | None = None
        self._lab = lab
        self._driver = driver
        self._exam = exam
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._driver.run(self._exam)
        except BaseException as exc:
            self.error = exc

    @property
    def is_running(self) -> bool:
        """Whether `run` has not returned yet."""
        return self._thread.is_alive()

    def cancel(self) -> None:
        """Cancel the driver, and wait for the end of `run`."""
        self._lab.require(self.is_running, f"run() ended before it was cancelled: {self.error!r}")
        self._driver.cancel()
        self._thread.join(PROMPT)
        if self.is_running:
            raise DutyFailedError(f"run() continued for {PROMPT:g} s after cancel(){self._position()}")
        self._find_faults()

    def finish(self, *, within: float = PATIENCE) -> None:
        """Wait for the end of `run`. It must return, and not raise."""
        self.join(within=within)
        if self.error is not None:
            raise DutyFailedError(f"run() raised {self.error!r}") from self.error

    def join(self, *, within: float = PATIENCE) -> None:
        """Wait for the end of `run`, at most `within` seconds. Raise `DutyFailedError` for a driver fault."""
        self._thread.join(within)
        if self.is_running:
            position = self._position()
            self._driver.cancel()
            self._thread.join(PROMPT)
            seen = ", ".join(dict.fromkeys(self._exam.facts)) or "none"
            raise DutyFailedError(f"run() did not return within {within:g} s; facts so far: {seen}{position}")
        self._find_faults()

    def _position(self) -> str:
        """Return the stack of the thread of `run`, from the call of `run`, as the end of an error text."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = [entry for entry in traceback.extract_stack(frame) if entry.filename not in _FRAMES_OF_OURS]
        return "; it stands here:\n" + "".join(traceback.format_list(stack)).rstrip()

    def _find_faults(self) -> None:
        if self._exam.faults:
            raise DutyFailedError(self._exam.faults[0])


_FRAMES_OF_OURS = {__file__, threading.__file__}
