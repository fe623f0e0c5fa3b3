"""Presence states and diffs: to a `PresenceMap` beside a naive model, and to a channel of a `RealtimeClient`.

A script of records: `s`, a state, or `d`, a diff, each JSON. The option byte says whether there are limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import msgspec

from fuzz import cost, script, seeds
from fuzz.clients import LIMITS, Kind, Story
from presence_entries import snapshot
from presence_model import Model
from presence_proto.errors import RemoteProtocolError
from presence_proto.presence import PresenceMap
from presence_proto.testing.contract import fold_changes

MAX_KEYS, MAX_METAS = 3, 2
CALLS = 400, 40
MAX_DIFFS = LIMITS["max_pending_diffs"]
TOPIC = "room:lobby"


def check(data: bytes) -> None:
    """Run an input. Raises `AssertionError`, or whatever comes out of the core, when something is wrong."""
    body, (bits,) = script.split(data, 1)
    limited = bool(bits & 1)
    payloads = list(_payloads(body))
    _check_map(payloads, limited=limited)
    if bits & 2:
        _check_channel(payloads)
    if script.sampled(data, 4096):
        longer = list(_payloads(script.repeated(body, 8000)))
        called = cost.calls(lambda: _apply_all(longer))
        size = len(body) + 8000
        assert called <= CALLS[0] + CALLS[1] * size, f"{called} calls for {size} bytes"


def _payloads(body: bytes) -> Iterator[tuple[str, Any]]:
    for letter, _, text in script.records(body, "sd"):
        try:
            yield letter, msgspec.json.decode(text)
        except (ValueError, RecursionError):
            continue


def _apply(presence: PresenceMap, letter: str, payload: Any) -> Any:
    return presence.apply_state(payload) if letter == "s" else presence.apply_diff(payload)


def _applied(presence: PresenceMap, letter: str, payload: Any) -> bool:
    """Whether it was not refused."""
    try:
        _apply(presence, letter, payload)
    except RemoteProtocolError:
        return False
    return True


def _apply_all(payloads: list[tuple[str, Any]]) -> None:
    presence = PresenceMap()
    for letter, payload in payloads:
        _applied(presence, letter, payload)


def _check_map(payloads: list[tuple[str, Any]], *, limited: bool) -> None:
    presence = PresenceMap(max_keys=MAX_KEYS, max_metas=MAX_METAS) if limited else PresenceMap()
    model = Model()
    folded: dict[str, dict[str, Any]] = {}
    for letter, payload in payloads:
        before = snapshot(presence)
        try:
            changes = _apply(presence, letter, payload)
        except RemoteProtocolError:
            assert snapshot(presence) == before, "a refused payload changes nothing"
            continue
        if letter == "s":
            model.sync_state(deepcopy(payload))
        else:
            model.sync_diff(deepcopy(payload))
        assert snapshot(presence) == model.state, "the map is not what phoenix.js has"
        fold_changes(folded, changes)
        assert {key: {*metas} for key, metas in folded.items()} == {
            key: {meta["phx_ref"] for meta in metas} for key, metas in presence.items()
        }
        if limited:
            assert len(presence) <= MAX_KEYS
            assert all(len(metas) <= MAX_METAS for metas in presence.values())
        if letter == "s":
            assert presence.apply_state(payload) == (), "a state is idempotent"


def _check_channel(payloads: list[tuple[str, Any]]) -> None:
    """The same through a client: the channel holds what a map does that waits for the first state."""
    story = Story(Kind.PHOENIX)
    story.join(TOPIC)
    presence = PresenceMap(max_keys=LIMITS["max_roster"], max_metas=LIMITS["max_metas"])
    waiting: list[Any] | None = []  # diffs, until the state has come
    for letter, payload in payloads[:MAX_DIFFS]:
        event = "presence_state" if letter == "s" else "presence_diff"
        story.tell(TOPIC, event, msgspec.Raw(msgspec.json.encode(payload)))
        story.check()
        if letter == "d" and waiting is not None:
            waiting.append(payload)
        elif _applied(presence, letter, payload) and waiting is not None:
            for diff in waiting:
                _applied(presence, "d", diff)
            waiting = None
        assert snapshot(story.client.presence(TOPIC)) == snapshot(presence)


_HISTORIES = (
    # further fields of a key, which change
    (
        's{"a":{"metas":[{"phx_ref":"1"}],"user":1}}',
        'd{"joins":{"a":{"metas":[{"phx_ref":"1"}],"user":2}},"leaves":{}}',
    ),
    # an update; a ref on both sides; twins; an unknown leave
    (
        's{"a":{"metas":[{"phx_ref":"1"},{"phx_ref":"1","n":1}]}}',
        'd{"joins":{"a":{"metas":[{"phx_ref":"2"}]}},"leaves":{"a":{"metas":[{"phx_ref":"1"}]}}}',
        'd{"joins":{"a":{"metas":[{"phx_ref":"2"}]}},"leaves":{"a":{"metas":[{"phx_ref":"2"},{"phx_ref":"9"}]}}}',
    ),
    # diffs before their state
    (
        'd{"joins":{"a":{"metas":[{"phx_ref":"1"}]}},"leaves":{}}',
        'd{"joins":{},"leaves":{"b":{"metas":[{"phx_ref":"2"}]}}}',
        's{"b":{"metas":[{"phx_ref":"2"}]}}',
    ),
    # as many as there may be, and more
    (
        's{"a":{"metas":[{"phx_ref":"1"},{"phx_ref":"2"}]},"b":{"metas":[{"phx_ref":"3"}]},"c":{"metas":[{"phx_ref":"4"}]}}',
        'd{"joins":{"a":{"metas":[{"phx_ref":"5"}]}},"leaves":{}}',
        'd{"joins":{"d":{"metas":[{"phx_ref":"6"}]}},"leaves":{}}',
        'd{"joins":{"d":{"metas":[{"phx_ref":"6"}]}},"leaves":{"c":{"metas":[{"phx_ref":"4"}]}}}',
    ),
)


def inputs() -> Iterator[bytes]:
    """The states and diffs of the recordings, and what they do not have."""
    for history in _HISTORIES:
        for bits in range(4):
            records = [script.record(payload[0], 0, payload[1:]) for payload in history]
            yield script.script(*records, options=bytes((bits,)))
    letters = {"presence_state": "s", "presence_diff": "d"}
    for name, conversation in seeds.conversations():
        records = []
        for said in conversation:
            if said.incoming and said.text:
                event, payload = _parts(said.data)
                if event in letters:
                    records.append(script.record(letters[event], 0, msgspec.json.encode(payload)))
        if records:
            body = script.SEPARATOR.join(records)[: seeds.MAX_SEED]
            yield body + bytes((len(name) % 4,))


def _parts(data: bytes) -> tuple[str, Any]:
    """Event and payload of a message from a server."""
    try:
        message = msgspec.json.decode(data)
    except ValueError:
        return "", None
    return (message["event"], message["payload"]) if isinstance(message, dict) else (message[3], message[4])
