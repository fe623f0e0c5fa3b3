"""The laws can be broken: each bug, planted in the clients or the hub, is reported, by a law that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from presence_proto import events
from presence_proto.channel import Channel, Tracker
from presence_proto.connection import Connection, HeartbeatDue
from presence_proto.hub.config import HubConfig
from presence_proto.hub.hub import Hub
from presence_proto.hub.jarvis import JarvisUsers
from presence_proto.hub.phoenix import PhoenixSession
from presence_proto.hub.topic import Topic
from presence_proto.phoenix_socket import PhoenixSocket
from presence_proto.presence import EncodedDiff, PresenceChange, PresenceMap
from presence_proto.presence_client import PresenceClient
from presence_proto.realtime_client import RealtimeClient
from presence_proto.restart_grace import RestartGrace
from presence_proto.roster import Roster
from presence_proto.testing import SimFaults, SimViolation, SimWorld
from presence_proto.testing.sim import laws

if TYPE_CHECKING:
    from collections.abc import Callable

Patch = Any
"""`pytest.MonkeyPatch.setattr`."""

BUGS: dict[str, tuple[Callable[[Patch], None], set[str], SimFaults, HubConfig | None]] = {}
WINDOW = HubConfig(presence_window=2.0)


def bug(
    *broken: str, faults: SimFaults = SimFaults.MIXED, hub_config: HubConfig | None = None
) -> Callable[[Any], Any]:
    """List a bug, with the laws of which it must break one, in a world with these faults and such a hub."""

    def add(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        BUGS[plant.__name__.replace("_", " ")] = plant, set(broken), faults, hub_config
        return plant

    return add


# ---------------------------------------------------------------------------------------------- clients


@bug(laws.LIVENESS)
def channels_are_not_joined_again(patch: Patch) -> None:
    join = Channel.join

    def once(self: Channel, now: float) -> None:
        if not self._ever_joined:
            join(self, now)

    patch(Channel, "join", once)


@bug(laws.VIEW)
def leaves_are_forgotten(patch: Patch) -> None:
    apply_diff = PresenceMap.apply_diff

    def joins_only(self: PresenceMap, payload: EncodedDiff) -> Any:
        return apply_diff(self, EncodedDiff(payload.joins, {}))

    patch(PresenceMap, "apply_diff", joins_only)


@bug(laws.VIEW)
def joins_are_forgotten_now_and_then(patch: Patch) -> None:
    apply_diff, count = PresenceMap.apply_diff, [0]

    def some(self: PresenceMap, payload: EncodedDiff) -> Any:
        count[0] += 1
        return apply_diff(self, EncodedDiff({}, payload.leaves) if count[0] % 10 == 0 else payload)

    patch(PresenceMap, "apply_diff", some)


@bug(laws.VIEW, laws.FOLD)
def diffs_before_the_state_are_lost(patch: Patch) -> None:
    patch(Channel, "_early_diff", lambda self, life, payload, now: None)


@bug(laws.VIEW, laws.FOLD, laws.GHOST)
def old_states_are_not_merged(patch: Patch) -> None:
    apply_state = PresenceMap.apply_state

    def add(self: PresenceMap, payload: msgspec.Raw) -> Any:
        held = {key: {"metas": [*self[key]]} for key in self}
        return apply_state(self, {**held, **msgspec.json.decode(payload)})

    patch(PresenceMap, "apply_state", add)


@bug(laws.ALIVE, laws.FOLD)  # the fold of raw channels asks for the deadline, too
def the_backoff_never_fires(patch: Patch) -> None:
    lost = Connection._lost

    def no_timer(self: Connection, *args: Any, **kwargs: Any) -> None:
        lost(self, *args, **kwargs)
        self.timers.clear()

    patch(Connection, "_lost", no_timer)


@bug(laws.FORGOTTEN, laws.CONTRACT)
def the_close_of_an_old_connection_counts(patch: Patch) -> None:
    transport_closed = Connection.transport_closed

    def any_conn(self: Connection, conn: Any, reason: str, now: float) -> None:
        transport_closed(self, conn if self._conn is None else self._conn, reason, now)

    patch(Connection, "transport_closed", any_conn)


@bug(laws.QUIET, faults=SimFaults.NONE)
def no_heartbeats_are_sent(patch: Patch) -> None:
    read = Connection.read

    def skip(self: Connection, now: float) -> Any:
        while isinstance(event := read(self, now), HeartbeatDue):
            self.heartbeat_acked(now)
        return event

    patch(Connection, "read", skip)


@bug(laws.QUIET, faults=SimFaults.NONE)
def heartbeat_replies_are_not_seen(patch: Patch) -> None:
    patch(Connection, "heartbeat_acked", lambda self, now: None)


@bug(laws.LIVENESS)
def a_dead_connection_is_not_noticed(patch: Patch) -> None:
    beat = Connection._beat

    def patient(self: Connection, now: float) -> None:
        beat(self, now)
        self.heartbeat_acked(now)

    patch(Connection, "_beat", patient)


@bug(laws.LIVENESS)
def the_payload_is_not_tracked_again(patch: Patch) -> None:
    patch(Tracker, "start_over", lambda self: None)


@bug(laws.FOLD, laws.VIEW)
def some_offline_events_are_missing(patch: Patch) -> None:
    left = Roster._left
    patch(Roster, "_left", lambda self, user_id, happened: left(self, user_id, []))


@bug(laws.FLICKER)
def an_update_is_a_leave_and_a_join(patch: Patch) -> None:
    apply = Roster.apply

    def flicker(self: Roster, changes: Any) -> Any:
        happened = []
        for event in apply(self, changes):
            if isinstance(event, events.ActivityChanged):
                happened += [events.UserOffline(event.previous), events.UserOnline(event.user)]
            else:
                happened.append(event)
        return happened

    patch(Roster, "apply", flicker)


@bug(laws.FOLD, laws.FLICKER)
def everybody_goes_offline_when_we_do(patch: Patch) -> None:
    connection_lost = Channel.connection_lost

    def forget(self: Channel, reason: str, *, retry: bool) -> None:
        connection_lost(self, reason, retry=retry)
        changes: Any = self.presence.apply_state({})
        if isinstance(self.presence, Roster):
            changes = self.presence.sync(changes)
        self._socket.emit(events.PresenceDiffed(self.topic, changes))

    patch(Channel, "connection_lost", forget)


@bug(laws.GRACE)
def a_restart_empties_the_room(patch: Patch) -> None:
    patch(RestartGrace, "start", lambda self, now: None)
    sync = Roster.sync
    patch(Roster, "sync", lambda self, changes, *, keep=False: sync(self, changes))


@bug(laws.LIVENESS)
def missing_users_stay_for_ever(patch: Patch) -> None:
    patch(Roster, "drop_stale", lambda self: [])


@bug(laws.VIEW, laws.LIVENESS)
def who_returns_is_dropped_all_the_same(patch: Patch) -> None:
    returned = Roster._returned

    def still_stale(self: Roster, user_id: str, *args: Any) -> None:
        returned(self, user_id, *args)
        self._stale[user_id] = None

    patch(Roster, "_returned", still_stale)


@bug(laws.GHOST)
def newcomers_are_kept_whom_nobody_has_seen(patch: Patch) -> None:
    sync = Roster.sync

    def invent(self: Roster, changes: Any, *, keep: bool = False) -> Any:
        if keep:
            self.apply([NOBODY])
            self._stale["nobody"] = None
        return sync(self, changes, keep=keep)

    patch(Roster, "sync", invent)


@bug(laws.GHOST, laws.VIEW)
def a_claim_adds_a_user(patch: Patch) -> None:
    def add(self: Roster, claim: Any) -> list[Any]:
        self._entries.pop("nobody", None)
        return self.apply([NOBODY])

    patch(Roster, "claim", add)


NOBODY = PresenceChange("nobody", "joined", ({"phx_ref": "made up", "display_name": "nobody"},), ())


@bug(laws.ANSWER)
def lost_commands_have_no_outcome(patch: Patch) -> None:
    patch(PhoenixSocket, "fail", lambda self, push, reason: self.timers.cancel(("none", push.push_id)))


@bug(laws.ONCE, faults=SimFaults.NONE)
def what_is_said_is_said_twice(patch: Patch) -> None:
    broadcast = Topic.broadcast

    def twice(self: Topic, shared: Any, **kwargs: Any) -> None:
        broadcast(self, shared, **kwargs)
        broadcast(self, shared, **kwargs)

    patch(Topic, "broadcast", twice)


@bug(laws.WEATHER)
def a_reset_raises(patch: Patch) -> None:
    transport_closed = RealtimeClient.transport_closed

    def fragile(self: RealtimeClient, conn: Any, *, now: float, reason: str = "eof") -> None:
        if "reset" in reason:
            raise ConnectionResetError(reason)
        transport_closed(self, conn, now=now, reason=reason)

    patch(RealtimeClient, "transport_closed", fragile)


@bug(laws.CONTRACT)
def a_second_connection_is_opened_beside_the_first(patch: Patch) -> None:
    drop = Connection._drop

    def keep(self: Connection, *, abort: bool) -> None:
        self._transport_gone = "forgotten"
        drop(self, abort=abort)

    patch(Connection, "_drop", keep)


@bug(laws.STORY)
def a_reconnect_is_the_first_time(patch: Patch) -> None:
    synced = PresenceClient._synced

    def forget(self: PresenceClient, changes: Any) -> None:
        self._was_connected = False
        synced(self, changes)

    patch(PresenceClient, "_synced", forget)


# ---------------------------------------------------------------------------------------------- the hub


@bug(laws.VIEW, laws.LIVENESS)
def the_hub_tells_nobody_of_a_leave(patch: Patch) -> None:
    gone = Topic._gone

    def silent(self: Topic, tracked: Any) -> None:
        gone(self, tracked)
        self._leaves.clear()

    patch(Topic, "_gone", silent)


@bug(laws.VIEW, laws.LIVENESS, laws.GHOST, hub_config=WINDOW)
def who_was_shown_and_goes_within_a_window_is_not_told_of(patch: Patch) -> None:
    patch(Topic, "reveal", lambda self: None)


@bug(laws.VIEW, laws.LIVENESS, hub_config=WINDOW)
def who_comes_and_goes_within_a_window_is_told_of(patch: Patch) -> None:
    gone = Topic._gone

    def ghostly(self: Topic, tracked: Any) -> None:
        joins = dict(self._joins)
        gone(self, tracked)
        self._joins.update(joins)

    patch(Topic, "_gone", ghostly)


@bug(laws.LIVENESS)
def the_hub_forgets_a_leave(patch: Patch) -> None:
    patch(Topic, "remove", lambda self, member: self._members.pop(member))


@bug(laws.LIVENESS)
def the_hub_keeps_who_is_silent(patch: Patch) -> None:
    patch(Hub, "_expired", lambda self, peer, *, in_time: self._timers.set(peer.conn, self._clock.now + 60))


@bug(laws.REACH, faults=SimFaults.NONE)
def a_broadcast_misses_the_last_member(patch: Patch) -> None:
    def most(self: Topic, shared: Any, *, speaker: str | None = None, skip: Any = None) -> None:
        for listener in tuple(self._listeners)[:-1]:
            if listener is not skip:
                listener.on_broadcast(shared, speaker)

    patch(Topic, "broadcast", most)


@bug(laws.ORDER, hub_config=WINDOW)
def broadcasts_overtake_the_diff_that_waits(patch: Patch) -> None:
    def at_once(self: Topic, shared: Any, *, speaker: str | None = None, skip: Any = None) -> None:
        for listener in self._listeners:
            if listener is not skip:
                listener.on_broadcast(shared, speaker)

    patch(Topic, "broadcast", at_once)


@bug(laws.VIEW)
def jarvis_users_are_not_told_who_goes(patch: Patch) -> None:
    tell = JarvisUsers._tell

    def less(self: JarvisUsers, kind: str, *args: Any, **kwargs: Any) -> None:
        if kind != "user_offline":
            tell(self, kind, *args, **kwargs)

    patch(JarvisUsers, "_tell", less)


@bug(laws.HONEST)
def the_hub_sends_a_malformed_diff(patch: Patch) -> None:
    send_shared = PhoenixSession.send_shared

    def broken(self: PhoenixSession, shared: Any) -> None:
        if shared.message.event == "presence_diff" and shared.message.topic == "realtime:lobby":
            message = shared.message
            self.send(type(message)(None, None, message.topic, "presence_diff", []))
        else:
            send_shared(self, shared)

    patch(PhoenixSession, "send_shared", broken)


# Their searches take several seeds.
SEARCHED_LONG = {
    "who was shown and goes within a window is not told of",
    "broadcasts overtake the diff that waits",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] if name in SEARCHED_LONG else []) for name in BUGS],
)
def test_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, broken, faults, hub_config = BUGS[name]
    plant(monkeypatch.setattr)
    for seed in range(12):
        world = SimWorld(seed, clients=5, faults=faults, pace=30, hub_config=hub_config)
        violation = violation_of(world)
        if violation is not None:
            assert violation.law in broken, str(violation)
            return
    raise AssertionError("nobody noticed")


def violation_of(world: SimWorld) -> SimViolation | None:
    try:
        for _ in range(3):
            world.run(minutes=6)
            world.cut("ada", how="dead")
            world.heal()
            world.settle()
            world.resume_faults()
    except SimViolation as violation:
        return violation
    return None
