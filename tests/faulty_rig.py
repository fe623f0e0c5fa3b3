"""A `FaultyHub` with our own clients, and with raw ones, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from hub_client import World
from lan import Host, Lan
from presence_proto.events import Disconnected
from presence_proto.hub.config import HubConfig
from presence_proto.testing import FaultyHub

ROOM = "realtime:jarvis-presence"
SUPABASE_URL, JARVIS_URL = "ws://hub/realtime/v1", "ws://hub:8790"
on_both = pytest.mark.parametrize("url", [SUPABASE_URL, JARVIS_URL], ids=["supabase", "jarvis"])

TRACK = {"type": "presence", "event": "track", "payload": {"n": 1}}
BROADCAST = {"type": "broadcast", "event": "hello", "payload": {}}
HEARTBEAT = (None, "9", "phoenix", "heartbeat", {})
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"  # code 1000, masked with zeros


class Room(Lan):
    """Our own clients and a hub that can misbehave."""

    hub: FaultyHub

    def __init__(self, **config: Any) -> None:
        super().__init__(HubConfig(presence_window=0, **config), FaultyHub)

    def switch(self, name: str, *args: Any, **options: Any) -> None:
        """A command of the hub. All that follows from it at once has happened then."""
        self.hub_do(name, *args, **options)
        self.run()

    def set_faults(self, **faults: Any) -> None:
        self.switch("set_faults", **faults)

    def two(self, url: str, **settings: Any) -> tuple[Host, Host]:
        """Ann and Bo, who know of each other and have nothing more to tell."""
        ann, bo = (self.join(name, url, **settings) for name in ("ann", "bo"))
        for host in (ann, bo):
            assert host.client.online_count == 2
            host.take()
        return ann, bo


def faulty(config: HubConfig | None = None) -> World:
    return World(config, hub_type=FaultyHub)


def switch(world: World, name: str, *args: Any, **options: Any) -> None:
    getattr(world.hub, name)(*args, now=world.now, **options)
    world.settle()


def set_faults(world: World, **faults: Any) -> None:
    switch(world, "set_faults", **faults)


def kinds(events: list[Any]) -> list[type]:
    return [type(event) for event in events]


def reasons(host: Host) -> list[str]:
    return [event.reason for event in host.take() if isinstance(event, Disconnected)]


def events_of(messages: list[list[Any]]) -> list[str]:
    return [message[3] for message in messages]
