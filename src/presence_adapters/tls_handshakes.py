"""The TLS handshakes of a hub that are under way: how many there may be, and which gives way."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

P = TypeVar("P", bound="Hashable")

logger = logging.getLogger(__name__)

WARN_EVERY = 10.0  # seconds


class TlsHandshakes(Generic[P]):
    """The peers that are in a TLS handshake. They take places like open connections, of which the core knows.

    With too many of them the oldest gives way to the newest: an honest handshake takes milliseconds, so the
    one that has taken longest is most likely stalled.
    """

    def __init__(self, limit: int, limit_per_address: int | None) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._addresses: dict[P, str | None] = {}  # the oldest first
        self._peers: defaultdict[str, dict[P, None]] = defaultdict(dict)  # by address; the oldest first
        self._cut = 0  # since the last warning
        self._warned = float("-inf")

    def begin(self, peer: P, address: str | None, *, opened: int, now: float) -> Iterator[P]:
        """Count a handshake. Yields the peers to cut. `opened`: the connections that are past theirs."""
        self._addresses[peer] = address
        if address is not None and self._limit_per_address is not None:
            same = self._peers[address]
            same[peer] = None
            if len(same) > self._limit_per_address:
                yield self._give_way(next(iter(same)), now)
        most = max(1, min(self._limit, 2 * self._limit - opened))
        while len(self._addresses) > most:
            yield self._give_way(next(iter(self._addresses)), now)

    def end(self, peer: P) -> None:
        """A handshake is done, or was given up."""
        address = self._addresses.pop(peer, None)
        if address is not None and (same := self._peers.get(address)) is not None:
            same.pop(peer, None)
            if not same:
                del self._peers[address]

    def _give_way(self, peer: P, now: float) -> P:
        self.end(peer)
        self._cut += 1
        if now - self._warned >= WARN_EVERY:
            logger.warning("too many TLS handshakes at once: the oldest were dropped, %d so far", self._cut)
            self._cut, self._warned = 0, now
        return peer
