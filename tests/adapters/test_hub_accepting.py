"""How a hub takes connections: those that stall their TLS handshake, too many from one address, few files."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import ssl
import subprocess
import sys
import time
from typing import Any

import pytest

from adapters.fakes import Certificates, run, until
from hub_client import upgrade
from presence_adapters.server import hub_server
from presence_adapters.server.hub_driver import TlsHandshakes
from presence_adapters.server.hub_server import HubServer, raise_open_files_limit
from presence_adapters.tls_and_proxies import one_peer
from presence_proto import HubConfig

# ---------------------------------------------------------------------------------------------- TLS


def test_the_oldest_handshake_gives_way() -> None:
    handshakes: TlsHandshakes[int] = TlsHandshakes(3, None)
    cut = [list(handshakes.begin(peer, None, opened=0, now=0)) for peer in range(5)]
    assert cut == [[], [], [], [0], [1]]
    handshakes.end(3)
    handshakes.end(0)
    assert list(handshakes.begin(5, None, opened=0, now=0)) == []


def test_handshakes_and_connections_have_twice_the_places_together() -> None:
    handshakes: TlsHandshakes[int] = TlsHandshakes(3, None)
    for peer in range(3):
        assert list(handshakes.begin(peer, None, opened=0, now=0)) == []
    assert list(handshakes.begin(3, None, opened=4, now=0)) == [0, 1]
    assert list(handshakes.begin(4, None, opened=9, now=0)) == [2, 3], "the newest has its chance"


def test_of_one_address_the_oldest_gives_way_first() -> None:
    handshakes: TlsHandshakes[int] = TlsHandshakes(10, 2)
    assert list(handshakes.begin(0, "there", opened=0, now=0)) == []
    cut = [list(handshakes.begin(peer, "here", opened=0, now=0)) for peer in range(1, 5)]
    assert cut == [[], [], [1], [2]]
    handshakes.end(3)
    assert list(handshakes.begin(5, "here", opened=0, now=0)) == []
    for peer in (0, 4, 5):
        handshakes.end(peer)
    assert [list(handshakes.begin(peer, "here", opened=0, now=0)) for peer in (6, 7, 8)] == [[], [], [6]]


def test_a_flood_of_handshakes_is_warned_of_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    handshakes: TlsHandshakes[int] = TlsHandshakes(1, None)
    for peer in range(100):
        list(handshakes.begin(peer, None, opened=0, now=peer / 4))
    words = "too many TLS handshakes at once: the oldest were dropped, %d so far"
    assert [record.getMessage() for record in caplog.records] == [words % 1, words % 40, words % 40]


def test_stalled_tls_handshakes_keep_nobody_out() -> None:
    async def main() -> None:
        certificates = Certificates()
        config = HubConfig(max_connections=5, handshake_timeout=60)
        async with HubServer(config, ssl_context=certificates.server) as server:
            stalled = []
            for _ in range(40):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"\x16\x03\x01")  # the beginning of a hello
                stalled.append((reader, writer))
            for _ in range(3):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", server.port, ssl=certificates.client
                )
                writer.write(upgrade("/socket/websocket").replace(b"Host: hub", b"Host: 127.0.0.1"))
                assert b" 101 " in await reader.readline()
                stalled.append((reader, writer))
            await until(lambda: len(server._driver.existing) <= 2 * 5)
            assert len(server.hub.connections) == 3
            held = [pair for pair in stalled[:40] if not pair[0].at_eof() and not await ended(pair[0])]
            assert len(held) <= 5
            for _, writer in stalled:
                writer.close()

    async def ended(reader: asyncio.StreamReader) -> bool:
        try:
            async with asyncio.timeout(0.05):
                return await reader.read() == b""
        except TimeoutError:
            return False
        except (ConnectionError, ssl.SSLError):
            return True

    run(main)


# ---------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize("config", [HubConfig(max_connections_per_address=2), HubConfig(max_connections=2)])
@pytest.mark.parametrize("tls", [False, True])
def test_one_too_many_from_one_address_is_told_so(config: HubConfig, tls: bool) -> None:
    async def main() -> None:
        certificates = Certificates()
        async with HubServer(config, ssl_context=certificates.server if tls else None) as server:
            writers, statuses = [], []
            for _ in range(3):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", server.port, ssl=certificates.client if tls else None
                )
                writer.write(upgrade("/socket/websocket").replace(b"Host: hub", b"Host: 127.0.0.1"))
                statuses.append(int((await reader.readline()).split()[1]))
                writers.append(writer)
            assert statuses == [101, 101, 429]
            for writer in writers:
                writer.close()

    run(main)


@pytest.mark.parametrize(
    ("address", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
        ("/run/hub.sock", "/run/other.sock", False),
    ],
)
def test_whose_an_address_is(address: str, other: str, same: bool) -> None:
    assert (one_peer(address) == one_peer(other)) is same


# ---------------------------------------------------------------------------------------------- files


def test_a_hub_without_files_for_more_does_not_spin(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub_server, "PAUSE", 0.2)
    tries = 0

    async def sock_accept(sock: socket.socket) -> Any:
        nonlocal tries
        tries += 1
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "sock_accept", sock_accept)
        async with HubServer():
            for _ in range(200):  # a spinning listener has a turn in each
                await asyncio.sleep(0.002)

    began = time.monotonic()
    run(main)
    most = (time.monotonic() - began) / 0.2 + 1
    assert 1 <= tries <= most
    assert len([record for record in caplog.records if "cannot accept" in record.message]) == tries


def test_a_crowd_at_the_door_does_not_stop_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sock_accept` does not wait as long as somebody is there. Others have a turn all the same."""
    taken: list[socket.socket] = []
    others: list[socket.socket] = []

    async def main() -> None:
        async def sock_accept(sock: socket.socket) -> Any:
            if len(taken) == 300:
                await asyncio.Event().wait()
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            taken.append(ours)
            others.append(theirs)
            return ours, ("127.0.0.1", 1)

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_accept", sock_accept)
        async with HubServer() as server:
            await asyncio.sleep(0)
            turns = [len(taken)]
            while len(taken) < 300:
                await asyncio.sleep(0)
                turns.append(len(taken))
            assert (
                max(after - before for before, after in zip([0, *turns], turns, strict=False))
                <= hub_server.TURN
            )
            await server.abort()
        for sock in others:
            sock.close()

    run(main)


@pytest.mark.parametrize(("files", "warned"), [(163, True), (164, False), (None, False)])
def test_too_few_files_are_said_at_the_start(
    files: int | None, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub_server, "open_files_limit", lambda: files)

    async def main() -> None:
        async with HubServer(HubConfig(max_connections=100)):
            pass

    run(main)
    words = (
        f"this process can open only {files} files, too few for max_connections=100: further connections "
        "will wait. Raise the limit to 164 (ulimit -n), or lower max_connections"
    )
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert found == [words] * warned


def test_the_limit_of_files_is_raised_as_far_as_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    for limit, wanted, expected in (
        ((1024, 4096), 2000, [(2000, 4096)]),
        ((1024, 4096), 9000, [(4096, 4096)]),
        ((1024, resource.RLIM_INFINITY), 9000, [(9000, resource.RLIM_INFINITY)]),
        ((4096, 4096), 9000, []),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 9000, []),
        ((1024, 4096), 1000, []),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: limit)
        raise_open_files_limit(wanted)
        assert limits == expected
        limits.clear()


def test_a_system_that_does_not_let_it_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def setrlimit(*_: Any) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, resource.RLIM_INFINITY))
    raise_open_files_limit(20)


def test_the_command_says_it_too() -> None:
    """With a hard limit that is too low nothing can be raised."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300));"
        "from presence_adapters.cli import main; sys.argv[1:] = ['hub', '--port', '0']; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as hub:
        assert hub.stderr is not None
        line = hub.stderr.readline().decode()
        hub.terminate()
    assert "WARNING" in line
    assert "can open only 300 files, too few for max_connections=10000" in line
