"""The laws of the contract for the presence client on the Jarvis JSON protocol, over random histories."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from examples import times
from jarvis_rig import JarvisRig
from presence_proto.errors import LocalProtocolError
from presence_proto.events import CommandFailed, InviteSent, UserStatus
from presence_proto.testing import PresenceFold
from properties.scripts import ghosts, json_values, printed, seconds

thorough = times(3)

USERS = ("bo", "cy", "di", "me")


@frozen
class Op:
    """One thing that happens; what the arguments mean, the method of `Server` with this name says."""

    name: str
    args: tuple[Any, ...]


class FoldingJarvisRig(JarvisRig):
    """Checks at every drain that the events, folded, are the roster."""

    folding: PresenceFold | None = None
    seen = 0

    def _drain(self) -> None:
        super()._drain()
        self.folding = self.folding or PresenceFold(self.client)
        for event in self.events[self.seen :]:
            self.folding.follow(event)
        self.seen = len(self.events)
        self.folding.check()


class Server:
    """Who is there by the server's word, and a script of what happens to them and to us."""

    def __init__(self, rig: FoldingJarvisRig) -> None:
        self.rig = rig
        self.truth: dict[str, dict[str, Any]] = {}
        self.invites: set[int] = set()  # commands
        self.last: dict[str, Any] | None = None
        self.deaf = False  # the client is not there to hear anything

    def play(self, script: list[Op]) -> None:
        self.rig.enter()
        for op in script:
            getattr(self, op.name)(*op.args)
            self.check()

    def check(self) -> None:
        client = self.rig.client
        assert client.is_connected
        seen = {
            user.user_id: {
                "display_name": user.display_name,
                "status": user.status,
                "activity": user.activity,
            }
            for user in client.online_users[1:]
            if not client.is_user_stale(user.user_id)  # after a loss missing users may still come back
        }
        assert seen == self.truth
        assert client.pending_commands <= self.invites  # all else is told at once

    # ------------------------------------------------------------ what others do

    def change(self, n: int, fields: dict[str, Any]) -> None:
        """Somebody comes, does something else, or goes."""
        user_id = USERS[n % 3]
        if user_id not in self.truth:
            self.truth[user_id] = {"display_name": user_id.title(), "status": "online", "activity": None}
            self.tell("user_online", user_id, display_name=user_id.title())
        elif fields:
            self.truth[user_id] = {"display_name": user_id.title(), **fields}
            self.tell("activity_changed", user_id, **self.truth[user_id])
        else:
            del self.truth[user_id]
            self.tell("user_offline", user_id)

    def again(self) -> None:
        """The last message comes twice."""
        if self.last is not None:
            self.rig.take()
            assert self.rig.tell_text(json.dumps(self.last)) == []

    def stranger(self, kind: str, n: int) -> None:
        """A message about ourselves, or about somebody who is not there."""
        user_id = USERS[n % 4]
        if self.rig.client.is_user_stale(user_id):
            return  # somebody who may come back: such a message is about them
        if user_id not in self.truth and (kind != "user_online" or user_id == "me"):
            self.rig.take()
            assert self.rig.tell(kind, user_id=user_id, display_name="X", status="away") == []

    def noise(self, kind: str, fields: dict[str, Any]) -> None:
        """Anything that says nothing of who is there."""
        self.rig.tell(kind, **fields)

    def tell(self, kind: str, user_id: str, **fields: Any) -> None:
        if not self.deaf:
            self.last = {"type": kind, "user_id": user_id, **fields, "ts": f"at {self.rig.now}"}
            self.rig.tell_text(json.dumps(self.last))

    # ------------------------------------------------------------ what we do

    def update(self, status: str, activity: str | None) -> None:
        self.rig.update(status, activity)
        self.told()

    def poke(self, n: int) -> None:
        self.rig.poke(USERS[n % 4])
        assert self.rig.said()[-1] == {"type": "poke", "target_user_id": USERS[n % 4]}

    def invite(self, game: str, answered: bool) -> None:
        command = self.rig.invite(game)
        self.invites.add(command)
        if answered:
            self.rig.take()
            events = self.rig.tell("invite_sent", game=game, code=None, sent_to=["Bo"])
            assert [type(event) for event in events] == [InviteSent]

    def told(self) -> None:
        """The server was told last what we do now."""
        last = [said for said in self.rig.said() if said["type"] == "activity_update"][-1]
        assert (last["status"], last["activity"]) == (self.rig.client.status, self.rig.client.activity)

    # ------------------------------------------------------------ weather

    def wait(self, seconds: float) -> None:
        self.rig.advance(seconds)

    def lose(self, code: int | None, away: list[tuple[int, dict[str, Any]]], ours: list[Any]) -> None:
        """The connection is lost, things happen, and it comes back."""
        before = len(self.rig.said("connect"))
        self.rig.cut() if code is None else self.rig.close(code)
        self.deaf, self.last = True, None
        for n, fields in away:
            self.change(n, fields)
        self.deaf = False
        for status in ours:
            self.rig.update(status)
        self.rig.come_back(*({"user_id": user_id, **user} for user_id, user in self.truth.items()))
        assert len(self.rig.said("connect")) == before + 1
        self.told()

    def ghosts(self, data: bytes) -> None:
        ghosts(self.rig, data)


# ------------------------------------------------------------------------------------ scripts

STATUSES = st.sampled_from([*map(str, UserStatus)])
ACTIVITIES = st.sampled_from([None, "Chess", "Snake"])
FIELDS: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.fixed_dictionaries(
    {"status": STATUSES, "activity": ACTIVITIES}
)
JSON = json_values()
NAMES = ("user_id", "display_name", "game", "code", "status", "activity", "ts", "message", "sent_to", "users")
SOME = st.dictionaries(
    st.sampled_from([*NAMES, "online_count", "your_id", "phx_ref"]),
    st.sampled_from(["me", "bo", "x", "away", "", None, 7]) | JSON,
)
PRESENCE = ("user_online", "user_offline", "activity_changed")
PASSING = ("poke", "game_invite", "pong", "error", "chat_message", "")


def op(name: str, *args: st.SearchStrategy[Any]) -> st.SearchStrategy[Op]:
    return st.builds(Op, st.just(name), st.tuples(*args))


CHANGE = st.integers(0, 2), FIELDS
OPS = [
    op("change", *CHANGE),
    op("again"),
    op("stranger", st.sampled_from(PRESENCE), st.integers(0, 3)),
    op("noise", st.sampled_from(PASSING), SOME),
    op("update", STATUSES, ACTIVITIES),
    op("poke", st.integers(0, 3)),
    op("invite", st.sampled_from(["Chess", "Go"]), st.booleans()),
    op("wait", seconds),
    op("ghosts", st.binary(max_size=5)),
    op(
        "lose",
        st.sampled_from([None, 1000, 1001, 1012]),
        st.lists(st.tuples(*CHANGE), max_size=4),
        st.lists(STATUSES, max_size=2),
    ),
]
SCRIPTS = st.lists(st.one_of(*OPS), min_size=2, max_size=25)


def played(script: list[Op], **more: Any) -> FoldingJarvisRig:
    rig = FoldingJarvisRig(**more)
    Server(rig).play(script)
    return rig


# ------------------------------------------------------------------------------------ the room


@thorough
@given(script=SCRIPTS)
def test_the_roster_is_the_truth_and_the_events_are_the_roster(script: list[Op]) -> None:
    """Law 8, no flicker, nobody missing; laws 1, 2, 4 and 5 are the rig's and the ghosts'."""
    played(script)


# ------------------------------------------------------------------------------------ weather


@thorough
@given(
    script=st.lists(st.one_of(*OPS), max_size=3),
    frames=st.lists(
        st.text(max_size=30)
        | st.binary(max_size=30)
        | st.builds(
            lambda kind, fields: json.dumps({"type": kind, **fields}),
            st.sampled_from(["welcome", "invite_sent", *PRESENCE, *PASSING]) | JSON,
            SOME,
        ),
        max_size=8,
    ),
    invites=st.integers(0, 2),
)
def test_no_message_raises(script: list[Op], frames: list[str | bytes], invites: int) -> None:
    """Law 3, with law 8: whatever is said, the events are the roster."""
    rig = played(script)
    for _ in range(invites):
        rig.invite("x")
    for frame in frames:
        rig.say_text(frame) if isinstance(frame, str) else rig.say_binary(frame)
        rig.advance(0.5)
    rig.advance(100.0)
    assert rig.client.pending_commands == frozenset()


@given(script=st.lists(st.one_of(*OPS), max_size=3), data=st.lists(st.binary(max_size=20), max_size=5))
def test_no_bytes_raise(script: list[Op], data: list[bytes]) -> None:
    rig = played(script)
    for some in data:
        if rig.conn is not None:
            rig.do(rig.client.receive_data, rig.conn, some)
    rig.advance(100.0)


FATES = ("cut", "open", "refuse", "close", "welcome", "mute", "silent", "loud")
OURS = ("disconnect", "connect", "poke", "invite", "update", "token")


@thorough
@given(
    fates=st.lists(st.sampled_from(FATES) | st.sampled_from(OURS) | seconds, max_size=20),
    patience=st.sampled_from([1.0, 10.0, 40.0]),
)
def test_no_fate_of_a_connection_raises(fates: list[Any], patience: float) -> None:
    rig = FoldingJarvisRig(
        join_timeout=patience, close_timeout=6.0, command_timeout=20.0, max_pending_pushes=2
    )
    client = rig.client
    commands: list[int] = []
    refused: list[bool] = []  # for a reason?
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
            rig.close(1000)
        elif fate == "welcome" and rig.server is not None and rig.server.state.name == "OPEN":
            rig.welcome()
        elif fate == "mute":
            rig.answers_heartbeats = not rig.answers_heartbeats
        elif fate == "silent":
            rig.silent = True
        elif fate == "loud" and rig.conn is not None:
            rig.release()
        elif fate == "disconnect":
            rig.do(client.disconnect)
        elif fate == "connect" and client.is_closed:
            rig.do(client.connect)
        elif fate in ("poke", "invite"):
            try:
                commands.append(getattr(rig, fate)("bo"))
            except LocalProtocolError:
                refused.append(client.is_closed or len(client.pending_commands) >= 2)
        elif fate == "update":
            rig.update(UserStatus.AWAY)
        elif fate == "token":
            rig.do(client.set_access_token, "jwt")
    rig.do(client.disconnect)
    rig.advance(60.0)
    assert client.is_closed
    assert client.next_deadline() is None
    assert client.pending_commands == frozenset()
    failed = [event.command_id for event in rig.events if isinstance(event, CommandFailed)]
    assert len(failed) == len(set(failed))
    assert set(failed) <= set(commands)
    assert all(refused)


# ------------------------------------------------------------------------------------ time, chunks, chance


@given(script=SCRIPTS, backwards=st.floats(0.0, 1e9))
def test_time_does_not_run_backwards(script: list[Op], backwards: float) -> None:
    """Law 2: it is clamped. And what is no time is refused, with nothing changed."""
    rig = played(script)
    client = rig.client
    deadline, users = client.next_deadline(), client.online_users
    client.tick(now=rig.now - backwards)
    for now in (float("nan"), float("inf"), float("-inf")):
        for command in (client.tick, lambda *, now: client.update_activity("away", now=now)):
            with pytest.raises(LocalProtocolError):
                command(now=now)
    assert not client.drain()
    assert client.next_deadline() == deadline
    assert client.online_users == users


@given(script=SCRIPTS, slept=st.floats(60.0, 1e6))
def test_a_late_tick_asks_once(script: list[Op], slept: float) -> None:
    """Law 2: the host slept. One ping goes out, and the answer to it keeps the connection."""
    rig = played(script)
    pings = len(rig.said("ping"))
    rig.jump(slept)
    assert len(rig.said("ping")) == pings + 1
    assert rig.client.is_connected


@given(script=SCRIPTS, chunk=st.integers(1, 40))
def test_how_the_bytes_are_cut_makes_no_difference(script: list[Op], chunk: int) -> None:
    """Law 9."""
    whole, pieces = played(script), played(script, chunk=chunk)
    assert whole.events == pieces.events
    assert whole.received == pieces.received


@given(script=SCRIPTS, seed=st.integers())
def test_the_same_again_is_the_same(script: list[Op], seed: int) -> None:
    """Law 10."""
    one, other = (played(script, rng=Random(seed)) for _ in range(2))
    assert one.events == other.events
    assert one.received == other.received
    assert one.now == other.now


SCENE = """
from random import Random
from properties.test_jarvis_laws import FoldingJarvisRig, Op, Server
plays = {"status": "in_game", "activity": "Chess"}
rig = FoldingJarvisRig(rng=Random(7))
Server(rig).play([
    *(Op("change", (n, {})) for n in range(3)), Op("change", (1, plays)), Op("invite", ("Go", False)),
    Op("lose", (1000, [(0, {}), (1, {}), (2, plays)], ["away"])), Op("poke", (1,)), Op("wait", (31.0,)),
    Op("lose", (None, [(n, {}) for n in range(3)], [])),
])
print(rig.events, rig.received, rig.now)
"""


@pytest.mark.long
def test_hash_seeds_make_no_difference() -> None:
    assert "Connected" in printed(SCENE)
