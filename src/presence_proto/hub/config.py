"""The settings of a hub, which are frozen and validated on creation. Times are in seconds, sizes in bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from attrs import evolve, field, frozen

from presence_proto import validators as check
from presence_proto.errors import ConfigError
from presence_proto.hub.authorization import AuthorizeRule, authorize_rule
from presence_proto.hub.origins import host_list, is_loopback, origin_list
from presence_proto.json_text import DEFAULT_NESTING

HubProtocol = Literal["both", "phoenix", "jarvis"]
PresenceRule = Callable[[str, Any], "tuple[str, Mapping[str, Any]] | None"]
PrivateRule = Callable[[str, "str | None"], Literal["read", "write", None]]
ShutdownLike = Literal["phoenix", "supabase"]


def join_params_are_the_meta(topic: str, params: Any) -> tuple[str, Mapping[str, Any]] | None:
    """The default `presence_rule`: return the param `user_id` as presence key, and the other params as meta.

    The param `access_token` is not part of the meta, because only the hub reads it (see
    `HubConfig.authorize`). Without a string `user_id`, the function returns `None`: the client has no
    presence.
    """
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
    """Settings of a `Hub`, the server side. The defaults suit development and tests.

    - `protocol`: `"both"` serves Phoenix on paths that end in `/websocket`, and Jarvis JSON on all other
      paths. `"phoenix"` answers requests for all other paths with status 404. `"jarvis"` serves Jarvis JSON
      on every path.
    - `api_keys`: the legal values of `apikey` in `/realtime/…` and Jarvis URLs. `None` accepts requests with
      any key or without a key. If `api_keys` is set, only clients on these URLs can join `realtime:…` topics.
    - `presence_rule(topic, params)`: returns the presence key and the meta for a join of a plain Phoenix
      topic, or `None` if the client has no presence.
    - `authorize(request)`: answers a `JoinRequest` (topic, token, presence key) for each join and each later
      Supabase token. The result `None` accepts the join, a string is the reason of a refusal, and
      `Allow(key=…)` accepts the join with another key. The token is the payload's `access_token`. A plain
      Phoenix join without `access_token` uses the connection's token: Phoenix's `authToken`, or `token` in
      the URL. A Jarvis `connect` counts as a join of `realtime:jarvis-presence`, and may also use `token` in
      the URL. A rule of two arguments, `authorize(topic, token)`, does not receive the key, so accepted
      clients may take any key. If `authorize` is set, the `user_id` in a broadcast of the Jarvis system must
      be its sender's presence key.
    - `allowed_origins`: the origins of web pages that may connect, such as `"https://example.com"`,
      `"https://*.example.com"` for all subdomains, `"null"` for files and sandboxes, or `"*"` for all pages.
      Pages of the hub's own host may always connect, and so may loopback pages if that host is loopback.
      Programs send no `Origin` header and may always connect.
    - `allowed_hosts`: the legal `Host` values of a page's request, besides loopback names and the hosts of
      `allowed_origins`. `None` allows any `Host`. `HubServer` replaces `None` with an empty list when the
      server listens on loopback, which stops DNS rebinding.
    - `private_rule(topic, token)`: returns the permission of a client on a Supabase channel joined with
      `private: true`, in place of the database's policies. `"write"` allows everything, `"read"` refuses
      tracks and drops broadcasts, and `None` refuses the join. Without this rule, clients may write.
    - `wall_clock()`: returns the `ts` text of Jarvis messages, by convention ISO 8601 in UTC. The function
      must not raise an exception. Without this function, `ts` is null, because the core has no wall clock.

    If a rule raises, the hub refuses the join with the reason `join crashed`. Rules run in the hub's event
    loop and block the loop, so a call should take only microseconds.
    """

    protocol: HubProtocol = field(default="both", validator=check.hub_protocol)
    api_keys: frozenset[str] | None = field(default=None, repr=False, converter=_key_set)
    allowed_origins: tuple[str, ...] = field(default=(), converter=origin_list)
    allowed_hosts: tuple[str, ...] | None = field(default=None, converter=host_list)
    presence_rule: PresenceRule = join_params_are_the_meta
    authorize: AuthorizeRule | None = field(default=None, converter=authorize_rule)
    private_rule: PrivateRule | None = None
    wall_clock: Callable[[], str] | None = None
    #: Whether to accept permessage-deflate, which takes about 45 KB of memory per connection.
    deflate: bool = field(default=False, validator=check.boolean)
    handshake_timeout: float = field(default=10.0, validator=check.seconds)
    #: Time from the last frame of a Phoenix connection, or the last 512 bytes of a long frame, to the end of
    #: the connection.
    idle_timeout: float = field(default=60.0, validator=check.seconds)
    #: Time from the client's last message to the end of a Jarvis connection.
    eviction_timeout: float = field(default=90.0, validator=check.seconds)
    #: A Jarvis user who reconnects within this time is not reported offline.
    offline_grace: float = field(default=10.0, validator=check.seconds_or_zero)
    close_timeout: float = field(default=5.0, validator=check.seconds)
    #: Time for which the hub collects presence changes after the first change, to send all changes as one
    #: diff. With 0, the hub sends each change at once.
    presence_window: float = field(default=0.1, validator=check.seconds_or_zero)
    #: Duration of a Phoenix join. Joins of one connection run one after the other. During a join, the hub
    #: handles no other message of that connection, not even a heartbeat.
    join_delay: float = field(default=0.0, validator=check.seconds_or_zero)
    #: Additional delay before the hub answers a refused join. Supabase waits 5 s.
    refusal_delay: float = field(default=0.0, validator=check.seconds_or_zero)
    #: Delay before the hub refuses a handshake with status 401. Supabase waits 2 s.
    handshake_refusal_delay: float = field(default=0.0, validator=check.seconds_or_zero)
    #: How `shutdown` ends connections to Supabase's path. "phoenix" sends close code 1012. "supabase" sends
    #: `phx_error` for each channel, and ends the stream after `close_timeout`.
    shutdown_like: ShutdownLike = field(default="phoenix", validator=check.shutdown_like)
    #: Maximum number of presence calls of one Supabase channel in 30 s. A further call closes the channel.
    #: Supabase's limit is 5.
    presence_limit: int | None = field(default=None, validator=check.positive_int_or_none)
    #: Maximum number of messages per second from one connection, averaged over 10 s to permit bursts. A
    #: message above the limit closes its Supabase channel. If the message belongs to no Supabase channel, the
    #: hub closes the connection with code 1008. Jarvis clients get an `error` instead. Supabase's limit is
    #: 100.
    message_rate: int | None = field(default=None, validator=check.positive_int_or_none)
    #: Maximum number of joins per second of one connection, averaged over 10 s. The hub refuses joins above
    #: the limit. Supabase's limit is 100.
    join_rate: int | None = field(default=None, validator=check.positive_int_or_none)
    #: Maximum number of deliveries per second of one connection's messages, averaged over 10 s. A broadcast
    #: counts once per receiver, and once more per receiver for each 4 KiB. A delivery above the limit closes
    #: the Supabase channel. Clients of other protocols get an error.
    delivery_rate: int | None = field(default=None, validator=check.positive_int_or_none)
    max_connections: int = field(default=10_000, validator=check.positive_int)
    #: Maximum number of connections from one IPv4 address, or from one IPv6 /64 network.
    max_connections_per_address: int | None = field(default=None, validator=check.positive_int_or_none)
    max_channels: int = field(default=100, validator=check.positive_int)  #: maximum per connection
    max_message_size: int = field(default=1024 * 1024, validator=check.positive_int)
    #: Maximum size of a Supabase broadcast in bytes. Supabase's limit is 3,000 KB for a broadcast, and
    #: 5,000,000 bytes for a whole message.
    max_payload_size: int = field(default=3_000_000, validator=check.positive_int)
    #: Maximum size in bytes of a tracked payload as JSON, with its presence key. Supabase's limit is 3,000
    #: KB.
    max_meta_size: int = field(default=64 * 1024, validator=check.positive_int)
    #: Maximum size in bytes of all metas and presence keys in one topic. The hub adds 256 bytes for each
    #: meta.
    max_topic_size: int = field(default=16 * 1024 * 1024, validator=check.positive_int)
    #: Maximum number of bytes that the hub stores for one connection: its metas and the names of its
    #: channels.
    max_connection_size: int = field(default=1024 * 1024, validator=check.positive_int)
    #: Maximum number of bytes that the hub stores for all connections together.
    max_total_size: int = field(default=256 * 1024 * 1024, validator=check.positive_int)
    #: Maximum size in bytes of a user id or a display name in the Jarvis JSON protocol.
    max_name_size: int = field(default=256, validator=check.positive_int)
    #: Maximum size in bytes of an activity, a game or an invite code in the Jarvis JSON protocol.
    max_text_size: int = field(default=1024, validator=check.positive_int)
    #: Maximum nesting of arrays and objects in a sent message. The maximum for clients' messages is 5 levels
    #: lower.
    max_nesting: int = field(default=DEFAULT_NESTING, validator=check.nesting)
    #: Maximum number of arrays, objects and commas in a client's message of more than 32 KiB. A message above
    #: the limit is malformed.
    max_elements: int = field(default=50_000, validator=check.positive_int)

    @property
    def message_nesting(self) -> int:
        """Maximum nesting of a client's message. Presence wraps a tracked payload in up to 5 more levels."""
        return self.max_nesting - 5

    def listening_on(self, host: str) -> HubConfig:
        """Return the config for a hub that listens on `host`. A loopback hub checks the `Host` header.

        For a loopback `host`, `allowed_hosts` becomes an empty tuple if its value is `None`.
        """
        if self.allowed_hosts is not None or not is_loopback(host):
            return self
        return evolve(self, allowed_hosts=())
