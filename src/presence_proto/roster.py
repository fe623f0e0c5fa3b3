"""Who is in the room, from presence changes and broadcasts: users and what happened to them.

The rules, from the Jarvis presence system:

- A user is online while its key has a meta. The user shown is the most recently joined meta's.
- A broadcast of an activity is a claim: it changes a user that presence knows, and never adds one. The track
  that follows it says the same and is no second event; a late track of an earlier claim does not undo it.
- A device that leaves takes the claims with it: they may be its own, and then no track will follow.
- A whole state ends all doubt: claims of before it are void.
- We are in our own roster at all times, and never an event. What we do we know ourselves: no broadcast
  changes it, and no state makes it void before our track has arrived.
- A change that nobody could see is no event and changes nothing. `online_at` alone is such a change: it is of
  when the user, as shown, came online.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from presence_proto.broadcasts import ActivityClaim
from presence_proto.events import ActivityChanged, OnlineUser, UserOffline, UserOnline, UserStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from presence_proto.presence import Meta, PresenceChange

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


class _Entry(Struct, gc=False):
    """A user who is not just what their one device has tracked."""

    user: OnlineUser  # as shown
    devices: dict[str, _Device]  # by ref, the most recently joined one last; without any there is only us
    claims: tuple[ActivityClaim, ...] = ()  # not confirmed by a track yet, oldest first


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
    """The users of a room by id, ourselves first. `own` is how we are shown until the server shows us."""

    __slots__ = ("_entries", "_own")

    def __init__(self, own: OnlineUser) -> None:
        self._own = own
        self._entries: dict[str, _Device | _Entry] = {own.user_id: _Entry(own, {})}

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
        """With how many devices the user is online, as the presence has it."""
        entry = self._entries.get(user_id)
        if entry is None:
            return 0
        return len(entry.devices) if isinstance(entry, _Entry) else 1

    def apply(self, changes: Iterable[PresenceChange]) -> list[RosterEvent]:
        """Take in what a diff changed in the presence. Every change of it must come here or to `sync`."""
        happened: list[RosterEvent] = []
        entries, own = self._entries, self._own.user_id
        for change in changes:
            key = change.key
            entry = entries.get(key)
            if change.kind == "left":
                self._left(key, happened)
            elif entry is None and len(change.joined) == 1:
                device = entries[key] = _device(key, change.joined[0])
                happened.append(UserOnline(device.user))
            elif entry is None:
                devices = _by_ref(change)
                user = _latest(devices).user
                entries[key] = _Entry(user, devices)
                happened.append(UserOnline(user))
            elif type(entry) is _Device and len(change.joined) == len(change.left) == 1 and key != own:
                device = entries[key] = _device(key, change.joined[0])  # as most do
                if _look_the_same(device.user, entry.user):
                    device.user = entry.user
                else:
                    happened.append(ActivityChanged(device.user, entry.user))
            else:
                self._updated(key, change, happened)
        return happened

    def sync(self, changes: Iterable[PresenceChange]) -> list[RosterEvent]:
        """Take in what a whole state changed. Who is not in `changes` is as the presence has it, too."""
        claimed = [
            (user_id, entry)
            for user_id, entry in self._entries.items()
            if isinstance(entry, _Entry) and entry.claims and user_id != self._own.user_id
        ]
        for _, entry in claimed:
            entry.claims = ()
        happened = self.apply(changes)
        for user_id, entry in claimed:
            if self._entries.get(user_id) is entry:
                self._show(entry, _latest(entry.devices).user, happened)
        return happened

    def claim(self, claim: ActivityClaim) -> list[RosterEvent]:
        """Somebody else said what they do now; the track that says so too is on its way."""
        happened: list[RosterEvent] = []
        if claim.user_id in self._entries and claim.user_id != self._own.user_id:
            self._claimed(claim, happened)
        return happened

    def set_own(self, own: OnlineUser) -> None:
        """We do something else now, and our track is on its way."""
        self._own = own
        self._claimed(ActivityClaim(own.user_id, own.status, own.activity, own.display_name, {}), [])

    # ---------------------------------------------------------------- inside

    def _left(self, user_id: str, happened: list[RosterEvent]) -> None:
        if user_id == self._own.user_id:
            self._entries[user_id] = _Entry(self._own, {})
        else:
            happened.append(UserOffline(self._entries.pop(user_id).user))

    def _updated(self, user_id: str, change: PresenceChange, happened: list[RosterEvent]) -> None:
        entry = self._entry(user_id)
        devices = entry.devices
        previous = _latest(devices) if devices else None
        for meta in change.left:
            del devices[meta["phx_ref"]]
        devices.update(_by_ref(change))
        shown = _latest(devices)
        user = shown.user
        if not change.joined and entry.claims:
            if user_id == self._own.user_id or not change.left:
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

    def _entry(self, user_id: str) -> _Entry:
        """What there is of the user, as an entry of its own from now on."""
        entry = self._entries[user_id]
        if isinstance(entry, _Device):
            entry = self._entries[user_id] = _Entry(entry.user, {entry.ref: entry})
        return entry

    def _claimed(self, claim: ActivityClaim, happened: list[RosterEvent]) -> None:
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

    def _show(self, entry: _Entry, user: OnlineUser, happened: list[RosterEvent]) -> None:
        previous, is_own = entry.user, user.user_id == self._own.user_id
        if not _look_the_same(user, previous):
            entry.user = user
            if not is_own:
                happened.append(ActivityChanged(user, previous))
        elif is_own and user.online_at is not None:
            entry.user = replace(previous, online_at=user.online_at)  # since when, as others see it


def _device(user_id: str, meta: Meta) -> _Device:
    return _Device(meta["phx_ref"], user_from_meta(user_id, meta), "phx_ref_prev" in meta)


def _by_ref(change: PresenceChange) -> dict[str, _Device]:
    """What joined at once, the latest one last. It comes in no order of time: `online_at` decides."""
    devices = [_device(change.key, meta) for meta in change.joined]
    if len(devices) > 1:
        devices.sort(key=_online_at)
    return {device.ref: device for device in devices}


def _latest(devices: dict[str, _Device]) -> _Device:
    return next(reversed(devices.values()))


def _extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _FIELDS}


def _online_at(device: _Device) -> str:
    return device.user.online_at or ""


def _look_the_same(one: OnlineUser, other: OnlineUser) -> bool:
    """Whether nobody could tell one state of a user from another: `online_at` does not count."""
    try:
        return (
            one.status == other.status
            and one.activity == other.activity
            and one.display_name == other.display_name
            and one.extra == other.extra
        )
    except RecursionError:  # further fields that are nested too deeply to compare
        return False
