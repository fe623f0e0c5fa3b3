"""`presence hub --control`: as a test in another language uses it, through its pipes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

import pytest

from adapters.command_line import PRESENCE
from adapters.hub_thread import nothing_left
from presence_adapters.blocking import ConnectError, PresenceClient
from presence_adapters.cli.serve import answers, described
from presence_adapters.server.hub_thread import COMMANDS, HubThread
from presence_proto import Connected, Disconnected, Error, Identity, PresenceConfig
from presence_proto.testing import Faults

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM = "realtime:jarvis-presence"
COMMAND = [*PRESENCE, "hub", "--control", "--port", "0"]


class Controlled:
    """The process, and what it said first."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.hello: dict[str, Any] = self._line()

    def _line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "it has ended"
        return json.loads(line)

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = self._line()
        return answer

    def do(self, name: str, **arguments: Any) -> Any:
        answer = self.ask(do=name, **arguments)
        assert answer["ok"], answer
        return answer.get("result")

    def config(self, **options: Any) -> PresenceConfig:
        address = {"server_url": self.hello["url"], "api_key": self.hello["api_key"]}
        return PresenceConfig(**{**address, "reconnect_delay": 0.05, **options})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()


def controlled(*options: str) -> Controlled:
    return Controlled(
        subprocess.Popen(
            [*COMMAND, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
    )


@pytest.mark.long
def test_a_story_from_start_to_end() -> None:
    with controlled() as hub:
        port = hub.hello["port"]
        assert hub.hello["url"] == f"ws://127.0.0.1:{port}/realtime/v1"
        assert hub.hello["socket_url"] == f"ws://127.0.0.1:{port}/socket"
        assert hub.hello["jarvis_url"].startswith(f"ws://127.0.0.1:{port}/")
        assert hub.do("refuse_handshakes", count=1, status=429) is None
        with PresenceClient(Identity("alice", "Alice"), hub.config()) as client:
            client.drive_in_background()
            events = client.events(timeout=5)
            refused = next(events)
            assert isinstance(refused, Disconnected)
            assert "429" in refused.reason
            assert isinstance(next(events), Connected)
            assert hub.do("wait_online", topic=ROOM)["alice"][0]["display_name"] == "Alice"
            (conn,) = hub.do("connections")
            hub.do("cut", conn=conn, reset=True)
            assert isinstance(next(events), Disconnected)
            assert isinstance(next(events), Connected)
            hub.do("stop")
            assert hub.ask(do="freeze") == {"ok": False, "error": "the hub is stopped: start it first"}
            assert isinstance(next(events), Disconnected)
            hub.do("start")
            assert list(hub.do("wait_online", topic=ROOM, count=1)) == ["alice"]
        output, errors = hub.process.communicate(timeout=10)  # closes its stdin
        assert (hub.process.returncode, output) == (0, "")
        assert "refused with HTTP 429" in errors
        assert "Traceback" not in errors


def test_the_key_is_demanded() -> None:
    with controlled() as hub:
        config = hub.config(api_key="a-wrong-one")
        with PresenceClient(Identity("alice", "Alice"), config) as client:
            events = client.events(timeout=5)
            with pytest.raises(ConnectError, match="HTTP 401"):
                while not isinstance(event := next(events), Error):
                    pass
                assert event.fatal
                next(events)


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once(number: signal.Signals) -> None:
    with controlled() as hub:
        hub.process.send_signal(number)
        assert hub.process.wait(10) == 0
        assert hub.process.stderr is not None
        assert hub.process.stderr.read() == ""


def test_a_reader_that_goes_away_ends_it_without_noise() -> None:
    with controlled() as hub:
        assert hub.process.stdout is not None
        assert hub.process.stdin is not None
        assert hub.process.stderr is not None
        hub.process.stdout.close()
        hub.process.stdin.write('{"do": "heal"}\n')
        hub.process.stdin.flush()
        assert hub.process.wait(10) == 0
        assert hub.process.stderr.read() == ""


def test_a_port_that_is_taken_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = subprocess.run(
            [*COMMAND[:-1], str(port)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    assert (result.returncode, result.stdout) == (1, "")
    assert (
        result.stderr
        == f"Error: cannot listen on 127.0.0.1:{port}: the port is in use, choose another with --port\n"
    )


# ------------------------------------------------------------------------------------ the lines


@pytest.fixture
def hub() -> Iterator[HubThread]:
    with nothing_left(), HubThread() as one:
        yield one


def one_answer(hub: HubThread, line: str) -> dict[str, Any]:
    (answer,) = answers(hub, [line.encode() + b"\n"])
    return answer


ALL = {
    "online": {"topic": "realtime:x"},
    "wait_online": {"topic": "realtime:x", "count": 0, "timeout": 1},
    "broadcast": {"topic": "realtime:x", "event": "news", "payload": {"n": [1, None]}},
    "close_channel": {"topic": "realtime:x", "reason": "why"},
    "crash_channel": {"topic": "realtime:x"},
    "disconnect": {"conn": 1, "code": 4000, "reason": "why"},
    "cut_all": {"reset": True},
    "refuse_handshakes": {"count": 0, "status": 500, "body": "{}"},
    "set_faults": {"joins_ignored": False, "presence_limit": 9},
    "limit_rate": {"presence_calls": None, "broadcasts": 7},
    "delay": {"seconds": 1},
}


def test_a_fault_that_is_changed_leaves_the_others(hub: HubThread) -> None:
    for line in (
        '{"do": "set_faults", "delay": 2, "diffs_duplicated": true}',
        '{"do": "set_faults", "delay": 0}',
    ):
        assert one_answer(hub, line) == {"ok": True}
    assert hub.run(lambda server: server.hub.faults) == Faults(diffs_duplicated=True)  # type: ignore[attr-defined]


def test_every_command_can_be_given(hub: HubThread) -> None:
    results = {"online": {}, "wait_online": {}, "connections": []}
    for name in COMMANDS.keys() - {"start", "stop", "cut", "freeze"}:
        line = json.dumps({"do": name, **ALL.get(name, {})})
        expected = {"ok": True, "result": results[name]} if name in results else {"ok": True}
        assert one_answer(hub, line) == expected, name
    for line in ('{"do": "freeze"}', '{"do": "stop", "orderly": true}', '{"do": "start"}'):
        assert one_answer(hub, line) == {"ok": True}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "a line must be a JSON object"),
        ("{", "a line must be a JSON object"),
        ("x", "a line must be a JSON object"),
        ('{"do":' + "[" * 100_000, "a line must be a JSON object"),
        ("[]", "a line must be a JSON object"),
        ("{}", '"do" must be one of start, stop, online, '),
        ('{"do": "juggle"}', ', heal, not "juggle"'),
        ('{"do": ["freeze"]}', ', not ["freeze"]'),
        ('{"do": "run"}', ', not "run"'),
        ('{"do": "delay"}', "delay: it needs seconds"),
        ('{"do": "delay", "seconds": "2"}', 'delay: seconds must be float, not "2"'),
        ('{"do": "delay", "seconds": -2}', "delay must be 0 or at least 0.001 seconds, not -2.0"),
        ('{"do": "freeze", "count": 1}', "freeze: unknown argument 'count', expected "),
        ('{"do": "mute_heartbeats", "on": 0}', "mute_heartbeats: on must be bool, not 0"),
        ('{"do": "set_faults", "frozen": "yes"}', 'set_faults: frozen must be bool, not "yes"'),
        (
            '{"do": "set_faults", "bad": 1}',
            "set_faults: unknown argument 'bad', expected handshakes_to_refuse, ",
        ),
        ('{"do": "start"}', "the hub is running already"),
        ('{"do": "cut", "conn": 99}', "there is no connection 99"),
        (
            '{"do": "wait_online", "topic": "x", "timeout": 0.01}',
            "1 should be online in 'x', but after 0.01 s: nobody",
        ),
    ],
)
def test_what_is_wrong_with_a_line_is_said(hub: HubThread, line: str, says: str) -> None:
    answer = one_answer(hub, line)
    assert answer["ok"] is False
    assert says in answer["error"]
    assert one_answer(hub, '{"do": "connections"}') == {"ok": True, "result": []}


def test_a_port_that_was_taken_meanwhile(hub: HubThread) -> None:
    one_answer(hub, '{"do": "stop"}')
    with socket.create_server(("127.0.0.1", hub.port)):
        answer = one_answer(hub, '{"do": "start"}')
    assert answer["ok"] is False
    assert "in use" in answer["error"]


@pytest.mark.long
def test_help_names_every_command() -> None:
    said = subprocess.run(
        [*COMMAND[:-3], "--help"], capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout
    for name in COMMANDS:
        assert f"\n    {name}" in said
    assert "refuse_handshakes count=1 status=503" in said
    assert "delay seconds\n" in described()
