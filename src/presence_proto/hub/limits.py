"""Limits per connection: kept bytes, work per turn, and rates of messages, joins and deliveries.

Supabase has similar rate limits per project (`max_events_per_second`, `max_joins_per_second`) and a limit for
a channel's presence calls. A refusal uses Supabase's text if Supabase has a text for it, otherwise the hub's
own text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from presence_proto.errors import LocalProtocolError

if TYPE_CHECKING:
    from presence_proto.hub.config import HubConfig
    from presence_proto.timers import Clock


# -------------------------------------------------------------------------------------------------- allowance
# An `Allowance` counts and limits the bytes kept for one topic, for one connection or for the whole hub.


class NoRoomError(LocalProtocolError):
    """A request exceeds a limit on the bytes that the hub keeps. The client receives the exception's text."""


class MetaTooLargeError(NoRoomError):
    """One meta is larger than `HubConfig.max_meta_size`."""


class Allowance:
    """A counter of bytes kept for clients, with a limit. `what` names the counter in error texts."""

    __slots__ = ("held", "limit", "what")

    def __init__(self, what: str, limit: int) -> None:
        self.what = what
        self.limit = limit
        self.held = 0

    def check(self, more: int) -> None:
        """Raise `NoRoomError` when `more` additional bytes would exceed the limit.

        A change of 0 or fewer bytes always passes.
        """
        if more > 0 and self.held + more > self.limit:
            raise NoRoomError(f"{self.what} is full, at {self.limit} bytes")


# ------------------------------------------------------------------------------------------------------ turns
# Fair turns: a limit on the work that one connection may cause before the hub serves other connections.
#
# Work is counted in units, not in seconds, so that the same input always gives the same turns. One unit is
# about the time to deliver a small message to one receiver. After a turn the unhandled bytes wait for the
# connection's next turn. The connection that has waited longest takes the next turn. The driver does not read
# from a waiting connection.


MESSAGE = 32  # units of work per message or control frame from a client

TURN = 2048
"""Units of work after which a turn ends: 64 messages, or one message to 2,000 receivers. About 2 ms."""

TICK = 4 * TURN  # units of work after which a tick ends, for all waiting connections

BYTES_SHIFT = 6
"""Right shift of an inflated message's size in bytes that gives its units of work: one unit per 64 bytes."""

LOOKS = 8
"""The `patience` of `WebSocket.next_event`: the maximum number of frame pieces per call for wsproto."""


def of_delivery(receivers: int, size: int) -> int:
    """Return the units of work for one message of `size` bytes to `receivers` receivers."""
    return receivers * (1 + (size >> 12))


# ------------------------------------------------------------------------------------------------------ rates


PERIOD = 10.0
"""Averaging period of the rates, in seconds. One burst may use up the tokens of a whole period."""

TOO_MANY_MESSAGES = "Too many messages per second"
"""The text that Supabase sends before the close of a channel (`realtime_channel.ex`)."""

TOO_FAST = "too many messages per second"
"""The hub's own text for exceeded rates, for plain Phoenix and Jarvis clients and for close frames."""

TOO_MANY_JOINS = "ClientJoinRateLimitReached: Too many joins per second"
"""The reason with which Supabase refuses a join above the join rate."""


class Bucket:
    """A token bucket that refills completely `seconds` after the first token was taken.

    The bucket does not refill gradually: Supabase counts presence calls in the same way
    (`presence_handler.ex`).
    """

    __slots__ = ("_full_at", "_seconds", "_taken")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._full_at = 0.0
        self._taken = 0

    def take(self, size: int, now: float, tokens: int = 1) -> bool:
        """Take `tokens` from a bucket of `size` tokens. Return whether at least one token was left.

        A call may take more tokens than are left.
        """
        if not self._taken or now > self._full_at:
            self._taken, self._full_at = 0, now + self._seconds
        was_empty = self._taken >= size
        self._taken += tokens
        return not was_empty


def is_limited(config: HubConfig) -> bool:
    """Whether the config limits the rate of messages, joins or deliveries."""
    return (config.message_rate, config.join_rate, config.delivery_rate) != (None, None, None)


class WorkCounter(Protocol):
    """The work counter of a hub, with the hub's config and clock. `Topics` implements this protocol."""

    config: HubConfig
    clock: Clock
    work: int


class Rates:
    """The token buckets of one connection. A bucket is `None` when the config does not limit its rate."""

    __slots__ = ("_deliveries", "_hub", "_joins", "_messages", "are_off")

    def __init__(self, work: WorkCounter) -> None:
        config = work.config
        self._hub = work
        self.are_off = not is_limited(config)
        """Whether no rate is limited. The hub counts work even without limits."""
        self._messages = None if config.message_rate is None else Bucket(PERIOD)
        self._joins = None if config.join_rate is None else Bucket(PERIOD)
        self._deliveries = None if config.delivery_rate is None else Bucket(PERIOD)

    def allow_message(self) -> bool:
        """Count a message of the client. Return whether the hub may handle the message."""
        return self._messages is None or self._take(self._messages, self._hub.config.message_rate)

    def allow_join(self) -> bool:
        """Count a join of the client. Return whether the hub may handle the join."""
        return self._joins is None or self._take(self._joins, self._hub.config.join_rate)

    def allow_delivery(self, receivers: int, size: int) -> bool:
        """Count a message of `size` bytes to `receivers` receivers, and add its units of work.

        Return whether the hub may send the message.
        """
        units = of_delivery(receivers, size)
        self._hub.work += units
        return self._deliveries is None or self._take(self._deliveries, self._hub.config.delivery_rate, units)

    def _take(self, bucket: Bucket, rate: int | None, tokens: int = 1) -> bool:
        assert rate is not None  # a bucket exists only for a limited rate
        return bucket.take(round(rate * PERIOD), self._hub.clock.now, tokens)
