"""Common part of all clients and channels, for any event loop.

A client has two bases. `AnyPresenceClient` or `AnyRealtimeClient` defines the commands and getters.
`AsyncClient` or `SocketClient` defines the driver and how callers wait.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from attrs import evolve

import presence_proto as core
from presence_adapters.access_tokens import with_token
from presence_adapters.connection_monitor import ConnectionMonitor
from presence_adapters.errors import left_already
from presence_adapters.event_queue import ReadMeter
from presence_adapters.notifications import OnNotification, who_and_where
from presence_adapters.recording import Recording
from presence_adapters.routing import Route, Routes, Waiter
from presence_adapters.tls_and_proxies import find_proxy

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Callable, Mapping

    from presence_adapters.access_tokens import TokenProvider
    from presence_adapters.recording import Record

T = TypeVar("T")
W = TypeVar("W", bound=Waiter)
Core = TypeVar("Core", bound=core.PresenceClient | core.RealtimeClient)


class AnyClient(ABC, Generic[Core]):
    """Base of all clients: a protocol core, and the driver that connects the core to the server."""

    _driver_type: ClassVar[type[Any]]
    _driver: Any  # of `_driver_type`

    def __init__(
        self,
        endpoint: Core,
        config: core.RealtimeConfig,
        recording: Recording,
        on_event: Callable[[Any], None],
        on_end: Callable[[Exception | None], None],
        *,
        meter: ReadMeter,
        ssl_context: ssl.SSLContext | None,
        proxy: str | None,
        access_token: TokenProvider | str | None,
    ) -> None:
        self._core = endpoint
        self._recording = recording
        self._driver = self._driver_type(
            endpoint,
            on_event,
            recording.until(on_end),
            ssl_context=ssl_context,
            proxy=find_proxy(proxy, config),
            linger=config.close_timeout,
            monitor=ConnectionMonitor(config.address().authority),
            meter=meter,
            **self._provider_options(access_token, config),
        )

    @property
    def is_connected(self) -> bool:
        """Whether the client is connected. Always false in a forked child process."""
        return self._core.is_connected and not self._driver.is_forked

    @property
    def latency(self) -> float | None:
        """Round-trip time of the latest heartbeat, in seconds; `None` before the first heartbeat."""
        return self._core.latency

    def _until_connected(self, waiter: W) -> W:
        """Return `waiter`, which finishes when the client is connected and fails when the client ends."""
        self._driver.check_running()
        if self.is_connected:
            waiter.set_result(None)
        else:
            self._driver.monitor.wait(waiter)
        return waiter

    @abstractmethod
    def _make_queue(self, limit: int, meter: ReadMeter) -> Any:
        """Return an instance of `EventQueue` or of a subclass."""

    @abstractmethod
    def _provider_options(
        self, access_token: TokenProvider | str | None, config: core.RealtimeConfig
    ) -> dict[str, Any]:
        """Return the driver options for the token provider."""


class AnyPresenceClient(AnyClient[core.PresenceClient]):
    """Common part of the `PresenceClient`s. The properties already reflect events that are still queued."""

    def __init__(
        self,
        identity: core.Identity | None = None,
        config: core.PresenceConfig | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        access_token: TokenProvider | str | None = None,
        max_queued_events: int = 10_000,
        rng: random.Random | None = None,
        online_at: str | None = None,
        record: Record | None = None,
        **settings: Any,
    ) -> None:
        identity, config = who_and_where(identity, config, settings)
        if access_token is not None:
            identity = evolve(identity, access_token=None)
        config = with_token(config, access_token)
        recording = Recording(record)
        self._events = events = self._make_queue(max_queued_events, ReadMeter())
        super().__init__(
            recording.presence_client(identity, config, rng, online_at),
            config,
            recording,
            events.put,
            events.close,
            meter=events.meter,
            ssl_context=ssl_context,
            proxy=proxy,
            access_token=access_token,
        )
        self.on_notification: OnNotification | None = None

    @property
    def identity(self) -> core.Identity:
        """The identity of the user, from the arguments of the constructor."""
        return self._core.identity

    @property
    def status(self) -> core.UserStatus:
        """The latest status that this client has set."""
        return self._core.status

    @property
    def activity(self) -> str | None:
        """The latest activity that this client has set, or `None`."""
        return self._core.activity

    @property
    def online_users(self) -> tuple[core.OnlineUser, ...]:
        """All users in the room. The user of this client is the first item."""
        return self._core.online_users

    @property
    def online_count(self) -> int:
        """Number of users in the room, including the user of this client."""
        return self._core.online_count

    @property
    def server_count(self) -> int | None:
        """Number of users that a Jarvis server last reported; `None` on Phoenix."""
        return self._core.server_count

    @property
    def pending_commands(self) -> frozenset[int]:
        """Ids of the commands that the server has not acknowledged or refused yet."""
        return self._core.pending_commands

    @property
    def is_stale(self) -> bool:
        """Whether the client is disconnected. The roster then shows the last known state."""
        return self._core.is_stale

    def user(self, user_id: str) -> core.OnlineUser | None:
        """Return the user with this id as shown to other users, or `None` if the user is not in the room."""
        return self._core.user(user_id)

    def is_user_stale(self, user_id: str) -> bool:
        """Whether the data of a user in the room may be out of date.

        The result is true for all users while `is_stale` is true. Otherwise the result is true only for users
        who were in the room before the server restarted and have not returned yet.
        """
        return self._core.is_user_stale(user_id)

    def device_count(self, user_id: str) -> int:
        """Return the number of online devices of a user.

        The number is 0 for users who are offline or stale, and for this client's user until other users
        can see this user. With a Jarvis server, the number is 1 for all other online users.
        """
        return self._core.device_count(user_id)


class AnyRealtimeClient(AnyClient[core.RealtimeClient]):
    """Common part of the `RealtimeClient`s."""

    _routes: Routes[Any]

    def __init__(
        self,
        config: core.RealtimeConfig,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        access_token: TokenProvider | str | None = None,
        max_queued_events: int = 10_000,
        rng: random.Random | None = None,
        record: Record | None = None,
    ) -> None:
        config = with_token(config, access_token)
        recording = Recording(record)
        endpoint = recording.realtime_client(config, rng)
        meter = ReadMeter()  # shared by all channels, because they share the connection
        self._routes = Routes(
            lambda: self._make_queue(max_queued_events, meter),
            lambda topic: self._driver.call(endpoint.leave, topic),
            lambda: self._driver.monitor.refusal,
        )
        self._events = self._routes.stream
        super().__init__(
            endpoint,
            config,
            recording,
            self._routes.handle,
            self._routes.end,
            meter=meter,
            ssl_context=ssl_context,
            proxy=proxy,
            access_token=access_token,
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """Topics that the client has joined and not left, oldest first."""
        return self._core.channels

    def _joining(
        self, topic: str, params: Mapping[str, Any] | core.ChannelConfig | None, joined: Waiter
    ) -> Callable[..., Route[Any]]:
        """Return a command that joins the topic and returns the `Route` of the topic."""

        def join(*, now: float) -> Route[Any]:
            self._core.join(topic, params, now=now)
            return self._routes.join(topic, joined)

        return join


class AnyChannel:
    """Common part of the `Channel`s. `params` are the parameters of the join."""

    _driver: Any

    def __init__(
        self,
        endpoint: core.RealtimeClient,
        driver: Any,
        routes: Routes[Any],
        route: Route[Any],
        params: Mapping[str, Any] | core.ChannelConfig | None,
    ) -> None:
        self.topic = route.topic  #: The topic that was passed to `join`.
        self._presence = endpoint.presence(route.topic)
        self._core = endpoint
        self._driver = driver
        self._routes = routes
        self._route = route
        self._is_acked = isinstance(params, core.ChannelConfig) and params.broadcast_ack

    def __repr__(self) -> str:
        return f"<Channel {self.topic!r}, {'joined' if self.is_joined else 'not joined'}>"

    @property
    def is_joined(self) -> bool:
        """Whether the channel is joined now. The client rejoins a lost channel automatically."""
        return not self._route.leaving and self._core.state_of(self.topic) is core.ChannelState.JOINED

    @property
    def is_synced(self) -> bool:
        """Whether `presence` matches the server's current state. `False`: `presence` is stale or unknown."""
        return not self._route.leaving and self._core.is_synced(self.topic)

    @property
    def response(self) -> Any:
        """The response from the server's reply to the latest join."""
        return self._route.response

    def _until_synced(self, waiter: W) -> W:
        """Return `waiter`. The waiter finishes when `is_synced`, and fails if the presence cannot arrive."""
        self._driver.check_running()
        if self.is_synced:
            waiter.set_result(None)
        else:
            self._routes.await_sync(self._route, waiter)
        return waiter

    def _on_topic(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> Callable[..., T]:
        """Return a command that runs `command` for the topic. Raises an exception if the topic was left."""

        def checked(*, now: float) -> T:
            if self._route.leaving:
                raise left_already(self.topic)
            return command(self.topic, *args, now=now, **kwargs)

        return checked

    def _pushing(
        self, answer: Waiter, push: Callable[..., int], *args: Any, **kwargs: Any
    ) -> Callable[..., None]:
        """Return a command that runs `push` for the topic. The server's reply finishes `answer`."""
        command = self._on_topic(push, *args, **kwargs)
        return lambda *, now: self._routes.expect_reply(command(now=now), answer)
