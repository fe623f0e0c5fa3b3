"""The full-screen view of `presence watch`, adapted to the terminal size."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from attrs import frozen
from rich.text import Text
from textual.app import App
from textual.binding import Binding
from textual.containers import Container, Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Label, OptionList, RichLog, Static

from presence_adapters.asyncio import ConnectError
from presence_adapters.cli.exits import Failure, Unreachable
from presence_adapters.cli.one_shot import client_of, on_stop_signal
from presence_adapters.cli.output import (
    STATUS,
    Line,
    by_name,
    doing,
    news,
    online_since,
    printable,
    seen_users,
    status_words,
)
from presence_proto import Disconnected, Error, PresenceError, UserStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.events import Resize

    from presence_adapters.asyncio import PresenceClient
    from presence_adapters.settings.layers import Settings
    from presence_proto import OnlineUser


# ------------------------------------------------------------------------------------------------------- feed
# The log of the events in the room, with the latest event at the bottom.


KEPT = 1000  # maximum number of events that the feed keeps for scrolling back

LONGEST = 1000
"""Maximum number of shown characters of an event. Wrapping millions of characters takes seconds."""


class Feed(RichLog):
    """Scrollable log of events, each with its time of day."""

    def __init__(self) -> None:
        super().__init__(id="feed", wrap=True, min_width=1, max_lines=KEPT)
        self.border_title = "what happens"
        self._lines: deque[Text] = deque(maxlen=KEPT)

    def add(self, line: Line) -> None:
        """Append a line, with the current time."""
        words = line.text if len(line.text) <= LONGEST else f"{line.text[:LONGEST]}…"
        text = Text(f"{datetime.now():%H:%M:%S} ", "dim")
        text.append(f"{line.symbol} {words}", line.style)
        self._lines.append(text)
        self.write(text)

    def on_resize(self, event: Resize) -> None:
        """Wrap the lines again, for the new width."""
        self.clear()
        for text in self._lines:
            self.write(text)


# ------------------------------------------------------------------------------------------------------- form
# A small dialog over the view of the room. Enter moves to the next field; in the last field, Enter submits.
# Escape cancels the dialog.


Answers: TypeAlias = tuple[str, ...]


@frozen
class Field:
    """A field of a dialog. `value`: the initial value. `choices`: the allowed values; if empty, any text."""

    label: str
    value: str = ""
    choices: tuple[str, ...] = ()
    optional: bool = False


class FieldsDialog(ModalScreen[Answers | None]):
    """Dialog that returns the stripped texts of its fields, or `None` when the user cancels."""

    CSS = """
    FieldsDialog { align: center middle; }
    FieldsDialog > Vertical { width: 50; max-width: 90%; height: auto; max-height: 90%;
                              border: round $primary; padding: 0 1; background: $surface;
                              overflow-y: auto; scrollbar-size-vertical: 1; }
    FieldsDialog Label { margin-top: 1; }
    FieldsDialog Input, FieldsDialog OptionList { border: none; height: auto; padding: 0 1; }
    FieldsDialog OptionList { text-wrap: nowrap; text-overflow: ellipsis; }
    FieldsDialog Input { height: 1; background: $boost; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss", "Cancel")]

    def __init__(self, title: str, *fields: Field) -> None:
        super().__init__()
        self._title = title
        self._fields = fields

    def compose(self) -> ComposeResult:
        """Lay out the fields, one below the other."""
        with Vertical() as box:
            box.border_title = self._title
            for number, field in enumerate(self._fields):
                yield Label(f"{field.label} (may be empty)" if field.optional else field.label, markup=False)
                if field.choices:
                    yield OptionList(*field.choices, id=f"field{number}", markup=False)
                else:
                    yield Input(field.value, id=f"field{number}", select_on_focus=False)

    def on_mount(self) -> None:
        """Highlight the initial choices, and focus the first field."""
        for number, field in enumerate(self._fields):
            if field.choices:
                options = self.query_one(f"#field{number}", OptionList)
                options.highlighted = field.choices.index(field.value)
        self.set_focus(self.query_one("#field0"))

    def on_input_submitted(self) -> None:
        """Handle Enter in a text field."""
        self._next()

    def on_option_list_option_selected(self) -> None:
        """Handle Enter on a choice."""
        self._next()

    def _next(self) -> None:
        answers = self._answers()
        focused = self.focused.id if self.focused is not None else None
        number = next(n for n in range(len(self._fields)) if f"field{n}" == focused)
        if not answers[number] and not self._fields[number].optional:
            self.app.bell()
        elif number + 1 < len(self._fields):
            self.set_focus(self.query_one(f"#field{number + 1}"))
        elif all(answer or field.optional for answer, field in zip(answers, self._fields, strict=True)):
            self.dismiss(answers)
        else:
            self.app.bell()

    def _answers(self) -> Answers:
        return tuple(self._answer(number, field) for number, field in enumerate(self._fields))

    def _answer(self, number: int, field: Field) -> str:
        if not field.choices:
            return self.query_one(f"#field{number}", Input).value.strip()
        highlighted = self.query_one(f"#field{number}", OptionList).highlighted
        return field.choices[highlighted or 0]


# ----------------------------------------------------------------------------------------------------- roster
# The table that lists the users in the room.


COLUMNS = {"who": None, "status": 16, "activity": None, "since": 10, "devices": 7}
"""The table columns and their widths in characters. Columns with `None` share the remaining width."""

NAME_SHARE = 0.35  # fraction of the remaining width for "who"; "activity" gets the rest
NARROWEST = 8  # minimum characters of "who" and of "activity"; a narrower terminal scrolls
AROUND = 2  # characters of padding of a cell, both sides together


class RosterTable(DataTable[Text]):
    """Table of the users in a room, sorted by name.

    `visible`: whether other users see the client. If true, the table shows the client's own user even before
    the server lists that user.
    """

    def __init__(self, client: PresenceClient, *, visible: bool) -> None:
        super().__init__(id="roster", cursor_type="row")
        self._client = client
        self._visible = visible
        self._was_seen = False
        self._shown: dict[str, tuple[OnlineUser, int, bool]] = {}  # by user id: user, device count, is stale

    @property
    def chosen(self) -> str | None:
        """The id of the user in the selected row, or `None` in an empty table."""
        if not self.is_valid_row_index(self.cursor_row):
            return None
        return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value

    def on_resize(self) -> None:
        """Rebuild the table: column widths depend on the terminal width."""
        chosen, self._shown = self.chosen, {}
        self.clear(columns=True)
        taken = sum(width or 0 for width in COLUMNS.values()) + AROUND * len(COLUMNS)
        left = self.size.width - self.scrollbar_size_vertical - taken
        name = max(int(left * NAME_SHARE), NARROWEST)
        flexible = {"who": name, "activity": max(left - name, NARROWEST)}
        for label, width in COLUMNS.items():
            self.add_column(label, width=width or flexible[label], key=label)
        self.update_room()
        self._choose(chosen)

    def update_room(self) -> None:
        """Show the current users of the room, and whether the list may be out of date."""
        stale = self._client.is_stale
        self._was_seen |= not stale
        self.set_class(stale, "stale")
        self.border_title = "the room, as it was" if stale and self._was_seen else "the room"
        if not self.columns:
            return  # not laid out yet: on_resize adds the columns
        users = by_name(self._client.online_users) if self._visible else seen_users(self._client)
        wanted = {user.user_id: self._state(user) for user in users}
        if wanted == self._shown:
            return
        chosen = self.chosen
        for user_id in self._shown.keys() - wanted.keys():
            self.remove_row(user_id)
        for user_id, state in wanted.items():
            if user_id not in self._shown:
                self.add_row(*self._row(*state), key=user_id)
            elif state != self._shown[user_id]:
                for column, cell in zip(COLUMNS, self._row(*state), strict=True):
                    self.update_cell(user_id, column, cell)
        self._shown = wanted
        self.sort("who", key=lambda cell: cell.plain.casefold())
        self._choose(chosen)

    def _choose(self, user_id: str | None) -> None:
        if user_id in self._shown:
            self.move_cursor(row=self.get_row_index(user_id))

    def _state(self, user: OnlineUser) -> tuple[OnlineUser, int, bool]:
        client, user_id = self._client, user.user_id
        # When the connection is lost, the whole table is stale. Then CSS dims the table, not each row.
        is_stale = not client.is_stale and client.is_user_stale(user_id)
        return user, client.device_count(user_id) or 1, is_stale

    def _row(self, user: OnlineUser, devices: int, is_stale: bool) -> tuple[Text, ...]:
        ours = user.user_id == self._client.identity.user_id
        cells = (
            _cell(printable(user.display_name), "bold" if ours else ""),
            _cell(status_words(user), STATUS[user.status][1]),
            _cell(printable(user.activity or "")),
            _cell(online_since(user)),
            _cell(str(devices)),
        )
        if is_stale:
            for cell in cells:
                cell.stylize("dim")
        return cells


def _cell(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


# ------------------------------------------------------------------------------------------------------ state
# The line that shows the state of the connection.


class ConnectionLine(Static):
    """Status line: server, user count and latency, or the reason of a loss and the time until a reconnect."""

    def __init__(self, client: PresenceClient, server: str) -> None:
        super().__init__(id="connection")
        self._client = client
        self._server = server
        self._loss: Disconnected | None = None
        self._next_attempt = 0.0  # by time.monotonic()

    def lost(self, loss: Disconnected) -> None:
        """Store the event of a lost connection or failed attempt, and the time of the next attempt."""
        self._loss = loss
        self._next_attempt = time.monotonic() + (loss.retry_in or 0.0)

    def update_state(self) -> None:
        """Show the current state of the connection."""
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


# ----------------------------------------------------------------------------------------------------- screen


FRAME = 0.25  # seconds between two updates of the view
SIDE_BY_SIDE = 110  # minimum terminal width, in columns, to show roster and feed side by side
HIGH = 14  # minimum terminal height, in rows, for full frames; a lower terminal has no room for them


async def show_room(settings: Settings) -> None:
    """Show the room until the user quits, or until SIGINT or SIGTERM.

    Raises `Unreachable` when the server refuses the client, and `Failure` after a crash of the view.
    """
    async with client_of(settings) as client:
        config = settings.config
        app = RoomApp(client, config.address().authority, visible=config.visible)
        with on_stop_signal(app.exit):
            why = await app.run_async()
        if why is not None:
            raise Unreachable(why)
        if app.return_code:
            raise Failure("the live room has failed: this is a bug")  # Textual has printed the traceback


class RoomApp(App[str]):
    """Textual app that shows the room of a running client.

    The result of the app is the server's reason for refusing the client, or `None` when the user quits.
    `server`: the address that is shown. `visible`: whether other users see the client.
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
        """Lay out the status line, the roster, the feed and the keys."""
        yield self._connection
        with Container(id="room"):
            yield self._roster
            yield self._feed
        yield Footer()

    def on_mount(self) -> None:
        """Focus the roster, and start the updates."""
        self._roster.focus()
        self.set_interval(FRAME, self._look)
        self.run_worker(self._watch())

    def _look(self) -> None:
        self._roster.update_room()
        self._connection.update_state()

    async def _watch(self) -> None:
        with suppress(ConnectError):  # raised after a fatal `Error` event
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
        """Ask for a status and an activity, and set both."""
        own = self._client.online_users[0]
        await self._ask(
            "Be seen as",
            Field("Status", str(own.status), choices=tuple(map(str, UserStatus))),
            Field("Activity", own.activity or "", optional=True),
            then=self._set_status,
        )

    def action_poke(self) -> None:
        """Poke the user in the selected row of the table."""
        user = next((user for user in self._client.online_users if user.user_id == self._roster.chosen), None)
        if user is None:
            self.bell()
        else:
            self._do(f"You poke {user.display_name}", self._client.send_poke, user.user_id)

    async def action_invite(self) -> None:
        """Ask for a game and a code, and invite everybody."""
        await self._ask("Invite everybody", Field("Game"), Field("Code", optional=True), then=self._invite)

    async def action_chat(self) -> None:
        """Ask for a text and a channel, and send the chat message."""
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

        # Wait until the dialog is shown, so that the dialog receives the keys that are typed meanwhile.
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
