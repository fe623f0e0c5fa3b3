"""`ClientMachine`: a server, a network, a clock and an application against a `RealtimeClient`."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from presence_proto.channel_config import ChannelConfig
from presence_proto.channel_state import ChannelState
from presence_proto.config import RealtimeConfig
from presence_proto.events import PushReplied
from presence_proto.realtime import RealtimeClient
from presence_proto.testing.folds import RealtimeFold
from presence_proto.testing.machines.server_side import ServerMachine, a_topic, of_machine

a_wanted_topic = of_machine(lambda machine: st.sampled_from(list(machine.wanted)))


class ClientMachine(ServerMachine):
    """The model: `wanted` (topic -> the `n` tracked there), `pushes` (id -> number, when), `token`.

    Checked are the presence of each topic, the outcome of each push, once and in time, and after `heal` that
    every wanted channel is joined, tracked, and known by the server under the token of now.
    """

    topics = ("realtime:a", "room:b")
    push_timeout: ClassVar[float] = 10.0  # seconds, as in the config of the client

    def __init__(self) -> None:
        super().__init__()
        self.fold = self.server.fold = RealtimeFold(self.client)
        self.wanted: dict[str, int | None] = {}
        self.pushes: dict[int, tuple[int, float]] = {}
        self.token: str | None = None
        self._sent_on: dict[int, Any] = {}  # by the number of a push: the connection that it went out on
        self._read = 0

    def make_client(self) -> RealtimeClient:
        """A client at rest, without an `rng`: so there is no jitter."""
        return RealtimeClient(RealtimeConfig(server_url="ws://host.test"))

    def params(self, topic: str) -> Any:
        """How the topic is joined."""
        return ChannelConfig(presence_key="me") if topic.startswith("realtime:") else {"user_id": "me"}

    # ---------------------------------------------------------------- the application

    @initialize(topic=a_topic)
    def start(self, topic: str) -> None:
        """It connects, and joins a topic."""
        self.server.connect()
        self.join(topic)

    @rule(topic=a_topic)
    def join(self, topic: str) -> None:
        """It joins a topic, perhaps once more."""
        self.server.do(self.client.join, topic, self.params(topic))
        self.wanted.setdefault(topic, None)

    @precondition(lambda self: self.wanted)
    @rule(topic=a_wanted_topic)
    def leave(self, topic: str) -> None:
        """It leaves a topic."""
        del self.wanted[topic]
        self.server.do(self.client.leave, topic)

    @precondition(lambda self: self.wanted)
    @rule(topic=a_wanted_topic, n=st.sampled_from([0, 1, 2, None]))
    def track(self, topic: str, n: int | None) -> None:
        """It is present in a topic, or no more."""
        if n is None:
            self.server.do(self.client.untrack, topic)
        else:
            self.server.do(self.client.track, topic, {"n": n})
        self.wanted[topic] = n

    @precondition(lambda self: self.wanted)
    @rule(topic=a_wanted_topic)
    def push(self, topic: str) -> None:
        """It asks the server something."""
        number = len(self.pushes)
        push_id = self.server.do(self.client.push, topic, "ask", {"number": number})
        self.pushes[push_id] = number, self.server.now

    @precondition(lambda self: self.wanted and not self.server.stalls)
    @rule(topic=a_wanted_topic)
    def push_two(self, topic: str) -> None:
        """It asks two things, and the second one is answered first."""
        self.server.stall()
        self.push(topic)
        self.push(topic)
        self.server.serve_one(latest=True)
        self.server.serve()

    @rule()
    def set_access_token(self) -> None:
        """It has got another token."""
        self.token = f"token-{len(self.token or '')}"
        self.server.do(self.client.set_access_token, self.token)

    # ---------------------------------------------------------------- what must be true

    @invariant()
    def the_channels_are_those_that_are_wanted(self) -> None:
        """Until they are left, whatever happens."""
        states = {topic: self.client.state_of(topic) for topic in self.client.channels}
        here = {topic for topic, state in states.items() if state is not ChannelState.LEAVING}
        assert here == self.wanted.keys()

    @invariant()
    def the_presence_is_the_servers(self) -> None:
        """Of now, or as it was last seen."""
        for topic in self.wanted:
            held, expected = self.client.presence(topic), self.server.expected(topic)
            assert {key: _by_ref(metas) for key, metas in held.items()} == {
                key: _by_ref(metas) for key, metas in expected.items()
            }, f"the presence of {topic!r}"
            knows = not self.server.dead  # else it cannot know yet
            assert not knows or self.client.is_synced(topic) == self.server.sees(topic), "whether it is stale"

    @invariant()
    def every_push_has_its_outcome_in_time(self) -> None:
        """Its own reply; or a failure, at once when its connection ends, or when its time is up."""
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
        """Everything that is wanted has come true."""
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
