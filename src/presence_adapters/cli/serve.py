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
    from pathlib import Path

GREETING = """\
The hub is running.

  Supabase clients   {url}/realtime/v1
  Phoenix clients    {url}/socket

A client to try:

  import asyncio
  from presence_adapters.asyncio import PresenceClient
  from presence_proto import Identity, PresenceConfig

  async def main():
      config = PresenceConfig(server_url="{url}/realtime/v1")
      async with PresenceClient(Identity("alice", "Alice"), config) as client:
          async for event in client:
              print(event)

  asyncio.run(main())

Ctrl-C stops it.
"""


async def serve(
    host: str, port: int, context: ssl.SSLContext | None, log_level: str, record: Path | None
) -> None:
    """Run a hub until a signal comes. Raises `OSError` when it cannot listen, `ConfigError` if not record."""
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    async with HubServer(host=host, port=port, ssl_context=context, record=record) as server:
        end = asyncio.ensure_future(server.wait_closed())
        with on_stop_signal(end.cancel):
            click.echo(GREETING.format(url=server.url))
            await asyncio.wait([end])
        if not end.cancelled():
            end.result()  # the hub has failed
        click.echo("stopping")
