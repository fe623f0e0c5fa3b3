"""Mistakes that newcomers make, and what they see: an error or a log line that names the way out."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import trio

import presence_adapters.asyncio
import presence_adapters.blocking
import presence_adapters.stepped
import presence_adapters.trio
import presence_proto
from adapters.fakes import run
from adapters.hub_thread import hub_thread
from presence_adapters.errors import ConnectError
from presence_adapters.server import HubServer, HubThread
from presence_proto import (
    ConfigError,
    Disconnected,
    HubConfig,
    Identity,
    LocalProtocolError,
    PresenceConfig,
    RealtimeConfig,
)

IDENTITY = Identity("alice", "Alice")
CONFIG = PresenceConfig(server_url="ws://127.0.0.1:1")
REALTIME = RealtimeConfig(server_url="ws://127.0.0.1:1")


def by_with(value: Any) -> None:
    with value:
        pass


def by_for(value: Any) -> None:
    for _ in value:
        pass


def by_async_with(value: Any) -> None:
    async def main() -> None:
        async with value:
            pass

    asyncio.run(main())


def by_async_for(value: Any) -> None:
    async def main() -> None:
        async for _ in value:
            pass

    asyncio.run(main())


# -------------------------------------------------------------------------------------- the wrong class

CORES = [
    (
        presence_proto.PresenceClient(IDENTITY, CONFIG),
        "presence_adapters.asyncio (or .trio, .blocking, .stepped)",
    ),
    (presence_proto.RealtimeClient(REALTIME), "presence_adapters.asyncio (or .trio, .blocking, .stepped)"),
    (presence_proto.Hub(), "presence_adapters.server.HubServer"),
]


@pytest.mark.parametrize("statement", [by_with, by_for, by_async_with, by_async_for])
@pytest.mark.parametrize(("core", "way"), CORES, ids=["PresenceClient", "RealtimeClient", "Hub"])
def test_a_core_in_place_of_an_adapter(core: Any, way: str, statement: Callable[[Any], None]) -> None:
    with pytest.raises(TypeError) as caught:
        statement(core)
    assert str(caught.value).startswith(f"presence_proto.{type(core).__name__} does no I/O: ")
    assert way in str(caught.value)


def clients(adapter: Any) -> list[Any]:
    return [adapter.PresenceClient(IDENTITY, CONFIG), adapter.RealtimeClient(REALTIME)]


WRONG: list[tuple[Callable[[], list[Any]], Callable[[Any], None], str]] = [
    (lambda: clients(presence_adapters.asyncio), by_with, "use `async with` and `async for`"),
    (lambda: clients(presence_adapters.asyncio), by_for, "use `async with` and `async for`"),
    (lambda: clients(presence_adapters.trio), by_with, "use `async with` and `async for`"),
    (lambda: clients(presence_adapters.blocking), by_async_with, "use `with` and `for`"),
    (lambda: clients(presence_adapters.blocking), by_async_for, "use `with` and `for`"),
    (lambda: clients(presence_adapters.stepped), by_async_with, "use `with`"),
    (lambda: clients(presence_adapters.stepped), by_for, "use `for event in client.events()`"),
    (lambda: [HubServer()], by_with, "use `async with`, or presence_adapters.server.HubThread"),
    (lambda: [HubThread()], by_async_with, "use `with`, or presence_adapters.server.HubServer"),
]


@pytest.mark.parametrize(("make", "statement", "way"), WRONG)
def test_the_statement_of_another_adapter(
    make: Callable[[], list[Any]], statement: Callable[[Any], None], way: str
) -> None:
    for one in make():
        with pytest.raises(TypeError) as caught:
            statement(one)
        text = str(caught.value)
        assert text.startswith(f"{type(one).__module__}.{type(one).__name__} does not support `")
        assert text.endswith(way) or way in text


def test_a_channel_in_the_statement_of_another_adapter() -> None:
    with hub_thread() as hub:
        config = RealtimeConfig(server_url=hub.url.replace("/realtime/v1", "/socket"), close_timeout=0.5)
        with presence_adapters.blocking.RealtimeClient(config) as client:
            room = client.join("room:1", {}, timeout=30)
            with pytest.raises(TypeError, match="does not support `async for`: use `for`"):
                by_async_for(room)
        with presence_adapters.stepped.RealtimeClient(config) as stepping:
            stepped_room = stepping.join("room:1", {})
        with pytest.raises(TypeError, match="does not support `for`: use `for event in channel"):
            by_for(stepped_room)

        async def main() -> None:
            async with presence_adapters.asyncio.RealtimeClient(config) as client:
                with pytest.raises(TypeError, match="does not support `for`: use `async for`"):
                    by_for(await client.join("room:1", {}, timeout=30))

        run(main)


@pytest.mark.parametrize("name", ["__enter__", "__aenter__", "__iter__", "__aiter__"])
def test_type_checkers_still_find_the_mistake(name: str) -> None:
    """They read the class bodies, which must not have what only answers."""
    for cls, here in (
        (presence_proto.PresenceClient, ()),
        (presence_proto.Hub, ()),
        (presence_adapters.asyncio.PresenceClient, ("__aenter__", "__aiter__")),
        (presence_adapters.blocking.PresenceClient, ("__enter__", "__iter__")),
        (presence_adapters.stepped.PresenceClient, ("__enter__",)),
    ):
        method: Any = getattr(cls, name, None)
        assert (method is not None and method.__name__ == name) is (name in here)


# -------------------------------------------------------------------------------------- the wrong server


def test_a_wrong_key_ends_the_program_with_the_reason() -> None:
    program = """
import asyncio, sys
from presence_adapters.asyncio import PresenceClient

async def main():
    client = PresenceClient(server_url=sys.argv[1], api_key="wrong", user_id="a", display_name="A")
    async with client:
        async for event in client:
            pass

asyncio.run(main())
"""
    with hub_thread(HubConfig(api_keys=frozenset({"right"}))) as hub:
        done = subprocess.run(
            [sys.executable, "-c", program, hub.url], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[0].startswith(
        f"cannot connect to 127.0.0.1:{hub.port}: the server refused the connection: HTTP 401"
    )
    assert said[-1].startswith(
        "presence_adapters.errors.ConnectError: the server refused the connection: HTTP 401"
    )


def test_a_program_that_only_sends_shows_a_dead_server() -> None:
    program = """
import time
from presence_adapters.blocking import PresenceClient

with PresenceClient(server_url="ws://127.0.0.1:1", user_id="a", display_name="A") as client:
    client.drive_in_background()
    client.send_poke("bob")
    time.sleep(0.5)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "cannot connect to 127.0.0.1:1 (connection refused); trying again\n"


def test_a_plain_web_server_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(web, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url = f"ws://127.0.0.1:{port}"
        async with (
            server,
            presence_adapters.asyncio.PresenceClient(
                IDENTITY, PresenceConfig(server_url=url, close_timeout=0.1)
            ) as client,
        ):
            async for event in client:
                assert isinstance(event, Disconnected)
                assert "HTTP 501" in event.reason
                break

    run(main)
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "cannot connect to 127.0.0.1:" in warning
    assert "HTTP 501" in warning


def test_a_url_without_its_scheme() -> None:
    with pytest.raises(ConfigError, match=r"must start with ws://.*, not 'localhost:4000'"):
        presence_adapters.asyncio.PresenceClient(server_url="localhost:4000", user_id="a", display_name="A")


def test_an_unknown_keyword_with_a_name_that_is_close() -> None:
    for adapter in (presence_adapters.asyncio, presence_adapters.blocking):
        for wrong, meant in (
            ("heartbeat", "heartbeat_interval"),
            ("apikey", "api_key"),
            ("displayname", "display_name"),
        ):
            settings: dict[str, Any] = {
                "server_url": "ws://host",
                "user_id": "a",
                "display_name": "A",
                wrong: 1,
            }
            with pytest.raises(
                TypeError, match=f"unexpected keyword argument '{wrong}': did you mean .*{meant}"
            ):
                adapter.PresenceClient(**settings)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'zzz'$"):
        presence_adapters.asyncio.PresenceClient(server_url="ws://host", user_id="a", display_name="A", zzz=1)


# -------------------------------------------------------------------------------------- the wrong moment


def test_forgetting_to_enter_does_not_hang() -> None:
    client = presence_adapters.asyncio.PresenceClient(IDENTITY, CONFIG)
    with pytest.raises(LocalProtocolError, match="not running yet: enter it with `async with`"):
        by_async_for(client)


def test_a_client_may_be_made_before_its_loop_runs() -> None:
    with hub_thread() as hub:
        config = RealtimeConfig(server_url=hub.url, close_timeout=0.5)
        on_asyncio = presence_adapters.asyncio.RealtimeClient(config)
        on_trio = presence_adapters.trio.RealtimeClient(config)

        async def main(client: Any) -> None:
            async with client:
                await client.wait_connected(30)

        asyncio.run(main(on_asyncio))
        trio.run(main, on_trio)


def test_a_blocking_client_in_an_event_loop_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    def enter() -> None:
        with presence_adapters.blocking.PresenceClient(IDENTITY, CONFIG) as client:
            client.close()

    async def main() -> None:
        enter()
        await asyncio.to_thread(enter)  # no loop runs there

    async def in_trio() -> None:
        enter()

    asyncio.run(main())
    trio.run(in_trio)
    enter()
    warnings = [record for record in caplog.records if "blocking client" in record.getMessage()]
    assert [record.getMessage().rpartition(" ")[2] for record in warnings] == [
        "presence_adapters.asyncio",
        "presence_adapters.trio",
    ]
    assert {(record.levelname, record.filename) for record in warnings} == {
        ("WARNING", "test_typical_mistakes.py")
    }


def test_what_is_used_after_its_end_says_why_it_has_ended() -> None:
    async def main() -> None:
        async with HubServer() as server:
            config = PresenceConfig(server_url=server.url, close_timeout=0.5)
            async with presence_adapters.asyncio.PresenceClient(IDENTITY, config) as client:
                await client.wait_connected(30)
            async for _ in client:  # what was not read yet
                pass
            for late in (lambda: client.send_poke("bob"), lambda: anext(aiter(client))):
                with pytest.raises(ConnectError, match=r"ended \(disconnect was called\): create a new one"):
                    await late()

    run(main)


def test_two_iterations_share_the_events() -> None:
    """As documented: each event goes to one of them, and both end."""

    async def main() -> None:
        async with HubServer() as server:
            config = RealtimeConfig(
                server_url=server.url.replace("/realtime/v1", "/socket"), close_timeout=0.5
            )
            async with presence_adapters.asyncio.RealtimeClient(config) as client:
                room = await client.join("room:1", {}, timeout=30)
                seen: list[list[Any]] = [[], []]

                async def read(mine: list[Any]) -> None:
                    async for event in room:
                        mine.append(event)

                tasks = [asyncio.create_task(read(mine)) for mine in seen]
                await asyncio.sleep(0.01)
                for number in range(20):
                    server.run(server.hub.broadcast, "room:1", "news", {"n": number})
                await room.push("ping")
                await room.leave()
                await asyncio.gather(*tasks)
                numbers = [event.payload["n"] for mine in seen for event in mine if hasattr(event, "payload")]
                assert sorted(numbers) == list(range(20))

    run(main)


# -------------------------------------------------------------------------------------- a fork

FORK = """
import os, sys
from presence_adapters.{adapter} import RealtimeClient
from presence_proto import LocalProtocolError, RealtimeConfig

def errors(client, channel):
    for use in {uses}:
        try:
            use()
        except LocalProtocolError as exc:
            yield str(exc)

with RealtimeClient(RealtimeConfig(server_url=sys.argv[1], close_timeout=0.5)) as client:
    channel = client.join("room:1", {{}})
    {ready}
    child = os.fork()
    if child == 0:
        said = set(errors(client, channel))
        assert len(said) == 1 and "belongs to the process that this one was forked from" in said.pop(), said
        assert not client.is_connected
        client.close()
        sys.exit(7)  # leaves the `with`
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    {still}
print("the parent is well")
"""


@pytest.mark.parametrize("adapter", ["blocking", "stepped"])
def test_a_fork_does_not_say_goodbye_for_its_parent(adapter: str) -> None:
    waits = adapter == "blocking"
    program = FORK.format(
        adapter=adapter,
        uses="(lambda: channel.push('a'), lambda: client.join('b', {}), client.events, client.disconnect,"
        " channel.leave, client.wait_connected)",
        ready="client.drive_in_background()" if waits else "\n    ".join(STEPS),
        still="assert channel.push('ping') == {}" if waits else "\n    ".join(STILL),
    )
    with hub_thread() as hub:
        done = subprocess.run(
            [sys.executable, "-c", program, hub.url.replace("/realtime/v1", "/socket")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stdout, done.returncode) == ("the parent is well\n", 0), done.stderr


STEPS = ["while not channel.joining.done: client.step()"]
STILL = ["reply = channel.push('ping')", "while not reply.done: client.step()", "assert reply.result() == {}"]


def test_a_fork_of_an_asyncio_program_does_not_say_goodbye_for_its_parent() -> None:
    program = """
import asyncio, os, sys
from presence_adapters.asyncio import RealtimeClient
from presence_proto import LocalProtocolError, RealtimeConfig

async def main():
    async with RealtimeClient(RealtimeConfig(server_url=sys.argv[1], close_timeout=0.5)) as client:
        channel = await client.join("room:1", {})
        child = os.fork()
        if child == 0:
            try:
                await channel.push("ping")
            except LocalProtocolError as exc:
                assert "forked" in str(exc)
                assert not client.is_connected
                sys.exit(7)  # leaves the `async with`
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert await channel.push("ping") == {}
    print("the parent is well")

asyncio.run(main())
"""
    with hub_thread() as hub:
        done = subprocess.run(
            [sys.executable, "-c", program, hub.url.replace("/realtime/v1", "/socket")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stdout, done.returncode) == ("the parent is well\n", 0), done.stderr


# -------------------------------------------------------------------------------------- getters


def test_a_client_shows_what_it_was_told_and_what_it_sees() -> None:
    with hub_thread() as hub:
        config = PresenceConfig(server_url=hub.url, close_timeout=0.5)
        with presence_adapters.blocking.PresenceClient(IDENTITY, config) as alice:
            alice.wait_connected(30)
            alice.update_activity(presence_proto.UserStatus.AWAY, "Lunch")
            assert (alice.status, alice.activity) == (presence_proto.UserStatus.AWAY, "Lunch")
            assert alice.user("alice") == alice.online_users[0]
            assert alice.user("nobody") is None
            assert not alice.is_closed
        assert alice.is_closed
        config_ = RealtimeConfig(
            server_url=hub.url.replace("/realtime/v1", "/socket"), close_timeout=0.5, heartbeat_interval=0.05
        )
        with presence_adapters.blocking.RealtimeClient(config_) as client:
            client.join("room:1", {}, timeout=30)
            room = client.join("realtime:2", timeout=30)
            room.wait_synced(30)
            assert (client.channels, room.is_synced, client.is_closed) == (
                ("room:1", "realtime:2"),
                True,
                False,
            )
            list(room.events(0.3))
            assert client.latency is not None
            room.leave()
            assert (client.channels, room.is_synced) == (("room:1",), False)
