"""The asyncio driver, duty by duty."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from adapters.fakes import Certificates
from presence_adapters.asyncio import AsyncioDriver
from presence_adapters.testing import DUTIES, check_driver

if TYPE_CHECKING:
    import ssl

    from presence_proto import Endpoint


class OnAsyncio:
    """An asyncio driver, as the check wants it."""

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        self._ssl_context = ssl_context

    def run(self, endpoint: Endpoint) -> None:
        asyncio.run(self._main(endpoint))

    async def _main(self, endpoint: Endpoint) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        driver = AsyncioDriver(
            endpoint, lambda event: None, lambda error: None, ssl_context=self._ssl_context
        )
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
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("duty", DUTIES)
def test_duty(duty: str, tls: bool, certificates: Certificates) -> None:
    check_driver(
        lambda: OnAsyncio(certificates.client if tls else None),
        server_context=certificates.server if tls else None,
        duties=[duty],
    )
