"""`RealtimeClient` and `Channel` on asyncio, over real sockets against the hub."""

from __future__ import annotations

import asyncio
import random
from typing import Any, TypeVar

import pytest

from adapters.fakes import run, until
from presence_adapters import event_queue
from presence_adapters.asyncio import (
    Channel,
    ConnectError,
    EventsDropped,
    JoinError,
    PushError,
    RealtimeClient,
)
from presence_adapters.server import HubServer
from presence_proto import (
    Broadcast,
    ChannelConfig,
    ChannelDown,
    ChannelJoined,
    ChannelMessage,
    HubConfig,
    LocalProtocolError,
    PresenceDiffed,
    PresenceSynced,
    PushFailed,
    RealtimeConfig,
    SocketConnected,
    SocketDisconnected,
)

E = TypeVar("E")

ACKED = ChannelConfig(broadcast_ack=True, broadcast_self=True)


def realtime(server: HubServer, path: str = "/realtime/v1", **options: Any) -> RealtimeClient:
    config = RealtimeConfig(server_url=f"{server.url}{path}", **{"reconnect_delay": 0.05, **options})
    return RealtimeClient(config)


async def next_of(one: Channel | RealtimeClient, kind: type[E]) -> E:
    async with asyncio.timeout(5):
        async for event in one:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"it ended without a {kind.__name__}")


async def rest_of(one: Channel | RealtimeClient) -> list[Any]:
    async with asyncio.timeout(5):
        return [event async for event in one]


def refuse_private(topic: str, token: str | None) -> str | None:
    return "not for you" if topic == "realtime:private" else None


def test_each_upgrade_carries_the_auth_token_of_the_moment() -> None:
    """Phoenix 1.8's, from a function. The hub's rule for plain topics gets that of the connection."""
    seen: list[str | None] = []
    given: list[str] = []

    def authorize(topic: str, token: str | None) -> None:
        seen.append(token)

    async def fresh() -> str:
        given.append(f"token-{len(given)}")
        return given[-1]

    async def main() -> None:
        async with HubServer(HubConfig(authorize=authorize)) as server:
            config = RealtimeConfig(
                server_url=f"{server.url}/socket", token_in="subprotocol", reconnect_delay=0.05
            )
            async with RealtimeClient(config, access_token=fresh) as client:
                lobby = await client.join("room:lobby", {"user_id": "alice"})
                for _ in range(2):
                    server.cut_all()
                    await next_of(lobby, ChannelDown)
                    await next_of(lobby, ChannelJoined)
                assert seen == given
                assert len(given) == 3

    asyncio.run(main())


def test_a_phoenix_channel() -> None:
    async def main() -> None:
        at_once = HubConfig(presence_window=0)
        async with HubServer(at_once) as server, realtime(server, "/socket") as client:
            lobby = await client.join("room:lobby", {"user_id": "alice", "mood": "good"})
            assert lobby.is_joined
            assert lobby.topic == "room:lobby"
            assert repr(lobby) == "<Channel 'room:lobby', joined>"
            assert lobby.response == {}
            await next_of(lobby, PresenceSynced)
            assert [meta["mood"] for meta in lobby.presence["alice"]] == ["good"]
            assert await lobby.push("ping", {"n": 1}) == {}
            assert await lobby.push("ping", b"\x00\xff") is not None
            server.run(server.hub.broadcast, "room:lobby", "news", {"n": 2})
            assert await next_of(lobby, ChannelMessage) == ChannelMessage("room:lobby", "news", {"n": 2})
            with pytest.raises(LocalProtocolError, match="plain Phoenix"):
                await lobby.broadcast("news", {})
            await lobby.leave()
            assert not lobby.is_joined
            assert repr(lobby) == "<Channel 'room:lobby', not joined>"
            assert list(lobby.presence) == ["alice"]
            assert await rest_of(lobby) == []
            await lobby.leave()
            with pytest.raises(LocalProtocolError, match="was left"):
                await lobby.push("ping", {})
            await until(lambda: server.hub.topics == ())

    run(main)


def test_a_supabase_channel() -> None:
    async def main() -> None:
        async with HubServer() as server, realtime(server) as alice, realtime(server) as bob:
            ours = await alice.join("realtime:room", ChannelConfig(presence_key="alice"))
            theirs = await bob.join("realtime:room", ChannelConfig(presence_key="bob", broadcast_ack=True))
            await ours.track({"mood": "good"})
            diff = await next_of(theirs, PresenceDiffed)
            assert diff.changes[0].key == "alice"
            assert theirs.presence["alice"][0]["mood"] == "good"
            await ours.broadcast("hello", {"n": 1})
            assert (await next_of(theirs, Broadcast)).payload == {"n": 1}
            await theirs.broadcast("hello", {"n": 2})
            assert (await next_of(ours, Broadcast)).payload == {"n": 2}
            await ours.untrack()
            await next_of(theirs, PresenceDiffed)
            assert not theirs.presence

    run(main)


def test_who_waits_for_an_answer_is_told_that_none_comes() -> None:
    async def main() -> None:
        async with (
            HubServer() as server,
            realtime(server, reconnect_delay=60, max_reconnect_delay=60) as client,
        ):
            acked = await client.join("realtime:acked", ACKED)
            silent = await client.join("realtime:silent")
            await acked.broadcast("hello", {"n": 1})
            for conn in server.hub.connections:
                server.cut(conn)
            await until(lambda: not client.is_connected)
            for push in (acked.push("hello", {}, timeout=0.01), acked.push("hello", timeout=0.01)):
                with pytest.raises(PushError) as caught:
                    await push
                assert caught.value.status is None
            await silent.broadcast("hello")  # nobody waits for an answer: it fails as an event
            await client.disconnect()
            assert any(isinstance(event, PushFailed) for event in await rest_of(silent))

    run(main)


def test_the_same_topic_is_the_same_channel() -> None:
    async def main() -> None:
        async with HubServer() as server, realtime(server) as client:
            one, other = await asyncio.gather(client.join("realtime:room"), client.join("realtime:room"))
            assert one is other
            assert await client.join("realtime:room") is one
            with pytest.raises(LocalProtocolError, match="other params"):
                await client.join("realtime:room", ACKED)
            await one.leave()
            again = await client.join("realtime:room", ACKED)
            assert again is not one
            assert again.is_joined
            assert not one.is_joined

    run(main)


def test_leaving_and_joining_back_to_back() -> None:
    async def main() -> None:
        async with HubServer() as server, realtime(server) as client:
            one = await client.join("realtime:room")
            _, other = await asyncio.gather(one.leave(), client.join("realtime:room"))
            assert other is not one
            await rest_of(one)
            await other.track({"n": 1})
            await until(lambda: len(other.presence) == 1)
            assert not one.presence

    run(main)


def test_a_refused_join_raises_and_leaves() -> None:
    async def main() -> None:
        async with HubServer(HubConfig(authorize=refuse_private)) as server, realtime(server) as client:
            with pytest.raises(JoinError, match="not for you") as caught:
                await client.join("realtime:private")
            assert caught.value.topic == "realtime:private"
            assert caught.value.response is not None
            assert client._core.channels == ()
            assert (await client.join("realtime:public")).is_joined

    run(main)


def test_a_push_that_the_server_answers_with_an_error_raises() -> None:
    async def main() -> None:
        async with HubServer() as server, realtime(server) as client:
            room = await client.join("realtime:room")
            with pytest.raises(PushError) as caught:
                await room.push("presence", {"type": "presence", "event": "track", "payload": []})
            assert caught.value.status == "error"
            assert caught.value.response is not None
            assert caught.value.topic == "realtime:room"

    run(main)


def test_a_connection_that_cannot_be_made_for_good_ends_the_joins() -> None:
    async def main() -> None:
        async with (
            HubServer(HubConfig(api_keys=frozenset({"right"}))) as server,
            realtime(server, api_key="wrong-key") as client,
        ):
            with pytest.raises(ConnectError, match=r"HTTP 401") as caught:
                await client.join("realtime:room")
            assert "wrong-key" not in str(caught.value)
            with pytest.raises(ConnectError):
                await client.join("realtime:room")
            assert caught.value.status == 401
            lost = await anext(client)
            assert isinstance(lost, SocketDisconnected)
            assert lost.fatal
            with pytest.raises(ConnectError) as ended:
                await anext(client)
            assert (ended.value.status, ended.value.reason) == (401, lost.reason)

    run(main)


def test_disconnecting_ends_what_waits_and_every_iteration() -> None:
    async def main() -> None:
        async with HubServer() as server, realtime(server) as client:
            room = await client.join("realtime:room")
            reading = asyncio.create_task(rest_of(room))
            for connection in server._driver.connections.values():
                assert connection.transport is not None
                connection.transport.pause_reading()
            joining = asyncio.create_task(client.join("realtime:other"))
            pushing = asyncio.create_task(room.push("ping"))
            await asyncio.sleep(0.01)
            disconnecting = asyncio.create_task(client.disconnect())
            await asyncio.sleep(0.01)
            for connection in server._driver.connections.values():
                assert connection.transport is not None
                connection.transport.resume_reading()
            await disconnecting
            with pytest.raises((ConnectError, PushError)):
                await pushing
            with pytest.raises(ConnectError):
                await joining
            assert [type(event) for event in await reading][-1] is ChannelDown
            assert [type(event) for event in await rest_of(client)] == [SocketConnected, SocketDisconnected]
            await room.leave()

    run(main)


def test_a_lost_connection_comes_back_with_channels_presence_and_token() -> None:
    tokens: list[str | None] = []

    def authorize(topic: str, token: str | None) -> str | None:
        tokens.append(token)
        return None

    async def main() -> None:
        async with HubServer(HubConfig(authorize=authorize)) as server, realtime(server) as client:
            room = await client.join("realtime:room", ChannelConfig(presence_key="alice"))
            await room.track({"mood": "good"})
            await client.set_access_token("new")
            await until(lambda: room.presence and tokens == [None, "new"])
            server.cut(server.hub.connections[0])
            assert (await next_of(room, ChannelDown)).topic == "realtime:room"
            assert not room.is_joined
            assert (await next_of(room, ChannelJoined)).rejoined
            await until(lambda: server.hub.online("realtime:room"))
            assert tokens == [None, "new", "new"]
            kinds = [type(await next_of(client, object)) for _ in range(3)]
            assert kinds == [SocketConnected, SocketDisconnected, SocketConnected]
            assert client.is_connected

    run(main)


def test_a_join_waits_for_a_server_that_is_not_there_yet() -> None:
    async def main() -> None:
        first = HubServer()
        await first.start()
        await first.abort()
        async with realtime(first) as client:
            joining = asyncio.create_task(client.join("realtime:room"))
            await next_of(client, SocketDisconnected)
            assert not joining.done()
            async with HubServer(port=first.port):
                assert (await joining).is_joined

    run(main)


def test_a_cancelled_join_leaves_the_channel() -> None:
    async def main() -> None:
        async with HubServer() as server, realtime(server) as client:
            await client.join("realtime:other")
            for connection in server._driver.connections.values():
                assert connection.transport is not None
                connection.transport.pause_reading()
            joining = asyncio.create_task(client.join("realtime:room"))
            await asyncio.sleep(0.01)
            joining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await joining
            for connection in server._driver.connections.values():
                assert connection.transport is not None
                connection.transport.resume_reading()
            await until(lambda: client._core.channels == ("realtime:other",))
            await until(lambda: server.hub.topics == ("realtime:other",))

    run(main)


def test_cancellations_at_random_points_of_joins_pushes_and_leaves() -> None:
    rng = random.Random(11)

    async def main() -> None:
        config = HubConfig(authorize=refuse_private)
        async with HubServer(config) as server, realtime(server) as client:
            keeper = await client.join("realtime:keeper", ACKED)

            async def life(n: int) -> None:
                channel = await client.join(f"realtime:{n % 4}", ACKED)
                await channel.track({"n": n})
                await channel.broadcast("hello", {"n": n})
                await channel.leave()

            async def refused() -> None:
                await client.join("realtime:private")

            for batch in range(40):
                jobs = [life(n) for n in range(5)] + [refused()]
                tasks = [asyncio.create_task(job) for job in jobs]
                for task in tasks:
                    await asyncio.sleep(rng.choice([0, 0, 0.0002, 0.001]))
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if batch % 10 == 0:
                    for conn in server.hub.connections:
                        server.cut(conn)
            for n in range(4):
                await (await client.join(f"realtime:{n}", ACKED)).leave()
            await keeper.broadcast("done", {})
            await until(lambda: client._core.channels == ("realtime:keeper",))
            await until(lambda: server.hub.topics == ("realtime:keeper",))
            assert not client._routes._pushes

    run(main, seconds=60)


@pytest.mark.long
@pytest.mark.parametrize("deflate", [False, True])
def test_large_broadcasts_that_nobody_reads_do_not_pile_up(
    deflate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "MAX_QUEUED_BYTES", 5_000_000)

    async def main() -> None:
        async with HubServer(HubConfig(deflate=deflate)) as server, realtime(server) as client:
            room = await client.join("realtime:room", ACKED)
            for n in range(30):
                await room.broadcast(str(n), "x" * 1_000_000)
            dropped = await next_of(room, EventsDropped)
            await room.leave()
            kept = [event.event for event in await rest_of(room)]
            assert kept == [str(n) for n in range(30 - len(kept), 30)]
            assert len(kept) in {4, 5}
            assert dropped.count >= 30 - len(kept)

    run(main)


def test_large_broadcasts_that_are_read_are_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_queue, "MAX_QUEUED_BYTES", 5_000_000)

    async def main() -> None:
        async with HubServer() as server, realtime(server) as client:
            room = await client.join("realtime:room", ACKED)
            await room.broadcast("0", "x" * 1_000_000)
            for n in range(20):  # always one behind
                await room.broadcast(str(n + 1), "x" * 1_000_000)
                assert (await next_of(room, Broadcast)).event == str(n)
            await room.leave()
            assert not [event for event in await rest_of(room) if isinstance(event, EventsDropped)]

    run(main)


def test_a_slow_reader_of_a_channel_is_told() -> None:
    async def main() -> None:
        async with HubServer() as server:
            config = RealtimeConfig(server_url=f"{server.url}/realtime/v1")
            async with RealtimeClient(config, max_queued_events=3) as client:
                room = await client.join("realtime:room", ACKED)
                for n in range(20):
                    await room.broadcast("n", n)
                dropped = await next_of(room, EventsDropped)
                assert dropped.count >= 17
                assert [(await next_of(room, Broadcast)).payload for _ in range(3)] == [17, 18, 19]

    run(main)


def test_a_bug_of_the_core_reaches_everybody_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with HubServer() as server, realtime(server) as client:
            room = await client.join("realtime:room", ACKED)
            reading, pushing = asyncio.create_task(rest_of(room)), asyncio.create_task(room.broadcast("ping"))
            await asyncio.sleep(0)

            def receive_data(*args: Any, **kwargs: Any) -> None:
                raise ZeroDivisionError("bug")

            monkeypatch.setattr(client._core, "receive_data", receive_data)
            for task in (reading, pushing):
                with pytest.raises(ZeroDivisionError):
                    await task
            with pytest.raises(ZeroDivisionError):
                await rest_of(client)
            with pytest.raises(ConnectError):
                await client.join("realtime:other")
            await room.leave()

    run(main)
