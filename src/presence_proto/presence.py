"""The presence of one channel: who is there, merged from the server's states and diffs by `phx_ref`.

The rules are those of phoenix.js 1.8 (`Presence.syncState`, `Presence.syncDiff`). A key, most often a user,
has one meta for each of its connections; a `phx_ref` names a meta for good.

- A join appends its metas to those of the key. A ref that is already held is not held twice: its meta is
  replaced and moves to the end. Of a ref that stands twice in one list, the last one counts.
- A leave removes metas by ref. An unknown ref or key is nothing. A key without metas is not there.
- A diff applies its joins before its leaves, so a ref on both sides is gone.
- A state is turned into a diff first: what we hold and it does not leaves, what it holds and we do not joins.
  A meta that both hold stays as it is, where it is.

Everything happens in place, and the cost of a diff grows with the diff, never with the roster. Nothing
changes when a payload is malformed or would lead past a limit. A diff that comes before its state is the
channel's business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast

from msgspec import Raw, Struct

from presence_proto import encoded_state
from presence_proto.errors import RemoteProtocolError

# The presence of one connection, as received: `phx_ref` and what was tracked.
Meta: TypeAlias = Mapping[str, Any]
ChangeKind: TypeAlias = Literal["joined", "left", "updated"]


class _Several(dict[str, Meta]):
    """The metas of a key by `phx_ref`, the most recently joined one last."""

    __slots__ = ()


# What a key has: nearly always one meta, which then is a plain dict and stands for itself.
_Metas: TypeAlias = dict[str, Any]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_NONE = _Several()  # of a key that is not there; never changed


class PresenceChange(Struct, frozen=True, gc=False):
    """What a state or a diff changed for one key.

    `kind` is `"joined"` when the key was not there before, `"left"` when it is gone, else `"updated"`.
    `joined` holds the metas whose refs are new, `left` those that were held and are gone. Both are empty when
    the server sent again what we hold, and only the order of the metas or their contents differ.
    """

    # A struct, not an attrs class: one is made for each key of each diff, in a quarter of the time.

    key: str
    kind: ChangeKind
    joined: tuple[Meta, ...]
    left: tuple[Meta, ...]


class PresenceMap(Mapping[str, tuple[Meta, ...]]):
    """Who is present: a read-only mapping of each key to its metas, the most recently joined one last.

    At most `max_keys` keys are held, and `max_metas` metas of one key. The metas are the very dicts that were
    received: treat them as read-only.
    """

    __slots__ = ("_extras", "_held", "_max_keys", "_max_metas", "_most")

    def __init__(self, *, max_keys: int = 1_000_000, max_metas: int = 10_000) -> None:
        self._held: dict[str, _Metas] = {}
        self._extras: dict[str, Mapping[str, Any]] = {}  # only of keys that have any
        self._max_keys = max_keys
        self._max_metas = max_metas
        self._most = 1  # no key has ever had more metas

    # -- getters

    def __getitem__(self, key: str) -> tuple[Meta, ...]:
        return _listed(self._held[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __repr__(self) -> str:
        return f"<PresenceMap: {len(self._held)} keys, {sum(map(_size, self._held.values()))} metas>"

    def latest(self, key: str) -> Meta:
        """The most recently joined meta of `key`, without a look at the others. Raises `KeyError`."""
        metas = self._held[key]
        return metas if type(metas) is dict else next(reversed(metas.values()))

    def extra(self, key: str) -> Mapping[str, Any]:
        """What the entry of `key` has beside `metas`; Phoenix's `fetch/2` adds such. Raises `KeyError`."""
        if key not in self._held:
            raise KeyError(key)
        return self._extras.get(key, _NOTHING)

    # -- facts

    def apply_state(self, payload: Any) -> tuple[PresenceChange, ...]:
        """Merge the payload of a `presence_state`: all that the server holds, `{key: {"metas": [...]}}`.

        Of a payload that is still JSON, a `msgspec.Raw`, only the refs are read where they are those that we
        hold. Returns one change for each key that is not what it was. Raises `RemoteProtocolError`, and
        changes nothing, when the payload is malformed or too large.
        """
        there, payload = self._differing(payload) if isinstance(payload, Raw) else (payload, payload)
        state, most = _parse(payload, "presence_state")
        self._check_state(state, most, len(there) - len(state))
        changes = []
        for key, metas in state.items():
            change = self._become(key, payload[key], metas)
            if change is not None:
                changes.append(change)
        for key in [key for key in self._held if key not in there]:
            changes.append(self._gone(key, _listed(self._held[key])))
        return tuple(changes)

    def _differing(self, encoded: Raw) -> tuple[Collection[str], Any]:
        """The keys of a state, and what of it is not known by its refs."""
        if not self._held:
            state = encoded_state.decode(encoded)
            return state, state
        entries = encoded_state.split(encoded)
        return entries, encoded_state.unknown(entries, self._held)

    def apply_diff(self, payload: Any) -> tuple[PresenceChange, ...]:
        """Merge the payload of a `presence_diff`: `{"joins": {key: {"metas": [...]}}, "leaves": {...}}`.

        Returns one change for each key that is not what it was. Raises `RemoteProtocolError`, and changes
        nothing, when the payload is malformed or the result would be too large.
        """
        if not isinstance(payload, dict):
            raise RemoteProtocolError(f"presence_diff must be an object, not {type(payload).__name__}")
        entries: Any = payload.get("joins")
        leaving: Any = payload.get("leaves")
        if type(entries) is dict and type(leaving) is dict and len(entries) < 2 and len(leaving) < 2:
            if not leaving:
                change = self._comes(entries)
            elif not entries:
                change = self._goes(leaving)
            else:
                change = self._replaces(entries, leaving)
            if change is not None:
                return (change,)
        joins, most = _parse(entries, "presence_diff joins")
        leaves, _ = _parse(leaving, "presence_diff leaves")
        changes, held = [], self._held
        if joins:
            if len(held) + len(joins) > self._max_keys or self._most + most > self._max_metas:
                self._check_diff(joins, leaves)  # there may be too little room: look closely
            for key, metas in joins.items():
                left = leaves.pop(key, None) if leaves else None
                if left is None and key not in held and type(metas) is dict and len(entries[key]) == 1:
                    held[key] = metas  # as most do
                    changes.append(PresenceChange(key, "joined", (metas,), ()))
                elif change := self._join(key, entries[key], metas, left):
                    changes.append(change)
        for key, metas in leaves.items():
            if change := self._leave(key, metas):
                changes.append(change)
        return tuple(changes)

    # -- the plainest diffs, which most are, in half the time. `None`, and nothing changed: it takes more.

    def _comes(self, joins: dict[str, Any]) -> PresenceChange | None:
        """Somebody who is not there joins with one meta."""
        held = self._held
        for key, entry in joins.items():
            if key not in held and len(held) < self._max_keys and type(entry) is dict and len(entry) == 1:
                metas = entry.get("metas")
                if type(metas) is list and len(metas) == 1:
                    meta = metas[0]
                    if type(meta) is dict and type(meta.get("phx_ref")) is str:
                        held[key] = meta
                        return PresenceChange(key, "joined", (meta,), ())
        return None

    def _goes(self, leaves: dict[str, Any]) -> PresenceChange | None:
        """Somebody who is there with one meta leaves."""
        for key, entry in leaves.items():
            held = self._held.get(key)
            if type(held) is dict and type(entry) is dict:
                metas = entry.get("metas")
                if type(metas) is list and len(metas) == 1:
                    meta = metas[0]
                    if type(meta) is dict and meta.get("phx_ref") == held["phx_ref"]:
                        return self._gone(key, (held,))
        return None

    def _replaces(self, joins: dict[str, Any], leaves: dict[str, Any]) -> PresenceChange | None:
        """Another meta takes the place of the one that somebody has."""
        for key, entry in joins.items():
            held, left = self._held.get(key), leaves.get(key)
            if type(held) is dict and type(entry) is dict and type(left) is dict and not self._extras:
                metas, lost = entry.get("metas"), left.get("metas")
                if type(metas) is list and len(metas) == 1 and type(lost) is list and len(lost) == 1:
                    meta, gone = metas[0], lost[0]
                    if type(meta) is dict and type(gone) is dict and len(entry) == 1:
                        ref = meta.get("phx_ref")
                        if type(ref) is str and gone.get("phx_ref") == held["phx_ref"] != ref:
                            self._held[key] = meta
                            return PresenceChange(key, "updated", (meta,), (held,))
        return None

    # -- merging one key

    def _become(self, key: str, entry: Mapping[str, Any], metas: _Metas) -> PresenceChange | None:
        """Let the key have just `metas`, which came in `entry`."""
        held = self._held.get(key)
        if held is None:
            return self._join(key, entry, metas, None)
        if type(held) is dict and type(metas) is dict:
            return None if held["phx_ref"] == metas["phx_ref"] else self._join(key, entry, metas, held)
        held, metas = _by_ref(held), _by_ref(metas)
        left = _Several({ref: meta for ref, meta in held.items() if ref not in metas})
        joined = _Several({ref: meta for ref, meta in metas.items() if ref not in held})
        return self._join(key, entry, joined, left) if joined else self._leave(key, left)

    def _join(
        self, key: str, entry: Mapping[str, Any], joins: _Metas, leaves: _Metas | None
    ) -> PresenceChange | None:
        """Let `joins`, which came in `entry`, join the key, and then the refs of `leaves` leave it."""
        held = self._held.get(key)
        if type(joins) is dict and len(entry) == 1 and key not in self._extras:
            # One meta joins, or takes the place of the one that was there: nearly all there is.
            if held is None and leaves is None:
                self._held[key] = joins
                return PresenceChange(key, "joined", (joins,), ())
            if (
                type(held) is dict
                and type(leaves) is dict
                and leaves["phx_ref"] == held["phx_ref"] != joins["phx_ref"]
            ):
                self._held[key] = joins
                return PresenceChange(key, "updated", (joins,), (held,))
        return self._join_several(key, entry, _by_ref(joins), () if leaves is None else _by_ref(leaves))

    def _join_several(
        self, key: str, entry: Mapping[str, Any], joins: _Several, leaves: Collection[str]
    ) -> PresenceChange | None:
        # A ref on both sides is gone. Once those are out, the order of joins and leaves makes no difference.
        for ref in leaves:
            joins.pop(ref, None)
        held = self._held.get(key)
        if held is None:
            if not joins:
                return None
            self._hold(key, joins)
            if len(entry) > 1:
                self._set_extra(key, entry)
            return PresenceChange(key, "joined", tuple(joins.values()), ())
        metas = _by_ref(held)
        left = []
        for ref in leaves:
            if ref in metas:
                left.append(metas.pop(ref))
        if not metas and not joins:
            return self._gone(key, tuple(left))
        if metas.keys().isdisjoint(joins):
            metas.update(joins)
            joined, changed = tuple(joins.values()), False
        else:
            joined, changed = _rejoin(metas, joins)
        self._hold(key, metas)
        if len(entry) > 1 or key in self._extras:
            changed |= self._set_extra(key, entry)
        if joined or left or changed:
            return PresenceChange(key, "updated", joined, tuple(left))
        return None

    def _leave(self, key: str, leaves: _Metas) -> PresenceChange | None:
        """Let the refs of `leaves` leave the key."""
        held = self._held.get(key)
        if held is None:
            return None
        if type(held) is dict and type(leaves) is dict:  # nearly all there is
            return self._gone(key, (held,)) if held["phx_ref"] == leaves["phx_ref"] else None
        metas = _by_ref(held)
        left = []
        for ref in _by_ref(leaves):
            if ref in metas:
                left.append(metas.pop(ref))
        if not metas:
            return self._gone(key, tuple(left))
        self._hold(key, metas)
        return PresenceChange(key, "updated", (), tuple(left)) if left else None

    def _hold(self, key: str, metas: _Several) -> None:
        if len(metas) == 1:
            (meta,) = metas.values()
            if type(meta) is dict:
                self._held[key] = meta
                return
        self._held[key] = metas
        self._most = max(self._most, len(metas))

    def _gone(self, key: str, left: tuple[Meta, ...]) -> PresenceChange:
        del self._held[key]
        if self._extras:
            self._extras.pop(key, None)
        return PresenceChange(key, "left", (), left)

    def _set_extra(self, key: str, entry: Mapping[str, Any]) -> bool:
        """Replace the other fields of the key by those of `entry`; true when they differ."""
        extra = {name: value for name, value in entry.items() if name != "metas"}
        previous = self._extras.pop(key, _NOTHING)
        if extra:
            self._extras[key] = extra
        return not _same(extra, previous)

    # -- limits

    def _check_state(self, state: dict[str, _Metas], most: int, more: int) -> None:
        """Raise when `state`, and `more` keys that are held already, lead past a limit."""
        if most > self._max_metas:
            raise self._too_many_metas(next(key for key, metas in state.items() if _size(metas) == most))
        if len(state) + more > self._max_keys and sum(map(bool, state.values())) + more > self._max_keys:
            raise self._too_many_keys()

    def _check_diff(self, joins: dict[str, _Metas], leaves: dict[str, _Metas]) -> None:
        """Raise when the diff would lead past a limit. What leaves makes room for what joins."""
        held = self._held
        keys = len(held)
        for key in {**joins, **leaves}:
            mine, joined, left = (_by_ref(refs.get(key, _NONE)) for refs in (held, joins, leaves))
            size = len(mine) + sum(ref not in mine for ref in joined)
            size -= sum(ref in mine or ref in joined for ref in left)
            if size > self._max_metas:
                raise self._too_many_metas(key)
            keys += (size > 0) - (key in held)
        if keys > self._max_keys:
            raise self._too_many_keys()

    def _too_many_keys(self) -> RemoteProtocolError:
        return RemoteProtocolError(f"presence would hold more than {self._max_keys} keys (max_keys)")

    def _too_many_metas(self, key: str) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"presence of {_quoted(key)} would hold more than {self._max_metas} metas (max_metas)"
        )


def _parse(entries: Any, where: str) -> tuple[dict[str, _Metas], int]:
    """The metas of each key, and the most that a key has.

    Raises `RemoteProtocolError` unless all is `{key: {"metas": [...]}}`.
    """
    if not isinstance(entries, dict):
        raise RemoteProtocolError(f"{where} must be an object, not {type(entries).__name__}")
    parsed: dict[str, _Metas] = {}
    most = 1
    for key, entry in entries.items():
        if not isinstance(entry, dict) or not isinstance(metas := entry.get("metas"), list):
            raise RemoteProtocolError(f"{where}: {_quoted(key)} must be an object with a list 'metas'")
        if len(metas) == 1 and type(meta := metas[0]) is dict and type(meta.get("phx_ref")) is str:
            parsed[key] = meta
            continue
        several = parsed[key] = _Several()
        for meta in metas:
            if not isinstance(meta, dict) or not isinstance(ref := meta.get("phx_ref"), str):
                raise RemoteProtocolError(
                    f"{where}: {_quoted(key)}: a meta must be an object with a string 'phx_ref'"
                )
            if ref in several:
                del several[ref]
            several[ref] = meta
        most = max(most, len(several))
    return parsed, most


def _by_ref(metas: _Metas) -> _Several:
    """What `_Several` there are; a new one, if there is one meta."""
    return _Several({metas["phx_ref"]: metas}) if type(metas) is dict else cast("_Several", metas)


def _listed(metas: _Metas) -> tuple[Meta, ...]:
    return (metas,) if type(metas) is dict else tuple(metas.values())


def _size(metas: _Metas) -> int:
    return 1 if type(metas) is dict else len(metas)


def _rejoin(metas: _Several, joins: _Several) -> tuple[tuple[Meta, ...], bool]:
    """Let `joins`, some of them held, join `metas`. Returns the new ones, and whether anything changed."""
    before = list(islice(reversed(metas.items()), len(joins)))
    joined = tuple([meta for ref, meta in joins.items() if ref not in metas])
    for ref, meta in joins.items():
        metas.pop(ref, None)
        metas[ref] = meta
    return joined, bool(joined) or not _same(before, list(reversed(joins.items())))


def _same(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except RecursionError:  # nested too deeply to compare
        return False


def _quoted(key: str) -> str:
    # Whole or not at all: of a secret that a server took for a key, no part may show.
    return repr(key) if len(key) <= 64 else f"a key of {len(key)} characters"
