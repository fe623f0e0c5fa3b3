"""The pictures of the site, drawn from the code: its tables, its imports, and clients that really run."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from diagrams.channel import channel_states
from diagrams.layers import layers
from diagrams.presence import merging, waiting
from diagrams.reconnecting import reconnecting

if TYPE_CHECKING:
    from collections.abc import Callable

    from diagrams.svg import Picture

IMAGES = Path(__file__).parents[1] / "images"

PICTURES: dict[str, Callable[[], Picture]] = {
    "channel-states": channel_states,
    "layers": layers,
    "presence-merging": merging,
    "presence-waiting": waiting,
    "reconnecting": reconnecting,
}


@cache
def images() -> dict[Path, str]:
    """What each file in `docs/images` must be."""
    return {IMAGES / f"{name}.svg": draw().svg() for name, draw in PICTURES.items()}
