"""Fair turns: how much work one connection may cause before others are served.

Work is counted in units and not in seconds, so that the same input gives the same turns. A unit is about the
time that a small message takes to one receiver. What is left of a read waits for the connection's next turn,
in the order in which the connections have come to wait, and the driver reads no more from it until then.
"""

from __future__ import annotations

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
