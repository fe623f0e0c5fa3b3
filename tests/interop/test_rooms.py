"""The same scenes with every pair of clients: official ones with ours, and with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interop.peers import until
from interop.stage import all_see, play
from presence_proto import HubConfig

if TYPE_CHECKING:
    from interop.peers import Peer
    from interop.stage import Stage

pytestmark = [pytest.mark.interop, pytest.mark.long]

SUPABASE_PAIRS = [
    ("realtime-js", "ours"),
    ("realtime-js V1", "ours"),
    ("realtime-js", "ours V1"),
    ("PyPI", "ours"),
    ("PyPI", "ours V1"),
    ("realtime-js", "PyPI"),
    ("realtime-js", "realtime-js V1"),
]
PLAIN_PAIRS = [
    ("phoenix.js", "ours (plain)"),
    ("phoenix.js V1", "ours (plain)"),
    ("phoenix.js", "ours (plain, V1)"),
    ("phoenix.js", "phoenix.js V1"),
]
PAIRS = SUPABASE_PAIRS + PLAIN_PAIRS

HAPPY = {"mood": "happy", "näme": "Ann ✨", "deep": {"list": [1, 2.5, None, True, "x"], "empty": {}}}
BUSY = {"mood": "busy", "phx": "no ref of ours"}


def pairs(*of: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kinds", of, ids=" and ".join)


@pytest.mark.parametrize(
    ("kinds", "window"),
    [
        *((kinds, 0.0) for kinds in PAIRS),
        (("realtime-js", "PyPI"), 0.03),
        (("PyPI", "ours"), 0.03),
        (("phoenix.js", "ours (plain)"), 0.03),
    ],
    ids=str,
)
def test_who_comes_changes_and_goes_is_seen_so_by_all(kinds: tuple[str, str], window: float) -> None:
    """`window`: for which time the hub collects diffs."""

    async def scene(stage: Stage, ann: Peer, bob: Peer) -> None:
        await ann.join("ann 🎈")
        await ann.track(HAPPY)
        await all_see(stage, ann, keys=["ann 🎈"])
        await bob.join("bob")
        await bob.track({"mood": "new"})
        await all_see(stage, ann, bob, keys=["ann 🎈", "bob"])
        [meta] = bob.roster["ann 🎈"]
        assert {name: meta[name] for name in HAPPY} == HAPPY

        async def update(one: Peer, other: Peer, key: str) -> None:
            """An update is one: nobody goes, nobody comes."""
            flips, syncs = list(other.flips), len(other.syncs)
            await one.track(BUSY)
            await other.until(lambda p: p.roster[key][-1]["mood"] == "busy", "sees the update")
            await all_see(stage, ann, bob, keys=["ann 🎈", "bob"])
            assert len(other.syncs) == syncs + 1
            assert other.flips == flips

        await update(ann, bob, "ann 🎈")
        await update(bob, ann, "bob")

        await ann.untrack()
        await all_see(stage, ann, bob, keys=["bob"])
        await ann.track(HAPPY)
        await all_see(stage, ann, bob, keys=["ann 🎈", "bob"])
        await bob.leave()
        await all_see(stage, ann, keys=["ann 🎈"])
        assert [flip for flip in ann.flips if flip[1] == "bob"] == [("online", "bob"), ("offline", "bob")]
        assert [kind for kind, key in ann.flips if key == "ann 🎈"] == ["online", "offline", "online"]
        assert bob.statuses == ["SUBSCRIBED", "CLOSED"]

        await bob.close()
        await ann.close()
        await until(lambda: not stage.server.hub.connections, "the hub sees both go")

    play(scene, kinds, HubConfig(presence_window=window))


@pairs(*PAIRS)
def test_what_one_says_the_other_hears(kinds: tuple[str, str]) -> None:
    greeting = {"text": "grüß dich 🎈", "n": [1, -2.5, None, {"deep": True}], "": ""}
    long = {"text": "x" * 100_000}

    async def scene(stage: Stage, ann: Peer, bob: Peer) -> None:
        await ann.join("ann", ack=True)
        await bob.join("bob", ack=True)
        for speaker, listener in ((ann, bob), (bob, ann)):
            for payload in (greeting, {}, long):
                assert await speaker.say("gruß", payload) == "ok"
            await listener.until(lambda p: len(p.heard) == 3, "hears all three")
            assert listener.heard == [("gruß", greeting), ("gruß", {}), ("gruß", long)]
            listener.heard.clear()
        assert not ann.heard  # never itself
        assert not bob.heard

        stage.run(stage.server.hub.broadcast, ann.topic, "news", {"from": "the hub"})
        for peer in (ann, bob):
            await peer.until(lambda p: p.heard == [("news", {"from": "the hub"})], "hears the hub")

    play(scene, kinds)


@pairs(*SUPABASE_PAIRS)
def test_who_asks_for_an_echo_and_no_ack_gets_that(kinds: tuple[str, str]) -> None:
    async def scene(stage: Stage, ann: Peer, bob: Peer) -> None:
        await ann.join("ann", echo=True)
        await bob.join("bob", echo=True)
        await ann.say("one", {"n": 1})
        for peer in (ann, bob):
            await peer.until(lambda p: p.heard == [("one", {"n": 1})], "hears it")
        await bob.say("two", {"n": 2})
        for peer in (ann, bob):
            await peer.until(lambda p: p.heard == [("one", {"n": 1}), ("two", {"n": 2})], "hears both")

    play(scene, kinds)


@pairs(("realtime-js", "ours"), ("phoenix.js", "ours (plain)"))
def test_binary_payloads_go_both_ways(kinds: tuple[str, str]) -> None:
    blob = bytes(range(256)) * 300

    async def scene(stage: Stage, ann: Peer, bob: Peer) -> None:
        await ann.join("ann", ack=True)
        await bob.join("bob", ack=True)
        for speaker, listener in ((ann, bob), (bob, ann)):
            assert await speaker.say("blob", blob) == "ok"
            assert await speaker.say("nothing", b"") == "ok"
            await listener.until(lambda p: len(p.heard) == 2, "hears both")
            assert listener.heard == [("blob", blob), ("nothing", b"")]
        stage.run(stage.server.hub.broadcast, ann.topic, "news", b"\0\xff")
        for peer in (ann, bob):
            await peer.until(lambda p: p.heard[-1] == ("news", b"\0\xff"), "hears the hub")

    play(scene, kinds)


@pytest.mark.parametrize("third", ["PyPI", "realtime-js V1", "ours V1"])
def test_v1_clients_are_spared_what_is_binary_and_hear_the_rest(third: str) -> None:
    async def scene(stage: Stage, ann: Peer, bob: Peer, cyd: Peer) -> None:
        for peer in (ann, bob, cyd):
            await peer.join(peer.name)
        await ann.say("blob", b"\0\1\2")
        await ann.say("text", {"from": "ann"})
        await cyd.until(lambda p: len(p.heard) == 1, "hears ann's text")
        await bob.say("blob", b"\0\1\2")
        await bob.say("text", {"from": "bob"})
        await cyd.until(lambda p: len(p.heard) == 2, "hears bob's text")
        assert cyd.heard == [("text", {"from": "ann"}), ("text", {"from": "bob"})]

    play(scene, ["realtime-js", "ours", third])


@pytest.mark.parametrize(
    "kinds",
    [
        ("realtime-js", "ours", "PyPI"),
        ("PyPI", "realtime-js V1", "ours"),
        ("ours", "PyPI", "realtime-js"),
        ("phoenix.js", "ours (plain)", "phoenix.js V1"),
        ("ours (plain)", "phoenix.js", "ours (plain, V1)"),
    ],
    ids=", ".join,
)
def test_two_devices_are_one_user_until_the_last_one_goes(kinds: tuple[str, str, str]) -> None:
    """The first two are devices of one user, whom the third one watches."""

    async def scene(stage: Stage, phone: Peer, tablet: Peer, watcher: Peer) -> None:
        await watcher.join("watcher")
        await watcher.track({"device": "none"})
        for device, name in ((phone, "phone"), (tablet, "tablet")):
            await device.join("user")
            await device.track({"device": name})
            await all_see(stage, device, watcher, keys=["user", "watcher"])
        await all_see(stage, phone, tablet, watcher, keys=["user", "watcher"])
        assert [meta["device"] for meta in watcher.roster["user"]] == ["phone", "tablet"]
        await phone.track({"device": "phone", "again": True})
        await watcher.until(lambda p: p.roster["user"][-1].get("again"), "sees the update")
        assert [meta["device"] for meta in watcher.roster["user"]] == ["tablet", "phone"]
        await all_see(stage, phone, tablet, watcher, keys=["user", "watcher"])
        await phone.close()
        await watcher.until(lambda p: len(p.roster["user"]) == 1, "sees the phone go")
        assert [meta["device"] for meta in watcher.roster["user"]] == ["tablet"]
        await tablet.leave()
        await all_see(stage, watcher, keys=["watcher"])
        assert [kind for kind, key in watcher.flips if key == "user"] == ["online", "offline"]

    play(scene, kinds)


@pairs(("realtime-js", "PyPI"), ("phoenix.js", "ours (plain)"))
def test_all_of_it_compressed(kinds: tuple[str, str]) -> None:
    """ws, websockets and we offer permessage-deflate each in their own way."""

    async def scene(stage: Stage, ann: Peer, bob: Peer) -> None:
        for peer in (ann, bob):
            await peer.join(peer.name, ack=True)
            await peer.track({"padding": "y" * 2000})
        await all_see(stage, ann, bob, keys=["ann", "bob"])
        for number in range(3):
            assert await ann.say("long", {"text": "x" * 20_000, "n": number}) == "ok"
            assert await bob.say("long", {"text": "z" * 20_000, "n": number}) == "ok"
        await until(lambda: len(ann.heard) == len(bob.heard) == 3, "both hear all three", ann, bob)
        assert [payload["n"] for _, payload in ann.heard + bob.heard] == [0, 1, 2, 0, 1, 2]

    play(scene, kinds, HubConfig(deflate=True))
