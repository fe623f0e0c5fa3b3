"""The command line, mostly as a person runs it: in a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
import pytest
import trustme
from click.testing import CliRunner

from adapters.command_line import PRESENCE
from adapters.fakes import run
from adapters.terminal import Terminal
from presence_adapters.asyncio import PresenceClient
from presence_adapters.cli import demo, main
from presence_adapters.cli.app import MODULES, app
from presence_adapters.cli.exits import Exit
from presence_proto import Connected, Disconnected, Identity, PresenceConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAIN_LINE = re.compile(r" {1,4}\d+\.\d s  \w* +\S.*")


def environment(**more: str) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}, **more}


def presence(*arguments: str, seconds: float = 30, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PRESENCE, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=seconds,
        check=False,
        env=environment(**more),
    )


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*PRESENCE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    text = ""
    while words not in text:
        line = process.stdout.readline()
        assert line, f"it ended: {text}{process.stderr.read() if process.stderr else ''}"
        text += line
    return text


@pytest.mark.long
def test_help_and_version() -> None:
    help_text = presence("--help")
    assert help_text.returncode == 0
    assert "demo" in help_text.stdout
    assert "hub" in help_text.stdout
    version = presence("--version")
    assert re.fullmatch(r"presence \d+\.\d+\.\d+\n", version.stdout)


@pytest.mark.long
@pytest.mark.parametrize("missing", ["click", "platformdirs", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from presence_adapters.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"presence: {missing} is missing. Install the command line: pip install 'presence-proto[cli]'\n"
    )


def test_another_missing_module_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presence_adapters.cli.app", None)
    with pytest.raises(ModuleNotFoundError, match=r"presence_adapters\.cli\.app"):
        main()


def test_ctrl_c_before_anything_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Impatient:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "presence_adapters.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "presence_adapters.cli.app")
    monkeypatch.setattr(sys, "meta_path", [Impatient(), *sys.meta_path])
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
        main()
    assert isinstance(ended.value, SystemExit)
    assert ended.value.code == Exit.INTERRUPTED


def test_ctrl_c_in_a_command_that_does_not_look_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def replay_file(path: str, *, show: bool) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("presence_adapters.cli.local.replay_file", replay_file)
    result = CliRunner().invoke(app, ["replay", "-"])
    assert (result.exit_code, result.output) == (Exit.INTERRUPTED, "")


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (["whoami"], 0, ""),
        (["hub", "--port", "0", "--control"], 0, ""),
        (["replay", "-"], 2, "Error: -, line 1: this is not a recording"),
    ],
    ids=["whoami", "hub", "replay"],
)
def test_stdin_and_stdout_may_be_closed(command: list[str], status: int, words: str, tmp_path: Path) -> None:
    result = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&- >&-', "sh", *PRESENCE, *command],
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
        env=environment(PRESENCE_IDENTITY_FILE=str(tmp_path / "me.json"), XDG_CONFIG_HOME=str(tmp_path)),
    )
    assert result.returncode == status
    assert result.stderr.startswith(words)
    assert len(result.stderr.splitlines()) == bool(words)


# ---------------------------------------------------------------------------------------------- presence demo


def check_plain(output: str) -> None:
    *lines, total, events, messages = output.splitlines()
    for line in lines:
        assert PLAIN_LINE.fullmatch(line), line
    assert re.fullmatch(r"\d+\.\d seconds in the room: \d users, \d+ events", total)
    assert events.startswith("events: ")
    assert re.fullmatch(r"messages: \d+, reconnects: \d+", messages)


@pytest.mark.long
def test_the_demo_ends_by_itself_with_a_summary() -> None:
    start = time.monotonic()
    result = presence("demo", "--seconds", "3", "--seed", "1")
    assert time.monotonic() - start < 15
    assert result.stderr == ""
    assert result.returncode == 0
    check_plain(result.stdout)
    for words in (
        "Connected, 1 online",
        "Ada is here",
        "Bruno is here",
        "Chiara is here",
        "Chiara in lobby:",
    ):
        assert words in result.stdout


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_at_once(number: signal.Signals) -> None:
    with running("demo") as process:
        before = read_until(process, "Ada is here")
        process.send_signal(number)
        start = time.monotonic()
        output, errors = process.communicate(timeout=10)
        assert time.monotonic() - start < 4
        assert errors == ""
        assert process.returncode == 0
        check_plain(before + output)


@pytest.mark.long
def test_a_reader_that_goes_away_ends_the_demo_without_noise() -> None:
    with running("demo", "--seconds", "20") as process:
        read_until(process, "Connected")
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=10) == 0
        assert process.stderr.read() == ""


@pytest.mark.long
def test_everything_happens_in_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / 10)

    monkeypatch.setattr(demo, "asyncio", SimpleNamespace(**(vars(asyncio) | {"sleep": sleep})))
    run(lambda: demo.demo_room(6, 3, plain=True))
    output = capsys.readouterr().out
    check_plain(output)
    lines = output.splitlines()
    for kind in (
        "ActivityChanged",
        "ChatMessage",
        "Connected",
        "Disconnected",
        "GameInvite",
        "Poked",
        "UserOffline",
        "UserOnline",
    ):
        assert any(line.split()[2] == kind for line in lines[:-3]), kind
    assert "connection reset by peer" in output
    assert "Connected again" in output
    assert not lines[-1].endswith("reconnects: 0")
    for name in ("Ada", "Bruno", "Chiara", "Dmitri", "Emeka", "Fumiko", "Gus"):
        assert f"{name} is here" in output


def in_terminal(*arguments: str) -> Terminal:
    env = {name: text for name, text in environment(TERM="xterm-256color").items() if name != "NO_COLOR"}
    return Terminal([*PRESENCE, *arguments], env, (100, 30))


@pytest.mark.long
def test_a_terminal_gets_a_live_view_that_survives_resizing() -> None:
    with in_terminal("demo", "--seconds", "4") as terminal:
        terminal.read_until("Ada", "in skill")
        terminal.resize(12, 3)
        assert terminal.wait() == 0
        output = terminal.output
    head, view, tail = re.split(r"\x1b\[\?1049[hl]", output)
    assert head == ""
    for words in ("the room", "what happens", "connected", "s left", "Ada", "in skill"):
        assert words in view
    assert "seconds in the" in " ".join(tail.split())
    assert "Traceback" not in output


@pytest.mark.long
def test_ctrl_c_ends_the_live_view_and_gives_the_terminal_back() -> None:
    with in_terminal("demo") as terminal:
        terminal.read_until("Ada")
        terminal.press("\x03")
        assert terminal.wait() == 0
        output = terminal.output
    assert output.count("\x1b[?1049h") == output.count("\x1b[?1049l") == 1
    assert output.rindex("\x1b[?25h") < output.index("seconds in the")
    assert "Traceback" not in output


@pytest.mark.long
def test_a_terminal_can_have_plain_lines() -> None:
    with in_terminal("demo", "--plain", "--seconds", "1") as terminal:
        assert terminal.wait() == 0
        output = terminal.output
    assert "\x1b" not in output
    check_plain(output.replace("\r\n", "\n"))


def test_the_old_ways_to_ask_for_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    async def demo_room(seconds: float | None, seed: int | None, *, plain: bool) -> None:
        asked.append(plain)

    monkeypatch.setattr("presence_adapters.cli.local.demo_room", demo_room)
    for variables in ({}, {"NO_COLOR": ""}, {"NO_COLOR": "1"}, {"TERM": "dumb"}):
        monkeypatch.setattr(os, "environ", environment(**variables))
        monkeypatch.setattr(sys, "argv", ["presence", "demo"])
        with pytest.raises(SystemExit):
            main()
    assert asked == [False, False, True, True]


# ---------------------------------------------------------------------------------------------- presence hub


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_hub_serves_until_a_signal_and_tells_its_clients(number: signal.Signals) -> None:
    async def watch(url: str, process: subprocess.Popen[str]) -> str:
        config = PresenceConfig(server_url=url, reconnect_delay=60, max_reconnect_delay=60)
        async with PresenceClient(Identity("a", "A"), config) as client:
            async for event in client:
                if isinstance(event, Connected):
                    process.send_signal(number)
                elif isinstance(event, Disconnected):
                    return event.reason
        raise AssertionError

    with running("hub", "--port", "0") as process:
        greeting = read_until(process, "Ctrl-C stops it.")
        url = re.search(r"Supabase clients +(ws://127\.0\.0\.1:\d+/realtime/v1)\n", greeting)
        assert url is not None
        assert re.search(r"Phoenix clients +ws://127\.0\.0\.1:\d+/socket\n", greeting)
        assert "1012" in run(lambda: watch(url[1], process))
        output, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert output.strip() == "stopping"
        assert "connected to '/realtime/v1/websocket'" in errors
        assert "Traceback" not in errors


@pytest.mark.long
def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = presence("hub", "--port", str(port))
    assert result.returncode == 1
    assert result.stdout == ""
    expected = f"Error: cannot listen on 127.0.0.1:{port}: the port is in use, choose another with --port\n"
    assert result.stderr == expected


@pytest.mark.long
@pytest.mark.parametrize(
    ("host", "words"),
    [("203.0.113.7", "address not available on this machine"), ("a" * 70, "this is not a valid host name")],
)
def test_an_address_that_is_not_ours_is_one_clear_line(host: str, words: str) -> None:
    result = presence("hub", "--host", host)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr


@pytest.mark.long
def test_the_hub_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    pem.write_bytes(certificate.cert_chain_pems[0].bytes())
    key.write_bytes(certificate.private_key_pem.bytes())

    async def connect(url: str) -> Any:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        async with PresenceClient(
            Identity("a", "A"), PresenceConfig(server_url=url), ssl_context=context
        ) as client:
            return await anext(client)

    with running(
        "hub", "--port", "0", "--tls-cert", str(pem), "--tls-key", str(key), "--log-level", "error"
    ) as process:
        url = re.search(r"wss://\S+/realtime/v1", read_until(process, "Ctrl-C stops it."))
        assert url is not None
        assert isinstance(run(lambda: connect(url[0])), Connected)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert errors == ""


@pytest.mark.long
def test_tls_that_cannot_work_is_one_clear_line(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    result = presence("hub", "--tls-cert", str(junk))
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: cannot use {junk} and its key: ")
    alone = presence("hub", "--tls-key", str(junk))
    assert alone.returncode == 2
    assert "--tls-key needs --tls-cert" in alone.stderr


def test_each_command_is_where_the_group_looks_for_it() -> None:
    context = click.Context(app)
    assert [app.get_command(context, name) is not None for name in MODULES] == [True] * len(MODULES)
    assert app.get_command(context, "nothing") is None
    assert app.list_commands(context) == sorted(MODULES)


def test_the_version_needs_no_command() -> None:
    code = (
        "import sys; sys.argv = ['presence', '--version']\n"
        "from presence_adapters.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print([name for name in sys.modules if name in ('rich', 'textual', 'presence_proto')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, modules = done.stdout.splitlines()
    assert version.startswith("presence ")
    assert modules == "[]"
