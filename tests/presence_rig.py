"""A `PresenceClient` in the rig, and a server that knows the presence room."""

from __future__ import annotations

from typing import Any

from presence_proto.config import Identity, PresenceConfig
from presence_proto.events import OnlineUser, UserStatus
from presence_proto.presence_client import PresenceClient
from presence_proto.serializer import Message
from presence_proto.testing import ScriptedServer

TOPIC = "realtime:jarvis-presence"
URL = "ws://127.0.0.1:4000"
ONLINE_AT = "2026-01-01T00:00:00Z"
ME = OnlineUser("me", "Me", UserStatus.ONLINE, None, ONLINE_AT)
BO = OnlineUser("bo", "Bo")
CY = OnlineUser("cy", "Cy")


def meta(ref: str, status: str = "online", activity: str | None = None, **more: Any) -> dict[str, Any]:
    """A presence meta of somebody whose other fields do not matter."""
    return {"phx_ref": ref, "status": status, "activity": activity, **more}


def entry(name: str, *metas: dict[str, Any]) -> dict[str, Any]:
    return {"metas": [{"display_name": name, **one} for one in metas]}


class PresenceRig(ScriptedServer):
    """`me` in the room. `settings` are fields of the config."""

    client: PresenceClient

    def __init__(
        self,
        *,
        vsn: Any = "2.0.0",
        identity: Identity | None = None,
        chunk: int | None = None,
        rng: Any = None,
        online_at: str | None = ONLINE_AT,
        **settings: Any,
    ) -> None:
        config = PresenceConfig(**{"server_url": URL, "vsn": vsn, **settings})
        identity = identity or Identity("me", "Me")
        super().__init__(PresenceClient(identity, config, rng=rng, online_at=online_at), chunk=chunk)
        self.vsn = vsn
        self.join_ref: Any = None

    def enter(self, state: dict[str, Any] | None = None) -> list[Any]:
        """Connect, join, and be told the state. Returns the events."""
        self.connect()
        return self.let_in(state)

    def let_in(self, state: dict[str, Any] | None = None) -> list[Any]:
        """The server says ok to the join and to the track, and tells the state. Returns the events."""
        self.join_ref = self.accept_join(TOPIC, state or {}).join_ref
        self.reply(self.last("presence"))
        return self.take()

    def come_back(self, state: dict[str, Any] | None = None) -> list[Any]:
        """The connection that waits for its next attempt is there again."""
        deadline = self.client.next_deadline()
        assert deadline is not None
        self.advance(deadline - self.now)
        self.open()
        return self.let_in(state)

    def tell(self, event: str, payload: Any) -> list[Any]:
        """A message from the server in this life of the channel. Returns the events."""
        self.say(self.join_ref, None, TOPIC, event, payload)
        return self.take()

    def diff(self, joins: Any = None, leaves: Any = None, *, topic: str | None = None) -> list[Any]:
        """A diff. Returns the events."""
        super().diff(joins, leaves, topic=topic)
        return self.take()

    def diffs(self, *diffs: tuple[dict[str, Any], dict[str, Any]]) -> list[Any]:
        """Several diffs, joins and leaves, in one read."""
        assert self.server is not None
        for joins, leaves in diffs:
            message = Message(None, None, TOPIC, "presence_diff", {"joins": joins, "leaves": leaves})
            self.server.send_text(self._serializer.encode(message).data)
        self.deliver(self.server.data_to_send())
        return self.take()

    def broadcast(self, event: str, payload: Any, *, topic: str | None = None) -> list[Any]:
        """A broadcast from somebody else. Returns the events."""
        super().broadcast(event, payload, topic=topic)
        return self.take()

    def broadcasts(self) -> list[tuple[str, Any]]:
        """What the client has broadcast: events and payloads."""
        return [(told.payload["event"], told.payload["payload"]) for told in self.sent("broadcast", TOPIC)]

    def tracks(self) -> list[Any]:
        """The payloads that the client has tracked."""
        return [told.payload["payload"] for told in self.sent("presence", TOPIC)]

    def acknowledge(self, status: str = "ok", response: Any = None) -> Message:
        """Reply to the last broadcast."""
        message = self.last("broadcast", TOPIC)
        self.reply(message, status, response)
        return message
