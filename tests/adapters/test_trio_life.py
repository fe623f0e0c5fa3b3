"""How the clients on trio begin and end: entering, leaving, cancellation, Ctrl-C, bugs of the core."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_checkpoints

from adapters.trio_hub import MemoryHub, client, memory_hub, next_of, rest_of, run
from presence_adapters import event_queue
from presence_adapters.trio import Channel, ConnectError, EventsDropped, PresenceClient, RealtimeClient
from presence_proto import (
    ChannelConfig,
    Connected,
    Disconnected,
    HubConfig,
    Identity,
    LocalProtocolError,
    PresenceConfig,
    RealtimeConfig,
    UserStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ACKED = ChannelConfig(broadcast_ack=True)


def realtime() -> RealtimeClient:
    return RealtimeClient(RealtimeConfig(server_url="ws://hub.example/realtime/v1", jitter=0.0))


# ---------------------------------------------------------------------------------------------- life


def test_it_is_used_with_async_with_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch):
            alice = client()
            with pytest.raises(LocalProtocolError, match="async with"):
                await alice.send_poke("bob")
            async with alice:
                pass
            with pytest.raises(LocalProtocolError, match="only once"):
                async with alice:
                    pass
            with pytest.raises(ConnectError, match="has ended"):
                await alice.send_poke("bob")

    run(main)


def test_entering_when_cancelled_enters_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch) as hub:
            alice = client()
            with trio.CancelScope() as scope:
                scope.cancel()
                async with alice:
                    raise AssertionError
            assert scope.cancelled_caught
            async with alice:  # so it can be entered now
                await next_of(alice, Connected)
            assert len(hub.attempts) == 1

    run(main)


def test_entering_when_cancelled_opens_no_recording(tmp_path: Path) -> None:
    async def main() -> None:
        config = PresenceConfig(server_url="ws://127.0.0.1")
        with trio.CancelScope() as scope:
            scope.cancel()
            async with PresenceClient(Identity("alice", "Alice"), config, record=tmp_path / "session"):
                raise AssertionError
        assert scope.cancelled_caught

    run(main)
    assert not list(tmp_path.iterdir())


def test_leaving_while_connecting_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch) as hub:
            hub.is_deaf = True
            start = trio.current_time()
            async with client() as alice:
                await trio.sleep(1)
            assert trio.current_time() - start == pytest.approx(1)
            assert [type(event) for event in await rest_of(alice)] == [Disconnected]

    run(main)


def test_every_call_is_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch):
            with assert_checkpoints():
                alice = await client().__aenter__()
            await trio.sleep(1)
            for call in (
                alice.__anext__,
                lambda: alice.update_activity(UserStatus.AWAY),
                lambda: alice.send_poke("bob"),
                lambda: alice.send_chat("lobby", "hello"),
                lambda: alice.send_invite("Snake"),
                lambda: alice.set_access_token("new"),
                alice.disconnect,
                alice.disconnect,
            ):
                with assert_checkpoints():
                    await call()
            with assert_checkpoints():
                await alice.__aexit__(None, None, None)
            async with realtime() as sockets:
                room = await sockets.join("realtime:room", ACKED)
                for call in (
                    lambda: sockets.join("realtime:room", ACKED),
                    lambda: room.broadcast("hello"),
                    lambda: room.track({}),
                    room.untrack,
                    room.__anext__,
                    room.leave,
                    room.leave,
                ):
                    with assert_checkpoints():
                        await call()

    run(main)


def test_a_cancelled_body_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch) as hub:
            with trio.move_on_after(3) as scope:
                async with client(close_timeout=60) as alice:
                    await next_of(alice, Connected)
                    hub.hangs = True  # there will be no answer to a goodbye
                    start = trio.current_time()
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            assert trio.current_time() - start == pytest.approx(3)

    run(main)


def test_a_goodbye_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch) as hub:
            with trio.move_on_after(3) as scope:
                async with client(close_timeout=60) as alice:
                    await next_of(alice, Connected)
                    hub.hangs = True
                    start = trio.current_time()
            assert scope.cancelled_caught
            assert trio.current_time() - start == pytest.approx(3)

    run(main)


def test_what_the_body_raises_comes_out_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(error: Exception) -> None:
        async with client() as alice:
            await next_of(alice, Connected)
            raise error

    async def main() -> None:
        async with memory_hub(monkeypatch):
            for error in (KeyError("mine"), ExceptionGroup("of mine", [KeyError(), ValueError()])):
                with pytest.raises(type(error)) as caught:
                    await fail(error)
                assert caught.value is error

    run(main)


def test_a_group_with_a_cancellation_in_it_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("on the way out")

    async def live(hub: MemoryHub) -> None:
        async with client(close_timeout=60) as alice:
            await next_of(alice, Connected)
            hub.hangs = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                nursery.start_soon(trio.sleep_forever)

    async def main() -> None:
        async with memory_hub(monkeypatch) as hub:
            start = trio.current_time()
            with pytest.raises(ExceptionGroup) as caught, trio.move_on_after(1):
                await live(hub)
            assert [type(error) for error in caught.value.exceptions] == [KeyError]
            assert trio.current_time() - start == pytest.approx(1)

    run(main)


@pytest.mark.parametrize("where", ["the reader", "the timer"])
def test_ctrl_c_comes_up_in_the_body(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Whatever runs at that moment."""

    def press(*args: Any, **kwargs: Any) -> None:
        if not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        async with memory_hub(monkeypatch):
            alice = client()
            try:
                async with alice:
                    await next_of(alice, Connected)
                    monkeypatch.setattr(
                        alice._core, "receive_data" if where == "the reader" else "tick", press
                    )
                    await trio.sleep(100)
            except KeyboardInterrupt:
                assert alice._core.is_closed
                left.append(True)

    pressed: list[bool] = []
    left: list[bool] = []
    run(main)
    assert pressed == left == [True]


@pytest.mark.parametrize("where", ["connect", "send_poke", "disconnect"])
def test_ctrl_c_does_not_come_in_the_middle_of_a_command(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    done: list[bool] = []

    async def main() -> None:
        async with memory_hub(monkeypatch):
            alice = client()
            command = getattr(alice._core, where)

            def pressed(*args: Any, **kwargs: Any) -> Any:
                if not done:
                    signal.raise_signal(signal.SIGINT)
                done.append(True)
                return command(*args, **kwargs)

            monkeypatch.setattr(alice._core, where, pressed)
            with pytest.raises(KeyboardInterrupt):
                async with alice:
                    await next_of(alice, Connected)
                    await alice.send_poke("bob")
            assert alice._core.is_closed

    run(main)
    assert done


def test_ctrl_c_while_trio_connects_is_in_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """trio has a task for each address of a host, and those are not safe from it."""

    async def pressed(host: str, port: int) -> Any:
        async def attempt() -> None:
            signal.raise_signal(signal.SIGINT)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt)

    async def main() -> None:
        monkeypatch.setattr(trio, "open_tcp_stream", pressed)
        alice = client()
        with pytest.raises(KeyboardInterrupt):
            async with alice:
                await trio.sleep(100)
        assert alice._core.is_closed

    run(main)


def test_ctrl_c_in_a_provider_is_in_no_group() -> None:
    async def provider() -> str:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError

    async def main() -> None:
        config = PresenceConfig(server_url="ws://127.0.0.1")
        alice = PresenceClient(Identity("alice", "Alice"), config, access_token=provider)
        with pytest.raises(KeyboardInterrupt):
            async with alice:
                await trio.sleep(100)
        assert alice._core.is_closed

    run(main)


# ---------------------------------------------------------------------------------------------- commands


def test_a_command_waits_for_what_was_written_and_is_not_made_when_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch) as hub, client() as alice:
            await next_of(alice, Connected)
            hub.block_writes()
            text = "x" * 60_000
            await alice.send_chat("lobby", text)
            await alice.send_chat("lobby", text)
            pending = alice._core.pending_commands
            with trio.move_on_after(1) as scope:
                await alice.send_chat("lobby", text)
            assert scope.cancelled_caught
            assert alice._core.pending_commands == pending
            waited = [False]

            async def wait() -> None:
                with pytest.raises(ConnectError):
                    await alice.send_chat("lobby", text)
                waited[0] = True

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(1)
                assert not waited[0]
                await alice.disconnect()

    run(main)


def test_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch) as hub, realtime() as one, realtime() as other:
            room = await one.join("realtime:room", ChannelConfig(broadcast_ack=True, presence_key="one"))
            assert isinstance(room, Channel)
            also = await other.join("realtime:room")
            await room.track({"mood": "good"})
            await also.broadcast("hello", {"n": 1})
            await room.broadcast("hello", {"n": 2})
            await trio.sleep(1)
            assert list(also.presence) == ["one"]
            hub.hangs = True
            with trio.move_on_after(1) as scope:
                await one.join("realtime:elsewhere")
            assert scope.cancelled_caught
            hub.hangs = False
            with trio.fail_after(60):
                while one._core.channels != ("realtime:room",):
                    await trio.sleep(0.1)
            await room.leave()
            assert hub.hub.topics == ("realtime:room",)
            assert await rest_of(room) != []

    run(main)


# ---------------------------------------------------------------------------------------------- bugs


def break_core(one: PresenceClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def receive_data(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("bug")

    monkeypatch.setattr(one._core, "receive_data", receive_data)


async def fail(
    one: PresenceClient, monkeypatch: pytest.MonkeyPatch, then: Callable[[], Any] = lambda: None
) -> None:
    """A body that reads no events, until the core has failed."""
    async with one:
        break_core(one, monkeypatch)
        await one._driver.ended.wait()
        then()


@pytest.mark.parametrize("deflate", [False, True])
def test_large_broadcasts_that_nobody_reads_do_not_pile_up(
    deflate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_queue, "MAX_QUEUED_BYTES", 5_000_000)

    async def main() -> None:
        async with memory_hub(monkeypatch, HubConfig(deflate=deflate)), realtime() as client:
            room = await client.join("realtime:room", ChannelConfig(broadcast_ack=True, broadcast_self=True))
            for n in range(20):
                await room.broadcast(str(n), "x" * 1_000_000)
            await room.leave()
            dropped, *rest = [event async for event in room]
            assert isinstance(dropped, EventsDropped)
            kept = [getattr(event, "event", None) for event in rest]
            assert kept == [str(n) for n in range(20 - len(kept), 20)]
            assert len(kept) in {4, 5}

    run(main)


def test_a_bug_of_the_core_reaches_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch) as hub, client() as alice:
            break_core(alice, monkeypatch)
            with pytest.raises(ZeroDivisionError):
                await next_of(alice, Connected)
            for late in (lambda: rest_of(alice), lambda: alice.send_poke("bob")):
                with pytest.raises(ConnectError, match="failed with ZeroDivisionError") as caught:
                    await late()
                assert isinstance(caught.value.__cause__, ZeroDivisionError)
            await trio.sleep(1)
            assert hub.hub.connections == ()

    run(main)


def test_a_bug_of_the_core_is_raised_at_the_end_when_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch):
            with pytest.raises(ZeroDivisionError):
                await fail(client(), monkeypatch)

    run(main)


def test_a_bug_of_the_core_does_not_hide_the_callers_own_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def then() -> None:
        raise KeyError

    async def main() -> None:
        async with memory_hub(monkeypatch):
            with pytest.raises(KeyError):
                await fail(client(), monkeypatch, then)

    run(main)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


def test_a_bug_of_the_driver_is_no_secret_either(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with memory_hub(monkeypatch):

            async def broken(*args: Any) -> Any:
                raise RuntimeError("bug")

            monkeypatch.setattr(trio, "open_tcp_stream", broken)
            async with client() as alice:
                with pytest.raises(RuntimeError, match="bug"):
                    await next_of(alice, Connected)

    run(main)
