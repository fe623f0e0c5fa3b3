"""`presence demo`: a hub, its residents and a client that watches, in one process but over real sockets."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from rich.console import Console

from presence_adapters.asyncio import PresenceClient
from presence_adapters.cli.residents import CAST, YOU, Director, Resident
from presence_adapters.cli.signals import on_stop_signal
from presence_adapters.cli.view import LiveView, PlainView, Tally, View
from presence_adapters.hub_server import HubServer
from presence_proto import Connected, Identity, Poked, PresenceConfig, TopicJoined, UserStatus

if TYPE_CHECKING:
    from presence_proto import ConnId, HubEvent

FRAME = 0.25
"""Seconds from one picture of the live view to the next, when nothing happens."""


async def demo_room(seconds: float | None, seed: int | None, *, plain: bool) -> None:
    """Show the room until the time is over or a signal comes, then print a summary."""
    rng = random.Random(seed)
    stop = asyncio.Event()
    places: dict[str | None, ConnId] = {}  # the latest connection of each user

    def note(event: HubEvent) -> None:
        if isinstance(event, TopicJoined):
            places[event.key] = event.conn

    def cut(user_id: str) -> None:
        if (conn := places.get(user_id)) in server.hub.connections:
            server.cut(conn, reset=True)

    async with HubServer(rng=rng, on_event=note) as server:
        config = PresenceConfig(server_url=f"{server.url}/realtime/v1")
        client = PresenceClient(Identity(YOU, "You"), config, rng=rng)
        residents = [Resident(character, config, random.Random(rng.random())) for character in CAST]
        tally = Tally()
        view: View = PlainView(tally, stop.set)
        if (console := Console()).is_terminal and not plain:
            view = LiveView(console, tally, client, seconds)
        with on_stop_signal(stop.set), view:
            async with asyncio.TaskGroup() as tasks, client:
                lives: list[asyncio.Task[None]] = []
                director = Director(
                    residents, rng, enter=lambda one: lives.append(tasks.create_task(one.live())), cut=cut
                )
                lives += [
                    tasks.create_task(_watch(client, view, tally)),
                    tasks.create_task(director.run()),
                    tasks.create_task(_draw(view)),
                ]
                view.say(f"The hub listens on {server.url}")
                try:
                    async with asyncio.timeout(seconds):
                        await stop.wait()
                except TimeoutError:
                    pass
                for life in lives:
                    life.cancel()
        await server.abort()
    view.finish()


async def _watch(client: PresenceClient, view: View, tally: Tally) -> None:
    """Show what comes, and be a polite guest."""
    async for event in client:
        tally.add(event)
        view.show(event)
        if isinstance(event, Connected) and not event.resumed:
            await client.update_activity(UserStatus.ONLINE, "Watching the room")
            view.say("You are watching the room")
        elif isinstance(event, Poked):
            await client.send_poke(event.user_id)
            view.say(f"You poke {event.display_name} back")


async def _draw(view: View) -> None:
    while True:
        view.refresh()
        await asyncio.sleep(FRAME)
