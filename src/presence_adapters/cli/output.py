"""Output of the commands: events as text or JSON lines, users as a table or JSON, and logs on stderr."""

from __future__ import annotations

import json
import logging
import re
from contextlib import contextmanager
from datetime import datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve, frozen

from presence_adapters.cli.exits import NoSuchUser
from presence_adapters.event_queue import EventsDropped
from presence_adapters.notifications import notification
from presence_adapters.wall_clock import utc_now
from presence_proto import (
    ActivityChanged,
    ChatMessage,
    CommandFailed,
    Connected,
    Disconnected,
    Error,
    GameInvite,
    InviteSent,
    Poked,
    UserOffline,
    UserOnline,
    UserStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.table import Table

    from presence_adapters.clients import AnyPresenceClient
    from presence_proto import OnlineUser, PresenceEvent


# ---------------------------------------------------------------------------------------------------- wording
# Events as text, and statuses in colour. Text from other users is made safe for a terminal.


STATUS = {
    UserStatus.ONLINE: ("●", "green"),
    UserStatus.IDLE: ("◐", "yellow"),
    UserStatus.IN_GAME: ("▶", "magenta"),
    UserStatus.IN_SKILL: ("◆", "cyan"),
    UserStatus.DO_NOT_DISTURB: ("■", "red"),
    UserStatus.AWAY: ("○", "bright_black"),
}
"""The symbol and the colour of each status."""


@frozen
class Line:
    """One line of output that describes an event. Only colour terminals show `style`."""

    symbol: str
    style: str
    text: str


# Unsafe characters: C0 and C1 controls, which a terminal obeys; line and paragraph separators (U+2028-2029);
# marks that change the writing direction (U+202A-202E, U+2066-2069); and lone surrogates.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return untrusted `text` as one line that is safe to print: unsafe characters become U+FFFD."""
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def status_words(user: OnlineUser) -> str:
    """Return the symbol and the name of a user's status, such as `▶ in game`."""
    return f"{STATUS[user.status][0]} {_plain(user.status)}"


def doing(status: UserStatus, activity: str | None) -> str:
    """Return a status with its activity, such as `in game (Snake)`."""
    return f"{_plain(status)} ({activity})" if activity else _plain(status)


def _plain(status: UserStatus) -> str:
    return status.replace("_", " ")


def describe(event: PresenceEvent | EventsDropped) -> Line:
    """Return a line that describes an event. The text of the line is safe to print."""
    line = _described(event)
    return evolve(line, text=printable(line.text))


def _described(event: PresenceEvent | EventsDropped) -> Line:
    match event:
        case Connected():
            again = " again" if event.resumed else ""
            return Line("✔", "bold green", f"Connected{again}, {event.online_count} online")
        case Disconnected():
            retry = "" if event.retry_in is None else f", next attempt in {event.retry_in:.1f} s"
            return Line("✘", "bold red", f"Disconnected{retry}: {event.reason}")
        case UserOnline():
            return Line(
                "+",
                "green",
                f"{event.user.display_name} is here, {doing(event.user.status, event.user.activity)}",
            )
        case UserOffline():
            return Line("-", "bright_black", f"{event.user.display_name} is gone")
        case ActivityChanged():
            return Line(
                *STATUS[event.user.status],
                f"{event.user.display_name} is {doing(event.user.status, event.user.activity)}",
            )
        case GameInvite():
            code = f" (code {event.code})" if event.code else ""
            return Line("♠", "magenta", f"{event.display_name} invites everybody to {event.game}{code}")
        case Poked():
            return Line("☞", "bold yellow", f"{event.display_name} pokes you")
        case ChatMessage():
            return Line("»", "blue", f"{event.display_name} in {event.channel}: {event.content}")
        case Error():
            return Line("!", "bold red", f"Error: {event.message}")
        case CommandFailed():
            return Line("!", "bold red", f"{event.command} failed: {event.reason}")
        case InviteSent():
            return Line("✔", "green", f"Invited {', '.join(event.sent_to) or 'nobody: you are alone'}")
        case EventsDropped():
            return Line("!", "bold red", f"{event.count} events dropped")


def news(event: PresenceEvent | EventsDropped, own_id: str) -> list[Line]:
    """Return a line that describes the event. The first `Connected` adds a line for each other user."""
    lines = [describe(event)]
    if isinstance(event, Connected) and not event.resumed:
        lines += [describe(UserOnline(user)) for user in event.users if user.user_id != own_id]
    return lines


# ------------------------------------------------------------------------------------------------- json lines
# JSON for scripts: one object per line, in ASCII, because every terminal and locale can print ASCII.


def print_json(value: dict[str, Any]) -> None:
    """Print an object as one line of JSON."""
    click.echo(json.dumps(value))


def print_event(event: PresenceEvent | EventsDropped) -> None:
    """Print an event as JSON: the time, and the type and data that `on_notification` callbacks get."""
    event_type, data = notification(event)
    print_json({"time": utc_now(), "event": event_type, "data": data})


# ----------------------------------------------------------------------------------------------------- people
# Users: functions that find a user by id or name, and that show users as a table or as JSON.


MOST_NAMED = 5  # maximum number of users that an error message lists


def seen_users(room: AnyPresenceClient) -> list[OnlineUser]:
    """Return the users in the room, sorted by name. Leave out the own user of an invisible client."""
    own = room.identity.user_id
    # Check the device count of this client's own user only: a stale user also has a device count of 0.
    return by_name(user for user in room.online_users if user.user_id != own or room.device_count(own))


def by_name(users: Iterable[OnlineUser]) -> list[OnlineUser]:
    """Sort users for display: by name, ignoring case, then by id."""
    return sorted(users, key=lambda user: (user.display_name.casefold(), user.user_id))


def find_user(who: str, users: Sequence[OnlineUser]) -> OnlineUser:
    """Return the user with the id `who`, or else the only user with the name `who`.

    An exact match of the name has priority over a match that ignores case. Raises `NoSuchUser` when no user
    or several users match.
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
    """Return the local time at which a user came online, or the date if that day is not today.

    The time is `online_at` from the user's client. Return `""` when `online_at` is missing or invalid.
    """
    try:
        since = datetime.fromisoformat(user.online_at or "").astimezone()
    except (ValueError, OverflowError, OSError):
        return ""
    today = datetime.now().astimezone().date()
    return f"{since:%H:%M}" if since.date() == today else f"{since:%Y-%m-%d}"


def as_table(users: Iterable[OnlineUser], room: AnyPresenceClient) -> Table:
    """Return a table with one row for each user."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    # In a narrow terminal, rich shrinks only the columns who, activity and id, the widest first.
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


def as_json(user: OnlineUser, room: AnyPresenceClient) -> dict[str, Any]:
    """Return the fields of a user for JSON output."""
    return {
        "user_id": user.user_id,
        "display_name": user.display_name,
        "status": str(user.status),
        "activity": user.activity,
        "online_at": user.online_at,
        "devices": room.device_count(user.user_id),
    }


# -------------------------------------------------------------------------------------------------- debug log


LOGGER = "presence_adapters"


class PrintableFormatter(logging.Formatter):
    """Log formatter that makes messages and tracebacks printable: untrusted peers may have sent the text."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the formatted log record, with a printable message."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return a traceback with printable lines."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


class _Formatter(logging.Formatter):
    """Log formatter that prints each message on one line, even if the message contains line breaks."""

    def format(self, record: logging.LogRecord) -> str:
        when = f"{self.formatTime(record, '%H:%M:%S')}.{record.msecs:03.0f}"
        name = record.name.removeprefix(f"{LOGGER}.")
        return f"{when} {name}: {printable(record.getMessage())}"


def hub_log(level: str) -> None:
    """Log messages of `level` and above to stderr, for a hub."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


@contextmanager
def debug_log() -> Iterator[None]:
    """Log all messages of `presence_adapters` to stderr, for a client with `--debug`."""
    logger, handler = logging.getLogger(LOGGER), logging.StreamHandler()
    handler.setFormatter(_Formatter())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
