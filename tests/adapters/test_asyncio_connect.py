"""`open_socket`: the addresses of a host, one beside the other, on asyncio and uvloop."""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib
import socket
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.fakes import sockets
from adapters.hub_thread import HubThread, nothing_left
from adapters.proxy import ProxyThread
from adapters.test_socket_driver import deaf_listener, free_port, port_of
from presence_adapters import asyncio_connect
from presence_adapters.asyncio import RealtimeClient
from presence_adapters.asyncio_connect import open_socket
from presence_adapters.tls_and_proxies import STAGGER, in_turn
from presence_proto import RealtimeConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")

NAME = "some.example"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Runs a coroutine on one of the loops; nothing may be left behind, and the loop must not complain."""
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    make: Any = importlib.import_module(request.param).new_event_loop
    complaints: list[Any] = []

    def on_loop(coroutine: Coroutine[Any, Any, T]) -> T:
        async def main() -> T:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
            async with asyncio.timeout(20):
                return await coroutine

        with asyncio.Runner(loop_factory=make) as runner:
            return runner.run(main())

    with nothing_left():
        yield on_loop
    assert complaints == []


@contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield port_of(listener)


def resolve(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Every name stands for these ports of loopback. Not by the resolver: uvloop has one in C."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(asyncio_connect, "numeric", lambda host, port: list(found))


@pytest.mark.long
@pytest.mark.parametrize("deaf_ones", [1, 3])
def test_a_dead_address_holds_up_no_other(run: Any, monkeypatch: pytest.MonkeyPatch, deaf_ones: int) -> None:
    async def main() -> tuple[float, Any]:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        with await open_socket(NAME, 80) as sock:
            return loop.time() - begin, sock.getpeername()

    with ExitStack() as stack:
        ports = [stack.enter_context(deaf_listener()) for _ in range(deaf_ones)]
        ports.append(stack.enter_context(listening()))
        resolve(monkeypatch, *ports)
        took, peer = run(main())
    assert peer == ("127.0.0.1", ports[-1])
    assert took > deaf_ones * STAGGER - 0.01


def test_after_a_failure_the_next_one_need_not_wait(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> Any:
        with await open_socket(NAME, 80) as sock:
            return sock.getpeername()

    monkeypatch.setattr(asyncio_connect, "STAGGER", 60.0)
    with listening() as port:
        resolve(monkeypatch, free_port(), free_port(), port)
        assert run(main()) == ("127.0.0.1", port)


@pytest.mark.parametrize("count", [1, 3])
def test_all_failures_are_told(run: Any, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    async def main() -> list[int | None]:
        with pytest.raises(OSError) as caught:
            await open_socket(NAME, 80)
        cause = caught.value.__cause__
        errors = cause.exceptions if isinstance(cause, ExceptionGroup) else (caught.value,)
        return [error.errno for error in errors if isinstance(error, OSError)]

    resolve(monkeypatch, *(free_port() for _ in range(count)))
    assert run(main()) == [errno.ECONNREFUSED] * count


def test_a_name_without_addresses(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def nothing(*args: Any, **kwargs: Any) -> list[Any]:
            return []

        monkeypatch.setattr(asyncio, "get_running_loop", lambda: type("Loop", (), {"getaddrinfo": nothing}))
        with pytest.raises(socket.gaierror, match="it has no address"):
            await open_socket(NAME, 80)
        monkeypatch.undo()

    run(main())


def test_what_is_no_name(run: Any) -> None:
    async def main() -> None:
        with pytest.raises((OSError, UnicodeError)):
            await open_socket("a" * 70 + ".example", 80)

    run(main())


@pytest.mark.parametrize("stagger", [0.0, 60.0])
def test_whenever_it_is_cancelled_nothing_is_left(
    run: Any, monkeypatch: pytest.MonkeyPatch, stagger: float
) -> None:
    """With an address that never answers and two that do: also when one has just answered."""

    async def main() -> None:
        passes = reached = 0
        while passes < 25 or reached < 3:
            passes += 1
            attempt = asyncio.ensure_future(open_socket(NAME, 80))
            for _ in range(passes):
                await asyncio.sleep(0)
            attempt.cancel()
            if passes % 2:
                await asyncio.sleep(0)
                attempt.cancel()  # once more, while it ends
            await asyncio.wait([attempt])
            if not attempt.cancelled():
                attempt.result().close()
                reached += 1

    monkeypatch.setattr(asyncio_connect, "STAGGER", stagger)
    with deaf_listener() as deaf, listening() as one, listening() as other:
        resolve(monkeypatch, *([deaf, one, other] if stagger == 0.0 else [one, deaf, other]))
        gc.collect()
        before = sockets()
        run(main())
        assert sockets() <= before  # without the help of the collector


def test_of_two_that_answer_at_once_one_is_closed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        for _ in range(20):
            (await open_socket(NAME, 80)).close()

    monkeypatch.setattr(asyncio_connect, "STAGGER", 0.0)
    with listening() as one, listening() as other:
        resolve(monkeypatch, one, other, one, other)
        gc.collect()
        before = sockets()
        run(main())
        assert sockets() <= before


@pytest.mark.long
@pytest.mark.parametrize("through_a_proxy", [False, True], ids=["direct", "proxy"])
def test_a_client_gets_past_a_dead_address(
    run: Any, monkeypatch: pytest.MonkeyPatch, through_a_proxy: bool
) -> None:
    async def main() -> None:
        config = RealtimeConfig(server_url=f"ws://{NAME}:80/socket")
        proxy = "http://proxy.example:3128" if through_a_proxy else ""
        async with RealtimeClient(config, proxy=proxy) as client:
            await client.join("room:lobby", {"user_id": "ann"})

    with deaf_listener() as deaf, HubThread() as hub, ProxyThread(target=hub.port) as proxy:
        resolve(monkeypatch, deaf, proxy.port if through_a_proxy else hub.port)
        run(main())


@given(st.lists(st.tuples(st.sampled_from(["v4", "v6", "other"]), st.integers())))
def test_families_take_turns(found: list[tuple[str, int]]) -> None:
    ordered = in_turn(found)
    assert sorted(ordered) == sorted(found)
    assert ordered[:1] == found[:1]
    for family in ("v4", "v6", "other"):
        assert [one for one in ordered if one[0] == family] == [one for one in found if one[0] == family]
    left = {family: sum(one[0] == family for one in found) for family, _ in found}
    for one, following in pairwise(ordered):
        left[one[0]] -= 1
        if one[0] == following[0]:
            assert sum(count > 0 for count in left.values()) == 1
