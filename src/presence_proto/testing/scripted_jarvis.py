"""A server of the Jarvis JSON protocol that says what it is told to, to one client, in real bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from presence_proto.testing.contract import require
from presence_proto.testing.in_memory_pair import InMemoryPair
from presence_proto.websocket import TextMessage

if TYPE_CHECKING:
    from presence_proto.websocket import BinaryMessage


class ScriptedJarvisServer(InMemoryPair):
    """A `PresenceClient` on the Jarvis wire, and a server that you play. The rest is as in `ScriptedServer`.

        pair = ScriptedJarvisServer(PresenceClient(identity, PresenceConfig(server_url="ws://host.test:8790")))
        pair.connect()
        pair.welcome({"user_id": "bo", "display_name": "Bo", "status": "online", "activity": None})
        pair.tell("poke", user_id="bo", display_name="Bo", ts=None)
        assert pair.take() == [...]

    It answers pings by itself while `answers_heartbeats`, with `count` as the number of users.
    """

    def __init__(
        self, client: Any, *, now: float = 1000.0, deflate: bool = False, chunk: int | None = None
    ) -> None:
        super().__init__(client, now=now, deflate=deflate, chunk=chunk)
        self.received: list[Any] = []  # the client's messages, pings included
        self.count: Any = 1  # what pongs say

    def welcome(self, *users: Any) -> None:
        """Let the client in, and tell it who else is there."""
        self.tell("welcome", your_id=self.client.identity.user_id, users=users)

    def tell(self, kind: Any, **fields: Any) -> None:
        """A message from the server."""
        self.say_text(json.dumps({"type": kind, **fields}))

    def said(self, kind: str | None = None) -> list[Any]:
        """The client's messages, oldest first; pings only when asked for."""
        return [
            one for one in self.received if (one["type"] != "ping" if kind is None else one["type"] == kind)
        ]

    def heard(self, frame: TextMessage | BinaryMessage) -> None:
        """A message of the client's came."""
        require(isinstance(frame, TextMessage), "Jarvis JSON is text")
        message = json.loads(frame.data)
        self.received.append(message)
        if message == {"type": "ping"} and self.answers_heartbeats and self.is_open:
            self._websocket().send_text(json.dumps({"type": "pong", "online_count": self.count}))
