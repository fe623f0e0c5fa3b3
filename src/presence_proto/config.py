"""The settings classes, which are frozen, validated on creation, and have a repr without secrets.

Times are in seconds, sizes in bytes. `validators.py` has the checks of single values.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from attrs import field, frozen

from presence_proto import validators as check
from presence_proto.errors import ConfigError, LocalProtocolError
from presence_proto.json_text import DEFAULT_NESTING, decode, encode_payload
from presence_proto.secrets import header_secrets, hide_subprotocols, is_secret_name, subprotocol_secrets
from presence_proto.validators import MOST_NESTING
from presence_proto.version import USER_AGENT

# --------------------------------------------------------------------------------------------- channel config
# How to join a channel of Supabase Realtime.


@frozen(kw_only=True)
class BroadcastReplay:
    """A request for the stored broadcasts that a private Supabase channel sends after the join.

    The server sends the newest broadcasts that were stored at `since` or later, at most `limit` (1 to 25) of
    them. `since` is in milliseconds since 1970: `int(time.time() * 1000)` is the current time. If `since` is
    `None`, the server sends stored broadcasts of any age.
    """

    since: int | None = field(default=None, validator=check.epoch_ms_or_none)
    limit: int = field(default=25, validator=check.replay_limit)


def _replay(value: Any) -> BroadcastReplay | None:
    if value is None or isinstance(value, BroadcastReplay):
        return value
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise ConfigError(f"broadcast_replay must be a BroadcastReplay, a mapping or None, not {kind}")
    unknown = [name for name in value if name not in ("since", "limit")]
    if unknown:
        raise ConfigError(f"broadcast_replay accepts only since and limit, not {unknown[0]!r}")
    return BroadcastReplay(**value)


def _changes(value: Any) -> tuple[dict[str, Any], ...]:
    changes = check.as_tuple(value)
    if not isinstance(changes, tuple) or not all(isinstance(change, Mapping) for change in changes):
        raise ConfigError("postgres_changes must be a sequence of mappings")
    return tuple(_json_copy("postgres_changes", changes))


def _extra(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"extra must be a mapping, not {type(value).__name__}")
    copy: dict[str, Any] = _json_copy("extra", value)
    return copy


def _json_copy(name: str, value: Any) -> Any:
    """Return a copy of `value` in JSON's own types, which the application cannot change."""
    try:
        return decode(encode_payload(value), name, MOST_NESTING)
    except LocalProtocolError as exc:
        raise ConfigError(str(exc).replace("payload", name, 1)) from None


_JOIN_FIELDS = {
    ("broadcast", "ack"): "broadcast_ack",
    ("broadcast", "self"): "broadcast_self",
    ("broadcast", "replay"): "broadcast_replay",
    ("broadcast", "replication_ready"): "replication_ready",
    ("presence", "enabled"): "presence",
    ("presence", "key"): "presence_key",
    ("postgres_changes",): "postgres_changes",
    ("private",): "private",
}
"""The paths in Supabase's join config, each with the `ChannelConfig` field that sets it."""

_COMPARED = ("event", "schema", "table", "filter")


@frozen(kw_only=True)
class ChannelConfig:
    """Join settings of a Supabase Realtime channel (`realtime:…`). Plain Phoenix uses a mapping.

    `presence_key` is the client's key in the presence. If `presence_key` is empty, the server generates a
    key. The client makes at most `track_limit` calls of track and untrack in `track_window` seconds. A
    `track_limit` of `None` means no limit. Supabase closes a channel after more than 5 calls in 30 s. The
    default of `track_window` is 3 s longer, because the network may delay calls.

    `broadcast_replay` (a `BroadcastReplay`, or a mapping with its fields) asks a private channel for stored
    broadcasts. The `Broadcast.meta` of each stored broadcast is `{"replayed": True, "id": …}`. After a
    rejoin, the client drops broadcasts that it has already received. `replication_ready` asks for a
    `SystemMessage` as soon as the server listens to the database. `extra` is merged into the join config, for
    settings that `ChannelConfig` has no field for. The constructor raises `ConfigError` for values that the
    server would refuse, and if `extra` repeats a field.
    """

    broadcast_ack: bool = field(default=False, validator=check.boolean)
    broadcast_self: bool = field(default=False, validator=check.boolean)
    broadcast_replay: BroadcastReplay | None = field(default=None, converter=_replay)
    replication_ready: bool = field(default=False, validator=check.boolean)
    presence: bool = field(default=True, validator=check.boolean)
    presence_key: str = field(default="", validator=check.text_or_empty)
    private: bool = field(default=False, validator=check.boolean)
    postgres_changes: Sequence[Mapping[str, Any]] = field(default=(), converter=_changes)
    extra: Mapping[str, Any] = field(factory=dict, converter=_extra, hash=False)
    track_limit: int | None = field(default=5, validator=check.positive_int_or_none)
    track_window: float = field(default=33.0, validator=check.seconds)

    def __attrs_post_init__(self) -> None:
        if self.broadcast_replay is not None and not self.private:
            raise ConfigError("broadcast_replay needs private=True: only private channels replay broadcasts")
        for path, name in _JOIN_FIELDS.items():
            part: Any = self.extra
            for key in path[:-1]:
                part = part.get(key, {})
                if not isinstance(part, Mapping):
                    raise ConfigError(f"extra: {key} must be a mapping: the config adds its fields to it")
            if path[-1] in part:
                raise ConfigError(f"extra must not contain {'.'.join(path)!r}: set the field {name}")

    def join_config(self) -> dict[str, Any]:
        """Return the `config` object of Supabase's join payload."""
        presence: dict[str, Any] = {"enabled": self.presence, "key": self.presence_key}
        broadcast: dict[str, Any] = {"ack": self.broadcast_ack, "self": self.broadcast_self}
        replay = self.broadcast_replay
        if replay is not None:  # otherwise omit the key: the server refuses even null on a public channel
            broadcast["replay"] = {"since": replay.since or 0, "limit": replay.limit}
        if self.replication_ready:
            broadcast["replication_ready"] = True
        config: dict[str, Any] = {
            "broadcast": broadcast,
            "presence": presence,
            "postgres_changes": self.postgres_changes,
            "private": self.private,
        }
        for name, value in self.extra.items():
            # Only these two objects may hold keys from both the fields and extra, see _JOIN_FIELDS.
            config[name] = {**config[name], **value} if name in ("broadcast", "presence") else value
        return config

    def is_confirmed_by(self, response: Any) -> bool:
        """Whether the join's response has the requested `postgres_changes`, in the same order.

        The comparison uses the same fields as realtime-js. The server adds an id to each entry, and may fill
        in other fields.
        """
        if not self.postgres_changes:
            return True
        confirmed = response.get("postgres_changes") if isinstance(response, dict) else None
        if not isinstance(confirmed, list) or len(confirmed) != len(self.postgres_changes):
            return False
        return all(
            isinstance(change, dict) and all(change.get(name) == asked.get(name) for name in _COMPARED)
            for asked, change in zip(self.postgres_changes, confirmed, strict=True)
        )


# ----------------------------------------------------------------------------------------------------- config


Vsn = Literal["1.0.0", "2.0.0"]
ClientProtocol = Literal["phoenix", "jarvis"]
TokenIn = Literal["query", "subprotocol", "none"]

JARVIS_PORT = 8790
"""The default port of Jarvis JSON servers."""

AUTH_TOKEN_PREFIX = "base64url.bearer.phx."
"""The prefix of the WebSocket subprotocol that carries a Phoenix 1.8 `authToken`."""


def auth_token_subprotocol(token: str) -> str:
    """Return the subprotocol that carries a Phoenix `authToken`.

    phoenix.js and Phoenix encode the token in base64 with the standard alphabet and without padding, although
    the prefix is `base64url`.
    """
    return AUTH_TOKEN_PREFIX + b64encode(token.encode()).rstrip(b"=").decode()


def auth_token(subprotocols: Iterable[str]) -> str | None:
    """Return the `authToken` from the offered subprotocols, or `None` without a well-encoded token."""
    for name in subprotocols:
        if name.startswith(AUTH_TOKEN_PREFIX):
            encoded = name.removeprefix(AUTH_TOKEN_PREFIX)
            try:
                return b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode()
            except ValueError:  # not ASCII, not base64, or the decoded bytes are not UTF-8
                return None
    return None


_HOST_AND_PORT = re.compile(r"[\w.-]+:\d{1,5}(/|$)")


def _redacted_url(url: str | None) -> str:
    """Return the repr of the URL without user info and query, which may hold secrets."""
    if url is None:
        return "None"
    head, question_mark, _ = url.partition("?")
    scheme, separator, rest = head.rpartition("://")
    authority, slash, path = rest.partition("/")
    return repr(
        scheme + separator + authority.rpartition("@")[2] + slash + path + ("?…" if question_mark else "")
    )


# --------------------------------------------------------------------------------------- identity and address


@frozen
class Identity:
    """The user of a client. `user_id` is the presence key, `display_name` the name that other users see.

    `access_token` is a JSON Web Token (JWT), or `None`.
    """

    user_id: str = field(validator=check.text)
    display_name: str = field(validator=check.text)
    access_token: str | None = field(default=None, repr=False, validator=check.secret)


@frozen
class Address:
    """The address of a WebSocket server: host, port, whether to use TLS, and the upgrade's request target."""

    host: str
    port: int
    tls: bool
    target: str = field(repr=False)  # the query may hold credentials
    #: The subprotocols to offer in the upgrade request. One subprotocol may carry the access token.
    subprotocols: tuple[str, ...] = field(default=(), repr=False, kw_only=True)

    @property
    def authority(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


_SCHEMES = {"ws": False, "http": False, "wss": True, "https": True}
_PROJECT_REF = re.compile(r"[0-9A-Za-z-]{1,63}")
_SUPABASE_HOSTS = (".supabase.co", ".supabase.in")


@frozen(kw_only=True)
class RealtimeConfig:
    """Settings of a connection to a Phoenix or Supabase Realtime server: address, timeouts and limits.

    Set either `project_ref` (a Supabase project) or `server_url`. A `server_url` is a `ws://`, `wss://`,
    `http://` or `https://` URL. The path of `server_url` is the socket's path, which ends in `/websocket`, or
    the mount of the socket (`/socket`, `/realtime/v1`). A URL without a path means `/realtime/v1/websocket`
    if there is an `api_key` or the host is Supabase's, and `/socket/websocket` otherwise. The constructor
    raises `ConfigError` for settings that cannot work.
    """

    server_url: str | None = field(default=None, repr=_redacted_url)
    project_ref: str | None = None
    api_key: str | None = field(default=None, repr=False, validator=check.secret)
    access_token: str | None = field(default=None, repr=False, validator=check.secret)
    #: Additional query parameters of the URL, as a mapping or as pairs of strings.
    params: tuple[tuple[str, str], ...] = field(
        default=(), repr=False, converter=check.string_pairs, validator=check.params
    )
    #: Additional headers of the upgrade request, as a mapping or as pairs of strings.
    headers: tuple[tuple[str, str], ...] = field(
        default=(), repr=False, converter=check.string_pairs, validator=check.headers
    )
    #: The `User-Agent` of the upgrade request, unless `headers` has a `User-Agent`. `None` sends none.
    user_agent: str | None = field(default=USER_AGENT, validator=check.user_agent)
    subprotocols: tuple[str, ...] = field(
        default=(), repr=hide_subprotocols, converter=check.as_tuple, validator=check.subprotocols
    )
    #: Whether to request an access token (`AccessTokenNeeded`) before connects, joins and the token's expiry.
    asks_for_token: bool = field(default=False, validator=check.boolean)
    #: The maximum time for the application's answer to `AccessTokenNeeded`.
    access_token_timeout: float = field(default=30.0, validator=check.seconds)
    #: Where the upgrade request carries the access token: in the "query", as a "subprotocol" (Phoenix 1.8's
    #: `authToken`), or nowhere ("none"). `None` means "none" for Supabase servers, which read only the token
    #: of each join, and "query" for all other servers.
    token_in: TokenIn | None = field(default=None, validator=check.token_in)
    #: The name of the query parameter that carries the access token, if `token_in` is "query".
    token_param: str = field(default="token", validator=check.token_param)
    vsn: Vsn = field(default="2.0.0", validator=check.vsn)
    deflate: bool = field(default=True, validator=check.boolean)  #: offer permessage-deflate

    heartbeat_interval: float = field(default=25.0, validator=check.seconds)
    heartbeat_timeout: float = field(default=10.0, validator=check.seconds)
    connect_timeout: float = field(default=10.0, validator=check.seconds)  #: for TCP, TLS and upgrade
    join_timeout: float = field(default=10.0, validator=check.seconds)
    push_timeout: float = field(default=10.0, validator=check.seconds)
    state_timeout: float = field(default=10.0, validator=check.seconds)  #: from a join to its presence_state
    close_timeout: float = field(default=5.0, validator=check.seconds)
    reconnect_delay: float = field(default=1.0, validator=check.seconds)
    max_reconnect_delay: float = field(default=30.0, validator=check.seconds)
    jitter: float = field(default=0.25, validator=check.fraction)  #: no jitter without the client's `rng`
    #: A channel stops joining after this number of final refusals (Unauthorized, …) in a row. `None`: no
    #: limit.
    max_final_refusals: int | None = field(default=5, validator=check.positive_int_or_none)
    #: Whether to rejoin a channel that the server has closed. If false, the client leaves the channel.
    rejoin_after_close: bool = field(default=True, validator=check.boolean)
    #: The backoff starts again at `reconnect_delay` after a channel has been joined for this time.
    stable_after: float = field(default=5.0, validator=check.seconds)

    max_message_size: int = field(default=16 * 1024 * 1024, validator=check.positive_int)
    #: The maximum nesting of a received message, in levels of arrays and objects. The limit for a sent
    #: payload is 10 levels lower.
    max_nesting: int = field(default=DEFAULT_NESTING, validator=check.nesting)
    max_channels: int = field(default=100, validator=check.positive_int)
    #: The maximum number of pushes of one channel that wait for the join.
    max_pending_pushes: int = field(default=100, validator=check.positive_int)
    #: The maximum number of presence diffs of one channel that wait for the presence state.
    max_pending_diffs: int = field(default=10_000, validator=check.positive_int)
    #: The maximum size of the presence diffs of one channel that wait for the presence state, in bytes.
    max_pending_bytes: int = field(default=64 * 1024 * 1024, validator=check.positive_int)
    #: The maximum number of keys in the presence of one topic.
    max_roster: int = field(default=1_000_000, validator=check.positive_int)
    max_metas: int = field(default=10_000, validator=check.positive_int)  #: maximum number of metas per key

    def __attrs_post_init__(self) -> None:
        if (self.server_url is None) == (self.project_ref is None):
            raise ConfigError("give either server_url or project_ref")
        if self.max_reconnect_delay < self.reconnect_delay:
            raise ConfigError("max_reconnect_delay must be at least reconnect_delay")
        self.address(self.access_token)  # raises for a bad URL, or a token that cannot be sent as configured

    @property
    def payload_nesting(self) -> int:
        """The maximum nesting of a sent payload. The message around a payload adds up to 10 levels."""
        return self.max_nesting - 10

    def address(self, access_token: str | None = None) -> Address:
        """Return the address to connect to. The target carries `params`, `apikey` and `vsn`.

        The target or a subprotocol may carry the access token, as `token_in` describes. `address` raises
        `ConfigError` for settings that cannot work, and for a token that a subprotocol cannot carry.
        """
        query: list[tuple[str, str]] = []
        if self.project_ref is not None:
            if not isinstance(self.project_ref, str) or not _PROJECT_REF.fullmatch(self.project_ref):
                raise ConfigError(f"project_ref must be letters, digits and dashes, not {self.project_ref!r}")
            host, port, tls, path = f"{self.project_ref}.supabase.co", 443, True, "/realtime/v1/websocket"
        else:
            assert self.server_url is not None
            host, port, tls, path, query = self._split(self.server_url)
        params = self._params(query)
        token_in = self.token_in or self._default_token_in(host, path)
        if token_in != "query" and self.token_param != "token":
            raise ConfigError(
                "token_param has no effect without the access token in the URL: "
                "set token_in to 'query', or remove token_param"
            )
        subprotocols = self.subprotocols
        if token_in == "query" and (access_token is not None or self.asks_for_token):
            if any(name == self.token_param for name, _ in params):
                raise ConfigError(
                    f"the parameter {self.token_param!r} is for the access token, but server_url or params "
                    "set it, too: set the token in one place only, or set token_in to 'none'"
                )
            params += [] if access_token is None else [(self.token_param, access_token)]
        elif token_in == "subprotocol":
            subprotocols = self._with_auth_token(access_token)
        params += self._protocol_params().items()
        target = f"{path}?{urlencode(params)}" if params else path
        return Address(host, port, tls, target, subprotocols=subprotocols)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The credentials in these settings. `presence_proto.secrets` hides credentials in texts."""
        found = [secret for secret in (self.api_key, self.access_token) if secret is not None]
        query = parse_qsl(urlsplit(self.server_url or "").query)
        for name, value in (*query, *self.params):
            if is_secret_name(name) or name == self.token_param:
                found.append(value)
        for name, value in self.headers:
            found += header_secrets(name, value)
        for name in self.subprotocols:
            found += subprotocol_secrets(name)
        if (token := auth_token(self.subprotocols)) is not None:
            found.append(token)
        return tuple(found)

    def _params(self, query: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the query parameters except the access token and `vsn`. `query` is from `server_url`.

        Servers read one value per parameter name, usually the last value. Therefore, a setting that
        contradicts the URL is an error. But `server_url` alone, or `params` alone, may repeat a name: Phoenix
        converts `tag[]=1&tag[]=2` to a list.
        """
        for name, wanted in self._protocol_params().items():
            if any(found != wanted for one, found in query if one == name):
                raise ConfigError(f"server_url must have the same {name} as the {name} field, {wanted!r}")
            query = [pair for pair in query if pair[0] != name]
        for name in dict(self.params):
            if name in dict(query):
                raise ConfigError(f"server_url and params both set {name!r}: set it in one place only")
        params = [*query, *self.params]
        if self.api_key is not None:
            if any(name == "apikey" and value != self.api_key for name, value in params):
                raise ConfigError("the apikey in server_url or params differs from the api_key field")
            params = [pair for pair in params if pair[0] != "apikey"]
            params.append(("apikey", self.api_key))
        return params

    def _with_auth_token(self, token: str | None) -> tuple[str, ...]:
        if any(name.startswith(AUTH_TOKEN_PREFIX) for name in self.subprotocols):
            raise ConfigError(
                f"subprotocols must not contain {AUTH_TOKEN_PREFIX}… when token_in is 'subprotocol': "
                "set access_token instead"
            )
        if token is None:
            return self.subprotocols
        bearer = auth_token_subprotocol(token)
        if not check.is_token(bearer):
            # Base64 may contain "/", but a subprotocol must not (RFC 6455 §4.1). Browsers refuse "/", too.
            raise ConfigError("access_token cannot be sent as a subprotocol: its base64 contains a '/'")
        # phoenix.js offers exactly these two subprotocols, in this order. The server chooses the first one.
        return ("phoenix", bearer, *(name for name in self.subprotocols if name != "phoenix"))

    @property
    def request_headers(self) -> tuple[tuple[str, str], ...]:
        """The headers of the upgrade request, without the headers that the WebSocket handshake sets."""
        if self.user_agent is None or any(name.lower() == "user-agent" for name, _ in self.headers):
            return self.headers
        return (("User-Agent", self.user_agent), *self.headers)

    def _split(self, url: str) -> tuple[str, int, bool, str, list[tuple[str, str]]]:
        # Error messages do not quote the URL, because its query may hold a key.
        if not check.is_unicode(url):
            raise ConfigError("server_url must be a Unicode string")
        if url != url.strip() or not check.is_one_line(url):
            # urlsplit silently drops some of these characters, and keeps a trailing space in the path.
            raise ConfigError("server_url must not begin or end with spaces, or contain control characters")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigError("server_url is not a URL: its host or port is malformed") from None
        if parts.scheme not in _SCHEMES:
            # Quote the text only if it starts with a host and a port. Any other text may be a misplaced key.
            quoted = f", not {_redacted_url(url)}" if _HOST_AND_PORT.match(url) else ""
            raise ConfigError(f"server_url must start with ws://, wss://, http:// or https://{quoted}")
        if not host or port == 0:
            raise ConfigError("server_url must name a host, and its port must not be 0")
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
        """Return the path of the socket, which is the mount followed by `/websocket`."""
        path = path.rstrip("/") or self._default_mount(host)
        return path if path.endswith("/websocket") else path + "/websocket"

    def _default_mount(self, host: str) -> str:
        supabase = self.api_key is not None or host.endswith(_SUPABASE_HOSTS)
        return "/realtime/v1" if supabase else "/socket"

    def _default_token_in(self, host: str, path: str) -> TokenIn:
        """Return "none" for Supabase, which ignores a token in the URL: the token would only appear in
        logs."""
        supabase = path.endswith("/realtime/v1/websocket") or host.endswith(_SUPABASE_HOSTS)
        return "none" if supabase else "query"

    def _protocol_params(self) -> dict[str, str]:
        """Return the query parameters that the protocol itself requires."""
        return {"vsn": self.vsn}


# ---------------------------------------------------------------------------------------------- presence


@frozen(kw_only=True)
class PresenceConfig(RealtimeConfig):
    """A `RealtimeConfig` with the settings of a `PresenceClient`: the protocol, the room's channel, timeouts.

    `protocol` is `"phoenix"` (Supabase Realtime, the default) or `"jarvis"` (the Jarvis JSON protocol, which
    uses the path of `server_url` unchanged). If `protocol` is not set, a URL without a path on port 8790, the
    port of Jarvis servers, means `"jarvis"`. With `"phoenix"`, a `server_url` without a path gets the path
    `/realtime/v1/websocket`.
    """

    protocol: ClientProtocol | None = field(default=None, validator=check.protocol)

    channel: str = field(default="jarvis-presence", validator=check.text)
    #: Whether other users see this user. If false, the client sees the room and can send messages, but sends
    #: no presence.
    visible: bool = field(default=True, validator=check.boolean)
    track_limit: int | None = field(default=5, validator=check.positive_int_or_none)
    track_window: float = field(default=33.0, validator=check.seconds)
    #: The time after which a command that was called while the client is offline expires.
    command_timeout: float = field(default=30.0, validator=check.seconds)
    #: The maximum time that users who have not rejoined after a server restart stay in the roster. Such users
    #: stay about as long as this client was disconnected. 0 means that such users go offline at once.
    restart_grace: float = field(default=45.0, validator=check.seconds_or_zero)

    @property
    def speaks_jarvis(self) -> bool:
        """Whether the client uses the Jarvis JSON protocol."""
        if self.protocol is None and self.server_url is not None:
            parts = urlsplit(self.server_url)
            return parts.port == JARVIS_PORT and not parts.path.strip("/")
        return self.protocol == "jarvis"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.protocol == "jarvis" and self.project_ref is not None:
            raise ConfigError("protocol 'jarvis' needs a server_url: a Supabase project speaks 'phoenix'")
        if self.speaks_jarvis and self.token_in == "subprotocol":
            raise ConfigError(
                "token_in 'subprotocol' is for Phoenix: the Jarvis JSON protocol takes 'query' or 'none'"
            )

    def _complete(self, path: str, host: str) -> str:
        return (path or "/") if self.speaks_jarvis else super()._complete(path, host)

    def _default_mount(self, host: str) -> str:
        return "/realtime/v1"

    def _default_token_in(self, host: str, path: str) -> TokenIn:
        return "query" if self.speaks_jarvis else super()._default_token_in(host, path)

    def _protocol_params(self) -> dict[str, str]:
        return {} if self.speaks_jarvis else super()._protocol_params()
