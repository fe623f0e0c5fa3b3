"""The names in a hub: of its timers, and those that it makes, refs of metas and presence keys."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from presence_proto.outputs import ConnId

if TYPE_CHECKING:
    from random import Random


@frozen
class Grace:
    """Names the timer of a Jarvis user who is away, and may come back unnoticed."""

    user_id: str


@frozen
class SlowJoin:
    """Names the timer of a Phoenix connection that is busy with a join."""

    conn: ConnId


@frozen
class Leave:
    """Names the timer of a Phoenix connection that leaves a channel."""

    conn: ConnId


TimerName: TypeAlias = ConnId | str | Grace | SlowJoin | Leave
"""A transport's timer, with the meaning of its phase; a topic's, whose diff waits; a user's; a join's; a
leave's."""


class Ids:
    """Makes names that are unique over the life of one hub.

    With an `rng` they also differ from those of the hub that ran before, which clients may still remember.
    Without one they come from counters alone, the same in every run.
    """

    __slots__ = ("_keys", "_prefix", "_rng", "refs")

    def __init__(self, rng: Random | None = None) -> None:
        self._rng = rng
        self._prefix = (0 if rng is None else rng.getrandbits(48)).to_bytes(6, "big")
        self._keys = 0
        self.refs = 0
        """How many refs were made; the number of the newest one."""

    def ref(self) -> str:
        """A new `phx_ref`: 16 characters of url-safe base64, as Phoenix's are."""
        self.refs += 1
        return urlsafe_b64encode(self._prefix + self.refs.to_bytes(6, "big")).decode("ascii")

    def key(self) -> str:
        """A new presence key: a UUID, version 4, for a client that has named none."""
        self._keys += 1
        number = self._keys if self._rng is None else self._rng.getrandbits(128)
        digits = f"{number:032x}"
        variant = "89ab"[int(digits[16], 16) % 4]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
