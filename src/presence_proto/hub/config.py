"""The settings of a hub: frozen, and validated on creation. Times are in seconds, sizes in bytes."""

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
    """The default `presence_rule`: return the param `user_id` as presence key, and the others as meta.

    The meta has no `access_token`, which only the hub reads (see `HubConfig.authorize`). Without a string
    `user_id` there is no presence.
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
    """Settings of a hub, the server side. The defaults suit development and tests.

    - `protocol`: with `"both"`, paths that end in `/websocket` speak Phoenix, all others Jarvis JSON. With
      `"phoenix"`, requests for other paths get status 404. With `"jarvis"`, every path speaks Jarvis JSON.
    - `api_keys`: the legal values of `apikey` in `/realtime/…` and Jarvis URLs. `None` accepts any value, or
      no key. With keys, only clients on these URLs can join `realtime:…` topics.
    - `presence_rule(topic, params)`: returns the presence key and meta for a join of a plain Phoenix topic,
      or `None` for no presence.
    - `authorize(request)`: answers a `JoinRequest` (topic, token, presence key) for each join and each later
      Supabase token. `None` accepts, a string is the reason of a refusal, `Allow(key=…)` sets another key.
      The token is the payload's `access_token`. A plain Phoenix join without one uses the connection's token:
      Phoenix's `authToken`, or `token` in the URL. A Jarvis `connect` counts as a join of
      `realtime:jarvis-presence`, and may also use `token` in the URL. A rule of two arguments,
      `authorize(topic, token)`, does not receive the key, so accepted clients may take any key. With a rule,
      broadcasts of the Jarvis system must have their sender's presence key as `user_id`.
    - `allowed_origins`: the web pages that may connect, besides pages of the hub's own host, and loopback
      pages if that host is loopback: `"https://example.com"`, `"https://*.example.com"` for all its
      subdomains, `"null"` for files and sandboxes, `"*"` for all. Programs send no `Origin` and may always
      connect.
    - `allowed_hosts`: the legal `Host` values of a page's request, besides loopback and the hosts of
      `allowed_origins`. `None` allows any. `HubServer` replaces `None` with an empty list when it listens on
      loopback, which stops DNS rebinding.
    - `private_rule(topic, token)`: what a client may do on a Supabase channel joined with `private: true`; it
      replaces the database's policies. `"write"` allows everything, `"read"` refuses tracks and drops
      broadcasts, `None` refuses the join. Without a rule, clients may write.
    - `wall_clock()`: returns the `ts` text of Jarvis messages, by convention ISO 8601 in UTC. It must not
      raise. The core has no wall clock: without this function, `ts` is null.

    If a rule raises, the hub refuses the join with the reason `join crashed`. Rules run in the hub's event
    loop and block it, so they should take microseconds.
    """

    protocol: HubProtocol = field(default="both", validator=check.hub_protocol)
    api_keys: frozenset[str] | None = field(default=None, repr=False, converter=_key_set)
    allowed_origins: tuple[str, ...] = field(default=(), converter=origin_list)
    allowed_hosts: tuple[str, ...] | None = field(default=None, converter=host_list)
    presence_rule: PresenceRule = join_params_are_the_meta
    authorize: AuthorizeRule | None = field(default=None, converter=authorize_rule)
    private_rule: PrivateRule | None = None
    wall_clock: Callable[[], str] | None = None
    #: Accept permessage-deflate, which takes about 45 KB of memory per connection.
    deflate: bool = field(default=False, validator=check.boolean)
    handshake_timeout: float = field(default=10.0, validator=check.seconds)
    #: A Phoenix connection ends this long after its last frame, or after the last 512 bytes of a long frame.
    idle_timeout: float = field(default=60.0, validator=check.seconds)
    #: A Jarvis connection ends this long after the client's last message.
    eviction_timeout: float = field(default=90.0, validator=check.seconds)
    #: A Jarvis user who reconnects within this time is not reported offline.
    offline_grace: float = field(default=10.0, validator=check.seconds_or_zero)
    close_timeout: float = field(default=5.0, validator=check.seconds)
    #: The hub collects presence changes for this long after the first one and sends them as one diff. 0: the
    #: hub sends each change at once.
    presence_window: float = field(default=0.1, validator=check.seconds_or_zero)
    #: Duration of a Phoenix join. Joins of one connection run one after the other. Meanwhile the hub handles
    #: no other message of that connection, not even a heartbeat.
    join_delay: float = field(default=0.0, validator=check.seconds_or_zero)
    #: Additional delay before the hub answers a refused join. Supabase waits 5 s.
    refusal_delay: float = field(default=0.0, validator=check.seconds_or_zero)
    #: Delay before the hub refuses a handshake with status 401. Supabase waits 2 s.
    handshake_refusal_delay: float = field(default=0.0, validator=check.seconds_or_zero)
    #: How `shutdown` ends sockets on Supabase's mount. "phoenix": with close code 1012. "supabase": with
    #: `phx_error` for each channel, and the end of the stream after `close_timeout`.
    shutdown_like: ShutdownLike = field(default="phoenix", validator=check.shutdown_like)
    #: The most presence calls of one Supabase channel in 30 s. The next call closes the channel. Supabase's
    #: limit is 5.
    presence_limit: int | None = field(default=None, validator=check.positive_int_or_none)
    #: The most messages per second from one connection, averaged over 10 s to permit bursts. The next message
    #: closes its Supabase channel. If the message belongs to no Supabase channel, it closes the connection
    #: with code 1008. Jarvis clients get an `error` instead. Supabase's limit is 100.
    message_rate: int | None = field(default=None, validator=check.positive_int_or_none)
    #: The most joins per second of one connection, averaged over 10 s. The next join is refused. Supabase's
    #: limit is 100.
    join_rate: int | None = field(default=None, validator=check.positive_int_or_none)
    #: The most deliveries per second of one connection's messages, averaged over 10 s. A broadcast counts
    #: once per receiver, and once more per receiver for each 4 KiB. The next delivery closes the Supabase
    #: channel; other clients get an error.
    delivery_rate: int | None = field(default=None, validator=check.positive_int_or_none)
    max_connections: int = field(default=10_000, validator=check.positive_int)
    #: The most connections from one IPv4 address, or from one IPv6 /64 network.
    max_connections_per_address: int | None = field(default=None, validator=check.positive_int_or_none)
    max_channels: int = field(default=100, validator=check.positive_int)  #: the most of one connection
    max_message_size: int = field(default=1024 * 1024, validator=check.positive_int)
    #: The most bytes of a Supabase broadcast. Supabase's limit is 3,000 KB, and 5,000,000 bytes for a whole
    #: message.
    max_payload_size: int = field(default=3_000_000, validator=check.positive_int)
    #: The most bytes of a tracked payload as JSON, with its presence key. Supabase's limit is 3,000 KB.
    max_meta_size: int = field(default=64 * 1024, validator=check.positive_int)
    #: The most bytes of presence in one topic. The hub adds 256 bytes for each meta.
    max_topic_size: int = field(default=16 * 1024 * 1024, validator=check.positive_int)
    #: The most bytes that the hub stores for one connection: its metas and the names of its channels.
    max_connection_size: int = field(default=1024 * 1024, validator=check.positive_int)
    #: The most bytes that the hub stores for all connections together.
    max_total_size: int = field(default=256 * 1024 * 1024, validator=check.positive_int)
    #: The most bytes of a user id or a display name in the Jarvis JSON protocol.
    max_name_size: int = field(default=256, validator=check.positive_int)
    #: The most bytes of an activity, a game or an invite code in the Jarvis JSON protocol.
    max_text_size: int = field(default=1024, validator=check.positive_int)
    #: The most levels of arrays and objects in a sent message. Clients' messages may have 5 levels fewer.
    max_nesting: int = field(default=DEFAULT_NESTING, validator=check.nesting)
    #: The most arrays, objects and commas in a client's message of more than 32 KiB. A message with more is
    #: malformed.
    max_elements: int = field(default=50_000, validator=check.positive_int)

    @property
    def message_nesting(self) -> int:
        """The most levels of a client's message. Presence wraps a tracked payload in up to 5 more levels."""
        return self.max_nesting - 5

    def listening_on(self, host: str) -> HubConfig:
        """Return the config of a hub that listens on this name or address: a loopback hub checks the `Host`.

        Only an `allowed_hosts` of `None` is replaced.
        """
        if self.allowed_hosts is not None or not is_loopback(host):
            return self
        return evolve(self, allowed_hosts=())
