"""Common part of the clients on plain sockets: `blocking` and `stepped`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import presence_proto as core
from presence_adapters.access_tokens import plain_provider
from presence_adapters.clients import AnyChannel, AnyClient, AnyPresenceClient, AnyRealtimeClient, Core
from presence_adapters.event_queue import EventQueue, EventsDropped, ReadMeter
from presence_adapters.notifications import logged, notification
from presence_adapters.routing import Route, Routes, Waiter
from presence_adapters.socket_driver import SocketDriver
from presence_adapters.wall_clock import utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from presence_adapters.access_tokens import TokenProvider

Event = TypeVar("Event")


class SocketClient(AnyClient[Core], Generic[Core, Event]):
    """Client on a plain socket, made of a core, a driver and an event queue."""

    _driver_type: ClassVar[type[SocketDriver]] = SocketDriver
    _driver: SocketDriver
    _events: EventQueue[Event]

    def _make_queue(self, limit: int, meter: ReadMeter) -> EventQueue[Any]:
        return EventQueue(limit, meter)

    def _provider_options(
        self, access_token: TokenProvider | str | None, config: core.RealtimeConfig
    ) -> dict[str, Any]:
        return {"provider": plain_provider(access_token)}

    def set_access_token(self, token: str | None) -> None:
        """Replace the access token in all joined channels now, and in later joins and connection URLs."""
        self._driver.command(self._core.set_access_token, token)

    def _begin(self) -> None:
        self._recording.open()
        self._driver.start()
        self._driver.call(self._core.connect)

    def _goodbye(self) -> None:
        if not self._driver.ended:
            self._driver.call(self._core.disconnect)


class SocketPresenceClient(SocketClient[core.PresenceClient, core.PresenceEvent], AnyPresenceClient):
    """Client of a presence room, where users see who is online and what each user is doing.

    Create a client from an `Identity` and a `PresenceConfig`, or from the keywords of these two classes:
    `PresenceClient(server_url=…, user_id=…, display_name=…)`.

    - `ssl_context`: a TLS context to use instead of the default context, which verifies certificates.
    - `proxy`: the URL of a proxy, or `""` for a direct connection. The default proxy is read from the
      environment variables `https_proxy`, `http_proxy`, `all_proxy` and `no_proxy`.
    - `access_token`: a token, or a function that returns a token. The client calls the function in a
      thread, before each connect and join, and before the current token expires.
    - `rng`: the random number generator for the jitter of reconnect delays.
    - `online_at`: the time that other users see as the start of this presence; default: the current time.
    - `record`: a path or text file for a recording of the client, which `presence replay` reads.

    Each command returns an id, and a `CommandFailed` event with this id reports a failure. A command raises
    `LocalProtocolError` when the command is not legal, and `ConnectError` when the client has ended.

    `on_notification(event_type, data)`, if set, is called for every event; see `notifications`. Exceptions
    of this callback are logged.
    """

    def update_activity(self, status: core.UserStatus, activity: str | None = None) -> int:
        """Show this status and activity to the other users, now and after every reconnect."""
        return self._driver.command(self._core.update_activity, status, activity)

    def send_invite(self, game: str, code: str | None = None) -> int:
        """Invite all users in the room to a game."""
        return self._driver.command(self._core.send_invite, game, code)

    def send_poke(self, user_id: str) -> int:
        """Send a poke to the user with this id."""
        return self._driver.command(self._core.send_poke, user_id)

    def send_chat(self, channel: str, content: str, reply_to: str | None = None) -> int:
        """Send a message to a chat channel of the room."""
        return self._driver.command(self._core.send_chat, channel, content, reply_to, timestamp=utc_now())

    def _notify(self, event: core.PresenceEvent | EventsDropped) -> None:
        if self.on_notification is not None:
            event_type, data = notification(event)
            with logged(event_type):
                self.on_notification(event_type, data)


class SocketRealtimeClient(SocketClient[core.RealtimeClient, core.RealtimeEvent], AnyRealtimeClient):
    """Client of many Phoenix or Supabase channels on one connection.

    The client yields the events that belong to no channel (`SocketConnected`, `SocketDisconnected`,
    `AccessTokenFailed`, `ProtocolViolation`) and `EventsDropped`. Each `Channel` has its own queue of at most
    `max_queued_events` events. `PresenceClient` describes the parameters.
    """

    _routes: Routes[EventQueue[core.RealtimeEvent]]


class SocketChannel(AnyChannel):
    """Channel of one topic, created by `RealtimeClient.join`. The client rejoins lost channels until `leave`.

    The channel yields all events of the topic except replies to pushes: `Broadcast`, `ChannelMessage`,
    `PresenceSynced`, `PresenceDiffed`, `ChannelDown`, `ChannelJoined` after a rejoin, other event classes,
    and `EventsDropped`.
    """

    _driver: SocketDriver
    _route: Route[EventQueue[core.RealtimeEvent]]

    def track(self, meta: Mapping[str, Any]) -> None:
        """Add this payload to the presence of the channel, now and after every rejoin."""
        self._driver.command(self._on_topic(self._core.track, meta))

    def untrack(self) -> None:
        """Remove the payload of this client from the presence of the channel."""
        self._driver.command(self._on_topic(self._core.untrack))

    def _push(self, event: str, payload: Any, timeout: float | None) -> Waiter:
        answer = Waiter()
        self._driver.command(self._pushing(answer, self._core.push, event, payload, timeout=timeout))
        return answer

    def _broadcast(self, event: str, payload: Any) -> Waiter:
        """Return a waiter for the acknowledgement. Without `broadcast_ack` the waiter is done at once."""
        answer = Waiter()
        if self._is_acked:
            self._driver.command(self._pushing(answer, self._core.broadcast, event, payload))
        else:
            self._driver.command(self._on_topic(self._core.broadcast, event, payload))
            answer.set_result(None)
        return answer
