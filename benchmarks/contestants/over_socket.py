"""Clients in Python over a loopback socket, whole and as shipped, served by `benchmarks.feeder`.

python -m benchmarks.contestants.over_socket ours | realtime
"""

from __future__ import annotations

import asyncio
import logging
import sys
from abc import ABC, abstractmethod
from typing import Any

import realtime

from benchmarks.contestants.child import serve
from benchmarks.workloads import TOPIC
from presence_adapters.asyncio import PresenceClient
from presence_proto import ChatMessage, Identity, PresenceConfig

LIMIT = 256 * 1024 * 1024


class OverSocket(ABC):
    """A contestant on an event loop."""

    @abstractmethod
    async def leave(self) -> None:
        """End the connection, if there is one."""

    @abstractmethod
    async def enter(self, url: str) -> None:
        """Connect. `_done` is to be set with each `chat_message`."""

    @abstractmethod
    async def say(self) -> None:
        """Say a `chat_message`."""

    @abstractmethod
    def roster(self) -> dict[str, list[str]]:
        """The users by presence key."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._events = 0
        self._done: asyncio.Event = asyncio.Event()

    def load_from(self, port: int) -> None:
        self._loop.run_until_complete(self._load(f"ws://127.0.0.1:{port}/realtime/v1"))

    async def _load(self, url: str) -> None:
        await self.leave()
        self._done.clear()
        await self.enter(url)
        await self._done.wait()

    def run(self) -> int:
        self._events = 0
        self._loop.run_until_complete(self._run())
        return self._events

    async def _run(self) -> None:
        self._done.clear()
        await self.say()
        await self._done.wait()


class Ours(OverSocket):
    """`presence_adapters.asyncio.PresenceClient`, with its event stream read."""

    _client: PresenceClient | None = None
    _reader: asyncio.Task[None] | None = None

    async def leave(self) -> None:
        if self._client is not None and self._reader is not None:
            await self._client.disconnect()
            await self._reader
            await self._client.__aexit__(None, None, None)

    async def enter(self, url: str) -> None:
        config = PresenceConfig(server_url=url, max_message_size=LIMIT, deflate=False)
        self._client = await PresenceClient(Identity("me", "Me"), config).__aenter__()
        self._reader = asyncio.create_task(self._read(self._client))

    async def _read(self, client: PresenceClient) -> None:
        async for event in client:
            self._events += 1
            if isinstance(event, ChatMessage):
                self._done.set()

    async def say(self) -> None:
        assert self._client is not None
        await self._client.send_chat("all", "go")

    def roster(self) -> dict[str, list[str]]:
        assert self._client is not None
        return {user.user_id: [] for user in self._client.online_users if user.user_id != "me"}


class Official(OverSocket):
    """`realtime` from PyPI."""

    _client: Any = None

    async def leave(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def enter(self, url: str) -> None:
        logging.disable(logging.CRITICAL)
        self._client = realtime.AsyncRealtimeClient(url, token="key")
        self._channel = self._client.channel(TOPIC.removeprefix("realtime:"))
        self._channel.on_presence_join(self._told)
        self._channel.on_presence_leave(self._told)
        self._channel.on_presence_sync(self._told)
        self._channel.on_broadcast("chat_message", lambda _: self._done.set())
        await self._client.connect()
        await self._channel.subscribe()

    def _told(self, *_: Any) -> None:
        self._events += 1

    async def say(self) -> None:
        await self._channel.send_broadcast("chat_message", {"content": "go"})

    def roster(self) -> dict[str, list[str]]:
        return {key: [] for key in self._channel.presence.state}


if __name__ == "__main__":
    kinds: dict[str, type[OverSocket]] = {"ours": Ours, "realtime": Official}
    serve(kinds[sys.argv[1]]())
