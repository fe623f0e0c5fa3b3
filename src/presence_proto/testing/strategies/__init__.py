"""Hypothesis strategies for messages, frames, presence, WebSocket streams, chunks of bytes, and clocks.

    from presence_proto.testing import strategies as ps

    @given(ps.presence_histories())
    def test_my_roster_is_the_truth(history): ...

The repr of an example is a Python expression that creates the example. Failing examples shrink to short
expressions. A `role` is the sender: use `"server"` for the input of a client under test.
"""

from __future__ import annotations

from presence_proto.testing.hypothesis_extra import hypothesis  # noqa: F401  # first, for its clear error
from presence_proto.testing.strategies.messages import (
    FRAME_FAULTS,
    MalformedFrame,
    binary_frames,
    frames,
    malformed_frames,
    messages,
    text_frames,
    user_broadcasts,
)
from presence_proto.testing.strategies.presence import (
    ODDITIES,
    Entries,
    Oddity,
    PresenceHistory,
    PresenceStep,
    Truth,
    diffs,
    entries,
    metas,
    presence_histories,
    tracked_payloads,
)
from presence_proto.testing.strategies.server_scripts import Kind, server_scripts
from presence_proto.testing.strategies.values import Role, Vsn, chunkings, clocks, json_values, texts
from presence_proto.testing.strategies.websocket import (
    STREAM_FAULTS,
    Binary,
    BrokenWebSocketStream,
    Close,
    Frame,
    Opcode,
    Ping,
    Pong,
    Text,
    WebSocketStream,
    broken_websocket_streams,
    websocket_streams,
)

__all__ = [
    "FRAME_FAULTS",
    "ODDITIES",
    "STREAM_FAULTS",
    "Binary",
    "BrokenWebSocketStream",
    "Close",
    "Entries",
    "Frame",
    "Kind",
    "MalformedFrame",
    "Oddity",
    "Opcode",
    "Ping",
    "Pong",
    "PresenceHistory",
    "PresenceStep",
    "Role",
    "Text",
    "Truth",
    "Vsn",
    "WebSocketStream",
    "binary_frames",
    "broken_websocket_streams",
    "chunkings",
    "clocks",
    "diffs",
    "entries",
    "frames",
    "json_values",
    "malformed_frames",
    "messages",
    "metas",
    "presence_histories",
    "server_scripts",
    "text_frames",
    "texts",
    "tracked_payloads",
    "user_broadcasts",
    "websocket_streams",
]
