"""All topics of a hub, and what their members share: the config, the clock, the ids, the events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto.errors import LocalProtocolError
from presence_proto.hub.allowance import Allowance
from presence_proto.hub.ids import Ids, TimerName
from presence_proto.hub.rates import Rates, is_limited
from presence_proto.hub.topic import LARGE_DIFF, Member, Meta, SharedMessage, Topic, is_reserved, said
from presence_proto.json_text import plain
from presence_proto.serializer import UserBroadcast

if TYPE_CHECKING:
    from random import Random

    from presence_proto.config import HubConfig
    from presence_proto.events import HubEvent
    from presence_proto.outputs import Outbox
    from presence_proto.timers import Clock, Timers

SUPABASE_PREFIX = "realtime:"
JARVIS_TOPIC = "realtime:jarvis-presence"
"""Where the users of the Jarvis system meet, whichever protocol they speak."""


def announcement(topic: str, event: str, payload: Any, levels: int) -> SharedMessage:
    """What the hub's user says to a whole topic. `payload` is JSON of up to `levels` levels, or bytes.

    A Supabase topic gets it as a broadcast. Raises `LocalProtocolError` for what cannot be said.
    """
    if isinstance(payload, (bytearray, memoryview)):
        payload = bytes(payload)
    if not isinstance(payload, bytes):
        plain(payload, levels)
    if topic.startswith(SUPABASE_PREFIX):
        if isinstance(payload, bytes):
            return said(topic, "broadcast", UserBroadcast(event, payload))
        return said(topic, "broadcast", {"type": "broadcast", "event": event, "payload": payload})
    if is_reserved(event):
        raise LocalProtocolError(f"only the hub itself says {event!r}")
    return said(topic, event, payload)


class Topics:
    """The topics that have members, and their diffs that wait. A topic comes and goes with its members."""

    __slots__ = (
        "_outbox",
        "_timers",
        "_topics",
        "_unlimited",
        "_waiting",
        "clock",
        "config",
        "ids",
        "total",
        "work",
    )

    def __init__(
        self,
        config: HubConfig,
        clock: Clock,
        timers: Timers[TimerName],
        outbox: Outbox[HubEvent],
        rng: Random | None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.ids = Ids(rng)
        self.total = Allowance("this hub", config.max_total_size)
        self._timers = timers  # a topic's timer has its name
        self._outbox = outbox
        self._topics: dict[str, Topic] = {}
        self._unlimited = None if is_limited(config) else Rates(self)  # for all connections
        self.work = 0  # units, since the hub began; see `hub.turns`
        self._waiting: dict[str, Topic] = {}  # what has changed since the last settle(), in order

    # -- getters

    @property
    def names(self) -> tuple[str, ...]:
        """The topics that have members."""
        return tuple(self._topics)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The topics whose diff waits for the end of the presence window."""
        return tuple(name for name in self._topics if self._timers.get(name) is not None)

    def online(self, name: str) -> dict[str, tuple[Meta, ...]]:
        """Who is present in a topic; nobody in one without members."""
        topic = self._topics.get(name)
        return {} if topic is None else topic.online()

    def members(self, name: str) -> tuple[Member, ...]:
        """Who is in a topic."""
        topic = self._topics.get(name)
        return () if topic is None else topic.members

    # -- for members

    def enter(self, name: str, member: Member) -> Topic:
        """Add a member to a topic, which is made when it is the first."""
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = self._new_topic(name)
        topic.add(member)
        return topic

    def check(
        self, name: str, key: str, payload: Meta, payer: Allowance | None = None, *, freed: int = 0
    ) -> None:
        """Raise as `Topic.track` does if `payload` may not be tracked in a topic, which need not exist yet.

        `freed`: the bytes that will be given back before.
        """
        topic = self._topics.get(name) or self._new_topic(name)
        topic.check(key, payload, payer, freed=freed)

    def _new_topic(self, name: str) -> Topic:
        return Topic(name, self.ids, self._waiting, self.config, self.total)

    def leave(self, topic: Topic, member: Member) -> None:
        """Take a member out of a topic, which is forgotten when it was the last."""
        topic.remove(member)
        if topic.is_empty:
            del self._topics[topic.name]
            self._waiting.pop(topic.name, None)
            self._timers.cancel(topic.name)

    def rates(self) -> Rates:
        """The token buckets of a new connection."""
        return Rates(self) if self._unlimited is None else self._unlimited

    def emit(self, event: HubEvent) -> None:
        """Report an event to the hub's user."""
        self._outbox.put(event)

    def set_timer(self, name: TimerName, seconds: float) -> None:
        """Have the hub tell when so many seconds have passed."""
        self._timers.set(name, self.clock.now + seconds)

    def cancel_timer(self, name: TimerName) -> None:
        """Forget about it."""
        self._timers.cancel(name)

    # -- for the hub

    def broadcast(self, name: str, shared: SharedMessage) -> None:
        """Say something to everybody in a topic."""
        topic = self._topics.get(name)
        if topic is not None:
            topic.broadcast(shared)

    def settle(self) -> None:
        """A moment is over: its diffs go out now, or when the presence window ends."""
        if not self._waiting:
            return
        window = self.config.presence_window
        for topic in self._waiting.values():
            if not window:
                topic.flush()
            elif self._timers.get(topic.name) is None:
                self._timers.set(topic.name, self.clock.now + window)
        self._waiting.clear()

    def window_ended(self, name: str) -> None:
        """The timer of a topic has fired: its diff goes out, or the next part of it."""
        if self._topics[name].flush(LARGE_DIFF):
            self._timers.set(name, self.clock.now + self.config.presence_window)
