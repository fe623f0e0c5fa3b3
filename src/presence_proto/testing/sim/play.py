"""A whole play, in rounds: a world runs, all faults end, everything becomes well, and they begin again."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from presence_proto.testing.sim.faults import SimFaults
from presence_proto.testing.sim.world import SimWorld

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_proto.testing.sim.stats import SimStats

ROUND = 450.0
"""Virtual seconds after which all faults end."""
PACE, QUIET_PACE = 60.0, 900.0
"""Seconds between what a user does and does next; with faults there shall be much to break."""


def play_seed(
    seed: int,
    *,
    minutes: float | None = None,
    clients: int | None = None,
    faults: SimFaults = SimFaults.MIXED,
    log: Callable[[str], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> SimStats:
    """Run the world of a seed, and every few minutes heal it and let it settle. What is not said is up to the
    seed.

    `progress` is called with the virtual seconds of each round. Raises `SimViolation` when a law is broken.
    """
    rng = Random(f"{seed}/play")
    some_minutes, some_clients = rng.choice((10.0, 15.0, 20.0)), rng.randint(3, 6)
    options = "".join(
        f" --{name} {value:g}"
        for name, value in (("minutes", minutes), ("clients", clients))
        if value is not None
    )
    kind = "mixed" if faults else "none"
    world = SimWorld(
        seed,
        clients=some_clients if clients is None else clients,
        faults=faults,
        pace=PACE if faults else QUIET_PACE,
        log=log or False,
        replay=f"presence sim --seed {seed}{options} --faults {kind} --log",
    )
    left = 60 * (some_minutes if minutes is None else minutes)
    while left > 0:
        seconds = min(left, ROUND)
        world.run(seconds=seconds)
        left -= seconds
        if faults:
            world.cut(rng.choice([*world.clients]), how="dead")
        world.heal()
        world.settle()
        world.resume_faults()
        if progress is not None:
            progress(seconds)
    return world.stats
