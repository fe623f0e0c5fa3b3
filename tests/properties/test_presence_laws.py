"""The laws of the contract, for the presence client, over histories that a server could have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import times
from presence_proto.errors import LocalProtocolError
from presence_proto.events import UserStatus
from presence_rig import TOPIC
from presence_world import FoldingRig, Op, World

thorough = times(4)

VSNS = st.sampled_from(["1.0.0", "2.0.0"])
STATUSES = st.sampled_from([*map(str, UserStatus), "invisible"])
ACTIVITIES = st.sampled_from([None, "Chess", "Snake"])
SECONDS = st.sampled_from([0.0, 0.5, 1.0, 7.0, 31.0, 100.0])
FIELDS = st.fixed_dictionaries(
    {"display_name": st.sampled_from(["Bo", "Cy", 7]), "status": STATUSES, "activity": ACTIVITIES},
    optional={"online_at": st.sampled_from(["09:00", "10:00", "11:00", 12]), "level": st.integers(1, 2)},
)
CHANGE = st.tuples(st.sampled_from(["join", "join", "update", "leave"]), st.integers(0, 7), FIELDS)
CHANGES = st.lists(CHANGE, max_size=4)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=5), items, max_size=3),
    max_leaves=6,
)
TEXT_OR_ODD = st.sampled_from(["me", "bo", "x", "online", "", None, 7])
BROADCAST_PAYLOAD = JSON | st.dictionaries(
    st.sampled_from(
        ["user_id", "display_name", "target_user_id", "game", "code", "channel", "content", "status", "more"]
    ),
    TEXT_OR_ODD | JSON,
)
BROADCAST_EVENT = st.sampled_from(["poke", "game_invite", "chat_message", "cursor"])


def op(name: str, *args: st.SearchStrategy[Any]) -> st.SearchStrategy[Op]:
    return st.builds(Op, st.just(name), st.tuples(*args))


DIFFS = [
    op("diff", CHANGE),
    op("diff", CHANGE, CHANGE),
    op("diff", CHANGE, CHANGE, CHANGE, CHANGE),
    op("burst", CHANGE, CHANGE, CHANGE),
    op("again"),
]
CLAIM = op(
    "claim",
    st.integers(0, 3),
    STATUSES,
    ACTIVITIES,
    st.fixed_dictionaries({}, optional={"mood": st.sampled_from(["calm", "wild"])}),
    st.booleans(),
)
OURS = [
    op("update", st.sampled_from([*UserStatus]), ACTIVITIES),
    op("poke", st.integers(0, 3)),
    op("broadcast", BROADCAST_EVENT, BROADCAST_PAYLOAD),
    op("wait", SECONDS),
    op("ghosts", st.binary(max_size=5)),
]
LOSSES = [
    op("cut", st.booleans(), CHANGES, SECONDS, CHANGES, st.integers(0, 4), st.booleans()),
    op("crash", CHANGES, CHANGES, st.integers(0, 4), st.booleans()),
    op("restart", SECONDS, CHANGES, st.integers(0, 4), st.booleans()),
]
THERE = st.lists(st.tuples(st.just("join"), st.integers(0, 7), FIELDS), max_size=5)
QUIET = st.lists(st.one_of(*DIFFS, *OURS, *LOSSES * 2), min_size=3, max_size=30)
LOUD = st.lists(st.one_of(*DIFFS, *[CLAIM] * 6, *OURS, *LOSSES * 2), min_size=3, max_size=30)


def played(script: list[Op], there: list[Any] | None = None, **more: Any) -> FoldingRig:
    rig = FoldingRig(**more)
    World(rig).play(script, there or [])
    return rig


# ------------------------------------------------------------------------------------ the room


@thorough
@given(script=QUIET, there=THERE, vsn=VSNS)
def test_the_roster_is_the_truth_and_the_events_are_the_roster(
    script: list[Op], there: list[Any], vsn: str
) -> None:
    """Law 8, no flicker, nobody missing; laws 1, 2 and 4 are the rig's."""
    played(script, there, vsn=vsn)


@thorough
@given(script=LOUD, there=THERE, vsn=VSNS)
def test_claims_do_not_bend_it(script: list[Op], there: list[Any], vsn: str) -> None:
    """Broadcasts of activities change what is shown, never who is there; and every state ends them."""
    played(script, there, vsn=vsn)


# ------------------------------------------------------------------------------------ weather


FRAMES = st.one_of(
    st.text(max_size=30),
    st.binary(max_size=30),
    st.builds(
        lambda event, payload: (event, payload),
        st.sampled_from(
            [
                "presence_state",
                "presence_diff",
                "broadcast",
                "system",
                "phx_reply",
                "phx_close",
                "phx_error",
                "x",
            ]
        ),
        JSON
        | st.dictionaries(
            st.sampled_from(
                ["joins", "leaves", "me", "bo", "event", "payload", "status", "response", "reason"]
            ),
            JSON | st.dictionaries(st.sampled_from(["me", "bo", "metas"]), JSON, max_size=2),
            max_size=3,
        ),
    ),
)


@thorough
@given(script=st.lists(st.one_of(*DIFFS), max_size=4), frames=st.lists(FRAMES, max_size=8), vsn=VSNS)
def test_no_message_raises(script: list[Op], frames: list[Any], vsn: str) -> None:
    """Law 3: after an online pair has begun, anything may come."""
    rig = played(script, vsn=vsn)
    for frame in frames:
        if rig.server is None:
            break
        if isinstance(frame, str):
            rig.say_text(frame)
        elif isinstance(frame, bytes):
            rig.say_binary(frame)
        else:
            rig.say(rig.join_ref, rig.join_ref, TOPIC, *frame)
        rig.advance(0.5)
    rig.advance(100.0)


@given(
    script=st.lists(st.one_of(*DIFFS), max_size=3),
    data=st.lists(st.binary(max_size=20), max_size=5),
    vsn=VSNS,
)
def test_no_bytes_raise(script: list[Op], data: list[bytes], vsn: str) -> None:
    rig = played(script, vsn=vsn)
    for some in data:
        if rig.conn is not None:
            rig.do(rig.client.receive_data, rig.conn, some)
    rig.advance(100.0)


@given(
    fates=st.lists(
        st.one_of(
            st.sampled_from(
                ["cut", "open", "refuse", "close", "mute", "disconnect", "connect", "poke", "update"]
            ),
            SECONDS,
        ),
        max_size=15,
    ),
    vsn=VSNS,
)
def test_no_fate_of_a_connection_raises(fates: list[Any], vsn: str) -> None:
    rig = FoldingRig(vsn=vsn)
    client = rig.client
    for fate in fates:
        if isinstance(fate, float):
            rig.advance(fate)
        elif fate == "cut" and rig.conn is not None:
            rig.cut()
        elif fate == "open" and rig.conn is not None and rig.server is None:
            rig.open()
        elif fate == "refuse" and rig.conn is not None and rig.server is None:
            rig.refuse(503)
        elif fate == "close" and rig.server is not None:
            rig.close(1012)
        elif fate == "mute":
            rig.answers_heartbeats = not rig.answers_heartbeats
        elif fate == "disconnect":
            rig.do(client.disconnect)
        elif fate == "connect" and client.is_closed:
            rig.do(client.connect)
        elif fate == "poke" and not client.is_closed:
            rig.do(client.send_poke, "bo")
        elif fate == "update":
            rig.do(client.update_activity, UserStatus.AWAY)
    rig.do(client.disconnect)
    rig.advance(60.0)
    assert client.is_closed
    assert client.next_deadline() is None
    assert client.pending_commands == frozenset()


# ------------------------------------------------------------------------------------ time


@given(script=LOUD, backwards=st.floats(0.0, 1e9))
def test_time_does_not_run_backwards(script: list[Op], backwards: float) -> None:
    """Law 2: it is clamped. And what is no time is refused, with nothing changed."""
    rig = played(script)
    deadline, users = rig.client.next_deadline(), rig.client.online_users
    rig.client.tick(now=rig.now - backwards)
    for now in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(LocalProtocolError):
            rig.client.tick(now=now)
        with pytest.raises(LocalProtocolError):
            rig.client.update_activity(UserStatus.AWAY, now=now)
    assert not rig.client.drain()
    assert rig.client.next_deadline() == deadline
    assert rig.client.online_users == users


@given(script=LOUD, slept=st.floats(60.0, 1e6))
def test_a_late_tick_asks_once(script: list[Op], slept: float) -> None:
    """Law 2: the host slept. One heartbeat goes out, and the answer to it keeps the connection."""
    rig = played(script)
    beats, events = len(rig.sent("heartbeat")), len(rig.events)
    rig.jump(slept)
    assert len(rig.sent("heartbeat")) == beats + 1
    assert rig.client.is_connected
    assert [event for event in rig.events[events:] if type(event).__name__ == "Disconnected"] == []


# ------------------------------------------------------------------------------------ chunks and chance


@given(script=LOUD, vsn=VSNS, chunk=st.integers(1, 40))
def test_how_the_bytes_are_cut_makes_no_difference(script: list[Op], vsn: str, chunk: int) -> None:
    """Law 9."""
    whole, pieces = played(script, vsn=vsn), played(script, vsn=vsn, chunk=chunk)
    assert whole.events == pieces.events
    assert whole.received == pieces.received


@given(script=LOUD, vsn=VSNS, seed=st.integers())
def test_the_same_again_is_the_same(script: list[Op], vsn: str, seed: int) -> None:
    """Law 10."""
    one, other = (played(script, vsn=vsn, rng=Random(seed)) for _ in range(2))
    assert one.events == other.events
    assert one.received == other.received
    assert one.now == other.now


SCENE = """
from random import Random
from presence_world import FoldingRig, Op, World
fields = {"display_name": "Bo", "status": "idle", "activity": None}
joins = [("join", n, fields) for n in range(4)]
rig = FoldingRig(rng=Random(7))
World(rig).play([
    Op("diff", tuple(joins)), Op("claim", (1, "away", None, {"a": 1, "b": 2}, True)),
    Op("update", ("idle", "x")),
    Op("cut", (True, joins[1:], 7.0, joins, 2, False)), Op("crash", (joins, [], 0, True)), Op("poke", (1,)),
    Op("cut", (False, [("leave", n, {}) for n in range(3)], 31.0, [], 0, True)),
    Op("diff", tuple(joins)), Op("restart", (1.0, joins[:1], 0, True)), Op("wait", (31.0,)),
], joins)
print(rig.events, [(told.event, told.payload) for told in rig.received], rig.now)
"""


@pytest.mark.long
def test_hash_seeds_make_no_difference() -> None:
    """Law 10, for what a set or a dict could bring in."""
    tests = str(Path(__file__).parent.parent)
    told = {
        subprocess.run(
            [sys.executable, "-c", SCENE],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([tests, *sys.path])},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    (only,) = told
    assert "Connected" in only
