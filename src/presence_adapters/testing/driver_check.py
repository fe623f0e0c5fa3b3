"""`check_driver`: conformance test of a driver, modeled on trio's checks of streams.

Each duty runs the driver with a scripted core against a scripted server on loopback, and observes both ends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from presence_adapters.testing.driver_lab import (
    PATIENCE,
    PROMPT,
    Driver,
    DriverLab,
    DutyError,
    ScriptedEndpoint,
    read_all,
    reset,
)
from presence_proto import ConnId, OpenTransport

if TYPE_CHECKING:
    import socket
    import ssl

__all__ = ["DUTIES", "Driver", "DutyError", "check_driver"]

MIB = 1 << 20
ON_TIME = 0.5  # the most seconds by which a tick may be late, on a busy host

Duty: TypeAlias = Callable[[DriverLab], None]
DUTIES: dict[str, Duty] = {}
"""Duty name -> check, in the order of the checks."""


def check_driver(
    make_driver: Callable[[], Driver],
    *,
    server_context: ssl.SSLContext | None = None,
    duties: Iterable[str] | None = None,
) -> None:
    """Check a driver against all duties, or the named `duties`. Raise `DutyError` for the first failure.

    `make_driver` is called for every run. With a `server_context` (a certificate for 127.0.0.1), connections
    use TLS, and the drivers must trust it. All duties take about half a minute. Linux and macOS only.
    """
    for name in DUTIES if duties is None else duties:
        # Report a leak only if a second run leaks, too: a driver may keep resources, such as a thread pool.
        if _leftover(name, make_driver, server_context) is not None:
            leftover = _leftover(name, make_driver, server_context)
            if leftover is not None:
                raise DutyError(name, f"the driver left a {leftover} open")


def _leftover(
    name: str, make_driver: Callable[[], Driver], server_context: ssl.SSLContext | None
) -> str | None:
    """Check a duty. Return the kind of the leaked resource, or `None`."""
    threads, files = threading.active_count(), _open_files()
    DUTIES[name](DriverLab(name, make_driver, server_context))
    if not _wait_until(lambda: threading.active_count() <= threads):
        return "thread"
    return None if _wait_until(lambda: _open_files() <= files) else "socket or file"


def _open_files() -> int:
    return len(os.listdir("/dev/fd"))


def _wait_until(condition: Callable[[], bool]) -> bool:
    """Whether `condition` becomes true within `PROMPT` seconds."""
    deadline = time.monotonic() + PROMPT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def duty(check: Duty) -> Duty:
    """Decorator: register a duty under its function name, with spaces."""
    DUTIES[check.__name__.replace("_", " ")] = check
    return check


# ---------------------------------------------------------------------------------------------- connecting


@duty
def connect_talk_and_close(lab: DriverLab) -> None:
    """The driver opens, sends, receives and closes in order, and `run` returns."""
    heard = []

    def handler(sock: socket.socket) -> None:
        sock.sendall(b"hello")
        heard.append(read_all(sock))

    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))
        exam.on_opened = lambda: exam.put(lab.send(1, b"one"), lab.send(1, b" two"))

        def on_data() -> None:
            if exam.received == b"hello":
                exam.end(lab.send(1, b" three"), lab.close(1))

        exam.on_data = on_data
        lab.run(exam)
        _wait_until(lambda: bool(heard))
    lab.require(exam.facts.count("transport_opened") == 1, "transport_opened was not called exactly once")
    lab.require(exam.received == b"hello", f"{bytes(exam.received)!r} was received instead of b'hello'")
    lab.require(heard == [b"one two three"], f"the server received {heard!r} instead of b'one two three'")


@duty
def a_refused_connection_is_reported(lab: DriverLab) -> None:
    """A refused connection is reported as `transport_closed`, with a reason."""
    with lab.server(lambda sock: None) as server:
        port = server.port
    _expect_no_connection(lab, "127.0.0.1", port)


@duty
def a_name_that_does_not_resolve_is_reported(lab: DriverLab) -> None:
    """A host name that does not resolve is reported as `transport_closed`, with a reason."""
    _expect_no_connection(lab, "no-such-host.invalid", 80)


def _expect_no_connection(lab: DriverLab, host: str, port: int) -> None:
    exam = ScriptedEndpoint(lab.open(1, port, host))
    exam.on_closed = exam.end
    lab.run(exam, within=3 * PATIENCE)
    lab.require(
        "transport_opened" not in exam.facts, "transport_opened was called for a connection that failed"
    )
    lab.require(bool(exam.reason), "transport_closed had no reason")


@duty
def a_dead_address_does_not_hold_up_the_others(lab: DriverLab) -> None:
    """The driver tries the second address of a name when the first one does not respond (RFC 8305)."""
    with lab.half_dead_host(read_all) as server:
        exam = ScriptedEndpoint(OpenTransport(ConnId(1), "localhost", server.port, tls=False))
        exam.on_opened = lambda: exam.end(lab.close(1))
        exam.on_closed = exam.end
        lab.run(exam)
    lab.require("transport_opened" in exam.facts, f"no connection: {exam.reason}")


@duty
def a_connect_that_never_finishes_is_given_up(lab: DriverLab) -> None:
    """A `CloseTransport` during the connect, such as after the core's timeout, stops the connect."""
    with lab.server(None) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))
        exam.after(0.3, lambda: exam.end(lab.close(1, abort=True)))
        lab.run(exam, within=PROMPT)
    lab.require(
        "transport_opened" not in exam.facts,
        "transport_opened was called, but the connection was not accepted",
    )


@duty
def a_connect_that_finishes_too_late_is_dropped(lab: DriverLab) -> None:
    """A connection that opens after its `CloseTransport` is not reported and sends nothing."""
    heard = []

    def handler(sock: socket.socket) -> None:
        heard.append(read_all(sock))

    with lab.server(None) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))

        def abort() -> None:
            exam.put(lab.close(1), lab.open(2, server.port))
            exam.on_opened = exam.on_closed = lambda: None
            exam.after(2.5, lambda: exam.end(lab.close(2)))

        exam.after(0.2, abort)
        run = lab.start(exam)
        time.sleep(0.4)
        server.open_up(handler)
        run.finish()
    lab.require(exam.facts.count("transport_opened") < 2, "transport_opened was called after CloseTransport")
    lab.require(not any(heard), "data was sent after CloseTransport")


@duty
def the_core_reconnects(lab: DriverLab) -> None:
    """The driver opens a new connection for every `OpenTransport` of the core."""
    with lab.server(lambda sock: sock.sendall(b"bye")) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))

        def again() -> None:
            rounds = exam.facts.count("transport_closed")
            if rounds < 4:
                exam.put(lab.open(rounds + 1, server.port))
            else:
                exam.end()

        exam.on_closed = again
        lab.run(exam)
    lab.require(exam.received == b"bye" * 4, f"{bytes(exam.received)!r} was received over four connections")


@duty
def outputs_are_carried_out_in_order(lab: DriverLab) -> None:
    """Data that was sent before a close arrives. A connection can be opened after a close."""
    heard: list[bytes] = []
    with lab.server(lambda sock: heard.append(read_all(sock))) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))

        def on_opened() -> None:
            if exam.facts.count("transport_opened") == 1:
                exam.put(lab.send(1, b"first"), lab.close(1), lab.open(2, server.port))
            else:
                exam.end(lab.send(2, b"second"), lab.close(2))

        exam.on_opened = on_opened
        lab.run(exam)
        _wait_until(lambda: len(heard) == 2)
    lab.require(sorted(heard) == [b"first", b"second"], f"the server received {heard!r}")


# ---------------------------------------------------------------------------------------------- the stream


@duty
def single_bytes_arrive_in_order(lab: DriverLab) -> None:
    """A stream that arrives one byte at a time is received unchanged."""
    sent = bytes(range(256))

    def handler(sock: socket.socket) -> None:
        for byte in sent:
            sock.sendall(bytes([byte]))
            time.sleep(0.001)  # without a pause the bytes are read together
        read_all(sock)

    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))
        exam.on_data = lambda: _close_once(lab, exam, len(sent))
        lab.run(exam)
    lab.require(exam.received == sent, "the received bytes differ from the sent bytes")


@duty
def much_data_arrives(lab: DriverLab) -> None:
    """16 MiB are received, and 16 MiB are sent to a slow peer before an orderly close."""
    size, heard = 16 * MIB, []
    sent = os.urandom(MIB) * 16

    def handler(sock: socket.socket) -> None:
        sock.sendall(sent)
        time.sleep(0.3)
        heard.append(read_all(sock))

    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))

        def on_data() -> None:
            if len(exam.received) == size:
                exam.end(lab.send(1, sent), lab.close(1))

        exam.on_data = on_data
        lab.run(exam, within=3 * PATIENCE)
        _wait_until(lambda: bool(heard))
    lab.require(exam.received == sent, "the received bytes differ from the sent bytes")
    lab.require(
        heard == [sent], f"{len(heard[0]) if heard else 0} of {size} bytes were sent before the close"
    )


@duty
def an_abort_waits_for_nobody(lab: DriverLab) -> None:
    """With `abort=True`, unwritten data is dropped, and `run` returns although the peer reads nothing."""
    size, heard = 64 * MIB, []
    stop = threading.Event()

    def handler(sock: socket.socket) -> None:
        stop.wait(2 * PATIENCE)
        heard.append(len(read_all(sock)))

    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))

        def on_opened() -> None:
            exam.put(lab.send(1, bytes(size)))
            exam.after(0.3, lambda: exam.end(lab.close(1, abort=True)))

        exam.on_opened = on_opened
        try:
            lab.run(exam, within=PROMPT)
        finally:
            stop.set()
        _wait_until(lambda: bool(heard))
    lab.require(bool(heard) and heard[0] < size, "everything was written before the abort")


@duty
def a_blocked_write_blocks_nothing_else(lab: DriverLab) -> None:
    """While the peer reads nothing, data is received and ticks are on time. All sent data arrives later."""
    size, heard = 32 * MIB, []
    came_in = threading.Event()

    def handler(sock: socket.socket) -> None:
        for _ in range(10):
            time.sleep(0.1)
            sock.sendall(b"x")
        came_in.wait(PATIENCE)
        heard.append(len(read_all(sock)))

    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))
        ticks = [0]

        def on_tick() -> None:
            ticks[0] += 1
            exam.after(0.05, on_tick)

        def on_opened() -> None:
            exam.put(lab.send(1, bytes(size)))
            exam.after(0.05, on_tick)

        def on_data() -> None:
            if len(exam.received) == 10:
                came_in.set()
                exam.end(lab.close(1))

        exam.on_opened = on_opened
        exam.on_data = on_data
        lab.run(exam, within=PATIENCE)
        _wait_until(lambda: bool(heard))
    lab.require(ticks[0] >= 3, f"only {ticks[0]} ticks came while the write was blocked")
    lab.require(exam.late < ON_TIME, f"a tick was {exam.late:.2f} s late while the write was blocked")
    lab.require(heard == [size], f"{heard} of {size} bytes were written")


def _close_once(lab: DriverLab, exam: ScriptedEndpoint, size: int) -> None:
    if len(exam.received) == size:
        exam.end(lab.close(1))


@duty
def the_end_of_the_stream_is_reported(lab: DriverLab) -> None:
    """Data before the end of the stream is delivered first. The end is reported with a reason."""
    with lab.server(lambda sock: sock.sendall(b"last words")) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))
        exam.on_closed = exam.end
        lab.run(exam)
    lab.require(exam.received == b"last words", f"{bytes(exam.received)!r} was received before the end")
    lab.require(exam.facts.count("transport_closed") == 1, "transport_closed was not called exactly once")
    lab.require(bool(exam.reason), "transport_closed had no reason")


@duty
def a_reset_is_reported(lab: DriverLab) -> None:
    """A TCP reset is reported as `transport_closed`, with a reason."""

    def handler(sock: socket.socket) -> None:
        sock.recv(5)
        reset(sock)

    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))
        exam.on_opened = lambda: exam.put(lab.send(1, b"hello"))
        exam.on_closed = exam.end
        lab.run(exam)
    lab.require(bool(exam.reason), "transport_closed had no reason")


# ---------------------------------------------------------------------------------------------- time


@duty
def a_silent_peer_does_not_stop_the_clock(lab: DriverLab) -> None:
    """On a connection without incoming data, the driver calls `tick` on time for every deadline."""
    with lab.server(read_all) as server:
        exam, ticks = ScriptedEndpoint(lab.open(1, server.port)), [0]

        def on_tick() -> None:
            ticks[0] += 1
            if ticks[0] < 10:
                exam.after(0.05, on_tick)
            else:
                exam.end(lab.close(1))

        exam.on_opened = lambda: exam.after(0.05, on_tick)
        lab.run(exam)
    lab.require(exam.late < ON_TIME, f"a tick was {exam.late:.2f} s late")


@duty
def waiting_costs_nothing(lab: DriverLab) -> None:
    """Between two deadlines the driver sleeps. It neither spins nor polls."""
    with lab.server(read_all) as server:
        exam, calls = ScriptedEndpoint(lab.open(1, server.port)), [0]

        def over() -> None:
            calls[0] = exam.calls - calls[0]
            exam.end(lab.close(1))

        def begin() -> None:
            calls[0] = exam.calls
            exam.after(1.0, over)

        exam.on_opened = lambda: exam.after(0.1, begin)
        lab.run(exam)
    lab.require(calls[0] <= 20, f"the core was called {calls[0]} times in a second in which nothing happened")


@duty
def a_deadline_that_moves_is_followed(lab: DriverLab) -> None:
    """A new, earlier deadline takes effect at once. The driver calls no `tick` for the replaced deadline."""

    def handler(sock: socket.socket) -> None:
        time.sleep(0.2)
        sock.sendall(b"x")
        read_all(sock)

    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))
        exam.on_opened = lambda: exam.after(60.0, lambda: None)
        exam.on_data = lambda: exam.after(0.1, lambda: exam.end(lab.close(1)))
        lab.run(exam, within=PROMPT)
    lab.require(exam.late < ON_TIME, f"the tick was {exam.late:.2f} s late")


# ---------------------------------------------------------------------------------------------- the end


@duty
def a_core_at_rest_needs_no_driver(lab: DriverLab) -> None:
    """`run` returns at once when the core is already closed."""
    exam = ScriptedEndpoint()
    exam.end()
    lab.run(exam, within=PROMPT)


@duty
def a_bug_in_the_core_comes_out(lab: DriverLab) -> None:
    """`run` raises an exception of the core, and closes the connection."""
    closed = []

    def handler(sock: socket.socket) -> None:
        sock.sendall(b"x")
        closed.append(read_all(sock))

    def on_data() -> None:
        raise ZeroDivisionError("a bug")

    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))
        exam.on_data = on_data
        run = lab.start(exam)
        run.join(within=PROMPT)
        _wait_until(lambda: bool(closed))
    lab.require(
        _mentions(run.error, ZeroDivisionError),
        f"run() ended with {run.error!r}, not with the core's exception",
    )
    lab.require(closed == [b""], "the connection stayed open")


def _mentions(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether `error` is of this kind, or a group that contains such an error."""
    if isinstance(error, BaseExceptionGroup):
        return any(_mentions(inner, kind) for inner in error.exceptions)
    return isinstance(error, kind)


@duty
def a_cancelled_connect_leaves_nothing(lab: DriverLab) -> None:
    """A driver cancelled during a connect leaves nothing open."""
    with lab.server(None) as server:
        run = lab.start(ScriptedEndpoint(lab.open(1, server.port)))
        time.sleep(0.2)
        run.cancel()


@duty
def a_cancelled_idle_connection_leaves_nothing(lab: DriverLab) -> None:
    """A driver cancelled while it waits for data leaves nothing open. The peer sees the end."""
    _cancel_when_open(lab, lambda exam: None)


@duty
def a_cancelled_write_leaves_nothing(lab: DriverLab) -> None:
    """A driver cancelled while the peer reads nothing leaves nothing open. The peer sees the end."""
    _cancel_when_open(lab, lambda exam: exam.put(lab.send(1, bytes(32 * MIB))))


def _cancel_when_open(lab: DriverLab, on_opened: Callable[[ScriptedEndpoint], None]) -> None:
    opened, ended, cancelled = threading.Event(), threading.Event(), threading.Event()

    def handler(sock: socket.socket) -> None:
        cancelled.wait(PATIENCE)
        read_all(sock)
        ended.set()

    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))

        def when_open() -> None:
            on_opened(exam)
            opened.set()

        exam.on_opened = when_open
        run = lab.start(exam)
        lab.require(opened.wait(PATIENCE), "transport_opened was not called")
        time.sleep(0.2)
        run.cancel()
        cancelled.set()
        lab.require(ended.wait(PROMPT), "the peer did not see the end of the connection")
