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
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from presence_proto.errors import RemoteProtocolError

# The presence of one connection, as received: `phx_ref` and what was tracked.
Meta: TypeAlias = Mapping[str, Any]
ChangeKind: TypeAlias = Literal["joined", "left", "updated"]

# The metas of one key by `phx_ref`, the most recently joined one last.
_Metas: TypeAlias = dict[str, Meta]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class PresenceChange(Struct, frozen=True):
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

    __slots__ = ("_extras", "_held", "_max_keys", "_max_metas")

    def __init__(self, *, max_keys: int = 1_000_000, max_metas: int = 10_000) -> None:
        self._held: dict[str, _Metas] = {}
        self._extras: dict[str, Mapping[str, Any]] = {}  # only of keys that have any
        self._max_keys = max_keys
        self._max_metas = max_metas

    # -- getters

    def __getitem__(self, key: str) -> tuple[Meta, ...]:
        return tuple(self._held[key].values())

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __repr__(self) -> str:
        return f"<PresenceMap: {len(self._held)} keys, {sum(map(len, self._held.values()))} metas>"

    def latest(self, key: str) -> Meta:
        """The most recently joined meta of `key`, without a look at the others. Raises `KeyError`."""
        return next(reversed(self._held[key].values()))

    def extra(self, key: str) -> Mapping[str, Any]:
        """What the entry of `key` has beside `metas`; Phoenix's `fetch/2` adds such. Raises `KeyError`."""
        if key not in self._held:
            raise KeyError(key)
        return self._extras.get(key, _NOTHING)

    # -- facts

    def apply_state(self, payload: Any) -> tuple[PresenceChange, ...]:
        """Merge the payload of a `presence_state`: all that the server holds, `{key: {"metas": [...]}}`.

        Returns one change for each key that is not what it was. Raises `RemoteProtocolError`, and changes
        nothing, when the payload is malformed or too large.
        """
        state = _parse(payload, "presence_state")
        self._check_state(state)
        changes = []
        for key, metas in state.items():
            held = self._held.get(key, _NOTHING)
            if held.keys() == metas.keys():
                continue
            left = [ref for ref in held if ref not in metas]
            joined = {ref: meta for ref, meta in metas.items() if ref not in held}
            change = self._join(key, payload[key], joined, left) if joined else self._leave(key, left)
            assert change is not None  # the refs differ
            changes.append(change)
        for key in [key for key in self._held if key not in state]:
            changes.append(self._gone(key, tuple(self._held[key].values())))
        return tuple(changes)

    def apply_diff(self, payload: Any) -> tuple[PresenceChange, ...]:
        """Merge the payload of a `presence_diff`: `{"joins": {key: {"metas": [...]}}, "leaves": {...}}`.

        Returns one change for each key that is not what it was. Raises `RemoteProtocolError`, and changes
        nothing, when the payload is malformed or the result would be too large.
        """
        if not isinstance(payload, dict):
            raise RemoteProtocolError(f"presence_diff must be an object, not {type(payload).__name__}")
        entries: Any = payload.get("joins")
        leaving: Any = payload.get("leaves")
        # One side of most diffs is empty: a short cut. Anything else is parsed, malformed or not.
        joins = _parse(entries, "presence_diff joins") if entries != {} else {}
        leaves = _parse(leaving, "presence_diff leaves") if leaving != {} else {}
        changes = []
        if joins:
            self._check_diff(joins, leaves)
            for key, metas in joins.items():
                change = self._join(key, entries[key], metas, leaves.pop(key, ()))
                if change is not None:
                    changes.append(change)
        for key, refs in leaves.items():
            change = self._leave(key, refs)
            if change is not None:
                changes.append(change)
        return tuple(changes)

    # -- merging one key

    def _join(
        self, key: str, entry: Mapping[str, Any], joins: _Metas, leaves: Collection[str]
    ) -> PresenceChange | None:
        """Let `joins`, which came in `entry`, join the key, and then the refs in `leaves` leave it."""
        # A ref on both sides is gone. Once those are out, the order of joins and leaves makes no difference.
        for ref in leaves:
            joins.pop(ref, None)
        metas = self._held.get(key)
        if metas is None:
            if not joins:
                return None
            self._held[key] = joins
            if len(entry) > 1:
                self._set_extra(key, entry)
            return PresenceChange(key, "joined", tuple(joins.values()), ())
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
        if len(entry) > 1 or key in self._extras:
            changed |= self._set_extra(key, entry)
        if joined or left or changed:
            return PresenceChange(key, "updated", joined, tuple(left))
        return None

    def _leave(self, key: str, refs: Collection[str]) -> PresenceChange | None:
        """Let `refs` leave the key."""
        metas = self._held.get(key)
        if metas is None:
            return None
        left = []
        for ref in refs:
            if ref in metas:
                left.append(metas.pop(ref))
        if not metas:
            return self._gone(key, tuple(left))
        return PresenceChange(key, "updated", (), tuple(left)) if left else None

    def _gone(self, key: str, left: tuple[Meta, ...]) -> PresenceChange:
        del self._held[key]
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

    def _check_state(self, state: dict[str, _Metas]) -> None:
        keys = 0
        for key, metas in state.items():
            if len(metas) > self._max_metas:
                raise self._too_many_metas(key)
            keys += len(metas) > 0
        if keys > self._max_keys:
            raise self._too_many_keys()

    def _check_diff(self, joins: dict[str, _Metas], leaves: dict[str, _Metas]) -> None:
        """Raise when the diff would lead past a limit. What leaves makes room for what joins."""
        held = self._held
        if len(held) + len(joins) <= self._max_keys:
            for key, metas in joins.items():
                if len(metas) + len(held.get(key, ())) > self._max_metas:
                    break
            else:
                return  # there is room without a look at the leaves, as nearly always
        keys = len(held)
        for key in {**joins, **leaves}:
            mine, joined, left = (refs.get(key, _NOTHING) for refs in (held, joins, leaves))
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


def _parse(entries: Any, where: str) -> dict[str, _Metas]:
    """The metas of each key by ref. Raises `RemoteProtocolError` unless all is `{key: {"metas": [...]}}`."""
    if not isinstance(entries, dict):
        raise RemoteProtocolError(f"{where} must be an object, not {type(entries).__name__}")
    parsed = {}
    for key, entry in entries.items():
        if not isinstance(entry, dict) or not isinstance(metas := entry.get("metas"), list):
            raise RemoteProtocolError(f"{where}: {_quoted(key)} must be an object with a list 'metas'")
        by_ref: _Metas = {}
        for meta in metas:
            if not isinstance(meta, dict) or not isinstance(ref := meta.get("phx_ref"), str):
                raise RemoteProtocolError(
                    f"{where}: {_quoted(key)}: a meta must be an object with a string 'phx_ref'"
                )
            if ref in by_ref:
                del by_ref[ref]
            by_ref[ref] = meta
        parsed[key] = by_ref
    return parsed


def _rejoin(metas: _Metas, joins: _Metas) -> tuple[tuple[Meta, ...], bool]:
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
