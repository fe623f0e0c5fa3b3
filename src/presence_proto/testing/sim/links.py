"""Simulated TCP connections. Bytes travel between two `End`s in order and with a delay.

Each direction has a `LinkQuality` and can be silenced. A silent direction holds bytes back, as TCP does when
the network loses packets. Bytes may be lost only at the end of the stream, never in the middle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from presence_proto.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from presence_proto.endpoint import ConnId
    from presence_proto.testing.sim.hosts import Host
    from presence_proto.testing.sim.stage import Scheduler, SimStats


def _not_negative(instance: object, attribute: Any, value: float) -> None:
    if value < 0:
        raise ConfigError(f"{attribute.name} must not be negative, but is {value!r}")


@frozen(kw_only=True)
class LinkQuality:
    """Quality of a link. A write arrives after a random delay from `latency` to `latency + jitter` seconds.

    `bandwidth` is in bytes per second; 0 means unlimited. `chunking` is the fraction of writes that arrive in
    pieces. Raises `ConfigError` for a negative number.
    """

    latency: float = field(default=0.02, validator=_not_negative)
    jitter: float = field(default=0.01, validator=_not_negative)
    bandwidth: float = field(default=1_000_000.0, validator=_not_negative)
    chunking: float = field(default=0.05, validator=_not_negative)


class End:
    """One end of a link: the socket of one host. `peer` is the other end."""

    __slots__ = (
        "_agenda",
        "_bounced",
        "_drops",
        "_is_dead",
        "_last",
        "_line_free",
        "_quality",
        "_rng",
        "_stats",
        "conn",
        "held",
        "host",
        "in_flight",
        "is_open",
        "peer",
        "was_closed",
    )

    peer: End

    def __init__(
        self, host: Host, conn: ConnId, quality: LinkQuality, agenda: Scheduler, rng: Random, stats: SimStats
    ) -> None:
        self.host = host
        self.conn = conn
        self.is_open = False
        self.was_closed = False  # true also when this end was closed while connecting
        self.held: list[tuple[Callable[..., None], tuple[Any, ...]]] | None = None  # None: not silenced
        self.in_flight = 0  # writes from this end that the other endpoint has not received yet
        self._quality = quality
        self._agenda = agenda
        self._rng = rng
        self._stats = stats
        self._line_free = 0.0
        self._last = 0.0  # arrival time of the last byte sent from this end
        self._drops = False
        self._bounced = False
        self._is_dead = False

    # ---------------------------------------------------------------- calls of the host

    def send(self, data: bytes) -> None:
        """Send bytes to the other end."""
        if self.was_closed:
            return  # the driver has not noticed the close yet
        now, quality = self._agenda.now, self._quality
        size = len(data)
        stats = self._stats
        stats.writes += 1
        stats.bytes += size
        self.in_flight += 1
        if quality.chunking and size > 1 and self._rng.random() < quality.chunking:
            cuts = sorted({self._rng.randrange(1, size) for _ in range(self._rng.randint(1, 4))})
            self.in_flight += len(cuts)
            for start, stop in zip([0, *cuts], [*cuts, size], strict=True):
                self._agenda.at(self._arrival(stop - start), self.peer._arrived, data[start:stop], now)
        else:
            self._agenda.at(self._arrival(size), self.peer._arrived, data, now)

    def close(self, *, abort: bool = False) -> None:
        """Close the socket. The other end sees the close after all bytes. `abort` may lose sent bytes."""
        self.is_open, self.was_closed = False, True
        if abort:
            self._drops = self._rng.random() < 0.5
        self._say_end("connection reset by peer" if abort else "eof")

    # ---------------------------------------------------------------- faults

    def vanish(self) -> None:
        """Close this end without reporting the close to either host."""
        self.is_open, self.was_closed = False, True

    def fail(self, reason: str) -> None:
        """Close this end and report `reason` to its host. The other end is not informed."""
        if self.is_open:
            self.vanish()
            self.host.closed(self, reason)

    def silence(self) -> None:
        """Hold back all bytes from this end until `release`."""
        if self.held is None:
            self.held = []

    def die(self) -> None:
        """Hold back all bytes from this end forever."""
        self.silence()
        self._is_dead = True

    def release(self) -> None:
        """End the silence, and deliver the bytes that were held back. A dead end stays silent."""
        if self._is_dead:
            return
        held, self.held = self.held, None
        for action, args in held or ():
            action(*args)

    @property
    def is_alive(self) -> bool:
        """Whether bytes can still arrive in both directions, now or after a silence."""
        return self.is_open and self.peer.is_open and not (self._is_dead or self.peer._is_dead)

    @property
    def is_through(self) -> bool:
        """Whether both ends are open, and the other end has received all bytes from this end."""
        return self.in_flight == 0 and self.is_open and self.peer.is_open

    # ---------------------------------------------------------------- connecting

    def answer(self, refused: str | None) -> None:
        """Report the result of a connection attempt: success if `refused` is `None`, else a refusal."""
        if refused is None:
            self._agenda.after(self._quality.latency, self._opened)
        else:
            self._agenda.after(self._quality.latency, self._refused, refused)

    def _opened(self) -> None:
        if self.was_closed:
            self._say_end("connection reset by peer")
            self.host.opened_too_late(self)
        else:
            self.is_open = True
            self.host.opened(self)

    def _refused(self, reason: str) -> None:
        if not self.was_closed:
            self.was_closed = True
            self.host.closed(self, reason)

    # ---------------------------------------------------------------- in flight

    def _arrival(self, size: int) -> float:
        """Return the arrival time of `size` more bytes, which never overtake bytes sent earlier."""
        now, quality = self._agenda.now, self._quality
        free = self._line_free if self._line_free > now else now
        if quality.bandwidth:
            free += size / quality.bandwidth
        self._line_free = free
        when = free + quality.latency + quality.jitter * self._rng.random()
        if when < self._last:
            when = self._last
        self._last = when
        return when

    def _say_end(self, reason: str) -> None:
        self.in_flight += 1
        self._agenda.at(self._arrival(0), self.peer._ended, reason)

    def _arrived(self, data: bytes, sent: float) -> None:
        sender = self.peer
        if sender.held is not None:
            sender.held.append((self._arrived, (data, sent)))
        elif self.is_open:
            if not sender._drops:
                self.host.received(self, data, sent)
        elif not self.host.is_lost and not self._bounced:
            # This end is closed: the host's kernel answers bytes for a closed socket with a reset.
            self._bounced = True
            self._say_end("connection reset by peer")

    def _ended(self, reason: str) -> None:
        sender = self.peer
        if sender.held is not None:
            sender.held.append((self._ended, (reason,)))
        else:
            self.fail(reason)
