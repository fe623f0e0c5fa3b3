"""The check of drivers notices what is wrong. What it makes of whole drivers, `test_check_*.py` show."""

from __future__ import annotations

import math
import pickle
import socket
import threading
from typing import Any

import pytest

from presence_adapters.testing import DUTIES, DutyError, check_driver, driver_check, driver_lab
from presence_adapters.testing.driver_lab import (
    DriverLab,
    DutyFailedError,
    NotTriedError,
    ScriptedEndpoint,
    localhost_is,
    other_address,
)
from presence_proto.endpoint import CloseTransport, ConnId, OpenTransport

CONN = ConnId(1)
OPEN = OpenTransport(CONN, "127.0.0.1", 1, tls=False)


class Obedient:
    """A driver that does nothing but what a test has it do."""

    def __init__(self, work: Any = None) -> None:
        self.work = work

    def run(self, endpoint: Any) -> None:
        if self.work is not None:
            self.work(endpoint)

    def cancel(self) -> None:
        pass


def drained(*outputs: Any) -> ScriptedEndpoint:
    exam = ScriptedEndpoint(*outputs)
    exam.drain()
    return exam


def test_what_a_driver_must_not_do_is_noted() -> None:
    exam = ScriptedEndpoint(OPEN)
    exam.next_deadline()
    exam.tick(now=5.0)
    assert exam.faults == [
        "next_deadline was read before the outputs were drained",
        "tick was called before the outputs of the last fact were drained",
    ]
    exam = drained(OPEN)
    exam.receive_data(CONN, b"x", now=5.0)
    exam.tick(now=4.0)
    exam.tick(now=math.nan)
    assert exam.faults == [
        "receive_data was called before transport_opened",
        "the clock went backwards by 1 s",
        "tick was called with now=nan",
    ]


def test_facts_of_a_closed_connection_are_ignored() -> None:
    exam = drained(OPEN)
    heard: list[str] = []
    exam.on_opened = exam.on_data = exam.on_closed = lambda: heard.append("something")
    exam.put(CloseTransport(CONN))
    exam.drain()
    exam.transport_opened(CONN, now=1.0)
    exam.receive_data(CONN, b"late", now=2.0)
    exam.transport_closed(CONN, now=3.0)
    assert heard == []
    assert exam.faults == []
    assert exam.received == b""


def test_a_driver_that_raises_fails() -> None:
    def work(endpoint: Any) -> None:
        raise KeyError("oh")

    with pytest.raises(DutyFailedError, match=r"run\(\) raised KeyError"):
        DriverLab(lambda: Obedient(work), None).run(ScriptedEndpoint())


def test_a_fault_of_the_server_is_told_from_one_of_the_driver() -> None:
    lab = DriverLab(Obedient, None)

    def handler(sock: socket.socket) -> None:
        raise ZeroDivisionError("the server's")

    with (
        pytest.raises(DutyFailedError, match="the server failed: ZeroDivisionError"),
        lab.server(handler) as server,
        socket.create_connection(("127.0.0.1", server.port)) as sock,
    ):
        assert sock.recv(1) == b""


@pytest.mark.parametrize("patience", [1, 2])
def test_what_is_left_behind_once_may_be_kept(monkeypatch: pytest.MonkeyPatch, patience: int) -> None:
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def leave_a_thread(lab: DriverLab) -> None:
        if len(threads) < patience:
            threads.append(threading.Thread(target=stop.wait))
            threads[-1].start()

    monkeypatch.setattr(driver_check, "PROMPT", 0.05)
    monkeypatch.setitem(DUTIES, "leave a thread", leave_a_thread)
    try:
        if patience == 1:
            check_driver(Obedient, duties=["leave a thread"])
        else:
            with pytest.raises(DutyError, match="failed: leave a thread: the driver left a thread open"):
                check_driver(Obedient, duties=["leave a thread"])
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_an_exception_may_come_in_a_group() -> None:
    def work(endpoint: Any) -> None:
        endpoint.drain()
        with socket.create_connection(("127.0.0.1", endpoint.port)) as sock:
            endpoint.transport_opened(CONN, now=1.0)
            try:
                endpoint.receive_data(CONN, sock.recv(1), now=2.0)
            except ZeroDivisionError as exc:
                raise ExceptionGroup("of a nursery", [exc]) from None

    check_driver(lambda: Obedient(_with_port(work)), duties=["a bug in the core comes out"])


def test_a_greeting_may_come_in_pieces() -> None:
    def work(endpoint: Any) -> None:
        endpoint.drain()
        with socket.create_connection(("127.0.0.1", endpoint.port)) as sock:
            endpoint.transport_opened(CONN, now=1.0)
            _carry_out(endpoint, sock)
            for piece in (sock.recv(2), sock.recv(3)):
                endpoint.receive_data(CONN, piece, now=2.0)
                _carry_out(endpoint, sock)

    check_driver(lambda: Obedient(_with_port(work)), duties=["connect talk and close"])


def _with_port(work: Any) -> Any:
    def run(endpoint: Any) -> None:
        endpoint.port = endpoint.outputs[0].port
        work(endpoint)

    return run


def _carry_out(endpoint: Any, sock: socket.socket) -> None:
    for output in endpoint.drain():
        if not isinstance(output, CloseTransport):
            sock.sendall(output.data)


@pytest.mark.parametrize(
    ("there", "found"), [({"::1", "127.0.0.2"}, "::1"), ({"127.0.0.2"}, "127.0.0.2"), (set(), None)]
)
def test_the_other_address_is_one_that_the_machine_has(
    there: set[str], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Socket:
        def __init__(self, family: int) -> None:
            pass

        def __enter__(self) -> Socket:
            return self

        def __exit__(self, *exc_info: object) -> None:
            pass

        def bind(self, address: tuple[str, int]) -> None:
            if address[0] not in there:
                raise OSError

    monkeypatch.setattr(driver_lab.socket, "socket", Socket)
    if found is None:
        with pytest.raises(NotTriedError, match="only one loopback address"):
            other_address()
    else:
        assert other_address() == found


def test_every_duty_is_checked_and_all_failures_are_reported() -> None:
    names = ["connect talk and close", "a certificate for another host is refused"]
    with pytest.raises(DutyError) as caught:
        check_driver(Obedient, duties=[*names, "the core reconnects", "a core at rest needs no driver"])
    outcomes = {result.duty: result.outcome for result in caught.value.results}
    assert list(outcomes.values()) == ["failed", "not tried", "failed", "passed"]
    assert caught.value.duties == [names[0], "the core reconnects"]
    assert str(caught.value).splitlines() == [
        "2 of 4 duties failed",
        "failed: connect talk and close: transport_opened was not called exactly once",
        "not tried: a certificate for another host is refused: this check has no server_context",
        "failed: the core reconnects: b'' was received over four connections",
    ]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.results, str(copy)) == (caught.value.results, str(caught.value))


def test_duties_that_do_not_fail_are_returned() -> None:
    results = check_driver(
        Obedient, duties=["a core at rest needs no driver", "a certificate for another host is refused"]
    )
    assert [str(result) for result in results] == [
        "passed: a core at rest needs no driver",
        "not tried: a certificate for another host is refused: this check has no server_context",
    ]


def test_a_resolver_that_cannot_be_patched_is_reported() -> None:
    def work(endpoint: Any) -> None:
        endpoint.drain()
        with socket.create_connection(("127.0.0.1", endpoint.port)):
            endpoint.transport_opened(CONN, now=1.0)
            endpoint.drain()

    (result,) = check_driver(
        lambda: Obedient(_with_port(work)), duties=["a dead address does not hold up the others"]
    )
    assert (result.outcome, result.reason) == (
        "not tried",
        "the driver does not look up names with Python's `socket.getaddrinfo`",
    )


def test_a_run_that_does_not_return_is_shown_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def wait_in_vain(endpoint: Any) -> None:
        stop.wait()

    lab = DriverLab(lambda: Obedient(wait_in_vain), None)
    monkeypatch.setattr(driver_lab, "PROMPT", 0.05)
    try:
        with pytest.raises(DutyFailedError, match=r"(?s)did not return .* it stands here:.*wait_in_vain"):
            lab.run(ScriptedEndpoint(), within=0.05)
        with pytest.raises(DutyFailedError, match=r"(?s)after cancel\(\); it stands here:.*wait_in_vain"):
            lab.start(ScriptedEndpoint()).cancel()
    finally:
        stop.set()


def test_only_localhost_has_another_address() -> None:
    def addresses(host: str) -> list[Any]:
        return [info[4][0] for info in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)]

    with localhost_is("127.0.0.2", "127.0.0.1") as names:
        assert addresses("localhost") == ["127.0.0.2", "127.0.0.1"]
        assert addresses("127.0.0.9") == ["127.0.0.9"]
        assert names == ["localhost"]
    assert "127.0.0.2" not in addresses("localhost")
