"""How the demo shows the room: a live view in a terminal, lines anywhere else."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Protocol, Self

from rich import box
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from presence_adapters.cli.wording import STATUS, Line, describe, printable, status_words
from presence_proto import (
    ChatMessage,
    Connected,
    GameInvite,
    OnlineUser,
    Poked,
    UserOnline,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

    from presence_adapters.asyncio import EventsDropped, PresenceClient
    from presence_proto import PresenceEvent

SIDE_BY_SIDE = 110
"""Columns from which roster and events stand side by side."""


class Tally:
    """What was seen, for the summary."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.kinds: Counter[str] = Counter()
        self.users: set[str] = set()
        self.messages = 0
        self.reconnects = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def add(self, event: PresenceEvent | EventsDropped) -> None:
        """Count an event."""
        self.kinds[type(event).__name__] += 1
        match event:
            case Connected():
                self.users.update(user.user_id for user in event.users)
                self.reconnects += event.resumed
            case UserOnline():
                self.users.add(event.user.user_id)
            case ChatMessage() | GameInvite() | Poked():
                self.messages += 1

    def summary(self) -> list[str]:
        """A few lines."""
        events = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
        return [
            f"{self.elapsed:.1f} seconds in the room: {len(self.users)} users, {self.kinds.total()} events",
            f"events: {events or 'none'}",
            f"messages: {self.messages}, reconnects: {self.reconnects}",
        ]


class View(Protocol):
    """Shows the room while it is entered, and a summary when it was left."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...
    def show(self, event: PresenceEvent | EventsDropped) -> None:
        """An event has come."""
        ...

    def say(self, text: str) -> None:
        """We do something ourselves."""
        ...

    def refresh(self) -> None:
        """Time has passed."""
        ...

    def finish(self) -> None:
        """Print the summary."""
        ...


class PlainView:
    """One line for each event, on stdout. `on_gone` is called when nobody reads them any more."""

    def __init__(self, tally: Tally, on_gone: Callable[[], None]) -> None:
        self._tally = tally
        self._on_gone = on_gone

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def show(self, event: PresenceEvent | EventsDropped) -> None:
        self._print(f"{self._tally.elapsed:6.1f} s  {type(event).__name__:<15}  {describe(event).text}")

    def say(self, text: str) -> None:
        self._print(f"{self._tally.elapsed:6.1f} s  {'':<15}  {text}")

    def refresh(self) -> None:
        pass

    def finish(self) -> None:
        for line in self._tally.summary():
            self._print(line)

    def _print(self, line: str) -> None:
        try:
            print(line, flush=True)
        except BrokenPipeError:
            # `presence demo | head`. What is still in the buffer must not fail again when Python exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._on_gone()


class LiveView:
    """The roster, the latest events and a status line, over the whole terminal, whatever size it takes."""

    def __init__(self, console: Console, tally: Tally, client: PresenceClient, seconds: float | None) -> None:
        self._console = console
        self._tally = tally
        self._client = client
        self._seconds = seconds
        self._lines: deque[tuple[float, Line]] = deque(maxlen=200)
        self._since: dict[str, tuple[object, float]] = {}  # by user: what they do, and since when
        # No thread: refresh() is called by the loop.
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        self.refresh()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def show(self, event: PresenceEvent | EventsDropped) -> None:
        self._lines.append((self._tally.elapsed, describe(event)))
        self.refresh()

    def say(self, text: str) -> None:
        self._lines.append((self._tally.elapsed, Line("·", "bold", text)))
        self.refresh()

    def refresh(self) -> None:
        self._live.update(self._render(), refresh=True)

    def finish(self) -> None:
        for line in self._tally.summary():
            self._console.print(line, highlight=False)

    # ---------------------------------------------------------------- drawing

    def _render(self) -> RenderableType:
        width, height = self._console.size
        users = sorted(self._client.online_users, key=lambda user: user.display_name.casefold())
        self._note(users)
        body, root = Layout(), Layout()
        roster_height = min(len(users) + 3, max(height // 2, 4))
        feed_height = height - 1 if width >= SIDE_BY_SIDE else height - 1 - roster_height
        roster = Layout(self._roster(users, width < 60), minimum_size=3)
        feed = Layout(self._feed(max(feed_height - 2, 1)), minimum_size=3)
        if width >= SIDE_BY_SIDE:
            roster.size = min(width // 2, 64)
            body.split_row(roster, feed)
        else:
            roster.size = roster_height
            body.split_column(roster, feed)
        root.split_column(body, Layout(self._status(), size=1))
        return root

    def _note(self, users: list[OnlineUser]) -> None:
        now, before = self._tally.elapsed, self._since
        self._since = {}
        for user in users:
            what = (user.status, user.activity)
            known = before.get(user.user_id)
            self._since[user.user_id] = known if known is not None and known[0] == what else (what, now)

    def _roster(self, users: list[OnlineUser], narrow: bool) -> RenderableType:
        stale = self._client.is_stale
        table = Table(
            box=None, expand=True, padding=(0, 1), header_style="bold", style="dim" if stale else ""
        )
        table.add_column("who", no_wrap=True, ratio=2)
        table.add_column("status", no_wrap=True, ratio=2)
        if not narrow:
            table.add_column("activity", no_wrap=True, ratio=4)
        table.add_column("since", no_wrap=True, justify="right", width=6)
        for user in users:
            ours = user.user_id == self._client.identity.user_id
            cells = [
                Text(printable(user.display_name), style="bold" if ours else ""),
                Text(status_words(user), style=STATUS[user.status][1]),
                Text(printable(user.activity or "")),
                Text(_age(self._tally.elapsed - self._since[user.user_id][1]), style="bright_black"),
            ]
            missing = "dim" if self._client.is_user_stale(user.user_id) else None
            table.add_row(*(cell for n, cell in enumerate(cells) if not (narrow and n == 2)), style=missing)
        title = "the room, as it was" if stale else "the room"
        return Panel(
            table, title=title, title_align="left", border_style="red" if stale else "green", box=box.ROUNDED
        )

    def _feed(self, height: int) -> RenderableType:
        text = Text(no_wrap=True, overflow="ellipsis")
        for at, line in list(self._lines)[-height:]:
            text.append(f"{at:6.1f} ", style="bright_black")
            text.append(f"{line.symbol} {line.text}\n", style=line.style)
        return Panel(text, title="what happens", title_align="left", border_style="blue", box=box.ROUNDED)

    def _status(self) -> RenderableType:
        client, elapsed = self._client, self._tally.elapsed
        state, style = ("connected", "bold green") if client.is_connected else ("reconnecting", "bold red")
        facts = [f"{client.online_count} online", f"{self._tally.kinds.total()} events", f"{elapsed:.0f} s"]
        if self._seconds is not None:
            facts.append(f"{max(self._seconds - elapsed, 0):.0f} s left")
        text = Text(f" ● {state}", style, no_wrap=True, overflow="ellipsis")
        return text.append("  ".join(["", *facts, "Ctrl-C ends it"]), "not bold default")


def _age(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds // 60:.0f} min"
