"""`presence hub`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import click

from presence_adapters.cli.signals import on_stop_signal
from presence_adapters.hub_server import HubServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from presence_proto import HubConfig


async def serve(
    config: HubConfig,
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    log_level: str,
    record: Path | None,
    greet: Callable[[str], str],
) -> None:
    """Run a hub until a signal comes. `greet` makes what to print of its URL.

    Raises `OSError` when it cannot listen, `ConfigError` if not record.
    """
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    async with HubServer(config, host=host, port=port, ssl_context=context, record=record) as server:
        end = asyncio.ensure_future(server.wait_closed())
        with on_stop_signal(end.cancel):
            click.echo(greet(server.url))
            await asyncio.wait([end])
        if not end.cancelled():
            end.result()  # the hub has failed
        click.echo("stopping")
