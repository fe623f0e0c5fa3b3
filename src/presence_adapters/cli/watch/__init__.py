"""`presence watch`: the live room in a terminal, and lines of events anywhere else."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from presence_adapters.cli.one_shot import run
from presence_adapters.cli.output import LOGGER
from presence_adapters.cli.watch.lines import print_events

if TYPE_CHECKING:
    from presence_adapters.settings.layers import Settings


def watch_room(settings: Settings, *, plain: bool, as_lines: bool) -> None:
    """Show the room until it is quit. Raises `Failure` when the server does not let us in."""
    if plain or as_lines or not _has_screen():
        run(print_events(settings, as_lines=as_lines))
    else:
        from presence_adapters.cli.watch.screen import show_room

        run(show_room(settings))


def _has_screen() -> bool:
    """Whether there is a terminal, and it is for us alone: not for a log, too."""
    logs = logging.getLogger(LOGGER).isEnabledFor(logging.DEBUG)
    streams = (sys.stdin, sys.stdout, sys.stderr)  # the screen is drawn on the last one
    return not logs and os.environ.get("TERM") != "dumb" and all(stream.isatty() for stream in streams)
