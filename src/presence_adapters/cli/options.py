"""The options that all client commands share: `--config`, `--debug`, and a flag for each setting.

    @app.command()
    @settings_options()
    def online(settings: Settings) -> None:
        ...

Secrets have no flag, because every user of the machine can read the arguments of a process. A secret is set
in the environment, in the config file or in a separate file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from presence_adapters.cli.exits import Disabled, WrongUsage
from presence_adapters.cli.output import debug_log
from presence_adapters.settings.identity_file import IdentityError
from presence_adapters.settings.keys import FILE, KEYS, Key
from presence_adapters.settings.layers import Settings, load_settings
from presence_proto import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])

SHOWN: dict[str, tuple[str, str]] = {
    "server_url": ("URL", "The server: a ws:// or wss:// URL, or a Supabase project ref."),
    "api_key_file": ("FILE", "File with the API key of the project."),
    "access_token_file": ("FILE", "File with the access token (JWT) of the user."),
    "display_name": ("NAME", "Your display name, for this run only."),
    "identity_file": ("FILE", "File with your identity, instead of the default file."),
    "channel": ("CHANNEL", "The presence channel to join."),
    "visible": (
        "true|false",
        "Whether other users see you in the room.",
    ),
    "tls_ca": ("FILE", "File with certificates of authorities (CAs) to trust in addition to the system's."),
}
"""Metavar and help text of each flag that `--help` shows. The other flags work, but are hidden."""

CONFIG_HELP = (
    "File with the settings. Each setting that is not a secret can also be given as an option, such as "
    "--heartbeat-interval 20."
)

DEBUG_HELP = "Log all network traffic on stderr, with secrets redacted."


class Duration(click.FloatRange):
    """Parameter type: a duration from 0.001 to 1,000,000, in the option's unit. Rejects "inf" and "nan"."""

    def __init__(self) -> None:
        super().__init__(min=0.001, max=1e6)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Raises `click.BadParameter` for a value that is not a duration in the range."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


_PREFIX = "setting_"  # prefix of parameter names, because a command's argument may have a setting's name


def settings_options(*, even_if_disabled: bool = False, lazily: bool = False) -> Callable[[Command], Command]:
    """Add the options to a command, and pass the loaded `Settings` to the command as the keyword `settings`.

    Warnings are printed on stderr. When the settings or the command raise `ConfigError` or `IdentityError`,
    the process prints one line for each problem and exits with status 2. The setting `enabled = false` causes
    exit status 3, unless `even_if_disabled` is true. With `lazily`, the command gets the keyword `load`, a
    function that loads the settings, instead of `settings`. Such a command handles warnings, errors and
    `enabled` itself.
    """

    def decorated(command: Command) -> Command:
        @wraps(command)
        def with_settings(*args: Any, config: Path | None, debug: bool, **kwargs: Any) -> Any:
            flags = {name: kwargs.pop(_PREFIX + name) for name in KEYS if _PREFIX + name in kwargs}
            load = partial(load_settings, config, flags=flags)
            with debug_log() if debug else nullcontext():
                return in_log(load, *args, **kwargs)

        def in_log(load: Callable[[], Settings], *args: Any, **kwargs: Any) -> Any:
            if lazily:
                return command(*args, load=load, **kwargs)
            try:
                settings = load()
                for warning in settings.warnings:
                    click.echo(f"Warning: {warning}", err=True)
                if not (settings.enabled or even_if_disabled):
                    where = settings.source_of("enabled")
                    raise Disabled(
                        f"presence is switched off: {where} says enabled = false. "
                        "--enabled true overrides it for this run"
                    )
                return command(*args, settings=settings, **kwargs)
            except (ConfigError, IdentityError) as exc:
                raise WrongUsage(str(exc)) from None

        run: Callable[..., Any] = click.option("--debug", is_flag=True, help=DEBUG_HELP)(with_settings)
        for key in reversed([key for key in KEYS.values() if has_flag(key)]):
            run = _option(key)(run)
        config_type = click.Path(path_type=Path)
        return cast(
            "Command", click.option("--config", type=config_type, metavar="FILE", help=CONFIG_HELP)(run)
        )

    return decorated


def has_flag(key: Key) -> bool:
    """Whether a setting has a command-line flag. Secrets have no flag."""
    return not key.secret and key.kind.from_text is not None


def _option(key: Key) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    metavar, text = SHOWN.get(key.name, ("VALUE", ""))
    return click.option(
        key.flag,
        _PREFIX + key.name,
        type=click.Path() if key.kind is FILE else str,
        metavar=metavar,
        help=text,
        hidden=key.name not in SHOWN,
    )
