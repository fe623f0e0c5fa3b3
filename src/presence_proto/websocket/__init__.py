"""A sans-IO WebSocket (RFC 6455) for clients and servers. Only this package imports h11 and wsproto.

`WebSocket`, `State`, `Proxy` and `ProxyTunnel` are imported on first access (PEP 562), because the import of
h11 and wsproto takes as long as the import of the rest of `presence_proto`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from presence_proto.config import Address
from presence_proto.websocket.events import (
    BinaryMessage,
    Closed,
    HandshakeRefused,
    HandshakeRequest,
    Opened,
    PingReceived,
    PongReceived,
    TextMessage,
    WebSocketEvent,
)

if TYPE_CHECKING:
    from presence_proto.websocket.protocol import State, WebSocket
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

_LATER = {"Proxy": "tunnel", "ProxyTunnel": "tunnel", "State": "protocol", "WebSocket": "protocol"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
