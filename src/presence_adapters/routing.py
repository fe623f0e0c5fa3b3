"""`Routes`: distributes the events of a core `RealtimeClient` to channel queues and waiting callers.

This module does not depend on an event loop, because the client supplies the queues and the waiters.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from presence_adapters.errors import ConnectError, JoinError, PushError, left_already
from presence_adapters.event_queue import EventQueue
from presence_proto import (
    ChannelJoined,
    ChannelLeft,
    JoinFailed,
    PresenceError,
    PresenceMissing,
    PresenceSynced,
    PushFailed,
    PushReplied,
    RealtimeEvent,
    SocketDisconnected,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Queue = TypeVar("Queue", bound=EventQueue[Any])


class Waiter:
    """A caller's wait for a result. A waiter is also `done` when the caller has stopped waiting."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._result: Any = None
        self._is_done = False

    def done(self) -> bool:
        """Whether a result or an exception has been set."""
        return self._is_done

    def set_result(self, result: Any) -> None:
        """Finish the wait with this result."""
        self._result, self._is_done = result, True

    def set_exception(self, exception: Exception) -> None:
        """Finish the wait with this exception, which `result` then raises."""
        self.error, self._is_done = exception, True

    def result(self) -> Any:
        """Return the result, or raise the exception that was set."""
        assert self._is_done
        if self.error is not None:
            raise self.error
        return self._result


class Route(Generic[Queue]):
    """State of one topic, from the join to the end of the leave: the event queue, and the waiting callers."""

    def __init__(self, topic: str, queue: Queue) -> None:
        self.topic = topic
        self.queue = queue
        self.channel: Any = None  # the public `Channel` object of the client, once created
        self.response: Any = None  # the server's response to the latest join
        self.was_joined = False
        self.leaving = False  # `leave` was called, or the server closed the channel permanently
        self.trouble: str | None = None  # why the latest join failed
        self.joiners: list[Waiter] = []  # waiters for the join
        self.syncers: list[Waiter] = []  # waiters for the complete presence
        self.leavers: list[Waiter] = []  # waiters for the end of the leave


class Routes(Generic[Queue]):
    """All `Route`s of one client, by topic.

    `stream` is the queue of the events without a topic. `leave(topic)` makes the core leave a topic.
    `refusal()` returns the exception to raise if the server has refused the client permanently, else `None`.
    """

    def __init__(
        self,
        make_queue: Callable[[], Queue],
        leave: Callable[[str], None],
        refusal: Callable[[], Exception | None],
    ) -> None:
        self.stream = make_queue()
        self._make_queue = make_queue
        self._leave = leave
        self._refusal = refusal
        self._routes: dict[str, Route[Queue]] = {}
        self._leaving: dict[str, deque[Route[Queue]]] = {}  # topics for which ChannelLeft has not arrived
        self._pushes: dict[int, Waiter] = {}  # waiters for replies, by push id
        self._ended = False
        self._last_words = "the client was disconnected"  # reason of the latest disconnect

    # ---------------------------------------------------------------- callers

    def join(self, topic: str, waiter: Waiter) -> Route[Queue]:
        """Return the route of a topic that the core is joining. Finish `waiter` when the topic is joined."""
        route = self._routes.get(topic)
        if route is None:
            route = self._routes[topic] = Route(topic, self._make_queue())
        if route.was_joined:
            waiter.set_result(None)
        else:
            route.joiners.append(waiter)
        return route

    def abort(self, route: Route[Queue], waiter: Waiter) -> None:
        """Remove `waiter`. Leave the topic if no `Channel` exists and no other caller waits for the join."""
        for waiters in (route.joiners, route.syncers):
            if waiter in waiters:
                waiters.remove(waiter)
        if not route.joiners and route.channel is None:
            self.leave(route)

    def await_sync(self, route: Route[Queue], waiter: Waiter) -> None:
        """Finish `waiter` when the complete presence of the topic arrives."""
        if route.queue.closed:
            waiter.set_exception(left_already(route.topic))
        else:
            route.syncers.append(waiter)

    def leave(self, route: Route[Queue], waiter: Waiter | None = None) -> None:
        """Leave the topic, unless this was done before. Finish `waiter` when the leave is complete."""
        if self._ended or route.queue.closed:
            if waiter is not None:
                waiter.set_result(None)
            return
        if waiter is not None:
            route.leavers.append(waiter)
        if not route.leaving:
            # Events up to the core's ChannelLeft still belong to this route, even if the topic is joined
            # again, with a new route, before ChannelLeft arrives.
            route.leaving = True
            del self._routes[route.topic]
            self._leaving.setdefault(route.topic, deque()).append(route)
            _fail(route.joiners, JoinError(route.topic, "the channel was left"))
            self._leave(route.topic)

    def expect_reply(self, push_id: int, waiter: Waiter) -> None:
        """Pass the reply to the push with this id to `waiter`."""
        self._pushes[push_id] = waiter

    # ---------------------------------------------------------------- events

    def handle(self, event: RealtimeEvent) -> None:
        """Put an event into the queue of the topic, or pass a push reply to the waiting caller."""
        match event:
            case PushReplied():
                self.stream.meter.pass_over()  # the reply goes to a waiter, so no queue holds the bytes
                self._answer(event.push_id, event)
            case PushFailed() if event.push_id in self._pushes:
                self._answer(event.push_id, event)
            case ChannelLeft():
                self._left(event.topic)
            case _:
                self._deliver(event)

    def end(self, error: Exception | None) -> None:
        """Close all queues and finish all waiters, because the client has ended, with `error` if any."""
        self._ended = True
        reason = error or ConnectError(self._last_words)
        for route in [
            *self._routes.values(),
            *(route for leaving in self._leaving.values() for route in leaving),
        ]:
            route.queue.close(error)
            _fail(route.joiners, reason)
            _fail(route.syncers, reason)
            _finish(route.leavers)
        _fail([*self._pushes.values()], reason)
        self._pushes.clear()
        self.stream.close(error)

    def _deliver(self, event: RealtimeEvent) -> None:
        topic = getattr(event, "topic", None)
        route = self._leaving[topic][0] if topic in self._leaving else self._routes.get(topic or "")
        if route is None:
            if isinstance(event, SocketDisconnected):
                self._last_words = event.reason
            self.stream.put(event)
            return
        if isinstance(event, ChannelJoined):
            route.response = event.response
            if not route.was_joined:
                route.was_joined = True
                _finish(route.joiners)
                return
        if route.syncers:
            self._check_sync(route, event)
        route.queue.put(event)
        if isinstance(event, JoinFailed):
            route.trouble = event.reason
            if event.refused and not event.passing and not route.was_joined:
                # Fail the joiners only on a permanent refusal. After a late reply, a temporary refusal or a
                # lost connection, the next join may still succeed, so the joiners continue to wait.
                _fail(route.joiners, JoinError(event.topic, event.reason, event.response))
                self.leave(route)

    def _check_sync(self, route: Route[Queue], event: RealtimeEvent) -> None:
        if isinstance(event, PresenceSynced):
            _finish(route.syncers)
        elif isinstance(event, PresenceMissing):
            _fail(route.syncers, PresenceError(f"no presence state for {event.topic!r}: {event.reason}"))

    def _left(self, topic: str) -> None:
        leaving = self._leaving.get(topic)
        if leaving is None:  # the server closed the channel, and `rejoin_after_close` is off
            route = self._routes.pop(topic)
            route.leaving = True
            _fail(route.joiners, JoinError(topic, "the server closed the channel"))
        else:
            route = leaving.popleft()
            if not leaving:
                del self._leaving[topic]
        route.queue.close()
        _fail(route.syncers, left_already(topic))
        _finish(route.leavers)

    def _answer(self, push_id: int, event: PushReplied | PushFailed) -> None:
        waiter = self._pushes.pop(push_id, None)
        if waiter is None or waiter.done():
            return
        if isinstance(event, PushFailed):
            waiter.set_exception(self._refusal() or PushError(event.topic, event.reason))
        elif event.status == "ok":
            waiter.set_result(event.response)
        else:
            reason = f"the server answered {event.status!r}"
            waiter.set_exception(PushError(event.topic, reason, event.status, event.response))


def _finish(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


def _fail(waiters: list[Waiter], error: Exception) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(error)
    waiters.clear()
