"""What breaks, what is refused, and how the clients come back from it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import realtime
from websockets.exceptions import InvalidStatus

from interop.node_peers import SupabaseJsPeer
from interop.peers import API_KEY, until
from interop.stage import all_see, play
from presence_proto import HubConfig
from presence_proto.hub import ClientRefused, TopicJoined

if TYPE_CHECKING:
    from collections.abc import Callable

    from interop.peers import Peer
    from interop.pypi_peer import PyPIPeer
    from interop.stage import Stage

pytestmark = [
    pytest.mark.interop,
    pytest.mark.long,
    # The client from PyPI reads these attributes of websockets when it loses a connection.
    pytest.mark.filterwarnings(r"ignore:ConnectionClosed\.(code|reason) is deprecated:DeprecationWarning"),
]

PAIRS = [
    ("realtime-js", "ours"),
    ("realtime-js V1", "ours"),
    ("PyPI", "ours V1"),
    ("phoenix.js", "ours (plain)"),
    ("phoenix.js V1", "ours (plain, V1)"),
]
SUPABASE = ["realtime-js", "realtime-js V1", "PyPI", "ours", "ours V1"]
every_pair = pytest.mark.parametrize("kinds", PAIRS, ids=" and ".join)


def conn_of(stage: Stage, key: str) -> int:
    """The latest connection that joined under a key."""
    return [event.conn for event in stage.events if isinstance(event, TopicJoined) and event.key == key][-1]


# ---------------------------------------------------------------------------------------------- coming back


@every_pair
@pytest.mark.parametrize(
    ("how", "code"),
    [("killed", 1006), ("stopped", 1012), ("reset", 1006), ("sent away", 1000)],
)
def test_all_are_back_after(kinds: tuple[str, str], how: str, code: int) -> None:
    async def scene(stage: Stage, ann: Peer, bob: Peer) -> None:
        for peer in (ann, bob):
            await peer.join(peer.name, ack=True)
            await peer.track({"of": peer.name})
        await all_see(stage, ann, bob, keys=["ann", "bob"])
        before = ann.roster

        hub = stage.server.hub
        if how in ("killed", "stopped"):
            await stage.stop(abruptly=how == "killed")
            await until(lambda: ann.closed and bob.closed, "both notice", ann, bob)
            await bob.track({"of": "bob", "tracked": "while the hub was away"})
            await stage.restart()
        for conn in hub.connections:
            if how == "reset":
                stage.server.cut(conn, reset=True)
            else:
                stage.run(hub.disconnect, conn, code, "go")

        await until(lambda: ann.opened == bob.opened == 2, "both are connected again", ann, bob)
        await all_see(stage, ann, bob, keys=["ann", "bob"])
        assert ann.closed[0] == bob.closed[0] == code
        assert [meta["ref"] for meta in ann.roster["ann"]] != [meta["ref"] for meta in before["ann"]]
        assert ann.is_in
        assert bob.is_in
        if how in ("killed", "stopped"):
            assert ann.roster["bob"][0]["tracked"] == "while the hub was away"
        for speaker, listener in ((ann, bob), (bob, ann)):
            assert await speaker.say("back", {"again": True}) == "ok"
            await listener.until(lambda p: p.heard == [("back", {"again": True})], "hears")

    play(scene, kinds)


@every_pair
def test_a_channel_that_crashes_is_joined_again(kinds: tuple[str, str]) -> None:
    async def scene(stage: Stage, ann: Peer, bob: Peer) -> None:
        for peer in (ann, bob):
            await peer.join(peer.name)
            await peer.track({"of": peer.name})
        await all_see(stage, ann, bob, keys=["ann", "bob"])
        stage.run(stage.server.hub.crash_channel, ann.topic)
        for peer in (ann, bob):
            await peer.until(
                lambda p: p.statuses == ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED"], "joins again"
            )
        await all_see(stage, ann, bob, keys=["ann", "bob"])
        assert ann.opened == bob.opened == 1

    play(scene, kinds)


@every_pair
def test_a_channel_that_the_hub_closes_stays_closed(kinds: tuple[str, str]) -> None:
    async def scene(stage: Stage, ann: Peer, bob: Peer) -> None:
        for peer in (ann, bob):
            await peer.join(peer.name)
            await peer.track({"of": peer.name})
        await all_see(stage, ann, bob, keys=["ann", "bob"])
        stage.run(
            stage.server.hub.close_channel, ann.topic, reason="enough of you", conn=conn_of(stage, "ann")
        )
        await ann.until(lambda p: p.statuses[-1] == "CLOSED", "is told")
        await all_see(stage, bob, keys=["bob"])
        if isinstance(ann, SupabaseJsPeer):
            assert [system["message"] for system in ann.systems] == ["enough of you"]
        elif ann.family == "supabase":  # PyPI takes the error of the system message for that of the channel
            assert ann.statuses == ["SUBSCRIBED", "CHANNEL_ERROR", "CLOSED"]
            assert "enough of you" in str(ann.details[1])

    play(scene, kinds)


# ---------------------------------------------------------------------------------------------- heartbeats


@pytest.mark.parametrize(
    "kinds",
    [
        ("realtime-js", "ours"),
        ("realtime-js V1", "ours V1"),
        ("phoenix.js", "ours (plain)"),
        ("phoenix.js V1",),
    ],
    ids=" and ".join,
)
def test_heartbeats_are_answered_and_keep_the_connection(kinds: tuple[str, ...]) -> None:
    async def scene(stage: Stage, ann: Peer, *others: Peer) -> None:
        await asyncio.gather(*(peer.connect(heartbeat=0.2) for peer in (ann, *others)))
        await ann.until(lambda p: p.heartbeats >= 8, "is answered 8 times")  # 1.6 s
        for peer in (ann, *others):
            assert (peer.opened, peer.closed) == (1, [])

    play(scene, kinds, HubConfig(idle_timeout=1.0), connect=False)


def test_the_heartbeat_of_pypi_is_answered() -> None:
    """It has a null ref, and wants one back."""

    async def scene(stage: Stage, ann: PyPIPeer) -> None:
        await ann.until(lambda p: p.heartbeats == 1, "is answered")

    play(scene, ["PyPI"])


@pytest.mark.parametrize("kind", ["realtime-js", "PyPI", "phoenix.js"])
def test_who_is_silent_is_closed_and_comes_back(kind: str) -> None:
    async def scene(stage: Stage, ann: Peer) -> None:
        await ann.connect(heartbeat=25)
        await ann.join("ann")
        await ann.until(lambda p: p.statuses.count("SUBSCRIBED") >= 2, "is back")
        assert ann.closed[0] == (
            1002 if kind == "phoenix.js" else 1000
        )  # as Bandit, and as Supabase's Cowboy
        assert ann.statuses[:3] == ["SUBSCRIBED", "CHANNEL_ERROR", "SUBSCRIBED"]

    play(scene, [kind], HubConfig(idle_timeout=0.5), connect=False)


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("kind", ["realtime-js", "PyPI"])
def test_a_wrong_api_key_is_refused(kind: str) -> None:
    async def scene(stage: Stage, ann: Peer) -> None:
        if isinstance(ann, SupabaseJsPeer):
            await ann.open(apikey="wrong", heartbeat=25_000)
            await ann.do("connect")
            await ann.until(lambda p: p.closed, "notices")
            assert ann.closed[0] == 1006  # all that the API of browsers tells
        else:
            client = realtime.AsyncRealtimeClient(ann.url, token="wrong", max_retries=1)
            with pytest.raises(InvalidStatus, match="401"):
                await client.connect()
        assert [type(event) for event in stage.events[:1]] == [ClientRefused]
        assert ann.opened == 0

    play(scene, [kind], HubConfig(api_keys=frozenset({API_KEY})), connect=False)


def only(good: str, asked: list[str | None] | None = None) -> Callable[[str, str | None], str | None]:
    """A rule that lets in who has the good token."""

    def authorize(topic: str, token: str | None) -> str | None:
        if asked is not None:
            asked.append(token)
        return None if token == good else "Unauthorized: this token will not do"

    return authorize


@pytest.mark.parametrize("kind", SUPABASE)
def test_who_is_refused_gets_in_with_a_better_token(kind: str) -> None:
    async def scene(stage: Stage, ann: Peer) -> None:
        await ann.connect(token="bad")
        await ann.ask_to_join("ann")
        await ann.until(lambda p: p.statuses, "is answered")
        assert ann.statuses == ["CHANNEL_ERROR"]
        assert "this token will not do" in str(ann.details[0])
        await ann.set_token("good")
        if kind.startswith("ours"):  # who joins ours and is refused has to ask again
            await ann.ask_to_join("ann")
        await ann.until(lambda p: p.is_in, "gets in")
        await ann.track({"in": True})
        await all_see(stage, ann, keys=["ann"])

    play(scene, [kind], HubConfig(authorize=only("good")), connect=False)


@pytest.mark.parametrize("kind", SUPABASE)
def test_a_new_token_reaches_the_hub_and_a_bad_one_ends_the_channel(kind: str) -> None:
    asked: list[str | None] = []

    async def scene(stage: Stage, ann: Peer) -> None:
        await ann.connect(token="good")
        await ann.join("ann")
        await ann.track({"in": True})
        await ann.set_token("bad")
        await ann.until(lambda p: not p.is_in, "is put out")
        await all_see(stage, keys=[], topic=ann.topic)
        assert asked[:2] == ["good", "bad"]
        if isinstance(ann, SupabaseJsPeer):
            assert ann.statuses == ["SUBSCRIBED", "CLOSED"]
            assert [system["status"] for system in ann.systems] == ["error"]
        else:
            assert "this token will not do" in str(ann.details[1])

    play(scene, [kind], HubConfig(authorize=only("good", asked)), connect=False)


def test_realtime_js_asks_its_application_for_tokens() -> None:
    asked: list[str | None] = []

    async def scene(stage: Stage, ann: SupabaseJsPeer) -> None:
        await ann.open(apikey=API_KEY, heartbeat=200, tokens=["first", "second", "third"])
        await ann.do("connect")
        await ann.join("ann")
        await until(lambda: asked[-1:] == ["third"], "the hub sees the third token", ann)
        assert ann.statuses == ["SUBSCRIBED"]

    def note(topic: str, token: str | None) -> None:
        asked.append(token)

    play(scene, ["realtime-js"], HubConfig(authorize=note), connect=False)
