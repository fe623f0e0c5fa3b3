"""The bytes of a client, to the `WebSocket` of a server."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz import framing, seeds
from fuzz.framing import Mode, Options, options
from fuzz.script import SEPARATOR
from presence_proto.websocket import WebSocket
from websocket_bytes import feed, frame, frames_of, upgrade_request

_NO_MASK = bytes(4)  # so that a fuzzer sees the payload


def check(data: bytes) -> None:
    """Run an input. Raises `AssertionError`, or whatever comes out of the core, when something is wrong."""
    framing.check(data, _make, server=True)


def _make(chosen: Options) -> WebSocket:
    websocket = WebSocket.server(deflate=chosen.deflate, max_message_size=chosen.limit)
    if chosen.mode is not Mode.HANDSHAKE:
        offer = ("sec-websocket-extensions", "permessage-deflate" + chosen.parameters)
        feed(websocket, upgrade_request(*[offer] * chosen.deflate))
    websocket.data_to_send()
    return websocket


def inputs() -> Iterator[bytes]:
    """The recordings, with the handshake and without, and frames by themselves."""
    for stream in seeds.streams("out"):
        head, rest = seeds.head_and_rest(stream)
        deflate = b"permessage-deflate" in head
        if deflate or b"Upgrade" not in head:
            unmasked = rest
        else:
            unmasked = _unmasked(rest)
        yield (head + unmasked)[: seeds.MAX_SEED] + options(Mode.HANDSHAKE, deflate=deflate)
        yield unmasked[: seeds.MAX_SEED] + options(Mode.STREAM, deflate=deflate, cut=1)
    for _, conversation in seeds.conversations():
        frames = [
            bytes((0xC1 if said.text else 0xC2,)) + said.data for said in conversation if not said.incoming
        ]
        body = SEPARATOR.join(frames)[: seeds.MAX_SEED]
        yield body + options(Mode.PACKED, deflate=True, index=len(body) % 6, cut=7)


def _unmasked(stream: bytes) -> bytes:
    """The same frames under a mask of zeros."""
    return b"".join(
        frame(first & 15, payload, fin=first > 127, rsv=first >> 4 & 7, mask=_NO_MASK)
        for first, payload in frames_of(stream)
    )
