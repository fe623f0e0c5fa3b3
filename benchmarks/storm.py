"""The benchmark of a storm: a hub falls, a new one rises, and a thousand clients come back to it at once.

All of it is in one process and in virtual time: the real clients, the real hub, all bytes, and a network that
takes a while. The costs are CPU time of this process; the duration is the backoff of the clients.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from attrs import frozen

from benchmarks.contest import WRONG_ROSTER, Result
from benchmarks.plan import Plan
from benchmarks.table import Table, rows_of
from presence_proto import (
    CloseTransport,
    Connected,
    ConnId,
    Hub,
    HubConfig,
    Identity,
    OpenTransport,
    PresenceClient,
    PresenceConfig,
    SendData,
)

ROOM = 50
"""So many share a channel."""
LATENCY = 0.02, 0.08
"""Seconds that bytes are under way: between these, for each client another number."""
DOWN = 0.5
"""Seconds until the new hub is up."""
CALM = 60.0
"""Seconds until the fall."""
PATIENCE = 120.0
"""Seconds in which all must be back."""


class Agenda:
    """Virtual time: what is to be done when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()

    def at(self, when: float, action: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._heap, (max(when, self.now), next(self._numbers), action, args))

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, until then or until it is `done`."""
        while self._heap and self._heap[0][0] <= until and not done():
            self.now, _, action, args = heapq.heappop(self._heap)
            action(*args)
        if not done():
            self.now = until


class Host:
    """Where an endpoint runs. `spent`: seconds of CPU time in it."""

    def __init__(self, agenda: Agenda, endpoint: Any, world: World) -> None:
        self._agenda = agenda
        self._world = world
        self._deadline: float | None = None
        self.endpoint = endpoint
        self.spent = 0.0

    def tell(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """A fact or a command; then carry out what the endpoint wants."""
        start = time.process_time()
        call(*args, now=self._agenda.now, **kwargs)
        outputs = self.endpoint.drain()
        deadline = self.endpoint.next_deadline()
        self.spent += time.process_time() - start
        for output in outputs:
            self._world.wanted(self, output)
        if deadline != self._deadline:
            self._deadline = deadline
            if deadline is not None:
                self._agenda.at(deadline, self._tick, self.endpoint, deadline)

    def _tick(self, endpoint: Any, deadline: float) -> None:
        if endpoint is self.endpoint and deadline == self._deadline:
            self._deadline = None
            self.tell(endpoint.tick)


@frozen(eq=False)
class Link:
    """One connection: the client's id of it, and the hub's."""

    client: Host
    near: ConnId
    far: ConnId
    hub: Hub
    latency: float


class World:
    """A hub, its clients, and what is between them."""

    def __init__(self, seed: int, clients: int) -> None:
        rng = Random(seed)
        self.agenda = Agenda()
        self.hub = Host(self.agenda, Hub(HubConfig(), rng=rng), self)
        self._rng = rng
        self._is_up = True
        self._conns = count(1)
        self._links: dict[Host | ConnId, Link] = {}  # by client, and by the hub's id
        self._latencies: dict[Host, float] = {}
        self._back: dict[Host, float] = {}  # when each was back
        self.clients = [self._client(number) for number in range(clients)]

    def _client(self, number: int) -> Host:
        config = PresenceConfig(server_url="ws://hub/realtime/v1", channel=f"room-{number // ROOM}")
        identity = Identity(f"user-{number:08}", f"Player {number}")
        host = Host(
            self.agenda, PresenceClient(identity, config, rng=Random(self._rng.getrandbits(64))), self
        )
        self._latencies[host] = self._rng.uniform(*LATENCY)
        # They come within some seconds, as people do.
        self.agenda.at(self._rng.uniform(0, CALM / 2), host.tell, host.endpoint.connect)
        return host

    # ---------------------------------------------------------------- the story

    def storm(self) -> list[float] | None:
        """Everybody is there, the hub falls, everybody comes back.

        Returns when each was back, in seconds after the fall; `None` when somebody was not, or sees something
        else than the others.
        """
        self.agenda.run(CALM)
        for host in (self.hub, *self.clients):
            host.spent = 0.0
        fall = self.agenda.now
        self._fall()
        self._back.clear()
        self.agenda.at(fall + DOWN, self._rise)
        self.agenda.run(fall + PATIENCE, lambda: len(self._back) == len(self.clients))
        back = sorted(when - fall for when in self._back.values())
        # The last news is still under way.
        self.agenda.run(self.agenda.now + 5.0)
        return back if len(back) == len(self.clients) and self._all_see_all() else None

    def _fall(self) -> None:
        self._is_up = False
        links = [link for key, link in self._links.items() if isinstance(key, Host)]
        self._links.clear()
        for link in links:
            self.agenda.at(self.agenda.now + link.latency, self._lost, link.client, link.near)

    def _rise(self) -> None:
        self._is_up = True
        spent = self.hub.spent
        self.hub = Host(self.agenda, Hub(HubConfig(), rng=self._rng), self)
        self.hub.spent = spent

    def _all_see_all(self) -> bool:
        for at in range(0, len(self.clients), ROOM):
            room = [host.endpoint for host in self.clients[at : at + ROOM]]
            everybody = {client.identity.user_id for client in room}
            if any({user.user_id for user in client.online_users} != everybody for client in room):
                return False
        return True

    # ---------------------------------------------------------------- the network

    def wanted(self, host: Host, output: Any) -> None:
        """What an endpoint wants, or has to say."""
        if isinstance(output, SendData):
            self._send(host, output)
        elif isinstance(output, OpenTransport):
            delay = 2 * self._latencies[host]
            self.agenda.at(self.agenda.now + delay, self._connected, host, output.conn)
        elif isinstance(output, CloseTransport):
            self._links.pop(host if host is not self.hub else output.conn, None)
        elif isinstance(output, Connected):
            self._back[host] = self.agenda.now

    def _connected(self, client: Host, near: ConnId) -> None:
        if not self._is_up:
            self._lost(client, near)
            return
        far = ConnId(next(self._conns))
        link = Link(client, near, far, self.hub.endpoint, self._latencies[client])
        self._links[client] = self._links[far] = link
        self.hub.tell(self.hub.endpoint.transport_opened, far)
        client.tell(client.endpoint.transport_opened, near)

    def _send(self, host: Host, output: SendData) -> None:
        link = self._links.get(output.conn if host is self.hub else host)
        if link is None:
            return  # lost on the way
        to, conn = (link.client, link.near) if host is self.hub else (self.hub, link.far)
        self.agenda.at(self.agenda.now + link.latency, self._arrive, link, to, conn, output.data)

    def _arrive(self, link: Link, to: Host, conn: ConnId, data: bytes) -> None:
        if self._links.get(link.client) is link:
            to.tell(to.endpoint.receive_data, conn, data)

    def _lost(self, client: Host, near: ConnId) -> None:
        client.tell(client.endpoint.transport_closed, near, reason="the hub has fallen")


COST = f"""\
Virtual time; rooms of {ROOM}. The hub falls, refuses connections for {DOWN:g} s, and all clients come back.
Bytes take {LATENCY[0]:g} to {LATENCY[1]:g} s. From the fall until 5 s after the last is back: new sockets,
joins, tracks, states, diffs, events. There is no peer for this. In the end everybody must see everybody."""
WHEN = """\
Virtual time from the fall until a client has joined its channel again, and has the state. The first attempt
comes after 0.75 to 1 s, by the jitter of the clients."""


def storm(plan: Plan) -> list[Table]:
    """All reconnect at once."""
    clients = plan.scaled(1_000)
    costs = [Result("PresenceClient", ours=True), Result("Hub", ours=True)]
    times = [Result(name, ours=True) for name in ("the first is back", "half are back", "all are back")]
    for number in range(min(plan.rounds, 3)):
        plan.progress(f"storm: {clients:,} clients, storm {number + 1}")
        world = World(plan.seed + number, clients)
        back = world.storm()
        if back is None:
            for result in (*costs, *times):
                result.is_wrong(WRONG_ROSTER)
            break
        costs[0].rounds.append(sum(host.spent for host in world.clients) / clients * 1e3)
        costs[1].rounds.append(world.hub.spent / clients * 1e3)
        for result, when in zip(times, (back[0], back[len(back) // 2], back[-1]), strict=True):
            result.rounds.append(when)
    title = f"A storm: {clients:,} clients reconnect at once"
    return [
        Table("storm-cost", title, COST, "ms of CPU per client", rows_of(costs), compared=False),
        Table("storm-time", title, WHEN, "virtual seconds", rows_of(times), compared=False),
    ]
