"""The wire log: all that clients and hubs hear, say and report, in words and without secrets.

It goes to this logger, `presence_adapters.wire_log`, with level DEBUG. Whether anybody listens is looked at
when a client or hub is made; if nobody does, it costs nothing.
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
    """What a `Recorder` is to write to, for a wire log; `None` when nobody wants one.

    Each has a number, which its messages begin with, and which they have as the attribute `endpoint`.
    """
    if not logger.isEnabledFor(logging.DEBUG):
        return None
    from presence_proto.recording import Narrator

    number = next(_numbers)
    return Narrator(lambda words: logger.debug("%d %s", number, words, extra={"endpoint": number}))
