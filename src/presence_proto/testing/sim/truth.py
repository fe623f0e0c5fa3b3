"""The truth: who is present on the hub, topic by topic, and when each presence began and ended.

What a client shows is judged by it: by the truth of the moment in which the hub said it, however long that
was on the way.
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


class Truth:
    """The presence on the hub of now, and its history. Times are those of the world."""

    def __init__(self) -> None:
        self.version = 0  # grows with each change
        self._online: dict[str, Online] = {}  # by topic
        self._presences: dict[tuple[str, str], deque[tuple[float, float]]] = {}  # from when to when

    def online(self, topic: str) -> Online:
        """Who is present in a topic."""
        return self._online.get(topic, {})

    @property
    def topics(self) -> tuple[str, ...]:
        """Where somebody is present."""
        return tuple(topic for topic, online in self._online.items() if online)

    def was_present(self, topic: str, key: str, when: float) -> bool:
        """Whether there was a presence at that moment, if only at its very beginning or end."""
        return any(began <= when <= ended for began, ended in self._presences.get((topic, key), ()))

    def was_absent(self, topic: str, key: str, when: float) -> bool:
        """Whether there was none at that moment, or one began or ended just then."""
        return not any(began < when < ended for began, ended in self._presences.get((topic, key), ()))

    def look(self, hub: Hub, now: float) -> None:
        """See what has changed."""
        names = hub.topics
        for topic in names:
            self._compare(topic, hub.online(topic), now)
        if len(names) < len(self._online):
            for topic in [topic for topic in self._online if topic not in names]:
                self._compare(topic, {}, now)
                del self._online[topic]

    def clear(self, now: float) -> None:
        """The hub is gone, and with it everybody."""
        for topic in tuple(self._online):
            self._compare(topic, {}, now)
        self._online.clear()

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
