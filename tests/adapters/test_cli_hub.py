"""`presence hub`: its options, what it prints to be pasted, and its goodbye, on every wire."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import trustme
from attrs import fields_dict
from click.testing import CliRunner

from adapters.fakes import run
from adapters.test_cli import environment, presence, read_until, running
from cli_commands import COMMANDS, CONTEXT
from presence_adapters.asyncio import PresenceClient, RealtimeClient
from presence_adapters.cli.hub import DEFAULTS, RATES, STRICT, hub
from presence_adapters.cli.output import PrintableFormatter
from presence_adapters.cli.serve import greeting
from presence_proto import Connected, Disconnected, HubConfig, Identity, PresenceConfig, RealtimeConfig

KEY = "planted-0123456789"


def section(greeted: str, start: str) -> str:
    """What stands indented below a line of the greeting."""
    block = re.search(rf"^{start}[^\n]*:\n\n((?:(?:  [^\n]*)?\n)+)", greeted, re.MULTILINE)
    assert block is not None
    return re.sub("^  ", "", block[1], flags=re.MULTILINE).strip() + "\n"


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.long
@pytest.mark.parametrize(
    ("protocol", "guarded"),
    [("both", False), ("phoenix", True), ("jarvis", True)],
    ids=["both", "phoenix", "jarvis"],
)
def test_what_it_prints_works_as_it_is(protocol: str, guarded: bool, tmp_path: Path) -> None:
    options, env = ["--protocol", protocol], {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    if guarded:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        pem, trust = tmp_path / "server.pem", tmp_path / "ca.pem"
        certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
        authority.cert_pem.write_to_path(str(trust))
        key = private(tmp_path / "key", f"{KEY}\n")
        options += ["--tls-cert", str(pem), "--api-key-file", str(key)]
        env |= {"SSL_CERT_FILE": str(trust)}  # as for a certificate that the system trusts
    with running("hub", "--port", "0", "--log-level", "debug", *options) as process:
        greeted = read_until(process, "Ctrl-C stops it.")
        names = re.findall(r"^  (\w+) clients +wss?://127\.0\.0\.1:\d+", greeted, re.MULTILINE)
        phoenix, jarvis = ["Supabase", "Phoenix"], ["Jarvis"]
        assert names == (phoenix if protocol != "jarvis" else []) + (jarvis if protocol != "phoenix" else [])

        code = ["-u", "-W", "error", "-c", section(greeted, "A client to try")]
        with subprocess.Popen(
            [sys.executable, *code], stdout=subprocess.PIPE, text=True, env=environment(**env)
        ) as client:
            assert client.stdout is not None
            first = client.stdout.readline()
            client.kill()
        assert first.startswith("Connected(online_count=1, users=(OnlineUser(user_id='alice'")

        file = private(tmp_path / "config.toml", section(greeted, "Or, for"))
        result = presence("doctor", "--config", str(file), **env)
        assert result.stdout.endswith("All is well.\n"), result.stdout

        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=10)
        assert (process.returncode, output) == (0, "stopping\n")
        assert KEY not in greeted + output + errors


@pytest.mark.long
@pytest.mark.parametrize(
    "options", [["--protocol", "both"], ["--protocol", "jarvis"], ["--protocol", "phoenix"], []]
)
def test_the_older_protocol_is_shown_when_it_is_asked_for(options: list[str]) -> None:
    with running("hub", "--port", "0", *options) as process:
        greeted = read_until(process, "Ctrl-C stops it.")
        port = re.search(r":(\d+)", greeted)
        assert port is not None
        assert ("Jarvis" in greeted) is ({"both", "jarvis"} >= {*options[1:]} != set())
        if options in ([], ["--protocol", "both"]):  # it is spoken all the same

            async def visit() -> None:
                config = PresenceConfig(server_url=f"ws://127.0.0.1:{port[1]}", protocol="jarvis")
                async with PresenceClient(Identity("a", "A"), config) as client:
                    assert isinstance(await anext(client), Connected)

            run(visit)


def test_the_help_of_other_commands_speaks_of_rooms_and_users() -> None:
    for name, command in COMMANDS.items():
        context = click.Context(command, parent=CONTEXT, info_name=name)
        assert name == "hub" or "jarvis" not in context.get_help().lower()


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["phoenix", "jarvis"])
@pytest.mark.parametrize("served", ["both", "alone"])
def test_a_goodbye_tells_everybody_to_come_back(protocol: str, served: str) -> None:
    async def watch(url: str, process: Any) -> str:
        config = PresenceConfig(server_url=url, protocol=protocol, reconnect_delay=60, max_reconnect_delay=60)  # type: ignore[arg-type]  # a parameter
        async with PresenceClient(Identity("a", "A"), config) as client:
            async for event in client:
                if isinstance(event, Connected):
                    process.send_signal(signal.SIGINT)
                elif isinstance(event, Disconnected):
                    return event.reason
        raise AssertionError

    with running("hub", "--port", "0", "--protocol", protocol if served == "alone" else "both") as process:
        greeted = read_until(process, "Ctrl-C stops it.")
        url = re.search(rf"{'Jarvis' if protocol == 'jarvis' else 'Supabase'} clients +(\S+)", greeted)
        assert url is not None
        assert "1012" in run(lambda: watch(url[1], process))
        process.communicate(timeout=10)
        assert process.returncode == 0


def test_the_limits_are_those_of_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[HubConfig] = []

    async def serve(config: HubConfig, *args: Any) -> None:
        configs.append(config)

    monkeypatch.setattr("presence_adapters.cli.hub.serve", serve)
    options = "--protocol jarvis --max-connections 3 --max-connections-per-address 2 --max-channels 4"
    options += " --max-message-size 500 --allow-origin https://a.example --allow-origin https://*.b.example"
    options += " --max-meta-size 10 --max-topic-size 20 --max-connection-size 30 --max-total-size 40"
    options += " --message-rate 7 --join-rate 8 --delivery-rate 0"
    options += " --presence-limit 6 --presence-window 0.5 --join-delay 1.5 --refusal-delay 5"
    strict: dict[str, Any] = DEFAULTS | RATES | STRICT
    for line in ("", options, "--strict", "--strict --refusal-delay 1 --handshake-refusal-delay 1"):
        assert CliRunner().invoke(hub, line.split()).exit_code == 0
    assert configs == [
        HubConfig(**DEFAULTS, **RATES),  # type: ignore[arg-type]  # of several types
        HubConfig(
            protocol="jarvis",
            allowed_origins=("https://a.example", "https://*.b.example"),
            max_connections=3,
            max_connections_per_address=2,
            max_channels=4,
            max_message_size=500,
            max_meta_size=10,
            max_topic_size=20,
            max_connection_size=30,
            max_total_size=40,
            presence_limit=6,
            message_rate=7,
            join_rate=8,
            delivery_rate=None,
            presence_window=0.5,
            join_delay=1.5,
            refusal_delay=5.0,
        ),
        HubConfig(**strict),
        HubConfig(**strict | {"refusal_delay": 1.0, "handshake_refusal_delay": 1.0}),
    ]


def test_tests_have_no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[HubConfig] = []
    monkeypatch.setattr("presence_adapters.cli.hub.control", lambda *args: configs.append(args[-1]))
    assert CliRunner().invoke(hub, ["--control"]).exit_code == 0
    assert configs == [HubConfig(**DEFAULTS)]  # type: ignore[arg-type]  # of several types


def test_a_limit_holds_in_a_process_too() -> None:
    with running("hub", "--port", "0", "--max-connections", "1", "--log-level", "error") as process:
        url = re.search(r"ws://\S+/realtime/v1", read_until(process, "Ctrl-C stops it."))
        assert url is not None

        async def crowd() -> str:
            config = PresenceConfig(server_url=url[0])
            async with PresenceClient(Identity("a", "A"), config) as first:
                assert isinstance(await anext(first), Connected)
                async with PresenceClient(Identity("b", "B"), config) as second:
                    event = await anext(second)
                    assert isinstance(event, Disconnected)
                    return event.reason

        assert "HTTP 429" in run(crowd)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-connections", "0"], "max_connections must be a whole number of at least 1, not 0"),
        (["--presence-limit", "-1"], "presence_limit must be a whole number of at least 1, not -1"),
        (["--presence-window", "nan"], "presence_window"),
        (["--max-message-size", "1M"], "'1M' is not a valid integer"),
        (["--host", ""], "--host is empty"),
        (["--protocol", "supabase"], "'supabase' is not one of 'both', 'phoenix', 'jarvis'"),
        (["--allow-origin", "a.example"], "allowed_origins: 'a.example' is not an origin"),
        (["--api-key-file", "/nowhere/key"], "File '/nowhere/key' does not exist"),
        (["--api-key-file", __file__], "must be one word, and nothing else"),
        (["--api-key-file", __file__, "--control"], "--api-key-file cannot be used with --control"),
    ],
)
def test_an_option_that_makes_no_sense_is_one_clear_line(options: list[str], words: str) -> None:
    result = CliRunner().invoke(hub, options)
    assert result.exit_code in (1, 2)
    assert words in result.output.splitlines()[-1]
    assert "Traceback" not in result.output


def test_a_reader_that_went_away_is_no_trouble_with_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(*args: Any) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr("presence_adapters.cli.hub.serve", serve)
    result = CliRunner().invoke(hub)
    assert isinstance(result.exception, SystemExit)
    assert (result.exit_code, result.output) == (1, "")


def test_a_key_that_others_can_read_gets_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(config: HubConfig, *args: Any) -> None:
        assert config.api_keys == {KEY}

    monkeypatch.setattr("presence_adapters.cli.hub.serve", serve)
    key = private(tmp_path / "key", KEY)
    key.chmod(0o644)
    result = CliRunner().invoke(hub, ["--api-key-file", str(key)])
    assert result.exit_code == 0
    assert result.output == f"Warning: {key}: other users can read this secret: chmod 600 it\n"


def test_the_help_says_every_default() -> None:
    text = " ".join(click.Context(hub, parent=CONTEXT, info_name="hub").get_help().split())
    for name in ("max_connections", "max_channels", "max_message_size"):
        assert f"[default: {fields_dict(HubConfig)[name].default}]" in text
    for default in (DEFAULTS | RATES).values():
        assert f"[default: {default:g}]" in text
    assert text.count("0 means no limit.") == len(DEFAULTS) + len(RATES)


def test_awkward_paths_are_quoted(tmp_path: Path) -> None:
    odd = tmp_path / 'a "b" \\c'
    text = greeting(HubConfig(), "wss://h:1", odd, odd)
    compile(section(text, "A client to try"), "snippet", "exec")
    assert "api_key_file = " in section(text, "Or, for")
    assert "# tls_ca = " in section(text, "Or, for")


@pytest.mark.long
def test_no_client_reaches_the_terminal_or_shows_a_token(tmp_path: Path) -> None:
    """Controls of the C1 set and marks that turn the direction of text are obeyed by terminals."""
    token, nested, old = "s3cr3t-token-of-ann", "s3cr3t-token-nested", "s3cr3t-token-of-old"

    async def visit(url: str) -> None:
        async with RealtimeClient(RealtimeConfig(server_url=f"{url}/socket", access_token=token)) as client:
            room = await client.join(
                "room:\x9b31mred\u202e", {"access_token": {"value": nested}, "user_token": old}
            )
            await room.push("say\x1b[2J", {"text": "\x9b2J\u2066 a\nforged line", "token": token})

    with running("hub", "--port", "0", "--log-level", "debug") as process:
        greeted = read_until(process, "Ctrl-C stops it.")
        port = re.search(r"127\.0\.0\.1:(\d+)", greeted)
        assert port is not None
        run(lambda: visit(f"ws://127.0.0.1:{port[1]}"))
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=20)
    assert "room:" in log
    assert "forged line" in log
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066]", log)
    assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in log.splitlines()), log
    assert "s3cr3t" not in log


def test_a_traceback_in_the_log_of_a_hub_is_printable() -> None:
    formatter = PrintableFormatter("%(levelname)s %(message)s")
    try:
        raise ValueError("a\x9bb")
    except ValueError:
        record = logging.LogRecord(
            "hub", logging.ERROR, "", 0, "the \u202e%s", ("hub\nERROR forged",), sys.exc_info()
        )
    first, *rest = formatter.format(record).split("\n")
    assert first == "ERROR the \N{REPLACEMENT CHARACTER}hub\N{REPLACEMENT CHARACTER}ERROR forged"
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "ValueError: a\N{REPLACEMENT CHARACTER}b"
