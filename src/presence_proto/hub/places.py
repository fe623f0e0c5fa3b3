"""How many connections there may be: in all, and from one address."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from presence_proto.hub.handshake import TOO_MANY, Refusal

if TYPE_CHECKING:
    from presence_proto.config import HubConfig

TOO_MANY_HERE = Refusal(
    429, "too many connections from this address", b'{"error":"Too many connections from this address"}'
)


class Places:
    """Counts the transports and, among them, the admitted connections: all, and those of each address.

    Twice as many transports as connections may be there: so those in their handshake do not keep others out,
    and who is one too many can be told so. An address is counted when `max_connections_per_address` is set
    and the driver has told it.
    """

    __slots__ = ("_admitted", "_admitted_from", "_limit", "_limit_from", "_opened", "_opened_from")

    def __init__(self, config: HubConfig) -> None:
        self._limit = config.max_connections
        self._limit_from = config.max_connections_per_address
        self._opened = self._admitted = 0
        self._opened_from: Counter[str] = Counter()
        self._admitted_from: Counter[str] = Counter()

    def open(self, address: str | None) -> Refusal | None:
        """Count a transport, or refuse it."""
        if self._opened >= 2 * self._limit:
            return TOO_MANY
        if address is not None and self._limit_from is not None:
            if self._opened_from[address] >= 2 * self._limit_from:
                return TOO_MANY_HERE
            self._opened_from[address] += 1
        self._opened += 1
        return None

    def admit(self, address: str | None) -> Refusal | None:
        """Count a transport as a connection, too, or refuse it."""
        if self._admitted >= self._limit:
            return TOO_MANY
        if address is not None and self._limit_from is not None:
            if self._admitted_from[address] >= self._limit_from:
                return TOO_MANY_HERE
            self._admitted_from[address] += 1
        self._admitted += 1
        return None

    def leave(self, address: str | None, *, admitted: bool) -> None:
        """The transport is gone."""
        self._opened -= 1
        self._admitted -= admitted
        if address is not None and self._limit_from is not None:
            _take_one(self._opened_from, address)
            if admitted:
                _take_one(self._admitted_from, address)


def _take_one(counts: Counter[str], address: str) -> None:
    counts[address] -= 1
    if not counts[address]:
        del counts[address]
