"""The in-memory pair as a user has it: servers that say what they are told to, clients that are watched."""

from __future__ import annotations

from typing import Any

import pytest

from presence_proto import (
    ChannelConfig,
    CloseTransport,
    Connected,
    ConnId,
    Hub,
    HubConfig,
    Identity,
    LocalProtocolError,
    OpenTransport,
    Poked,
    PresenceClient,
    PresenceConfig,
    RealtimeClient,
    RealtimeConfig,
    SendData,
    SocketConnected,
    SocketDisconnected,
)
from presence_proto.endpoint import MERGED
from presence_proto.testing import (
    Contract,
    ContractError,
    InMemoryPair,
    ModelServer,
    ScriptedJarvisServer,
    ScriptedServer,
)
from presence_proto.testing.scripted_clients import SUPABASE, ScriptedClients, supabase_join
from presence_proto.websocket import BinaryMessage

ANN = {"metas": [{"phx_ref": "1", "mood": "calm"}]}


def phoenix(vsn: Any = "2.0.0", **options: Any) -> ScriptedServer:
    return ScriptedServer(RealtimeClient(RealtimeConfig(server_url="ws://host.test", vsn=vsn)), **options)


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
@pytest.mark.parametrize("options", [{}, {"chunk": 1}, {"deflate": True}])
def test_a_test_as_a_user_writes_it(vsn: str, options: Any) -> None:
    pair = phoenix(vsn, **options)
    pair.connect()
    pair.do(pair.client.join, "realtime:lobby", ChannelConfig(presence_key="me"))
    pair.accept_join(state={"ann": ANN})
    pair.diff(joins={"bob": ANN})
    pair.diff(leaves={"ann": ANN}, topic="realtime:lobby")
    pair.broadcast("hello", {"n": 1})
    kinds = [type(event).__name__ for event in pair.take()]
    synced = ["PresenceSynced", "PresenceDiffed", "PresenceDiffed"]
    assert kinds == ["SocketConnected", "ChannelJoined", *synced, "Broadcast"]
    assert list(pair.client.presence("realtime:lobby")) == ["bob"]
    pair.ping(b"?")
    pair.advance(60.0)
    pair.cut()
    lost, down = pair.take()
    assert lost == SocketDisconnected("eof", 1006, retry_in=1.0)
    assert type(down).__name__ == "ChannelDown"
    assert [message.event for message in pair.sent()] == ["phx_join"]
    assert len(pair.sent("heartbeat")) == 2


def test_a_client_that_closes_the_transport_gets_none_of_the_chunks_after_that() -> None:
    pair = phoenix(chunk=1)
    pair.connect()
    pair.take()
    pair.deliver(b"\xff" * 20)  # a frame with reserved bits, byte by byte
    (lost,) = pair.take()
    assert isinstance(lost, SocketDisconnected)
    assert lost.code == 1002
    assert len(pair.closes) == 1
    assert pair.conn is None


def test_what_cannot_be_done_now_is_refused() -> None:
    pair = phoenix()
    for call in (pair.open, pair.cut, pair.close, lambda: pair.say_text("x"), lambda: pair.refuse(503)):
        with pytest.raises(LocalProtocolError):
            call()
    pair.connect()
    with pytest.raises(LocalProtocolError):
        pair.open_transport()
    pair.close(1001)
    assert not pair.is_open
    assert [type(event) for event in pair.take()] == [SocketConnected, SocketDisconnected]
    assert pair.closes == [CloseTransport(ConnId(1))]


def test_a_server_that_was_silent() -> None:
    pair = phoenix()
    pair.connect()
    pair.silent = True
    pair.do(pair.client.join, "room:a")
    pair.accept_join()
    assert pair.client.state_of("room:a").name == "JOINING"
    pair.release()
    assert pair.client.state_of("room:a").name == "JOINED"
    pair.silent = True
    pair.jump(1000.0)
    pair.advance(60.0)
    assert len(pair.opens) > 1, "it was given up"


def test_a_heartbeat_that_is_not_answered() -> None:
    pair = phoenix()
    pair.answers_heartbeats = False
    pair.connect()
    pair.advance(40.0)
    assert len(pair.opens) == 2


def test_the_pair_does_not_know_what_is_said() -> None:
    with pytest.raises(TypeError, match="heard"):
        InMemoryPair(RealtimeClient(RealtimeConfig(server_url="ws://host.test")))  # type: ignore[abstract]


# ---------------------------------------------------------------------------------------------- Jarvis


def jarvis() -> ScriptedJarvisServer:
    config = PresenceConfig(server_url="ws://host.test:8790")
    return ScriptedJarvisServer(PresenceClient(Identity("me", "Me"), config))


def test_a_jarvis_server() -> None:
    pair = jarvis()
    pair.connect()
    pair.welcome({"user_id": "bo", "display_name": "Bo", "status": "online", "activity": None})
    pair.tell("poke", user_id="bo", display_name="Bo")
    connected, poked = pair.take()
    assert isinstance(connected, Connected)
    assert poked == Poked("bo", "Bo")
    pair.count = 7
    pair.advance(30.0)
    assert pair.client.server_count == 7
    assert [message["type"] for message in pair.said()] == ["connect", "activity_update"]
    assert pair.said("ping") == [{"type": "ping"}]


def test_a_jarvis_client_sends_text() -> None:
    with pytest.raises(ContractError):
        jarvis().heard(BinaryMessage(b"{}"))


# ---------------------------------------------------------------------------------------------- the model


def test_a_model_server_by_itself() -> None:
    """What a plain channel and one without presence are told, and how own presence is kept."""
    client = RealtimeClient(RealtimeConfig(server_url="ws://host.test"))
    server = ModelServer(client)
    server.connect()
    server.do(client.join, "room:a")
    server.do(client.join, "realtime:b", ChannelConfig(presence=False, broadcast_ack=True))
    ann = server.track("realtime:b", "ann", {"n": 1})
    server.retrack(ann, {"n": 2})
    assert server.sees("room:a")
    assert not server.sees("realtime:b")
    assert dict(client.presence("realtime:b")) == server.expected("realtime:b") == {}
    server.do(client.untrack, "room:a")
    server.do(client.track, "room:a", {"n": 1})
    assert dict(client.presence("room:a")) == server.online("room:a")
    same = server.do(client.push, "room:a", "track", {"n": 1})
    server.do(client.push, "room:a", "untrack", {})
    server.do(client.push, "room:a", "untrack", {})
    push = server.do(client.push, "room:a", "ask", [1])
    binary = server.do(client.broadcast, "realtime:b", "hi", b"x")
    assert server.online("room:a") == {}
    replies = server.fold.outcomes  # type: ignore[union-attr]
    assert [replies[number].status for number in (same, push, binary)] == ["ok", "ok", "ok"]
    server.do(client.join, "realtime:c", ChannelConfig())
    server.do(client.broadcast, "realtime:c", "hi", {})
    assert not server.unanswered, "no answer is wanted"
    server.untrack(ann)
    server.untrack(ann)
    server.retrack(ann, {"n": 3})
    assert server.online("realtime:b") == {}
    server.check()


def test_a_model_server_with_an_old_life_in_hand() -> None:
    """A second join on one connection, and what is asked of a channel that is gone."""
    client = RealtimeClient(RealtimeConfig(server_url="ws://host.test", join_timeout=2.0))
    server = ModelServer(client)
    server.connect()
    server.do(client.join, "room:a")
    server.stall()
    server.crash("room:a")
    server.crash("room:a")
    server.advance(1.0)  # joins
    server.serve_one()  # is let in
    server.crash("room:a")
    server.advance(4.0)  # joins again, gives up, joins again
    server.serve()
    server.advance(30.0)
    assert client.state_of("room:a").name == "JOINED"
    assert server.rejoined == ["room:a"]
    server.say("1", "99", "room:a", "hi", {})
    server.channels["room:a"].join_ref = "another life"
    server.do(client.push, "room:a", "ask", {})
    server.advance(12.0)
    assert type(server.take()[-1]).__name__ == "PushFailed", "what is meant for another life is passed over"
    server.channels.clear()  # it has forgotten
    server.do(client.push, "room:a", "ask", {})
    server.advance(40.0)
    assert client.state_of("room:a").name == "JOINED", "unmatched topic: joined again"


# ---------------------------------------------------------------------------------------------- of a hub


def test_scripted_clients() -> None:
    clients = ScriptedClients(Hub(HubConfig(presence_window=0)))
    ann, bob = clients.connect(SUPABASE), clients.connect(SUPABASE)
    for client, key in ((ann, "ann"), (bob, "bob")):
        client.join("realtime:lobby", supabase_join(key))
    ann.say("1", "2", "realtime:lobby", "presence", {"event": "track", "payload": {"mood": "calm"}})
    (diff,) = bob.take()
    assert diff[3] == "presence_diff"
    assert list(diff[4]["joins"]) == ["ann"]
    ann.receive(b"\x89\x00")  # a ping, as a hub could send one
    ann.flush()
    ann.drop()
    assert list(clients.hub.online("realtime:lobby")) == []
    bob.take()
    clients.advance(61.0)
    assert bob.closed is not None, "it was idle"
    nobody = clients.open()
    clients.receive(nobody, b"what is this\r\n\r\n")
    assert clients.sent[nobody].startswith(b"HTTP/1.1 400 ")
    assert nobody in clients.closed


# ---------------------------------------------------------------------------------------------- the contract


class Endpoint:
    """Says what it is told to."""

    is_closed = False

    def __init__(self, *outputs: Any, deadlines: Any = (None, None)) -> None:
        self.outputs, self.deadlines = [*outputs], [*deadlines]

    def drain(self) -> Any:
        """Up to a `None`, which is the end of one drain."""
        outputs = self.outputs[: self.outputs.index(None)] if None in self.outputs else [*self.outputs]
        del self.outputs[: len(outputs) + 1]
        return outputs

    def next_deadline(self) -> Any:
        return self.deadlines.pop(0) if len(self.deadlines) > 1 else self.deadlines[0]

    def tick(self, *, now: float) -> None: ...


OPEN = OpenTransport(ConnId(1), "host", 80, False)
DATA = SendData(ConnId(1), b"x")


@pytest.mark.parametrize(
    ("endpoint", "rule"),
    [
        (Endpoint(DATA), "data for connection 1, which is not open"),
        (Endpoint(OPEN, SendData(ConnId(1), b"")), "SendData is never empty"),
        (Endpoint(OPEN, DATA, DATA), "side by side"),
        (Endpoint(OPEN, DATA, SendData(ConnId(1), bytes(MERGED - 1))), "side by side"),
        (Endpoint(OPEN, OPEN), "one connection at most"),
        (Endpoint(OPEN, CloseTransport(ConnId(1)), OPEN), "ids only grow"),
        (Endpoint(CloseTransport(ConnId(1))), "is closed, and is not open"),
        (Endpoint(OPEN, None, DATA), "a drain takes all outputs"),
        (Endpoint(OPEN, deadlines=(2.0, 3.0)), "draining does not change the deadline"),
        (Endpoint(deadlines=(1.0,)), "the deadline 1.0 is not after 1.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_contract(endpoint: Any, rule: str) -> None:
    with pytest.raises(ContractError, match=rule):
        Contract(endpoint).drain(1.0)


@pytest.mark.parametrize(
    "endpoint", [Endpoint(OPEN), Endpoint(deadlines=(1.0, 2.0))], ids=["output", "deadline"]
)
def test_an_early_tick_does_nothing(endpoint: Any) -> None:
    with pytest.raises(ContractError, match="an early tick does"):
        Contract(endpoint).idle_tick(0.0)


class OddHub(Hub):
    """Reports what only a client does."""

    def drain(self) -> Any:
        return [SocketConnected()]


def test_an_event_is_a_documented_one() -> None:
    with pytest.raises(ContractError, match="no documented event"):
        Contract(OddHub()).drain(0.0)


def test_a_transport_that_was_accepted_lives_until_it_is_closed() -> None:
    contract = Contract(Endpoint(DATA, DATA))  # type: ignore[arg-type]
    contract.accepted(ConnId(1))
    contract._endpoint.outputs.pop()  # type: ignore[attr-defined]
    assert contract.drain(0.0) == [DATA]
    contract.closed(ConnId(1))
    contract._endpoint.outputs.append(DATA)  # type: ignore[attr-defined]
    with pytest.raises(ContractError):
        contract.drain(0.0)
