"""Recorder, replay and show: the format, what is transparent, and what is no recording."""

from __future__ import annotations

import datetime
import inspect
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import pytest

from hub_client import PHOENIX, World, masked, upgrade
from presence_proto import (
    Allow,
    ChannelConfig,
    ConnId,
    Hub,
    HubConfig,
    Identity,
    LocalProtocolError,
    PresenceClient,
    PresenceConfig,
    RealtimeClient,
    RealtimeConfig,
    UserStatus,
)
from presence_proto.recording import Narrator, Recorder, RecordingError, replay, show_recording
from presence_proto.recording import format as recording_format
from presence_proto.recording import recorder as recorder_module
from presence_proto.recording.format import Decoder, dump, from_json, to_json
from presence_proto.recording.frames import BodyPiece, FramePiece, HeadPiece, Inflater, Scanner
from presence_proto.serializer import UserBroadcast
from presence_proto.testing import ScriptedServer
from presence_proto.version import VERSION
from recordings import Recording, drain

CONFIG = RealtimeConfig(server_url="ws://host.test/socket")


def client(recording: Recording, **settings: Any) -> RealtimeClient:
    config = RealtimeConfig(**{"server_url": "ws://host.test/socket", **settings})
    made: RealtimeClient = recording.realtime(config, rng=Random(1))
    return made


def online(**settings: Any) -> tuple[Recording, ScriptedServer]:
    recording = Recording()
    rig = ScriptedServer(client(recording, **settings))
    rig.connect()
    return recording, rig


# ------------------------------------------------------------------------------------ transparent


def test_a_recorded_core_is_used_like_its_core() -> None:
    assert isinstance(client(Recording()), RealtimeClient)
    presence = Recording().presence(Identity("a", "A"), PresenceConfig(project_ref="abc"), rng=Random(1))
    assert isinstance(presence, PresenceClient)
    assert presence.identity == Identity("a", "A")
    hub = Recording().hub()
    assert isinstance(hub, Hub)
    with pytest.raises(TypeError, match=r"presence_proto\.Hub does no I/O: presence_adapters\.server"):
        hub.__enter__()


@pytest.mark.parametrize("kind", ["RealtimeClient", "PresenceClient", "Hub"])
def test_no_output_gets_past_the_recorder(kind: str) -> None:
    """`drain` is the only way out of an endpoint, and the recorder watches it."""
    recording = Recording()
    endpoint: Any
    match kind:
        case "RealtimeClient":
            endpoint = client(recording)
        case "PresenceClient":
            config = PresenceConfig(project_ref="abc")
            endpoint = recording.presence(Identity("a", "A"), config, rng=Random(1))
        case _:
            endpoint = recording.hub(rng=Random(1))
    if kind == "Hub":
        endpoint.transport_opened(ConnId(1), now=0.0)
        endpoint.receive_data(ConnId(1), b"GET / HTTP/1.1\r\n\r\n", now=0.0)
    else:
        endpoint.connect(now=0.0)
        endpoint.disconnect(now=0.0)
    outputs = endpoint.drain()
    assert len(outputs) > 2
    assert len(recording.entries("open", "send", "close", "event")) == len(outputs)
    assert len(recording.entries("deadline")) == 1
    assert not endpoint.drain()
    assert len(recording.entries("deadline")) == 1, "an empty drain is not told again"
    result = recording.replayed()
    assert (result.outputs, result.difference) == (len(outputs), None)


@pytest.mark.parametrize("wrong", ["missing", "more", "other"])
def test_replay_notices_any_difference_of_a_drain(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording()
    endpoint = client(recording)
    endpoint.connect(now=0.0)
    endpoint.disconnect(now=0.0)
    first, *rest = endpoint.drain()
    drained = {"missing": [first], "more": [first, *rest, first], "other": [*rest, first]}[wrong]
    pending = [drained]
    monkeypatch.setattr(RealtimeClient, "drain", lambda self: pending.pop() if pending else ())
    difference = recording.replayed().difference
    assert difference is not None
    expected, got = difference.expected, difference.got
    assert {"missing": got == "nothing", "more": '"deadline"' in expected, "other": got != "nothing"}[wrong]


@pytest.mark.parametrize("kind", [RealtimeClient, PresenceClient, Hub])
def test_every_public_method_is_a_fact_a_command_or_a_getter(kind: type[Any]) -> None:
    """A method with `now` changes the endpoint: a recording without it cannot be replayed."""
    takes_now = {
        name: "now" in inspect.signature(method).parameters
        for name, method in inspect.getmembers(kind, callable)
        if not name.startswith("_") and name != "drain"
    }
    recorded = {*recording_format.FACTS, *recording_format.COMMANDS[kind.__name__]}
    assert recorded == {name for name, changes in takes_now.items() if changes}
    assert takes_now.keys() - recorded <= recording_format.GETTERS


def test_a_new_command_cannot_be_used_unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RealtimeClient, "new_command", lambda self: None, raising=False)
    endpoint = client(Recording())
    with pytest.raises(AttributeError, match="new_command is a command or a getter"):
        endpoint.new_command()


def test_one_recorder_records_one_endpoint() -> None:
    recording = Recording()
    client(recording)
    with pytest.raises(LocalProtocolError, match="one endpoint"):
        recording.hub()


def test_nothing_is_written_before_something_happens() -> None:
    recording = Recording()
    client(recording)
    assert recording.lines == []
    recording.recorder.close()
    assert recording.lines == []


def test_after_the_end_nothing_is_written_and_all_goes_on() -> None:
    recording, rig = online()
    recording.recorder.close()
    recording.recorder.close()
    before = list(recording.lines)
    rig.join("room:x")
    rig.advance(100)
    assert rig.client.is_connected
    assert recording.lines == before
    assert recording.entries()[-1] == {"end": None}


def test_every_line_is_one_line_of_ascii() -> None:
    recording, rig = online()
    rig.do(rig.client.join, "room:ü\u2028\n")
    recording.recorder.close()
    for line in recording.lines:
        assert line.endswith("\n")
        assert line.count("\n") == 1
        assert line.isascii()


def test_the_header() -> None:
    recording = Recording()
    config = PresenceConfig(server_url="ws://h:1/x", heartbeat_interval=7, headers={"User-Agent": "me"})
    rng = Random(5)
    rng.gauss(0, 1)
    state = rng.getstate()
    endpoint = recording.presence(Identity("u", "U", "a-secret-token"), config, rng=rng, online_at="noon")
    endpoint.connect(now=1)
    header = recording.entries()[0]
    assert (header["format"], header["version"], header["package"]) == ("presence-recording", 1, VERSION)
    assert header["kind"] == "PresenceClient"
    assert header["config"]["type"] == "PresenceConfig"
    assert header["config"]["heartbeat_interval"] == 7
    assert header["config"]["headers"] == [["User-Agent", "me"]]
    assert header["identity"] == {"user_id": "u", "display_name": "U", "access_token": "~" * 13 + "0"}
    assert header["online_at"] == "noon"
    assert header["rng"][2:] == [state[1][-1], state[2]]


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == VERSION


def test_a_random_without_a_state_is_refused() -> None:
    with pytest.raises(NotImplementedError):
        Recorder(print).realtime_client(CONFIG, rng=SystemRandom())


# ------------------------------------------------------------------------------------ lines


def test_the_lines_of_a_session() -> None:
    recording = Recording()
    endpoint = client(recording, jitter=0)
    endpoint.connect(now=1.5)
    drain(endpoint)
    endpoint.transport_closed(ConnId(1), now=2, reason="why")
    drain(endpoint)
    drain(endpoint)
    endpoint.push  # noqa: B018  # to look at a method is nothing
    with pytest.raises(LocalProtocolError):
        endpoint.push("room:x", "e", now=2)
    lines = recording.entries()[1:]
    lost = {"reason": "why", "code": None, "status": None, "retry_in": 1.0, "fatal": False}
    assert lines == [
        {"now": 1.5, "command": "connect", "args": []},
        {"open": 1, "host": "host.test", "port": 80, "tls": False},
        {"deadline": 11.5},
        {"now": 2, "fact": "transport_closed", "conn": 1, "reason": "why"},
        {"event": "SocketDisconnected", "fields": lost},
        {"deadline": 3.0},
        {"now": 2, "command": "push", "args": ["room:x", "e"]},
        {"raised": "LocalProtocolError"},
    ]
    assert recording.replayed().same


def test_a_line_is_written_before_the_core_runs() -> None:
    """So that a core that never comes back has left its last words."""
    recording = Recording()
    endpoint = client(recording)
    written: list[list[str]] = []
    endpoint._connection.open = lambda now: written.append(list(recording.lines))  # type: ignore[method-assign]
    endpoint.connect(now=1)
    assert json.loads(written[0][-1]) == {"now": 1, "command": "connect", "args": []}


def test_calls_that_are_wrong() -> None:
    recording = Recording()
    endpoint: Any = client(recording)
    for call in (
        lambda: endpoint.connect(),
        lambda: endpoint.connect(now=float("nan")),
        lambda: endpoint.tick(now=object()),
        lambda: endpoint.tick(now="noon"),
        lambda: endpoint.push("room:x", "e", object(), now=1),
    ):
        with pytest.raises((LocalProtocolError, TypeError)):
            call()
    assert recording.replayed().same
    assert len(recording.entries("raised")) == 5


class Odd(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return {"odd": 1}[key]

    def __iter__(self) -> Any:
        return iter(["odd"])

    def __len__(self) -> int:
        return 1


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "payload",
    [
        {"a": [1, 2.5, None, True, "ü", 2**70]},
        {"$": "bytes"},
        {1: "a"},
        {(1, 2): "a"},
        Odd(),
        UserStatus.AWAY,
        datetime.date(2026, 1, 2),
        b"\x00\xff",
        bytearray(b"x"),
        [memoryview(b"x")],
        UserBroadcast("e", b"x", {"m": 1}),
        ChannelConfig(
            presence_key="k", private=True, broadcast_replay={"limit": 3}, extra={"new": {"a": [1]}}
        ),
        object(),
        {"deep": object()},
        CIRCLE,
        "lone \ud800",
        float("inf"),
        {1, 2},
    ],
)
def test_whatever_is_pushed(payload: Any) -> None:
    recording, rig = online()
    rig.join("room:x", {"a": 1})
    try:
        rig.do(rig.client.push, "room:x", "e", payload, timeout=3)
    except LocalProtocolError:
        pass
    assert recording.replayed().same


def test_values_and_back() -> None:
    value = {"$": [b"x", {"n": {2: None}}], "t": (1, 2), "c": ChannelConfig(private=True)}
    value["r"] = ChannelConfig(private=True, broadcast_replay={"since": 5}, extra={"new": [{"a": None}]})
    value["a"] = [Allow("ann"), Allow()]
    assert from_json(json.loads(dump(to_json(value)))) == {**value, "t": [1, 2]}
    with pytest.raises(ValueError, match="unknown kind of value: 'x'"):
        from_json({"$": "x"})


def test_data_of_a_connection_that_the_core_does_not_know_is_not_told() -> None:
    recording, rig = online()
    for conn in (0, 7):
        rig.client.transport_opened(ConnId(conn), now=rig.now)
        rig.client.receive_data(ConnId(conn), b"whatever it is", now=rig.now)
        rig.client.transport_closed(ConnId(conn), now=rig.now)
    assert recording.entries("data")[-1]["data"] == "AAAAAAAAAAAAAAAAAAA="
    assert recording.replayed().same


def test_where_clients_come_from_is_not_told_but_which_are_the_same() -> None:
    recording = Recording()
    hub = recording.hub(HubConfig(max_connections_per_address=1))
    for number, address in enumerate(["192.0.2.1", "192.0.2.1", "198.51.100.7"], 1):
        hub.transport_opened(ConnId(number), address=address, now=0.0)
        hub.receive_data(ConnId(number), upgrade(PHOENIX), now=0.0)
        drain(hub)
    first, second, third = [entry["address"] for entry in recording.entries("address")]
    assert first == second != third
    assert "192.0.2.1" not in recording.text
    assert "198.51.100.7" not in recording.text
    assert any("429" in line for line in show_recording(recording.lines))
    assert recording.replayed().same


def test_a_line_waits_for_its_message_and_others_for_it() -> None:
    recording, rig = online()
    before = len(recording.lines)
    rig.deliver(b"\x81\x05[1")
    rig.advance(1)
    assert len(recording.lines) == before
    rig.deliver(b",2]")
    assert len(recording.lines) > before + 3
    rig.deliver(b"\x81\x05[1")
    assert recording.replayed().same


def test_a_message_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "MAX_HELD", 1000)
    recording, rig = online()
    rig.deliver(b"\x81\x05[1")
    for _ in range(100):
        rig.jump(0.01)
    result = recording.replayed()
    assert result.same
    assert result.note == "a message took too long to be complete"


def test_the_decoders_of_connections_that_are_over_are_forgotten() -> None:
    recording = Recording()
    world = World(hub_type=recording.hub)
    for _ in range(20):
        world.connect(PHOENIX).drop()
    teller = recording.recorder._teller
    assert teller._decoders == {}
    assert recording.recorder._inbound == {}
    assert recording.replayed().same


# ------------------------------------------------------------------------------------ no recordings


def good() -> list[str]:
    recording, rig = online()
    rig.join("room:x", {})
    rig.cut()
    recording.recorder.close()
    return recording.lines


@pytest.mark.parametrize(
    ("change", "line", "fault"),
    [
        (lambda lines: [], 1, "this is not a recording"),
        (lambda lines: ["{}\n", *lines], 1, "this is not a recording"),
        (lambda lines: ["nonsense\n"], 1, "this is not a recording"),
        (
            lambda lines: [lines[0].replace('"version":1', '"version":2')],
            1,
            "version 2 is not supported: this package reads 1",
        ),
        (lambda lines: [lines[0].replace('"kind":"Rea', '"kind":"Unrea')], 1, "header is malformed"),
        (
            lambda lines: [lines[0].replace('"kind":"RealtimeClient"', '"kind":"Hub"')],
            1,
            "cannot configure a Hub",
        ),
        (lambda lines: [lines[0].replace('"jitter"', '"better"')], 1, "header is malformed: .*better"),
        (lambda lines: [lines[0].replace('"rng":[3', '"rng":[4')], 1, "header is malformed"),
        (lambda lines: [lines[0].replace('"rng"', '"dice"')], 1, "header is malformed: 'rng' is missing"),
        (lambda lines: lines[:-1], -1, "cut off here: its end is missing. The replay is the same so far"),
        (lambda lines: [*lines[:-1], lines[-1][:-4]], 0, "is cut off, or is not JSON"),
        (lambda lines: [*lines, lines[1]], 1, "goes on after its end"),
        (lambda lines: [lines[0], "[]\n"], 2, "is not a JSON object"),
        (lambda lines: [lines[0], "[" * 100_000], 2, "is cut off, or is not JSON"),
        (lambda lines: [lines[0], '{"what":1}\n'], 2, "unknown kind of line: what"),
        (lambda lines: [lines[0], '{"now":1,"command":"eval","args":[]}\n'], 2, "has no command 'eval'"),
        (lambda lines: [lines[0], '{"now":1,"command":"join"}\n'], 2, "'args' is missing"),
        (lambda lines: [lines[0], '{"command":"connect","args":[]}\n'], 2, "'now' is missing"),
        (lambda lines: [lines[0], '{"now":1,"fact":"receive_data","conn":1,"data":"?"}\n'], 2, "malformed"),
        (lambda lines: [lines[0], '{"now":1,"fact":[],"conn":1}\n'], 2, "malformed"),
        (
            lambda lines: [lines[0], '{"now":1,"command":"connect","args":[{"$":"?"}]}\n'],
            2,
            "kind of value: '\\?'",
        ),
    ],
)
def test_what_is_no_recording(change: Any, line: int, fault: str) -> None:
    lines = good()
    with pytest.raises(RecordingError, match=fault) as error:
        replay(change(lines))
    expected = {-1: len(lines) - 1, 0: len(lines)}.get(
        line, line + len(lines) if "goes on" in fault else line
    )
    assert error.value.line == expected
    assert str(error.value) == f"line {expected}: {error.value.fault}"


def test_a_recording_cut_anywhere_is_never_taken_for_a_whole_one() -> None:
    text = "".join(good())
    for end in range(0, len(text) - 1, 37):
        with pytest.raises(RecordingError):
            replay(text[:end].splitlines(keepends=True))


def test_results_where_there_are_none_and_outputs_where_there_are_none() -> None:
    lines = good()
    for odd in (
        '{"returned":1}\n',
        '{"raised":"X"}\n',
        '{"called":"authorize"}\n',
        '{"event":"X","fields":{}}\n',
    ):
        result = replay([lines[0], odd])
        assert result.difference is not None
        assert (result.difference.line, result.difference.got) == (2, "nothing")
    hub = Recording()
    world = World(HubConfig(), hub_type=hub.hub)
    world.connect(PHOENIX)
    result = replay([hub.lines[0], hub.lines[1], '{"called":"authorize","with":{}}\n', *hub.lines[2:]])
    assert result.difference is not None
    assert (result.difference.line, result.difference.got) == (3, "nothing")


def test_the_lines_are_read_one_by_one() -> None:
    lines, read = good(), 0

    def counted() -> Any:
        nonlocal read
        for line in lines:
            read += 1
            yield line

    lines[5] = lines[5].replace("1", "2")
    result = replay(counted())
    assert result.difference is not None
    assert result.lines == result.difference.line
    assert read <= result.lines + 1


# ------------------------------------------------------------------------------------ in words


def test_show() -> None:
    recording = Recording()
    config = HubConfig(authorize=lambda topic, token: None, deflate=True)
    world = World(config, hub_type=recording.hub)
    one = world.connect(PHOENIX, deflate=True)
    one.join("room:x", {"user_id": "ann"})
    world.hub.broadcast("room:x", "e", b"\x01", now=world.now)
    world.settle()
    world.receive(one.conn, masked(b"")[:-3])
    world.advance(7)
    one.drop()
    recording.recorder.close()
    shown = list(show_recording(recording.lines))
    assert shown[0] == f"Hub, recorded by presence-proto {VERSION}"
    text = "\n".join(shown)
    for words in (
        *("> transport_opened 1", "> receive_data 1, ", '    http "GET /socket', "< send 1", "101 Switching"),
        *(
            'text ["1","1","room:x","phx_join",{"user_id":"ann"}] compressed true',
            "< TopicJoined(conn=1, topic=",
        ),
        *("  called authorize: ", '> broadcast("room:x", "e", ', ", now", "     7.000 > tick", "the end"),
    ):
        assert words in text or words == ", now", words
    assert list(show_recording([recording.lines[0], '{"end":"of it all"}\n']))[-1].endswith("here: of it all")
    with pytest.raises(RecordingError, match="line 2: the line is malformed"):
        list(show_recording([recording.lines[0], '{"now":1,"fact":"receive_data","conn":1,"data":7}\n']))


def test_a_narrator_tells_the_same_as_it_comes_without_times() -> None:
    recording, rig = online()
    rig.join("room:x", {})
    rig.advance(60)
    recording.recorder.close()
    told: list[str] = []
    narrator = Narrator(told.append)
    for line in recording.lines:
        narrator(line)
    recorded_by, config, *shown = show_recording(recording.lines)
    assert told == [f"{recorded_by.partition(',')[0]} {config}", *(words[11:] for words in shown)]


def test_show_tells_results() -> None:
    recording, rig = online()
    rig.join("room:x", {})
    rig.do(rig.client.push, "room:x", "e", timeout=3)
    rig.cut()
    text = "\n".join(show_recording(recording.lines))
    assert '> push("room:x", "e", timeout=3)' in text
    assert "< returned 1" in text
    assert "> transport_closed 1 eof" in text


# ------------------------------------------------------------------------------------ frames


def test_pieces() -> None:
    scanner = Scanner()
    assert scanner.feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No") == [
        HeadPiece(b"HTTP/1.1 100 Continue\r\n\r\n")
    ]
    assert scanner.feed(b"\n\nwhy") == [HeadPiece(b"HTTP/1.1 500 No\n\n"), BodyPiece(b"why")]
    assert scanner.feed(b" not") == [BodyPiece(b" not")]
    assert scanner.take_rest() == BodyPiece(b"")

    scanner = Scanner()
    assert scanner.take_rest() == HeadPiece(b"")
    assert scanner.feed(b"GET /\r\n\r\n") == [HeadPiece(b"GET /\r\n\r\n")]
    for size in (0, 5, 126, 70_000):
        data = bytes(size)
        (frame,) = scanner.feed(masked(data, text=False))
        assert isinstance(frame, FramePiece)
        assert frame.payload == data
        assert frame.with_payload(data) == frame.raw
    for cut in (1, 3, 7):
        scanner = Scanner()
        scanner.feed(b"GET /\r\n\r\n" + masked(bytes(200))[:cut])
        assert scanner.take_rest() == FramePiece(masked(bytes(200))[:cut], cut)


def test_a_mask_is_taken_off_and_put_on() -> None:
    frame = FramePiece(
        b"\x81\x85\x01\x02\x03\x04" + bytes(a ^ b for a, b in zip(b"hello", b"\1\2\3\4\1", strict=True)), 6
    )
    assert frame.payload == b"hello"
    assert FramePiece(frame.with_payload(b"HELLO"), 6).payload == b"HELLO"


def test_the_end_of_a_deflate_stream() -> None:
    import zlib

    compressor = zlib.compressobj(wbits=-15)
    data = compressor.compress(b"one") + compressor.flush(zlib.Z_FINISH) + b"\x00"
    inflater = Inflater(100)
    assert inflater.inflate(data) == b"one"
    assert inflater.inflate(data) == b"one"
    assert inflater.inflate(b"\xff\xff") == b""


def test_odd_frames_in_words() -> None:
    decoder = Decoder(None, 100)
    decoder.read(b"GET / HTTP/1.1\r\n\r\n")
    assert decoder.read(b"\x83\x01x\x01\x01a\x80\x01b\x8a\x00\x88\x00\x88\x03\x03\xe8!\x82\x01\xff") == [
        {"opcode 3": "x"},
        {"text": "a", "fin": False},
        {"continuation": "b"},
        {"pong": ""},
        {"close": ""},
        {"close": "!", "code": 1000},
        {"binary": "/w=="},
    ]
