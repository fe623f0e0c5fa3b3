"""Wire log: logs the messages and events of clients and hubs as text, without secrets.

The log goes to the logger `presence_adapters.wire_log` at level DEBUG. The level is checked once, when a
client or hub is created. If DEBUG is off at that time, the wire log costs nothing.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_numbers = itertools.count(1)


def wire_log() -> Callable[[str], object] | None:
    """Return a `write` function for a `Recorder` that feeds the wire log, or `None` if DEBUG is off.

    Each client or hub has a number. The log messages of a client or hub begin with this number. The log
    records have the number as attribute `endpoint`.
    """
    if not logger.isEnabledFor(logging.DEBUG):
        return None
    from presence_proto.recording import Narrator

    number = next(_numbers)
    return Narrator(lambda words: logger.debug("%d %s", number, words, extra={"endpoint": number}))
