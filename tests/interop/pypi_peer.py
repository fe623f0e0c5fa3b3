"""The official Python client: `realtime` from PyPI."""

from __future__ import annotations

import asyncio
import logging
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import realtime
from realtime.types import RealtimeAcknowledgementStatus

from interop.peers import API_KEY, Peer, roster_of

_HOME = str(Path(realtime.__file__).parent)
_CLOSED = re.compile(r"WebSocket connection closed (?:by server )?with code: (\d+)")


class PyPIPeer(Peer):
    """`realtime.AsyncRealtimeClient`, which speaks V1 only.

    `not_understood`: what the server said and the client could not parse; must stay empty.
    """

    family = "supabase"

    def __init__(self, name: str, url: str, vsn: str = "1.0.0") -> None:
        super().__init__(name, url, vsn)
        self.not_understood: list[str] = []
        self._client: realtime.AsyncRealtimeClient | None = None
        self._channel: Any = None
        self._meta: dict[str, Any] | None = None
        self._tracking: asyncio.Task[None] | None = None
        self._log = _Log(self)

    async def connect(self, *, heartbeat: float = 25.0, token: str | None = None) -> None:
        self._log.listen()
        # Its shortest heartbeat interval is 15 s, but the first heartbeat goes out at once.
        self._client = realtime.AsyncRealtimeClient(
            self.url, token=API_KEY, hb_interval=int(heartbeat), max_retries=50, initial_backoff=0.05
        )
        self._client.access_token = token
        await self._client.connect()

    async def ask_to_join(self, key: str, *, ack: bool = False, echo: bool = False) -> None:
        self._make_channel(key, ack=ack, echo=echo, presence=True)
        self.watch_presence()
        await self._channel.subscribe(self._status)

    async def ask_to_join_without_presence(self, key: str) -> None:
        """Join, and do not ask for presence."""
        self._make_channel(key, ack=False, echo=False, presence=False)
        await self._channel.subscribe(self._status)

    def watch_presence(self) -> None:
        """Note the presence from now on."""
        channel = self._channel
        channel.on_presence_sync(lambda: self.syncs.append(roster_of(deepcopy(channel.presence_state()))))
        channel.on_presence_join(lambda key, current, new: self.note_flip("join", key, len(current)))
        channel.on_presence_leave(lambda key, current, left: self.note_flip("leave", key, len(current)))

    def _make_channel(self, key: str, *, ack: bool, echo: bool, presence: bool) -> None:
        assert self._client is not None
        config: Any = {
            "broadcast": {"ack": ack, "self": echo},
            "presence": {"key": key, "enabled": presence},
            "private": False,
        }
        name = self.topic.removeprefix("realtime:")
        channel = self._channel = self._client.channel(name, {"config": config})
        channel.on_broadcast("*", lambda said: self.heard.append((said["event"], said["payload"])))
        channel.on_system(lambda payload: self.systems.append(payload.model_dump()))

    def _status(self, status: Any, error: Exception | None) -> None:
        self.statuses.append(status.value)
        self.details.append(error)
        if status.value == "SUBSCRIBED" and self._meta is not None:
            self._tracking = asyncio.get_running_loop().create_task(self._channel.track(self._meta))

    async def track(self, meta: dict[str, Any]) -> None:
        self._meta = meta
        await self._channel.track(meta)

    async def untrack(self) -> None:
        self._meta = None
        await self._channel.untrack()

    async def say(self, event: str, payload: Any) -> str:
        """Its `send_broadcast` does not wait for the answer; what it pushes is the same."""
        answered = asyncio.get_running_loop().create_future()
        push = await self._channel.push(
            "broadcast", {"type": "broadcast", "event": event, "payload": payload}
        )
        if not self._channel.params["config"]["broadcast"]["ack"]:
            return "ok"
        push.receive(RealtimeAcknowledgementStatus.Ok, lambda _: answered.set_result("ok"))
        push.receive(RealtimeAcknowledgementStatus.Error, lambda _: answered.set_result("error"))
        async with asyncio.timeout(10):
            return str(await answered)

    async def leave(self) -> None:
        await self._channel.unsubscribe()
        await self.until(lambda peer: peer.statuses[-1] == "CLOSED", "leaves")

    async def set_token(self, token: str) -> None:
        assert self._client is not None
        await self._client.set_auth(token)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if self._tracking is not None:
            await self._tracking
        await client.close()
        # Its timeouts and cancelled listeners are still tasks after that.
        leftovers = [task for task in asyncio.all_tasks() if _is_its_own(task)]
        for task in leftovers:
            task.cancel()
        await asyncio.gather(*leftovers, return_exceptions=True)
        self._log.stop()
        assert not self.not_understood


class _Log(logging.Handler):
    """Only its log tells what the client cannot parse, that heartbeats are answered, and of the socket."""

    def __init__(self, peer: PyPIPeer) -> None:
        super().__init__()
        self._peer = peer

    def listen(self) -> None:
        self._logger = logging.getLogger("realtime")
        self._before = self._logger.level, self._logger.propagate
        self._logger.addHandler(self)
        self._logger.setLevel(logging.DEBUG)
        self._logger.propagate = False

    def stop(self) -> None:
        self._logger.removeHandler(self)
        level, self._logger.propagate = self._before
        self._logger.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("Unrecognized message format"):
            self._peer.not_understood.append(message)
        elif message.startswith("parsed message as ReplyMessage") and "topic='phoenix'" in message:
            self._peer.heartbeats += 1
        elif match := _CLOSED.match(message):
            self._peer.closed.append(int(match[1]))
        elif message == "WebSocket connection established successfully":
            self._peer.opened += 1


def _is_its_own(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(_HOME)
