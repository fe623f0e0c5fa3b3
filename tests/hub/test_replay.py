"""The recorded clients play their part again, against our hub, which must answer as the recorded server did.

What the clients sent goes in at the recorded times, several clients of one scenario together. What came back
then must come back now, message for message, with phx_refs numbered by appearance. These differences are
meant:

- The recorded room answers `ping`, `slow`, `list`, … in ways of its own. Our hub relays them and says ok.
  Those replies are left out on both sides, and so is what was relayed.
- The recorded room stops, crashes or disconnects when a client asks it to. Here the hub's user does it, see
  `ORDERS`.
- Joins and leaves sent back to back overtake each other in Phoenix, and here they do not. The overtaken ones
  are not sent. Three clients that join in the same millisecond see each other in the state or in diffs, as it
  happens: only what they hold in the end is compared.
- A duplicate join is one diff with both sides here, not a leave and a join. Such a diff is taken apart, and
  the half that the new life of the channel need not know is left out.
- The recorded topics exist only as `room:…`, ours with any name. So the reply `unmatched topic` to a join is
  our `authorize` rule's, and has the join_ref.
- A close frame of ours may have a reason in words. The client's own close is echoed with the client's code.
- Not replayed: `n_…` and `i_server_kill`, refusals by rules of the recorded server (`l_refused…`), and two
  sessions that began with a ghost of the session before (`l_json_not_array`, `l_wsping`).

The recorded bytes go in, too: in the recorded chunks, in one, and byte by byte, all with the same outcome.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import define, field, frozen

import golden_files
from golden_files import Line
from hub_client import Client, World, known_refs
from presence_proto.endpoint import ConnId, SendData
from presence_proto.errors import RemoteProtocolError
from presence_proto.hub import Hub
from presence_proto.hub.config import HubConfig
from presence_proto.presence import PresenceMap
from presence_proto.serializer import serializer_for
from presence_proto.websocket import BinaryMessage, TextMessage

OWN_EVENTS = {"ping", "ping_err", "slow", "push_me", "pushed", "shout", "list", "state"}
ORDERS = {"stop", "crash", "exit", "unknown_event", "disconnect"}


def room_rule(topic: str, params: Any) -> tuple[str, dict[str, Any]] | None:
    """The presence rule of the recorded room."""
    if topic == "room:boom":
        raise RuntimeError
    if "user_id" not in params or params.get("track") is False:
        return None
    return params["user_id"], {name: params[name] for name in params if name not in ("user_id", "reply")}


def recorded_objections(topic: str, token: str | None) -> str | None:
    if topic == "realtime:private-only":
        return "Unauthorized: You do not have permissions to read from this Channel topic: private-only"
    if token == "expired":
        return "Token has expired 1 seconds ago"
    return {"room:private": "unauthorized", "nosuch:topic": "unmatched topic"}.get(topic)


@frozen
class Scenario:
    """Recordings that were made together, the first of them longest."""

    files: tuple[str, ...]
    overtaken: tuple[str, ...] = ()  # refs of messages that are not sent again
    until: float = 1e9  # seconds
    max_message_size: int = 1024 * 1024


def _family(prefix: str) -> tuple[str, ...]:
    names = (
        "observer",
        "alice",
        "alice_tablet",
        "bob",
        "carol",
        "dave",
        "erin",
        "burst0",
        "burst1",
        "burst2",
    )
    return tuple(f"{prefix}_{name}" for name in names)


SCENARIOS = {
    "a": Scenario(_family("a_v2")),
    "b": Scenario(_family("b_v1")),
    "d1": Scenario(("d_crash_observer_v1", "d_crash_v1")),
    "d2": Scenario(("d_crash_observer_v2", "d_crash_v2")),
    # The recorded room crashes on a binary shout with a V1 peer in it.
    "g": Scenario(("g_binary_a", "g_binary_b", "g_binary_v1peer"), until=1.0),
    "h1": Scenario(("h_supabase_v1_a", "h_supabase_v1_b")),
    "h2": Scenario(("h_supabase_v2_a", "h_supabase_v2_b")),
    "k1": Scenario(("k_dupjoin_observer_v1", "k_dupjoin_v1"), overtaken=("8", "10")),
    "k2": Scenario(("k_dupjoin_observer_v2", "k_dupjoin_v2"), overtaken=("8", "10")),
    "l_toobig": Scenario(("l_toobig",), max_message_size=4096),
    # It ends with a heartbeat without a ref, at which Phoenix closes the connection, and we do not.
    "q_nojoinref_v1": Scenario(("q_nojoinref_v1",), until=2.0),
}
SCENARIOS |= {
    name: Scenario((name,))
    for name in golden_files.names()
    if name.startswith(("c_", "e_", "f_", "i_server_term", "j_", "l_", "q_"))
    and not name.startswith(("l_refused", "l_vsn", "l_json_not_array", "l_wsping", "l_clientclose"))
    and name not in SCENARIOS
}


def test_what_is_not_replayed_is_known() -> None:
    replayed = {name for scenario in SCENARIOS.values() for name in scenario.files}
    left = {name for name in golden_files.names() if not name.startswith(golden_files.SUPABASE)} - replayed
    assert {name.split("_")[0] for name in left} == {"h", "i", "l", "n"}
    assert {name for name in left if name[0] in "hil"} == {
        "h_supabase_no_apikey",  # in test_handshake, and so are the l_vsn
        "i_server_kill",
        "l_clientclose4001",
        "l_json_not_array",
        "l_refused403",
        "l_refused_reason",
        "l_vsn_1.9.0",
        "l_vsn_2.1.0",
        "l_vsn_3.0.0",
        "l_vsn_abc",
        "l_vsn_empty",
        "l_wsping",
    }


@define
class Part:
    """One recorded client."""

    name: str
    lines: list[Line]
    vsn: str
    start: float = 0.0  # on the clock of the first
    client: Client | None = None
    own_refs: set[Any] = field(factory=set)  # of messages that the recorded room answers in its own way

    @classmethod
    def read(cls, name: str) -> Part:
        lines = golden_files.msgs(name)
        assert isinstance(lines[0].data, str)
        return cls(name, lines, "1.0.0" if "vsn=1.0.0" in lines[0].data else "2.0.0")

    def decoded(self, line: Line, *, server: bool) -> list[Any]:
        frame = BinaryMessage(line.data) if isinstance(line.data, bytes) else TextMessage(line.data)
        message = serializer_for(self.vsn, server=server).decode(frame)
        return [message.join_ref, message.ref, message.topic, message.event, message.payload]

    def incoming(self, until: float) -> list[tuple[float, list[Any]]]:
        return [
            (line.t + self.start, self.decoded(line, server=False))
            for line in self.lines
            if line.dir == "in" and line.kind in ("text", "binary") and line.t + self.start < until
        ]

    def align(self, first: Part) -> None:
        """Find out when this client started: by the first message that both were sent."""
        theirs = [(t, message) for t, message in first.incoming(1e9) if message[:2] == [None, None]]
        for t, message in self.incoming(1e9):
            for their_t, their_message in theirs:
                if message[:2] == [None, None] and message == their_message and "state" not in message[3]:
                    self.start = their_t - t
                    return
        assert self is first


def play(scenario: Scenario) -> tuple[World, list[Part]]:
    """Do again what the clients did."""
    supabase = scenario.files[0].startswith("h_")
    config = HubConfig(
        presence_rule=room_rule,
        authorize=recorded_objections,
        api_keys={"x"} if supabase else None,
        presence_limit=5 if supabase else None,
        deflate=True,
        presence_window=0,
        max_message_size=scenario.max_message_size,
    )
    world = World(config)
    parts = [Part.read(name) for name in scenario.files]
    for part in parts:
        part.align(parts[0])
    timeline = sorted(
        ((line.t + part.start, number, line) for number, part in enumerate(parts) for line in part.lines),
        key=lambda entry: entry[:2],
    )
    began = world.now - timeline[0][0]
    for t, number, line in timeline:
        if t >= scenario.until:
            break
        world.advance(max(0.0, began + t - world.now))
        if line.dir == "out" or line.kind == "note":
            act(world, parts[number], line, scenario.overtaken)
    return world, parts


def act(world: World, part: Part, line: Line, overtaken: tuple[str, ...]) -> None:
    """One recorded line of a client."""
    if line.kind == "connect":
        assert isinstance(line.data, str)
        part.client = world.connect(
            "/" + line.data.split("/", 3)[3], deflate=part.name.startswith("j_deflate_v2")
        )
        return
    client = part.client
    assert client is not None
    if line.kind == "close":
        client.close(line.code or 1000)
    elif line.kind == "kill":
        client.drop()
    elif line.kind == "note":
        if line.data == "SIGTERM sent to the server":
            world.hub.shutdown(now=world.now)
            world.settle()
    elif not own(world, part, line, overtaken):
        client.binary(line.data) if isinstance(line.data, bytes) else client.text(line.data)


def own(world: World, part: Part, line: Line, overtaken: tuple[str, ...]) -> bool:
    """Whether a message is not to be sent: it was an order to the recorded room, or was overtaken."""
    client = part.client
    assert client is not None
    try:
        _, ref, topic, event, payload = part.decoded(line, server=True)
    except RemoteProtocolError:
        return False
    if event in OWN_EVENTS | ORDERS:
        part.own_refs.add(ref)
    if event == "disconnect":
        world.hub.disconnect(client.conn, now=world.now)
    elif event == "stop" and payload.get("how") != "other":
        world.hub.close_channel(topic, now=world.now, conn=client.conn)
    elif event in ORDERS:
        world.hub.crash_channel(topic, now=world.now, conn=client.conn)
    world.settle()
    return event in ORDERS | {"slow"} or ref in overtaken


def comparable(part: Part, messages: list[list[Any]], overtaken: tuple[str, ...]) -> list[Any]:
    """Messages without what is different on purpose."""
    kept: list[Any] = []
    present: dict[str, set[str]] = {}  # refs by topic
    asked_for_state = "a_v2_observer" in part.name or "b_v1_observer" in part.name
    for join_ref, ref, topic, event, payload in messages:
        if event == "phx_reply":
            unmatched = payload["response"] == {"reason": "unmatched topic"}
            if (ref in part.own_refs and not unmatched) or ref in overtaken:
                continue
            if topic == "nosuch:topic":
                join_ref = None
            if topic == "room:ok":
                payload = {"response": {}, "status": payload["status"]}
            if payload["response"].get("postgres_changes"):
                payload["response"]["postgres_changes"][0]["id"] = 0
        if event in OWN_EVENTS or (event == "phx_close" and ref in overtaken) or topic == "room:slowjoin":
            continue
        if event == "presence_state":
            if asked_for_state and topic in present:
                continue  # the recorded room can be asked for it
            present[topic] = refs(payload)
        if event != "presence_diff":
            kept.append([join_ref, ref, topic, event, payload])
            continue
        for half in halves(payload):
            known = present.setdefault(topic, set())
            gone = refs(half["leaves"])
            if half["joins"] or (gone & known and "k_dupjoin_v" not in part.name):
                kept.append([join_ref, ref, topic, event, half])
            known |= refs(half["joins"])
            known -= gone
    return kept


def refs(entries: dict[str, Any]) -> set[str]:
    return {meta["phx_ref"] for entry in entries.values() for meta in entry["metas"]}


def halves(diff: dict[str, Any]) -> list[dict[str, Any]]:
    """A diff, taken apart unless it is an update."""
    metas = [meta for entry in diff["joins"].values() for meta in entry["metas"]]
    if not (metas and diff["leaves"]) or refs(diff["leaves"]) == {meta.get("phx_ref_prev") for meta in metas}:
        return [diff]
    return [{"joins": {}, "leaves": diff["leaves"]}, {"joins": diff["joins"], "leaves": {}}]


def held(messages: list[list[Any]]) -> dict[str, int]:
    """How many metas of whom are there in the end."""
    presence = PresenceMap()
    for _, _, _, event, payload in messages:
        if event == "presence_state":
            presence.apply_state(payload)
        elif event == "presence_diff":
            presence.apply_diff(payload)
    return {key: len(metas) for key, metas in presence.items()}


@define
class Outcome:
    """All that came of some bytes from one client."""

    sent: bytes = b""
    others: list[Any] = field(factory=list)

    @classmethod
    def of(cls, chunks: list[bytes]) -> Outcome:
        hub, outcome = Hub(HubConfig(deflate=True, max_message_size=4096)), cls()
        hub.transport_opened(ConnId(1), now=0)
        for chunk in chunks:
            hub.receive_data(ConnId(1), chunk, now=1)
            while hub.has_backlog:
                hub.tick(now=1)
        hub.transport_closed(ConnId(1), now=2)
        for output in hub.drain():
            if isinstance(output, SendData):
                outcome.sent += output.data
            else:
                outcome.others.append(output)
        return outcome


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_the_hub_answers_as_recorded(name: str) -> None:
    scenario = SCENARIOS[name]
    _, parts = play(scenario)
    for part in parts:
        assert part.client is not None
        recorded = [message for _, message in part.incoming(scenario.until)]
        ours = part.client.take()
        if "burst" in part.name:
            assert held(ours) == held(recorded)
        else:
            expected = known_refs(comparable(part, recorded, scenario.overtaken))
            assert known_refs(comparable(part, ours, scenario.overtaken)) == expected
            assert expected
        for line in part.lines:
            if line.kind == "close" and line.dir == "in" and line.clean and line.t < scenario.until:
                assert part.client.closed is not None
                assert part.client.closed.code == line.code
            if line.kind == "http":
                assert part.client.opened is not None
                assert part.client.opened.deflate == ("permessage-deflate" in json.dumps(line.headers))


@pytest.mark.parametrize("name", golden_files.names(golden_files.RAW))
def test_recorded_bytes_in_any_chunks(name: str) -> None:
    lines = [line for line in golden_files.raw(name) if line.dir == "out" and line.kind == "bytes"]
    recorded = [line.data for line in lines]
    outcome = Outcome.of(recorded)
    assert outcome.sent.startswith(b"HTTP/1.1 ")
    assert Outcome.of([b"".join(recorded)]) == outcome
    assert Outcome.of([bytes((byte,)) for data in recorded for byte in data]) == outcome
