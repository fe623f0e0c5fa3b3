"""A presence state that is still JSON. After a rejoin most of it is known: only the refs of that are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from presence_proto.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Meta(msgspec.Struct, gc=False):
    phx_ref: str


class _Entry(msgspec.Struct, gc=False):
    metas: list[_Meta]


_decode = msgspec.json.Decoder().decode
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read = msgspec.json.Decoder(_Entry).decode


def decode(state: msgspec.Raw) -> Any:
    """The state, or an entry of it. Raises `RemoteProtocolError` when it is malformed."""
    try:
        return _decode(state)
    except (RecursionError, ValueError) as exc:
        raise _malformed(exc) from None


def split(state: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The entries of the state by key. Raises `RemoteProtocolError` when it is malformed, or no object."""
    try:
        return _split(state)
    except (RecursionError, ValueError) as exc:
        raise _malformed(exc) from None


def unknown(entries: Mapping[str, msgspec.Raw], held: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Those of the entries that have not just the refs that are held, decoded.

    What is held of a key is one meta, or several by their refs: another kind of dict. Raises
    `RemoteProtocolError`.
    """
    found = {}
    for key, entry in entries.items():
        mine = held.get(key)
        if mine is not None:
            try:
                metas = _read(entry).metas
            except (RecursionError, ValueError):
                metas = []  # malformed: whoever reads it says so
            if type(mine) is not dict:
                if mine.keys() == {meta.phx_ref for meta in metas}:
                    continue
            elif len(metas) == 1 and metas[0].phx_ref == mine["phx_ref"]:
                continue
        found[key] = decode(entry)
    return found


def _malformed(exc: RecursionError | ValueError) -> RemoteProtocolError:
    fault = "nested too deeply" if isinstance(exc, RecursionError) else str(exc)
    return RemoteProtocolError(f"presence_state is malformed: {fault}")
