"""`PresenceClient` and `RealtimeClient` for plain threads, without an event loop.

    with PresenceClient(identity, config) as client:
        for event in client.events():
            ...

Entering starts to connect and returns at once; leaving says goodbye, or closes at once when it is because of
Ctrl-C.

**Something happens only while somebody waits**: in `events`, `run`, `join`, `push`, `leave` or `disconnect`,
whichever of them and in whichever thread. A program with other things to do for longer than a heartbeat says
`drive_in_background()` first; otherwise the server takes us for gone.

Everything may be called from any thread. A command is carried out at once, in the thread that calls it; with
`close` or `disconnect` all the others stop waiting. Several threads that read the same events share them.
Signal handlers are not threads: have them raise something, as the one of Ctrl-C does.

Events wait in a queue of `max_queued_events`. When a slow consumer lets it fill up, the oldest are dropped
and `EventsDropped` stands in their place: read the roster again then.
"""

from __future__ import annotations

import logging
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Self

import presence_proto as core
from presence_adapters.blocking_driver import BlockingDriver
from presence_adapters.errors import ConnectError, JoinError, PushError
from presence_adapters.event_queue import EventQueue, EventsDropped
from presence_adapters.socket_clients import (
    Answer,
    Core,
    Event,
    SocketChannel,
    SocketClient,
    SocketPresenceClient,
    SocketRealtimeClient,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from presence_adapters.socket_driver import SocketDriver

__all__ = [
    "Channel",
    "ConnectError",
    "EventsDropped",
    "JoinError",
    "PresenceClient",
    "PushError",
    "RealtimeClient",
]

logger = logging.getLogger(__name__)


class _Blocking(SocketClient[Core, Event]):
    """What both clients share: their life, their commands and their event stream."""

    _make_driver: ClassVar[type[SocketDriver]] = BlockingDriver
    _driver: BlockingDriver
    _background: threading.Thread | None = None

    def events(self, timeout: float | None = None) -> Iterator[Event | EventsDropped]:
        """The events as they come. Ends when none has come for `timeout` seconds (0: when there is none now),
        and for good when the client has ended and everything was read.
        """
        return _read(self._driver, self._events, timeout)

    def __iter__(self) -> Iterator[Event | EventsDropped]:
        return self.events()

    def drive_in_background(self) -> None:
        """Have a thread of its own for whatever there is to do, until the client has ended."""
        if not self._driver.is_running:
            raise core.LocalProtocolError("this is not running: use `with`")
        if self._background is None:
            thread = threading.Thread(
                target=self._driver.wait, args=(lambda: self._driver.is_quiet,), name="presence", daemon=True
            )
            thread.start()
            self._background = thread  # now that it can be joined: Ctrl-C may have come before

    def disconnect(self) -> None:
        """Say goodbye and wait until the connection is closed; the config's `close_timeout` bounds that."""
        with self._driver.lock:
            self._goodbye()
        self._driver.wait(lambda: self._driver.is_quiet)

    def close(self) -> None:
        """Say goodbye without waiting for an answer, and close at once. The last events can still be read."""
        with self._driver.lock:
            self._goodbye()
            self._driver.stop()

    def __enter__(self) -> Self:
        self._recording.open()
        with self._driver.lock:
            self._driver.start()
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            # Ctrl-C wants out at once; any other end of the body leaves time for a goodbye.
            if error is None or isinstance(error, Exception):
                self.disconnect()
        finally:
            try:
                self.close()
            finally:
                self._driver.release()
                if self._background is not None:
                    self._background.join()
        bug = self._events.error
        if bug is None or bug is error:
            return
        if error is None:
            raise bug  # nobody has read the events up to here
        logger.error("the client has failed", exc_info=bug)

    def _make_room(self) -> None:
        self._driver.wait(lambda: self._driver.is_writable or self._driver.ended)


class PresenceClient(_Blocking[core.PresenceClient, core.PresenceEvent], SocketPresenceClient):
    __doc__ = SocketPresenceClient.__doc__

    @property
    def online_users(self) -> tuple[core.OnlineUser, ...]:
        """Everybody in the room, ourselves included, as of now: ahead of the events that are still queued."""
        with self._driver.lock:
            return self._core.online_users

    @property
    def pending_commands(self) -> frozenset[int]:
        """The ids of the commands that the server has neither acknowledged nor refused yet."""
        with self._driver.lock:
            return self._core.pending_commands

    def run(self) -> None:
        """Drive the client until it ends, and tell `on_notification` of every event.

        Enters the client, unless that was done before.
        """
        with nullcontext() if self._driver.is_running else self:
            for event in self.events():
                self._notify(event)


class RealtimeClient(_Blocking[core.RealtimeClient, core.RealtimeEvent], SocketRealtimeClient):
    __doc__ = SocketRealtimeClient.__doc__

    def join(
        self,
        topic: str,
        params: Mapping[str, Any] | core.ChannelConfig | None = None,
        timeout: float | None = None,
    ) -> Channel:
        """Join a topic and wait until the server has let us in. Joining it again gives the same `Channel`.

        `params`: a `ChannelConfig` for Supabase, the join's payload for plain Phoenix. Lost connections and
        timeouts are tried again meanwhile. Raises `JoinError` when the server refuses or `timeout` seconds
        have passed, `ConnectError` when the client ends; then the topic is left again.
        """
        joined = Answer()
        route = self._join(topic, params, joined)
        try:
            if not self._driver.wait(joined.done, timeout):
                raise JoinError(topic, f"no answer within {timeout:g} s")
            joined.result()
        except BaseException:
            with self._driver.lock:
                self._routes.give_up(route, joined)
            raise
        with self._driver.lock:
            if route.channel is None:
                route.channel = Channel(self, route, params)
        assert isinstance(route.channel, Channel)
        return route.channel


class Channel(SocketChannel):
    __doc__ = SocketChannel.__doc__

    _client: RealtimeClient

    @property
    def presence(self) -> dict[str, tuple[core.Meta, ...]]:
        """Who is present: the metas of every key, as of now; as it last was after the channel is left."""
        with self._client._driver.lock:
            return dict(self._presence)

    def push(self, event: str, payload: Any = None, timeout: float | None = None) -> Any:
        """Push an event with a JSON payload or `bytes`, and return the server's response.

        Raises `PushError` when the status is not `"ok"`, or no answer came within `timeout` seconds (default:
        the config's `push_timeout`), which include waiting for a channel that is down.
        """
        return self._wait(self._push(event, payload, timeout))

    def broadcast(self, event: str, payload: Any = None) -> None:
        """Broadcast an event to the others in a Supabase channel.

        Waits for the server's word only when the channel was joined with `broadcast_ack`, and raises
        `PushError` then.
        """
        self._wait(self._broadcast(event, payload))

    def leave(self) -> None:
        """Leave, and wait until it is done. The client forgets the channel; doing it twice is no error."""
        left = Answer()
        with self._client._driver.lock:
            self._client._routes.leave(self._route, left)
        self._wait(left)

    def events(self, timeout: float | None = None) -> Iterator[core.RealtimeEvent | EventsDropped]:
        """The channel's events as they come. Ends when none has come for `timeout` seconds (0: when there is
        none now), and for good when the channel is left or the client has ended, and everything was read.
        """
        return _read(self._client._driver, self._route.queue, timeout)

    def __iter__(self) -> Iterator[core.RealtimeEvent | EventsDropped]:
        return self.events()

    def _wait(self, answer: Answer) -> Any:
        self._client._driver.wait(answer.done)
        return answer.result()


def _read(
    driver: BlockingDriver, queue: EventQueue[Event], timeout: float | None
) -> Iterator[Event | EventsDropped]:
    found: list[Event | EventsDropped] = []

    def is_over() -> bool:
        event = queue.get()
        if event is not None:
            found.append(event)
        return event is not None or queue.closed

    while driver.wait(is_over, timeout) and found:
        yield found.pop()
    if queue.error is not None:
        error, queue.error = queue.error, None
        raise error
