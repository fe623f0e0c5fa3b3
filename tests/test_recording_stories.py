"""Random stories, recorded and replayed: no difference; and one at the right line if the core has changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import jarvis_client
import jarvis_rig
from examples import times
from hub.test_properties import abuse, scripts
from hub_client import PHOENIX, SUPABASE, World, supabase_join
from presence_proto import (
    ConnId,
    HubConfig,
    JoinRequest,
    LocalProtocolError,
    RealtimeClient,
    RealtimeConfig,
    SocketConnected,
)
from presence_proto.hub import channels
from presence_proto.recording import replay
from presence_proto.testing.server_script import Step
from presence_proto.timers import Backoff
from properties import test_jarvis_laws as jarvis
from properties import test_presence_laws as presence
from properties import test_realtime_laws as realtime
from properties.scripts import vsns
from recordings import Recording, drain

some = times(0.2)


@contextmanager
def recorded(module: Any, name: str) -> Iterator[Recording]:
    """In `module` the class `name` makes recorded clients. In the end the replay must be the same."""
    recording = Recording()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, recording.realtime if name == "RealtimeClient" else recording.presence)
        yield recording
    result = recording.replayed()
    assert result.same, result
    assert result.note is None
    assert result.lines == len(recording.lines)


@some
@given(realtime.scripts, vsns, st.none() | st.integers(1, 40), st.booleans())
def test_stories_of_a_realtime_client(script: list[Step], vsn: str, chunk: int | None, deflate: bool) -> None:
    with recorded(realtime, "RealtimeClient"):
        realtime.Story(script, vsn=vsn, chunk=chunk, deflate=deflate)


@some
@given(script=presence.LOUD, vsn=vsns, chunk=st.none() | st.integers(1, 40))
def test_stories_of_a_presence_client(script: list[Step], vsn: str, chunk: int | None) -> None:
    with recorded(presence, "PresenceClient"):
        presence.played(script, vsn=vsn, chunk=chunk, rng=Random(1))


@some
@given(script=jarvis.SCRIPTS, chunk=st.none() | st.integers(1, 40), deflate=st.booleans())
def test_stories_on_the_jarvis_protocol(script: list[jarvis.Op], chunk: int | None, deflate: bool) -> None:
    with recorded(jarvis_rig, "PresenceClient"):
        jarvis.played(script, chunk=chunk, rng=Random(1), server_deflate=deflate)


@some
@given(
    script=scripts,
    garbage=st.lists(abuse, max_size=3),
    seed=st.none() | st.integers(),
    chunk=st.integers(1, 60),
    drains=st.integers(1, 4),
)
def test_stories_of_a_hub(
    script: list[tuple[int, bytes]], garbage: list[bytes], seed: int | None, chunk: int, drains: int
) -> None:
    """A hub's driver drains when it likes, not after every fact."""
    recording = Recording()
    clock = iter(range(10**6))
    config = HubConfig(
        presence_window=0.5,
        authorize=lambda topic, token: "no" if token == "thief" else None,
        wall_clock=lambda: f"{next(clock)} o'clock",
    )
    hub = recording.hub(config, rng=None if seed is None else Random(seed))
    for conn in range(1, 4):
        hub.transport_opened(ConnId(conn), now=0)
    for now, (conn, data) in enumerate([*script, *((2, data) for data in garbage)]):
        for at in range(0, len(data), chunk):
            hub.receive_data(ConnId(conn), data[at : at + chunk], now=now / 8)
        if now % drains == 0:
            drain(hub)
    hub.tick(now=100)
    hub.shutdown(now=101)
    drain(hub)
    result = recording.replayed()
    assert result.same, result


def test_a_hub_and_its_clients_in_order() -> None:
    recording = Recording()
    config = HubConfig(
        presence_rule=lambda topic, params: None if topic == "room:c" else ("key", {"a": params["n"]}),
        authorize=lambda topic, token: "no" if token == "thief" else None,
        wall_clock=lambda: "now",
    )
    world = World(config, rng=Random(3), hub_type=recording.hub)
    client, other = world.connect(PHOENIX), world.connect(SUPABASE)
    client.join("room:x", {"n": 1})
    client.join("room:y", {})  # the rule raises KeyError
    client.join("room:c", {})
    other.join("realtime:b", supabase_join("ann", access_token="thief"))
    other.join("realtime:b", supabase_join("ann"))
    ann = jarvis_client.jarvis(world, "ann")
    ann.drop()
    jarvis_client.jarvis(world, "bob")
    world.hub.broadcast("room:x", "e", b"bytes", now=world.now)
    with pytest.raises(LocalProtocolError):
        world.hub.broadcast("room:x", "e", {1: 2}, now=world.now)
    with pytest.raises(LocalProtocolError):
        world.hub.broadcast("room:x", "e", object(), now=world.now)
    world.settle()
    client.drop()
    world.hub.disconnect(other.conn, 4000, "bye", now=world.now)
    world.advance(100)
    result = recording.replayed()
    assert result.same, result
    calls = recording.entries("called")
    assert {"called": "wall_clock", "with": {}, "returned": "now"} in calls
    assert [call["raised"] for call in calls if "raised" in call] == ["KeyError"]
    assert result.commands == 4


# ------------------------------------------------------------------------------------ a core that has changed


def long_story() -> Recording:
    with recorded(realtime, "RealtimeClient") as recording:
        realtime.Story(realtime.LONG)
    return recording


def difference(recording: Recording) -> tuple[dict[str, Any], Any]:
    """The line where the replay differs now, which must be the one that is named; and what came."""
    result = replay(recording.lines)
    assert result.difference is not None
    line = json.loads(recording.lines[result.difference.line - 1])
    assert json.loads(result.difference.expected) == line
    got = result.difference.got
    return line, None if got == "nothing" else json.loads(got)


def test_a_backoff_that_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    recording, real = long_story(), Backoff.next
    monkeypatch.setattr(Backoff, "next", lambda self: 2 * real(self))
    expected, got = difference(recording)
    retry_in = expected["fields"].pop("retry_in")
    assert got["fields"].pop("retry_in") == 2 * retry_in
    assert got == expected
    assert expected["event"] == "ChannelDown"
    assert recording.entries("event").index(
        expected | {"fields": {**expected["fields"], "retry_in": retry_in}}
    )


def test_a_reply_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = long_story()
    monkeypatch.setattr(RealtimeClient, "_reply", lambda self, *args: None)
    expected, got = difference(recording)
    assert expected["event"] == "ChannelJoined"
    assert got is None


def test_an_output_more(monkeypatch: pytest.MonkeyPatch) -> None:
    recording, real = long_story(), RealtimeClient.transport_opened

    def more(self: RealtimeClient, conn: ConnId, *, now: float) -> None:
        real(self, conn, now=now)
        self._outbox.put(SocketConnected())

    monkeypatch.setattr(RealtimeClient, "transport_opened", more)
    expected, got = difference(recording)
    assert expected.keys() == {"deadline"}
    assert got == {"event": "SocketConnected", "fields": {}}


def test_a_bug_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = long_story()

    def fail(self: RealtimeClient, *args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(RealtimeClient, "untrack", fail)
    monkeypatch.setattr(RealtimeClient, "leave", fail)
    expected, got = difference(recording)
    assert got == {"raised": "ZeroDivisionError"}
    assert recording.entries()[recording.entries().index(expected) - 1]["command"] == "leave"


def test_a_bug_that_raised_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: RealtimeClient, *args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError

    recording = Recording()
    monkeypatch.setattr(RealtimeClient, "_settle", fail)
    client = recording.realtime(RealtimeConfig(server_url="ws://h"), rng=Random(1))
    with pytest.raises(ZeroDivisionError):
        client.connect(now=1)
    drain(client)
    assert recording.replayed().same
    assert recording.entries("raised") == [{"raised": "ZeroDivisionError"}]
    monkeypatch.undo()
    assert difference(recording)[0] == {"raised": "ZeroDivisionError"}


def test_another_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    recording, real = long_story(), RealtimeClient.next_deadline
    monkeypatch.setattr(RealtimeClient, "next_deadline", lambda self: (real(self) or 0) + 1)
    expected, got = difference(recording)
    assert got == {"deadline": expected["deadline"] + 1}


def test_a_hub_that_asks_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording()
    world = World(HubConfig(authorize=lambda topic, token: None), hub_type=recording.hub)
    world.connect(PHOENIX).join("room:x", {"user_id": "u"})
    result = recording.replayed()
    assert result.same
    asked = recording.entries("called")
    assert len(asked) == 1

    monkeypatch.setattr(channels, "authorize", lambda rule, request: rule(evolve(request, topic="other")))
    expected, got = difference(recording)
    assert expected == asked[0]
    assert got == {
        **{key: asked[0][key] for key in ("called",)},
        "with": {"join": {"topic": "other", "token": None, "key": "u"}},
    }

    monkeypatch.setattr(channels, "authorize", lambda rule, request: request.key)
    result = replay(recording.lines)
    assert result.difference is not None
    assert json.loads(result.difference.expected) == asked[0]
    assert result.difference.got == "nothing"

    def ask_twice(rule: Any, request: JoinRequest) -> Any:
        rule(request)
        return rule(request) or request.key

    monkeypatch.setattr(channels, "authorize", ask_twice)
    result = replay(recording.lines)
    assert result.difference is not None
    assert result.difference.expected == "nothing"
    assert json.loads(result.difference.got)["called"] == "authorize"
