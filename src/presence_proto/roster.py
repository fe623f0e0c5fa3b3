"""`Roster`: the users of a Jarvis room, built from presence changes and activity broadcasts.

The rules of the roster are those of the Jarvis presence system:

- A user is online while the user's presence key has a meta. The latest joined meta determines the shown data.
- An activity broadcast changes an online user at once, and never adds a user. The activity is pending until a
  presence update (track) confirms the activity. The confirming update is not a second event. A late update
  that confirms an earlier pending activity does not undo a later activity.
- When a device leaves, pending activities of the user are dropped: if the device has sent the activities, no
  presence update will confirm them.
- A full presence state drops all earlier pending activities of other users.
- This client's user is always in the roster, and never in an event. No broadcast changes this client's user.
  A pending activity of this client's user stays until the presence update arrives, even after a full state.
- After a restart of the server, users who are missing from the new state become stale. A stale user has no
  device, and stays in the roster with the last known data until the user returns or leaves, or until
  `drop_stale`. The roster ignores activity broadcasts of stale users.
- A change of only `online_at` is not an event. After such a change, the roster keeps the old `online_at` of
  another user, which is the time at which the shown user came online.
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
    check_nesting,
    check_state,
    continues,
    diff_entries,
    parse_entries,
    refs_of,
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
"""The maximum number of pending activities of a user. Above this number, the oldest are dropped."""

_ONLINE = UserStatus.ONLINE
_STATUSES = {str(status): status for status in UserStatus}
_FIELDS = frozenset({"user_id", "display_name", "status", "activity", "online_at", "phx_ref", "phx_ref_prev"})


class _Device(Struct, gc=False):
    """A user as tracked by one device. The roster does not keep the meta, to save memory in large rooms."""

    ref: str
    user: OnlineUser
    is_update: bool  # whether the meta replaces an earlier meta of the same connection
    # Position in the order of the server's messages. Devices that join together are sorted by `online_at`.
    number: int = 0


class _UserRecord(Struct, gc=False):
    """The data of a user for whom a single `_Device` is not enough."""

    user: OnlineUser  # as shown
    devices: dict[str, _Device]  # by ref, latest join last; empty only for this client's user and stale users
    claims: tuple[PendingActivity, ...] = ()  # unconfirmed activities, oldest first
    next_number: int = 0  # the `number` of the next device that joins


class DeviceChange(Struct, frozen=True, gc=False):
    """The devices of a user that a presence message added (latest last), and the refs of removed devices.

    `continues` is true if a joined device is an update of a removed device.
    """

    key: str
    kind: ChangeKind
    joined: tuple[_Device, ...]
    left: Collection[str]
    continues: bool = False


AnyChange: TypeAlias = PresenceChange | DeviceChange


def user_from_meta(user_id: str, meta: Meta) -> OnlineUser:
    """Return the user that a presence meta describes. Invalid values, which any client can send, are ignored.

    An unknown status becomes ONLINE, and `extra` keeps the original status.
    """
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
    """The users of a room by id, this client's user first.

    Until the server lists this client's user, the roster shows `own`.

    A roster can be the `PresenceStore` of a channel. The roster then decodes a diff once, directly to users,
    and stores the data once. Metas are merged by ref, as in a `PresenceMap`. The limits are `max_keys` users,
    `max_metas` devices per user, and `max_nesting` levels of a message.
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
        self._most = 1  # maximum number of devices that any user has had
        self._entries: dict[str, _Device | _UserRecord] = {own.user_id: _UserRecord(own, {})}
        self._stale: dict[str, None] = {}  # ids of the stale users, oldest first

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, user_id: str) -> OnlineUser | None:
        """Return the user with this id, or `None` if the user is not in the roster."""
        entry = self._entries.get(user_id)
        return None if entry is None else entry.user

    def users(self) -> tuple[OnlineUser, ...]:
        """Return all users, this client's user first."""
        return tuple(entry.user for entry in self._entries.values())

    def device_count(self, user_id: str) -> int:
        """Return the number of a user's devices in the presence. The number is 0 for a stale user."""
        entry = self._entries.get(user_id)
        if entry is None:
            return 0
        return len(entry.devices) if isinstance(entry, _UserRecord) else 1

    def is_stale(self, user_id: str) -> bool:
        """Whether a user stays in the roster although the user is missing from the server's state."""
        return user_id in self._stale

    @property
    def has_stale(self) -> bool:
        """Whether the roster has a stale user."""
        return bool(self._stale)

    def apply(self, changes: Iterable[AnyChange]) -> list[RosterEvent]:
        """Apply changes of a presence stored elsewhere. Pass each change either to `apply` or to `sync`."""
        happened: list[RosterEvent] = []
        for change in changes:
            self._changed(_of_devices(change) if isinstance(change, PresenceChange) else change, happened)
        return happened

    def sync(
        self, changes: Iterable[PresenceChange | DeviceChange], *, keep: bool = False
    ) -> list[RosterEvent]:
        """Apply the changes of a full state, and drop all pending activities of other users.

        If `keep` is true, users who left stay in the roster as stale users.
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
        """Apply an activity that another user has broadcast, until a presence update confirms it.

        The roster ignores activities of unknown users, stale users and this client's user.
        """
        happened: list[RosterEvent] = []
        user_id = claim.user_id
        if user_id in self._entries and user_id not in self._stale and user_id != self._own.user_id:
            self._claimed(claim, happened)
        return happened

    def drop_stale(self) -> list[RosterEvent]:
        """Remove the stale users. Each stale user goes offline."""
        stale, self._stale = self._stale, {}
        return [UserOffline(self._entries.pop(user_id).user) for user_id in stale]

    def set_own(self, own: OnlineUser) -> None:
        """Change this client's user. The change is pending until a presence update confirms the change."""
        self._own = own
        self._claimed(PendingActivity(own.user_id, own.status, own.activity, own.display_name, {}), [])

    # ---------------------------------------------------------------- as a PresenceStore

    def apply_diff(self, payload: Any) -> list[RosterEvent]:
        """Merge the payload of a `presence_diff`, and return the resulting events.

        If the payload is malformed or the result would be too large, `apply_diff` raises
        `RemoteProtocolError` and changes nothing.
        """
        if type(payload) is not UserDiff:
            return self._apply_any(payload)
        # Not `_apply_any`: inlined code takes 0.45 of the time for a usual diff (0.38 with 200 changes).
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
        joining, _ = parse_entries(entries, "presence_diff joins", levels)
        left, _ = parse_entries(leaving, "presence_diff leaves", levels)
        joins = {key: _by_ref(key, entry.metas) for key, entry in joining.items()}
        leaves = {key: refs_of(entry) for key, entry in left.items()}
        self._check_size(joins, leaves)
        for key, devices in joins.items():
            self._merge(key, devices, leaves.pop(key, ()), happened)
        for key, refs in leaves.items():
            self._merge(key, {}, refs, happened)
        return happened

    def apply_state(self, payload: Any) -> tuple[DeviceChange, ...]:
        """Return the changes of a `presence_state` payload. The roster changes only in `sync`.

        Raises `RemoteProtocolError` if the payload is malformed or the result would be too large.
        """
        entries = there = payload
        if isinstance(payload, Raw):
            levels = self._max_nesting - ABOVE_STATE
            entries = there = state_entries(payload, levels)
            if (refs := held_refs(payload)) is not None:
                # Skip entries that the roster already has. An entry that nests too deeply must be decoded, to
                # raise an error.
                entries = {
                    key: there[key]
                    for key, entry in refs.items()
                    if not self._holds(key, entry.metas) or nests_deeper(bytes(there[key]), levels - 1)
                }
        state, most = parse_entries(entries, "presence_state", self._max_nesting - ABOVE_STATE - 1)
        check_state(state, most, len(there) - len(state), self._max_keys, self._max_metas)
        changes = []
        for key, entry in state.items():
            if change := self._become(key, entry.metas):
                changes.append(change)
        for key in self._entries:
            if key not in there and (devices := self._devices(key)):
                changes.append(DeviceChange(key, "left", (), tuple(devices)))
        return tuple(changes)

    def check_nesting(self, payload: Any) -> None:
        """Raise `RemoteProtocolError` if a diff nests too deeply for a later `apply_diff`."""
        check_nesting(payload, self._max_nesting)

    def nothing_continues(self, before: int, changes: Iterable[DeviceChange]) -> bool:
        """Whether a presence state has neither a current device nor an update of a current device.

        `changes` are the changes of the state. Pass `changes` to `sync` afterwards. `before` is not used.
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
        """Add `joins` to the user's devices, then remove the refs of `leaves`."""
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
                joined = ()  # the server repeated devices that are already stored
            else:
                left += [ref for ref in joins if ref in rest]
        if joined or left:
            self._changed(DeviceChange(key, "updated", joined, left), happened)

    def _become(self, key: str, metas: Iterable[Meta]) -> DeviceChange | None:
        """Return the change after which a user has exactly `metas`, or `None` if nothing changes."""
        mine = self._devices(key)
        there = {meta["phx_ref"] for meta in metas}
        left = [ref for ref in mine if ref not in there]
        new = [meta for meta in metas if meta["phx_ref"] not in mine]
        if not new and not left:
            return None
        joined = tuple(_by_ref(key, new).values())
        if not mine:
            return DeviceChange(key, "joined", joined, ())
        if not new and len(left) == len(mine):
            return DeviceChange(key, "left", (), left)
        return DeviceChange(key, "updated", joined, left, continues(new, left))

    def _holds(self, key: str, metas: list[MetaRef]) -> bool:
        """Whether the refs of the user's devices are exactly the refs of `metas`."""
        entry = self._entries.get(key)
        if type(entry) is _Device:
            return len(metas) == 1 and metas[0].phx_ref == entry.ref
        devices = self._devices(key)
        return bool(devices) and {ref.phx_ref for ref in metas} == devices.keys()

    def _devices(self, key: str) -> dict[str, _Device]:
        """Return the devices of a user, by ref. Treat the result as read-only."""
        entry = self._entries.get(key)
        if entry is None:
            return {}
        return entry.devices if isinstance(entry, _UserRecord) else {entry.ref: entry}

    def _held(self) -> int:
        """Return the number of users with devices."""
        return sum(
            not isinstance(entry, _UserRecord) or bool(entry.devices) for entry in self._entries.values()
        )

    def _check_size(
        self, joins: Mapping[str, Collection[str]], leaves: Mapping[str, Collection[str]]
    ) -> None:
        """Raise `RemoteProtocolError` if the result would be too large. Leaves make room for joins."""
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
            self._replace(key, entry, joined[0], happened)  # the most frequent change
        elif key in self._stale:
            self._returned(key, joined, happened)
        else:
            self._updated(key, change, happened)

    def _replace(self, key: str, before: _Device, device: _Device, happened: list[RosterEvent]) -> None:
        """Replace the only device of another user."""
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
        """Mark the users who left as stale. Return the other changes, which still have to be applied."""
        others = []
        for change in changes:
            if change.kind == "left" and change.key != self._own.user_id:
                self._entries[change.key] = _UserRecord(self._entries[change.key].user, {})
                self._stale[change.key] = None
            else:
                others.append(change)
        return others

    def _returned(self, user_id: str, joined: tuple[_Device, ...], happened: list[RosterEvent]) -> None:
        """Mark a stale user as online again."""
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
                return  # this client's pending activities stay, or the server repeated the same metas
            entry.claims = ()
        elif shown is previous:
            return  # a device that is not shown left, or the server repeated the same metas
        elif entry.claims:
            claims, entry.claims = entry.claims, ()
            said, seen = [(claim.status, claim.activity) for claim in claims], (user.status, user.activity)
            if shown.is_update and seen in said[:-1]:
                # The update confirms an earlier activity, so that later activities stay pending. (Only an
                # update can confirm: the first track of another device may have the same values by chance.)
                entry.claims = claims[said.index(seen) + 1 :]
                return
            if seen == said[-1]:
                user = replace(user, extra={**_extra(claims[-1].extra), **user.extra})
        self._show(entry, user, happened)
        if len(devices) == 1 and entry.user is shown.user:
            self._entries[user_id] = shown

    def _entry(self, user_id: str) -> _UserRecord:
        """Return the user's record. Replace a single `_Device` by a record first."""
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
            entry.user = replace(previous, online_at=user.online_at)  # the time that other users see


def _device(user_id: str, meta: Meta, number: int) -> _Device:
    return _Device(meta["phx_ref"], user_from_meta(user_id, meta), "phx_ref_prev" in meta, number)


def _device_of(user_id: str, meta: UserMeta) -> _Device:
    name = meta.display_name or user_id
    user = OnlineUser(user_id, name, meta.status, meta.activity, meta.online_at)
    return _Device(meta.phx_ref, user, meta.phx_ref_prev is not UNSET)


def _by_ref(user_id: str, metas: Iterable[Meta]) -> dict[str, _Device]:
    """Return devices that joined together, sorted by `online_at`: the server does not sort by time."""
    devices = [_device(user_id, meta, number) for number, meta in enumerate(metas)]
    if len(devices) > 1:
        devices.sort(key=_online_at)
    return _dict_of(devices)


def _dict_of(devices: Iterable[_Device]) -> dict[str, _Device]:
    return {device.ref: device for device in devices}


def _kept(joined: tuple[_Device, ...]) -> _Device | _UserRecord:
    """Return the entry of a user who has exactly the joined devices."""
    latest = joined[-1]
    return latest if len(joined) == 1 else _UserRecord(latest.user, _dict_of(joined), (), len(joined))


def _of_devices(change: PresenceChange) -> DeviceChange:
    joined = tuple(_by_ref(change.key, change.joined).values())
    return DeviceChange(change.key, change.kind, joined, tuple(meta["phx_ref"] for meta in change.left))


def _are_last(devices: dict[str, _Device], joins: dict[str, _Device]) -> bool:
    """Whether `joins` are the last joined devices in `devices`, with the same order and content."""
    last = nlargest(len(joins), devices.values(), key=_number)
    again = nlargest(len(joins), joins.values(), key=_number)
    # Compare reprs, because 1 == True in Python.
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
    """Whether two versions of a user look the same to other users. The comparison ignores `online_at`."""
    return (
        one.status == other.status
        and one.activity == other.activity
        and one.display_name == other.display_name
        and one.extra == other.extra
    )
