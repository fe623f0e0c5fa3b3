"""The Jarvis JSON protocol over real sockets: clients of the `websockets` package, and ours of Supabase."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect

from presence_adapters.asyncio import PresenceClient
from presence_adapters.server import HubServer
from presence_proto import (
    ActivityChanged,
    Connected,
    GameInvite,
    HubConfig,
    Identity,
    Poked,
    PresenceConfig,
    UserOffline,
    UserOnline,
    UserStatus,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


class Jarvis:
    """A client on the `websockets` package, one line for each thing that the protocol has."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    @classmethod
    async def connect(cls, server: HubServer, user_id: str) -> Jarvis:
        client = cls(await connect(f"{server.url}/"))
        await client.say("connect", user_id=user_id, display_name=user_id.title(), version="1")
        return client

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next message, which is of this type."""
        message: dict[str, Any] = json.loads(await self.socket.recv())
        assert message["type"] == kind, message
        return message


def test_a_session_of_two() -> None:
    async def main() -> None:
        async with HubServer(HubConfig(offline_grace=0.2, presence_window=0)) as server:
            ann = await Jarvis.connect(server, "ann")
            assert (await ann.hear("welcome"))["users"] == []
            bob = await Jarvis.connect(server, "bob")
            assert [user["user_id"] for user in (await bob.hear("welcome"))["users"]] == ["ann"]
            came = datetime.fromisoformat((await ann.hear("user_online"))["ts"])
            assert abs(datetime.now(UTC) - came) < timedelta(minutes=1)
            await ann.say("activity_update", status="in_game", activity="Snake")
            assert (await bob.hear("activity_changed"))["activity"] == "Snake"
            await bob.say("game_invite", game="snake", code="XY")
            assert (await bob.hear("invite_sent"))["sent_to"] == ["Ann"]
            assert (await ann.hear("game_invite"))["code"] == "XY"
            await bob.say("poke", target_user_id="ann")
            assert (await ann.hear("poke"))["display_name"] == "Bob"
            await ann.socket.send("{")
            await ann.hear("error")
            await ann.say("ping")
            assert (await ann.hear("pong"))["online_count"] == 2

            bob.socket.transport.abort()
            again = await Jarvis.connect(server, "bob")
            await again.hear("welcome")
            await asyncio.sleep(0.4)
            await again.say("disconnect")
            await again.socket.wait_closed()
            assert again.socket.close_code == 1000
            assert (await ann.hear("user_offline"))["user_id"] == "bob"
        await ann.socket.wait_closed()
        assert ann.socket.close_code == 1012

    run(main)


def test_our_client_on_supabase_channels_meets_them() -> None:
    async def main() -> None:
        config = HubConfig(offline_grace=0.1)
        async with HubServer(config) as server:
            ann = await Jarvis.connect(server, "ann")
            await ann.hear("welcome")
            options = PresenceConfig(server_url=server.url)
            async with PresenceClient(Identity("sue", "Sue"), options) as sue:

                async def event(kind: type[Any]) -> Any:
                    one = await anext(aiter(sue))
                    assert type(one) is kind, one
                    return one

                assert (await event(Connected)).online_count == 2
                assert (await ann.hear("user_online"))["display_name"] == "Sue"
                await sue.update_activity(UserStatus.IN_GAME, "Chess")
                assert (await ann.hear("activity_changed"))["activity"] == "Chess"
                await sue.send_invite("chess", "C")
                assert (await ann.hear("game_invite"))["user_id"] == "sue"
                await sue.send_poke("ann")
                await ann.hear("poke")

                await ann.say("activity_update", status="away", activity=None)
                assert (await event(ActivityChanged)).user.status is UserStatus.AWAY
                await ann.say("game_invite", game="go")
                assert (await event(GameInvite)).game == "go"
                assert (await ann.hear("invite_sent"))["sent_to"] == ["Sue"]
                await ann.say("poke", target_user_id="sue")
                assert (await event(Poked)).user_id == "ann"
                await ann.socket.close()
                assert (await event(UserOffline)).user.user_id == "ann"
                bob = await Jarvis.connect(server, "bob")
                assert (await event(UserOnline)).user.user_id == "bob"
                assert len((await bob.hear("welcome"))["users"]) == 1
            assert (await bob.hear("user_offline"))["user_id"] == "sue"

    run(main)
