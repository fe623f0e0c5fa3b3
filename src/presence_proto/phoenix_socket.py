"""`PhoenixSocket`: the outgoing side of a Phoenix socket, shared by all channels of a client."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum, IntEnum, auto
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Raw, Struct

from presence_proto import events
from presence_proto.connection import ConnectionState
from presence_proto.endpoint import Outbox
from presence_proto.errors import RemoteProtocolError
from presence_proto.events import RealtimeEvent
from presence_proto.join_refusals import words_of
from presence_proto.json_text import cut, nests_deeper, too_deep
from presence_proto.presence import PresenceMap, PresenceStore
from presence_proto.serializer import Message, Serializer, SupabasePush, serializer_for
from presence_proto.timers import Clock, Timers

if TYPE_CHECKING:
    from random import Random

    from presence_proto.config import RealtimeConfig
    from presence_proto.connection import Connection
    from presence_proto.endpoint import AccessTokenNeeded


# --------------------------------------------------------------------------------------------- channel timers
# The keys of the timers of all channels of a client.


class ChannelTimer(IntEnum):  # not Enum: the hash of an IntEnum is faster
    """The kinds of channel timers. The key of a timer is a kind and a topic, or PUSH and the id of a push."""

    JOIN = auto()  # the reply to the join is late; at the second expiry, the wait for the reply is over
    LEAVE = auto()  # the reply to the leave is overdue
    STATE = auto()  # the presence_state is overdue
    REJOIN = auto()  # the delay before the next join is over
    STABLE = auto()  # joined (or connected; the topic is then "") for `stable_after`: reset the backoffs
    TRACK = auto()  # the budget allows the next track
    PUSH = auto()  # the push expires while it waits for the join or the reply


ChannelTimers: TypeAlias = Timers[tuple[ChannelTimer, str | int]]


# --------------------------------------------------------------------------------------------- phoenix socket


UNMATCHED = {"reason": "unmatched topic"}
"""Phoenix's error response to a push to a topic that the socket has not joined."""


class Push(Struct, frozen=True):
    """An outgoing message that waits for the join of the channel, or for a reply."""

    push_id: int
    topic: str
    event: str
    payload: Any
    wants_reply: bool
    is_track: bool


class OuterClient(Struct, frozen=True):
    """The parts of an enclosing client that the enclosed `RealtimeClient` uses.

    The enclosed client calls `emit` with each event at once, so that no second queue delays events.
    """

    clock: Clock
    outbox: Outbox[Any]
    emit: Callable[[RealtimeEvent], None]
    presence: PresenceStore


class PhoenixSocket:
    """The outgoing side of a Phoenix socket: refs, pushes that await replies, and the channel timers."""

    __slots__ = (
        "_awaited",
        "_connection",
        "_host",
        "_push_ids",
        "_refs",
        "config",
        "emit",
        "joins",
        "rng",
        "serializer",
        "timers",
    )

    def __init__(
        self,
        config: RealtimeConfig,
        connection: Connection,
        outbox: Outbox[AccessTokenNeeded | RealtimeEvent],
        rng: Random | None,
        host: OuterClient | None = None,
    ) -> None:
        self.config = config
        self._host = host
        self.rng = rng
        self.timers: ChannelTimers = Timers()
        self.joins = JoinQueue(self.timers, config.join_timeout, connection.excuse_heartbeats_until)
        self._connection = connection
        self.emit = outbox.emit if host is None else host.emit  # reports an event
        self.serializer: Serializer = serializer_for(config.vsn, server=False, max_nesting=config.max_nesting)
        # Refs are never reused, even on the next connection: in V1, a reply has a ref but no join_ref.
        self._refs = 0
        self._push_ids = 0
        # ref -> the push, and the join_ref with which it was sent
        self._awaited: dict[str, tuple[Push, str]] = {}

    @property
    def is_open(self) -> bool:
        """Whether the WebSocket is open. Messages can be sent only on an open WebSocket."""
        return self._connection.state is ConnectionState.OPEN

    @property
    def token(self) -> str | None:
        """The current access token."""
        return self._connection.token

    def new_presence(self) -> PresenceStore:
        """Return the store of the enclosing client, or a new `PresenceMap`, for a channel's presence."""
        if self._host is not None:
            return self._host.presence
        config = self.config
        return PresenceMap(
            max_keys=config.max_roster, max_metas=config.max_metas, max_nesting=config.max_nesting
        )

    def too_deep(self, text: str) -> tuple[RemoteProtocolError, Message | None] | None:
        """Return an error and the message if `text` nests too deeply, otherwise `None`.

        In the returned message, `null` replaces the values that nest too deeply. If the text is also
        malformed, `None` replaces the message.
        """
        levels = self.config.max_nesting
        if not nests_deeper(text, levels):
            return None
        try:
            return too_deep("a message", levels), self.serializer.decode_text(cut(text, levels))
        except RemoteProtocolError:
            return too_deep("a message", levels), None

    def violated(self, exc: RemoteProtocolError, topic: str | None = None) -> None:
        """Report a malformed message. The error text is redacted, because the text may quote the server."""
        self.emit(events.ProtocolViolation(self.quote(str(exc)), topic))

    def next_ref(self) -> str:
        """Return a new ref, which was never used before."""
        self._refs += 1
        return str(self._refs)

    def send(
        self, join_ref: str | None, topic: str, event: str, payload: Any, *, ref: str | None = None
    ) -> str:
        """Send a message and return the ref of the message."""
        ref = self.next_ref() if ref is None else ref
        frame = self.serializer.encode(Message(join_ref, ref, topic, event, payload))
        self._connection.send(frame.data, text=frame.text)
        return ref

    def check(self, topic: str, event: str, payload: Any) -> None:
        """Raise `LocalProtocolError` if the message cannot be encoded."""
        self.serializer.encode(Message("0", "0", topic, event, payload))

    def reset_backoff(self) -> None:
        """Reset the reconnect backoff, after a stable connection or join."""
        self._connection.reset_backoff()

    def quote(self, *words: object) -> str:
        """Return the first non-empty string in `words`, redacted and cut to `MAX_TEXT` characters."""
        text = next(word for word in words if isinstance(word, str) and word)
        return self._connection.credentials.quote(text)

    # ---------------------------------------------------------------- pushes

    def new_push(
        self,
        topic: str,
        event: str,
        payload: Any,
        expires: float,
        *,
        wants_reply: bool = True,
        is_track: bool = False,
    ) -> Push:
        """Return a push with a new id, and set the timer that fails the push at `expires`.

        Raises `LocalProtocolError` if the push cannot be encoded, although the push may be sent later.
        """
        # Encoded JSON needs no check: encoding again would take half the time of a heartbeat.
        inner = payload.event if type(payload) is SupabasePush else ""
        if not (type(payload) in (Raw, SupabasePush) and f"{event}{topic}{inner}".isascii()):
            self.check(topic, event, payload)
        self._push_ids += 1
        self.timers.set((ChannelTimer.PUSH, self._push_ids), expires)
        return Push(self._push_ids, topic, event, payload, wants_reply, is_track)

    def send_push(self, push: Push, join_ref: str) -> None:
        """Send a push with this join_ref. If the push wants a reply, await a reply until the push expires."""
        ref = self.send(join_ref, push.topic, push.event, push.payload)
        if push.wants_reply:
            self._awaited[ref] = (push, join_ref)
        else:
            self.timers.cancel((ChannelTimer.PUSH, push.push_id))

    def replied(self, ref: object, status: str, response: Any) -> str | None:
        """Handle a reply. If a push awaits the reply, report the reply and return the push's join_ref."""
        push, join_ref = self._awaited.pop(ref, (None, None)) if isinstance(ref, str) else (None, None)
        if push is None:
            return None
        self.timers.cancel((ChannelTimer.PUSH, push.push_id))
        if not push.is_track:
            self.emit(events.PushReplied(push.push_id, push.topic, status, response))
        elif status != "ok" and response != UNMATCHED:  # UNMATCHED: ChannelDown is reported instead
            reason = self.quote(words_of(response), f"the server said {status}")
            self.emit(events.TrackFailed(push.topic, reason, response))
        return join_ref

    def fail(self, push: Push, reason: str) -> None:
        """Report that a push gets no reply."""
        self.timers.cancel((ChannelTimer.PUSH, push.push_id))
        if push.is_track:
            self.emit(events.TrackFailed(push.topic, reason))
        else:
            self.emit(events.PushFailed(push.push_id, push.topic, reason))

    def expired(self, push_id: int) -> bool:
        """Fail the expired push if the push awaits a reply, otherwise return `False`."""
        for ref, (push, _) in self._awaited.items():
            if push.push_id == push_id:
                del self._awaited[ref]
                self.fail(push, "no reply in time")
                return True
        return False

    def channel_ended(self, join_ref: str, reason: str, *, crashed: bool) -> None:
        """Handle the end of a join. Pushes of a crashed join get no reply, and fail with `reason`.

        After a normal close, other processes of the server may still reply to the join's pushes (Phoenix's
        `socket_ref/1`). Tracks are dropped without an event: the client tracks the payload again after the
        rejoin.
        """
        for ref, (push, pushed_in) in [*self._awaited.items()]:
            if pushed_in == join_ref and (crashed or push.is_track):
                del self._awaited[ref]
                self._drop(push, reason)

    def connection_lost(self, reason: str) -> None:
        """Fail all pushes that await a reply. `reason` is the reason for the end of the connection."""
        self.joins.connection_lost()
        awaited, self._awaited = self._awaited, {}
        for push, _ in awaited.values():
            self._drop(push, f"the connection ended before the reply: {reason}")

    def _drop(self, push: Push, reason: str) -> None:
        if push.is_track:
            self.timers.cancel((ChannelTimer.PUSH, push.push_id))
        else:
            self.fail(push, reason)


# ------------------------------------------------------------------------------------------------- join queue
# The unanswered joins of one connection, and the timeouts of their replies.
#
# Phoenix runs the joins of one socket one after the other. During a join, Phoenix handles no other message of
# that socket, not even a heartbeat. Supabase takes 5 s for each refused join. Therefore, the joins that a
# client has sent form a queue in the server:
#
#     sent first                                            sent last
#     A (late)      B (probably running)      C      D      heartbeat
#
# - The timeout of a join starts when the previous join is answered or late. Each reply restarts the timeout
#   of the next join.
# - A late join stays in the queue, and its reply still counts. Another join would make the queue longer.
# - A reply to a join or a heartbeat shows that the server has *passed* all earlier joins: no earlier join
#   blocks the socket. A server that runs joins in parallel may still answer a passed join. After `PATIENCE`
#   timeouts without a reply, the client sends a passed join again.
# - While a join may block the socket, a missing heartbeat reply proves nothing. `PATIENCE` timeouts after the
#   last reply, a missing heartbeat reply counts again: the client must detect a dead connection.


PATIENCE = 3
"""Number of join timeouts to wait for a join's reply, or for any reply while a join blocks the socket."""


class Overdue(Enum):
    """The reaction to an overdue join."""

    LATE = auto()  # report the join and send a heartbeat, whose reply shows that the join was passed
    BLOCKED = auto()  # do nothing: missing heartbeat replies will end the connection
    REPEAT = auto()  # join again: the server passed this join long ago


class _Join(Struct):
    number: int  # the ref of the join as a number; later refs are larger
    is_late: bool = False
    is_passed: bool = False  # the server has answered a later message


class JoinQueue:
    """The unanswered joins of one connection, at most one per topic.

    `timeout` is in seconds. The queue calls `excuse_heartbeats_until` with the time until which a missing
    heartbeat reply is not a failure.
    """

    __slots__ = ("_excuse_heartbeats_until", "_joins", "_moved_at", "_timeout", "_timers")

    def __init__(
        self, timers: ChannelTimers, timeout: float, excuse_heartbeats_until: Callable[[float], None]
    ) -> None:
        self._timers = timers
        self._timeout = timeout
        self._excuse_heartbeats_until = excuse_heartbeats_until
        # Joins by topic, in the order of sending. The joins that the server has passed are the first ones.
        self._joins: dict[str, _Join] = {}
        self._moved_at = -math.inf  # time of the last reply, or of the first join in the queue

    def __contains__(self, topic: object) -> bool:
        return topic in self._joins

    def __len__(self) -> int:
        return len(self._joins)

    def number_of(self, topic: str) -> int:
        """Return the ref of the topic's join as a number."""
        return self._joins[topic].number

    @property
    def longest(self) -> float:
        """The maximum time to wait for a reply after a join is late, in seconds."""
        return (PATIENCE - 1) * self._timeout

    def sent(self, topic: str, ref: str, now: float) -> None:
        """Add a sent join. The topic must have no other unanswered join."""
        assert topic not in self._joins
        last = next(reversed(self._joins.values()), None)
        if last is None or last.is_passed:
            self._moved_at = now
        self._joins[topic] = _Join(int(ref))
        if last is None or last.is_passed or last.is_late:
            self._timers.set((ChannelTimer.JOIN, topic), now + self._timeout)
        self._be_patient()

    def answered(self, topic: str, ref: object, now: float) -> bool:
        """Remove an answered join. Returns `False` if `ref` is not the topic's unanswered join."""
        join = self._joins.get(topic)
        if join is None or ref != str(join.number):
            return False
        del self._joins[topic]
        self._timers.cancel((ChannelTimer.JOIN, topic))
        self.passed(join.number, now)
        return True

    def passed(self, number: int, now: float) -> None:
        """Handle a reply to the message with this ref: no earlier join blocks the socket any more."""
        self._moved_at = now
        for join in self._joins.values():
            if join.number < number:
                join.is_passed = True
        self._next_turn(now)
        self._be_patient()

    def expired(self, topic: str, now: float) -> Overdue:
        """Handle the due timer of a topic's join."""
        join = self._joins[topic]
        if not join.is_late:
            join.is_late = True
            self._timers.set((ChannelTimer.JOIN, topic), now + self.longest)
            self._next_turn(now)
            return Overdue.LATE
        if not join.is_passed:
            return Overdue.BLOCKED
        del self._joins[topic]
        return Overdue.REPEAT

    def connection_lost(self) -> None:
        """Remove all joins, because the joins get no reply after the connection is lost."""
        for topic in self._joins:
            self._timers.cancel((ChannelTimer.JOIN, topic))
        self._joins.clear()
        self._be_patient()

    def _next_turn(self, now: float) -> None:
        for topic, join in self._joins.items():
            timer = (ChannelTimer.JOIN, topic)
            if join.is_passed:
                if self._timers.get(timer) is None:
                    self._timers.set(timer, now + self._timeout)
            elif not join.is_late:
                self._timers.set(timer, now + self._timeout)
                return

    def _be_patient(self) -> None:
        last = next(reversed(self._joins.values()), None)
        blocks = last is not None and not last.is_passed
        self._excuse_heartbeats_until(self._moved_at + PATIENCE * self._timeout if blocks else -math.inf)
