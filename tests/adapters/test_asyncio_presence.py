"""`PresenceClient` on asyncio, over real sockets against the hub: the room, coming back, slow consumers."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from adapters.fakes import Certificates, run, until
from adapters.room import client, config, next_of, rest_of
from presence_adapters.asyncio import ConnectError, EventsDropped, PresenceClient
from presence_adapters.server import HubServer
from presence_proto import (
    ActivityChanged,
    ChatMessage,
    Connected,
    Disconnected,
    Error,
    GameInvite,
    HubConfig,
    Identity,
    Poked,
    PresenceConfig,
    UserOffline,
    UserOnline,
    UserStatus,
)


def test_two_people_see_each_other_come_act_and_go() -> None:
    async def main() -> None:
        async with HubServer() as server, client(server, "alice") as alice:
            assert alice.identity == Identity("alice", "Alice")
            assert not alice.is_connected
            assert alice.is_stale
            connected = await next_of(alice, Connected)
            assert (connected.online_count, connected.resumed) == (1, False)
            assert connected.users[0].online_at is not None
            async with client(server, "bob") as bob:
                await next_of(alice, UserOnline)
                await next_of(bob, Connected)
                await bob.update_activity(UserStatus.IN_GAME, "Playing Snake")
                changed = await next_of(alice, ActivityChanged)
                assert (changed.user.status, changed.user.activity) == (UserStatus.IN_GAME, "Playing Snake")
                first = await bob.send_poke("alice")
                second = await bob.send_invite("Snake", "1234")
                third = await bob.send_chat("lobby", "hello", reply_to="m1")
                assert first < second < third
                assert bob.pending_commands <= {first, second, third} | set(range(first))
                assert bob.server_count is None
                assert (await next_of(alice, Poked)).user_id == "bob"
                assert (await next_of(alice, GameInvite)).code == "1234"
                chat = await next_of(alice, ChatMessage)
                assert (chat.channel, chat.content, chat.reply_to) == ("lobby", "hello", "m1")
                assert chat.timestamp is not None
                assert chat.timestamp.endswith("Z")
                assert [user.user_id for user in alice.online_users] == ["alice", "bob"]
                assert alice.online_count == 2
                assert alice.is_connected
                assert not alice.is_stale
                assert not alice.pending_commands
            assert (await next_of(alice, UserOffline)).user.user_id == "bob"
            assert alice.online_count == 1

    run(main)


def test_every_time_of_day_in_a_room_is_spelled_alike() -> None:
    """`online_at` of a Phoenix client is its own clock's, `ts` and `online_at` of a Jarvis user the hub's."""

    async def main() -> None:
        async with HubServer() as server, client(server, "alice") as alice:
            await next_of(alice, Connected)
            jarvis = PresenceClient(Identity("jay", "Jay"), PresenceConfig(server_url=server.url))
            async with jarvis:
                told = await next_of(jarvis, Connected)
                came = (await next_of(alice, UserOnline)).user
            times = [user.online_at for user in (*told.users, *alice.online_users, came)]
        assert len({user.user_id for user in told.users}) == 2
        for time in times:
            assert time is not None
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time), times

    run(main)


def test_a_lost_connection_comes_back() -> None:
    async def main() -> None:
        async with HubServer() as server, client(server, "alice") as alice, client(server, "bob") as bob:
            await next_of(alice, Connected)
            await until(lambda: bob.online_count == alice.online_count == 2)
            await alice.update_activity(UserStatus.AWAY, "Lunch")
            server.cut(server.hub.connections[0], reset=True)
            lost = await next_of(alice, Disconnected)
            assert lost.reason == "the connection was lost (connection reset by peer)"
            assert lost.retry_in is not None
            assert alice.is_stale
            assert alice.online_count == 2
            again = await next_of(alice, Connected)
            assert again.resumed
            assert {user.user_id for user in again.users} == {"alice", "bob"}
            await until(lambda: {user.activity for user in bob.online_users} == {"Lunch", None})

    run(main)


def test_a_restarted_hub_is_found_again() -> None:
    async def main() -> None:
        first = HubServer()
        await first.start()
        async with client(first, "alice") as alice:
            await next_of(alice, Connected)
            await first.abort()
            assert (await next_of(alice, Disconnected)).retry_in is not None
            async with HubServer(port=first.port) as second:
                assert (await next_of(alice, Connected)).resumed
                await second.close()
                assert "1012" in (await next_of(alice, Disconnected)).reason
                async with HubServer(port=first.port):
                    assert (await next_of(alice, Connected)).resumed

    run(main)


def test_the_iteration_ends_when_everything_was_delivered() -> None:
    async def main() -> None:
        async with HubServer() as server, client(server, "alice") as alice:
            await until(lambda: alice.is_connected)
            await alice.disconnect()
            await alice.disconnect()
            assert server.hub.connections == ()
            assert [type(event) for event in await rest_of(alice)] == [Connected, Disconnected]
            for late in (lambda: rest_of(alice), lambda: alice.send_poke("bob"), alice.wait_connected):
                with pytest.raises(ConnectError, match=r"ended \(disconnect was called\): create a new one"):
                    await late()

    run(main)


def test_a_refusal_for_good_ends_it() -> None:
    async def main() -> None:
        async with (
            HubServer(HubConfig(api_keys=frozenset({"right"}))) as server,
            client(server, "alice", api_key="wrong-key") as alice,
        ):
            waiting = asyncio.create_task(alice.wait_connected())
            events: list[Any] = []
            for _ in range(2):
                with pytest.raises(ConnectError, match="HTTP 401") as refused:
                    while True:
                        events.append(await anext(alice))
            assert [type(event) for event in events] == [Disconnected, Error]
            assert events[-1].fatal
            assert "wrong-key" not in repr((events, refused.value))
            with pytest.raises(ConnectError, match=r"^the server refused.*HTTP 401"):
                await waiting
            for late in (lambda: rest_of(alice), lambda: alice.update_activity(UserStatus.AWAY)):
                with pytest.raises(ConnectError, match=r"ended \(.*HTTP 401.*\): create a new one") as caught:
                    await late()
                assert caught.value.__cause__ is refused.value

    run(main)


def test_an_access_token_can_be_changed() -> None:
    async def main() -> None:
        tokens: list[str | None] = []

        def authorize(topic: str, token: str | None) -> str | None:
            tokens.append(token)
            return None

        async with (
            HubServer(HubConfig(authorize=authorize)) as server,
            client(server, "alice", access_token="one") as alice,
        ):
            await next_of(alice, Connected)
            await alice.set_access_token("two")
            await until(lambda: tokens == ["one", "two"])

    run(main)


# ---------------------------------------------------------------------------------------------- slowness


def test_a_slow_consumer_is_told_what_it_missed() -> None:
    async def main() -> None:
        async with HubServer() as server:
            slow = PresenceClient(
                Identity("slow", "Slow"),
                config(server, heartbeat_interval=0.05, heartbeat_timeout=0.05),
                max_queued_events=5,
            )
            async with slow, client(server, "chatty") as chatty:
                await next_of(chatty, Connected)
                for n in range(50):
                    await chatty.send_chat("lobby", str(n))
                await chatty.update_activity(UserStatus.IN_SKILL)
                await asyncio.sleep(0.3)  # several heartbeats
                dropped = await next_of(slow, EventsDropped)
                assert dropped.count >= 46
                rest = [await next_of(slow, ChatMessage) for _ in range(4)]
                assert [event.content for event in rest] == ["46", "47", "48", "49"]
                assert [user.status for user in slow.online_users] == [UserStatus.ONLINE, UserStatus.IN_SKILL]
                assert slow.is_connected

    run(main)


def test_a_command_waits_for_a_full_write_buffer_and_is_not_made_when_cancelled() -> None:
    async def main() -> None:
        async with HubServer() as server, client(server, "alice") as alice, client(server, "bob") as bob:
            await next_of(alice, Connected)
            await next_of(bob, Connected)
            driver = alice._driver
            driver.room.clear()  # as the transport's pause_writing does
            cancelled = asyncio.create_task(alice.send_chat("lobby", "never"))
            waiting = asyncio.create_task(alice.send_chat("lobby", "now"))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            cancelled.cancel()
            await asyncio.sleep(0)
            driver.room.set()
            await waiting
            assert (await next_of(bob, ChatMessage)).content == "now"

    run(main)


def test_a_command_that_finds_no_room_again_waits_again() -> None:
    async def main() -> None:
        async with HubServer() as server, client(server, "alice") as alice:
            await next_of(alice, Connected)
            room = alice._driver.room
            room.clear()
            waiting = asyncio.create_task(alice.send_chat("lobby", "now"))
            await asyncio.sleep(0)
            room.set()
            room.clear()  # another command was faster
            await asyncio.sleep(0.02)
            assert not waiting.done()
            room.set()
            await waiting

    run(main)


def test_two_consumers_share_the_events() -> None:
    async def main() -> None:
        async with HubServer() as server, client(server, "alice") as alice, client(server, "bob") as bob:
            await next_of(alice, Connected)
            await next_of(bob, Connected)
            heard: tuple[list[str], list[str]] = ([], [])

            async def consume(contents: list[str]) -> None:
                async for event in alice:
                    if isinstance(event, ChatMessage):
                        contents.append(event.content)

            consumers = [asyncio.create_task(consume(contents)) for contents in heard]
            sent = [str(n) for n in range(40)]
            for content in sent:
                await bob.send_chat("lobby", content)
                await asyncio.sleep(0)
            await until(lambda: len(heard[0]) + len(heard[1]) == 40)
            assert sorted(heard[0] + heard[1], key=int) == sent
            await alice.disconnect()
            await asyncio.gather(*consumers)

    run(main)


# ---------------------------------------------------------------------------------------------- TLS


def test_tls_is_verified() -> None:
    async def main() -> None:
        certificates = Certificates()
        async with HubServer(ssl_context=certificates.server) as server:
            assert server.url.startswith("wss://")
            async with client(server, "alice", ssl_context=certificates.client) as alice:
                assert (await next_of(alice, Connected)).online_count == 1
            async with client(server, "mallory") as mallory:
                lost = await next_of(mallory, Disconnected)
                assert "certificate" in lost.reason
                assert "not trusted" in lost.reason
                assert lost.retry_in is not None

    run(main)
