"""Events in words, and statuses in colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

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


def doing(user: OnlineUser) -> str:
    """What a user is doing."""
    status = user.status.replace("_", " ")
    return f"{status} ({user.activity})" if user.activity else status


def describe(event: PresenceEvent | EventsDropped) -> Line:
    """An event in words."""
    match event:
        case Connected():
            again = " again" if event.resumed else ""
            return Line("✔", "bold green", f"Connected{again}, {event.online_count} online")
        case Disconnected():
            retry = "" if event.retry_in is None else f", next attempt in {event.retry_in:.1f} s"
            return Line("✘", "bold red", f"Disconnected{retry}: {event.reason}")
        case UserOnline():
            return Line("+", "green", f"{event.user.display_name} is here, {doing(event.user)}")
        case UserOffline():
            return Line("-", "bright_black", f"{event.user.display_name} is gone")
        case ActivityChanged():
            return Line(*STATUS[event.user.status], f"{event.user.display_name} is {doing(event.user)}")
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
