"""Messages between users: whoever hears one hears what was said, once; and what the hub took, all hear."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

from attrs import define, frozen

Message: TypeAlias = tuple[str, str, str]
"""What kind of message, the user id of who said it, and what: the text, or whom it is for."""


@frozen
class DeliveryRecord:
    """A message that a hub has acknowledged, said at a time of the world."""

    message: Message
    said_at: float


@define
class MessageLog:
    """All messages of one room. `said` counts what was said, `taken` is what the hub has acknowledged."""

    said: Counter[Message]
    taken: list[DeliveryRecord]

    @classmethod
    def empty(cls) -> MessageLog:
        """Nothing was said yet."""
        return cls(Counter(), [])
