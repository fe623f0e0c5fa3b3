"""Takes the one event stream of a core `RealtimeClient` apart: to channels, and to the callers who await an
answer.

It knows no event loop: a driver brings the queues, and waiters of its kind of waiting.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from presence_adapters.errors import ConnectError, JoinError, PushError
from presence_adapters.event_queue import EventQueue
from presence_proto import (
    ChannelJoined,
    ChannelLeft,
    JoinFailed,
    PushFailed,
    PushReplied,
    RealtimeEvent,
    SocketDisconnected,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Queue = TypeVar("Queue", bound=EventQueue[Any])


class Waiter(Protocol):
    """Somebody who awaits one answer; `done` also when they have given up."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, exception: Exception, /) -> None: ...


class Route(Generic[Queue]):
    """One joined topic, from `join` until it is left: where its events go, and who waits for what."""

    def __init__(self, topic: str, queue: Queue) -> None:
        self.topic = topic
        self.queue = queue
        self.channel: Any = None  # what the driver's users hold
        self.response: Any = None  # to the latest join
        self.was_joined = False
        self.leaving = False  # the core was told to leave
        self.joiners: list[Waiter] = []
        self.leavers: list[Waiter] = []


class Routes(Generic[Queue]):
    """Every route of one client. `stream` gets the events without a topic; `leave` tells the core to leave a
    topic.
    """

    def __init__(self, make_queue: Callable[[], Queue], leave: Callable[[str], None]) -> None:
        self.stream = make_queue()
        self._make_queue = make_queue
        self._leave = leave
        self._routes: dict[str, Route[Queue]] = {}
        self._leaving: dict[str, deque[Route[Queue]]] = {}  # told to leave, ChannelLeft not seen yet
        self._pushes: dict[int, Waiter] = {}
        self._ended = False
        self._last_words = "the client was disconnected"

    # ---------------------------------------------------------------- callers

    def join(self, topic: str, waiter: Waiter) -> Route[Queue]:
        """The route of a topic that the core was just told to join. `waiter` gets `None` once joined."""
        route = self._routes.get(topic)
        if route is None:
            route = self._routes[topic] = Route(topic, self._make_queue())
        if route.was_joined:
            waiter.set_result(None)
        else:
            route.joiners.append(waiter)
        return route

    def give_up(self, route: Route[Queue], waiter: Waiter) -> None:
        """Somebody who called `join` does not want the answer any more. A route that nobody else wants is
        left.
        """
        if waiter in route.joiners:
            route.joiners.remove(waiter)
        if not route.joiners and route.channel is None:
            self.leave(route)

    def leave(self, route: Route[Queue], waiter: Waiter | None = None) -> None:
        """Leave, unless that was done before. `waiter` gets `None` when it is done."""
        if self._ended or route.queue.closed:
            if waiter is not None:
                waiter.set_result(None)
            return
        if waiter is not None:
            route.leavers.append(waiter)
        if not route.leaving:
            # What comes from here to the core's ChannelLeft is still of this route; a new one may begin any
            # time.
            route.leaving = True
            del self._routes[route.topic]
            self._leaving.setdefault(route.topic, deque()).append(route)
            _fail(route.joiners, JoinError(route.topic, "the channel was left"))
            self._leave(route.topic)

    def expect_reply(self, push_id: int, waiter: Waiter) -> None:
        """`waiter` gets the answer to this push."""
        self._pushes[push_id] = waiter

    # ---------------------------------------------------------------- events

    def handle(self, event: RealtimeEvent) -> None:
        """Give an event to those whom it concerns."""
        match event:
            case PushReplied():
                self._answer(event.push_id, event)
            case PushFailed() if event.push_id in self._pushes:
                self._answer(event.push_id, event)
            case ChannelLeft():
                self._left(event.topic)
            case _:
                self._deliver(event)

    def end(self, error: Exception | None) -> None:
        """The client has ended: with an `error`, or because it was disconnected."""
        self._ended = True
        reason = error or ConnectError(self._last_words)
        for route in [
            *self._routes.values(),
            *(route for leaving in self._leaving.values() for route in leaving),
        ]:
            route.queue.close(error)
            _fail(route.joiners, reason)
            _finish(route.leavers)
        _fail([*self._pushes.values()], reason)
        self._pushes.clear()
        self.stream.close(error)

    def _deliver(self, event: RealtimeEvent) -> None:
        topic = getattr(event, "topic", None)
        route = self._leaving[topic][0] if topic in self._leaving else self._routes.get(topic or "")
        if isinstance(event, SocketDisconnected):
            self._last_words = event.reason
        if route is None:
            self.stream.put(event)
            return
        if isinstance(event, ChannelJoined):
            route.response = event.response
            if not route.was_joined:
                route.was_joined = True
                _finish(route.joiners)
                return
        elif isinstance(event, JoinFailed) and event.response is not None and not route.was_joined:
            # The server has said no, and the callers are told so. Asking again and again is not what they
            # want.
            _fail(route.joiners, JoinError(event.topic, event.reason, event.response))
            self.leave(route)
            return
        route.queue.put(event)

    def _left(self, topic: str) -> None:
        leaving = self._leaving[topic]
        route = leaving.popleft()
        if not leaving:
            del self._leaving[topic]
        route.queue.close()
        _finish(route.leavers)

    def _answer(self, push_id: int, event: PushReplied | PushFailed) -> None:
        waiter = self._pushes.pop(push_id, None)
        if waiter is None or waiter.done():
            return
        if isinstance(event, PushFailed):
            waiter.set_exception(PushError(event.topic, event.reason))
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
