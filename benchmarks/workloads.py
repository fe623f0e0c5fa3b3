"""What the contestants are given: a presence state and the messages after it, made from a seed.

Everybody gets the same messages, in the envelope that they speak (V1 objects or V2 arrays), and must end with
the same roster, which the workload knows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from attrs import Factory, define, frozen

TOPIC = "realtime:jarvis-presence"
STATUSES = ["online", "idle", "in_game", "in_skill", "do_not_disturb", "away"]
GAMES = ["Snake", "Chess", "Solitaire", "Minesweeper", "Tetris", "Pong"]

Meta = dict[str, Any]
Roster = dict[str, dict[str, Meta]]  # presence key -> phx_ref -> meta


@frozen
class Workload:
    """`messages`: (topic, event, payload) in order, of which the first `untimed` bring the roster about.

    `roster`: what is there in the end. `unit`: what is counted, a "diff" or a "state".
    """

    name: str
    about: str
    messages: tuple[tuple[str, str, Any], ...]
    untimed: int
    roster: Mapping[str, tuple[str, ...]]
    unit: str = "diff"

    @property
    def units(self) -> int:
        """How many of the unit are timed."""
        return len(self.messages) - self.untimed

    @property
    def digest(self) -> str:
        """Of the roster in the end, see `digest`."""
        return digest(self.roster)

    @property
    def keys_digest(self) -> str:
        """The same for those who show users, and not their devices."""
        return digest(dict.fromkeys(self.roster, ()))

    def texts(self, vsn: str) -> list[str]:
        """The messages as the server sends them, in the envelope of `vsn` "1.0.0" or "2.0.0"."""
        return [envelope(vsn, *message) for message in self.messages]


def envelope(vsn: str, topic: str, event: str, payload: Any) -> str:
    """One message as text, written without spaces as a Phoenix server does."""
    whole: Any = [None, None, topic, event, payload]
    if vsn == "1.0.0":
        whole = {"ref": None, "topic": topic, "event": event, "payload": payload}
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=False)


def digest(roster: Mapping[str, Any]) -> str:
    """A fingerprint of who is there: keys with their refs, in any order."""
    lines = sorted(f"{key} {' '.join(sorted(refs))}\n" for key, refs in roster.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_texts(texts: list[str], path: Path) -> None:
    """One message a line."""
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")


# ---------------------------------------------------------------------------------------------- the room


@define
class Room:
    """A room that changes, and the diffs that tell of it."""

    rng: Random
    topic: str = TOPIC
    there: Roster = Factory(dict)
    refs: int = 0
    names: int = 0

    def meta(self, key: str, previous: str | None = None) -> Meta:
        """What the Jarvis client tracks, and Phoenix adds: the status and the activity change."""
        self.refs += 1
        ref = f"F{self.refs:x}".ljust(16, "Q")
        status = self.rng.choice(STATUSES)
        meta = {
            "phx_ref": ref,
            "user_id": key,
            "display_name": f"Player {key[:8]}",
            "status": status,
            "activity": f"Playing {self.rng.choice(GAMES)}" if status == "in_game" else None,
            "online_at": f"2026-05-04T{self.rng.randrange(24):02}:{self.rng.randrange(60):02}:00.000Z",
        }
        return meta if previous is None else meta | {"phx_ref_prev": previous}

    def new_key(self) -> str:
        self.names += 1
        number = f"{self.rng.getrandbits(96):024x}"
        return f"{self.names:08x}-{number[:4]}-{number[4:8]}-{number[8:12]}-{number[12:]}"

    def join(self, key: str | None = None) -> tuple[str, Meta]:
        key = self.new_key() if key is None else key
        meta = self.meta(key)
        self.there.setdefault(key, {})[meta["phx_ref"]] = meta
        return key, meta

    def leave(self, key: str) -> tuple[str, Meta]:
        metas = self.there[key]
        meta = metas.pop(next(iter(metas)))
        if not metas:
            del self.there[key]
        return key, meta

    def update(self, key: str) -> tuple[tuple[str, Meta], tuple[str, Meta]]:
        """What joined, and what left."""
        left = next(iter(self.there[key].values()))
        del self.there[key][left["phx_ref"]]
        meta = self.meta(key, left["phx_ref"])
        self.there[key][meta["phx_ref"]] = meta
        return (key, meta), (key, left)

    def state(self) -> tuple[str, str, Any]:
        payload = {key: {"metas": list(metas.values())} for key, metas in self.there.items()}
        return self.topic, "presence_state", payload

    def diff(self, joins: list[tuple[str, Meta]], leaves: list[tuple[str, Meta]]) -> tuple[str, str, Any]:
        return self.topic, "presence_diff", {"joins": _entries(joins), "leaves": _entries(leaves)}

    def roster(self) -> dict[str, tuple[str, ...]]:
        return {key: tuple(metas) for key, metas in self.there.items()}


def _entries(changes: list[tuple[str, Meta]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, meta in changes:
        entries.setdefault(key, {"metas": []})["metas"].append(meta)
    return entries


class Keys:
    """Keys to choose from at random, in constant time."""

    def __init__(self, rng: Random, keys: list[str]) -> None:
        self._rng, self._keys = rng, keys

    def add(self, key: str) -> None:
        self._keys.append(key)

    def any(self) -> str:
        return self._keys[self._rng.randrange(len(self._keys))]

    def take(self) -> str:
        at = self._rng.randrange(len(self._keys))
        self._keys[at], self._keys[-1] = self._keys[-1], self._keys[at]
        return self._keys.pop()


# ---------------------------------------------------------------------------------------------- the workloads


def steady(seed: int, users: int = 10_000, diffs: int = 20_000, *, max_state: int | None = None) -> Workload:
    """One change a diff: 40 % join, 40 % leave, 20 % update.

    At most `max_state` users are in the first state; the others come in diffs before the start. The roster
    keeps its size, give or take a tenth.
    """
    rng = Random(seed)
    room = Room(rng)
    keys = Keys(rng, [])
    messages: list[tuple[str, str, Any]] = []
    coming = users
    while coming:
        joins = [room.join() for _ in range(min(coming, max_state or coming))]
        coming -= len(joins)
        messages.append(room.diff(joins, []) if messages else room.state())
        for key, _ in joins:
            keys.add(key)
    untimed = len(messages)
    drift = max(1, users // 10)
    for _ in range(diffs):
        what = rng.random()
        if what < 0.8:
            grows = what < 0.4
            if abs(len(room.there) - users) >= drift:
                grows = len(room.there) < users
            if grows:
                key, meta = room.join()
                keys.add(key)
                messages.append(room.diff([(key, meta)], []))
            else:
                messages.append(room.diff([], [room.leave(keys.take())]))
        else:
            joined, left = room.update(keys.any())
            messages.append(room.diff([joined], [left]))
    about = f"a roster of {users:,}, one change a diff: 40 % join, 40 % leave, 20 % update"
    return Workload("steady", about, tuple(messages), untimed, room.roster())


def burst(seed: int, users: int = 10_000, diffs: int = 300) -> Workload:
    """100 joins and 100 leaves a diff."""
    rng = Random(seed)
    room = Room(rng)
    keys = Keys(rng, [room.join()[0] for _ in range(users)])
    messages = [room.state()]
    for _ in range(diffs):
        leaves = [room.leave(keys.take()) for _ in range(100)]
        joins = [room.join() for _ in range(100)]
        for key, _ in joins:
            keys.add(key)
        messages.append(room.diff(joins, leaves))
    about = f"a roster of {users:,}, 100 joins and 100 leaves a diff"
    return Workload("burst", about, tuple(messages), 1, room.roster())


def resync(seed: int, users: int = 10_000, states: int = 8) -> Workload:
    """Full states, each with 1 % of the users changed."""
    rng = Random(seed)
    room = Room(rng)
    keys = Keys(rng, [room.join()[0] for _ in range(users)])
    messages = [room.state()]
    for _ in range(states):
        for _ in range(max(1, users // 300)):
            room.leave(keys.take())
            keys.add(room.join()[0])
            room.update(keys.any())
        messages.append(room.state())
    about = f"a full state of {users:,} users, 1 % of them changed"
    return Workload("resync", about, tuple(messages), 1, room.roster(), unit="state")


def devices(seed: int, metas: int = 50, diffs: int = 10_000) -> Workload:
    """One user with many devices that come and go."""
    rng = Random(seed)
    room = Room(rng)
    key = room.new_key()
    for _ in range(metas):
        room.join(key)
    messages = [room.state()]
    for _ in range(diffs):
        if len(room.there[key]) < 2 or (rng.random() < 0.5 and len(room.there[key]) < 2 * metas):
            messages.append(room.diff([room.join(key)], []))
        else:
            messages.append(room.diff([], [room.leave(key)]))
    about = f"one user on about {metas} devices, one of which comes or goes in a diff"
    return Workload("devices", about, tuple(messages), 1, room.roster())


def small_rooms(seed: int, rooms: int = 1_000, users: int = 5, diffs: int = 20_000) -> Workload:
    """Many channels of few."""
    rng = Random(seed)
    halls = []
    for n in range(rooms):
        room = Room(rng, topic=f"realtime:room-{n}")
        halls.append((room, Keys(rng, [room.join()[0] for _ in range(users)])))
    messages = [room.state() for room, _ in halls]
    for _ in range(diffs):
        room, keys = rng.choice(halls)
        if rng.random() < 0.5 or len(room.there) < 2:
            key, meta = room.join()
            keys.add(key)
            messages.append(room.diff([(key, meta)], []))
        else:
            messages.append(room.diff([], [room.leave(keys.take())]))
    roster = {f"{room.topic}/{key}": refs for room, _ in halls for key, refs in room.roster().items()}
    about = f"{rooms:,} channels of {users}, one change a diff"
    return Workload("small-rooms", about, tuple(messages), rooms, roster)


def chunks(data: bytes, size: int = 65_536) -> Iterator[bytes]:
    """`data` as it comes from a socket."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


def shout(number: int, size: int = 300) -> str:
    """The text of a broadcast to all, with its number, `size` bytes long."""
    payload = {"n": number, "content": ""}
    broadcast = {"type": "broadcast", "event": "chat_message", "payload": payload}
    missing = size - len(envelope("2.0.0", TOPIC, "broadcast", broadcast))
    payload["content"] = ("Is anybody there? " * size)[:missing]
    return envelope("2.0.0", TOPIC, "broadcast", broadcast)
