"""The facts that a check-up collects. The module `faults` derives a diagnosis from the facts."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

from attrs import field, frozen

from presence_adapters.access_tokens import time_claim, unverified_claims


class CheckupStep(StrEnum):
    """The steps of a check-up, in order. Each step needs the results of the previous steps."""

    CONFIG = "config"
    DNS = "DNS"
    TCP = "TCP"
    PROXY = "proxy"
    TLS = "TLS"
    HANDSHAKE = "handshake"
    CLOCK = "clock"
    API_KEY = "api key"
    JOIN = "join"
    PRESENCE = "presence"
    HEARTBEAT = "heartbeat"


TlsTrouble: TypeAlias = Literal[
    "expired",
    "not yet valid",
    "self-signed",
    "unknown issuer",
    "other host",
    "bad certificate",
    "no TLS",
    "wants certificate",
    "closed",
    "silent",
    "other",
]

CLOCK_TOLERANCE = 60.0
"""Maximum difference of two clocks, in seconds: a `Date` has whole seconds, and takes time to arrive."""

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def in_units(seconds: float) -> str:
    """Return a duration as text, in the largest suitable unit, such as `3 hours`."""
    unit, size = next((pair for pair in _UNITS if abs(seconds) >= pair[1]), _UNITS[-1])
    count = round(abs(seconds) / size)
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


@frozen
class HttpAnswer:
    """An HTTP response. `is_html`: the body is a web page. `error`: the error message in a JSON body.

    `redirect`: the host in the `Location` header. `redirect_to_tls`: whether the URL in the `Location` header
    starts with `https://` or `wss://`. `date`: the `Date` header in seconds since 1970.
    """

    status: int
    is_html: bool = False
    redirect: str | None = None
    redirect_to_tls: bool = False
    error: str = ""
    date: float | None = None


@frozen
class Claims:
    """Unverified claims of a JWT. Times are seconds since 1970."""

    expires: float | None = None
    starts: float | None = None  # the later of `iat` and `nbf`
    project: str | None = None  # project ref in a Supabase key (`ref`)


@frozen(kw_only=True)
class Facts:
    """The facts that a check-up knows so far. Unknown facts have their defaults. No fact contains a secret.

    `now`: the local time in seconds since 1970. `clock_ahead`: the number of seconds by which the local clock
    is ahead of the server's clock.
    """

    host: str = ""
    port: int = 0
    tls: bool = False
    path: str = "/"
    protocol: Literal["phoenix", "jarvis"] = "phoenix"
    channel: str = ""
    timeout: float = 10.0
    now: float = 0.0

    problems: tuple[str, ...] = ()  # problems of the settings
    disabled_by: str | None = None  # source of the setting `enabled = false`
    proxy: str | None = None  # `host:port`
    proxy_refusal: Literal["login", "unreachable", "forbidden"] | None = None
    tunnel_is_open: bool = False
    has_key: bool = False
    key: Claims = field(factory=Claims)
    token: Claims = field(factory=Claims)

    unknown_name: bool = False  # DNS: the host name does not exist
    refused: bool = False  # TCP: the connection was refused
    silent: bool = False  # the server or proxy did not answer in time
    ended: bool = False  # the server or proxy closed the connection
    tls_trouble: TlsTrouble | None = None
    clock_ahead: float | None = None
    speaks_tls: bool = False  # the server expects TLS, but the URL has no TLS
    answer: HttpAnswer | None = None
    speaks_http: bool = True
    refusal: str | None = None  # the server's reason for refusing the join or closing the channel
    unreadable: bool = False  # the server's messages do not fit the protocol
    detail: str = ""  # error text of the system or the server

    @property
    def where(self) -> str:
        """Host and port of the server, as text."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def sends_to_tls(self) -> bool:
        """Whether the server redirects plain HTTP to TLS on the same host."""
        answer = self.answer
        return answer is not None and not self.tls and answer.redirect == self.host and answer.redirect_to_tls

    @property
    def sends_elsewhere(self) -> bool:
        """Whether the server redirects to another host."""
        return self.answer is not None and self.answer.redirect not in (None, self.host)

    @property
    def project(self) -> str | None:
        """The ref of the Supabase project that the host belongs to, or `None` for other hosts."""
        for domain in (".supabase.co", ".supabase.in"):
            if self.host.endswith(domain):
                return self.host.removesuffix(domain)
        return None

    @property
    def needs_another_key(self) -> bool:
        """Whether the host is a Supabase project, and the API key is missing or names another project."""
        if self.project is None:
            return False
        return not self.has_key or self.key.project not in (None, self.project)

    @property
    def clock_is_off(self) -> bool:
        """Whether the local and the server clock differ by more than `CLOCK_TOLERANCE`."""
        return self.clock_ahead is not None and abs(self.clock_ahead) > CLOCK_TOLERANCE

    @property
    def clock_words(self) -> str:
        """The error of the local clock in words, such as `3 hours ahead`."""
        ahead = self.clock_ahead or 0.0
        return f"{in_units(ahead)} {'ahead' if ahead > 0 else 'behind'}"

    @property
    def server_now(self) -> float:
        """The current time, by the server's clock if known, otherwise by the local clock."""
        return self.now - (self.clock_ahead or 0.0)

    def has_expired(self, claims: Claims) -> bool:
        """Whether a JWT has expired by the server's clock."""
        return claims.expires is not None and claims.expires <= self.server_now

    def is_early(self, claims: Claims) -> bool:
        """Whether a JWT becomes valid more than `CLOCK_TOLERANCE` from now, by the server's clock."""
        return claims.starts is not None and claims.starts > self.server_now + CLOCK_TOLERANCE

    def says(self, *words: str) -> bool:
        """Whether the server's refusal of the join contains any of `words` (lower case)."""
        return self.refusal is not None and any(word in self.refusal.lower() for word in words)


# ----------------------------------------------------------------------------------------------------- claims
# A function that reads the claims of a JWT that the diagnosis needs.


def claims_of(token: str | None) -> Claims:
    """Return the unverified claims of a JWT. The claims are empty if `token` is not a JWT."""
    claims = unverified_claims(token or "")
    starts = [time for name in ("iat", "nbf") if (time := time_claim(claims, name)) is not None]
    ref = claims.get("ref")
    return Claims(time_claim(claims, "exp"), max(starts, default=None), ref if isinstance(ref, str) else None)
