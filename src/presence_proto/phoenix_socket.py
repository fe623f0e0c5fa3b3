"""What all channels of a client share: the way out, the timers, and the replies that are awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen
from msgspec import Raw

from presence_proto import events
from presence_proto.channel_timers import ChannelTimer, ChannelTimers
from presence_proto.connection import ConnectionState
from presence_proto.errors import RemoteProtocolError
from presence_proto.join_queue import JoinQueue
from presence_proto.json_text import cut, nests_deeper, too_deep
from presence_proto.presence import PresenceMap
from presence_proto.refusals import words_of
from presence_proto.serializer import Message, Serializer, serializer_for
from presence_proto.timers import Clock, Timers

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from presence_proto.config import RealtimeConfig
    from presence_proto.connection import Connection
    from presence_proto.events import RealtimeEvent
    from presence_proto.outputs import AccessTokenNeeded, Outbox
    from presence_proto.presence import PresenceStore


UNMATCHED = {"reason": "unmatched topic"}
"""Phoenix' error response to a push for a topic that the socket has not joined."""


@frozen
class Push:
    """A message of the application's that waits for its join, or for its reply."""

    push_id: int
    topic: str
    event: str
    payload: Any
    wants_reply: bool
    is_track: bool


@frozen
class OuterClient:
    """What a client inside another one uses of it: its clock and outbox, its ear for events, its presence.

    Events are told at once, in the order of what came: nothing waits in a queue between the two.
    """

    clock: Clock
    outbox: Outbox[Any]
    emit: Callable[[RealtimeEvent], None]
    presence: PresenceStore


class PhoenixSocket:
    """Numbers messages, sends them, and remembers who waits for which reply."""

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
        "token",
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
        self.token = config.access_token  # the one in force
        self.timers: ChannelTimers = Timers()
        self.joins = JoinQueue(self.timers, config.join_timeout, connection.excuse_heartbeats_until)
        self._connection = connection
        self.emit = outbox.emit if host is None else host.emit  # report an event
        self.serializer: Serializer = serializer_for(config.vsn, server=False, max_nesting=config.max_nesting)
        # Refs are never reused, also not on the next connection: in V1 they are all that tells replies apart.
        self._refs = 0
        self._push_ids = 0
        # By ref: the push, and the join_ref that it went out with.
        self._awaited: dict[str, tuple[Push, str]] = {}

    @property
    def is_open(self) -> bool:
        """Whether anything can be sent."""
        return self._connection.state is ConnectionState.OPEN

    def new_presence(self) -> PresenceStore:
        """Where a channel keeps its presence."""
        if self._host is not None:
            return self._host.presence
        config = self.config
        return PresenceMap(
            max_keys=config.max_roster, max_metas=config.max_metas, max_nesting=config.max_nesting
        )

    def too_deep(self, text: str) -> tuple[RemoteProtocolError, Message | None] | None:
        """What is wrong with a text that nests too deeply; and the message, with `null` for what lies too
        deep, if it is one. `None` for any other text.
        """
        levels = self.config.max_nesting
        if not nests_deeper(text, levels):
            return None
        try:
            return too_deep("a message", levels), self.serializer.decode_text(cut(text, levels))
        except RemoteProtocolError:
            return too_deep("a message", levels), None

    def violated(self, exc: RemoteProtocolError, topic: str | None = None) -> None:
        """Report that a message was malformed. What was wrong may name a key of the server's."""
        self.emit(events.ProtocolViolation(self.quote(str(exc)), topic))

    def next_ref(self) -> str:
        """A fresh ref."""
        self._refs += 1
        return str(self._refs)

    def send(
        self, join_ref: str | None, topic: str, event: str, payload: Any, *, ref: str | None = None
    ) -> str:
        """Send a message and return its ref."""
        ref = self.next_ref() if ref is None else ref
        frame = self.serializer.encode(Message(join_ref, ref, topic, event, payload))
        self._connection.send(frame.data, text=frame.text)
        return ref

    def check(self, topic: str, event: str, payload: Any) -> None:
        """Raise `LocalProtocolError` unless this can be sent."""
        if type(payload) is Raw and event.isascii() and topic.isascii():
            return  # it is JSON already: to encode it once more takes 18,000 instructions, half a heartbeat
        self.serializer.encode(Message("0", "0", topic, event, payload))

    def reset_backoff(self) -> None:
        """Things have been well for a while: the reconnect backoff starts over."""
        self._connection.reset_backoff()

    def quote(self, *words: object) -> str:
        """The first of these that is text, for people: bounded, and without secrets, which it may quote."""
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
        """A push with a fresh id, and a timer that fails it at `expires`.

        Raises `LocalProtocolError` when it cannot be sent: now, not when its turn has come.
        """
        self.check(topic, event, payload)
        self._push_ids += 1
        self.timers.set((ChannelTimer.PUSH, self._push_ids), expires)
        return Push(self._push_ids, topic, event, payload, wants_reply, is_track)

    def send_push(self, push: Push, join_ref: str) -> None:
        """Send a push in this life of its channel, and await its reply, if it wants one, until it expires."""
        ref = self.send(join_ref, push.topic, push.event, push.payload)
        if push.wants_reply:
            self._awaited[ref] = (push, join_ref)
        else:
            self.timers.cancel((ChannelTimer.PUSH, push.push_id))

    def replied(self, ref: object, status: str, response: Any) -> str | None:
        """A reply came. If a push waits for it, report it and return the join_ref that it went out with."""
        push, join_ref = self._awaited.pop(ref, (None, None)) if isinstance(ref, str) else (None, None)
        if push is None:
            return None
        self.timers.cancel((ChannelTimer.PUSH, push.push_id))
        if not push.is_track:
            self.emit(events.PushReplied(push.push_id, push.topic, status, response))
        elif status != "ok" and response != UNMATCHED:  # the end of the channel is reported instead
            reason = self.quote(words_of(response), f"the server said {status}")
            self.emit(events.TrackFailed(push.topic, reason, response))
        return join_ref

    def fail(self, push: Push, reason: str) -> None:
        """No reply will come for a push."""
        self.timers.cancel((ChannelTimer.PUSH, push.push_id))
        if push.is_track:
            self.emit(events.TrackFailed(push.topic, reason))
        else:
            self.emit(events.PushFailed(push.push_id, push.topic, reason))

    def expired(self, push_id: int) -> bool:
        """A push that was sent got no reply in time. False: it was not sent."""
        for ref, (push, _) in self._awaited.items():
            if push.push_id == push_id:
                del self._awaited[ref]
                self.fail(push, "no reply in time")
                return True
        return False

    def channel_ended(self, join_ref: str, reason: str, *, crashed: bool) -> None:
        """A life of a channel ended. After a crash nobody will answer its pushes: they fail with `reason`.

        A channel that was closed in order may have handed its pushes to other processes, which still reply
        (Phoenix' `socket_ref/1`). Tracks do not wait: they are made again after the rejoin.
        """
        for ref, (push, pushed_in) in [*self._awaited.items()]:
            if pushed_in == join_ref and (crashed or push.is_track):
                del self._awaited[ref]
                self._drop(push, reason)

    def connection_lost(self, reason: str) -> None:
        """Nobody will answer what was sent. `reason` says why the connection ended."""
        self.joins.connection_lost()
        awaited, self._awaited = self._awaited, {}
        for push, _ in awaited.values():
            self._drop(push, f"the connection ended before the reply: {reason}")

    def _drop(self, push: Push, reason: str) -> None:
        if push.is_track:
            self.timers.cancel((ChannelTimer.PUSH, push.push_id))
        else:
            self.fail(push, reason)
