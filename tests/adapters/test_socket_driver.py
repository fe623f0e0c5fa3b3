"""`SocketDriver` and what it stands on: connecting, TLS, the byte budget, the numbers of its sockets."""

from __future__ import annotations

import itertools
import math
import select
import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from adapters.fakes import CONN, Certificates, FakeEndpoint
from adapters.hub_thread import nothing_left, until
from presence_adapters import socket_link
from presence_adapters.errors import ConnectError
from presence_adapters.socket_driver import MAX_UNSENT, SocketDriver
from presence_adapters.socket_link import CHUNK
from presence_adapters.tls_and_proxies import STAGGER
from presence_proto import CloseTransport, ConnId, LocalProtocolError, OpenTransport, SendData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECOND = ConnId(2)


class Rig:
    """A driver, its endpoint, and a host that steps when it is due."""

    def __init__(self, **options: Any) -> None:
        self.endpoint = FakeEndpoint()
        self.events: list[Any] = []
        self.ends: list[Exception | None] = []
        self.sockets: list[tuple[int, Any]] = []  # that were to be waited for, and their numbers
        self.driver = SocketDriver(self.endpoint, self.events.append, self.ends.append, **options)

    def do(self, *outputs: Any) -> None:
        self.driver.call(self.endpoint.do, *outputs)
        self.look()

    def open(self, port: int, host: str = "127.0.0.1", *, tls: bool = False, conn: ConnId = CONN) -> None:
        self.do(OpenTransport(conn, host, port, tls))
        self.step()

    def facts(self, *names: str) -> list[tuple[Any, ...]]:
        return [fact for fact in self.endpoint.facts if not names or fact[0] in names]

    @property
    def data(self) -> bytes:
        return b"".join(fact[2] for fact in self.facts("data"))

    def look(self) -> None:
        found: Any = self.driver
        while found is not None and not isinstance(found, socket.socket):
            parts = ("_link", "_connect", "_lookup", "signal", "_sock", "_socks")
            found = next((part for name in parts if (part := getattr(found, name, None))), None)
            found = found[0] if isinstance(found, list) else found
        if not self.sockets or self.sockets[-1][1] is not found:
            self.sockets.append((self.driver.fileno(), found))

    def no_number_stood_for_two(self) -> bool:
        """Whether who looks at the number after every step sees that the socket is another one."""
        assert len(self.sockets) >= 2
        return all(one[0] != other[0] for one, other in itertools.pairwise(self.sockets))

    def step(self, **options: Any) -> None:
        self.driver.step(**options)
        self.look()

    def wait(self, longest: float) -> None:
        delay = self.driver.next_delay()
        files = [self.driver] if self.driver.fileno() >= 0 else []
        writers = files if self.driver.wants_write else []
        select.select(files, writers, [], longest if delay is None else min(delay, longest))

    def until(self, condition: Callable[[], Any], **options: Any) -> None:
        deadline = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < deadline, f"only {self.endpoint.facts[-5:]}"
            self.wait(0.01)
            self.step(**options)

    def fact(self, name: str) -> tuple[Any, ...]:
        self.until(lambda: self.facts(name))
        return self.facts(name)[0]


@contextmanager
def rig(**options: Any) -> Iterator[Rig]:
    one = Rig(**options)
    with nothing_left():
        try:
            yield one
        finally:
            one.driver.stop()


class Peer:
    """One accepted connection, blocking."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self.sock = listener.accept()[0]
        self.sock.settimeout(5)
        if context is not None:
            self.sock = context.wrap_socket(self.sock, server_side=True)

    def __enter__(self) -> socket.socket:
        return self.sock

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(5)
        yield sock


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


def port_of(listener: socket.socket) -> int:
    port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return port_of(sock)


@contextmanager
def deaf_listener() -> Iterator[int]:
    """A port that neither accepts nor refuses: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(2)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        time.sleep(0.02)
        yield port_of(listener)
        for sock in waiting:
            sock.close()


def on_the_way(one: Rig) -> list[socket.socket]:
    """The sockets that try to connect."""
    link: Any = one.driver._link
    return list(link._connect._socks)


def in_thread(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


# ---------------------------------------------------------------------------------------------- connecting


def failure(host: str, port: int, *, tls: bool = False, **options: Any) -> str:
    with rig(**options) as one:
        one.open(port, host, tls=tls)
        _, conn, reason = one.fact("closed")
        assert conn == CONN
        assert not one.facts("opened")
        assert one.driver.fileno() == -1
        assert isinstance(reason, str)
        return reason


def test_nobody_listens() -> None:
    port = free_port()
    assert failure("127.0.0.1", port) == f"cannot connect to 127.0.0.1:{port} (connection refused)"
    assert failure("localhost", port) == f"cannot connect to localhost:{port} (connection refused)"


@pytest.mark.parametrize("host", ["", "a" * 70 + ".example", "with\0null"])
def test_what_is_no_name(host: str) -> None:
    assert failure(host, free_port(), tls=True)


def test_the_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert failure("nowhere.example", 80) == "cannot find the host nowhere.example (the name is not known)"


def test_a_name_without_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [])
    assert failure("nowhere.example", 80) == "cannot find the host nowhere.example (the name is not known)"


def test_no_room_for_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with rig() as one:
        monkeypatch.setattr(threading.Thread, "start", start)
        one.open(80, "some.example")
        assert one.fact("closed")[2] == "the system cannot start another thread"


def test_all_addresses_are_tried(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    found = [
        (12345, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port_of(listener))),
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", free_port())),
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("255.255.255.255", 80)),
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", listener.getsockname()),
    ]
    monkeypatch.setattr(socket_link, "STAGGER", 60.0)  # after a failure the next one need not wait
    with rig() as one:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: list(found))
        one.open(80, "some.example")
        one.fact("opened")
        assert one.no_number_stood_for_two()


def test_an_address_may_fail_later(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    with rig() as one, ExitStack() as stack:
        deaf = stack.enter_context(deaf_listener())
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", deaf)),
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", listener.getsockname()),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: list(found))
        one.open(80, "some.example")
        one.until(lambda: one.driver.wants_write)
        stack.close()  # nobody listens there any more; the system finds out when it asks again
        one.fact("opened")
        assert len(one.sockets) == 3
        assert one.no_number_stood_for_two()


@pytest.mark.long
@pytest.mark.parametrize("deaf_ones", [1, 3])
def test_a_dead_address_holds_up_no_other(
    deaf_ones: int, monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    with rig() as one, ExitStack() as stack:
        ports = [stack.enter_context(deaf_listener()) for _ in range(deaf_ones)]
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
            for port in [*ports, port_of(listener)]
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: list(found))
        begin = time.monotonic()
        one.open(80, "some.example")
        one.until(lambda: on_the_way(one))
        assert 0.0 <= (one.driver.next_delay() or -1.0) <= STAGGER  # a host may sleep until then
        one.fact("opened")
        assert time.monotonic() - begin >= deaf_ones * STAGGER
        assert one.no_number_stood_for_two()
        # A quiet connection again: nothing is looked at any more.
        assert one.driver.next_delay() is None


def test_a_failure_brings_the_next_address_forward(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=0.0)
    with rig() as one, deaf_listener() as deaf:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
            for port in (deaf, free_port(), port_of(listener))
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: list(found))
        monkeypatch.setattr(socket_link, "time", clock)
        one.open(80, "some.example")
        one.until(lambda: on_the_way(one))
        clock.now += STAGGER  # only once: the second address is refused beside the first
        one.fact("opened")


def test_a_connect_to_several_addresses_can_be_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with rig() as one, deaf_listener() as deaf, deaf_listener() as late:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in (deaf, late)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: list(found))
        one.open(80, "some.example")
        one.until(lambda: one.driver.next_delay() not in (None, 0.0) and len(on_the_way(one)) == 2)
        assert one.facts() == []
        one.do(CloseTransport(CONN, abort=True))
        assert one.driver.fileno() == -1
        assert one.driver.next_delay() is None


def test_all_failures_are_told_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", free_port())),
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("255.255.255.255", 80)),
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", free_port())),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: list(found))
    reason = failure("some.example", 80)
    assert reason.startswith("cannot connect to some.example:80 (")
    assert reason.count("connection refused") == 1
    assert "," in reason


def test_a_slow_lookup_delays_no_step(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    answer = threading.Event()
    real = socket.getaddrinfo

    def slow(host: str, port: int, *args: Any, flags: int = 0, **kwargs: Any) -> Any:
        if not flags:
            answer.wait(5)
        return real(host, port, *args, flags=flags, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with rig() as one:
        one.do(OpenTransport(CONN, "localhost", port_of(listener), tls=False))
        assert one.driver.next_delay() == 0
        assert longest_step(one, 0.2) < 0.05
        assert one.driver.fileno() >= 0
        assert not one.driver.wants_write
        assert one.driver.next_delay() is None
        begin = time.monotonic()
        answer.set()
        one.wait(5)  # the end of the lookup can be waited for
        assert time.monotonic() - begin < 0.5
        one.fact("opened")
        assert one.no_number_stood_for_two()


def test_a_lookup_can_be_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "it is a name")
        answer.wait(5)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with rig() as one:
        one.open(80, "some.example")
        one.step()
        one.do(CloseTransport(CONN, abort=True))
        assert one.driver.fileno() == -1
        assert one.driver.next_delay() is None
        answer.set()
        time.sleep(0.02)
        one.step()
        assert one.facts() == []


def test_a_connect_that_hangs_delays_no_step() -> None:
    with deaf_listener() as port, rig() as one:
        one.open(port)
        assert longest_step(one, 0.2) < 0.05
        assert one.driver.wants_write
        assert one.facts() == []


@pytest.mark.parametrize("given", [False, True])
def test_making_the_tls_context_delays_no_step(
    given: bool, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    """Reading the system's certificates takes 20 to 50 ms."""
    threads = []

    def make(context: ssl.SSLContext | None) -> ssl.SSLContext:
        threads.append(threading.current_thread())
        return certificates.client

    monkeypatch.setattr(socket_link, "client_context", make)
    with rig(ssl_context=certificates.client if given else None) as one:
        for conn in (CONN, SECOND):
            one.open(port_of(listener), tls=True, conn=conn)
            one.until(lambda: one.driver.fileno() >= 0 and one.driver.next_delay() is None)
            with socket.socket() as free:
                assert free.fileno() != one.driver.fileno()
            peer = in_thread(lambda: Peer(listener, certificates.server).sock.close())
            one.until(lambda conn=conn: ("opened", conn) in one.facts())
            one.do(CloseTransport(conn, abort=True))
            peer.join()
    assert len(threads) == (0 if given else 1)
    assert threading.main_thread() not in threads


def longest_step(one: Rig, seconds: float) -> float:
    """Of many steps. The very longest is not counted: the machine may have had something else to do."""
    durations, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        one.step()
        durations.append(time.monotonic() - begin)
        time.sleep(0.005)
    *_, longest, outlier = sorted(durations)
    assert outlier < 1
    return longest


def test_between_two_connections_there_is_no_socket(listener: socket.socket) -> None:
    with rig() as one:
        one.endpoint.on("closed", lambda conn, reason: reopen(one, listener, conn))
        one.open(port_of(listener))
        for _ in range(3):
            one.until(lambda: one.facts("opened"))
            one.endpoint.facts.clear()
            with Peer(listener):
                pass
            one.fact("closed")
        assert one.no_number_stood_for_two()
        numbers = [number for number, _ in one.sockets]
        assert all(-1 in pair for pair in itertools.pairwise(numbers))


def reopen(one: Rig, listener: socket.socket, conn: ConnId) -> None:
    wanted = OpenTransport(ConnId(conn + 1), "127.0.0.1", port_of(listener), tls=False)
    one.endpoint.outputs.append(wanted)


# ---------------------------------------------------------------------------------------------- TLS


def connected(one: Rig, listener: socket.socket, certificates: Certificates, **options: Any) -> Peer:
    peers: list[Peer] = []
    thread = in_thread(lambda: peers.append(Peer(listener, certificates.server)))
    one.do(OpenTransport(CONN, "127.0.0.1", port_of(listener), tls=True))
    one.until(lambda: one.facts("opened"), **options)
    thread.join(5)
    return peers[0]


def test_tls_both_ways(listener: socket.socket, certificates: Certificates) -> None:
    with rig(ssl_context=certificates.client) as one, connected(one, listener, certificates) as peer:
        one.do(SendData(CONN, b"hello"))
        assert peer.recv(100) == b"hello"
        peer.sendall(b"world")
        one.until(lambda: one.data == b"world")
        assert isinstance(peer, ssl.SSLSocket)
        one.do(CloseTransport(CONN))
        assert peer.recv(100) == b""  # a close_notify: without one this would raise
        one.step()


def test_one_read_may_bring_many_records(listener: socket.socket, certificates: Certificates) -> None:
    """All that TLS has is delivered, though the socket is quiet after that."""
    with rig(ssl_context=certificates.client) as one, connected(one, listener, certificates) as peer:
        for n in range(100):
            peer.sendall(b"%02d" % n)
        time.sleep(0.05)
        one.step()
        one.step()
        assert one.data == b"".join(b"%02d" % n for n in range(100))


@pytest.mark.parametrize("budget", [1, 7, 1000])
def test_records_may_come_in_pieces(budget: int, listener: socket.socket, certificates: Certificates) -> None:
    sent = bytes(range(256)) * 8
    with (
        rig(ssl_context=certificates.client) as one,
        connected(one, listener, certificates, budget=budget) as peer,
    ):
        peer.sendall(sent)
        one.until(lambda: one.data == sent, budget=budget)


def test_a_stream_may_end_with_and_without_a_goodbye(
    listener: socket.socket, certificates: Certificates
) -> None:
    for goodbye in (True, False):
        with rig(ssl_context=certificates.client) as one, connected(one, listener, certificates) as peer:
            assert isinstance(peer, ssl.SSLSocket)
            peer.sendall(b"last words")
            if goodbye:
                thread = in_thread(lambda sock=peer: end_tls(sock))
            else:
                peer.shutdown(socket.SHUT_WR)
            assert one.fact("closed") == ("closed", CONN, "eof")
            assert one.data == b"last words"
            if goodbye:
                thread.join()


def end_tls(sock: ssl.SSLSocket) -> None:
    with suppress(OSError):  # the other side does not answer in kind: to it the connection is over
        sock.unwrap()


def test_what_came_before_garbage_is_delivered(listener: socket.socket, certificates: Certificates) -> None:
    with rig(ssl_context=certificates.client) as one, connected(one, listener, certificates) as peer:
        assert isinstance(peer, ssl.SSLSocket)
        peer.sendall(b"fine")
        with socket.socket(fileno=peer.detach()) as raw:
            raw.sendall(b"garbage" * 10)
            time.sleep(0.05)
            assert one.fact("closed")[2].startswith("TLS failed (")
            assert one.data == b"fine"
            assert raw.recv(1000)  # an alert


@pytest.mark.parametrize(
    ("names", "ours", "words"),
    [
        (("127.0.0.1",), False, "is not trusted (its issuer is not trusted)"),
        (("other.example",), True, "is not trusted (it is for another IP address)"),
    ],
)
def test_certificates_are_verified(
    names: tuple[str, ...], ours: bool, words: str, listener: socket.socket
) -> None:
    certificates = Certificates(*names)
    alerts: list[str] = []

    def serve() -> None:
        try:
            Peer(listener, certificates.server)
        except ssl.SSLError as exc:
            alerts.append(str(exc.reason))

    thread = in_thread(serve)
    reason = failure(
        "127.0.0.1", port_of(listener), tls=True, ssl_context=certificates.client if ours else None
    )
    thread.join()
    assert words in reason
    assert alerts
    assert "ALERT" in alerts[0]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_a_server_that_speaks_no_tls(answer: bytes, listener: socket.socket) -> None:
    def serve() -> None:
        with Peer(listener) as sock:
            sock.recv(100)
            sock.sendall(answer)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(10_000)

    thread = in_thread(serve)
    reason = failure("127.0.0.1", port_of(listener), tls=True)
    thread.join()
    assert reason.startswith(("the TLS handshake with 127.0.0.1:", "cannot connect to 127.0.0.1:"))
    assert ("during the TLS handshake" in reason) == (not answer)


# ---------------------------------------------------------------------------------------------- budget


@pytest.mark.parametrize("tls", [False, True])
def test_no_step_reads_more_than_its_budget(
    tls: bool, listener: socket.socket, certificates: Certificates
) -> None:
    sent = bytes(100_000)
    with rig(ssl_context=certificates.client) as one:
        if tls:
            peer = connected(one, listener, certificates)
        else:
            one.open(port_of(listener))
            peer = Peer(listener)
            one.fact("opened")
        with peer as sock:
            sock.sendall(sent)
            time.sleep(0.05)
            sizes = []
            while len(one.data) < len(sent):
                before = len(one.data)
                one.step(budget=1000)
                sizes.append(len(one.data) - before)
                if not tls and len(one.data) < len(sent):
                    assert one.driver.next_delay() == 0  # there is more
            assert len(sizes) >= 100
            assert max(sizes) <= (17_000 if tls else 1000)  # a record of TLS is 16 KiB, and comes whole


def test_a_step_reads_and_writes_a_chunk_at_most(listener: socket.socket) -> None:
    with rig() as one:
        one.open(port_of(listener))
        with Peer(listener) as sock:
            one.fact("opened")
            one.do(SendData(CONN, bytes(8 * CHUNK)))
            assert one.driver.wants_write
            sizes = []
            thread = in_thread(lambda: sock.sendall(bytes(8 * CHUNK)))
            while len(one.data) < 8 * CHUNK:
                before = len(one.data)
                one.step(budget=1 << 30)
                sizes.append(len(one.data) - before)
            assert max(sizes) <= CHUNK
            thread.join()
            received = 0
            while received < 8 * CHUNK:
                one.step()
                received += len(sock.recv(CHUNK))
            one.step()
            assert not one.driver.wants_write


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_is_at_least_a_byte(budget: int) -> None:
    with rig() as one:
        with pytest.raises(LocalProtocolError, match="budget"):
            one.step(budget=budget)
        assert one.ends == []


def test_more_than_it_may_hold_is_told(listener: socket.socket) -> None:
    with rig() as one:
        one.open(port_of(listener))
        with Peer(listener) as sock:
            one.fact("opened")
            assert one.driver.is_writable
            one.do(SendData(CONN, bytes(MAX_UNSENT + 16 * CHUNK)))
            assert not one.driver.is_writable
            thread = in_thread(lambda: drain(sock))
            one.until(lambda: one.driver.is_writable)
            one.do(CloseTransport(CONN, abort=True))
            thread.join()


def drain(sock: socket.socket) -> None:
    while sock.recv(CHUNK):
        pass


# ---------------------------------------------------------------------------------------------- the end


def test_what_they_said_before_a_write_failed_is_read(listener: socket.socket) -> None:
    with rig() as one:
        one.open(port_of(listener))
        with Peer(listener) as sock:
            one.fact("opened")
            sock.sendall(b"goodbye, and do not answer")
        time.sleep(0.02)
        one.do(SendData(CONN, b"x"))
        time.sleep(0.02)
        one.do(SendData(CONN, bytes(CHUNK)))
        one.do(SendData(CONN, b"dropped"))
        assert not one.driver.wants_write
        reason = one.fact("closed")[2]
        assert one.data == b"goodbye, and do not answer"
        assert reason in (
            "the connection was lost (broken pipe)",
            "the connection was lost (connection reset by peer)",
        )


def test_a_peer_that_does_not_end_is_closed_after_the_linger(listener: socket.socket) -> None:
    with rig(linger=0.1) as one:
        one.open(port_of(listener))
        with Peer(listener) as sock:
            one.fact("opened")
            one.do(SendData(CONN, b"last"), CloseTransport(CONN))
            one.endpoint.is_closed = True
            one.step()
            assert one.ends == [None]
            assert sock.recv(10) == b"last"
            assert sock.recv(10) == b""
            sock.sendall(b"nobody reads this")
            delay = one.driver.next_delay()
            assert delay is not None
            assert 0 < delay <= 0.1
            assert not one.driver.is_quiet
            begin = time.monotonic()
            one.until(lambda: one.driver.is_quiet)
            assert time.monotonic() - begin < 0.2
            assert one.facts("data", "closed") == []


def test_the_next_connection_waits_for_the_end_of_the_last(listener: socket.socket) -> None:
    with rig() as one:
        one.open(port_of(listener))
        with Peer(listener) as sock:
            one.fact("opened")
            one.do(CloseTransport(CONN))
            one.open(port_of(listener), conn=SECOND)
            one.do(CloseTransport(SECOND, abort=True))
            one.open(port_of(listener), conn=ConnId(3))
            one.step()
            assert len(one.facts("opened")) == 1
            assert sock.recv(10) == b""
        one.until(lambda: len(one.facts("opened")) == 2)
        assert one.facts("opened")[1] == ("opened", 3)
        assert one.no_number_stood_for_two()


def test_facts_of_a_forgotten_connection_are_not_told(listener: socket.socket) -> None:
    with rig() as one:
        one.endpoint.on("opened", lambda conn: one.endpoint.outputs.append(CloseTransport(conn)))
        one.do(OpenTransport(CONN, "127.0.0.1", port_of(listener), tls=False))
        peers: list[Peer] = []
        accepting = in_thread(lambda: peers.append(Peer(listener)))
        one.fact("opened")
        accepting.join()
        with peers[0] as peer:
            peer.sendall(b"too late")
            one.step()
        one.until(lambda: one.driver.fileno() == -1)
        assert one.facts() == [("opened", CONN)]


def test_what_is_sent_to_a_forgotten_connection_goes_nowhere(listener: socket.socket) -> None:
    with rig() as one:
        one.do(SendData(CONN, b"x"))
        one.open(port_of(listener), conn=SECOND)
        with Peer(listener) as peer:
            one.fact("opened")
            one.do(SendData(CONN, b"x"), CloseTransport(CONN), SendData(SECOND, b"y"))
            assert peer.recv(10) == b"y"


def test_it_may_open_end_and_be_forgotten_in_one_step(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_settled = socket_link._is_settled
    monkeypatch.setattr(socket_link, "_is_settled", lambda sock: False)
    with rig() as one:
        one.endpoint.on("opened", lambda conn: one.endpoint.outputs.append(CloseTransport(conn, abort=True)))
        one.open(port_of(listener))
        with Peer(listener):
            pass
        monkeypatch.setattr(socket_link, "_is_settled", is_settled)
        time.sleep(0.02)
        one.step()
        assert one.facts() == [("opened", CONN)]
        assert one.driver.fileno() == -1


def test_tls_that_must_read_before_it_writes(listener: socket.socket, certificates: Certificates) -> None:
    """As in a renegotiation, which the `ssl` module cannot be asked for."""
    with rig(ssl_context=certificates.client) as one, connected(one, listener, certificates) as peer:
        link = one.driver._link
        assert link is not None
        tls, link._tls = link._tls, Stubborn(link._tls)  # type: ignore[assignment]
        one.do(SendData(CONN, b"hello"))
        assert not one.driver.wants_write  # it would spin
        link._tls = tls
        one.step()
        assert peer.recv(10) == b"hello"


class Stubborn:
    """A TLS that cannot write now."""

    def __init__(self, tls: Any) -> None:
        self._tls = tls

    def write(self, data: bytes) -> int:
        raise ssl.SSLWantReadError

    def read(self, size: int) -> bytes:
        data = self._tls.read(size)
        assert isinstance(data, bytes)
        return data


def test_stopping_tells_the_core_and_leaves_nothing(listener: socket.socket) -> None:
    with rig() as one:
        one.open(port_of(listener))
        one.endpoint.on("closed", lambda conn, reason: reopen(one, listener, conn))
        one.fact("opened")
        one.do(SendData(CONN, b"x"), "event")
        one.driver.stop()
        assert one.fact("closed") == ("closed", CONN, "closed by us")
        assert one.events == ["event"]
        assert one.ends == [None]
        assert one.driver.is_quiet
        one.driver.stop()
        one.step()
        assert one.ends == [None]
        with pytest.raises(ConnectError, match="has ended"):
            one.do()


def test_time_is_told_when_it_is_due() -> None:
    with rig() as one:
        one.endpoint.deadline = time.monotonic() + 0.05
        one.do()
        one.step()
        assert one.facts() == []
        delay = one.driver.next_delay()
        assert delay is not None
        assert 0 < delay <= 0.05
        one.endpoint.on("tick", lambda: setattr(one.endpoint, "deadline", None))
        one.fact("tick")
        assert one.endpoint.times[0] >= 0
        assert one.driver.next_delay() is None
        one.endpoint.deadline = -math.inf
        one.do()
        assert one.driver.next_delay() == 0


def test_what_an_event_handler_commands_follows_what_is_under_way(listener: socket.socket) -> None:
    with rig() as one:
        one.open(port_of(listener))
        one.fact("opened")
        order: list[Any] = []

        def on_event(event: Any) -> None:
            order.append(f"begin {event}")
            if event == "first":
                one.do("third", SendData(CONN, b"3"))
            order.append(f"end {event}")

        one.driver._on_event = on_event
        with Peer(listener) as peer:
            one.do("first", SendData(CONN, b"1"), "second", SendData(CONN, b"2"))
            words = ("first", "second", "third")
            assert order == [f"{part} {word}" for word in words for part in ("begin", "end")]
            received = b""
            while len(received) < 3:
                received += peer.recv(3)
            assert received == b"123"


@pytest.mark.parametrize("where", ["opened", "data", "closed", "drain", "next_deadline", "on_event"])
@pytest.mark.parametrize("bug", [RuntimeError("bug"), KeyboardInterrupt()])
def test_a_bug_ends_everything_and_comes_out(
    where: str, bug: BaseException, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise bug

    def provoke(one: Rig, peer: socket.socket) -> None:
        if where == "on_event":
            one.do("event")
        peer.sendall(b"x")
        if where == "closed":
            peer.close()
        one.until(lambda: False)

    with rig() as one:
        if where == "opened":
            one.endpoint.on(where, fail)
        one.do(OpenTransport(CONN, "127.0.0.1", port_of(listener), tls=False))
        if where == "opened":
            with pytest.raises(type(bug)):
                one.until(lambda: False)
        else:
            one.fact("opened")
            one.endpoint.on(where, fail)
            if where in ("drain", "next_deadline"):
                monkeypatch.setattr(one.endpoint, where, fail)
            elif where == "on_event":
                monkeypatch.setattr(one.driver, "_on_event", fail)
            with Peer(listener) as peer, pytest.raises(type(bug)):
                provoke(one, peer)
        assert one.driver.error is bug
        assert one.ends == [bug if isinstance(bug, Exception) else None]
        assert one.driver.is_quiet
        with pytest.raises(ConnectError) as caught:
            one.do()
        assert caught.value.__cause__ is bug


def test_what_a_command_raises_is_the_callers_and_changes_nothing() -> None:
    def illegal(*, now: float) -> None:
        raise LocalProtocolError("not legal")

    with rig() as one:
        with pytest.raises(LocalProtocolError, match="not legal"):
            one.driver.call(illegal)
        one.do("event")
        assert one.events == ["event"]
        assert one.ends == []


def test_ctrl_c_in_the_middle_of_a_command_is_the_end() -> None:
    """The core may be half way."""

    def interrupted(*, now: float) -> None:
        raise KeyboardInterrupt

    with rig() as one:
        with pytest.raises(KeyboardInterrupt):
            one.driver.call(interrupted)
        assert one.ends == [None]
        assert one.driver.is_quiet
        with pytest.raises(ConnectError):
            one.do("event")


def test_sockets_that_are_dropped_are_closed(listener: socket.socket) -> None:
    with rig() as one:
        one.open(port_of(listener))
        with Peer(listener) as sock:
            one.fact("opened")
            one.do(CloseTransport(CONN, abort=True))
            assert sock.recv(10) == b""
            assert one.driver.fileno() == -1
            until(lambda: one.facts("closed") == [])
