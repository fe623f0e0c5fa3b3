"""Exceptions of the adapters: what an awaited command answers when it did not work."""

from __future__ import annotations

from typing import Any

from presence_proto import PresenceError


class ConnectError(PresenceError):
    """The client has ended, or cannot connect at all, and will not try again."""


class JoinError(PresenceError):
    """The server refused to let us into a topic. The channel is left again.

    `response` is the server's answer.
    """

    def __init__(self, topic: str, reason: str, response: Any = None) -> None:
        super().__init__(f"cannot join {topic!r}: {reason}")
        self.topic = topic
        self.reason = reason
        self.response = response


class PushError(PresenceError):
    """A push was answered with another status than `"ok"`, or not at all.

    `status` and `response` are the server's; `status` is `None` when no answer came.
    """

    def __init__(self, topic: str, reason: str, status: str | None = None, response: Any = None) -> None:
        super().__init__(f"push to {topic!r} failed: {reason}")
        self.topic = topic
        self.reason = reason
        self.status = status
        self.response = response
