"""WebSocket (RFC 6455), client and server side, sans-IO. Only this package imports h11 and wsproto."""

from presence_proto.config import Address
from presence_proto.websocket.handshake import HandshakeRefused, HandshakeRequest
from presence_proto.websocket.protocol import (
    BinaryMessage,
    Closed,
    Opened,
    PingReceived,
    PongReceived,
    State,
    TextMessage,
    WebSocket,
    WebSocketEvent,
)
from presence_proto.websocket.tunnel import Proxy, ProxyTunnel

__all__ = [
    "Address",
    "BinaryMessage",
    "Closed",
    "HandshakeRefused",
    "HandshakeRequest",
    "Opened",
    "PingReceived",
    "PongReceived",
    "Proxy",
    "ProxyTunnel",
    "State",
    "TextMessage",
    "WebSocket",
    "WebSocketEvent",
]
