"""Admission of connections: the answers to upgrade requests, and the limits on the number of connections."""

from __future__ import annotations

import json
from collections import Counter
from hmac import compare_digest
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from attrs import field, frozen

from presence_proto.config import AUTH_TOKEN_PREFIX, auth_token
from presence_proto.errors import RemoteProtocolError
from presence_proto.hub.origins import page_fault
from presence_proto.serializer import Serializer, serializer_for

if TYPE_CHECKING:
    from presence_proto.hub.config import HubConfig
    from presence_proto.websocket import HandshakeRequest


# -------------------------------------------------------------------------------------------------- handshake
# The hub answers an upgrade request with an `Admission` or a `Refusal`.


_SUPABASE = "/realtime/v1/websocket"
_PHOENIX = "/websocket"
_JSON = (("content-type", "application/json; charset=utf-8"),)


@frozen
class Admission:
    """An accepted upgrade request.

    `serializer` is the serializer of a Phoenix socket, or `None` for a Jarvis JSON connection. `realtime`
    says whether the client may join Supabase topics: no API key is required, or the request has a valid key.
    `supabase` says whether the path is Supabase's. `token` is the access token of the connection, from
    Phoenix's `authToken` subprotocol or from the URL.
    """

    path: str
    serializer: Serializer | None
    subprotocol: str | None
    realtime: bool
    supabase: bool
    token: str | None = field(repr=False)


@frozen
class Refusal:
    """The HTTP answer to a refused upgrade request."""

    status: int
    reason: str
    body: bytes = b""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The HTTP headers that describe the body, or an empty tuple without a body."""
        return _JSON if self.body else ()


TOO_MANY = Refusal(429, "too many connections", b'{"error":"Too many connected users"}')
STOPPING = Refusal(503, "the server is stopping")


def judge(request: HandshakeRequest, config: HubConfig) -> Admission | Refusal:
    """Accept or refuse an upgrade request with the same rules as Phoenix and Supabase.

    The function first refuses requests from web pages that are not allowed. A Jarvis connection requires the
    API key, like a connection to Supabase's path, because Jarvis users join a Supabase topic.
    """
    fault = page_fault(request.headers, config.allowed_origins, config.allowed_hosts)
    if fault is not None:
        return Refusal(403, fault, json.dumps({"error": fault}).encode())
    path, _, query = request.target.partition("?")
    params = dict(parse_qsl(query, keep_blank_values=True))
    api_keys = config.api_keys
    jarvis = config.protocol == "jarvis" or (config.protocol == "both" and not path.endswith(_PHOENIX))
    supabase = not jarvis and path.endswith(_SUPABASE)
    serializer = None
    if not jarvis:
        if not path.endswith(_PHOENIX):
            return Refusal(404, "no such path")
        try:
            serializer = serializer_for(params.get("vsn"), server=True, max_nesting=config.message_nesting)
        except RemoteProtocolError:
            return Refusal(403, "unknown vsn")
    if (jarvis or supabase) and api_keys is not None:
        key = dict(request.headers).get("x-api-key") or params.get("apikey")
        if not key:
            return Refusal(401, "no API key", b'{"error":"API key is missing"}')
        if not _is_known(key, api_keys):
            return Refusal(401, "wrong API key", b'{"error":"API key is invalid"}')
    subprotocol = None if jarvis else _subprotocol(request.subprotocols)
    bearer = None if subprotocol is None else auth_token(request.subprotocols)
    token = params.get("token") if bearer is None else bearer
    realtime = jarvis or supabase or api_keys is None
    return Admission(path, serializer, subprotocol, realtime, supabase, token)


def _is_known(key: str, api_keys: frozenset[str]) -> bool:
    # Compare with every key, each in constant time: the duration must not reveal anything about the keys.
    matches = [compare_digest(key.encode(), known.encode()) for known in api_keys]
    return any(matches)


def _subprotocol(offered: tuple[str, ...]) -> str | None:
    # A browser that offers subprotocols expects the answer to name one of them. Phoenix selects `phoenix`,
    # and only if the browser offers a token as well.
    bearer = any(name.startswith(AUTH_TOKEN_PREFIX) for name in offered)
    return "phoenix" if bearer and "phoenix" in offered else None


# ----------------------------------------------------------------------------------------------------- places


TOO_MANY_HERE = Refusal(
    429, "too many connections from this address", b'{"error":"Too many connections from this address"}'
)


class Places:
    """Counters of transports and of admitted connections: in total, and per address.

    The limit for transports is twice the limit for connections. Therefore, transports in their handshake do
    not keep other clients out, and a client above the limit receives an HTTP refusal. The counters per
    address are used only if `max_connections_per_address` is set and the driver passes the address.
    """

    __slots__ = ("_admitted", "_admitted_from", "_limit", "_limit_from", "_opened", "_opened_from")

    def __init__(self, config: HubConfig) -> None:
        self._limit = config.max_connections
        self._limit_from = config.max_connections_per_address
        self._opened = self._admitted = 0
        self._opened_from: Counter[str] = Counter()
        self._admitted_from: Counter[str] = Counter()

    def open(self, address: str | None) -> Refusal | None:
        """Count a new transport, or return a refusal if the limit for transports is reached."""
        if self._opened >= 2 * self._limit:
            return TOO_MANY
        if address is not None and self._limit_from is not None:
            if self._opened_from[address] >= 2 * self._limit_from:
                return TOO_MANY_HERE
            self._opened_from[address] += 1
        self._opened += 1
        return None

    def admit(self, address: str | None) -> Refusal | None:
        """Count a transport as a connection, or return a refusal if the limit for connections is reached."""
        if self._admitted >= self._limit:
            return TOO_MANY
        if address is not None and self._limit_from is not None:
            if self._admitted_from[address] >= self._limit_from:
                return TOO_MANY_HERE
            self._admitted_from[address] += 1
        self._admitted += 1
        return None

    def leave(self, address: str | None, *, admitted: bool) -> None:
        """Remove a transport from the counters."""
        self._opened -= 1
        self._admitted -= admitted
        if address is not None and self._limit_from is not None:
            _take_one(self._opened_from, address)
            if admitted:
                _take_one(self._admitted_from, address)


def _take_one(counts: Counter[str], address: str) -> None:
    counts[address] -= 1
    if not counts[address]:
        del counts[address]
