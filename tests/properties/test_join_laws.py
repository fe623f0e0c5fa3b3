"""Joins that take their time, and are refused, in any order: what must hold on every connection.

The hub runs the joins of a connection one after the other, each for so long as the story says, and answers
nothing else of it meanwhile. No connection is lost, each join is answered once, there is never more than one
unanswered join of a topic, and in the end the client is where it wants to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lan import Lan
from presence_proto.channel import ChannelState
from presence_proto.config import RealtimeConfig
from presence_proto.endpoint import ConnId
from presence_proto.events import ChannelJoined, JoinFailed, JoinRefused, SocketDisconnected, TopicJoined
from presence_proto.hub.config import HubConfig
from presence_proto.realtime_client import RealtimeClient
from presence_proto.serializer import serializer_for
from presence_proto.testing import FaultyHub
from presence_proto.websocket import BinaryMessage, HandshakeRequest, TextMessage, WebSocket

GOOD = ("realtime:a", "realtime:b", "realtime:c")
REFUSED = {
    "realtime:private": "Unauthorized: no",
    "realtime:full": "the room is full",
    "realtime:later": "RealtimeRestarting: please standby",
    "room:c": "unmatched topic",
}
TOPICS = (*GOOD, *REFUSED)


class Listening(FaultyHub):
    """A hub that counts the joins which it has been sent, and has not answered."""

    def __init__(self, config: HubConfig) -> None:
        super().__init__(config)
        self.unanswered: Counter[str] = Counter()
        self._tap = WebSocket.server(deflate=False, max_message_size=1 << 20)
        self._serializer = serializer_for("2.0.0", server=True)

    def receive_data(self, conn: ConnId, data: bytes | bytearray | memoryview, *, now: float) -> None:
        """Bytes came."""
        self._tap.receive_data(data)
        while (event := self._tap.next_event()) is not None:
            if isinstance(event, HandshakeRequest):
                self._tap.accept()
            elif isinstance(event, (TextMessage, BinaryMessage)):
                message = self._serializer.decode(event)
                if message.event == "phx_join":
                    self.unanswered[message.topic] += 1
                    assert self.unanswered[message.topic] == 1, message.topic
        super().receive_data(conn, data, now=now)

    def drain(self) -> Sequence[Any]:
        """What there is to do."""
        outputs = super().drain()
        for output in outputs:
            if isinstance(output, (TopicJoined, JoinRefused)):
                self.unanswered[output.topic] -= 1
        return outputs


_seconds = st.sampled_from([0.0, 0.5, 3.0, 9.0, 12.0])
_topics = st.sampled_from(TOPICS)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("join"), _topics),
        st.tuples(st.just("join"), _topics),
        st.tuples(st.just("leave"), _topics),
        st.tuples(st.just("slow"), _seconds, _seconds),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 4.0, 10.0, 35.0])),
        st.tuples(st.just("token"), st.sampled_from(["one", "two"])),
    ),
    min_size=3,
    max_size=25,
)


@given(_steps)
def test_no_connection_is_lost_and_no_retry_makes_the_queue_longer(steps: list[tuple[Any, ...]]) -> None:
    refuse = HubConfig(authorize=lambda topic, token: REFUSED.get(topic), presence_window=0)
    lan = Lan(refuse, Listening)
    hub: Any = lan.hub
    config = RealtimeConfig(server_url="ws://hub/realtime/v1", heartbeat_interval=15.0, heartbeat_timeout=3.0)
    host = lan.add(RealtimeClient(config))
    wanted: dict[str, None] = {}
    told: list[Any] = []
    for name, *arguments in steps:
        if name == "wait":
            lan.advance(*arguments)
        elif name == "slow":
            lan.hub_do("set_faults", join_delay=arguments[0], refusal_delay=arguments[1])
        elif name == "token":
            host.do("set_access_token", *arguments)
        elif name == "join":
            wanted[arguments[0]] = None
            host.do("join", *arguments)
        elif arguments[0] in wanted:
            del wanted[arguments[0]]
            host.do("leave", *arguments)
        told += host.take()
    lan.hub_do("heal")
    lan.advance(400.0)
    told += host.take()
    assert not [event for event in told if isinstance(event, SocketDisconnected)]
    assert host.opens == 1
    states = {topic: host.client.state_of(topic) for topic in wanted}
    assert {topic for topic, state in states.items() if state is ChannelState.JOINED} == wanted.keys() & {
        *GOOD
    }
    assert all(count in (0, 1) for count in hub.unanswered.values())
    refusals = [event for event in told if isinstance(event, JoinFailed) and event.refused]
    assert all(event.reason == REFUSED[event.topic] for event in refusals)
    if "realtime:private" in wanted:
        assert any(event.final for event in refusals if event.topic == "realtime:private")
    assert not [event for event in told if isinstance(event, ChannelJoined) and event.topic in REFUSED]
