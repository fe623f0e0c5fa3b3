"""The recorded clients of Supabase Realtime play their part again, and our hub must answer as Supabase did.

Every recording in `golden/supabase/` is played. What the clients sent goes in at the recorded times, the
recordings of one room (`s_x_v2_a`, `s_x_v2_b`) together. What came back then must come back now, message for
message and, to a second, when it came. The hub is set up as the recorded server was, by what the recordings
show of it: the keys that it knew, the time of day, what its database allowed on private channels.

`DIFFERENCES` is the list of everything that is not the same, by kind, each with its reason. A recording that
differs in anything else fails.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from attrs import define, evolve, field

import golden_files
from golden_expectations import decoded, vsn_of
from golden_files import Line
from hub_client import Client, World, known_refs
from presence_proto.errors import RemoteProtocolError
from presence_proto.hub.config import HubConfig
from presence_proto.serializer import Message

DIFFERENCES = {
    "late close": (
        "Supabase answers what came before the client's close frame, and our hub stops at once. The close "
        "is sent after the last recorded message. Supabase may lose what it says last"
    ),
    "subscription": (
        "there is no database: `system` messages of `postgres_changes` are always confirmations. They are "
        "left out"
    ),
    "ids of changes": "the id of a `postgres_changes` entry is another hash",
    "made-up key": (
        "a presence key that the server makes up is a UUID of version 4, in Supabase of version 1"
    ),
    "clock": (
        "the recordings tell the time of day to a second, so `expired N seconds ago` may be off by one"
    ),
    "token expiry": "the hub has no clock for tokens. At the time of `exp` its user closes the channel",
    "words of a wrong key": (
        "the hub compares API keys and does not read them as JWTs: `API key is invalid`"
    ),
    "tenant": "a hub has one tenant, under any host name",
    "path": (
        "the recorded server has `/socket/websocket`, which is `/realtime/v1/websocket` at Supabase's "
        "gateway and here. The hub serves any path that ends like this"
    ),
    "SIGKILL": "nothing after it is compared",
    "idle": "Cowboy's idle timeout of 60 s takes up to 66 s, the hub's 60 s",
    "another room": (
        "a Phoenix application with rules of its own (`p_…`): only handshake and joins are compared"
    ),
}

FOREIGN_SECRETS = (b"x" * 32,)
"""What signed the recorded tokens with a wrong signature. The server's own secret is not recorded."""

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TOLERANCE = 1.0  # seconds

NAMES = [name for name in golden_files.names() if name.startswith(golden_files.SUPABASE)]


def scenario_of(name: str) -> str:
    """`s_x_v2_a` and `s_x_v2_b` were recorded together, in the scenario `s_x_v2`."""
    match = re.fullmatch(r"(.+_v[12])_\w+", name)
    return name if match is None else match[1]


SCENARIOS = {
    scenario: [name for name in NAMES if scenario_of(name) == scenario]
    for scenario in sorted({scenario_of(name) for name in NAMES})
}


# ------------------------------------------------------------------------------------------ the recordings


@define
class Part:
    """One recorded client, and the one that plays it."""

    name: str
    lines: list[Line]
    vsn: str | None
    start: float = 0.0  # seconds, on the clock of the scenario
    client: Client | None = None
    heard: list[tuple[float, list[Any]]] = field(factory=list)
    answered: float | None = None  # when its handshake was
    ended: float | None = None  # when the hub closed the connection
    expiries: dict[str, float] = field(factory=dict)  # of the tokens of its channels, by topic

    @classmethod
    def read(cls, name: str) -> Part:
        return cls(name, golden_files.msgs(name), vsn_of(name))

    @property
    def recorded(self) -> list[tuple[float, list[Any]]]:
        """What the server sent, with its time."""
        return [
            (line.t + self.start, as_list(decoded(line, self.vsn)))
            for line in self.lines
            if line.dir == "in" and line.kind in ("text", "binary")
        ]

    @property
    def is_of_another_room(self) -> bool:
        return self.name.startswith(golden_files.SUPABASE + "p_")

    @property
    def is_closed_late(self) -> bool:
        """Whether the server still sent something when the client had sent its close frame."""
        closes = [line.t + self.start for line in self.lines if line.kind == "close" and line.dir == "out"]
        return bool(closes and self.recorded) and self.recorded[-1][0] > closes[0]

    @property
    def http(self) -> Line:
        return next(line for line in self.lines if line.kind == "http")

    @property
    def url(self) -> Any:
        return urlsplit(next(str(line.data) for line in self.lines if line.kind == "connect"))

    @property
    def headers(self) -> dict[str, str]:
        """Of the upgrade request, when its bytes were recorded."""
        if not golden_files.path_of(self.name, golden_files.RAW).exists():
            return {}
        head = golden_files.raw(self.name)[0].data.partition(b"\r\n\r\n")[0].decode("latin-1")
        pairs = (line.partition(":") for line in head.split("\r\n")[1:])
        return {name.lower(): value.strip() for name, _, value in pairs}

    @property
    def key(self) -> str | None:
        return self.headers.get("x-api-key") or parse_qs(self.url.query).get("apikey", [None])[0]

    @property
    def epoch(self) -> float:
        """The time of day when the recording began, in seconds of the epoch, to a second."""
        date = dict(self.http.headers).get("date")
        if date is None:
            date = next(
                match[1].decode()
                for line in golden_files.raw(self.name)
                if (match := re.search(rb"(?i)\r\ndate: ([^\r]*)", line.data))
            )
        return parsedate_to_datetime(date).timestamp() - self.http.t

    def said(self) -> list[tuple[Line, Message]]:
        """What the client sent that can be read."""
        found = []
        for line in self.lines:
            if line.dir == "out" and line.kind in ("text", "binary"):
                try:
                    found.append((line, decoded(line, self.vsn)))
                except RemoteProtocolError:
                    pass  # malformed on purpose
        return found

    def align(self, first: Part) -> None:
        """Find out when this client started: both were sent the same, or lost the server in one moment."""
        if self is first:
            return
        for t, message in self.recorded:
            for their_t, theirs in first.recorded:
                if message == theirs and message[3] in ("presence_diff", "broadcast"):
                    self.start = their_t - t
                    return
        ends = [next((line.t for line in part.lines if line.code == 1006), None) for part in (first, self)]
        if ends[0] is None or ends[1] is None:
            pytest.fail(
                f"{self.name} shares no presence_diff, broadcast or end of the server with {first.name}, so "
                "it is not known when it started. Name it otherwise if the two were not recorded together"
            )
        self.start = ends[0] - ends[1]


def as_list(message: Message) -> list[Any]:
    return [message.join_ref, message.ref, message.topic, message.event, message.payload]


# ------------------------------------------------------------------------------------------ rules


def claims_of(token: str) -> dict[str, Any] | None:
    """The claims of a JWT, or `None` when it is not one."""
    parts = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "==")) if len(parts) == 3 else None
    except ValueError:
        return None
    return claims if isinstance(claims, dict) else None


def is_foreign(token: str) -> bool:
    """Whether the signature is by another secret than the server's."""
    signed, _, signature = token.rpartition(".")
    made = [hmac.new(secret, signed.encode(), hashlib.sha256).digest() for secret in FOREIGN_SECRETS]
    return signature.encode() in [base64.urlsafe_b64encode(digest).rstrip(b"=") for digest in made]


def objection_to(token: str | None, now: float, *, joining: bool) -> str | None:
    """What Supabase says of a token: `authorize_conn` and its callers."""
    if token is None:
        return None  # the API key is the token, and was checked
    claims = claims_of(token)
    if claims is None:
        return "MalformedJWT: The token provided is not a valid JWT"
    if is_foreign(token):
        return "JwtSignatureError: Failed to validate JWT signature" if joining else ":signature_error"
    if "role" not in claims or "exp" not in claims:
        return "InvalidJWTToken: Fields `role` and `exp` are required in JWT"
    if claims["exp"] <= now:
        return f"InvalidJWTToken: Token has expired {int(now - claims['exp'])} seconds ago"
    return None


def is_private(payload: Any) -> bool:
    config = payload.get("config") if isinstance(payload, dict) else None
    return isinstance(config, dict) and str(config.get("private")).lower() == "true"


def accesses(parts: list[Part]) -> dict[str, Any]:
    """What the policies of the recorded database allowed on the private channels, as the answers show it."""
    found: dict[str, Any] = {}
    for part in parts:
        answers = {
            (message[2], message[1]): message[4] for _, message in part.recorded if message[3] == "phx_reply"
        }
        for _, message in part.said():
            answer = answers.get((message.topic, message.ref), {"status": None, "response": None})
            if message.event == "phx_join" and is_private(message.payload):
                if "do not have permissions" in str(answer["response"]):
                    found.setdefault(message.topic, None)
                else:
                    found[message.topic] = "write"
            elif (
                found.get(message.topic) == "write"
                and message.event == "presence"
                and isinstance(message.payload, dict)
                and str(message.payload.get("event")).lower() == "track"
                and answer == {"status": "error", "response": {}}
            ):
                found[message.topic] = "read"
    return found


# ------------------------------------------------------------------------------------------ playing


class Play:
    """A scenario, played against a hub. `met` are the kinds of differences that it has."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.met: set[str] = set()
        self.stopped_at = 1e9  # when the recorded server was killed
        self.joining = False  # whether the message under way is a join
        for part in parts:
            part.align(parts[0])
        self.world = World(self.config())
        self.timeline = sorted(
            (
                (self.due(part, line), number, line)
                for number, part in enumerate(parts)
                for line in part.lines
            ),
            key=lambda entry: entry[:2],
        )
        self.began = self.world.now - self.timeline[0][0]

    def run(self) -> None:
        for t, number, line in self.timeline:
            self.advance(t)
            if t < self.stopped_at and line.dir != "in":
                self.act(self.parts[number], line)
                self.collect()

    def due(self, part: Part, line: Line) -> float:
        """When to play a line: when it was recorded, but for a close that was answered late."""
        t = line.t + part.start
        if line.kind == "close" and line.dir == "out" and part.is_closed_late:
            self.met.add("late close")
            return part.recorded[-1][0] + TOLERANCE
        return t

    def config(self) -> HubConfig:
        played = [part for part in map(Part.read, NAMES) if part.http.status == 101]
        allowed = accesses(self.parts)
        epoch = self.parts[0].epoch

        def authorize(topic: str, token: str | None) -> str | None:
            return objection_to(token, epoch + self.now, joining=self.joining)

        return HubConfig(
            protocol="phoenix",
            api_keys={part.key for part in played if part.key},
            authorize=None if self.parts[0].is_of_another_room else authorize,
            private_rule=lambda topic, token: allowed.get(topic, "write"),
            presence_rule=lambda topic, params: None,
            presence_limit=5,
            refusal_delay=5.0,
            handshake_refusal_delay=2.0,
            shutdown_like="supabase",
            presence_window=0,
            max_message_size=5_000_000,
            deflate=True,
        )

    @property
    def now(self) -> float:
        """Seconds on the clock of the scenario."""
        return self.world.now - self.began

    def advance(self, t: float) -> None:
        """Let the time come, and what is due until then."""
        while True:
            expiries = [
                (expiry - self.parts[0].epoch, part, topic)
                for part in self.parts
                for topic, expiry in part.expiries.items()
            ]
            moment, part, topic = min(expiries, key=lambda entry: entry[0], default=(1e9, None, ""))
            deadline = self.world.hub.next_deadline()
            due = min(t, moment, 1e9 if deadline is None else deadline - self.began)
            self.world.advance(max(0.0, due - self.now))
            if part is not None and moment <= due and part.client is not None:
                del part.expiries[topic]
                reason = "Token has expired 0 seconds ago"
                self.met.add("token expiry")
                self.world.hub.close_channel(topic, reason=reason, conn=part.client.conn, now=self.world.now)
                self.world.settle()
            self.collect()
            if due >= t:
                return

    def collect(self) -> None:
        for part in self.parts:
            if part.client is None:
                continue
            part.heard += [(self.now, message) for message in part.client.take()]
            if part.answered is None and (part.client.opened or part.client.refused):
                part.answered = self.now
            if part.ended is None and part.client.closed:
                part.ended = self.now

    def act(self, part: Part, line: Line) -> None:
        """One recorded line of a client, or what the scenario did."""
        if line.kind == "connect":
            part.client = self.connect(part)
        elif line.kind == "note":
            self.note(part, line)
        elif part.client is None or part.client.opened is None:
            raise AssertionError(
                f"{part.name}, line {line.number}: the hub refused the client, the server did not"
            )
        elif line.kind == "close":
            part.client.close(line.code or 1000)
        else:
            self.send(part, line)

    def connect(self, part: Part) -> Client:
        path, query = part.url.path, part.url.query
        if path == "/socket/websocket" and not part.is_of_another_room:
            path = "/realtime/v1/websocket"
            self.met.add("path")
        headers = [("x-api-key", part.headers["x-api-key"])] if "x-api-key" in part.headers else []
        return self.world.connect(
            f"{path}?{query}",
            headers=headers,
            subprotocols=golden_files.subprotocols(part.name),
            deflate="sec-websocket-extensions" in part.headers,
        )

    def note(self, part: Part, line: Line) -> None:
        if line.data == "SIGKILL":
            self.met.add("SIGKILL")
            self.stopped_at = self.now
        elif line.data == "SIGTERM":
            self.world.hub.shutdown(now=self.world.now)
            self.world.settle()
        elif line.data == "POST /api/broadcast":
            self.post(part, line)

    def post(self, part: Part, line: Line) -> None:
        """The request is not in the recording: what came of it is."""
        message = next(
            message for t, message in part.recorded if t > line.t + part.start and message[3] == "broadcast"
        )
        self.world.hub.broadcast(message[2], message[4]["event"], message[4]["payload"], now=self.world.now)
        self.world.settle()

    def send(self, part: Part, line: Line) -> None:
        assert part.client is not None
        self.joining = False
        try:
            message = decoded(line, part.vsn)
        except RemoteProtocolError:
            message = None
        if message is not None:
            self.joining = message.event == "phx_join"
            self.learn_expiry(part, message)
        part.client.binary(line.data) if isinstance(line.data, bytes) else part.client.text(line.data)

    def learn_expiry(self, part: Part, message: Message) -> None:
        if message.event in ("phx_join", "access_token") and isinstance(message.payload, dict):
            token = message.payload.get("access_token")
            claims = claims_of(token) if isinstance(token, str) else None
            good = (
                isinstance(token, str)
                and objection_to(token, self.parts[0].epoch + self.now, joining=True) is None
            )
            if claims is not None and good:
                part.expiries[message.topic] = claims["exp"]
        elif message.event == "phx_leave":
            part.expiries.pop(message.topic, None)


# ------------------------------------------------------------------------------------------ comparing


def comparable(play: Play, messages: list[tuple[float, list[Any]]]) -> dict[tuple[str, str], list[Any]]:
    """Messages by topic and stream, without what is in `DIFFERENCES`.

    The protocol leaves it open whether the reply to a push comes before or after the diff or the broadcast
    that the push caused. So these are streams of their own.
    """
    streams: dict[tuple[str, str], list[Any]] = {}
    for t, (join_ref, ref, topic, event, payload) in messages:
        if t > play.stopped_at + TOLERANCE:
            continue
        if event == "system" and payload["extension"] == "postgres_changes":
            play.met.add("subscription")
            continue
        said = t, [join_ref, ref, event, reset_backoff(play, payload)]
        if event == "broadcast":
            streams.setdefault((topic, "broadcasts"), []).append(said)
        elif event != "presence_diff":
            # A state has its place among the answers, and its content among the presence messages.
            answer = [*said[1][:3], None] if event == "presence_state" else said[1]
            streams.setdefault((topic, "answers"), []).append((t, answer))
        if event in ("presence_state", "presence_diff"):
            streams.setdefault((topic, "presence"), []).append(said)
    for (_, stream), entries in streams.items():
        if stream == "presence":
            named = known_refs(without_made_up_keys(play, [message for _, message in entries]))
            entries[:] = [(t, message) for (t, _), message in zip(entries, named, strict=True)]
    return streams


def reset_backoff(play: Play, payload: Any) -> Any:
    """A payload without the ids of changes, and without what depends on the clock."""
    text = json.dumps(payload) if isinstance(payload, dict) else ""
    if "seconds ago" in text:
        play.met.add("clock")
        payload = json.loads(re.sub(r"\d+ seconds ago", "N seconds ago", text))
    if isinstance(payload, dict) and isinstance(payload.get("response"), dict):
        changes = payload["response"].get("postgres_changes")
        if changes:
            play.met.add("ids of changes")
            changes = [{**change, "id": 0} for change in changes]
            payload = {**payload, "response": {**payload["response"], "postgres_changes": changes}}
    return payload


def without_made_up_keys(play: Play, messages: list[Any]) -> list[Any]:
    names: dict[str, str] = {}

    def renamed(entries: dict[str, Any]) -> dict[str, Any]:
        for key in entries:
            if UUID.fullmatch(key):
                play.met.add("made-up key")
                names.setdefault(key, f"made-up key {len(names) + 1}")
        return {names.get(key, key): entry for key, entry in entries.items()}

    return [
        [
            *head,
            {side: renamed(entries) for side, entries in payload.items()}
            if head[-1] == "presence_diff"
            else renamed(payload),
        ]
        for *head, payload in messages
    ]


def compare_handshake(play: Play, part: Part) -> None:
    client, http = part.client, part.http
    assert client is not None
    body = b"".join(line.data for line in golden_files.raw(part.name) if line.dir == "in").partition(
        b"\r\n\r\n"
    )[2]
    if http.status == 101:
        assert client.opened is not None, f"{part.name}: refused, {client.refused}"
        assert client.opened.deflate == ("permessage-deflate" in json.dumps(http.headers))
        chosen = dict(http.headers).get("sec-websocket-protocol")
        assert client.opened.subprotocol == (chosen or client.opened.subprotocol)
        return
    if b"Tenant not found" in body:
        play.met.add("tenant")
        return
    if part.url.path != "/socket/websocket":
        play.met.add("path")
        return
    assert client.refused is not None, (
        f"{part.name}: the server refused with {http.status} {body!r}, the hub did not"
    )
    assert client.refused.status == http.status
    assert part.answered is not None
    assert abs(part.answered - http.t - part.start) < TOLERANCE
    if http.status == 401 and part.key:
        play.met.add("words of a wrong key")
    else:
        assert client.refused.body == body


def compare_messages(play: Play, part: Part) -> None:
    recorded, ours = comparable(play, part.recorded), comparable(play, part.heard)
    for stream in sorted({*recorded, *ours}):
        theirs, mine = recorded.get(stream, []), ours.get(stream, [])
        where = f"{part.name}, {stream[1]} of {stream[0]}"
        if part.is_closed_late:
            mine = mine[: len(theirs)]
        assert [message for _, message in mine] == [message for _, message in theirs], where
        for (our_t, _), (t, message) in zip(mine, theirs, strict=True):
            assert abs(our_t - t) < TOLERANCE, f"{where}: {message} came at {our_t:.3f}, and then at {t:.3f}"


def compare_end(play: Play, part: Part) -> None:
    assert part.client is not None
    for line in part.lines:
        if line.kind == "close" and line.dir == "in" and line.t + part.start < play.stopped_at:
            assert part.client.closed is not None, f"{part.name}: the hub did not close the connection"
            assert part.client.closed.code == line.code, part.name
            if line.sent is None and line.code == 1000:
                play.met.add("idle")
            else:
                assert part.ended is not None
                assert abs(part.ended - line.t - part.start) < TOLERANCE, part.name


def compare_joins(play: Play, part: Part) -> None:
    """Of a room that answers in ways of its own."""
    play.met.add("another room")
    joins = {message.ref for _, message in part.said() if message.event == "phx_join"}
    answers: list[Any] = [
        [
            [*message[:4], message[4]["status"]]
            for _, message in messages
            if message[1] in joins and message[3] == "phx_reply"
        ]
        for messages in (part.recorded, part.heard)
    ]
    assert answers[0] == answers[1], part.name


@cache
def play(scenario: str) -> Play:
    """Play a scenario, and compare."""
    played = Play([Part.read(name) for name in SCENARIOS[scenario]])
    played.run()
    for part in played.parts:
        compare(played, part)
    return played


def compare(played: Play, part: Part) -> None:
    compare_handshake(played, part)
    if part.is_of_another_room:
        compare_joins(played, part)
    elif part.http.status == 101:
        compare_messages(played, part)
        compare_end(played, part)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_hub_answers_as_supabase_did(scenario: str) -> None:
    assert play(scenario).met <= set(DIFFERENCES)


def test_the_list_of_differences_has_nothing_that_does_not_occur() -> None:
    assert set().union(*(play(scenario).met for scenario in SCENARIOS)) == set(DIFFERENCES)


# ------------------------------------------------------------------------------------------ what fails


def changed(name: str, old: str, new: str) -> Play:
    """The scenario of a recording alone, with `old` in what the server sent replaced. `old` must be there."""
    part = Part.read(name)
    lines = [
        evolve(line, data=line.data.replace(old, new))
        if line.dir == "in" and isinstance(line.data, str)
        else line
        for line in part.lines
    ]
    assert lines != part.lines
    played = Play([evolve(part, lines=lines)])
    played.run()
    compare(played, played.parts[0])
    return played


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("s_tokens_v2", "is not a valid JWT", "is no JWT"),
        ("s_tokens_v2", '"phx_close"', '"phx_error"'),
        ("s_dupjoin_v2", '"x":4', '"x":5'),
        ("s_dupjoin_v2", '["6","8"', '["1","8"'),
        ("s_dupjoin_v2", '"phx_ref_prev":"GOzk5toKk7pJMRpR",', ""),
        ("s_nokey_v2", "8086b1ce-ece8-11f1-a3a6-eadaf95c523b", "8086b1ce"),
        ("s_heartbeat_v1", '"ref":null', '"ref":"7"'),
        ("s_replication_ready_v2", "established", "lost"),
        ("s_idle_v2", '"presence_state"', '"system"'),
    ],
)
def test_a_recording_that_differs_fails(name: str, old: str, new: str) -> None:
    with pytest.raises((AssertionError, KeyError), match=name if '"system"' not in new else "extension"):
        changed(golden_files.SUPABASE + name, old, new)


def test_a_recording_at_another_time_fails() -> None:
    part = Part.read("supabase/s_heartbeat_v2")
    lines = [evolve(line, t=line.t + 2 * (line.dir == "in" and line.kind == "text")) for line in part.lines]
    played = Play([evolve(part, lines=lines)])
    played.run()
    with pytest.raises(AssertionError, match=r"came at 0\.\d+, and then at 2"):
        compare(played, played.parts[0])
