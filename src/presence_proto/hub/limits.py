"""Rates of one connection: its messages, joins and deliveries, each in a token bucket.

Supabase has such limits for a project (`max_events_per_second`, `max_joins_per_second`), and one for the
presence calls of a channel. What a client is told is in its words; where it has none, in ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from presence_proto.errors import LocalProtocolError

if TYPE_CHECKING:
    from presence_proto.config import HubConfig
    from presence_proto.timers import Clock


# -------------------------------------------------------------------------------------------------- allowance
# `Allowance`: how many bytes one topic, one connection or the whole hub may keep, and how many it does.


class NoRoomError(LocalProtocolError):
    """A client asks the hub to keep more than it may. The text is for the client."""


class MetaTooLargeError(NoRoomError):
    """One meta is larger than `HubConfig.max_meta_size`."""


class Allowance:
    """Bytes that one holder keeps for its clients, and its limit. `what` it is, for the refusal."""

    __slots__ = ("held", "limit", "what")

    def __init__(self, what: str, limit: int) -> None:
        self.what = what
        self.limit = limit
        self.held = 0

    def check(self, more: int) -> None:
        """Raise `NoRoomError` when `more` bytes would exceed the limit. Less is always fine."""
        if more > 0 and self.held + more > self.limit:
            raise NoRoomError(f"{self.what} is full, at {self.limit} bytes")


# ------------------------------------------------------------------------------------------------------ turns
# Fair turns: how much work one connection may cause before others are served.
#
# Work is counted in units and not in seconds, so that the same input gives the same turns. A unit is about
# the time that a small message takes to one receiver. What is left of a read waits for the connection's
# next turn, in the order in which the connections have come to wait, and the driver reads no more from it
# until then.


MESSAGE = 32
"""Units for a message or a control frame of a client, whatever comes of it."""

TURN = 2048
"""Units of one connection in a row: 64 messages, or one to 2,000 receivers. About two milliseconds."""

TICK = 4 * TURN
"""Units of one tick, for all connections that wait."""

BYTES_SHIFT = 6
"""Reading a message costs a unit for each 64 bytes, as inflated. A shift costs next to nothing."""

LOOKS = 8
"""Looks at fragments without an end (see `WebSocket.next_event`) that are a turn."""


def of_delivery(receivers: int, size: int) -> int:
    """Units for a message of so many bytes to so many receivers."""
    return receivers * (1 + (size >> 12))


# ------------------------------------------------------------------------------------------------------ rates


PERIOD = 10.0
"""Seconds that a rate is an average of: a burst of ten times the rate passes, as after a reconnect."""

TOO_MANY_MESSAGES = "Too many messages per second"
"""What Supabase says before it closes a channel (`realtime_channel.ex`)."""

TOO_FAST = "too many messages per second"
"""What we say where Supabase has no words: to plain Phoenix and Jarvis clients, and in a close frame."""

TOO_MANY_JOINS = "ClientJoinRateLimitReached: Too many joins per second"
"""How Supabase refuses a join."""


class Bucket:
    """Tokens that are all back when `seconds` have passed since the first of them was taken.

    Not one by one: Supabase counts presence calls so (`presence_handler.ex`).
    """

    __slots__ = ("_full_at", "_seconds", "_taken")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._full_at = 0.0
        self._taken = 0

    def take(self, size: int, now: float, tokens: int = 1) -> bool:
        """Take tokens of a bucket of this size. Whether there was one left; the last may stand for many."""
        if not self._taken or now > self._full_at:
            self._taken, self._full_at = 0, now + self._seconds
        was_empty = self._taken >= size
        self._taken += tokens
        return not was_empty


def is_limited(config: HubConfig) -> bool:
    """Whether there is a bucket to count with."""
    return (config.message_rate, config.join_rate, config.delivery_rate) != (None, None, None)


class WorkCounter(Protocol):
    """Counts the work of a hub, and has its config and clock. `Topics` is one."""

    config: HubConfig
    clock: Clock
    work: int


class Rates:
    """The buckets of one connection. One that the config has no rate for is `None`."""

    __slots__ = ("_deliveries", "_hub", "_joins", "_messages", "are_off")

    def __init__(self, work: WorkCounter) -> None:
        config = work.config
        self._hub = work
        self.are_off = not is_limited(config)
        """Whether nothing is limited. Work is counted all the same."""
        self._messages = None if config.message_rate is None else Bucket(PERIOD)
        self._joins = None if config.join_rate is None else Bucket(PERIOD)
        self._deliveries = None if config.delivery_rate is None else Bucket(PERIOD)

    def allow_message(self) -> bool:
        """Count a message of the client. Whether it may be handled."""
        return self._messages is None or self._take(self._messages, self._hub.config.message_rate)

    def allow_join(self) -> bool:
        """Count a join. Whether it may be handled."""
        return self._joins is None or self._take(self._joins, self._hub.config.join_rate)

    def allow_delivery(self, receivers: int, size: int) -> bool:
        """Count a message of so many bytes to so many receivers, as work, too. Whether it may go out."""
        units = of_delivery(receivers, size)
        self._hub.work += units
        return self._deliveries is None or self._take(self._deliveries, self._hub.config.delivery_rate, units)

    def _take(self, bucket: Bucket, rate: int | None, tokens: int = 1) -> bool:
        assert rate is not None  # where there is a bucket
        return bucket.take(round(rate * PERIOD), self._hub.clock.now, tokens)
