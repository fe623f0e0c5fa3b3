"""Hubs on sockets: `HubServer` for asyncio, `HubThread` for tests of any kind."""

from presence_adapters.server.hub_server import HubServer
from presence_adapters.server.hub_thread import HubThread

__all__ = ["HubServer", "HubThread"]
