"""A Phoenix socket, server side: the messages of one connection, and the channels that it has joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from presence_proto.events import JoinRefused
from presence_proto.hub.member import PhoenixMember, Refused, reply_to
from presence_proto.hub.plain import PlainMember
from presence_proto.hub.supabase import SupabaseMember
from presence_proto.hub.topics import SUPABASE_PREFIX, Topics

if TYPE_CHECKING:
    from presence_proto.hub.peer import Peer
    from presence_proto.hub.topic import Shared
    from presence_proto.outputs import ConnId
    from presence_proto.serializer import Message, Serializer
    from presence_proto.websocket import BinaryMessage, TextMessage

_UNMATCHED = {"reason": "unmatched topic"}


class PhoenixSession:
    """One connection that speaks Phoenix: V1 or V2 messages, each for the socket itself or for one channel.

    `realtime`: whether Supabase topics may be joined here.
    """

    __slots__ = ("_channels", "_peer", "_realtime", "_serializer", "topics")

    def __init__(self, peer: Peer, serializer: Serializer, topics: Topics, *, realtime: bool) -> None:
        self._peer = peer
        self._serializer = serializer
        self._realtime = realtime
        self._channels: dict[str, PhoenixMember] = {}
        self.topics = topics

    # -- facts

    @property
    def deadline(self) -> float:
        """When the connection is idle. Any bytes from the client count, also those of pings."""
        return self._peer.last_seen + self.topics.config.idle_timeout

    def receive(self, frame: TextMessage | BinaryMessage) -> None:
        """Handle one message from the client.

        Raises `RemoteProtocolError` when it is malformed, and `LocalProtocolError` when it cannot be answered
        or passed on. The connection cannot go on then.
        """
        self._on_message(self._serializer.decode(frame))

    def stop(self, topic: str, reason: str, *, crashed: bool) -> None:
        """The hub ends a channel."""
        channel = self._channels.get(topic)
        if channel is not None:
            channel.stop(reason, crashed=crashed)

    def end(self, reason: str) -> None:
        """The connection is over, or will be: leave every topic, without a word to the client."""
        for channel in list(self._channels.values()):
            channel.leave(reason)

    def _on_message(self, message: Message) -> None:
        channel = self._channels.get(message.topic)
        if message.topic == "phoenix":
            self._on_socket(message)
        elif message.event == "phx_join":
            self._on_join(message, channel)
        elif channel is None:
            self._on_unmatched(message)
        elif message.join_ref is not None and message.join_ref != channel.ref:
            pass  # meant for an earlier life of the channel: Phoenix says nothing
        elif message.event == "phx_leave":
            channel.reply(message, "ok", {})
            channel.close("left")
        else:
            channel.receive(message)

    def _on_socket(self, message: Message) -> None:
        if message.event in ("heartbeat", "phx_leave"):
            self.send(reply_to(message, None, "ok", {}))
        else:
            self.send(reply_to(message, None, "error", _UNMATCHED))

    def _on_unmatched(self, message: Message) -> None:
        if message.event == "phx_leave":
            self.send(reply_to(message, message.join_ref, "ok", {}))
        else:
            self.send(reply_to(message, None, "error", _UNMATCHED))

    def _on_join(self, message: Message, old: PhoenixMember | None) -> None:
        # The order is Phoenix's: the reply to the new join, the end of the old life, the presence.
        try:
            channel = self._admitted(message, is_new=old is None)
        except Refused as refused:
            self.send(reply_to(message, message.join_ref, "error", {"reason": refused.reason}))
            self.topics.emit(JoinRefused(self.conn, message.topic, refused.reason + refused.detail))
            if old is not None:
                old.close("joined again, and refused")
            return
        self.send(reply_to(message, message.join_ref, "ok", channel.response(message)))
        if old is not None:
            old.close("joined again")
        self._channels[message.topic] = channel
        channel.enter(message)

    def _admitted(self, message: Message, *, is_new: bool) -> PhoenixMember:
        """The new channel. Raises `Refused`."""
        if is_new and len(self._channels) >= self.topics.config.max_channels:
            raise Refused("too many channels joined")
        supabase = message.topic.startswith(SUPABASE_PREFIX)
        if supabase and not self._realtime:
            raise Refused("unmatched topic")
        if not isinstance(message.payload, Mapping):
            raise Refused("join crashed", " (the payload is not an object)")
        return SupabaseMember(self, message) if supabase else PlainMember(self, message)

    # -- for the channels

    @property
    def conn(self) -> ConnId:
        """The connection."""
        return self._peer.conn

    def send(self, message: Message) -> None:
        """Send a message. Raises `LocalProtocolError` when it cannot be encoded."""
        self._peer.send(self._serializer.encode(message))

    def send_shared(self, shared: Shared) -> None:
        """Send a message that others get, too, if our serializer can carry it."""
        form = shared.form(self._serializer)
        if form is not None:
            self._peer.send_shared(form)

    def forget(self, channel: PhoenixMember) -> None:
        """A channel has ended."""
        del self._channels[channel.name]
