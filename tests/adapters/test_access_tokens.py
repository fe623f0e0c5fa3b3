"""Access tokens from the application, on all adapters, from a hub that looks at them."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging
import threading
import time
from base64 import urlsafe_b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import trio

import presence_adapters.asyncio
import presence_adapters.trio
from adapters.every_adapter import IDENTITY, ON, Listen
from adapters.fakes import run, sockets
from adapters.hub_thread import hub_thread, until
from presence_adapters import blocking, stepped
from presence_adapters.access_tokens import expires_in, is_async
from presence_adapters.daemon_thread import DaemonCall
from presence_proto import (
    ConfigError,
    Connected,
    Disconnected,
    Error,
    HubConfig,
    Identity,
    PresenceConfig,
    PresenceError,
    RealtimeConfig,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "not a secret, but long enough for HMAC with SHA-256"
TOPIC = "realtime:jarvis-presence"
FAST: Any = {
    "jitter": 0.0,
    "reconnect_delay": 0.1,
    "max_reconnect_delay": 0.4,
    "close_timeout": 0.5,
    "stable_after": 0.05,
}

on_all = pytest.mark.parametrize("listen", ON.values(), ids=ON.keys())
on_loops = pytest.mark.parametrize("listen", [ON["asyncio"], ON["trio"]], ids=["asyncio", "trio"])


def token(seconds: float = 3600.0, **claims: Any) -> str:
    return jwt.encode({"exp": time.time() + seconds, "n": time.monotonic(), **claims}, KEY)


def config(url: str, **options: Any) -> PresenceConfig:
    return PresenceConfig(server_url=url, **{**FAST, **options})


@contextmanager
def no_socket_left() -> Iterator[None]:
    """Threads of trio's may be left: it keeps them for a while."""
    before = sockets()
    yield
    gc.collect()
    until(lambda: sockets() <= before)


class Checks:
    """A rule for a hub: tokens must be good now. `seen` are those that came with joins and after them."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    def __call__(self, topic: str, token: str | None) -> str | None:
        self.seen.append(token)
        try:
            jwt.decode(token or "", KEY, algorithms=["HS256"], options={"verify_exp": True})
        except jwt.ExpiredSignatureError:
            return "Token has expired"
        except jwt.InvalidTokenError:
            return "Token is invalid"
        return None


class Provider:
    """Gives one token after the other, the last one for ever, and notes how often two asked at once."""

    def __init__(self, *tokens: Any, takes: float = 0.0) -> None:
        self.given: list[Any] = []
        self.threads: set[int] = set()
        self._tokens = list(tokens)
        self._takes = takes
        self._inside = threading.Lock()

    def __call__(self) -> Any:
        assert self._inside.acquire(blocking=False), "two calls at once"
        try:
            self.threads.add(threading.get_ident())
            time.sleep(self._takes)
            result = self._tokens.pop(0) if len(self._tokens) > 1 else self._tokens[0]
            self.given.append(result)
            if isinstance(result, Exception):
                raise result
            return result
        finally:
            self._inside.release()


# ---------------------------------------------------------------------------------------------- on all


@on_all
def test_a_provider_is_asked_in_a_thread_before_the_connect(listen: Listen) -> None:
    checks, provider = Checks(), Provider(token())
    with no_socket_left(), hub_thread(HubConfig(authorize=checks)) as hub:
        events = listen(config(hub.url), lambda events: True, access_token=provider)
    assert isinstance(events[0], Connected)
    assert len(provider.given) == 1
    assert checks.seen == provider.given
    assert threading.get_ident() not in provider.threads


@on_all
def test_after_an_expired_token_one_is_asked_for_and_we_are_back(listen: Listen) -> None:
    checks, provider = Checks(), Provider(token(), token())
    with no_socket_left(), hub_thread(HubConfig(authorize=checks)) as hub:

        def is_over(events: list[Any]) -> bool:
            if len(events) == 1:
                hub.close_channel(TOPIC, "Token has expired")
            return len(events) > 1 and isinstance(events[-1], Connected)

        events = listen(config(hub.url), is_over, access_token=provider)
    (down,) = [event for event in events if isinstance(event, Disconnected)]
    assert down.reason == "Token has expired"
    assert checks.seen == provider.given
    assert len(provider.given) == 2


@pytest.mark.long
@on_all
def test_a_provider_of_expired_tokens_is_not_asked_in_a_loop(listen: Listen) -> None:
    checks, provider = Checks(), Provider(token(-10.0))
    with no_socket_left(), hub_thread(HubConfig(authorize=checks)) as hub:
        began = time.monotonic()
        events = listen(
            config(hub.url),
            lambda events: sum(isinstance(event, Disconnected) for event in events) == 4,
            access_token=provider,
        )
        took = time.monotonic() - began
    assert took > 0.7  # 0.1 + 0.2 + 0.4 s between the four
    assert {event.message for event in events if isinstance(event, Error)} == {
        "the server refused us: Token has expired"
    }
    assert 4 <= len(checks.seen) <= 5
    assert 4 <= len(provider.given) <= 9  # for the joins, and because of the expiry


@pytest.mark.long
@on_all
def test_a_token_is_replaced_before_it_expires(listen: Listen) -> None:
    seen: list[str | None] = []
    provider = Provider(token(1.0), token())

    def is_over(events: list[Any]) -> bool:
        if len(events) == 1:  # that a token is replaced is no event: another client comes in then
            threading.Thread(target=come_in_after_the_second_token).start()
        return len(events) == 2

    def come_in_after_the_second_token() -> None:
        until(lambda: len(seen) == 2)
        with blocking.PresenceClient(Identity("bob", "Bob"), config(hub.url)) as bob:
            list(bob.events(timeout=0.3))

    def authorize(topic: str, token: str | None) -> None:
        seen.append(token)

    with no_socket_left(), hub_thread(HubConfig(authorize=authorize)) as hub:
        listen(config(hub.url), is_over, access_token=provider)
    assert seen[:2] == provider.given


@pytest.mark.long
@on_all
def test_a_provider_that_fails_is_asked_again_and_its_words_are_not_repeated(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    provider = Provider(
        RuntimeError("s3cret-url"), ConfigError("pass ended with exit status 1"), 7, "", b"", token()
    )
    with no_socket_left(), hub_thread() as hub:
        events = listen(
            config(hub.url, max_reconnect_delay=0.1), lambda events: len(events) == 6, access_token=provider
        )
    start = "no access token: the token provider "
    assert [event.reason.removeprefix(start) for event in events[:-1]] == [
        f"failed: RuntimeError in test_access_tokens.py, line {line_of_raise()}",
        "failed: pass ended with exit status 1",
        "returned an object of type int, not a string",
        "returned an invalid token: access_token must be a non-empty Unicode string or None, not str",
        "returned an object of type bytes, not a string",
    ]
    assert isinstance(events[-1], Connected)
    assert "s3cret" not in caplog.text + repr(events)
    warned = [record.name for record in caplog.records if record.levelno == logging.WARNING]
    assert sorted(warned) == ["presence_adapters.access_tokens"] * 2 + [
        "presence_adapters.connection_monitor"
    ]


def line_of_raise() -> int:
    lines, first = inspect.getsourcelines(Provider.__call__)
    return first + lines.index("                raise result\n")


@pytest.mark.long
@on_all
def test_a_provider_that_hangs_is_asked_once_and_is_left_alone(listen: Listen) -> None:
    hangs, calls = threading.Event(), []

    def provider() -> str:
        calls.append(1)
        hangs.wait(10)
        return token()

    with no_socket_left(), hub_thread() as hub:
        events = listen(
            config(hub.url, access_token_timeout=0.1), lambda events: len(events) == 3, access_token=provider
        )
        hangs.set()
    assert [event.reason for event in events] == ["no access token: no answer within 0.1 s"] * 3
    assert len(calls) == 1


@on_all
@pytest.mark.parametrize("end", [SystemExit("s3cret"), asyncio.CancelledError("s3cret")])
def test_a_provider_that_ends_its_thread_has_failed(
    listen: Listen, end: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    def provider() -> str:
        asked.append(1)
        if len(asked) == 1:
            raise end
        return token()

    with no_socket_left(), hub_thread() as hub:
        events = listen(config(hub.url), lambda events: len(events) == 2, access_token=provider)
    where = f"{type(end).__name__} in test_access_tokens.py, line "
    assert events[0].reason.startswith(f"no access token: the token provider failed: {where}")
    assert isinstance(events[1], Connected)
    assert "s3cret" not in caplog.text


@on_all
def test_an_exception_that_cannot_be_put_into_words(listen: Listen) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    provider = Provider(MuteError(), token())
    with no_socket_left(), hub_thread() as hub:
        events = listen(config(hub.url), lambda events: len(events) == 2, access_token=provider)
    assert events[0].reason.startswith("no access token: the token provider failed: MuteError in test_a")
    assert isinstance(events[1], Connected)


def test_no_room_for_the_thread_of_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ends: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        call = DaemonCall("access token", token, lambda: ends.append("over"))
    assert call.is_over
    assert ends == ["over"]
    with pytest.raises(PresenceError, match=r"^the system cannot start another thread$"):
        call.result()


@pytest.mark.long
@on_all
def test_a_late_answer_is_an_answer(listen: Listen) -> None:
    with no_socket_left(), hub_thread() as hub:
        events = listen(
            config(hub.url, access_token_timeout=0.1),
            lambda events: isinstance(events[-1], Connected),
            access_token=Provider(token(), takes=0.3),
        )
    assert isinstance(events[0], Disconnected)


@on_all
def test_a_token_that_is_a_string(listen: Listen) -> None:
    checks, good = Checks(), token()
    with no_socket_left(), hub_thread(HubConfig(authorize=checks)) as hub:
        listen(config(hub.url, access_token="old"), lambda events: True, access_token=good)
    assert checks.seen == [good]


@on_all
def test_no_token_at_all(listen: Listen) -> None:
    with no_socket_left(), hub_thread() as hub:
        events = listen(config(hub.url, access_token="old"), lambda events: True, access_token=lambda: None)
    assert isinstance(events[0], Connected)


# ---------------------------------------------------------------------------------------------- async ones


class AsyncProvider:
    async def __call__(self) -> str:
        return token()


@on_loops
@pytest.mark.parametrize("how", ["async", "partial", "object", "lambda"])
def test_an_async_provider(listen: Listen, how: str) -> None:
    threads = set()

    async def provider(seconds: float = 3600.0) -> str:
        threads.add(threading.get_ident())
        return token(seconds)

    providers: dict[str, Callable[[], Any]] = {
        "async": provider,
        "partial": functools.partial(provider, 100.0),
        "object": AsyncProvider(),
        "lambda": lambda: provider(),
    }
    checks = Checks()
    with no_socket_left(), hub_thread(HubConfig(authorize=checks)) as hub:
        events = listen(config(hub.url), lambda events: True, access_token=providers[how])
    assert isinstance(events[0], Connected)
    assert len(checks.seen) == 1
    assert threads <= {threading.get_ident()}


@on_loops
def test_an_async_provider_that_takes_too_long_is_cancelled_and_asked_again(listen: Listen) -> None:
    asked: list[str] = []

    async def provider() -> str:
        asked.append("asked")
        if len(asked) < 4:
            try:
                await (asyncio.sleep(5) if listen is ON["asyncio"] else trio.sleep(5))
            finally:
                asked.append("cancelled")
        return token()

    with no_socket_left(), hub_thread() as hub:
        events = listen(
            config(hub.url, access_token_timeout=0.1), lambda events: len(events) == 3, access_token=provider
        )
    assert asked == ["asked", "cancelled", "asked", "cancelled", "asked"]
    late = {"no access token: no answer within 0.1 s"}
    late.add("no access token: the token provider failed: it took longer than 0.1 s")
    assert {event.reason for event in events[:2]} <= late
    assert isinstance(events[2], Connected)


@on_loops
def test_a_plain_provider_of_an_awaitable_has_no_more_time_than_an_async_one(listen: Listen) -> None:
    asked: list[str] = []

    async def slow() -> str:
        asked.append("asked")
        if len(asked) == 1:
            await (asyncio.sleep(60) if listen is ON["asyncio"] else trio.sleep(60))
        return token()

    with no_socket_left(), hub_thread() as hub:
        events = listen(
            config(hub.url, access_token_timeout=0.1),
            lambda events: len(events) == 2,
            access_token=lambda: slow(),
        )
    assert asked == ["asked", "asked"]
    assert isinstance(events[1], Connected)


def test_an_async_provider_that_waits_for_something_that_is_cancelled() -> None:
    asked: list[int] = []

    async def provider() -> str:
        asked.append(1)
        if len(asked) == 1:
            other = asyncio.ensure_future(asyncio.sleep(60))
            other.cancel()
            await other
        return token()

    with no_socket_left(), hub_thread() as hub:
        events = ON["asyncio"](config(hub.url), lambda events: len(events) == 2, access_token=provider)
    assert events[0] == Disconnected("no access token: the token provider failed: it was cancelled", 0.1)
    assert isinstance(events[1], Connected)


def test_a_timeout_of_the_providers_own_is_one_of_its_failures() -> None:
    async def provider() -> str:
        raise TimeoutError

    with hub_thread() as hub:
        events = ON["asyncio"](config(hub.url), lambda events: True, access_token=provider)
    assert events[0].reason.startswith("no access token: the token provider failed: TimeoutError in test_")


@pytest.mark.parametrize("adapter", [blocking, stepped])
def test_on_sockets_a_provider_is_a_plain_function(adapter: Any) -> None:
    with pytest.raises(ConfigError, match="access_token must be a plain function here"):
        adapter.PresenceClient(IDENTITY, config("ws://127.0.0.1"), access_token=AsyncProvider())
    with pytest.raises(ConfigError, match="access_token must be a plain function here"):
        adapter.RealtimeClient(RealtimeConfig(server_url="ws://127.0.0.1"), access_token=AsyncProvider())


@pytest.mark.parametrize("listen", [ON["blocking"], ON["stepped"]], ids=["blocking", "stepped"])
def test_on_sockets_a_coroutine_is_no_token(listen: Listen) -> None:
    with no_socket_left(), hub_thread() as hub:
        events = listen(config(hub.url), lambda events: True, access_token=lambda: AsyncProvider()())
    words = "no access token: the token provider returned an object of type coroutine, not a string"
    assert events == [Disconnected(words, 0.1)]


# ---------------------------------------------------------------------------------------------- the end


def test_leaving_while_the_provider_is_asked() -> None:
    """What it says after the end is dropped. Nothing waits for it."""
    hangs, nowhere = threading.Event(), config("ws://127.0.0.1")

    def provider() -> str:
        hangs.wait(10)
        return token()

    async def on_asyncio() -> None:
        client = presence_adapters.asyncio.PresenceClient(
            IDENTITY, config("ws://127.0.0.1"), access_token=provider
        )
        async with client:
            await asyncio.sleep(0.05)

    async def on_trio() -> None:
        client = presence_adapters.trio.PresenceClient(
            IDENTITY, config("ws://127.0.0.1"), access_token=provider
        )
        async with client:
            await trio.sleep(0.05)

    began = time.monotonic()
    with no_socket_left():
        run(on_asyncio)
        trio.run(on_trio)
        with blocking.PresenceClient(IDENTITY, nowhere, access_token=provider) as client:
            assert list(client.events(timeout=0.05)) == []
        with stepped.PresenceClient(IDENTITY, nowhere, access_token=provider) as other:
            other.step()
            assert other.next_delay() is not None
        assert other.next_delay() is None
        assert time.monotonic() - began < 2
        hangs.set()


def test_an_async_provider_is_cancelled_by_leaving() -> None:
    ends: list[str] = []

    async def on_asyncio() -> None:
        async def provider() -> str:
            try:
                await asyncio.sleep(10)
            finally:
                ends.append("asyncio")
            return ""

        client = presence_adapters.asyncio.RealtimeClient(
            RealtimeConfig(server_url="ws://127.0.0.1"), access_token=provider
        )
        async with client:
            await asyncio.sleep(0.02)
        assert ends == ["asyncio"]

    run(on_asyncio)


def test_a_program_that_asks_itself_does_it_with_the_core() -> None:
    asks = config("ws://127.0.0.1", asks_for_token=True)
    for adapter in (presence_adapters.asyncio, presence_adapters.trio, blocking, stepped):
        client: Any = adapter
        with pytest.raises(ConfigError, match="asks_for_token requires an access_token that is a function"):
            client.PresenceClient(IDENTITY, asks)


# ---------------------------------------------------------------------------------------------- the claim


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_the_expiry_of_a_token(seconds: float) -> None:
    left = expires_in(token(seconds))
    assert left is not None
    assert seconds - 5 < left <= seconds


@pytest.mark.parametrize("odd", ["opaque", "a.b.c", jwt.encode({}, KEY), jwt.encode({"sub": "x"}, KEY)])
def test_a_token_that_does_not_say_when_it_expires(odd: str) -> None:
    assert expires_in(odd) is None


@pytest.mark.parametrize("expiry", ["1" + 400 * "0", "1e999", "NaN", "-Infinity", "true"])
def test_an_expiry_that_is_no_time(expiry: str) -> None:
    claims = urlsafe_b64encode(b'{"exp": %s}' % expiry.encode()).decode().rstrip("=")
    header, _, signature = token().split(".")
    left = expires_in(f"{header}.{claims}.{signature}")
    assert left is None or left < 0


def test_text_that_no_token_can_be_is_refused_by_the_core() -> None:
    assert expires_in("\ud800.e30.e30") is None
    with hub_thread() as hub:
        events = ON["asyncio"](config(hub.url), lambda events: True, access_token=lambda: "\ud800.e30.e30")
    assert events[0].reason.startswith(
        "no access token: the token provider returned an invalid token: access_token must be"
    )


def test_what_is_async() -> None:
    assert is_async(AsyncProvider())
    assert is_async(AsyncProvider().__call__)
    assert not is_async(lambda: None)
    assert not is_async("token")
