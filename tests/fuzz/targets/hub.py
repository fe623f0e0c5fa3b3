"""A hub: the bytes of several clients in all its protocols, the clock, the hub's user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fuzz import hubs, script, seeds
from fuzz.hubs import ROOMS
from hub_client import supabase_join

_ACTIONS: tuple[dict[str, Any], ...] = (
    {"type": "connect", "user_id": "bo", "display_name": "Bo", "version": "1"},
    {"type": "ping"},
    {"type": "activity_update", "status": "in_game", "activity": "Chess", "metadata": {"a": 1}},
    {"type": "game_invite", "game": "Chess", "code": "X"},
    {"type": "poke", "target_user_id": "victim"},
    {"type": "disconnect"},
)
_SUPABASE, _JARVIS = 1, 2  # which clients they are


def check(data: bytes) -> None:
    """Run an input: a story, and option bytes for the hub and how the bytes are cut."""
    body, (bits, cut) = script.split(data, 2)
    hubs.check(data, body, bits, cut)


def inputs() -> Iterator[bytes]:
    """The clients of the recordings, and people in the room of Jarvis and Supabase."""
    jarvis = [script.record("t", _JARVIS, json.dumps(action)) for action in _ACTIONS]
    supabase = [
        script.record("t", _SUPABASE, json.dumps(message))
        for message in (
            ["1", "1", ROOMS[2], "phx_join", supabase_join("cy", ack=True)],
            ["1", "2", ROOMS[2], "presence", {"event": "track", "payload": {"status": "away"}}],
            ["1", "3", ROOMS[2], "broadcast", {"event": "poke", "payload": {"target_user_id": "bo"}}],
            ["1", "4", ROOMS[2], "presence", {"event": "untrack"}],
            ["1", "5", ROOMS[2], "access_token", {"access_token": "bad"}],
            ["1", "6", ROOMS[2], "phx_leave", {}],
        )
    ]
    away = [script.record("c", _JARVIS), script.record("a", 7), script.record("w", 0)]
    for bits in (0, 1, 2, 4, 8, 16, 32, 64):
        yield script.script(*jarvis[:1], *supabase, *jarvis[1:], *away, options=bytes((bits, 0)))
        yield script.script(*supabase[:2], *jarvis[:5], *away, *jarvis[:3], options=bytes((bits, 6)))
    deflated = [script.record("z", _JARVIS, json.dumps(action)) for action in _ACTIONS]
    yield script.script(*deflated, options=bytes((1, 2)))
    for number in range(16):
        does = script.record("p", number, ROOMS[2] + "word")
        yield script.script(*supabase[:2], *jarvis[:2], does, options=bytes((0, 2)))
    for name, conversation in seeds.conversations():
        who = (3 if seeds.speaks_v1(name) else 1) if name.startswith("h_") else 0
        if seeds.speaks_v1(name) and not name.startswith("h_"):
            who = 3
        records = [
            script.record("t" if said.text else "b", who, said.data)
            for said in conversation
            if not said.incoming
        ]
        if records:
            yield script.SEPARATOR.join(records)[: seeds.MAX_SEED] + bytes((len(name) % 8, len(name) % 5))
    for stream in seeds.streams("out"):
        yield script.record("o", 0, stream[: seeds.MAX_SEED]) + bytes((len(stream) % 2, 4))
