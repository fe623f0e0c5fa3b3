"""A wrong value for every setting, at every place: the error names both, and what would be right.

More forms of wrong files are in test_config_file.py.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from presence_adapters.cli.app import app
from presence_adapters.cli.options import has_flag
from presence_adapters.settings.keys import KEYS
from presence_adapters.settings.layers import SettingsError, load_settings

NUMBER = "must be a number of seconds, such as 30"
COUNT = "must be a whole number"
CONTROLS = "must not hold line breaks or other control characters"

WRONG = {
    "enabled": ("maybe", 'must be true or false, not "maybe"'),
    "server_url": ("a/b", "must be a Supabase project ref (letters, digits and dashes) or a whole URL"),
    "api_key": ("two words", "must not hold spaces"),
    "api_key_file": ("/nowhere/key", "cannot read /nowhere/key: no such file or directory"),
    "access_token": ("a\tb", CONTROLS),
    "access_token_file": ("/nowhere/token", "cannot read /nowhere/token: no such file or directory"),
    "access_token_command": ("print 'it", "has a quotation mark that is never closed"),
    "access_token_timeout": ("0", "must be more than 0 seconds, not 0"),
    "display_name": (" ", "must be printable characters, and not only spaces"),
    "identity_file": ("a\x01b", CONTROLS),
    "tls_ca": ("/nowhere/ca.pem", "cannot read /nowhere/ca.pem: no such file or directory"),
    "proxy": ("socks4://proxy.test:1080", "must start with http:// or socks5://: no other kind is supported"),
    "protocol": ("supabase", 'must be "phoenix" or "jarvis", not "supabase"'),
    "channel": ("a\nb", CONTROLS),
    "visible": ("sometimes", 'must be true or false, not "sometimes"'),
    "vsn": ("3.0.0", 'must be "1.0.0" or "2.0.0", not "3.0.0"'),
    "params": ("a=b", "must be a table of strings"),
    "headers": ("a: b", "must be a table of strings"),
    "user_agent": ("Ägent", "must be printable ASCII or None, not 'Ägent'"),
    "subprotocols": ("a b", "must be a"),
    "token_in": ("header", 'must be "query" or "subprotocol" or "none", not "header"'),
    "token_param": ("apikey", "must name a parameter other than vsn and apikey"),
    "deflate": ("9", "must be true or false, not"),
    "heartbeat_interval": ("soon", f'{NUMBER}, not "soon"'),
    "heartbeat_timeout": ("-3", "must be at least 0.001 seconds, not -3"),
    "connect_timeout": ("0", "must be at least 0.001 seconds, not 0"),
    "join_timeout": ("nan", "must be a finite number"),
    "push_timeout": ("inf", "must be a finite number"),
    "state_timeout": ("ten", f'{NUMBER}, not "ten"'),
    "close_timeout": ("-0.5", "must be at least 0.001 seconds, not -0.5"),
    "command_timeout": ("5s", f'{NUMBER}, not "5s"'),
    "restart_grace": ("-1", "must be 0 or at least 0.001 seconds, not -1"),
    "reconnect_delay": ("60", "max_reconnect_delay (30) must be at least reconnect_delay (60)"),
    "max_reconnect_delay": ("0.5", "max_reconnect_delay (0.5) must be at least reconnect_delay (1)"),
    "jitter": ("1.5", "must be a number from 0 to 1, not 1.5"),
    "stable_after": ("1,5", f'{NUMBER}, not "1,5"'),
    "max_final_refusals": ("-1", f"{COUNT} of at least 1, not -1"),
    "rejoin_after_close": ("9", "must be true or false, not"),
    "track_limit": ("-1", f"{COUNT} of at least 1, not -1"),
    "track_window": ("0", "must be at least 0.001 seconds, not 0"),
    "max_message_size": ("1MB", f'{COUNT}, such as 100, not "1MB"'),
    "max_nesting": ("19", f"{COUNT} from 20 to 250, not 19"),
    "max_channels": ("0", f"{COUNT} of at least 1, not 0"),
    "max_pending_pushes": ("many", f'{COUNT}, such as 100, not "many"'),
    "max_pending_diffs": ("-7", f"{COUNT} of at least 1, not -7"),
    "max_pending_bytes": ("0", f"{COUNT} of at least 1, not 0"),
    "max_roster": ("10_00_", f'{COUNT}, such as 100, not "10_00_"'),
    "max_metas": ("1.5", f"{COUNT}, such as 100, not"),
}
"""The setting, a wrong value as text, and what the error says after the name of the setting."""

EVERY = pytest.mark.parametrize(("key", "text", "words"), [(key, *rest) for key, rest in WRONG.items()])


def as_toml(key: str, text: str) -> str:
    """The same value in a file: a number or a switch, if it looks like one."""
    if not KEYS[key].kind.is_string:
        try:
            tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            pass
        else:
            return text
    return json.dumps(text)


def check(problem: str, key: str, words: str) -> None:
    assert key in problem
    assert words in problem
    assert len(problem.splitlines()) == 1


def test_every_setting_has_a_wrong_value() -> None:
    assert list(WRONG) == list(KEYS)
    assert len(WRONG) >= 30


@EVERY
def test_in_the_file(key: str, text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[presence]\n{key} = {as_toml(key, text)}\n")
    file.chmod(0o600)
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}:2: ")
    check(problem, key, words)


@EVERY
def test_in_the_environment(key: str, text: str, words: str, tmp_path: Path) -> None:
    variable = f"PRESENCE_{key.upper()}"
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {variable: text, "XDG_CONFIG_HOME": str(tmp_path)})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{variable}: ")
    check(problem, key, words if KEYS[key].kind.from_text else "can be set in the file only")


@pytest.mark.parametrize(
    ("key", "text", "words"), [(key, *rest) for key, rest in WRONG.items() if has_flag(KEYS[key])]
)
def test_on_the_command_line(
    key: str, text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "LOCALAPPDATA", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    flag = f"--{key.replace('_', '-')}"
    result = CliRunner().invoke(app, ["whoami", flag, text])
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {flag}: ")
    check(result.output.strip(), key, words)
