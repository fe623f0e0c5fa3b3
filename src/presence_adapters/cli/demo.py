"""Implementation of `presence demo`: a hub, simulated users and a watching client.

The hub and all clients run in one process, and are connected by real sockets.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self

from attrs import frozen
from rich import box
from rich.console import Console
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from presence_adapters.asyncio import PresenceClient
from presence_adapters.cli.one_shot import on_stop_signal
from presence_adapters.cli.output import STATUS, Line, describe, printable, status_words
from presence_adapters.server import HubServer
from presence_proto import (
    ChatMessage,
    Connected,
    GameInvite,
    Identity,
    OnlineUser,
    Poked,
    PresenceConfig,
    PresenceError,
    UserOnline,
    UserStatus,
)
from presence_proto.hub import TopicJoined

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from random import Random

    from rich.console import RenderableType

    from presence_adapters.asyncio import EventsDropped
    from presence_proto import ConnId, PresenceEvent
    from presence_proto.hub import HubEvent


# -------------------------------------------------------------------------------------------------- residents
# The simulated users, and a director that triggers their actions.


YOU = "you"

ONLINE, IDLE, AWAY = UserStatus.ONLINE, UserStatus.IDLE, UserStatus.AWAY
IN_GAME, IN_SKILL, BUSY = UserStatus.IN_GAME, UserStatus.IN_SKILL, UserStatus.DO_NOT_DISTURB


@frozen
class Character:
    """Data of a simulated user: name, statuses with activities, favourite game, chat messages."""

    user_id: str
    name: str
    moods: tuple[tuple[UserStatus, str | None], ...]
    game: str
    sayings: tuple[str, ...]


CAST = (
    Character(
        "ada",
        "Ada",
        (
            (IN_SKILL, "Sketching an engine"),
            (ONLINE, "Proving it halts"),
            (BUSY, "Counting to seven"),
            (ONLINE, None),
        ),
        "Go",
        ("It should work on paper.", "Has anybody seen my notes?", "Again! It is only a loop."),
    ),
    Character(
        "bruno",
        "Bruno",
        (
            (IN_GAME, "Playing Snake"),
            (IN_GAME, "Playing Tetris"),
            (ONLINE, "Between two games"),
            (IDLE, None),
        ),
        "Snake",
        ("One more round.", "New record! 412.", "Who ate my last apple?"),
    ),
    Character(
        "chiara",
        "Chiara",
        ((ONLINE, "Reading the news"), (AWAY, "Making coffee"), (ONLINE, None), (IN_SKILL, "Learning Welsh")),
        "Scrabble",
        ("Good morning, everyone.", "Coffee is ready.", "Is that a word?", "You will not believe this."),
    ),
    Character(
        "dmitri",
        "Dmitri",
        ((IN_GAME, "Playing chess by mail"), (ONLINE, "On a train"), (IDLE, "In a tunnel"), (ONLINE, None)),
        "Chess",
        ("Sorry, the tunnel.", "Can you hear me now?", "Your move, I think."),
    ),
    Character(
        "emeka",
        "Emeka",
        ((AWAY, "Walking the dog"), (ONLINE, None), (IN_SKILL, "Tuning the radio"), (BUSY, "On a call")),
        "Ludo",
        ("Back in a minute.", "The dog says hello.", "Rain again."),
    ),
    Character(
        "fumiko",
        "Fumiko",
        ((IN_SKILL, "Practising the cello"), (IN_GAME, "Playing Othello"), (ONLINE, None), (IDLE, "Tuning")),
        "Othello",
        ("Knock, knock.", "Is everybody asleep?", "Louder in bar nine."),
    ),
    Character(
        "gus",
        "Gus",
        (
            (IDLE, "Staring out of the window"),
            (AWAY, "Asleep"),
            (ONLINE, "Awake, technically"),
            (BUSY, "Dreaming"),
        ),
        "Patience",
        ("Five more minutes.", "What did I miss?", "Mm."),
    ),
)


class Resident:
    """A simulated user: a `Character` and the client that joins the room with its data."""

    def __init__(self, character: Character, config: PresenceConfig, rng: Random) -> None:
        self.character = character
        self._config = config
        self._rng = rng
        self._client: PresenceClient | None = None
        self._mood = 0

    @property
    def is_here(self) -> bool:
        """Whether the client is connected."""
        return self._client is not None and self._client.is_connected

    @property
    def is_away(self) -> bool:
        """Whether the resident has left, or has not joined yet."""
        return self._client is None

    async def live(self) -> None:
        """Join the room, react to some events, and stay until `leave` is called."""
        me = self.character
        async with PresenceClient(Identity(me.user_id, me.name), self._config, rng=self._rng) as self._client:
            async for event in self._client:
                if isinstance(event, GameInvite) and self._rng.random() < 0.3:
                    await self._client.update_activity(
                        IN_GAME, f"Playing {event.game} with {event.display_name}"
                    )
                elif isinstance(event, Poked) and self._rng.random() < 0.3:
                    await self._client.send_chat("lobby", f"Ouch, {event.display_name}!")
        self._client = None

    async def leave(self) -> None:
        """Leave the room."""
        if self._client is not None:
            await self._client.disconnect()

    async def change(self) -> None:
        """Switch to the next status and activity."""
        if self._client is not None:
            await self._client.update_activity(*self.character.moods[self._mood % len(self.character.moods)])
            self._mood += 1

    async def talk(self) -> None:
        """Send a random chat message."""
        if self._client is not None:
            await self._client.send_chat("lobby", self._rng.choice(self.character.sayings))

    async def invite(self) -> None:
        """Invite everybody to a game."""
        if self._client is not None:
            await self._client.send_invite(self.character.game, f"{self._rng.randrange(10_000):04}")

    async def poke(self, user_id: str) -> None:
        """Poke a user."""
        if self._client is not None:
            await self._client.send_poke(user_id)


class Director:
    """Controller of the residents: runs a script that shows every kind of event, then random actions.

    `enter` starts `Resident.live`, and `cut` breaks the connection of a user. Both functions return at once.
    """

    def __init__(
        self,
        residents: Iterable[Resident],
        rng: Random,
        *,
        enter: Callable[[Resident], object],
        cut: Callable[[str], object],
    ) -> None:
        self._people = {resident.character.user_id: resident for resident in residents}
        self._rng = rng
        self._enter = enter
        self._cut = cut

    async def run(self) -> None:
        """Trigger actions of the residents until the task is cancelled."""
        for pause, step in self._script():
            await asyncio.sleep(pause)
            await self._do(step)
        while True:
            for _ in range(60):
                await asyncio.sleep(self._rng.uniform(0.3, 1.0))
                await self._do(self._anything)
            self._cut(YOU)

    async def _do(self, step: Callable[[], Awaitable[object]]) -> None:
        # If the client has just disconnected, or its connection is congested, skip the step.
        with suppress(PresenceError):
            await step()

    def _script(self) -> list[tuple[float, Callable[[], Awaitable[object]]]]:
        people = self._people

        async def enter(user_id: str) -> None:
            self._enter(people[user_id])

        async def cut(user_id: str) -> None:
            self._cut(user_id)

        return [
            (0.3, lambda: enter("ada")),
            (0.4, lambda: enter("bruno")),
            (0.4, lambda: enter("chiara")),
            (0.4, people["ada"].change),
            (0.4, people["chiara"].talk),
            (0.4, lambda: enter("dmitri")),
            (0.5, people["bruno"].change),
            (0.5, lambda: people["chiara"].poke(YOU)),
            (0.5, lambda: enter("fumiko")),
            (0.5, people["bruno"].invite),
            (0.6, people["dmitri"].change),
            (0.6, lambda: cut("dmitri")),
            (0.7, people["fumiko"].change),
            (0.7, lambda: enter("emeka")),
            (0.6, people["ada"].talk),
            # Cut the connection of the watching client. After its reconnect, the client receives all missed
            # changes together.
            (0.9, lambda: cut(YOU)),
            (0.1, people["bruno"].leave),
            (0.1, lambda: enter("gus")),
            (0.1, people["chiara"].change),
            (1.6, lambda: people["fumiko"].poke(YOU)),
            (0.7, people["gus"].change),
            (0.7, people["emeka"].change),
            (0.7, people["dmitri"].talk),
            (0.7, lambda: enter("bruno")),
        ]

    async def _anything(self) -> None:
        rng = self._rng
        here = [resident for resident in self._people.values() if resident.is_here]
        away = [resident for resident in self._people.values() if resident.is_away]
        if away and (len(here) < 4 or rng.random() < 0.12):
            self._enter(rng.choice(away))
            return
        if not here:
            return
        who = rng.choice(here)
        match rng.choices(("change", "talk", "invite", "poke", "cut", "leave"), (8, 5, 2, 4, 1, 1))[0]:
            case "change":
                await who.change()
            case "talk":
                await who.talk()
            case "invite":
                await who.invite()
            case "poke":
                others = [other.character.user_id for other in here if other is not who]
                await who.poke(rng.choice([YOU, *others]))
            case "cut":
                self._cut(who.character.user_id)
            case _:
                await who.leave()


# ------------------------------------------------------------------------------------------------------- view
# The views of the room: a live view for a terminal, and lines of text for any other output.


SIDE_BY_SIDE = 110  # minimum terminal width, in columns, to show roster and events side by side


class Tally:
    """Counters of the events that the client received, for the summary."""

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
        """Return the lines of the summary."""
        events = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
        return [
            f"{self.elapsed:.1f} seconds in the room: {len(self.users)} users, {self.kinds.total()} events",
            f"events: {events or 'none'}",
            f"messages: {self.messages}, reconnects: {self.reconnects}",
        ]


class View(Protocol):
    """Interface of a view: a context manager that shows the room. `finish` prints a summary afterwards."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...
    def show(self, event: PresenceEvent | EventsDropped) -> None:
        """Show an event."""
        ...

    def say(self, text: str) -> None:
        """Show a line about an action of the demo itself."""
        ...

    def refresh(self) -> None:
        """Redraw the view. The demo calls this method every `FRAME` seconds."""
        ...

    def finish(self) -> None:
        """Print the summary."""
        ...


class PlainView:
    """View that prints one line on stdout for each event. A closed stdout pipe causes a call of `on_gone`."""

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
            # In `presence demo | head`, `head` closes the pipe. Flushing stdout at exit must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._on_gone()


class LiveView:
    """Full-screen view, adapted to the terminal size: the roster, the latest events and a status line."""

    def __init__(self, console: Console, tally: Tally, client: PresenceClient, seconds: float | None) -> None:
        self._console = console
        self._tally = tally
        self._client = client
        self._seconds = seconds
        self._lines: deque[tuple[float, Line]] = deque(maxlen=200)
        self._since: dict[str, tuple[object, float]] = {}  # by user id: (status, activity), start time
        # Not rich's refresh thread: `_draw` calls refresh() in the event loop.
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


# ------------------------------------------------------------------------------------------------------- demo


FRAME = 0.25  # seconds between redraws of the live view when there are no events


async def demo_room(seconds: float | None, seed: int | None, *, plain: bool) -> None:
    """Show the demo room for `seconds`, or until SIGINT or SIGTERM, then print a summary."""
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
    """Show the events of the client, set the client's status, and answer each poke with a poke."""
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
