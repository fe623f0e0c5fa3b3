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
# Presence that is still JSON, as it came: whole states, diffs, and the entries of their keys.
#
# Nearly all entries have one meta. Such an entry can be kept as it is, and compared, byte by byte, with what
# comes later: a server says the same of a connection when it comes, when it stays and when it goes.


class EncodedDiff(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The payload of a `presence_diff`, down to the entries."""

    joins: dict[str, msgspec.Raw]
    leaves: dict[str, msgspec.Raw]


class _Entry(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    metas: tuple[dict[str, Shallow]]  # just one


class MetaRef(msgspec.Struct, gc=False):
    """A meta of which only the ref matters."""

    phx_ref: str


class _LeavingEntry(msgspec.Struct, gc=False):
    """An entry with one meta, of which only the ref matters."""

    metas: tuple[MetaRef]


_decode_leaving = msgspec.json.Decoder(_LeavingEntry).decode
_decode_state = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode


def state_entries(state: msgspec.Raw, levels: int) -> dict[str, msgspec.Raw]:
    """The entries of a state by key. Raises `RemoteProtocolError` when it is malformed, or not an object.

    It may not have been looked into deeper: `levels` only bounds what is said of it when it is malformed.
    """
    try:
        return _decode_state(state)
    except (RecursionError, *DECODE_ERRORS):
        pass
    value = json_text.decode(state, "presence_state", levels)
    raise RemoteProtocolError(f"presence_state must be an object, not {kind_of(value)}")


def only_meta(entry: msgspec.Raw | bytes) -> dict[str, Any] | None:
    """The meta of an entry with one shallow meta and nothing else. `None` for any other entry."""
    try:
        (meta,) = _decode_entry(entry).metas
        return meta if type(meta["phx_ref"]) is str else None
    except (LookupError, *DECODE_ERRORS):
        return None


def only_ref(entry: msgspec.Raw, levels: int) -> str | None:
    """The ref of an entry with one meta. `None` for any other, and for one that nests more than `levels`."""
    try:
        (meta,) = _decode_leaving(entry).metas
    except (RecursionError, *DECODE_ERRORS):
        return None
    return None if json_text.nests_deeper(bytes(entry), levels) else meta.phx_ref


def held_meta(entry: bytes) -> dict[str, Any]:
    """The meta of an entry that `only_meta` has taken before."""
    (meta,) = _decode_entry(entry).metas
    return meta


def diff_size(diff: Any) -> int:
    """Bytes of a diff, as it is or as JSON."""
    if type(diff) is not EncodedDiff:
        return len(json_text.encode(diff))
    return sum(
        len(key) + len(bytes(entry)) for side in (diff.joins, diff.leaves) for key, entry in side.items()
    )


def check_diff_nesting(diff: EncodedDiff, levels: int) -> None:
    """Raise `RemoteProtocolError` when an entry nests more than `levels` levels."""
    for entries in (diff.joins, diff.leaves):
        for entry in entries.values():
            if json_text.nests_deeper(bytes(entry), levels):
                raise json_text.too_deep("presence_diff", levels)


# --------------------------------------------------------------------------------------------------- presence


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

# Levels of a message around a state, and around an entry of a diff: [state], [{"joins": {key: entry}}].
ABOVE_STATE, ABOVE_ENTRY = 1, 3


class PresenceChange(Struct, frozen=True, gc=False):
    """What a state or a diff changed for one key.

    `kind` is `"joined"` when the key was not there before, `"left"` when it is gone, else `"updated"`.
    Remove `left` from the metas of the key and append `joined`, and you have what the map has. A meta that
    the server replaced or moved, under the same ref, is in both: as it was in `left`, as it is in `joined`.
    Both are empty when only what the entry has beside its metas changed (`PresenceMap.extra`).
    """

    # A struct, not an attrs class: one is made for each key of each diff, in a quarter of the time.

    key: str
    kind: ChangeKind
    joined: tuple[Meta, ...]
    left: tuple[Meta, ...]


class PresenceStore(Protocol):
    """Where a channel keeps its presence: a `PresenceMap`, or the roster of a room."""

    def __len__(self) -> int: ...

    def apply_state(self, payload: Any) -> tuple[Any, ...]:
        """Merge a whole state; see `PresenceMap`."""
        ...

    def apply_diff(self, payload: Any) -> Sequence[Any]:
        """Merge a diff; see `PresenceMap`."""
        ...

    def check_nesting(self, payload: Any) -> None:
        """Raise when a diff that waits nests too deeply; see `PresenceMap`."""
        ...

    def nothing_continues(self, before: int, changes: Any) -> bool:
        """Whether nothing of before the last state is left; see `PresenceMap`."""
        ...


class PresenceMap(Mapping[str, tuple[Meta, ...]]):
    """Who is present: a read-only mapping of each key to its metas, the most recently joined one last.

    At most `max_keys` keys are held, and `max_metas` metas of one key. A payload that is still JSON may nest
    as deeply as it can in a message of `max_nesting` levels. A meta is decoded when it is asked for, each
    time anew; those of a payload that came decoded are the very dicts: treat them as read-only.
    """

    __slots__ = ("_extras", "_held", "_max_keys", "_max_metas", "_max_nesting", "_most")

    def __init__(
        self, *, max_keys: int = 1_000_000, max_metas: int = 10_000, max_nesting: int = DEFAULT_NESTING
    ) -> None:
        self._held: dict[str, _Held] = {}
        self._extras: dict[str, Mapping[str, Any]] = {}  # only of keys that have any
        self._max_keys = max_keys
        self._max_metas = max_metas
        self._max_nesting = max_nesting
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
        return held_meta(metas) if isinstance(metas, bytes) else next(reversed(metas.values()))

    def extra(self, key: str) -> Mapping[str, Any]:
        """What the entry of `key` has beside `metas`; Phoenix's `fetch/2` adds such. Raises `KeyError`."""
        if key not in self._held:
            raise KeyError(key)
        return self._extras.get(key, _NOTHING)

    # -- facts

    def apply_state(self, payload: Any) -> tuple[PresenceChange, ...]:
        """Merge the payload of a `presence_state`: all that the server holds, `{key: {"metas": [...]}}`.

        Of a payload that is still JSON, a `msgspec.Raw`, only what is not held as it came is decoded. Returns
        one change for each key that is not what it was. Raises `RemoteProtocolError`, and changes nothing,
        when the payload is malformed or too large.
        """
        entries = there = payload
        if isinstance(payload, Raw):
            there = state_entries(payload, self._max_nesting - ABOVE_STATE)
            held = self._held
            entries = {key: entry for key, entry in there.items() if held.get(key) != bytes(entry)}
        state, extras, most = parse_entries(entries, "presence_state", self._max_nesting - ABOVE_STATE - 1)
        self._check_state(state, most, len(there) - len(state))
        changes = []
        for key, metas in state.items():
            if change := self._become(key, entries[key], metas, extras.get(key, _NOTHING)):
                changes.append(change)
        for key in [key for key in self._held if key not in there]:
            changes.append(self._gone(key, _listed(self._held[key])))
        return tuple(changes)

    def check_nesting(self, payload: Any) -> None:
        """Raise `RemoteProtocolError` when a diff that waits nests too deeply for `apply_diff`."""
        check_nesting(payload, self._max_nesting)

    def apply_diff(self, payload: Any) -> tuple[PresenceChange, ...]:
        """Merge the payload of a `presence_diff`: `{"joins": {key: {"metas": [...]}}, "leaves": {...}}`.

        It may be an `EncodedDiff`. Returns one change for each key that is not what it was. Raises
        `RemoteProtocolError`, and changes nothing, when the payload is malformed or the result would be too
        large.
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
        joins, extras, most = parse_entries(entries, "presence_diff joins", levels)
        leaves, _, _ = parse_entries(leaving, "presence_diff leaves", levels, held)
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

    def nothing_continues(self, before: int, changes: Iterable[PresenceChange]) -> bool:
        """Whether none of the metas that were held is left, nor an update of one.

        `changes` are those of the state that was applied last, and `before` is how many keys there were.
        """
        gone = 0
        for change in changes:
            if change.kind == "left":
                gone += 1
            elif change.kind == "updated" and len(self[change.key]) == len(change.joined):
                gone += not continues(change.joined, {meta["phx_ref"] for meta in change.left})
        return gone == before

    # -- the plainest diffs, which most are, in half the time. `None`, and nothing changed: it takes more.

    def _comes(self, joins: dict[str, Raw]) -> PresenceChange | None:
        """Somebody who is not there joins with one meta, or somebody with several with one more."""
        held = self._held
        for key, entry in joins.items():
            mine = held.get(key)
            if mine is None and len(held) < self._max_keys:
                meta = only_meta(entry)
                if meta is not None:
                    held[key] = bytes(entry)
                    return PresenceChange(key, "joined", (meta,), ())
            elif type(mine) is _Several and not self._extras and len(mine) < self._max_metas:
                # A device more: in half of the time of the general way, with the one that `_goes` has.
                meta = only_meta(entry)
                if meta is not None and meta["phx_ref"] not in mine:
                    mine[meta["phx_ref"]] = meta
                    self._most = max(self._most, len(mine))
                    return PresenceChange(key, "updated", (meta,), ())
        return None

    def _goes(self, leaves: dict[str, Raw]) -> PresenceChange | None:
        """Somebody who is there with one meta leaves, or one of several devices does."""
        for key, entry in leaves.items():
            mine = self._held.get(key)
            if type(mine) is _Several:
                ref = only_ref(entry, self._max_nesting - ABOVE_ENTRY)
                if ref is not None and ref in mine and len(mine) > 1:
                    return PresenceChange(key, "updated", (), (mine.pop(ref),))
            elif mine == bytes(entry) and (meta := only_meta(entry)) is not None:
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
        held, there = by_ref(self._held[key]), by_ref(metas)
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
        joins, leaving = by_ref(metas), by_ref(leaves)
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
        mine = by_ref(held)
        left = [mine.pop(ref) for ref in leaving if ref in mine]
        if not mine and not joins:
            return self._gone(key, tuple(left))
        joined = tuple(joins.values())
        if mine.keys().isdisjoint(joins):
            mine.update(joins)
        elif _are_last(mine, joins):
            joined = ()  # the server says again what we hold
        else:
            left += [mine.pop(ref) for ref in joins if ref in mine]
            mine.update(joins)
        if joined or left:
            self._hold(key, mine, metas, entry)
        if self._set_extra(key, extra) or joined or left:
            return PresenceChange(key, "updated", joined, tuple(left))
        return None

    def _leave(self, key: str, leaves: _Metas) -> PresenceChange | None:
        """Let the refs of `leaves` leave the key."""
        if type(leaves) is dict:
            return self._gone(key, (leaves,))
        held = self._held.get(key)
        if held is None:
            return None
        metas = by_ref(held)
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
        return extra != previous

    # -- limits

    def _check_state(self, state: dict[str, _Metas], most: int, more: int) -> None:
        """Raise when `state`, and `more` keys that are held already, lead past a limit."""
        if most > self._max_metas:
            key = next(key for key, metas in state.items() if len(by_ref(metas)) == most)
            raise too_many_metas(key, self._max_metas)
        if len(state) + more > self._max_keys and sum(map(bool, state.values())) + more > self._max_keys:
            raise too_many_keys(self._max_keys)

    def _check_diff(self, joins: dict[str, _Metas], leaves: dict[str, _Metas]) -> None:
        """Raise when the diff would lead past a limit. What leaves makes room for what joins."""
        held = self._held
        keys = len(held)
        for key in {**joins, **leaves}:
            mine, joined, left = by_ref(held.get(key)), by_ref(joins.get(key)), by_ref(leaves.get(key))
            size = len(mine) + sum(ref not in mine for ref in joined)
            size -= sum(ref in mine or ref in joined for ref in left)
            if size > self._max_metas:
                raise too_many_metas(key, self._max_metas)
            keys += (size > 0) - (key in held)
        if keys > self._max_keys:
            raise too_many_keys(self._max_keys)


def continues(joined: Iterable[Meta], left: Collection[str]) -> bool:
    """Whether one of the metas that joined is an update of one whose ref left."""
    return any(isinstance(ref := meta.get("phx_ref_prev"), str) and ref in left for meta in joined)


def too_many_keys(limit: int) -> RemoteProtocolError:
    """The error for presence of more than `limit` keys."""
    return RemoteProtocolError(f"presence would hold more than {limit} keys (max_keys)")


def too_many_metas(key: str, limit: int) -> RemoteProtocolError:
    """The error for a key with more than `limit` metas."""
    return RemoteProtocolError(f"presence of {_quoted(key)} would hold more than {limit} metas (max_metas)")


def check_nesting(payload: Any, max_nesting: int) -> None:
    """Raise `RemoteProtocolError` when a diff nests too deeply to be merged later."""
    if type(payload) is EncodedDiff:
        check_diff_nesting(payload, max_nesting - ABOVE_ENTRY)


def diff_entries(payload: Any) -> tuple[Any, Any]:
    """What a diff says of who joins and who leaves. Raises `RemoteProtocolError` when it is not an object."""
    if type(payload) is EncodedDiff:
        return payload.joins, payload.leaves
    if not isinstance(payload, dict):
        raise RemoteProtocolError(f"presence_diff must be an object, not {type(payload).__name__}")
    return payload.get("joins"), payload.get("leaves")


def parse_entries(
    entries: Any, where: str, levels: int, held: Mapping[str, _Held] | None = None
) -> tuple[dict[str, _Metas], dict[str, dict[str, Any]], int]:
    """The metas of each key, what the keys have that have more than metas, and the most metas that a key has.

    `levels`: how deeply an entry may nest. `held`, for leaves: who is there. Raises `RemoteProtocolError`
    unless all is `{key: {"metas": [...]}}`.
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
            entry = json_text.decode(entry, where, levels)
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


def by_ref(metas: _Held | _Metas | None) -> _Several:
    """By their refs; what is `_Several` already is not copied."""
    if metas is None:
        return _Several()
    if isinstance(metas, _Several):
        return metas
    meta: dict[str, Any] = held_meta(metas) if isinstance(metas, bytes) else metas
    return _Several({meta["phx_ref"]: meta})


def _listed(held: _Held) -> tuple[Meta, ...]:
    return (held_meta(held),) if isinstance(held, bytes) else tuple(held.values())


def _are_last(metas: _Several, joins: _Several) -> bool:
    """Whether `joins` are the last of `metas`, in the same order and with the same content."""
    # Compared as text, since to Python 1 and True are equal.
    last = list(islice(reversed(metas.items()), len(joins)))
    return repr(last) == repr(list(reversed(joins.items())))


def _quoted(key: str) -> str:
    # Whole or not at all: of a secret that a server took for a key, no part may show.
    return repr(key) if len(key) <= 64 else f"a key of {len(key)} characters"
