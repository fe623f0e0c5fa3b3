"""Stories of a hub: a few clients that say anything, and one that behaves and must not suffer from it.

A story is a script. Its records, by letter; the low two bits of the number say which client it is:

    t text      b binary    a message
    z           a text, deflated where that was agreed
    f           a frame: its first byte, then the payload
    r           raw bytes, after the upgrade
    o           the transport alone is opened anew; the data are its first bytes
    u           the transport is opened anew, with an upgrade to the data, or to one of `TARGETS`
    c           the transport is gone
    a w         time passes: some seconds, or to the next deadlines
    p           the hub's user does something, to this client only

A client that says something and is not there comes first, each in a protocol of its own.
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any

from fuzz import cost, script
from fuzz.oracle import API_KEY, TOKEN, Watch, check_secrets
from hub_client import PHOENIX, PHOENIX_V1, supabase_join, upgrade
from presence_proto.endpoint import ConnId
from presence_proto.errors import LocalProtocolError
from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig
from presence_proto.presence import PresenceMap
from presence_proto.serializer import Message, V2Serializer
from presence_proto.websocket import BinaryMessage, TextMessage
from websocket_bytes import BINARY, TEXT, frame, frames_of

LETTERS = "tbzfroucawp"
SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 11.0, 20.0, 29.0, 0.0, 10.0, 29.0, 29.0, 0.3, 1.5)
SUPABASE = f"/realtime/v1/websocket?vsn=2.0.0&apikey={API_KEY}"
SUPABASE_V1 = f"/realtime/v1/websocket?vsn=1.0.0&apikey={API_KEY}"
JARVIS = f"/?apikey={API_KEY}&token={TOKEN}"
TARGETS = (PHOENIX, SUPABASE, JARVIS, SUPABASE_V1, PHOENIX_V1)
ROOMS = ("room:lobby", "realtime:room1", "realtime:jarvis-presence")
CLIENTS = 4
MAX_MESSAGE_SIZE, MAX_CHANNELS = 4096, 6
ZERO = bytes(4)  # a mask that leaves the payload as it is

# At most: where there are three, for the story; for a fact or command; for a byte of the story.
SENT = 4000, 40
REPORTED = 10, 0.25
CALLS = 6000, 4000, 150
KEPT = 3_000_000, 2000, 1000  # with all that it has said; the first for the connections that deflate

_V2 = V2Serializer(server=False)


@cache
def config(bits: int) -> HubConfig:
    """One of the hubs that there may be."""
    return HubConfig(
        deflate=bool(bits & 1),
        presence_window=0.5 if bits & 2 else 0.0,
        presence_limit=3 if bits & 4 else None,
        api_keys={API_KEY} if bits & 8 else None,
        offline_grace=0.0 if bits & 16 else 10.0,
        authorize=_authorize if bits & 32 else None,
        wall_clock=lambda: "2026-01-01T00:00:00Z",
        max_connections=7,
        max_channels=MAX_CHANNELS,
        max_message_size=MAX_MESSAGE_SIZE,
    )


def _authorize(topic: str, token: str | None) -> str | None:
    return "no" if token == "bad" or topic.endswith("secret") else None


class Victim:
    """A client that behaves. It holds what it is told, and asks whether the hub is still there.

    On Supabase's mount it is in Supabase's rooms, on Phoenix' in the others.
    """

    def __init__(self, watch: Watch, conn: ConnId, target: str) -> None:
        self._watch = watch
        self.conn = conn
        supabase = target == SUPABASE
        self._rooms = [room for room in ROOMS if room.startswith("realtime:") == supabase]
        self.held: dict[str, PresenceMap] = {}
        self._read = 0
        self._ref = 0
        self._beaten: set[str] = set()
        watch.accept(self.conn)
        watch.receive(self.conn, [upgrade(target)])
        for room in self._rooms:
            self._say(room, "phx_join", supabase_join("victim") if supabase else {"user_id": "victim"})

    def beat(self) -> None:
        """Be there, and be answered."""
        ref = self._say("phoenix", "heartbeat", {})
        self._beaten.clear()
        self.read()
        assert ref in self._beaten, "the hub does not answer to those that behave"

    def read(self) -> None:
        """Take in what came."""
        data = bytes(self._watch.sent[self.conn])
        start = self._read or data.index(b"\r\n\r\n") + 4
        self._read = len(data)
        for first, payload in frames_of(data[start:]):
            assert first in (0x80 | TEXT, 0x80 | BINARY), "to those that behave the hub says nothing else"
            text = first & 15 == TEXT
            message = _V2.decode(TextMessage(payload.decode()) if text else BinaryMessage(payload))
            if message.event == "presence_state":
                self.held[message.topic] = PresenceMap()
                self.held[message.topic].apply_state(message.payload)
            elif message.event == "presence_diff":
                self.held[message.topic].apply_diff(message.payload)
            elif message.topic == "phoenix":
                assert isinstance(message.ref, str)
                self._beaten.add(message.ref)

    def check(self, hub: Hub) -> None:
        """It is still there, and holds what is true."""
        assert self.conn in hub.connections, "one that behaves was thrown out"
        self.read()
        for room in self._rooms:
            assert dict(self.held[room]) == hub.online(room), f"the presence of {room} is another one"

    def _say(self, topic: str, event: str, payload: Any) -> str:
        self._ref += 1
        ref = str(self._ref)
        join_ref = None if topic == "phoenix" else ref
        data = _V2.encode(Message(join_ref, ref, topic, event, payload)).data
        self._watch.receive(self.conn, [frame(TEXT, data, mask=ZERO)])
        return ref


class Story:
    """A hub, its victims, and the others, who come as they are needed. `cut`: how what they say is cut."""

    def __init__(self, bits: int, cut: int = 0, *, victim: bool = True) -> None:
        self.hub = Hub(config(bits & 63))
        self.watch = Watch(self.hub)
        targets = (SUPABASE, PHOENIX) if victim else ()
        self.victims = [Victim(self.watch, ConnId(conn), target) for conn, target in enumerate(targets, 1)]
        self._deflate, self._stops = bool(bits & 1), bool(bits & 64)
        self._cut = cut & 0xFE
        self._conns: dict[int, ConnId] = {}
        self._deflaters: dict[int, Any] = {}  # of those who agreed to it
        self._last = 2
        self._beat = self.watch.now

    def play(self, body: bytes) -> None:
        """Let the records of a script happen, and then the end."""
        for letter, number, data in script.records(body, LETTERS):
            getattr(self, f"_{letter}")(number & 3, number, data)
        if self._stops:
            self.shut_down()
        else:
            self.end()

    def end(self) -> None:
        """Everybody goes, the victims last: after a while the hub remembers nobody."""
        watch, hub, victims = self.watch, self.hub, self.victims
        for victim in victims:
            victim.beat()
        if victims:
            self._pass(1.0)  # the presence window, if there is one
        for victim in victims:
            victim.check(hub)
        for conn in tuple(watch.live):
            if conn not in [victim.conn for victim in victims]:
                watch.closed(conn)
        self._pass(12.0)  # the grace of Jarvis users
        for victim in victims:
            victim.check(hub)
        if victims:
            assert all({*hub.online(room)} <= {"victim"} for room in ROOMS), "somebody is left behind"
        for victim in victims:
            watch.closed(victim.conn)
        assert hub.connections == ()
        assert hub.topics == ()
        watch.advance(100.0)
        assert hub.next_deadline() is None, "an empty hub waits for nothing"

    def shut_down(self) -> None:
        """The hub stops: it says goodbye, and does not wait for ever."""
        watch, hub = self.watch, self.hub
        watch.do(hub.shutdown)
        assert hub.topics == ()
        watch.advance(100.0)
        assert hub.is_closed
        assert not watch.live, "a connection is left open"
        assert hub.next_deadline() is None

    def _pass(self, seconds: float) -> None:
        self.watch.advance(seconds)
        if self.victims and self.watch.now - self._beat > 25:
            self._beat = self.watch.now
            for victim in self.victims:
                victim.beat()

    # ------------------------------------------------------------ what the others do

    def _conn(self, who: int) -> ConnId:
        conn = self._conns.get(who)
        if conn is None or conn not in self.watch.live:
            self._u(who, who << 2, b"")
        return self._conns[who]

    def _open(self, who: int) -> ConnId:
        old = self._conns.get(who)
        if old in self.watch.live:
            assert old is not None
            self.watch.closed(old)
        self._last += 1
        conn = self._conns[who] = ConnId(self._last)
        self.watch.accept(conn)
        return conn

    def _send(self, conn: ConnId, data: bytes) -> None:
        self.watch.receive(conn, script.chunks(data, self._cut))

    def _o(self, who: int, number: int, data: bytes) -> None:
        self._send(self._open(who), data)

    def _u(self, who: int, number: int, data: bytes) -> None:
        # What cannot stand in a request line makes an honest client's story a story of raw bytes.
        target = data.decode("latin-1") or TARGETS[number >> 2]
        request = upgrade(target)
        if self._deflate:
            request = request[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        conn = self._open(who)
        self._send(conn, request)
        self._deflaters[who] = zlib.compressobj(wbits=-9, memLevel=1) if self._deflate else None

    def _t(self, who: int, number: int, data: bytes) -> None:
        self._send(self._conn(who), frame(TEXT, data, mask=ZERO))

    def _b(self, who: int, number: int, data: bytes) -> None:
        self._send(self._conn(who), frame(BINARY, data, mask=ZERO))

    def _z(self, who: int, number: int, data: bytes) -> None:
        conn = self._conn(who)
        deflater = self._deflaters.get(who)
        if deflater is None:
            self._t(who, number, data)
        else:
            packed = (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
            self._send(conn, frame(TEXT, packed, rsv=4, mask=ZERO))

    def _f(self, who: int, number: int, data: bytes) -> None:
        first = data[0] if data else 0
        bits = {"fin": first > 127, "rsv": first >> 4 & 7}
        self._send(self._conn(who), frame(first & 15, data[1:], mask=ZERO, **bits))

    def _r(self, who: int, number: int, data: bytes) -> None:
        self._send(self._conn(who), data)

    def _c(self, who: int, number: int, data: bytes) -> None:
        conn = self._conns.get(who)
        if conn in self.watch.live:
            assert conn is not None
            self.watch.closed(conn)

    # ------------------------------------------------------------ time, and the hub's user

    def _a(self, who: int, number: int, data: bytes) -> None:
        self._pass(SECONDS[number])

    def _w(self, who: int, number: int, data: bytes) -> None:
        deadline = self.hub.next_deadline()
        if deadline is not None:
            self._pass(min(deadline - self.watch.now, 29.0))

    def _p(self, who: int, number: int, data: bytes) -> None:
        hub, conn, text = self.hub, self._conns.get(who, ConnId(0)), data.decode("utf-8", "replace")
        topic = next((room for room in ROOMS if text.startswith(room)), ROOMS[who % 3])
        word = text.removeprefix(topic) or "x"
        do = self.watch.do
        try:
            match number >> 2:
                case 0:
                    do(hub.broadcast, topic, word, {"said": word})
                case 1:
                    do(hub.close_channel, topic, reason=word, conn=conn)
                case 2:
                    do(hub.crash_channel, topic, conn=conn)
                case _:
                    do(hub.disconnect, conn, 1000 + len(word), word)
        except LocalProtocolError as exc:
            self.watch.refusals.append(str(exc))


def check(data: bytes, body: bytes, bits: int, cut: int) -> None:
    """The oracle of a story. All is within its bounds; told again, also in pieces, it is the same.

    Of the whole input, `data`, depends how closely it is looked at.
    """
    story = Story(bits)
    story.play(body)
    told = story.watch.transcript()
    check_secrets(story.watch, body)
    facts = story.watch.facts
    heard = len(body) * (1 + (bits & 1) * 1000)
    sent = sum(map(len, story.watch.sent.values()))
    assert sent <= (SENT[0] + SENT[1] * heard) * facts * (CLIENTS + 1)
    assert len(told[0]) <= REPORTED[0] * facts + REPORTED[1] * len(body)
    if script.sampled(data, 4):
        other = Story(bits, cut)
        other.play(body)
        assert other.watch.transcript() == told, "told again, cut into pieces, it is another story"
    if script.sampled(data, 4096):
        _check_cost(body, bits)


def _check_cost(body: bytes, bits: int) -> None:
    longer = script.repeated(body, 4000)
    story = Story(bits, victim=False)
    called = cost.calls(lambda: story.play(longer))
    bound = CALLS[0] + CALLS[1] * story.watch.facts + CALLS[2] * len(longer)
    assert called <= bound, f"{called} calls for {len(longer)} bytes and {story.watch.facts} facts"
    peak, _ = cost.kept(lambda: Story(bits, victim=False).play(longer))
    bound = KEPT[0] + KEPT[1] * story.watch.facts + KEPT[2] * len(longer)
    assert peak <= bound, f"{peak} bytes of memory for {len(longer)}"
