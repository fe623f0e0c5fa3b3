"""What a client says: from a command to the bytes or the text for its WebSocket.

    python -m benchmarks.contestants.saying update-activity | chat | heartbeat | pypi-chat | pypi-heartbeat

Each line of stdin is a request, `{"count": …}`; the answer is the CPU time of so many, in seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.contestants.ours import LIMIT, URL, Online, drain
from benchmarks.plain_client import user_id
from benchmarks.workloads import GAMES, TOPIC
from presence_proto import Identity, PresenceClient, PresenceConfig, UserStatus
from presence_proto.websocket.frames import server_frame

TEXT = "Is anybody there? " * 4
STATUSES = (UserStatus.IN_GAME, UserStatus.IN_SKILL)


class Ours:
    """`PresenceClient` in a room, and what it says."""

    def __init__(self) -> None:
        # There is no budget: every activity is a broadcast and a track.
        config = PresenceConfig(server_url=URL, max_message_size=LIMIT, deflate=False, track_limit=None)
        self._interval = config.heartbeat_interval
        self._online = Online(PresenceClient(Identity(user_id(0), "Me"), config))
        self._client = self._online.client
        self._online.take([_from_server(None, TOPIC, "presence_state", {})])
        self._now = 0.0

    def update_activity(self, count: int) -> None:
        """Do another thing each time."""
        for number in range(count):
            status, game = STATUSES[number % 2], GAMES[number % len(GAMES)]
            self._client.update_activity(status, game, now=self._now)
            drain(self._client)

    def chat(self, count: int) -> None:
        """Say the same each time."""
        for _ in range(count):
            self._client.send_chat("all", TEXT, now=self._now)
            drain(self._client)

    def heartbeat(self, count: int) -> None:
        """As often: a tick when a heartbeat is due, and its reply."""
        self._now += self._interval
        self._client.tick(now=self._now)
        self._online.settle()
        ref = int(self._online.server.last_ref)
        for _ in range(count):
            self._now += self._interval
            self._client.tick(now=self._now)
            drain(self._client)
            ref += 1
            reply = b'[null,"%d","phoenix","phx_reply",{"status":"ok","response":{}}]' % ref
            self._client.receive_data(self._online.conn, server_frame(reply, text=True), now=self._now)
            drain(self._client)


def _from_server(ref: str | None, topic: str, event: str, payload: Any) -> bytes:
    return server_frame(json.dumps([None, ref, topic, event, payload]).encode(), text=True)


class Official:
    """`realtime` from PyPI, whose WebSocket takes everything and keeps nothing."""

    def __init__(self) -> None:
        import realtime

        self._loop = asyncio.new_event_loop()
        client: Any = realtime.AsyncRealtimeClient(URL, token="key")
        self._channel: Any = client.channel(TOPIC.removeprefix("realtime:"))
        client._ws_connection = self
        self._channel.state = type(self._channel.state).JOINED
        self._channel._joined_once = True

    async def send(self, text: str) -> None:
        """Stands for the WebSocket."""

    def chat(self, count: int) -> None:
        """Say the same each time."""
        self._loop.run_until_complete(self._chat(count))

    async def _chat(self, count: int) -> None:
        for _ in range(count):
            await self._channel.send_broadcast("chat_message", {"channel": "all", "content": TEXT})


def main(kind: str) -> None:
    """Do what is asked for on stdin, until it ends."""
    run: Callable[[int], None]
    if kind == "pypi-chat":
        run = Official().chat
    else:
        ours = Ours()
        run = {"update-activity": ours.update_activity, "chat": ours.chat, "heartbeat": ours.heartbeat}[kind]
    for line in sys.stdin:
        count = json.loads(line)["count"]
        start = time.process_time()
        run(count)
        print(json.dumps({"cpu": time.process_time() - start}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
