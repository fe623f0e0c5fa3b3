"""What happened, in lines for people: the virtual time, who, what.

Nothing is formatted before somebody reads it. When the log is off only the last entries are kept, for the
report of a violation, and none about bytes. Bytes never show: those of clients are masked at random.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from presence_proto import events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from presence_proto.testing.sim.agenda import Scheduler

TAIL = 40
"""Entries that are kept when the log is off."""

CLIP = 24
"""Characters of an activity that are shown."""

Entry: TypeAlias = tuple[float, str, str, tuple[Any, ...]]


class SimLog:
    """The log of one world. Iterating gives its lines.

    `listener` gets each line as it comes; then the log is on, and holds the tail only.
    """

    def __init__(self, agenda: Scheduler, *, on: bool, listener: Callable[[str], None] | None = None) -> None:
        self.is_on = on or listener is not None
        self._agenda = agenda
        self._listener = listener
        self._entries: deque[Entry] = deque(maxlen=None if on and listener is None else TAIL)

    def __iter__(self) -> Iterator[str]:
        return map(_line, tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def tail(self) -> list[str]:
        """The last lines."""
        return [_line(entry) for entry in list(self._entries)[-TAIL:]]

    def note(self, who: str, what: str, *args: Any) -> None:
        """Put down that `who` did or suffered `what`, a format string for `args`, which must not change."""
        entry = self._agenda.now, who, what, args
        self._entries.append(entry)
        if self._listener is not None:
            self._listener(_line(entry))


def clock_face(seconds: float) -> str:
    """Hours, minutes, seconds and microseconds."""
    micros = round(seconds * 1e6)
    minutes, micros = divmod(micros, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{micros / 1e6:09.6f}"


def _line(entry: Entry) -> str:
    when, who, what, args = entry
    words = [_words(arg) if _is_event(arg) else arg for arg in args]
    return f"{clock_face(when)}  {who:<8} {what.format(*words)}"


def _is_event(arg: object) -> bool:
    return type(arg).__module__ == events.__name__


def _words(event: Any) -> str:
    """An event in short."""
    name = type(event).__name__
    match event:
        case events.Connected(_, users, resumed):
            return f"{name}: {', '.join(map(_shown, users))}{' (resumed)' if resumed else ''}"
        case events.UserOnline(user) | events.UserOffline(user):
            return f"{name}: {_shown(user)}"
        case events.ActivityChanged(user, previous):
            return f"{name}: {_shown(previous)} → {_shown(user)}"
        case events.PresenceSynced(topic, changes) | events.PresenceDiffed(topic, changes):
            return f"{name}: {topic}: {', '.join(f'{one.key} {one.kind}' for one in changes) or 'no change'}"
        case _:
            return repr(event)


def _shown(user: events.OnlineUser) -> str:
    doing = (user.activity or "")[:CLIP]
    return f"{user.user_id} [{user.status}{f' {doing}' if doing else ''}]"
