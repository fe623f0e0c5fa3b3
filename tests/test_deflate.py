"""`presence_proto.websocket.deflate`: negotiation, and what the extensions do to frames."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode, RsvBits

from presence_proto.errors import RemoteProtocolError
from presence_proto.websocket import BinaryMessage, Closed, PingReceived, State, TextMessage, WebSocket
from presence_proto.websocket.deflate import (
    Deflate,
    MessageLimit,
    accept_offer,
    follow_answer,
    parse_extensions,
)
from websocket_bytes import (
    BINARY,
    CLOSE,
    CONTINUATION,
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

PROTOCOL = FrameProtocol(client=True, extensions=[])
NO_BITS = RsvBits(False, False, False)
RSV1 = 4
TAIL = b"\x00\x00\xff\xff"


def deflated(data: bytes, flush: int = zlib.Z_SYNC_FLUSH, wbits: int = -15) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return (compressor.compress(data) + compressor.flush(flush)).removesuffix(TAIL)


def inflated(data: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(data + TAIL)


# ---------------------------------------------------------------------------------------------- the header


@pytest.mark.parametrize(
    ("header", "elements"),
    [
        ("", []),
        (" , ,", []),
        ("a", [("a", [])]),
        ("a,b", [("a", []), ("b", [])]),
        ('a; x=1;y ; z="q" , b', [("a", [("x", "1"), ("y", None), ("z", "q")]), ("b", [])]),
        ("a;x = 1", [("a", [("x", "1")])]),
    ],
)
def test_extensions_are_parsed(header: str, elements: object) -> None:
    assert list(parse_extensions(header)) == elements


@pytest.mark.parametrize(
    "header", ["a b", "a;", ";x", "a;x=", "a;=1", 'a;x="1,2"', 'a;x="', "a;x=é", "a;x y"]
)
def test_malformed_extensions_are_refused(header: str) -> None:
    with pytest.raises(RemoteProtocolError, match="malformed Sec-WebSocket-Extensions"):
        list(parse_extensions(header))


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        ("", None),
        ("x-webkit-deflate-frame", None),
        ("permessage-deflate", ""),
        ("permessage-deflate; client_max_window_bits", ""),
        ("permessage-deflate; client_max_window_bits=8", ""),
        ("permessage-deflate; server_no_context_takeover", ""),
        ("permessage-deflate; client_no_context_takeover", "; client_no_context_takeover"),
        ('permessage-deflate; server_max_window_bits="10"', "; server_max_window_bits=10"),
        # what we cannot follow, or cannot be, is declined, and the next offer looked at
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=ten", None),
        ("permessage-deflate; client_max_window_bits=010", None),
        ("permessage-deflate; client_no_context_takeover=1", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; mystery", None),
        ("permessage-deflate; server_max_window_bits=99, permessage-deflate", ""),
        # the first that will do is taken, and leaves no trace of the others
        (
            ", ".join(
                [
                    "permessage-deflate; server_no_context_takeover; mystery",  # declined
                    "permessage-deflate; server_max_window_bits=9",  # taken
                    "permessage-deflate; client_no_context_takeover",  # too late
                ]
            ),
            "; server_max_window_bits=9",
        ),
    ],
)
def test_a_server_answers_offers(offers: str, answer: str | None) -> None:
    """It keeps no context for what it sends, whatever is offered: a frame can be shared by many then."""
    accepted = accept_offer(offers, 100)
    expected = None if answer is None else "permessage-deflate; server_no_context_takeover" + answer
    assert (None if accepted is None else accepted[0]) == expected


def test_a_malformed_element_spoils_all_offers() -> None:
    with pytest.raises(RemoteProtocolError, match="malformed"):
        accept_offer("permessage-deflate, ;", 100)


@pytest.mark.parametrize(
    "answer",
    [
        "permessage-deflate",
        "permessage-deflate;client_max_window_bits=15",
        "permessage-deflate; server_max_window_bits=8; client_max_window_bits=9",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    ],
)
def test_a_client_follows_an_answer(answer: str) -> None:
    assert isinstance(follow_answer(answer, 100, offered=True), Deflate)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("x-other", "not offered"),
        ("permessage-deflate, permessage-deflate", "not offered"),
        ("permessage-deflate; mystery", "is unknown"),
        ("permessage-deflate; client_max_window_bits=abc", "illegal value"),
        ("permessage-deflate; server_max_window_bits=1" + "0" * 5000, "illegal value"),
        ("permessage-deflate; client_max_window_bits", "must be from 9 to 15"),
        ("permessage-deflate; client_max_window_bits=8", "must be from 9 to 15"),
        (
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "a parameter is repeated",
        ),
        ("permessage-deflate;", "malformed"),
    ],
)
def test_a_client_refuses_an_answer(answer: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        follow_answer(answer, 100, offered=True)


def test_a_client_that_offered_nothing_takes_no_extension() -> None:
    assert follow_answer("", 100, offered=False) is None
    with pytest.raises(RemoteProtocolError, match="not offered"):
        follow_answer("permessage-deflate", 100, offered=False)


def test_the_limit_is_nothing_to_negotiate() -> None:
    limit = MessageLimit(100)
    assert limit.enabled()
    assert limit.offer() is False


# ---------------------------------------------------------------------------------------------- the limit

TOO_BIG = Closed(1009, "a message of more than 10 bytes", clean=False)


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"x" * 11),
        frame(BINARY, b"x" * 11),
        frame(TEXT, "ä".encode() * 6),
        frame(TEXT, b"x" * 5, fin=False) + frame(CONTINUATION, b"x" * 6),
        frame(TEXT, b"x" * 5, fin=False)
        + frame(CONTINUATION, b"x" * 5, fin=False)
        + frame(CONTINUATION, b"x"),
        frame(TEXT, b"x" * 5, fin=False)
        + frame(PING, b"a ping does not count")
        + frame(CONTINUATION, b"x" * 6),
        b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff",  # the header alone will do
    ],
)
def test_a_message_over_the_limit_closes(data: bytes, deflate: bool) -> None:
    for chunks in ([data], single_bytes(data)):
        client = open_client(limit=10, deflate=deflate)
        found = feed(client, *chunks)
        assert found[-1] == TOO_BIG
        assert [type(event) for event in found[:-1]] == [PingReceived] * data.count(b"ping")
        assert client.state is State.CLOSED
        sent = frames_of(client.data_to_send())
        assert sent[-1] == (0x88, b"\x03\xf1a message of more than 10 bytes")


@pytest.mark.parametrize("deflate", [False, True])
def test_messages_up_to_the_limit_pass_and_do_not_add_up(deflate: bool) -> None:
    client = open_client(limit=10, deflate=deflate)
    data = frame(TEXT, b"x" * 10) + frame(BINARY, b"y" * 4, fin=False) + frame(CONTINUATION, b"y" * 6)
    assert feed(client, data, data) == [TextMessage("x" * 10), BinaryMessage(b"y" * 10)] * 2


def test_the_limit_counts_a_frame_once_although_its_masking_key_comes_late() -> None:
    server = open_server(limit=10)
    data = frame(TEXT, b"x" * 10, mask=MASK)
    # wsproto asks its extensions again for the same header when it gets the key.
    assert feed(server, data[:2], data[2:4], data[4:]) == [TextMessage("x" * 10)]


def test_inflating_stops_at_the_limit() -> None:
    bomb = deflated(bytes(50_000_000))
    assert len(bomb) < 50_000
    client = open_client(limit=1_000_000, deflate=True)
    tracemalloc.start()
    events = feed(client, frame(BINARY, bomb, rsv=RSV1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert events == [Closed(1009, "a message of more than 1000000 bytes", clean=False)]
    assert peak < 10_000_000


def test_inflated_bytes_are_counted_over_fragments() -> None:
    whole = deflated(b"0123456789")
    for limit, last in (
        (10, BinaryMessage(b"0123456789")),
        (9, Closed(1009, "a message of more than 9 bytes", False)),
    ):
        client = open_client(limit=limit, deflate=True)
        pieces = [whole[i : i + 3] for i in range(0, len(whole), 3)]
        data = frame(BINARY, pieces[0], fin=False, rsv=RSV1)
        data += b"".join(frame(CONTINUATION, piece, fin=False) for piece in pieces[1:])
        assert feed(client, data + frame(CONTINUATION)) == [last]


def test_a_compressed_message_may_not_be_endless_on_the_wire_either() -> None:
    client = open_client(limit=10, deflate=True)
    nothing = b"\x00" + TAIL  # an empty block: it inflates to nothing
    data = frame(BINARY, nothing * 100, rsv=RSV1, fin=False)
    assert feed(
        client, data, frame(CONTINUATION, nothing * 100, fin=False), frame(CONTINUATION, nothing * 100)
    ) == [TOO_BIG]


# ---------------------------------------------------------------------------------------------- inflating


def test_a_compressed_message() -> None:
    client = open_client(deflate=True)
    assert client.uses_deflate
    assert feed(client, frame(TEXT, deflated("ünï".encode()), rsv=RSV1)) == [TextMessage("ünï")]
    assert feed(client, frame(BINARY, b"\x00", rsv=RSV1)) == [BinaryMessage(b"")]


def test_the_context_is_kept() -> None:
    compressor = zlib.compressobj(wbits=-15)
    client = open_client(deflate=True)
    sizes = []
    for _ in range(3):
        data = compressor.compress(b"the same words again") + compressor.flush(zlib.Z_SYNC_FLUSH)
        sizes.append(len(data))
        assert feed(client, frame(TEXT, data[:-4], rsv=RSV1)) == [TextMessage("the same words again")]
    assert sizes[2] < sizes[0] / 2


def test_messages_may_be_left_uncompressed() -> None:
    client = open_client(deflate=True)
    data = frame(TEXT, b"plain") + frame(TEXT, deflated(b"deflated"), rsv=RSV1) + frame(TEXT, b"plain again")
    assert feed(client, data) == [TextMessage("plain"), TextMessage("deflated"), TextMessage("plain again")]


def test_a_ping_between_the_fragments_of_a_compressed_message() -> None:
    whole = deflated(b"one message, three frames")
    data = (
        frame(TEXT, whole[:5], fin=False, rsv=RSV1)
        + frame(PING, b"p")
        + frame(CONTINUATION, whole[5:10], fin=False)
        + frame(PONG)
        + frame(CONTINUATION, whole[10:])
    )
    for chunks in ([data], single_bytes(data)):
        found = feed(open_client(deflate=True), *chunks)
        assert [type(event).__name__ for event in found] == ["PingReceived", "PongReceived", "TextMessage"]
        assert found[-1] == TextMessage("one message, three frames")


def test_a_message_may_end_its_deflate_stream() -> None:
    client = open_client(deflate=True)
    ended = deflated(b"Hello", zlib.Z_FINISH)
    assert feed(client, frame(TEXT, ended + b"\x00", rsv=RSV1)) == [TextMessage("Hello")]
    # The next one starts afresh.
    assert feed(client, frame(TEXT, deflated(b"again"), rsv=RSV1)) == [TextMessage("again")]
    data = frame(TEXT, ended, fin=False, rsv=RSV1) + frame(CONTINUATION, b"\x00")
    assert feed(client, data) == [TextMessage("Hello")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(TEXT, b"\xff\xff\xff", rsv=RSV1), "data that cannot be inflated"),
        (
            frame(TEXT, deflated(b"x", zlib.Z_FINISH) + b"\x00more", rsv=RSV1),
            "data after the end of what was deflated",
        ),
        (frame(TEXT, deflated(b"\xff"), rsv=RSV1), "text that is not UTF-8"),
    ],
)
def test_bad_compressed_data_closes_with_1007(data: bytes, reason: str) -> None:
    for chunks in ([data], single_bytes(data)):
        assert feed(open_client(deflate=True), *chunks) == [Closed(1007, reason, clean=False)]


MALFORMED = "a malformed WebSocket frame"


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(PING, b"x", rsv=RSV1), MALFORMED),
        (frame(CLOSE, rsv=RSV1), MALFORMED),
        (frame(TEXT, b"a", rsv=2), MALFORMED),
        (frame(TEXT, b"a", rsv=1), MALFORMED),
        (frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=RSV1), MALFORMED),
        (frame(CONTINUATION, b"b", rsv=RSV1), "a continuation of no message"),
        (frame(TEXT, b"a", fin=False) + frame(TEXT, b"\xff\xff", rsv=RSV1), "a message inside another"),
        (frame(TEXT, b"a", fin=False) + frame(PING, rsv=RSV1), MALFORMED),
        (frame(3, b"a", rsv=RSV1), MALFORMED),
    ],
)
def test_reserved_bits_on_odd_frames(data: bytes, reason: str, deflate: bool) -> None:
    for chunks in ([data], single_bytes(data)):
        assert feed(open_client(deflate=deflate), *chunks) == [Closed(1002, reason, clean=False)]


def test_a_compressed_message_needs_the_extension() -> None:
    assert feed(open_client(), frame(TEXT, deflated(b"x"), rsv=RSV1)) == [
        Closed(1002, MALFORMED, clean=False)
    ]


# ---------------------------------------------------------------------------------------------- deflating


def test_a_client_compresses_with_one_context_and_a_server_with_none() -> None:
    text = "words that come again, words that come again"
    for websocket, keeps in ((open_client(deflate=True), True), (open_server(deflate=True), False)):
        sizes = []
        for _ in range(2):
            websocket.send_text(text)
            sent = websocket.data_to_send()
            assert sent[0] == 0xC1
            sizes.append(len(sent))
        assert (sizes[1] < sizes[0]) is keeps
        websocket.ping(b"not compressed")
        assert frames_of(websocket.data_to_send()) == [(0x80 | PING, b"not compressed")]


@pytest.mark.parametrize(
    "offer", ["", "; server_no_context_takeover", "; server_max_window_bits=9; client_max_window_bits=9"]
)
def test_a_server_does_as_agreed(offer: str) -> None:
    accepted = accept_offer("permessage-deflate" + offer, 1000)
    assert accepted is not None
    client, server = pair_with(accepted[0])
    frames = []
    for _ in range(2):
        server.send_binary(b"some words that will come back later")
        frames.append(server.data_to_send())
        assert feed(client, frames[-1]) == [BinaryMessage(b"some words that will come back later")]
    assert frames[0] == frames[1]


def pair_with(parameters: str) -> tuple[WebSocket, WebSocket]:
    """A client and a server that agreed on `parameters`, by way of an offer with the same ones."""
    server = WebSocket.server(deflate=True, max_message_size=1000)
    feed(server, upgrade_request(("sec-websocket-extensions", parameters)))
    server.data_to_send()
    client = new_client(deflate=True)
    feed(client, upgrade_response(("sec-websocket-extensions", parameters)))
    client.data_to_send()
    assert client.uses_deflate
    assert server.uses_deflate
    return client, server


@pytest.mark.parametrize(
    "parameters",
    [
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=9",
        "permessage-deflate; client_max_window_bits=9",
        "permessage-deflate; server_max_window_bits=10; client_max_window_bits=9; client_no_context_takeover",
    ],
)
def test_both_roles_understand_each_other(parameters: str) -> None:
    client, server = pair_with(parameters)
    # Far references: more than a window of 512 bytes lies between the repetitions.
    text = "".join(f"{number:04}" for number in range(200)) + "0000000100020003"
    for _ in range(3):
        client.send_text(text)
        server.send_text(text)
        client.send_text("")
        server.send_binary(b"")
        of_client, of_server = exchange(client, server)
        assert of_client == [TextMessage(text), BinaryMessage(b"")]
        assert of_server == [TextMessage(text), TextMessage("")]


# What Bandit refuses; tests/golden/supabase/p_inflate_ratio_1009_v2 is a session that it ended so.
BOMB_RATIO, BOMB_SIZE = 25, 28_000

MESSAGES = st.one_of(
    # Repetitions: short ones, and ones of all sizes around the border.
    st.tuples(st.binary(min_size=1, max_size=40), st.integers(0, 5000)).map(lambda both: both[0] * both[1]),
    st.tuples(st.integers(0, 255), st.integers(10_000, 70_000)).map(lambda both: bytes([both[0]]) * both[1]),
    # Texts that no window compresses much, with a repetition in them.
    st.tuples(st.integers(0, 9), st.integers(0, 40_000), st.integers(0, 60_000)).map(
        lambda three: Random(three[0]).randbytes(three[1]) + b"z" * three[2]
    ),
)


@pytest.mark.parametrize(("keeps", "bits"), [(True, 15), (False, 15), (True, 9), (False, 9)])
@given(st.lists(MESSAGES, max_size=6))
def test_no_message_looks_like_a_bomb_and_the_context_stays_right(
    keeps: bool, bits: int, messages: list[bytes]
) -> None:
    """Read with zlib itself, by a receiver that knows nothing of ours."""
    ours = Deflate(1 << 20, deflate_bits=bits, keep_deflating=keeps)
    theirs = zlib.decompressobj(-bits)
    for message in messages:
        rsv, sent = ours.frame_outbound(PROTOCOL, Opcode.BINARY, NO_BITS, message, True)
        if rsv.rsv1:
            assert theirs.decompress(sent + TAIL) == message
            assert len(message) <= BOMB_SIZE or len(message) <= BOMB_RATIO * len(sent)
        else:
            assert sent == message
            assert len(message) > BOMB_SIZE / 2  # all others are worth it
        if not keeps:
            theirs = zlib.decompressobj(-bits)


def test_what_would_be_refused_goes_as_it_is_and_all_else_compressed() -> None:
    client, server = pair(client_deflate=True, server_deflate=True, limit=1 << 20)
    text = "".join(f"{number * number:08}" for number in range(5000))
    for sent, first in [("words", 0xC1), ("z" * 60_000, 0x81), (text, 0xC1), ("z" * 16_000, 0xC1)]:
        client.send_text(sent)
        data = client.data_to_send()
        assert data[0] == first
        assert feed(server, data) == [TextMessage(sent)]


def test_the_context_is_used_after_a_message_that_went_as_it_is() -> None:
    client = open_client(deflate=True)
    words = Random(1).randbytes(5_000)
    sizes = []
    for message in (words, b"z" * 60_000, words):
        client.send_binary(message)
        sizes.append(len(client.data_to_send()))
    assert sizes[0] >= 5_000
    assert sizes[1] >= 60_000
    assert sizes[2] < 500


def test_a_ratio_between_ours_and_bandits_is_not_reached() -> None:
    client = open_client(deflate=True)
    client.send_binary(Random(1).randbytes(1_500) + b"z" * 39_000)  # which deflates to a 26th
    assert client.data_to_send()[0] == 0x82


def test_a_large_message_that_went_compressed_is_in_the_context() -> None:
    client = open_client(deflate=True)
    words = Random(1).randbytes(20_000)
    client.send_binary(words)
    assert client.data_to_send()[0] == 0xC2
    client.send_binary(words[:5_000])
    assert len(client.data_to_send()) < 500


def test_deflate_is_off_unless_both_want_it() -> None:
    for client_wants in (False, True):
        for server_wants in (False, True):
            client, server = pair(client_deflate=client_wants, server_deflate=server_wants)
            assert client.uses_deflate is server.uses_deflate is (client_wants and server_wants)
            client.send_text("hello")
            server.close(1000)
            of_client, of_server = exchange(client, server)
            assert of_server == [TextMessage("hello"), Closed(1000, "", clean=True)]
            assert of_client == [Closed(1000, "", clean=True)]
            assert not client.uses_deflate


def test_close_frames_are_never_compressed() -> None:
    client = open_client(deflate=True)
    assert feed(client, close_frame(1000, b"bye")) == [Closed(1000, "bye", clean=True)]
    assert client.data_to_send()[0] == 0x88
    assert events(client) == []


# ---------------------------------------------------------------------------------------------- counting


def test_what_inflating_adds_is_counted_up_to_the_end() -> None:
    client, server = pair_with("permessage-deflate")
    assert client.bytes_added == server.bytes_added == 0
    server.send_text("x" * 10_000)
    data = server.data_to_send()
    feed(client, data)
    assert 9_900 < client.bytes_added <= 10_000 - (len(data) - 20)
    added = client.bytes_added
    server.send_binary(os.urandom(300))  # which deflating makes longer
    feed(client, server.data_to_send())
    assert client.bytes_added == added
    server.send_text("x" * 10_000)
    server.close()
    feed(client, server.data_to_send())
    assert client.state is State.CLOSED
    assert client.bytes_added == 2 * added
