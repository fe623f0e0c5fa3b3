"""Our client on the Jarvis JSON protocol, and others' programs that speak it, over real sockets.

The server and the client here are written from the protocol's description, on the `websockets` package:
nothing of ours is in them.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from adapters.fakes import until
from presence_adapters.asyncio import PresenceClient
from presence_adapters.server import HubServer
from presence_proto import (
    ActivityChanged,
    Connected,
    Disconnected,
    Error,
    GameInvite,
    HubConfig,
    Identity,
    InviteSent,
    Poked,
    PresenceConfig,
    UserOffline,
    UserOnline,
    UserStatus,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from websockets.http11 import Request, Response

pytestmark = pytest.mark.long

E = TypeVar("E")


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


# ---------------------------------------------------------------------------------------------- the server


class JarvisServer:
    """Version 1 of the protocol. One connection a user; the latest one counts."""

    def __init__(self) -> None:
        self.grace = 10.0  # seconds
        self.people: dict[str, dict[str, Any]] = {}  # as in a welcome
        self.sockets: dict[str, ServerConnection] = {}
        self.handshakes = 0
        self.pings = 0
        self.closed_for_repairs = False
        self._graces: dict[str, asyncio.TimerHandle] = {}
        self._server: Server

    async def __aenter__(self) -> Self:
        self._server = await serve(self._serve, "127.0.0.1", 0, process_request=self._admit)
        return self

    async def __aexit__(self, *error: object) -> None:
        for grace in self._graces.values():
            grace.cancel()
        self._server.close()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    def client(self, user_id: str, **settings: Any) -> PresenceClient:
        config = PresenceConfig(
            server_url=f"ws://127.0.0.1:{self.port}/presence",
            protocol="jarvis",
            **{"reconnect_delay": 0.05, "max_reconnect_delay": 0.1, **settings},
        )
        return PresenceClient(Identity(user_id, user_id.title()), config)

    def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        self.handshakes += 1
        if self.closed_for_repairs:
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "closed for repairs\n")
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        user_id = ""
        try:
            async for text in socket:
                assert isinstance(text, str)
                message = json.loads(text)
                if message["type"] == "connect":
                    assert message["version"] == "1"
                    user_id = message["user_id"]
                    self._arrive(user_id, message["display_name"], socket)
                elif message["type"] == "disconnect":
                    break
                else:
                    self._on_message(self.people[user_id], message)
        except ConnectionClosed:
            pass
        if self.sockets.get(user_id) is socket:
            del self.sockets[user_id]
            loop = asyncio.get_running_loop()
            self._graces[user_id] = loop.call_later(self.grace, self._leave, user_id)

    def _arrive(self, user_id: str, display_name: str, socket: ServerConnection) -> None:
        self.sockets[user_id] = socket
        if user_id in self._graces:
            self._graces.pop(user_id).cancel()
        if user_id not in self.people:
            person = {"user_id": user_id, "display_name": display_name, "status": "online", "activity": None}
            self.people[user_id] = person
            self._tell_others(person, "user_online")
        users = [person for key, person in self.people.items() if key != user_id]
        self._tell(user_id, {"type": "welcome", "your_id": user_id, "users": users})

    def _leave(self, user_id: str) -> None:
        del self._graces[user_id]
        self._tell_others(self.people.pop(user_id), "user_offline")

    def _on_message(self, sender: dict[str, Any], message: dict[str, Any]) -> None:
        user_id = sender["user_id"]
        match message["type"]:
            case "ping":
                self.pings += 1
                self._tell(user_id, {"type": "pong", "online_count": len(self.people)})
            case "activity_update":
                sender |= {"status": message["status"], "activity": message["activity"]}
                told = {"status": sender["status"], "activity": sender["activity"]}
                self._tell_others(sender, "activity_changed", **told)
            case "game_invite":
                invite = {"game": message["game"], "code": message["code"]}
                self._tell_others(sender, "game_invite", **invite)
                others = [person for key, person in self.people.items() if key != user_id]
                names = [person["display_name"] for person in others]
                self._tell(user_id, {"type": "invite_sent", **invite, "sent_to": names})
            case "poke":
                self._tell(message["target_user_id"], self._from(sender, "poke"))
            case kind:
                raise AssertionError(kind)

    def _from(self, sender: dict[str, Any], kind: str) -> dict[str, Any]:
        who = {"user_id": sender["user_id"], "display_name": sender["display_name"]}
        return {"type": kind, **who, "ts": "2024-05-06T12:00:00"}

    def _tell_others(self, sender: dict[str, Any], kind: str, **fields: Any) -> None:
        for user_id in self.sockets:
            if user_id != sender["user_id"]:
                self._tell(user_id, {**self._from(sender, kind), **fields})

    def _tell(self, user_id: str, message: dict[str, Any]) -> None:
        if user_id in self.sockets:
            broadcast([self.sockets[user_id]], json.dumps(message))


async def event(client: PresenceClient, kind: type[E]) -> E:
    """The next event, which is of this kind."""
    one = await anext(aiter(client))
    assert isinstance(one, kind), one
    return one


async def back(client: PresenceClient) -> list[Any]:
    """The events up to the next `Connected`, this one included."""
    events: list[Any] = []
    while not events or not isinstance(events[-1], Connected):
        events.append(await anext(aiter(client)))
    return events


def test_two_of_ours_on_a_server_of_others() -> None:
    async def main() -> None:
        async with JarvisServer() as server, server.client("ann", heartbeat_interval=0.1) as ann:
            assert (await event(ann, Connected)).online_count == 1
            async with server.client("bob") as bob:
                assert [user.display_name for user in (await event(bob, Connected)).users] == ["Bob", "Ann"]
                assert (await event(ann, UserOnline)).user.online_at == "2024-05-06T12:00:00"

                await bob.update_activity(UserStatus.IN_GAME, "Snake")
                changed = await event(ann, ActivityChanged)
                assert (changed.user.status, changed.user.activity) == (UserStatus.IN_GAME, "Snake")
                await ann.send_poke("bob")
                assert (await event(bob, Poked)).user_id == "ann"
                with_code, without = await ann.send_invite("Snake", "XY"), await ann.send_invite("Chess")
                assert (await event(bob, GameInvite)).code == "XY"
                assert (await event(bob, GameInvite)).code is None
                assert await event(ann, InviteSent) == InviteSent(with_code, ("Bob",))
                assert await event(ann, InviteSent) == InviteSent(without, ("Bob",))

                server.sockets["bob"].transport.abort()
                lost, again = await back(bob)
                assert isinstance(lost, Disconnected)
                assert (again.resumed, again.online_count) == (True, 2)
                await bob.send_poke("ann")
                assert (await event(ann, Poked)).user_id == "bob"  # and nothing else was to be seen of it

                server.grace, server.closed_for_repairs = 0.1, True
                handshakes = server.handshakes
                server.sockets["bob"].transport.abort()
                assert (await event(ann, UserOffline)).user.activity == "Snake"
                await until(lambda: server.handshakes > handshakes)
                server.closed_for_repairs = False
                *lost, again = await back(bob)
                assert "HTTP 503 closed for repairs" in lost[-1].reason
                assert again.online_count == 2
                await event(ann, UserOnline)
                assert (await event(ann, ActivityChanged)).user.activity == "Snake"
            assert (await event(bob, Disconnected)).retry_in is None
            await event(ann, UserOffline)
            assert ann.online_count == 1
            assert server.pings > 0

    run(main)


def test_a_server_that_closes_politely_is_not_stormed() -> None:
    async def main() -> None:
        async with JarvisServer() as server, server.client("ann", max_reconnect_delay=1.0) as ann:
            await event(ann, Connected)
            for attempt in range(1, 4):
                await server.sockets["ann"].close(1000)
                lost, again = await back(ann)
                assert lost.reason == "the server closed the connection with code 1000"
                assert lost.retry_in >= 0.05 * 2 ** (attempt - 1) * 0.75
                assert again.resumed
                assert server.handshakes == attempt + 1

    run(main)


def test_a_server_that_refuses_the_first_handshakes() -> None:
    async def main() -> None:
        async with JarvisServer() as server:
            server.closed_for_repairs = True
            async with server.client("ann") as ann:
                assert "HTTP 503" in (await event(ann, Disconnected)).reason
                await ann.update_activity(UserStatus.AWAY)
                await ann.send_poke("ann")  # waits
                server.closed_for_repairs = False
                assert (await back(ann))[-1].online_count == 1
                await event(ann, Poked)
                assert server.people["ann"]["status"] == "away"

    run(main)


# ---------------------------------------------------------------------------------------------- the client


class Stranger:
    """A client of the protocol, in as few lines as it takes."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    @classmethod
    async def connect(cls, server: HubServer, user_id: str) -> Stranger:
        stranger = cls(await connect(f"{server.url}/any/path"))
        await stranger.say("connect", user_id=user_id, display_name=user_id.title(), version="1")
        return stranger

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next message, which is of this type."""
        message: dict[str, Any] = json.loads(await self.socket.recv())
        assert message["type"] == kind, message
        return message


def test_three_kinds_of_clients_in_a_room_of_ours() -> None:
    """A stranger, our client on its protocol, and our client on Supabase channels."""

    async def main() -> None:
        async with HubServer(HubConfig(offline_grace=1.0, presence_window=0)) as server:
            zoe = await Stranger.connect(server, "zoe")
            assert (await zoe.hear("welcome"))["users"] == []
            config = PresenceConfig(server_url=server.url, protocol="jarvis", heartbeat_interval=0.1)
            async with PresenceClient(Identity("jay", "Jay"), config) as jay:
                assert (await event(jay, Connected)).online_count == 2
                assert (await zoe.hear("user_online"))["user_id"] == "jay"
                config = PresenceConfig(server_url=server.url, reconnect_delay=0.05)
                async with PresenceClient(Identity("sue", "Sue"), config) as sue:
                    users = (await event(sue, Connected)).users
                    assert {user.user_id for user in users} == {"sue", "zoe", "jay"}
                    assert (await event(jay, UserOnline)).user.display_name == "Sue"
                    assert (await zoe.hear("user_online"))["user_id"] == "sue"

                    # Everybody does something, and the two others see it.
                    await zoe.say("activity_update", status="idle", activity="tea")
                    await jay.update_activity(UserStatus.IN_GAME, "Snake")
                    await sue.update_activity(UserStatus.AWAY)
                    changes = {"zoe": ("idle", "tea"), "jay": ("in_game", "Snake"), "sue": ("away", None)}
                    seen: dict[str, Any] = {"zoe": {}, "jay": {}, "sue": {}}
                    for _ in range(2):
                        told = await zoe.hear("activity_changed")
                        seen["zoe"][told["user_id"]] = told["status"], told["activity"]
                        for client in (jay, sue):
                            user = (await event(client, ActivityChanged)).user
                            seen[client.identity.user_id][user.user_id] = user.status, user.activity
                    for user_id, others in seen.items():
                        assert others == {key: change for key, change in changes.items() if key != user_id}

                    invite = await jay.send_invite("Snake", "XY")
                    receipt = await event(jay, InviteSent)
                    assert (receipt.command_id, set(receipt.sent_to)) == (invite, {"Zoe", "Sue"})
                    assert (await zoe.hear("game_invite"))["display_name"] == "Jay"
                    assert (await event(sue, GameInvite)).code == "XY"
                    await sue.send_invite("Chess")
                    assert (await zoe.hear("game_invite"))["game"] == "Chess"
                    assert (await event(jay, GameInvite)).user_id == "sue"
                    await zoe.say("poke", target_user_id="jay")
                    assert (await event(jay, Poked)).user_id == "zoe"
                    await jay.send_poke("sue")
                    assert (await event(sue, Poked)).user_id == "jay"
                    await sue.send_poke("zoe")
                    assert (await zoe.hear("poke"))["user_id"] == "sue"

                    # A stranger's connection is lost, and it comes back in time: nobody is told.
                    zoe.socket.transport.abort()
                    zoe = await Stranger.connect(server, "zoe")
                    assert len((await zoe.hear("welcome"))["users"]) == 2
                    await zoe.say("ping")
                    assert (await zoe.hear("pong"))["online_count"] == 3
                    await asyncio.sleep(1.5)
                assert (await event(jay, UserOffline)).user.user_id == "sue"
                assert (await zoe.hear("user_offline"))["user_id"] == "sue"
                await zoe.say("disconnect")
                assert (await event(jay, UserOffline)).user.user_id == "zoe"
                await zoe.socket.wait_closed()
            assert not [one async for one in jay if isinstance(one, Error)]

    run(main)
