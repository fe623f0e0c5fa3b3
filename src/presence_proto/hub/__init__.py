"""The server side, for many connections at once: a sans-IO core like the clients'.

`hub.py` has the transports and the time, `peer.py` one transport, `admission.py` decides who is let in,
`limits.py` how much one client may cause and keep. `phoenix.py` is one Phoenix connection, `channels.py`
the two kinds of channels on it, `jarvis.py` the Jarvis JSON protocol and its users, `topic.py` who is in
a topic and what they receive.
"""

from presence_proto.events import (
    ClientConnected,
    ClientDisconnected,
    ClientRefused,
    HubEvent,
    JoinRefused,
    TopicJoined,
    TopicLeft,
)
from presence_proto.hub.hub import Hub

__all__ = [
    "ClientConnected",
    "ClientDisconnected",
    "ClientRefused",
    "Hub",
    "HubEvent",
    "JoinRefused",
    "TopicJoined",
    "TopicLeft",
]
