"""Run attacks in their full size, and print what came of them.

    PYTHONPATH=tests python -m attacks            all of them
    PYTHONPATH=tests python -m attacks retracks   these only

`ATTACK_SCALE=0.1` makes them as small as the tests have them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import attrs

os.environ.setdefault("ATTACK_SCALE", "1")

from attacks import large_metas, memory, tls_handshakes
from attacks.rig import Report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

META = 60 * 1024  # bytes: a hub takes up to 64 KiB by default

ATTACKS: dict[str, Callable[[], Awaitable[object]]] = {
    "stalled-handshakes": lambda: tls_handshakes.stall(max_connections=20 + 100),
    "large-state": lambda: large_metas.large_state(META),
    "retracks": lambda: large_metas.retracks(META),
    "never-read": memory.never_read,
    "large-names": lambda: memory.large_names(256),
    "many-channels": lambda: memory.many_channels(META),
}


def shown(outcome: Any) -> str:
    """The figures of an outcome, in a line."""
    if isinstance(outcome, Report):
        slow = f"{outcome.percentile(0.5) * 1000:.0f} ms, p99 {outcome.percentile(0.99) * 1000:.0f} ms"
        return f"(heartbeats {slow}, {outcome.unanswered} unanswered, {outcome.cut} cut)"
    if attrs.has(type(outcome)):
        fields = attrs.asdict(outcome, recurse=False).items()
        return ", ".join(f"{name} {shown(value)}" for name, value in fields)
    if isinstance(outcome, list):  # of the hub's log
        return f"{len(outcome)} lines"
    if isinstance(outcome, tuple):
        return ", ".join(map(shown, outcome))
    return f"{outcome:.3f}" if isinstance(outcome, float) else f"{outcome:,}"


def main() -> None:
    if {"-h", "--help"} & {*sys.argv}:
        print(f"{__doc__}\nThe attacks: {', '.join(ATTACKS)}.")
        return
    names = sys.argv[1:] or list(ATTACKS)
    if unknown := set(names) - set(ATTACKS):
        sys.exit(f"there is no attack {', '.join(sorted(unknown))}: choose of {', '.join(ATTACKS)}")
    for name in names:
        print(f"{name}: {shown(asyncio.run(_run(ATTACKS[name])))}", flush=True)


async def _run(attack: Callable[[], Awaitable[object]]) -> object:
    return await attack()


if __name__ == "__main__":
    main()
