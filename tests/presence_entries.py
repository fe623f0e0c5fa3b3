"""Presence payloads in few words, all that a map holds, and how it is told a history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from presence_proto.presence import PresenceMap

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
