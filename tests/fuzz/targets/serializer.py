"""Frames to the serializers: V1, V2, text and binary, on either side. What is decoded can be said again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from fuzz import cost, script, seeds
from presence_proto.errors import LocalProtocolError, RemoteProtocolError
from presence_proto.serializer import EncodedFrame, Message, Serializer, UserBroadcast, serializer_for
from presence_proto.websocket import BinaryMessage, TextMessage

CALLS = 300, 6
KEPT = 100_000, 200

_VSN = ("1.0.0", "2.0.0")
SERIALIZERS = {(vsn, server): serializer_for(vsn, server=server) for vsn in _VSN for server in (False, True)}


def check(data: bytes) -> None:
    """Run an input: a frame, and an option byte for the version, the side, and text or binary."""
    body, (bits,) = script.split(data, 1)
    vsn, server = _VSN[bits & 1], bool(bits & 2)
    ours, theirs = SERIALIZERS[vsn, server], SERIALIZERS[vsn, not server]
    frame = BinaryMessage(body) if bits & 4 else TextMessage(body.decode("utf-8", "replace"))
    message = _decoded(ours, frame)
    if message is not None:
        _check_message(message, server=server)
        _check_again(message, ours, theirs)
    if script.sampled(data, 2048):
        for times in (1, 8, 64):
            longer = type(frame)(frame.data * times)
            called = cost.calls(lambda longer=longer: _decoded(ours, longer))
            assert called <= CALLS[0] + CALLS[1] * len(longer.data), f"{called} calls for {len(longer.data)}"
        peak, _ = cost.kept(lambda: _decoded(ours, frame))
        assert peak <= KEPT[0] + KEPT[1] * len(body), f"{peak} bytes of memory for {len(body)}"


def _decoded(serializer: Serializer, frame: TextMessage | BinaryMessage) -> Message | None:
    try:
        return serializer.decode(frame)
    except RemoteProtocolError as exc:
        reason = str(exc)
    assert len(reason) <= 300
    return None


def _check_message(message: Message, *, server: bool) -> None:
    assert type(message.topic) is str
    assert type(message.event) is str
    assert all(isinstance(ref, (str, int, type(None))) for ref in (message.ref, message.join_ref))
    assert len(repr(message)) <= 3 * (len(message.topic) + len(message.event)) + 10_000
    if isinstance(message.payload, UserBroadcast):
        assert message.event == "broadcast"
        assert type(message.payload.event) is str
        assert type(message.payload.metadata) is dict


def _check_again(message: Message, ours: Serializer, theirs: Serializer) -> None:
    """Who sends such a message can encode it, and we decode the same."""
    frame = _encoded(theirs, message)
    if frame is None:
        return
    again = ours.decode(TextMessage(frame.data.decode()) if frame.text else BinaryMessage(frame.data))
    if theirs is SERIALIZERS["1.0.0", True]:
        message = replace(message, join_ref=None)  # a server never says it in V1
    assert _same(again, message), f"{message!r} is another one after a round trip"


def _encoded(serializer: Serializer, message: Message) -> EncodedFrame | None:
    try:
        return serializer.encode(message)
    except LocalProtocolError as exc:
        reason = str(exc)
    # The one thing that can be read and not be said: before that it is walked through in Python.
    assert "nested too deeply" in reason, f"decoded, but {reason}"
    return None


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except RecursionError:
        return True


def inputs() -> Iterator[bytes]:
    """The messages of the recordings."""
    for name, conversation in seeds.conversations():
        for said in conversation[:40]:
            bits = (not seeds.speaks_v1(name)) | (not said.incoming) << 1 | (not said.text) << 2
            if len(said.data) <= seeds.MAX_SEED:
                yield said.data + bytes((bits,))
