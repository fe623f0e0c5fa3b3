"""The trio driver, duty by duty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from adapters.fakes import Certificates
from presence_adapters.testing import DUTIES, check_driver
from presence_adapters.trio import TrioDriver

if TYPE_CHECKING:
    import ssl

    from presence_proto import Endpoint


class OnTrio:
    """A trio driver, as the check wants it."""

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        self._ssl_context = ssl_context

    def run(self, endpoint: Endpoint) -> None:
        trio.run(self._main, endpoint)

    async def _main(self, endpoint: Endpoint) -> None:
        self._token = trio.lowlevel.current_trio_token()
        driver = TrioDriver(endpoint, lambda event: None, lambda error: None, ssl_context=self._ssl_context)
        with trio.CancelScope() as self._scope:
            await driver.start()
            try:
                driver.drain()
                await driver.ended.wait()
                await driver.quiet()
            finally:
                await driver.stop()
        if driver.error is not None:
            raise driver.error

    def cancel(self) -> None:
        self._token.run_sync_soon(self._scope.cancel)


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.mark.long
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("duty", DUTIES)
def test_duty(duty: str, tls: bool, certificates: Certificates) -> None:
    # trio keeps a thread that has looked up a name for another 10 s. It is there before the check begins.
    trio.run(trio.to_thread.run_sync, int)
    check_driver(
        lambda: OnTrio(certificates.client if tls else None),
        server_context=certificates.server if tls else None,
        duties=[duty],
    )
