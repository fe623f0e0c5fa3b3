"""The hub: a sans-IO core like the clients, for the server side of many connections.

- `hub.py`: the class `Hub`, its transports and its timers;
- `peer.py`: the state of one transport;
- `config.py`: the settings;
- `admission.py`, `origins.py`: which connections are accepted, and from which web pages;
- `authorization.py`: the rule that accepts or refuses joins;
- `limits.py`: limits on the work and the memory use that one client may cause;
- `phoenix.py`: the server side of one Phoenix connection;
- `channels.py`: the two kinds of channels on a Phoenix connection;
- `jarvis.py`: the Jarvis JSON protocol and its users;
- `topic.py`: the members of a topic, and the messages that the members receive.
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
