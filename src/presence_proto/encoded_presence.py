"""Presence that is still JSON, as it came: whole states, diffs, and the entries of their keys.

Nearly all entries have one meta. Such an entry can be kept as it is, and compared, byte by byte, with what
comes later: a server says the same of a connection when it comes, when it stays and when it goes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from presence_proto.errors import RemoteProtocolError


class EncodedDiff(msgspec.Struct, gc=False):
    """The payload of a `presence_diff`, down to the entries."""

    joins: dict[str, msgspec.Raw]
    leaves: dict[str, msgspec.Raw]


class _Entry(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    metas: tuple[dict[str, Any]]  # just one


class _Ref(msgspec.Struct, gc=False):
    phx_ref: str


class _Refs(msgspec.Struct, gc=False):
    metas: list[_Ref]


_decode = msgspec.json.Decoder().decode
_decode_state = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode
_decode_refs = msgspec.json.Decoder(_Refs).decode


def decode(encoded: msgspec.Raw, what: str) -> Any:
    """All of it. Raises `RemoteProtocolError`, which calls it `what`, when it is malformed."""
    try:
        return _decode(encoded)
    except (RecursionError, ValueError) as exc:
        raise _malformed(exc, what) from None


def entries(state: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The entries of a state by key. Raises `RemoteProtocolError` when it is malformed, or no object."""
    try:
        return _decode_state(state)
    except (RecursionError, ValueError) as exc:
        raise _malformed(exc, "presence_state") from None


def only_meta(entry: msgspec.Raw | bytes) -> dict[str, Any] | None:
    """The meta of an entry with one meta and nothing else. `None` for any other, also a malformed one."""
    try:
        (meta,) = _decode_entry(entry).metas
        return meta if type(meta["phx_ref"]) is str else None
    except (LookupError, RecursionError, ValueError):
        return None


def refs(entry: msgspec.Raw | bytes) -> set[str] | None:
    """The refs of an entry's metas. `None` when it is malformed."""
    try:
        return {meta.phx_ref for meta in _decode_refs(entry).metas}
    except (RecursionError, ValueError):
        return None


def _malformed(exc: RecursionError | ValueError, what: str) -> RemoteProtocolError:
    fault = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
    return RemoteProtocolError(f"{what} is malformed: {fault}")
