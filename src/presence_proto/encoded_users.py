"""A presence diff as nearly all are in a Jarvis room, decoded in one pass to what a roster keeps.

A typed pass over the whole message costs about what it costs to cut it into entries, and nothing of it is
decoded again. A diff that does not fit (fields that we do not know, several metas of one
user, odd types) is no `UserDiff`, and takes the general way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.json import Decoder

from presence_proto.encoded_presence import Ref
from presence_proto.events import UserStatus
from presence_proto.json_text import DECODE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Mapping


class UserMeta(Struct, gc=False, forbid_unknown_fields=True):
    """The meta of one device, as the Jarvis client tracks it. A `user_id` is not believed: the key counts."""

    phx_ref: str
    user_id: str = ""
    display_name: str = ""
    status: UserStatus = UserStatus.ONLINE
    activity: str | None = None
    online_at: str | None = None
    phx_ref_prev: str | UnsetType = UNSET


class UserEntry(Struct, gc=False, forbid_unknown_fields=True):
    """Who joins or leaves."""

    metas: tuple[UserMeta]


class HeldEntry(Struct, gc=False):
    """Who is there, with as many devices as there are."""

    metas: list[Ref]


class UserDiff(Struct, gc=False, forbid_unknown_fields=True):
    """The payload of such a `presence_diff`."""

    joins: dict[str, UserEntry]
    leaves: dict[str, UserEntry]  # whole: what is passed over would have to be looked through for its depth


_decode_held = Decoder(dict[str, HeldEntry]).decode


def held_refs(state: Raw) -> Mapping[str, HeldEntry] | None:
    """The refs of a state by key, all else passed over. `None` when it does not fit."""
    try:
        return _decode_held(state)
    except (RecursionError, *DECODE_ERRORS):
        return None
