"""Properties of `WebSocket`: chunking changes nothing, no bytes raise, two of them understand each other."""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import TYPE_CHECKING

from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from presence_proto.websocket import (
    BinaryMessage,
    Closed,
    HandshakeRequest,
    PingReceived,
    PongReceived,
    Refused,
    State,
    TextMessage,
    WebSocket,
    WebSocketEvent,
)
from websocket_bytes import (
    BINARY,
    CONTINUATION,
    LIMIT,
    MASK,
    PING,
    PONG,
    TEXT,
    close_frame,
    events,
    exchange,
    feed,
    frame,
    frames_of,
    http,
    new_client,
    open_client,
    open_server,
    pair,
    single_bytes,
    upgrade_request,
    upgrade_response,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# ---------------------------------------------------------------------------------------------- strategies


@frozen
class Said:
    """A message, ping, pong or close of the peer. `cuts` is where a payload is cut into fragments."""

    kind: str
    data: bytes
    cuts: tuple[int, ...] = ()
    deflated: bool = False
    code: int = 0

    def event(self) -> WebSocketEvent:
        match self.kind:
            case "text":
                return TextMessage(self.data.decode())
            case "binary":
                return BinaryMessage(self.data)
            case "ping":
                return PingReceived(self.data)
            case "pong":
                return PongReceived(self.data)
            case _:
                return Closed(self.code, self.data.decode(), clean=True)


class Speaker:
    """Makes frames by hand, so that not both ends are the same code."""

    def __init__(self, *, masked: bool) -> None:
        self.mask = MASK if masked else None
        self.compressor = zlib.compressobj(wbits=-15)

    def frames(self, said: Said) -> list[bytes]:
        if said.kind == "close":
            return [close_frame(said.code, said.data, mask=self.mask)]
        if said.kind in ("ping", "pong"):
            return [frame(PING if said.kind == "ping" else PONG, said.data, mask=self.mask)]
        payload, rsv = said.data, 0
        if said.deflated:
            payload = (self.compressor.compress(payload) + self.compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
            rsv = 4
        opcodes = [TEXT if said.kind == "text" else BINARY] + [CONTINUATION] * len(said.cuts)
        pieces = pieces_of(payload, said.cuts)
        return [
            frame(opcode, piece, fin=number == len(said.cuts), rsv=0 if number else rsv, mask=self.mask)
            for number, (opcode, piece) in enumerate(zip(opcodes, pieces, strict=True))
        ]


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`data` cut at `cuts`, taken modulo its length. Pieces may be empty."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 10_000), max_size=8)


def fragments() -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, 10_000), max_size=4).map(tuple)


def texts() -> st.SearchStrategy[bytes]:
    long = st.integers(100, 70_000).map(lambda size: ("wörter " * size)[:size])
    return st.one_of(st.text(max_size=20), st.text(max_size=20), long).map(str.encode)


def messages(*, deflate: bool) -> st.SearchStrategy[Said]:
    deflated = st.booleans() if deflate else st.just(False)
    return st.one_of(
        st.builds(Said, st.just("text"), texts(), fragments(), deflated),
        st.builds(Said, st.just("binary"), st.binary(max_size=300), fragments(), deflated),
    )


def controls() -> st.SearchStrategy[Said]:
    return st.builds(Said, st.sampled_from(["ping", "pong"]), st.binary(max_size=125))


def closes() -> st.SearchStrategy[Said]:
    codes = st.sampled_from([1000, 1001, 1003, 1011, 1012, 3000, 4999])
    return st.builds(Said, st.just("close"), st.text(max_size=30).map(str.encode), code=codes)


@st.composite
def streams(draw: st.DrawFn, *, masked: bool, deflate: bool) -> tuple[bytes, list[WebSocketEvent]]:
    """Frames of a peer, with pings between fragments, and the events that they must give."""
    speaker = Speaker(masked=masked)
    data, found = bytearray(), []
    for said in draw(st.lists(st.one_of(messages(deflate=deflate), controls()), max_size=5)):
        frames = speaker.frames(said)
        for piece in frames[:-1]:
            data += piece
            between = draw(st.one_of(st.none(), controls()))
            if between is not None:
                data += speaker.frames(between)[0]
                found.append(between.event())
        data += frames[-1]
        found.append(said.event())
    last = draw(st.one_of(st.none(), closes()))
    if last is not None:
        data += speaker.frames(last)[0] + b"ignored"
        found.append(last.event())
    return bytes(data), found


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with some bytes changed, dropped, doubled, or put in."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(changed)))
        match draw(st.sampled_from(["flip", "drop", "insert", "double", "end"])):
            case "flip" if place < len(changed):
                changed[place] ^= 1 << draw(st.integers(0, 7))
            case "drop":
                del changed[place : place + draw(st.integers(1, 10))]
            case "insert":
                changed[place:place] = draw(st.binary(max_size=10))
            case "double":
                changed[place:place] = changed[place : place + draw(st.integers(1, 200))]
            case "end":
                del changed[place:]
    return bytes(changed)


def handshakes(*, masked: bool) -> st.SearchStrategy[bytes]:
    """What a peer may begin with; `masked` when it is a client."""
    if masked:
        return st.sampled_from(
            [
                upgrade_request(),
                upgrade_request(("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")),
                upgrade_request(sec_websocket_version="8"),
                upgrade_request(line="POST / HTTP/1.1"),
            ]
        )
    return st.sampled_from(
        [
            upgrade_response(),
            upgrade_response(("sec-websocket-extensions", "permessage-deflate")),
            http("HTTP/1.1 100 Continue") + upgrade_response(),
            http("HTTP/1.1 403 Forbidden", ("content-length", "4"), body=b"no!!"),
            http("HTTP/1.1 500 Oh", ("transfer-encoding", "chunked"), body=b"3\r\nabc\r\n0\r\n\r\n"),
            http("HTTP/1.1 404 No", body=b"till the end"),
        ]
    )


# ---------------------------------------------------------------------------------------------- running them


def react(websocket: WebSocket, event: WebSocketEvent) -> None:
    """An application that answers by a rule."""
    match event:
        case HandshakeRequest():
            websocket.accept()
        case TextMessage(data) if websocket.state is State.OPEN:
            if len(data) % 7 == 3:
                websocket.close(4000, data[:10])
            else:
                websocket.send_text(data[::-1])
        case BinaryMessage(data) if websocket.state is State.OPEN:
            websocket.ping(data[:100])


def run(websocket: WebSocket, chunks: list[bytes], *, eof: bool) -> tuple[list[WebSocketEvent], object]:
    """The events of `chunks` and what was sent, without the masks."""
    found: list[WebSocketEvent] = []
    sent = bytearray()

    def drain() -> None:
        nonlocal sent
        while (event := websocket.next_event()) is not None:
            found.append(event)
            react(websocket, event)
        sent += websocket.data_to_send()

    for chunk in [b"", *chunks]:
        websocket.receive_data(chunk)
        drain()
    if eof:
        websocket.receive_eof()
        drain()
    check_end(websocket, found, eof=eof)
    head, _, frames = bytes(sent).partition(b"\r\n\r\n")
    return found, (head, frames_of(frames) if head.startswith((b"HTTP/1.1 101", b"GET ")) else frames)


def check_end(websocket: WebSocket, found: list[WebSocketEvent], *, eof: bool) -> None:
    ends = [event for event in found if isinstance(event, Closed | Refused)]
    assert ends == found[-1:] if websocket.state is State.CLOSED else not ends
    assert websocket.state is State.CLOSED or not eof
    if websocket.state is State.CLOSED:
        assert feed(websocket, b"more", eof=True) == []


def new(*, server: bool, deflate: bool, limit: int = LIMIT) -> WebSocket:
    if server:
        return WebSocket.server(deflate=deflate, max_message_size=limit)
    return new_client(deflate=deflate, limit=limit)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.booleans(), st.booleans(), CUTS)
def test_a_stream_of_frames_gives_its_events(
    data: st.DataObject, server: bool, deflate: bool, cuts: list[int]
) -> None:
    stream, expected = data.draw(streams(masked=server, deflate=deflate))
    opened = open_server if server else open_client
    assert feed(opened(deflate=deflate), *pieces_of(stream, cuts)) == expected
    if len(stream) < 1000:
        assert feed(opened(deflate=deflate), *single_bytes(stream)) == expected


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    server=st.booleans(),
    deflate=st.booleans(),
    limit=st.sampled_from([LIMIT, 20]),
    cuts=CUTS,
    damaged=st.booleans(),
    eof=st.booleans(),
)
def test_chunking_changes_nothing(
    data: st.DataObject, server: bool, deflate: bool, limit: int, cuts: list[int], damaged: bool, eof: bool
) -> None:
    def fresh() -> WebSocket:
        return new(server=server, deflate=deflate, limit=limit)

    stream = data.draw(handshakes(masked=server)) + data.draw(streams(masked=server, deflate=deflate))[0]
    if damaged:
        stream = data.draw(mutated(stream))
    whole = run(fresh(), [stream], eof=eof)
    assert run(fresh(), pieces_of(stream, cuts), eof=eof) == whole
    if len(stream) < 1000:
        assert run(fresh(), single_bytes(stream), eof=eof) == whole


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans(), st.booleans(), CUTS)
def test_no_bytes_raise_and_all_come_to_an_end(
    data: st.DataObject, server: bool, deflate: bool, cuts: list[int]
) -> None:
    stream = data.draw(mutated(data.draw(streams(masked=server, deflate=deflate))[0]))
    websocket = (open_server if server else open_client)(deflate=deflate)
    found = []
    for chunk in pieces_of(stream, cuts):
        websocket.receive_data(chunk)
        found += events(websocket)
    websocket.receive_eof()
    found += events(websocket)
    # A frame has at least two bytes and gives at most one event.
    assert len(found) <= len(stream) // 2 + 1
    assert isinstance(found[-1], Closed)
    assert websocket.state is State.CLOSED
    assert len(frames_of(websocket.data_to_send())) <= len(found)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_no_bytes_raise_in_the_handshake(stream: bytes, server: bool, deflate: bool) -> None:
    found = feed(new(server=server, deflate=deflate), stream, eof=True)
    assert isinstance(found[-1], Closed | Refused)


# ---------------------------------------------------------------------------------------------- two of them


@settings(max_examples=100, deadline=None)
@given(
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(st.booleans(), st.one_of(messages(deflate=False), controls())), max_size=12),
    st.booleans(),
)
def test_client_and_server_echo(
    client_deflate: bool, server_deflate: bool, script: list[tuple[bool, Said]], at_once: bool
) -> None:
    client, server = pair(client_deflate=client_deflate, server_deflate=server_deflate)
    said: dict[bool, list[WebSocketEvent]] = {True: [], False: []}
    heard: dict[bool, list[WebSocketEvent]] = {True: [], False: []}
    pings: dict[bool, list[WebSocketEvent]] = {True: [], False: []}
    for by_client, item in script:
        websocket = client if by_client else server
        if item.kind == "text":
            websocket.send_text(item.data)
        elif item.kind == "binary":
            websocket.send_binary(item.data)
        else:
            websocket.ping(item.data)
            pings[by_client].append(PongReceived(item.data))
        said[by_client].append(PingReceived(item.data) if item.kind == "pong" else item.event())
        if not at_once:
            of_client, of_server = exchange(client, server)
            heard[True] += of_server
            heard[False] += of_client
    server.close(1012, "restart")
    of_client, of_server = exchange(client, server)
    heard[True] += of_server
    heard[False] += of_client
    pongs = {
        by_client: [event for event in heard[not by_client] if isinstance(event, PongReceived)]
        for by_client in (True, False)
    }
    for by_client, last in ((True, Closed(1012, "", True)), (False, Closed(1012, "restart", True))):
        others = [event for event in heard[by_client] if not isinstance(event, PongReceived)]
        assert others == [*said[by_client], last]
    # What was asked after the server's close frame was under way stays unanswered.
    assert pongs[False] == pings[False]
    assert pongs[True] == (pings[True] if not at_once else [])


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.booleans())
def test_a_close_always_ends(junk: bytes, deflate: bool) -> None:
    for websocket in (open_client(deflate=deflate), open_server(deflate=deflate)):
        websocket.close(1000)
        assert len(frames_of(websocket.data_to_send())) == 1
        found = feed(websocket, junk, eof=True)
        assert isinstance(found[-1], Closed)
        assert websocket.data_to_send() == b""
