"""`ScriptedServer` (Phoenix, Supabase) and `ScriptedJarvisServer`: servers that a test controls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from presence_proto.serializer import Message, Serializer, UserBroadcast, V1Serializer, serializer_for
from presence_proto.testing.contract import require
from presence_proto.testing.in_memory_pair import InMemoryPair
from presence_proto.websocket import TextMessage

if TYPE_CHECKING:
    from presence_proto.websocket import BinaryMessage


# -------------------------------------------------------------------------------------------- scripted server
# A Phoenix or Supabase server for one client. The test chooses the messages, which travel as real bytes.


class ScriptedServer(InMemoryPair):
    """A client, and a Phoenix or Supabase server that the test controls.

        pair = ScriptedServer(RealtimeClient(RealtimeConfig(server_url="ws://host.test")))
        pair.connect()                                   # command, transport, upgrade
        pair.do(pair.client.join, "room:lobby")          # any command; the pair passes `now`
        pair.accept_join("room:lobby", state={})         # the server replies ok
        pair.diff(joins={"ann": {"metas": [{"phx_ref": "1"}]}})
        pair.advance(60)                                 # seconds
        assert pair.take() == [...]                      # the events since the last `take`

    The server uses V1 or V2, as the client's URL requests. The server automatically replies to pings, to the
    closing handshake and, while `answers_heartbeats` is true, to heartbeats. The default `topic` of a message
    from the server is the topic of the last join.
    """

    def __init__(
        self, client: Any, *, now: float = 1000.0, deflate: bool = False, chunk: int | None = None
    ) -> None:
        super().__init__(client, now=now, deflate=deflate, chunk=chunk)
        self.received: list[Message] = []  # the client's messages, heartbeats included

    # ---------------------------------------------------------------- server to client

    def say(self, join_ref: Any, ref: Any, topic: str, event: str, payload: Any) -> None:
        """Send a message from the server. V1 omits the join_ref."""
        frame = self._serializer.encode(Message(join_ref, ref, topic, event, payload))
        self.say_text(frame.data) if frame.text else self.say_binary(frame.data)

    def reply(self, to: Message, status: str = "ok", response: Any = None) -> None:
        """Reply to a message from the client."""
        payload = {"status": status, "response": {} if response is None else response}
        self.say(to.join_ref, to.ref, to.topic, "phx_reply", payload)

    def join(self, topic: str, params: Any = None, *, state: Any = None, response: Any = None) -> Message:
        """Call the client's `join`, and accept the join as `accept_join` does. Return the join message."""
        self.do(self.client.join, topic, params)
        return self.accept_join(topic, state, response)

    def accept_join(self, topic: str | None = None, state: Any = None, response: Any = None) -> Message:
        """Reply ok to the last join of the topic, then send `state` if given. Return the join message."""
        join = self.last("phx_join", topic)
        self.reply(join, "ok", response)
        if state is not None:
            self.say(join.join_ref, None, join.topic, "presence_state", state)
        return join

    def diff(self, joins: Any = None, leaves: Any = None, *, topic: str | None = None) -> None:
        """Send a `presence_diff`. `joins` and `leaves` have the form `{key: {"metas": [...]}}`."""
        payload = {"joins": joins or {}, "leaves": leaves or {}}
        self.say(None, None, self.last("phx_join", topic).topic, "presence_diff", payload)

    def broadcast(self, event: str, payload: Any, *, topic: str | None = None) -> None:
        """Send a Supabase broadcast as if from another client, in the encoding of V1 or V2."""
        message: Any = UserBroadcast(event, payload)
        if isinstance(self._serializer, V1Serializer):
            message = {"type": "broadcast", "event": event, "payload": payload}
        self.say(None, None, self.last("phx_join", topic).topic, "broadcast", message)

    # ---------------------------------------------------------------- client to server

    def sent(self, event: str | None = None, topic: str | None = None) -> list[Message]:
        """Return the client's messages, oldest first. Only `event="heartbeat"` includes heartbeats."""
        return [
            message
            for message in self.received
            if (message.event != "heartbeat" if event is None else message.event == event)
            and (topic is None or message.topic == topic)
        ]

    def last(self, event: str | None = None, topic: str | None = None) -> Message:
        """Return the last message that `sent` returns. Raise `IndexError` when there is no message."""
        return self.sent(event, topic)[-1]

    def heard(self, frame: TextMessage | BinaryMessage) -> None:
        """Store a message from the client. While `answers_heartbeats` is true, reply to heartbeats."""
        message = self._serializer.decode(frame)
        self.received.append(message)
        is_heartbeat = message.topic == "phoenix" and message.event == "heartbeat"
        if is_heartbeat and self.answers_heartbeats and self.is_open:
            self._answer_heartbeat(message)

    def _answer_heartbeat(self, message: Message) -> None:
        reply = Message(None, message.ref, "phoenix", "phx_reply", {"status": "ok", "response": {}})
        self._websocket().send_text(self._serializer.encode(reply).data)

    @property
    def _serializer(self) -> Serializer:
        return _asked_for(self.requests[-1].target if self.requests else "")


def _asked_for(target: str) -> Serializer:
    """Return the serializer for the `vsn` of a request target. As on a real server, no `vsn` means V1."""
    (vsn,) = parse_qs(urlsplit(target).query).get("vsn", ["1.0.0"])
    return serializer_for(vsn, server=True)


# -------------------------------------------------------------------------------------------- scripted jarvis


class ScriptedJarvisServer(InMemoryPair):
    """A `PresenceClient` that uses the Jarvis JSON protocol, and a server that the test controls.

        pair = ScriptedJarvisServer(PresenceClient(identity, PresenceConfig(server_url="ws://host.test:8790")))
        pair.connect()
        pair.welcome({"user_id": "bo", "display_name": "Bo", "status": "online", "activity": None})
        pair.tell("poke", user_id="bo", display_name="Bo", ts=None)
        assert pair.take() == [...]

    While `answers_heartbeats` is true, the server replies to pings, with `count` as the number of users.
    `InMemoryPair` documents the other methods.
    """

    def __init__(
        self, client: Any, *, now: float = 1000.0, deflate: bool = False, chunk: int | None = None
    ) -> None:
        super().__init__(client, now=now, deflate=deflate, chunk=chunk)
        self.received: list[Any] = []  # the client's messages, pings included
        self.count: Any = 1  # `online_count` of the pongs

    def welcome(self, *users: Any) -> None:
        """Accept the client with a `welcome` message that lists the other `users`."""
        self.tell("welcome", your_id=self.client.identity.user_id, users=users)

    def tell(self, kind: Any, **fields: Any) -> None:
        """Send a message of type `kind` from the server."""
        self.say_text(json.dumps({"type": kind, **fields}))

    def said(self, kind: str | None = None) -> list[Any]:
        """Return the client's messages, oldest first. Only `kind="ping"` includes pings."""
        return [
            one for one in self.received if (one["type"] != "ping" if kind is None else one["type"] == kind)
        ]

    def heard(self, frame: TextMessage | BinaryMessage) -> None:
        """Store a message from the client. While `answers_heartbeats` is true, reply to pings."""
        require(isinstance(frame, TextMessage), "Jarvis JSON is text")
        message = json.loads(frame.data)
        self.received.append(message)
        if message == {"type": "ping"} and self.answers_heartbeats and self.is_open:
            self._websocket().send_text(json.dumps({"type": "pong", "online_count": self.count}))
