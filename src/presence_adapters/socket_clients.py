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
    """Client on a plain socket: a core, its driver and its event queue."""

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
        """Replace the access token: at once in every joined channel, in later joins and in the next URL."""
        self._driver.command(self._core.set_access_token, token)

    def _begin(self) -> None:
        self._recording.open()
        self._driver.start()
        self._driver.call(self._core.connect)

    def _goodbye(self) -> None:
        if not self._driver.ended:
            self._driver.call(self._core.disconnect)


class SocketPresenceClient(SocketClient[core.PresenceClient, core.PresenceEvent], AnyPresenceClient):
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

    def update_activity(self, status: core.UserStatus, activity: str | None = None) -> int:
        """Show this status and activity to others, now and after every reconnect."""
        return self._driver.command(self._core.update_activity, status, activity)

    def send_invite(self, game: str, code: str | None = None) -> int:
        """Invite all users in the room to a game."""
        return self._driver.command(self._core.send_invite, game, code)

    def send_poke(self, user_id: str) -> int:
        """Poke a user."""
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

    The events of the client are those without a channel (`SocketConnected`, `SocketDisconnected`,
    `AccessTokenFailed`, `ProtocolViolation`) and `EventsDropped`. Each `Channel` has its own events, in its
    own queue of `max_queued_events`. For the parameters see `PresenceClient`.
    """

    _routes: Routes[EventQueue[core.RealtimeEvent]]


class SocketChannel(AnyChannel):
    """Channel of one topic, created by `RealtimeClient.join`. It is rejoined after every loss until `leave`.

    Its events are all events of the topic except replies to pushes: `Broadcast`, `ChannelMessage`,
    `PresenceSynced`, `PresenceDiffed`, `ChannelDown`, `ChannelJoined` after a rejoin, and others, and also
    `EventsDropped`.
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
        """Return a waiter for the acknowledgement. Without `broadcast_ack` it is done at once."""
        answer = Waiter()
        if self._is_acked:
            self._driver.command(self._pushing(answer, self._core.broadcast, event, payload))
        else:
            self._driver.command(self._on_topic(self._core.broadcast, event, payload))
            answer.set_result(None)
        return answer
