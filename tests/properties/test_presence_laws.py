"""The laws of the contract, for the presence client, over histories that a server could have."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from examples import times
from presence_proto.config import Identity, PresenceConfig
from presence_proto.errors import LocalProtocolError
from presence_proto.events import Connected, Disconnected, UserStatus
from presence_proto.presence_client import PresenceClient
from presence_proto.roster import user_from_meta
from presence_proto.testing import ModelServer, play
from presence_proto.testing import strategies as ps
from presence_proto.testing.server_script import (
    Call,
    Crash,
    Cut,
    Die,
    Refuse,
    RepeatDiff,
    Restart,
    Retrack,
    Say,
    SendBinary,
    SendBroadcast,
    SendBytes,
    SendClose,
    SendText,
    Serve,
    ServeOne,
    Stall,
    Step,
    Together,
    Track,
    Untrack,
    Wait,
)
from properties.scripts import Ghosts, calls, json_values, printed, seconds, vsns

thorough = times(4)

ROOM = "realtime:jarvis-presence"

# ------------------------------------------------------------------------------------ scripts

KEYS = st.sampled_from(["me", "bo", "cy", "di"])
STATUSES = st.sampled_from([*map(str, UserStatus), "invisible"])
ACTIVITIES = st.sampled_from([None, "Chess", "Snake"])
METAS = st.fixed_dictionaries(
    {"display_name": st.sampled_from(["Bo", "Cy", 7]), "status": STATUSES, "activity": ACTIVITIES},
    optional={"level": st.integers(1, 2)},
)
NUMBERS = st.integers(0, 7)
TRACK = st.builds(Track, KEYS, METAS)
CHANGES = [TRACK, TRACK, st.builds(Retrack, NUMBERS, METAS), st.builds(Untrack, NUMBERS)]
CHANGE = st.one_of(*CHANGES)
DIFFS = [
    *CHANGES,
    st.builds(Together, st.lists(CHANGE, min_size=2, max_size=4).map(tuple), st.booleans()),
    st.builds(RepeatDiff),
]
JSON = json_values()
PAYLOADS = JSON | st.dictionaries(
    st.sampled_from(
        ["user_id", "display_name", "target_user_id", "game", "code", "channel", "content", "status", "more"]
    ),
    st.sampled_from(["me", "bo", "x", "online", "", None, 7]) | JSON,
)
CLAIM = st.builds(
    SendBroadcast,
    st.just("activity_update"),
    st.fixed_dictionaries(
        {"user_id": KEYS, "display_name": st.just("Bo"), "status": STATUSES, "activity": ACTIVITIES},
        optional={"mood": st.sampled_from(["calm", "wild"])},
    ),
)
OURS = [
    calls("update_activity", st.sampled_from([*UserStatus]), ACTIVITIES),
    calls("send_poke", KEYS),
    st.builds(SendBroadcast, st.sampled_from(["poke", "game_invite", "chat_message", "cursor"]), PAYLOADS),
    st.builds(Wait, seconds),
    st.builds(Ghosts, st.binary(max_size=5)),
]
LOSSES = [
    st.builds(Cut, st.booleans()),
    st.builds(Crash, st.sampled_from(["phx_error", "phx_close"])),
    st.builds(Restart),
    st.builds(SendClose),
    st.builds(Refuse),
    st.builds(Stall),
    st.builds(ServeOne),
    st.builds(Serve),
    st.builds(Wait, seconds),
]
THERE = st.builds(Together, st.lists(TRACK, max_size=5).map(tuple))


def scripts(*steps: Any) -> st.SearchStrategy[list[Step]]:
    return st.builds(lambda there, rest: [there, *rest], THERE, st.lists(st.one_of(*steps), min_size=3))


BACK = st.just(Wait(1.0))
QUIET = scripts(*DIFFS, *OURS, *LOSSES, *[BACK] * 4)
LOUD = scripts(*DIFFS, *[CLAIM] * 6, *OURS, *LOSSES, *[BACK] * 4)
WELL = [Serve(), Wait(200.0)]
"""The end of a script after which the network and the server have been good for a while."""


def presence_client(vsn: Any = "2.0.0", rng: Random | None = None) -> PresenceClient:
    config = PresenceConfig(server_url="ws://host.test", vsn=vsn)
    return PresenceClient(Identity("me", "Me"), config, rng=rng)


class Roster:
    """What the roster must be after each step of a script."""

    def __init__(self, script: list[Step]) -> None:
        self.steps = iter([None, *script])
        self.claimed: set[str] = set()  # users with a broadcast activity, until the next state
        self.shown: set[str] = set()
        self.stale: set[str] = set()
        self.missing: set[str] = set()  # users whom a restarted server has forgotten
        self.until = 0.0  # they stay so long at least

    def check(self, server: ModelServer) -> None:
        client, step = server.client, next(self.steps)
        expected, sees = server.expected(ROOM), server.sees(ROOM)
        users = {user.user_id: user for user in client.online_users}
        if isinstance(step, SendBroadcast) and step.event == "activity_update":
            self.claimed.add(step.payload["user_id"])
        if isinstance(step, Restart):
            self.missing, self.until = self.shown - self.stale - {"me"}, server.now + 6.0
        resumed = [event.resumed for event in server.events if isinstance(event, Connected)]
        assert all(resumed[1:])
        assert not any(resumed[:1])
        self.missing -= expected.keys() if sees else set()  # who returns may leave
        assert server.now >= self.until or self.missing <= users.keys(), "a missing user goes after the grace"
        stale = users.keys() - expected.keys() - {"me"}
        assert users.keys() == {"me", *expected, *stale}
        assert stale <= self.shown
        self.shown = {*users}
        assert client.is_stale != sees
        if not sees:
            self.claimed.clear()
            return
        self.stale = stale
        assert stale == {key for key in users if client.is_user_stale(key)}
        for key, metas in expected.items():
            if key not in {"me", *self.claimed}:
                shown = user_from_meta(key, metas[-1])
                assert replace(users[key], online_at=None) == replace(shown, online_at=None)


def dated(step: Any, now: str) -> Any:
    """The step, with the time in its metas: the order of the server is that of `online_at`, too."""
    if isinstance(step, Together):
        changes = tuple(dated(one, f"{now}.{n}") for n, one in enumerate(step.changes))
        return evolve(step, changes=changes)
    return evolve(step, meta={**step.meta, "online_at": now}) if isinstance(step, (Track, Retrack)) else step


def played(
    script: list[Step], *, vsn: str = "2.0.0", rng: Random | None = None, **options: Any
) -> ModelServer:
    script = [dated(step, f"{n:03}") for n, step in enumerate(script)]
    return play(script, presence_client(vsn, rng), after_step=Roster(script).check, **options)


# ------------------------------------------------------------------------------------ the room


@thorough
@given(script=st.one_of(QUIET, LOUD), vsn=vsns)
def test_the_roster_is_the_truth_and_the_events_are_the_roster(script: list[Step], vsn: str) -> None:
    """Law 8, no flicker, nobody missing; laws 1, 2 and 4 are the server's.

    Broadcasts of activities change what is shown, never who is there; and every state ends them.
    """
    server = played([*script, *WELL, Restart(), Wait(1.0), *WELL], vsn=vsn)
    assert server.client.is_connected
    assert not server.client.pending_commands
    assert {user.user_id for user in server.client.online_users} == {"me", *server.online(ROOM)}


# ------------------------------------------------------------------------------------ weather

NAMES = [
    *("presence_state", "presence_diff", "broadcast", "system"),
    *("phx_reply", "phx_close", "phx_error", "x"),
]
FRAMES = [
    st.builds(SendText, st.text(max_size=30)),
    st.builds(SendBinary, st.binary(max_size=30)),
    st.builds(Say, st.just("presence_state"), ps.entries()),
    st.builds(Say, st.just("presence_diff"), ps.diffs()),
    st.builds(
        Say,
        st.sampled_from(NAMES),
        JSON
        | st.dictionaries(
            st.sampled_from(
                ["joins", "leaves", "me", "bo", "event", "payload", "status", "response", "reason"]
            ),
            JSON | st.dictionaries(st.sampled_from(["me", "bo", "metas"]), JSON, max_size=2),
            max_size=3,
        ),
        st.just("now"),
        st.just("now"),
    ),
]


def spread(steps: list[Step]) -> list[Step]:
    """The same with half a second after each, and at last enough time for all timers."""
    return [*(one for step in steps for one in (step, Wait(0.5))), Wait(100.0)]


@thorough
@given(
    script=st.lists(st.one_of(*DIFFS), max_size=4), frames=st.lists(st.one_of(*FRAMES), max_size=8), vsn=vsns
)
def test_no_message_raises(script: list[Step], frames: list[Step], vsn: str) -> None:
    """Law 3: after an online pair has begun, anything may come."""
    play(script + spread(frames), presence_client(vsn))


@given(
    script=st.lists(st.one_of(*DIFFS), max_size=3),
    data=st.lists(st.builds(SendBytes, st.binary(max_size=20)), max_size=5),
    vsn=vsns,
)
def test_no_bytes_raise(script: list[Step], data: list[Step], vsn: str) -> None:
    play([*script, *data, Wait(100.0)], presence_client(vsn))


FATES = [
    *(Cut(), SendClose(), Refuse(), Stall(), ServeOne(), Serve(), Die()),
    *(Call("disconnect"), Call("connect"), Call("send_poke", ("bo",)), Call("update_activity", ("away",))),
]


@given(fates=st.lists(st.sampled_from(FATES) | st.builds(Wait, seconds), max_size=15), vsn=vsns)
def test_no_fate_of_a_connection_raises(fates: list[Step], vsn: str) -> None:
    client = play([*fates, Call("disconnect"), Wait(60.0)], presence_client(vsn)).client
    assert client.is_closed
    assert client.next_deadline() is None
    assert client.pending_commands == frozenset()


# ------------------------------------------------------------------------------------ time


@given(script=LOUD, backwards=st.floats(0.0, 1e9))
def test_time_does_not_run_backwards(script: list[Step], backwards: float) -> None:
    """Law 2: it is clamped. And what is no time is refused, with nothing changed."""
    server = played(script)
    client = server.client
    deadline, users = client.next_deadline(), client.online_users
    client.tick(now=server.now - backwards)
    for now in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(LocalProtocolError):
            client.tick(now=now)
        with pytest.raises(LocalProtocolError):
            client.update_activity(UserStatus.AWAY, now=now)
    assert not client.drain()
    assert client.next_deadline() == deadline
    assert client.online_users == users


@given(script=LOUD, slept=st.floats(60.0, 1e6))
def test_a_late_tick_asks_once(script: list[Step], slept: float) -> None:
    """Law 2: the host slept. One heartbeat goes out, and the answer to it keeps the connection."""
    server = played([*script, *WELL])
    beats = len(server.sent("heartbeat"))
    server.take()
    server.jump(slept)
    assert len(server.sent("heartbeat")) == beats + 1
    assert server.client.is_connected
    assert not [event for event in server.take() if isinstance(event, Disconnected)]


# ------------------------------------------------------------------------------------ chunks and chance


@given(script=LOUD, vsn=vsns, chunk=st.integers(1, 40))
def test_how_the_bytes_are_cut_makes_no_difference(script: list[Step], vsn: str, chunk: int) -> None:
    """Law 9."""
    whole, pieces = played(script, vsn=vsn), played(script, vsn=vsn, chunk=chunk)
    assert whole.events == pieces.events
    assert whole.received == pieces.received


@given(script=LOUD, vsn=vsns, seed=st.integers())
def test_the_same_again_is_the_same(script: list[Step], vsn: str, seed: int) -> None:
    """Law 10."""
    one, other = (played(script, vsn=vsn, rng=Random(seed)) for _ in range(2))
    assert one.events == other.events
    assert one.received == other.received
    assert one.now == other.now


SCENE = """
from random import Random
from properties.test_presence_laws import *
users = [Track(key, {"display_name": "Bo", "status": "idle"}) for key in ("me", "bo", "cy", "di")]
claim = {"user_id": "bo", "display_name": "Bo", "status": "away", "activity": None, "a": 1, "b": 2}
server = played([
    Together(tuple(users)), SendBroadcast("activity_update", claim), Retrack(1, {"status": "away"}),
    Call("update_activity", ("idle", "x")), Cut(), Untrack(0), *users[1:], Wait(7.0), Crash(), Wait(1.0),
    Call("send_poke", ("bo",)), Cut(noticed=False), *map(Untrack, range(3)), Wait(31.0),
    Together(tuple(users)), Restart(), users[0], Wait(1.0), Wait(31.0),
], rng=Random(7))
print(server.events, [(sent.event, sent.payload) for sent in server.received], server.now)
"""


@pytest.mark.long
def test_hash_seeds_make_no_difference() -> None:
    assert "Connected" in printed(SCENE)
