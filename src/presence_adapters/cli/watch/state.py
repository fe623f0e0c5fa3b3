"""The line that says how the connection is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.text import Text
from textual.widgets import Static

from presence_adapters.cli.wording import printable

if TYPE_CHECKING:
    from presence_adapters.asyncio import PresenceClient
    from presence_proto import Disconnected


class ConnectionLine(Static):
    """Whether we are connected, with how many users and how quick a server; or why not, and until when."""

    def __init__(self, client: PresenceClient, server: str) -> None:
        super().__init__(id="connection")
        self._client = client
        self._server = server
        self._loss: Disconnected | None = None
        self._next_attempt = 0.0  # by time.monotonic()

    def lost(self, loss: Disconnected) -> None:
        """The connection is lost, or could not be made."""
        self._loss = loss
        self._next_attempt = time.monotonic() + (loss.retry_in or 0.0)

    def update_state(self) -> None:
        """Show how things are now."""
        client, left = self._client, self._next_attempt - time.monotonic()
        if client.is_connected:
            facts = [f"connected to {self._server}", f"{client.online_count} online"]
            if client.latency is not None:
                facts.append(f"heartbeat {1000 * client.latency:.0f} ms")
            self._show("●", "bold green", facts)
        elif self._loss is None:
            self._show("◌", "bold yellow", [f"connecting to {self._server}"])
        else:
            then = f"next attempt in {left:.0f} s" if left > 0 else "connecting"
            self._show("✘", "bold red", ["disconnected", then, printable(self._loss.reason)])

    def _show(self, symbol: str, style: str, facts: list[str]) -> None:
        first, *others = facts
        text = Text(f"{symbol} {first}", style)
        self.update(text.append("".join(f"  {fact}" for fact in others), "not bold default"))
