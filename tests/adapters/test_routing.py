"""Which event concerns whom. No loop: the waiters here are as simple as can be."""

from __future__ import annotations

from typing import Any

import pytest

from presence_adapters.errors import ConnectError, JoinError, PushError
from presence_adapters.event_queue import EventQueue
from presence_adapters.routing import Route, Routes, Waiter
from presence_proto import (
    ChannelDown,
    ChannelEnd,
    ChannelJoined,
    ChannelLeft,
    ChannelMessage,
    JoinFailed,
    ProtocolViolation,
    PushFailed,
    PushReplied,
    SocketConnected,
    SocketDisconnected,
)

Queue = EventQueue[Any]


class Answer(Waiter):
    """A waiter that nobody finishes twice."""

    def set_result(self, result: Any) -> None:
        assert not self.done()
        super().set_result(result)

    def set_exception(self, exception: Exception) -> None:
        assert not self.done()
        super().set_exception(exception)


class Rig:
    """Routes, and what the core was told to leave."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self.refusal: Exception | None = None
        self.routes: Routes[Queue] = Routes(lambda: EventQueue(100), self.left.append, lambda: self.refusal)

    def joining(self, topic: str = "t") -> tuple[Route[Queue], Answer]:
        waiter = Answer()
        return self.routes.join(topic, waiter), waiter

    def joined(self, topic: str = "t") -> Route[Queue]:
        route, waiter = self.joining(topic)
        self.routes.handle(ChannelJoined(topic, {}, False))
        assert waiter.result() is None
        route.channel = "in use"
        return route


def queued(queue: Queue) -> list[Any]:
    return list(iter(queue.get, None))


def message(topic: str = "t", event: str = "e") -> ChannelMessage:
    return ChannelMessage(topic, event, {})


# ---------------------------------------------------------------------------------------------- who gets what


def test_events_go_to_their_topic_and_those_without_one_to_the_client() -> None:
    rig = Rig()
    a, b = rig.joined("a"), rig.joined("b")
    events = [
        SocketConnected(),
        message("a"),
        message("b"),
        ProtocolViolation("x"),
        ProtocolViolation("y", "b"),
    ]
    for event in events:
        rig.routes.handle(event)
    assert queued(a.queue) == [message("a")]
    assert queued(b.queue) == [message("b"), ProtocolViolation("y", "b")]
    assert queued(rig.routes.stream) == [SocketConnected(), ProtocolViolation("x")]


def test_events_of_a_topic_that_nobody_joined_are_not_lost() -> None:
    rig = Rig()
    rig.routes.handle(message("elsewhere"))
    assert queued(rig.routes.stream) == [message("elsewhere")]


def test_only_the_first_join_is_no_event_of_the_channel() -> None:
    rig = Rig()
    route = rig.joined()
    assert route.response == {}
    down, again = ChannelDown("t", "crashed", 1.0, ChannelEnd.CRASHED), ChannelJoined("t", {"n": 2}, True)
    rig.routes.handle(down)
    rig.routes.handle(again)
    assert queued(route.queue) == [down, again]
    assert route.response == {"n": 2}


# ---------------------------------------------------------------------------------------------- joins


def test_everybody_who_joins_gets_the_same_route() -> None:
    rig = Rig()
    route, first = rig.joining()
    same, second = rig.joining()
    assert route is same
    rig.routes.handle(ChannelJoined("t", {}, False))
    assert first.result() is second.result() is None
    late, third = rig.joining()
    assert late is route
    assert third.result() is None


def test_a_timeout_is_tried_again_by_the_core_and_the_waiting_goes_on() -> None:
    rig = Rig()
    route, waiter = rig.joining()
    timeout = JoinFailed("t", "no reply", None, 1.0)
    rig.routes.handle(timeout)
    assert not waiter.done()
    rig.routes.handle(ChannelJoined("t", {}, False))
    assert waiter.result() is None
    assert queued(route.queue) == [timeout]


def test_a_refusal_is_told_to_all_who_wait_and_the_topic_is_left() -> None:
    rig = Rig()
    _, waiter = rig.joining()
    _, other = rig.joining()
    other.set_exception(TimeoutError())
    rig.routes.handle(JoinFailed("t", "unauthorized", {"reason": "unauthorized"}, 1.0, refused=True))
    assert isinstance(waiter.error, JoinError)
    assert (waiter.error.topic, waiter.error.reason) == ("t", "unauthorized")
    assert waiter.error.response == {"reason": "unauthorized"}
    assert rig.left == ["t"]


@pytest.mark.parametrize("response", [None, {}, [], "no", {"reason": "no"}])
def test_a_refusal_is_one_whatever_the_response_and_is_an_event_besides(response: Any) -> None:
    rig = Rig()
    route, waiter = rig.joining()
    refusal = JoinFailed("t", "no", response, 1.0, refused=True)
    rig.routes.handle(refusal)
    assert isinstance(waiter.error, JoinError)
    assert waiter.error.response == response
    assert rig.left == ["t"]
    assert queued(route.queue) == [refusal]


def test_a_refusal_that_will_pass_is_waited_out() -> None:
    rig = Rig()
    route, waiter = rig.joining()
    refusal = JoinFailed("t", "RealtimeRestarting: …", {}, 1.0, refused=True, passing=True)
    rig.routes.handle(refusal)
    assert not waiter.done()
    assert rig.left == []
    rig.routes.handle(ChannelJoined("t", {}, False))
    assert waiter.result() is None
    assert queued(route.queue) == [refusal]


def test_a_channel_that_the_core_left_by_itself_is_over() -> None:
    rig = Rig()
    route = rig.joined()
    down = ChannelDown("t", "banned", None, ChannelEnd.CLOSED)
    rig.routes.handle(down)
    rig.routes.handle(ChannelLeft("t"))
    assert queued(route.queue) == [down]
    assert route.queue.closed
    assert route.leaving
    assert rig.left == []
    again, _ = rig.joining()
    assert again is not route


def test_who_still_waits_for_a_channel_that_the_core_left_is_told() -> None:
    rig = Rig()
    _, waiter = rig.joining()
    rig.routes.handle(ChannelLeft("t"))
    assert isinstance(waiter.error, JoinError)
    assert waiter.error.reason == "the server closed the channel"


def test_a_refused_rejoin_is_an_event() -> None:
    rig = Rig()
    route = rig.joined()
    refusal = JoinFailed("t", "unauthorized", {}, 1.0, refused=True)
    rig.routes.handle(refusal)
    assert queued(route.queue) == [refusal]
    assert rig.left == []


def test_who_gives_up_alone_leaves() -> None:
    rig = Rig()
    route, waiter = rig.joining()
    rig.routes.abort(route, waiter)
    assert rig.left == ["t"]


def test_who_gives_up_in_company_does_not_leave() -> None:
    rig = Rig()
    route, waiter = rig.joining()
    _, other = rig.joining()
    rig.routes.abort(route, waiter)
    assert rig.left == []
    rig.routes.handle(ChannelJoined("t", {}, False))
    assert other.result() is None
    route.channel = "in use"
    rig.routes.abort(route, waiter)
    assert rig.left == []


def test_who_gives_up_in_the_moment_of_the_join_leaves() -> None:
    rig = Rig()
    route, waiter = rig.joining()
    rig.routes.handle(ChannelJoined("t", {}, False))
    rig.routes.abort(route, waiter)
    assert rig.left == ["t"]


# ---------------------------------------------------------------------------------------------- leaving


def test_leaving_ends_when_the_core_says_so() -> None:
    rig = Rig()
    route = rig.joined()
    first, second, late = Answer(), Answer(), Answer()
    rig.routes.leave(route, first)
    rig.routes.leave(route, second)
    assert rig.left == ["t"]
    rig.routes.handle(message())
    assert not first.done()
    rig.routes.handle(ChannelLeft("t"))
    assert first.result() is second.result() is None
    assert route.queue.closed
    assert queued(route.queue) == [message()]
    rig.routes.leave(route, late)
    assert late.result() is None
    assert rig.left == ["t"]


def test_leaving_tells_those_who_still_wait_for_the_join() -> None:
    rig = Rig()
    route, waiter = rig.joining()
    rig.routes.leave(route)
    assert isinstance(waiter.error, JoinError)


def test_a_topic_joined_again_while_it_is_left_is_another_route() -> None:
    rig = Rig()
    old = rig.joined()
    rig.routes.leave(old)
    new, waiter = rig.joining()
    assert new is not old
    rig.routes.handle(message(event="of the old"))
    rig.routes.leave(new)
    newest, last = rig.joining()
    rig.routes.handle(ChannelLeft("t"))
    rig.routes.handle(message(event="of the new"))
    rig.routes.handle(ChannelLeft("t"))
    rig.routes.handle(ChannelJoined("t", {}, False))
    rig.routes.handle(message(event="of the newest"))
    assert isinstance(waiter.error, JoinError)
    assert last.result() is None
    assert [queued(route.queue) for route in (old, new, newest)] == [
        [message(event="of the old")],
        [message(event="of the new")],
        [message(event="of the newest")],
    ]
    assert old.queue.closed
    assert new.queue.closed
    assert not newest.queue.closed


# ---------------------------------------------------------------------------------------------- pushes


def test_a_push_gets_its_reply() -> None:
    rig = Rig()
    route, waiter = rig.joined(), Answer()
    rig.routes.expect_reply(7, waiter)
    rig.routes.handle(PushReplied(8, "t", "ok", "somebody else's"))
    rig.routes.handle(PushReplied(7, "t", "ok", {"n": 1}))
    assert waiter.result() == {"n": 1}
    assert queued(route.queue) == []


@pytest.mark.parametrize(
    ("event", "status", "response", "reason"),
    [
        (
            PushReplied(7, "t", "error", {"reason": "no"}),
            "error",
            {"reason": "no"},
            "the server answered 'error'",
        ),
        (PushFailed(7, "t", "no reply in time"), None, None, "no reply in time"),
    ],
)
def test_a_push_that_fails_raises(event: Any, status: str | None, response: Any, reason: str) -> None:
    rig = Rig()
    route, waiter = rig.joined(), Answer()
    rig.routes.expect_reply(7, waiter)
    rig.routes.handle(event)
    assert isinstance(waiter.error, PushError)
    assert (waiter.error.topic, waiter.error.reason) == ("t", reason)
    assert (waiter.error.status, waiter.error.response) == (status, response)
    assert queued(route.queue) == []


def test_a_reply_for_somebody_who_gave_up_is_nothing() -> None:
    rig = Rig()
    rig.joined()
    waiter = Answer()
    rig.routes.expect_reply(7, waiter)
    waiter.set_exception(TimeoutError())
    rig.routes.handle(PushReplied(7, "t", "ok", {}))
    assert isinstance(waiter.error, TimeoutError)


def test_a_large_reply_to_a_push_drives_no_event_out() -> None:
    rig = Rig()
    rig.routes.stream.meter.bytes = 100 * 1024 * 1024
    rig.routes.handle(PushReplied(7, "t", "ok", "much"))
    assert rig.routes.stream.meter.bytes == 0


def test_a_push_that_nobody_waits_for_does_not_fail_in_silence() -> None:
    rig = Rig()
    route = rig.joined()
    rig.routes.handle(PushFailed(9, "t", "expired"))
    assert queued(route.queue) == [PushFailed(9, "t", "expired")]


# ---------------------------------------------------------------------------------------------- the end


def test_the_end_is_told_to_everybody_with_the_last_words_of_the_connection() -> None:
    rig = Rig()
    joined, leaving = rig.joined("a"), rig.joined("b")
    left, push = Answer(), Answer()
    rig.routes.leave(leaving, left)
    _, joining = rig.joining("c")
    rig.routes.expect_reply(1, push)
    rig.routes.handle(SocketDisconnected("the server refused us: HTTP 403", status=403, fatal=True))
    rig.routes.end(None)
    assert isinstance(joining.error, ConnectError)
    assert str(joining.error) == "the server refused us: HTTP 403"
    assert push.error is joining.error
    assert left.result() is None
    assert joined.queue.closed
    assert leaving.queue.closed
    assert rig.routes.stream.closed
    assert rig.routes.stream.error is None
    late = Answer()
    rig.routes.leave(joined, late)
    assert late.result() is None
    rig.routes.leave(joined)
    assert rig.left == ["b"]


def test_a_bug_is_told_to_everybody() -> None:
    rig = Rig()
    joined = rig.joined("a")
    _, joining = rig.joining("b")
    bug = RuntimeError("bug")
    rig.routes.end(bug)
    assert joining.error is bug
    assert joined.queue.error is bug
    assert rig.routes.stream.error is bug
