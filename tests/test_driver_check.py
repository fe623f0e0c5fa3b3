"""The check of drivers notices what is wrong. What it makes of whole drivers, `test_check_*.py` show."""

from __future__ import annotations

import math
import socket
import threading
from typing import Any

import pytest

from presence_adapters.testing import DUTIES, DutyError, check_driver, driver_check, driver_lab
from presence_adapters.testing.driver_lab import DriverLab, ScriptedEndpoint, localhost_is
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

    with pytest.raises(DutyError, match=r"run\(\) raised KeyError"):
        DriverLab("some duty", lambda: Obedient(work), None).run(ScriptedEndpoint())


def test_a_fault_of_the_server_is_told_from_one_of_the_driver() -> None:
    lab = DriverLab("some duty", Obedient, None)

    def handler(sock: socket.socket) -> None:
        raise ZeroDivisionError("the server's")

    with (
        pytest.raises(DutyError, match="the server failed: ZeroDivisionError"),
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
            with pytest.raises(DutyError, match="leave a thread: the driver left a thread open"):
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


@pytest.mark.parametrize("is_there", [True, False])
def test_the_dead_address_is_one_that_the_machine_has(
    is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Socket:
        def __init__(self, family: int) -> None:
            assert family == socket.AF_INET6

        def __enter__(self) -> Socket:
            return self

        def __exit__(self, *exc_info: object) -> None:
            pass

        def bind(self, address: tuple[str, int]) -> None:
            assert address == ("::1", 0)
            if not is_there:
                raise OSError

    monkeypatch.setattr(driver_lab.socket, "socket", Socket)
    assert driver_lab._has("::1") is is_there


def test_only_localhost_has_another_address() -> None:
    def addresses(host: str) -> list[Any]:
        return [info[4][0] for info in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)]

    with localhost_is("127.0.0.2", "127.0.0.1"):
        assert addresses("localhost") == ["127.0.0.2", "127.0.0.1"]
        assert addresses("127.0.0.9") == ["127.0.0.9"]
    assert "127.0.0.2" not in addresses("localhost")
