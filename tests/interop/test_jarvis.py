"""Our `PresenceClient` in one room with clients of Supabase's own that speak its protocol by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interop.own_clients import Jarvis
from interop.peers import until
from interop.stage import all_see, play
from presence_proto import (
    ActivityChanged,
    ChatMessage,
    Connected,
    Disconnected,
    GameInvite,
    OnlineUser,
    Poked,
    UserOffline,
    UserOnline,
    UserStatus,
)

if TYPE_CHECKING:
    from interop.peers import Peer
    from interop.stage import Stage

pytestmark = [
    pytest.mark.interop,
    pytest.mark.long,
    # The client from PyPI reads these attributes of websockets when it loses a connection.
    pytest.mark.filterwarnings(r"ignore:ConnectionClosed\.(code|reason) is deprecated:DeprecationWarning"),
]

every_client = pytest.mark.parametrize("kind", ["realtime-js", "realtime-js V1", "PyPI"])

TOPIC = "realtime:jarvis-presence"
WHEN = "2026-01-02T03:04:05Z"


def meta(name: str, status: str = "online", activity: str | None = None) -> dict[str, Any]:
    return {
        "user_id": name,
        "display_name": name.title(),
        "status": status,
        "activity": activity,
        "online_at": WHEN,
    }


def user(name: str, status: UserStatus = UserStatus.ONLINE, activity: str | None = None) -> OnlineUser:
    return OnlineUser(name, name.title(), status, activity, WHEN)


@every_client
def test_what_an_official_client_does_is_an_event_of_ours(kind: str) -> None:
    async def scene(stage: Stage, bob: Peer) -> None:
        bob.topic = TOPIC
        async with Jarvis("ann", bob.url, online_at=WHEN) as ann:
            assert await ann.next() == Connected(1, (user("ann"),), resumed=False)
            await bob.join("bob", ack=True)
            await bob.track(meta("bob"))
            assert await ann.next() == UserOnline(user("bob"))
            assert ann.client.online_users == (user("ann"), user("bob"))

            # The broadcast and the track that says the same are one event.
            claim = {"user_id": "bob", "display_name": "Bob", "status": "in_game", "activity": "Snake"}
            assert await bob.say("activity_update", claim) == "ok"
            await bob.track(meta("bob", "in_game", "Snake"))
            playing = user("bob", UserStatus.IN_GAME, "Snake")
            assert await ann.next() == ActivityChanged(playing, user("bob"))

            sender = {"user_id": "bob", "display_name": "Bob"}
            await bob.say("poke", {**sender, "target_user_id": "carol"})
            await bob.say("poke", {**sender, "target_user_id": "ann", "with": "a stick"})
            assert await ann.next() == Poked("bob", "Bob", {"with": "a stick"})
            await bob.say("game_invite", {**sender, "game": "Snake", "code": "4711"})
            assert await ann.next() == GameInvite("bob", "Bob", "Snake", "4711")
            said = {"channel": "general", "content": "héllo 🎈", "timestamp": WHEN, "reply_to": "m1"}
            await bob.say("chat_message", {**sender, **said})
            assert await ann.next() == ChatMessage("bob", "Bob", "general", "héllo 🎈", WHEN, "m1")

            await bob.untrack()
            assert await ann.next() == UserOffline(playing)
            assert ann.client.online_count == 1
        assert ann.left_over() == [Disconnected("disconnect was called", None)]

    play(scene, [kind])


@every_client
def test_what_we_do_an_official_client_sees(kind: str) -> None:
    async def scene(stage: Stage, bob: Peer) -> None:
        bob.topic = TOPIC
        await bob.join("bob")
        await bob.track(meta("bob"))
        async with Jarvis("ann", bob.url, online_at=WHEN) as ann:
            assert await ann.next() == Connected(2, (user("ann"), user("bob")), resumed=False)
            await all_see(stage, bob, keys=["ann", "bob"])
            [seen] = bob.roster["ann"]
            assert seen == {**meta("ann"), "ref": seen["ref"]}

            flips = list(bob.flips)
            await ann.client.update_activity(UserStatus.IN_SKILL, "Writing")
            await bob.until(lambda p: p.roster["ann"][-1]["activity"] == "Writing", "sees the track")
            assert bob.flips == flips
            assert [len(metas) for metas in bob.roster.values()] == [1, 1]
            await ann.client.send_poke("bob")
            await ann.client.send_invite("Snake", "4711")
            await ann.client.send_chat("general", "héllo 🎈", "m1")
            await bob.until(lambda p: len(p.heard) == 4, "hears all four")
            sender = {"user_id": "ann", "display_name": "Ann"}
            chat = bob.heard.pop()
            assert bob.heard == [
                ("activity_update", {**sender, "status": "in_skill", "activity": "Writing"}),
                ("poke", {**sender, "target_user_id": "bob"}),
                ("game_invite", {**sender, "game": "Snake", "code": "4711"}),
            ]
            assert chat[0] == "chat_message"
            assert chat[1].pop("timestamp").endswith("Z")
            assert chat[1] == {**sender, "channel": "general", "content": "héllo 🎈", "reply_to": "m1"}
        await all_see(stage, bob, keys=["bob"])
        assert bob.flips[-1] == ("offline", "ann")

    play(scene, [kind])


@every_client
@pytest.mark.parametrize("abruptly", [True, False], ids=["killed", "stopped"])
def test_both_are_back_after_the_hub_was_gone(kind: str, abruptly: bool) -> None:
    async def scene(stage: Stage, bob: Peer) -> None:
        bob.topic = TOPIC
        await bob.join("bob")
        await bob.track(meta("bob"))
        async with Jarvis("ann", bob.url, online_at=WHEN) as ann:
            assert await ann.next() == Connected(2, (user("ann"), user("bob")), resumed=False)
            await stage.stop(abruptly=abruptly)
            assert type(await ann.next()) is Disconnected
            assert ann.client.is_stale
            assert ann.client.online_users == (user("ann"), user("bob"))  # nobody flickers
            await ann.client.update_activity(UserStatus.AWAY, "waiting")
            await stage.restart()
            away = user("ann", UserStatus.AWAY, "waiting")
            everybody = (away, user("bob"))
            await until(
                lambda: ann.client.is_connected and ann.client.online_users == everybody, "both are back", bob
            )
            await all_see(stage, bob, keys=["ann", "bob"])
            assert bob.roster["ann"][0]["activity"] == "waiting"
            happened = [event for event in ann.left_over() if type(event) is not Disconnected]
            # Bob may be back before us. If not he was truly gone when we came.
            resumed, *rest = happened
            assert type(resumed) is Connected
            assert resumed.resumed
            assert rest in ([], [UserOffline(user("bob")), UserOnline(user("bob"))])

    play(scene, [kind])
