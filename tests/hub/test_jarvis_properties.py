"""Whatever Jarvis and Supabase clients do, all of them hold what the hub says, and none harms another."""

from __future__ import annotations

import json
from typing import Any

from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from examples import times
from hub_client import Client, World, masked
from jarvis_client import (
    CONFIG,
    ROOM,
    Fold,
    JarvisClient,
    broadcasts,
    jarvis,
    people,
    shown_online,
    supabase,
    tracks,
)
from presence_proto.endpoint import ConnId
from presence_proto.events import UserStatus
from presence_proto.presence import PresenceMap

fast = times(0.6)

USERS = ("ann", "bob", "cid")
NAMES = ("", "One", "Two")
STATUSES = [status.value for status in UserStatus]

# ---------------------------------------------------------------------------------------------- rosters


@define(eq=False)
class Observer:
    """A Supabase client and the presence that it holds."""

    client: Client
    key: str
    held: PresenceMap = field(factory=PresenceMap)

    def read(self) -> None:
        for _, _, _, event, payload in self.client.take():
            if event == "presence_state":
                self.held.apply_state(payload)
            elif event == "presence_diff":
                self.held.apply_diff(payload)


@define(eq=False)
class Room:
    """Slots for connections of both protocols; some are empty, and several may be of one user."""

    world: World
    folds: dict[int, Fold] = field(factory=dict)
    observers: dict[int, Observer] = field(factory=dict)
    tracks: int = 0

    def read(self) -> None:
        for slots in (self.folds, self.observers):
            for slot, one in list(slots.items()):
                one.read()
                if one.client.conn in self.world.closed:
                    del slots[slot]

    def act(self, action: str, slot: int, number: int) -> None:
        user_id, name, status = USERS[number % 3], NAMES[number % 2], STATUSES[number % 6]
        fold, observer = self.folds.get(slot), self.observers.get(slot)
        match action:
            case "wait":
                self.world.advance((0.4, 1, 4, 9.9, 10, 31)[number % 6])
            case "connect" if fold is None:
                self.folds[slot] = Fold(jarvis(self.world, user_id, name), user_id)
            case "connect again" if fold is not None:
                fold.client.text(
                    json.dumps(
                        {"type": "connect", "user_id": fold.user_id, "display_name": NAMES[number % 3]}
                    )
                )
            case "update" if fold is not None:
                update = {"type": "activity_update", "status": status, "activity": name, "metadata": number}
                fold.client.text(json.dumps(update))
            case "ping" if fold is not None:
                fold.client.text('{"type":"ping"}')
            case "disconnect" if fold is not None:
                fold.client.text('{"type":"disconnect"}')
            case "drop" if fold is not None:
                fold.read()
                fold.client.drop()
            case "join" if observer is None:
                client = self.world.connect("/realtime/v1/websocket?vsn=2.0.0")
                config = {"presence": {"key": user_id, "enabled": True}}
                client.say("1", "1", ROOM, "phx_join", {"config": config})
                self.observers[slot] = Observer(client, user_id)
            case "track" | "claim and track" if observer is not None:
                meta = {"user_id": observer.key, "display_name": name or observer.key}
                self.tracks += 1  # no two are the same: the hub passes over a track that is no news
                meta |= {"status": status, "activity": name or None, "online_at": str(self.tracks)}
                if action == "claim and track" and observer.key in self.world.hub.online(ROOM):
                    broadcasts(observer.client, "activity_update", **meta)
                tracks(observer.client, **meta)
            case "untrack" if observer is not None:
                observer.client.say("1", "5", ROOM, "presence", {"event": "untrack"})
            case "leave" if observer is not None:
                observer.read()
                observer.client.drop()
            case "heartbeat" if observer is not None:
                observer.client.say(None, "6", "phoenix", "heartbeat", {})

    def check(self) -> None:
        online = self.world.hub.online(ROOM)
        users = shown_online(self.world)
        for fold in self.folds.values():
            assert fold.users == {key: user for key, user in users.items() if key != fold.user_id}
            assert all(type(said["type"]) is str for said in fold.passing)
            fold.client.text('{"type":"ping"}')
            fold.read()
            assert fold.count == len(users)
        for observer in self.observers.values():
            assert dict(observer.held) == online


actions = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("connect", "connect", "connect", "connect again", "update", "update", "ping"),
                *("disconnect", "drop", "join", "join", "track", "claim and track", "untrack"),
                *("leave", "wait", "wait", "heartbeat"),
            ]
        ),
        st.integers(0, 2),
        st.integers(0, 11),
    ),
    min_size=20,
    max_size=60,
)


@fast
@given(actions=actions, window=st.sampled_from([0.0, 1.0]), grace=st.sampled_from([10.0, 10.0, 0.0, 3.0]))
def test_everybody_holds_what_the_hub_says(
    actions: list[tuple[str, int, int]], window: float, grace: float
) -> None:
    room = Room(World(evolve(CONFIG, presence_window=window, offline_grace=grace)))
    for action in actions:
        room.act(*action)
        room.read()
        if not window:
            room.check()
        rosters = {
            fold.user_id: fold.users | {fold.user_id: None}
            for fold in room.folds.values()
            if fold.users is not None
        }
        for user_id, one in rosters.items():  # in a window, too, all are shown the same, but for themselves
            for other_id, other in rosters.items():
                either = {user_id, other_id}
                assert {k: v for k, v in one.items() if k not in either} == {
                    k: v for k, v in other.items() if k not in either
                }
    before = None
    while before != (before := room.world.hub.online(ROOM)):
        room.world.advance(window)  # one without changes: all that there were before have been told
    room.read()
    room.check()
    room.world.advance(200)
    room.read()
    assert not room.folds
    assert room.world.hub.next_deadline() is None
    assert room.world.hub.topics == ()


# ---------------------------------------------------------------------------------------------- abuse

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
kinds = st.sampled_from(
    [
        *("connect", "ping", "activity_update", "game_invite", "poke", "disconnect"),
        *("welcome", "pong", "user_offline", "error", ""),
    ]
)
values = json_values | st.sampled_from([*USERS, *STATUSES, "x" * 300])
fields = ["user_id", "display_name", "status", "activity", "metadata", "game", "code", "target_user_id", "ts"]
messages = st.builds(
    lambda kind, more: {"type": kind, **more}, kinds, st.dictionaries(st.sampled_from(fields), values)
)
texts = st.one_of(
    messages.map(json.dumps),
    messages.map(json.dumps),
    json_values.map(json.dumps),
    st.text(max_size=20),
    messages.map(json.dumps).map(lambda text: text[:-1]),
)


@fast
@given(said=st.lists(st.tuples(st.integers(0, 1), texts), max_size=30))
def test_no_json_raises_or_disturbs_anybody_else(said: list[tuple[int, str]]) -> None:
    world = World(CONFIG)
    (bob,) = people(world, "bob")
    witness = Fold(bob, "bob", {})
    observer = Observer(supabase(world, "sue"), "sue")
    online = world.hub.online(ROOM)
    observer.held.apply_state({key: {"metas": list(metas)} for key, metas in online.items()})
    strangers = [jarvis(world), jarvis(world, "ann")]
    for who, text in said:
        if strangers[who].conn in world.closed:
            strangers[who] = jarvis(world, "ann")
        before = len(strangers[who].frames)
        strangers[who].text(text)
        assert len(strangers[who].frames) <= before + 2  # an answer, and perhaps a poke of oneself
        witness.read()
        observer.read()
    world.advance(5)
    witness.read()
    observer.read()
    assert bob.closed is None
    assert observer.client.closed is None
    users = shown_online(world)
    assert witness.users == {key: user for key, user in users.items() if key != "bob"}
    assert dict(observer.held) == world.hub.online(ROOM)
    for message in witness.passing:
        assert message["type"] in ("game_invite", "poke")
        assert isinstance(message["user_id"], str)
        assert message["user_id"] != "bob" or message["type"] == "poke"


@fast
@given(
    said=st.lists(
        st.one_of(messages.map(json.dumps).map(str.encode), st.binary(max_size=10)), min_size=1, max_size=8
    ),
    cuts=st.lists(st.integers(1, 40), max_size=20),
)
def test_any_split_of_the_bytes_is_the_same(said: list[bytes], cuts: list[int]) -> None:
    data = b"".join(masked(text) for text in said)

    def outcome(pieces: list[bytes]) -> Any:
        world = World(CONFIG)
        ann, bob = people(world, "ann", "bob")
        for piece in pieces:
            if ann.conn not in world.closed:
                world.receive(ann.conn, piece)
        return ann.take(), bob.take(), ann.closed, world.events

    pieces, rest = [], data
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    assert outcome([data]) == outcome([piece for piece in [*pieces, rest] if piece])


# ---------------------------------------------------------------------------------------------- claims


@fast
@given(
    claims=st.lists(
        st.dictionaries(
            st.sampled_from(
                ["user_id", "display_name", "status", "activity", "game", "code", "target_user_id"]
            ),
            st.sampled_from([*USERS, "sue", "idle", None, 1]),
        ),
        max_size=10,
    ),
    event=st.sampled_from(["activity_update", "game_invite", "poke", "chat_message", "user_offline"]),
)
def test_no_broadcast_speaks_for_anybody_else(claims: list[dict[str, Any]], event: str) -> None:
    world = World(CONFIG)
    ann, _ = people(world, "ann", "bob")
    sue = supabase(world, "sue")
    ann.take()
    for claim in claims:
        broadcasts(sue, event, **claim)
        for message in ann.take():
            assert message["user_id"] == "sue" == claim["user_id"]
            assert message["type"] in ("activity_changed", "game_invite", "poke")


def test_the_same_in_every_run() -> None:
    def run() -> dict[ConnId, bytes]:
        world = World(CONFIG)
        clients: list[JarvisClient] = [jarvis(world, user_id) for user_id in USERS]
        supabase(world, "ann", status="idle")
        clients[0].tell("game_invite", game="g")
        clients[1].drop()
        world.advance(20)
        return world.sent

    assert run() == run()
