"""The default population of a world: clients of all kinds and their simulated users."""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import TYPE_CHECKING, Any

from presence_proto.config import ChannelConfig, Identity, PresenceConfig, RealtimeConfig, Vsn
from presence_proto.events import UserStatus
from presence_proto.presence_client import PresenceClient
from presence_proto.realtime_client import RealtimeClient
from presence_proto.testing.sim._judges import ChannelWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from presence_proto.testing.sim.hosts import ClientHost
    from presence_proto.testing.sim.world import SimWorld


# ------------------------------------------------------------------------------------------------------ users
# Simulated users act on their clients at random, by seed.


ACTIVITIES = (None, "Playing Snake", "Reading", "Making café ☕", "x" * 300)
TOPICS = ("realtime:jarvis-presence", "realtime:lobby", "realtime:game", "room:plain")


class SimUser(ABC):
    """A simulated user of one client, who acts every `pace` seconds on average."""

    def __init__(self, world: SimWorld, host: ClientHost, rng: Random, pace: float) -> None:
        self._world = world
        self._host = host
        self._rng = rng
        self._pace = pace
        self._next()

    def _next(self) -> None:
        self._world.after(self._rng.expovariate(1 / self._pace), self._act)

    def _act(self) -> None:
        if not self._world.users_rest and not self._host.is_frozen:
            self._choose()()
        self._next()

    @abstractmethod
    def _choose(self) -> Callable[[], Any]:
        """Return the next action."""

    def go_online(self) -> None:
        """Connect, unless the client is still connected or closing, or its host is frozen."""
        if self._host.endpoint.is_closed and not self._host.is_frozen:
            self._host.do("connect")

    def go_offline(self) -> None:
        """Disconnect, and reconnect after 120 seconds on average."""
        self._host.do("disconnect")
        self._world.after(self._rng.expovariate(1 / 120), self.come_back)

    def come_back(self) -> None:
        """Reconnect now, or retry every 7 seconds until a connect is possible."""
        if not self._host.wanted:
            self.go_online()
            if not self._host.wanted:
                self._world.after(7.0, self.come_back)


class RoomUser(SimUser):
    """A user in the presence room. `others` has user ids to poke, `devices` has all hosts of this user."""

    def __init__(
        self,
        world: SimWorld,
        host: ClientHost,
        rng: Random,
        pace: float,
        *,
        others: Sequence[str],
        devices: Sequence[ClientHost],
    ) -> None:
        super().__init__(world, host, rng, pace)
        self._others = others
        self._devices = devices

    def _choose(self) -> Callable[[], Any]:
        if not self._host.wanted:
            return self.come_back
        acts = [self._change, self._change, self._change, self._change_often, self._poke, self._invite]
        acts += [self.go_offline, self._switch]
        if self._host.hears_chat:
            acts += [self._chat, self._chat]
        return self._rng.choice(acts)

    def _change(self) -> None:
        status, activity = self._rng.choice([*UserStatus]), self._rng.choice(ACTIVITIES)
        self._host.do("update_activity", status, activity)

    def _change_often(self) -> None:
        # A burst of changes may exceed the client's `track_limit`.
        for number in range(self._rng.randint(2, 9)):
            self._world.after(self._rng.random() * number, self._change)

    def _poke(self) -> None:
        self._host.do("send_poke", self._rng.choice(self._others))

    def _invite(self) -> None:
        self._host.do("send_invite", f"game {self._world.next_number()}", self._rng.choice((None, "code")))

    def _chat(self) -> None:
        self._host.do("send_chat", "general", f"message {self._world.next_number()}")

    def _switch(self) -> None:
        """Go offline on this device, and connect on a random device of this user."""
        self.go_offline()
        device = self._rng.choice(self._devices)
        if device.endpoint.is_closed and not device.is_frozen:
            device.do("connect")


class ChannelUser(SimUser):
    """A user of a `RealtimeClient` with several channels."""

    def __init__(self, world: SimWorld, host: ClientHost, rng: Random, pace: float) -> None:
        super().__init__(world, host, rng, pace)
        assert isinstance(host.watch, ChannelWatch)
        self._wants = host.watch.wants

    def _choose(self) -> Callable[[], Any]:
        acts = [self._join, self._join, self._leave, self._track, self._track, self._untrack]
        acts += [self._push, self._broadcast, self._leave_and_join, self.go_offline]
        return self.come_back if not self._host.wanted else self._rng.choice(acts)

    @property
    def _topics(self) -> list[str]:
        """The topics that are joined."""
        return [*self._wants]

    def go_online(self) -> None:
        """Connect. If no topic is joined, also join a topic and track a meta in the topic."""
        super().go_online()
        if not self._wants:
            self._join()
            self._track()

    def _join(self) -> None:
        self._join_one(self._rng.choice(TOPICS))

    def _join_one(self, topic: str) -> None:
        name = self._host.name
        if topic.startswith("realtime:"):
            config = ChannelConfig(
                presence_key=name, broadcast_ack=True, broadcast_self=topic.endswith("game")
            )
            self._host.do("join", topic, config)
        else:
            self._host.do("join", topic, {"user_id": name, "mood": "plain"})

    def _leave(self) -> None:
        if self._topics:
            self._host.do("leave", self._rng.choice(self._topics))

    def _leave_and_join(self) -> None:
        if self._topics:
            topic = self._rng.choice(self._topics)
            self._host.do("leave", topic)
            self._join_one(topic)

    def _track(self) -> None:
        if self._topics:
            name, mood = self._host.name, self._rng.choice(("good", "bad", "☕"))
            shown = {"user_id": name, "display_name": name, "status": "online", "activity": mood}
            self._host.do("track", self._rng.choice(self._topics), shown)

    def _untrack(self) -> None:
        topics = [topic for topic in self._topics if topic.startswith("realtime:")]
        if topics:
            self._host.do("untrack", self._rng.choice(topics))

    def _push(self) -> None:
        if self._topics:
            self._host.do("push", self._rng.choice(self._topics), "hello", {"from": self._host.name})

    def _broadcast(self) -> None:
        topics = [topic for topic in self._topics if topic.startswith("realtime:")]
        if topics:
            self._host.do("broadcast", self._rng.choice(topics), "hello", {"from": self._host.name})


# ------------------------------------------------------------------------------------------------------- cast


NAMES = ("ada", "bob", "cleo", "dan", "eve", "finn", "gina", "hugo", "iris", "jack")
KINDS = ("phoenix", "jarvis", "channels", "phoenix", "phoenix", "channels", "jarvis")
VSNS: tuple[Vsn, ...] = ("2.0.0", "2.0.0", "1.0.0")
DEVICES = 0.25
"""The probability that a client in the presence room is another device of an existing user."""


def populate(world: SimWorld, clients: int, rng: Random, pace: float) -> None:
    """Add `clients` clients and their users, who connect within the first 5 seconds."""
    rooms: dict[str, list[ClientHost]] = {}  # the devices of each user in the room
    channels: list[ClientHost] = []
    shift = rng.randrange(len(KINDS))
    for number in range(clients):
        kind, vsn = KINDS[(number + shift) % len(KINDS)], rng.choice(VSNS)
        name = NAMES[number] if number < len(NAMES) else f"user{number}"
        if kind == "channels":
            config = RealtimeConfig(
                server_url="ws://hub.sim/socket", vsn=vsn
            )  # this socket serves both Supabase and plain Phoenix topics
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
