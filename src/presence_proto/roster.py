"""Who is in the room, from presence changes and broadcasts: users and what happened to them.

The rules, from the Jarvis presence system:

- A user is online while its key has a meta. The user shown is the most recently joined meta's.
- A broadcast of an activity is a claim: it changes a user that presence knows, and never adds one. The track
  that follows it says the same and is no second event; a late track of an earlier claim does not undo it.
- A whole state ends all doubt: claims of before it are void.
- We are in our own roster at all times, and never an event. What we do we know ourselves: no broadcast
  changes it, and no state makes it void before our track has arrived.
- A change that nobody could see is no event and changes nothing. `online_at` alone is such a change: it is of
  when the user, as shown, came online.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from presence_proto.broadcasts import ActivityClaim
from presence_proto.events import ActivityChanged, OnlineUser, UserOffline, UserOnline, UserStatus
from presence_proto.presence import Meta

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from presence_proto.presence import PresenceChange

RosterEvent: TypeAlias = UserOnline | UserOffline | ActivityChanged

MAX_CLAIMS = 16
"""Claims of one user that wait for their track. If more come, then because no tracks do: the oldest go."""

_NOTHING: Meta = MappingProxyType({})
_ONLINE = UserStatus.ONLINE
_STATUSES = {str(status): status for status in UserStatus}
_FIELDS = frozenset({"user_id", "display_name", "status", "activity", "online_at", "phx_ref", "phx_ref_prev"})


class _Entry(Struct, gc=False):
    """What is known of one user."""

    user: OnlineUser
    shown: Meta = _NOTHING  # the most recently joined meta; nothing when there is none
    metas: dict[str, Meta] | None = None  # by phx_ref, `shown` last, if there is not just that one
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
        self._entries = {own.user_id: _Entry(own)}

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
        return len(entry.metas) if entry.metas is not None else 1 if entry.shown else 0

    def apply(self, changes: Iterable[PresenceChange]) -> list[RosterEvent]:
        """Take in what a diff changed in the presence. Every change of it must come here or to `sync`."""
        happened: list[RosterEvent] = []
        for change in changes:
            entry = self._entries.get(change.key)
            if change.kind == "left":
                self._left(change.key, happened)
            elif entry is None:
                self._joined(change, happened)
            else:
                self._updated(entry, change, happened)
        return happened

    def sync(self, changes: Iterable[PresenceChange]) -> list[RosterEvent]:
        """Take in what a whole state changed. Who is not in `changes` is as the presence has it, too."""
        claimed = [
            (user_id, entry)
            for user_id, entry in self._entries.items()
            if entry.claims and user_id != self._own.user_id
        ]
        for _, entry in claimed:
            entry.claims = ()
        happened = self.apply(changes)
        for user_id, entry in claimed:
            if self._entries.get(user_id) is entry:
                self._show(entry, user_from_meta(user_id, entry.shown), happened)
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

    def _joined(self, change: PresenceChange, happened: list[RosterEvent]) -> None:
        metas, shown = None, change.joined[0]
        if len(change.joined) > 1:
            metas = _by_ref(change.joined)
            shown = _latest(metas)
        user = user_from_meta(change.key, shown)
        self._entries[change.key] = _Entry(user, shown, metas)
        happened.append(UserOnline(user))

    def _left(self, user_id: str, happened: list[RosterEvent]) -> None:
        if user_id == self._own.user_id:
            self._entries[user_id] = _Entry(self._own)
        else:
            happened.append(UserOffline(self._entries.pop(user_id).user))

    def _updated(self, entry: _Entry, change: PresenceChange, happened: list[RosterEvent]) -> None:
        shown = entry.shown
        if entry.metas is None and len(change.joined) == len(change.left) == 1:  # nearly all there is
            (meta,) = change.joined
        else:
            metas = _by_ref((shown,) if shown else ()) if entry.metas is None else entry.metas
            for meta in change.left:
                del metas[meta["phx_ref"]]
            metas.update(_by_ref(change.joined))
            meta = _latest(metas)
            entry.metas = metas if len(metas) > 1 else None
        if meta is shown:
            return  # another device of theirs left, or the server repeated itself
        entry.shown = meta
        user = user_from_meta(change.key, meta)
        if entry.claims:
            claims, entry.claims = entry.claims, ()
            said, seen = [(claim.status, claim.activity) for claim in claims], (user.status, user.activity)
            if "phx_ref_prev" in meta and seen in said[:-1]:
                # The track of an earlier claim: what was claimed since is newer. (Without a phx_ref_prev it
                # would be the first track of another device, which only happens to say the same.)
                entry.claims = claims[said.index(seen) + 1 :]
                return
            if seen == said[-1]:
                user = replace(user, extra={**_extra(claims[-1].extra), **user.extra})
        self._show(entry, user, happened)

    def _claimed(self, claim: ActivityClaim, happened: list[RosterEvent]) -> None:
        entry = self._entries[claim.user_id]
        entry.claims = (*entry.claims, claim)[-MAX_CLAIMS:]
        user = replace(
            entry.user,
            status=claim.status,
            activity=claim.activity,
            display_name=claim.display_name or entry.user.display_name,
            extra=_extra({**entry.shown, **claim.extra}),
        )
        self._show(entry, user, happened)

    def _show(self, entry: _Entry, user: OnlineUser, happened: list[RosterEvent]) -> None:
        previous = entry.user
        if _look_the_same(user, previous):
            return
        entry.user = user
        if user.user_id != self._own.user_id:
            happened.append(ActivityChanged(user, previous))


def _by_ref(metas: Collection[Meta]) -> dict[str, Meta]:
    """Metas that joined at once, the latest one last. They come in no order of time: `online_at` decides."""
    in_order = sorted(metas, key=_online_at) if len(metas) > 1 else metas
    return {meta["phx_ref"]: meta for meta in in_order}


def _latest(metas: dict[str, Meta]) -> Meta:
    """The most recently joined one; nothing when there is none."""
    return next(reversed(metas.values()), _NOTHING)


def _extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _FIELDS}


def _online_at(meta: Meta) -> str:
    online_at = meta.get("online_at")
    return online_at if isinstance(online_at, str) else ""


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
