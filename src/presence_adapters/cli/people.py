"""Users: found by what somebody calls them, and shown as a table or as JSON."""

from __future__ import annotations

from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from presence_adapters.cli.exits import NoSuchUser
from presence_adapters.cli.wording import STATUS, printable, status_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

    from presence_adapters.room_view import RoomView
    from presence_proto import OnlineUser

MOST_NAMED = 5
"""Users that an error names."""


def seen_users(room: RoomView) -> list[OnlineUser]:
    """Everybody whom others see in the room, by name: not ourselves when we only look in."""
    own = room.identity.user_id
    # Of others, stale ones have no device.
    return by_name(user for user in room.online_users if user.user_id != own or room.device_count(own))


def by_name(users: Iterable[OnlineUser]) -> list[OnlineUser]:
    """In the order in which they are shown."""
    return sorted(users, key=lambda user: (user.display_name.casefold(), user.user_id))


def find_user(who: str, users: Sequence[OnlineUser]) -> OnlineUser:
    """The user with this id, or else the only one with this name, in upper or lower case.

    Raises `NoSuchUser` when there is none, or several.
    """
    for user in users:
        if user.user_id == who:
            return user
    named = [user for user in users if user.display_name == who] or [
        user for user in users if user.display_name.casefold() == who.casefold()
    ]
    if len(named) == 1:
        return named[0]
    if named:
        problem = f'{len(named)} users in the room are called "{printable(who)}", give the id of one'
        raise NoSuchUser(f"{problem}: {_listed(named)}")
    problem = f'nobody in the room has the id or name "{printable(who)}"'
    if not users:
        raise NoSuchUser(f"{problem}: the room is empty")
    near = _near(who, users)
    hint = f"did you mean {_listed(near)}?" if near else f"there are {_listed(users)}"
    raise NoSuchUser(f"{problem}, {hint}")


def _near(who: str, users: Sequence[OnlineUser]) -> list[OnlineUser]:
    wanted = who.casefold()
    names = [word.casefold() for user in users for word in (user.display_name, user.user_id)]
    close = get_close_matches(wanted, names, n=MOST_NAMED)
    return [
        user
        for user in users
        if any(
            wanted in word or word in close
            for word in (user.display_name.casefold(), user.user_id.casefold())
        )
    ]


def _listed(users: Sequence[OnlineUser]) -> str:
    named = [f"{printable(user.display_name)} ({printable(user.user_id)})" for user in users[:MOST_NAMED]]
    more = len(users) - MOST_NAMED
    return ", ".join([*named, *([f"{more} more"] if more > 0 else [])])


# ---------------------------------------------------------------------------------------------- how they look


def online_since(user: OnlineUser) -> str:
    """When a user came online, as their own client said: the time of day here, or the date of another day."""
    try:
        since = datetime.fromisoformat(user.online_at or "").astimezone()
    except (ValueError, OverflowError, OSError):
        return ""
    today = datetime.now().astimezone().date()
    return f"{since:%H:%M}" if since.date() == today else f"{since:%Y-%m-%d}"


def as_table(users: Iterable[OnlineUser], room: RoomView) -> Table:
    """One row for each user."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    # Where the terminal is too narrow, the widest of who, activity and id give way, down to the same width.
    for name in ("who", "status", "activity", "since", "devices"):
        table.add_column(name, no_wrap=name not in ("who", "activity"))
    table.add_column("id", overflow="fold")
    for user in users:
        table.add_row(
            Text(printable(user.display_name), no_wrap=True, overflow="ellipsis"),
            Text(status_words(user), STATUS[user.status][1]),
            Text(printable(user.activity or ""), no_wrap=True, overflow="ellipsis"),
            online_since(user),
            str(room.device_count(user.user_id)),
            Text(printable(user.user_id)),
        )
    return table


def as_json(user: OnlineUser, room: RoomView) -> dict[str, Any]:
    """The fields of a user."""
    return {
        "user_id": user.user_id,
        "display_name": user.display_name,
        "status": str(user.status),
        "activity": user.activity,
        "online_at": user.online_at,
        "devices": room.device_count(user.user_id),
    }
