"""A server with a life of its own around one `PresenceClient`, for properties: its truth and its timing.

A `World` plays a script of `Op`s. After every drain it folds the events and compares them with the roster;
after every op it compares the roster with the truth.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import frozen
from msgspec.structs import replace

from presence_proto.events import ActivityChanged, Connected
from presence_proto.roster import user_from_meta
from presence_proto.testing import InMemoryPair, PresenceFold
from presence_rig import TOPIC, PresenceRig

Entries = dict[str, dict[str, dict[str, Any]]]  # key -> ref -> meta

USERS = ("me", "bo", "cy", "di")


@frozen
class Op:
    """One thing that happens; what the arguments mean, the method of `World` with this name says."""

    name: str
    args: tuple[Any, ...]


class Folding(InMemoryPair):
    """Of a rig of `me`: checks at every drain that the events, folded, are the roster."""

    folding: PresenceFold | None = None
    seen = 0

    def _drain(self) -> None:
        super()._drain()
        self.folding = self.folding or PresenceFold(self.client)
        for event in self.events[self.seen :]:
            self.folding.follow(event)
        self.seen = len(self.events)
        self.folding.check()


class FoldingRig(Folding, PresenceRig):
    """The same on Supabase channels. While it is `holding`, nothing arrives."""

    holding = False

    def exchange(self) -> None:
        if not self.holding:
            super().exchange()


class World:
    """Who is there on the server, and what the client must have made of what it was told."""

    def __init__(self, rig: FoldingRig) -> None:
        self.rig = rig
        self.truth: Entries = {}
        self.hearing = False  # the server sends its diffs to us
        self.synced = False
        self.claimed = False  # something is shown that may not be the truth
        self.embroidered = False  # claims had further fields, which stay when their track confirms them
        self.waiting: list[tuple[Entries, Entries]] = []  # diffs that came before the state
        self.view: Entries = {}  # what the client must have made of it, the most recently joined meta last
        self.held: dict[str, list[str]] = {}  # the refs of each key in the order of the presence map
        self.last_diff: tuple[Entries, Entries] | None = None
        self.own_ref: str | None = None
        self.was_connected = False
        self.kept: dict[str, float] = {}  # users who are missing since a restart, and since when
        self.kept_again = False  # by a second restart within the grace, which may leave little of the bound
        self.refs = 0
        self.served = 0

    def play(self, script: list[Op], there: list[Any]) -> None:
        """Enter a room in which these have joined already, and let the script happen."""
        self.diff(*there)
        self.rig.connect()
        self.sync([], 0, True)
        self.answer()
        for op in script:
            getattr(self, op.name)(*op.args)
            self.answer()
            self.check()

    def check(self) -> None:
        client = self.rig.client
        assert client.is_connected
        stale = {user.user_id for user in client.online_users if client.is_user_stale(user.user_id)}
        for key in self.kept.keys() - stale:
            since = self.kept.pop(key)
            assert self.kept_again or self.rig.now >= since + 6.0, "a missing user goes after the grace"
        assert all(self.rig.now <= since + 45.0 for since in self.kept.values()), "it is bounded"
        assert stale == self.kept.keys()
        assert {user.user_id for user in client.online_users} == {"me", *self.truth, *stale}
        if self.claimed:
            return
        for user in client.online_users[1:]:
            if user.user_id in stale:
                continue
            *_, shown = self.view[user.user_id].values()
            expected = user_from_meta(user.user_id, shown)
            if self.embroidered:
                user, expected = replace(user, extra={}), replace(expected, extra={})
            assert replace(user, online_at=None) == replace(expected, online_at=None)

    # ------------------------------------------------------------ what others do

    def diff(self, *changes: tuple[Any, ...]) -> None:
        """One diff for all of these changes: what they come to."""
        before = {key: dict(metas) for key, metas in self.truth.items()}
        for change in changes:
            self.apply(*change)
        joins, leaves = minus(self.truth, before), minus(before, self.truth)
        if joins or leaves:
            self.tell(joins, leaves)

    def apply(self, what: str, n: int, fields: dict[str, Any]) -> None:
        """A device of a user joins, or one that is there tracks again or leaves."""
        there = [(key, ref) for key, metas in self.truth.items() for ref in metas if ref != self.own_ref]
        if what == "join":
            self.truth.setdefault(USERS[n % len(USERS)], {}).update(self.meta(fields))
        elif there:
            key, ref = there[n % len(there)]
            del self.truth[key][ref]
            if what == "update":
                self.truth[key].update(self.meta(fields, ref))
            elif not self.truth[key]:
                del self.truth[key]

    def meta(self, fields: dict[str, Any], previous: str | None = None) -> dict[str, Any]:
        self.refs += 1
        more = {} if previous is None else {"phx_ref_prev": previous}
        return {f"r{self.refs}": {"phx_ref": f"r{self.refs}", **fields, **more}}

    def again(self) -> None:
        """The last diff comes twice."""
        if self.last_diff is not None:
            self.tell(*self.last_diff)

    def burst(self, *changes: tuple[Any, ...]) -> None:
        """Several diffs in one read."""
        self.rig.holding = True
        for change in changes:
            self.diff(change)
        self.rig.holding = False
        self.rig.exchange()

    def claim(self, user: int, status: str, activity: str | None, extra: dict[str, Any], track: bool) -> None:
        """Somebody broadcasts an activity, and tracks it, or does not."""
        self.claimed, self.embroidered = True, self.embroidered or bool(extra)
        key = USERS[user % len(USERS)]
        payload = {
            "user_id": key,
            "display_name": key.title(),
            "status": status,
            "activity": activity,
            **extra,
        }
        told = len(self.rig.events)
        self.rig.broadcast("activity_update", payload)
        devices = [ref for ref in self.truth.get(key, {}) if ref != self.own_ref]
        if track and devices:
            there = [ref for metas in self.truth.values() for ref in metas if ref != self.own_ref]
            *_, shown = self.view[key].values()
            fields = {"display_name": key.title(), "status": status, "activity": activity}
            fields |= {name: value for name, value in shown.items() if name == "level"}
            self.diff(("update", there.index(devices[-1]), fields))
            changes = [event for event in self.rig.events[told:] if isinstance(event, ActivityChanged)]
            assert len(changes) <= 1, "the claim and its track are two events"

    def broadcast(self, event: str, payload: Any) -> None:
        """Anything from anybody, but no claim about an activity."""
        self.rig.broadcast(event, payload)

    # ------------------------------------------------------------ what we do

    def update(self, status: str, activity: str | None) -> None:
        self.rig.do(self.rig.client.update_activity, status, activity)

    def poke(self, user: int) -> None:
        self.rig.do(self.rig.client.send_poke, USERS[user % len(USERS)])

    def answer(self) -> None:
        """The server does what we asked for."""
        while self.served < len(self.rig.received):
            message = self.rig.received[self.served]
            self.served += 1
            if message.event == "presence":
                old = self.truth.get("me", {}).pop(self.own_ref, None)  # type: ignore[arg-type]  # None is no ref
                mine = self.meta(message.payload["payload"], self.own_ref if old else None)
                (self.own_ref,) = mine
                self.truth.setdefault("me", {}).update(mine)
                self.tell({"me": mine}, {"me": {old["phx_ref"]: old}} if old else {})
            if message.event in ("presence", "broadcast"):
                self.rig.reply(message)

    # ------------------------------------------------------------ weather

    def wait(self, seconds: float) -> None:
        self.rig.advance(seconds)

    def ghosts(self, data: bytes) -> None:
        """Facts about connections that are no more, or never were."""
        client, rig = self.rig.client, self.rig
        assert rig.conn is not None
        for conn in (rig.conn - 1, rig.conn + 1, 0):
            rig.do(client.transport_opened, conn)
            rig.do(client.receive_data, conn, data)
            rig.do(client.transport_closed, conn)
        rig.do(client.transport_opened, rig.conn)
        rig.do(client.receive_data, rig.conn, b"")

    def cut(
        self, noticed: bool, away: list[Any], seconds: float, before: list[Any], at: int, late: bool
    ) -> None:
        """The connection is lost, `seconds` go by in which things happen, and then it comes back."""
        self.deaf(noticed)
        self.rig.cut()
        self.diff(*away)
        self.cut_is_over(seconds)
        self.sync(before, at, late)

    def crash(self, away: list[Any], before: list[Any], at: int, late: bool) -> None:
        """The channel is lost, and the connection stays."""
        self.deaf(True)
        self.rig.say(self.rig.join_ref, self.rig.join_ref, TOPIC, "phx_error", {})
        self.diff(*away)
        joins = len(self.rig.sent("phx_join"))
        while len(self.rig.sent("phx_join")) == joins:
            deadline = self.rig.client.next_deadline()
            assert deadline is not None
            self.rig.advance(deadline - self.rig.now)
        self.sync(before, at, late)

    def restart(self, seconds: float, before: list[Any], at: int, late: bool) -> None:
        """The server is gone, and a new one knows nobody."""
        self.deaf(True)
        self.rig.cut()
        self.truth.clear()
        self.cut_is_over(seconds)
        self.sync(before, at, late)

    def cut_is_over(self, seconds: float) -> None:
        """So many seconds after the loss the next attempt succeeds."""
        self.rig.advance(seconds)
        while self.rig.conn is None:
            deadline = self.rig.client.next_deadline()
            assert deadline is not None
            self.rig.advance(deadline - self.rig.now)
        self.rig.open()

    def deaf(self, noticed: bool) -> None:
        """We hear nothing any more. If the server noticed, our meta goes; else it stays, as a ghost."""
        self.hearing = self.synced = False
        self.last_diff = None
        ghost, self.own_ref = self.own_ref, None
        if noticed and ghost is not None:
            del self.truth["me"][ghost]
            if not self.truth["me"]:
                del self.truth["me"]

    def sync(self, before: list[Any], at: int, late: bool) -> None:
        """The server lets us in. Diffs come before the state, which holds the first `at` of them already."""
        join = self.rig.last("phx_join", TOPIC)
        self.rig.join_ref = join.ref
        self.served = len(self.rig.received)
        self.rig.reply(join)
        self.hearing = True
        if not late:
            self.answer()
        state = self.snapshot()
        for n, change in enumerate(before):
            self.diff(change)
            if n < at:
                state = self.snapshot()
        assert not self.rig.client.is_connected
        self.keep(state)
        payload = {key: {"metas": list(metas.values())} for key, metas in state.items()}
        self.see(minus(state, self.view), minus(self.view, state))
        for joins, leaves in self.waiting:
            self.see(joins, leaves)
        self.waiting.clear()
        self.synced, self.claimed = True, False  # a state makes an end to claims
        self.rig.say(join.ref, None, TOPIC, "presence_state", payload)
        self.check()
        assert connected(self.rig).resumed == self.was_connected
        self.was_connected = True

    def keep(self, state: Entries) -> None:
        """If nobody's presence goes on, those who are missing stay for a while."""
        if self.was_connected and not any(continues(self.view[key], state.get(key, {})) for key in self.view):
            missing = self.view.keys() - state.keys() - {"me"}
            self.kept_again = bool(self.kept)
            self.kept = dict.fromkeys([*self.kept, *missing], self.rig.now)

    # ------------------------------------------------------------ what we see

    def snapshot(self) -> Entries:
        return {key: dict(metas) for key, metas in self.truth.items()}

    def tell(self, joins: Entries, leaves: Entries) -> None:
        if not self.hearing:
            return
        self.last_diff = joins, leaves
        if self.synced:
            self.see(joins, leaves)
        else:
            self.waiting.append((joins, leaves))
        self.rig.diff(_metas(joins), _metas(leaves))

    def see(self, joins: Entries, leaves: Entries) -> None:
        for key, metas in joins.items():
            self.kept.pop(key, None)  # who returns, if only to leave again
            mine, held = self.view.setdefault(key, {}), self.held.setdefault(key, [])
            refs = [ref for ref in metas if ref not in leaves.get(key, {})]
            if not refs or held[-len(refs) :] == refs:
                continue  # the server says again what is held
            # As in phoenix.js: what joins again is the latest, too.
            held[:] = [ref for ref in held if ref not in refs] + refs
            for ref in sorted(refs, key=lambda ref: _time(metas[ref])):
                mine.pop(ref, None)
                mine[ref] = metas[ref]
        for key, metas in leaves.items():
            for ref in metas:
                self.view.get(key, {}).pop(ref, None)
                if ref in self.held.get(key, []):
                    self.held[key].remove(ref)
        for key in [*joins, *leaves]:
            if not self.view.get(key, {"": {}}):
                del self.view[key]


def connected(rig: FoldingRig) -> Connected:
    """The last of its kind."""
    return [event for event in rig.events if isinstance(event, Connected)][-1]


def continues(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether a meta stays, or is updated."""
    return not before.keys().isdisjoint([*after, *[meta.get("phx_ref_prev") for meta in after.values()]])


def minus(one: Entries, other: Entries) -> Entries:
    """The metas of `one` that are not in `other`."""
    found = {
        key: {ref: meta for ref, meta in metas.items() if ref not in other.get(key, {})}
        for key, metas in one.items()
    }
    return {key: metas for key, metas in found.items() if metas}


def _time(meta: dict[str, Any]) -> str:
    online_at = meta.get("online_at")
    return online_at if isinstance(online_at, str) else ""


def _metas(entries: Entries) -> dict[str, Any]:
    return {
        key: {"metas": [json.loads(json.dumps(meta)) for meta in of.values()]} for key, of in entries.items()
    }
