"""A hub that is late with presence states: diffs overtake them, as on a busy server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_proto.testing.faults import FaultyPhoenixSession
from presence_proto.testing.faulty_hub import FaultyHub

if TYPE_CHECKING:
    from presence_proto.hub.handshake import Admission
    from presence_proto.hub.member import PhoenixMember
    from presence_proto.hub.peer import Peer, Session
    from presence_proto.hub.topic import SharedMessage
    from presence_proto.serializer import Message


class TardySession(FaultyPhoenixSession):
    """Sends the state of a topic after the next message of that topic, or when the client says something."""

    __slots__ = ("_late",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._late: dict[str, Message] = {}  # by topic

    def send(self, message: Message) -> None:
        """Send a message; a state, which is of now, later."""
        if message.event == "presence_state":
            self._late[message.topic] = message
        else:
            super().send(message)
            self._catch_up(message.topic)

    def send_shared(self, shared: SharedMessage) -> None:
        """Send a message that others get, too."""
        super().send_shared(shared)
        self._catch_up(shared.message.topic)

    def forget(self, channel: PhoenixMember) -> None:
        """A channel has ended."""
        super().forget(channel)
        self._late.pop(channel.name, None)

    def _on_message(self, message: Message) -> None:
        for topic in tuple(self._late):
            self._catch_up(topic)
        super()._on_message(message)

    def _catch_up(self, topic: str) -> None:
        state = self._late.pop(topic, None)
        if state is not None:
            super().send(state)


class TardyHub(FaultyHub):
    """A `FaultyHub` of which every other Phoenix connection gets its states late."""

    def _session(self, peer: Peer, admission: Admission) -> Session:
        if admission.serializer is None or peer.conn % 2:
            return super()._session(peer, admission)
        return TardySession(self._look, peer, self._topics, admission, admission.serializer)
