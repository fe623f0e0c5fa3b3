"""`presence_proto.websocket`: frames, messages, the close. The upgrade is in `test_handshake`."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

import pytest

from presence_proto.errors import LocalProtocolError
from presence_proto.websocket import (
    BinaryMessage,
    Closed,
    HandshakeRequest,
    Opened,
    PingReceived,
    PongReceived,
    State,
    TextMessage,
    WebSocket,
)
from presence_proto.websocket.frames import MAX_MASKED, server_frame
from websocket_bytes import (
    ADDRESS,
    BINARY,
    CLOSE,
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
    new_client,
    open_client,
    open_server,
    pair,
    single_bytes,
    upgrade_request,
    upgrade_response,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# ---------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_messages_of_every_length_go_both_ways(size: int) -> None:
    client, server = pair()
    text, data = "ä" * (size // 2) + "a" * (size % 2), bytes(range(256)) * (size // 256) + bytes(size % 256)
    for websocket in (client, server):
        websocket.send_text(text)
        websocket.send_text(text.encode())
        websocket.send_binary(data)
    expected = [TextMessage(text), TextMessage(text), BinaryMessage(data)]
    assert exchange(client, server) == (expected, expected)


def test_a_client_masks_and_a_server_does_not() -> None:
    client, server = pair()
    client.send_text("hi")
    server.send_text("hi")
    from_client, from_server = client.data_to_send(), server.data_to_send()
    assert from_client[:2] == b"\x81\x82"
    assert len(from_client) == 8
    assert from_server == b"\x81\x02hi"


@pytest.mark.parametrize("size", [5, 126, MAX_MASKED, MAX_MASKED + 1, 65_536])
def test_each_frame_of_a_client_has_a_mask_of_its_own(size: int) -> None:
    client = open_client()
    seen = set()
    for _ in range(3):
        client.send_text("x" * size)
        client.send_binary(b"y" * size)
        text, binary = frames_of(data := client.data_to_send())
        assert (text, binary) == ((0x81, b"x" * size), (0x82, b"y" * size))
        seen.add(data)
    assert len(seen) == 3


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_ready_frame_is_shared_by_many(size: int) -> None:
    data = b"x" * size
    assert server_frame(data, text=True) == frame(TEXT, data)
    assert server_frame(data, text=False) == frame(BINARY, data)
    for deflate in (False, True):
        ready = None
        for _ in range(2):
            client, server = pair(client_deflate=deflate, server_deflate=deflate)
            server.send_text("something else before")
            before = server.data_to_send()
            ready = ready or server_frame(data, text=True, deflate_bits=server.deflate_bits)
            assert feed(client, before + ready) == [
                TextMessage("something else before"),
                TextMessage("x" * size),
            ]


@pytest.mark.parametrize("data", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_is_taken(data: Callable[[bytes], bytes]) -> None:
    server = WebSocket.server(max_message_size=LIMIT)
    assert isinstance(feed(server, data(upgrade_request()))[0], HandshakeRequest)
    server.data_to_send()
    assert feed(server, data(frame(TEXT, b"hi", mask=MASK))) == [TextMessage("hi")]
    server.send_text(data(b"hi"))
    server.send_binary(data(b"ho"))
    assert server.data_to_send() == frame(TEXT, b"hi") + frame(BINARY, b"ho")


def test_what_was_received_is_not_looked_at_later() -> None:
    client = open_client()
    buffer = bytearray(frame(TEXT, b"abc"))
    client.receive_data(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert events(client) == [TextMessage("abc")]


def test_fragments_are_joined() -> None:
    word = "größe".encode()
    data = b"".join(
        [
            frame(TEXT, word[:3], fin=False),  # in the middle of a character
            frame(PING, b"1"),
            frame(CONTINUATION, b"", fin=False),
            frame(PONG, b"2"),
            frame(CONTINUATION, word[3:]),
            frame(BINARY, b"\xff", fin=False),
            frame(CONTINUATION, b"\xfe"),
            frame(TEXT, b"\r\n", fin=False),
            frame(CONTINUATION, b"\n"),
        ]
    )
    for chunks in ([data], single_bytes(data)):
        client = open_client()
        assert feed(client, *chunks) == [
            PingReceived(b"1"),
            PongReceived(b"2"),
            TextMessage("größe"),
            BinaryMessage(b"\xff\xfe"),
            TextMessage("\r\n\n"),
        ]
        assert frames_of(client.data_to_send()) == [(0x80 | PONG, b"1")]


def test_many_tiny_fragments_take_little_room() -> None:
    client = open_client()
    feed(client, frame(TEXT, fin=False))
    piece = frame(CONTINUATION, "€".encode(), fin=False) + frame(CONTINUATION, fin=False) * 3
    gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(20):
        assert feed(client, piece * 1000) == []
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 1000
    assert feed(client, frame(CONTINUATION)) == [TextMessage("€" * 20_000)]


def test_a_ping_is_answered() -> None:
    for websocket, mask in ((open_client(), None), (open_server(), MASK)):
        assert feed(websocket, frame(PING, b"are you there?", mask=mask)) == [PingReceived(b"are you there?")]
        assert frames_of(websocket.data_to_send()) == [(0x80 | PONG, b"are you there?")]


def test_a_ping_of_ours() -> None:
    client, server = pair()
    client.ping(b"x" * 125)
    server.ping()
    assert exchange(client, server) == (
        [PingReceived(b""), PongReceived(b"x" * 125)],
        [PingReceived(b"x" * 125), PongReceived(b"")],
    )


def test_messages_are_not_shown_in_a_repr() -> None:
    assert repr(TextMessage('{"access_token":"secret"}')) == "TextMessage(data=<25 characters>)"
    assert repr(BinaryMessage(b"secret")) == "BinaryMessage(data=<6 bytes>)"


# ---------------------------------------------------------------------------------------------- refusals

MALFORMED = "a malformed WebSocket frame"


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (frame(TEXT, b"hi", mask=MASK), 1002, MALFORMED),
        (frame(PING, mask=MASK), 1002, MALFORMED),
        (frame(3), 1002, MALFORMED),
        (frame(11), 1002, MALFORMED),
        (frame(PING, fin=False), 1002, MALFORMED),
        (frame(PING, b"x" * 126), 1002, MALFORMED),
        (b"\x81\x7e\x00\x05hello", 1002, MALFORMED),
        (
            b"\x81\x7f" + bytes(7) + b"\x05hello",
            1002,
            MALFORMED,
        ),
        (b"\x81\x7f\xff" + bytes(6) + b"\x05", 1002, MALFORMED),
        (frame(CONTINUATION, b"x"), 1002, "a continuation of no message"),
        (frame(CONTINUATION, b"x", fin=False), 1002, "a continuation of no message"),
        (frame(TEXT, b"x", fin=False) + frame(BINARY, b"y"), 1002, "a message inside another"),
        (frame(TEXT, b"x", rsv=1), 1002, MALFORMED),
        (frame(TEXT, b"\xff"), 1007, "text that is not UTF-8"),
        (frame(TEXT, b"ab\xe2\x82"), 1007, "text that is not UTF-8"),
        (frame(TEXT, b"\xed\xa0\x80"), 1007, "text that is not UTF-8"),
        (frame(TEXT, b"ab\xe2", fin=False) + frame(CONTINUATION, b"\x41"), 1007, "text that is not UTF-8"),
        (frame(TEXT, b"ab\xe2", fin=False) + frame(CONTINUATION), 1007, "text that is not UTF-8"),
        (frame(CLOSE, b"\x03"), 1002, MALFORMED),
        (close_frame(1000, b"\xff"), 1007, "text that is not UTF-8"),
        (close_frame(999), 1002, MALFORMED),
        (close_frame(5000), 1002, MALFORMED),
        (close_frame(1004), 1002, MALFORMED),
        (close_frame(2999), 1002, MALFORMED),
        (close_frame(1005), 1002, MALFORMED),
        (close_frame(1006), 1002, MALFORMED),
        (close_frame(1015), 1002, MALFORMED),
    ],
)
def test_a_broken_frame_closes(data: bytes, code: int, reason: str) -> None:
    data = frame(TEXT, b"before") + data + frame(TEXT, b"after")
    for chunks in ([data], single_bytes(data)):
        client = open_client()
        # To wsproto a parse error is a close from the peer: it is none.
        assert feed(client, *chunks) == [TextMessage("before"), Closed(code, reason, clean=False)]
        assert client.state is State.CLOSED
        assert frames_of(client.data_to_send()) == [(0x88, code.to_bytes(2, "big") + reason.encode())]
        assert feed(client, b"more", eof=True) == []
        assert client.data_to_send() == b""


def test_a_server_wants_masks() -> None:
    for data in (frame(TEXT, b"hi"), close_frame(1000)):
        server = open_server()
        assert feed(server, data) == [Closed(1002, MALFORMED, clean=False)]
        assert server.data_to_send() == close_frame(1002, MALFORMED.encode())


def test_a_broken_frame_while_closing_gets_no_second_close_frame() -> None:
    client = open_client()
    client.close(4000)
    client.data_to_send()
    assert feed(client, frame(3)) == [Closed(1002, MALFORMED, clean=False)]
    assert client.data_to_send() == b""


@pytest.mark.parametrize("cut", [0, 1, 2, 5])
def test_a_ping_while_closing_is_seen_and_not_answered(cut: int) -> None:
    client, ping = open_client(), frame(PING, b"you?")
    client.close(4000)
    client.data_to_send()
    assert feed(client, ping[:cut], ping[cut:]) == [PingReceived(b"you?")]
    assert client.data_to_send() == b""


# ---------------------------------------------------------------------------------------------- the close


@pytest.mark.parametrize(
    ("data", "closed", "answer"),
    [
        (close_frame(1000, b"bye"), Closed(1000, "bye", clean=True), b"\x03\xe8"),
        (close_frame(1012), Closed(1012, "", clean=True), b"\x03\xf4"),
        (close_frame(4999, "schluß".encode()), Closed(4999, "schluß", clean=True), b"\x13\x87"),
        (close_frame(3000), Closed(3000, "", clean=True), b"\x0b\xb8"),
        (frame(CLOSE), Closed(1005, "", clean=True), b""),
        # also in the middle of a message
        (frame(TEXT, b"x", fin=False) + close_frame(1001), Closed(1001, "", clean=True), b"\x03\xe9"),
    ],
)
def test_the_peer_closes(data: bytes, closed: Closed, answer: bytes) -> None:
    for chunks in ([data], single_bytes(data)):
        client = open_client()
        assert feed(client, *chunks) == [closed]
        assert client.state is State.CLOSED
        assert frames_of(client.data_to_send()) == [(0x88, answer)]
        assert feed(client, eof=True) == []


def test_what_the_peer_sends_after_its_close_frame_is_ignored() -> None:
    client = open_client()
    data = close_frame(1000) + frame(TEXT, b"late") + frame(3)
    assert feed(client, data, frame(PING), close_frame(1001), eof=True) == [Closed(1000, "", clean=True)]
    assert len(frames_of(client.data_to_send())) == 1


def test_we_close() -> None:
    client, server = pair()
    client.close(4001, "enough")
    assert client.state.name == "CLOSING"
    client.close(4002)  # nothing more
    # What was under way still comes; a ping is not answered, for nothing may follow a close frame.
    assert feed(client, frame(TEXT, b"late") + frame(PING)) == [TextMessage("late"), PingReceived(b"")]
    assert exchange(client, server) == (
        [Closed(4001, "", clean=True)],
        [Closed(4001, "enough", clean=True)],
    )
    assert client.state is server.state is State.CLOSED
    client.close()
    server.close()
    assert client.data_to_send() == server.data_to_send() == b""


def test_both_close_at_once() -> None:
    client, server = pair()
    client.close(4001)
    server.close(4002)
    assert exchange(client, server) == ([Closed(4002, "", clean=True)], [Closed(4001, "", clean=True)])


def test_the_reason_of_a_close_is_cut_between_characters() -> None:
    server = open_server()
    server.close(1000, "x" + "ä" * 100)
    assert server.data_to_send() == close_frame(1000, b"x" + "ä".encode() * 61)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 2999, 5000])
def test_a_code_that_may_not_be_sent(code: int) -> None:
    server = open_server()
    with pytest.raises(LocalProtocolError, match=f"must not carry the code {code}"):
        server.close(code)
    assert server.state is State.OPEN
    assert server.data_to_send() == b""


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
def test_a_code_that_may_be_sent(code: int) -> None:
    server = open_server()
    server.close(code)
    assert server.data_to_send() == close_frame(code)


def test_a_reason_that_is_no_text_changes_nothing() -> None:
    server = open_server()
    with pytest.raises(LocalProtocolError, match="valid Unicode"):
        server.close(1000, "\ud800")
    assert server.state is State.OPEN
    server.close(1000, "fine")
    assert server.data_to_send() == close_frame(1000, b"fine")


def test_close_before_the_connection_is_open() -> None:
    waiting = WebSocket.server(max_message_size=LIMIT)
    waiting.receive_data(upgrade_request())
    assert isinstance(waiting.next_event(), HandshakeRequest)
    for websocket in (new_client(), WebSocket.server(max_message_size=LIMIT), waiting):
        websocket.data_to_send()
        websocket.close(1000)
        assert events(websocket) == [Closed(1006, "the stream ended", clean=False)]
        assert websocket.state is State.CLOSED
        assert feed(websocket, upgrade_response()) == []
        assert websocket.data_to_send() == b""


# ---------------------------------------------------------------------------------------------- the stream


LOST = Closed(1006, "the stream ended", clean=False)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", []),
        (frame(TEXT, b"hi"), [TextMessage("hi")]),
        (frame(TEXT, b"hi")[:-1], []),
        (frame(TEXT, b"hi", fin=False), []),
        (frame(TEXT, b"hi") + b"\x81", [TextMessage("hi")]),
    ],
)
def test_a_bare_end_of_the_stream(data: bytes, found: list[TextMessage]) -> None:
    client = open_client()
    client.receive_data(data)
    client.receive_eof()
    client.receive_eof()
    client.receive_data(frame(TEXT, b"after the end"))
    assert client.state is State.OPEN  # until the events are pulled
    assert events(client) == [*found, LOST]
    assert client.state.name == "CLOSED"
    assert client.data_to_send() == b""


def test_the_stream_ends_while_we_are_closing() -> None:
    client = open_client()
    client.close()
    assert feed(client, eof=True) == [LOST]


def test_empty_data_is_no_end() -> None:
    for websocket in (new_client(), WebSocket.server(max_message_size=LIMIT), open_client(), open_server()):
        state = websocket.state
        assert feed(websocket, b"", b"", bytearray(), memoryview(b"")) == []
        assert websocket.state is state
    client = new_client()
    assert feed(client, upgrade_response()[:50], b"", upgrade_response()[50:], b"") == [Opened(None, False)]


def test_reading_goes_on_only_while_events_are_pulled() -> None:
    """So the answer to an event does not depend on what else came in the same read."""
    client = open_client()
    client.receive_data(frame(TEXT, b"stop") + frame(PING) + close_frame(1001))
    assert client.next_event() == TextMessage("stop")
    assert client.state is State.OPEN
    assert client.data_to_send() == b""
    client.close(4000)
    assert events(client) == [PingReceived(b""), Closed(1001, "", clean=True)]
    assert frames_of(client.data_to_send()) == [(0x88, b"\x0f\xa0")]


# ---------------------------------------------------------------------------------------------- sending

COMMANDS: list[Callable[[WebSocket], None]] = [
    lambda websocket: websocket.send_text("x"),
    lambda websocket: websocket.send_binary(b"x"),
    lambda websocket: websocket.ping(),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_sending_needs_an_open_connection(command: Callable[[WebSocket], None]) -> None:
    closing, closed = open_server(), open_server()
    closing.close()
    feed(closed, close_frame(1000, mask=MASK))
    for websocket, state in (
        (WebSocket.server(max_message_size=LIMIT), "CONNECTING"),
        (closing, "CLOSING"),
        (closed, "CLOSED"),
    ):
        websocket.data_to_send()
        with pytest.raises(LocalProtocolError, match=f"nothing can be sent while {state}"):
            command(websocket)
        assert websocket.state.name == state
        assert websocket.data_to_send() == b""


@pytest.mark.parametrize("data", ["\ud800", b"\xff", b"\xed\xa0\x80"])
def test_text_must_be_text(data: str | bytes) -> None:
    for websocket in (open_client(), open_server(), open_server(deflate=True)):
        with pytest.raises(LocalProtocolError, match="valid Unicode"):
            websocket.send_text(data)
        assert websocket.data_to_send() == b""
        websocket.send_text("fine")
        assert len(frames_of(websocket.data_to_send())) == 1


def test_a_ping_must_not_be_too_long() -> None:
    client = open_client()
    with pytest.raises(LocalProtocolError, match="at most 125 bytes"):
        client.ping(b"x" * 126)
    assert client.data_to_send() == b""


def test_output_keeps_its_order() -> None:
    server = WebSocket.server(max_message_size=LIMIT)
    server.receive_data(upgrade_request())
    server.next_event()
    server.accept()
    server.send_text("1")
    server.ping(b"2")
    server.send_binary(b"3")
    server.close(1000)
    data = server.data_to_send()
    assert data.startswith(b"HTTP/1.1 101 ")
    assert frames_of(data.partition(b"\r\n\r\n")[2]) == [
        (0x81, b"1"),
        (0x89, b"2"),
        (0x82, b"3"),
        (0x88, b"\x03\xe8"),
    ]


def test_an_open_connection_keeps_nothing_of_its_handshake() -> None:
    for websocket in (open_client(), open_server()):
        seen: set[int] = set()
        todo: list[object] = [websocket]
        while todo:
            thing = todo.pop()
            if id(thing) in seen or isinstance(thing, (type, type(sys))) or callable(thing):
                continue
            seen.add(id(thing))
            assert not type(thing).__module__.startswith("h11"), thing
            assert not type(thing).__module__.endswith("handshake"), thing
            todo += gc.get_referents(thing)
        assert not hasattr(websocket, "__dict__")


def test_a_websocket_shows_nothing() -> None:
    assert "secret" not in repr(WebSocket.client(ADDRESS, max_message_size=LIMIT))
