"""Presence payloads in few words, all that a map holds, and how it is told a history."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from presence_proto.presence import PresenceChange, PresenceMap
from presence_proto.serializer import V2Serializer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from presence_proto.testing.strategies import PresenceHistory, Truth

Entries: TypeAlias = dict[str, dict[str, Any]]


def meta(ref: str, **more: Any) -> dict[str, Any]:
    return {"phx_ref": ref, **more}


def entry(*refs: str, **extra: Any) -> dict[str, Any]:
    return {"metas": [meta(ref) for ref in refs], **extra}


def diff(joins: Entries | None = None, leaves: Entries | None = None) -> dict[str, Entries]:
    return {"joins": joins or {}, "leaves": leaves or {}}


def holding(**state: dict[str, Any]) -> PresenceMap:
    presence = PresenceMap()
    presence.apply_state(state)
    return presence


def as_received(event: str, payload: Any) -> Any:
    """What a client gives its map when this comes as JSON; the payload itself when it is none."""
    try:
        text = json.dumps([None, None, "t", event, payload], separators=(",", ":"), allow_nan=False)
    except (RecursionError, TypeError, ValueError):
        return payload
    return V2Serializer(server=False).decode_text(text).payload


class FromJson(PresenceMap):
    """A map that is told everything as a client tells it."""

    __slots__ = ()

    def apply_state(self, payload: Any) -> tuple[PresenceChange, ...]:
        return super().apply_state(as_received("presence_state", payload))

    def apply_diff(self, payload: Any) -> tuple[PresenceChange, ...]:
        return super().apply_diff(as_received("presence_diff", payload))


def snapshot(presence: PresenceMap) -> Entries:
    """All that a map holds, in order."""
    return {key: {"metas": [*metas], **presence.extra(key)} for key, metas in presence.items()}


def refs(presence: PresenceMap) -> dict[str, list[str]]:
    return {key: [meta["phx_ref"] for meta in metas] for key, metas in presence.items()}


def by_ref(presence: Any) -> Truth:
    """The metas of each key, in any order, as a `PresenceHistory` has them."""
    return {key: {meta["phx_ref"]: meta for meta in metas} for key, metas in presence.items()}


def told(history: PresenceHistory, presence: Any) -> Iterator[Truth]:
    """Tell `presence` all of it, as a channel does: diffs wait for the first state.

    Yields what it must hold now, wherever that is defined.
    """
    waiting: list[Any] | None = []
    for step, truth in zip(history.steps, history.truths, strict=True):
        if step.event == "presence_state":
            presence.apply_state(step.payload)
            for payload in waiting or []:
                presence.apply_diff(payload)
            waiting = None
        elif waiting is not None:
            waiting.append(step.payload)
        else:
            presence.apply_diff(step.payload)
        if truth is not None:
            yield truth
