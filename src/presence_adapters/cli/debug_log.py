"""The logs of the command on stderr, without secrets: a hub's, and with `--debug` the client's."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from presence_adapters.cli.wording import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGGER = "presence_adapters"


class PrintableFormatter(logging.Formatter):
    """Nothing that a stranger has written breaks out of its line, or is obeyed by the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line of a message."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """The lines of a traceback."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


class _Formatter(logging.Formatter):
    """One line for each message, whatever a server puts into it."""

    def format(self, record: logging.LogRecord) -> str:
        when = f"{self.formatTime(record, '%H:%M:%S')}.{record.msecs:03.0f}"
        name = record.name.removeprefix(f"{LOGGER}.")
        return f"{when} {name}: {printable(record.getMessage())}"


def hub_log(level: str) -> None:
    """The log of a hub on stderr, from this level on."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


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
