"""What has happened in the room, the latest at the bottom."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text
from textual.widgets import RichLog

if TYPE_CHECKING:
    from textual.events import Resize

    from presence_adapters.cli.wording import Line

KEPT = 1000
"""Lines that one can scroll back to."""

LONGEST = 1000
"""Characters of an event that are shown. A message may have millions, and to wrap them takes seconds."""


class Feed(RichLog):
    """Lines with the time of day."""

    def __init__(self) -> None:
        super().__init__(id="feed", wrap=True, min_width=1, max_lines=KEPT)
        self.border_title = "what happens"
        self._lines: deque[Text] = deque(maxlen=KEPT)

    def add(self, line: Line) -> None:
        """Something has happened just now."""
        words = line.text if len(line.text) <= LONGEST else f"{line.text[:LONGEST]}…"
        text = Text(f"{datetime.now():%H:%M:%S} ", "dim")
        text.append(f"{line.symbol} {words}", line.style)
        self._lines.append(text)
        self.write(text)

    def on_resize(self, event: Resize) -> None:
        """Wrap the lines anew."""
        self.clear()
        for text in self._lines:
            self.write(text)
