"""The bytes of a server, to the `WebSocket` of a client."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz import framing, seeds
from fuzz.framing import Mode, Options, options
from fuzz.oracle import ADDRESS
from fuzz.script import SEPARATOR
from presence_proto.websocket import WebSocket
from websocket_bytes import ACCEPT, KEY, feed, upgrade_response


def check(data: bytes) -> None:
    """Run an input. Raises `AssertionError`, or whatever comes out of the core, when something is wrong."""
    framing.check(data, _make, server=False)


def _make(chosen: Options) -> WebSocket:
    websocket = WebSocket.client(
        ADDRESS,
        subprotocols=("phoenix",),
        deflate=chosen.deflate,
        max_message_size=chosen.limit,
        key=KEY,
    )
    if chosen.mode is not Mode.HANDSHAKE:
        answer = ("sec-websocket-extensions", "permessage-deflate" + chosen.parameters)
        feed(websocket, upgrade_response(*[answer] * chosen.deflate))
    websocket.data_to_send()
    return websocket


def inputs() -> Iterator[bytes]:
    """The recordings, with the handshake and without, and frames by themselves."""
    for stream in seeds.streams("in"):
        head, rest = seeds.head_and_rest(seeds.with_accept(stream, ACCEPT))
        deflate = b"permessage-deflate" in head
        yield (head + rest)[: seeds.MAX_SEED] + options(Mode.HANDSHAKE, deflate=deflate)
        yield rest[: seeds.MAX_SEED] + options(Mode.STREAM, deflate=deflate, cut=1)
    for _, conversation in seeds.conversations():
        frames = [bytes((0xC1 if said.text else 0xC2,)) + said.data for said in conversation if said.incoming]
        body = SEPARATOR.join(frames)[: seeds.MAX_SEED]
        yield body + options(Mode.PACKED, deflate=True, index=len(body) % 6, cut=7)
