"""Settings: frozen, validated when they are made, and without secrets in their repr.

Times are seconds, sizes bytes. What a value must be, `validators.py` says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit

from attrs import field, frozen

from presence_proto import validators as check
from presence_proto.errors import ConfigError

Vsn = Literal["1.0.0", "2.0.0"]
PresenceRule = Callable[[str, Any], "tuple[str, Mapping[str, Any]] | None"]
AuthorizeRule = Callable[[str, "str | None"], "str | None"]
Wire = Literal["phoenix", "jarvis"]
HubWire = Literal["both", "phoenix", "jarvis"]

JARVIS_PORT = 8790
"""The default port of servers of the Jarvis JSON protocol."""


def _redacted_url(url: str | None) -> str:
    """The URL without what may be a secret: no user info, no query."""
    if url is None:
        return "None"
    head, question_mark, _ = url.partition("?")
    scheme, separator, rest = head.rpartition("://")
    authority, slash, path = rest.partition("/")
    return repr(
        scheme + separator + authority.rpartition("@")[2] + slash + path + ("?…" if question_mark else "")
    )


# ---------------------------------------------------------------------------------------------- who and where


@frozen
class Identity:
    """Who we are: `user_id` is the presence key, `display_name` what others see.

    `access_token` is a JWT, or `None`.
    """

    user_id: str = field(validator=check.text)
    display_name: str = field(validator=check.text)
    access_token: str | None = field(default=None, repr=False, validator=check.secret)


@frozen
class Address:
    """Where a client connects: a host and port, with TLS or not, and the request target of the upgrade."""

    host: str
    port: int
    tls: bool
    target: str = field(repr=False)  # the query holds the key
    secrets: tuple[str, ...] = field(default=(), repr=False)  # what of it no event may show

    @property
    def authority(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def redacted(self, text: str) -> str:
        """`text` without what is secret here, for a server's own words may quote it."""
        for secret in self.secrets:
            text = text.replace(secret, "…")
        return text


_SCHEMES = {"ws": False, "http": False, "wss": True, "https": True}
_PROJECT_REF = re.compile(r"[0-9A-Za-z-]{1,63}")
_SECRET_LENGTH = 6
"""Shorter query parameters are not redacted: they are no secrets, and their text may stand anywhere."""


@frozen(kw_only=True)
class RealtimeConfig:
    """How to reach a Phoenix or Supabase Realtime server, and how patient to be with it.

    Give `project_ref` (a Supabase project) or `server_url`. A `server_url` is a `ws://`, `wss://`,
    `http://` or `https://` URL: the socket's own URL ending in `/websocket`, or the mount that it lies
    under (`/socket`, `/realtime/v1`). A URL without a path means `/realtime/v1/websocket` when there is an
    `api_key` or the host is Supabase's, and `/socket/websocket` otherwise. Raises `ConfigError` for
    anything that cannot work.
    """

    server_url: str | None = field(default=None, repr=_redacted_url)
    project_ref: str | None = None
    api_key: str | None = field(default=None, repr=False, validator=check.secret)
    access_token: str | None = field(default=None, repr=False, validator=check.secret)
    #: Further query parameters of the URL; a mapping or pairs.
    params: tuple[tuple[str, str], ...] = field(
        default=(), repr=False, converter=check.string_pairs, validator=check.params
    )
    #: Further headers of the upgrade request; a mapping or pairs.
    headers: tuple[tuple[str, str], ...] = field(
        default=(), repr=False, converter=check.string_pairs, validator=check.headers
    )
    subprotocols: tuple[str, ...] = field(default=(), converter=check.as_tuple, validator=check.subprotocols)
    #: Ask for an access token (AccessTokenNeeded) before connects, joins and its expiry.
    asks_for_token: bool = field(default=False, validator=check.boolean)
    access_token_timeout: float = field(default=30.0, validator=check.seconds)  #: for the answer to that
    #: The query parameter that carries the access token; None: none does.
    token_param: str | None = field(default="token", validator=check.token_param)
    vsn: Vsn = field(default="2.0.0", validator=check.vsn)
    deflate: bool = field(default=True, validator=check.boolean)  #: offer permessage-deflate

    heartbeat_interval: float = field(default=25.0, validator=check.seconds)
    heartbeat_timeout: float = field(default=10.0, validator=check.seconds)
    connect_timeout: float = field(default=10.0, validator=check.seconds)  #: TCP, TLS and upgrade together
    join_timeout: float = field(default=10.0, validator=check.seconds)
    push_timeout: float = field(default=10.0, validator=check.seconds)
    state_timeout: float = field(default=10.0, validator=check.seconds)  #: from a join to its presence_state
    close_timeout: float = field(default=5.0, validator=check.seconds)
    reconnect_delay: float = field(default=1.0, validator=check.seconds)
    max_reconnect_delay: float = field(default=30.0, validator=check.seconds)
    jitter: float = field(default=0.25, validator=check.fraction)  #: needs an rng, see RealtimeClient
    #: Joined this long: the backoff starts over.
    stable_after: float = field(default=5.0, validator=check.seconds)

    max_message_size: int = field(default=16 * 1024 * 1024, validator=check.positive_int)
    max_channels: int = field(default=100, validator=check.positive_int)
    #: Pushes waiting for their join.
    max_pending_pushes: int = field(default=100, validator=check.positive_int)
    #: Diffs waiting for their state.
    max_pending_diffs: int = field(default=10_000, validator=check.positive_int)
    max_roster: int = field(default=1_000_000, validator=check.positive_int)  #: keys of one topic's presence
    max_metas: int = field(default=10_000, validator=check.positive_int)  #: metas of one key

    def __attrs_post_init__(self) -> None:
        if (self.server_url is None) == (self.project_ref is None):
            raise ConfigError("give either server_url or project_ref")
        if self.max_reconnect_delay < self.reconnect_delay:
            raise ConfigError("max_reconnect_delay must be at least reconnect_delay")
        self.address()  # raises what is wrong with the URL

    def address(self, access_token: str | None = None) -> Address:
        """The address to connect to; the target carries `params`, `apikey`, the access token and `vsn`."""
        query: list[tuple[str, str]] = []
        if self.project_ref is not None:
            if not isinstance(self.project_ref, str) or not _PROJECT_REF.fullmatch(self.project_ref):
                raise ConfigError(f"project_ref must be letters, digits and dashes, not {self.project_ref!r}")
            host, port, tls, path = f"{self.project_ref}.supabase.co", 443, True, "/realtime/v1/websocket"
        else:
            assert self.server_url is not None
            host, port, tls, path, query = self._split(self.server_url)
        # Later ones win: a setting of its own beats what stands in the URL.
        params = dict([*query, *self.params])
        if self.api_key is not None:
            params["apikey"] = self.api_key
        if access_token is not None and self.token_param is not None:
            params[self.token_param] = access_token
        values = [*params.values(), *(word for _, value in self.headers for word in value.split())]
        secrets = {value for value in values if len(value) >= _SECRET_LENGTH}
        secrets |= {value for value in (self.api_key, access_token) if value is not None}
        secrets |= {quote_plus(secret) for secret in secrets} | {quote(secret) for secret in secrets}
        params |= self._protocol_params()
        longest_first = sorted(secrets, key=lambda secret: (-len(secret), secret))
        target = f"{path}?{urlencode(params)}" if params else path
        return Address(host, port, tls, target, tuple(longest_first))

    def _split(self, url: str) -> tuple[str, int, bool, str, list[tuple[str, str]]]:
        # The URL itself stays out of the messages: its query may hold a key.
        if not check.is_unicode(url):
            raise ConfigError("server_url must be a Unicode string")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigError("server_url is not a URL: its host or port is malformed") from None
        if parts.scheme not in _SCHEMES:
            raise ConfigError("server_url must start with ws://, wss://, http:// or https://")
        if not host or port == 0:
            raise ConfigError("server_url must name a host, and a port other than 0 or none")
        if parts.username is not None or parts.password is not None:
            raise ConfigError("server_url must not hold a user name or password: use headers")
        if parts.fragment:
            raise ConfigError("server_url must not hold a fragment (#…)")
        try:
            host = check.host_name(host)
        except ConfigError as exc:
            raise ConfigError(f"server_url: {exc}") from None
        tls = _SCHEMES[parts.scheme]
        path = quote(parts.path, safe="/%:@!$&'()*+,;=~")
        query = parse_qsl(parts.query, keep_blank_values=True)
        return host, port or (443 if tls else 80), tls, self._complete(path, host), query

    def _complete(self, path: str, host: str) -> str:
        """The path of the socket itself."""
        path = path.rstrip("/") or self._default_mount(host)
        return path if path.endswith("/websocket") else path + "/websocket"

    def _default_mount(self, host: str) -> str:
        supabase = self.api_key is not None or host.endswith((".supabase.co", ".supabase.in"))
        return "/realtime/v1" if supabase else "/socket"

    def _protocol_params(self) -> dict[str, str]:
        """The query parameters that the protocol itself wants."""
        return {"vsn": self.vsn}


# ---------------------------------------------------------------------------------------------- channels


@frozen(kw_only=True)
class ChannelConfig:
    """How to join a Supabase Realtime channel (`realtime:…`). Plain Phoenix takes a mapping instead.

    `presence_key` names us in the presence; the server makes one up when it is empty. `track_limit` calls
    of track and untrack are made in `track_window` seconds; `None` for no limit. Supabase closes a channel
    after more than 5 in 30 s: the default leaves 3 s for calls that take their time on the way.
    """

    broadcast_ack: bool = field(default=False, validator=check.boolean)
    broadcast_self: bool = field(default=False, validator=check.boolean)
    presence: bool = field(default=True, validator=check.boolean)
    presence_key: str = field(default="", validator=check.text_or_empty)
    private: bool = field(default=False, validator=check.boolean)
    postgres_changes: Sequence[Mapping[str, Any]] = field(
        default=(), converter=check.as_tuple, validator=check.mappings
    )
    track_limit: int | None = field(default=5, validator=check.positive_int_or_none)
    track_window: float = field(default=33.0, validator=check.seconds)


@frozen(kw_only=True)
class PresenceConfig(RealtimeConfig):
    """A `RealtimeConfig` for the Jarvis presence system: the channel where everybody meets, and its budgets.

    `wire` is the protocol: `"phoenix"` (Supabase Realtime, the default) or `"jarvis"` (the Jarvis JSON
    protocol, which takes the `server_url` as it is). A URL without a path on port 8790, which is that
    protocol's own, means `"jarvis"` unless `wire` says otherwise; on `"phoenix"` a URL without a path means
    `/realtime/v1/websocket`.
    """

    wire: Wire | None = field(default=None, validator=check.wire)

    channel: str = field(default="jarvis-presence", validator=check.text)
    #: Whether we are in the room for others. False: we see it and speak in it, and are in nobody's roster.
    visible: bool = field(default=True, validator=check.boolean)
    track_limit: int | None = field(default=5, validator=check.positive_int_or_none)
    track_window: float = field(default=33.0, validator=check.seconds)
    #: Commands made offline expire after this.
    command_timeout: float = field(default=30.0, validator=check.seconds)

    @property
    def speaks_jarvis(self) -> bool:
        """Whether the protocol is the Jarvis JSON protocol."""
        if self.wire is None and self.server_url is not None:
            parts = urlsplit(self.server_url)
            return parts.port == JARVIS_PORT and not parts.path.strip("/")
        return self.wire == "jarvis"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.wire == "jarvis" and self.project_ref is not None:
            raise ConfigError("wire 'jarvis' needs a server_url: a Supabase project speaks 'phoenix'")

    def _complete(self, path: str, host: str) -> str:
        return (path or "/") if self.speaks_jarvis else super()._complete(path, host)

    def _default_mount(self, host: str) -> str:
        return "/realtime/v1"

    def _protocol_params(self) -> dict[str, str]:
        return {} if self.speaks_jarvis else super()._protocol_params()


# ---------------------------------------------------------------------------------------------- hub


def join_params_are_the_meta(topic: str, params: Any) -> tuple[str, Mapping[str, Any]] | None:
    """The default rule of plain Phoenix topics: `user_id` of the join's params is the key, the rest the
    meta. An `access_token` is for the hub (see `HubConfig.authorize`) and stays with it."""
    if not isinstance(params, Mapping) or not isinstance(params.get("user_id"), str):
        return None
    private = ("user_id", "access_token")
    return params["user_id"], {name: value for name, value in params.items() if name not in private}


def _key_set(keys: Iterable[str] | None) -> frozenset[str] | None:
    if isinstance(keys, str):
        raise ConfigError("api_keys must be a set of strings, not a string")
    return None if keys is None else frozenset(keys)


@frozen(kw_only=True)
class HubConfig:
    """The server side. The defaults suit development and tests.

    `wire`: which protocols are spoken. With `"both"`, Phoenix on paths that end in `/websocket` and Jarvis
    JSON on all others; with `"phoenix"` the others are not found; with `"jarvis"` every path is Jarvis'.
    `api_keys`: what the `apikey` parameter of a `/realtime/…` URL, and of one for Jarvis, must be one of;
    `None` accepts anything, also none. With keys, `realtime:…` topics can be joined at such URLs only.
    `presence_rule(topic, params)`: the presence key and meta of a join of a plain Phoenix topic, or `None`
    for no presence. `authorize(topic, token)`: why a join, or a later Supabase token, is refused, or `None`
    when it is fine; `token` is the `access_token` of the payload, if there is one. A `connect` of Jarvis is
    a join of `realtime:jarvis-presence`, whose token may also be the `token` of the URL. A rule that raises
    refuses: `join crashed`. `wall_clock()`: the text that Jarvis messages carry as `ts`, by convention ISO
    8601 in UTC; it must not raise. The core has no clock of that kind: without this one `ts` is null.
    """

    wire: HubWire = field(default="both", validator=check.hub_wire)
    api_keys: frozenset[str] | None = field(default=None, repr=False, converter=_key_set)
    presence_rule: PresenceRule = join_params_are_the_meta
    authorize: AuthorizeRule | None = None
    wall_clock: Callable[[], str] | None = None
    #: Accept permessage-deflate: about 45 KB a connection.
    deflate: bool = field(default=False, validator=check.boolean)
    handshake_timeout: float = field(default=10.0, validator=check.seconds)
    #: Of Phoenix, after the last bytes from the client.
    idle_timeout: float = field(default=60.0, validator=check.seconds)
    #: Of Jarvis, after the last message from the client.
    eviction_timeout: float = field(default=90.0, validator=check.seconds)
    #: How long a Jarvis user may be away and come back unnoticed.
    offline_grace: float = field(default=10.0, validator=check.seconds_or_zero)
    close_timeout: float = field(default=5.0, validator=check.seconds)
    #: Changes of presence go out as one diff when this has passed since the first; with 0 each at once.
    presence_window: float = field(default=0.1, validator=check.seconds_or_zero)
    #: Presence calls of one Supabase channel in 30 s; one more closes it. Supabase has 5.
    presence_limit: int | None = field(default=None, validator=check.positive_int_or_none)
    max_connections: int = field(default=10_000, validator=check.positive_int)
    max_channels: int = field(default=100, validator=check.positive_int)  #: of one connection
    max_message_size: int = field(default=1024 * 1024, validator=check.positive_int)
