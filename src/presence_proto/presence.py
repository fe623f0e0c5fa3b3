"""The presence of one channel: the server's presence states and diffs, merged by `phx_ref`.

The merge rules are those of phoenix.js 1.8 (`Presence.syncState`, `Presence.syncDiff`). A presence key,
usually a user id, has one meta for each connection of the user. A `phx_ref` identifies a meta and is never
reused.

- A join appends its metas to the metas of the key. If a ref is already present, the new meta replaces the old
  one and moves to the end. If one list has a ref twice, the last meta counts.
- A leave removes metas by ref. Unknown refs and keys are ignored. A key without metas is removed.
- A diff applies joins before leaves. A ref in both joins and leaves is therefore removed.
- A state is converted to a diff: metas missing in the state leave, and new metas in the state join. A stored
  meta that is also in the state keeps its content and its position.

Merging works in place. The cost of a diff grows with the size of the diff, not with the number of keys. A
payload that is malformed or would exceed a limit changes nothing. The channel delays diffs that arrive before
the state.

Metas received as JSON are stored as JSON, in half the memory: a user takes one object, but a decoded meta
takes ten. Stored JSON is also faster in a large room, where the meta of a leaving user is no longer in the
CPU cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeAlias

import msgspec
from msgspec import Raw, Struct

from presence_proto import json_text
from presence_proto.errors import RemoteProtocolError
from presence_proto.json_text import DECODE_ERRORS, DEFAULT_NESTING, Shallow, kind_of

# ------------------------------------------------------------------------------------------- encoded presence
# Types for undecoded presence: states, diffs, and the entries of the keys.
#
# Nearly all entries have one meta. The map stores an entry with one meta as bytes, and compares the bytes
# with later bytes: a server sends the same entry in the join, in the states and in the leave of a connection.


class EncodedDiff(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The payload of a `presence_diff`, with undecoded entries."""

    joins: dict[str, msgspec.Raw]
    leaves: dict[str, msgspec.Raw]


class _OneMeta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An entry that has one meta and no other field."""

    metas: tuple[dict[str, Shallow]]


class MetaRef(msgspec.Struct, gc=False):
    """A meta of which only the ref is decoded."""

    phx_ref: str


class _LeavingEntry(msgspec.Struct, gc=False):
    """An entry with one meta, of which only the ref is decoded."""

    metas: tuple[MetaRef]


_decode_leaving = msgspec.json.Decoder(_LeavingEntry).decode
_decode_state = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_entry = msgspec.json.Decoder(_OneMeta).decode


def state_entries(state: msgspec.Raw, levels: int) -> dict[str, msgspec.Raw]:
    """Return the entries of a state by key. Raises `RemoteProtocolError` if the state is not a JSON object.

    The function does not check the entries. `levels` limits only the decoding that finds the error text.
    """
    try:
        return _decode_state(state)
    except (RecursionError, *DECODE_ERRORS):
        pass
    value = json_text.decode(state, "presence_state", levels)
    raise RemoteProtocolError(f"presence_state must be an object, not {kind_of(value)}")


def only_meta(entry: msgspec.Raw | bytes) -> dict[str, Any] | None:
    """Return the meta of an entry that has one shallow meta and no other field, otherwise `None`."""
    try:
        (meta,) = _decode_entry(entry).metas
        return meta if type(meta["phx_ref"]) is str else None
    except (LookupError, *DECODE_ERRORS):
        return None


def only_ref(entry: msgspec.Raw, levels: int) -> str | None:
    """Return the ref of an entry that has one meta and nests at most `levels` levels, otherwise `None`."""
    try:
        (meta,) = _decode_leaving(entry).metas
    except (RecursionError, *DECODE_ERRORS):
        return None
    return None if json_text.nests_deeper(bytes(entry), levels) else meta.phx_ref


def held_meta(entry: bytes) -> dict[str, Any]:
    """Return the meta of an entry that `only_meta` accepted before."""
    (meta,) = _decode_entry(entry).metas
    return meta


def diff_size(diff: Any) -> int:
    """Return the size of a diff in bytes, as received or encoded as JSON."""
    if type(diff) is not EncodedDiff:
        return len(json_text.encode(diff))
    return sum(
        len(key) + len(bytes(entry)) for side in (diff.joins, diff.leaves) for key, entry in side.items()
    )


def check_diff_nesting(diff: EncodedDiff, levels: int) -> None:
    """Raise `RemoteProtocolError` if an entry nests more than `levels` levels."""
    for entries in (diff.joins, diff.leaves):
        for entry in entries.values():
            if json_text.nests_deeper(bytes(entry), levels):
                raise json_text.too_deep("presence_diff", levels)


# --------------------------------------------------------------------------------------------------- presence


# The presence of one connection as received, with `phx_ref` and the tracked fields.
Meta: TypeAlias = Mapping[str, Any]
ChangeKind: TypeAlias = Literal["joined", "left", "updated"]


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Entry(Struct, gc=False):
    """The received value of a presence key. `parse_entries` returns entries."""

    metas: tuple[Meta, ...]  # one meta per ref, the latest join last
    json: bytes | None = None  # the value as received, if the value has one meta and no other field
    extra: Mapping[str, Any] = _NOTHING  # the fields besides `metas`


# The stored metas of a key: the `Entry.json` of an only meta (the case of nearly all keys), or metas by ref.
_Held: TypeAlias = bytes | dict[str, Meta]

# Levels of a message around a state, and around an entry of a diff: [state], [{"joins": {key: entry}}].
ABOVE_STATE, ABOVE_ENTRY = 1, 3


class PresenceChange(Struct, frozen=True, gc=False):
    """The change of one presence key by a state or a diff.

    `kind` is `"joined"` if the key is new, `"left"` if the key was removed, and `"updated"` otherwise. The
    new metas of the key are the old metas without `left`, followed by `joined`. If the server replaced or
    moved a meta under the same ref, `left` has the old meta and `joined` has the new meta. Both tuples are
    empty if only `PresenceMap.extra` changed.
    """

    # Not an attrs class: creating a struct takes a quarter of the time, and a diff needs one per key.

    key: str
    kind: ChangeKind
    joined: tuple[Meta, ...]
    left: tuple[Meta, ...]


class PresenceStore(Protocol):
    """The interface of a channel's presence storage: a `PresenceMap`, or the roster of a room."""

    def __len__(self) -> int: ...

    def apply_state(self, payload: Any) -> tuple[Any, ...]:
        """Works like `PresenceMap.apply_state`."""
        ...

    def apply_diff(self, payload: Any) -> Sequence[Any]:
        """Works like `PresenceMap.apply_diff`."""
        ...

    def check_nesting(self, payload: Any) -> None:
        """Works like `PresenceMap.check_nesting`."""
        ...

    def nothing_continues(self, before: int, changes: Any) -> bool:
        """Works like `PresenceMap.nothing_continues`."""
        ...


class PresenceMap(Mapping[str, tuple[Meta, ...]]):
    """The presence of a topic: a read-only mapping of each key to its metas, the latest join last.

    The map holds at most `max_keys` keys, and `max_metas` metas per key. `max_nesting` is the maximum nesting
    of a message whose payload is undecoded JSON. The map decodes undecoded metas on each access. The map
    returns other metas without a copy: treat metas as read-only.
    """

    __slots__ = ("_extras", "_held", "_max_keys", "_max_metas", "_max_nesting", "_most")

    def __init__(
        self, *, max_keys: int = 1_000_000, max_metas: int = 10_000, max_nesting: int = DEFAULT_NESTING
    ) -> None:
        self._held: dict[str, _Held] = {}
        self._extras: dict[str, Mapping[str, Any]] = {}  # only for keys with extra fields
        self._max_keys = max_keys
        self._max_metas = max_metas
        self._max_nesting = max_nesting
        self._most = 1  # maximum number of metas that any key has had

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
        """Return the latest joined meta of `key`, without decoding the other metas. Raises `KeyError`."""
        metas = self._held[key]
        return held_meta(metas) if isinstance(metas, bytes) else next(reversed(metas.values()))

    def extra(self, key: str) -> Mapping[str, Any]:
        """Return the entry's fields besides `metas`, such as fields from `fetch/2`. Raises `KeyError`."""
        if key not in self._held:
            raise KeyError(key)
        return self._extras.get(key, _NOTHING)

    # -- updates

    def apply_state(self, payload: Any) -> tuple[PresenceChange, ...]:
        """Merge the payload of a `presence_state`, the server's full presence: `{key: {"metas": [...]}}`.

        In a payload that is a `msgspec.Raw`, only the entries that differ from the stored entries are
        decoded. Returns one change for each changed key. If the payload is malformed or too large,
        `apply_state` raises `RemoteProtocolError` and changes nothing.
        """
        entries = there = payload
        if isinstance(payload, Raw):
            there = state_entries(payload, self._max_nesting - ABOVE_STATE)
            held = self._held
            entries = {key: entry for key, entry in there.items() if held.get(key) != bytes(entry)}
        state, most = parse_entries(entries, "presence_state", self._max_nesting - ABOVE_STATE - 1)
        check_state(state, most, len(there) - len(state), self._max_keys, self._max_metas)
        changes = []
        for key, entry in state.items():
            if change := self._become(key, entry):
                changes.append(change)
        for key in [key for key in self._held if key not in there]:
            changes.append(self._gone(key, _listed(self._held[key])))
        return tuple(changes)

    def check_nesting(self, payload: Any) -> None:
        """Raise `RemoteProtocolError` if a diff nests too deeply for a later `apply_diff`."""
        check_nesting(payload, self._max_nesting)

    def apply_diff(self, payload: Any) -> tuple[PresenceChange, ...]:
        """Merge the payload of a `presence_diff`: `{"joins": {key: {"metas": [...]}}, "leaves": {...}}`.

        The payload may be an `EncodedDiff`. Returns one change for each changed key. If the payload is
        malformed or the result would be too large, `apply_diff` raises `RemoteProtocolError` and changes
        nothing.
        """
        if type(payload) is EncodedDiff and len(payload.joins) < 2 and len(payload.leaves) < 2:
            if not payload.leaves:
                change = self._comes(payload.joins)
            elif not payload.joins:
                change = self._goes(payload.leaves)
            else:
                change = self._replaces(payload.joins, payload.leaves)
            if change is not None:
                return (change,)
        entries, leaving = diff_entries(payload)
        held = self._held
        levels = self._max_nesting - ABOVE_ENTRY
        joins, most = parse_entries(entries, "presence_diff joins", levels)
        leaves, _ = parse_entries(leaving, "presence_diff leaves", levels)
        if joins and (len(held) + len(joins) > self._max_keys or self._most + most > self._max_metas):
            self._check_diff(joins, leaves)  # count exactly: the check above ignores leaves and known keys
        changes = []
        # Two fast paths, for a new key and for the leave of a stored key: without the fast paths, a diff of
        # 100 joins and 100 leaves takes 1.6 times as many instructions.
        for key, entry in joins.items():
            left = leaves.pop(key, None) if leaves else None
            if left is None and entry.json is not None and key not in held:
                held[key] = entry.json
                changes.append(PresenceChange(key, "joined", entry.metas, ()))
            elif change := self._merge(key, entry, left):
                changes.append(change)
        for key, entry in leaves.items():
            if entry.json is not None and held.get(key) == entry.json:
                changes.append(self._gone(key, entry.metas))
            elif change := self._merge(key, None, entry):
                changes.append(change)
        return tuple(changes)

    def nothing_continues(self, before: int, changes: Iterable[PresenceChange]) -> bool:
        """Whether the last applied state has neither a previous meta nor an update of a previous meta.

        `changes` are the changes of the last applied state. `before` is the previous number of keys.
        """
        gone = 0
        for change in changes:
            if change.kind == "left":
                gone += 1
            elif change.kind == "updated" and len(self[change.key]) == len(change.joined):
                gone += not continues(change.joined, {meta["phx_ref"] for meta in change.left})
        return gone == before

    # -- fast paths: most diffs change one key, and take half the time here. A fast path that does not apply
    # -- changes nothing and returns `None`.

    def _comes(self, joins: dict[str, Raw]) -> PresenceChange | None:
        """Add a new key with one meta, or add a meta to a key that has several metas."""
        held = self._held
        for key, entry in joins.items():
            mine = held.get(key)
            if mine is None and len(held) < self._max_keys:
                meta = only_meta(entry)
                if meta is not None:
                    held[key] = bytes(entry)
                    return PresenceChange(key, "joined", (meta,), ())
            elif type(mine) is dict and not self._extras and len(mine) < self._max_metas:
                # One more device. This fast path and `_goes` take half the time of the general path.
                meta = only_meta(entry)
                if meta is not None and meta["phx_ref"] not in mine:
                    mine[meta["phx_ref"]] = meta
                    self._most = max(self._most, len(mine))
                    return PresenceChange(key, "updated", (meta,), ())
        return None

    def _goes(self, leaves: dict[str, Raw]) -> PresenceChange | None:
        """Remove a key with one meta, or one of several metas of a key."""
        for key, entry in leaves.items():
            mine = self._held.get(key)
            if type(mine) is dict:
                ref = only_ref(entry, self._max_nesting - ABOVE_ENTRY)
                if ref is not None and ref in mine and len(mine) > 1:
                    return PresenceChange(key, "updated", (), (mine.pop(ref),))
            elif mine == bytes(entry) and (meta := only_meta(entry)) is not None:
                return self._gone(key, (meta,))
        return None

    def _replaces(self, joins: dict[str, Raw], leaves: dict[str, Raw]) -> PresenceChange | None:
        """Replace the only meta of a key."""
        for key, entry in joins.items():
            leaving = leaves.get(key)
            if leaving is not None and self._held.get(key) == bytes(leaving):
                meta, left = only_meta(entry), only_meta(leaving)
                if meta is not None and left is not None and meta["phx_ref"] != left["phx_ref"]:
                    self._held[key] = bytes(entry)
                    return PresenceChange(key, "updated", (meta,), (left,))
        return None

    # -- merging one key

    def _become(self, key: str, entry: Entry) -> PresenceChange | None:
        """Change the metas of the key to exactly the metas of `entry`."""
        if key not in self._held:
            return self._merge(key, entry, None)
        held, there = _by_ref(self._held[key]), {meta["phx_ref"] for meta in entry.metas}
        left = Entry(tuple(meta for ref, meta in held.items() if ref not in there))
        joined = tuple(meta for meta in entry.metas if meta["phx_ref"] not in held)
        return self._merge(key, Entry(joined, entry.json, entry.extra) if joined else None, left)

    def _merge(self, key: str, joining: Entry | None, leaving: Entry | None) -> PresenceChange | None:
        """Add the metas of `joining` to the key, then remove the refs of `leaving`."""
        held = self._held.get(key)
        if (
            held is not None
            and joining is not None
            and leaving is not None
            and joining.json is not None
            and leaving.json == held
            and refs_of(joining) != refs_of(leaving)
        ):
            # Do not decode the stored meta again.
            self._held[key] = joining.json
            return PresenceChange(key, "updated", joining.metas, leaving.metas)
        joins = {} if joining is None else {meta["phx_ref"]: meta for meta in joining.metas}
        refs = refs_of(leaving)
        # A ref in both joins and leaves is removed. For other refs, the order does not matter.
        for ref in refs:
            joins.pop(ref, None)
        if held is None:
            if joining is None or not joins:
                return None
            self._hold(key, joins, joining)
            self._set_extra(key, joining.extra)
            return PresenceChange(key, "joined", tuple(joins.values()), ())
        mine = _by_ref(held)
        left = [mine.pop(ref) for ref in refs if ref in mine]
        if not mine and not joins:
            return self._gone(key, tuple(left))
        joined = tuple(joins.values())
        if mine.keys().isdisjoint(joins):
            mine.update(joins)
        elif _are_last(mine, joins):
            joined = ()  # the server repeated metas that are already stored
        else:
            left += [mine.pop(ref) for ref in joins if ref in mine]
            mine.update(joins)
        if joined or left:
            self._hold(key, mine, joining)
        if (joining is not None and self._set_extra(key, joining.extra)) or joined or left:
            return PresenceChange(key, "updated", joined, tuple(left))
        return None

    def _hold(self, key: str, metas: dict[str, Meta], joining: Entry | None) -> None:
        """Store `metas`, as the received JSON if `metas` is exactly the one meta of `joining`."""
        came = None if joining is None or len(metas) > 1 else joining.json
        if came is not None and refs_of(joining)[0] in metas:
            self._held[key] = came
        else:
            self._held[key] = metas
            self._most = max(self._most, len(metas))

    def _gone(self, key: str, left: tuple[Meta, ...]) -> PresenceChange:
        del self._held[key]
        if self._extras:
            self._extras.pop(key, None)
        return PresenceChange(key, "left", (), left)

    def _set_extra(self, key: str, extra: Mapping[str, Any]) -> bool:
        """Replace the extra fields of the key. Returns whether the extra fields changed."""
        previous = self._extras.pop(key, _NOTHING)
        if extra:
            self._extras[key] = extra
        return extra != previous

    # -- limits

    def _check_diff(self, joins: dict[str, Entry], leaves: dict[str, Entry]) -> None:
        """Raise `RemoteProtocolError` if the diff would exceed a limit. Leaves make room for joins."""
        held = self._held
        keys = len(held)
        for key in {**joins, **leaves}:
            mine = _by_ref(held[key]) if key in held else {}
            joined, left = refs_of(joins.get(key)), refs_of(leaves.get(key))
            size = len(mine) + sum(ref not in mine for ref in joined)
            size -= sum(ref in mine or ref in joined for ref in left)
            if size > self._max_metas:
                raise too_many_metas(key, self._max_metas)
            keys += (size > 0) - (key in held)
        if keys > self._max_keys:
            raise too_many_keys(self._max_keys)


def continues(joined: Iterable[Meta], left: Collection[str]) -> bool:
    """Whether any meta in `joined` is an update of a meta whose ref is in `left`."""
    return any(isinstance(ref := meta.get("phx_ref_prev"), str) and ref in left for meta in joined)


def check_state(state: dict[str, Entry], most: int, more: int, max_keys: int, max_metas: int) -> None:
    """Raise `RemoteProtocolError` if `state`, together with `more` unchanged keys, exceeds a limit.

    `most` is the largest number of metas of a key in `state`.
    """
    if most > max_metas:
        key = next(key for key, entry in state.items() if len(entry.metas) == most)
        raise too_many_metas(key, max_metas)
    if len(state) + more > max_keys and sum(bool(entry.metas) for entry in state.values()) + more > max_keys:
        raise too_many_keys(max_keys)


def too_many_keys(limit: int) -> RemoteProtocolError:
    """Return the error for a presence with more than `limit` keys."""
    return RemoteProtocolError(f"presence would hold more than {limit} keys (max_keys)")


def too_many_metas(key: str, limit: int) -> RemoteProtocolError:
    """Return the error for a key with more than `limit` metas."""
    return RemoteProtocolError(f"presence of {_quoted(key)} would hold more than {limit} metas (max_metas)")


def check_nesting(payload: Any, max_nesting: int) -> None:
    """Raise `RemoteProtocolError` if a diff nests too deeply to be merged later."""
    if type(payload) is EncodedDiff:
        check_diff_nesting(payload, max_nesting - ABOVE_ENTRY)


def diff_entries(payload: Any) -> tuple[Any, Any]:
    """Return the joins and leaves of a diff. Raises `RemoteProtocolError` if the diff is not an object."""
    if type(payload) is EncodedDiff:
        return payload.joins, payload.leaves
    if not isinstance(payload, dict):
        raise RemoteProtocolError(f"presence_diff must be an object, not {type(payload).__name__}")
    return payload.get("joins"), payload.get("leaves")


def parse_entries(entries: Any, where: str, levels: int) -> tuple[dict[str, Entry], int]:
    """Return the entries by key, and the largest number of metas of a key, at least 1.

    `levels` is the maximum nesting of an entry. Raises `RemoteProtocolError` unless `entries` is
    `{key: {"metas": [...]}}`.
    """
    if not isinstance(entries, dict):
        raise RemoteProtocolError(f"{where} must be an object, not {type(entries).__name__}")
    parsed = {}
    most = 1
    for key, value in entries.items():
        if type(value) is Raw:
            meta = only_meta(value)
            if meta is not None:
                parsed[key] = Entry((meta,), bytes(value))
                continue
            value = json_text.decode(value, where, levels)
        if not isinstance(value, dict) or not isinstance(metas := value.get("metas"), list):
            raise RemoteProtocolError(f"{where}: {_quoted(key)} must be an object with a list 'metas'")
        several: dict[str, Meta] = {}
        for meta in metas:
            if not isinstance(meta, dict) or not isinstance(ref := meta.get("phx_ref"), str):
                raise RemoteProtocolError(
                    f"{where}: {_quoted(key)}: a meta must be an object with a string 'phx_ref'"
                )
            several.pop(ref, None)
            several[ref] = meta
        most = max(most, len(several))
        extra = {name: field for name, field in value.items() if name != "metas"}
        parsed[key] = Entry(tuple(several.values()), None, extra or _NOTHING)
    return parsed, most


def refs_of(entry: Entry | None) -> tuple[str, ...]:
    """Return the refs of the metas of an entry. `None` has no refs."""
    return () if entry is None else tuple([meta["phx_ref"] for meta in entry.metas])


def _by_ref(held: _Held) -> dict[str, Meta]:
    """Return the stored metas by ref, without a copy if the metas are stored by ref."""
    if isinstance(held, dict):
        return held
    meta = held_meta(held)
    return {meta["phx_ref"]: meta}


def _listed(held: _Held) -> tuple[Meta, ...]:
    return (held_meta(held),) if isinstance(held, bytes) else tuple(held.values())


def _are_last(metas: dict[str, Meta], joins: dict[str, Meta]) -> bool:
    """Whether `joins` are the last entries of `metas`, in the same order and with the same content."""
    # Compare reprs, because 1 == True in Python.
    last = list(islice(reversed(metas.items()), len(joins)))
    return repr(last) == repr(list(reversed(joins.items())))


def _quoted(key: str) -> str:
    # Quote the whole key or nothing: a key may hold a secret, and a part of a secret would not be hidden.
    return repr(key) if len(key) <= 64 else f"a key of {len(key)} characters"
