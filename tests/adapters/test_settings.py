"""Flags over environment over file over defaults; and what becomes of the settings."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import trustme

from presence_adapters.settings.layers import (
    SettingsError,
    default_config_path,
    default_identity_path,
    load_settings,
)
from presence_proto import Identity, PresenceConfig

URL = "ws://host.test"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads the settings, or makes an identity, of the person who runs it."""
    home = tmp_path / "home"
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "LOCALAPPDATA", "APPDATA"):
        monkeypatch.setenv(name, str(home))
    return home


def written(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["[presence]", *lines]))
    path.chmod(0o600)
    return path


def problems(*arguments: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(*arguments)
    return list(caught.value.problems)


# ---------------------------------------------------------------------------------------------- precedence


VALUES = [
    ("heartbeat_interval", "30", "20", 10, 25.0),
    ("channel", '"file"', "env", "flag", "jarvis-presence"),
    ("deflate", "false", "yes", False, True),
    ("jitter", "0.5", "0.75", "1", 0.25),
    ("max_channels", "10", "20", "30", 100),
    ("max_final_refusals", "0", "7", 8, 5),
    ("rejoin_after_close", "false", "yes", False, True),
    ("track_limit", "0", "7", 8, 5),
    ("subprotocols", '["a"]', "b, c", ("d",), ()),
    ("vsn", '"1.0.0"', "2.0.0", "1.0.0", "2.0.0"),
]
PYTHON = {
    "30": 30,
    '"file"': "file",
    "false": False,
    "yes": True,
    "0": None,
    '["a"]': ("a",),
    "b, c": ("b", "c"),
}
PYTHON |= {'"1.0.0"': "1.0.0", "1": 1, "0.5": 0.5, "0.75": 0.75, "10": 10, "20": 20, "7": 7}


@pytest.mark.parametrize(("key", "in_file", "in_env", "flag", "default"), VALUES, ids=[v[0] for v in VALUES])
def test_flags_go_over_the_environment_which_goes_over_the_file(
    tmp_path: Path, key: str, in_file: str, in_env: str, flag: Any, default: Any
) -> None:
    file = written(tmp_path / "c.toml", f"{key} = {in_file}")
    env = {f"PRESENCE_{key.upper()}": in_env}
    for layers in range(8):
        path = file if layers & 1 else written(tmp_path / "empty.toml")
        variables = (env if layers & 2 else {}) | {"PRESENCE_SERVER_URL": URL}
        flags = {key: flag if layers & 4 else None}
        settings = load_settings(path, variables, flags)
        source = settings.source_of(key)
        value = getattr(settings.config, key)
        if layers & 4:
            assert value == (int(flag) if isinstance(flag, str) and flag.isdigit() else flag)
            assert (source.kind, str(source)) == ("flag", f"--{key.replace('_', '-')}")
        elif layers & 2:
            assert value == PYTHON.get(in_env, in_env)
            assert (source.kind, str(source)) == ("environment", f"PRESENCE_{key.upper()}")
        elif layers & 1:
            assert value == PYTHON[in_file]
            assert (source.kind, str(source)) == ("file", f"{file}:2")
        else:
            assert value == default
            assert (source.kind, str(source)) == ("default", "the default")


def test_what_is_empty_is_not_set(tmp_path: Path) -> None:
    file = written(
        tmp_path / "c.toml", 'server_url = "abc"', 'api_key = ""', 'display_name = ""', 'protocol = ""'
    )
    settings = load_settings(file, {"PRESENCE_SERVER_URL": "", "PRESENCE_JITTER": ""}, {"server_url": None})
    assert settings.config == PresenceConfig(project_ref="abc")
    assert str(settings.source_of("protocol")) == "the default"


def test_an_empty_string_turns_off_what_has_a_default(tmp_path: Path) -> None:
    file = written(tmp_path / "c.toml", f'server_url = "{URL}"', 'user_agent = ""')
    assert load_settings(file, {}).config.user_agent is None


def test_an_empty_token_param_is_an_error_that_names_the_setting_for_it(tmp_path: Path) -> None:
    file = written(tmp_path / "c.toml", f'server_url = "{URL}"', 'token_param = ""')
    (problem,) = problems(file, {})
    assert problem.startswith(f"{file}:3: token_param must name a parameter")
    assert problem.endswith("set token_in to 'none'")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['server_url = "{url}?vsn=1.0.0"'], ":2: server_url must have the same vsn as the vsn field"),
        (['server_url = "{url}#top"'], ":2: server_url must not hold a fragment"),
        (['server_url = "{url}?a=b#top"'], ":2: server_url must not hold a fragment"),
        (
            ['server_url = "{url}?apikey=secret"', 'api_key = "k"'],
            ":2: the apikey in server_url or params differs from the api_key field",
        ),
        (['server_url = "{url}"', 'token_param = "jwt"'], ":3: token_param has no effect without"),
        (
            ['server_url = "{url}:8790"', 'token_in = "subprotocol"'],
            ":3: token_in 'subprotocol' is for Phoenix: the Jarvis JSON protocol takes",
        ),
        (
            [
                'server_url = "{url}"',
                'subprotocols = ["base64url.bearer.phx.YQ"]',
                'token_in = "subprotocol"',
            ],
            ":3: subprotocols must not contain",
        ),
        (
            ['server_url = "{url}"', 'token_in = "subprotocol"', 'access_token = "is-it-a-secret?"'],
            ":4: access_token cannot be sent as a subprotocol",
        ),
    ],
)
def test_two_settings_that_do_not_go_together_are_an_error_with_a_place(
    tmp_path: Path, lines: list[str], words: str
) -> None:
    file = written(tmp_path / "c.toml", *(line.replace("{url}", URL) for line in lines))
    (problem,) = problems(file, {})
    assert problem.startswith(f"{file}{words}")
    assert "secret" not in problem


def test_a_url_may_say_what_the_settings_say(tmp_path: Path) -> None:
    file = written(
        tmp_path / "c.toml", f'server_url = " {URL}?vsn=1.0.0&apikey=k "', 'vsn = "1.0.0"', 'api_key = "k"'
    )
    target = load_settings(file, {}).config.address().target
    assert target == "/realtime/v1/websocket?apikey=k&vsn=1.0.0"


def test_everything_of_the_config_can_be_set(tmp_path: Path) -> None:
    file = written(
        tmp_path / "c.toml",
        f'server_url = "{URL}"',
        'api_key = "key"',
        'access_token = "token"',
        'protocol = "phoenix"',
        'token_in = "query"',
        'token_param = "jwt"',
        "track_window = 5",
        "[presence.params]",
        'a = "b"',
        "[presence.headers]",
        'X-A = "b"',
    )
    assert load_settings(file, {}).config == PresenceConfig(
        server_url=URL,
        api_key="key",
        access_token="token",
        protocol="phoenix",
        token_in="query",
        token_param="jwt",
        track_window=5,
        params={"a": "b"},
        headers={"X-A": "b"},
    )


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "HEARTBEAT_INTERVAL",
            "soon",
            'heartbeat_interval must be a number of seconds, such as 30, not "soon"',
        ),
        ("HEARTBEAT_INTERVAL", "nan", "heartbeat_interval must be a finite number"),
        ("HEARTBEAT_INTERVAL", "-1", "heartbeat_interval must be at least 0.001 seconds, not -1.0"),
        ("ENABLED", "maybe", 'enabled must be true or false, not "maybe"'),
        ("MAX_ROSTER", "1e3", 'max_roster must be a whole number, such as 100, not "1e3"'),
        ("PROTOCOL", "x" * 30, 'protocol must be "phoenix" or "jarvis", not a string of 30 characters'),
        ("DISPLAY_NAME", "\udcff", "display_name is not valid UTF-8"),
        ("HEADERS", "a=b", "headers can be set in the file only"),
        ("ACCESS_TOKEN_COMMAND", "a 'b", "access_token_command has a quotation mark that is never closed"),
        ("SERVER_URL", "a/b", "server_url must be a Supabase project ref"),
    ],
)
def test_a_wrong_variable_is_named(name: str, text: str, problem: str) -> None:
    (found,) = problems(None, {f"PRESENCE_{name}": text})
    assert found.startswith(f"PRESENCE_{name}: {problem}")


def test_a_wrong_flag_is_named_and_so_is_all_the_rest(tmp_path: Path) -> None:
    file = written(tmp_path / "c.toml", "jitter = 2", "vsn = 1")
    found = problems(file, {"PRESENCE_JITTER": "3"}, {"jitter": 4.5, "tls_ca": tmp_path})
    assert [problem.partition(": ")[0] for problem in found] == [
        f"{file}:2",
        f"{file}:3",
        "PRESENCE_JITTER",
        "--jitter",
        "--tls-ca",
    ]


def test_a_flag_that_is_none_is_a_bug() -> None:
    with pytest.raises(KeyError):
        load_settings(None, {}, {"nonsense": 1})
    with pytest.raises(KeyError):
        load_settings(None, {}).source_of("nonsense")


def test_a_variable_that_is_misspelt_gets_a_warning_and_others_none() -> None:
    env = {"PRESENCE_SERVR_URL": "planted-1", "PRESENCE_REQUIRE_NODE": "1", "PRESENCE": "1", "PATH": "x"}
    assert load_settings(None, env).warnings == (
        "PRESENCE_SERVR_URL: no such setting, did you mean PRESENCE_SERVER_URL?",
    )


@pytest.mark.parametrize("where", ["flags", "environment"])
def test_the_delays_must_agree_wherever_they_come_from(tmp_path: Path, where: str) -> None:
    file = written(tmp_path / "c.toml", "reconnect_delay = 10")
    if where == "flags":
        arguments: tuple[Any, ...] = (file, {}, {"max_reconnect_delay": 5})
    else:
        arguments = (file, {"PRESENCE_MAX_RECONNECT_DELAY": "5"})
    name = "--max-reconnect-delay" if where == "flags" else "PRESENCE_MAX_RECONNECT_DELAY"
    assert problems(*arguments) == [f"{name}: max_reconnect_delay (5) must be at least reconnect_delay (10)"]


def test_jarvis_needs_a_url() -> None:
    (problem,) = problems(None, {"PRESENCE_SERVER_URL": "abc"}, {"protocol": "jarvis"})
    assert problem == (
        '--protocol: protocol "jarvis" requires a whole URL in server_url: '
        'a Supabase project speaks "phoenix"'
    )
    assert load_settings(None, {}, {"server_url": URL, "protocol": "jarvis"}).config.speaks_jarvis


# ---------------------------------------------------------------------------------------------- which file


def test_the_file_is_that_of_the_flag_or_the_variable_or_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings(None, {}).path is None
    usual = written(default_config_path(), "jitter = 0.1")
    assert load_settings(None, {}).path == usual
    named = written(tmp_path / "named.toml", "jitter = 0.2")
    assert load_settings(None, {"PRESENCE_CONFIG": str(named)}).path == named
    assert load_settings(None, {"PRESENCE_CONFIG": ""}).path == usual
    given = written(tmp_path / "given.toml", "jitter = 0.3")
    assert load_settings(given, {"PRESENCE_CONFIG": str(named)}).path == given
    monkeypatch.setenv("PRESENCE_CONFIG", str(named))
    assert load_settings().path == named
    assert problems(None, {"PRESENCE_CONFIG": "/nowhere/c.toml"}) == [
        "PRESENCE_CONFIG: /nowhere/c.toml: there is no such file"
    ]


def test_a_tilde_is_the_home_folder_wherever_the_file_is_named(home: Path) -> None:
    written(home / "named.toml", "jitter = 0.2")
    assert load_settings(Path("~/named.toml"), {}).path == home / "named.toml"
    assert load_settings(None, {"PRESENCE_CONFIG": "~/named.toml"}).path == home / "named.toml"


@pytest.mark.skipif(os.name != "posix", reason="such a home is usual there")
def test_a_home_that_is_no_folder_has_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, "/dev/null")
    assert load_settings(None, {}).path is None
    assert problems(Path("/dev/null/c.toml"), {}) == ["/dev/null/c.toml: there is no such file"]


def test_the_paths_are_the_platforms() -> None:
    assert default_config_path() == Path(platformdirs.user_config_dir("presence", False)) / "config.toml"
    assert default_identity_path() == Path(platformdirs.user_data_dir("presence", False)) / "identity.json"


def test_a_relative_path_in_a_file_starts_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "sub" / "c.toml", 'identity_file = "me.json"')
    assert load_settings(file, {}).identity_path == tmp_path / "sub" / "me.json"
    assert load_settings(file, {"PRESENCE_IDENTITY_FILE": "me.json"}).identity_path == Path("me.json")
    written(file, 'identity_file = "~/me.json"')
    monkeypatch.setenv("USERPROFILE", os.environ["HOME"])
    assert load_settings(file, {}).identity_path == Path(os.environ["HOME"]) / "me.json"


# ---------------------------------------------------------------------------------------------- identity


def test_the_identity_is_made_when_it_is_asked_for() -> None:
    settings = load_settings(None, {})
    assert settings.identity_path == default_identity_path()
    assert not settings.identity_path.exists()
    stored = settings.stored_identity()
    assert settings.identity() == Identity(stored.user_id, stored.display_name)
    assert load_settings(None, {}).identity() == settings.identity()


def test_a_display_name_of_the_settings_goes_over_the_stored_one() -> None:
    plain = load_settings(None, {})
    named = load_settings(None, {"PRESENCE_DISPLAY_NAME": "Ann"})
    assert plain.rename("Zoë").name_chosen
    assert plain.identity().display_name == "Zoë"
    assert named.identity() == Identity(plain.identity().user_id, "Ann")
    assert named.stored_identity().display_name == "Zoë"


# ---------------------------------------------------------------------------------------------- TLS


def test_the_context_trusts_the_authority_too(tmp_path: Path) -> None:
    authority = trustme.CA()
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    context = load_settings(None, {}, {"tls_ca": path}).ssl_context()
    assert context is not None
    usual = ssl.create_default_context()
    assert context.cert_store_stats()["x509_ca"] == usual.cert_store_stats()["x509_ca"] + 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert load_settings(None, {}).ssl_context() is None


def test_an_authority_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    env = {"PRESENCE_TLS_CA": str(path)}
    assert problems(None, env) == [f"PRESENCE_TLS_CA: tls_ca: cannot read {path}: no such file or directory"]
    path.write_text("no certificate")
    assert problems(None, env) == [f"PRESENCE_TLS_CA: tls_ca: {path} does not contain a PEM certificate"]
    trustme.CA().cert_pem.write_to_path(path)
    settings = load_settings(None, env)
    path.unlink()
    with pytest.raises(SettingsError, match="PRESENCE_TLS_CA: tls_ca: cannot read"):
        settings.ssl_context()


# ---------------------------------------------------------------------------------------------- proxies


def test_the_proxy(tmp_path: Path) -> None:
    file = written(tmp_path / "c.toml", 'proxy = "http://ann:s3cret@proxy.test:3128"')
    assert load_settings(file, {}).proxy == "http://ann:s3cret@proxy.test:3128"
    assert load_settings(file, {"PRESENCE_PROXY": "other.test:1"}).proxy == "other.test:1"
    assert load_settings(file, {"PRESENCE_PROXY": ""}).proxy == "http://ann:s3cret@proxy.test:3128"
    assert "s3cret" not in repr(load_settings(file, {}))


def test_no_proxy(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path / "c.toml", 'proxy = ""'), {}).proxy == ""
    assert load_settings(written(tmp_path / "c.toml"), {}).proxy is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            '"https://ann:s3cret@proxy.test"',
            (
                "proxy must not start with https://: TLS to the proxy itself is not supported. Most proxies "
                "for HTTPS traffic have an http:// URL"
            ),
        ),
        ('"http://ann:s3cret@proxy.test/x"', "proxy must not have a path, a query or a fragment"),
        ('"http://ann:s3cret@proxy test"', "proxy 'proxy test' is not a host name"),
        ('"http://ann:s3cret@proxy.test:port"', "proxy is not a URL: its host or port is malformed"),
        (
            "3128",
            (
                "proxy must be the URL of a proxy, such as http://proxy.example:3128 or "
                "socks5://proxy.example, not a number"
            ),
        ),
    ],
)
def test_a_proxy_that_is_none(tmp_path: Path, value: str, problem: str) -> None:
    file = written(tmp_path / "c.toml", f"proxy = {value}")
    assert problems(file, {}) == [f"{file}:2: {problem}"]
