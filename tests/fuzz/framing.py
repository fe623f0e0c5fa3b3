"""One `WebSocket` on the bytes of a fuzzer: what it does with them, and what must be true of that.

The options of an input are three bytes at its end:

- how its body is to be read (`Mode`, in the low two bits), deflate, a small limit, the end of the stream, our
  own close (one bit each);
- the parameters of deflate, as an index;
- how the bytes are cut.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from enum import IntEnum
from typing import TypeAlias

from attrs import frozen

from fuzz import cost, script
from presence_proto.websocket import (
    BinaryMessage,
    Closed,
    HandshakeRefused,
    HandshakeRequest,
    State,
    TextMessage,
    WebSocket,
    WebSocketEvent,
)
from websocket_bytes import MASK, feed, frame

OPTIONS = 3
SMALL, LARGE = 100, 64 * 1024  # limits of messages in bytes
INFLATION = 1032  # what zlib makes of a byte at most
CALLS = 1000, 220  # at most: for a connection, and for each of its bytes
KEPT = 400_000, 200  # bytes of memory at most: likewise

PARAMETERS = (
    "",
    "; server_no_context_takeover",
    "; client_no_context_takeover",
    "; server_no_context_takeover; client_no_context_takeover",
    "; server_max_window_bits=9",
    "; client_max_window_bits=9; server_no_context_takeover",
)


class Mode(IntEnum):
    """What the body of an input is."""

    HANDSHAKE = 0  # all that the peer sends, the handshake included
    STREAM = 1  # what it sends after the handshake
    FRAMES = 2  # records: the first byte of a frame, then its payload
    PACKED = 3  # likewise, and where RSV1 says that a payload is deflated it is


@frozen
class Options:
    """How an input is to be read."""

    mode: Mode
    deflate: bool
    limit: int
    eof: bool
    closing: bool
    parameters: str
    cut: int

    @classmethod
    def parse(cls, options: bytes) -> Options:
        """Read them from the end of an input."""
        bits, index, cut = options
        return cls(
            mode=Mode(bits & 3),
            deflate=bool(bits & 4),
            limit=SMALL if bits & 8 else LARGE,
            eof=bool(bits & 16),
            closing=bool(bits & 32),
            parameters=PARAMETERS[index % len(PARAMETERS)],
            cut=cut,
        )


def options(mode: Mode, *, deflate: bool = False, small: bool = False, index: int = 0, cut: int = 0) -> bytes:
    """The end of a seed."""
    return bytes((mode | 4 * deflate | 8 * small | 16, index, cut))


MakeWebSocket: TypeAlias = Callable[[Options], WebSocket]
Outcome: TypeAlias = tuple[list[WebSocketEvent], bytes, State]


def check(data: bytes, make: MakeWebSocket, *, server: bool) -> None:
    """The oracle of both roles. `make` makes the `WebSocket`, past its handshake where the mode is so."""
    body, end = script.split(data, OPTIONS)
    chosen = Options.parse(end)
    stream = _stream(body, chosen, server=server)
    whole = _run(make(chosen), [stream], chosen)
    _check_outcome(whole, len(stream), chosen)
    pieces = script.chunks(stream, chosen.cut)
    if len(pieces) > 1:
        _check_same(whole, _run(make(chosen), pieces, chosen), server=server)
    if script.sampled(data, 64):
        _check_same(whole, _run(make(chosen), [stream], chosen), server=server)
    if script.sampled(data, 4096):
        _check_cost(make, stream, chosen)


def _stream(body: bytes, chosen: Options, *, server: bool) -> bytes:
    """The bytes that come in."""
    if chosen.mode in (Mode.HANDSHAKE, Mode.STREAM):
        return body
    frames = []
    for record in body.split(script.SEPARATOR):
        if record:
            first, payload = record[0], record[1:]
            if chosen.mode is Mode.PACKED and first & 0x40:
                deflater = zlib.compressobj(wbits=-9)
                payload = (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
            mask = MASK if server else None
            frames.append(frame(first & 15, payload, fin=first > 127, rsv=first >> 4 & 7, mask=mask))
    return b"".join(frames)


def _run(websocket: WebSocket, pieces: list[bytes], chosen: Options) -> Outcome:
    out = bytearray()
    if chosen.closing:
        websocket.close(1000, "bye")
    events = []
    for piece in [*pieces, b""]:
        events += feed(websocket, piece)
        out += websocket.data_to_send()
    if chosen.eof:
        events += feed(websocket, eof=True)
        out += websocket.data_to_send()
    assert websocket.next_event() is None
    assert websocket.data_to_send() == b""
    return events, bytes(out), websocket.state


def _check_outcome(outcome: Outcome, size: int, chosen: Options) -> None:
    events, out, state = outcome
    ends = [isinstance(event, (Closed, HandshakeRefused)) for event in events]
    assert not any(ends[:-1]), "nothing follows the end"
    assert (state is State.CLOSED) == any(ends), "the last event says that it is over"
    assert not (chosen.eof and state is not State.CLOSED), "the end of the stream ends it"
    assert len(events) <= size // 2 + 3, "no frame has less than two bytes"
    assert len(out) <= 3 * size + 4096, "what we send is bounded by what we got"
    inflated = 0
    for event in events:
        repr(event)
        if isinstance(event, (TextMessage, BinaryMessage)):
            length = len(event.data.encode() if isinstance(event, TextMessage) else event.data)
            assert length <= chosen.limit, "no message is larger than the limit"
            inflated += length
        elif isinstance(event, Closed):
            assert type(event.code) is int
            assert type(event.reason) is str
            assert len(event.reason) <= 200
        elif isinstance(event, HandshakeRequest):
            assert all(type(part) is str for header in event.headers for part in header)
    assert inflated <= size * (INFLATION if chosen.deflate else 1)


def _check_same(one: Outcome, other: Outcome, *, server: bool) -> None:
    assert one[0] == other[0], "other events"
    assert one[2] == other[2]
    # A client's frames are masked at random.
    assert one[1] == other[1] if server else len(one[1]) == len(other[1]), "other bytes"


def _check_cost(make: MakeWebSocket, stream: bytes, chosen: Options) -> None:
    """Linear in the bytes, with a long stream of more of the same, and however it is cut."""
    longer = (stream * (1 + 3000 // len(stream)) if stream else b"")[:3000]
    fixed, per_byte = CALLS
    for pieces in ([longer], script.single_bytes(longer)):
        called = cost.calls(lambda pieces=pieces: _run(make(chosen), pieces, chosen))
        assert called <= fixed + per_byte * len(longer), f"{called} calls for {len(longer)} bytes"
    peak, kept = cost.kept(lambda: _run(make(chosen), [longer], chosen))
    size = min(len(longer) * INFLATION, chosen.limit * len(longer)) if chosen.deflate else len(longer)
    assert max(peak, kept) <= KEPT[0] + KEPT[1] * size, f"{peak} bytes of memory for {len(longer)}"
