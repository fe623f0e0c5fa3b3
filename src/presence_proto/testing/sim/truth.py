"""The truth: who is present on the hub, topic by topic, and when each presence began and ended.

What a client shows is judged by it: by the truth of the moment in which the hub said it, however long that
was on the way. A hub with a presence window says nothing of a change until the window has ended. What it says
meanwhile may rest on the truth from before the first change that waits, unless the client came later.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from presence_proto.hub import Hub
    from presence_proto.presence import Meta

    Online = Mapping[str, tuple[Meta, ...]]

MEMORY = 64
"""Of each user so many presences are remembered."""

WINDOWS = 1024
"""Of each topic so many windows are remembered."""


class Truth:
    """The presence on the hub of now, and its history. Times are those of the world."""

    def __init__(self) -> None:
        self.version = 0  # grows with each change
        self._online: dict[str, Online] = {}  # by topic
        self._presences: dict[tuple[str, str], deque[tuple[float, float]]] = {}  # from when to when
        self._windows: dict[str, deque[tuple[float, float]]] = {}  # by topic, when changes waited
        self._waiting: frozenset[str] = frozenset()

    def online(self, topic: str) -> Online:
        """Who is present in a topic."""
        return self._online.get(topic, {})

    @property
    def topics(self) -> tuple[str, ...]:
        """Where somebody is present."""
        return tuple(topic for topic, online in self._online.items() if online)

    @property
    def waiting(self) -> frozenset[str]:
        """The topics with changes that the hub has told nobody yet."""
        return self._waiting

    def told_at(self, topic: str, when: float) -> float:
        """What the hub said of a topic at `when` rests on the truth of this moment, or of a later one."""
        for began, ended in reversed(self._windows.get(topic, ())):
            if began <= when:
                return began if when <= ended else when  # in one moment it may have been said before the diff
        return when

    def was_present(self, topic: str, key: str, since: float, until: float) -> bool:
        """Whether there was a presence at a moment in between, if only at its very beginning or end."""
        presences = self._presences.get((topic, key), ())
        return any(began <= until and since <= ended for began, ended in presences)

    def was_absent(self, topic: str, key: str, since: float, until: float) -> bool:
        """Whether there was none at a moment in between, or one began or ended just then."""
        presences = self._presences.get((topic, key), ())
        return not any(began < since and until < ended for began, ended in presences)

    def look(self, hub: Hub, now: float) -> None:
        """See what has changed."""
        self._wait(frozenset(hub.waiting), now)
        names = hub.topics
        for topic in names:
            self._compare(topic, hub.online(topic), now)
        if len(names) < len(self._online):
            for topic in [topic for topic in self._online if topic not in names]:
                self._compare(topic, {}, now)
                del self._online[topic]

    def clear(self, now: float) -> None:
        """The hub is gone, and with it everybody."""
        self._wait(frozenset(), now)
        for topic in tuple(self._online):
            self._compare(topic, {}, now)
        self._online.clear()

    def _wait(self, waiting: frozenset[str], now: float) -> None:
        for topic in self._waiting - waiting:
            windows = self._windows[topic]
            windows[-1] = windows[-1][0], now
            self.version += 1
        for topic in waiting - self._waiting:
            self._windows.setdefault(topic, deque(maxlen=WINDOWS)).append((now, inf))
        self._waiting = waiting

    def _compare(self, topic: str, online: Online, now: float) -> None:
        before = self._online.get(topic, {})
        self._online[topic] = online
        if before == online:
            return
        self.version += 1
        for key, metas in before.items():
            if not _goes_on(metas, online.get(key, ())):
                presences = self._presences[topic, key]
                presences[-1] = presences[-1][0], now
        for key, metas in online.items():
            if not _goes_on(before.get(key, ()), metas):
                self._presences.setdefault((topic, key), deque(maxlen=MEMORY)).append((now, inf))


def _goes_on(before: tuple[Meta, ...], after: tuple[Meta, ...]) -> bool:
    """Whether it is one presence: a meta has stayed, or is the update of one that was there."""
    refs = {meta["phx_ref"] for meta in before}
    return any(meta["phx_ref"] in refs or meta.get("phx_ref_prev") in refs for meta in after)
