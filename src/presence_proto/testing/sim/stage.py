"""`Stage`: the scheduler, random numbers, log, statistics and network that the hosts of a world share."""

from __future__ import annotations

from collections import Counter, deque
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from attrs import Factory, define

from presence_proto import events
from presence_proto.endpoint import ConnId
from presence_proto.testing.sim.laws import SimViolation
from presence_proto.testing.sim.links import End, LinkQuality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from presence_proto.testing.sim.hosts import ClientHost, Host, HubHost


# ----------------------------------------------------------------------------------------------------- agenda
# Virtual time jumps from one scheduled action to the next, and never waits.


class Scheduler:
    """Queue of actions in virtual time. Actions with the same time run in the order of scheduling.

    `now` is in seconds since the world began.
    """

    __slots__ = ("_heap", "_serial", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._serial = 0

    def at(self, when: float, action: Callable[..., Any], *args: Any) -> None:
        """Schedule `action(*args)` for the time `when`. A time in the past means as soon as possible."""
        self._serial += 1
        heappush(self._heap, (when, self._serial, action, args))

    def after(self, seconds: float, action: Callable[..., Any], *args: Any) -> None:
        """Schedule `action(*args)` to run after `seconds` of virtual time."""
        self.at(self.now + seconds, action, *args)

    def run(self, until: float, done: Callable[[], bool] | None = None) -> bool:
        """Run all actions that are due by `until`. If `done()` becomes true, stop early and return true."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            when, _, action, args = heappop(heap)
            if when > self.now:
                self.now = when
            action(*args)
            if done is not None and done():
                return True
        self.now = until
        return False


# -------------------------------------------------------------------------------------------------------- log
# A log line has the virtual time, the host's name and a description.
#
# Entries are formatted only when they are read. When off, the log keeps only the last entries, for the report
# of a violation, and no entries about bytes. Lines never show bytes, because client frames are masked at
# random.


TAIL = 40
"""Maximum number of entries that a log keeps when the log is off or has a listener."""

CLIP = 24
"""Maximum number of characters of an activity in a log line."""

Entry: TypeAlias = tuple[float, str, str, tuple[Any, ...]]


class SimLog:
    """Log of one world. Iterating over the log yields its lines.

    A `listener` receives each line at once. With a listener, the log is on but keeps only the last entries.
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
        """Return the last lines of the log, at most `TAIL` lines."""
        return [_line(entry) for entry in list(self._entries)[-TAIL:]]

    def note(self, who: str, what: str, *args: Any) -> None:
        """Add an entry about the host `who`. `what` is a format string for `args`, which must not change."""
        entry = self._agenda.now, who, what, args
        self._entries.append(entry)
        if self._listener is not None:
            self._listener(_line(entry))


def clock_face(seconds: float) -> str:
    """Format seconds as hours, minutes, seconds and microseconds: `00:03:12.500000`."""
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
    """Return a short text for an event."""
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


# ------------------------------------------------------------------------------------------------------ stats
# Counters of a world.


@define
class SimStats:
    """Counters of a world. `client_hours` counts virtual hours. `writes` counts `SendData` outputs, each of
    which may contain several frames."""

    client_hours: float = 0.0
    writes: int = 0
    bytes: int = 0
    events: int = 0
    faults: Counter[str] = Factory(Counter)  # by kind

    def add(self, other: SimStats) -> None:
        """Add the counters of another world."""
        self.client_hours += other.client_hours
        self.writes += other.writes
        self.bytes += other.bytes
        self.events += other.events
        self.faults += other.faults


# ------------------------------------------------------------------------------------------------------ stage


SLOW = 30.0
"""Maximum additional delay of a slow connection attempt, in seconds."""


class Stage:
    """Shared environment of the hosts of one world. `replay` is a text about how to repeat the world."""

    hub: HubHost

    def __init__(
        self, seed: int, *, replay: str, log: bool | Callable[[str], None], quality: LinkQuality | None
    ) -> None:
        self.agenda = Scheduler()
        self.stats = SimStats()
        self.log = SimLog(self.agenda, on=log is True, listener=log if callable(log) else None)
        self.rng = Random(f"{seed}/network")
        self.replay = replay
        self.stale_facts = 0.0  # the probability of a late or repeated fact about a closed connection
        self._quality = quality
        self._qualities: dict[str, LinkQuality] = {}

    # ---------------------------------------------------------------- the network

    def quality_for(self, host: Host) -> LinkQuality:
        """Return the quality of a client's links: the world's quality if set, else a random quality."""
        quality = self._qualities.get(host.name)
        if quality is None:
            rng = self.rng
            quality = self._quality or LinkQuality(
                latency=rng.choice((0.001, 0.01, 0.03, 0.1, 0.25)),
                jitter=rng.choice((0.001, 0.01, 0.05)),
                bandwidth=rng.choice((20_000.0, 1_000_000.0)),
                chunking=rng.choice((0.0, 0.02, 0.2)),
            )
            self._qualities[host.name] = quality
        return quality

    def connect(self, host: Host, conn: ConnId) -> End:
        """Start a connection from a client to the hub. Return the client's end, which is not open yet."""
        quality = self.quality_for(host)
        near, far = (
            End(one, number, quality, self.agenda, self.rng, self.stats)
            for one, number in ((host, conn), (self.hub, ConnId(0)))
        )
        near.peer, far.peer = far, near
        client: ClientHost = host  # type: ignore[assignment]  # only clients connect
        fate = client.connects
        if fate == "hang":
            return near
        delay = quality.latency + (self.rng.random() * SLOW if fate == "slow" else 0.0)
        self.agenda.after(delay, self.hub.knocked, near, "no route to host" if fate == "refuse" else None)
        return near

    def stale(self, host: Host, fact: str, conn: ConnId) -> None:
        """Schedule, at random, a stale `fact` about a closed connection, like a faulty driver."""
        if self.stale_facts and self.rng.random() < self.stale_facts:
            self.stats.faults["stale fact"] += 1
            self.agenda.after(self.rng.expovariate(1 / 60), host.stale_fact, fact, conn)

    # ---------------------------------------------------------------- violations

    def broken(self, law: str, who: str, details: str) -> NoReturn:
        """Raise `SimViolation` with the time and the last lines of the log."""
        raise SimViolation(law, who, details, now=self.agenda.now, replay=self.replay, tail=self.log.tail())
