"""Common part of the clients on plain sockets: `blocking` and `stepped`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from attrs import evolve

import presence_proto as core
from presence_adapters.access_tokens import plain_provider, with_token
from presence_adapters.connecting import find_proxy
from presence_adapters.connection_monitor import ConnectionMonitor
from presence_adapters.errors import forked, left_already
from presence_adapters.event_queue import EventQueue, EventsDropped, ReadMeter
from presence_adapters.notifications import OnNotification, logged, notification, who_and_where
from presence_adapters.recording import Recording
from presence_adapters.room_view import RoomView
from presence_adapters.routing import Route, Routes
from presence_adapters.socket_driver import SocketDriver
from presence_adapters.wall_clock import utc_now

if TYPE_CHECKING:
    import random
    import ssl
    from collections.abc import Callable, Mapping

    from presence_adapters.access_tokens import TokenProvider
    from presence_adapters.recording import Record

T = TypeVar("T")
Event = TypeVar("Event")
Core = TypeVar("Core", bound=core.PresenceClient | core.RealtimeClient)


class PendingReply:
    """`Waiter` of `routing` for one reply. It holds the result or the error once one of them is known."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._result: Any = None
        self._is_done = False

    def done(self) -> bool:
        return self._is_done

    def set_result(self, result: Any, /) -> None:
        self._result, self._is_done = result, True

    def set_exception(self, exception: Exception, /) -> None:
        self.error, self._is_done = exception, True

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self._result


class SocketRunner(Generic[Core]):
    """A core and its driver on a plain socket. A client and its channels use it to run commands."""

    def __init__(
        self, endpoint: Core, driver: SocketDriver, monitor: ConnectionMonitor, how_to_start: str
    ) -> None:
        self.core = endpoint
        self.driver = driver
        self.monitor = monitor
        self._how_to_start = how_to_start
        self.process: int | None = None
        """Id of the process that started the client; `None` before the start."""

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from the process that started the client and owns the socket."""
        return self.process not in (None, os.getpid())

    def check(self) -> None:
        """Raise `LocalProtocolError` before the start, and in a forked process."""
        if self.process is None:
            raise core.LocalProtocolError(f"the client is not running yet: {self._how_to_start}")
        self.check_process()

    def check_process(self) -> None:
        """Raise `LocalProtocolError` in a forked process."""
        if self.is_forked:
            raise core.LocalProtocolError(forked("client"))

    def check_running(self) -> None:
        """Raise as `check` does, and raise `ConnectError` after the end of the client."""
        self.check()
        if self.driver.ended:
            raise self.monitor.ended()

    def command(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a command of the core when the driver takes more data. Raises as `check_running` does."""
        self.check_running()
        self.driver.make_room()
        self.check_running()
        return self.driver.call(command, *args, **kwargs)


class SocketClient(Generic[Core, Event]):
    """Client on a plain socket: a core, its driver and its event queue."""

    _how_to_start: ClassVar[str] = "enter it with `with`"
    _make_driver: ClassVar[type[SocketDriver]] = SocketDriver

    def __init__(
        self,
        endpoint: Core,
        events: EventQueue[Event],
        on_event: Callable[[Event], None],
        on_end: Callable[[Exception | None], None],
        config: core.RealtimeConfig,
        ssl_context: ssl.SSLContext | None,
        proxy: str | None,
        access_token: TokenProvider | str | None,
        recording: Recording,
    ) -> None:
        self._core = endpoint
        self._events = events
        self._monitor = ConnectionMonitor(config.address().authority)
        self._recording = recording
        self._driver = self._make_driver(
            endpoint,
            on_event,
            recording.until(on_end),
            ssl_context=ssl_context,
            proxy=find_proxy(proxy, config),
            provider=plain_provider(access_token),
            linger=config.close_timeout,
            monitor=self._monitor,
            meter=events.meter,
        )
        self._runner = SocketRunner(endpoint, self._driver, self._monitor, self._how_to_start)

    @property
    def is_connected(self) -> bool:
        """Whether the client is connected, in this process."""
        return self._core.is_connected and not self._runner.is_forked

    @property
    def latency(self) -> float | None:
        """Round-trip time of the latest heartbeat, in seconds; `None` before the first heartbeat."""
        return self._core.latency

    def set_access_token(self, token: str | None) -> None:
        """Replace the access token: at once in every joined channel, in later joins and in the next URL."""
        self._runner.command(self._core.set_access_token, token)

    def _begin(self) -> None:
        self._recording.open()
        self._runner.process = os.getpid()
        self._driver.call(self._core.connect)

    def _connected(self) -> PendingReply:
        """Return a reply that is done when the client is connected or has ended."""
        self._runner.check_running()
        connected = PendingReply()
        if self.is_connected:
            connected.set_result(None)
        else:
            self._monitor.wait(connected)
        return connected

    def _goodbye(self) -> None:
        if not self._driver.ended:
            self._driver.call(self._core.disconnect)


class SocketPresenceClient(RoomView, SocketClient[core.PresenceClient, core.PresenceEvent]):
    """Client of one presence room: who is online and what they are doing.

    Create it from an `Identity` and a `PresenceConfig`, or from the keywords of both:
    `PresenceClient(server_url=…, user_id=…, display_name=…)`.

    - `ssl_context`: a TLS context in place of the default one, which verifies certificates.
    - `proxy`: the URL of a proxy, or `""` for none. The default is read from the environment (`https_proxy`,
      `http_proxy`, `all_proxy`, `no_proxy`).
    - `access_token`: a token, or a function that returns a token. The function is called in a thread, before
      connects and joins, and before the last token expires.
    - `rng`: random numbers for the backoff jitter.
    - `online_at`: the time that others see as the start of the presence; default: now.
    - `record`: a path or text file for a recording that `presence replay` reads.

    Commands return an id, which `CommandFailed` repeats if the command fails. They raise `LocalProtocolError`
    when they are not legal, and `ConnectError` when the client has ended.

    `on_notification(event_type, data)`, if set, is called for every event; see `notifications`. Its
    exceptions are logged.
    """

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
        endpoint = recording.presence_client(identity, config, rng, online_at)
        events: EventQueue[core.PresenceEvent] = EventQueue(max_queued_events, _nobody)
        super().__init__(
            endpoint,
            events,
            events.put,
            events.close,
            config,
            ssl_context,
            proxy,
            access_token,
            recording,
        )
        self.on_notification: OnNotification | None = None

    def update_activity(self, status: core.UserStatus, activity: str | None = None) -> int:
        """Show this status and activity to others, now and after every reconnect."""
        return self._runner.command(self._core.update_activity, status, activity)

    def send_invite(self, game: str, code: str | None = None) -> int:
        """Invite all users in the room to a game."""
        return self._runner.command(self._core.send_invite, game, code)

    def send_poke(self, user_id: str) -> int:
        """Poke a user."""
        return self._runner.command(self._core.send_poke, user_id)

    def send_chat(self, channel: str, content: str, reply_to: str | None = None) -> int:
        """Send a message to a chat channel of the room."""
        return self._runner.command(self._core.send_chat, channel, content, reply_to, timestamp=utc_now())

    def _notify(self, event: core.PresenceEvent | EventsDropped) -> None:
        if self.on_notification is not None:
            event_type, data = notification(event)
            with logged(event_type):
                self.on_notification(event_type, data)


class SocketRealtimeClient(SocketClient[core.RealtimeClient, core.RealtimeEvent]):
    """Client of many Phoenix or Supabase channels on one connection.

    The events of the client are those without a channel (`SocketConnected`, `SocketDisconnected`,
    `AccessTokenFailed`, `ProtocolViolation`) and `EventsDropped`. Each `Channel` has its own events, in its
    own queue of `max_queued_events`. For the parameters see `PresenceClient`.
    """

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
        self._routes: Routes[EventQueue[core.RealtimeEvent]] = Routes(
            lambda: EventQueue(max_queued_events, _nobody, meter),
            lambda topic: self._driver.call(endpoint.leave, topic),
            lambda: self._monitor.refusal,
        )
        routes = self._routes
        super().__init__(
            endpoint,
            routes.stream,
            routes.handle,
            routes.end,
            config,
            ssl_context,
            proxy,
            access_token,
            recording,
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """Topics that were joined and not left, oldest first."""
        return self._core.channels

    def _join(
        self, topic: str, params: Mapping[str, Any] | core.ChannelConfig | None, joined: PendingReply
    ) -> Route[EventQueue[core.RealtimeEvent]]:
        def join(*, now: float) -> Route[EventQueue[core.RealtimeEvent]]:
            self._core.join(topic, params, now=now)
            return self._routes.join(topic, joined)

        return self._runner.command(join)


class SocketChannel:
    """Channel of one topic, created by `RealtimeClient.join`. It is rejoined after every loss until `leave`.

    Its events are all events of the topic except replies to pushes: `Broadcast`, `ChannelMessage`,
    `PresenceSynced`, `PresenceDiffed`, `ChannelDown`, `ChannelJoined` after a rejoin, and others, and also
    `EventsDropped`.
    """

    def __init__(
        self,
        runner: SocketRunner[core.RealtimeClient],
        routes: Routes[EventQueue[core.RealtimeEvent]],
        route: Route[EventQueue[core.RealtimeEvent]],
        params: Mapping[str, Any] | core.ChannelConfig | None,
    ) -> None:
        self.topic = route.topic
        self._presence = runner.core.presence(route.topic)  # live; after `leave`, the last state
        self._runner = runner
        self._routes = routes
        self._route = route
        self._is_acked = isinstance(params, core.ChannelConfig) and params.broadcast_ack

    def __repr__(self) -> str:
        return f"<Channel {self.topic!r}, {'joined' if self.is_joined else 'not joined'}>"

    @property
    def is_joined(self) -> bool:
        """Whether the channel is joined now. After a loss the client rejoins by itself."""
        return not self._route.leaving and self._runner.core.state_of(self.topic) is core.ChannelState.JOINED

    @property
    def is_synced(self) -> bool:
        """Whether `presence` matches the server's current state. `False`: it is stale or not received yet."""
        return not self._route.leaving and self._runner.core.is_synced(self.topic)

    @property
    def response(self) -> Any:
        """The server's response to the latest join."""
        return self._route.response

    def track(self, meta: Mapping[str, Any]) -> None:
        """Add this payload to the presence of the channel, now and after every rejoin."""
        self._command(self._runner.core.track, meta)

    def untrack(self) -> None:
        """Remove the payload of this client from the presence of the channel."""
        self._command(self._runner.core.untrack)

    def _command(self, command: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        def checked(*, now: float) -> T:
            if self._route.leaving:
                raise left_already(self.topic)
            return command(self.topic, *args, now=now, **kwargs)

        return self._runner.command(checked)

    def _synced(self) -> PendingReply:
        """Return a reply that is done when `is_synced`. It fails when the presence can no longer arrive."""
        self._runner.check_running()
        synced = PendingReply()
        if self.is_synced:
            synced.set_result(None)
        else:
            self._routes.await_sync(self._route, synced)
        return synced

    def _push(self, event: str, payload: Any, timeout: float | None) -> PendingReply:
        answer = PendingReply()

        def push(topic: str, *, now: float) -> None:
            push_id = self._runner.core.push(topic, event, payload, timeout=timeout, now=now)
            self._routes.expect_reply(push_id, answer)

        self._command(push)
        return answer

    def _broadcast(self, event: str, payload: Any) -> PendingReply:
        """Return a reply to a broadcast. Without `broadcast_ack` the reply is done at once."""
        answer = PendingReply()

        def broadcast(topic: str, *, now: float) -> None:
            push_id = self._runner.core.broadcast(topic, event, payload, now=now)
            if self._is_acked:
                self._routes.expect_reply(push_id, answer)
            else:
                answer.set_result(None)

        self._command(broadcast)
        return answer


def _nobody() -> None:
    """`wake` callback of the event queues. It does nothing: the driving code polls the queues."""
