"""`ClientMachine` and `PresenceClientMachine` test a client with a random server and network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from msgspec.structs import replace

from presence_proto.channel import ChannelState
from presence_proto.config import ChannelConfig, Identity, PresenceConfig, RealtimeConfig
from presence_proto.events import (
    ActivityChanged,
    CommandFailed,
    Poked,
    PresenceDiffed,
    PushReplied,
    UserOffline,
    UserOnline,
)
from presence_proto.presence_client import PresenceClient
from presence_proto.realtime_client import RealtimeClient
from presence_proto.roster import user_from_meta
from presence_proto.testing.contract import RealtimeFold
from presence_proto.testing.machines.brief import BriefMachine
from presence_proto.testing.model_server import Device, ModelServer
from presence_proto.testing.strategies.presence import tracked_payloads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


# ------------------------------------------------------------------------------------------------ server side
# The base class of both state machines simulates the server, the network and the clock.


HEALED = 200.0  # seconds without faults, after which every request of the application must be fulfilled


def of_machine(strategy: Callable[[Any], st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Return a strategy that reads the machine's attributes, which subclasses can override."""
    return st.runner().flatmap(strategy)


a_topic = of_machine(lambda machine: st.sampled_from(machine.topics))
a_joined_topic = of_machine(lambda machine: st.sampled_from(list(machine.server.channels)))
a_rejoined_topic = of_machine(lambda machine: st.sampled_from(machine.server.rejoined))
a_key = of_machine(lambda machine: machine.keys)
a_meta = of_machine(lambda machine: machine.metas)


class ServerMachine(BriefMachine):
    """Base state machine with the rules for both clients. `server` is the model with the expected state."""

    topics: ClassVar[Sequence[str]]
    keys: ClassVar[st.SearchStrategy[str]] = st.sampled_from(["ann", "bob"])
    metas: ClassVar[st.SearchStrategy[Any]] = st.fixed_dictionaries({"n": st.integers(0, 3)})

    devices = Bundle("devices")

    def __init__(self) -> None:
        super().__init__()
        self.server = ModelServer(self.make_client())
        self.client = self.server.client

    def make_client(self) -> Any:
        """Return the client under test, not connected. Override `make_client` to test your own client."""
        raise NotImplementedError

    # ---------------------------------------------------------------- presence

    @rule(target=devices, topic=a_topic, key=a_key, meta=a_meta)
    def device_tracks(self, topic: str, key: str, meta: Any) -> Device:
        """A device of a user comes online."""
        return self.server.track(topic, key, meta)

    @rule(device=devices, meta=a_meta)
    def device_retracks(self, device: Device, meta: Any) -> None:
        """A device replaces its tracked meta. The user of the device neither joins nor leaves."""
        before = len(self.server.events)
        self.server.retrack(device, meta)
        for event in self.server.events[before:]:
            assert not isinstance(event, (UserOnline, UserOffline)), "an update is no coming or going"
            for change in event.changes if isinstance(event, PresenceDiffed) else ():
                assert change.kind == "updated", "an update is no coming or going"

    @rule(device=consumes(devices))
    def device_untracks(self, device: Device) -> None:
        """A device goes offline."""
        self.server.untrack(device)

    @precondition(lambda self: self.server.channels)
    @rule()
    def repeat_diff(self) -> None:
        """The server repeats the last `presence_diff`."""
        self.server.repeat_diff()

    # ---------------------------------------------------------------- the channel

    @precondition(lambda self: self.server.channels)
    @rule(topic=a_joined_topic, event=st.sampled_from(["phx_error", "phx_close"]))
    def crash(self, topic: str, event: str) -> None:
        """The server ends a channel with `phx_error` or `phx_close`."""
        self.server.crash(topic, event)

    @precondition(lambda self: self.server.rejoined)
    @rule(topic=a_rejoined_topic, event=st.sampled_from(["phx_close", "phx_error", "phx_reply"]))
    def echo(self, topic: str, event: str) -> None:
        """The server sends an event that belongs to an earlier join. The client must not report any event."""
        before = len(self.server.events)
        self.server.echo(topic, event)
        assert self.server.events[before:] == [], "an earlier life of the channel is over"

    # ---------------------------------------------------------------- slow server

    @precondition(lambda self: not self.server.stalls)
    @rule()
    def stall(self) -> None:
        """The server stops accepting connections and replying to messages."""
        self.server.stall()

    @precondition(lambda self: self.server.stalls)
    @rule()
    def serve(self) -> None:
        """The server processes all waiting tasks and accepts connections again."""
        self.server.serve()

    @precondition(lambda self: self.server.stalls)
    @rule(latest=st.booleans())
    def serve_one(self, latest: bool) -> None:
        """The server processes its oldest task or, with `latest`, the last message if that is a push."""
        self.server.serve_one(latest=latest)

    @precondition(lambda self: self.server.stalls)
    @rule()
    def deny(self) -> None:
        """The server replies to a push with an error."""
        self.server.deny()

    # ---------------------------------------------------------------- the network

    @precondition(lambda self: self.server.conn is not None)
    @rule(target=devices, noticed=st.booleans())
    def cut(self, noticed: bool) -> MultipleResults[Device]:
        """The connection ends. With `noticed=False`, the server keeps the client's presence."""
        ghosts = self.server.hang_up(noticed=noticed)
        self.server.cut()
        return multiple(*ghosts)

    @precondition(lambda self: self.server.is_open and not self.server.dead)
    @rule(kind=st.sampled_from(["dies", "closes", "refuses"]))
    def trouble(self, kind: str) -> None:
        """The network fails silently, or the server closes the connection or refuses the next handshake."""
        if kind == "dies":
            self.server.die()
        elif kind == "closes":
            self.server.close(1012)
        else:
            self.server.refusals.append(503)

    # ---------------------------------------------------------------- the clock

    @rule(seconds=st.sampled_from([1.0, 5.0, 12.0, 40.0]), asleep=st.booleans())
    def wait(self, seconds: float, asleep: bool) -> None:
        """Let `seconds` pass. If `asleep`, the client's host sleeps and ticks only once, at the end."""
        self.server.jump(seconds) if asleep else self.server.advance(seconds)

    # ---------------------------------------------------------------- the application

    @rule(seconds=st.sampled_from([10.0, 60.0]))
    def restart(self, seconds: float) -> None:
        """The application disconnects, and connects again after `seconds`."""
        self.server.do(self.client.disconnect)
        self.server.advance(seconds)
        self.server.connect()

    # ---------------------------------------------------------------- recovery

    @rule()
    def heal(self) -> None:
        """End all faults, let `HEALED` seconds pass, then call `healed`."""
        self.server.refusals.clear()
        self.server.serve()
        self.server.advance(HEALED)
        self.healed()

    def healed(self) -> None:
        """Check that the client is connected after `heal`. Override `healed` to add checks."""
        assert self.client.is_connected, "it never comes back"

    # ---------------------------------------------------------------- invariants

    @invariant()
    def the_events_are_the_state(self) -> None:
        """The state rebuilt from the events equals the client's state."""
        self.server.check()


# ----------------------------------------------------------------------------------------------------- client


a_wanted_topic = of_machine(lambda machine: st.sampled_from(list(machine.wanted)))


class ClientMachine(ServerMachine):
    """State machine for `RealtimeClient` that simulates its server, network, clock and application.

    The model has `wanted` (topic -> tracked number `n`), `pushes` (id -> number, time) and `token`. The
    machine checks the presence of each topic, and that each push has one outcome within its timeout. After
    `heal`, every wanted channel must be joined and tracked, and the server must have the current token.
    """

    topics = ("realtime:a", "room:b")
    push_timeout: ClassVar[float] = 10.0  # seconds, as in the client's config

    def __init__(self) -> None:
        super().__init__()
        self.fold = self.server.fold = RealtimeFold(self.client)
        self.wanted: dict[str, int | None] = {}
        self.pushes: dict[int, tuple[int, float]] = {}
        self.token: str | None = None
        self._sent_on: dict[int, Any] = {}  # push number -> connection that carried the push
        self._read = 0

    def make_client(self) -> RealtimeClient:
        """Return a client without an `rng`, so that its delays have no jitter."""
        return RealtimeClient(RealtimeConfig(server_url="ws://host.test"))

    def params(self, topic: str) -> Any:
        """Return the parameters with which the application joins `topic`."""
        return ChannelConfig(presence_key="me") if topic.startswith("realtime:") else {"user_id": "me"}

    # ---------------------------------------------------------------- the application

    @initialize(topic=a_topic)
    def start(self, topic: str) -> None:
        """The application connects, and joins a topic."""
        self.server.connect()
        self.join(topic)

    @rule(topic=a_topic)
    def join(self, topic: str) -> None:
        """The application joins a topic, which may be joined already."""
        self.server.do(self.client.join, topic, self.params(topic))
        self.wanted.setdefault(topic, None)

    @precondition(lambda self: self.wanted)
    @rule(topic=a_wanted_topic)
    def leave(self, topic: str) -> None:
        """The application leaves a topic."""
        del self.wanted[topic]
        self.server.do(self.client.leave, topic)

    @precondition(lambda self: self.wanted)
    @rule(topic=a_wanted_topic, n=st.sampled_from([0, 1, 2, None]))
    def track(self, topic: str, n: int | None) -> None:
        """The application tracks the meta `{"n": n}` in a topic, or untracks if `n` is `None`."""
        if n is None:
            self.server.do(self.client.untrack, topic)
        else:
            self.server.do(self.client.track, topic, {"n": n})
        self.wanted[topic] = n

    @precondition(lambda self: self.wanted)
    @rule(topic=a_wanted_topic)
    def push(self, topic: str) -> None:
        """The application sends a push."""
        number = len(self.pushes)
        push_id = self.server.do(self.client.push, topic, "ask", {"number": number})
        self.pushes[push_id] = number, self.server.now

    @precondition(lambda self: self.wanted and not self.server.stalls)
    @rule(topic=a_wanted_topic)
    def push_two(self, topic: str) -> None:
        """The application sends two pushes, and the server replies to the second one first."""
        self.server.stall()
        self.push(topic)
        self.push(topic)
        self.server.serve_one(latest=True)
        self.server.serve()

    @rule()
    def set_access_token(self) -> None:
        """The application sets a new access token."""
        self.token = f"token-{len(self.token or '')}"
        self.server.do(self.client.set_access_token, self.token)

    # ---------------------------------------------------------------- invariants

    @invariant()
    def the_channels_are_those_that_are_wanted(self) -> None:
        """A channel exists from the application's `join` until its `leave`."""
        states = {topic: self.client.state_of(topic) for topic in self.client.channels}
        here = {topic for topic, state in states.items() if state is not ChannelState.LEAVING}
        assert here == self.wanted.keys()

    @invariant()
    def the_presence_is_the_servers(self) -> None:
        """The client holds the server's current presence or, when out of sync, the last received presence."""
        for topic in self.wanted:
            held, expected = self.client.presence(topic), self.server.expected(topic)
            assert {key: _by_ref(metas) for key, metas in held.items()} == {
                key: _by_ref(metas) for key, metas in expected.items()
            }, f"the presence of {topic!r}"
            knows = not self.server.dead  # the client has not detected a dead network yet
            assert not knows or self.client.is_synced(topic) == self.server.sees(topic), "whether it is stale"

    @invariant()
    def every_push_has_its_outcome_in_time(self) -> None:
        """Each push gets its own reply, or fails when its connection ends or its timeout expires."""
        for message in self.server.received[self._read :]:
            if message.event == "ask":
                self._sent_on[message.payload["number"]] = self.server.conn
        self._read = len(self.server.received)
        outcomes = self.fold.outcomes
        assert outcomes.keys() <= self.pushes.keys(), "an outcome of no push"
        for push_id, (number, made_at) in self.pushes.items():
            outcome = outcomes.get(push_id)
            if isinstance(outcome, PushReplied) and outcome.status == "ok":
                assert outcome.response == {"number": number}, "the reply to another push"
            if outcome is None:
                assert self.server.now < made_at + self.push_timeout, "a push without an outcome"
                conn = self._sent_on.get(number, self.server.conn)
                assert conn == self.server.conn, "nobody will answer on a connection that has ended"

    def healed(self) -> None:
        """Check that every wanted channel is joined and tracked with the current access token."""
        super().healed()
        for topic, tracked in self.wanted.items():
            assert self.client.state_of(topic) is ChannelState.JOINED, f"{topic!r} is not joined"
            assert self.server.has_joined(topic), f"{topic!r} is not joined, and the client does not know"
            channel = self.server.channels[topic]
            metas = self.server.online(topic).get(channel.key, ()) if channel.own else ()
            own = [meta["n"] for meta in metas if channel.own and meta["phx_ref"] == channel.own.ref]
            assert own == ([] if tracked is None else [tracked]), f"we are not tracked in {topic!r}"
            if self.token is not None and topic.startswith("realtime:"):
                assert channel.token == self.token, f"{topic!r} has another token"


def _by_ref(metas: Any) -> dict[str, Any]:
    return {meta["phx_ref"]: meta for meta in metas}


# -------------------------------------------------------------------------------------------- presence client
# The state machine for a `PresenceClient`.


ROOM = "realtime:jarvis-presence"
_statuses = st.sampled_from(["online", "idle", "away"])
_activities = st.sampled_from([None, "Chess"])


class PresenceClientMachine(ServerMachine):
    """State machine for `PresenceClient` that simulates its server, network, clock and application.

    The model has the server's presence, and the ids of the application's commands (`commands`). The machine
    checks that the roster shows each user with the state of their latest device, that each poke is received
    once, and that each command fails at most once. After `heal`, no command may be pending, and the server
    must have the client's current status.
    """

    topics = (ROOM,)
    metas = tracked_payloads()
    me: ClassVar[str] = "me"  # the client's user id

    def __init__(self) -> None:
        super().__init__()
        self.commands: set[int] = set()
        self.claimed: set[str] = set()  # users with an activity broadcast that no `track` has confirmed
        self.shown: set[str] = set()  # the users in the roster

    def make_client(self) -> PresenceClient:
        """Return a client without an `rng`, so that its delays have no jitter."""
        return PresenceClient(Identity(self.me, "Me"), PresenceConfig(server_url="ws://host.test"))

    # ---------------------------------------------------------------- the application

    @initialize()
    def start(self) -> None:
        """The application connects to the presence room."""
        self.server.connect()

    @rule(status=_statuses, activity=_activities)
    def update_activity(self, status: str, activity: str | None) -> None:
        """The application changes its status and activity."""
        self.commands.add(self.server.do(self.client.update_activity, status, activity))

    @rule(target_user_id=a_key)
    def send_poke(self, target_user_id: str) -> None:
        """The application pokes a user."""
        self.commands.add(self.server.do(self.client.send_poke, target_user_id))

    # ---------------------------------------------------------------- other users

    @rule(key=a_key, ours=st.booleans())
    def poke(self, key: str, ours: bool) -> None:
        """A user pokes the client (if `ours`) or another user. A joined client receives its poke once."""
        target = self.me if ours else "somebody else"
        said = self._say("poke", {"user_id": key, "display_name": "Ann", "target_user_id": target})
        heard = ours and self.server.has_joined(ROOM)
        assert said == ([Poked(key, "Ann")] if heard else []), "a poke is heard once, by its target"

    @rule(key=a_key, status=_statuses, activity=_activities)
    def claim(self, key: str, status: str, activity: str | None) -> None:
        """A user broadcasts an activity without tracking the activity."""
        self._claim(key, status, activity)

    @rule(device=ServerMachine.devices, status=_statuses, activity=_activities)
    def act(self, device: Device, status: str, activity: str | None) -> None:
        """A device broadcasts an activity and tracks the same activity.

        The broadcast and the track cause at most one `ActivityChanged`, or two if the display name changes.
        """
        before = len(self.server.events)
        was_claimed = device.key in self.claimed
        self._claim(device.key, status, activity)
        self.server.retrack(device, {"display_name": "Ann", "status": status, "activity": activity})
        changes = [one for one in self.server.events[before:] if isinstance(one, ActivityChanged)]
        if device.ref is not None and self.server.has_joined(ROOM) and not was_claimed:
            self.claimed.discard(device.key)
            renamed = any(one.user.display_name != one.previous.display_name for one in changes)
            assert len(changes) <= 1 + renamed, "the broadcast and the track are one event"

    def _claim(self, key: str, status: str, activity: str | None) -> None:
        if key != self.me:
            self.claimed.add(key)
        claim = {"user_id": key, "display_name": "Ann", "status": status, "activity": activity}
        self._say("activity_update", claim)

    def _say(self, event: str, payload: Any) -> list[Any]:
        before = len(self.server.events)
        if ROOM in self.server.channels:
            self.server.broadcast(event, payload, topic=ROOM)
        return self.server.events[before:]

    # ---------------------------------------------------------------- invariants

    @invariant()
    def the_roster_is_the_servers(self) -> None:
        """The roster equals the server's current presence or, when out of sync, the last received presence.

        The roster shows each user with the state of their latest device. After a reconnect, the roster may
        also contain stale users: users who were shown before and are not confirmed yet.
        """
        expected = self.server.expected(ROOM)
        users = {user.user_id: user for user in self.client.online_users}
        assert users.keys() >= expected.keys() | {self.me}, "who is in the roster"
        more = users.keys() - expected.keys() - {self.me}
        assert more <= self.shown, "who was not shown before is not stale"
        self.shown = {*users}
        knows = not self.server.dead  # the client has not detected a dead network yet
        assert not knows or self.client.is_stale != self.server.sees(ROOM), "whether the roster is stale"
        if not self.server.sees(ROOM):
            self.claimed |= users.keys()
            return
        assert {key for key in users if self.client.is_user_stale(key)} == more, "who is stale"
        for key, metas in expected.items():
            if key != self.me and key not in self.claimed:
                shown = replace(users[key], online_at=None)
                assert shown == user_from_meta(key, metas[-1]), f"how {key!r} is shown"

    @invariant()
    def commands_fail_once_at_most(self) -> None:
        """Each command fails at most once. The application made every pending or failed command."""
        failed = [one.command_id for one in self.server.events if isinstance(one, CommandFailed)]
        assert len(failed) == len(set(failed)), "a command fails once"
        assert self.client.pending_commands | set(failed) <= self.commands, "commands that nobody made"
        assert not self.client.pending_commands & set(failed), "what has failed is not pending"

    def healed(self) -> None:
        """Check that the server has the client's status and activity, and that no command is pending."""
        super().healed()
        assert self.client.pending_commands == frozenset(), "a command without an outcome"
        assert self.server.has_joined(ROOM), "we are not in the room, and do not know"
        assert not any(self.client.is_user_stale(key) for key in self.shown), "somebody is stale for ever"
        own = self.server.channels[ROOM].own
        metas = self.server.online(ROOM).get(self.me, ())
        shown = [meta for meta in metas if own and meta["phx_ref"] == own.ref]
        assert [(meta["status"], meta["activity"]) for meta in shown] == [
            (self.client.status, self.client.activity)
        ], "we are seen as somebody else"
