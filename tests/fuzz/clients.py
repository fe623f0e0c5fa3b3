"""Stories of one client: what its server says, what the network and the clock do, what its user wants.

A story is a script. Its records, by letter (see `script`; the number is the low half of the second byte):

    t text      b binary    a message of the server's
    f           a frame: its first byte, then the payload
    r           raw bytes
    h           raw bytes in place of the server's answer to the upgrade
    y           a reply to one of the client's last messages: the number says which, and whether it is "ok"
    s d         a presence state, a presence diff: JSON, in the topic of the client's last join
    e           another event there, one of `EVENTS`
    c           the connection is cut
    a w         time passes: some seconds, or until the next deadlines
    p           a command: the number says which, the data is its text

A connection that is needed is made first.
"""

from __future__ import annotations

import re
from enum import IntEnum
from random import Random
from typing import Any, TypeAlias

import msgspec
from wsproto.utilities import generate_accept_token

from fuzz import cost, script
from fuzz.oracle import API_KEY, TOKEN, Watch, check_secrets
from presence_proto.config import Identity, PresenceConfig, RealtimeConfig
from presence_proto.endpoint import ConnId
from presence_proto.errors import LocalProtocolError
from presence_proto.events import UserStatus
from presence_proto.presence_client import PresenceClient
from presence_proto.realtime_client import RealtimeClient
from presence_proto.testing.contract import fold_of
from websocket_bytes import BINARY, TEXT, frame, frames_of, upgrade_response

LETTERS = "tbfrhysdecawp"
SECONDS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 11.0, 25.0, 26.0, 30.0, 31.0, 45.0, 60.0, 90.0, 0.0, 120.0)
TOPICS = ("room:lobby", "realtime:room1", "realtime:jarvis-presence", "")
STATUSES = tuple(UserStatus)
EVENTS = ("broadcast", "system", "phx_error", "phx_close", "news")

LIMITS: dict[str, Any] = {
    "max_message_size": 16_384,
    "max_channels": 4,
    "max_pending_pushes": 6,
    "max_pending_diffs": 8,
    "max_roster": 12,
    "max_metas": 4,
}
SENT = 4000, 8  # bytes that a client sends at most: for each fact or command, and for each byte of the story
REPORTED = 8, 0.25  # events that it reports at most: likewise
CALLS = 6000, 3000, 60  # at most: for the story, for each fact or command, and for each byte
KEPT = 600_000, 1000, 300  # bytes of memory at most: likewise, with all that it has said and reported

Transcript: TypeAlias = tuple[list[Any], list[Any], dict[ConnId, tuple[bytes, list[tuple[int, bytes]]]]]


class Kind(IntEnum):
    """Which client it is, of which protocol."""

    SUPABASE = 0  # a `PresenceClient`
    PHOENIX = 1  # a `RealtimeClient`
    JARVIS = 2  # a `PresenceClient`
    SUPABASE_V1 = 3
    PHOENIX_V1 = 4


_V1 = (Kind.SUPABASE_V1, Kind.PHOENIX_V1)
_PRESENCE = (Kind.SUPABASE, Kind.SUPABASE_V1, Kind.JARVIS)
_ME = Identity("me", "Me", TOKEN)


def _config(kind: Kind) -> RealtimeConfig:
    settings: dict[str, Any] = {"server_url": "ws://host.test/", "api_key": API_KEY, "deflate": False}
    settings |= LIMITS | {"vsn": "1.0.0" if kind in _V1 else "2.0.0"}
    if kind not in _PRESENCE:
        return RealtimeConfig(access_token=TOKEN, **settings)
    return PresenceConfig(protocol="jarvis" if kind is Kind.JARVIS else "phoenix", **settings)


_CONFIGS = {kind: _config(kind) for kind in Kind}


class Story:
    """One client, connecting. `cut` says how what the server says is cut; with `folding` its events are
    followed."""

    def __init__(self, kind: Kind, cut: int = 0, *, folding: bool = True) -> None:
        self.kind = kind
        self.client: Any
        config, random = _CONFIGS[kind], Random(1)
        if isinstance(config, PresenceConfig):
            self.client = PresenceClient(_ME, config, rng=random, online_at="2026-01-01T00:00:00Z")
        else:
            self.client = RealtimeClient(config, rng=random)
        self.watch = Watch(self.client)
        self._cut = cut
        self._fold = fold_of(self.client) if folding else None
        self._followed = 0
        self._upgraded: ConnId | None = None
        self.watch.do(self.client.connect)
        if kind in (Kind.PHOENIX, Kind.PHOENIX_V1):
            self.watch.do(self.client.join, TOPICS[0])

    def play(self, body: bytes) -> None:
        """Let the records of a script happen, and then the end."""
        for letter, number, data in script.records(body, LETTERS):
            getattr(self, f"_{letter}")(number, data)
            self.check()
        if script.sampled(body, 3):
            self.heal()
        self.end()

    def check(self) -> None:
        """What holds at every point."""
        if self._fold is not None:
            for event in self.watch.events[self._followed :]:
                self._fold.follow(event)
            self._followed = len(self.watch.events)
            self._fold.check()
        client = self.client
        if self.kind in _PRESENCE:
            assert client.online_count <= LIMITS["max_roster"] + 1, "the roster is bounded"
        else:
            assert len(client.channels) <= LIMITS["max_channels"]
            for topic in client.channels:
                presence = client.presence(topic)
                assert len(presence) <= LIMITS["max_roster"]
                assert all(len(metas) <= LIMITS["max_metas"] for metas in presence.values())

    def heal(self) -> None:
        """The connection is lost once more, and then all is well: whatever was said before, we are back."""
        if self.client.is_closed:
            return
        self._c(0, b"")
        if self.kind is Kind.JARVIS:
            self.say(frame(TEXT, b'{"type":"welcome","users":[]}'))
        for message in self.said():
            if message[3] == "phx_join":
                self.reply(message, "ok", msgspec.Raw(b"{}"))
                self.tell(message[2], "presence_state", msgspec.Raw(b"{}"))
        self.check()
        if self.kind in _PRESENCE:
            assert self.client.is_connected, "the client does not come back"
            # The server remembers nobody: others who were here may still come back, see `restart_grace`.
            users = [user.user_id for user in self.client.online_users]
            assert [name for name in users if not self.client.is_user_stale(name)] == users[:1]
        else:
            assert all(self.client.is_synced(topic) for topic in self.client.channels)

    def end(self) -> None:
        """Disconnect: after a while there is nothing left to wait for, and nobody listens any more."""
        watch, conn = self.watch, self._upgraded
        if not self.client.is_closed:
            watch.do(self.client.disconnect)
        watch.advance(1000.0)
        assert self.client.is_closed, "a client that was told to disconnect does"
        assert self.client.next_deadline() is None
        self.check()
        if conn is not None:
            before = len(watch.events)
            watch.do(self.client.receive_data, conn, frame(TEXT, b"[]"))
            watch.do(self.client.transport_closed, conn)
            assert len(watch.events) == before, "facts about a connection of the past are passed over"

    def transcript(self) -> Transcript:
        """All that the client did. The masks of its frames are random, and not in it."""
        events, transports, sent = self.watch.transcript()
        return events, transports, {conn: _unmasked(data) for conn, data in sent.items()}

    # ------------------------------------------------------------ the server

    def say(self, data: bytes) -> None:
        """Bytes of the server's, on an open WebSocket if there can be one."""
        if self._connected():
            self._deliver(data)

    def tell(self, topic: str, event: str, payload: msgspec.Raw) -> None:
        """A message about a topic, in its life of now."""
        join_ref = self._last_join(topic)
        body = {"topic": topic, "event": event, "payload": payload, "ref": None}
        array = [join_ref, None, topic, event, payload]
        self.say(frame(TEXT, msgspec.json.encode(body if self.kind in _V1 else array)))

    def reply(self, to: list[Any], status: str, response: msgspec.Raw) -> None:
        """A reply to a message of the client's, as V2 has it."""
        payload = {"status": status, "response": response}
        body = {"topic": to[2], "event": "phx_reply", "payload": payload, "ref": to[1]}
        array = [to[0], to[1], to[2], "phx_reply", payload]
        self.say(frame(TEXT, msgspec.json.encode(body if self.kind in _V1 else array)))

    def join(self, topic: str) -> None:
        """Let the client into a topic."""
        for message in self.said():
            if message[2:4] == [topic, "phx_join"]:
                self.reply(message, "ok", msgspec.Raw(b"{}"))

    def said(self) -> list[list[Any]]:
        """The text messages of the client on the connection of now, as V2 has them."""
        if not self._connected() or self._upgraded is None:
            return []
        _, frames = _unmasked(bytes(self.watch.sent.get(self._upgraded, b"")))
        said = [msgspec.json.decode(data) for first, data in frames if first & 15 == TEXT]
        names = ("join_ref", "ref", "topic", "event", "payload")
        return [[m.get(name) for name in names] if isinstance(m, dict) else m for m in said]

    def _last_join(self, topic: str) -> Any:
        refs = [message[0] for message in self.said() if message[3] == "phx_join" and message[2] == topic]
        return refs[-1] if refs else None

    def _connected(self) -> bool:
        """Make a connection unless there is one. False: the client did not want it."""
        watch = self.watch
        if self._upgraded in watch.live:
            return True
        conn = self._transport()
        if conn is None:
            return False
        request = bytes(watch.sent[conn])
        match = re.search(rb"(?i)sec-websocket-key: *(\S+)", request)
        assert match is not None
        accept = generate_accept_token(match[1]).decode()
        watch.receive(conn, [upgrade_response(sec_websocket_accept=accept)])
        self._upgraded = conn
        return conn in watch.live

    def _transport(self) -> ConnId | None:
        """A transport that waits for the server's answer to the upgrade."""
        watch = self.watch
        if self.client.is_closed:
            watch.do(self.client.connect)
        for conn in tuple(watch.live):
            if conn != self._upgraded:
                return conn
        while watch.pending is None and watch.tick():
            pass
        if watch.pending is None:
            return None
        conn = watch.pending.conn
        watch.opened(conn)
        return conn

    def _deliver(self, data: bytes) -> None:
        for conn in tuple(self.watch.live):
            self.watch.receive(conn, script.chunks(data, self._cut & 0xFE))  # a few pieces will do

    # ------------------------------------------------------------ records

    def _t(self, number: int, data: bytes) -> None:
        self.say(frame(TEXT, data))

    def _b(self, number: int, data: bytes) -> None:
        self.say(frame(BINARY, data))

    def _f(self, number: int, data: bytes) -> None:
        first = data[0] if data else 0
        self.say(frame(first & 15, data[1:], fin=first > 127, rsv=first >> 4 & 7))

    def _r(self, number: int, data: bytes) -> None:
        self.say(data)

    def _h(self, number: int, data: bytes) -> None:
        if self._upgraded not in self.watch.live:
            self._transport()
        self._deliver(data)

    def _y(self, number: int, data: bytes) -> None:
        said = self.said()
        if self.kind is not Kind.JARVIS and len(said) > number >> 1:
            status = "error" if number & 1 else "ok"
            self.reply(said[-1 - (number >> 1)], status, msgspec.Raw(data or b"{}"))

    def _s(self, number: int, data: bytes) -> None:
        self.tell(self._topic(), "presence_state", msgspec.Raw(data or b"{}"))

    def _d(self, number: int, data: bytes) -> None:
        self.tell(self._topic(), "presence_diff", msgspec.Raw(data or b"{}"))

    def _e(self, number: int, data: bytes) -> None:
        self.tell(self._topic(), EVENTS[number % len(EVENTS)], msgspec.Raw(data or b"{}"))

    def _topic(self) -> str:
        topics = [message[2] for message in self.said() if message[3] == "phx_join"]
        return str(topics[-1]) if topics else TOPICS[0]

    # ------------------------------------------------------------ the network, the clock, the user

    def _c(self, number: int, data: bytes) -> None:
        watch = self.watch
        for conn in (watch.pending.conn,) if watch.pending is not None else tuple(watch.live):
            watch.closed(conn, data[:100].decode("utf-8", "replace"))

    def _a(self, number: int, data: bytes) -> None:
        self.watch.advance(SECONDS[number])

    def _w(self, number: int, data: bytes) -> None:
        for _ in range(number + 1):
            if not self.watch.tick():
                break

    def _p(self, number: int, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        commands = self._user(text) if self.kind in _PRESENCE else self._application(text)
        name, *args = commands[number % len(commands)]
        try:
            self.watch.do(getattr(self.client, name), *args)
        except LocalProtocolError as exc:
            self.watch.refusals.append(str(exc))

    def _user(self, text: str) -> list[tuple[Any, ...]]:
        status = STATUSES[len(text) % len(STATUSES)]
        return [
            ("update_activity", status, text or None),
            ("send_invite", "Chess", text or None),
            ("send_poke", text),
            ("send_chat", "general", text),
            ("set_access_token", text or None),
            ("disconnect",),
            ("connect",),
        ]

    def _application(self, text: str) -> list[tuple[Any, ...]]:
        topic = next((name for name in TOPICS if name and text.startswith(name)), text)
        rest = text.removeprefix(topic) or None
        return [
            ("join", topic),
            ("leave", topic),
            ("push", topic, "ask", rest),
            ("broadcast", topic, "hi", rest),
            ("track", topic, {"n": rest}),
            ("untrack", topic),
            ("set_access_token", text or None),
            ("disconnect",),
            ("connect",),
            ("push", topic, "ask", text.encode()),
            ("broadcast", topic, "hi", text.encode()),
        ]


def check(data: bytes, body: bytes, kind: Kind, cut: int) -> None:
    """The oracle of a story. All is within its bounds; told again, also in pieces, it is the same.

    Of the whole input, `data`, depends how closely it is looked at.
    """
    story = Story(kind)
    story.play(body)
    told, facts = story.transcript(), story.watch.facts
    check_secrets(story.watch, body)
    sent = sum(map(len, story.watch.sent.values()))
    assert sent <= facts * (SENT[0] + SENT[1] * _longest_command(body)) + SENT[1] * len(body)
    assert len(story.watch.events) <= REPORTED[0] * facts + REPORTED[1] * len(body)
    if script.sampled(data, 4):
        other = Story(kind, cut, folding=False)
        other.play(body)
        assert other.transcript() == told, "told again, cut into pieces, it is another story"
    if script.sampled(data, 4096):
        _check_cost(body, kind)


def _longest_command(body: bytes) -> int:
    return max((len(data) for letter, _, data in script.records(body, LETTERS) if letter == "p"), default=0)


def _check_cost(body: bytes, kind: Kind) -> None:
    longer = script.repeated(body, 4000)
    story = Story(kind, folding=False)
    called = cost.calls(lambda: story.play(longer))
    bound = CALLS[0] + CALLS[1] * story.watch.facts + CALLS[2] * len(longer)
    assert called <= bound, f"{called} calls for {len(longer)} bytes and {story.watch.facts} facts"
    peak, _ = cost.kept(lambda: Story(kind, folding=False).play(longer))
    bound = KEPT[0] + KEPT[1] * story.watch.facts + KEPT[2] * len(longer)
    assert peak <= bound, f"{peak} bytes of memory for {len(longer)}"


def _unmasked(data: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
    """The upgrade request of a client, and its frames."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return head + end, frames_of(rest)
