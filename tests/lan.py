"""Our own clients and a hub in a `SimWorld` whose network takes no time: all that follows happens at once."""

from __future__ import annotations

from random import Random
from typing import Any

from presence_proto.config import Identity, PresenceConfig
from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig
from presence_proto.presence_client import PresenceClient
from presence_proto.realtime_client import RealtimeClient
from presence_proto.testing import ClientHost, LinkQuality, SimWorld


class Unjudged:
    """A client of which a world checks the contract only: here servers refuse, and clients give up."""

    def __init__(self, client: PresenceClient | RealtimeClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)


class Host:
    """A client of a `Lan`, and what it told."""

    def __init__(self, lan: Lan, client: PresenceClient | RealtimeClient, name: str) -> None:
        self.lan = lan
        self.client: Any = client
        self.events: list[Any] = []
        endpoint: Any = Unjudged(client)
        self.driver: ClientHost = lan.add_client(endpoint, name=name, on_event=self.events.append)
        self.do("connect")

    def do(self, command: str, *args: Any) -> Any:
        result = self.driver.do(command, *args)
        self.lan.run()
        return result

    def take(self) -> list[Any]:
        """The events since the last time."""
        events, self.events[:] = [*self.events], []
        return events

    @property
    def opens(self) -> int:
        """How many connections it has asked for."""
        return sum(f" {self.driver.name} " in line and "opens connection" in line for line in self.lan.log)


class Lan(SimWorld):
    def __init__(self, config: HubConfig, hub_type: type[Hub] = Hub) -> None:
        instant = LinkQuality(latency=0, jitter=0, bandwidth=0, chunking=0)

        def make_hub(config: HubConfig, rng: Random) -> Hub:
            return hub_type(config)

        super().__init__(clients=0, quality=instant, hub_config=config, make_hub=make_hub, log=True)

    def join(self, user_id: str, url: str, **settings: Any) -> Host:
        """A client that connects. Its name is the id with a capital letter."""
        config = PresenceConfig(server_url=url, **settings)
        return self.add(PresenceClient(Identity(user_id, user_id.title()), config))

    def add(self, client: PresenceClient | RealtimeClient) -> Host:
        """A client, which connects."""
        return Host(self, client, f"client-{len(self.clients)}")

    def advance(self, seconds: float) -> None:
        self.run(seconds=seconds)
