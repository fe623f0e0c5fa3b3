"""`SocketDriver` in a plain select loop, duty by duty."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

import pytest

from adapters.fakes import Certificates
from presence_adapters.socket_driver import SocketDriver
from presence_adapters.testing import DUTIES, check_driver

if TYPE_CHECKING:
    import ssl

    from presence_proto import Endpoint


class SelectLoop:
    """A host that owns the loop, as short as can be. What wakes it for `cancel` is the host's own."""

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        self._ssl_context = ssl_context
        self._alarm, self._cancelled = socket.socketpair()

    def run(self, endpoint: Endpoint) -> None:
        driver = SocketDriver(endpoint, lambda event: None, lambda error: None, ssl_context=self._ssl_context)
        with self._alarm, self._cancelled:
            try:
                while True:
                    driver.step()
                    if driver.is_quiet:
                        return
                    files = [driver] if driver.fileno() >= 0 else []
                    writers = files if driver.wants_write else []
                    readable, _, _ = select.select([self._alarm, *files], writers, [], driver.next_delay())
                    if self._alarm in readable:
                        return
            finally:
                driver.stop()

    def cancel(self) -> None:
        self._cancelled.send(b"\0")


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.mark.long
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("duty", DUTIES)
def test_duty(duty: str, tls: bool, certificates: Certificates) -> None:
    check_driver(
        lambda: SelectLoop(certificates.client if tls else None),
        server_context=certificates.server if tls else None,
        duties=[duty],
    )
