"""Who is in the room, from presence changes and broadcasts: users and what happened to them.

The rules, from the Jarvis presence system:

- A user is online while its key has a meta. The user shown is the most recently joined meta's.
- A broadcast of an activity is a claim: it changes a user that presence knows, and never adds one. The track
  that follows it says the same and is no second event; a late track of an earlier claim does not undo it.
- A device that leaves takes the claims with it: they may be its own, and then no track will follow.
- A whole state ends all doubt: claims of before it are void.
- We are in our own roster at all times, and never an event. What we do we know ourselves: no broadcast
  changes it, and no state makes it void before our track has arrived.
- After a restart of the server, users who are missing from its state stay as they were last shown, as stale
  users without devices, until they return, leave, or `drop_stale` is called. Their broadcasts wait for their
  presence.
- A change that nobody could see is no event and changes nothing. `online_at` alone is such a change: it is of
  when the user, as shown, came online.
"""

from __future__ import annotations

from collections.abc import Collection
from heapq import nlargest
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from presence_proto.events import ActivityChanged, OnlineUser, UserOffline, UserOnline, UserStatus
from presence_proto.json_text import DEFAULT_NESTING, nests_deeper
from presence_proto.payloads import PendingActivity
from presence_proto.presence import (
    ABOVE_ENTRY,
    ABOVE_STATE,
    ChangeKind,
    PresenceChange,
    by_ref,
    check_nesting,
    continues,
    diff_entries,
    parse_entries,
    state_entries,
    too_many_keys,
    too_many_metas,
)
from presence_proto.serializer import UserDiff, held_refs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from presence_proto.presence import Meta, MetaRef
    from presence_proto.serializer import UserMeta

RosterEvent: TypeAlias = UserOnline | UserOffline | ActivityChanged

MAX_CLAIMS = 16
"""Claims of one user that wait for their track. If more come, then because no tracks do: the oldest go."""

_ONLINE = UserStatus.ONLINE
_STATUSES = {str(status): status for status in UserStatus}
_FIELDS = frozenset({"user_id", "display_name", "status", "activity", "online_at", "phx_ref", "phx_ref_prev"})


class _Device(Struct, gc=False):
    """A user as tracked by one of their devices. The meta itself is not kept: rooms are large."""

    ref: str
    user: OnlineUser
    is_update: bool  # it had tracked before, in the same connection
    number: int = (
        0  # the order in which the user's devices joined; devices that join at once are sorted otherwise
    )


class _UserRecord(Struct, gc=False):
    """A user who is not just what their one device has tracked."""

    user: OnlineUser  # as shown
    devices: dict[str, _Device]  # by ref, the most recently joined one last; none: it is us, or a stale user
    claims: tuple[PendingActivity, ...] = ()  # not confirmed by a track yet, oldest first
    next_number: int = 0  # for the next device that joins


class DeviceChange(Struct, frozen=True, gc=False):
    """As `PresenceChange`: the devices that joined, the latest one last, and the refs of those that left.

    `continues`: one that joined is an update of one that left.
    """

    key: str
    kind: ChangeKind
    joined: tuple[_Device, ...]
    left: Collection[str]
    continues: bool = False


AnyChange: TypeAlias = PresenceChange | DeviceChange


def user_from_meta(user_id: str, meta: Meta) -> OnlineUser:
    """The user that a presence meta shows. Any client may write there: what is odd in it is passed over."""
    get = meta.get
    name, activity, online_at = get("display_name"), get("activity"), get("online_at")
    said, extra = get("status", _ONLINE), {} if _FIELDS.issuperset(meta) else _extra(meta)
    status = _STATUSES.get(said) if isinstance(said, str) else None
    if status is None:
        status, extra = _ONLINE, {**extra, "status": said}
    return OnlineUser(
        user_id,
        name if isinstance(name, str) and name else user_id,
        status,
        activity if isinstance(activity, str) else None,
        online_at if isinstance(online_at, str) else None,
        extra,
    )


class Roster:
    """The users of a room by id, ourselves first. `own` is how we are shown until the server shows us.

    It may be where a channel keeps its presence (a `PresenceStore`), with at most `max_keys` users and
    `max_metas` devices of one, of payloads that nest `max_nesting` levels. So a diff is decoded once, right
    into users, and is in memory once. What comes is merged by ref as in a `PresenceMap`.
    """

    __slots__ = ("_entries", "_max_keys", "_max_metas", "_max_nesting", "_most", "_own", "_stale")

    def __init__(
        self,
        own: OnlineUser,
        *,
        max_keys: int = 1_000_000,
        max_metas: int = 10_000,
        max_nesting: int = DEFAULT_NESTING,
    ) -> None:
        self._own = own
        self._max_keys = max_keys
        self._max_metas = max_metas
        self._max_nesting = max_nesting
        self._most = 1  # no user has ever had more devices
        self._entries: dict[str, _Device | _UserRecord] = {own.user_id: _UserRecord(own, {})}
        self._stale: dict[str, None] = {}  # the ids of entries without devices that are not ours, in order

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, user_id: str) -> OnlineUser | None:
        """The user with this id, if online."""
        entry = self._entries.get(user_id)
        return None if entry is None else entry.user

    def users(self) -> tuple[OnlineUser, ...]:
        """Everybody, ourselves first."""
        return tuple(entry.user for entry in self._entries.values())

    def device_count(self, user_id: str) -> int:
        """With how many devices the user is online, as the presence has it: a stale user has none."""
        entry = self._entries.get(user_id)
        if entry is None:
            return 0
        return len(entry.devices) if isinstance(entry, _UserRecord) else 1

    def is_stale(self, user_id: str) -> bool:
        """Whether the user is kept although the server's state did not have them."""
        return user_id in self._stale

    @property
    def has_stale(self) -> bool:
        """Whether any user is stale."""
        return bool(self._stale)

    def apply(self, changes: Iterable[AnyChange]) -> list[RosterEvent]:
        """Take in what changed in a presence that is kept elsewhere. Every change of it must come here or to
        `sync`.
        """
        happened: list[RosterEvent] = []
        for change in changes:
            self._changed(_of_devices(change) if isinstance(change, PresenceChange) else change, happened)
        return happened

    def sync(
        self, changes: Iterable[PresenceChange | DeviceChange], *, keep: bool = False
    ) -> list[RosterEvent]:
        """Take in what a whole state changed. Who is not in `changes` is as the presence has it, too.

        `keep`: those who left stay as stale users.
        """
        claimed = [
            (user_id, entry)
            for user_id, entry in self._entries.items()
            if isinstance(entry, _UserRecord) and entry.claims and user_id != self._own.user_id
        ]
        for _, entry in claimed:
            entry.claims = ()
        happened = self.apply(self._without_missing(changes) if keep else changes)
        for user_id, entry in claimed:
            if self._entries.get(user_id) is entry:
                self._show(entry, _latest(entry.devices).user, happened)
        return happened

    def claim(self, claim: PendingActivity) -> list[RosterEvent]:
        """Somebody else said what they do now; the track that says so too is on its way."""
        happened: list[RosterEvent] = []
        user_id = claim.user_id
        if user_id in self._entries and user_id not in self._stale and user_id != self._own.user_id:
            self._claimed(claim, happened)
        return happened

    def drop_stale(self) -> list[RosterEvent]:
        """The stale users do not return: they are offline."""
        stale, self._stale = self._stale, {}
        return [UserOffline(self._entries.pop(user_id).user) for user_id in stale]

    def set_own(self, own: OnlineUser) -> None:
        """We do something else now, and our track is on its way."""
        self._own = own
        self._claimed(PendingActivity(own.user_id, own.status, own.activity, own.display_name, {}), [])

    # ---------------------------------------------------------------- as a PresenceStore

    def apply_diff(self, payload: Any) -> list[RosterEvent]:
        """Merge the payload of a `presence_diff`, and return what happened.

        Raises `RemoteProtocolError`, and changes nothing, when it is malformed or leads past a limit.
        """
        if type(payload) is not UserDiff:
            return self._apply_any(payload)
        # A plain diff takes 0.45 of the time of the general way (0.38 with 200 changes).
        happened: list[RosterEvent] = []
        entries, own = self._entries, self._own.user_id
        joins, leaves = payload.joins, payload.leaves
        if joins and (len(entries) + len(joins) > self._max_keys or self._most >= self._max_metas):
            self._check_size(
                {key: (entry.metas[0].phx_ref,) for key, entry in joins.items()},
                {key: (entry.metas[0].phx_ref,) for key, entry in leaves.items()},
            )
        for key, joining in joins.items():
            device = _device_of(key, joining.metas[0])
            entry = entries.get(key)
            leaving = leaves.pop(key, None) if leaves else None
            if entry is None and leaving is None:
                entries[key] = device
                happened.append(UserOnline(device.user))
                continue
            refs = () if leaving is None else (leaving.metas[0].phx_ref,)
            if type(entry) is _Device and refs == (entry.ref,) and entry.ref != device.ref and key != own:
                self._replace(key, entry, device, happened)
            else:
                self._merge(key, {device.ref: device}, refs, happened)
        for key, leaving in leaves.items():
            entry, ref = entries.get(key), leaving.metas[0].phx_ref
            if type(entry) is _Device and key != own:
                if entry.ref == ref:
                    del entries[key]
                    happened.append(UserOffline(entry.user))
            elif entry is not None:
                self._merge(key, {}, (ref,), happened)
        return happened

    def _apply_any(self, payload: Any) -> list[RosterEvent]:
        happened: list[RosterEvent] = []
        entries, leaving = diff_entries(payload)
        levels = self._max_nesting - ABOVE_ENTRY
        parsed, _, _ = parse_entries(entries, "presence_diff joins", levels)
        left, _, _ = parse_entries(leaving, "presence_diff leaves", levels)
        joins = {key: _by_ref(key, by_ref(metas).values()) for key, metas in parsed.items()}
        leaves = {key: tuple(by_ref(metas)) for key, metas in left.items()}
        self._check_size(joins, leaves)
        for key, devices in joins.items():
            self._merge(key, devices, leaves.pop(key, ()), happened)
        for key, refs in leaves.items():
            self._merge(key, {}, refs, happened)
        return happened

    def apply_state(self, payload: Any) -> tuple[DeviceChange, ...]:
        """What the payload of a `presence_state` changes. Nothing has changed until it is given to `sync`.

        Raises `RemoteProtocolError` when the payload is malformed or leads past a limit.
        """
        entries = there = payload
        if isinstance(payload, Raw):
            levels = self._max_nesting - ABOVE_STATE
            entries = there = state_entries(payload, levels)
            if (refs := held_refs(payload)) is not None:
                # What we hold is not read again, unless it nests so deeply that it has to be said.
                entries = {
                    key: there[key]
                    for key, entry in refs.items()
                    if not self._holds(key, entry.metas) or nests_deeper(bytes(there[key]), levels - 1)
                }
        state, _, most = parse_entries(entries, "presence_state", self._max_nesting - ABOVE_STATE - 1)
        if most > self._max_metas:
            key = next(key for key, metas in state.items() if len(by_ref(metas)) == most)
            raise too_many_metas(key, self._max_metas)
        more = len(there) - len(state)
        if len(there) > self._max_keys and sum(map(bool, state.values())) + more > self._max_keys:
            raise too_many_keys(self._max_keys)
        changes = []
        for key, metas in state.items():
            if change := self._become(key, by_ref(metas)):
                changes.append(change)
        for key in self._entries:
            if key not in there and (devices := self._devices(key)):
                changes.append(DeviceChange(key, "left", (), tuple(devices)))
        return tuple(changes)

    def check_nesting(self, payload: Any) -> None:
        """Raise `RemoteProtocolError` when a diff that waits nests too deeply."""
        check_nesting(payload, self._max_nesting)

    def nothing_continues(self, before: int, changes: Iterable[DeviceChange]) -> bool:
        """Whether none of the devices is left, nor an update of one, after the state of these `changes`.

        Asked before they are given to `sync`.
        """
        gone = 0
        for change in changes:
            if change.kind == "left":
                gone += 1
            elif change.kind == "updated" and len(self._devices(change.key)) == len(change.left):
                gone += not change.continues
        return gone == self._held()

    def _merge(
        self, key: str, joins: dict[str, _Device], leaves: Collection[str], happened: list[RosterEvent]
    ) -> None:
        """Let `joins` join a user, and then the refs of `leaves` leave them."""
        for ref in leaves:
            joins.pop(ref, None)
        mine = self._devices(key)
        left = [ref for ref in leaves if ref in mine]
        joined = tuple(joins.values())
        if not mine:
            if joined:
                self._changed(DeviceChange(key, "joined", joined, ()), happened)
            return
        if len(left) == len(mine) and not joined:
            self._changed(DeviceChange(key, "left", (), left), happened)
            return
        if not mine.keys().isdisjoint(joins):
            rest = {ref: device for ref, device in mine.items() if ref not in left}
            if _are_last(rest, joins):
                joined = ()  # the server says again what we hold
            else:
                left += [ref for ref in joins if ref in rest]
        if joined or left:
            self._changed(DeviceChange(key, "updated", joined, left), happened)

    def _become(self, key: str, metas: Mapping[str, Meta]) -> DeviceChange | None:
        """What changes when the user has just these metas."""
        mine = self._devices(key)
        left = [ref for ref in mine if ref not in metas]
        new = [meta for ref, meta in metas.items() if ref not in mine]
        if not new and not left:
            return None
        joined = tuple(_by_ref(key, new).values())
        if not mine:
            return DeviceChange(key, "joined", joined, ())
        if not new and len(left) == len(mine):
            return DeviceChange(key, "left", (), left)
        return DeviceChange(key, "updated", joined, left, continues(new, left))

    def _holds(self, key: str, metas: list[MetaRef]) -> bool:
        """Whether the user has just the devices with these refs."""
        entry = self._entries.get(key)
        if type(entry) is _Device:
            return len(metas) == 1 and metas[0].phx_ref == entry.ref
        devices = self._devices(key)
        return bool(devices) and {ref.phx_ref for ref in metas} == devices.keys()

    def _devices(self, key: str) -> dict[str, _Device]:
        """Those of a user, by ref. Read-only."""
        entry = self._entries.get(key)
        if entry is None:
            return {}
        return entry.devices if isinstance(entry, _UserRecord) else {entry.ref: entry}

    def _held(self) -> int:
        """How many users have devices."""
        return sum(
            not isinstance(entry, _UserRecord) or bool(entry.devices) for entry in self._entries.values()
        )

    def _check_size(
        self, joins: Mapping[str, Collection[str]], leaves: Mapping[str, Collection[str]]
    ) -> None:
        """Raise when a diff would lead past a limit. What leaves makes room for what joins."""
        most = max(map(len, joins.values()), default=0)
        if not joins or (
            len(self._entries) + len(joins) <= self._max_keys and self._most + most <= self._max_metas
        ):
            return
        keys = self._held()
        for key in {**joins, **leaves}:
            mine, joined, left = self._devices(key), joins.get(key, ()), leaves.get(key, ())
            size = len(mine) + sum(ref not in mine for ref in joined)
            size -= sum(ref in mine or ref in joined for ref in left)
            if size > self._max_metas:
                raise too_many_metas(key, self._max_metas)
            keys += (size > 0) - bool(mine)
        if keys > self._max_keys:
            raise too_many_keys(self._max_keys)

    # ---------------------------------------------------------------- inside

    def _changed(self, change: DeviceChange, happened: list[RosterEvent]) -> None:
        key, joined = change.key, change.joined
        entry = self._entries.get(key)
        if change.kind == "left":
            self._left(key, happened)
        elif entry is None:
            user = joined[-1].user
            self._entries[key] = _kept(joined)
            self._most = max(self._most, len(joined))
            happened.append(UserOnline(user))
        elif type(entry) is _Device and len(joined) == len(change.left) == 1 and key != self._own.user_id:
            self._replace(key, entry, joined[0], happened)  # as most do
        elif key in self._stale:
            self._returned(key, joined, happened)
        else:
            self._updated(key, change, happened)

    def _replace(self, key: str, before: _Device, device: _Device, happened: list[RosterEvent]) -> None:
        """The only device of somebody else takes the place of the one before."""
        self._entries[key] = device
        if _look_the_same(device.user, before.user):
            device.user = before.user
        else:
            happened.append(ActivityChanged(device.user, before.user))

    def _left(self, user_id: str, happened: list[RosterEvent]) -> None:
        if user_id == self._own.user_id:
            self._entries[user_id] = _UserRecord(self._own, {})
        elif (entry := self._entries.pop(user_id, None)) is not None:
            self._stale.pop(user_id, None)
            happened.append(UserOffline(entry.user))

    def _without_missing(self, changes: Iterable[AnyChange]) -> list[AnyChange]:
        """Make those stale who left; the other changes are still to be applied."""
        others = []
        for change in changes:
            if change.kind == "left" and change.key != self._own.user_id:
                self._entries[change.key] = _UserRecord(self._entries[change.key].user, {})
                self._stale[change.key] = None
            else:
                others.append(change)
        return others

    def _returned(self, user_id: str, joined: tuple[_Device, ...], happened: list[RosterEvent]) -> None:
        """The server sees a stale user again."""
        del self._stale[user_id]
        shown, latest = self._entries[user_id].user, joined[-1]
        if _look_the_same(latest.user, shown):
            latest.user = shown
        else:
            happened.append(ActivityChanged(latest.user, shown))
        self._entries[user_id] = _kept(joined)
        self._most = max(self._most, len(joined))

    def _updated(self, user_id: str, change: DeviceChange, happened: list[RosterEvent]) -> None:
        entry = self._entry(user_id)
        devices = entry.devices
        previous = _latest(devices) if devices else None
        joined, left = {device.ref for device in change.joined}, set(change.left)
        for ref in left:
            del devices[ref]
        for device in change.joined:
            device.number += entry.next_number
            devices[device.ref] = device
        entry.next_number += len(change.joined)
        self._most = max(self._most, len(devices))
        shown = _latest(devices)
        user = shown.user
        if joined <= left and entry.claims:
            if user_id == self._own.user_id or joined == left:
                return  # our claims are our own, or the server repeated itself
            entry.claims = ()
        elif shown is previous:
            return  # another device of theirs left, or the server repeated itself
        elif entry.claims:
            claims, entry.claims = entry.claims, ()
            said, seen = [(claim.status, claim.activity) for claim in claims], (user.status, user.activity)
            if shown.is_update and seen in said[:-1]:
                # The track of an earlier claim: what was claimed since is newer. (The first track of another
                # device would only happen to say the same.)
                entry.claims = claims[said.index(seen) + 1 :]
                return
            if seen == said[-1]:
                user = replace(user, extra={**_extra(claims[-1].extra), **user.extra})
        self._show(entry, user, happened)
        if len(devices) == 1 and entry.user is shown.user:
            self._entries[user_id] = shown

    def _entry(self, user_id: str) -> _UserRecord:
        """What there is of the user, as an entry of its own from now on."""
        entry = self._entries[user_id]
        if isinstance(entry, _Device):
            entry = self._entries[user_id] = _UserRecord(entry.user, {entry.ref: entry}, (), entry.number + 1)
        return entry

    def _claimed(self, claim: PendingActivity, happened: list[RosterEvent]) -> None:
        entry = self._entry(claim.user_id)
        entry.claims = (*entry.claims, claim)[-MAX_CLAIMS:]
        tracked = _latest(entry.devices).user.extra if entry.devices else {}
        user = replace(
            entry.user,
            status=claim.status,
            activity=claim.activity,
            display_name=claim.display_name or entry.user.display_name,
            extra=_extra({**tracked, **claim.extra}),
        )
        self._show(entry, user, happened)

    def _show(self, entry: _UserRecord, user: OnlineUser, happened: list[RosterEvent]) -> None:
        previous, is_own = entry.user, user.user_id == self._own.user_id
        if not _look_the_same(user, previous):
            entry.user = user
            if not is_own:
                happened.append(ActivityChanged(user, previous))
        elif is_own and user.online_at is not None:
            entry.user = replace(previous, online_at=user.online_at)  # since when, as others see it


def _device(user_id: str, meta: Meta, number: int) -> _Device:
    return _Device(meta["phx_ref"], user_from_meta(user_id, meta), "phx_ref_prev" in meta, number)


def _device_of(user_id: str, meta: UserMeta) -> _Device:
    name = meta.display_name or user_id
    user = OnlineUser(user_id, name, meta.status, meta.activity, meta.online_at)
    return _Device(meta.phx_ref, user, meta.phx_ref_prev is not UNSET)


def _by_ref(user_id: str, metas: Iterable[Meta]) -> dict[str, _Device]:
    """What joined at once, the latest one last. It comes in no order of time: `online_at` decides."""
    devices = [_device(user_id, meta, number) for number, meta in enumerate(metas)]
    if len(devices) > 1:
        devices.sort(key=_online_at)
    return _dict_of(devices)


def _dict_of(devices: Iterable[_Device]) -> dict[str, _Device]:
    return {device.ref: device for device in devices}


def _kept(joined: tuple[_Device, ...]) -> _Device | _UserRecord:
    """What is kept of a user who has just the devices that joined."""
    latest = joined[-1]
    return latest if len(joined) == 1 else _UserRecord(latest.user, _dict_of(joined), (), len(joined))


def _of_devices(change: PresenceChange) -> DeviceChange:
    joined = tuple(_by_ref(change.key, change.joined).values())
    return DeviceChange(change.key, change.kind, joined, tuple(meta["phx_ref"] for meta in change.left))


def _are_last(devices: dict[str, _Device], joins: dict[str, _Device]) -> bool:
    """Whether `joins` are the last that joined of `devices`, in the same order and with the same content."""
    last = nlargest(len(joins), devices.values(), key=_number)
    again = nlargest(len(joins), joins.values(), key=_number)
    # Compared as text, since to Python 1 and True are equal.
    return [repr((one.ref, one.user, one.is_update)) for one in last] == [
        repr((one.ref, one.user, one.is_update)) for one in again
    ]


def _number(device: _Device) -> int:
    return device.number


def _latest(devices: dict[str, _Device]) -> _Device:
    return next(reversed(devices.values()))


def _extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _FIELDS}


def _online_at(device: _Device) -> str:
    return device.user.online_at or ""


def _look_the_same(one: OnlineUser, other: OnlineUser) -> bool:
    """Whether nobody could tell one state of a user from another: `online_at` does not count."""
    return (
        one.status == other.status
        and one.activity == other.activity
        and one.display_name == other.display_name
        and one.extra == other.extra
    )
