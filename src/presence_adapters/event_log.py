"""DEBUG log of events: the class and the topic of each. For their content see `wire_log`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


def logged_events(on_event: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap `on_event` so that it also logs each event. If DEBUG is off now, return it unchanged."""
    if not logger.isEnabledFor(logging.DEBUG):
        return on_event

    def log(event: Any) -> None:
        kind, topic = type(event).__name__, getattr(event, "topic", None)
        where = "" if topic is None else f" in {topic!r}"
        logger.debug("%s%s", kind, where, extra={"event": kind, "topic": topic})
        on_event(event)

    return log
