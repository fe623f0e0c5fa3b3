"""Whole clients of Phoenix and Supabase: what their server says, the network, the clock, their user."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fuzz import clients, script, seeds
from fuzz.clients import TOPICS, Kind

KINDS = (Kind.SUPABASE, Kind.PHOENIX, Kind.SUPABASE_V1, Kind.PHOENIX_V1)

_UPDATES = [
    script.record("d", 0, diff)
    for diff in (
        '{"joins":{"bo":{"metas":[{"phx_ref":"2","activity":"Go"}]}},"leaves":{"bo":{"metas":[{"phx_ref":"1"}]}}}',
        '{"joins":{"bo":{"metas":[{"phx_ref":"3","status":"away","online_at":"1"}]}},"leaves":{}}',
        '{"joins":{"bo":{"metas":[{"phx_ref":"3","status":"idle"}],"extra":1}},"leaves":{}}',
        '{"joins":{},"leaves":{"bo":{"metas":[{"phx_ref":"3"}]}}}',
        '{"joins":{},"leaves":{"bo":{"metas":[{"phx_ref":"2"}]}}}',
    )
]


def check(data: bytes) -> None:
    """Run an input: a story, and option bytes for the client and how it is cut."""
    body, (bits, cut) = script.split(data, 2)
    clients.check(data, body, KINDS[bits % len(KINDS)], cut)


def inputs() -> Iterator[bytes]:
    """The recordings, as said about the topic of the client that hears them, and some weather."""
    in_room = [script.record("y", 0), script.record("s", 0, '{"bo":{"metas":[{"phx_ref":"1"}]}}')]
    joins = '{"joins":{"cy":{"metas":[{"phx_ref":"2","status":"away"}]}},"leaves":{}}'
    weather = [script.record(letter, 1) for letter in "cwaf"]
    for kind in range(len(KINDS)):
        yield script.script(*in_room, script.record("d", 0, joins), options=bytes((kind, 0)))
        yield script.script(*in_room, *weather, *in_room, options=bytes((kind, 3)))
        for number in range(11):
            command = script.record("p", number, TOPICS[kind % 3] + " x")
            yield script.script(*in_room, command, *weather, options=bytes((kind, 0)))
    yield from _talk()
    for name, conversation in seeds.conversations():
        said = [one for one in conversation if one.incoming]
        for kind in (2, 3) if seeds.speaks_v1(name) else (0, 1):
            topic = (TOPICS[2] if KINDS[kind] in (Kind.SUPABASE, Kind.SUPABASE_V1) else TOPICS[0]).encode()
            records = [script.record("t" if one.text else "b", 0, _about(topic, one.data)) for one in said]
            body = script.SEPARATOR.join(records)[: seeds.MAX_SEED]
            yield body + bytes((kind, len(name) % 8))


def _talk() -> Iterator[bytes]:
    """What is said in a channel besides presence, and how it ends."""
    bo = {"user_id": "bo", "display_name": "Bo"}
    said: list[dict[str, Any]] = [
        {"event": "activity_update", "payload": {**bo, "status": "in_game", "activity": "Chess"}},
        {"event": "game_invite", "payload": {**bo, "game": "Chess", "code": "X"}},
        {"event": "poke", "payload": {**bo, "target_user_id": "me"}},
        {"event": "chat_message", "payload": {**bo, "channel": "general", "content": "hi", "reply_to": "1"}},
    ]
    wrong = {"extension": "system", "status": "error", "message": "rate limit", "channel": "room1"}
    for kind in range(len(KINDS)):
        room = [script.record("y", 0), script.record("s", 0, '{"bo":{"metas":[{"phx_ref":"1"}]}}')]
        if kind % 2:
            room.insert(0, script.record("p", 0, TOPICS[1]))
        broadcasts = [script.record("e", 0, json.dumps({"type": "broadcast", **one})) for one in said]
        yield script.script(*room, *broadcasts, options=bytes((kind, 4)))
        for number, payload in ((1, wrong), (2, {}), (3, {"reason": "no"}), (4, [])):
            end = script.record("e", number, json.dumps(payload))
            later = [script.record("w", 1), *room]
            yield script.script(*room, broadcasts[0], end, *later, options=bytes((kind, 0)))
        refused = script.record("y", 1, '{"reason":"unmatched topic"}')
        yield script.script(refused, script.record("w", 0), *room, options=bytes((kind, 0)))
        yield script.script(room[0], *[script.record("a", 6), *room[:-1]] * 2, options=bytes((kind, 0)))
        yield script.script(*room, *_UPDATES, options=bytes((kind, 2)))
        for number in range(11):
            command = script.record("p", number, TOPICS[1] + " x")
            replies = [script.record("y", n) for n in (0, 1, 2)]
            yield script.script(*room, command, *replies, script.record("a", 6), options=bytes((kind, 0)))
        tracked = script.record("p", 4 if kind % 2 else 0, TOPICS[1] + " x" if kind % 2 else "Chess")
        yield script.script(*room, tracked, refused, refused, options=bytes((kind, 0)))


def _about(topic: bytes, data: bytes) -> bytes:
    """A message of a recording, about another topic."""
    for recorded in (b"realtime:room1", b"room:lobby", b"room:1"):
        data = data.replace(b'"' + recorded + b'"', b'"' + topic + b'"')
    return data
