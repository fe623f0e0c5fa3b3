"""`BlockingDriver`, duty by duty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from adapters.fakes import Certificates
from presence_adapters.blocking import BlockingDriver
from presence_adapters.testing import DUTIES, check_driver

if TYPE_CHECKING:
    import ssl

    from presence_proto import Endpoint


class Waiting:
    """Waits until the core is at rest, or until another thread stops it."""

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        self._ssl_context = ssl_context
        self._driver: BlockingDriver | None = None

    def run(self, endpoint: Endpoint) -> None:
        driver = self._driver = BlockingDriver(
            endpoint, lambda event: None, lambda error: None, ssl_context=self._ssl_context
        )
        driver.start()
        try:
            driver.wait(lambda: driver.is_quiet)
            if driver.error is not None:
                raise driver.error
        finally:
            driver.stop()
            driver.release()

    def cancel(self) -> None:
        assert self._driver is not None
        self._driver.stop()


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.mark.long
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("duty", DUTIES)
def test_duty(duty: str, tls: bool, certificates: Certificates) -> None:
    check_driver(
        lambda: Waiting(certificates.client if tls else None),
        server_context=certificates.server if tls else None,
        duties=[duty],
    )
