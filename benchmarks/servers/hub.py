"""Our hub: `HubServer`.

python -m benchmarks.servers.hub [deflate] [window SECONDS]
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from benchmarks.servers.serving import serve
from benchmarks.workloads import TOPIC
from presence_adapters.server import HubServer
from presence_proto import HubConfig


class OurServer:
    """The hub says a broadcast to the topic."""

    def __init__(self, server: HubServer) -> None:
        self._server = server
        self._broadcasts: list[Any] = []

    @property
    def port(self) -> int:
        return self._server.port

    def prepare(self, texts: list[str]) -> None:
        self._broadcasts = [json.loads(text)[4] for text in texts]

    async def say(self, first: int, last: int) -> None:
        run, broadcast = self._server.run, self._server.hub.broadcast
        for one in self._broadcasts[first:last]:
            run(broadcast, TOPIC, one["event"], one["payload"])


async def main(options: list[str]) -> None:
    """Serve until stdin ends."""
    settings: dict[str, Any] = {"deflate": "deflate" in options}
    if "window" in options:
        settings["presence_window"] = float(options[options.index("window") + 1])
    # The crowd sends no heartbeats.
    async with HubServer(HubConfig(idle_timeout=86_400.0, **settings)) as server:
        await serve(OurServer(server))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
