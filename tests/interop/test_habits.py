"""What single official clients do in their own way, and the hub must bear with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interop.node_peers import SupabaseJsPeer
from interop.peers import until
from interop.stage import all_see, play
from presence_proto import HubConfig
from presence_proto.hub import ClientConnected, TopicJoined, TopicLeft

if TYPE_CHECKING:
    from interop.node_peers import PhoenixJsPeer
    from interop.peers import Peer
    from interop.pypi_peer import PyPIPeer
    from interop.stage import Stage

pytestmark = [pytest.mark.interop, pytest.mark.long]

both_versions = pytest.mark.parametrize("kind", ["phoenix.js", "phoenix.js V1"])


# ---------------------------------------------------------------------------------------------- phoenix.js


def test_phoenix_js_joins_a_topic_twice() -> None:
    """It leaves the old channel and joins the new one in one breath.

    Not with V1: that has no join_ref, and phoenix.js takes the old channel's phx_close for the new one's.
    """

    async def scene(stage: Stage, ann: PhoenixJsPeer, bob: Peer) -> None:
        await bob.join("bob")
        await ann.ask_to_join("ann", life=1)
        await all_see(stage, ann, bob, keys=["ann", "bob"])
        await ann.ask_to_join("ann", life=2)
        await ann.until(lambda p: p.statuses == ["SUBSCRIBED", "CLOSED", "SUBSCRIBED"], "is in again")
        await bob.until(lambda p: [m["life"] for m in p.roster.get("ann", [])] == [2], "sees the second life")
        await all_see(stage, ann, bob, keys=["ann", "bob"])
        assert await ann.say("still", {"here": True}) == "ok"
        await bob.until(lambda p: p.heard == [("still", {"here": True})], "hears")
        assert ann.statuses == ["SUBSCRIBED", "CLOSED", "SUBSCRIBED"]

    play(scene, ["phoenix.js", "ours (plain)"])


@both_versions
def test_phoenix_js_brings_a_token_as_a_subprotocol(kind: str) -> None:
    """The API of browsers, and ws, close a connection whose server picks none of those that they offer."""

    asked: list[str | None] = []

    def authorize(topic: str, token: str | None) -> str | None:
        asked.append(token)
        return None

    async def scene(stage: Stage, ann: PhoenixJsPeer) -> None:
        await ann.connect(token="a.secret.jwt")
        await ann.join("ann")
        assert [type(event) for event in stage.events] == [ClientConnected, TopicJoined]
        assert "secret" not in repr(stage.events)
        assert asked == ["a.secret.jwt"]

    play(scene, [kind], HubConfig(authorize=authorize), connect=False)


@both_versions
def test_phoenix_js_pings(kind: str) -> None:
    async def scene(stage: Stage, ann: PhoenixJsPeer) -> None:
        assert 0 <= await ann.do("ping") < 10_000

    play(scene, [kind])


@both_versions
def test_phoenix_js_is_refused_and_asks_again_until_it_is_let_in(kind: str) -> None:
    tokens: list[str | None] = []

    def authorize(topic: str, token: str | None) -> str | None:
        tokens.append(token)
        return None if len(tokens) > 2 else "not yet"

    async def scene(stage: Stage, ann: PhoenixJsPeer, bob: Peer) -> None:
        await ann.ask_to_join("ann", access_token="a secret", mood="patient")
        await ann.until(lambda p: p.is_in, "gets in")
        assert ann.statuses == ["CHANNEL_ERROR", "CHANNEL_ERROR", "SUBSCRIBED"]
        assert ann.details[:2] == [{"reason": "not yet"}] * 2
        await bob.join("bob")
        await all_see(stage, ann, bob, keys=["ann", "bob"])
        [meta] = bob.roster["ann"]
        assert meta == {"mood": "patient", "ref": meta["ref"]}  # the token is the hub's business
        assert set(tokens) == {"a secret", None}

    play(scene, [kind, "ours (plain)"], HubConfig(authorize=authorize))


@both_versions
def test_phoenix_js_gets_errors_for_what_it_may_not_say(kind: str) -> None:
    async def scene(stage: Stage, ann: PhoenixJsPeer) -> None:
        await ann.join("ann")
        assert await ann.push("presence_diff", {"joins": {}, "leaves": {}}) == (
            "error",
            {"reason": "reserved event"},
        )
        assert await ann.push("track", [1]) == ("error", {"reason": "payload is not an object"})
        assert (await ann.push("track", {"fine": True}))[0] == "ok"

    play(scene, [kind])


# ---------------------------------------------------------------------------------------------- realtime-js


@pytest.mark.parametrize("kind", ["realtime-js", "realtime-js V1"])
def test_realtime_js_subscribes_to_a_database_that_is_not_there(kind: str) -> None:
    """It leaves the channel unless its filters come back with ids."""
    filters = [
        {"event": "*", "schema": "public", "table": "games"},
        {"event": "INSERT", "schema": "public", "table": "scores", "filter": "points=gt.100"},
    ]

    async def scene(stage: Stage, ann: SupabaseJsPeer) -> None:
        await ann.ask_to_join("ann", postgres=filters)
        await ann.until(lambda p: p.systems, "is told that it is subscribed")
        assert ann.statuses == ["SUBSCRIBED"]
        [system] = ann.systems
        assert (system["extension"], system["status"]) == ("postgres_changes", "ok")

    play(scene, [kind])


def test_realtime_js_closes_a_connection_without_channels() -> None:
    async def scene(stage: Stage, ann: SupabaseJsPeer) -> None:
        await ann.connect(heartbeat=0.1)
        await ann.join("ann")
        await ann.leave()
        await ann.until(lambda p: p.closed, "disconnects by itself")
        await until(lambda: not stage.server.hub.connections, "the hub sees it go")

    play(scene, ["realtime-js"], connect=False)


@pytest.mark.parametrize("kind", ["realtime-js", "PyPI"])
def test_who_makes_too_many_presence_calls_is_put_out(kind: str) -> None:
    async def scene(stage: Stage, ann: Peer, bob: Peer) -> None:
        await bob.join("bob")
        await ann.join("ann")
        for number in range(3):
            await ann.track({"number": number})
        await bob.until(lambda p: p.roster.get("ann", [{}])[0].get("number") == 2, "sees the last one")
        if isinstance(ann, SupabaseJsPeer):
            ann.ask("track", meta={"number": 3})  # the answer never comes: the channel is closed first
        else:
            await ann.track({"number": 3})  # which waits for none
        await ann.until(lambda p: p.statuses[-1] == "CLOSED", "is put out")
        await all_see(stage, bob, keys=[])
        told = str(ann.systems or ann.details)
        assert "rate limit exceeded" in told

    play(scene, [kind, "ours"], HubConfig(presence_limit=3))


# ---------------------------------------------------------------------------------------------- PyPI


def test_pypi_joins_again_for_the_sake_of_a_late_callback() -> None:
    """A presence callback that comes after the join makes it leave and join, with presence enabled now."""

    async def scene(stage: Stage, ann: PyPIPeer, bob: Peer) -> None:
        await bob.join("bob")
        await bob.track({"of": "bob"})
        await ann.ask_to_join_without_presence("ann")
        await ann.until(lambda p: p.is_in, "joins")
        assert ann.syncs == [{}]
        ann.watch_presence()
        await ann.until(lambda p: p.statuses == ["SUBSCRIBED", "CLOSED", "SUBSCRIBED"], "joins again")
        await all_see(stage, ann, bob, keys=["bob"])
        lives = [event for event in stage.events if isinstance(event, (TopicJoined, TopicLeft))]
        assert [type(event) for event in lives] == [TopicJoined, TopicJoined, TopicLeft, TopicJoined]

    play(scene, ["PyPI", "ours"])
