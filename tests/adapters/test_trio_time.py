"""Time on trio is the time of its clock: an hour of heartbeats and backoff takes no time at all."""

from __future__ import annotations

import time

import pytest
import trio

from adapters.trio_hub import client, memory_hub, next_of, rest_of, run
from presence_proto import Connected, Disconnected, HubConfig, UserStatus


def test_an_hour_of_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch, HubConfig(idle_timeout=60)) as hub, client() as alice:
            await next_of(alice, Connected)
            await trio.sleep(3600)
            assert alice.is_connected
            await alice.disconnect()
            assert [type(event) for event in await rest_of(alice)] == [Disconnected]
            assert len(hub.attempts) == 1

    start = time.monotonic()
    run(main)
    assert time.monotonic() - start < 5


def test_without_heartbeats_the_hub_would_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with (
            memory_hub(monkeypatch, HubConfig(idle_timeout=60)) as hub,
            client(heartbeat_interval=1000) as alice,
        ):
            await next_of(alice, Connected)
            connected = trio.current_time()
            await next_of(alice, Disconnected)
            assert trio.current_time() - connected == pytest.approx(60)
            assert (await next_of(alice, Connected)).resumed
            assert len(hub.attempts) == 2

    run(main)


def test_a_heartbeat_without_an_answer_and_the_backoff_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch) as hub, client() as alice:
            await next_of(alice, Connected)
            up = trio.current_time()
            hub.refuses = hub.hangs = True
            await trio.sleep(5)
            await alice.update_activity(UserStatus.AWAY)  # it is told later
            lost = await next_of(alice, Disconnected)
            assert lost.reason == "no heartbeat reply within 10 s"
            down = trio.current_time()
            assert down - up == pytest.approx(25 + 10, abs=0.1)
            for _ in range(7):
                lost = await next_of(alice, Disconnected)
                assert lost.reason == "cannot connect to hub.example:80 (connection refused)"
            delays = [at - down for at in hub.attempts[1:]]
            assert delays == pytest.approx([1, 3, 7, 15, 31, 61, 91])
            hub.refuses = hub.hangs = False
            assert (await next_of(alice, Connected)).resumed
            assert alice.online_users[0].status is UserStatus.AWAY
            assert trio.current_time() - down == pytest.approx(121)

    run(main)


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch) as hub, client() as alice:
            hub.is_deaf = True
            start = trio.current_time()
            lost = await next_of(alice, Disconnected)
            assert lost.reason == "no connection within 10 s"
            assert trio.current_time() - start == pytest.approx(10)
            hub.is_deaf = False
            await next_of(alice, Connected)
            assert trio.current_time() - start == pytest.approx(11)

    run(main)


def test_a_goodbye_without_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch) as hub:
            async with client(close_timeout=5) as alice:
                await next_of(alice, Connected)
                hub.hangs = True
                start = trio.current_time()
            assert trio.current_time() - start == pytest.approx(5)

    run(main)
