"""Server side of a Phoenix socket: the messages and the joined channels of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from presence_proto.errors import RemoteProtocolError
from presence_proto.events import JoinRefused
from presence_proto.hub.channels import JoinRefusedError, PhoenixMember, PlainMember, SupabaseMember, reply_to
from presence_proto.hub.limits import TOO_FAST, TOO_MANY_MESSAGES, Allowance, NoRoomError
from presence_proto.hub.topic import SUPABASE_PREFIX, Leave, SlowJoin, Topics
from presence_proto.json_text import SMALL_TEXT, check_elements
from presence_proto.serializer import is_json_broadcast
from presence_proto.websocket import TextMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from presence_proto.endpoint import ConnId
    from presence_proto.hub.admission import Admission
    from presence_proto.hub.peer import Peer
    from presence_proto.hub.topic import SharedMessage
    from presence_proto.serializer import Message, Serializer
    from presence_proto.websocket import BinaryMessage

_UNMATCHED = {"reason": "unmatched topic"}
OVERTAKING = 0.01
"""Delay of a leave on Supabase's path, in seconds. A join of the same topic overtakes the leave.

In Supabase's server, the socket's process handles joins, and the channel's process handles the leave.
"""
_NORMAL, _PROTOCOL_ERROR, _POLICY = 1000, 1002, 1008  # close codes


class PhoenixSession:
    """One connection of Phoenix V1 or V2. A message is for the socket itself or for one of its channels.

    `admission` is the result of the handshake. On Supabase's path, only Supabase topics may be joined, and
    the session behaves like Supabase's server.

    When the config delays joins, the joins of a connection run one after the other, as in Phoenix. During a
    join, received bytes of the connection wait, and the driver stops reading.
    """

    __slots__ = (
        "_channels",
        "_encoding",
        "_join",
        "_leaving",
        "_peer",
        "_realtime",
        "_serializer",
        "_supabase",
        "allowance",
        "rates",
        "token",
        "topics",
    )

    def __init__(self, peer: Peer, topics: Topics, admission: Admission, serializer: Serializer) -> None:
        self._peer = peer
        self._serializer = serializer
        self._encoding = serializer, peer.deflate_bits
        self._realtime = admission.realtime
        self._supabase = admission.supabase
        self._channels: dict[str, PhoenixMember] = {}
        self.token = admission.token
        self._join: Callable[[], None] | None = None  # the remaining steps of a slow join
        self._leaving: Message | None = None  # a delayed leave that a join may overtake
        self.allowance = Allowance("this connection", topics.config.max_connection_size)
        self.topics = topics
        self.rates = topics.rates()

    # -- calls from the hub

    @property
    def deadline(self) -> float:
        """Time in seconds at which the connection counts as idle.

        Any frame from the client, including a ping, extends the deadline.
        """
        return self._peer.last_seen + self.topics.config.idle_timeout

    def on_idle(self) -> int:
        """Return the close code for an idle connection: Cowboy's code on Supabase's path, or Bandit's."""
        return _NORMAL if self._supabase else _PROTOCOL_ERROR

    def receive(self, frame: TextMessage | BinaryMessage) -> None:
        """Handle one message from the client.

        Raises `RemoteProtocolError` for a malformed message, and `LocalProtocolError` when the message cannot
        be answered or forwarded. After an exception, the caller must close the connection. On Supabase's
        path, malformed messages are ignored without an exception, like in the `rescue` of
        `RealtimeWeb.Socket.handle_in`.
        """
        may_come = self.rates.are_off or self.rates.allow_message()
        try:
            if len(frame.data) > SMALL_TEXT and self._is_json(frame):
                check_elements(frame.data, "a message", self.topics.config.max_elements)
            message = self._serializer.decode(frame)
        except RemoteProtocolError:
            if self._supabase and may_come:
                return
            if may_come:
                raise
            self._close_for_haste()
        else:
            if may_come:
                self._on_message(message)
            else:
                self._on_haste(message)

    def _is_json(self, frame: TextMessage | BinaryMessage) -> bool:
        return isinstance(frame, TextMessage) or is_json_broadcast(frame.data)

    def _on_haste(self, message: Message) -> None:
        """Handle a message above `message_rate`: close its Supabase channel, otherwise the connection."""
        channel = self._channels.get(message.topic)
        if isinstance(channel, SupabaseMember):
            channel.stop(TOO_MANY_MESSAGES, crashed=False)
        else:
            self._close_for_haste()

    def _close_for_haste(self) -> None:
        self._peer.close(_POLICY, TOO_FAST, TOO_FAST, timeout=self.topics.config.close_timeout)

    def join_delay_ended(self) -> None:
        """Continue a join when its delay has ended. Raises the same exceptions as `receive`."""
        join, self._join = self._join, None
        assert join is not None
        self._peer.is_served = True
        join()

    def leave_ended(self) -> None:
        """Execute and answer the delayed leave, unless a join has overtaken the leave."""
        leave, self._leaving = self._leaving, None
        channel = None if leave is None else self._channels.get(leave.topic)
        if leave is not None and channel is not None:
            channel.reply(leave, "ok", {})
            channel.close("left")

    def stop(self, topic: str, reason: str, *, crashed: bool) -> None:
        """Implement `Session.stop`."""
        channel = self._channels.get(topic)
        if channel is not None:
            channel.stop(reason, crashed=crashed)

    def crash(self) -> bool:
        """Crash all channels on Supabase's path, and return `True`. On other paths, return `False`."""
        for channel in tuple(self._channels.values()) if self._supabase else ():
            channel.stop("crashed", crashed=True)
        return self._supabase

    def end(self, reason: str) -> None:
        """Implement `Session.end`."""
        if self._join is not None:
            self.topics.cancel_timer(SlowJoin(self.conn))
        self.topics.cancel_timer(Leave(self.conn))
        for channel in list(self._channels.values()):
            channel.leave(reason)

    def _on_message(self, message: Message) -> None:
        if self._leaving is not None:
            self._on_next(message, self._leaving)
        channel = self._channels.get(message.topic)
        if message.topic == "phoenix":
            self._on_socket(message)
        elif message.event == "phx_join" and self._has_topic(message.topic):
            self._after(self.topics.config.join_delay, lambda: self._on_join(message))
        elif channel is None:
            self._on_unmatched(message)
        elif message.join_ref not in (None, channel.ref) and not self._takes_stale(message):
            pass  # for an earlier join of the channel: Phoenix ignores such messages
        elif message.event == "phx_leave":
            self._leaving = message
            if self._supabase:
                self.topics.set_timer(Leave(self.conn), OVERTAKING)
            else:
                self.leave_ended()
        else:
            channel.receive(message)

    def _on_next(self, message: Message, leave: Message) -> None:
        """Handle the delayed leave when the next message arrives.

        A join of the same topic overtakes the leave, which then gets no reply. The hub executes the leave
        before any other message.
        """
        self.topics.cancel_timer(Leave(self.conn))
        if message.event == "phx_join" and message.topic == leave.topic:
            self._leaving = None
        else:
            self.leave_ended()

    def _has_topic(self, topic: str) -> bool:
        """Whether topics like `topic` exist on the connection's path.

        Supabase's path has only Supabase topics. A Phoenix path has all other topics, and also Supabase
        topics if `realtime` is set.
        """
        supabase = topic.startswith(SUPABASE_PREFIX)
        return supabase if self._supabase else self._realtime or not supabase

    def _takes_stale(self, message: Message) -> bool:
        """Whether a message with an old `join_ref` is accepted.

        Supabase (2.129.5) runs a fork of Phoenix that accepts pushes with the `join_ref` of an earlier join.
        """
        return self._supabase and message.event != "phx_leave"

    def _on_socket(self, message: Message) -> None:
        if message.event in ("heartbeat", "phx_leave"):
            self.send(reply_to(message, None, "ok", {}))
        else:
            self.send(reply_to(message, None, "error", _UNMATCHED))

    def _on_unmatched(self, message: Message) -> None:
        if message.event == "phx_leave":
            self.send(reply_to(message, message.join_ref, "ok", {}))
            return
        self.send(reply_to(message, None, "error", _UNMATCHED))
        if message.event == "phx_join":
            self.topics.emit(JoinRefused(self.conn, message.topic, _UNMATCHED["reason"]))

    def _after(self, seconds: float, join: Callable[[], None]) -> None:
        """Call `join` after `seconds`. Until then the connection handles no other message."""
        if seconds:
            self._join = join
            self._peer.is_served = False  # messages after the join wait for its end
            self.topics.set_timer(SlowJoin(self.conn), seconds)
        else:
            join()

    def _on_join(self, message: Message) -> None:
        # Phoenix's order: the reply to the new join, the close of the previous join, the presence.
        old = self._channels.get(message.topic)
        try:
            channel = self._admitted(message, old)
        except JoinRefusedError as exc:
            refused = exc  # Python deletes `exc` at the end of the `except` block
            self._after(self.topics.config.refusal_delay, lambda: self._refuse(message, refused))
            return
        self.send(reply_to(message, message.join_ref, "ok", channel.response(message)))
        if old is not None:
            old.close("joined again")
        self._channels[message.topic] = channel
        channel.enter(message)

    def _refuse(self, message: Message, refused: JoinRefusedError) -> None:
        old = self._channels.get(message.topic)
        self.send(reply_to(message, message.join_ref, "error", {"reason": refused.reason}))
        self.topics.emit(JoinRefused(self.conn, message.topic, refused.reason + refused.detail))
        if old is not None:
            old.close("joined again, and refused")

    def _admitted(self, message: Message, old: PhoenixMember | None) -> PhoenixMember:
        """Return the new channel, which replaces `old`. Raises `JoinRefusedError` for a refused join."""
        kind = SupabaseMember if message.topic.startswith(SUPABASE_PREFIX) else PlainMember
        if old is None and len(self._channels) >= self.topics.config.max_channels:
            raise JoinRefusedError(kind.TOO_MANY)
        if not self.rates.allow_join():
            raise JoinRefusedError(kind.TOO_MANY_JOINS)
        channel = kind(self, message)
        more = channel.size - self.freed_by(message.topic)
        try:
            self.allowance.check(more)
            self.topics.total.check(more)
        except NoRoomError as exc:
            raise JoinRefusedError(str(exc)) from None
        return channel

    # -- for the channels

    @property
    def conn(self) -> ConnId:
        """Implement `ChannelSocket.conn`."""
        return self._peer.conn

    def send(self, message: Message) -> None:
        """Send a message. Raises `LocalProtocolError` when the message cannot be encoded."""
        self._peer.send(self._serializer.encode(message))

    def send_shared(self, shared: SharedMessage) -> None:
        """Send a message shared with other connections, unless this serializer cannot encode the message."""
        # Inlined instead of calling `Peer.send_shared`: this runs for each receiver.
        frame = shared.frames.get(self._encoding) or shared.frame(self._encoding)
        if frame is not None:
            self._peer.outbox.send(self._peer.conn, frame)

    def freed_by(self, topic: str) -> int:
        """Implement `ChannelSocket.freed_by`. Return 0 if there is no channel of `topic`."""
        channel = self._channels.get(topic)
        return 0 if channel is None else channel.size + channel.charge

    def keep(self, size: int) -> None:
        """Implement `ChannelSocket.keep`."""
        self.allowance.held += size
        self.topics.total.held += size

    def forget(self, channel: PhoenixMember) -> None:
        """Implement `ChannelSocket.forget`."""
        del self._channels[channel.name]
