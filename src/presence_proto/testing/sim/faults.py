"""`SimFaults`, the kinds of faults in a simulated world, and `Chaos`, which injects random faults."""

from __future__ import annotations

from enum import Flag, auto
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from presence_proto.testing.sim.world import SimWorld


class SimFaults(Flag):
    """The kinds of faults that a world may inject. Combine several kinds with `|`."""

    CUTS = auto()  # connections end with FIN or RST, end for one side only, or die unnoticed
    SILENCE = auto()  # nothing arrives for a while, in one direction or both
    CONNECTS = auto()  # connects are refused, hang, or are slow
    RESTARTS = auto()  # the hub is stopped or killed, and starts again
    CHANNELS = auto()  # the hub crashes or closes channels, and closes connections
    HUB = auto()  # the hub mutes heartbeats, ignores or delays joins, refuses handshakes, sends diffs twice
    FREEZES = auto()  # a host handles no facts and no ticks for a while
    CLOCKS = auto()  # a clock leaps forward, or steps backward
    TICKS = auto()  # ticks are late or early
    STALE = auto()  # drivers report the open or close of forgotten connections

    NONE = 0
    MIXED = CUTS | SILENCE | CONNECTS | RESTARTS | CHANNELS | HUB | FREEZES | CLOCKS | TICKS | STALE


CALM = 120.0
"""Virtual seconds before the first fault of a world."""


class Chaos:
    """Random source of faults. While `is_on` is true, a fault strikes every `every` seconds on average.

    No fault strikes in the first `CALM` seconds of the world.
    """

    def __init__(self, world: SimWorld, rng: Random, faults: SimFaults, every: float) -> None:
        self.is_on = True
        self._world = world
        self._rng = rng
        self._every = every
        self._strikes = [strike for kind, strikes in _STRIKES.items() if kind in faults for strike in strikes]
        world.after(CALM, self._next)

    def _next(self) -> None:
        if self._strikes:
            self._world.after(self._rng.expovariate(1 / self._every), self._strike)

    def _strike(self) -> None:
        if self.is_on:
            self._rng.choice(self._strikes)(self._world, self._rng)
        self._next()


def _name(world: SimWorld, rng: Random) -> str:
    return rng.choice([*world.clients])


def _seconds(rng: Random) -> float:
    """Return a random duration: usually seconds, sometimes minutes, at most 600 seconds."""
    return min(rng.expovariate(1 / rng.choice((2.0, 20.0, 90.0))), 600.0)


def _cut(world: SimWorld, rng: Random) -> None:
    world.cut(_name(world, rng), how=rng.choice(("fin", "rst", "near", "far", "dead")))


def _cut_all(world: SimWorld, rng: Random) -> None:
    how = rng.choice(("fin", "rst"))
    for name in world.clients:
        world.cut(name, how=how)


def _silence(world: SimWorld, rng: Random) -> None:
    world.silence(_name(world, rng), _seconds(rng), way=rng.choice(("both", "up", "down")))


def _lose_network(world: SimWorld, rng: Random) -> None:
    name, seconds = _name(world, rng), _seconds(rng)
    world.silence(name, seconds)
    world.hamper_connects(name, seconds, how="hang")


def _hamper_connects(world: SimWorld, rng: Random) -> None:
    name = _name(world, rng)
    world.hamper_connects(name, _seconds(rng), how=rng.choice(("refuse", "hang", "slow")))
    world.cut(name)


def _stop_hub(world: SimWorld, rng: Random) -> None:
    world.stop_hub(_seconds(rng))


def _kill_hub(world: SimWorld, rng: Random) -> None:
    world.kill_hub(_seconds(rng), lost=rng.random() < 0.5)


def _end_channel(world: SimWorld, rng: Random) -> None:
    topics = world.hub.topics
    if topics:
        name = rng.choice((None, _name(world, rng)))
        world.end_channel(rng.choice(topics), name=name, crash=rng.random() < 0.5)


def _kick(world: SimWorld, rng: Random) -> None:
    world.kick(_name(world, rng), code=rng.choice((1000, 1001, 1008, 1011)))


def _bad_hub(world: SimWorld, rng: Random) -> None:
    faults = rng.choice(_HUB_FAULTS)
    world.spoil_hub(_seconds(rng), **faults)


def _freeze(world: SimWorld, rng: Random) -> None:
    world.freeze(_name(world, rng), _seconds(rng), tick_first=rng.random() < 0.5)


def _freeze_hub(world: SimWorld, rng: Random) -> None:
    world.freeze("hub", _seconds(rng), tick_first=rng.random() < 0.5)


def _jump(world: SimWorld, rng: Random) -> None:
    name = rng.choice(("hub", _name(world, rng), _name(world, rng)))
    world.jump_clock(
        name, rng.choice((rng.uniform(0, 5), rng.uniform(0, 4000), -rng.uniform(0, MAX_STEP_BACK)))
    )


def _tick_badly(world: SimWorld, rng: Random) -> None:
    name = rng.choice(("hub", _name(world, rng)))
    world.tick_early(name)
    world.tick_late(name, rng.uniform(0, 8), _seconds(rng))


MAX_STEP_BACK = 20.0
"""The largest backward step of a clock, in seconds."""

_HUB_FAULTS: tuple[dict[str, Any], ...] = (
    {"heartbeats_muted": True},
    {"joins_ignored": True},
    {"join_delay": 8.0, "refusal_delay": 5.0},
    {"handshakes_to_refuse": 2},
    {"diffs_duplicated": True},
)

_STRIKES: dict[SimFaults, tuple[Callable[[SimWorld, Random], None], ...]] = {
    SimFaults.CUTS: (_cut, _cut, _cut_all),
    SimFaults.SILENCE: (_silence, _silence, _lose_network),
    SimFaults.CONNECTS: (_hamper_connects,),
    SimFaults.RESTARTS: (_stop_hub, _kill_hub),
    SimFaults.CHANNELS: (_end_channel, _kick),
    SimFaults.HUB: (_bad_hub,),
    SimFaults.FREEZES: (_freeze, _freeze_hub),
    SimFaults.CLOCKS: (_jump,),
    SimFaults.TICKS: (_tick_badly,),
}
