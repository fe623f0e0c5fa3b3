"""Who is in the room, from presence changes and broadcasts: users and what happened to them.

The rules, from the Jarvis presence system:

- A user is online while its key has a meta. The user shown is the most recently joined meta's.
- A broadcast of an activity is a claim: it changes a user that presence knows, and never adds one. The track that
  follows it says the same and is no second event; a track of *before* the claim that arrives late does not undo it.
- We are in our own roster at all times, and never an event.
- A change that nobody could see is no event and changes nothing: `online_at` alone is no such change, it is of when
  the user, as shown, came online.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import define, evolve

from presence_proto.events import (
    ActivityChanged,
    OnlineUser,
    PresenceEvent,
    UserOffline,
    UserOnline,
    UserStatus,
)
from presence_proto.presence import Meta, PresenceChange, PresenceMap

MAX_CLAIMS = 16
"""Claims of one user that wait for their track. More are possible only when tracks do not come; then the oldest goes."""

_FIELDS = frozenset({"user_id", "display_name", "status", "activity", "online_at", "phx_ref", "phx_ref_prev"})
_Seen = tuple[UserStatus, str | None]


@define
class _Entry:
    user: OnlineUser
    ref: str | None = None  # of the meta that is shown; None: no meta is, it is ourselves before our track
    claims: list[_Seen] | None = None  # broadcast, and not confirmed by a track yet, oldest first


def user_from_meta(user_id: str, meta: Meta) -> OnlineUser:
    """The user that a presence meta shows. Anything odd in it is passed over, since every client may write there."""
    name, activity, online_at = meta.get("display_name"), meta.get("activity"), meta.get("online_at")
    extra = {field: value for field, value in meta.items() if field not in _FIELDS}
    status = UserStatus.ONLINE
    if "status" in meta:
        try:
            status = UserStatus(meta["status"])
        except ValueError:
            extra["status"] = meta["status"]
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

    def apply(self, changes: Iterable[PresenceChange], presence: PresenceMap) -> list[PresenceEvent]:
        """Take in what changed in `presence`."""
        happened: list[PresenceEvent] = []
        for change in changes:
            entry = self._entries.get(change.key)
            if change.kind == "left":
                self._left(change.key, happened)
            elif entry is None:
                meta = _latest(change.joined)
                user = user_from_meta(change.key, meta)
                self._entries[change.key] = _Entry(user, meta["phx_ref"])
                happened.append(UserOnline(user))
            else:
                self._updated(entry, change, presence, happened)
        return happened

    def claim(
        self, user_id: str, status: UserStatus, activity: str | None, display_name: str | None = None
    ) -> list[PresenceEvent]:
        """Somebody (or we) said what they do now; the track that says so too is on its way."""
        entry = self._entries.get(user_id)
        if entry is None:
            return []
        claims = entry.claims = entry.claims or []
        claims.append((status, activity))
        del claims[:-MAX_CLAIMS]
        name = display_name or entry.user.display_name
        happened: list[PresenceEvent] = []
        self._show(entry, evolve(entry.user, status=status, activity=activity, display_name=name), happened)
        return happened

    def set_own(self, own: OnlineUser) -> None:
        """We are somebody else now, or do something else."""
        self._own = own
        self.claim(own.user_id, own.status, own.activity, own.display_name)

    # ---------------------------------------------------------------- inside

    def _left(self, user_id: str, happened: list[PresenceEvent]) -> None:
        if user_id == self._own.user_id:
            self._entries[user_id] = _Entry(self._own)
        else:
            entry = self._entries.pop(user_id, None)
            if entry is not None:
                happened.append(UserOffline(entry.user))

    def _updated(
        self, entry: _Entry, change: PresenceChange, presence: PresenceMap, happened: list[PresenceEvent]
    ) -> None:
        if change.joined:
            meta = _latest(change.joined)
        elif any(meta["phx_ref"] == entry.ref for meta in change.left):
            meta = _latest(presence[change.key])
        else:
            return  # another device of theirs left
        entry.ref = meta["phx_ref"]
        user = user_from_meta(change.key, meta)
        seen = (user.status, user.activity)
        claims, entry.claims = entry.claims, None
        if claims and seen in claims[:-1]:
            # The track of an earlier claim: what was claimed since is newer.
            entry.claims = claims[claims.index(seen) + 1 :]
            user = evolve(user, status=entry.user.status, activity=entry.user.activity)
        self._show(entry, user, happened)

    def _show(self, entry: _Entry, user: OnlineUser, happened: list[PresenceEvent]) -> None:
        previous = entry.user
        if user == evolve(previous, online_at=user.online_at):
            return
        entry.user = user
        if user.user_id != self._own.user_id:
            happened.append(ActivityChanged(user, previous))


def _latest(metas: Iterable[Meta]) -> Meta:
    """The most recently joined of several metas. Those of one state are in no order of time: `online_at` decides."""
    return max(enumerate(metas), key=lambda pair: (_online_at(pair[1]), pair[0]))[1]


def _online_at(meta: Mapping[str, Any]) -> str:
    online_at = meta.get("online_at")
    return online_at if isinstance(online_at, str) else ""
