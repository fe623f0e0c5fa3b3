"""Refusals by the server: the texts of refusals, and whether the server may accept a refused join later."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Any


class Verdict(Enum):
    """A forecast for a refused join: whether the server may accept the join later."""

    PASSING = auto()  # the server is starting or overloaded, and may accept the same join soon
    FINAL = auto()  # the server will refuse the same join again
    UNKNOWN = auto()


# Each reason is a Supabase reason up to the colon (realtime_channel.ex, `join/3`), or a whole Phoenix reason
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
        "ChannelRateLimitReached",  # final until this client leaves a channel
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
        "unauthorized",  # from channels that Phoenix's generators create
        "unmatched topic",
    }
)
_TOKEN = re.compile("jwt|token", re.IGNORECASE)
_NONE = object()


def verdict(reason: str) -> Verdict:
    """Return whether the server may later accept a join that was refused with this reason."""
    code = reason.partition(":")[0]
    if code in _PASSING:
        return Verdict.PASSING
    return Verdict.FINAL if code in _FINAL else Verdict.UNKNOWN


class Refusals:
    """The consecutive refusals of one channel's joins, and the consequences for the next join.

    `limit` is the number of final refusals after which the channel stops joining. With a `limit` of `None`,
    the channel never stops joining. `renews_token` means that each join has a fresh access token.
    """

    __slots__ = ("_final", "_limit", "_renews_token", "_token", "_was_about_token")

    def __init__(self, limit: int | None, *, renews_token: bool) -> None:
        self._limit = limit
        self._renews_token = renews_token
        self._final = 0
        self._token: object = _NONE  # access token of the last refused join
        self._was_about_token = False

    @property
    def are_final(self) -> bool:
        """Whether the channel stops joining."""
        return self._limit is not None and self._final >= self._limit

    def forget(self) -> None:
        """Forget all refusals: a join was accepted, or the application wants the channel to join again."""
        self.token_changed()
        self._was_about_token = False

    def token_changed(self) -> None:
        """Reset the count of final refusals, because the next join has another access token."""
        self._final, self._token = 0, _NONE

    def add(self, reason: str, token: str | None) -> bool:
        """Count a refused join with this access token. Returns whether the server may accept a join soon."""
        self._token = token
        judged, was_about_token = verdict(reason), self._was_about_token
        # If the token is the problem, Supabase and most applications mention the token in the reason.
        self._was_about_token = _TOKEN.search(reason) is not None
        if self._was_about_token and self._renews_token:
            # The token may have expired in transit. A second refusal in a row has another cause.
            self._final = 0
            return not was_about_token
        self._final = self._final + 1 if judged is Verdict.FINAL else 0
        return judged is Verdict.PASSING

    def had_other_token(self, token: str | None) -> bool:
        """Whether the last join was refused and had another access token than `token`."""
        return self._token is not _NONE and self._token != token


_FIELDS = ("reason", "message", "error", "msg")
_DEPTH = 3  # maximum number of levels of a response to search for a text


def words_of(response: Any) -> str | None:
    """Return the server's text in a reply's response, or in the payload of a `phx_error` or `phx_close`.

    The text is the response if the response is a string, and otherwise the first string in the response. The
    fields `reason`, `message`, `error` and `msg` take precedence. Returns `None` without a text.
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
