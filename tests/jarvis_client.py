"""A client of the Jarvis JSON protocol in the `World` of `hub_client`, and the roster that it holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import define, field

from hub_client import SUPABASE, Client, supabase_join
from presence_proto.hub.config import HubConfig
from presence_proto.websocket import Closed, HandshakeRefused, Opened, PongReceived, TextMessage

if TYPE_CHECKING:
    from hub_client import World

ROOM = "realtime:jarvis-presence"
NOON = "2024-05-06T12:00:00.000+00:00"


def noon() -> str:
    """What time it is, always."""
    return NOON


CONFIG = HubConfig(wall_clock=noon, presence_window=0)

ONLINE = {"status": "online", "activity": None}
SUE = {"user_id": "sue", "display_name": "Sue"}


class JarvisClient(Client):
    """One connection. It reads text frames of JSON objects, and nothing else."""

    def _read(self) -> None:
        while (event := self.websocket.next_event()) is not None:
            match event:
                case TextMessage(data):
                    self.frames.append(event)
                    self.inbox.append(json.loads(data))
                case Opened():
                    self.opened = event
                case HandshakeRefused():
                    self.refused = event
                case Closed():
                    self.closed = event
                case PongReceived(payload):
                    self.pongs.append(payload)
                case _:
                    raise AssertionError(event)

    def take(self) -> list[Any]:
        """The messages since the last time."""
        inbox, self.inbox = self.inbox, []
        return inbox

    def tell(self, kind: str, **fields: Any) -> list[Any]:
        """Send a message, and return what has come since the last time."""
        self.text(json.dumps({"type": kind, **fields}))
        return self.take()


def jarvis(
    world: World, user_id: str | None = None, name: str | None = None, *, target: str = "/", **options: Any
) -> JarvisClient:
    """A connection, which has said who it is if a user id is given; the welcome is not read yet."""
    conn = world.open()
    client = JarvisClient(world, conn, target, **options)
    world.clients[conn] = client
    client.flush()
    if user_id is not None:
        connect = {"type": "connect", "user_id": user_id, "display_name": name or user_id.title()}
        client.text(json.dumps({**connect, "version": "1"}))
    return client


def people(world: World, *user_ids: str) -> list[JarvisClient]:
    """Connections of these users, with nothing left to read and no events."""
    clients = [jarvis(world, user_id) for user_id in user_ids]
    for client in clients:
        client.take()
    world.take_events()
    return clients


def supabase(world: World, key: str, *, track: bool = True, target: str = SUPABASE, **meta: Any) -> Client:
    """A Supabase client in the room, which tracks as the Jarvis system does unless told not to."""
    client = world.connect(target)
    client.join(ROOM, supabase_join(key, ack=True))
    if track:
        own = {"user_id": key, "display_name": key.title(), "status": "online", "activity": None}
        tracks(client, **{**own, **meta})
    client.take()
    return client


def tracks(client: Client, **meta: Any) -> None:
    client.say("1", "2", ROOM, "presence", {"type": "presence", "event": "track", "payload": meta})


def broadcasts(client: Client, event: str, **payload: Any) -> None:
    client.say("1", "3", ROOM, "broadcast", {"type": "broadcast", "event": event, "payload": payload})


def heard(client: Client) -> list[Any]:
    """The broadcasts and diffs that a Supabase client has not read yet: event and payload, without refs."""
    found = []
    for _, _, _, event, payload in client.take():
        if event == "broadcast":
            assert payload["type"] == "broadcast"
            found.append((payload["event"], payload["payload"]))
        elif event == "presence_diff":
            found.append(("joins", _metas(payload["joins"])) if payload["joins"] else None)
            found.append(("leaves", _metas(payload["leaves"])) if payload["leaves"] else None)
    return [item for item in found if item is not None]


def _metas(entries: dict[str, Any]) -> dict[str, Any]:
    refs = ("phx_ref", "phx_ref_prev")
    return {
        key: [{name: value for name, value in meta.items() if name not in refs} for meta in entry["metas"]]
        for key, entry in entries.items()
    }


def shown(client: JarvisClient) -> list[tuple[str, Any, Any]]:
    """What a client is told of others: type, status and activity."""
    return [(m["type"], m.get("status"), m.get("activity")) for m in client.take()]


def shown_online(world: World) -> dict[str, tuple[str, str, str | None]]:
    """Who is in the room by the hub's own word: name, status and activity of each user's latest meta."""
    return {
        key: (metas[-1]["display_name"], metas[-1]["status"], metas[-1]["activity"])
        for key, metas in world.hub.online(ROOM).items()
    }


@define(eq=False)
class Fold:
    """What a client holds: the welcome, and the events on top. It takes none that is not news."""

    client: JarvisClient
    user_id: str
    users: dict[str, tuple[str, str, str | None]] | None = field(default=None)
    count: int | None = None
    passing: list[Any] = field(factory=list)  # invites, pokes, errors, …

    def read(self) -> None:
        for message in self.client.take():
            kind, who = message["type"], message.get("user_id")
            if kind == "welcome":
                assert message["your_id"] == self.user_id
                users = {user["user_id"]: user for user in message["users"]}
                assert len(users) == len(message["users"])
                users = {
                    key: (user["display_name"], user["status"], user["activity"])
                    for key, user in users.items()
                }
                assert self.users is None or users == self.users  # a second one tells nothing new
                self.users = users
            elif kind == "pong":
                self.count = message["online_count"]
            elif kind not in ("user_online", "activity_changed", "user_offline"):
                self.passing.append(message)
            else:
                assert self.users is not None
                assert who != self.user_id
                assert (who in self.users) == (kind != "user_online")
                if kind == "user_online":
                    self.users[who] = (message["display_name"], "online", None)
                elif kind == "user_offline":
                    assert self.users.pop(who)[0] == message["display_name"]
                else:
                    user = (message["display_name"], message["status"], message["activity"])
                    assert self.users[who] != user
                    self.users[who] = user
