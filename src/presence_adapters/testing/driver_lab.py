"""What the driver check works with: a scripted core that watches its driver, and a scripted server."""

from __future__ import annotations

import math
import socket
import ssl
import struct
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from presence_proto import CloseTransport, ConnId, OpenTransport, SendData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from presence_proto import Endpoint

Handler: TypeAlias = "Callable[[socket.socket], object]"

PATIENCE = 10.0  # seconds that a driver has for anything
PROMPT = 3.0  # seconds that a driver has to stop when told so


class DutyError(AssertionError):
    """A driver does not do one of its duties; `duty` names it."""

    def __init__(self, duty: str, reason: str) -> None:
        super().__init__(f"{duty}: {reason}")
        self.duty = duty
        self.reason = reason

    def __reduce__(self) -> tuple[type[DutyError], tuple[str, str]]:
        return type(self), (self.duty, self.reason)


class Driver(Protocol):
    """A driver, as the check wants it. It is made for one run."""

    def run(self, endpoint: Endpoint) -> None:
        """Drive `endpoint`, beginning with a drain, until `endpoint.is_closed`.

        Return when all that was sent before an orderly close is written, and nothing is left open. What the
        endpoint raises comes out of here.
        """
        ...

    def cancel(self) -> None:
        """Called from another thread: make `run` end soon, in whatever way, with nothing left open."""
        ...


class ScriptedEndpoint:
    """A core that is a script. It does what `Endpoint` says, and notes what its driver does wrong.

    Facts are given to the `on_…` callables, which queue outputs with `put`, set the timer with `after`, and
    `end` it.
    """

    def __init__(self, *outputs: Any) -> None:
        self.outputs: deque[Any] = deque(outputs)
        self.deadline: float | None = None
        self.is_closed = False
        self.facts: list[str] = []
        self.received = bytearray()
        self.reason: str | None = None  # of the last transport_closed
        self.faults: list[str] = []
        self.calls = 0  # of anything
        self.late = 0.0  # the most that a tick was late, in seconds
        self.on_opened: Callable[[], None] = lambda: None
        self.on_data: Callable[[], None] = lambda: None
        self.on_closed: Callable[[], None] = lambda: None
        self._due: Callable[[], None] = lambda: None
        self._now = -math.inf
        self._live: set[ConnId] = {output.conn for output in outputs if isinstance(output, OpenTransport)}

    def put(self, *outputs: Any) -> None:
        """Queue outputs. A closed connection is forgotten, as every core does."""
        for output in outputs:
            if isinstance(output, OpenTransport):
                self._live.add(output.conn)
            elif isinstance(output, CloseTransport):
                self._live.discard(output.conn)
            self.outputs.append(output)

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Set the one timer: `do` this, `seconds` from the last fact.

        Before the first fact the driver's clock is not known; a deadline of 0, which is past on every clock,
        gets a tick that shows it.
        """
        if self._now == -math.inf:
            self.deadline, self._due = 0.0, lambda: self.after(seconds, do)
        else:
            self.deadline, self._due = self._now + seconds, do

    def end(self, *outputs: Any) -> None:
        """Queue these, and be at rest."""
        self.put(*outputs)
        self.deadline = None
        self.is_closed = True

    # -- facts

    def transport_opened(self, conn: ConnId, *, now: float) -> None:
        """A fact."""
        if self._fact("transport_opened", conn, now):
            self.on_opened()

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """A fact."""
        if self._fact("receive_data", conn, now):
            if "transport_opened" not in self.facts:
                self.faults.append("receive_data came before transport_opened")
            self.received += data
            self.on_data()

    def transport_closed(self, conn: ConnId, *, now: float, reason: str = "eof") -> None:
        """A fact."""
        if self._fact("transport_closed", conn, now):
            self._live.discard(conn)
            self.reason = reason
            self.on_closed()

    def tick(self, *, now: float) -> None:
        """A fact."""
        self._fact("tick", None, now)
        if self.deadline is not None and now >= self.deadline:
            if self.deadline:
                self.late = max(self.late, now - self.deadline)
            self.deadline = None
            self._due()

    # -- outputs

    def drain(self) -> Sequence[Any]:
        """All outputs, oldest first."""
        self.calls += 1
        outputs = tuple(self.outputs)
        self.outputs.clear()
        return outputs

    def next_deadline(self) -> float | None:
        """The deadline, to be read when drained."""
        self.calls += 1
        if self.outputs:
            self.faults.append("next_deadline was read before the outputs were drained")
        return self.deadline

    def _fact(self, name: str, conn: ConnId | None, now: float) -> bool:
        self.calls += 1
        if self.outputs:
            self.faults.append(f"{name} came before the outputs of the last fact were drained")
        if not math.isfinite(now):
            self.faults.append(f"{name} had now={now!r}")
        elif now < self._now:
            self.faults.append(f"the clock went backwards by {self._now - now:g} s")
        self._now = now
        self.facts.append(name)
        return conn is None or conn in self._live  # a real core ignores others, too


class Server:
    """A loopback server with a thread that runs `handler` for each connection; `None`: it accepts nobody."""

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
        self.port: int = self._listener.getsockname()[1]
        if handler is None:
            # A full backlog: what comes now is neither accepted nor refused.
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
        """Accept from now on, after all."""
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
            pass  # the driver's end of it is gone; whether it may be is for the duty to judge
        except Exception as exc:
            self.errors.append(exc)
        finally:
            sock.close()


@contextmanager
def localhost_is(first: str, second: str) -> Iterator[None]:
    """Have `localhost` stand for these two addresses, in this order, for who asks Python's `socket`."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        found: list[Any] = real(host, port, *args, **kwargs)
        if host not in ("localhost", b"localhost"):
            return found
        found = []
        for address in (first, second):
            with suppress(socket.gaierror):  # of the other family than the one that is asked for
                found += real(address, port, *args, **kwargs)
        return found

    socket.getaddrinfo = getaddrinfo
    try:
        yield
    finally:
        socket.getaddrinfo = real


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream, in whatever way it ends."""
    data = bytearray()
    with suppress(OSError):
        while chunk := sock.recv(1 << 16):
            data += chunk
    return bytes(data)


def reset(sock: socket.socket) -> None:
    """Close with an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(sock, ssl.SSLSocket):
        socket.socket(fileno=sock.detach()).close()
    else:
        sock.close()


def _has(address: str) -> bool:
    """Whether this machine has an IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind((address, 0))
    except OSError:
        return False
    return True


class DriverLab:
    """Where one duty is checked: servers, and the driver under test in a thread of its own."""

    def __init__(self, duty: str, make_driver: Callable[[], Driver], context: ssl.SSLContext | None) -> None:
        self.duty = duty
        self.tls = context is not None
        self._make_driver = make_driver
        self._context = context

    @contextmanager
    def half_dead_host(self, handler: Handler) -> Iterator[Server]:
        """A server at the second address of `localhost`, for the time of a `with` block, in plain TCP.

        The first address takes no connection and refuses none. A driver that looks names up in a way of its
        own may find the second one only.
        """
        dead_address = "::1" if _has("::1") else "127.0.0.2"
        server = Server(handler, None)
        try:
            dead = Server(None, None, (dead_address, server.port))
            try:
                with localhost_is(dead_address, "127.0.0.1"):
                    yield server
            finally:
                dead.close()
        finally:
            server.close()

    @contextmanager
    def server(self, handler: Handler | None) -> Iterator[Server]:
        """A server for the time of a `with` block."""
        server = Server(handler, self._context)
        try:
            yield server
        finally:
            server.close()
        if server.errors:
            raise self.failed(f"the server failed: {server.errors[0]!r}")

    def open(self, conn: int, port: int, host: str = "127.0.0.1") -> OpenTransport:
        """The output that opens a connection."""
        return OpenTransport(ConnId(conn), host, port, self.tls)

    def send(self, conn: int, data: bytes) -> SendData:
        """The output that sends."""
        return SendData(ConnId(conn), data)

    def close(self, conn: int, *, abort: bool = False) -> CloseTransport:
        """The output that closes a connection."""
        return CloseTransport(ConnId(conn), abort)

    def failed(self, reason: str) -> DutyError:
        """The failure of this duty."""
        return DutyError(self.duty, reason)

    def require(self, condition: bool, reason: str) -> None:
        """Fail unless `condition`."""
        if not condition:
            raise self.failed(reason)

    def start(self, exam: ScriptedEndpoint) -> DriverRun:
        """Run a driver on `exam`."""
        return DriverRun(self, self._make_driver(), exam)

    def run(self, exam: ScriptedEndpoint, *, within: float = PATIENCE) -> None:
        """Run a driver on `exam` to its end, which must come, and find no fault."""
        self.start(exam).finish(within=within)


class DriverRun:
    """One run of a driver."""

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

    def cancel(self) -> None:
        """Cancel it, and wait for its end."""
        self._lab.require(self._thread.is_alive(), f"run() ended before it was cancelled: {self.error!r}")
        self._driver.cancel()
        self._thread.join(PROMPT)
        self._lab.require(not self._thread.is_alive(), f"run() went on for {PROMPT:g} s after cancel()")
        self._find_faults()

    def finish(self, *, within: float = PATIENCE) -> None:
        """Wait for its end, which must be a return."""
        self.join(within=within)
        if self.error is not None:
            raise self._lab.failed(f"run() raised {self.error!r}") from self.error

    def join(self, *, within: float = PATIENCE) -> None:
        """Wait for its end."""
        self._thread.join(within)
        if self._thread.is_alive():
            self._driver.cancel()
            self._thread.join(PROMPT)
            seen = ", ".join(dict.fromkeys(self._exam.facts)) or "none"
            raise self._lab.failed(f"run() did not return within {within:g} s; facts so far: {seen}")
        self._find_faults()

    def _find_faults(self) -> None:
        if self._exam.faults:
            raise self._lab.failed(self._exam.faults[0])
