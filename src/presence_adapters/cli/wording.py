"""Events in words, and statuses in colour. Whatever others have written is made fit for a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from presence_adapters.event_queue import EventsDropped
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
    from presence_proto import OnlineUser, PresenceEvent

STATUS = {
    UserStatus.ONLINE: ("●", "green"),
    UserStatus.IDLE: ("◐", "yellow"),
    UserStatus.IN_GAME: ("▶", "magenta"),
    UserStatus.IN_SKILL: ("◆", "cyan"),
    UserStatus.DO_NOT_DISTURB: ("■", "red"),
    UserStatus.AWAY: ("○", "bright_black"),
}
"""A symbol and a colour for each status."""


@frozen
class Line:
    """An event in words, with a symbol and a style for where there is colour."""

    symbol: str
    style: str
    text: str


# Controls, C1 included: a terminal obeys them. Lines and paragraphs, the marks that turn the direction of
# what follows, and halves of characters.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text`, which a stranger may have written, on one line and without anything that a terminal obeys."""
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def status_words(user: OnlineUser) -> str:
    """The status of a user, with its symbol."""
    return f"{STATUS[user.status][0]} {_plain(user.status)}"


def doing(status: UserStatus, activity: str | None) -> str:
    """What somebody is doing."""
    return f"{_plain(status)} ({activity})" if activity else _plain(status)


def _plain(status: UserStatus) -> str:
    return status.replace("_", " ")


def describe(event: PresenceEvent | EventsDropped) -> Line:
    """An event in words."""
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
    """An event in words, and, when it lets us in for the first time, everybody who is there already."""
    lines = [describe(event)]
    if isinstance(event, Connected) and not event.resumed:
        lines += [describe(UserOnline(user)) for user in event.users if user.user_id != own_id]
    return lines
