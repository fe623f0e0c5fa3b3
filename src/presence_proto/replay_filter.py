"""Which replayed broadcasts of a Supabase channel are new to the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from presence_proto.events import Broadcast

KEPT = 100
"""Ids. A replay has 25 broadcasts at most, but not always in the order in which they came at first."""

LONGEST_ID = 100
"""Characters. Supabase has UUIDs; what is longer is not remembered."""


class ReplayFilter:
    """Between a channel and its `emit`: what a replay after a rejoin repeats does not pass.

    Supabase gives an id to each broadcast that it stores, and replays the newest of them. The time of a
    broadcast it does not tell. So the client asks for the same ones after a rejoin as at first, and passes
    over those that it has seen: what is left is what came after the last one, as far as `limit` reaches.
    """

    __slots__ = ("_emit", "_ids")

    def __init__(self, emit: Callable[[Broadcast], object]) -> None:
        self._emit = emit
        self._ids: dict[str, None] = {}  # oldest first

    def __call__(self, broadcast: Broadcast) -> None:
        """Emit the broadcast if it is new."""
        if self.is_new(broadcast.meta):
            self._emit(broadcast)

    def is_new(self, meta: Mapping[str, Any]) -> bool:
        """Whether to tell the application of a broadcast with this meta. It is remembered."""
        seen = meta.get("id")
        if not isinstance(seen, str) or len(seen) > LONGEST_ID:
            return True
        # A live one is never dropped: its sender may have made up the id.
        repeated = seen in self._ids and meta.get("replayed") is True
        self._ids.pop(seen, None)
        self._ids[seen] = None
        if len(self._ids) > KEPT:
            del self._ids[next(iter(self._ids))]
        return not repeated
