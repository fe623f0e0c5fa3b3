"""`Allowance`: how many bytes one topic, one connection or the whole hub may keep, and how many it does."""

from __future__ import annotations

from presence_proto.errors import LocalProtocolError


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
