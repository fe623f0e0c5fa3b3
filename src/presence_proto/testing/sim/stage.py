"""What all hosts of a world share: time, chance, the log, the network, and the referee."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, NoReturn

from presence_proto.outputs import ConnId
from presence_proto.testing.sim.agenda import Scheduler
from presence_proto.testing.sim.link import End, LinkQuality
from presence_proto.testing.sim.log import SimLog
from presence_proto.testing.sim.stats import SimStats
from presence_proto.testing.sim.violation import SimViolation

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_proto.testing.sim.client_host import ClientHost
    from presence_proto.testing.sim.host import Host
    from presence_proto.testing.sim.hub_host import HubHost

SLOW = 30.0
"""Seconds that a slow connect takes at most."""


class Stage:
    """Where the hosts of one world live. `replay` says how to see it again."""

    hub: HubHost

    def __init__(
        self, seed: int, *, replay: str, log: bool | Callable[[str], None], quality: LinkQuality | None
    ) -> None:
        self.agenda = Scheduler()
        self.stats = SimStats()
        self.log = SimLog(self.agenda, on=log is True, listener=log if callable(log) else None)
        self.rng = Random(f"{seed}/network")
        self.replay = replay
        self.stale_facts = 0.0  # how likely a driver reports something late, or once more
        self._quality = quality
        self._qualities: dict[str, LinkQuality] = {}

    # ---------------------------------------------------------------- the network

    def quality_for(self, host: Host) -> LinkQuality:
        """How well the links of a client work: as the world says, or some home's way to the internet."""
        quality = self._qualities.get(host.name)
        if quality is None:
            rng = self.rng
            quality = self._quality or LinkQuality(
                latency=rng.choice((0.001, 0.01, 0.03, 0.1, 0.25)),
                jitter=rng.choice((0.001, 0.01, 0.05)),
                bandwidth=rng.choice((20_000.0, 1_000_000.0)),
                chunking=rng.choice((0.0, 0.02, 0.2)),
            )
            self._qualities[host.name] = quality
        return quality

    def connect(self, host: Host, conn: ConnId) -> End:
        """A client wants a connection. Returns its end, which is not open yet."""
        quality = self.quality_for(host)
        near, far = (
            End(one, number, quality, self.agenda, self.rng, self.stats)
            for one, number in ((host, conn), (self.hub, ConnId(0)))
        )
        near.peer, far.peer = far, near
        client: ClientHost = host  # type: ignore[assignment]  # only clients connect
        fate = client.connects
        if fate == "hang":
            return near
        delay = quality.latency + (self.rng.random() * SLOW if fate == "slow" else 0.0)
        self.agenda.after(delay, self.hub.knocked, near, "no route to host" if fate == "refuse" else None)
        return near

    def stale(self, host: Host, fact: str, conn: ConnId) -> None:
        """A connection is over for `host`. A sloppy driver may report that late, or once more."""
        if self.stale_facts and self.rng.random() < self.stale_facts:
            self.stats.faults["stale fact"] += 1
            self.agenda.after(self.rng.expovariate(1 / 60), host.stale_fact, fact, conn)

    # ---------------------------------------------------------------- the referee

    def broken(self, law: str, who: str, details: str) -> NoReturn:
        """Raise `SimViolation`."""
        raise SimViolation(law, who, details, now=self.agenda.now, replay=self.replay, tail=self.log.tail())
