"""A `PresenceClient` in the rig, and a server of the Jarvis JSON protocol that says what it is told to."""

from __future__ import annotations

from typing import Any

from presence_proto.config import Identity, PresenceConfig
from presence_proto.events import OnlineUser
from presence_proto.presence_client import PresenceClient
from presence_proto.testing import ScriptedJarvisServer

URL = "ws://127.0.0.1:8790"
ME = OnlineUser("me", "Me")
BO = OnlineUser("bo", "Bo")
CY = OnlineUser("cy", "Cy")

HELLO = {"type": "connect", "user_id": "me", "display_name": "Me", "version": "1"}
DOING_NOTHING = {"type": "activity_update", "status": "online", "activity": None}


def user(user_id: str, status: str = "online", activity: str | None = None, **more: Any) -> dict[str, Any]:
    """A user in a welcome."""
    return {
        "user_id": user_id,
        "display_name": user_id.title(),
        "status": status,
        "activity": activity,
        **more,
    }


class JarvisRig(ScriptedJarvisServer):
    """`me` in the room. `settings` are fields of the config. What the client says is JSON, in `received`."""

    client: PresenceClient

    def __init__(
        self,
        *,
        identity: Identity | None = None,
        chunk: int | None = None,
        rng: Any = None,
        server_deflate: bool = False,
        **settings: Any,
    ) -> None:
        config = PresenceConfig(**{"server_url": URL, **settings})
        client = PresenceClient(identity or Identity("me", "Me"), config, rng=rng)
        super().__init__(client, chunk=chunk, deflate=server_deflate)

    # ---------------------------------------------------------------- what the server says

    def enter(self, *users: dict[str, Any]) -> list[Any]:
        """Connect, and be welcomed. Returns the events."""
        self.connect()
        return self.welcome(*users)

    def welcome(self, *users: dict[str, Any]) -> list[Any]:
        return self.tell("welcome", your_id="me", users=users)

    def come_back(self, *users: dict[str, Any]) -> list[Any]:
        """The connection that waits for its next attempt is there again, and welcomed. Returns the events."""
        self.next_attempt()
        return self.welcome(*users)

    def next_attempt(self) -> None:
        """The connection that waits for its next attempt is there again, and not welcomed yet."""
        while self.conn is None:
            deadline = self.client.next_deadline()
            assert deadline is not None
            self.advance(deadline - self.now)
        self.open()
        self.take()

    def tell(self, kind: Any, **fields: Any) -> list[Any]:
        """A message from the server. Returns the events."""
        super().tell(kind, **fields)
        return self.take()

    def tell_text(self, text: str) -> list[Any]:
        """Any text from the server. Returns the events."""
        self.say_text(text)
        return self.take()

    # ---------------------------------------------------------------- what the client said

    def invite(self, game: str, code: str | None = None) -> Any:
        """Make the command."""
        return self.do(self.client.send_invite, game, code)

    def poke(self, target: str) -> Any:
        """Make the command."""
        return self.do(self.client.send_poke, target)

    def update(self, *activity: Any) -> Any:
        """Make the command."""
        return self.do(self.client.update_activity, *activity)
