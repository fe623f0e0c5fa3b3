"""The table of the users in the room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from textual.widgets import DataTable

from presence_adapters.cli.people import by_name, online_since, seen_users
from presence_adapters.cli.wording import STATUS, printable, status_words

if TYPE_CHECKING:
    from presence_adapters.asyncio import PresenceClient
    from presence_proto import OnlineUser

COLUMNS = {"who": None, "status": 16, "activity": None, "since": 10, "devices": 7}
"""With their widths: that of the longest cell, where it is known. The others share the rest."""

NAME_SHARE = 0.35
"""The part of it that names get; activities get the other."""

NARROWEST = 8
"""Columns that they have at least. In a narrower terminal the table can be scrolled."""

AROUND = 2
"""Columns of space around a cell."""


class RosterTable(DataTable[Text]):
    """Shows the users of a room, by name. `visible`: we are one of them, also before the server says so."""

    def __init__(self, client: PresenceClient, *, visible: bool) -> None:
        super().__init__(id="roster", cursor_type="row")
        self._client = client
        self._visible = visible
        self._was_seen = False
        self._shown: dict[str, tuple[OnlineUser, int, bool]] = {}  # by user id: with devices, and if stale

    @property
    def chosen(self) -> str | None:
        """The id of the user in the row of the cursor."""
        if not self.is_valid_row_index(self.cursor_row):
            return None
        return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value

    def on_resize(self) -> None:
        """The columns have another width now."""
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
        """Show the room as it is now."""
        stale = self._client.is_stale
        self._was_seen |= not stale
        self.set_class(stale, "stale")
        self.border_title = "the room, as it was" if stale and self._was_seen else "the room"
        if not self.columns:
            return  # there is no size yet
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
        # While the whole room is stale, the table is dimmed, and not its rows.
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
