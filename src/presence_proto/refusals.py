"""What the server says when it refuses something: where its words are, and whether asking again can help."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Any


class Verdict(Enum):
    """Whether a refused join may be accepted later."""

    PASSING = auto()  # the server is starting, or overloaded: the same join may be accepted soon
    FINAL = auto()  # the same join will be refused again
    UNKNOWN = auto()


# Supabase: the part before the colon of its reasons (realtime_channel.ex, `join/3`). Phoenix: whole reasons
# (socket.ex, `handle_in` of `phx_join`).
_PASSING = frozenset(
    {
        "ClientJoinRateLimitReached",
        "ConnectionRateLimitReached",
        "DatabaseConnectionRateLimitReached",
        "DatabaseLackOfConnections",
        "ErrorOnRpcCall",
        "IncreaseConnectionPool",
        "InitializingProjectConnection",
        "QueryCanceled",
        "RealtimeRestarting",
        "TimeoutOnRpcCall",
        "UnableToConnectToProject",
        "join crashed",
    }
)
_FINAL = frozenset(
    {
        "ChannelRateLimitReached",  # of our own channels: it passes when one of them is left
        "InvalidJWTToken",
        "JwtSignatureError",
        "JwtSignerError",
        "MalformedJWT",
        "PrivateOnly",
        "RealtimeDisabledForTenant",
        "TenantNotFound",
        "TopicNameRequired",
        "Unauthorized",
        "too many channels joined",
        "unauthorized",  # what the generators of Phoenix write
        "unmatched topic",
    }
)
_TOKEN = re.compile("jwt|token", re.IGNORECASE)
_NONE = object()


def verdict(reason: str) -> Verdict:
    """Whether a join that was refused with this reason may be accepted later."""
    code = reason.partition(":")[0]
    if code in _PASSING:
        return Verdict.PASSING
    return Verdict.FINAL if code in _FINAL else Verdict.UNKNOWN


class Refusals:
    """The refusals of one channel's join in a row, and what they mean for the next join.

    `limit`: final refusals until the channel stops asking; `None`: it never does. `renews_token`: each join
    has a fresh access token.
    """

    __slots__ = ("_final", "_limit", "_renews_token", "_token", "_was_about_token")

    def __init__(self, limit: int | None, *, renews_token: bool) -> None:
        self._limit = limit
        self._renews_token = renews_token
        self._final = 0
        self._token: object = _NONE  # of the join that was refused last
        self._was_about_token = False

    @property
    def are_final(self) -> bool:
        """Whether to stop asking."""
        return self._limit is not None and self._final >= self._limit

    def forget(self) -> None:
        """The join was accepted, or the application wants the channel to ask again."""
        self.token_changed()
        self._was_about_token = False

    def token_changed(self) -> None:
        """The next join has another access token."""
        self._final, self._token = 0, _NONE

    def add(self, reason: str, token: str | None) -> bool:
        """A join with this access token was refused. Returns whether the next one may soon be accepted."""
        self._token = token
        judged, was_about_token = verdict(reason), self._was_about_token
        # Supabase and most applications name the token then.
        self._was_about_token = _TOKEN.search(reason) is not None
        if self._was_about_token and self._renews_token:
            # It may have expired on its way. A second one in a row that is refused is no accident.
            self._final = 0
            return not was_about_token
        self._final = self._final + 1 if judged is Verdict.FINAL else 0
        return judged is Verdict.PASSING

    def had_other_token(self, token: str | None) -> bool:
        """Whether the last join was refused, with another access token than this one."""
        return self._token is not _NONE and self._token != token


_FIELDS = ("reason", "message", "error", "msg")
_DEPTH = 3  # levels of a response that are looked through for words


def words_of(response: Any) -> str | None:
    """The server's words in the response of a reply, or in the payload of a `phx_error` or `phx_close`.

    The response itself when it is a string; else the first string in it, where the fields `reason`,
    `message`, `error` and `msg` come before others. `None` when there are no words.
    """
    return _words(response, _DEPTH)


def _words(value: Any, depth: int) -> str | None:
    if isinstance(value, str):
        return value or None
    parts: list[Any] = []
    if isinstance(value, dict):
        parts = [value[name] for name in _FIELDS if name in value]
        parts += [part for name, part in value.items() if name not in _FIELDS]
    elif isinstance(value, list):
        parts = value
    if depth:
        for part in parts:
            words = _words(part, depth - 1)
            if words is not None:
                return words
    return None
