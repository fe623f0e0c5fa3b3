"""Presence that is still JSON, as it came: whole states, diffs, and the entries of their keys.

Nearly all entries have one meta. Such an entry can be kept as it is, and compared, byte by byte, with what
comes later: a server says the same of a connection when it comes, when it stays and when it goes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from presence_proto import json_text
from presence_proto.errors import RemoteProtocolError
from presence_proto.json_text import DECODE_ERRORS, Shallow, kind_of


class EncodedDiff(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The payload of a `presence_diff`, down to the entries."""

    joins: dict[str, msgspec.Raw]
    leaves: dict[str, msgspec.Raw]


class _Entry(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    metas: tuple[dict[str, Shallow]]  # just one


class Ref(msgspec.Struct, gc=False):
    """A meta of which only the ref matters."""

    phx_ref: str


class _LeavingEntry(msgspec.Struct, gc=False):
    """An entry with one meta, of which only the ref matters."""

    metas: tuple[Ref]


_decode_leaving = msgspec.json.Decoder(_LeavingEntry).decode
_decode_state = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode


def entries(state: msgspec.Raw, levels: int) -> dict[str, msgspec.Raw]:
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


def size(diff: Any) -> int:
    """Bytes of a diff, as it is or as JSON."""
    if type(diff) is not EncodedDiff:
        return len(json_text.encode(diff))
    return sum(
        len(key) + len(bytes(entry)) for side in (diff.joins, diff.leaves) for key, entry in side.items()
    )


def check(diff: EncodedDiff, levels: int) -> None:
    """Raise `RemoteProtocolError` when an entry nests more than `levels` levels."""
    for entries in (diff.joins, diff.leaves):
        for entry in entries.values():
            if json_text.nests_deeper(bytes(entry), levels):
                raise json_text.too_deep("presence_diff", levels)
