"""Presence payloads in few words, and all that a map holds."""

from __future__ import annotations

from typing import Any

from presence_proto.presence import PresenceMap

Entries = dict[str, dict[str, Any]]


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
