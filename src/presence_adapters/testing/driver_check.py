"""`check_driver`: conformance test of a driver, modeled on trio's checks of streams.

Each duty runs the driver with a scripted core against a scripted server on loopback, and observes both ends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import frozen

from presence_adapters.testing.driver_lab import (
    PATIENCE,
    PROMPT,
    Driver,
    DriverLab,
    DutyFailedError,
    NotTriedError,
    ScriptedEndpoint,
    fill,
    other_address,
    read_all,
    reset,
)
from presence_proto import ConnId, OpenTransport

if TYPE_CHECKING:
    import socket
    import ssl

__all__ = ["DUTIES", "Driver", "DutyError", "DutyResult", "check_driver"]

KIB = 1 << 10
MIB = 1 << 20
IN_FLIGHT = 32 * KIB  # the most bytes that `fill` leaves to the sending system
ON_TIME = 0.5  # the most seconds by which a tick may be late, on a busy host
LAG = 0.5  # seconds that a peer takes for its end of a connection
ROUNDS = 12  # repetitions of a duty that a wrong driver may fulfil by chance

Duty: TypeAlias = Callable[[DriverLab], None]
DUTIES: dict[str, Duty] = {}
"""Duty name -> check, in the order of the checks."""


@frozen
class DutyResult:
    """Result of one duty. `reason` says why the driver failed, or why the duty was not tried."""

    duty: str
    outcome: Literal["passed", "failed", "not tried"]
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.outcome}: {self.duty}" + (f": {self.reason}" if self.reason else "")


class DutyError(AssertionError):
    """A driver failed duties. `results` has the result of every duty that was checked."""

    def __init__(self, results: list[DutyResult]) -> None:
        self.results = results
        lines = [str(result) for result in results if result.outcome != "passed"]
        super().__init__(f"{len(self.duties)} of {len(results)} duties failed\n" + "\n".join(lines))

    @property
    def duties(self) -> list[str]:
        """Names of the failed duties."""
        return [result.duty for result in self.results if result.outcome == "failed"]

    def __reduce__(self) -> tuple[type[DutyError], tuple[list[DutyResult]]]:
        return type(self), (self.results,)


def check_driver(
    make_driver: Callable[[], Driver],
    *,
    server_context: ssl.SSLContext | None = None,
    duties: Iterable[str] | None = None,
) -> list[DutyResult]:
    """Check a driver against all duties, or the named `duties`. Return the result of each.

    Raise `DutyError` after the last duty if the driver failed any. `make_driver` is called for every run.
    With a `server_context` (a certificate for 127.0.0.1), connections use TLS, and the drivers must trust it.
    Without it, the duties about certificates are not tried. All duties take about a minute. Linux and macOS
    only.
    """
    names = DUTIES if duties is None else duties
    results = [_result(name, DriverLab(make_driver, server_context)) for name in names]
    if any(result.outcome == "failed" for result in results):
        raise DutyError(results)
    return results


def _result(name: str, lab: DriverLab) -> DutyResult:
    try:
        # Report a leak only if a second run leaks, too: a driver may keep resources, such as a thread pool.
        leftover = _leftover(name, lab) and _leftover(name, lab)
    except DutyFailedError as failure:
        return DutyResult(name, "failed", str(failure))
    except NotTriedError as obstacle:
        return DutyResult(name, "not tried", str(obstacle))
    if leftover is not None:
        return DutyResult(name, "failed", f"the driver left a {leftover} open")
    return DutyResult(name, "passed")


def _leftover(name: str, lab: DriverLab) -> str | None:
    """Check a duty. Return the kind of the leaked resource, or `None`."""
    threads, files = threading.active_count(), _open_files()
    DUTIES[name](lab)
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


@duty
def a_certificate_of_an_unknown_authority_is_refused(lab: DriverLab) -> None:
    """A server with a self-signed certificate is reported as `transport_closed`, with a reason."""
    lab.require_tls()
    with lab.server(read_all, lab.untrusted()) as server:
        _expect_no_connection(lab, "127.0.0.1", server.port)


@duty
def a_certificate_for_another_host_is_refused(lab: DriverLab) -> None:
    """A server whose trusted certificate is for another host is reported as `transport_closed`."""
    lab.require_tls()
    host = other_address()
    with lab.server(read_all, host=host) as server:
        _expect_no_connection(lab, host, server.port)


def _expect_no_connection(lab: DriverLab, host: str, port: int) -> None:
    exam = ScriptedEndpoint(lab.open(1, port, host))
    exam.on_opened = lambda: exam.end(lab.close(1, abort=True))
    exam.on_closed = exam.end
    lab.run(exam, within=3 * PATIENCE)
    lab.require(
        "transport_opened" not in exam.facts, "transport_opened was called for a connection that failed"
    )
    lab.require(bool(exam.reason), "transport_closed had no reason")


@duty
def a_dead_address_does_not_hold_up_the_others(lab: DriverLab) -> None:
    """The driver tries the second address of a name when the first one does not respond (RFC 8305)."""
    _expect_the_second_address(lab, first_is_dead=True)


@duty
def all_addresses_of_a_name_are_tried(lab: DriverLab) -> None:
    """The driver tries the second address of a name when the first one refuses the connection."""
    _expect_the_second_address(lab, first_is_dead=False)


def _expect_the_second_address(lab: DriverLab, *, first_is_dead: bool) -> None:
    with lab.host_with_two_addresses(read_all, first_is_dead=first_is_dead) as server:
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


@duty
def a_new_connection_waits_for_the_closing_one(lab: DriverLab) -> None:
    """After an orderly close, the driver connects again only when the old connection has ended."""
    overtaken: list[bool] = []
    with lab.server(lambda sock: overtaken.append(linger(sock))) as server:

        def linger(sock: socket.socket) -> bool:
            if read_all(sock) == b"first":
                time.sleep(LAG)
            return server.accepted > 1

        exam = ScriptedEndpoint(lab.open(1, server.port))

        def on_opened() -> None:
            if exam.facts.count("transport_opened") == 1:
                exam.put(lab.send(1, b"first"), lab.close(1), lab.open(2, server.port))
            else:
                exam.end(lab.send(2, b"second"), lab.close(2))

        exam.on_opened = on_opened
        lab.run(exam)
        _wait_until(lambda: len(overtaken) == 2)
    lab.require(overtaken[0] is False, "the new connection came before the end of the closing one")


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
            if ticks[0] == 1:
                exam.late = 0.0  # until now, a TLS library may have encrypted all the data
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
def data_that_arrived_before_a_failed_write_is_received(lab: DriverLab) -> None:
    """After a failed write the driver reads on until the stream ends, and reports the end then."""
    asked, gone = threading.Event(), threading.Event()
    sent: list[int] = []  # bytes of each connection
    lost: list[int] = []
    limit = 0 if lab.tls else IN_FLIGHT

    def handler(sock: socket.socket) -> None:
        asked.wait(PATIENCE)
        asked.clear()
        # More than one read. Over TLS, libraries refuse to read on after a failed write; they have read this.
        sent.append(fill(sock, 256 * KIB) if not lab.tls else sock.send(b"last words"))
        reset(sock)
        gone.set()

    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))

        def on_tick() -> None:
            asked.set()
            gone.wait(PATIENCE)
            gone.clear()
            conn = exam.facts.count("transport_opened")
            exam.put(lab.send(conn, b"too late"), lab.send(conn, b"later"))

        def on_closed() -> None:
            lost.append(sum(sent) - len(exam.received))
            exam.received.clear()
            sent.clear()
            if len(lost) < ROUNDS and lost[-1] <= limit:
                exam.put(lab.open(len(lost) + 1, server.port))
            else:
                exam.end()

        exam.on_opened = lambda: exam.after(0.02, on_tick)
        exam.on_closed = on_closed
        lab.run(exam)
    lab.require(
        max(lost, default=0) <= limit,
        "transport_closed was called before the data that arrived ahead of a failed write",
    )


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
def data_that_has_arrived_comes_before_the_tick(lab: DriverLab) -> None:
    """When data has arrived and the deadline has passed, the driver reports the data first."""
    asked, answered = threading.Event(), threading.Event()

    def handler(sock: socket.socket) -> None:
        for _ in range(ROUNDS):
            asked.wait(PATIENCE)
            asked.clear()
            sock.sendall(b"x")
            answered.set()
        read_all(sock)

    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))
        in_time: list[bool] = []

        def stall() -> None:
            """Block the driver until the data has arrived and the deadline has passed."""
            exam.after(0.02, judge)
            asked.set()
            answered.wait(PATIENCE)
            answered.clear()
            time.sleep(0.05)

        def judge() -> None:
            in_time.append(len(exam.received) == len(in_time) + 1)
            if len(in_time) < ROUNDS:
                exam.after(0.02, stall)
            else:
                exam.end(lab.close(1))

        exam.on_opened = lambda: exam.after(0.02, stall)
        lab.run(exam)
    lab.require(all(in_time), "tick was called before receive_data, though the data had arrived")


@duty
def endless_data_does_not_stop_the_clock(lab: DriverLab) -> None:
    """While data arrives faster than the core handles it, ticks are on time."""
    chunk = bytes(MIB)

    def handler(sock: socket.socket) -> None:
        while True:  # until the driver drops the connection
            sock.sendall(chunk)

    with lab.server(handler) as server:
        exam, ticks = ScriptedEndpoint(lab.open(1, server.port)), [0]

        def on_data() -> None:
            exam.received.clear()
            time.sleep(0.005)  # more data arrives meanwhile
            if time.monotonic() > limit:
                exam.end(lab.close(1, abort=True))

        def on_tick() -> None:
            ticks[0] += 1
            if ticks[0] < 10:
                exam.after(0.05, on_tick)
            else:
                exam.end(lab.close(1, abort=True))

        exam.on_opened = lambda: exam.after(0.05, on_tick)
        exam.on_data = on_data
        limit = time.monotonic() + PROMPT
        lab.run(exam)
    lab.require(ticks[0] == 10, f"only {ticks[0]} of 10 ticks came while data arrived without end")
    lab.require(exam.late < ON_TIME, f"a tick was {exam.late:.2f} s late while data arrived without end")


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
def a_close_waits_for_the_end_of_the_peer(lab: DriverLab) -> None:
    """After an orderly close, the driver closes its socket only when the peer has closed its side."""
    heard: list[tuple[bytes, bool]] = []

    def handler(sock: socket.socket) -> None:
        data = read_all(sock)
        time.sleep(LAG)
        if not lab.tls:  # over TLS, not every library reads on after its own close_notify
            for _ in range(2):  # after a reset, the second one fails
                sock.sendall(b"x")
                time.sleep(LAG / 5)
        heard.append((data, run.is_running))

    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))
        exam.on_opened = lambda: exam.end(lab.send(1, b"goodbye"), lab.close(1))
        run = lab.start(exam)
        run.finish()
        _wait_until(lambda: bool(heard))
    lab.require(heard == [(b"goodbye", True)], "the driver closed the connection before the peer did")


@duty
def a_peer_that_does_not_read_cannot_hold_up_a_close(lab: DriverLab) -> None:
    """After an orderly close, the driver writes for some seconds at most, and then drops the rest."""
    _expect_an_end(lab, bytes(64 * MIB), lambda sock, stop: stop.wait())


@duty
def a_peer_that_does_not_end_cannot_hold_up_a_close(lab: DriverLab) -> None:
    """After an orderly close, the driver waits some seconds for the peer's end, even if data arrives."""

    def be_silent(sock: socket.socket, stop: threading.Event) -> None:
        stop.wait()

    def go_on(sock: socket.socket, stop: threading.Event) -> None:
        while not stop.wait(0.2):
            sock.sendall(b"x")

    _expect_an_end(lab, b"goodbye", be_silent)
    _expect_an_end(lab, b"goodbye", go_on)


def _expect_an_end(
    lab: DriverLab, data: bytes, peer: Callable[[socket.socket, threading.Event], object]
) -> None:
    """Close in order after `data`. The driver must not wait until the event that `peer` gets is set."""
    stop = threading.Event()
    with lab.server(lambda sock: peer(sock, stop)) as server:
        exam = ScriptedEndpoint(lab.open(1, server.port))
        exam.on_opened = lambda: exam.end(lab.send(1, data), lab.close(1))
        try:
            lab.run(exam)
        finally:
            stop.set()


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
