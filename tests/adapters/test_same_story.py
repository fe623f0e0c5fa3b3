"""The same scripted story gives the same events on every loop."""

from __future__ import annotations

import asyncio
import select
import threading
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import trio

import presence_adapters.asyncio
import presence_adapters.trio
from adapters.fakes import Certificates
from adapters.hub_thread import HubThread, hub_thread, nothing_left, until
from presence_adapters import blocking, stepped
from presence_proto import (
    ActivityChanged,
    ChatMessage,
    Connected,
    Disconnected,
    GameInvite,
    Identity,
    Poked,
    PresenceConfig,
    UserOffline,
    UserOnline,
    UserStatus,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

STORY = [
    "Connected 1",
    "UserOnline bob",
    "ActivityChanged bob in_game Snake",
    "Poked bob",
    "GameInvite bob Snake 1234",
    "ChatMessage bob hello",
    "Disconnected True",
    "Connected 2 resumed",
    "ActivityChanged bob online None",
    "UserOffline bob",
    "Disconnected False",
]


def in_words(event: Any) -> str:
    match event:
        case Connected(count, _, resumed):
            return f"Connected {count}{' resumed' if resumed else ''}"
        case Disconnected():
            return f"Disconnected {event.retry_in is not None}"
        case ActivityChanged():
            return f"ActivityChanged {event.user.user_id} {event.user.status} {event.user.activity}"
        case UserOnline() | UserOffline():
            return f"{type(event).__name__} {event.user.user_id}"
        case Poked():
            return f"Poked {event.user_id}"
        case GameInvite():
            return f"GameInvite {event.user_id} {event.game} {event.code}"
        case ChatMessage():
            return f"ChatMessage {event.user_id} {event.content}"
    return repr(event)


class Hero(Protocol):
    """A client on a loop of its own, in a thread of its own."""

    heard: list[str]

    def live(self, config: PresenceConfig, ssl_context: ssl.SSLContext | None) -> None: ...
    def update_activity(self, status: UserStatus, activity: str) -> None: ...
    def disconnect(self) -> None: ...


IDENTITY = Identity("alice", "Alice")


class OnAsyncio:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def live(self, config: PresenceConfig, ssl_context: ssl.SSLContext | None) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            async with presence_adapters.asyncio.PresenceClient(
                IDENTITY, config, ssl_context=ssl_context
            ) as self._client:
                async for event in self._client:
                    self.heard.append(in_words(event))

        asyncio.run(main())

    def update_activity(self, status: UserStatus, activity: str) -> None:
        self._do(self._client.update_activity(status, activity))

    def disconnect(self) -> None:
        self._do(self._client.disconnect())

    def _do(self, command: Any) -> None:
        asyncio.run_coroutine_threadsafe(command, self._loop).result(5)


class OnTrio:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def live(self, config: PresenceConfig, ssl_context: ssl.SSLContext | None) -> None:
        async def main() -> None:
            self._token = trio.lowlevel.current_trio_token()
            async with presence_adapters.trio.PresenceClient(
                IDENTITY, config, ssl_context=ssl_context
            ) as self._client:
                async for event in self._client:
                    self.heard.append(in_words(event))

        trio.run(main)

    def update_activity(self, status: UserStatus, activity: str) -> None:
        trio.from_thread.run(self._client.update_activity, status, activity, trio_token=self._token)

    def disconnect(self) -> None:
        trio.from_thread.run(self._client.disconnect, trio_token=self._token)


class OnThreads:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def live(self, config: PresenceConfig, ssl_context: ssl.SSLContext | None) -> None:
        with blocking.PresenceClient(IDENTITY, config, ssl_context=ssl_context) as self._client:
            for event in self._client.events():
                self.heard.append(in_words(event))

    def update_activity(self, status: UserStatus, activity: str) -> None:
        self._client.update_activity(status, activity)

    def disconnect(self) -> None:
        self._client.disconnect()


class OnSelect:
    """What another thread wants is done at the next pass of the loop."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._wanted: list[Callable[[stepped.PresenceClient], object]] = []

    def live(self, config: PresenceConfig, ssl_context: ssl.SSLContext | None) -> None:
        client = stepped.PresenceClient(IDENTITY, config, ssl_context=ssl_context)
        client.connect()
        while not client.is_closed:
            client.step()
            while self._wanted:
                self._wanted.pop(0)(client)
            self.heard += [in_words(event) for event in client.events()]
            files = [client] if client.fileno() >= 0 else []
            delay = client.next_delay()
            select.select(
                files, files if client.wants_write else [], [], 0.02 if delay is None else min(delay, 0.02)
            )

    def update_activity(self, status: UserStatus, activity: str) -> None:
        self._wanted.append(lambda client: client.update_activity(status, activity))

    def disconnect(self) -> None:
        self._wanted.append(lambda client: client.disconnect())


def tell(hero: Hero, hub: HubThread, context: ssl.SSLContext | None) -> None:
    config = PresenceConfig(server_url=hub.url, reconnect_delay=0.3, max_reconnect_delay=0.3, jitter=0.0)

    def heard(count: int) -> None:
        until(lambda: len(hero.heard) >= count)

    thread = threading.Thread(target=hero.live, args=(config, context))
    thread.start()
    heard(1)
    with blocking.PresenceClient(Identity("bob", "Bob"), config, ssl_context=context) as bob:
        bob.drive_in_background()
        heard(2)
        bob.update_activity(UserStatus.IN_GAME, "Snake")
        heard(3)
        hero.update_activity(UserStatus.AWAY, "Lunch")
        until(lambda: "Lunch" in {user.activity for user in bob.online_users})
        bob.send_poke("nobody")
        bob.send_poke("alice")
        bob.send_invite("Snake", "1234")
        bob.send_chat("lobby", "hello")
        heard(6)
        hub.cut(hub.connections[0])
        heard(7)
        bob.update_activity(UserStatus.ONLINE)  # while alice is away
        until(lambda: bob.online_count == 1)
        until(lambda: bob.online_count == 2)
        assert "Lunch" in {user.activity for user in bob.online_users}
        heard(9)
    heard(10)
    hero.disconnect()
    thread.join(5)
    assert not thread.is_alive()
    assert hero.heard == STORY
    until(lambda: not hub.connections)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("hero", [OnAsyncio, OnTrio, OnThreads, OnSelect])
def test_the_story(hero: type[Hero], tls: bool) -> None:
    certificates = Certificates() if tls else None
    with nothing_left(), hub_thread(ssl_context=certificates and certificates.server) as hub:
        tell(hero(), hub, certificates and certificates.client)
