"""Implementation of `presence watch`: a full-screen view in a terminal, lines of events otherwise."""

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
    """Show the room until the user quits. Raises `Failure` when the server refuses the client."""
    if plain or as_lines or not _has_screen():
        run(print_events(settings, as_lines=as_lines))
    else:
        from presence_adapters.cli.watch.screen import show_room

        run(show_room(settings))


def _has_screen() -> bool:
    """Whether the standard streams are a capable terminal, and no debug log is printed there."""
    logs = logging.getLogger(LOGGER).isEnabledFor(logging.DEBUG)
    streams = (sys.stdin, sys.stdout, sys.stderr)  # Textual draws on stderr
    return not logs and os.environ.get("TERM") != "dumb" and all(stream.isatty() for stream in streams)
