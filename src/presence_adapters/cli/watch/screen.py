"""The live room, over the whole terminal, whatever size it takes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App
from textual.binding import Binding
from textual.containers import Container
from textual.widgets import Footer

from presence_adapters.asyncio import ConnectError
from presence_adapters.cli.exits import Failure, Unreachable
from presence_adapters.cli.signals import on_stop_signal
from presence_adapters.cli.visit import client_of
from presence_adapters.cli.watch.feed import Feed
from presence_adapters.cli.watch.form import Field, FieldsDialog
from presence_adapters.cli.watch.roster import RosterTable
from presence_adapters.cli.watch.state import ConnectionLine
from presence_adapters.cli.wording import Line, doing, news, printable
from presence_proto import Disconnected, Error, PresenceError, UserStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from textual.app import ComposeResult
    from textual.binding import BindingType

    from presence_adapters.asyncio import PresenceClient
    from presence_adapters.cli.watch.form import Answers
    from presence_adapters.settings import Settings

FRAME = 0.25
"""Seconds from one look at the room to the next."""

SIDE_BY_SIDE = 110
"""Columns from which roster and feed stand side by side."""

HIGH = 14
"""Rows from which they have frames. In less, users and events need them more."""


async def show_room(settings: Settings) -> None:
    """Show the room until it is quit, or a signal comes.

    Raises `Unreachable` when the server does not let us in.
    """
    async with client_of(settings) as client:
        config = settings.config
        app = RoomApp(client, config.address().authority, visible=config.visible)
        with on_stop_signal(app.exit):
            why = await app.run_async()
        if why is not None:
            raise Unreachable(why)
        if app.return_code:
            raise Failure("the live room has failed: this is a bug")  # Textual has shown which


class RoomApp(App[str]):
    """The room of a client that is entered. Its result is why the server does not let us in, if that was it.

    `server`: where it is, for people. `visible`: whether others see us.
    """

    CSS = """
    ConnectionLine { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    #room { layout: vertical; height: 1fr; }
    .-wide #room { layout: horizontal; }
    RosterTable, Feed { border: round $primary; border-title-color: $text; width: 1fr; height: 1fr; }
    RosterTable { border: round $success; background: $background; scrollbar-size: 0 1; }
    RosterTable.stale { border: round $error; text-opacity: 60%; }
    Feed { background: $background; overflow-y: auto; scrollbar-gutter: stable; scrollbar-size: 0 2; }
    .-low RosterTable, .-low Feed { border-right: none; border-bottom: none; border-left: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("s", "status", "Status"),
        ("p", "poke", "Poke"),
        ("i", "invite", "Invite"),
        ("c", "chat", "Chat"),
        ("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, client: PresenceClient, server: str, *, visible: bool = True) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (SIDE_BY_SIDE, "-wide")]
        self.VERTICAL_BREAKPOINTS = [(0, "-low"), (HIGH, "-high")]
        self._client = client
        self._connection = ConnectionLine(client, server)
        self._roster = RosterTable(client, visible=visible)
        self._feed = Feed()
        self._chat_channel = "lobby"

    def compose(self) -> ComposeResult:
        """The connection, the room and the feed, the keys."""
        yield self._connection
        with Container(id="room"):
            yield self._roster
            yield self._feed
        yield Footer()

    def on_mount(self) -> None:
        """Begin."""
        self._roster.focus()
        self.set_interval(FRAME, self._look)
        self.run_worker(self._watch())

    def _look(self) -> None:
        self._roster.update_room()
        self._connection.update_state()

    async def _watch(self) -> None:
        with suppress(ConnectError):  # after the fatal Error
            async for event in self._client:
                for line in news(event, self._client.identity.user_id):
                    self._feed.add(line)
                match event:
                    case Disconnected():
                        self._connection.lost(event)
                    case Error(fatal=True):
                        self.exit(printable(event.message))

    # ---------------------------------------------------------------- keys

    async def action_status(self) -> None:
        """Ask for a status, and have it."""
        own = self._client.online_users[0]
        await self._ask(
            "Be seen as",
            Field("Status", str(own.status), choices=tuple(map(str, UserStatus))),
            Field("Activity", own.activity or "", optional=True),
            then=self._set_status,
        )

    def action_poke(self) -> None:
        """Poke the user of the row with the cursor."""
        user = next((user for user in self._client.online_users if user.user_id == self._roster.chosen), None)
        if user is None:
            self.bell()
        else:
            self._do(f"You poke {user.display_name}", self._client.send_poke, user.user_id)

    async def action_invite(self) -> None:
        """Ask for a game, and invite everybody to it."""
        await self._ask("Invite everybody", Field("Game"), Field("Code", optional=True), then=self._invite)

    async def action_chat(self) -> None:
        """Ask for something to say, and say it."""
        await self._ask("Say", Field("Text"), Field("Channel", self._chat_channel), then=self._chat)

    def _set_status(self, status: str, activity: str) -> None:
        words = f"You are {doing(UserStatus(status), activity)}"
        self._do(words, self._client.update_activity, UserStatus(status), activity or None)

    def _invite(self, game: str, code: str) -> None:
        self._do(f"You invite everybody to {game}", self._client.send_invite, game, code or None)

    def _chat(self, text: str, channel: str) -> None:
        self._chat_channel = channel
        self._do(f"You in {channel}: {text}", self._client.send_chat, channel, text)

    async def _ask(self, title: str, *fields: Field, then: Callable[..., None]) -> None:
        def answered(answers: Answers | None) -> None:
            if answers is not None:
                then(*answers)

        # Until it is there: what is typed quickly is for it, too.
        await self.push_screen(FieldsDialog(title, *fields), answered)

    def _do(self, words: str, command: Callable[..., Awaitable[int]], *args: Any) -> None:
        async def run() -> None:
            try:
                await command(*args)
            except PresenceError as exc:
                self._feed.add(Line("!", "bold red", printable(str(exc))))
            else:
                self._feed.add(Line("·", "bold", printable(words)))

        self.run_worker(run())
