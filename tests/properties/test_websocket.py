"""Properties of `WebSocket`: chunking changes nothing, no bytes raise, two of them understand each other."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from examples import times
from presence_proto.testing import strategies as ps
from presence_proto.testing.strategies import Binary, Close, Ping, Pong, Text
from presence_proto.testing.strategies.websocket import Saying, sayings
from presence_proto.websocket import (
    BinaryMessage,
    Closed,
    HandshakeRefused,
    HandshakeRequest,
    PingReceived,
    PongReceived,
    State,
    TextMessage,
    WebSocket,
    WebSocketEvent,
)
from presence_proto.websocket.frames import MAX_MASKED as LONG
from presence_proto.websocket.frames import FrameReader
from websocket_bytes import (
    BINARY,
    CONTINUATION,
    LIMIT,
    MASK,
    PING,
    PONG,
    TEXT,
    event_of,
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


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`data` cut at `cuts`, taken modulo its length. Pieces may be empty."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 10_000), max_size=8)


@st.composite
def streams(draw: st.DrawFn, *, masked: bool, deflate: bool) -> tuple[bytes, list[WebSocketEvent]]:
    """Frames of a peer, and the events that they must give."""
    stream = draw(ps.websocket_streams("client" if masked else "server", deflate=deflate))
    closed = any(isinstance(one, Close) for one in stream.heard)
    return stream.data + b"ignored" * closed, [*map(event_of, stream.heard)]


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
    ends = [event for event in found if isinstance(event, Closed | HandshakeRefused)]
    assert ends == found[-1:] if websocket.state is State.CLOSED else not ends
    assert websocket.state is State.CLOSED or not eof
    if websocket.state is State.CLOSED:
        assert feed(websocket, b"more", eof=True) == []


def new(*, server: bool, deflate: bool, limit: int = LIMIT) -> WebSocket:
    if server:
        return WebSocket.server(deflate=deflate, max_message_size=limit)
    return new_client(deflate=deflate, limit=limit)


@given(st.data(), st.booleans(), st.booleans(), CUTS)
def test_a_stream_of_frames_gives_its_events(
    data: st.DataObject, server: bool, deflate: bool, cuts: list[int]
) -> None:
    stream, expected = data.draw(streams(masked=server, deflate=deflate))
    opened = open_server if server else open_client
    assert feed(opened(deflate=deflate), *pieces_of(stream, cuts)) == expected
    if len(stream) < 1000:
        assert feed(opened(deflate=deflate), *single_bytes(stream)) == expected


@times(2)
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


@times(3)
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


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_no_bytes_raise_in_the_handshake(stream: bytes, server: bool, deflate: bool) -> None:
    found = feed(new(server=server, deflate=deflate), stream, eof=True)
    assert isinstance(found[-1], Closed | HandshakeRefused)


# ---------------------------------------------------------------------------------------------- the fast lane


class ClosedLane(FrameReader):
    """wsproto reads everything, and gets it as it came."""

    def take(self) -> None:
        return None

    take_small = take

    def hand_over(self) -> bytes:
        data, self._data = self._data, b""
        return data


# Payloads that look like frames, to who has lost the border.
LOOKALIKES = [b"\x81\x01x" * 3, b"\x82\x00" * 3, frame(TEXT, b"x", mask=MASK) * 2]
SIZES = st.sampled_from([125, 126, 127, 0x8100, (1 << 16) - 1, 1 << 16, LONG - 1, LONG, LONG + 1])


def payloads(opcode: int) -> st.SearchStrategy[bytes]:
    if opcode in (PING, PONG):
        return st.sampled_from([b"", b"ping", *LOOKALIKES])
    return st.one_of(
        st.text(max_size=5).map(str.encode), st.sampled_from(LOOKALIKES), SIZES.map(lambda size: b"x" * size)
    )


@st.composite
def odd_frames(draw: st.DrawFn, *, masked: bool) -> list[bytes]:
    """A message or ping, now and then with something wrong: its bits, its mask, its length, its text."""
    masks = st.sampled_from([MASK, b"\x80abc", b"\x81\x80ab", b"\x82\x80ab"]) if masked else st.none()

    def one(opcode: int, *, fin: bool = True) -> bytes:
        return frame(opcode, draw(payloads(opcode)), fin=fin, mask=draw(masks))

    mask, kind = draw(masks), draw(st.integers(0, 60))
    if kind <= 20:
        return [one(draw(st.sampled_from([TEXT, BINARY])))]
    if kind <= 35:
        between = draw(st.lists(st.sampled_from([PING, PONG]), max_size=2))
        fragments = [one(TEXT, fin=False), *map(one, between), one(CONTINUATION)]
        del fragments[draw(st.integers(1, 10)) :]  # seldom a message that has no end
        return fragments
    if kind <= 40:
        return [one(draw(st.sampled_from([PING, PONG])))]
    if kind > 50:
        # Small fragments: characters cut in two, and more of them than fit in a small limit.
        small = draw(st.lists(st.sampled_from([b"", b"a", b"\xe2\x82", b"\xac", b"12345"]), max_size=8))
        fragments = [frame(CONTINUATION, payload, fin=False, mask=draw(masks)) for payload in small]
        if draw(st.booleans()):
            fragments.append(frame(CONTINUATION, b"\xac", mask=mask))
        return [frame(draw(st.sampled_from([TEXT, BINARY])), b"\xe2\x82", fin=False, mask=mask), *fragments]
    return [
        draw(
            st.sampled_from(
                [
                    frame(TEXT, b"no mask, or one", mask=None if masked else MASK),
                    frame(TEXT, b"ab\xe2\x82", mask=mask),
                    frame(TEXT, b"\xed\xa0\x80", mask=mask),
                    frame(TEXT, b"rsv", rsv=draw(st.sampled_from([1, 2, 4])), mask=mask),
                    frame(3, mask=mask),
                    frame(CONTINUATION, b"of nothing", mask=mask),
                    frame(PING, bytes(126), mask=mask),
                    frame(PING, fin=False, mask=mask),
                    # lengths in more bytes than they need, and longer than anything can be
                    bytes((0x81, masked << 7 | 126, 0, 125)) + bytes(4 * masked + 125),
                    bytes((0x81, masked << 7 | 127, *bytes(6), 0xFF, 0xFF)) + bytes(4 * masked + 0xFFFF),
                    bytes((0x81, masked << 7 | 127, 0x80)) + bytes(7 + 4 * masked),
                ]
            )
        )
    ]


@st.composite
def odd_chunks(draw: st.DrawFn, *, masked: bool, deflate: bool) -> list[bytes]:
    """What a peer may send, good and bad, cut anywhere, but most often near the borders of frames."""
    frames = [one for message in draw(st.lists(odd_frames(masked=masked), max_size=6)) for one in message]
    frames.append(draw(streams(masked=masked, deflate=deflate))[0])
    stream = b"".join(frames)
    if draw(st.integers(0, 5)) == 0:
        stream = draw(mutated(stream))
    if len(stream) < 300 and draw(st.booleans()):
        return single_bytes(stream)
    borders = st.sampled_from([0, *accumulate(map(len, frames))])
    near = st.lists(st.builds(int.__add__, borders, st.integers(-1, 10)), max_size=8)
    return pieces_of(stream, draw(st.one_of(near, near, CUTS)))


def trace(websocket: WebSocket, chunks: list[bytes], *, closing_after: int) -> list[object]:
    """All that can be seen of a `WebSocket` after each chunk and after each event."""
    seen: list[object] = []
    for number, chunk in enumerate(chunks):
        if number == closing_after:
            websocket.close(4000, "enough")
        websocket.receive_data(chunk)
        while True:
            event = websocket.next_event()
            seen.append((event, websocket.state, websocket.uses_deflate))
            if event is None:
                break
            react(websocket, event)
        seen.append(frames_of(websocket.data_to_send()))
    return seen


@times(5)
@given(
    data=st.data(),
    server=st.booleans(),
    deflate=st.booleans(),
    limit=st.sampled_from([LIMIT, LIMIT, 20, 126]),
    closing_after=st.integers(0, 50),
)
def test_the_frame_reader_cannot_be_told_from_wsproto(
    data: st.DataObject, server: bool, deflate: bool, limit: int, closing_after: int
) -> None:
    chunks = data.draw(odd_chunks(masked=server, deflate=deflate))
    opened = open_server if server else open_client
    with_lane = trace(opened(deflate=deflate, limit=limit), chunks, closing_after=closing_after)
    with mock.patch("presence_proto.websocket.protocol.FrameReader", ClosedLane):
        alone = opened(deflate=deflate, limit=limit)
    assert with_lane == trace(alone, chunks, closing_after=closing_after)


# ---------------------------------------------------------------------------------------------- two of them


@given(
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(st.booleans(), sayings("server", 70_000, deflate=False)), max_size=12),
    st.booleans(),
)
def test_client_and_server_echo(
    client_deflate: bool, server_deflate: bool, script: list[tuple[bool, Saying]], at_once: bool
) -> None:
    client, server = pair(client_deflate=client_deflate, server_deflate=server_deflate)
    said: dict[bool, list[WebSocketEvent]] = {True: [], False: []}
    heard: dict[bool, list[WebSocketEvent]] = {True: [], False: []}
    pings: dict[bool, list[WebSocketEvent]] = {True: [], False: []}
    for by_client, saying in script:
        item = saying.said
        websocket = client if by_client else server
        match item:
            case Text(data):
                websocket.send_text(data)
            case Binary(data):
                websocket.send_binary(data)
            case Ping(payload) | Pong(payload):
                websocket.ping(payload)
                pings[by_client].append(PongReceived(payload))
        said[by_client].append(PingReceived(item.payload) if isinstance(item, Pong) else event_of(item))
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


@times(0.5)
@given(st.binary(min_size=1, max_size=300), st.booleans())
def test_a_close_always_ends(junk: bytes, deflate: bool) -> None:
    for websocket in (open_client(deflate=deflate), open_server(deflate=deflate)):
        websocket.close(1000)
        assert len(frames_of(websocket.data_to_send())) == 1
        found = feed(websocket, junk, eof=True)
        assert isinstance(found[-1], Closed)
        assert websocket.data_to_send() == b""
