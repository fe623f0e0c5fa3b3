"""Who is in a world when nobody says otherwise: clients of all kinds, and the users who use them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from presence_proto.client import PresenceClient
from presence_proto.config import Identity, PresenceConfig, RealtimeConfig, Vsn
from presence_proto.realtime import RealtimeClient
from presence_proto.testing.sim.users import ChannelUser, RoomUser

if TYPE_CHECKING:
    from presence_proto.testing.sim.client_host import ClientHost
    from presence_proto.testing.sim.world import SimWorld

NAMES = ("ada", "bob", "cleo", "dan", "eve", "finn", "gina", "hugo", "iris", "jack")
KINDS = ("phoenix", "jarvis", "channels", "phoenix", "phoenix", "channels", "jarvis")
VSNS: tuple[Vsn, ...] = ("2.0.0", "2.0.0", "1.0.0")
DEVICES = 0.25
"""How many of the clients in the room are a further device of somebody who is there already."""


def populate(world: SimWorld, clients: int, rng: Random, pace: float) -> None:
    """Add clients and their users, who connect within the first seconds."""
    rooms: dict[str, list[ClientHost]] = {}  # the devices of each user in the room
    channels: list[ClientHost] = []
    shift = rng.randrange(len(KINDS))
    for number in range(clients):
        kind, vsn = KINDS[(number + shift) % len(KINDS)], rng.choice(VSNS)
        name = NAMES[number] if number < len(NAMES) else f"user{number}"
        if kind == "channels":
            config = RealtimeConfig(
                server_url="ws://hub.sim/socket", vsn=vsn
            )  # it joins both kinds of topics
            channels.append(world.add_client(RealtimeClient(config, rng=_rng(rng)), name=name))
            continue
        user_id = name
        if rooms and rng.random() < DEVICES:
            user_id = rng.choice([*rooms])
            name = f"{user_id}/{len(rooms[user_id]) + 1}"
        client = _room_client(kind, vsn, user_id, number, rng)
        host = world.add_client(client, name=name, hears_chat=kind != "jarvis")
        rooms.setdefault(user_id, []).append(host)
    for devices in rooms.values():
        for host in devices:
            user = RoomUser(world, host, _rng(rng), pace, others=[*rooms], devices=devices)
            world.after(rng.uniform(0, 5), user.go_online)
    for host in channels:
        world.after(rng.uniform(0, 5), ChannelUser(world, host, _rng(rng), pace).go_online)


def _room_client(kind: str, vsn: Vsn, user_id: str, number: int, rng: Random) -> PresenceClient:
    settings: dict[str, Any] = {"server_url": "ws://hub.sim/realtime/v1", "vsn": vsn}
    if kind == "jarvis":
        settings = {"server_url": "ws://hub.sim:8790/"}
    identity = Identity(user_id, user_id.capitalize())
    return PresenceClient(identity, PresenceConfig(**settings), rng=_rng(rng), online_at=f"{number:015.3f}")


def _rng(rng: Random) -> Random:
    return Random(rng.getrandbits(64))
