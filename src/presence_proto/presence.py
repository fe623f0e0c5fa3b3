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

What came as JSON is kept as JSON: one object for a user and not the ten of a decoded meta, half the memory.
In a large room that also is the speed. Whoever leaves was last touched long ago, and is in no cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast

from msgspec import Raw, Struct

from presence_proto import encoded_presence
from presence_proto.encoded_presence import EncodedDiff, only_meta
from presence_proto.errors import RemoteProtocolError

# The presence of one connection, as received: `phx_ref` and what was tracked.
Meta: TypeAlias = Mapping[str, Any]
ChangeKind: TypeAlias = Literal["joined", "left", "updated"]


class _Several(dict[str, Meta]):
    """The metas of a key by `phx_ref`, the most recently joined one last."""

    __slots__ = ()


# What a key has: nearly always one meta and nothing else, which then is the entry as it came.
_Held: TypeAlias = bytes | _Several
# The metas that came for a key, by their refs. A plain dict is one meta: in joins and states, one whose entry
# can be held as it came; in leaves, the one that is held.
_Metas: TypeAlias = dict[str, Any]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


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

    At most `max_keys` keys are held, and `max_metas` metas of one key. A meta is decoded when it is asked
    for, each time anew; those of a payload that came decoded are the very dicts: treat them as read-only.
    """

    __slots__ = ("_extras", "_held", "_max_keys", "_max_metas", "_most")

    def __init__(self, *, max_keys: int = 1_000_000, max_metas: int = 10_000) -> None:
        self._held: dict[str, _Held] = {}
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
        metas = sum(1 if isinstance(metas, bytes) else len(metas) for metas in self._held.values())
        return f"<PresenceMap: {len(self._held)} keys, {metas} metas>"

    def latest(self, key: str) -> Meta:
        """The most recently joined meta of `key`, without a look at the others. Raises `KeyError`."""
        metas = self._held[key]
        return _only(metas) if isinstance(metas, bytes) else next(reversed(metas.values()))

    def extra(self, key: str) -> Mapping[str, Any]:
        """What the entry of `key` has beside `metas`; Phoenix's `fetch/2` adds such. Raises `KeyError`."""
        if key not in self._held:
            raise KeyError(key)
        return self._extras.get(key, _NOTHING)

    # -- facts

    def apply_state(self, payload: Any) -> tuple[PresenceChange, ...]:
        """Merge the payload of a `presence_state`: all that the server holds, `{key: {"metas": [...]}}`.

        Of a payload that is still JSON, a `msgspec.Raw`, only what is not held already is decoded. Returns
        one change for each key that is not what it was. Raises `RemoteProtocolError`, and changes nothing,
        when the payload is malformed or too large.
        """
        entries = there = payload
        if isinstance(payload, Raw):
            there = encoded_presence.entries(payload)
            entries = self._unknown(there)
        state, extras, most = _parse(entries, "presence_state")
        self._check_state(state, most, len(there) - len(state))
        changes = []
        for key, metas in state.items():
            if change := self._become(key, entries[key], metas, extras.get(key, _NOTHING)):
                changes.append(change)
        for key in [key for key in self._held if key not in there]:
            changes.append(self._gone(key, _listed(self._held[key])))
        return tuple(changes)

    def _unknown(self, entries: dict[str, Raw]) -> dict[str, Raw]:
        """Those of the entries that have not just the refs that are held."""
        unknown = {}
        for key, entry in entries.items():
            held = self._held.get(key)
            if held is None or (held != bytes(entry) and _refs(held) != encoded_presence.refs(entry)):
                unknown[key] = entry
        return unknown

    def apply_diff(self, payload: Any) -> tuple[PresenceChange, ...]:
        """Merge the payload of a `presence_diff`: `{"joins": {key: {"metas": [...]}}, "leaves": {...}}`.

        It may be an `EncodedDiff`. Returns one change for each key that is not what it was. Raises
        `RemoteProtocolError`, and changes nothing, when the payload is malformed or the result would be too
        large.
        """
        entries: Any
        leaving: Any
        if type(payload) is EncodedDiff:
            entries, leaving = payload.joins, payload.leaves
            if len(entries) < 2 and len(leaving) < 2:
                if not leaving:
                    change = self._comes(entries)
                elif not entries:
                    change = self._goes(leaving)
                else:
                    change = self._replaces(entries, leaving)
                if change is not None:
                    return (change,)
        elif isinstance(payload, dict):
            entries, leaving = payload.get("joins"), payload.get("leaves")
        else:
            raise RemoteProtocolError(f"presence_diff must be an object, not {type(payload).__name__}")
        held = self._held
        joins, extras, most = _parse(entries, "presence_diff joins")
        leaves, _, _ = _parse(leaving, "presence_diff leaves", held)
        if joins and (len(held) + len(joins) > self._max_keys or self._most + most > self._max_metas):
            self._check_diff(joins, leaves)  # there may be too little room: look closely
        changes = []
        for key, metas in joins.items():
            left = leaves.pop(key, None) if leaves else None
            if type(metas) is dict and left is None and key not in held:
                held[key] = bytes(entries[key])  # as most do
                changes.append(PresenceChange(key, "joined", (metas,), ()))
            elif change := self._join(key, entries[key], metas, extras.get(key, _NOTHING), left):
                changes.append(change)
        for key, metas in leaves.items():
            if change := self._leave(key, metas):
                changes.append(change)
        return tuple(changes)

    # -- the plainest diffs, which most are, in half the time. `None`, and nothing changed: it takes more.

    def _comes(self, joins: dict[str, Raw]) -> PresenceChange | None:
        """Somebody who is not there joins with one meta."""
        held = self._held
        for key, entry in joins.items():
            if key not in held and len(held) < self._max_keys:
                meta = only_meta(entry)
                if meta is not None:
                    held[key] = bytes(entry)
                    return PresenceChange(key, "joined", (meta,), ())
        return None

    def _goes(self, leaves: dict[str, Raw]) -> PresenceChange | None:
        """Somebody who is there with one meta leaves."""
        for key, entry in leaves.items():
            if self._held.get(key) == bytes(entry) and (meta := only_meta(entry)) is not None:
                return self._gone(key, (meta,))
        return None

    def _replaces(self, joins: dict[str, Raw], leaves: dict[str, Raw]) -> PresenceChange | None:
        """Another meta takes the place of the one that somebody has."""
        for key, entry in joins.items():
            leaving = leaves.get(key)
            if leaving is not None and self._held.get(key) == bytes(leaving):
                meta, left = only_meta(entry), only_meta(leaving)
                if meta is not None and left is not None and meta["phx_ref"] != left["phx_ref"]:
                    self._held[key] = bytes(entry)
                    return PresenceChange(key, "updated", (meta,), (left,))
        return None

    # -- merging one key: `metas`, and what there is `extra` beside them, came in `entry`

    def _become(self, key: str, entry: Any, metas: _Metas, extra: Mapping[str, Any]) -> PresenceChange | None:
        """Let the key have just `metas`."""
        if key not in self._held:
            return self._join(key, entry, metas, extra, None)
        held, there = _by_ref(self._held[key]), _by_ref(metas)
        left = _Several({ref: meta for ref, meta in held.items() if ref not in there})
        joined = _Several({ref: meta for ref, meta in there.items() if ref not in held})
        if not joined:
            return self._leave(key, left)
        return self._join(key, entry, metas if len(joined) == len(there) else joined, extra, left)

    def _join(
        self, key: str, entry: Any, metas: _Metas, extra: Mapping[str, Any], leaves: _Metas | None
    ) -> PresenceChange | None:
        """Let `metas` join the key, and then the refs of `leaves` leave it."""
        if type(metas) is dict and type(leaves) is dict and metas["phx_ref"] != leaves["phx_ref"]:
            self._held[key] = bytes(entry)
            return PresenceChange(key, "updated", (metas,), (leaves,))
        joins, leaving = _by_ref(metas), _by_ref(leaves)
        # A ref on both sides is gone. Once those are out, the order of joins and leaves makes no difference.
        for ref in leaving:
            joins.pop(ref, None)
        held = self._held.get(key)
        if held is None:
            if not joins:
                return None
            self._hold(key, joins, metas, entry)
            self._set_extra(key, extra)
            return PresenceChange(key, "joined", tuple(joins.values()), ())
        mine = _by_ref(held)
        left = [mine.pop(ref) for ref in leaving if ref in mine]
        if not mine and not joins:
            return self._gone(key, tuple(left))
        if mine.keys().isdisjoint(joins):
            mine.update(joins)
            joined, changed = tuple(joins.values()), False
        else:
            joined, changed = _rejoin(mine, joins)
        if joins or left:
            self._hold(key, mine, metas, entry)
        changed |= self._set_extra(key, extra)
        if joined or left or changed:
            return PresenceChange(key, "updated", joined, tuple(left))
        return None

    def _leave(self, key: str, leaves: _Metas) -> PresenceChange | None:
        """Let the refs of `leaves` leave the key."""
        if type(leaves) is dict:
            return self._gone(key, (leaves,))
        held = self._held.get(key)
        if held is None:
            return None
        metas = _by_ref(held)
        left = [metas.pop(ref) for ref in leaves if ref in metas]
        if not metas:
            return self._gone(key, tuple(left))
        if not left:
            return None
        self._held[key] = metas
        return PresenceChange(key, "updated", (), tuple(left))

    def _hold(self, key: str, metas: _Several, came: _Metas, entry: Any) -> None:
        """Keep `metas`, as JSON if they are just the one that came as such."""
        if type(came) is dict and len(metas) == 1 and came["phx_ref"] in metas:
            self._held[key] = bytes(entry)
        else:
            self._held[key] = metas
            self._most = max(self._most, len(metas))

    def _gone(self, key: str, left: tuple[Meta, ...]) -> PresenceChange:
        del self._held[key]
        if self._extras:
            self._extras.pop(key, None)
        return PresenceChange(key, "left", (), left)

    def _set_extra(self, key: str, extra: Mapping[str, Any]) -> bool:
        """Replace what the key has beside its metas; true when it differs."""
        previous = self._extras.pop(key, _NOTHING)
        if extra:
            self._extras[key] = extra
        return not _same(extra, previous)

    # -- limits

    def _check_state(self, state: dict[str, _Metas], most: int, more: int) -> None:
        """Raise when `state`, and `more` keys that are held already, lead past a limit."""
        if most > self._max_metas:
            raise self._too_many_metas(
                next(key for key, metas in state.items() if len(_by_ref(metas)) == most)
            )
        if len(state) + more > self._max_keys and sum(map(bool, state.values())) + more > self._max_keys:
            raise self._too_many_keys()

    def _check_diff(self, joins: dict[str, _Metas], leaves: dict[str, _Metas]) -> None:
        """Raise when the diff would lead past a limit. What leaves makes room for what joins."""
        held = self._held
        keys = len(held)
        for key in {**joins, **leaves}:
            mine, joined, left = _by_ref(held.get(key)), _by_ref(joins.get(key)), _by_ref(leaves.get(key))
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


def _parse(
    entries: Any, where: str, held: Mapping[str, _Held] | None = None
) -> tuple[dict[str, _Metas], dict[str, dict[str, Any]], int]:
    """The metas of each key, what the keys have that have more than metas, and the most metas that a key has.

    `held`, for leaves: who is there. Raises `RemoteProtocolError` unless all is `{key: {"metas": [...]}}`.
    """
    if not isinstance(entries, dict):
        raise RemoteProtocolError(f"{where} must be an object, not {type(entries).__name__}")
    parsed: dict[str, _Metas] = {}
    extras = {}
    most = 1
    for key, entry in entries.items():
        if type(entry) is Raw:
            meta = only_meta(entry)
            if meta is not None and (held is None or held.get(key) == bytes(entry)):
                parsed[key] = meta
                continue
            entry = encoded_presence.decode(entry, where)
        if not isinstance(entry, dict) or not isinstance(metas := entry.get("metas"), list):
            raise RemoteProtocolError(f"{where}: {_quoted(key)} must be an object with a list 'metas'")
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
        if len(entry) > 1:
            extras[key] = {name: value for name, value in entry.items() if name != "metas"}
    return parsed, extras, most


def _only(entry: Raw | bytes) -> dict[str, Any]:
    """The meta of an entry that is held."""
    return cast("dict[str, Any]", only_meta(entry))


def _by_ref(metas: _Held | _Metas | None) -> _Several:
    """By their refs; what is `_Several` already is not copied."""
    if metas is None:
        return _Several()
    if isinstance(metas, _Several):
        return metas
    meta: dict[str, Any] = _only(metas) if isinstance(metas, bytes) else metas
    return _Several({meta["phx_ref"]: meta})


def _refs(held: _Held) -> Collection[str] | None:
    return encoded_presence.refs(held) if isinstance(held, bytes) else held.keys()


def _listed(held: _Held) -> tuple[Meta, ...]:
    return (_only(held),) if isinstance(held, bytes) else tuple(held.values())


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
