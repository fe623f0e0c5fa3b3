"""What a check-up finds out, before anybody says what it means."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

from attrs import field, frozen

from presence_adapters.access_tokens import time_claim, unverified_claims


class CheckupStep(StrEnum):
    """The steps of a check-up, in their order. Each needs those before it."""

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
    "closed",
    "silent",
    "other",
]

CLOCK_TOLERANCE = 60.0
"""Seconds. What two clocks may differ by: a `Date` header is a whole second, and takes its time to come."""

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def in_units(seconds: float) -> str:
    """A time for people, in its largest unit: `3 hours`."""
    unit, size = next((pair for pair in _UNITS if abs(seconds) >= pair[1]), _UNITS[-1])
    count = round(abs(seconds) / size)
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


@frozen
class HttpAnswer:
    """An HTTP answer. `is_html`: it is a web page. `error`: what its body says is wrong. `redirect`: the host
    that its `Location` names, and `redirect_to_tls`: whether that is an `https://` or `wss://` URL.
    """

    status: int
    is_html: bool = False
    redirect: str | None = None
    redirect_to_tls: bool = False
    error: str = ""


@frozen
class Claims:
    """What a JWT says about itself, unverified. Times are seconds since 1970."""

    expires: float | None = None
    starts: float | None = None  # the later one of issued and not-before
    project: str | None = None  # of a Supabase key


@frozen(kw_only=True)
class Facts:
    """What is known. What no step has found out yet is `None` or false. No text here holds a secret.

    `now`: our wall clock, seconds since 1970. `clock_ahead`: seconds that it is ahead of the server's.
    """

    host: str = ""
    port: int = 0
    tls: bool = False
    path: str = "/"
    protocol: Literal["phoenix", "jarvis"] = "phoenix"
    channel: str = ""
    timeout: float = 10.0
    now: float = 0.0

    problems: tuple[str, ...] = ()  # of the settings
    disabled_by: str | None = None  # where it is set that presence is not wanted
    proxy: str | None = None  # `host:port`
    proxy_refusal: Literal["login", "unreachable", "forbidden"] | None = None
    tunnel_is_open: bool = False
    has_key: bool = False
    key: Claims = field(factory=Claims)
    token: Claims = field(factory=Claims)

    unknown_name: bool = False  # the name server says that there is none
    refused: bool = False  # the connection
    silent: bool = False  # nothing came in time
    ended: bool = False  # the other side closed the connection
    tls_trouble: TlsTrouble | None = None
    clock_ahead: float | None = None
    speaks_tls: bool = False  # on a port where we spoke plain text
    answer: HttpAnswer | None = None
    speaks_http: bool = True
    refusal: str | None = None  # of the join, in the server's words
    unreadable: bool = False  # what it said is not the protocol that we speak
    detail: str = ""  # words of the system or the server

    @property
    def where(self) -> str:
        """The server, for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def sends_to_tls(self) -> bool:
        """Whether the server has answered plain text with the way to TLS on the same host."""
        answer = self.answer
        return answer is not None and not self.tls and answer.redirect == self.host and answer.redirect_to_tls

    @property
    def sends_elsewhere(self) -> bool:
        """Whether the answer sends us to another host."""
        return self.answer is not None and self.answer.redirect not in (None, self.host)

    @property
    def project(self) -> str | None:
        """The Supabase project that the host belongs to."""
        for domain in (".supabase.co", ".supabase.in"):
            if self.host.endswith(domain):
                return self.host.removesuffix(domain)
        return None

    @property
    def needs_another_key(self) -> bool:
        """Whether the api key is none, or says itself that it is not for this Supabase project."""
        if self.project is None:
            return False
        return not self.has_key or self.key.project not in (None, self.project)

    @property
    def clock_is_off(self) -> bool:
        """Whether our clock and the server's differ by too much."""
        return self.clock_ahead is not None and abs(self.clock_ahead) > CLOCK_TOLERANCE

    @property
    def clock_words(self) -> str:
        """How our clock is off."""
        ahead = self.clock_ahead or 0.0
        return f"{in_units(ahead)} {'ahead' if ahead > 0 else 'behind'}"

    @property
    def server_now(self) -> float:
        """The time by the server's clock, or else by ours."""
        return self.now - (self.clock_ahead or 0.0)

    def has_expired(self, claims: Claims) -> bool:
        """Whether a JWT is over by the server's clock."""
        return claims.expires is not None and claims.expires <= self.server_now

    def is_early(self, claims: Claims) -> bool:
        """Whether a JWT is not valid yet by the server's clock."""
        return claims.starts is not None and claims.starts > self.server_now + CLOCK_TOLERANCE

    def says(self, *words: str) -> bool:
        """Whether the server's refusal of the join holds any of these."""
        return self.refusal is not None and any(word in self.refusal.lower() for word in words)


# ----------------------------------------------------------------------------------------------------- claims
# What stands in a JWT, as the diagnosis asks for it.


def claims_of(token: str | None) -> Claims:
    """What a JWT says about itself. Nothing, if it is none."""
    claims = unverified_claims(token or "")
    starts = [time for name in ("iat", "nbf") if (time := time_claim(claims, name)) is not None]
    ref = claims.get("ref")
    return Claims(time_claim(claims, "exp"), max(starts, default=None), ref if isinstance(ref, str) else None)
