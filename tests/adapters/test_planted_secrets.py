"""Secrets are planted in every place that may hold one, and looked for in everything that comes out.

A new command belongs into `COMMANDS`, a new public object that holds secrets into `objects`.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import traceback
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
from click.testing import CliRunner

import presence_adapters.asyncio
import presence_adapters.blocking
import presence_adapters.stepped
import presence_adapters.trio
import presence_proto
from adapters.broken_setups import jwt
from adapters.proxy import ProxyThread
from adapters.test_cli import PRESENCE, environment, presence, read_until, running
from cli_commands import COMMANDS as BY_NAME
from presence_adapters.cli.app import app
from presence_adapters.server import HubServer, HubThread
from presence_adapters.settings.layers import load_settings
from presence_proto import HubConfig, Identity, PresenceConfig
from presence_proto.websocket import Proxy

KEY = "sb_secret_PLANTED-0/key+"
TOKEN = jwt(sub="planted", exp=9_999_999_999)
PLANTED = {
    "the api key": KEY,
    "the access token": TOKEN,
    "a header": "planted-header-1a2b3c",
    "a parameter": "planted-parameter-4d5e6f",
    "the query of the URL": "planted-query-7a8b9c",
    "the proxy's password": "planted-password-0d1e2f",
    "an argument of the token command": "planted-argument-3a4b5c",
}
USER = "ann:" + PLANTED["the proxy's password"]
FORMS = {
    form: what
    for what, secret in [*PLANTED.items(), ("the proxy's login", b64encode(USER.encode()).decode())]
    for form in (
        secret,
        quote(secret),
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        secret.partition(".")[2],
    )
    if form
}
"""All forms that a secret may come out in, and which it is."""


def leaks(where: str, text: str) -> list[str]:
    return [f"{what} in {where}: {text}" for form, what in FORMS.items() if form in text]


# ---------------------------------------------------------------------------------------------- worlds


def settings_file(tmp_path: Path, url: str, helper: str = f"print('{TOKEN}')") -> Path:
    """Settings with a secret at every place but the proxy, which is in the environment."""
    script = tmp_path / "helper.py"
    script.write_text(f"import sys\n{helper}\n")
    command = [sys.executable, str(script), PLANTED["an argument of the token command"]]
    path = tmp_path / "config.toml"
    path.write_text(
        f"""[presence]
server_url = "{url}?hidden_token={PLANTED["the query of the URL"]}"
api_key = "{KEY}"
access_token_command = {json.dumps(command)}
identity_file = "identity.json"
reconnect_delay = 0.2
params = {{ more_token = "{PLANTED["a parameter"]}" }}
headers = {{ X-Planted-Token = "Bearer {PLANTED["a header"]}" }}
"""
    )
    path.chmod(0o644)  # so that there is a warning, too
    return path


@contextmanager
def echo() -> Iterator[str]:
    """A server that refuses everybody, and quotes all that it was told."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with sock, suppress(OSError):
                    body = sock.recv(65536)
                    sock.sendall(b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def quotes_the_token(topic: str, token: str | None) -> str:
    return f"Unauthorized: not with {token}"


COMMANDS = [
    "whoami",
    "whoami --json --name Ann",
    "doctor",
    "doctor --json",
    "doctor --debug",
    "online",
    "online --json",
    "online --debug",
    "status in_game Snake --seconds 0.3",
    "poke nobody",
    "invite Snake --code 1",
    "chat lobby hello --json",
]
"""Command lines that end by themselves, without the settings."""

FOR_EVER = ["watch --plain --debug"]
"""Those that do not."""

IN_PROCESSES = ["doctor", "online", *FOR_EVER]
"""Command lines for processes of their own, each of which costs half a second."""


def said_by_processes(file: Path) -> list[str]:
    """What `IN_PROCESSES` say with these settings, all at once. Those that go on for ever are interrupted."""
    found = []
    with ExitStack() as stack:
        running = []
        for line in IN_PROCESSES:
            process = subprocess.Popen(
                [*PRESENCE, *line.split(), "--config", str(file)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                env=environment(),
            )
            stack.callback(process.kill)
            running.append((line, process))
        for line, process in running:
            if line in FOR_EVER:
                process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
            found.append(f"$ presence {line}\n{output}[{process.returncode}]")
    return found


def said(file: Path, timeout: str) -> Iterator[str]:
    """What `COMMANDS` say, in this process."""
    for line in COMMANDS:
        words = [*line.split(), "--config", str(file)]
        if "--timeout" in [option for each in BY_NAME[words[0]].params for option in each.opts]:
            words += ["--timeout", timeout]
        result = CliRunner().invoke(app, words)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        yield f"$ presence {line}\n{result.output}[{result.exit_code}]"


@pytest.mark.long
def test_commands_in_a_room_behind_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = tmp_path / "hub.jsonl"
    hub_options = ["--port", "0", "--log-level", "debug", "--record", str(recording)]
    with ProxyThread() as proxy, running("hub", *hub_options) as hub:
        greeting = read_until(hub, "Ctrl-C stops it.")
        port = re.search(r"127\.0\.0\.1:(\d+)", greeting)
        assert port is not None
        file = settings_file(tmp_path, f"ws://room.test:{port[1]}/realtime/v1")
        monkeypatch.setenv("http_proxy", f"http://{USER}@127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        told = [*said_by_processes(file), *said(file, "5")]
        hub.send_signal(signal.SIGINT)
        told += hub.communicate(timeout=10)
        everything = "\n".join([*told, greeting, recording.read_text("utf-8")])
    # The secrets were used, and the commands have worked.
    assert b"Proxy-Authorization: Basic " + b64encode(USER.encode()) in proxy.requests[0]
    for words in ("All is well.", "other users can read it", "connected to '/realtime/v1/websocket'"):
        assert words in everything, everything
    assert leaks("the output", everything) == []


@pytest.mark.long
@pytest.mark.parametrize("world", ["echo", "join", "command"])
def test_commands_that_fail(world: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with ExitStack() as stack:
        if world == "join":
            hub = stack.enter_context(HubThread(HubConfig(authorize=quotes_the_token)))
            file = settings_file(tmp_path, hub.url)
        else:
            helper = "print(sys.argv); sys.exit(f'cannot use {sys.argv} ' + 'x=" + TOKEN + "')"
            url = stack.enter_context(echo())
            file = settings_file(tmp_path, url, *([helper] if world == "command" else []))
        everything = "\n".join(said(file, "0.2"))
    words = {"echo": "HTTP 403", "join": "Unauthorized: not with …", "command": "ended with exit status 1"}
    assert everything.count(words[world]) >= 6  # the others need no server, or are in JSON
    assert "Traceback" not in everything
    assert leaks("the output", everything) == []


# ---------------------------------------------------------------------------------------------- objects


def config(url: str) -> PresenceConfig:
    return PresenceConfig(
        server_url=f"{url}?hidden_token={PLANTED['the query of the URL']}",
        api_key=KEY,
        access_token=TOKEN,
        params={"more_token": PLANTED["a parameter"]},
        headers={"X-Planted-Token": f"Bearer {PLANTED['a header']}"},
        reconnect_delay=0.05,
        max_reconnect_delay=0.05,
    )


def objects(url: str, tmp_path: Path) -> list[Any]:
    """All public things that are made of secrets."""
    identity, made = Identity("ann", "Ann", TOKEN), config(url)
    settings = load_settings(settings_file(tmp_path, url), {})
    kinds: list[Any] = [presence_adapters.asyncio, presence_adapters.blocking]
    clients = [kind.PresenceClient(identity, made) for kind in [*kinds, presence_adapters.stepped]]
    clients += [kind.RealtimeClient(made) for kind in kinds]
    cores = [presence_proto.PresenceClient(identity, made), presence_proto.RealtimeClient(made)]
    hub_config = HubConfig(api_keys={KEY, TOKEN})
    hubs = [HubServer(hub_config), HubThread(hub_config), presence_proto.Hub(hub_config)]
    parts = [made.address(TOKEN), settings.config, Proxy.from_url(f"http://{USER}@127.0.0.1:3128")]
    return [identity, made, settings, *parts, *clients, *cores, hub_config, *hubs]


async def on_trio(url: str) -> list[Any]:
    made: list[Any] = [presence_adapters.trio.PresenceClient(Identity("ann", "Ann", TOKEN), config(url))]
    return [*made, presence_adapters.trio.RealtimeClient(config(url))]


def test_no_object_shows_what_it_was_made_of(tmp_path: Path) -> None:
    for made in trio.run(on_trio, "ws://127.0.0.1:1/socket"):
        assert leaks(type(made).__name__, f"{made!r} {made}") == []
    for made in objects("ws://127.0.0.1:1/socket", tmp_path):
        text = f"{made!r} {made} {made:}" + repr([made]) + repr({"k": made})
        assert leaks(type(made).__name__, text) == []


async def session(url: str, record: io.StringIO) -> list[Any]:
    """What a client hears in half a second, in which it says something, and what its commands raise."""
    heard: list[Any] = []
    async with presence_adapters.asyncio.PresenceClient(
        Identity("ann", "Ann", TOKEN), config(url), record=record
    ) as client:
        try:
            async with asyncio.timeout(0.5):
                await client.send_chat("lobby", "hello")
                async for event in client:
                    heard.append(event)
        except TimeoutError:
            pass
        except presence_proto.PresenceError as exc:  # the server has refused us for good
            heard.append("".join(traceback.format_exception(exc)))
        try:
            await client.send_chat("lobby", "hello")
        except presence_proto.PresenceError as exc:
            heard.append("".join(traceback.format_exception(exc)))
    return heard


async def joins(url: str) -> list[Any]:
    heard: list[Any] = []
    async with presence_adapters.asyncio.RealtimeClient(config(url)) as client:
        try:
            await client.join("realtime:room")
        except presence_proto.PresenceError as exc:
            heard += ["".join(traceback.format_exception(exc)), vars(exc)]
    return heard


@pytest.mark.parametrize("world", ["well", "echo", "join"])
def test_no_event_exception_log_or_recording_shows_them(
    world: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    record = io.StringIO()
    with ExitStack() as stack:
        if world == "echo":
            url = stack.enter_context(echo())
        else:
            rule = quotes_the_token if world == "join" else None
            url = stack.enter_context(HubThread(HubConfig(authorize=rule))).url
        heard = asyncio.run(session(url, record), debug=True)
        if world != "well":
            heard += asyncio.run(joins(url))
    captured = capfd.readouterr()
    words = {"well": "Connected(", "echo": "HTTP 403", "join": "Unauthorized: not with …"}
    assert words[world] in repr(heard)
    assert record.getvalue().count("\n") > 3
    entries = [vars(entry) for entry in caplog.records]
    assert entries
    for where, text in {
        "an event": repr(heard) + "".join(map(str, heard)),
        "the log": repr(entries),
        "the recording": record.getvalue(),
        "the output": captured.out + captured.err,
    }.items():
        assert leaks(where, text) == []


def test_the_search_finds_what_is_there() -> None:
    for secret, what in (
        (KEY, "the api key"),
        (quote(KEY, safe=""), "the api key"),
        (TOKEN, "the access token"),
    ):
        assert leaks("here", f"a {secret} b")[0].startswith(f"{what} in here")


# ---------------------------------------------------------------------------------------------- precedence


@pytest.mark.long
def test_flags_go_over_the_environment_which_goes_over_the_file_in_a_real_command(tmp_path: Path) -> None:
    def url(name: str) -> str:
        return f"ws://{name}.invalid/socket"

    def told(*flags: str, **env: str) -> tuple[str, str]:
        home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
        result = presence("doctor", "--json", "--timeout", "0.01", *flags, **home, **env)
        found = json.loads(result.stdout.splitlines()[0])["found"]
        server, _, source = found.partition(", from ")
        return server.removeprefix("Phoenix at ").removesuffix("/websocket"), source

    folder = tmp_path / "presence"
    folder.mkdir()
    usual, named = folder / "config.toml", tmp_path / "named.toml"
    usual.write_text(f'[presence]\nserver_url = "{url("usual")}"\n')
    named.write_text(f'[presence]\n\nserver_url = "{url("named")}"\n')
    flag = ("--server-url", url("flag"))
    env = {"PRESENCE_SERVER_URL": url("env")}
    assert told() == (url("usual"), f"{usual}:2")
    assert told(PRESENCE_CONFIG=str(named)) == (url("named"), f"{named}:3")
    assert told("--config", str(named), PRESENCE_CONFIG=str(usual)) == (url("named"), f"{named}:3")
    assert told(**env) == (url("env"), "PRESENCE_SERVER_URL")
    assert told(*flag, "--config", str(named), **env) == (url("flag"), "--server-url")
    assert told(PRESENCE_SERVER_URL="") == (url("usual"), f"{usual}:2")
