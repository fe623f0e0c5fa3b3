"""The laws of the driver contract and the promises of `RealtimeClient`, on random scripts.

`play` checks laws 1 to 5 (drain, time, weather, one life, end of stream) and that folding the events gives
the presence (law 8). `Story` checks that what the application asked for comes true in the end and no push is
dropped in silence (law 7).
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from presence_proto.channel import ChannelState
from presence_proto.config import ChannelConfig, RealtimeConfig
from presence_proto.errors import LocalProtocolError
from presence_proto.events import SocketDisconnected
from presence_proto.realtime_client import RealtimeClient
from presence_proto.serializer import UserBroadcast
from presence_proto.testing import ModelServer, play
from presence_proto.testing.server_script import (
    Crash,
    Cut,
    Refuse,
    Say,
    ScriptContext,
    SendBytes,
    SendClose,
    SendReply,
    Sleep,
    Step,
    Track,
    Untrack,
    Wait,
)
from presence_proto.testing.strategies import server_scripts
from properties.scripts import Command, Ghosts, calls, json_values, printed, seconds, vsns

TOPICS = ("realtime:a", "realtime:b", "room:c")
ACK = ChannelConfig(broadcast_ack=True)
SETTINGS: dict[str, Any] = {
    "join_timeout": 4.0,
    "state_timeout": 3.0,
    "heartbeat_interval": 9.0,
    "max_channels": 3,
    "max_pending_pushes": 3,
    "max_pending_diffs": 3,
    "max_roster": 4,
    "max_message_size": 1 << 14,
    "jitter": 0.5,
}

# ---------------------------------------------------------------------------------------------- scripts


@frozen
class Garbage:
    """The connection is lost, and the next server answers the upgrade with any bytes."""

    data: bytes

    def happen(self, context: ScriptContext) -> None:
        server = context.server
        server.stall()
        Cut().happen(context)
        server.advance(31.0)
        if server.server is not None:
            raise LocalProtocolError("the client does not wait for an upgrade")
        server.open_transport()
        server.deliver(self.data)
        server.serve()


_json = json_values(max_size=3, max_leaves=4)
_topics = st.sampled_from([*TOPICS[:1], *TOPICS])
_user_broadcasts = st.builds(UserBroadcast, st.text(max_size=3), _json | st.binary(max_size=4))
_steps = st.one_of(
    calls("join", st.just(TOPICS[0]), st.just(ACK)),
    calls("join", st.sampled_from(TOPICS[1:])),
    calls("leave", _topics),
    calls("push", _topics, st.just("ask"), _json, timeout=st.sampled_from([None, 0.5, 12.0])),
    calls("broadcast", _topics, st.just("hi"), _json),
    calls("track", _topics, st.fixed_dictionaries({"n": st.integers(0, 3)})),
    calls("untrack", _topics),
    calls("set_access_token", st.sampled_from(["one", "two", None])),
    calls("disconnect"),
    calls("connect"),
    st.builds(Say, st.just("broadcast"), _user_broadcasts),
    st.builds(SendBytes, st.just(b"\x89\0")),  # a ping
    st.builds(Garbage, st.binary(max_size=20)),
    st.builds(Ghosts, st.just(b"\x88\0")),
    st.builds(Wait, seconds),
)
_some = st.lists(_steps, min_size=1, max_size=4)
scripts: st.SearchStrategy[list[Step]] = st.lists(
    _some | _some | server_scripts("hostile", max_size=4), min_size=4, max_size=15
).map(lambda parts: [step for part in parts for step in part])

LONG: list[Step] = [
    *(Command("join", (topic,)) for topic in TOPICS[1:]),
    *(Track("ann"), Command("track", (TOPICS[0], {"n": 1})), Command("track", (TOPICS[1], {"n": 2}))),
    *(
        Command("push", (TOPICS[2], "ask", {"b": 1, "a": 2})),
        Command("broadcast", (TOPICS[0], "hi", {"x": [1]})),
    ),
    *(Command("set_access_token", ("one",)), SendReply(1, "ok", {"z": 1, "y": 2}), Untrack(0)),
    *(Crash(topic=2), Wait(31.0), SendClose(1012), Wait(31.0), Sleep(31.0), Cut(), Wait(1.0)),
    *(Command("leave", (TOPICS[1],)), Command("untrack", (TOPICS[0],)), SendBytes(b"\x81\xff"), Wait(31.0)),
    *(Refuse(503), Cut(), Wait(31.0), Command("disconnect")),
]
"""A script with something of everything."""

# ---------------------------------------------------------------------------------------------- playing them


class Story:
    """A script that was played with a client that is in one channel from the beginning."""

    def __init__(self, script: list[Step], *, vsn: str = "2.0.0", **options: Any) -> None:
        config = RealtimeConfig(server_url="ws://host.test/socket", vsn=vsn, **SETTINGS)
        steps = [Command("join", (TOPICS[0], ACK)), *script]
        self.client = RealtimeClient(config, rng=Random(1))
        self.deadlines: list[float | None] = []
        self._steps = iter([None, *steps])
        self._heartbeats = 0
        self.server = play(steps, self.client, after_step=self._check, **options)

    def _check(self, server: ModelServer) -> None:
        self.deadlines.append(self.client.next_deadline())
        before, self._heartbeats = self._heartbeats, len(server.sent("heartbeat"))
        if isinstance(next(self._steps), Sleep):
            assert self._heartbeats <= before + 1, "one heartbeat, however late the tick"
        for event in server.take():
            assert not isinstance(event, SocketDisconnected) or (event.retry_in or 0) <= 30

    def transcript(self) -> Any:
        """All that a driver saw; the bytes decoded, since masks are random."""
        server = self.server
        said = [(m.join_ref, m.ref, m.topic, m.event, m.payload) for m in server.received]
        targets = [request.target for request in server.requests]
        return server.events, said, server.opens, server.closes, targets, self.deadlines

    def calm(self) -> None:
        """From here on the server and the network are good. All that was asked for comes true."""
        server, client = self.server, self.client
        server.refusals.clear()
        server.serve()
        if client.is_closed:
            server.connect()
        server.advance(200.0)
        assert client.is_connected
        wanted, token, pushes = self._asked()
        assert set(client.channels) == wanted.keys()
        for topic, payload in wanted.items():
            assert client.state_of(topic) is ChannelState.JOINED
            assert server.has_joined(topic)
            assert client.is_synced(topic) or topic in server.fold.missing or topic == "room:c"
            channel = server.channels[topic]
            metas = server.online(topic).get(channel.key, ()) if channel.own else ()
            own = [{"n": meta["n"]} for meta in metas if channel.own and meta["phx_ref"] == channel.own.ref]
            assert own == ([] if payload is None else [payload]), "tracked as was wanted last"
            assert topic == "room:c" or token is None or channel.token == token
        assert pushes <= server.fold.outcomes.keys(), "nothing is dropped in silence"

    def _asked(self) -> tuple[dict[str, Any], str | None, set[int]]:
        """The topics that were joined and not left with what is tracked there, the token, and the pushes."""
        wanted: dict[str, Any] = {}
        token, pushes = None, set()
        for call, result in self.server.calls:
            match call.method, *call.args:
                case "join", topic, *_:
                    wanted.setdefault(topic, None)
                case "leave", topic:
                    wanted.pop(topic, None)
                case "track", topic, payload:
                    wanted[topic] = payload
                case "untrack", topic:
                    wanted[topic] = None
                case "set_access_token", token:
                    pass
                case ("push", *_) | ("broadcast", "realtime:a", *_):
                    pushes.add(result)
        return wanted, token, pushes


@given(scripts, vsns, st.booleans())
def test_every_story_keeps_the_laws_and_ends_well_when_the_weather_does(
    script: list[Step], vsn: str, deflate: bool
) -> None:
    Story(script, vsn=vsn, deflate=deflate).calm()


@given(scripts, vsns, st.integers(1, 40), st.booleans())
def test_however_the_bytes_are_cut_the_story_is_the_same(
    script: list[Step], vsn: str, chunk: int, deflate: bool
) -> None:
    whole = Story(script, vsn=vsn, deflate=deflate)
    cut = Story(script, vsn=vsn, deflate=deflate, chunk=chunk)
    assert cut.transcript() == whole.transcript()


@given(scripts, vsns)
def test_told_again_the_story_is_the_same(script: list[Step], vsn: str) -> None:
    assert Story(script, vsn=vsn).transcript() == Story(script, vsn=vsn).transcript()


@pytest.mark.long
def test_the_story_is_the_same_for_every_hash_seed() -> None:
    told = printed("from properties.test_realtime_laws import *; print(Story(LONG).transcript())")
    assert told.count("ChannelJoined") > 5
