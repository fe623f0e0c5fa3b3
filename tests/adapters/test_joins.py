"""`join` on every adapter: refusals that raise, those that are waited out, and joins that take their time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import trio

import presence_adapters.asyncio
import presence_adapters.trio
from presence_adapters import blocking, stepped
from presence_adapters.server import HubThread
from presence_proto import (
    ChannelConfig,
    ChannelDown,
    ChannelEnd,
    HubConfig,
    JoinFailed,
    LocalProtocolError,
    RealtimeConfig,
    SocketDisconnected,
)

LONGEST = 20.0  # seconds; nothing here takes one of them when all is well
TOPIC = "realtime:lobby"

Join: TypeAlias = Callable[..., Any]


def on_asyncio(config: RealtimeConfig, **options: Any) -> Any:
    async def main() -> Any:
        async with (
            asyncio.timeout(LONGEST),
            presence_adapters.asyncio.RealtimeClient(config, **options) as client,
        ):
            return (await client.join(TOPIC)).response

    return asyncio.run(main())


def on_trio(config: RealtimeConfig, **options: Any) -> Any:
    async def main() -> Any:
        with trio.fail_after(LONGEST):
            async with presence_adapters.trio.RealtimeClient(config, **options) as client:
                return (await client.join(TOPIC)).response

    return trio.run(main)


def on_threads(config: RealtimeConfig, **options: Any) -> Any:
    with blocking.RealtimeClient(config, **options) as client:
        return client.join(TOPIC, timeout=LONGEST).response


def on_steps(config: RealtimeConfig, **options: Any) -> Any:
    end = time.monotonic() + LONGEST
    with stepped.RealtimeClient(config, **options) as client:
        channel = client.join(TOPIC)
        while not channel.joining.done:
            assert time.monotonic() < end
            client.step()
            time.sleep(0.002)
        channel.joining.result()
        return channel.response


on_each = pytest.mark.parametrize("join", [on_asyncio, on_trio, on_threads, on_steps])


def quick(hub: HubThread, **settings: Any) -> RealtimeConfig:
    return RealtimeConfig(
        **{"server_url": hub.url, "api_key": hub.api_key, "reconnect_delay": 0.05, "jitter": 0.0} | settings
    )


class Rule:
    """A rule of the hub that refuses with these reasons, one after the other, and then lets everybody in."""

    def __init__(self, *reasons: str) -> None:
        self.tokens: list[str | None] = []
        self._reasons = [*reasons]

    def __call__(self, topic: str, token: str | None) -> str | None:
        self.tokens.append(token)
        return self._reasons.pop(0) if self._reasons else None


@on_each
def test_a_refusal_raises_with_the_words_of_the_server(join: Join) -> None:
    refused = pytest.raises(presence_adapters.asyncio.JoinError, match=r"cannot join .*: the room is full")
    with HubThread(HubConfig(authorize=Rule("the room is full"))) as hub, refused as caught:
        join(quick(hub))
    assert caught.value.reason == "the room is full"
    assert caught.value.response == {"reason": "the room is full"}


@on_each
def test_a_refusal_that_will_pass_is_waited_out(join: Join) -> None:
    rule = Rule("RealtimeRestarting: please standby", "InitializingProjectConnection: …", "join crashed")
    with HubThread(HubConfig(authorize=rule)) as hub:
        assert join(quick(hub)) == {"postgres_changes": []}
    assert len(rule.tokens) == 4


@on_each
def test_a_token_that_has_just_expired_is_replaced_once(join: Join) -> None:
    rule, given = Rule("InvalidJWTToken: Token has expired 1 seconds ago"), iter(["old", "new", "newer"])
    with HubThread(HubConfig(authorize=rule)) as hub:
        assert join(quick(hub), access_token=lambda: next(given)) == {"postgres_changes": []}
    assert rule.tokens == ["old", "new"]


@on_each
def test_a_second_bad_token_is_a_refusal(join: Join) -> None:
    expired = "InvalidJWTToken: Token has expired 1 seconds ago"
    rule, given = Rule(expired, expired), iter(["old", "old", "new"])
    refused = pytest.raises(presence_adapters.asyncio.JoinError, match="InvalidJWTToken")
    with HubThread(HubConfig(authorize=rule)) as hub, refused:
        join(quick(hub), access_token=lambda: next(given))
    assert rule.tokens == ["old", "old"]


def test_stepped_shows_a_refused_join_in_the_events_of_the_channel() -> None:
    end = time.monotonic() + LONGEST
    with HubThread(HubConfig(authorize=Rule("no"))) as hub, stepped.RealtimeClient(quick(hub)) as client:
        channel = client.join(TOPIC)
        events: list[Any] = []
        while not events:
            assert time.monotonic() < end
            client.step()
            events += channel.events()
            time.sleep(0.002)
    [failed] = events
    assert isinstance(failed, JoinFailed)
    assert (failed.reason, failed.refused) == ("no", True)


def test_joins_of_one_connection_wait_for_each_other() -> None:
    """Five joins of 0.3 s, with a timeout that is enough for one of them and not for two."""
    topics = [f"realtime:{number}" for number in range(5)]

    async def main(config: RealtimeConfig) -> tuple[float, list[Any]]:
        async with (
            asyncio.timeout(LONGEST),
            presence_adapters.asyncio.RealtimeClient(config) as client,
        ):
            began = time.monotonic()
            await asyncio.gather(*map(client.join, topics))
            took = time.monotonic() - began
            lost: list[Any] = []

            async def listen() -> None:
                async for event in client:
                    if isinstance(event, SocketDisconnected):
                        lost.append(event)

            listening = asyncio.create_task(listen())
            await asyncio.sleep(0.05)
            listening.cancel()
            return took, lost

    rule = Rule()
    with HubThread(HubConfig(join_delay=0.3, authorize=rule)) as hub:
        config = quick(hub, join_timeout=0.5, heartbeat_interval=0.2, heartbeat_timeout=0.2)
        took, lost = asyncio.run(main(config))
    assert took >= 1.5
    assert lost == []
    assert len(rule.tokens) == 5, "nobody joined twice"


def test_a_good_join_behind_refused_ones() -> None:
    def private_only(topic: str, token: str | None) -> str | None:
        return "Unauthorized: no" if "private" in topic else None

    async def main(config: RealtimeConfig) -> list[Any]:
        async with (
            asyncio.timeout(LONGEST),
            presence_adapters.asyncio.RealtimeClient(config) as client,
        ):
            private = [client.join(f"realtime:private-{n}", ChannelConfig(private=True)) for n in range(4)]
            return await asyncio.gather(*private, client.join("realtime:public"), return_exceptions=True)

    with HubThread(HubConfig(refusal_delay=0.3, authorize=private_only)) as hub:
        config = quick(hub, join_timeout=0.5, heartbeat_interval=0.2, heartbeat_timeout=0.2)
        *refused, public = asyncio.run(main(config))
    assert [type(error) for error in refused] == [presence_adapters.asyncio.JoinError] * 4
    assert public.topic == "realtime:public"


def test_the_events_of_a_channel_that_the_server_closed_for_good_end() -> None:
    async def main(hub: HubThread) -> list[Any]:
        config = quick(hub, rejoin_after_close=False)
        async with asyncio.timeout(LONGEST), presence_adapters.asyncio.RealtimeClient(config) as client:
            channel = await client.join(TOPIC)
            await asyncio.to_thread(hub.close_channel, TOPIC, "banned")
            events = [event async for event in channel]
            with pytest.raises(LocalProtocolError, match="was left"):
                await channel.track({})
            again = await client.join(TOPIC)
            assert again is not channel
            return events

    with HubThread() as hub:
        events = asyncio.run(main(hub))
    assert isinstance(events[-1], ChannelDown)
    assert (events[-1].reason, events[-1].end, events[-1].retry_in) == ("banned", ChannelEnd.CLOSED, None)
