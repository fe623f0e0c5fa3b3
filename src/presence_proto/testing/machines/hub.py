"""`HubMachine`: a state machine that tests a `Hub` with random clients, networks and clocks."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar, TypeAlias

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, initialize, invariant, precondition, rule

from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig
from presence_proto.hub.phoenix import OVERTAKING
from presence_proto.testing.contract import require
from presence_proto.testing.machines.brief import BriefMachine
from presence_proto.testing.scripted_clients import (
    PHOENIX,
    PHOENIX_V1,
    SUPABASE,
    SUPABASE_V1,
    ScriptedClient,
    ScriptedClients,
    supabase_join,
)

# ---------------------------------------------------------------------------------------------------- visitor
# A simulated client of the hub, which rebuilds its state from the hub's messages.


Entries = dict[str, dict[str, dict[str, Any]]]  # key -> phx_ref -> meta


def is_supabase(topic: str) -> bool:
    """Whether `topic` names a Supabase channel rather than a plain Phoenix channel."""
    return topic.startswith("realtime:")


class Visitor:
    """Correct Phoenix client that checks whether the hub may send each message at that moment.

    `strict=True` forbids diffs that repeat a known join or leave. A presence window allows such diffs.
    """

    def __init__(self, name: str, client: ScriptedClient, *, strict: bool) -> None:
        self.name = name
        self.client = client
        self.joined: dict[str, str] = {}  # topic -> join_ref
        self.held: dict[str, Entries] = {}
        self.heard: Counter[tuple[str, int]] = Counter()  # received broadcasts by (topic, number)
        self._strict = strict
        self._refs = 0
        self._unanswered: set[str] = set()
        self._gone: dict[str, set[str]] = {}  # join_ref -> phx_refs that left during this join
        self._ending: dict[str, str] = {}  # join_ref -> topic, for joins that the hub must close

    def __repr__(self) -> str:
        return self.name

    @property
    def is_open(self) -> bool:
        """Whether the connection is open."""
        return self.client.conn not in self.client.world.closed

    @property
    def is_on_supabase(self) -> bool:
        """Whether the client connected to Supabase's URL path."""
        return self.client.target.startswith("/realtime/")

    # ---------------------------------------------------------------- client to hub

    def join(self, topic: str, key: str) -> None:
        """Join a topic. If the topic is joined already, the hub must end the earlier join."""
        ref = self._next_ref()
        if topic in self.joined:
            self._ending[self.joined[topic]] = topic
        self.joined[topic] = ref
        self.held.pop(topic, None)
        payload = supabase_join(key) if is_supabase(topic) else {"user_id": key}
        self._say(ref, topic, "phx_join", payload, ref)

    def leave(self, topic: str, *, answered: bool = True) -> None:
        """Leave a topic. Expect a reply from the hub if `answered` is true."""
        ref = self._next_ref()
        if not answered:
            self._unanswered.remove(ref)
        self._ending[self.joined[topic]] = topic
        self._say(ref, topic, "phx_leave", {}, self.joined.pop(topic))
        self.held.pop(topic, None)

    def track(self, topic: str, meta: dict[str, Any]) -> None:
        """Track `meta` in a topic."""
        self._present(topic, "track", meta)

    def untrack(self, topic: str) -> None:
        """Untrack the client's meta in a topic."""
        self._present(topic, "untrack", {})

    def shout(self, topic: str, number: int) -> None:
        """Broadcast a number to the other members of a topic. A Supabase broadcast requests no reply."""
        ref = self._next_ref()
        if is_supabase(topic):
            self._unanswered.discard(ref)
            payload = {"type": "broadcast", "event": "shout", "payload": {"number": number}}
            self._say(ref, topic, "broadcast", payload)
        else:
            self._say(ref, topic, "shout", {"number": number})

    def beat(self) -> None:
        """Send a heartbeat."""
        self.client.say(None, self._next_ref(), "phoenix", "heartbeat", {})

    def expect_the_end_of(self, topic: str) -> None:
        """Expect the hub to end the client's channel of `topic`."""
        self._ending[self.joined.pop(topic)] = topic
        self.held.pop(topic, None)

    def _present(self, topic: str, event: str, meta: dict[str, Any]) -> None:
        if is_supabase(topic):
            self._say(self._next_ref(), topic, "presence", {"event": event, "payload": meta})
        else:
            self._say(self._next_ref(), topic, event, meta)

    def _say(self, ref: str, topic: str, event: str, payload: Any, join_ref: str | None = None) -> None:
        self.client.say(join_ref or self.joined[topic], ref, topic, event, payload)

    def _next_ref(self) -> str:
        self._refs += 1
        ref = str(self._refs)
        self._unanswered.add(ref)
        return ref

    # ---------------------------------------------------------------- hub to client

    def read(self) -> None:
        """Process the received messages. Raise `ContractError` for an illegal or missing message."""
        for _, ref, topic, event, payload in self.client.take():
            if event == "phx_reply":
                require(ref in self._unanswered, f"{self}: a reply to {ref}, which waits for none")
                require(payload["status"] == "ok", f"{self}: {topic!r} said {payload}")
                self._unanswered.remove(ref)
            elif event in ("phx_close", "phx_error"):
                require(
                    self._ending.pop(ref, None) == topic, f"{self}: an end of {topic!r} that nobody asked for"
                )
            elif event == "system":
                require(topic in self._ending.values(), f"{self}: {topic!r} says {payload}")
            else:
                require(topic in self.joined, f"{self} is told {event!r} of {topic!r}, and is not in it")
                self._read(topic, event, payload)
        if self.is_open:
            require(not self._unanswered, f"{self} waits for replies to {self._unanswered}")
            require(not self._ending, f"{self} waits for the end of {self._ending}")

    def _read(self, topic: str, event: str, payload: Any) -> None:
        if event == "presence_state":
            require(topic not in self.held, f"{self}: a second state of {topic!r}")
            self.held[topic] = _entries(payload)
        elif event == "presence_diff":
            require(topic in self.held, f"{self}: a diff of {topic!r} before its state")
            self._fold(topic, _entries(payload["joins"]), _entries(payload["leaves"]))
        else:
            self.heard[topic, payload.get("payload", payload)["number"]] += 1

    def _fold(self, topic: str, joins: Entries, leaves: Entries) -> None:
        held, gone = self.held[topic], self._gone.setdefault(self.joined[topic], set())
        for key, metas in joins.items():
            known = (held.setdefault(key, {}).keys() | gone) & metas.keys()
            require(not (known and self._strict), f"{self}: {known} of {key!r} joined twice")
            held[key].update(metas)
        for key, metas in leaves.items():
            # A leave of an unknown meta is legal: the meta may have left before the presence state.
            require(not (gone & metas.keys() and self._strict), f"{self}: a meta of {key!r} left twice")
            for ref in metas:
                held.get(key, {}).pop(ref, None)
                gone.add(ref)
            if not held.get(key, True):
                del held[key]


def _entries(payload: Any) -> Entries:
    return {key: {meta["phx_ref"]: meta for meta in entry["metas"]} for key, entry in payload.items()}


# -------------------------------------------------------------------------------------------------------- hub


_SUPABASE_TOPIC = "realtime:a"
_topics = st.sampled_from([_SUPABASE_TOPIC, "room:b"])
_keys = st.sampled_from(["ann", "bob"])
_targets = st.sampled_from([SUPABASE, SUPABASE_V1, PHOENIX, PHOENIX_V1])
_memberships = st.runner().flatmap(lambda machine: st.sampled_from(machine.memberships))

Membership: TypeAlias = tuple[Visitor, str]


class HubMachine(BriefMachine):
    """State machine for `Hub` that simulates the clients, their network and the clock.

    The model is `members` (topic -> visitor -> presence key and meta). An untracked meta is `None`. The
    machine checks every message to every client. After every step, the hub and all members of a topic must
    hold the presence of the model. `presence_window` (seconds) must equal the hub's `presence_window`.
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
        """Return the hub under test. Override `make_hub` to test your own hub."""
        return Hub(HubConfig(presence_window=self.presence_window))

    @property
    def memberships(self) -> list[Membership]:
        """All pairs of a visitor and a topic that the visitor has joined."""
        return [(visitor, topic) for topic, members in self.members.items() for visitor in members]

    # ---------------------------------------------------------------- connections

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
        """A client's transport ends without a closing handshake."""
        visitor.client.drop()
        self._gone(visitor)

    @rule(visitor=consumes(visitors))
    def close(self, visitor: Visitor) -> None:
        """A client closes its connection with a closing handshake."""
        visitor.client.close()
        self._gone(visitor)

    @rule(visitor=consumes(visitors))
    def disconnect(self, visitor: Visitor) -> None:
        """The hub closes a client's connection."""
        self.hub.disconnect(visitor.client.conn, now=self.clients.now)
        self._gone(visitor)
        self.clients.settle()

    @rule(visitor=consumes(visitors))
    def fall_silent(self, visitor: Visitor) -> None:
        """A client stops sending, and the hub closes its connection after the idle timeout."""
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
        """A client joins a topic, which may be joined already. A join of a plain Phoenix topic also tracks.

        Plain Phoenix topics do not exist on Supabase's URL path.
        """
        if visitor.is_on_supabase and not is_supabase(topic):
            topic = _SUPABASE_TOPIC
        visitor.join(topic, key)
        self.members.setdefault(topic, {})[visitor] = key, None if is_supabase(topic) else {}

    @precondition(lambda self: self.memberships)
    @rule(membership=_memberships)
    def leave(self, membership: Membership) -> None:
        """A client leaves a topic."""
        visitor, topic = membership
        del self.members[topic][visitor]
        visitor.leave(topic)
        self.clients.advance(OVERTAKING)

    @precondition(lambda self: self.memberships)
    @rule(membership=_memberships, key=_keys)
    def leave_and_join(self, membership: Membership, key: str) -> None:
        """A client leaves a topic and rejoins at once. On Supabase's URL path, the leave gets no reply."""
        visitor, topic = membership
        visitor.leave(topic, answered=not visitor.is_on_supabase)
        visitor.join(topic, key)
        self.members[topic][visitor] = key, None if is_supabase(topic) else {}

    @rule(topic=_topics, crashes=st.booleans())
    def end(self, topic: str, crashes: bool) -> None:
        """The hub ends a topic for all members."""
        for visitor in self.members.pop(topic, {}):
            visitor.expect_the_end_of(topic)
        (self.hub.crash_channel if crashes else self.hub.close_channel)(topic, now=self.clients.now)
        self.clients.settle()

    @precondition(lambda self: self.memberships)
    @rule(membership=_memberships, n=st.integers(0, 2))
    def track(self, membership: Membership, n: int) -> None:
        """A member tracks a meta."""
        visitor, topic = membership
        visitor.track(topic, {"n": n})
        self.members[topic][visitor] = self.members[topic][visitor][0], {"n": n}

    @precondition(lambda self: self.memberships)
    @rule(membership=_memberships)
    def untrack(self, membership: Membership) -> None:
        """A member untracks its meta."""
        visitor, topic = membership
        visitor.untrack(topic)
        self.members[topic][visitor] = self.members[topic][visitor][0], None

    @precondition(lambda self: self.memberships)
    @rule(membership=_memberships)
    def shout(self, membership: Membership) -> None:
        """A member sends a broadcast. Each other member receives the broadcast exactly once."""
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
        """All clients send a heartbeat, and `seconds` pass."""
        self._wait(seconds)

    def _wait(self, seconds: float, silent: Visitor | None = None) -> None:
        for visitor in self.all:
            if visitor.is_open and visitor is not silent:
                visitor.beat()
        self.clients.advance(seconds)

    # ---------------------------------------------------------------- invariants

    @invariant()
    def everybody_holds_what_is_true(self) -> None:
        """The hub and every member of a topic hold the presence of the model."""
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
