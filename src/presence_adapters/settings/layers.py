"""The settings of the `presence` command, in order of precedence: flags, environment, file, defaults.

    settings = load_settings(path, os.environ, {"heartbeat_interval": 20})
    client = PresenceClient(
        settings.identity(),
        settings.config,
        ssl_context=settings.ssl_context(),
        proxy=settings.proxy,
        access_token=settings.token_provider,
    )

`load_settings` reads the settings file and the files with secrets, but creates no identity and runs no
command. Only `identity` creates an identity, and only `access_token` runs a command. No repr, problem or
warning contains a secret.
"""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, fields_dict, frozen

from presence_adapters.errors import missing
from presence_adapters.settings.files import read_config_file, read_secret, run_for_secret, why_unreadable
from presence_adapters.settings.identity_file import StoredIdentity, load_identity, rename_identity
from presence_adapters.settings.keys import (
    ALTERNATIVES,
    BLANK,
    KEYS,
    Origin,
    SourcedValue,
    field_value,
    nearest,
    server_fields,
    without_long_quotes,
)
from presence_adapters.tls_and_proxies import client_context
from presence_proto import ConfigError, Identity, PresenceConfig

try:
    import platformdirs
except ModuleNotFoundError as exc:
    raise missing(exc, "cli") from None

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATH_VARIABLE = "PRESENCE_CONFIG"
TOKEN_TIMEOUT = 30.0
"""Default of `access_token_timeout`: maximum duration of a command that prints a token, in seconds."""


_FIELDS: dict[str, Any] = fields_dict(PresenceConfig)


class SettingsError(ConfigError):
    """The settings are invalid. Each line in `problems` names a place and the valid values. The message
    contains all these lines."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@frozen
class Settings:
    """The checked settings. `path` is the settings file, or `None` if no file was read.

    `warnings` are lines to show to people. The caller must not connect unless `enabled`.
    """

    path: Path | None
    warnings: tuple[str, ...]
    _entries: Mapping[str, SourcedValue] = field(repr=False)
    _config: PresenceConfig | None = field(repr=False)

    @property
    def enabled(self) -> bool:
        """Whether the user wants to use presence. If false, the caller must not connect."""
        return bool(self._value("enabled", True))

    @property
    def config(self) -> PresenceConfig:
        """The client's config. Raises `SettingsError` when no server is set.

        `config.access_token` is set only if a setting contains the token itself. The method
        `access_token` returns the token in every case.
        """
        if self._config is None:
            place = self.path or default_config_path()
            raise SettingsError(
                [f"no server: set server_url in {place}, PRESENCE_SERVER_URL or --server-url"]
            )
        return self._config

    @property
    def identity_path(self) -> Path:
        """The path of the identity file: `identity_file`, or `default_identity_path()`."""
        return Path(self._value("identity_file", None) or default_identity_path())

    def source_of(self, key: str) -> Origin:
        """Return the source of a setting's value. Raises `KeyError` for an unknown setting name."""
        KEYS[key]
        return self._entries[key].origin if key in self._entries else Origin("default")

    def stored_identity(self) -> StoredIdentity:
        """Return the identity in the identity file. A missing file is created. Raises `IdentityError`."""
        return load_identity(self.identity_path)

    def identity(self) -> Identity:
        """Return the user's stored identity, with the `display_name` of the settings if that is set.

        Raises `IdentityError`.
        """
        stored = self.stored_identity()
        return Identity(stored.user_id, self._value("display_name", stored.display_name))

    def rename(self, display_name: str) -> StoredIdentity:
        """Store a new display name. A `display_name` in the settings takes precedence: see `source_of`.

        Raises `ConfigError` for a name that is empty or not printable, and `IdentityError`.
        """
        return rename_identity(self.identity_path, display_name)

    def access_token(self) -> str | None:
        """Return the current access token, or `None` when none is set.

        Each call reads `access_token_file` or runs `access_token_command` again, if set. The
        command may take at most `access_token_timeout` seconds. Raises `SettingsError`.
        """
        for key in ("access_token_command", "access_token_file"):
            if key in self._entries:
                entry = self._entries[key]
                try:
                    return self._run(entry.value) if key.endswith("command") else read_secret(entry.value)[0]
                except ConfigError as exc:
                    raise SettingsError([f"{entry.origin}: {key}: {exc}"]) from None
        token: str | None = self._value("access_token", None)
        return token

    @property
    def token_provider(self) -> Callable[[], str | None] | None:
        """The `access_token` argument of a client: the method `access_token` if a file or command is set.

        Otherwise the value is `None`, because `config` contains a token that a setting contains directly.
        """
        keys = ("access_token_command", "access_token_file")
        return self.access_token if any(key in self._entries for key in keys) else None

    @property
    def proxy(self) -> str | None:
        """The proxy's URL, `""` for no proxy, or `None` to use the proxy of the environment."""
        proxy: str | None = self._value("proxy", None)
        return proxy

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return a TLS context that trusts `tls_ca` in addition to the system's certificate authorities.

        Return `None` if `tls_ca` is not set; the default context then applies. Raises `SettingsError`.
        """
        if "tls_ca" not in self._entries:
            return None
        try:
            return _context(self._entries["tls_ca"].value)
        except ConfigError as exc:
            raise SettingsError([f"{self._entries['tls_ca'].origin}: {exc}"]) from None

    def _run(self, command: Any) -> str:
        texts = [text for key in ("headers", "params") for _, text in self._value(key, ())]
        own = (self._value(key, "") for key in ("api_key", "proxy"))
        secrets = [*texts, *(word for text in texts for word in text.split()), *own]
        timeout = self._value("access_token_timeout", TOKEN_TIMEOUT)
        return run_for_secret(command, timeout, tuple(filter(None, secrets)))

    def _value(self, key: str, default: Any) -> Any:
        return self._entries[key].value if key in self._entries else default


def default_config_path() -> Path:
    """Return the path of the settings file that is read by default, if the file exists."""
    return platformdirs.user_config_path("presence", appauthor=False) / "config.toml"


def default_identity_path() -> Path:
    """Return the path of the identity file when `identity_file` is not set."""
    return platformdirs.user_data_path("presence", appauthor=False) / "identity.json"


def load_settings(
    path: Path | None = None, env: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """Read and check the settings.

    `path` is the settings file. The default is the path in `PRESENCE_CONFIG`, or else
    `default_config_path()`, which may be missing. `env` is the environment, by default `os.environ`; an empty
    variable counts as not set. `flags` are values by setting name; `None` means that a flag was not given.
    Raises `SettingsError` with all problems at once.
    """
    env = os.environ if env is None else env
    problems: list[str] = []
    warnings: list[str] = []
    found, in_file = _file_layer(path, env, problems, warnings)
    layers = [in_file, _env_layer(env, problems, warnings), _flag_layer(flags or {}, problems)]
    entries = _merged(layers, problems)
    _read_secret_files(entries, problems, warnings)
    if "tls_ca" in entries:
        try:
            _context(entries["tls_ca"].value)
        except ConfigError as exc:
            problems.append(f"{entries['tls_ca'].origin}: {exc}")
    config = _config(entries, problems)
    if problems:
        raise SettingsError(problems)
    return Settings(found, tuple(warnings), entries, config)


# ---------------------------------------------------------------------------------------------- layers


def _file_layer(
    path: Path | None, env: Mapping[str, str], problems: list[str], warnings: list[str]
) -> tuple[Path | None, dict[str, SourcedValue]]:
    who, needed = "", True
    if path is None and env.get(PATH_VARIABLE):
        path, who = Path(env[PATH_VARIABLE]), f"{PATH_VARIABLE}: "
    if path is None:
        path, needed = default_config_path(), False
    path = Path(os.path.expanduser(path))  # a shell expands "~" in --config FILE, but not in --config=FILE
    try:
        file = read_config_file(path)
    except FileNotFoundError:
        if needed:
            problems.append(f"{who}{path}: there is no such file")
        return None, {}
    problems += file.problems
    warnings += file.warnings
    return path, {name: _based(entry, path.parent) for name, entry in file.entries.items()}


def _based(entry: SourcedValue, folder: Path) -> SourcedValue:
    # A relative path in a settings file is relative to the file's folder.
    return SourcedValue(folder / entry.value, entry.origin) if isinstance(entry.value, Path) else entry


def _env_layer(env: Mapping[str, str], problems: list[str], warnings: list[str]) -> dict[str, SourcedValue]:
    variables = {key.variable: key for key in KEYS.values()}
    found: dict[str, SourcedValue] = {}
    for name, text in env.items():
        key = variables.get(name)
        if key is not None:
            _take(found, key.name, key.from_text, text, Origin("environment", name), problems)
        elif name.startswith("PRESENCE_") and name != PATH_VARIABLE:
            meant = nearest(name.removeprefix("PRESENCE_"), list(KEYS))
            if meant is not None:  # if `None`, the variable may belong to another program
                warnings.append(f"{name}: no such setting, did you mean {KEYS[meant].variable}?")
    return found


def _flag_layer(flags: Mapping[str, Any], problems: list[str]) -> dict[str, SourcedValue]:
    found: dict[str, SourcedValue] = {}
    for name, value in flags.items():
        key = KEYS[name]
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif isinstance(value, tuple):
            value = list(value)
        if value is not None:
            check = key.from_text if isinstance(value, str) else key.from_toml
            _take(found, name, check, value, Origin("flag", key.flag), problems)
    return found


def _take(
    found: dict[str, SourcedValue], name: str, check: Any, value: Any, origin: Origin, problems: list[str]
) -> None:
    try:
        checked = check(value)
    except ConfigError as exc:
        problems.append(f"{origin}: {exc}")
    else:
        if checked is not BLANK:
            found[name] = SourcedValue(checked, origin)


def _merged(layers: list[dict[str, SourcedValue]], problems: list[str]) -> dict[str, SourcedValue]:
    """Merge layers. A setting overrides the same setting and its `ALTERNATIVES` in earlier layers."""
    merged: dict[str, SourcedValue] = {}
    for layer in layers:
        for names in ALTERNATIVES:
            given = [name for name in names if name in layer]
            if given:
                for name in names:
                    merged.pop(name, None)
            for name in given[1:]:
                problems.append(f"{layer[name].origin}: give either {given[0]} or {name}")
        merged |= layer
    return merged


# ---------------------------------------------------------------------------------------------- combination


def _read_secret_files(entries: dict[str, SourcedValue], problems: list[str], warnings: list[str]) -> None:
    """Read the API key from its file, and check that the access token's file is readable.

    The token file is read again at each use.
    """
    for key, target in (("api_key_file", "api_key"), ("access_token_file", None)):
        if key in entries:
            path = entries[key].value
            try:
                secret, more = read_secret(path)
            except ConfigError as exc:
                problems.append(f"{entries[key].origin}: {key}: {exc}")
            else:
                warnings += more
                if target is not None:
                    entries[target] = SourcedValue(secret, Origin("file", str(path)))


def _config(entries: Mapping[str, SourcedValue], problems: list[str]) -> PresenceConfig | None:
    fields = {
        name: field_value(name, entry.value)
        for name, entry in entries.items()
        if name in _FIELDS and name != "server_url"
    }
    if not _delays_agree(fields, entries, problems) or "server_url" not in entries:
        return None
    server = server_fields(entries["server_url"].value)
    if fields.get("protocol") == "jarvis" and "project_ref" in server:
        needs = 'requires a whole URL in server_url: a Supabase project speaks "phoenix"'
        problems.append(f'{entries["protocol"].origin}: protocol "jarvis" {needs}')
        return None
    try:
        return PresenceConfig(**fields, **server)
    except ConfigError as exc:  # each value is valid alone, but two values conflict
        words = without_long_quotes(str(exc))
        first = next((name for name in re.findall(r"\w+", words) if name in entries), "server_url")
        problems.append(f"{entries[first].origin}: {words}")
        return None


def _delays_agree(
    fields: Mapping[str, Any], entries: Mapping[str, SourcedValue], problems: list[str]
) -> bool:
    names = ("max_reconnect_delay", "reconnect_delay")
    longest, first = (fields.get(name, _FIELDS[name].default) for name in names)
    if longest >= first:
        return True
    origin = next(entries[name].origin for name in names if name in entries)
    problems.append(
        f"{origin}: max_reconnect_delay ({longest:g}) must be at least reconnect_delay ({first:g})"
    )
    return False


def _context(path: Path) -> ssl.SSLContext:
    context = client_context(None)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise ConfigError(f"tls_ca: {path} does not contain a PEM certificate") from None
    except OSError as exc:
        raise ConfigError(f"tls_ca: cannot read {path}: {why_unreadable(exc)}") from None
    return context
