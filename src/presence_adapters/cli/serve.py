"""`presence hub`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import click

from presence_adapters.cli.debug_log import hub_log
from presence_adapters.cli.signals import on_stop_signal
from presence_adapters.hub_server import FILES_BESIDES, HubServer
from presence_adapters.open_files import raise_open_files_limit

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
    hub_log(log_level)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    raise_open_files_limit(2 * config.max_connections + FILES_BESIDES)
    async with HubServer(config, host=host, port=port, ssl_context=context, record=record) as server:
        end = asyncio.ensure_future(server.wait_closed())
        with on_stop_signal(end.cancel):
            click.echo(greet(server.url))
            await asyncio.wait([end])
        if not end.cancelled():
            end.result()  # the hub has failed
        click.echo("stopping")
