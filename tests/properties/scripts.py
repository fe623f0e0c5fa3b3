"""Random stories between a `RealtimeClient` and a server, as data: they can be told again, cut otherwise.

A story begins online, with a channel joined, and goes on with messages that are right, stale or malformed,
with random bytes, losses, delays and commands. `Story.tell` runs its steps on a `Rig`, which checks the laws
of the driver contract after each of them; the story checks what must hold between the client's events.
"""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import strategies as st

from presence_proto.channel import ChannelState
from presence_proto.config import ChannelConfig
from presence_proto.endpoint import ConnId
from presence_proto.errors import LocalProtocolError
from presence_proto.events import SocketDisconnected
from presence_proto.serializer import Message, UserBroadcast
from presence_proto.testing import RealtimeFold
from presence_proto.websocket import State
from rig import Rig, realtime

TOPICS = ("realtime:a", "realtime:b", "room:c")
SETTINGS: dict[str, Any] = {
    "join_timeout": 4.0,
    "state_timeout": 3.0,
    "heartbeat_interval": 9.0,
    "max_channels": 3,
    "max_pending_pushes": 3,
    "max_pending_diffs": 3,
    "max_roster": 4,
    "max_message_size": 4096,
    "jitter": 0.5,
}

Step = tuple[Any, ...]

# ---------------------------------------------------------------------------------------------- steps

_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_entry = st.lists(st.sampled_from("pqrs"), min_size=1, max_size=2, unique=True).map(
    lambda refs: {"metas": [{"phx_ref": ref} for ref in refs]}
)
_entries = st.dictionaries(st.sampled_from(["ann", "bob", "cy", "di", "ed"]), _entry, max_size=3)
_diff = st.fixed_dictionaries({"joins": _entries, "leaves": _entries})
_reply = st.fixed_dictionaries({"status": st.sampled_from(["ok", "error"]), "response": _json})
_names = [
    *("presence_state", "presence_diff", "broadcast", "system"),
    *("phx_reply", "phx_close", "phx_error", "hello"),
]
_user_broadcast = st.builds(UserBroadcast, st.text(max_size=3), _json | st.binary(max_size=4))
_good = st.one_of(
    st.tuples(st.just("presence_state"), _entries),
    st.tuples(st.just("presence_diff"), _diff),
    st.tuples(st.just("presence_diff"), _diff),
    st.tuples(st.just("broadcast"), st.fixed_dictionaries({"event": st.text(max_size=3), "payload": _json})),
    st.tuples(st.just("broadcast"), _user_broadcast),
    st.tuples(st.just("system"), st.fixed_dictionaries({"status": st.sampled_from(["ok", "error"])})),
    st.tuples(st.just("phx_reply"), _reply),
    st.tuples(st.sampled_from(["phx_close", "phx_error"]), st.sampled_from([{}, {"reason": "why"}])),
)
_odd = st.tuples(st.sampled_from(_names), _json | st.binary(max_size=4))
_topics = st.sampled_from([0, 0, 1, 2])
_seconds = st.sampled_from([0.0, 0.3, 1.0, 3.0, 4.0, 9.0, 10.0, 31.0])
_which = st.sampled_from(["current", "none", "old", "bogus"])


def _weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    return st.sampled_from([one for times, one in choices for _ in range(times)]).flatmap(lambda one: one)


def _step(*parts: Any) -> st.SearchStrategy[Any]:
    return st.tuples(*(part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts))


steps: st.SearchStrategy[list[Step]] = st.lists(
    _weighted(
        # the application
        (1, _step("disconnect")),
        (6, _step("join", _topics)),
        (2, _step("leave", _topics)),
        (6, _step("push", _topics, _json, st.sampled_from([None, 0.5, 12.0]))),
        (4, _step("broadcast", _topics, _json)),
        (6, _step("track", _topics, st.integers(0, 3))),
        (2, _step("untrack", _topics)),
        (2, _step("set_access_token", st.sampled_from(["one", "two", None]))),
        # the server
        (12, _step("accept all", st.just({}) | _entries)),
        (3, _step("accept all", None)),
        (6, _step("reply", st.integers(0, 5), st.sampled_from(["ok", "error"]), _json)),
        (16, _step("say", _topics, "current", "none", _good)),
        (4, _step("say", _topics, _which, _which, _good)),
        (4, _step("say", _topics, _which, _which, _odd)),
        (1, _step("text", st.text(max_size=20) | st.just('[null,null,"realtime:a"]'))),
        (1, _step("binary", st.binary(max_size=20))),
        (1, _step("bytes", st.binary(max_size=20))),
        (2, _step("close", st.sampled_from([1000, 1001, 1011, 1012]))),
        (1, _step("ping")),
        (2, _step("hold")),
        (6, _step("release")),
        # the network
        (14, _step("recover", st.just({}) | _entries | st.none())),
        (1, _step("refuse", st.sampled_from([301, 401, 404, 429, 503]))),
        (1, _step("garbage", st.binary(max_size=20))),
        (3, _step("cut")),
        (1, _step("stale", st.sampled_from(["transport_opened", "receive_data", "transport_closed"]))),
        # time
        (8, _step("advance", _seconds)),
        (3, _step("jump", _seconds)),
    ),
    min_size=15,
    max_size=60,
)

_ANN = {"metas": [{"phx_ref": "p"}]}
LONG: list[Step] = [
    *(("join", 0), ("join", 1), ("join", 2), ("accept all", {"ann": _ANN})),
    *(("track", 0, 1), ("track", 1, 2), ("track", 2, 3), ("push", 2, {"b": 1, "a": 2}, None)),
    *(("broadcast", 0, {"x": [1]}), ("set_access_token", "one"), ("reply", 1, "ok", {"z": 1, "y": 2})),
    ("say", 0, "current", "none", ("presence_diff", {"joins": {}, "leaves": {"ann": _ANN}})),
    *(("say", 2, "current", "current", ("phx_error", {})), ("advance", 31.0), ("close", 1012)),
    *(("recover", None), ("advance", 9.0), ("jump", 31.0), ("cut",), ("recover", {}), ("leave", 1)),
    *(("bytes", b"\x81\xff"), ("recover", {}), ("refuse", 503), ("recover", {}), ("disconnect",)),
]
"""One story with something of everything."""

# ---------------------------------------------------------------------------------------------- telling them


class Story:
    """A rig, online and in a channel, and what should be true of its client."""

    def __init__(self, *, vsn: str = "2.0.0", chunk: int | None = None, deflate: bool = False) -> None:
        self.rig: Rig = realtime(vsn=vsn, rng=Random(1), server_deflate=deflate, chunk=chunk, **SETTINGS)
        self.wanted: dict[str, Any] = {}  # topics that were joined and not left, and what is tracked there
        self.token: str | None = None
        self.expected: set[int] = set()  # pushes that are to be answered or failed
        self.fold = RealtimeFold(self.rig.client)
        self.deadlines: list[float | None] = []
        self._answered = 0
        self._events = 0
        self.rig.connect()
        self.step("join", 0)
        self.step("accept all", {})

    def tell(self, story: list[Step]) -> Story:
        for step in story:
            self.step(*step)
        return self

    def step(self, kind: str, *args: Any) -> None:
        name = "_" + kind.replace(" ", "_")
        if hasattr(self, name):
            getattr(self, name)(*args)
        else:
            self._command(kind, *args)
        self._check()

    # ---------------------------------------------------------------- the client

    def _command(self, kind: str, *args: Any) -> Any:
        """Make a command. It is legal, or raises `LocalProtocolError` and changes nothing."""
        rig = self.rig
        before = self._snapshot()
        try:
            return rig.do(getattr(rig.client, kind), *args)
        except LocalProtocolError:
            assert self._snapshot() == before
            raise

    def _snapshot(self) -> Any:
        client, rig = self.rig.client, self.rig
        states = {topic: client.state_of(topic) for topic in client.channels}
        return client.is_closed, client.is_connected, states, client.next_deadline(), len(rig.received)

    def _tried(self, kind: str, *args: Any) -> Any:
        try:
            return self._command(kind, *args)
        except LocalProtocolError:
            return None

    def _connect(self) -> None:
        self._tried("connect")

    def _join(self, topic: int) -> None:
        name = TOPICS[topic]
        self._command("join", name, ChannelConfig(broadcast_ack=True) if topic == 0 else None)
        self.wanted.setdefault(name, None)

    def _leave(self, topic: int) -> None:
        self._tried("leave", TOPICS[topic])
        self.wanted.pop(TOPICS[topic], None)

    def _push(self, topic: int, payload: Any, timeout: float | None) -> None:
        rig = self.rig
        try:
            self.expected.add(rig.do(rig.client.push, TOPICS[topic], "ask", payload, timeout=timeout))
        except LocalProtocolError:
            pass

    def _broadcast(self, topic: int, payload: Any) -> None:
        push_id = self._tried("broadcast", TOPICS[topic], "hi", payload)
        if push_id is not None and topic == 0:
            self.expected.add(push_id)

    def _track(self, topic: int, n: int) -> None:
        if TOPICS[topic] in self.wanted:
            self._command("track", TOPICS[topic], {"n": n})
            self.wanted[TOPICS[topic]] = {"n": n}

    def _untrack(self, topic: int) -> None:
        if TOPICS[topic] in self.wanted:
            self._command("untrack", TOPICS[topic])
            self.wanted[TOPICS[topic]] = None

    def _set_access_token(self, token: str | None) -> None:
        self._command("set_access_token", token)
        self.token = token

    # ---------------------------------------------------------------- the server

    @property
    def _server_is_open(self) -> bool:
        return self.rig.server is not None and self.rig.server.state is State.OPEN

    def _accept_all(self, state: Any) -> None:
        """Answer everything that has no answer yet, as a good server does, which tells its `state`."""
        while self._server_is_open and self._answered < len(self.rig.received):
            message = self.rig.received[self._answered]
            self._answered += 1
            if message.topic != "phoenix" and message.event != "access_token":
                self.rig.reply(message)
            is_join = message.event == "phx_join" and message.topic.startswith("realtime:")
            if is_join and state is not None and self._server_is_open:
                self.rig.say(message.join_ref, None, message.topic, "presence_state", state)

    def _reply(self, back: int, status: str, response: Any) -> None:
        said = self.rig.sent()
        if self._server_is_open and back < len(said):
            self.rig.reply(said[-1 - back], status, response)

    def _say(self, topic: int, join_ref: str, ref: str, said: tuple[str, Any]) -> None:
        event, payload = said
        joins = [message.ref for message in self.rig.sent("phx_join", TOPICS[topic])] or ["1"]
        refs = {"none": None, "bogus": "9999", "current": joins[-1], "old": joins[0]}
        message = Message(refs[join_ref], refs[ref], TOPICS[topic], event, payload)
        if self._server_is_open:
            try:
                self.rig.say(message.join_ref, message.ref, message.topic, event, payload)
            except LocalProtocolError:
                pass  # V1 carries no bytes, a binary frame no ref

    def _text(self, text: str) -> None:
        if self._server_is_open:
            self.rig.say_text(text)

    def _binary(self, data: bytes) -> None:
        if self._server_is_open:
            self.rig.say_binary(data)

    def _bytes(self, data: bytes) -> None:
        self.rig.deliver(data)

    def _close(self, code: int) -> None:
        if self._server_is_open:
            self.rig.close(code)

    def _ping(self) -> None:
        if self._server_is_open:
            assert self.rig.server is not None
            self.rig.server.ping(b"?")
            self.rig.deliver(b"")

    def _hold(self) -> None:
        self.rig.silent = True

    def _release(self) -> None:
        self.rig.release()

    # ---------------------------------------------------------------- the network, and time

    def _open(self) -> None:
        if self.rig.conn is not None and self.rig.server is None:
            self._answered = len(self.rig.received)
            self.rig.open()

    def _refuse(self, status: int) -> None:
        if self.rig.conn is not None and self.rig.server is None:
            self.rig.refuse(status)

    def _garbage(self, data: bytes) -> None:
        if self.rig.conn is not None and self.rig.server is None:
            self.rig.open_transport()
            self.rig.deliver(data)

    def _cut(self) -> None:
        if self.rig.conn is not None:
            self.rig.cut()

    def _stale(self, fact: str) -> None:
        rig = self.rig
        for conn in {ConnId(0), ConnId(len(rig.opens) - 1), ConnId(len(rig.opens) + 1)}:
            deadline = rig.client.next_deadline()
            rig.do(getattr(rig.client, fact), conn, *([b"\x88\x00"] if fact == "receive_data" else []))
            assert rig.client.next_deadline() == deadline

    def _recover(self, state: Any) -> None:
        """Whatever happened, be online again, if the server does not stand in the way."""
        if self.rig.client.is_closed:
            self._connect()
        if self.rig.conn is None:
            self.rig.advance(31.0)
        self._open()
        self._accept_all(state)

    def _advance(self, seconds: float) -> None:
        self.rig.advance(seconds)

    def _jump(self, seconds: float) -> None:
        before = len(self.rig.sent("heartbeat"))
        self.rig.jump(seconds)
        assert len(self.rig.sent("heartbeat")) <= before + 1, "one heartbeat, however late the tick"

    # ---------------------------------------------------------------- what must be true

    def _check(self) -> None:
        client = self.rig.client
        self.deadlines.append(client.next_deadline())
        for event in self.rig.events[self._events :]:
            self.fold.follow(event)
            assert not isinstance(event, SocketDisconnected) or (event.retry_in or 0) <= 30
        self._events = len(self.rig.events)
        self.fold.check()

    def transcript(self) -> Any:
        """All that a driver saw; the bytes decoded, since masks are random."""
        rig = self.rig
        said = [(m.join_ref, m.ref, m.topic, m.event, m.payload) for m in rig.received]
        targets = [request.target for request in rig.requests]
        return rig.events, said, rig.opens, rig.closes, targets, self.deadlines

    # ---------------------------------------------------------------- the happy end

    def calm(self) -> None:
        """From here on the server and the network are good. All that was asked for comes true."""
        rig, client = self.rig, self.rig.client
        self._release()
        if client.is_closed:
            self.step("connect")
        for _ in range(120):
            self.step("open")
            self.step("accept all", {})
            self.step("advance", 1.0)
        assert client.is_connected
        assert set(client.channels) == set(self.wanted)
        for topic, payload in self.wanted.items():
            assert client.state_of(topic) is ChannelState.JOINED
            assert client.is_synced(topic) or topic in self.fold.missing or topic == "room:c"
            join = rig.last("phx_join", topic)
            life = [message for message in rig.sent(topic=topic) if message.join_ref == join.ref]
            tracks = [m for m in life if m.event in ("presence", "track", "untrack")]
            last = tracks[-1].payload.get("payload", tracks[-1].payload) if tracks else None
            assert (last if tracks and "n" in last else None) == payload, "tracked as was wanted last"
            tokens = [m.payload.get("access_token") for m in life if m.event in ("phx_join", "access_token")]
            assert topic == "room:c" or self.token is None or tokens[-1] == self.token
        assert self.expected <= self.fold.outcomes.keys(), "nothing is dropped in silence"
