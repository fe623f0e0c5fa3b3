"""`PresenceClientMachine`: a server, a network, a clock and an application against a `PresenceClient`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from msgspec.structs import replace

from presence_proto.client import PresenceClient
from presence_proto.config import Identity, PresenceConfig
from presence_proto.events import ActivityChanged, CommandFailed, Poked
from presence_proto.roster import user_from_meta
from presence_proto.testing.machines.server_side import ServerMachine, a_key
from presence_proto.testing.strategies.presence import tracked_payloads

if TYPE_CHECKING:
    from presence_proto.testing.model_server import Device

ROOM = "realtime:jarvis-presence"
_statuses = st.sampled_from(["online", "idle", "away"])
_activities = st.sampled_from([None, "Chess"])


class PresenceClientMachine(ServerMachine):
    """The model is that of the server: who is in the room, with which metas. `commands` has the ids of ours.

    Checked are the roster, that each user is shown as its latest device, that what others say is heard once,
    that a command fails once at most, and after `heal` that nothing is pending and we are seen as we are.
    """

    topics = (ROOM,)
    metas = tracked_payloads()
    me: ClassVar[str] = "me"  # our user id

    def __init__(self) -> None:
        super().__init__()
        self.commands: set[int] = set()
        self.claimed: set[str] = set()  # users who said something of themselves that no track has confirmed
        self.shown: set[str] = set()  # the users in the roster

    def make_client(self) -> PresenceClient:
        """A client at rest, without an `rng`: so there is no jitter."""
        return PresenceClient(Identity(self.me, "Me"), PresenceConfig(server_url="ws://host.test"))

    # ---------------------------------------------------------------- the application

    @initialize()
    def start(self) -> None:
        """We enter the room."""
        self.server.connect()

    @rule(status=_statuses, activity=_activities)
    def update_activity(self, status: str, activity: str | None) -> None:
        """We do something else."""
        self.commands.add(self.server.do(self.client.update_activity, status, activity))

    @rule(target_user_id=a_key)
    def send_poke(self, target_user_id: str) -> None:
        """We poke somebody."""
        self.commands.add(self.server.do(self.client.send_poke, target_user_id))

    # ---------------------------------------------------------------- the others

    @rule(key=a_key, ours=st.booleans())
    def poke(self, key: str, ours: bool) -> None:
        """Somebody pokes us, or another one. A poke of ours is heard once if we are in the room."""
        target = self.me if ours else "somebody else"
        said = self._say("poke", {"user_id": key, "display_name": "Ann", "target_user_id": target})
        heard = ours and self.server.has_joined(ROOM)
        assert said == ([Poked(key, "Ann")] if heard else []), "a poke is heard once, by its target"

    @rule(key=a_key, status=_statuses, activity=_activities)
    def claim(self, key: str, status: str, activity: str | None) -> None:
        """Somebody says what they do, and does not track it."""
        self._claim(key, status, activity)

    @rule(device=ServerMachine.devices, status=_statuses, activity=_activities)
    def act(self, device: Device, status: str, activity: str | None) -> None:
        """A device says what its user does, and tracks it: one event, if anybody can see a difference."""
        before = len(self.server.events)
        was_claimed = device.key in self.claimed
        self._claim(device.key, status, activity)
        self.server.retrack(device, {"display_name": "Ann", "status": status, "activity": activity})
        changes = [one for one in self.server.events[before:] if isinstance(one, ActivityChanged)]
        if device.ref is not None and self.server.has_joined(ROOM) and not was_claimed:
            self.claimed.discard(device.key)
            renamed = any(one.user.display_name != one.previous.display_name for one in changes)
            assert len(changes) <= 1 + renamed, "the broadcast and the track are one event"

    def _claim(self, key: str, status: str, activity: str | None) -> None:
        if key != self.me:
            self.claimed.add(key)
        claim = {"user_id": key, "display_name": "Ann", "status": status, "activity": activity}
        self._say("activity_update", claim)

    def _say(self, event: str, payload: Any) -> list[Any]:
        before = len(self.server.events)
        if ROOM in self.server.channels:
            self.server.broadcast(event, payload, topic=ROOM)
        return self.server.events[before:]

    # ---------------------------------------------------------------- what must be true

    @invariant()
    def the_roster_is_the_servers(self) -> None:
        """Of now, or as it was last seen; and each user is shown as its latest device.

        There may be stale users in it, who were shown before.
        """
        expected = self.server.expected(ROOM)
        users = {user.user_id: user for user in self.client.online_users}
        assert users.keys() >= expected.keys() | {self.me}, "who is in the roster"
        more = users.keys() - expected.keys() - {self.me}
        assert more <= self.shown, "who was not shown before is not stale"
        self.shown = {*users}
        knows = not self.server.dead  # else we cannot know yet
        assert not knows or self.client.is_stale != self.server.sees(ROOM), "whether the roster is stale"
        if not self.server.sees(ROOM):
            self.claimed |= users.keys()
            return
        assert {key for key in users if self.client.is_user_stale(key)} == more, "who is stale"
        for key, metas in expected.items():
            if key != self.me and key not in self.claimed:
                shown = replace(users[key], online_at=None)
                assert shown == user_from_meta(key, metas[-1]), f"how {key!r} is shown"

    @invariant()
    def commands_fail_once_at_most(self) -> None:
        """And what is pending is ours."""
        failed = [one.command_id for one in self.server.events if isinstance(one, CommandFailed)]
        assert len(failed) == len(set(failed)), "a command fails once"
        assert self.client.pending_commands | set(failed) <= self.commands, "commands that nobody made"
        assert not self.client.pending_commands & set(failed), "what has failed is not pending"

    def healed(self) -> None:
        """We are seen as we are, and everything is done or has failed."""
        super().healed()
        assert self.client.pending_commands == frozenset(), "a command without an outcome"
        assert self.server.has_joined(ROOM), "we are not in the room, and do not know"
        assert not any(self.client.is_user_stale(key) for key in self.shown), "somebody is stale for ever"
        own = self.server.channels[ROOM].own
        metas = self.server.online(ROOM).get(self.me, ())
        shown = [meta for meta in metas if own and meta["phx_ref"] == own.ref]
        assert [(meta["status"], meta["activity"]) for meta in shown] == [
            (self.client.status, self.client.activity)
        ], "we are seen as somebody else"
