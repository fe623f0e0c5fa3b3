"""Secrets: where they may come from, and that they go nowhere else."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from presence_adapters.settings.files import LONGEST_SAYING, redacted, run_for_secret
from presence_adapters.settings.keys import KEYS
from presence_adapters.settings.layers import SettingsError, load_settings
from presence_proto import ConfigError

PLANTED = "sb_secret_PLANTED_0123456789"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJlLXBsYW50ZWQ"

posix = pytest.mark.skipif(os.name != "posix", reason="these are programs of POSIX")


def script(tmp_path: Path, code: str) -> list[str]:
    path = tmp_path / "token-helper"
    path.write_text(f"import os, sys, time\n{code}\n")
    return [sys.executable, str(path)]


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["[presence]", *lines]))
    path.chmod(0o600)
    return path


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def toml_list(words: list[str]) -> str:
    return "[" + ", ".join(f"'{word}'" for word in words) + "]"


# ---------------------------------------------------------------------------------------------- where from


def test_from_files(tmp_path: Path) -> None:
    key = private(tmp_path / "key", f"\ufeff{PLANTED}\r\n")
    token = private(tmp_path / "token", f"  {JWT}\n")
    file = written(
        tmp_path / "c.toml", 'server_url = "abc"', 'api_key_file = "key"', 'access_token_file = "token"'
    )
    settings = load_settings(file, {})
    assert settings.warnings == ()
    assert settings.config.api_key == PLANTED
    assert str(settings.source_of("api_key")) == str(key)
    assert settings.config.access_token is None
    assert settings.access_token() == JWT
    token.write_text("a-newer-one")
    assert settings.access_token() == "a-newer-one"
    token.unlink()
    with pytest.raises(
        SettingsError, match=r"c\.toml:4: access_token_file: cannot read .*token: no such file"
    ):
        settings.access_token()


def test_as_they_are(tmp_path: Path) -> None:
    settings = load_settings(None, {"PRESENCE_SERVER_URL": "abc", "PRESENCE_ACCESS_TOKEN": JWT})
    assert settings.config.access_token == settings.access_token() == JWT
    assert load_settings(written(tmp_path / "c.toml"), {}).access_token() is None


@posix
@pytest.mark.parametrize("name", ["api_key_file", "access_token_file"])
def test_a_secret_file_that_others_can_read(tmp_path: Path, name: str) -> None:
    path = private(tmp_path / "key", PLANTED)
    path.chmod(0o640)
    settings = load_settings(written(tmp_path / "c.toml", f'{name} = "key"'), {})
    assert settings.warnings == (f"{path}: other users can read this secret: chmod 600 it",)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"two words", "must be one word, and nothing else"),
        (f"KEY={PLANTED}\nOTHER=1\n".encode(), "must be one word"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"a\0b", "must be one word"),
        (b"x" * (1024 * 1024 + 1), "it is larger than"),
    ],
)
def test_a_secret_file_that_is_none(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "key").write_bytes(content)
    file = written(tmp_path / "c.toml", 'api_key_file = "key"')
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    assert str(caught.value).startswith(f"{file}:2: api_key_file: ")
    assert fault in str(caught.value)
    assert PLANTED not in str(caught.value)


@pytest.mark.parametrize("lower", ["access_token", "access_token_file", "access_token_command"])
def test_a_token_of_the_environment_sets_aside_the_files(tmp_path: Path, lower: str) -> None:
    file = written(tmp_path / "c.toml", f'{lower} = "elsewhere"')
    assert load_settings(file, {"PRESENCE_ACCESS_TOKEN": "mine"}).access_token() == "mine"
    path = private(tmp_path / "token", "of-a-file")
    assert load_settings(file, {"PRESENCE_ACCESS_TOKEN_FILE": str(path)}).access_token() == "of-a-file"
    flags = {"access_token": "flag"}
    assert load_settings(file, {"PRESENCE_ACCESS_TOKEN_FILE": "/nowhere"}, flags).access_token() == "flag"


def test_two_ways_in_one_place_are_a_mistake(tmp_path: Path) -> None:
    file = written(tmp_path / "c.toml", 'access_token_command = "x"', 'access_token = "y"')
    with pytest.raises(SettingsError, match=r"c\.toml:2: give either access_token or access_token_command"):
        load_settings(file, {})


# ---------------------------------------------------------------------------------------------- commands


def test_a_command_is_asked_each_time(tmp_path: Path) -> None:
    command = script(tmp_path, "n = len(os.listdir('.')); open(str(n), 'w'); print(f'token-{n}')")
    folder = tmp_path / "runs"
    folder.mkdir()
    command = [command[0], "-c", f"import os; os.chdir({str(folder)!r}); exec(open({command[1]!r}).read())"]
    path = tmp_path / "c.toml"
    path.write_text("")
    settings = load_settings(path, {}, {"access_token_command": tuple(command)})
    assert [settings.access_token() for _ in range(3)] == ["token-0", "token-1", "token-2"]


def test_the_provider_for_a_client(tmp_path: Path) -> None:
    token = private(tmp_path / "token", "of-a-file")
    settings = load_settings(written(tmp_path / "c.toml", "access_token_file = 'token'"), {})
    assert settings.token_provider is not None
    assert settings.token_provider() == "of-a-file"
    token.write_text("a-newer-one")
    assert settings.token_provider() == "a-newer-one"
    by_command = load_settings(written(tmp_path / "c.toml", "access_token_command = 'none'"), {})
    assert by_command.token_provider == by_command.access_token
    for line in (f"access_token = '{JWT}'", ""):
        assert load_settings(written(tmp_path / "c.toml", line), {}).token_provider is None


@posix
def test_a_command_is_no_line_for_a_shell(tmp_path: Path) -> None:
    file = written(tmp_path / "c.toml", "access_token_command = \"printf '%s' 'a$HOME;b|c'\"")
    assert load_settings(file, {}).access_token() == "a$HOME;b|c"


def test_a_command_gets_no_input(tmp_path: Path) -> None:
    assert run_for_secret(tuple(script(tmp_path, "print(len(sys.stdin.read()))")), 20) == "0"


@posix
def test_a_command_has_a_time_limit_and_so_has_what_it_starts(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"sh took longer than 0\.2 seconds"):
        run_for_secret(("sh", "-c", f"(sleep 5; touch {tmp_path}/late) & sleep 5"), 0.2)
    with pytest.raises(ConfigError, match=r"sh took longer than 0\.2 seconds"):
        run_for_secret(("sh", "-c", "sleep 5 & echo abc"), 0.2)  # what is left holds on to the pipe
    assert time.monotonic() - started < 4
    assert not (tmp_path / "late").exists()


@posix
@pytest.mark.parametrize("text", ["0.2", 0.2])
def test_the_time_limit_is_a_setting(text: Any) -> None:
    env = {"PRESENCE_ACCESS_TOKEN_COMMAND": "sleep 5"}
    settings = load_settings(None, env, {"access_token_timeout": text})
    with pytest.raises(
        SettingsError, match=r"^PRESENCE_ACCESS_TOKEN_COMMAND: .* took longer than 0\.2 seconds$"
    ):
        settings.access_token()


def test_a_command_that_is_interrupted_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("subprocess.Popen.communicate", interrupted)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_for_secret(tuple(script(tmp_path, "time.sleep(30)")), 60)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("sys.exit('no such item: supabase')", "ended with exit status 1: no such item: supabase"),
        ("sys.exit(3)", "ended with exit status 3 and printed no error"),
        ("print('a b')", "must be one word, and nothing else"),
        ("", "is empty"),
        ("sys.stdout.buffer.write(b'\\xff')", "is not UTF-8 text"),
        (f"print('{JWT}'); sys.exit('bad {JWT}')", "ended with exit status 1: bad …"),
        (f"sys.exit('refused: {PLANTED}')", "ended with exit status 1: refused: …"),
        ("print('hunter2-x'); sys.exit('hunter2-x was refused')", "ended with exit status 1: … was refused"),
        ("sys.exit('a\\n\\x1b[31mb\\tc')", "ended with exit status 1: a [31mb c"),
    ],
)
def test_a_command_that_fails_is_quoted_without_secrets(tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_for_secret(tuple(script(tmp_path, code)), 20)
    assert words in str(caught.value)
    assert Path(sys.executable).name in str(caught.value)


@posix
def test_a_command_that_is_killed() -> None:
    with pytest.raises(ConfigError, match="sh ended by signal 9 and printed no error"):
        run_for_secret(("sh", "-c", "kill -9 $$"), 20)


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    file = written(tmp_path / "c.toml", f'access_token_command = "/nowhere/get-it --key {PLANTED}"')
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {}).access_token()
    assert (
        str(caught.value) == f"{file}:2: access_token_command: cannot run get-it: no such file or directory"
    )


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("item not found in keychain", "item not found in keychain"),
        ("/usr/local/bin/helper: line 12: syntax error", "/usr/local/bin/helper: line 12: syntax error"),
        ("password: hunter2", "password: …"),
        ("API_KEY='short'", "API_KEY='…'"),
        ("Authorization: Bearer abc", "Authorization: …"),
        ("got bearer abc1 from cache", "got bearer … from cache"),
        ("the token has expired", "the token has expired"),
        ("invalid token t0ken", "invalid token …"),
        (f'{{"jwt": "{JWT}"}}', '{"jwt": "…"}'),
        (f"<{JWT}>", "<…>"),
        ("mine: my-very-own, said my-very-own", "mine: …, said …"),
        ("x" * 400, "…" + "x" * LONGEST_SAYING),
    ],
)
def test_redacted(said: str, left: str) -> None:
    assert redacted(said, ("my-very-own",)) == left


# ---------------------------------------------------------------------------------------------- where to


def said_by(attempt: Callable[..., object], *arguments: object) -> str:
    """All that comes out of something: its result, or its exception with the whole traceback."""
    try:
        result = attempt(*arguments)
    except Exception as exc:
        return f"{exc} {exc!r} {''.join(traceback.format_exception(exc))}"
    return f"{result} {result!r}"


def settings_say(*arguments: Any) -> str:
    """All that comes out of loading settings, and of what was loaded."""
    try:
        settings = load_settings(*arguments)
    except SettingsError:
        return said_by(load_settings, *arguments)
    sources = [settings.source_of(key) for key in KEYS]
    return f"{settings} {settings.warnings} {sources} {said_by(lambda: settings.config)}"


STRINGS = [
    "api_key",
    "access_token",
    "server_url",
    "protocol",
    "vsn",
    "enabled",
    "heartbeat_interval",
    "channel",
]
STRINGS += ["max_roster", "headers", "params", "subprotocols", "token_param", "jitter", "display_name"]
FORMS = [
    "{key} = '{secret}'",
    "{key} = '{secret} and {secret}'",
    "{key} = ['{secret}', 5]",
    "{key} = {{ '{secret}' = '{secret}\\t', vsn = '{secret}' }}",
    "{key} = {{ 'a b' = '{secret}', x = ['{secret}'] }}",
    "{key} = '''ws://{secret}@host/?apikey={secret}'''",
    "{key} = 'ws://host:80x/?apikey={secret}'",
    "{key} = 'wss://{secret}.ho st/{secret}'",
    "{key} = {secret}",
    "{key} = '{secret}",
    "'{secret}' = '{secret}'",
    "{key} = {{ '{secret}' = 1, '{secret}' = 2 }}",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [PLANTED, JWT])
def test_no_secret_in_any_output(
    tmp_path: Path,
    form: str,
    secret: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    output = []
    for key in STRINGS:
        line = form.format(key=key, secret=secret)
        file = tmp_path / "c.toml"
        file.write_text(f"[presence]\n{line}\n")
        file.chmod(0o666)
        value = line.partition(" = ")[2].strip("'")
        variables = {f"PRESENCE_{key.upper()}": value, f"PRESENCE_{key.upper()}X": value}
        output += [
            settings_say(file, {}),
            settings_say(None, {"PRESENCE_CONFIG": str(file)}),
            settings_say(None, variables),
            settings_say(None, {}, {key: value, "access_token_timeout": value}),
        ]
    captured = capfd.readouterr()
    everything = "\n".join([*output, captured.out, captured.err, caplog.text])
    # What is set as a channel or a parameter's name is one, and stands in the config's repr.
    everything = re.sub(r"(channel|token_param|subprotocols)=('[^']*'|\([^)]*\))", "", everything)
    assert len(output) == 4 * len(STRINGS)
    assert secret not in everything


def test_no_secret_of_a_failing_command_in_any_output(tmp_path: Path) -> None:
    key = "the-key-that-is-known"
    code = f"sys.stderr.write('{PLANTED} {key} header-value x={JWT} '); print('{JWT}'); sys.exit(1)"
    words = [*script(tmp_path, code), f"--with={PLANTED}"]
    file = written(
        tmp_path / "c.toml",
        'server_url = "abc"',
        f"api_key = '{key}'",
        f"access_token_command = {toml_list(words)}",
        "headers = { Authorization = 'Basic header-value' }",
    )
    settings = load_settings(file, {})
    output = f"{said_by(settings.access_token)} {settings!r} {settings.config!r}"
    assert "ended with exit status 1" in output
    for secret in (PLANTED, JWT, key, "header-value"):
        assert secret not in output
