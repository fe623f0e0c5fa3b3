"""The pictures of `presence watch` in these pages: `python docs/captures.py` draws them anew.

A hub, a few residents and `presence watch` on real sockets, in a terminal of 80x24 and in one of 200x60:
before, during and after a restart of the hub. Names and the time of day are made up, and so is the time that
a heartbeat takes: each run draws the same pictures.
"""

from __future__ import annotations

import asyncio
import html
import re
import time
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import PropertyMock, patch

from presence_adapters.asyncio import PresenceClient
from presence_adapters.cli.watch import screen
from presence_adapters.cli.watch.screen import RoomApp
from presence_adapters.server import HubServer
from presence_proto import Identity, PresenceConfig, UserStatus

if TYPE_CHECKING:
    from textual.app import App
    from textual.pilot import Pilot

IMAGES = Path(__file__).parent / "images"

SIZES = [(80, 24), (200, 60)]
"""Columns and rows."""

SERVER = "localhost:4000"
"""Where the hub is, as the pictures have it."""

RETRY = 2.0
"""Seconds until we come back. The others are quicker, so that everybody is there when we are."""


class Clock:
    """A time of day that goes on by some seconds each time that it is asked for."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 5, 20, 15, 3)

    def now(self) -> datetime:
        self._now += timedelta(seconds=4)
        return self._now


class Scene:
    """A hub, who is in its room, and the app that shows it to us. Draws all pictures of one size."""

    def __init__(self, size: tuple[int, int], folder: Path) -> None:
        self._size = size
        self._folder = folder
        self._hub = HubServer()
        self._clients = 0

    async def play(self) -> None:
        async with AsyncExitStack() as self._stack:
            await self._hub.start()
            us = await self._stack.enter_async_context(self._client("Dora", RETRY))
            self._app = RoomApp(us, SERVER)
            await self._app.run_async(headless=True, size=self._size, auto_pilot=self._story)
            assert self._app.return_code == 0
            await self._hub.close()

    async def _story(self, pilot: Pilot[Any]) -> None:
        await self._shows("Connected, 1 online")
        await self._enter("Ada", UserStatus.IN_SKILL, "Sketching an engine")
        bruno = await self._enter("Bruno", UserStatus.IN_GAME, "Playing Snake")
        await self._enter("Chiara", UserStatus.AWAY, "Making coffee")
        chiara = await self._enter("Chiara", UserStatus.ONLINE, "Reading the news")
        await chiara.send_chat("lobby", "Good morning, everyone.")
        await self._shows("Good morning")
        await bruno.send_invite("Snake", "4711")
        await self._shows("code 4711")
        await chiara.send_poke("dora")
        await self._shows("Chiara pokes you")
        await pilot.press("up", "p")
        await self._shows("You poke Chiara")
        await self._shows(f"{SERVER} 4 online")
        self._draw("connected")

        port = self._hub.port
        await self._hub.close()
        await self._shows("next attempt in 1 s")
        self._draw("reconnecting")

        await bruno.disconnect()
        self._hub = HubServer(port=port)
        await self._hub.start()
        await self._shows("Connected again")
        await self._shows("Bruno is gone")
        await self._shows(f"{SERVER} 3 online")
        self._draw("back")
        await pilot.press("q")

    def _client(self, name: str, delay: float) -> PresenceClient:
        config = PresenceConfig(server_url=self._hub.url, reconnect_delay=delay, jitter=0.0)
        # Of two devices the later one is shown.
        self._clients += 1
        online_at = f"2026-01-05T12:00:0{self._clients}Z"
        return PresenceClient(Identity(name.lower(), name), config, online_at=online_at)

    async def _enter(self, name: str, status: UserStatus, activity: str) -> PresenceClient:
        client = await self._stack.enter_async_context(self._client(name, 0.1))
        await client.update_activity(status, activity)
        await self._shows(f"{activity})")
        return client

    async def _shows(self, words: str) -> None:
        deadline = time.monotonic() + 20.0
        while words not in (text := screen_text(self._app)):
            assert time.monotonic() < deadline, f"no {words!r} in {text!r}"
            await asyncio.sleep(0.05)

    def _draw(self, name: str) -> None:
        columns, rows = self._size
        picture = self._app.export_screenshot(title="presence watch", simplify=True)
        # A font from the network: whoever looks at it has one of their own.
        picture = re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)
        # Rows that are empty end in spaces, which no file should have.
        picture = "\n".join(line.rstrip() for line in picture.splitlines())
        path = self._folder / f"watch-{columns}x{rows}-{name}.svg"
        path.write_text(f"{picture}\n", "utf-8")


def screen_text(app: App[Any]) -> str:
    """What is on the screen, as one line."""
    return text_of(app.export_screenshot())


def text_of(picture: str) -> str:
    """What is to be read in a picture, as one line, without frames."""
    text = html.unescape(re.sub("<[^>]*>", " ", picture.partition("</style>")[2]))
    return " ".join(text.replace("│", " ").split())


async def draw(size: tuple[int, int], folder: Path) -> None:
    """Draw the pictures of one size."""
    with (
        patch.object(screen, "datetime", Clock()),
        patch.object(PresenceClient, "latency", PropertyMock(return_value=0.012)),
    ):
        await Scene(size, folder).play()


def main() -> None:
    """Draw all pictures."""
    IMAGES.mkdir(exist_ok=True)
    for size in SIZES:
        asyncio.run(draw(size, IMAGES))


if __name__ == "__main__":
    main()
