"""A `PresenceClient` on the Jarvis JSON protocol: what its server says, the network, the clock, its user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fuzz import clients, script
from fuzz.clients import Kind

_BO = {"user_id": "bo", "display_name": "Bo"}
_CY = {"user_id": "cy", "display_name": "Cy", "status": "in_game", "activity": "Chess"}


def check(data: bytes) -> None:
    """Run an input: a story, and an option byte for how it is cut."""
    body, (cut,) = script.split(data, 1)
    clients.check(data, body, Kind.JARVIS, cut)


def inputs() -> Iterator[bytes]:
    """Stories of a room. There are no recordings of this protocol."""
    welcome = _says("welcome", your_id="me", users=[{**_BO, "status": "away", "activity": None}, _CY])
    people = [
        _says("user_online", **_BO, ts="2026-01-01T00:00:00Z"),
        _says("activity_changed", **_CY, ts=None),
        _says("activity_changed", **_BO, status="nonsense", activity="Go", mood="fine"),
        _says("user_offline", **_BO),
    ]
    talk = [
        _says("game_invite", **_BO, game="Chess", code="X"),
        _says("poke", **_CY, ts="now"),
        _says("pong", online_count=3),
        _says("error", message="no"),
        _says("invite_sent", game="Chess", code="Y", sent_to=["Bo"]),
    ]
    commands = [script.record("p", number, "Y") for number in range(7)]
    away = [script.record("c", 0), script.record("w", 1)]
    yield from (script.script(one, options=b"\0") for one in (welcome, *people, *talk, *commands, *away))
    yield script.script(welcome, *people, options=b"\0")
    yield script.script(welcome, commands[1], *talk, options=b"\3")
    yield script.script(*commands[:3], welcome, *people, *away, welcome, *talk, options=b"\6")
    yield script.script(welcome, script.record("a", 8), talk[2], script.record("a", 11), options=b"\0")
    yield script.script(script.record("h", 0, "HTTP/1.1 403 Forbidden\r\n\r\n"), options=b"\0")


def _says(kind: str, **fields: Any) -> bytes:
    return script.record("t", 0, json.dumps({"type": kind, **fields}))
