"""`HubMachine`: clients, their network and the clock against a `Hub`."""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, initialize, invariant, precondition, rule

from presence_proto.config import HubConfig
from presence_proto.hub import Hub
from presence_proto.hub.phoenix import OVERTAKING
from presence_proto.testing.machines.brief import BriefMachine
from presence_proto.testing.machines.visitor import Visitor, is_supabase
from presence_proto.testing.scripted_clients import (
    PHOENIX,
    PHOENIX_V1,
    SUPABASE,
    SUPABASE_V1,
    ScriptedClients,
)

_SUPABASE_TOPIC = "realtime:a"
_topics = st.sampled_from([_SUPABASE_TOPIC, "room:b"])
_keys = st.sampled_from(["ann", "bob"])
_targets = st.sampled_from([SUPABASE, SUPABASE_V1, PHOENIX, PHOENIX_V1])
_memberships = st.runner().flatmap(lambda machine: st.sampled_from(machine.memberships))

Membership: TypeAlias = tuple[Visitor, str]


class HubMachine(BriefMachine):
    """The model: `members` (topic -> visitor -> presence key and meta; `None`: not tracked).

    Checked are what each client is told, message by message, and after every step that the hub and all who
    are in a topic hold the presence of the model. The `presence_window` must be that of the hub.
    """

    presence_window: ClassVar[float] = 0.0

    visitors = Bundle("visitors")

    def __init__(self) -> None:
        super().__init__()
        self.hub = self.make_hub()
        self.clients = ScriptedClients(self.hub)
        self.members: dict[str, dict[Visitor, tuple[str, dict[str, Any] | None]]] = {}
        self.all: list[Visitor] = []
        self._numbers = 0

    def make_hub(self) -> Hub:
        """The hub to be tried. Override it for your own."""
        return Hub(HubConfig(presence_window=self.presence_window))

    @property
    def memberships(self) -> list[Membership]:
        """Who is in which topic."""
        return [(visitor, topic) for topic, members in self.members.items() for visitor in members]

    # ---------------------------------------------------------------- coming and going

    @initialize(target=visitors, url=_targets)
    def start(self, url: str) -> Visitor:
        """The first client connects."""
        return self._connect(url)

    @rule(target=visitors, url=_targets)
    def connect(self, url: str) -> Visitor:
        """A client connects."""
        return self._connect(url)

    def _connect(self, url: str) -> Visitor:
        name = f"visitors_{len(self.all)}"
        visitor = Visitor(name, self.clients.connect(url), strict=not self.presence_window)
        self.all.append(visitor)
        return visitor

    @rule(visitor=consumes(visitors))
    def drop(self, visitor: Visitor) -> None:
        """Its connection ends without a word."""
        visitor.client.drop()
        self._gone(visitor)

    @rule(visitor=consumes(visitors))
    def close(self, visitor: Visitor) -> None:
        """It says goodbye."""
        visitor.client.close()
        self._gone(visitor)

    @rule(visitor=consumes(visitors))
    def disconnect(self, visitor: Visitor) -> None:
        """The hub closes its connection."""
        self.hub.disconnect(visitor.client.conn, now=self.clients.now)
        self._gone(visitor)
        self.clients.settle()

    @rule(visitor=consumes(visitors))
    def fall_silent(self, visitor: Visitor) -> None:
        """It says nothing any more, and the hub gives it up after its idle timeout."""
        self._gone(visitor)
        for _ in range(3):
            self._wait(30.0, visitor)
        assert not visitor.is_open, "a silent client is given up"

    def _gone(self, visitor: Visitor) -> None:
        for members in self.members.values():
            members.pop(visitor, None)

    # ---------------------------------------------------------------- topics

    @rule(visitor=visitors, topic=_topics, key=_keys)
    def join(self, visitor: Visitor, topic: str, key: str) -> None:
        """It joins, perhaps again. A plain Phoenix topic has it present at once.

        On Supabase's mount there are no plain topics.
        """
        if visitor.is_on_supabase and not is_supabase(topic):
            topic = _SUPABASE_TOPIC
        visitor.join(topic, key)
        self.members.setdefault(topic, {})[visitor] = key, None if is_supabase(topic) else {}

    @precondition(lambda self: self.memberships)
    @rule(membership=_memberships)
    def leave(self, membership: Membership) -> None:
        """It leaves."""
        visitor, topic = membership
        del self.members[topic][visitor]
        visitor.leave(topic)
        self.clients.advance(OVERTAKING)

    @precondition(lambda self: self.memberships)
    @rule(membership=_memberships, key=_keys)
    def leave_and_join(self, membership: Membership, key: str) -> None:
        """It leaves, and joins in the same moment. On Supabase's mount the leave has no answer then."""
        visitor, topic = membership
        visitor.leave(topic, answered=not visitor.is_on_supabase)
        visitor.join(topic, key)
        self.members[topic][visitor] = key, None if is_supabase(topic) else {}

    @rule(topic=_topics, crashes=st.booleans())
    def end(self, topic: str, crashes: bool) -> None:
        """The hub ends a topic for everybody."""
        for visitor in self.members.pop(topic, {}):
            visitor.expect_the_end_of(topic)
        (self.hub.crash_channel if crashes else self.hub.close_channel)(topic, now=self.clients.now)
        self.clients.settle()

    @precondition(lambda self: self.memberships)
    @rule(membership=_memberships, n=st.integers(0, 2))
    def track(self, membership: Membership, n: int) -> None:
        """It is present with a meta."""
        visitor, topic = membership
        visitor.track(topic, {"n": n})
        self.members[topic][visitor] = self.members[topic][visitor][0], {"n": n}

    @precondition(lambda self: self.memberships)
    @rule(membership=_memberships)
    def untrack(self, membership: Membership) -> None:
        """It is present no more."""
        visitor, topic = membership
        visitor.untrack(topic)
        self.members[topic][visitor] = self.members[topic][visitor][0], None

    @precondition(lambda self: self.memberships)
    @rule(membership=_memberships)
    def shout(self, membership: Membership) -> None:
        """It says something. The others in the topic hear it once, and it does not."""
        visitor, topic = membership
        self._numbers += 1
        visitor.shout(topic, self._numbers)
        for one in self.all:
            one.read()
            heard = one.heard[topic, self._numbers]
            others = one in self.members[topic] and one is not visitor
            assert heard == others, f"{one} heard it {heard} times"

    # ---------------------------------------------------------------- the clock

    @rule(seconds=st.sampled_from([1.0, 30.0]))
    def wait(self, seconds: float) -> None:
        """Time passes. All clients beat their hearts."""
        self._wait(seconds)

    def _wait(self, seconds: float, silent: Visitor | None = None) -> None:
        for visitor in self.all:
            if visitor.is_open and visitor is not silent:
                visitor.beat()
        self.clients.advance(seconds)

    # ---------------------------------------------------------------- what is true at all times

    @invariant()
    def everybody_holds_what_is_true(self) -> None:
        """The hub does, and everybody who is in a topic."""
        self.clients.advance(self.presence_window)
        for visitor in self.all:
            visitor.read()
        assert set(self.hub.topics) == {topic for topic, members in self.members.items() if members}
        for topic, members in self.members.items():
            truth = self._truth(topic)
            online = {key: [_plain(meta) for meta in metas] for key, metas in self.hub.online(topic).items()}
            assert _sorted(online) == truth, f"what the hub says of {topic!r}"
            for visitor in members:
                held = visitor.held.get(topic)
                assert held is not None, f"{visitor} was not told the state of {topic!r}"
                seen = {key: [_plain(meta) for meta in metas.values()] for key, metas in held.items()}
                assert _sorted(seen) == truth, f"what {visitor} holds of {topic!r}"

    def _truth(self, topic: str) -> Any:
        truth: dict[str, list[Any]] = {}
        for key, meta in self.members[topic].values():
            if meta is not None:
                truth.setdefault(key, []).append(meta)
        return _sorted(truth)


def _plain(meta: Any) -> dict[str, Any]:
    return {name: value for name, value in meta.items() if name not in ("phx_ref", "phx_ref_prev")}


def _sorted(entries: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {key: sorted(metas, key=repr) for key, metas in entries.items()}
