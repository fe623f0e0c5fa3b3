"""Every serializer, who talks to whom, and what arrives of what is sent."""

from __future__ import annotations

import json
from typing import Any

from presence_proto.serializer import EncodedFrame, Message, Serializer, V1Serializer, V2Serializer
from presence_proto.websocket import BinaryMessage, TextMessage

V1_CLIENT, V1_SERVER = V1Serializer(server=False), V1Serializer(server=True)
V2_CLIENT, V2_SERVER = V2Serializer(server=False), V2Serializer(server=True)
EVERY: list[Serializer] = [V1_CLIENT, V1_SERVER, V2_CLIENT, V2_SERVER]
PAIRS: list[tuple[Serializer, Serializer]] = [
    (V1_CLIENT, V1_SERVER),
    (V1_SERVER, V1_CLIENT),
    (V2_CLIENT, V2_SERVER),
    (V2_SERVER, V2_CLIENT),
]


def frame(encoded: EncodedFrame) -> TextMessage | BinaryMessage:
    """What arrives when `encoded` is sent."""
    return TextMessage(encoded.data.decode()) if encoded.text else BinaryMessage(encoded.data)


def parts(message: Message) -> tuple[Any, ...]:
    """The message with its payload, which its repr keeps to itself."""
    return message.join_ref, message.ref, message.topic, message.event, message.payload


def text_of(serializer: Serializer, message: Message) -> Any:
    encoded = serializer.encode(message)
    assert encoded.text
    return json.loads(encoded.data)
