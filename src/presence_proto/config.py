"""Settings: frozen, validated when they are made, and without secrets in their repr. Times are seconds, sizes bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from attrs import Attribute, field, frozen

from presence_proto.errors import ConfigError

Vsn = Literal["1.0.0", "2.0.0"]
PresenceRule = Callable[[str, Any], "tuple[str, Mapping[str, Any]] | None"]
AuthorizeRule = Callable[[str, "str | None"], "str | None"]


# ---------------------------------------------------------------------------------------------- validators


def _positive(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigError(f"{attribute.name} must be a positive number, not {value!r}")


def _not_negative(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigError(f"{attribute.name} must be zero or a positive number, not {value!r}")


def _positive_int(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{attribute.name} must be a whole number of at least 1, not {value!r}")


def _fraction(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"{attribute.name} must be a number from 0 to 1, not {value!r}")


def _boolean(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{attribute.name} must be true or false, not {value!r}")


def _text(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{attribute.name} must be a non-empty string, not {value!r}")


def _secret(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        # The value stays out of the message: it may be a key of the wrong type.
        raise ConfigError(f"{attribute.name} must be a non-empty string or None, not {type(value).__name__}")


def _vsn(instance: object, attribute: Attribute[Any], value: Any) -> None:
    if value not in ("1.0.0", "2.0.0"):
        raise ConfigError(f"{attribute.name} must be '1.0.0' or '2.0.0', not {value!r}")


def _string_pairs(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = value.items() if isinstance(value, Mapping) else value
    return tuple((name, text) for name, text in pairs)


def _headers(instance: object, attribute: Attribute[Any], value: tuple[tuple[str, str], ...]) -> None:
    for name, text in value:
        if not isinstance(name, str) or not isinstance(text, str):
            raise ConfigError(f"{attribute.name} must map strings to strings")
        if not name.isascii() or not text.isascii() or "\r" in name + text or "\n" in name + text:
            raise ConfigError(f"{attribute.name}: {name!r} must be ASCII without line breaks")


def _params(instance: object, attribute: Attribute[Any], value: tuple[tuple[str, str], ...]) -> None:
    for name, text in value:
        if not isinstance(name, str) or not isinstance(text, str):
            raise ConfigError(f"{attribute.name} must map strings to strings")
        if name == "vsn":
            raise ConfigError(f"{attribute.name} must not hold 'vsn': set the vsn field")


def _redacted_url(url: str | None) -> str:
    """The URL without what may be a secret: no user info, no query."""
    if url is None:
        return "None"
    head, question_mark, _ = url.partition("?")
    scheme, separator, rest = head.rpartition("://")
    authority, slash, path = rest.partition("/")
    return repr(scheme + separator + authority.rpartition("@")[2] + slash + path + ("?…" if question_mark else ""))


# ---------------------------------------------------------------------------------------------- who and where


@frozen
class Identity:
    """Who we are: `user_id` is the presence key, `display_name` what others see, `access_token` a JWT or `None`."""

    user_id: str = field(validator=_text)
    display_name: str = field(validator=_text)
    access_token: str | None = field(default=None, repr=False, validator=_secret)


@frozen
class Address:
    """Where a client connects: a host and port, with TLS or not, and the request target of the upgrade."""

    host: str
    port: int
    tls: bool
    target: str = field(repr=False)  # the query holds the key

    @property
    def authority(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


_SCHEMES = {"ws": False, "http": False, "wss": True, "https": True}


@frozen(kw_only=True)
class RealtimeConfig:
    """How to reach a Phoenix or Supabase Realtime server, and how patient to be with it.

    Give `project_ref` (a Supabase project) or `server_url`. A `server_url` is a `ws://`, `wss://`, `http://` or
    `https://` URL: the socket's own URL ending in `/websocket`, or the mount that it lies under (`/socket`,
    `/realtime/v1`). A URL without a path means `/realtime/v1/websocket` when there is an `api_key` or the host is
    Supabase's, and `/socket/websocket` otherwise. Raises `ConfigError` for anything that cannot work.
    """

    server_url: str | None = field(default=None, repr=_redacted_url)
    project_ref: str | None = None
    api_key: str | None = field(default=None, repr=False, validator=_secret)
    access_token: str | None = field(default=None, repr=False, validator=_secret)
    params: tuple[tuple[str, str], ...] = field(
        default=(), repr=False, converter=_string_pairs, validator=_params
    )  # further query parameters of the URL; a mapping or pairs
    headers: tuple[tuple[str, str], ...] = field(
        default=(), repr=False, converter=_string_pairs, validator=_headers
    )  # further headers of the upgrade request; a mapping or pairs
    subprotocols: tuple[str, ...] = field(default=(), converter=tuple)
    token_param: str | None = "token"  # the query parameter that carries the access token; None: none does
    vsn: Vsn = field(default="2.0.0", validator=_vsn)
    deflate: bool = field(default=True, validator=_boolean)  # offer permessage-deflate

    heartbeat_interval: float = field(default=25.0, validator=_positive)
    heartbeat_timeout: float = field(default=10.0, validator=_positive)
    connect_timeout: float = field(default=10.0, validator=_positive)  # TCP, TLS and upgrade together
    join_timeout: float = field(default=10.0, validator=_positive)
    push_timeout: float = field(default=10.0, validator=_positive)
    state_timeout: float = field(default=10.0, validator=_positive)  # from a join to its presence_state
    close_timeout: float = field(default=5.0, validator=_positive)
    reconnect_delay: float = field(default=1.0, validator=_positive)
    max_reconnect_delay: float = field(default=30.0, validator=_positive)
    jitter: float = field(default=0.25, validator=_fraction)  # needs an rng, see RealtimeClient
    stable_after: float = field(default=5.0, validator=_positive)  # joined this long: the backoff starts over

    max_message_size: int = field(default=16 * 1024 * 1024, validator=_positive_int)
    max_channels: int = field(default=100, validator=_positive_int)
    max_pending_pushes: int = field(default=100, validator=_positive_int)  # pushes waiting for their join
    max_pending_diffs: int = field(default=10_000, validator=_positive_int)  # diffs waiting for their state
    max_roster: int = field(default=1_000_000, validator=_positive_int)  # keys of one channel's presence
    max_metas: int = field(default=10_000, validator=_positive_int)  # metas of one key

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
            if not all(c.isascii() and (c.isalnum() or c == "-") for c in self.project_ref) or not self.project_ref:
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
        params["vsn"] = self.vsn
        return Address(host, port, tls, f"{path}?{urlencode(params)}")

    def _split(self, url: str) -> tuple[str, int, bool, str, list[tuple[str, str]]]:
        # The URL itself stays out of the messages: its query may hold a key.
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise ConfigError(f"server_url is not a URL: {exc}") from None
        if parts.scheme not in _SCHEMES:
            raise ConfigError("server_url must start with ws://, wss://, http:// or https://")
        if not host:
            raise ConfigError("server_url must name a host")
        if parts.username is not None or parts.password is not None:
            raise ConfigError("server_url must not hold a user name or password: use headers")
        if parts.fragment:
            raise ConfigError("server_url must not hold a fragment (#…)")
        try:
            host = host if ":" in host else host.encode("idna").decode("ascii")
        except UnicodeError:
            raise ConfigError(f"server_url: {host!r} is not a host name") from None
        tls = _SCHEMES[parts.scheme]
        path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
        if not path:
            path = self._default_mount(host)
        if not path.endswith("/websocket"):
            path += "/websocket"
        return host, port or (443 if tls else 80), tls, path, parse_qsl(parts.query, keep_blank_values=True)


    def _default_mount(self, host: str) -> str:
        supabase = self.api_key is not None or host.endswith((".supabase.co", ".supabase.in"))
        return "/realtime/v1" if supabase else "/socket"


# ---------------------------------------------------------------------------------------------- channels


@frozen(kw_only=True)
class ChannelConfig:
    """How to join a Supabase Realtime channel (`realtime:…`). A plain Phoenix channel is joined with a mapping instead.

    `presence_key` names us in the presence; the server makes one up when it is empty. `track_limit` calls of track
    and untrack in `track_window` seconds are allowed before the server closes the channel (Supabase: 5 in 30 s);
    `None` for no limit.
    """

    broadcast_ack: bool = field(default=False, validator=_boolean)
    broadcast_self: bool = field(default=False, validator=_boolean)
    presence: bool = field(default=True, validator=_boolean)
    presence_key: str = ""
    private: bool = field(default=False, validator=_boolean)
    postgres_changes: Sequence[Mapping[str, Any]] = ()
    track_limit: int | None = 5
    track_window: float = field(default=30.0, validator=_positive)

    def __attrs_post_init__(self) -> None:
        if self.track_limit is not None and (isinstance(self.track_limit, bool) or self.track_limit < 1):
            raise ConfigError(f"track_limit must be at least 1 or None, not {self.track_limit!r}")


@frozen(kw_only=True)
class PresenceConfig(RealtimeConfig):
    """A `RealtimeConfig` for the Jarvis presence system: the channel that everybody meets in, and its budgets.

    A `server_url` without a path means `/realtime/v1/websocket`.
    """

    channel: str = field(default="jarvis-presence", validator=_text)
    track_limit: int | None = 5
    track_window: float = field(default=30.0, validator=_positive)
    command_timeout: float = field(default=30.0, validator=_positive)  # commands made offline expire after this

    def _default_mount(self, host: str) -> str:
        return "/realtime/v1"


# ---------------------------------------------------------------------------------------------- hub


def join_params_are_the_meta(topic: str, params: Any) -> tuple[str, Mapping[str, Any]] | None:
    """The default rule for plain Phoenix topics: `user_id` of the join's params is the key, the rest is the meta."""
    if not isinstance(params, Mapping) or not isinstance(params.get("user_id"), str):
        return None
    return params["user_id"], {name: value for name, value in params.items() if name != "user_id"}


def _key_set(keys: Iterable[str] | None) -> frozenset[str] | None:
    if isinstance(keys, str):
        raise ConfigError("api_keys must be a set of strings, not a string")
    return None if keys is None else frozenset(keys)


@frozen(kw_only=True)
class HubConfig:
    """The server side. The defaults suit development and tests.

    `api_keys`: what the `apikey` parameter of a `/realtime/…` URL must be one of; `None` accepts anything, also none.
    `presence_rule(topic, params)`: the presence key and meta of a join of a plain Phoenix topic, or `None` for no
    presence. `authorize(topic, token)`: why a Supabase join or token is refused, or `None` when it is fine.
    """

    api_keys: frozenset[str] | None = field(default=None, repr=False, converter=_key_set)
    presence_rule: PresenceRule = join_params_are_the_meta
    authorize: AuthorizeRule | None = None
    deflate: bool = field(default=False, validator=_boolean)  # accept permessage-deflate: 55 to 313 KB a connection
    handshake_timeout: float = field(default=10.0, validator=_positive)
    idle_timeout: float = field(default=60.0, validator=_positive)  # after the last frame from the client
    close_timeout: float = field(default=5.0, validator=_positive)
    presence_window: float = field(default=0.0, validator=_not_negative)  # diffs of this long go out as one
    presence_limit: int | None = None  # presence calls of one channel in 30 s before it is closed; Supabase has 5
    max_connections: int = field(default=10_000, validator=_positive_int)
    max_channels: int = field(default=100, validator=_positive_int)  # of one connection
    max_message_size: int = field(default=1024 * 1024, validator=_positive_int)
