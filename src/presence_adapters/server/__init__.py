"""Hubs on sockets: `HubServer` for asyncio programs, and `HubThread` for tests with or without asyncio."""

from presence_adapters.server.hub_server import HubServer
from presence_adapters.server.hub_thread import HubThread

__all__ = ["HubServer", "HubThread"]
