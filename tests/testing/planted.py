"""Bugs that somebody could have made, each in one place of the core, to be found by the machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen
from msgspec import Raw, json, structs

from presence_proto import events
from presence_proto.channel import Channel, Tracker
from presence_proto.connection import Connection
from presence_proto.hub.hub import Hub
from presence_proto.hub.phoenix import PhoenixSession
from presence_proto.hub.topic import Topic
from presence_proto.phoenix_room import PhoenixRoom
from presence_proto.phoenix_socket import PhoenixSocket
from presence_proto.presence import EncodedDiff, PresenceChange, PresenceMap
from presence_proto.roster import Roster
from presence_proto.testing.machines import ClientMachine, HubMachine, PresenceClientMachine

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest import MonkeyPatch  # noqa: PT013 - for the type only

    Plant = Callable[[MonkeyPatch], None]


@frozen
class Bug:
    """How to plant it, the machine that must find it, and a program of that machine that does."""

    plant: Plant
    machine: Any
    program: str
    quick: bool


BUGS: dict[str, Bug] = {}


def bug(machine: Any, program: str, *, quick: bool = False) -> Callable[[Plant], Plant]:
    """List a bug by its name. `quick`: it is searched for in every run, and not only when there is time."""

    def add(plant: Plant) -> Plant:
        BUGS[plant.__name__.replace("_", " ")] = Bug(plant, machine, program, quick)
        return plant

    return add


# ---------------------------------------------------------------------------------------------- presence


@bug(
    ClientMachine,
    """
        state.start(topic="room:b")
        devices_0 = state.device_tracks(key="ann", meta={}, topic="room:b")
        state.device_retracks(device=devices_0, meta={"n": 1})
    """,
    quick=True,
)
def leaves_before_joins(monkeypatch: MonkeyPatch) -> None:
    apply_diff = PresenceMap.apply_diff

    def apply(self: PresenceMap, payload: EncodedDiff) -> Any:
        left = apply_diff(self, EncodedDiff({}, payload.leaves))
        return left + apply_diff(self, EncodedDiff(payload.joins, {}))

    monkeypatch.setattr(PresenceMap, "apply_diff", apply)


@bug(
    ClientMachine,
    """
        state.start(topic="room:b")
        state.device_tracks(key="ann", meta={}, topic="room:b")
        state.repeat_diff()
    """,
    quick=True,
)
def no_dedup_by_ref(monkeypatch: MonkeyPatch) -> None:
    merge = PresenceMap._merge

    def again(self: PresenceMap, key: str, joining: Any, leaving: Any) -> Any:
        change = merge(self, key, joining, leaving)
        if change is None and leaving is None:
            return PresenceChange(key, "updated", self[key], ())  # as if they had not been held
        return change

    monkeypatch.setattr(PresenceMap, "_merge", again)


@bug(
    ClientMachine,
    """
        state.start(topic="room:b")
        devices_0 = state.device_tracks(key="ann", meta={}, topic="room:b")
        state.crash(event="phx_error", topic="room:b")
        state.device_untracks(device=devices_0)
        state.wait(asleep=False, seconds=1.0)
    """,
    quick=True,
)
def a_state_only_adds(monkeypatch: MonkeyPatch) -> None:
    apply_state = PresenceMap.apply_state

    def apply(self: PresenceMap, payload: Raw) -> Any:
        held = {key: {"metas": [*self[key]]} for key in self}
        return apply_state(self, {**held, **json.decode(payload)})

    monkeypatch.setattr(PresenceMap, "apply_state", apply)


@bug(
    ClientMachine,
    """
        state.start(topic="room:b")
        state.crash(event="phx_error", topic="room:b")
        state.stall()
        state.wait(asleep=False, seconds=1.0)
        state.serve_one(latest=False)
        state.device_tracks(key="ann", meta={}, topic="room:b")
        state.serve()
    """,
)
def diffs_before_the_state_are_lost(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "_early_diff", lambda self, life, payload, now: None)


# ---------------------------------------------------------------------------------------------- channels


@bug(
    ClientMachine,
    """
        state.start(topic="room:b")
        state.crash(event="phx_error", topic="room:b")
        state.wait(asleep=False, seconds=1.0)
        state.echo(event="phx_close", topic="room:b")
    """,
    quick=True,
)
def a_stale_close_is_honoured(monkeypatch: MonkeyPatch) -> None:
    receive = Channel.receive

    def honour(self: Channel, message: Any, now: float) -> None:
        if message.event == "phx_close":
            message = structs.replace(message, join_ref=None, ref=None)
        receive(self, message, now)

    monkeypatch.setattr(Channel, "receive", honour)


@bug(
    ClientMachine,
    """
        state.start(topic="room:b")
        state.track(n=0, topic="room:b")
        state.crash(event="phx_error", topic="room:b")
        state.heal()
    """,
    quick=True,
)
def a_rejoin_forgets_the_track(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(Tracker, "start_over", lambda self: None)


@bug(
    ClientMachine,
    """
        state.start(topic="realtime:a")
        state.set_access_token()
        state.heal()
    """,
)
def the_token_is_not_refreshed(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "refresh_token", lambda self, now: None)


@bug(
    ClientMachine,
    """
        state.start(topic="room:b")
        state.crash(event="phx_error", topic="room:b")
        state.heal()
    """,
)
def a_crashed_channel_stays_down(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "_rejoin_later", lambda self, now: 1.0)


# ---------------------------------------------------------------------------------------------- pushes


@bug(
    ClientMachine,
    """
        state.start(topic="room:b")
        state.push_two(topic="room:b")
    """,
    quick=True,
)
def replies_are_matched_in_order(monkeypatch: MonkeyPatch) -> None:
    replied = PhoenixSocket.replied

    def oldest(self: PhoenixSocket, ref: Any, *reply: Any) -> Any:
        return replied(self, next(iter(self._awaited), None) if ref in self._awaited else ref, *reply)

    monkeypatch.setattr(PhoenixSocket, "replied", oldest)


@bug(
    ClientMachine,
    """
        state.start(topic="room:b")
        state.stall()
        state.push(topic="room:b")
        state.cut(noticed=True)
    """,
)
def what_was_sent_is_not_failed_at_a_loss(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(PhoenixSocket, "connection_lost", lambda self, reason: self.joins.connection_lost())


@bug(
    ClientMachine,
    """
        state.start(topic="room:b")
        state.stall()
        state.cut(noticed=True)
        state.push(topic="room:b")
        state.wait(asleep=False, seconds=12.0)
    """,
)
def a_queued_push_never_expires(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "push_expired", lambda self, push_id: False)


# ---------------------------------------------------------------------------------------------- connections


@bug(
    ClientMachine,
    """
        state.start(topic="room:b")
        state.trouble(kind="dies")
        state.heal()
    """,
)
def a_half_open_connection_is_not_noticed(monkeypatch: MonkeyPatch) -> None:
    beat = Connection._beat

    def never_ends(self: Connection, now: float) -> None:
        beat(self, now)
        self.heartbeat_acked(now)

    monkeypatch.setattr(Connection, "_beat", never_ends)


@bug(
    ClientMachine,
    """
        state.start(topic="room:b")
        state.cut(noticed=False)
    """,
    quick=True,
)
def a_closed_connection_is_closed_again(monkeypatch: MonkeyPatch) -> None:
    def closed(self: Connection, conn: Any, reason: str, now: float) -> None:
        if conn == self._conn:
            self._lost(reason, now)

    monkeypatch.setattr(Connection, "transport_closed", closed)


# ---------------------------------------------------------------------------------------------- the room


@bug(
    PresenceClientMachine,
    """
        state.start()
        state.poke(key="ann", ours=False)
    """,
    quick=True,
)
def pokes_of_others_are_ours(monkeypatch: MonkeyPatch) -> None:
    heard = PhoenixRoom._heard

    def all_ours(self: PhoenixRoom, broadcast: Any) -> Any:
        if broadcast.event == "poke":
            self._user_id = broadcast.payload["target_user_id"]
        return heard(self, broadcast)

    monkeypatch.setattr(PhoenixRoom, "_heard", all_ours)


@bug(
    PresenceClientMachine,
    """
        state.start()
        state.device_tracks(key="ann", meta={"display_name": "Ann", "status": "online"}, topic=ROOM)
        devices_1 = state.device_tracks(key="ann", meta={"display_name": "Bob", "status": "idle"}, topic=ROOM)
        state.device_untracks(device=devices_1)
    """,
)
def the_first_device_leaving_takes_the_user_along(monkeypatch: MonkeyPatch) -> None:
    updated = Roster._updated

    def leave(self: Roster, entry: Any, change: Any, happened: Any) -> None:
        if change.left and not change.joined:
            self._left(change.key, happened)
        else:
            updated(self, entry, change, happened)

    monkeypatch.setattr(Roster, "_updated", leave)


@bug(
    PresenceClientMachine,
    """
        state.start()
        devices_0 = state.device_tracks(key="ann", meta={"display_name": "Ann"}, topic=ROOM)
        state.act(activity="Chess", device=devices_0, status="online")
    """,
    quick=True,
)
def the_track_after_a_claim_is_a_second_event(monkeypatch: MonkeyPatch) -> None:
    show = Roster._show

    def twice(self: Roster, entry: Any, user: Any, happened: list[Any]) -> None:
        before = entry.user
        show(self, entry, user, happened)
        if before == user and user.user_id != "me":
            happened.append(events.ActivityChanged(user, before))

    monkeypatch.setattr(Roster, "_show", twice)


# ---------------------------------------------------------------------------------------------- the hub


@bug(
    HubMachine,
    """
        visitors_0 = state.start(url="/socket/websocket?vsn=2.0.0")
        state.join(key="ann", topic="room:b", visitor=visitors_0)
        state.drop(visitor=visitors_0)
    """,
    quick=True,
)
def a_lost_connection_stays_in_its_topics(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(PhoenixSession, "end", lambda self, reason: None)


@bug(
    HubMachine,
    """
        visitors_0 = state.start(url="/socket/websocket?vsn=2.0.0")
        state.join(key="ann", topic="room:b", visitor=visitors_0)
        state.untrack(membership=(visitors_0, "room:b"))
    """,
    quick=True,
)
def a_leave_is_told_twice(monkeypatch: MonkeyPatch) -> None:
    flush = Topic.flush

    def twice(self: Topic) -> None:
        leaves = dict(self._leaves)
        flush(self)
        self._leaves.update(leaves)
        flush(self)

    monkeypatch.setattr(Topic, "flush", twice)


@bug(
    HubMachine,
    """
        visitors_0 = state.start(url="/socket/websocket?vsn=2.0.0")
        state.join(key="ann", topic="room:b", visitor=visitors_0)
        state.track(membership=(visitors_0, "room:b"), n=0)
    """,
)
def an_update_leaves_the_old_meta(monkeypatch: MonkeyPatch) -> None:
    track = Topic.track

    def keep(self: Topic, member: Any, key: str, payload: Any, payer: Any = None) -> Any:
        self._members[member] = None
        return track(self, member, key, payload, payer)

    monkeypatch.setattr(Topic, "track", keep)


@bug(
    HubMachine,
    """
        visitors_0 = state.start(url="/socket/websocket?vsn=2.0.0")
        state.join(key="ann", topic="room:b", visitor=visitors_0)
        state.shout(membership=(visitors_0, "room:b"))
    """,
)
def the_speaker_hears_himself(monkeypatch: MonkeyPatch) -> None:
    broadcast = Topic.broadcast

    def to_all(self: Topic, shared: Any, *, speaker: Any = None, skip: Any = None) -> None:
        broadcast(self, shared, speaker=speaker)

    monkeypatch.setattr(Topic, "broadcast", to_all)


@bug(
    HubMachine,
    """
        visitors_0 = state.start(url="/socket/websocket?vsn=2.0.0")
        state.fall_silent(visitor=visitors_0)
    """,
    quick=True,
)
def the_silent_stay_for_ever(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "_expired", lambda self, peer, *, in_time: None)
