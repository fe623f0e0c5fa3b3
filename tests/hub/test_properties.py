"""What is true of a hub whatever its clients do: no wrong rosters, and nobody harms anybody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from examples import times
from hub_client import PHOENIX, PHOENIX_V1, SUPABASE, Client, World, masked, supabase_join, upgrade
from presence_proto.endpoint import ConnId, SendData
from presence_proto.events import ClientDisconnected
from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig
from presence_proto.presence import PresenceMap
from presence_proto.serializer import Message, UserBroadcast, V2Serializer

TOPICS = ("room:a", "realtime:b")
KEYS = ("ann", "bob")

fast = times(0.6)

# ---------------------------------------------------------------------------------------------- rosters


@define(eq=False)
class Watcher:
    """A client and what it holds of each topic that it has joined."""

    client: Client
    held: dict[str, PresenceMap] = field(factory=dict)
    joins: dict[str, str] = field(factory=dict)  # the join_ref of each topic
    _ref: int = 0

    def say(self, topic: str, event: str, payload: Any) -> None:
        self._ref += 1
        ref = str(self._ref)
        if event == "phx_join":
            self.joins[topic] = ref
        self.client.say(self.joins.get(topic), ref, topic, event, payload)

    def read(self) -> None:
        for _, _, topic, event, payload in self.client.take():
            if event == "presence_state":
                self.held[topic] = PresenceMap()
                self.held[topic].apply_state(payload)
            elif event == "presence_diff":
                self.held[topic].apply_diff(payload)


actions = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "join", "track", "untrack", "leave", "drop", "close", "wait"]),
        st.integers(0, 3),
        st.sampled_from(TOPICS),
        st.integers(0, 2),
    ),
    min_size=20,
    max_size=60,
)


@fast
@given(
    actions=actions,
    window=st.sampled_from([0.0, 1.0]),
    targets=st.lists(st.sampled_from([PHOENIX, PHOENIX_V1]), min_size=4, max_size=4),
    deflate=st.booleans(),
)
def test_every_roster_is_the_hubs(
    actions: list[tuple[str, int, str, int]], window: float, targets: list[str], deflate: bool
) -> None:
    world = World(HubConfig(presence_window=window, deflate=deflate))
    watchers = [Watcher(world.connect(target, deflate=deflate)) for target in targets]

    def check() -> None:
        for watcher in watchers:
            watcher.read()
            for topic in watcher.joins:
                assert dict(watcher.held[topic]) == world.hub.online(topic)

    for action, who, topic, number in actions:
        watcher = watchers[who]
        supabase = topic.startswith("realtime:")
        key = KEYS[number % 2]
        if action == "join":
            watcher.say(topic, "phx_join", supabase_join(key) if supabase else {"user_id": key})
        elif action == "leave" and topic in watcher.joins:
            watcher.say(topic, "phx_leave", {})
            del watcher.joins[topic]
        elif action in ("track", "untrack"):
            meta = {"n": number}
            if supabase:
                watcher.say(topic, "presence", {"event": action, "payload": meta})
            else:
                watcher.say(topic, action, meta)
        elif action in ("drop", "close"):
            watcher.client.drop() if action == "drop" else watcher.client.close()
            watchers[who] = Watcher(world.connect(targets[who], deflate=deflate))
        elif action == "wait":
            world.advance(0.4)
        if not window:
            check()
    world.advance(window)
    check()
    joined = {topic for watcher in watchers for topic in watcher.joins}
    assert set(world.hub.topics) == joined


# ---------------------------------------------------------------------------------------------- abuse

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
words = st.sampled_from(
    [
        *("phx_join", "phx_leave", "phx_close", "phx_reply", "phx_error", "heartbeat", "presence_state"),
        *("presence_diff", "track", "untrack", "presence", "broadcast", "access_token", "e", ""),
    ]
)
topics = st.sampled_from([*TOPICS, "phoenix", "realtime:", "room:new", ""]) | st.text(max_size=3)
refs = st.sampled_from(["1", "2", None, 1, 2**70, "x" * 300])
payloads = (
    json_values
    | st.sampled_from([supabase_join("ann"), {"user_id": "ann"}, {"event": "track", "payload": {"a": 1}}])
    | st.dictionaries(st.sampled_from(["event", "payload", "config", "access_token", "user_id"]), json_values)
)
arrays = st.tuples(refs, refs, topics, words, payloads).map(list)


def _text(array: list[Any]) -> bytes:
    return masked(V2Serializer(server=False).encode(Message(*array)).data)


kinds = st.builds(
    lambda kind, lengths, encoding, rest: masked(bytes([kind, *lengths, encoding]) + rest, text=False),
    st.sampled_from([0, 1, 2, 3, 4, 9]),
    st.lists(st.integers(0, 12), min_size=2, max_size=5),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([b"12realtime:bevent{}", b"12room:aevent\xff\x00", b'12realtime:be{"a":1}[1]'])
    | st.binary(),
)
abuse = st.one_of(
    arrays.map(_text),
    kinds,
    st.text(max_size=30).map(lambda text: masked(text.encode("utf-8", "surrogatepass"))),
    st.builds(lambda array: masked(b"[" + _text(array)[10:]), arrays),
    st.binary(max_size=30),
    st.sampled_from(
        [masked(b"[" * 100_000), b"\x88\x80\0\0\0\0", b"\x89\x80\0\0\0\0", b"\x01\x80\0\0\0\0", b""]
    ),
)


@fast
@given(
    attacked=st.sampled_from([PHOENIX, SUPABASE]),
    script=st.lists(abuse, max_size=15),
    window=st.sampled_from([0.0, 1.0]),
)
def test_nobody_can_harm_anybody_else(attacked: str, script: list[bytes], window: float) -> None:
    world = World(HubConfig(presence_window=window, authorize=lambda topic, token: None))
    victims = [Watcher(world.connect()), Watcher(world.connect())]
    attacker = Watcher(world.connect(attacked))
    for watcher in [*victims, attacker]:
        watcher.say("room:a", "phx_join", {"user_id": "ann"})
        watcher.say("realtime:b", "phx_join", supabase_join("ann"))
    for data in script:
        world.receive(attacker.client.conn, data)
        world.advance(0.3)
        for watcher in victims:
            watcher.say("phoenix", "heartbeat", {})
            assert any(m.topic == "phoenix" for m in watcher.client.inbox)
            watcher.read()
    world.advance(window)
    for watcher in victims:
        watcher.read()
        assert watcher.client.closed is None
        for topic in TOPICS:
            assert dict(watcher.held[topic]) == world.hub.online(topic)
    gone = [event.conn for event in world.events if isinstance(event, ClientDisconnected)]
    assert gone in ([], [attacker.client.conn])


# ---------------------------------------------------------------------------------------------- laws


Script: TypeAlias = list[tuple[int, Any]]  # the connection, and its bytes or chunks of them


def run(script: Script, config: HubConfig, seed: int | None = None, gather: int = 1) -> tuple[Any, ...]:
    """What comes of bytes from several clients: all bytes to each, and everything else in order.

    `gather`: drain after so many of them.
    """
    hub = Hub(config, rng=None if seed is None else Random(seed))
    sent: dict[int, bytes] = {}
    others: list[Any] = []
    for conn in range(1, 4):
        hub.transport_opened(ConnId(conn), now=0)
    for now, (conn, data) in enumerate([*script, (0, b"")]):
        chunks = [data] if isinstance(data, bytes) else data
        for chunk in chunks:
            hub.receive_data(ConnId(conn), chunk, now=now / 8)
            if now % gather and now < len(script):
                continue
            for output in hub.drain():
                if isinstance(output, SendData):
                    sent[output.conn] = sent.get(output.conn, b"") + output.data
                else:
                    others.append(output)
    return sent, others, hub.topics, [hub.online(topic) for topic in hub.topics], hub.next_deadline()


OPENING = [
    (conn, upgrade(target) + _text(["1", "1", "room:a", "phx_join", {"user_id": f"u{conn}"}]))
    for conn, target in ((1, PHOENIX), (2, SUPABASE), (3, PHOENIX))
] + [(conn, _text(["2", "2", "realtime:b", "phx_join", supabase_join("", ack=True)])) for conn in (1, 2, 3)]

good = st.one_of(
    st.builds(lambda n: _text(["1", "3", "room:a", "track", {"n": n}]), st.integers(0, 3)),
    st.builds(
        lambda n: _text(["2", "4", "realtime:b", "presence", {"event": "track", "payload": {"n": n}}]),
        st.integers(0, 3),
    ),
    st.just(_text(["1", "5", "room:a", "phx_leave", {}])),
    st.just(_text(["6", "6", "room:a", "phx_join", {"user_id": "again"}])),
    st.just(
        masked(
            V2Serializer(server=False)
            .encode(Message("2", "7", "realtime:b", "broadcast", UserBroadcast("e", {"a": 1})))
            .data,
            text=False,
        )
    ),
    abuse,
)
scripts = st.lists(st.tuples(st.integers(1, 3), good), max_size=10).map(lambda script: OPENING + script)


@fast
@given(script=scripts, window=st.sampled_from([0.0, 0.5]), data=st.data())
def test_any_chunks_give_the_same(
    script: list[tuple[int, bytes]], window: float, data: st.DataObject
) -> None:
    config = HubConfig(presence_window=window)
    cut = []
    for conn, blob in script:
        at = sorted(data.draw(st.lists(st.integers(0, len(blob)), max_size=4)))
        cut.append((conn, [blob[i:j] for i, j in zip([0, *at], [*at, len(blob)], strict=True)]))
    assert run(cut, config) == run(script, config)


@fast
@given(script=scripts, window=st.sampled_from([0.0, 0.5]), gather=st.integers(2, 9))
def test_when_it_is_drained_makes_no_difference(
    script: list[tuple[int, bytes]], window: float, gather: int
) -> None:
    config = HubConfig(presence_window=window)
    assert run(script, config, gather=gather) == run(script, config)


@fast
@given(script=scripts, seed=st.none() | st.integers())
def test_the_same_twice(script: Script, seed: int | None) -> None:
    config = HubConfig(presence_window=0.25)
    assert run(script, config, seed) == run(script, config, seed)


@pytest.mark.long
def test_the_hash_seed_makes_no_difference() -> None:
    program = (
        "import sys; sys.path[:0] = sys.argv[1:];"
        "from test_properties import OPENING, run, _text;"
        "from presence_proto.hub.config import HubConfig;"
        "more = [(c, _text(['1', '9', 'room:a', 'track', {'n': c}])) for c in (3, 1, 2)];"
        "print(run(OPENING + more, HubConfig(api_keys={'secret', 'a', 'b'}, presence_window=0.5), 7))"
    )
    here = Path(__file__).parent
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program, str(here), str(here.parent)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1
    assert "TopicJoined" in outputs.pop()
