"""The configuration file: what it may say, and what it says about what it may not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attrs import fields_dict

from presence_adapters.settings.files import read_config_file
from presence_adapters.settings.keys import KEYS, nearest, shown, without_long_quotes
from presence_adapters.settings.layers import SettingsError, load_settings
from presence_proto import PresenceConfig

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def problems(file: Path, text: str | bytes) -> list[str]:
    """What is wrong with a file, each line without the file's path, which it begins with."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    assert str(caught.value) == "\n".join(caught.value.problems)
    start = f"{file}:"
    assert all(problem.startswith(start) for problem in caught.value.problems)
    return [problem.removeprefix(start) for problem in caught.value.problems]


LONG = "x" * 50
WRONG = [
    # types
    ('heartbeat_interval = "soon"', 'heartbeat_interval must be a number of seconds, such as 30, not "soon"'),
    ('heartbeat_interval = "30"', 'such as 30, not "30" (without the quotation marks)'),
    ("heartbeat_interval = true", "heartbeat_interval must be a number of seconds, such as 30, not true"),
    ("heartbeat_interval = [30]", "such as 30, not a list"),
    ("heartbeat_interval = { seconds = 30 }", "such as 30, not a table"),
    ("heartbeat_interval = 07:32:00", "such as 30, not a date or time"),
    ("connect_timeout = 1979-05-27", "connect_timeout must be a number of seconds"),
    ('enabled = "true"', 'enabled must be true or false, not "true" (without the quotation marks)'),
    ('enabled = "yes"', 'enabled must be true or false, not "yes"'),
    ("enabled = 1", "enabled must be true or false, not 1"),
    ('enabled = ""', 'enabled must be true or false, not ""'),
    ("deflate = 0", "deflate must be true or false, not 0"),
    ("server_url = 4000", "server_url must be a Supabase project ref"),
    ("api_key = 12345678", "api_key must be a string, not a number"),
    ("access_token = 1.5", "access_token must be a string, not a number"),
    ("display_name = true", 'display_name must be a string, such as "Alice", not true'),
    ("channel = 5", 'channel must be a string, such as "text", not 5'),
    ("tls_ca = []", "tls_ca must be the path of a file, as a string, not a list"),
    ("max_channels = 1.5", "max_channels must be a whole number, such as 100, not 1.5"),
    ('max_channels = "5"', 'not "5" (without the quotation marks)'),
    ("max_channels = true", "max_channels must be a whole number, such as 100, not true"),
    ("access_token_command = 3", 'must be a command, such as "pass show token" or ["pass", "show", "token"]'),
    ("access_token_command = [1]", "access_token_command must be a command"),
    ('subprotocols = "chat"', 'subprotocols must be a list of strings, such as ["one", "two"], not "chat"'),
    ('headers = "x"', 'headers must be a table of strings, such as { name = "value" }, not'),
    ("params = { a = 1 }", 'params: "a" must be a string, not a number'),
    (
        f'heartbeat_interval = "{"[" * 5000}"',
        "heartbeat_interval must be a number of seconds, such as 30, not",
    ),
    # ranges
    ("heartbeat_interval = 0", "heartbeat_interval must be at least 0.001 seconds, not 0"),
    ("heartbeat_timeout = -3", "heartbeat_timeout must be at least 0.001 seconds, not -3"),
    ("heartbeat_interval = inf", "heartbeat_interval must be a finite number"),
    ("join_timeout = nan", "join_timeout must be a finite number"),
    (f"join_timeout = 1{'0' * 400}", "join_timeout must be a finite number"),
    ("access_token_timeout = 0", "access_token_timeout must be more than 0 seconds, not 0"),
    ("jitter = 1.5", "jitter must be a number from 0 to 1, not 1.5"),
    ("track_limit = -1", "track_limit must be a whole number of at least 1, not -1"),
    ("max_message_size = 0", "max_message_size must be a whole number of at least 1, not 0"),
    ("reconnect_delay = 60", "max_reconnect_delay (30) must be at least reconnect_delay (60)"),
    ("max_reconnect_delay = 0.5", "max_reconnect_delay (0.5) must be at least reconnect_delay (1)"),
    # words
    ('protocol = "supabase"', 'protocol must be "phoenix" or "jarvis", not "supabase"'),
    ("vsn = 2.0", 'vsn must be "1.0.0" or "2.0.0", not 2.0'),
    ('api_key = "two words"', "api_key must not hold spaces"),
    ('api_key = "copied\u200b"', "api_key must not hold spaces or invisible characters"),
    ('api_key = " "', "api_key must be a non-empty Unicode string"),
    ('access_token = """\nab\ncd"""', "access_token must not hold line breaks"),
    ('display_name = "  "', "display_name must be printable characters, and not only spaces"),
    (r'display_name = "\u001b[31m"', "display_name must not hold line breaks or other control characters"),
    (r'tls_ca = "a\u0000b"', "tls_ca must not hold line breaks or other control characters"),
    ("access_token_command = 'a \"b'", "access_token_command has a quotation mark that is never closed"),
    ('access_token_command = " "', "access_token_command must name a program"),
    ("access_token_command = []", "access_token_command must name a program"),
    ('token_param = "vsn"', "token_param must name a parameter other than vsn and apikey, not 'vsn'"),
    ('token_in = "url"', 'token_in must be "query" or "subprotocol" or "none", not "url"'),
    ('params = { vsn = "1" }', "params must not hold 'vsn': set the vsn field"),
    ('headers = { "a b" = "c" }', "headers: 'a b' is not a header in printable ASCII"),
    ('headers = { Host = "c" }', "headers: 'Host' is reserved: the handshake sets it"),
    ('subprotocols = ["a", "a"]', "subprotocols must be a sequence of distinct HTTP tokens"),
    # servers
    ('server_url = "localhost:4000"', 'a whole URL that begins with ws:// or wss://, not "localhost:4000"'),
    ('server_url = "my_project"', "server_url must be a Supabase project ref (letters, digits and dashes)"),
    (f'server_url = "{LONG}_"', "not a string of 51 characters"),
    ('server_url = "ftp://host"', "server_url must start with ws://, wss://, http:// or https://"),
    ('server_url = "ws://"', "server_url must name a host"),
    ('server_url = "ws://host:99999"', "server_url is not a URL: its host or port is malformed"),
    ('server_url = "ws://u:p@host"', "server_url must not hold a user name or password: use headers"),
    ('server_url = "ws://host/#x"', "server_url must not hold a fragment"),
    ('server_url = "ws://a b"', "server_url 'a b' is not a host name"),
    # unknown keys
    ("hartbeat_interval = 30", 'unknown key "hartbeat_interval", did you mean heartbeat_interval?'),
    ("heartbeat-interval = 30", 'unknown key "heartbeat-interval", did you mean heartbeat_interval?'),
    ('Server_URL = "x"', 'unknown key "Server_URL", did you mean server_url?'),
    ('project_ref = "abc"', 'unknown key "project_ref", did you mean server_url?'),
    ('token = "abc"', 'unknown key "token", did you mean access_token?'),
    ("colour = 1", 'unknown key "colour": no setting has a similar name'),
    (f"{LONG} = 1", "unknown key: no setting has a similar name"),
]


@pytest.mark.parametrize(("line", "words"), WRONG, ids=[line[:40] for line, _ in WRONG])
def test_a_wrong_value_is_named_with_its_line_and_what_would_be_right(
    file: Path, line: str, words: str
) -> None:
    (problem,) = problems(file, f"# a comment\n\n[presence]\n{line}\n")
    assert problem.startswith("4: ")
    assert words in problem


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("presence.enabled = true\npresence.jitter = 2", 2),
        ("[other]\n[presence]\nenabled = true\n\njitter = 2", 5),
        ("x = 1\npresence = { enabled = true, jitter = 2 }", 2),
        ('x = """\n[presence]\njitter = 1\n"""\n["presence"]\n"jitter" = 2', 6),
        ('[presence]\nsubprotocols = [\n  "a",\n  "b"]\njitter = 2', 5),
        ("\ufeff[presence]\r\nenabled = true\r\njitter = 2\r\n", 3),
    ],
)
def test_the_line_is_found_in_every_form(file: Path, text: str, line: int) -> None:
    assert problems(file, text) == [f"{line}: jitter must be a number from 0 to 1, not 2"]


def test_what_is_in_a_table_has_lines_of_its_own(file: Path) -> None:
    text = '[presence.headers]\nX-A = "a"\nX-B = 1\n\nX-C = []\n[presence]\nenabled = true\n'
    assert problems(file, text) == [
        '3: headers: "X-B" must be a string, not a number',
        '5: headers: "X-C" must be a string, not a list',
    ]


def test_all_problems_are_reported_at_once_and_in_order(file: Path) -> None:
    text = '[presence.params]\na = 1\n[presence]\nwire = "x"\nvsn = "3"\nnonsense = 1\nserver_url = "ws://"\n'
    found = problems(file, text + 'reconnect_delay = 50\napi_key = "a"\napi_key_file = "b"\n')
    assert [int(problem.partition(":")[0]) for problem in found] == [2, 4, 5, 6, 7, 10, 10, 8]
    assert "give either api_key or api_key_file" in found[5]
    assert "api_key_file: cannot read" in found[6]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[presence]\nserver_url = wss://x",
            "2: not valid TOML at column 14: a string needs quotation marks",
        ),
        ("[presence\n", "1: not valid TOML at column 10"),
        ('[presence]\nwire = """\n\n', "4: not valid TOML: the last entry is incomplete"),
        ("[presence]\nwire", "2: not valid TOML: the last entry is incomplete"),
        ("[presence]\na = 1\na = 2\n", "3: not valid TOML at column 6"),
        (
            f"[presence]\na = {{ {LONG} = 1, {LONG} = 2 }}",
            "2: not valid TOML at column 117",
        ),
        (b"[presence]\n\nwire = '\xff'", "3: not UTF-8 text"),
        (f"a = {'9' * 5000}", " not valid TOML: a number is too long, or lists are nested too deeply"),
        (
            "a = " + "[" * 5000 + "]" * 5000,
            " not valid TOML: a number is too long, or lists are nested too deeply",
        ),
        (b"#" * (1024 * 1024 + 1), " cannot read it: it is larger than 1048576 bytes"),
        ("[[presence]]", "1: presence must be a table, [presence], not [[presence]]"),
        ("\npresence = true", "2: presence must be a table, [presence], not true"),
        ("[theme]\n[presense]\n", "2: unknown table [presense], did you mean [presence]?"),
        ("# x\nserver_url = 'abc'", "2: server_url must be in the table [presence]"),
    ],
)
def test_a_file_that_is_none(file: Path, text: str | bytes, problem: str) -> None:
    (found,) = problems(file, text)
    assert found.startswith(problem)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read it: "):
        load_settings(tmp_path, {})


def test_a_file_that_is_not_there(file: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    assert str(caught.value) == f"{file}: there is no such file"
    with pytest.raises(FileNotFoundError):
        read_config_file(file)


def test_the_form_of_the_seed(file: Path) -> None:
    file.write_text(
        "[presence]\n"
        "enabled = true\n"
        'server_url = ""         # Supabase project ref, or a full ws:// or wss:// URL\n'
        "heartbeat_interval = 30 # seconds\n"
    )
    settings = load_settings(file, {})
    assert settings.enabled
    assert settings.source_of("heartbeat_interval").line == 4
    with pytest.raises(SettingsError) as caught:
        _ = settings.config
    assert str(caught.value) == f"no server: set server_url in {file}, PRESENCE_SERVER_URL or --server-url"
    file.write_text(file.read_text().replace('""', '"abcdefghijklmnopqrst"', 1))
    config = load_settings(file, {}).config
    assert config == PresenceConfig(project_ref="abcdefghijklmnopqrst", heartbeat_interval=30)
    address = config.address()
    assert (address.host, address.port, address.tls) == ("abcdefghijklmnopqrst.supabase.co", 443, True)
    assert address.target.startswith("/realtime/v1/websocket?")


def test_other_tables_are_other_programs(file: Path) -> None:
    file.write_text("title = 'x'\n[theme]\nname = 1\n[[servers]]\n[presence]\nenabled = false\n")
    settings = load_settings(file, {})
    assert not settings.enabled
    assert settings.warnings == ()


# ---------------------------------------------------------------------------------------------- permissions


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")
@pytest.mark.parametrize(
    ("text", "mode", "warning"),
    [
        ("api_key = 'planted-1'", 0o600, None),
        ("api_key = 'planted-1'", 0o644, "other users can read it, and it holds api_key: chmod 600 it"),
        ("access_token = 'planted-1'", 0o640, "and it holds access_token: chmod 600 it"),
        ("params = { a = 'planted-1' }", 0o604, "and it holds params: chmod 600 it"),
        ("server_url = 'ws://x?apikey=planted-1'", 0o644, "and it holds server_url: chmod 600 it"),
        ("api_key = 'a1'\nheaders = { a = 'planted-1' }", 0o644, "and it holds api_key and headers: chmod"),
        ("server_url = 'ws://x'\napi_key = ''\nparams = {}", 0o644, None),
        ("enabled = true", 0o664, "other users can write to it: chmod 600 it"),
    ],
)
def test_a_file_that_others_can_read(file: Path, text: str, mode: int, warning: str | None) -> None:
    file.write_text(f"[presence]\n{text}\n")
    file.chmod(mode)
    warnings = load_settings(file, {}).warnings
    assert len(warnings) == (warning is not None)
    assert all(found.startswith(f"{file}: ") and str(warning) in found for found in warnings)
    assert "planted" not in "".join(warnings)


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")
@pytest.mark.parametrize(
    ("mode", "owner", "refused"),
    [(0o600, 0, False), (0o644, 0, False), (0o620, 0, True), (0o602, 0, True), (0o600, 1, True)],
)
def test_a_command_in_a_file_that_others_can_change_is_not_run(
    file: Path, mode: int, owner: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes to the file could have us run anything. `owner`: how far the user id is from ours."""
    ran = file.with_name("ran")
    file.write_text(f"[presence]\nserver_url = 'ws://x'\naccess_token_command = ['touch', '{ran}']\n")
    file.chmod(mode)
    uid = os.stat(file).st_uid
    monkeypatch.setattr(os, "geteuid", lambda: uid + 7 * owner)
    if owner and not uid:
        os.chown(file, 12345, -1)
    if not refused:
        assert load_settings(file, {}).token_provider is not None
        return
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    (problem,) = caught.value.problems
    assert problem == (
        f"{file}: other users can change it, and with it the program that access_token_command runs: "
        "chmod 600 it, and make yourself its owner"
    )
    assert not ran.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_a_file_of_settings_may_be_a_pipe(tmp_path: Path) -> None:
    """As the shell's `<(command)` is one. A FIFO that nobody writes to is empty, and not waited for."""
    ours, theirs = os.pipe()
    os.write(theirs, b"[presence]\nserver_url = 'ws://x'\n")
    os.close(theirs)
    try:
        assert load_settings(Path(f"/dev/fd/{ours}"), {}).config.server_url == "ws://x"
    finally:
        os.close(ours)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert load_settings(fifo, {"PRESENCE_SERVER_URL": "ws://y"}).config.server_url == "ws://y"


# ---------------------------------------------------------------------------------------------- the keys


def test_every_field_of_the_config_is_a_setting() -> None:
    assert set(fields_dict(PresenceConfig)) - set(KEYS) == {"project_ref", "asks_for_token"}


def test_the_documentation_has_every_key_with_its_default() -> None:
    rows = {}
    for line in DOCUMENTATION.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            rows[cells[0].strip("`")] = cells[1]
    assert list(rows) == list(KEYS)
    for name, field in fields_dict(PresenceConfig).items():
        if name in KEYS and isinstance(field.default, (bool, int, float, str)):
            default = field.default
            text = str(default).lower() if isinstance(default, bool) else f'"{default}"'
            if isinstance(default, (int, float)) and not isinstance(default, bool):
                text = f"{default:g}" if default < 1000 else f"{default}"
            if name == "user_agent":  # it changes with each release, and with each Python
                assert default.startswith("presence-proto/")
                text = "presence-proto/…"
            assert rows[name] == f"`{text}`", name


@pytest.mark.parametrize("name", [name for name in KEYS if len(name) > 4])
def test_a_slip_of_the_pen_is_understood(name: str) -> None:
    for at in range(len(name)):
        meant = nearest(name[:at] + name[at + 1 :], list(KEYS))
        assert meant is not None
        assert meant == name or meant in name or name in meant


def test_long_quotes_are_left_out() -> None:
    assert without_long_quotes(f"a 'b' \"c\" '{LONG}' \"{LONG}\" {LONG!r}") == "a 'b' \"c\" … … …"
    tricky = LONG + "'\"\\"
    assert without_long_quotes(f"not {tricky!r}") == "not …"
    assert shown(tricky) == "a string of 53 characters"
    assert shown("\x1b") == "a string of 1 characters"
    assert shown(10**30) == "a number"
