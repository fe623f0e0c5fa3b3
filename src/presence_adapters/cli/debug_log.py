"""`--debug`: the log of the client on stderr, with all that goes over the wire. Secrets are not in it."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from presence_adapters.cli.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGER = "presence_adapters"


class _Formatter(logging.Formatter):
    """One line for each message, whatever a server puts into it."""

    def format(self, record: logging.LogRecord) -> str:
        when = f"{self.formatTime(record, '%H:%M:%S')}.{record.msecs:03.0f}"
        name = record.name.removeprefix(f"{LOGGER}.")
        return f"{when} {name}: {printable(record.getMessage())}"


@contextmanager
def debug_log() -> Iterator[None]:
    """Log to stderr."""
    logger, handler = logging.getLogger(LOGGER), logging.StreamHandler()
    handler.setFormatter(_Formatter())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
