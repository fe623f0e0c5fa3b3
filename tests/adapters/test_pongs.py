"""Pongs to a peer that reads nothing: only the latest is kept, and it is written before what comes next."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from adapters.hub_thread import until
from adapters.test_check_asyncio import OnAsyncio
from adapters.test_check_blocking import Waiting
from adapters.test_check_stepped import SelectLoop
from adapters.test_check_trio import OnTrio
from presence_adapters.testing.driver_lab import PATIENCE, DriverLab, ScriptedEndpoint, read_all
from presence_proto import ConnId, SendData

if TYPE_CHECKING:
    import socket

BULK = bytes(32 << 20)  # more than the system buffers
CONN = ConnId(1)
PONGS = [b"pong%05d" % number for number in range(5000)]

on_all = pytest.mark.parametrize("make", [OnAsyncio, OnTrio, Waiting, SelectLoop])


def heard_by_a_slow_peer(make: Any, *after: SendData) -> bytes:
    """What comes after the bulk, when the peer reads nothing before all pongs and `after` are sent."""
    heard: list[bytes] = []
    said = threading.Event()

    def handler(sock: socket.socket) -> None:
        said.wait(PATIENCE)
        first = bytearray()
        while len(first) < len(BULK):
            first += sock.recv(len(BULK) - len(first))
        sock.sendall(b"x")
        heard.append(read_all(sock))

    lab = DriverLab(lambda: make(None), None)
    with lab.server(handler) as server:
        exam = ScriptedEndpoint(lab.open(CONN, server.port))
        left = iter(PONGS)

        def pong() -> None:
            for _ in range(500):  # in several drains, as pings come in several reads
                if (payload := next(left, None)) is None:
                    exam.put(*after)
                    said.set()
                    return
                exam.put(SendData(CONN, payload, is_pong=True))
            exam.after(0.005, pong)

        def on_opened() -> None:
            exam.put(lab.send(CONN, BULK))
            exam.after(0.3, pong)

        exam.on_opened = on_opened
        exam.on_data = lambda: exam.after(0.1, lambda: exam.end(lab.close(CONN)))
        lab.run(exam, within=3 * PATIENCE)
    return heard[0]


@on_all
def test_only_the_latest_is_written_when_there_is_room_again(make: Any) -> None:
    assert heard_by_a_slow_peer(make) == PONGS[-1]


@pytest.mark.long
@on_all
def test_the_latest_comes_before_what_is_sent_after_it(make: Any) -> None:
    """It may be a close frame, which nothing may follow."""
    assert heard_by_a_slow_peer(make, SendData(CONN, b"close")) == PONGS[-1] + b"close"


@on_all
def test_while_there_is_room_every_ping_is_answered(make: Any) -> None:
    heard: list[bytes] = []
    lab = DriverLab(lambda: make(None), None)
    with lab.server(lambda sock: heard.append(read_all(sock))) as server:
        exam = ScriptedEndpoint(lab.open(CONN, server.port))
        pongs = [SendData(CONN, payload, is_pong=True) for payload in PONGS[:100]]
        exam.on_opened = lambda: exam.end(*pongs, lab.close(CONN))
        lab.run(exam)
        until(lambda: heard)
    assert heard == [b"".join(PONGS[:100])]
