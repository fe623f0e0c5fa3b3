"""DEBUG log of the class and topic of every event. `wire_log` logs the content of events."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


def logged_events(on_event: Callable[[Any], None]) -> Callable[[Any], None]:
    """Wrap `on_event` in a function that also logs each event. If DEBUG is off, return `on_event` itself."""
    if not logger.isEnabledFor(logging.DEBUG):
        return on_event

    def log(event: Any) -> None:
        kind, topic = type(event).__name__, getattr(event, "topic", None)
        where = "" if topic is None else f" in {topic!r}"
        logger.debug("%s%s", kind, where, extra={"event": kind, "topic": topic})
        on_event(event)

    return log
