"""A hub and its clients in one piece of memory: every byte goes through both, no time passes by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig
from presence_proto.testing.scripted_clients import (
    KEY,
    PHOENIX,
    PHOENIX_V1,
    ScriptedClient,
    ScriptedClients,
    supabase_join,
)
from presence_proto.websocket.frames import server_frame

if TYPE_CHECKING:
    from random import Random

Client = ScriptedClient

SUPABASE = "/realtime/v1/websocket?vsn=2.0.0&apikey=secret"
SUPABASE_V1 = "/realtime/v1/websocket?vsn=1.0.0&apikey=secret"

__all__ = ["PHOENIX", "PHOENIX_V1", "Client", "supabase_join"]


def upgrade(target: str) -> bytes:
    """The request of a client, without the random in it."""
    head = f"GET {target} HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return head.encode() + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"


def masked(data: bytes, *, text: bool = True) -> bytes:
    """A message as a client's frame, masked with zeros."""
    frame = server_frame(data, text=text)
    header = frame[: len(frame) - len(data)]
    return bytes((header[0], header[1] | 0x80)) + header[2:] + b"\0\0\0\0" + data


class World(ScriptedClients):
    """A hub with this config, its clients and a clock. Without one it tells of presence at once."""

    def __init__(
        self, config: HubConfig | None = None, *, rng: Random | None = None, hub_type: type[Hub] = Hub
    ) -> None:
        super().__init__(hub_type(HubConfig(presence_window=0) if config is None else config, rng=rng))


def joined(world: World, *targets: str, topic: str = "room:x") -> list[Client]:
    """Clients, each in the topic, with nothing left to read and no events."""
    clients = [world.connect(target) for target in targets]
    for number, client in enumerate(clients):
        payload = {"user_id": f"u{number}"} | supabase_join(f"u{number}")
        client.join(topic, payload)
    for client in clients:
        client.take()
    world.take_events()
    return clients


def known_refs(messages: list[Any], names: dict[str, str] | None = None) -> Any:
    """Messages with every phx_ref replaced by its number in the order of appearance."""
    names = {} if names is None else names

    def number(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: names.setdefault(item, f"ref{len(names) + 1}")
                if key in ("phx_ref", "phx_ref_prev") or (key == "ref" and len(str(item)) == 16)
                else number(item)
                for key, item in value.items()
            }
        return [number(item) for item in value] if isinstance(value, list) else value

    return number(messages)
